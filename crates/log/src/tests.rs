//! Tests of the log on a memory store: what each claim says, seen from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lakebed_model::{
    Change, FlushBody, FlushId, FlushProposal, Nonce, Offset, Outcome, PartitionIndex, PartitionKey, ProposedRun,
    Refusal, TopicId, TopicName,
};
use lakebed_segment::batch::{self, Encoder, Fields, Record};
use lakebed_segment::body::{Body, seal};
use lakebed_segment::row_hash::facts;
use lakebed_segment::rows::BodyBatch;
use lakebed_store::{Directory, MemoryBackend, Store, StoreOptions};
use uuid::Uuid;

use crate::{AppendError, BarrierError, Closed, Log, Offload, OpenError, Options, Seams};

mod checkpoints;
mod faults;
mod fenced;
mod following;
mod races;
mod stuck;

fn store() -> Store {
    Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default())
}

fn seams(seed: u64) -> Seams {
    Seams { wall: Arc::new(|| 1_700_000_000_000), seed, offload: Offload::Inline }
}

async fn open(store: &Store, seed: u64) -> Log {
    Log::open(store.clone(), Options::default(), seams(seed)).await.expect("it opens")
}

/// Options under which checkpoints, reclaim and forgetting happen all the time.
fn busy() -> Options {
    Options { checkpoint_commits: 5, flushes_remembered_max: Some(8), ..Options::default() }
}

fn partition() -> PartitionKey {
    PartitionKey::new(TopicId::new(Uuid::from_u128(7)), PartitionIndex::ZERO)
}

async fn create_topic(log: &Log) {
    let name = TopicName::new("orders").unwrap();
    let change = Change::CreateTopic { id: partition().topic, name, partitions: 1, config: BTreeMap::new() };
    log.change(change).await.expect("the topic is created");
}

/// A flush of one batch with one record per value.
fn flush(log: &Log, values: &[&str]) -> (FlushProposal, Body) {
    let fields = Fields {
        codec: batch::Codec::None,
        timestamp_type: batch::TimestampType::Create,
        producer: None,
        is_transactional: false,
    };
    let mut encoder = Encoder::new(fields, 1024);
    for (offset, value) in (0_i64..).zip(values) {
        let record = Record { offset, timestamp_ms: 1, key: None, value: Some(value.as_bytes()) };
        encoder.push(record, std::iter::empty::<(&[u8], Option<&[u8]>)>()).unwrap();
    }
    let encoded: Bytes = encoder.finish().unwrap();
    let decoded = batch::decode(encoded, &batch::Limits { max_decompressed_bytes: 1 << 20 }).unwrap();
    let body_batch = BodyBatch { partition: partition(), rows: &decoded.rows, log_append_time_ms: None };
    let body = seal(&[body_batch], 2).unwrap();
    let run = ProposedRun { partition: partition(), first_row: 0, batches: vec![facts(&body_batch, 2, None)] };
    let proposal = FlushProposal {
        id: log.mint(),
        broker: log.nonce(),
        previous: None,
        body: FlushBody::Inline,
        ingest_time_ms: 2,
        runs: vec![run],
    };
    (proposal, body)
}

async fn append(log: &Log, values: &[&str]) -> Result<Outcome, AppendError> {
    let (proposal, body) = flush(log, values);
    let outcome = log.submit(proposal, Some(body)).await.await?;
    Ok(outcome.runs[0].1[0])
}

