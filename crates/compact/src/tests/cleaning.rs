//! Compaction of keys beside what else changes a topic: log starts that move, retention, topics that fail.

use std::time::Duration;

use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};

use super::keys::{START_MS, World, covers};
use super::*;
use crate::{Cleaner, CompactionOptions, Compactor, Retainer, Retention, Turn, expiring, key_job};

const SECOND_MS: i64 = 1000;

async fn move_start(log: &Log, partition: u32, offset: u64) {
    log.change(Change::MoveLogStart { partition: key(partition), offset: Offset::new(offset) }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_lies_below_the_log_start_goes_with_the_next_compaction_of_keys() {
    let mut world = World::new(2, &[("min.cleanable.dirty.ratio", "0")]).await;
    for number in 0..10 {
        let (name, value) = (number.to_string(), format!("of {number}"));
        world.append(0, &[(Some(&name), Some(&value))]).await;
        world.append(1, &[(Some(&name), Some(&value))]).await;
    }
    world.compact().await;
    world.clean().await.unwrap();
    move_start(&world.log, 0, 6).await;
    move_start(&world.log, 1, 10).await;
    world.check().await;
    let offsets = async |world: &World, partition| world.read(partition).await.0.keys().copied().collect::<Vec<_>>();
    assert_eq!(offsets(&world, 0).await, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "nothing was rewritten yet");
    assert!(offsets(&world, 1).await.is_empty(), "no run of it is named");
    world.append(0, &[(Some("7"), Some("again"))]).await;
    world.append(1, &[(Some("7"), Some("again"))]).await;
    world.compact().await;
    world.clean().await.unwrap();
    world.check().await;
    assert_eq!((offsets(&world, 0).await, offsets(&world, 1).await), (vec![6, 8, 9, 10], vec![10]));
}

#[tokio::test(start_paused = true)]
async fn by_size_a_partition_goes_though_its_file_holds_others_that_stay() {
    let mut world = World::new(2, &[]).await;
    world.append(0, &[(Some("small"), Some("stays"))]).await;
    for number in 0..50 {
        world.append(1, &[(Some(&number.to_string()), Some(&"x".repeat(100)))]).await;
    }
    world.compact().await;
    world.clean().await.unwrap();
    assert_eq!(
        (covers(&world.log.state(), 0), covers(&world.log.state(), 1)),
        (vec![(0, 1, 1, true)], vec![(0, 50, 50, true)])
    );
    for number in 50..100 {
        world.append(1, &[(Some(&number.to_string()), Some(&"x".repeat(100)))]).await;
    }
    world.compact().await;
    let state = world.log.state();
    let kept = Retention { age_ms: None, bytes: Some(5000) };
    let found = expiring(&state, key(0).topic, &kept, START_MS, 1 << 20);
    assert_eq!((found.moves, found.rewrites), (vec![(key(1), Offset::new(50))], false));
}

#[tokio::test(start_paused = true)]
async fn by_age_clean_rows_go_a_share_of_that_age_at_a_time() {
    let mut world = World::new(1, &[("min.cleanable.dirty.ratio", "0")]).await;
    world.options.retention = |_| Retention { age_ms: Some(8 * SECOND_MS), bytes: None };
    for number in 0..6 {
        world.append(0, &[(Some(&number.to_string()), Some("1")), (Some("often"), Some(&number.to_string()))]).await;
        world.pass(SECOND_MS / 2);
    }
    world.compact().await;
    world.clean().await.unwrap();
    world.check().await;
    // Two of each second, of which one is what is left of a key that came often.
    assert_eq!(covers(&world.log.state(), 0), [(0, 4, 2, true), (4, 8, 2, true), (8, 12, 3, true)]);
    let kept = Retention { age_ms: Some(8 * SECOND_MS), bytes: None };
    for (age_ms, expected) in [(8_500, None), (8_501, Some(4)), (9_501, Some(8)), (10_501, Some(12))] {
        let found = expiring(&world.log.state(), key(0).topic, &kept, START_MS + age_ms, 1 << 20);
        assert_eq!(found.moves.first().map(|(_, offset)| offset.get()), expected, "{age_ms}");
    }
}

#[tokio::test(start_paused = true)]
async fn retention_waits_for_a_compaction_of_keys_and_comes_before_the_next() {
    let mut world = World::new(1, &[("min.cleanable.dirty.ratio", "0")]).await;
    for number in 0..20 {
        world.append(0, &[(Some(&number.to_string()), Some(&"x".repeat(100)))]).await;
        if number % 10 == 9 {
            world.compact().await;
        }
    }
    let retention = |_: &BTreeMap<String, String>| Retention { age_ms: None, bytes: Some(500) };
    let options = CompactionOptions { retention, ..CompactionOptions::default() };
    let compactor = Compactor::new(world.log.clone(), world.store.clone(), options, Turn::default());
    let retainer = Retainer::new(world.log.clone(), world.store.clone(), compactor.clone(), Duration::from_secs(60));
    let mut cleaner = Cleaner::new(world.log.clone(), world.store.clone(), world.options.clone(), &compactor);
    let log_start = || world.log.state().partition(key(0)).unwrap().log_start.get();
    let mark = compactor.busy().mark(key(0).topic).unwrap();
    retainer.pass_now().await;
    assert_eq!(log_start(), 0, "its keys are being compacted");
    drop(mark);
    assert!(!cleaner.step().await, "retention waits for the topic");
    assert_eq!(cleaner.counts().compactions.load(Ordering::Relaxed), 0);
    retainer.pass_now().await;
    assert_eq!(log_start(), 10);
    assert!(cleaner.step().await);
    assert_eq!(cleaner.counts().compactions.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn rows_with_old_timestamps_have_a_topic_rewritten_now_and_then_and_not_all_the_time() {
    let mut world = World::new(1, &[("max.compaction.lag.ms", "3600000"), ("min.cleanable.dirty.ratio", "1")]).await;
    let options = CompactionOptions::default();
    let compactor = Compactor::new(world.log.clone(), world.store.clone(), options, Turn::default());
    let mut cleaner = Cleaner::new(world.log.clone(), world.store.clone(), world.options.clone(), &compactor);
    let counts = cleaner.counts();
    for number in 0..100 {
        // What came in is of yesterday.
        world.append(0, &[(Some("a"), Some(&number.to_string()))]).await;
        if number == 0 {
            world.pass(24 * 3_600_000);
        }
        world.pass(-24 * 3_600_000);
        world.append(0, &[(Some("late"), Some(&number.to_string()))]).await;
        world.pass(24 * 3_600_000);
        while cleaner.step().await {}
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    // In 50 minutes: an eighth of an hour apart.
    let compactions = counts.compactions.load(Ordering::Relaxed);
    assert!((6..=8).contains(&compactions), "{compactions}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_can_not_be_cleaned_keeps_no_other_from_its_turn() {
    let victim: Arc<std::sync::Mutex<Option<String>>> = Arc::default();
    let refused = Arc::clone(&victim);
    let faults = move |operation: &Operation<'_>| match operation {
        Operation::Get { key, .. }
            if refused.lock().unwrap().as_deref().is_some_and(|part| key.as_str().contains(part)) =>
        {
            Fault::at_once(Outcome::LostWith(Symptom::Refused))
        }
        _ => Fault::NONE,
    };
    let backend = Arc::new(FaultBackend::new(Arc::new(MemoryBackend::default()), faults));
    let mut world = World::on(Store::new("memory://", backend, &StoreOptions::default()), 1, &[]).await;
    let second = TopicId::new(Uuid::from_u128(8));
    let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    let name = TopicName::new("payments").unwrap();
    world.log.change(Change::CreateTopic { id: second, name, partitions: 1, config }).await.unwrap();
    world.append(0, &[(Some("a"), Some("1")), (Some("a"), Some("2"))]).await;
    world.compact().await;
    append_to_topic(&world.log, second, &["1", "2"]).await;
    let compactor = Compactor::new(world.log.clone(), world.store.clone(), Default::default(), Turn::default());
    compactor.refresh(second).await.unwrap();
    let due = |topic| key_job(&world.log.state(), topic, START_MS, &BTreeSet::new()).is_some();
    assert!(due(key(0).topic) && due(second));
    *victim.lock().unwrap() = Some("orders".to_owned());
    let mut cleaner = Cleaner::new(world.log.clone(), world.store.clone(), world.options.clone(), &compactor);
    for _ in 0..2 {
        cleaner.step().await;
    }
    assert!(due(key(0).topic) && !due(second));
    *victim.lock().unwrap() = None;
    cleaner.step().await;
    assert!(!due(key(0).topic));
}

/// Appends records of one key to partition 0 of a topic.
async fn append_to_topic(log: &Log, topic: TopicId, values: &[&str]) {
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 256);
    for (offset, value) in (0..).zip(values) {
        let record = Record { offset, timestamp_ms: START_MS, key: Some(b"a"), value: Some(value.as_bytes()) };
        encoder.push(record, std::iter::empty::<(&[u8], Option<&[u8]>)>()).unwrap();
    }
    let limits = batch::Limits { max_decompressed_bytes: 1 << 20 };
    let decoded = batch::decode(encoder.finish().unwrap(), &limits).unwrap();
    let partition = PartitionKey::new(topic, PartitionIndex::new(0));
    let one = BodyBatch { partition, rows: &decoded.rows, log_append_time_ms: None };
    let proposal = FlushProposal {
        id: log.mint(),
        broker: log.nonce(),
        previous: None,
        body: FlushBody::Inline,
        ingest_time_ms: START_MS,
        runs: vec![ProposedRun { partition, first_row: 0, batches: vec![facts(&one, START_MS, None)] }],
    };
    log.submit(proposal, Some(seal(&[one], START_MS).unwrap())).await.await.unwrap();
}
