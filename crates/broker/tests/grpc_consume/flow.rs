//! Credit, sizes of messages, and clients that don't read.

use bytes::Bytes;
use lakebed_broker::Config;
use lakebed_wire::v1;
use lakebed_wire::v1::consume_response::Response;
use lakebed_wire::v1::start_position::Position;
use prost::Message;

use crate::client::{MUCH, Running, TOPIC, all, all_there_is, offsets, values};

/// Proves that nothing more is sent: the answer to a seek of another partition comes first.
async fn is_silent(stream: &mut crate::client::Stream) {
    stream.seek(99, 1, Position::Latest(v1::Latest {}));
    match stream.next().await.unwrap() {
        Response::SeekAck(ack) => assert_eq!(ack.seek_id, 99),
        other => panic!("without credit came {other:?}"),
    }
}

#[tokio::test]
async fn records_come_up_to_the_credit_and_no_further() {
    let (broker, mut client) = Running::with_topic(2).await;
    client.produce(0, (0..100).map(|_| vec![b'v'; 10])).await;
    let mut stream = client.open(all()).await.unwrap();
    stream.heartbeat().await;
    is_silent(&mut stream).await;
    stream.grant(MUCH, 0);
    is_silent(&mut stream).await;
    stream.grant(0, 7);
    assert_eq!(offsets(&stream.batch().await).len(), 7);
    is_silent(&mut stream).await;
    stream.grant(0, 3);
    assert_eq!(offsets(&stream.batch().await).len(), 3);
    is_silent(&mut stream).await;
    drop(stream);

    let mut stream = client.open(all()).await.unwrap();
    stream.heartbeat().await;
    stream.grant(0, MUCH);
    is_silent(&mut stream).await;
    stream.grant(35, 0);
    // Three fit; for what is left one more comes, which takes the credit 5 below zero.
    assert_eq!(offsets(&stream.batch().await).len(), 3);
    assert_eq!(offsets(&stream.batch().await).len(), 1);
    is_silent(&mut stream).await;
    stream.grant(5, 0);
    is_silent(&mut stream).await;
    stream.grant(1, 0);
    assert_eq!(offsets(&stream.batch().await).len(), 1);
    is_silent(&mut stream).await;
    drop((stream, client));
    broker.stop().await;
}

#[tokio::test]
async fn whole_batches_take_the_credit_below_zero_once() {
    let (broker, mut client) = Running::with_topic(2).await;
    for _ in 0..10 {
        client.produce(0, (0..10).map(|_| vec![b'v'; 10])).await;
    }
    let init = v1::ConsumeInit { format: v1::Format::KafkaBatches.into(), ..all() };
    let mut stream = client.open(init).await.unwrap();
    stream.heartbeat().await;
    stream.grant(MUCH, 1);
    assert_eq!(offsets(&stream.batch().await).len(), 10);
    is_silent(&mut stream).await;
    stream.grant(0, 9);
    is_silent(&mut stream).await;
    stream.grant(0, 11);
    let mut got = 0;
    while got < 20 {
        got += offsets(&stream.batch().await).len();
    }
    assert_eq!(got, 20);
    is_silent(&mut stream).await;
    drop((stream, client));
    broker.stop().await;
}