async fn objects(store: &Store) -> Vec<String> {
    let listed = store.list(&Directory::root(), None, 100_000).await.unwrap();
    listed.objects.into_iter().map(|one| one.key.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_appended_is_there_after_opening_again() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    assert_eq!(append(&log, &["a", "b"]).await, Ok(Outcome::Appended(Offset::ZERO)));
    assert_eq!(append(&log, &["c"]).await, Ok(Outcome::Appended(Offset::new(2))));
    let before = log.state();
    drop(log);
    let log = open(&store, 2).await;
    let after = log.state();
    assert_eq!(after.partition(partition()), before.partition(partition()));
    assert_eq!(after.runs_of(partition()).collect::<Vec<_>>(), before.runs_of(partition()).collect::<Vec<_>>());
    assert_eq!(after.place().directory.epoch.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn two_brokers_on_an_empty_store_make_one_log() {
    let store = store();
    let (a, b) = tokio::join!(open(&store, 1), open(&store, 2));
    assert_eq!(a.identity(), b.identity());
    let roots = objects(&store).await.into_iter().filter(|key| key == "lakebed.json").count();
    assert_eq!(roots, 1);
    // One of them took over from the other: only one can write.
    let results = [a.barrier().await.is_ok(), b.barrier().await.is_ok()];
    assert_eq!(results.iter().filter(|ok| **ok).count(), 1, "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fenced_sequencer_acknowledges_nothing_and_says_who_is_to_blame() {
    let store = store();
    let first = open(&store, 1).await;
    create_topic(&first).await;
    let second = open(&store, 2).await;
    let refused = append(&first, &["late"]).await;
    assert!(matches!(refused, Err(AppendError::NotDone { why: Closed::Fenced { .. } })), "{refused:?}");
    assert!(matches!(first.closed().await, Closed::Fenced { .. }));
    assert!(first.barrier().await.is_err());
    assert!(first.change(Change::DeleteTopic { id: partition().topic }).await.is_err());
    assert_eq!(append(&second, &["right"]).await, Ok(Outcome::Appended(Offset::ZERO)));
    let reader = open(&store, 3).await;
    assert_eq!(reader.state().partition(partition()).unwrap().high_watermark, Offset::new(1));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_sequencer_refuses_nothing_on_stale_grounds() {
    let store = store();
    let first = open(&store, 1).await;
    create_topic(&first).await;
    let second = open(&store, 2).await;
    second.change(Change::DeleteTopic { id: partition().topic }).await.unwrap();
    // For the first the topic still exists; that it says so would be wrong.
    let name = TopicName::new("orders").unwrap();
    let again =
        Change::CreateTopic { id: TopicId::new(Uuid::from_u128(8)), name, partitions: 1, config: BTreeMap::new() };
    let answer = first.change(again).await;
    assert!(!matches!(answer, Ok(_) | Err(AppendError::Refused(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_answered_and_changes_nothing() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    let number = log.state().number();
    let name = TopicName::new("orders").unwrap();
    let again = Change::CreateTopic {
        id: TopicId::new(Uuid::from_u128(8)),
        name: name.clone(),
        partitions: 1,
        config: BTreeMap::new(),
    };
    assert_eq!(log.change(again).await, Err(AppendError::Refused(Refusal::TopicExists { name })));
    assert_eq!(log.state().number(), number);
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_is_sent_again_gets_the_same_outcome_and_no_second_place() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    let (proposal, body) = flush(&log, &["once"]);
    let (_, again) = flush(&log, &["once"]);
    let first = log.submit(proposal.clone(), Some(body)).await.await.unwrap();
    let second = log.submit(proposal, Some(again)).await.await.unwrap();
    assert_eq!(first, second);
    assert_eq!(log.state().partition(partition()).unwrap().high_watermark, Offset::new(1));
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_makes_no_requests_and_waiting_barriers_share_one() {
    let store = store();
    let log = open(&store, 1).await;
    let before = store.counts().requests();
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    assert_eq!(store.counts().requests(), before);
    let barriers = (0..100).map(|_| log.barrier());
    for passed in futures::future::join_all(barriers).await {
        assert_eq!(passed.unwrap().number(), log.state().number());
    }
    let asked = store.counts().requests() - before;
    assert!(asked <= 2, "{asked} requests for 100 barriers");
}

#[tokio::test(start_paused = true)]
async fn commits_that_no_checkpoint_needs_are_reclaimed_and_takeovers_are_not() {
    let store = store();
    for life in 0..4 {
        let log = Log::open(store.clone(), busy(), seams(10 + life)).await.unwrap();
        if life == 0 {
            create_topic(&log).await;
        }
        for turn in 0..60 {
            let name = TopicName::new(&format!("t{life}-{turn}")).unwrap();
            let id = TopicId::new(Uuid::from_u128(u128::from(life) * 1000 + turn + 100));
            log.change(Change::CreateTopic { id, name, partitions: 1, config: BTreeMap::new() }).await.unwrap();
            log.change(Change::DeleteTopic { id }).await.unwrap();
        }
        // Closing waits for what is in flight, checkpoints included.
        append(&log, &["kept"]).await.unwrap();
        let keys = objects(&store).await;
        let commits = keys.iter().filter(|key| key.contains("/log/")).count();
        assert!(commits < 80, "{commits} commits are left after life {life}");
        drop(log);
    }
    let log = open(&store, 99).await;
    assert_eq!(log.state().partition(partition()).unwrap().high_watermark, Offset::new(4));
    let takeovers: Vec<_> = log.state().directories().skip(1).map(|(first, _)| first.get() - 1).collect();
    for takeover in takeovers {
        let place = log.state().place_of(lakebed_model::CommitNumber::new(takeover)).unwrap();
        let key = lakebed_segment::layout::commit_key(log.identity().cell, place);
        assert!(objects(&store).await.contains(&key), "takeover {place} is gone");
    }
}

/// The most GETs that an opening of a log of 200 commits, or of a few more, takes, whatever the moment.
async fn most_reads_to_open(partitions: u32) -> u64 {
    let store = store();
    let options = Options { checkpoint_commits: 10, ..Options::default() };
    let log = Log::open(store.clone(), options, seams(1)).await.unwrap();
    let name = TopicName::new("orders").unwrap();
    let change = Change::CreateTopic { id: partition().topic, name, partitions, config: BTreeMap::new() };
    log.change(change).await.unwrap();
    let mut most = 0;
    for turn in 1..=400_u64 {
        append(&log, &["x"]).await.unwrap();
        if turn >= 200 && turn.is_multiple_of(7) {
            // A copy is opened, so that the log itself is not taken over.
            let copy = self::store();
            for one in store.list(&Directory::root(), None, 100_000).await.unwrap().objects {
                copy.create(&one.key, store.get(&one.key).await.unwrap()).await.unwrap();
            }
            let opened = open(&copy, 2).await;
            most = most.max(copy.counts().get.requests());
            assert_eq!(opened.state().partition(partition()).unwrap().high_watermark, Offset::new(turn));
        }
    }
    most
}

#[tokio::test(start_paused = true)]
async fn what_opening_reads_is_bounded_by_the_cadence_of_checkpoints_however_large_the_state() {
    // Footers that are read ahead, the parts of a checkpoint, the root.
    let besides = 64 + 10;
    let small = most_reads_to_open(1).await;
    assert!(small <= 10 + 400 * 2 / 32 + besides, "{small} reads to open a small log");
    let large = most_reads_to_open(20_000).await;
    assert!(large <= 10 * 4 + besides, "{large} reads to open a log with many partitions");
    assert!(large > small, "{large} reads and {small}: the large state was not worth waiting for");
}

#[tokio::test(start_paused = true)]
async fn flushes_of_many_partitions_are_forgotten_sooner() {
    const PARTITIONS: u32 = 5000;
    let log = open(&store(), 1).await;
    let name = TopicName::new("wide").unwrap();
    let id = partition().topic;
    let change = Change::CreateTopic { id, name, partitions: PARTITIONS, config: BTreeMap::new() };
    log.change(change).await.expect("the topic is created");
    let (narrow, _) = flush(&log, &["value"]);
    let mut last = narrow.id;
    for _ in 0..20 {
        let runs = (0..PARTITIONS).map(|index| ProposedRun {
            partition: PartitionKey::new(id, PartitionIndex::new(index)),
            first_row: index.into(),
            batches: narrow.runs[0].batches.clone(),
        });
        last = log.mint();
        let proposal = FlushProposal { id: last, body: FlushBody::Segment, runs: runs.collect(), ..narrow.clone() };
        log.submit(proposal, None).await.await.unwrap();
    }
    let state = log.state();
    assert!((16..=17).contains(&state.flush_count()), "{} flushes", state.flush_count());
    assert_eq!(state.outcome_count(), state.flush_count() * 2 * PARTITIONS as usize);
    assert!(state.flush(last).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_flush_ids_that_are_remembered_are_bounded() {
    let store = store();
    let log = Log::open(store.clone(), busy(), seams(1)).await.unwrap();
    create_topic(&log).await;
    for _ in 0..100 {
        append(&log, &["x"]).await.unwrap();
    }
    assert!(log.state().flush_count() <= 9, "{}", log.state().flush_count());
    // One that is forgotten is refused, not committed a second time.
    let (mut proposal, body) = flush(&log, &["old"]);
    proposal.id = FlushId::MIN;
    let refused = log.submit(proposal, Some(body)).await.await;
    assert!(matches!(refused, Err(AppendError::Refused(Refusal::BelowReclaimBoundary { .. }))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_root_of_a_newer_format_is_said_so_and_left_alone() {
    let store = store();
    open(&store, 1).await;
    let key = lakebed_store::Key::new("lakebed.json").unwrap();
    let root = String::from_utf8(store.get(&key).await.unwrap().to_vec()).unwrap();
    let newer = root.replace("\"format\":1", "\"format\":2");
    assert_ne!(root, newer);
    let other = self::store();
    other.create(&key, Bytes::from(newer)).await.unwrap();
    let error = Log::open(other.clone(), Options::default(), seams(2)).await.unwrap_err();
    assert!(matches!(error, OpenError::Root { .. }), "{error}");
    assert_eq!(objects(&other).await, ["lakebed.json"]);
}

#[tokio::test(start_paused = true)]
async fn a_writer_has_its_own_nonce() {
    let store = store();
    assert_ne!(open(&store, 1).await.nonce(), Nonce::ZERO);
    assert_ne!(open(&store, 1).await.nonce(), open(&store, 2).await.nonce());
}
