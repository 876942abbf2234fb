//! What goes in comes out, byte for byte; what is wrong is refused with Kafka's own code.

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{FetchRequest, ProduceRequest};
use lakebed_broker::Config;
use lakebed_segment::batch::{self, Codec, Limits};

use crate::client::{Running, batch, batch_at, fetch_of, now_ms, produce_of};

/// Base offset, length and leader epoch lie before what the checksum covers; the log decides the first and the last.
const DECIDED_BY_THE_LOG: std::ops::Range<usize> = 0..16;

const LIMITS: Limits = Limits { max_decompressed_bytes: 1 << 24 };

/// Cuts a fetch's bytes into batches by their lengths.
fn batches(mut bytes: Bytes) -> Vec<Bytes> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
        batches.push(bytes.split_to(12 + length));
    }
    batches
}

fn base_offset(batch: &[u8]) -> i64 {
    i64::from_be_bytes(batch[..8].try_into().unwrap())
}

#[tokio::test]
async fn a_consumer_at_the_tail_gets_the_producers_own_bytes_whatever_the_codec() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    let long = vec![b'x'; 100_000];
    let mut sent = Vec::new();
    for codec in Codec::ALL {
        let batch = batch(codec, &[b"one", b"", &long]);
        let produced = client.produce("t", 2, batch.clone()).await;
        assert_eq!((produced.error_code, produced.base_offset), (0, sent.len() as i64 * 3), "{codec:?}");
        sent.push(batch);
    }
    let fetched = client.fetch("t", 2, 0).await;
    assert_eq!((fetched.error_code, fetched.high_watermark, fetched.log_start_offset), (0, 15, 0));
    let received = batches(fetched.records.unwrap());
    assert_eq!(received.len(), sent.len());
    for (index, (sent, received)) in sent.iter().zip(&received).enumerate() {
        assert_eq!(sent[DECIDED_BY_THE_LOG.end..], received[DECIDED_BY_THE_LOG.end..]);
        assert_eq!(base_offset(received), index as i64 * 3);
    }
    broker.stop().await;
}

#[tokio::test]
async fn without_the_tail_the_same_records_come_from_parquet() {
    let broker = Running::start(Config { tail: false, ..Config::default() }).await;
    let mut client = broker.client().await;
    client.topic("t").await;
    for codec in Codec::ALL {
        let sent = batch(codec, &[b"one", b"", b"three"]);
        let base = client.produce("t", 0, sent.clone()).await.base_offset;
        let fetched = client.fetch("t", 0, base).await;
        let received = batches(fetched.records.unwrap());
        let sent = batch::decode(sent, &LIMITS).unwrap().rows;
        let rows = batch::decode(received[0].clone(), &LIMITS).unwrap().rows;
        let first = usize::try_from(base - base_offset(&received[0])).unwrap();
        for row in 0..sent.len() {
            assert_eq!(sent.key(row), rows.key(first + row), "{codec:?}");
            assert_eq!(sent.value(row), rows.value(first + row), "{codec:?}");
            assert_eq!(sent.timestamps_ms[row], rows.timestamps_ms[first + row], "{codec:?}");
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_get_ascending_offsets() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    // A long poll in front: what comes behind it is started all the same, and its own records end the wait.
    let poll = client.send(12, &fetch_of("t", 0, 0, 60_000)).await;
    let mut sent = Vec::new();
    for _ in 0..100 {
        sent.push(client.send(9, &produce_of("t", 0, -1, batch(Codec::None, &[b"record"]))).await);
    }
    assert_eq!(client.receive::<FetchRequest>(12).await.0, poll);
    for (index, sent) in sent.into_iter().enumerate() {
        let (correlation_id, answer) = client.receive::<ProduceRequest>(9).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((correlation_id, partition.error_code, partition.base_offset), (sent, 0, index as i64));
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_long_poll_wakes_on_the_commit() {
    let broker = Running::in_memory().await;
    let (mut consumer, mut producer) = (broker.client().await, broker.client().await);
    producer.topic("t").await;
    // Longer than any test may take: only the commit can end it.
    consumer.send(12, &fetch_of("t", 0, 0, i32::MAX)).await;
    producer.produce("t", 0, batch(Codec::None, &[b"news"])).await;
    let (_, answer) = consumer.receive::<FetchRequest>(12).await;
    let partition = &answer.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 1));
    assert_eq!(batches(partition.records.clone().unwrap()).len(), 1);
    broker.stop().await;
}

#[tokio::test]
async fn acks_0_stores_without_an_answer_and_an_error_closes() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    client.send(9, &produce_of("t", 0, 0, batch(Codec::None, &[b"silent"]))).await;
    // The next answer is that of the next request.
    assert_eq!(client.produce("t", 0, batch(Codec::None, &[b"loud"])).await.base_offset, 1);
    client.send(9, &produce_of("missing", 0, 0, batch(Codec::None, &[b"silent"]))).await;
    assert!(client.is_closed().await);
    broker.stop().await;
}

#[tokio::test]
async fn acks_1_is_served_as_all_and_other_numbers_are_refused() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    for (acks, expected) in [(1, 0), (2, ResponseError::InvalidRequiredAcks.code())] {
        let answer = client.call(9, &produce_of("t", 0, acks, batch(Codec::None, &[b"x"]))).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, expected);
    }
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 1);
    broker.stop().await;
}

