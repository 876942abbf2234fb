//! Compaction of keys on the real log over a memory store: against a map from keys to their last values, after every step of random histories.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;

use futures::FutureExt;
use lakebed_model::{ObjectId, State};
use lakebed_segment::layout;
use lakebed_segment::rows::RowSource;
use lakebed_segment::table::{ParsedTable, TableFooter};
use lakebed_store::Key;

use super::*;
use crate::{
    Cleaned, Cleaner, CompactionOptions, Compactor, Job, KeyOptions, Known, RewriteError, Turn, clean, compact,
    files_job, key_job, log_job,
};

const DAY_MS: i64 = 86_400_000;
pub(super) const START_MS: i64 = 1_700_000_000_000;

/// What a partition's records are, by offset: key and value.
type Records = BTreeMap<u64, (Option<String>, Option<String>)>;

/// A log with a topic, and what was written to each of its partitions.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) log: Log,
    clock: Arc<AtomicI64>,
    written: BTreeMap<u32, Records>,
    pub(super) options: KeyOptions,
}

impl World {
    pub(super) async fn new(partitions: u32, settings: &[(&str, &str)]) -> Self {
        Self::on(store(), partitions, settings).await
    }

    pub(super) async fn on(store: Store, partitions: u32, settings: &[(&str, &str)]) -> Self {
        let clock = Arc::new(AtomicI64::new(START_MS));
        let wall = Arc::clone(&clock);
        let seams = Seams { wall: Arc::new(move || wall.load(Ordering::Relaxed)), seed: 5, offload: Offload::Inline };
        let log = Log::open(store.clone(), lakebed_log::Options::default(), seams).await.unwrap();
        let config = BTreeMap::from([("cleanup.policy", "compact")]).into_iter().chain(settings.iter().copied());
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let name = TopicName::new("orders").unwrap();
        log.change(Change::CreateTopic { id: key(0).topic, name, partitions, config }).await.unwrap();
        let options = KeyOptions { map_bytes: 1 << 20, file_bytes_max: 1 << 20, ..Default::default() };
        let written = (0..partitions).map(|partition| (partition, Records::new())).collect();
        Self { store, log, clock, written, options }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub(super) fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) async fn append(&mut self, partition: u32, records: &[(Option<&str>, Option<&str>)]) {
        let fields = Fields {
            codec: Codec::None,
            timestamp_type: TimestampType::Create,
            producer: None,
            is_transactional: false,
        };
        let mut encoder = Encoder::new(fields, 256);
        for (index, (key, value)) in records.iter().enumerate() {
            let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
            let record = Record { offset: index as i64, timestamp_ms: self.now_ms(), key, value };
            encoder.push(record, std::iter::empty::<(&[u8], Option<&[u8]>)>()).unwrap();
        }
        let limits = batch::Limits { max_decompressed_bytes: 1 << 20 };
        let decoded = batch::decode(encoder.finish().unwrap(), &limits).unwrap();
        let one = BodyBatch { partition: key(partition), rows: &decoded.rows, log_append_time_ms: None };
        let body = seal(&[one], self.now_ms()).unwrap();
        let batches = vec![facts(&one, self.now_ms(), None)];
        let proposal = FlushProposal {
            id: self.log.mint(),
            broker: self.log.nonce(),
            previous: None,
            body: FlushBody::Inline,
            ingest_time_ms: self.now_ms(),
            runs: vec![ProposedRun { partition: key(partition), first_row: 0, batches }],
        };
        self.log.submit(proposal, Some(body)).await.await.unwrap();
        let known = self.written.get_mut(&partition).unwrap();
        for (key, value) in records {
            let next = known.last_key_value().map_or(0, |(offset, _)| offset + 1);
            known.insert(next, (key.map(str::to_owned), value.map(str::to_owned)));
        }
    }

    /// Puts everything into table files.
    pub(super) async fn compact(&self) {
        let state = self.log.state();
        let options = CompactionOptions::default();
        let Some(job) = log_job(&state, key(0).topic, &options, &BTreeSet::new()) else { return };
        compact(&self.log, &self.store, &state, &job, 1 << 20).await.unwrap();
    }

