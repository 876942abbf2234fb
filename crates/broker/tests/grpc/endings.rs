//! How streams end: by what a client says wrong, and by the end of the broker. What has no answer was not stored.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use lakebed_broker::{Config, Rooms, RunError};
use lakebed_store::MemoryBackend;
use lakebed_wire::v1;
use lakebed_wire::v1::produce_stream_request::Request as Say;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::client::{Running, Stream, batch, connect, memory, reason, say, values};
use crate::faults::gated;

/// Makes a call with one answer, which is thrown away.
async fn unary(
    address: std::net::SocketAddr,
    path: &'static str,
    request: impl prost::Message + 'static,
) -> Result<(), Status> {
    let mut grpc = Grpc::new(connect(address).await);
    grpc.ready().await.unwrap();
    let codec: ProstCodec<_, ()> = ProstCodec::default();
    grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await.map(drop)
}

/// Waits until the write path holds more than so many bytes; answers how many.
async fn taken(rooms: &Rooms, bytes: usize) -> usize {
    loop {
        let now = rooms.ingest.buffer_bytes() - rooms.ingest.free_bytes();
        if now > bytes {
            return now;
        }
        tokio::task::yield_now().await;
    }
}

fn init(topic: &str) -> v1::ProduceStreamRequest {
    say(Say::Init(v1::ProduceInit { topic: topic.to_owned(), partition: Some(0) }))
}

