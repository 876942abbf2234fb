//! The background task that compacts: woken by commits and by age, one compaction at a time, and whenever somebody wants a fresh table.
//!
//! 1. Compactions of rows of the log and merges take turns, or each would make the other's work stale; so do those who rewrite table files.
//! 2. What is damaged is left alone and named once; the rest of its topic goes on.
//! 3. How long rows wait is measured by this process: it decides when something is done, never whether it is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use lakebed_log::Log;
use lakebed_model::{Change, Draft, ObjectId, State, TableFileId, TopicId};
use lakebed_segment::table::PartitionBy;
use lakebed_store::Store;
use tokio::time::{Instant, sleep_until};

use crate::backlog::{
    Backlog, CompactionOptions, FilePartitions, Known, backlogs, files_job, log_job, log_job_until, partition_by,
    trim_job,
};
use crate::compaction::{Job, compact, compact_after};
use crate::keys::Busy;
use crate::objects::{RewriteError, ingest_times_ms};
use crate::packing::Packing;
use crate::turn::{Pace, Turn};

/// Least time between two looks: a look visits all runs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After a compaction that failed, the next one waits so long.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Most damaged objects that are remembered; with more, compaction stops and says so.
const DAMAGED_MAX: usize = 1000;
/// Of so many files the partition of their table is looked up between two compactions, of so many at once.
const LEARNED_MAX: usize = 256;
/// See [`LEARNED_MAX`].
const LEARNED_AT_ONCE: usize = 16;
/// Quiet topics may use up so much of an hour's allowance at once.
const BURST_SHARE: f64 = 0.1;

/// What a compactor has done so far, and what waits.
#[derive(Debug, Default)]
pub struct CompactionCounts {
    /// Compactions that were committed.
    pub compactions: AtomicU64,
    /// Table files that were written for them.
    pub files: AtomicU64,
    /// Bytes of keys, values and headers that were re-homed.
    pub bytes_in: AtomicU64,
    /// Bytes of the files.
    pub bytes_out: AtomicU64,
    /// Rows of the log that went into table files with a value that is not what their topic says that its values are.
    pub misfits: AtomicU64,
    /// Compactions that failed.
    pub failures: AtomicU64,
    /// Damaged objects that are left alone.
    pub set_aside: AtomicU64,
    /// Bytes of keys, values and headers that are in no table file, when they were counted last.
    pub backlog_bytes: AtomicU64,
    /// Milliseconds that the oldest of them had waited then, as far as this process has seen.
    pub backlog_age_ms: AtomicU64,
    /// When a compaction was last committed, or nothing was due, in milliseconds since 1970; 0 if never yet.
    pub success_at_ms: AtomicI64,
}

/// Compacts. A handle; clones share it.
#[derive(Debug, Clone)]
pub struct Compactor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log: Log,
    store: Store,
    options: CompactionOptions,
    counts: Arc<CompactionCounts>,
    /// Of those who rewrite rows of the log.
    turn: Turn,
    /// Of those who rewrite table files: nobody who wants rows of the log waits for them.
    files_turn: Turn,
    damaged: Mutex<BTreeSet<ObjectId>>,
    partitions: Mutex<FilePartitions>,
    packing: Mutex<Packing>,
    /// At what time all rows that a topic had then were in table files.
    emptied: Mutex<BTreeMap<TopicId, Instant>>,
    /// Topics whose table files are being rewritten by compaction of keys.
    busy: Busy,
}

/// How long each topic has had a backlog, and what quiet topics may still cost.
#[derive(Debug)]
struct Waiting {
    since: BTreeMap<TopicId, Instant>,
    allowance: f64,
    granted: Instant,
}

/// What comes next.
enum Next {
    /// Rows of the log, or small files; `quiet` if only age made it due.
    Compact { topic: TopicId, rows: bool, quiet: bool },
    /// Nothing before then.
    At(Option<Instant>),
}

impl Waiting {
    fn new(options: &CompactionOptions, now: Instant) -> Self {
        Self { since: BTreeMap::new(), allowance: f64::from(options.quiet_per_hour) * BURST_SHARE, granted: now }
    }