    pub(super) async fn clean(&self) -> Option<Cleaned> {
        let state = self.log.state();
        let job = key_job(&state, key(0).topic, self.now_ms(), &BTreeSet::new())?;
        Some(clean(&self.log, &self.store, &state, &job, &self.options, self.now_ms()).await.unwrap())
    }

    /// The rows of table files, verified against the hashes that the state has; and up to which offset a partition is clean.
    pub(super) async fn read(&self, partition: u32) -> (Records, u64) {
        let state = self.log.state();
        let (mut records, mut clean) = (Records::new(), None);
        for (base, run) in state.runs_of(key(partition)) {
            let ObjectId::Table(id) = run.object else { continue };
            if !run.clean {
                clean.get_or_insert(base.get());
            }
            let bytes = self.store.get(&Key::new(layout::table_file_key("orders", id)).unwrap()).await.unwrap();
            let footer = match TableFooter::parse(&bytes, bytes.len() as u64).unwrap() {
                ParsedTable::Whole(footer) => footer,
                other @ ParsedTable::NeedsSuffix(_) => panic!("{other:?}"),
            };
            let read = footer.read(run.first_row..run.first_row + run.rows, &[(0, bytes)]).unwrap();
            let hash = if run.has_gaps() { read.rows.hash_placed(&read.offsets) } else { read.rows.hash() };
            assert_eq!(hash, run.hash);
            for (row, offset) in read.offsets.iter().enumerate() {
                assert!((base..run.end(base)).contains(offset), "{offset} in {base}..{}", run.end(base));
                let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
                let record = (text(read.rows.key(row)), text(read.rows.value(row)));
                assert!(records.insert(offset.get(), record).is_none());
            }
        }
        let end = state.runs_of(key(partition)).last().map_or(0, |(base, run)| run.end(base).get());
        (records, clean.unwrap_or(end))
    }

    /// Compares what is left with what was written: every row is one that was written, at its offset; what is clean has each key once; the
    /// last value of every key is there, and one that was deleted has none.
    pub(super) async fn check(&self) {
        let state = self.log.state();
        for (partition, written) in &self.written {
            let (left, clean) = self.read(*partition).await;
            let log_start = state.partition(key(*partition)).unwrap().log_start.get();
            let end = left.last_key_value().map_or(0, |(offset, _)| offset + 1).max(clean);
            for (offset, record) in &left {
                assert_eq!(written.get(offset), Some(record), "{partition}/{offset}");
            }
            let mut seen = BTreeMap::new();
            for (offset, (key, _)) in left.range(..clean) {
                assert!(seen.insert(key, offset).is_none(), "{partition}: {key:?} at {offset} is there twice");
            }
            let last = |records: &Records| -> BTreeMap<String, (u64, String)> {
                let mut last = BTreeMap::new();
                for (offset, (key, value)) in records.range(..end) {
                    let Some(key) = key else { continue };
                    match value {
                        Some(value) => _ = last.insert(key.clone(), (*offset, value.clone())),
                        None => _ = last.remove(key),
                    }
                }
                last.retain(|_, (offset, _)| *offset >= log_start);
                last
            };
            assert_eq!(last(&left), last(written), "partition {partition}");
            assert!(left.range(clean..).count() as u64 <= end - clean);
            assert_eq!(
                left.range(clean.max(log_start)..end.max(clean).max(log_start)).count(),
                written.range(clean.max(log_start)..end.max(clean).max(log_start)).count(),
                "what is dirty is whole"
            );
        }
    }
}

