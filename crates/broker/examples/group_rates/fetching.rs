//! Reading as a member of a group, with heartbeats and commits beside it, and reading partitions that were assigned by hand.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchRequest, GroupId, OffsetCommitRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval};

use crate::TOPIC;
use crate::member::{HEARTBEAT, Member};
use crate::server::Server;
use crate::wire::Connection;

const RECORDS: usize = 64;
const RECORD_BYTES: usize = 1024;
const BATCHES: i64 = 512;
const FETCH_BYTES: i32 = 1 << 20;
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const COMMIT: i16 = 8;
/// How often what was read is committed; clients' default is 5 s.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// Each way of reading is measured so often, in turns.
const TURNS: usize = 5;

/// A batch of records of 1 KiB.
pub(crate) fn batch(records: usize) -> Bytes {
    let value: Vec<u8> = (0..RECORD_BYTES).map(|at| b"0123456789abcdefghijklmnop"[at * 7 % 26]).collect();
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, records * (RECORD_BYTES + 16));
    for offset in 0..records {
        let offset = i64::try_from(offset).unwrap();
        let record = Record { offset, timestamp_ms: 1_700_000_000_000, key: None, value: Some(&value) };
        encoder.push(record, []).unwrap();
    }
    encoder.finish().unwrap()
}

pub(crate) async fn produce(connection: &mut Connection, batch: Bytes) {
    let part = PartitionProduceData::default().with_index(0).with_records(Some(batch));
    let name = TopicName(StrBytes::from_static_str(TOPIC));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![part]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(60_000).with_topic_data(vec![topic]);
    let told = connection.call(PRODUCE, &request).await;
    assert_eq!(told.responses[0].partition_responses[0].error_code, 0, "it was not produced");
}

/// Reads the log from its beginning to its end, again and again; MB/s of records. Tells `progress` the offset.
async fn read(server: &Server, time: Duration, progress: &std::sync::atomic::AtomicI64) -> f64 {
    let mut connection = Connection::open(server.kafka).await;
    let (begun, mut at, mut bytes) = (Instant::now(), 0, 0_usize);
    let per_batch = RECORDS as i64;
    while begun.elapsed() < time {
        let part = FetchPartition::default().with_fetch_offset(at).with_partition_max_bytes(FETCH_BYTES);
        let name = TopicName(StrBytes::from_static_str(TOPIC));
        let topic = FetchTopic::default().with_topic(name).with_partitions(vec![part]);
        let request = FetchRequest::default().with_max_wait_ms(1000).with_min_bytes(1).with_max_bytes(FETCH_BYTES);
        let told = connection.call(FETCH, &request.with_session_epoch(-1).with_topics(vec![topic])).await;
        let records = told.responses[0].partitions[0].records.as_ref().map_or(0, Bytes::len);
        assert!(records > 0, "nothing was read at {at}");
        bytes += records;
        let batches = (records / (RECORDS * RECORD_BYTES)) as i64;
        at = (at + batches * per_batch) % (BATCHES * per_batch);
        progress.store(at, std::sync::atomic::Ordering::Release);
    }
    bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

/// Sends heartbeats and commits `progress` until it is told to stop; how many commits there were.
async fn belong(
    server: &Server,
    progress: &std::sync::atomic::AtomicI64,
    mut stop: oneshot::Receiver<()>,
    member: &mut Member,
) -> u64 {
    let mut committing = Connection::open(server.kafka).await;
    let (mut beats, mut commits, mut count) = (interval(HEARTBEAT), interval(COMMIT_EVERY), 0);
    loop {
        tokio::select! {
            _ = &mut stop => return count,
            _ = beats.tick() => assert!(member.beat().await.0, "nobody else joins"),
            _ = commits.tick() => {
                let offset = progress.load(std::sync::atomic::Ordering::Acquire);
                let part = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
                let topic = OffsetCommitRequestTopic::default()
                    .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
                    .with_partitions(vec![part]);
                let request = OffsetCommitRequest::default()
                    .with_group_id(GroupId(StrBytes::from_static_str("reading")))
                    .with_generation_id_or_member_epoch(member.generation)
                    .with_member_id(member.id.clone())
                    .with_topics(vec![topic]);
                let told = committing.call(COMMIT, &request).await;
                assert_eq!(told.topics[0].partitions[0].error_code, 0, "a commit was refused");
                count += 1;
            }
        }
    }
}

pub(crate) async fn measure(time: Duration) -> Value {
    let server = Server::spawn(0, 1);
    let mut connection = Connection::open(server.kafka).await;
    let batch = batch(RECORDS);
    for _ in 0..BATCHES {
        produce(&mut connection, batch.clone()).await;
    }
    let progress = std::sync::atomic::AtomicI64::new(0);
    let mut member = Member::connect(server.kafka, "reading").await;
    member.settle().await;
    let (mut assigned, mut grouped, mut commits) = (Vec::new(), Vec::new(), 0);
    for _ in 0..TURNS {
        let part = time / TURNS as u32;
        assigned.push(read(&server, part, &progress).await);
        // It belongs to its group while it doesn't read, too.
        assert!(member.beat().await.0, "nobody else joins");
        let (stop, stopped) = oneshot::channel();
        let reading = async {
            let rate = read(&server, part, &progress).await;
            stop.send(()).unwrap();
            rate
        };
        let (rate, count) = tokio::join!(reading, belong(&server, &progress, stopped, &mut member));
        grouped.push(rate);
        commits += count;
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (assigned, grouped) = (median(&mut assigned), median(&mut grouped));
    assert!(commits >= TURNS as u64, "it committed in every turn");
    json!({ "assigned_mb_s": assigned, "group_mb_s": grouped, "share": 100.0 * grouped / assigned })
}
