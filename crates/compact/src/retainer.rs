//! The background task of retention: moves log starts when records are too old or too many, and has table files rewritten that hold rows which
//! are gone.
//!
//! 1. What goes was acknowledged, so nothing is taken on one clock's word: if this machine's disagrees with the store's by more than
//!    [`SKEW_MAX`], nothing goes by age or size until they agree again.
//! 2. Log starts, and the table files that hold rows below them and others, change in one commit. Files that go whole cost nothing but that.
//! 3. A pass in which nothing changed and nothing came due looks at nothing, and one that finds nothing asks the store for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lakebed_log::{AppendError, Log};
use lakebed_model::{Change, CommitNumber, Offset, PartitionKey, Refusal, State, TopicId};
use lakebed_store::Store;

use crate::backlog::partial_topics;
use crate::compactor::Compactor;
use crate::objects::RewriteError;
use crate::retention::{Cause, Expiring, Retention, Tally, expiring};

/// How far this machine's clock and the store's may be apart.
pub const SKEW_MAX: Duration = Duration::from_secs(300);
/// What the store said of its clock longer ago than this is asked for anew before it counts against ours: a machine may have slept since.
const DATE_AGE_MAX: Duration = Duration::from_secs(60);
/// Most log starts that one commit moves (about 2 MB of it), or those of one topic: a topic stays together.
const MOVES_MAX: usize = 10_000;

/// What the settings of a topic keep.
pub type RetentionOf = fn(&BTreeMap<String, String>) -> Retention;

/// How much retention has removed for one reason.
#[derive(Debug, Default)]
pub struct RemovedCounts {
    /// Records.
    pub records: AtomicU64,
    /// Bytes of their keys, values and headers.
    pub bytes: AtomicU64,
    /// Table files that went whole.
    pub files: AtomicU64,
}

/// What a retainer has done so far.
#[derive(Debug, Default)]
pub struct RetentionCounts {
    /// What was too old.
    pub by_age: RemovedCounts,
    /// What was too much.
    pub by_size: RemovedCounts,
    /// Since when nothing goes because clocks disagree, in milliseconds since 1970; 0 if it may.
    pub paused_since_ms: AtomicI64,
    /// By how many milliseconds this machine's clock was ahead of the store's when they were compared last; 0 if the store has none.
    pub skew_ms: AtomicI64,
    /// Passes that failed.
    pub failures: AtomicU64,
    /// When a pass last came to its end, in milliseconds since 1970; 0 if never yet.
    pub success_at_ms: AtomicI64,
}

/// Applies retention. A handle; clones share it.
#[derive(Debug, Clone)]
pub struct Retainer {
    log: Log,
    store: Store,
    compactor: Compactor,
    every: Duration,
    counts: Arc<RetentionCounts>,
}

/// What a pass has to do.
#[derive(Debug, Default)]
struct Found {
    expiring: Vec<(TopicId, Expiring)>,
    partial: BTreeSet<TopicId>,
    next_ms: Option<i64>,
}

/// The state that was looked through last, and when more comes due in it.
#[derive(Debug, Clone, Copy)]
struct Looked {
    number: CommitNumber,
    next_ms: Option<i64>,
}

/// What became of what a pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Done,
    /// Another change came first: the next pass finds what is left.
    Late,
    Failed,
}