pub(super) fn covers(state: &State, partition: u32) -> Vec<(u64, u64, u64, bool)> {
    let runs = state.runs_of(key(partition));
    runs.map(|(base, run)| (base.get(), run.end(base).get(), run.rows, run.clean)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_last_record_of_each_key_stays_at_its_offset_and_the_rest_goes() {
    let mut world = World::new(2, &[]).await;
    world.append(0, &[(Some("a"), Some("1")), (Some("b"), Some("1")), (Some("a"), Some("2")), (Some("c"), None)]).await;
    world.append(0, &[(None, Some("no key")), (Some("b"), Some("2")), (Some("a"), Some("3"))]).await;
    world.append(1, &[(Some("a"), Some("other"))]).await;
    world.compact().await;
    let done = world.clean().await.unwrap();
    assert_eq!((done.rows_in, done.rows_out, done.partial), (8, 4, 0));
    world.check().await;
    let (left, _) = world.read(0).await;
    assert_eq!(left.keys().copied().collect::<Vec<_>>(), [3, 5, 6]);
    assert_eq!(covers(&world.log.state(), 0), [(0, 7, 3, true)]);
    assert_eq!(covers(&world.log.state(), 1), [(0, 1, 1, true)]);
    assert!(world.clean().await.is_none(), "nothing is dirty");
    assert_eq!(world.log.state().table(key(0).topic).unwrap().version, 2);
    // A fresh broker finds the same.
    let seams = Seams { wall: Arc::new(|| START_MS), seed: 6, offload: Offload::Inline };
    let again = Log::open(world.store.clone(), lakebed_log::Options::default(), seams).await.unwrap();
    assert!(again.state().runs().eq(world.log.state().runs()));
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_goes_when_its_time_is_over_and_not_before_and_the_key_does_not_come_back() {
    let mut world = World::new(1, &[("min.cleanable.dirty.ratio", "0")]).await;
    world.append(0, &[(Some("a"), Some("1")), (Some("b"), Some("1"))]).await;
    world.append(0, &[(Some("a"), None)]).await;
    let offsets = async |world: &World| world.read(0).await.0.keys().copied().collect::<Vec<_>>();
    world.compact().await;
    world.clean().await.unwrap();
    assert_eq!(offsets(&world).await, [1, 2]);
    for (passed_ms, number, expected) in [(DAY_MS, 0, vec![1, 2, 3]), (1, 1, vec![1, 4])] {
        world.pass(passed_ms);
        world.append(0, &[(Some("c"), Some(&number.to_string()))]).await;
        world.compact().await;
        world.clean().await.unwrap();
        assert_eq!(offsets(&world).await, expected);
        world.check().await;
    }
    // A second one has a time of its own, which does not begin anew with every compaction.
    world.append(0, &[(Some("b"), None)]).await;
    for hours in 0..26 {
        world.append(0, &[(Some("c"), Some(&hours.to_string()))]).await;
        world.compact().await;
        world.clean().await.unwrap();
        assert_eq!(world.read(0).await.0.contains_key(&5), hours <= 24, "after {hours} hours");
        world.pass(DAY_MS / 24);
    }
    assert_eq!(world.read(0).await.0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_all_would_go_the_last_row_stays_and_covers_the_offsets() {
    let mut world = World::new(1, &[("delete.retention.ms", "0"), ("min.cleanable.dirty.ratio", "0")]).await;
    world.append(0, &[(None, Some("1")), (None, Some("2"))]).await;
    world.compact().await;
    world.clean().await.unwrap();
    assert_eq!(covers(&world.log.state(), 0), [(0, 2, 1, true)]);
    assert_eq!(world.read(0).await.0.into_keys().collect::<Vec<_>>(), [1]);
    world.append(0, &[(Some("a"), None)]).await;
    world.compact().await;
    world.clean().await.unwrap();
    assert_eq!(covers(&world.log.state(), 0), [(0, 3, 1, true)]);
    assert_eq!(world.read(0).await.0.into_keys().collect::<Vec<_>>(), [2]);
}

#[tokio::test(start_paused = true)]
async fn what_is_young_waits_and_what_is_old_does_not_wait_for_a_ratio() {
    let settings = [("min.compaction.lag.ms", "60000"), ("max.compaction.lag.ms", "120000")];
    let mut world = World::new(1, &settings).await;
    for number in 0..20 {
        world.append(0, &[(Some("a"), Some(&number.to_string())), (Some(&number.to_string()), Some("x"))]).await;
    }
    world.compact().await;
    assert!(world.clean().await.is_none(), "all is younger than a minute");
    world.pass(59_999);
    assert!(world.clean().await.is_none());
    world.pass(1);
    world.append(0, &[(Some("a"), Some("young"))]).await;
    world.compact().await;
    assert_eq!(world.clean().await.unwrap().rows_in, 40, "the young one is not among them");
    world.check().await;
    world.pass(60_000);
    assert!(world.clean().await.is_none(), "a record of more than twenty is below the ratio");
    world.pass(60_001);
    assert_eq!(world.clean().await.unwrap().rows_in, 22);
    assert_eq!(world.read(0).await.0.len(), 21);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn more_keys_than_fit_are_compacted_a_part_at_a_time() {
    let mut world = World::new(1, &[("min.cleanable.dirty.ratio", "0")]).await;
    world.options.map_bytes = 1000;
    for round in 0..3 {
        for number in 0..60 {
            world.append(0, &[(Some(&number.to_string()), Some(&round.to_string()))]).await;
        }
    }
    world.compact().await;
    let mut passes = 0;
    while let Some(done) = world.clean().await {
        world.check().await;
        passes += 1;
        assert!(passes < 20 && done.rows_out >= 60);
    }
    assert!(passes > 3, "{passes} passes");
    let (left, clean) = world.read(0).await;
    assert_eq!((left.keys().copied().collect::<Vec<_>>(), clean), ((120..180).collect::<Vec<_>>(), 180));
}

#[tokio::test(start_paused = true)]
async fn a_compaction_of_keys_that_comes_too_late_or_has_no_leave_changes_nothing() {
    let mut world = World::new(2, &[]).await;
    for number in 0..4 {
        world.append(number % 2, &[(Some("a"), Some(&number.to_string()))]).await;
    }
    world.compact().await;
    let state = world.log.state();
    let job = key_job(&state, key(0).topic, world.now_ms(), &BTreeSet::new()).unwrap();
    world.clean().await.unwrap();
    let cleaned = world.log.state();
    let late = clean(&world.log, &world.store, &state, &job, &world.options, world.now_ms()).await;
    assert!(matches!(late, Err(RewriteError::Stale(_))), "{late:?}");
    assert!(world.log.state().runs().eq(cleaned.runs()));
    // Nor is what is clean rewritten as what is not.
    let options = CompactionOptions::default();
    assert!(files_job(&cleaned, key(0).topic, &options, &Known::default()).is_none());
    let runs = cleaned.runs_of_topic(key(0).topic).collect();
    let dense = compact(&world.log, &world.store, &cleaned, &Job { topic: key(0).topic, runs }, 1 << 20).await;
    assert!(dense.is_err(), "{dense:?}");
    world.append(0, &[(Some("a"), Some("4"))]).await;
    world.compact().await;
    let state = world.log.state();
    let job = key_job(&state, key(0).topic, world.now_ms(), &BTreeSet::new());
    assert!(job.is_none() || job.is_some_and(|job| job.dirty_bytes * 2 > job.bytes));
    world.log.change(Change::AlterTopic { id: key(0).topic, config: BTreeMap::new() }).await.unwrap();
    let state = world.log.state();
    assert!(key_job(&state, key(0).topic, world.now_ms(), &BTreeSet::new()).is_none());
    world.check().await;
}

/// A linear congruential generator: every run draws the same.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

async fn play(seed: u64) {
    let mut random = Random(seed);
    let ratio = ["0", "0.2", "0.5"][random.below(3) as usize];
    let mut world = World::new(3, &[("min.cleanable.dirty.ratio", ratio), ("delete.retention.ms", "5000")]).await;
    world.options.map_bytes = [300, 2000, 1 << 20][random.below(3) as usize];
    world.options.file_bytes_max = [1, 20_000, 1 << 20][random.below(3) as usize];
    let mut log_start = 0;
    for step in 0..60_u64 {
        match random.below(10) {
            0..=5 => {
                let count = 1 + random.below(30);
                let drawn: Vec<(Option<String>, Option<String>)> = (0..count)
                    .map(|_| {
                        let key = format!("key {}", random.below(40));
                        let value = format!("{step}-{}", random.below(1000));
                        // Keys that came before the topic was compacted, and tombstones.
                        ((random.below(20) > 0).then_some(key), (random.below(4) > 0).then_some(value))
                    })
                    .collect();
                let records: Vec<_> = drawn.iter().map(|(key, value)| (key.as_deref(), value.as_deref())).collect();
                world.append(random.below(3) as u32, &records).await;
            }
            6 | 7 => world.compact().await,
            8 => {
                world.compact().await;
                _ = world.clean().await;
            }
            _ if random.below(3) == 0 => {
                let bounds = world.log.state().partition(key(0)).unwrap();
                let to = log_start + random.below(bounds.high_watermark.get() - log_start + 1);
                if to > log_start {
                    let offset = Offset::new(to);
                    world.log.change(Change::MoveLogStart { partition: key(0), offset }).await.unwrap();
                    log_start = to;
                }
            }
            _ => _ = world.clean().await,
        }
        world.pass(random.below(3000) as i64);
    }
    world.compact().await;
    while world.clean().await.is_some() {}
    world.log.state().check_invariants().unwrap();
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn random_histories_leave_the_last_value_of_every_key_at_its_offset() {
    for seed in 0..40 {
        play(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_await_leaves_either_what_was_there_or_what_is_left() {
    for (crashes, polls) in (1..).enumerate() {
        let mut world = World::new(2, &[]).await;
        world.options.file_bytes_max = 1;
        for number in 0..30_u32 {
            world.append(number % 2, &[(Some(&(number % 5).to_string()), Some(&number.to_string()))]).await;
        }
        world.compact().await;
        let before = world.log.state();
        let job = key_job(&before, key(0).topic, world.now_ms(), &BTreeSet::new()).unwrap();
        let over = {
            let cleaning = clean(&world.log, &world.store, &before, &job, &world.options, world.now_ms());
            let mut cleaning = std::pin::pin!(cleaning);
            let mut over = false;
            for _ in 0..polls {
                over = (&mut cleaning).now_or_never().is_some();
                if over {
                    break;
                }
                // Whatever it waits for comes about.
                tokio::task::yield_now().await;
            }
            over
        };
        let seams = Seams { wall: Arc::new(|| START_MS), seed: 9, offload: Offload::Inline };
        let again = Log::open(world.store.clone(), lakebed_log::Options::default(), seams).await.unwrap();
        let is_before = again.state().runs().eq(before.runs());
        world.log = again;
        world.check().await;
        if over {
            assert!(!is_before && crashes > 0, "it came through after {crashes} crashes");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cleaner_does_what_is_due_by_itself_and_leaves_a_damaged_file_alone() {
    let mut world = World::new(1, &[]).await;
    for number in 0..10 {
        world.append(0, &[(Some("a"), Some(&number.to_string()))]).await;
    }
    let options = CompactionOptions { bytes: 1, ..CompactionOptions::default() };
    let compactor = Compactor::new(world.log.clone(), world.store.clone(), options, Turn::default());
    let cleaner = Cleaner::new(world.log.clone(), world.store.clone(), world.options.clone(), &compactor);
    let counts = cleaner.counts();
    let (mut commits, running) = (world.log.watch(), tokio::spawn(cleaner.run()));
    let compacting = tokio::spawn(async move { compactor.run().await });
    while counts.compactions.load(Ordering::Relaxed) == 0 {
        commits.changed().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(covers(&world.log.state(), 0), [(0, 10, 1, true)]);
    compacting.abort();
    running.abort();
    world.append(0, &[(Some("a"), Some("10")), (Some("a"), Some("11"))]).await;
    world.compact().await;
    let state = world.log.state();
    let (_, run) = state.runs_of(key(0)).next().unwrap();
    let ObjectId::Table(id) = run.object else { panic!("{run:?}") };
    world.store.delete(&[Key::new(layout::table_file_key("orders", id)).unwrap()]).await.unwrap();
    let compactor = Compactor::new(world.log.clone(), world.store.clone(), Default::default(), Turn::default());
    let mut cleaner = Cleaner::new(world.log.clone(), world.store.clone(), world.options.clone(), &compactor);
    assert!(cleaner.step().await, "it failed");
    assert!(!cleaner.step().await, "and is not tried again");
    assert_eq!(cleaner.counts().failures.load(Ordering::Relaxed), 1);
    assert!(world.log.state().runs().eq(state.runs()));
}