#[tokio::test]
async fn only_the_fields_that_are_asked_for_come_and_only_they_count() {
    let (broker, mut client) = Running::with_topic(2).await;
    let header = |key: &str| v1::Header { key: key.to_owned(), value: Some(Bytes::from_static(b"hh")) };
    let record = v1::Record {
        key: Some(Bytes::from_static(b"kkk")),
        value: Some(vec![b'v'; 1000].into()),
        headers: vec![header("a"), header("a")],
        timestamp: Some(5000),
        ..Default::default()
    };
    client.produce_records(0, vec![record.clone(); 2]).await;
    let kept = |fields: &[v1::RecordField]| {
        let wants = |field| fields.is_empty() || fields.contains(&field);
        v1::Record {
            key: record.key.clone().filter(|_| wants(v1::RecordField::Key)),
            value: record.value.clone().filter(|_| wants(v1::RecordField::Value)),
            headers: if wants(v1::RecordField::Headers) { record.headers.clone() } else { Vec::new() },
            timestamp: record.timestamp.filter(|_| wants(v1::RecordField::Timestamp)),
            timestamp_type: i32::from(wants(v1::RecordField::Timestamp)),
            offset: Some(0),
        }
    };
    use v1::RecordField::{Headers, Key, Timestamp, Value};
    let choices: [(&[v1::RecordField], u64); 6] = [
        (&[], 1009),
        (&[Key], 3),
        (&[Value], 1000),
        (&[Headers], 6),
        (&[Timestamp], 0),
        (&[Key, Timestamp, Headers], 9),
    ];
    for (fields, size) in choices {
        let wire: Vec<i32> = fields.iter().map(|field| i32::from(*field)).collect();
        let request = v1::FetchRequest { topic: TOPIC.to_owned(), fields: wire.clone(), ..Default::default() };
        let fetched = client.fetch(request).await.unwrap();
        let Some(v1::fetch_response::Payload::Records(records)) = fetched.payload else { panic!("records") };
        assert_eq!(records.records[0], kept(fields), "{fields:?}");
        let mut stream = client.open(v1::ConsumeInit { fields: wire, ..all() }).await.unwrap();
        stream.heartbeat().await;
        stream.grant(size.max(1), MUCH);
        let Some(v1::consume_batch::Payload::Records(records)) = stream.batch().await.payload else {
            panic!("records")
        };
        assert_eq!(records.records[0], kept(fields), "{fields:?}");
        if size > 0 {
            assert_eq!(records.records.len(), 1);
            is_silent(&mut stream).await;
        }
    }
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn messages_stay_small_however_many_or_large_records_are() {
    let (broker, mut client) = Running::with_topic(1).await;
    for _ in 0..5 {
        // Records of which nearly nothing is left but their overhead.
        client.produce(0, (0..50_000).map(|_| Vec::new())).await;
    }
    client.produce(0, [vec![b'x'; 900_000]]).await;
    client.produce(0, [vec![b'y'; 1_000_000], vec![b'z'; 10]]).await;
    for format in [v1::Format::Records, v1::Format::KafkaBatches, v1::Format::ArrowIpc] {
        let read = client.consume_to_the_end(v1::ConsumeInit { format: format.into(), ..all_there_is() }).await;
        assert_eq!(read.places(), (0..250_003).map(|offset| (0, offset)).collect::<Vec<_>>());
        let largest = read.batches.iter().map(Message::encoded_len).max().unwrap();
        assert!(largest < (1 << 20) + (1 << 12), "{largest}");
    }
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn clients_that_do_not_read_hold_nobody() {
    const STUCK: usize = 20;
    let config = Config { memory_bytes: 64 << 20, ..Config::default() };
    let broker = Running::start(config).await;
    let mut client = broker.client().await;
    client.create(1).await;
    for n in 0..16_u8 {
        client.produce(0, (0..10).map(|_| vec![n; 100_000])).await;
    }
    // Each of these asks for 16 MB and reads nothing of it: they use up what streams may hold.
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        let mut own = broker.client().await;
        let mut stream = own.consume(all()).await.unwrap();
        stream.heartbeat().await;
        stuck.push((own, stream));
    }
    for format in [v1::Format::Records, v1::Format::KafkaBatches, v1::Format::ArrowIpc] {
        let read = client.consume_to_the_end(v1::ConsumeInit { format: format.into(), ..all_there_is() }).await;
        assert_eq!(read.places(), (0..160).map(|offset| (0, offset)).collect::<Vec<_>>(), "{format:?}");
    }
    // Nothing is lost for those who were stuck.
    for (_own, stream) in &mut stuck[..2] {
        let mut read = Vec::new();
        while read.len() < 160 {
            read.extend(values(&stream.batch().await));
        }
        assert!(read.iter().enumerate().all(|(index, value)| value[0] == (index / 10) as u8));
    }
    drop((stuck, client));
    broker.stop().await;
}

#[tokio::test]
async fn a_fetch_waits_for_bytes_and_one_that_waits_ends_when_the_broker_stops() {
    let (broker, mut client) = Running::with_topic(2).await;
    let max_wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let request = v1::FetchRequest { topic: TOPIC.to_owned(), min_bytes: 200, max_wait, ..Default::default() };
    let mut other = broker.client().await;
    let waiting = tokio::spawn(async move { (other.fetch(request).await, other) });
    while broker.rooms.fetch.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    client.produce(0, [vec![b'a'; 50]]).await;
    client.produce(0, [vec![b'b'; 150]]).await;
    let (fetched, mut other) = waiting.await.unwrap();
    assert_eq!(fetched.unwrap().next_offset, 2);

    let request = v1::FetchRequest { topic: TOPIC.to_owned(), offset: 2, min_bytes: 1, max_wait, ..Default::default() };
    let waiting = tokio::spawn(async move { other.fetch(request).await });
    while broker.rooms.fetch.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    drop(client);
    broker.stop().await;
    assert_eq!(waiting.await.unwrap().unwrap().next_offset, 2, "it is answered with what there is");
}
