//! Commits of offsets by many consumers, each at its own rate, whatever the answers take.

use std::time::Duration;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use crate::server::Server;
use crate::wire::{Connection, answer, decoded, frame};
use crate::{TOPIC, percentile_ms};

const GROUPS: usize = 100;
const PARTITIONS: i32 = 10;
/// So many a second of each of 1,000 consumers make 10,000.
const PER_SECOND: u32 = 10;
/// Commits of a consumer that are not answered yet: more than an interval of flushes has.
const IN_FLIGHT: usize = 64;
const COMMIT: i16 = 8;
const FETCH: i16 = 8;

fn group(number: usize) -> GroupId {
    GroupId(StrBytes::from_string(format!("committing {number}")))
}

fn commit(group_number: usize, partition: i32, offset: i64) -> Vec<u8> {
    let partition =
        OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default().with_group_id(group(group_number)).with_topics(vec![topic]);
    frame(COMMIT, &request.with_generation_id_or_member_epoch(-1))
}

/// A consumer commits 1, 2, 3 … at even intervals for so long; when it sent the last, and how long each answer took.
async fn consumer(
    connection: Connection,
    group_number: usize,
    partition: i32,
    time: Duration,
) -> (Instant, Vec<Duration>) {
    let Connection { mut reading, mut writing } = connection;
    let (sent, mut answered) = mpsc::channel::<Instant>(IN_FLIGHT);
    let reading = tokio::spawn(async move {
        let mut took = Vec::new();
        while let Some(begun) = answered.recv().await {
            let told = decoded::<OffsetCommitRequest>(COMMIT, answer(&mut reading).await);
            assert_eq!(told.topics[0].partitions[0].error_code, 0, "a commit was refused");
            took.push(begun.elapsed());
        }
        took
    });
    let every = Duration::from_secs(1) / PER_SECOND;
    // Consumers are not in step with one another.
    let offset = every / 1000 * u32::try_from(group_number * 10 + partition as usize).unwrap();
    let begun = Instant::now();
    let mut ticks = interval_at(begun + offset, every);
    for offset in 1..=i64::try_from(time.as_millis() / every.as_millis()).unwrap() {
        let due = ticks.tick().await;
        writing.write_all(&commit(group_number, partition, offset)).await.unwrap();
        sent.send(due).await.unwrap();
    }
    drop(sent);
    (Instant::now(), reading.await.unwrap())
}

/// 10,000 commits a second: how many the log had of its own, and how long they took. What was committed last is read back.
pub(crate) async fn measure(server: &Server, time: Duration) -> Value {
    let mut consumers = JoinSet::new();
    let mut connections = Vec::new();
    for number in 0..GROUPS * PARTITIONS as usize {
        connections.push((number, Connection::open(server.kafka).await));
    }
    let before = server.metric("lakebed_log_commit_number").await.unwrap();
    let begun = Instant::now();
    for (number, connection) in connections {
        let (group, partition) = (number / PARTITIONS as usize, i32::try_from(number % PARTITIONS as usize).unwrap());
        consumers.spawn(consumer(connection, group, partition, time));
    }
    let (mut last, mut took) = (begun, Vec::new());
    while let Some(of_one) = consumers.join_next().await {
        let (sent, of_one) = of_one.unwrap();
        last = last.max(sent);
        took.extend(of_one);
    }
    let (seconds, sending_seconds) = (begun.elapsed().as_secs_f64(), last.duration_since(begun).as_secs_f64());
    // The first comes at once, not at the end of an interval.
    let log_commits = server.metric("lakebed_log_commit_number").await.unwrap() - before - 1.0;
    let count = took.len();
    check(server, i64::try_from(count / (GROUPS * PARTITIONS as usize)).unwrap()).await;
    json!({
        "commits_per_s": count as f64 / sending_seconds, "log_commits_per_s": log_commits / seconds,
        "p50_ms": percentile_ms(took.clone(), 50), "p99_ms": percentile_ms(took, 99),
    })
}

/// Every group has committed this offset of every partition.
async fn check(server: &Server, offset: i64) {
    let mut connection = Connection::open(server.kafka).await;
    let groups =
        (0..GROUPS).map(|number| OffsetFetchRequestGroup::default().with_group_id(group(number)).with_topics(None));
    let told = connection.call(FETCH, &OffsetFetchRequest::default().with_groups(groups.collect())).await;
    let partitions = told.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| &topic.partitions);
    let offsets: Vec<i64> = partitions.map(|partition| partition.committed_offset).collect();
    assert_eq!(offsets, vec![offset; GROUPS * PARTITIONS as usize], "what was committed last");
}
