//! Retention on the real log: what goes, what is rewritten for it, what a crash leaves, and clocks that disagree.

use std::sync::Mutex;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;
use lakebed_model::{ObjectId, Run, State};
use lakebed_segment::layout;
use lakebed_segment::table::{ParsedTable, TableFooter};
use lakebed_store::backend::{Backend, Body, Failure, Listed, Part, PartId, Span, StoreDate, UploadId};
use lakebed_store::{Key, Payload};
use tokio::time::Instant;

use super::*;
use crate::{CompactionOptions, Compactor, Retainer, Retention, SKEW_MAX, Turn, compact, log_job};

const START_MS: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A store in memory that gives way before and after each request, so that whoever waits for it can be dropped there, and that has a clock.
#[derive(Default)]
struct Slow {
    objects: MemoryBackend,
    /// What it said last of its clock.
    date: Mutex<Option<StoreDate>>,
    /// Its clock, if it answers with its time.
    clock: Mutex<Option<Clock>>,
}

type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

impl std::fmt::Debug for Slow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Slow").finish_non_exhaustive()
    }
}

impl Slow {
    async fn slowly<T>(&self, request: impl Future<Output = T> + Send) -> T {
        tokio::task::yield_now().await;
        let answer = request.await;
        if let Some(clock) = &*self.clock.lock().unwrap() {
            *self.date.lock().unwrap() = Some(StoreDate { ms: clock(), at: Instant::now() });
        }
        tokio::task::yield_now().await;
        answer
    }
}

#[async_trait]
impl Backend for Slow {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.slowly(self.objects.create(key, payload)).await
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.slowly(self.objects.overwrite(key, payload)).await
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        self.slowly(self.objects.get(key, span)).await
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        self.slowly(self.objects.size(key)).await
    }

    async fn list(&self, directory: &Directory, after: Option<&Key>, limit: usize) -> Result<Vec<Listed>, Failure> {
        self.slowly(self.objects.list(directory, after, limit)).await
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        self.slowly(self.objects.list_directories(directory)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        self.slowly(self.objects.delete(keys)).await
    }

    async fn begin(&self, key: &Key) -> Result<UploadId, Failure> {
        self.slowly(self.objects.begin(key)).await
    }

    async fn put_part(&self, key: &Key, upload: &UploadId, part: &Part) -> Result<PartId, Failure> {
        self.slowly(self.objects.put_part(key, upload, part)).await
    }

    async fn complete(&self, key: &Key, upload: &UploadId, parts: &[PartId], size_bytes: u64) -> Result<(), Failure> {
        self.slowly(self.objects.complete(key, upload, parts, size_bytes)).await
    }

    async fn abort(&self, key: &Key, upload: &UploadId) -> Result<(), Failure> {
        self.slowly(self.objects.abort(key, upload)).await
    }

    fn date(&self) -> Option<StoreDate> {
        *self.date.lock().unwrap()
    }
}

/// A broker's log, and what compacts it and removes what topics don't keep.
struct World {
    backend: Arc<Slow>,
    store: Store,
    log: Log,
    compactor: Compactor,
    retainer: Retainer,
    wall_ms: Arc<AtomicI64>,
}

fn kept(config: &BTreeMap<String, String>) -> Retention {
    let number = |name: &str| config.get(name).and_then(|value| value.parse::<i64>().ok());
    Retention { age_ms: number("age"), bytes: number("bytes").and_then(|bytes| u64::try_from(bytes).ok()) }
}

impl World {
    /// Partition 1 has its rows in a table file; partition 0 has grown since.
    async fn grown() -> Self {
        let world = Self::new().await;
        append_to(&world.log, 1..2, "still").await;
        world.file_of(1).await;
        for _ in 0..4 {
            append_to(&world.log, 0..1, "more").await;
        }
        world
    }

    /// A fresh one with a topic of two partitions.
    async fn new() -> Self {
        let world = Self::on(Arc::default(), 1).await;
        create_topic(&world.log).await;
        world
    }

    /// On what another one has left behind.
    async fn on(backend: Arc<Slow>, seed: u64) -> Self {
        let store = Store::new("memory://", Arc::clone(&backend) as _, &StoreOptions::default());
        let wall_ms = Arc::new(AtomicI64::new(START_MS));
        let clock = Arc::clone(&wall_ms);
        let seams = Seams { wall: Arc::new(move || clock.load(Ordering::SeqCst)), seed, offload: Offload::Inline };
        let log = Log::open(store.clone(), lakebed_log::Options::default(), seams).await.unwrap();
        let options = CompactionOptions { file_bytes_max: 1 << 20, retention: kept, ..Default::default() };
        let compactor = Compactor::new(log.clone(), store.clone(), options, Turn::default());
        let retainer = Retainer::new(log.clone(), store.clone(), compactor.clone(), HOUR);
        Self { backend, store, log, compactor, retainer, wall_ms }
    }

