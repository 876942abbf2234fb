//! A member of a group whose connections are cut, and members that hand partitions over to one another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lakebed_client::{Client, ClientError, GroupBatch, GroupBuilder, GroupConsumer};
use lakebed_wire::v1;

use crate::broker::{Broker, eager, text};
use crate::proxy::{Cut, Direction, Proxy, positions};

const PARTITIONS: i32 = 2;
const RECORDS: i64 = 40;
const POSITIONS: u64 = 60;
const TOPIC: &str = "shared";

/// How often each record was handed out, by partition and offset.
type Seen = BTreeMap<(i32, i64), u32>;

async fn fill(client: &Client) {
    client.create_topic(TOPIC, Some(PARTITIONS), BTreeMap::new()).await.unwrap();
    for partition in 0..PARTITIONS {
        for begin in (0..RECORDS).step_by(10) {
            let record =
                |offset| v1::Record { value: Some(format!("{partition}/{offset}").into()), ..Default::default() };
            client.produce(TOPIC, Some(partition), (begin..begin + 10).map(record).collect()).await.unwrap();
        }
    }
}

/// So small a window that there is something left to read for long.
fn member(client: &Client, group: &str) -> GroupBuilder {
    client.group(group).topic(TOPIC).window_bytes(60).retry(eager()).commit_interval(None)
}

fn see(batch: &GroupBatch, seen: &mut Seen, place: &str) {
    for record in &batch.records {
        let offset = record.offset.unwrap();
        assert_eq!(text(record.value.clone()), format!("{}/{offset}", batch.partition), "{place}");
        *seen.entry((batch.partition, offset)).or_default() += 1;
    }
}

fn all() -> usize {
    usize::try_from(i64::from(PARTITIONS) * RECORDS).unwrap()
}

async fn read_all(member: &mut GroupConsumer, place: &str) {
    let mut seen = Seen::new();
    while seen.len() < all() {
        let batch =
            member.next().await.expect("it goes on for ever").unwrap_or_else(|error| panic!("{place}: {error}"));
        see(&batch, &mut seen, place);
    }
    assert!(seen.values().all(|times| *times == 1), "{place}: {seen:?}");
}

/// Commits what was read; again if it is not known whether it was.
async fn commit(member: &mut GroupConsumer, place: &str) {
    for _ in 0..10 {
        match member.commit().await {
            Ok(()) => return,
            Err(error) if error.may_have_happened() => {}
            Err(error) => panic!("{place}: {error}"),
        }
    }
    panic!("{place}: not committed");
}

