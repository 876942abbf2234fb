//! A broker that flushes all the time, for a long time: objects stay few, and when merging stalls producers wait for it.
//!
//! The real log, write path and merger over a memory store, on a paused clock.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use lakebed_compact::Merger;
use lakebed_ingest::{Admitted, BatchLimits, Ingest, ProduceError, Ticket, admit};
use lakebed_log::{Log, Offload, Seams};
use lakebed_model::{Change, PartitionIndex, PartitionKey, TopicId, TopicName};
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};
use lakebed_store::{Directory, MemoryBackend, Store, StoreOptions};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const WALL_MS: i64 = 1_700_000_000_000;
const PARTITIONS: u32 = 4;

/// A wall clock that goes with the paused one.
fn seams() -> Seams {
    let start = Instant::now();
    let wall = move || WALL_MS + i64::try_from(start.elapsed().as_millis()).unwrap();
    Seams { wall: Arc::new(wall), seed: 1, offload: Offload::Inline }
}

async fn open(store: &Store, options: lakebed_log::Options) -> Log {
    let log = Log::open(store.clone(), options, seams()).await.unwrap();
    let name = TopicName::new("orders").unwrap();
    let topic = Change::CreateTopic {
        id: key(0).topic,
        name,
        partitions: PARTITIONS,
        config: std::collections::BTreeMap::new(),
    };
    log.change(topic).await.unwrap();
    log
}

fn key(partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(Uuid::from_u128(1)), PartitionIndex::new(partition))
}

/// A batch of one record.
fn batch(value: &str) -> Admitted {
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 256);
    let record = Record { offset: 0, timestamp_ms: WALL_MS, key: None, value: Some(value.as_bytes()) };
    encoder.push(record, std::iter::empty::<(&[u8], Option<&[u8]>)>()).unwrap();
    let limits = BatchLimits {
        message_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 20,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: WALL_MS,
        log_append: false,
        keys_required: false,
    };
    admit(encoder.finish().unwrap(), &limits).unwrap()
}

/// A batch to each partition.
async fn produce(ingest: &Ingest, value: &str) -> Vec<Ticket> {
    ingest.produce((0..PARTITIONS).map(|partition| (key(partition), batch(value))).collect()).await
}

async fn count_objects(store: &Store) -> usize {
    store.list(&Directory::root(), None, 1_000_000).await.unwrap().objects.len()
}

/// The most objects that stood at a look every 100 flushes, and the most runs that were live.
struct Peak {
    objects: usize,
    runs: usize,
}

/// Flushes 500 times a (simulated) second.
async fn flush_for_long(flushes: usize, store: &Store, log: &Log, ingest: &Ingest) -> Peak {
    let mut peak = Peak { objects: 0, runs: 0 };
    for index in 0..flushes {
        let tickets = produce(ingest, "a record of an endless stream").await;
        for ticket in tickets {
            ticket.await.unwrap();
        }
        sleep(Duration::from_millis(2)).await;
        if index % 100 == 0 {
            peak.objects = peak.objects.max(count_objects(store).await);
            peak.runs = peak.runs.max(log.state().run_count());
        }
    }
    peak
}

/// An hour of 500 flushes a second is 1.8 million; with a tenth of the default checkpoint interval and fan-in, 40,000 show the same: the
/// number of objects follows from these two, and from nothing that grows.
#[tokio::test(start_paused = true)]
async fn a_broker_that_flushes_500_times_a_second_keeps_few_objects_and_no_more_as_time_goes_by() {
    const FLUSHES: usize = 20_000;
    const CHECKPOINT_COMMITS: u64 = 100;
    const FAN_IN: usize = 26;
    // Two checkpoints' worth of commits, each stretched by what the state weighs (128 for 4096 remembered flushes), what was merged while
    // the next is written, and the segments of a few tiers.
    const OBJECTS_MAX: usize = 3 * (CHECKPOINT_COMMITS as usize + 128 + 64) + 4 * FAN_IN;
    let store = Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default());
    let log = open(&store, lakebed_log::Options { checkpoint_commits: CHECKPOINT_COMMITS, ..Default::default() }).await;
    let options = lakebed_ingest::Options { flush_interval: Duration::ZERO, ..Default::default() };
    let (ingest, mut committed) = Ingest::start(log.clone(), options);
    tokio::spawn(async move { while committed.recv().await.is_some() {} });
    let options = lakebed_compact::Options { fan_in: FAN_IN, ..Default::default() };
    let merger = Merger::new(log.clone(), store.clone(), options);
    tokio::spawn(async move { merger.run().await });
    let before = log.state().number().get();
    let first = flush_for_long(FLUSHES, &store, &log, &ingest).await;
    let second = flush_for_long(FLUSHES, &store, &log, &ingest).await;
    assert!(log.state().number().get() - before >= 2 * FLUSHES as u64, "each was a flush of its own");
    assert!(first.objects <= OBJECTS_MAX, "{} objects in the first half, {OBJECTS_MAX} allowed", first.objects);
    assert!(second.objects <= OBJECTS_MAX, "{} objects in the second half, {OBJECTS_MAX} allowed", second.objects);
    let slack = FAN_IN;
    assert!(second.objects <= first.objects + slack, "{} objects, then {}", first.objects, second.objects);
    assert!(second.runs <= first.runs + slack * PARTITIONS as usize, "{} runs, then {}", first.runs, second.runs);
    let state = log.state();
    for partition in 0..PARTITIONS {
        assert_eq!(state.partition(key(partition)).unwrap().high_watermark.get(), 2 * FLUSHES as u64);
    }
}