    async fn keep(&self, settings: &[(&str, &str)]) {
        let config = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.log.change(Change::AlterTopic { id: key(0).topic, config }).await.unwrap();
    }

    /// Records in partitions 0 and 1, in one table file.
    async fn file_of(&self, count: usize) {
        for index in 0..count {
            append(&self.log, &format!("record {index}")).await;
        }
        let state = self.log.state();
        let job = log_job(&state, key(0).topic, &CompactionOptions::default(), &BTreeSet::new()).unwrap();
        compact(&self.log, &self.store, &state, &job, 1 << 20).await.unwrap();
    }

    async fn move_start(&self, partition: u32, offset: u64) {
        let moved = Change::MoveLogStart { partition: key(partition), offset: Offset::new(offset) };
        self.log.change(moved).await.unwrap();
    }

    fn retention_is_paused(&self) -> bool {
        self.retainer.counts().paused_since_ms.load(Ordering::Relaxed) != 0
    }

    fn runs(&self) -> Vec<(u32, u64, u64)> {
        runs(&self.log.state())
    }

    /// The runs of each table file that the log names, as its own footer has them.
    async fn shown(&self) -> Vec<(u32, u64, u64)> {
        let mut shown = Vec::new();
        for (id, rows) in self.log.state().table_files(key(0).topic) {
            let bytes = self.store.get(&Key::new(layout::table_file_key("orders", id)).unwrap()).await.unwrap();
            let ParsedTable::Whole(footer) = TableFooter::parse(&bytes, bytes.len() as u64).unwrap() else { panic!() };
            let of_file: Vec<_> = footer.runs().map(|(key, base, rows)| (key.get(), base.get(), rows)).collect();
            assert_eq!(of_file.iter().map(|(.., rows)| rows).sum::<u64>(), rows, "nothing is in it but what is named");
            shown.extend(of_file);
        }
        shown.sort_unstable();
        shown
    }
}