async fn committed(client: &Client, group: &str) -> BTreeMap<i32, i64> {
    let offsets = client.fetch_offsets(group, Vec::new()).await.unwrap();
    offsets.into_iter().map(|one| (one.partition, one.offset)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_cut_off_anywhere_gets_every_record_once_and_commits() {
    let broker = Broker::start("memory://");
    let direct = Client::connect(&broker.address).await.unwrap();
    fill(&direct).await;
    let whole = Proxy::start(&broker.address, None).await;
    let client = Client::connect(&whole.address).await.unwrap();
    let mut uncut = member(&client, "uncut").open().await.unwrap();
    read_all(&mut uncut, "uncut").await;
    commit(&mut uncut, "uncut").await;
    uncut.close().await.unwrap();
    let connections = whole.connections();
    let mut lost = 0;
    for direction in [Direction::ToBroker, Direction::ToClient] {
        for after_bytes in positions(whole.bytes(direction), POSITIONS) {
            let place = format!("{direction:?} after {after_bytes} bytes");
            let group = format!("{direction:?}-{after_bytes}");
            let proxy = Proxy::start(&broker.address, Some(Cut { direction, after_bytes, connections: 4 })).await;
            // What is cut before the member has joined is told: nothing is tried twice.
            let Ok(client) = Client::connect(&proxy.address).await else { continue };
            let Ok(mut member) = member(&client, &group).open().await else { continue };
            read_all(&mut member, &place).await;
            commit(&mut member, &place).await;
            drop(member);
            let expected: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, RECORDS)).collect();
            assert_eq!(committed(&direct, &group).await, expected, "{place}");
            lost += u64::from(proxy.connections() > connections);
        }
    }
    assert!(lost > POSITIONS / 4, "connections were lost and made anew, {lost} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_handed_over_between_two_records() {
    let broker = Broker::start("memory://");
    let client = Client::connect(&broker.address).await.unwrap();
    fill(&client).await;
    let commits = Some(Duration::from_secs(3600));
    let mut first = member(&client, "pair").commit_interval(commits).open().await.unwrap();
    let mut seen = Seen::new();
    for _ in 0..3 {
        see(&first.next().await.unwrap().unwrap(), &mut seen, "alone");
    }
    assert_eq!(first.assignment().len(), 2);
    let mut second = member(&client, "pair").commit_interval(commits).open().await.unwrap();
    // One goes on reading while the other waits for its share.
    while seen.len() < all() {
        tokio::select! {
            batch = first.next() => see(&batch.unwrap().unwrap(), &mut seen, "first"),
            batch = second.next() => see(&batch.unwrap().unwrap(), &mut seen, "second"),
        }
    }
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "what was used was committed before the other began: {twice:?}");
    // Whatever is left to be handed over is, and each leaves with what it has used.
    first.close().await.unwrap();
    second.close().await.unwrap();
    let expected: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, RECORDS)).collect();
    assert_eq!(committed(&client, "pair").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_used_is_not_committed() {
    let broker = Broker::start("memory://");
    let client = Client::connect(&broker.address).await.unwrap();
    fill(&client).await;
    let mut records = member(&client, "g").open().await.unwrap().records();
    let mut used: BTreeMap<i32, i64> = BTreeMap::new();
    for _ in 0..7 {
        let (topic, partition, record): (Arc<str>, _, _) = records.next().await.unwrap().unwrap();
        assert_eq!(topic.as_ref(), TOPIC);
        used.insert(partition, record.offset.unwrap() + 1);
    }
    records.consumer().commit().await.unwrap();
    assert_eq!(committed(&client, "g").await, used, "seven, the last as well");
    records.close().await.unwrap();
    let mut batches = member(&client, "h").commit_interval(Some(Duration::from_secs(3600))).open().await.unwrap();
    let batch = batches.next().await.unwrap().unwrap();
    let from = batch.records[0].offset.unwrap();
    batches.unread(from);
    batches.close().await.unwrap();
    let kept = committed(&client, "h").await;
    assert_eq!(kept, BTreeMap::from([(batch.partition, from)]), "nothing of it was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_can_not_be_one_is_told_why() {
    let broker = Broker::start("memory://");
    let client = Client::connect(&broker.address).await.unwrap();
    fill(&client).await;
    let refused = client.group("g").open().await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { .. }) && refused.reason() == "INVALID_REQUEST", "{refused}");
    let mut one = member(&client, "g").instance_id("one").open().await.unwrap();
    see(&one.next().await.unwrap().unwrap(), &mut Seen::new(), "one");
    let again = member(&client, "g").instance_id("one").open().await.unwrap();
    let fenced = loop {
        match one.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(fenced.reason(), "INSTANCE_FENCED");
    assert!(one.next().await.is_none(), "it is over");
    assert!(matches!(one.commit().await, Err(ClientError::Closed)));
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_on_when_its_broker_is_killed_and_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(directory.path().to_str().unwrap());
    let client = Client::connect(&broker.address).await.unwrap();
    fill(&client).await;
    let mut member = member(&client, "g").open().await.unwrap();
    let before = member.member_id();
    let mut seen = Seen::new();
    see(&member.next().await.unwrap().unwrap(), &mut seen, "before");
    commit(&mut member, "before").await;
    broker.kill();
    broker.start_again();
    while seen.len() < all() {
        see(&member.next().await.unwrap().unwrap(), &mut seen, "after");
    }
    assert_eq!(member.member_id(), before, "under its id");
    let expected: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, RECORDS)).collect();
    let fresh = Client::connect(&broker.address).await.unwrap();
    loop {
        match member.commit().await {
            Ok(()) if committed(&fresh, "g").await == expected => break,
            // What was read and not committed when the broker was lost is read again.
            Ok(()) => see(&member.next().await.unwrap().unwrap(), &mut seen, "again"),
            Err(error) => assert_eq!(error.reason(), "PARTITION_NOT_ASSIGNED", "{error}"),
        }
    }
}