impl Retainer {
    /// A retainer that looks `every` so often; `compactor` does the rewriting, and knows what topics keep.
    pub fn new(log: Log, store: Store, compactor: Compactor, every: Duration) -> Self {
        Self { log, store, compactor, every, counts: Arc::default() }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Arc<RetentionCounts> {
        Arc::clone(&self.counts)
    }

    /// Removes what topics don't keep, until the log closes.
    ///
    /// # Cancel
    /// May leave table files that nothing names.
    pub async fn run(&self) {
        let mut looked = None;
        while self.log.is_closed().is_none() {
            tokio::select! {
                biased;
                _ = self.log.closed() => return,
                () = tokio::time::sleep(self.every) => {}
            }
            looked = self.pass(looked).await;
        }
    }

    /// One pass, whatever was looked through before.
    pub async fn pass_now(&self) {
        self.pass(None).await;
    }

    async fn pass(&self, looked: Option<Looked>) -> Option<Looked> {
        let agrees = self.clocks_agree().await;
        let (state, now_ms) = (self.log.state(), (self.log.seams().wall)());
        let busy = self.compactor.busy();
        let is_due = |looked: &Looked| looked.next_ms.is_some_and(|next_ms| next_ms <= now_ms);
        if let Some(looked) = looked.filter(|looked| looked.number == state.number() && !is_due(looked)) {
            self.succeeded();
            return Some(looked);
        }
        let options = self.compactor.options().clone();
        let (visited, number) = (state.clone(), state.number());
        let find = move || find(&visited, options.retention, agrees.then_some(now_ms), options.job_bytes_max);
        let found = self.log.seams().offload.run(find).await;
        // What moves while keys are compacted would make that be for nothing, and it would begin anew.
        let (wait, expiring): (Vec<_>, Vec<_>) =
            found.expiring.into_iter().partition(|(topic, _)| busy.wait_for(*topic));
        let wait: BTreeSet<TopicId> = wait.into_iter().map(|(topic, _)| topic).collect();
        let done = self.expire(&state, expiring, now_ms).await;
        busy.let_go(&wait);
        for topic in found.partial {
            self.compactor.trim(topic).await;
        }
        match done {
            Outcome::Done if agrees => self.succeeded(),
            Outcome::Done => {}
            Outcome::Late => return None,
            Outcome::Failed => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        (agrees && wait.is_empty()).then_some(Looked { number, next_ms: found.next_ms })
    }

    fn succeeded(&self) {
        self.counts.success_at_ms.store((self.log.seams().wall)(), Ordering::Relaxed);
    }

    /// Moves the log starts: those without a rewrite together, the others topic by topic. What fails was told.
    async fn expire(&self, state: &State, found: Vec<(TopicId, Expiring)>, now_ms: i64) -> Outcome {
        let (rewriting, whole): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, expiring)| expiring.rewrites);
        let mut outcome = Outcome::Done;
        for (topic, _) in rewriting {
            let options = self.compactor.options();
            let (retention, bytes_max) = (options.retention, options.job_bytes_max);
            let planned = std::sync::Mutex::new(BTreeMap::new());
            let plan = |state: &State| {
                let kept = retention(&state.topic(topic)?.config);
                let Expiring { moves, tallies, .. } = expiring(state, topic, &kept, now_ms, bytes_max);
                *planned.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = tallies;
                (!moves.is_empty()).then(|| moves.into_iter().map(change).collect())
            };
            match self.compactor.expire(topic, plan).await {
                Ok(true) => {
                    self.removed(&planned.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
                }
                Ok(false) => {}
                Err(error) => {
                    let is_late = matches!(error, RewriteError::Stale(_));
                    outcome = outcome.max(if is_late { Outcome::Late } else { Outcome::Failed });
                    self.compactor.failed(&error).await;
                }
            }
        }
        let mut moves: Vec<(PartitionKey, Offset)> = Vec::new();
        let mut tallies: Vec<BTreeMap<Cause, Tally>> = Vec::new();
        let last = whole.len();
        for (index, (_, expiring)) in whole.into_iter().enumerate() {
            moves.extend(expiring.moves);
            tallies.push(expiring.tallies);
            // A topic stays together, so that no file is half gone between two commits.
            if moves.len() < MOVES_MAX && index + 1 < last {
                continue;
            }
            match self.move_all(state, std::mem::take(&mut moves)).await {
                Ok(()) => std::mem::take(&mut tallies).iter().for_each(|tallies| self.removed(tallies)),
                Err(error) => {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(error, "retention could not move log starts; trying again later");
                    outcome = Outcome::Failed;
                    tallies.clear();
                }
            }
        }
        outcome
    }

    /// Moves log starts in one commit, but those of topics that have other settings by now than in `planned`.
    async fn move_all(&self, planned: &State, moves: Vec<(PartitionKey, Offset)>) -> Result<(), AppendError> {
        let planned = planned.clone();
        let decide = move |state: &State| {
            let same = |key: PartitionKey| {
                let (before, now) = (planned.topic(key.topic), state.topic(key.topic));
                before.is_some_and(|before| now.is_some_and(|now| before.config == now.config))
            };
            let is_above = |(key, offset): &(PartitionKey, Offset)| {
                state.partition(*key).is_some_and(|bounds| bounds.log_start < *offset) && same(*key)
            };
            Ok::<_, Refusal>(moves.into_iter().filter(is_above).map(change).collect())
        };
        self.log.alter(decide).await.map(drop)
    }

    fn removed(&self, tallies: &BTreeMap<Cause, Tally>) {
        for (cause, tally) in tallies {
            let (counts, cause) = match cause {
                Cause::Age => (&self.counts.by_age, "age"),
                Cause::Size => (&self.counts.by_size, "size"),
            };
            counts.records.fetch_add(tally.records, Ordering::Relaxed);
            counts.bytes.fetch_add(tally.bytes, Ordering::Relaxed);
            counts.files.fetch_add(tally.files, Ordering::Relaxed);
            tracing::debug!(cause, records = tally.records, bytes = tally.bytes, files = tally.files, "retention");
        }
    }

    /// Whether this machine's clock agrees with the store's, or the store has none.
    async fn clocks_agree(&self) -> bool {
        let skew_ms = skew_ms(&self.log, &self.store).await;
        let agrees = is_small(skew_ms);
        self.counts.skew_ms.store(skew_ms, Ordering::Relaxed);
        let was_paused = self.counts.paused_since_ms.load(Ordering::Relaxed) != 0;
        match (agrees, was_paused) {
            (true, true) => {
                tracing::info!("this machine's clock agrees with the store's again: retention goes on");
                self.counts.paused_since_ms.store(0, Ordering::Relaxed);
            }
            (false, false) => {
                let ahead_s = skew_ms / 1000;
                tracing::error!(
                    ahead_s,
                    "retention is paused: this machine's clock and the store's disagree; set the one that is wrong"
                );
                self.counts.paused_since_ms.store((self.log.seams().wall)().max(1), Ordering::Relaxed);
            }
            _ => {}
        }
        agrees
    }
}

/// Whether this machine's clock agrees with the store's, or the store has none.
pub(crate) async fn clocks_agree(log: &Log, store: &Store) -> bool {
    is_small(skew_ms(log, store).await)
}

/// By how much this machine's clock is ahead of the store's. If it is much by what the store said long ago, the store is asked anew.
async fn skew_ms(log: &Log, store: &Store) -> i64 {
    let skew_ms = || {
        let Some(date) = store.date() else { return 0 };
        let elapsed_ms = i64::try_from(date.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        (log.seams().wall)().saturating_sub(date.ms.saturating_add(elapsed_ms))
    };
    let is_old = || store.date().is_some_and(|date| date.at.elapsed() > DATE_AGE_MAX);
    if !is_small(skew_ms()) && is_old() {
        // If it does not answer, what is known counts.
        drop(log.barrier().await);
    }
    skew_ms()
}

fn is_small(skew_ms: i64) -> bool {
    u128::from(skew_ms.unsigned_abs()) <= SKEW_MAX.as_millis()
}

fn change((partition, offset): (PartitionKey, Offset)) -> Change {
    Change::MoveLogStart { partition, offset }
}

/// What there is to do. Without a time nothing is too old or too much.
fn find(state: &State, retention: RetentionOf, now_ms: Option<i64>, rewritten_bytes_max: u64) -> Found {
    let mut found = Found { partial: partial_topics(state), ..Found::default() };
    let Some(now_ms) = now_ms else { return found };
    for (topic, about) in state.topics() {
        let expiring = expiring(state, topic, &retention(&about.config), now_ms, rewritten_bytes_max);
        found.next_ms = found.next_ms.into_iter().chain(expiring.next_ms).min();
        if !expiring.moves.is_empty() {
            found.expiring.push((topic, expiring));
        }
    }
    found
}