#[tokio::test]
async fn refused_batches_get_kafkas_own_code_and_nothing_is_stored() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    let good = batch(Codec::None, &[b"good"]);
    let flipped = |at: usize, bits: u8| {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[at] ^= bits;
        bytes.freeze()
    };
    let two = [&good[..], &good[..]].concat();
    let large = batch(Codec::None, &[&vec![0; 1_100_000]]);
    let cases = [
        ("a flipped bit in a value", flipped(good.len() - 12, 1), ResponseError::CorruptMessage),
        ("magic 1", flipped(16, 3), ResponseError::InvalidRecord),
        ("cut off", good.slice(..good.len() - 1), ResponseError::CorruptMessage),
        ("two batches", two.into(), ResponseError::InvalidRecord),
        ("no batch", Bytes::new(), ResponseError::InvalidRecord),
        ("too large", large, ResponseError::MessageTooLarge),
        ("from next year", batch_at(now_ms() + 31_536_000_000, Codec::None, &[b"x"]), ResponseError::InvalidTimestamp),
    ];
    for (what, batch, expected) in cases {
        let answer = client.produce("t", 0, batch).await;
        assert_eq!(answer.error_code, expected.code(), "{what}: {:?}", answer.error_message);
        assert!(answer.error_message.is_some_and(|message| !message.is_empty()), "{what}");
    }
    for (topic, partition) in [("t", 4), ("t", -1), ("missing", 0)] {
        let answer = client.produce(topic, partition, good.clone()).await;
        assert_eq!(answer.error_code, ResponseError::UnknownTopicOrPartition.code(), "{topic}/{partition}");
    }
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 0);
    broker.stop().await;
}

#[tokio::test]
async fn fetches_of_what_is_not_there_say_so() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    client.produce("t", 0, batch(Codec::None, &[b"one"])).await;
    for (topic, partition, offset, expected) in [
        ("t", 0, 1, 0),
        ("t", 0, 2, ResponseError::OffsetOutOfRange.code()),
        ("t", 0, -5, ResponseError::OffsetOutOfRange.code()),
        ("t", 9, 0, ResponseError::UnknownTopicOrPartition.code()),
        ("missing", 0, 0, ResponseError::UnknownTopicOrPartition.code()),
    ] {
        assert_eq!(client.fetch(topic, partition, offset).await.error_code, expected, "{topic}/{partition}@{offset}");
    }
    let mut by_unknown_id = fetch_of("", 0, 0, 0);
    by_unknown_id.topics[0].topic_id = uuid::Uuid::from_u128(77);
    let answer = client.call(13, &by_unknown_id).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, ResponseError::UnknownTopicId.code());
    let in_a_session = fetch_of("t", 0, 0, 0).with_session_id(5).with_session_epoch(3);
    let answer = client.call(12, &in_a_session).await;
    assert_eq!(answer.error_code, ResponseError::FetchSessionIdNotFound.code());
    let mut other_epoch = fetch_of("t", 0, 0, 0);
    other_epoch.topics[0].partitions[0].current_leader_epoch = 3;
    let answer = client.call(12, &other_epoch).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, ResponseError::UnknownLeaderEpoch.code());
    broker.stop().await;
}
