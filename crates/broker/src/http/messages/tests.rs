//! Messages are let in whole, within bounds, and accounted.

use futures::StreamExt;
use hyper::body::Body as _;

use super::*;

const MAX: usize = 1 << 20;

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

/// A request whose bytes arrive in these chunks.
fn arriving(chunks: Vec<Vec<u8>>, budget: &RequestBudget, held_until: Until) -> Messages {
    let chunks = futures::stream::iter(chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk))));
    Messages::new(Body::from_stream(chunks), budget.clone(), MAX, held_until, Arc::default())
}

async fn next(messages: &mut Messages) -> Option<Result<Bytes, Status>> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *messages).poll_frame(context)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

async fn all(mut messages: Messages) -> Result<Vec<u8>, Status> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next(&mut messages).await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

#[tokio::test]
async fn messages_come_through_whole_however_they_are_cut() {
    let sent: Vec<u8> = [0, 1, 5, 3000, 0, 70_000].iter().flat_map(|size| framed(&vec![7; *size])).collect();
    for size in [1, 4, 5, 6, 1000, 16_384, sent.len()] {
        let budget = RequestBudget::new(1 << 20);
        let chunks = sent.chunks(size).map(<[u8]>::to_vec).collect();
        assert_eq!(all(arriving(chunks, &budget, Until::AskedForMore)).await.unwrap(), sent, "chunks of {size}");
    }
}

#[tokio::test]
async fn nothing_of_a_message_is_handed_on_before_all_of_it_is_there() {
    let mut sent = framed(&[7; 100]);
    let rest = sent.split_off(50);
    let (first, second) = (Bytes::from(sent), Bytes::from(rest));
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(first.clone())]).chain(futures::stream::pending());
    let mut messages =
        Messages::new(Body::from_stream(chunks), RequestBudget::new(MAX), MAX, Until::Answered, Arc::default());
    assert!(futures::poll!(std::pin::pin!(next(&mut messages))).is_pending());
    messages.take(second.clone()).unwrap();
    assert_eq!(next(&mut messages).await.unwrap().unwrap(), first);
    assert_eq!(next(&mut messages).await.unwrap().unwrap(), second);
}

#[tokio::test]
async fn a_message_in_frames_of_a_byte_takes_about_what_it_brings_and_comes_through() {
    let sent = framed(&(0..300_000_u32).map(|n| n as u8).collect::<Vec<u8>>());
    let (last, rest) = sent.split_last().unwrap();
    let mut messages = arriving(Vec::new(), &RequestBudget::new(MAX), Until::Answered);
    for (index, byte) in rest.iter().enumerate() {
        messages.take(Bytes::copy_from_slice(std::slice::from_ref(byte))).unwrap();
        let held: usize = messages.held.iter().map(Bytes::len).sum();
        assert!(index % 1000 > 0 || held + messages.small.len() == index + 1);
    }
    assert!(messages.held.len() <= rest.len() / TOGETHER_BYTES + 1, "{} chunks", messages.held.len());
    assert_eq!(messages.held_bytes, rest.len());
    messages.take(Bytes::copy_from_slice(std::slice::from_ref(last))).unwrap();
    assert_eq!((messages.held_bytes, messages.small.len()), (0, 0));
    let mut come = Vec::new();
    while let Some(chunk) = messages.whole.pop_front() {
        come.extend_from_slice(&chunk);
    }
    assert_eq!(come, sent);
}

#[tokio::test]
async fn what_is_no_message_is_refused_by_the_table() {
    let budget = RequestBudget::new(MAX);
    let too_large = [&[0][..], &(MAX as u32 + 1).to_be_bytes()].concat();
    let mut cut = framed(&[7; 100]);
    cut.truncate(60);
    let cases = [
        (too_large, "a message of 1048577 bytes"),
        (b"{\"topic\":\"t\"}".to_vec(), "begins with"),
        (cut, "ends in the middle"),
    ];
    for (sent, expected) in cases {
        let refused = all(arriving(vec![sent], &budget, Until::Answered)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(expected) && !refused.details().is_empty(), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stalls_is_given_up_and_a_pause_between_messages_is_not() {
    let stalls = |sent: Vec<u8>| {
        let chunks = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(sent))]);
        let body = Body::from_stream(chunks.chain(futures::stream::pending()));
        Messages::new(body, RequestBudget::new(MAX), MAX, Until::AskedForMore, Arc::default())
    };
    let mut half = framed(&[7; 100]);
    half.truncate(3);
    let refused = all(stalls(half)).await.unwrap_err();
    assert!(refused.message().contains("nothing arrived for 30 s"), "{refused}");
    let mut between = stalls(framed(&[7; 100]));
    next(&mut between).await.unwrap().unwrap();
    tokio::time::timeout(10 * STALL_MAX, next(&mut between)).await.unwrap_err();
}