    /// Notes what waits now, and says what to do; what waits of a topic came after it was `emptied`.
    fn next(
        &mut self,
        options: &CompactionOptions,
        backlogs: &BTreeMap<TopicId, Backlog>,
        emptied: &BTreeMap<TopicId, Instant>,
        now: Instant,
    ) -> Next {
        let per_second = f64::from(options.quiet_per_hour) / 3600.0;
        let granted = per_second * now.duration_since(self.granted).as_secs_f64();
        self.allowance = (self.allowance + granted).min(f64::from(options.quiet_per_hour) * BURST_SHARE);
        self.granted = now;
        self.since.retain(|topic, _| backlogs.get(topic).is_some_and(|backlog| backlog.runs > 0));
        let mut oldest: Option<(Instant, TopicId)> = None;
        for (topic, backlog) in backlogs {
            if backlog.small_files {
                return Next::Compact { topic: *topic, rows: false, quiet: false };
            }
            if backlog.runs == 0 {
                continue;
            }
            let since = self.since.entry(*topic).or_insert(now);
            *since = emptied.get(topic).copied().unwrap_or(*since).max(*since);
            let since = *since;
            let is_much = backlog.bytes >= options.bytes;
            if is_much && now >= since + options.age_least {
                return Next::Compact { topic: *topic, rows: true, quiet: false };
            }
            let due = since + if is_much { options.age_least } else { options.age(backlog.bytes) };
            if oldest.is_none_or(|(first, _)| due < first) {
                oldest = Some((due, *topic));
            }
        }
        match oldest {
            Some((due, topic)) if due <= now && self.allowance >= 1.0 => {
                Next::Compact { topic, rows: true, quiet: true }
            }
            Some((due, _)) if due <= now && per_second > 0.0 => {
                Next::At(Some(now + Duration::from_secs_f64((1.0 - self.allowance) / per_second)))
            }
            Some((due, _)) if due > now => Next::At(Some(due)),
            _ => Next::At(None),
        }
    }
}