fn runs(state: &State) -> Vec<(u32, u64, u64)> {
    let run = |(key, base, run): (PartitionKey, Offset, Run)| (key.partition.get(), base.get(), run.rows);
    state.runs_of_topic(key(0).topic).map(run).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fresh_table_has_no_row_below_the_log_start() {
    let world = World::new().await;
    world.file_of(10).await;
    world.move_start(0, 4).await;
    assert_eq!(world.runs(), [(0, 0, 10), (1, 0, 10)]);
    world.compactor.refresh(key(0).topic).await.unwrap();
    assert_eq!(world.runs(), [(0, 4, 6), (1, 0, 10)]);
    assert_eq!(world.shown().await, world.runs());
    // A partition that goes whole, and one that does in part, in files of several.
    world.file_of(3).await;
    world.move_start(0, 11).await;
    world.move_start(1, 10).await;
    world.compactor.refresh(key(0).topic).await.unwrap();
    assert_eq!(world.shown().await, [(0, 11, 2), (1, 10, 3)]);
    let number = world.log.state().number();
    world.compactor.refresh(key(0).topic).await.unwrap();
    assert_eq!(world.log.state().number(), number, "nothing is left to do");
    let again = World::on(Arc::clone(&world.backend), 2).await;
    assert!(again.log.state().runs().eq(world.log.state().runs()), "a fresh broker finds the same");
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_segment_below_the_log_start_come_into_no_table_file() {
    let world = World::new().await;
    for index in 0..6 {
        append(&world.log, &format!("record {index}")).await;
    }
    let state = world.log.state();
    let all = Plan::whole(state.objects().map(|(id, _)| id).collect());
    merge(&world.log, &world.store, &state, &all).await.unwrap();
    world.move_start(1, 5).await;
    assert_eq!(world.runs(), [(0, 0, 6), (1, 0, 6)]);
    let before: u64 = world.log.state().runs().map(|(.., run)| run.bytes).sum();
    world.compactor.refresh(key(0).topic).await.unwrap();
    assert_eq!((world.shown().await, world.runs()), (vec![(0, 0, 6), (1, 5, 1)], vec![(0, 0, 6), (1, 5, 1)]));
    let after: u64 = world.log.state().runs().map(|(.., run)| run.bytes).sum();
    assert_eq!((before, after), (12 * 8, 7 * 8), "and the bytes of what is left are counted");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_goes_in_one_commit_and_an_idle_log_costs_nothing() {
    let world = World::new().await;
    world.file_of(5).await;
    append(&world.log, "later").await;
    let retaining = tokio::spawn({
        let retainer = world.retainer.clone();
        async move { retainer.run().await }
    });
    tokio::time::sleep(10 * HOUR).await;
    let (number, asked) = (world.log.state().number(), world.store.counts().requests());
    tokio::time::sleep(10 * HOUR).await;
    assert_eq!(world.log.state().number(), number);
    // The records are of 1970. Those of the commits of these tests too.
    world.keep(&[("age", "1000")]).await;
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!((world.runs(), world.log.state().object_count()), (vec![], 0));
    assert_eq!(
        world.log.state().number(),
        number.next().next(),
        "one commit for the setting, and one for all that went"
    );
    let [first, second] = [0, 1].map(|index| world.log.state().partition(key(index)).unwrap().log_start.get());
    assert_eq!((first, second), (6, 6));
    assert_eq!(world.store.counts().requests(), asked + 2);
    let counts = world.retainer.counts();
    let removed = &counts.by_age;
    assert_eq!(
        [&removed.records, &removed.files, &removed.bytes].map(|count| count.load(Ordering::Relaxed)),
        [12, 1, 10 * 8 + 2 * 5]
    );
    assert_eq!(world.log.state().table(key(0).topic).unwrap().version, 2, "the table shows it");
    retaining.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_goes_and_a_file_that_holds_others_is_rewritten_in_the_same_commit() {
    let world = World::grown().await;
    world.keep(&[("bytes", "8")]).await;
    let before = world.log.state();
    world.retainer.pass_now().await;
    let state = world.log.state();
    assert_eq!(state.number(), before.number().next(), "log start and table file in one");
    assert_eq!(state.partition(key(0)).unwrap().log_start.get(), 3);
    assert_eq!(world.shown().await, [(1, 0, 2)]);
    assert_eq!(world.retainer.counts().by_size.records.load(Ordering::Relaxed), 3);
    world.retainer.pass_now().await;
    assert_eq!(world.log.state().number(), state.number(), "what is left is to be kept");
}

#[tokio::test(start_paused = true)]
async fn files_that_deleted_records_have_left_partial_are_rewritten_by_the_next_pass() {
    let world = World::new().await;
    world.file_of(4).await;
    world.move_start(1, 4).await;
    world.retainer.pass_now().await;
    assert_eq!(world.shown().await, [(0, 0, 4)]);
    world.move_start(0, 1).await;
    world.retainer.pass_now().await;
    assert_eq!(world.shown().await, [(0, 1, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_keeps_no_other_from_being_rewritten() {
    let world = World::new().await;
    world.file_of(2).await;
    let (victim, _) = world.log.state().table_files(key(0).topic)[0];
    world.store.delete(&[Key::new(layout::table_file_key("orders", victim)).unwrap()]).await.unwrap();
    world.file_of(4).await;
    world.move_start(0, 1).await;
    world.move_start(1, 3).await;
    world.retainer.pass_now().await;
    world.retainer.pass_now().await;
    let state = world.log.state();
    assert!(state.object(ObjectId::Table(victim)).is_some(), "what can't be read is left as it is");
    assert_eq!(world.runs(), [(0, 0, 2), (0, 2, 4), (1, 3, 3)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_while_clocks_disagree() {
    let world = World::new().await;
    world.file_of(2).await;
    world.keep(&[("age", "1000")]).await;
    let number = world.log.state().number();
    let skew_ms = i64::try_from(SKEW_MAX.as_millis()).unwrap();
    let counts = world.retainer.counts();
    for ahead_ms in [skew_ms + 1, -skew_ms - 1] {
        *world.backend.date.lock().unwrap() = Some(StoreDate { ms: START_MS - ahead_ms, at: Instant::now() });
        world.retainer.pass_now().await;
        assert_eq!(world.log.state().number(), number);
        assert_eq!(counts.skew_ms.load(Ordering::Relaxed), ahead_ms);
        assert_eq!(counts.paused_since_ms.load(Ordering::Relaxed), START_MS);
        assert_eq!(counts.success_at_ms.load(Ordering::Relaxed), 0);
    }
    // What was deleted by somebody goes all the same.
    world.move_start(0, 2).await;
    world.retainer.pass_now().await;
    assert_eq!(world.shown().await, [(1, 0, 2)]);
    assert!(world.retention_is_paused());
    *world.backend.date.lock().unwrap() = Some(StoreDate { ms: START_MS, at: Instant::now() });
    world.retainer.pass_now().await;
    assert_eq!((world.runs(), world.retention_is_paused()), (vec![], false));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_has_slept_asks_the_store_before_it_calls_a_clock_wrong() {
    let world = World::new().await;
    world.file_of(2).await;
    world.keep(&[("age", "1000")]).await;
    let slept_ms = 2 * i64::try_from(SKEW_MAX.as_millis()).unwrap();
    // The store answers with its time, which is right.
    let clock = Arc::clone(&world.wall_ms);
    *world.backend.clock.lock().unwrap() = Some(Arc::new(move || clock.load(Ordering::SeqCst)));
    world.log.barrier().await.unwrap();
    // Tokio's time stands still while a machine sleeps, and the wall clock goes on. A minute later the answer from before is old.
    world.wall_ms.fetch_add(slept_ms, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(61)).await;
    world.retainer.pass_now().await;
    assert!(!world.retention_is_paused());
    assert_eq!(world.runs(), []);
    // A store whose clock is wrong is asked, and nothing goes.
    world.file_of(2).await;
    let before = world.runs();
    *world.backend.clock.lock().unwrap() = Some(Arc::new(|| START_MS));
    world.wall_ms.fetch_add(slept_ms, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(61)).await;
    world.retainer.pass_now().await;
    assert!(world.retention_is_paused());
    assert_eq!(world.runs(), before);
}

#[tokio::test(start_paused = true)]
async fn a_setting_that_is_changed_while_a_pass_runs_is_obeyed() {
    let world = World::new().await;
    world.file_of(2).await;
    world.keep(&[("age", "1000")]).await;
    let retainer = world.retainer.clone();
    let pass = tokio::spawn(async move { retainer.pass_now().await });
    // The pass decides by the durable state, and its commit comes after this one.
    let altered = world.log.change(Change::AlterTopic { id: key(0).topic, config: BTreeMap::new() });
    let (altered, passed) = tokio::join!(altered, pass);
    altered.unwrap();
    passed.unwrap();
    assert_eq!(world.runs(), [(0, 0, 2), (1, 0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_setting_that_is_changed_while_a_file_is_rewritten_is_obeyed() {
    let world = World::grown().await;
    world.keep(&[("bytes", "8")]).await;
    let before = world.runs();
    let retainer = world.retainer.clone();
    let mut pass = Box::pin(async move { retainer.pass_now().await });
    // It has planned, and reads what it rewrites.
    for _ in 0..3 {
        assert!(futures::poll!(&mut pass).is_pending());
    }
    let altered = world.log.change(Change::AlterTopic { id: key(0).topic, config: BTreeMap::new() });
    let (altered, ()) = tokio::join!(altered, pass);
    altered.unwrap();
    assert_eq!(world.runs(), before);
    assert_eq!(world.retainer.counts().failures.load(Ordering::Relaxed), 0, "it came too late");
}

/// Drops a future when it has been polled so often; whether it had ended.
async fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> bool {
    let mut future = Box::pin(future);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        if polled == polls {
            return std::task::Poll::Ready(false);
        }
        polled += 1;
        future.as_mut().poll(context).map(|_| true)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_await_leaves_a_log_that_names_what_stands_and_the_next_pass_ends_it() {
    let mut polls = 0;
    loop {
        let world = World::grown().await;
        world.move_start(1, 1).await;
        world.keep(&[("bytes", "8")]).await;
        let before = runs(&world.log.state());
        let ended = drop_after(polls, world.retainer.pass_now()).await;
        world.log.abort();
        let again = World::on(Arc::clone(&world.backend), 2).await;
        let state = again.log.state();
        let start = state.partition(key(0)).unwrap().log_start.get();
        assert!([0, 3].contains(&start), "{start}");
        if start == 0 {
            assert_eq!(again.runs(), before, "after {polls} polls");
        } else {
            assert_eq!(again.runs()[1..], [(0, 4, 1), (1, 1, 1)], "after {polls} polls");
        }
        again.retainer.pass_now().await;
        assert_eq!(again.shown().await, [(1, 1, 1)], "after {polls} polls");
        assert_eq!(again.log.state().partition(key(0)).unwrap().log_start.get(), 3);
        if ended {
            break;
        }
        polls += 1;
    }
    assert!(polls > 5, "{polls} awaits");
}