#[tokio::test]
async fn what_has_arrived_is_accounted_until_it_is_worked_on() {
    let budget = RequestBudget::new(64 << 10);
    let chunks = || framed(&[7; 40_000]).chunks(10_000).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let memory = Arc::new(Mutex::new(RequestMemory::default()));
    let mut first = arriving(chunks(), &budget, Until::Answered);
    first.memory = Arc::clone(&memory);
    all(first).await.unwrap();
    assert!(memory.lock().unwrap().bytes() >= 40_000, "a unary call is worked on until it is answered");
    let mut waiting = arriving(chunks(), &budget, Until::Answered);
    let mut second = std::pin::pin!(next(&mut waiting));
    // One request may go beyond the budget; another one waits for it.
    assert!(futures::poll!(&mut second).is_ready());
    let mut third = arriving(chunks(), &budget, Until::Answered);
    let mut third = std::pin::pin!(next(&mut third));
    assert!(futures::poll!(&mut third).is_pending(), "there is no room");
    drop(memory);
    assert!(third.await.unwrap().is_ok(), "there is room again");
}

#[tokio::test]
async fn a_stream_holds_nothing_between_its_messages() {
    let budget = RequestBudget::new(64 << 10);
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(framed(&[7; 40_000])))]);
    let body = Body::from_stream(chunks.chain(futures::stream::pending()));
    let mut messages = Messages::new(body, budget, MAX, Until::AskedForMore, Arc::default());
    next(&mut messages).await.unwrap().unwrap();
    assert!(messages.memory.lock().unwrap().bytes() >= 40_000);
    assert!(futures::poll!(std::pin::pin!(next(&mut messages))).is_pending());
    assert_eq!(messages.memory.lock().unwrap().bytes(), 0);
}

#[tokio::test]
async fn what_a_stream_collects_is_accounted_for_until_it_is_settled_and_keeps_nobody_waiting_for_ever() {
    const KIB: usize = 1024;
    let budget = RequestBudget::new(64 * KIB);
    let free = || budget.units_free();
    let message = framed(&[7; 10 * KIB - HEAD_BYTES]);
    let stream = |count| {
        let settled = Settled::default();
        let chunks = futures::stream::iter(vec![message.clone(); count])
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
        let body = Body::from_stream(chunks.chain(futures::stream::pending()));
        (Messages::new(body, budget.clone(), MAX, Until::Settled(settled.clone()), Arc::default()), settled)
    };
    let (mut one, one_settled) = stream(5);
    let (mut other, other_settled) = stream(9);
    for _ in 0..4 {
        next(&mut one).await.unwrap().unwrap();
    }
    assert_eq!(free(), 24, "what it collects still counts");
    // The third does not fit: one request may go beyond the budget, and that is this one.
    for _ in 0..3 {
        next(&mut other).await.unwrap().unwrap();
    }
    let (mut third, _) = stream(1);
    assert!(futures::poll!(std::pin::pin!(next(&mut third))).is_pending());
    assert!(futures::poll!(std::pin::pin!(next(&mut one))).is_pending(), "it waits, and holds what it has");
    one_settled.tell();
    next(&mut one).await.unwrap().unwrap();
    next(&mut third).await.unwrap().unwrap();
    drop(third);
    other_settled.tell();
    for _ in 0..6 {
        next(&mut other).await.unwrap().unwrap();
    }
    drop((one, other));
    assert_eq!(free(), 64, "everything was given back");
}
