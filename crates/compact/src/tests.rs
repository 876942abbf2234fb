//! Merges on the real log over a memory store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lakebed_log::{Log, Offload, Seams};
use lakebed_model::{
    Change, FlushBody, FlushProposal, Offset, PartitionIndex, PartitionKey, ProposedRun, TopicId, TopicName,
};
use lakebed_segment::batch::{self, Codec, Encoder, Fields, Record, TimestampType};
use lakebed_segment::body::seal;
use lakebed_segment::row_hash::facts;
use lakebed_segment::rows::BodyBatch;
use lakebed_store::{Directory, MemoryBackend, Store, StoreOptions};
use uuid::Uuid;

use crate::{Merger, Options, Plan, RewriteError, merge, plan};

mod cleaning;
mod compaction;
mod keys;
mod obstacles;
mod partitioned;
mod pressed;
mod retention;
mod sizes;

fn store() -> Store {
    Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default())
}

async fn open(store: &Store, seed: u64) -> Log {
    let seams = Seams { wall: Arc::new(|| 1_700_000_000_000), seed, offload: Offload::Inline };
    let options =
        lakebed_log::Options { checkpoint_commits: 20, flushes_remembered_max: Some(16), ..Default::default() };
    Log::open(store.clone(), options, seams).await.expect("it opens")
}

fn key(partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(Uuid::from_u128(7)), PartitionIndex::new(partition))
}

async fn create_topic(log: &Log) {
    create_topic_of(log, 2).await;
}

async fn create_topic_of(log: &Log, partitions: u32) {
    let name = TopicName::new("orders").unwrap();
    let change = Change::CreateTopic { id: key(0).topic, name, partitions, config: BTreeMap::new() };
    log.change(change).await.unwrap();
}

/// Appends one record to partitions 0 and 1 each.
async fn append(log: &Log, value: &str) {
    append_to(log, 0..2, value).await;
}

/// Appends one record to each of some partitions, in one flush.
async fn append_to(log: &Log, partitions: Range<u32>, value: &str) {
    append_at(log, partitions, value, 2).await;
}

/// The same, in a flush that was sealed at a time.
async fn append_at(log: &Log, partitions: Range<u32>, value: &str, ingest_time_ms: i64) {
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 256 + value.len());
    let record = Record { offset: 0, timestamp_ms: 1, key: None, value: Some(value.as_bytes()) };
    encoder.push(record, std::iter::empty::<(&[u8], Option<&[u8]>)>()).unwrap();
    let limits = batch::Limits { max_decompressed_bytes: 1 << 20 };
    let decoded = batch::decode(encoder.finish().unwrap(), &limits).unwrap();
    let batches: Vec<_> = partitions
        .map(|index| BodyBatch { partition: key(index), rows: &decoded.rows, log_append_time_ms: None })
        .collect();
    let body = seal(&batches, ingest_time_ms).unwrap();
    let runs = (0_u64..).zip(&batches).map(|(first_row, one)| ProposedRun {
        partition: one.partition,
        first_row,
        batches: vec![facts(one, ingest_time_ms, None)],
    });
    let proposal = FlushProposal {
        id: log.mint(),
        broker: log.nonce(),
        previous: None,
        body: FlushBody::Inline,
        ingest_time_ms,
        runs: runs.collect(),
    };
    log.submit(proposal, Some(body)).await.await.unwrap();
}

fn options(fan_in: usize) -> Options {
    Options { fan_in, objects_max: 64, bytes_max: 1 << 20, runs_high: 1_000_000 }
}

async fn object_count(store: &Store) -> usize {
    store.list(&Directory::root(), None, 100_000).await.unwrap().objects.len()
}

#[tokio::test(start_paused = true)]
async fn many_flushes_leave_few_objects_and_every_record() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    let merger = Merger::new(log.clone(), store.clone(), options(8));
    for index in 0..400 {
        append(&log, &format!("record {index}")).await;
        while merger.step().await {}
    }
    let state = log.state();
    assert!(state.run_count() < 60, "{} runs are left of 800", state.run_count());
    assert!(state.object_count() < 30, "{} objects are named", state.object_count());
    // Two checkpoints' worth of commits wait to be reclaimed, and what was merged since the last one.
    assert!(object_count(&store).await < 200, "{} objects stand", object_count(&store).await);
    for partition in 0..2 {
        let bounds = state.partition(key(partition)).unwrap();
        assert_eq!((bounds.log_start, bounds.high_watermark), (Offset::ZERO, Offset::new(400)));
    }
    assert!(merger.counts().merges.load(Ordering::Relaxed) > 40);
    drop(merger);
    drop(log);
    // What a fresh broker reads is what was written: merging everything once more verifies every row against its hash.
    let log = open(&store, 2).await;
    let state = log.state();
    let all = Plan::whole(state.objects().map(|(id, _)| id).collect());
    let merged = merge(&log, &store, &state, &all).await.unwrap();
    assert_eq!(merged.runs_after, 2);
}

