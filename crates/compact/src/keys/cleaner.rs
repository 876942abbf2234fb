//! The background task that compacts keys: woken by commits, one topic at a time.
//!
//! 1. It touches table files of topics that want it, and nothing else. Who rewrites table files otherwise, and retention, leave a topic alone while it
//!    is at it, for then all would be for nothing.
//! 2. Topics take turns: one that fails, or is due again at once, keeps no other from its turn.
//! 3. Tombstones go by time, so no keys are compacted while this machine's clock and the store's disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lakebed_log::Log;
use lakebed_model::{ObjectId, State, TopicId};
use lakebed_store::Store;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Busy, Cleaned, KeyOptions, KeySettings, clean, key_job};
use crate::compactor::Compactor;
use crate::objects::RewriteError;
use crate::retainer::clocks_agree;

/// Least time between two looks: a look visits the runs of the topics that want it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Most time between two: rows come of age without a commit (Kafka's cleaner looks so often, too).
const LOOK_AT_LEAST: Duration = Duration::from_secs(15);
/// After a compaction of keys that failed, the next one waits so long.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Most damaged objects that are remembered; with more, no keys are compacted.
const DAMAGED_MAX: usize = 1000;

/// A topic whose rows have waited longer than they may is not looked after for that reason alone before this part of that time has passed since,
/// nor before [`LAG_REST_MIN`]: else rows that come in with old timestamps would have all of it rewritten over and over.
const LAG_REST_SHARE: u32 = 8;
/// See [`LAG_REST_SHARE`].
const LAG_REST_MIN: Duration = Duration::from_secs(60);

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
    /// The topic that had the last turn.
    last: Option<TopicId>,
    /// When topics were looked after last because their rows had waited too long.
    lagged: BTreeMap<TopicId, Instant>,
    is_paused: bool,
    counts: Arc<CleaningCounts>,
}

impl Cleaner {
    /// A cleaner of the table files that `compactor` makes.
    pub fn new(log: Log, store: Store, options: KeyOptions, compactor: &Compactor) -> Self {
        let (busy, compactor) = (compactor.busy(), compactor.clone());
        let (damaged, lagged, counts) = Default::default();
        Self { log, store, options, compactor, busy, damaged, last: None, lagged, is_paused: false, counts }
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
        if !self.clocks_agree().await {
            return false;
        }
        let rested = self.refresh_late(now_ms).await;
        let (state, without, last) = (self.log.state(), self.damaged.clone(), self.last);
        let planned = self.log.seams().offload.run(move || {
            let topics: Vec<TopicId> = state.topics().map(|(topic, _)| topic).collect();
            let (later, before): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| Some(*topic) > last);
            let jobs = later.iter().chain(&before).filter_map(|topic| key_job(&state, *topic, now_ms, &without));
            let due = jobs.filter(|job| !job.is_late || rested.contains(&job.topic));
            due.map(|job| job.topic).collect::<Vec<_>>()
        });
        let due = planned.await;
        let Some(mark) = due.into_iter().find_map(|topic| self.busy.mark(topic)) else { return false };
        let topic = mark.topic();
        self.last = Some(topic);
        // Planned anew: whoever had begun to rewrite its files has ended, and nobody begins to.
        self.compactor.files_rest().await;
        let state = self.log.state();
        let Some(job) = key_job(&state, topic, now_ms, &self.damaged) else { return true };
        if job.is_late {
            self.lagged.insert(topic, Instant::now());
        }
        match clean(&self.log, &self.store, &state, &job, &self.options, now_ms).await {
            Ok(done) => self.succeeded(topic, done),
            Err(error) => return self.failed(&error).await,
        }
        true
    }

    /// Puts rows into table files that have waited longer than they may, for only table files are cleaned; the topics that may be cleaned now for
    /// that reason alone.
    async fn refresh_late(&mut self, now_ms: i64) -> BTreeSet<TopicId> {
        let state = self.log.state();
        self.lagged.retain(|topic, _| state.topic(*topic).is_some());
        let rested = self.rested(&state);
        if rested.is_empty() {
            return rested;
        }
        let topics = rested.clone();
        let find = move || topics.into_iter().filter(|topic| is_late(&state, *topic, now_ms)).collect::<Vec<_>>();
        for topic in self.log.seams().offload.run(find).await {
            self.lagged.insert(topic, Instant::now());
            if let Err(error) = self.compactor.refresh(topic).await {
                tracing::debug!(%error, %topic, "rows whose keys are to be compacted are not in table files yet");
            }
        }
        rested
    }

    /// The topics that may be looked after because rows of them have waited too long.
    fn rested(&self, state: &State) -> BTreeSet<TopicId> {
        let rest = |settings: &KeySettings| {
            let lag_max = Duration::from_millis(u64::try_from(settings.lag_max_ms).unwrap_or(0));
            (lag_max / LAG_REST_SHARE).max(LAG_REST_MIN)
        };
        let has_rested = |topic: &TopicId, settings: &KeySettings| {
            self.lagged.get(topic).is_none_or(|at| at.elapsed() >= rest(settings))
        };
        let wanting = state.topics().filter_map(|(topic, about)| Some((topic, KeySettings::of(&about.config)?)));
        let wanting = wanting.filter(|(_, settings)| settings.lag_max_ms < i64::MAX);
        wanting.filter(|(topic, settings)| has_rested(topic, settings)).map(|(topic, _)| topic).collect()
    }

    /// Whether this machine's clock and the store's agree; says so when it changes.
    async fn clocks_agree(&mut self) -> bool {
        let agree = clocks_agree(&self.log, &self.store).await;
        if agree == self.is_paused {
            match agree {
                true => tracing::info!("this machine's clock agrees with the store's again: keys are compacted"),
                false => tracing::error!(
                    "no keys are compacted: this machine's clock and the store's disagree; set the one that is wrong"
                ),
            }
            self.is_paused = !agree;
        }
        agree
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
        if !matches!(error, RewriteError::Stale(_)) {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
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
    let Some(settings) = settings else { return false };
    let latest_ms = now_ms.saturating_sub(settings.lag_max_ms);
    state.runs_of_topic(topic).any(|(.., run)| {
        let is_of_log = !matches!(run.object, ObjectId::Table(_));
        is_of_log && run.timestamps.is_some_and(|range| range.first_ms < latest_ms)
    })
}