/// Lines that the code under test logs at WARN and INFO.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn with(&self, words: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// A log whose merging stalls, because no segment can be written, until it is told otherwise.
struct Stalled {
    log: Log,
    ingest: Ingest,
    stalled: Arc<AtomicBool>,
}

const LIVE_RUNS_MAX: usize = 80;

async fn stalled() -> Stalled {
    let stalled = Arc::new(AtomicBool::new(true));
    let refuses = stalled.clone();
    let faults = move |operation: &Operation<'_>| match operation {
        Operation::Create { key, .. } if refuses.load(Ordering::Relaxed) && key.as_str().contains("/segments/") => {
            Fault::at_once(Outcome::LostWith(Symptom::Refused))
        }
        _ => Fault::NONE,
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let log = open(&store, lakebed_log::Options::default()).await;
    let options =
        lakebed_ingest::Options { flush_interval: Duration::ZERO, live_runs_max: LIVE_RUNS_MAX, ..Default::default() };
    let (ingest, mut committed) = Ingest::start(log.clone(), options);
    tokio::spawn(async move { while committed.recv().await.is_some() {} });
    let options = lakebed_compact::Options { fan_in: 8, ..Default::default() };
    let merger = Merger::new(log.clone(), store, options);
    tokio::spawn(async move { merger.run().await });
    Stalled { log, ingest, stalled }
}

/// Produces until it is made to wait; what it waits for.
async fn produce_until_held(stalled: &Stalled) -> impl Future<Output = Vec<Ticket>> + Send + 'static {
    loop {
        let ingest = stalled.ingest.clone();
        let mut held = Box::pin(async move { produce(&ingest, "x").await });
        tokio::select! {
            biased;
            tickets = &mut held => for ticket in tickets {
                ticket.await.unwrap();
            },
            // Far longer than merging rests after a failure: only a throttle holds for so long.
            () = sleep(Duration::from_secs(600)) => return held,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_merging_stalls_producers_wait_and_go_on_when_it_has_caught_up_and_the_log_says_so_once() {
    let lines = Lines::default();
    let _listening = tracing::dispatcher::set_default(&tracing::Dispatch::new(lines.clone()));
    let world = stalled().await;
    let held = produce_until_held(&world).await;
    let runs = world.log.state().run_count();
    assert!((LIVE_RUNS_MAX..LIVE_RUNS_MAX + PARTITIONS as usize).contains(&runs), "{runs} runs are live");
    assert_eq!(world.ingest.throttled(), 1);
    let mut others: Vec<_> = (0..20).map(|_| Box::pin(produce(&world.ingest, "y"))).collect();
    assert!(others.iter_mut().all(|other| other.as_mut().now_or_never().is_none()), "they all wait");
    assert_eq!(world.ingest.throttled(), 21);
    assert_eq!(lines.with("WARN message=merging lags behind"), 1, "{:?}", lines.0);
    assert_eq!(lines.with("live runs are few enough again"), 0);
    world.stalled.store(false, Ordering::Relaxed);
    for tickets in
        futures::future::join(held, futures::future::join_all(others)).map(|(a, b)| b.into_iter().chain([a])).await
    {
        for ticket in tickets {
            ticket.await.unwrap();
        }
    }
    assert!(world.log.state().run_count() < LIVE_RUNS_MAX);
    assert_eq!(lines.with("WARN message=merging lags behind"), 1, "{:?}", lines.0);
    assert_eq!(lines.with("INFO message=live runs are few enough again"), 1, "{:?}", lines.0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_turns_away_who_waits_for_merging() {
    let world = stalled().await;
    let held = produce_until_held(&world).await;
    let (_, tickets) = futures::join!(world.ingest.drain(), held);
    for ticket in tickets {
        let answer = ticket.await;
        assert!(matches!(answer, Err(ProduceError::NotDone { .. })), "{answer:?}");
    }
}