#[tokio::test(start_paused = true)]
async fn a_merge_that_comes_too_late_changes_nothing() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    append(&log, "a").await;
    append(&log, "b").await;
    let before = log.state();
    let all = Plan::whole(before.objects().map(|(id, _)| id).collect());
    log.change(Change::DeleteTopic { id: key(0).topic }).await.unwrap();
    let late = merge(&log, &store, &before, &all).await;
    assert!(matches!(late, Err(RewriteError::Stale(_))), "{late:?}");
    assert_eq!(log.state().run_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_named_and_left_out_and_the_rest_is_merged() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..6 {
        append(&log, &format!("record {index}")).await;
    }
    let state = log.state();
    let (victim, _) = state.objects().next().unwrap();
    let lakebed_model::ObjectId::Commit(number) = victim else { panic!("{victim:?}") };
    let text = lakebed_segment::layout::commit_key(log.identity().cell, state.place_of(number).unwrap());
    let place = lakebed_store::Key::new(text).unwrap();
    let mut bytes = store.get(&place).await.unwrap().to_vec();
    let at = bytes.windows(8).position(|window| window == b"record 0").unwrap();
    bytes[at] ^= 1;
    store.delete(std::slice::from_ref(&place)).await.unwrap();
    store.create(&place, bytes::Bytes::from(bytes)).await.unwrap();
    let merger = Merger::new(log.clone(), store.clone(), options(4));
    while merger.step().await {}
    let after = log.state();
    assert_eq!(merger.counts().failures.load(Ordering::Relaxed), 1);
    assert!(after.object(victim).is_some(), "the damaged object is still named");
    assert!(after.object_count() <= 2, "{} objects", after.object_count());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_planned_below_the_fan_in_unless_runs_are_many() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..5 {
        append(&log, &format!("record {index}")).await;
    }
    let state = log.state();
    assert_eq!(plan(&state, &options(6), &BTreeSet::new()), None);
    assert_eq!(plan(&state, &options(5), &BTreeSet::new()).unwrap().objects.len(), 5);
    let pressed = Options { runs_high: 10, ..options(6) };
    assert_eq!(plan(&state, &pressed, &BTreeSet::new()).unwrap().objects.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_merger_calls_nothing_damaged_that_its_successor_has_reclaimed() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..6 {
        append(&log, &format!("record {index}")).await;
    }
    let old = log.state();
    let merger = Merger::new(log.clone(), store.clone(), options(4));
    let successor = open(&store, 2).await;
    let all = Plan::whole(old.objects().map(|(id, _)| id).collect());
    merge(&successor, &store, &successor.state(), &all).await.unwrap();
    // Two checkpoints later the commits that were merged are gone.
    for index in 0..60 {
        append(&successor, &format!("later {index}")).await;
    }
    let place = old.place_of(lakebed_model::CommitNumber::new(old.number().get() - 1)).unwrap();
    let gone = lakebed_store::Key::new(lakebed_segment::layout::commit_key(log.identity().cell, place)).unwrap();
    assert!(store.get(&gone).await.is_err(), "{gone} is still there");
    assert!(merger.step().await, "it tries, as it does not know yet");
    assert!(log.is_closed().is_some(), "asking for a barrier has told it");
    assert_eq!(merger.damaged(), 0);
    assert!(!merger.step().await);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_missing_though_it_is_named_is_damage_and_the_rest_is_merged() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..6 {
        append(&log, &format!("record {index}")).await;
    }
    let state = log.state();
    let (victim, _) = state.objects().next().unwrap();
    let lakebed_model::ObjectId::Commit(number) = victim else { panic!("{victim:?}") };
    let text = lakebed_segment::layout::commit_key(log.identity().cell, state.place_of(number).unwrap());
    store.delete(&[lakebed_store::Key::new(text).unwrap()]).await.unwrap();
    let merger = Merger::new(log.clone(), store.clone(), options(4));
    while merger.step().await {}
    assert_eq!(merger.damaged(), 1);
    assert!(log.state().object(victim).is_some());
    assert!(log.state().object_count() <= 2, "{} objects", log.state().object_count());
}
