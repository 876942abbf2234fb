//! Credit, sizes of messages, and clients that don't read.

use bytes::Bytes;
use lakebed_broker::Config;
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
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

/// A batch of records with values of `size` bytes that compress well.
fn kafka_batch(codec: Codec, records: i64, size: usize) -> Bytes {
    let fields = Fields { codec, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 1024);
    for offset in 0..records {
        let value = vec![offset as u8; size];
        let record = Record { offset, timestamp_ms: 1000 + offset, key: None, value: Some(&value) };
        encoder.push(record, std::iter::empty()).unwrap();
    }
    encoder.finish().unwrap()
}

/// The next batch of a stream, which goes on at `next`: as many records as there may be, of the right values.
async fn expect_part(stream: &mut crate::client::Stream, next: i64, records_max: usize) -> i64 {
    let batch = stream.batch().await;
    let offsets = offsets(&batch);
    assert_eq!(offsets, (next..batch.next_offset).collect::<Vec<i64>>());
    assert!((1..=records_max).contains(&offsets.len()), "{}", offsets.len());
    if matches!(batch.payload, Some(v1::consume_batch::Payload::Records(_))) {
        for (offset, value) in offsets.iter().zip(values(&batch)) {
            assert!(value.iter().all(|byte| *byte == *offset as u8), "offset {offset}");
        }
    }
    assert!(batch.encoded_len() < (1 << 20) + (1 << 12), "{}", batch.encoded_len());
    batch.next_offset
}

#[tokio::test]
async fn a_batch_that_is_many_times_larger_decompressed_comes_in_small_parts_and_is_right() {
    const RECORDS: i64 = 800;
    let (broker, mut client) = Running::with_topic(2).await;
    let batch = kafka_batch(Codec::Zstd, RECORDS, 10_000);
    assert!(batch.len() < 100_000, "{}", batch.len());
    client.produce_batch(0, batch).await;
    for format in [v1::Format::Records, v1::Format::ArrowIpc] {
        let mut stream = client.consume(v1::ConsumeInit { format: format.into(), ..all() }).await.unwrap();
        let mut next = 0;
        while next < RECORDS {
            next = expect_part(&mut stream, next, 105).await;
        }
        // What is left of the batch between parts is thrown away by a seek.
        let mut stream = client.open(v1::ConsumeInit { format: format.into(), ..all() }).await.unwrap();
        stream.heartbeat().await;
        for from in [0, 700, 3, 350] {
            stream.seek(1, 0, Position::Offset(from));
            let Response::SeekAck(ack) = stream.next().await.unwrap() else { panic!("an answer") };
            assert_eq!(ack.next_offset, from);
            let mut next = from;
            for _ in 0..5 {
                stream.grant(1 << 20, 7);
                let end = next + 7;
                while next < end {
                    next = expect_part(&mut stream, next, 7).await;
                }
            }
        }
    }
    let init = v1::ConsumeInit { format: v1::Format::KafkaBatches.into(), ..all_there_is() };
    let read = client.consume_to_the_end(init).await;
    assert_eq!(read.places().len() as i64, RECORDS);
    assert!(read.batches[0].encoded_len() < 100_000, "it stays compressed");
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_for_a_message_is_cut() {
    let broker = Running::start(Config::default()).await;
    let mut client = broker.client().await;
    let config = [("max.message.bytes".to_owned(), (8 << 20).to_string())];
    let topic = v1::CreateTopicRequest {
        name: TOPIC.to_owned(),
        partition_count: Some(1),
        config: config.into(),
        ..Default::default()
    };
    client.call::<_, v1::CreateTopicResponse>("/lakebed.v1.AdminService/CreateTopic", topic).await.unwrap();
    client.produce_batch(0, kafka_batch(Codec::None, 600, 10_000)).await;
    client.produce_batch(0, kafka_batch(Codec::None, 2, 10)).await;
    let init = v1::ConsumeInit { format: v1::Format::KafkaBatches.into(), ..all_there_is() };
    let read = client.consume_to_the_end(init).await;
    assert_eq!(read.places(), (0..602).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert!(read.batches.iter().all(|batch| batch.encoded_len() < 4 << 20));
    let start = crate::client::start(Position::Offset(450));
    let read = client
        .consume_to_the_end(v1::ConsumeInit { start, format: v1::Format::KafkaBatches.into(), ..all_there_is() })
        .await;
    assert_eq!(read.places(), (450..602).map(|offset| (0, offset)).collect::<Vec<_>>());
    drop(client);
    broker.stop().await;
}