impl Compactor {
    /// A compactor of `log`, whose objects are in `store`.
    pub fn new(log: Log, store: Store, options: CompactionOptions, turn: Turn) -> Self {
        let (counts, damaged, partitions, packing, emptied) = Default::default();
        let (files_turn, busy) = (Turn::default(), Busy::default());
        let shared =
            Shared { log, store, options, counts, turn, files_turn, damaged, partitions, packing, emptied, busy };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn busy(&self) -> Busy {
        self.shared.busy.clone()
    }

    /// Waits until whoever rewrites table files now has ended.
    pub(crate) async fn files_rest(&self) {
        drop(self.shared.files_turn.take().await);
    }

    pub(crate) fn options(&self) -> &CompactionOptions {
        &self.shared.options
    }

    /// What it has done so far.
    pub fn counts(&self) -> Arc<CompactionCounts> {
        Arc::clone(&self.shared.counts)
    }

    /// Compacts whatever is due, until the log closes.
    ///
    /// # Cancel
    /// May leave table files that nothing names.
    pub async fn run(&self) {
        let Shared { log, options, counts, .. } = &*self.shared;
        let mut commits = log.watch();
        let mut waiting = Waiting::new(options, Instant::now());
        while log.is_closed().is_none() {
            commits.mark_unchanged();
            let (looked, state) = (Instant::now(), log.state());
            self.packing().retain(|topic| state.topic(topic).is_some());
            self.emptied().retain(|topic, _| state.topic(*topic).is_some());
            self.learn_partitions(&state).await;
            let visited = (state, options.clone(), self.known());
            let mut found = log.seams().offload.run(move || backlogs(&visited.0, &visited.1, &visited.2)).await;
            for (topic, backlog) in &mut found {
                backlog.small_files &= !self.shared.busy.is_cleaned(*topic);
            }
            let next = match self.damaged().len() < DAMAGED_MAX {
                true => waiting.next(options, &found, &self.emptied(), looked),
                false => Next::At(None),
            };
            self.count(&found, &waiting, looked);
            match next {
                Next::Compact { topic, rows, quiet } => {
                    if quiet {
                        waiting.allowance -= 1.0;
                    }
                    self.compact_one(topic, rows).await;
                }
                Next::At(next) => {
                    counts.success_at_ms.store((log.seams().wall)(), Ordering::Relaxed);
                    tokio::select! {
                        biased;
                        _ = log.closed() => return,
                        changed = commits.changed() => if changed.is_err() { return },
                        () = sleep_until(next.unwrap_or(looked)), if next.is_some() => {}
                    }
                    sleep_until(looked + LOOK_INTERVAL).await;
                }
            }
        }
    }

    fn count(&self, found: &BTreeMap<TopicId, Backlog>, waiting: &Waiting, now: Instant) {
        let counts = &self.shared.counts;
        let bytes = found.values().map(|backlog| backlog.bytes).sum();
        let oldest = waiting.since.values().min().map_or(Duration::ZERO, |since| now.duration_since(*since));
        counts.backlog_bytes.store(bytes, Ordering::Relaxed);
        counts.backlog_age_ms.store(u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        counts.set_aside.store(self.damaged().len() as u64, Ordering::Relaxed);
    }

    /// Puts all rows of a topic that are committed now into table files, and rewrites table files that hold rows which are gone now: what is
    /// published afterwards shows every row that can be read, and no other; but files whose keys were compacted, or are being compacted, show what
    /// is gone until their keys are compacted again.
    ///
    /// # Errors
    /// [`RewriteError`]: some rows are not in table files; those that are stay there. A damaged object fails it only if rows of the topic are
    /// in it.
    /// # Cancel
    /// May leave table files that nothing names.
    pub async fn refresh(&self, topic: TopicId) -> Result<(), RewriteError> {
        let Shared { log, options, turn, files_turn, busy, .. } = &*self.shared;
        let (until, begun) = (log.state(), Instant::now());
        loop {
            let _turn = turn.take_soon().await;
            let state = log.state();
            let without = BTreeSet::new();
            let Some(job) = log_job_until(&state, &until, topic, options, &without) else { break };
            self.rewrite_now(&state, &job).await?;
        }
        self.emptied().insert(topic, begun);
        // SUBTLE: what goes while this runs is left to the next refresh, or this one might never end. But the files count that were being written when
        // it began, of rows that had gone by then: they stand there once both turns have been had.
        let mut partial = None;
        loop {
            let _turn = files_turn.take_soon().await;
            if busy.is_cleaned(topic) {
                return Ok(());
            }
            let state = log.state();
            let partial = partial.get_or_insert_with(|| state.partial_files(topic));
            let later = state.partial_files(topic).into_iter().filter(|file| !partial.contains(file));
            let without = later.map(ObjectId::Table).collect();
            let Some(job) = trim_job(&state, topic, options, &without) else { return Ok(()) };
            self.rewrite_now(&state, &job).await?;
        }
    }

    /// Does a job for somebody who waits for it; one that comes too late is as good as done.
    async fn rewrite_now(&self, state: &lakebed_model::State, job: &Job) -> Result<(), RewriteError> {
        let Shared { log, store, options, .. } = &*self.shared;
        match compact(log, store, state, job, options.sizes()).await {
            Ok(done) => self.succeeded(job.topic, done),
            Err(RewriteError::Stale(_)) => {}
            Err(error) => {
                self.shared.counts.failures.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Rewrites table files of a topic that hold rows which are gone, but damaged ones, until there is none or something fails.
    pub(crate) async fn trim(&self, topic: TopicId) {
        let Shared { log, store, options, files_turn, busy, .. } = &*self.shared;
        while log.is_closed().is_none() {
            let done = {
                let _turn = files_turn.take().await;
                if busy.is_cleaned(topic) {
                    return;
                }
                let state = log.state();
                let without = self.damaged().clone();
                let Some(job) = trim_job(&state, topic, options, &without) else { return };
                compact_after(log, store, &state, &job, (options.sizes(), Pace::Gentle(files_turn.clone())), Vec::new())
                    .await
            };
            match done {
                Ok(done) => self.succeeded(topic, done),
                Err(error) => return self.failed(&error).await,
            }
        }
    }

    /// Moves log starts of a topic, and rewrites the table files that hold rows below them and others, in one commit.
    ///
    /// # Errors
    /// [`RewriteError`]: nothing has moved then, unless the fate of the commit is unknown.
    pub(crate) async fn expire(
        &self,
        topic: TopicId,
        plan: impl Fn(&lakebed_model::State) -> Option<Vec<Change>> + Send + Sync,
    ) -> Result<bool, RewriteError> {
        let Shared { log, store, options, turn, files_turn, .. } = &*self.shared;
        // What moves a log start makes stale whoever rewrites rows below it, wherever they are.
        let _files_turn = files_turn.take().await;
        let _turn = turn.take().await;
        let state = log.state();
        let Some(moves) = plan(&state) else { return Ok(false) };
        let mut after = Draft::after(&state);
        after.change_all(moves.clone()).map_err(RewriteError::Stale)?;
        let after = after.state().clone();
        let without = self.damaged().clone();
        let job = trim_job(&after, topic, options, &without).unwrap_or(Job { topic, runs: Vec::new() });
        let done =
            compact_after(log, store, &after, &job, (options.sizes(), Pace::Gentle(turn.clone())), moves).await?;
        if done.files > 0 {
            self.succeeded(topic, done);
        }
        Ok(true)
    }

    async fn compact_one(&self, topic: TopicId, rows: bool) {
        let Shared { log, store, options, turn, files_turn, busy, .. } = &*self.shared;
        let turn = if rows { turn } else { files_turn };
        let done = {
            let _turn = turn.take().await;
            if !rows && busy.is_cleaned(topic) {
                return;
            }
            let (state, begun) = (log.state(), Instant::now());
            let (visited, options_, known) = (state.clone(), options.clone(), self.known());
            let planned = log.seams().offload.run(move || match rows {
                true => log_job(&visited, topic, &options_, &known.without).map(|job| (job.takes_all(&visited), job)),
                false => files_job(&visited, topic, &options_, &known).map(|job| (false, job)),
            });
            let Some((takes_all, job)) = planned.await else { return };
            let pace = Pace::Gentle(turn.clone());
            let done = compact_after(log, store, &state, &job, (options.sizes(), pace), Vec::new()).await;
            if takes_all && done.is_ok() {
                self.emptied().insert(topic, begun);
            }
            done
        };
        match done {
            Ok(done) => self.succeeded(topic, done),
            Err(error) => self.failed(&error).await,
        }
    }

    fn succeeded(&self, topic: TopicId, done: crate::compaction::Compacted) {
        let counts = &self.shared.counts;
        self.packing().note(topic, done.bytes_in, done.bytes_out);
        counts.compactions.fetch_add(1, Ordering::Relaxed);
        counts.files.fetch_add(done.files as u64, Ordering::Relaxed);
        counts.bytes_in.fetch_add(done.bytes_in, Ordering::Relaxed);
        counts.bytes_out.fetch_add(done.bytes_out, Ordering::Relaxed);
        counts.misfits.fetch_add(done.misfits, Ordering::Relaxed);
        counts.success_at_ms.store((self.shared.log.seams().wall)(), Ordering::Relaxed);
        tracing::debug!(runs = done.runs, files = done.files, bytes = done.bytes_out, "compacted");
    }

    pub(crate) async fn failed(&self, error: &RewriteError) {
        let log = &self.shared.log;
        if !matches!(error, RewriteError::Stale(_)) {
            self.shared.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        match error {
            RewriteError::Damaged { object, .. } => {
                // Whoever has been fenced, or comes late, reads what was reclaimed meanwhile.
                let Ok(state) = log.barrier().await else { return };
                if state.object(*object).is_none() {
                    return tracing::debug!(%error, "a compaction came too late");
                }
                tracing::error!(%error, "a damaged object is left as it is");
                self.damaged().insert(*object);
            }
            RewriteError::Stale(_) => tracing::debug!(%error, "a compaction came too late"),
            _ if log.is_closed().is_some() => {}
            RewriteError::Taken { .. } | RewriteError::Unfaithful { .. } | RewriteError::Table(_) => {
                tracing::error!(%error, "a compaction failed: please report this bug; trying again later");
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
            _ => {
                let error = error as &(dyn std::error::Error + Send + Sync + 'static);
                tracing::warn!(error, "a compaction failed; trying again later");
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
        }
    }

    fn known(&self) -> Known {
        let partitions = self.shared.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Known { without: self.damaged().clone(), partitions, packing: self.packing().clone() }
    }

    fn emptied(&self) -> MutexGuard<'_, BTreeMap<TopicId, Instant>> {
        self.shared.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn packing(&self) -> MutexGuard<'_, Packing> {
        self.shared.packing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out in which partition of its table small files lie, of tables that have partitions: of the newest that are not known, and of some. A
    /// file of which it is not known is left as it is, so nobody waits for the others, nor for what can't be read now.
    ///
    /// # Cost A GET a file, once.
    async fn learn_partitions(&self, state: &State) {
        let Shared { log, store, options, partitions, packing, .. } = &*self.shared;
        let known = || partitions.lock().unwrap_or_else(PoisonError::into_inner);
        known().retain(|id, _| state.object(ObjectId::Table(*id)).is_some());
        let mut unknown: Vec<(TableFileId, TopicId, PartitionBy)> = Vec::new();
        for (topic, _) in state.topics() {
            let by = partition_by(state, topic);
            if by == PartitionBy::Nothing {
                continue;
            }
            let (known, packing) = (known(), packing.lock().unwrap_or_else(PoisonError::into_inner));
            let files = state.table_files(topic).into_iter().map(|(id, _)| id).filter(|id| {
                let bytes = state.object(ObjectId::Table(*id)).map_or(0, |of| of.live_bytes);
                packing.file_bytes(topic, bytes) < options.file_bytes_aim() && !known.contains_key(id)
            });
            unknown.extend(files.map(|id| (id, topic, by)));
        }
        unknown.sort_unstable_by_key(|(id, ..)| std::cmp::Reverse(*id));
        unknown.truncate(LEARNED_MAX);
        let learn = |(id, topic, by): (TableFileId, TopicId, PartitionBy)| async move {
            let times = match ingest_times_ms(log, store, state, topic, ObjectId::Table(id)).await {
                Ok(times) => times,
                Err(RewriteError::Damaged { .. }) => None,
                Err(error) => {
                    tracing::debug!(%error, "the partition of a table file is not known yet");
                    return;
                }
            };
            let whole = times.map(|(least, greatest)| (by.partition_of(least), by.partition_of(greatest)));
            known().insert(id, whole.filter(|(first, last)| first == last).map(|(first, _)| first));
        };
        stream::iter(unknown).map(learn).buffer_unordered(LEARNED_AT_ONCE).collect::<()>().await;
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeSet<ObjectId>> {
        self.shared.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