#[tokio::test]
async fn what_does_not_open_a_stream_ends_it_with_a_reason() {
    let config = Config { auto_create_topics: false, ..Config::default() };
    let broker = Running::on(memory(&Arc::default()), config).await;
    broker.topic("t", 1).await;
    let partition = v1::ProduceInit { topic: "t".to_owned(), partition: Some(1) };
    let cases = [
        (Some(say(Say::Batch(batch(1, &[b"x"])))), "InvalidArgument INVALID_REQUEST"),
        (Some(v1::ProduceStreamRequest { request: None }), "InvalidArgument INVALID_REQUEST"),
        (None, "InvalidArgument INVALID_REQUEST"),
        (Some(init("nobody")), "NotFound TOPIC_NOT_FOUND"),
        (Some(say(Say::Init(partition))), "NotFound PARTITION_NOT_FOUND"),
    ];
    for (request, expected) in cases {
        let (requests, mut responses) = Stream::raw(broker.http).await;
        match &request {
            Some(request) => requests.send(request.clone()).await.unwrap(),
            None => drop(requests),
        }
        let refused = responses.next().await.unwrap().unwrap_err();
        assert_eq!(reason(&refused), expected, "{request:?}");
    }
    assert!(values(&broker.rooms, "t", 0).await.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn a_wrong_message_ends_the_stream_when_what_came_before_it_is_answered() {
    let broker = Running::in_memory().await;
    broker.topic("t", 1).await;
    let mut stored = 0;
    for wrong in [init("t"), v1::ProduceStreamRequest { request: None }] {
        let mut stream = Stream::open(broker.http, "t", Some(0)).await;
        for id in 0..20 {
            stream.send(batch(id, &[b"x"])).await;
        }
        stream.requests.as_ref().unwrap().send(wrong).await.unwrap();
        // What follows is not read.
        for id in 20..40 {
            let request = say(Say::Batch(batch(id, &[b"y"])));
            if stream.requests.as_ref().unwrap().send(request).await.is_err() {
                break;
            }
        }
        let (told, ended) = stream.rest().await;
        let expected: Vec<_> = (0..20).map(|id| (id as u64, Ok((0, stored + id, stored + id)))).collect();
        assert_eq!(told, expected);
        assert_eq!(reason(&ended.unwrap()), "InvalidArgument INVALID_REQUEST");
        stored += 20;
    }
    assert_eq!(values(&broker.rooms, "t", 0).await, vec![Bytes::from_static(b"x"); 40]);
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_that_stops_answers_what_it_has_read_and_what_has_no_answer_is_not_there() {
    let backend = Arc::new(MemoryBackend::default());
    let broker = Running::on(memory(&backend), Config::default()).await;
    broker.topic("t", 1).await;
    let mut streams = Vec::new();
    for stream in 0..3_u64 {
        let mut open = Stream::open(broker.http, "t", Some(0)).await;
        let requests = open.requests.take().unwrap();
        tokio::spawn(async move {
            for id in 0.. {
                let request = say(Say::Batch(batch(id, &[format!("{stream}:{id}").as_bytes()])));
                if requests.send(request).await.is_err() {
                    return;
                }
            }
        });
        streams.push(open);
    }
    // Each has been answered, and more is on its way.
    let mut told: Vec<Vec<_>> = Vec::new();
    for stream in &mut streams {
        let mut first = Vec::new();
        for _ in 0..50 {
            first.push(stream.hear().await.unwrap().unwrap());
        }
        told.push(first);
    }
    let ended = tokio::spawn(broker.stop());
    let mut stored = 0;
    for (index, stream) in streams.iter_mut().enumerate() {
        let (rest, ended) = stream.rest().await;
        let ended = ended.unwrap();
        assert_eq!(reason(&ended), "Unavailable SHUTTING_DOWN", "{ended}");
        told[index].extend(rest);
        for (place, (id, outcome)) in told[index].iter().enumerate() {
            assert_eq!(*id, place as u64);
            match outcome {
                Ok(_) => stored += 1,
                Err(refused) => assert_eq!(refused, "Unavailable SHUTTING_DOWN"),
            }
        }
    }
    ended.await.unwrap();
    let broker = Running::on(memory(&backend), Config::default()).await;
    let there = values(&broker.rooms, "t", 0).await;
    assert_eq!(there.len(), stored, "what has no answer is there, or what was acknowledged is not");
    for (stream, told) in told.iter().enumerate() {
        for (id, outcome) in told {
            if let Ok((_, base, _)) = outcome {
                assert_eq!(there[*base as usize], format!("{stream}:{id}"));
            }
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn streams_that_say_nothing_end_when_the_broker_stops() {
    let broker = Running::in_memory().await;
    broker.topic("t", 1).await;
    let mut open = Stream::open(broker.http, "t", Some(0)).await;
    let (_requests, mut silent) = Stream::raw(broker.http).await;
    broker.stop().await;
    assert_eq!(reason(&open.hear().await.unwrap_err()), "Unavailable SHUTTING_DOWN");
    assert_eq!(reason(&silent.next().await.unwrap().unwrap_err()), "Unavailable SHUTTING_DOWN");
}

#[tokio::test]
async fn a_store_that_takes_nothing_while_the_broker_stops_leaves_fates_unknown_and_every_call_says_so() {
    let (gate, store) = gated();
    let broker = Running::on(store, Config::default()).await;
    broker.topic("t", 1).await;
    let mut open = Stream::open(broker.http, "t", Some(0)).await;
    let mut closed = Stream::open(broker.http, "t", Some(0)).await;
    gate.close();
    let create = v1::CreateTopicRequest { name: "u".to_owned(), ..Default::default() };
    let creating = tokio::spawn(unary(broker.http, "/lakebed.v1.AdminService/CreateTopic", create));
    gate.asked().await;
    let records =
        v1::Records { records: vec![v1::Record { value: Some(b"perhaps"[..].into()), ..Default::default() }] };
    let payload = Some(v1::produce_request::Payload::Records(records));
    let one = v1::ProduceRequest { topic: "t".to_owned(), partition: Some(0), payload, ..Default::default() };
    let producing = tokio::spawn(unary(broker.http, "/lakebed.v1.ProduceService/Produce", one));
    let mut held = taken(&broker.rooms, 0).await;
    open.send(batch(0, &[b"perhaps"])).await;
    held = taken(&broker.rooms, held).await;
    closed.send(batch(0, &[b"perhaps"])).await;
    closed.close();
    taken(&broker.rooms, held).await;
    // From here on only the clock has to move.
    tokio::time::pause();
    drop(broker.rooms);
    broker.stop.send(()).unwrap();
    for stream in [&mut open, &mut closed] {
        let (told, ended) = stream.rest().await;
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(reason(&ended.unwrap()), "Unknown OUTCOME_UNKNOWN");
    }
    for call in [creating, producing] {
        assert_eq!(reason(&call.await.unwrap().unwrap_err()), "Unknown OUTCOME_UNKNOWN");
    }
    assert!(matches!(broker.ended.await.unwrap().unwrap_err(), RunError::NotDrained));
}
