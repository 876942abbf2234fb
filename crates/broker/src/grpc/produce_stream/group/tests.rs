//! Groups without a socket: what is read together is handed over together.

use std::sync::Arc;

use lakebed_fetch::{FetchPartition, FetchRequest};
use lakebed_model::{Offset, PartitionIndex, PartitionKey};
use lakebed_segment::batch::{Encoder, Record};
use lakebed_wire::received::{Content, Payload};
use lakebed_wire::v1;
use prost::Message;

use super::*;
use crate::broker::Broker;
use crate::config::Config;
use crate::grpc::batch::FIELDS;
use crate::grpc::status::reason_name;
use crate::topics::{NewTopic, TopicReference};

const TOPIC: &str = "t";

/// A broker in memory with a topic; the place of its partitions is found by [`Target`].
async fn started(partitions: u32, settings: &[(&str, &str)]) -> (Broker, Services, Target) {
    let broker = Broker::start(Config::default()).await.unwrap();
    let config = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let new = NewTopic { name: TOPIC.to_owned(), partitions: Some(partitions), config };
    broker.rooms().topics.create(new, false).await.unwrap();
    let rooms = Arc::clone(broker.rooms());
    let topic = rooms.topics.find(&TopicReference::Name(TOPIC.to_owned())).await.unwrap();
    let consume_budget = crate::grpc::consume::Budget::new(1 << 20);
    (
        broker,
        Services { rooms, consume_budget, joined: crate::grpc::groups::Streams::new(0), about: Arc::default() },
        Target::new(topic),
    )
}

fn of_values(values: &[&str]) -> Content {
    let record = |value: &&str| v1::Record { value: Some(Bytes::from((*value).to_owned())), ..Default::default() };
    Content::Records(v1::Records { records: values.iter().map(record).collect() }.encode_to_vec().into())
}

fn of_kafka(value: &str) -> Content {
    let mut encoder = Encoder::new(FIELDS, 100);
    encoder.push(Record { offset: 0, timestamp_ms: 0, key: None, value: Some(value.as_bytes()) }, []).unwrap();
    Content::KafkaBatch(encoder.finish().unwrap())
}

fn read(correlation_id: u64, partition: i32, content: Content, expected_next_offset: Option<i64>) -> Read {
    let payload = Payload { last: Some(content), pieces: 1 };
    Read { correlation_id, asked: Asked { partition: Some(partition), payload, expected_next_offset }, bytes: 1 }
}

