//! The background task that compacts keys: woken by commits, one topic at a time.
//!
//! It touches table files of topics that want it, and nothing else; who rewrites table files otherwise leaves a topic alone while it is at it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lakebed_log::Log;
use lakebed_model::{ObjectId, State, TopicId};
use lakebed_store::Store;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Cleaned, KeyOptions, KeySettings, clean, key_job};
use crate::compactor::Compactor;
use crate::objects::RewriteError;

/// Least time between two looks: a look visits the runs of the topics that want it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Most time between two: rows come of age without a commit (Kafka's cleaner looks so often, too).
const LOOK_AT_LEAST: Duration = Duration::from_secs(15);
/// After a compaction of keys that failed, the next one waits so long.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Most damaged objects that are remembered; with more, no keys are compacted.
const DAMAGED_MAX: usize = 1000;

/// The topics whose table files are being cleaned.
pub(crate) type Busy = Arc<Mutex<BTreeSet<TopicId>>>;

/// What a cleaner has done so far.
#[derive(Debug, Default)]
pub struct CleaningCounts {
    /// Compactions of keys that were committed.
    pub compactions: AtomicU64,
    /// Those that failed.
    pub failures: AtomicU64,
    /// Rows that they looked at.
    pub rows_in: AtomicU64,
    /// Rows that they left.
    pub rows_out: AtomicU64,
    /// Bytes of keys, values and headers that they read.
    pub bytes_in: AtomicU64,
    /// Bytes of the files that they wrote.
    pub bytes_out: AtomicU64,
}

/// Compacts keys in the background.
#[derive(Debug)]
pub struct Cleaner {
    log: Log,
    store: Store,
    options: KeyOptions,
    compactor: Compactor,
    busy: Busy,
    damaged: BTreeSet<ObjectId>,
    counts: Arc<CleaningCounts>,
}

/// Says that a topic is being cleaned for as long as it lives.
struct Mark {
    busy: Busy,
    topic: TopicId,
}

impl Mark {
    fn new(busy: &Busy, topic: TopicId) -> Self {
        busy.lock().unwrap_or_else(PoisonError::into_inner).insert(topic);
        Self { busy: Arc::clone(busy), topic }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.topic);
    }
}

impl Cleaner {
    /// A cleaner of the table files that `compactor` makes.
    pub fn new(log: Log, store: Store, options: KeyOptions, compactor: &Compactor) -> Self {
        let (busy, compactor) = (compactor.busy(), compactor.clone());
        Self { log, store, options, compactor, busy, damaged: BTreeSet::new(), counts: Arc::default() }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Arc<CleaningCounts> {
        Arc::clone(&self.counts)
    }

    /// Compacts keys wherever it is due, until the log closes.
    ///
    /// # Cancel
    /// May leave table files that nothing names.
    pub async fn run(mut self) {
        let mut commits = self.log.watch();
        while self.log.is_closed().is_none() {
            commits.mark_unchanged();
            let looked = Instant::now();
            while self.step().await && self.log.is_closed().is_none() {}
            // A refusal of the clock to go on ends the wait as well as a commit does.
            tokio::select! {
                biased;
                _ = self.log.closed() => return,
                changed = timeout_at(looked + LOOK_AT_LEAST, commits.changed()) => if let Ok(Err(_)) = changed { return },
            }
            sleep_until(looked + LOOK_INTERVAL).await;
        }
    }

    /// Does one compaction of keys, if one is due; whether there may be another.
    pub async fn step(&mut self) -> bool {
        let now_ms = (self.log.seams().wall)();
        if self.damaged.len() >= DAMAGED_MAX {
            return false;
        }
        let (state, without) = (self.log.state(), self.damaged.clone());
        let planned = self.log.seams().offload.run(move || {
            let mut jobs = state.topics().filter_map(|(topic, _)| key_job(&state, topic, now_ms, &without));
            let late = state.topics().map(|(topic, _)| topic).filter(|topic| is_late(&state, *topic, now_ms));
            (jobs.next(), late.collect::<Vec<_>>())
        });
        let (job, late) = planned.await;
        for topic in late {
            // Only table files are cleaned.
            if let Err(error) = self.compactor.refresh(topic).await {
                tracing::debug!(%error, %topic, "rows whose keys are to be compacted are not in table files yet");
            }
        }
        let Some(job) = job else { return false };
        let _mark = Mark::new(&self.busy, job.topic);
        // Planned anew: whoever rewrote its files meanwhile did so before it was marked.
        let state = self.log.state();
        let Some(job) = key_job(&state, job.topic, now_ms, &self.damaged) else { return true };
        match clean(&self.log, &self.store, &state, &job, &self.options, now_ms).await {
            Ok(done) => self.succeeded(job.topic, done),
            Err(error) => return self.failed(&error).await,
        }
        true
    }

    fn succeeded(&self, topic: TopicId, done: Cleaned) {
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        let counts = &self.counts;
        add(&counts.compactions, 1);
        add(&counts.rows_in, done.rows_in);
        add(&counts.rows_out, done.rows_out);
        add(&counts.bytes_in, done.bytes_in);
        add(&counts.bytes_out, done.bytes_out);
        let Cleaned { rows_in, rows_out, files, partial, .. } = done;
        tracing::debug!(%topic, rows_in, rows_out, files, partial, "keys compacted");
    }

    /// Says so, and rests; whether to look again at once.
    async fn failed(&mut self, error: &RewriteError) -> bool {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        match error {
            RewriteError::Damaged { object, .. } => {
                let Ok(state) = self.log.barrier().await else { return false };
                if state.object(*object).is_some() {
                    tracing::error!(%error, "a damaged table file is left as it is");
                    self.damaged.insert(*object);
                }
                return true;
            }
            RewriteError::Stale(_) => {
                tracing::debug!(%error, "a compaction of keys came too late");
                return true;
            }
            _ if self.log.is_closed().is_some() => return false,
            RewriteError::Taken { .. } | RewriteError::Unfaithful { .. } | RewriteError::Table(_) => {
                tracing::error!(%error, "a compaction of keys failed: please report this bug; trying again later");
            }
            _ => {
                let error = error as &(dyn std::error::Error + Send + Sync + 'static);
                tracing::warn!(error, "a compaction of keys failed; trying again later");
            }
        }
        tokio::time::sleep(REST_AFTER_FAILURE).await;
        false
    }
}

/// Whether rows of a topic that are in no table file yet are older than they may be without having been compacted.
fn is_late(state: &State, topic: TopicId, now_ms: i64) -> bool {
    let settings = state.topic(topic).and_then(|topic| KeySettings::of(&topic.config));
    let Some(settings) = settings.filter(|settings| settings.lag_max_ms < i64::MAX) else { return false };
    let latest_ms = now_ms.saturating_sub(settings.lag_max_ms);
    state.runs_of_topic(topic).any(|(.., run)| {
        let is_of_log = !matches!(run.object, ObjectId::Table(_));
        is_of_log && run.timestamps.is_some_and(|range| range.first_ms < latest_ms)
    })
}