/// Correlation id, and first and last offset or the reason of the refusal.
type Heard = (u64, Result<(u64, u64), &'static str>);

async fn answers(mut group: Group) -> Vec<Heard> {
    let mut heard = Vec::new();
    while let Some(told) = std::future::poll_fn(|context| group.poll_next(context)).await {
        let answer = match told.answer {
            Answer::Durable { produced, records, .. } => {
                let first = produced.base_offset.get();
                Ok((first, first + u64::from(records) - 1))
            }
            Answer::NotProduced(error) => Err(reason_name(&crate::grpc::batch::not_produced(&error))),
            Answer::Refused(refused) => Err(reason_name(&refused)),
        };
        heard.push((told.correlation_id, answer));
    }
    heard
}

/// The values of each batch of a partition, in order.
async fn batches(services: &Services, target: &Target, partition: u32) -> Vec<Vec<String>> {
    let key = PartitionKey::new(target.topic.id, PartitionIndex::new(partition));
    let partitions = vec![FetchPartition { key, offset: Offset::ZERO, bytes_max: 1 << 20 }];
    let wait_max = Duration::ZERO;
    let request = FetchRequest { partitions, bytes_max: 1 << 20, bytes_min: 0, wait_max };
    let fetched = services.rooms.fetch.fetch(request).await.pop().unwrap().unwrap();
    let values = fetched.batches.iter().map(|batch| {
        let rows = lakebed_fetch::decode(batch).unwrap().rows;
        (0..rows.len()).map(|row| String::from_utf8(rows.value(row).unwrap().to_vec()).unwrap()).collect()
    });
    values.collect()
}

#[tokio::test]
async fn messages_that_are_read_together_share_a_batch_and_each_is_told_its_own_offsets() {
    let (_broker, services, target) = started(2, &[]).await;
    let group = vec![
        read(10, 0, of_values(&["a"]), None),
        read(11, 1, of_values(&["x"]), None),
        read(12, 0, of_values(&["b", "c", "d"]), None),
        read(13, 0, of_kafka("e"), None),
        read(14, 0, of_values(&["f"]), None),
        read(15, 0, of_values(&["g"]), Some(6)),
        read(16, 0, of_values(&["h"]), Some(6)),
        read(17, 0, of_values(&["i"]), None),
        read(18, 1, of_values(&["y"]), None),
    ];
    let (target, group) = hand_over(services.clone(), target, None, group).await;
    let expected = vec![
        (10, Ok((0, 0))),
        (11, Ok((0, 0))),
        (12, Ok((1, 3))),
        (13, Ok((4, 4))),
        (14, Ok((5, 5))),
        (15, Ok((6, 6))),
        (16, Err("OFFSET_MISMATCH")),
        (17, Ok((7, 7))),
        (18, Ok((1, 1))),
    ];
    assert_eq!(answers(group).await, expected);
    let of_first = [&["a", "b", "c", "d"][..], &["e"], &["f"], &["g"], &["i"]];
    assert_eq!(batches(&services, &target, 0).await, of_first);
    assert_eq!(batches(&services, &target, 1).await, [["x", "y"]]);
}

#[tokio::test]
async fn a_message_that_is_refused_is_refused_alone() {
    let late = [("message.timestamp.after.max.ms", "1000"), ("max.message.bytes", "400")];
    let (_broker, services, target) = started(1, &late).await;
    let at = |timestamp| {
        let records = vec![v1::Record { timestamp: Some(timestamp), ..Default::default() }];
        Content::Records(v1::Records { records }.encode_to_vec().into())
    };
    let group = vec![
        read(0, 0, of_values(&["a"]), None),
        read(1, 0, at(7_258_118_400_000), None),
        read(2, 0, of_values(&["b"]), None),
        read(3, 0, at(-1), None),
        read(4, 0, of_values(&[]), None),
        read(5, 0, of_values(&[&"x".repeat(401)]), None),
        read(6, 0, Content::Records(Bytes::from_static(b"no records")), None),
        read(7, 0, of_values(&["c"]), None),
        read(8, 1, of_values(&["d"]), None),
    ];
    let (target, group) = hand_over(services.clone(), target, None, group).await;
    assert_eq!(group.refused(), 6);
    let expected = vec![
        (0, Ok((0, 0))),
        (1, Err("INVALID_TIMESTAMP")),
        (2, Ok((1, 1))),
        (3, Err("INVALID_TIMESTAMP")),
        (4, Err("INVALID_REQUEST")),
        (5, Err("MESSAGE_TOO_LARGE")),
        (6, Err("INVALID_REQUEST")),
        (7, Ok((2, 2))),
        (8, Err("PARTITION_NOT_FOUND")),
    ];
    assert_eq!(answers(group).await, expected);
    assert_eq!(batches(&services, &target, 0).await.concat(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_joined_batch_is_no_larger_than_its_topic_allows() {
    let (_broker, services, target) = started(1, &[("max.message.bytes", "1000")]).await;
    let value = "x".repeat(90);
    let group = (0..100).map(|id| read(id, 0, of_values(&[&value]), None)).collect();
    let (target, group) = hand_over(services.clone(), target, None, group).await;
    assert_eq!(answers(group).await, (0..100).map(|id| (id, Ok((id, id)))).collect::<Vec<Heard>>());
    let sizes: Vec<usize> = batches(&services, &target, 0).await.iter().map(Vec::len).collect();
    assert_eq!(sizes, [5; 20], "half of what is allowed");
}

#[tokio::test]
async fn keys_and_turns_place_messages_that_name_no_partition() {
    let (_broker, services, target) = started(3, &[]).await;
    let keyed = |key: &'static str| {
        let record = v1::Record { key: Some(Bytes::from(key)), value: Some(Bytes::from(key)), ..Default::default() };
        Content::Records(v1::Records { records: vec![record] }.encode_to_vec().into())
    };
    let keys = ["k1", "k2", "k3", "k4", "k5", "k6", "k7"];
    let unplaced = |id, content| {
        let mut read = read(id, 0, content, None);
        read.asked.partition = None;
        read
    };
    let group = (0..).zip(keys).map(|(id, key)| unplaced(id, keyed(key)));
    let group = group.chain((7..13).map(|id| unplaced(id, of_values(&["turn"])))).collect();
    let (target, group) = hand_over(services.clone(), target, None, group).await;
    assert!(answers(group).await.iter().all(|(_, answer)| answer.is_ok()));
    for partition in 0..3 {
        let all = batches(&services, &target, partition).await;
        let (placed, turns): (Vec<String>, Vec<String>) = all.concat().into_iter().partition(|value| value != "turn");
        let belongs = |key: &&&str| lakebed_wire::kafka::partition_for_key(key.as_bytes(), 3) == partition;
        assert_eq!(placed, keys.iter().filter(belongs).map(|key| (*key).to_owned()).collect::<Vec<_>>());
        assert_eq!((turns.len(), all.len()), (2, 1));
    }
}
