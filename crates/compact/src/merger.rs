//! The background task that merges: woken by commits, one merge at a time.
//!
//! 1. One object that can't be merged stops no merge of others: what is damaged is left alone for good, what can't be read for a while.
//!    A store that answers nobody says nothing of an object: then nothing is left alone, and the same merge is tried again.
//! 2. It says up to which state nothing is left to merge, so that nobody waits for what it can't do.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lakebed_log::Log;
use lakebed_model::{CommitNumber, ObjectId};
use lakebed_store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::merge::merge;
use crate::objects::RewriteError;
use crate::plan::{Options, plan};
use crate::turn::Turn;

/// Least time between two looks for something to merge, unless runs press: a look visits all objects, and small commits come by the
/// thousand in a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// After a merge that failed, the next one waits so long.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Most damaged objects that are remembered; with more, merging stops and says so.
const DAMAGED_MAX: usize = 1000;
/// An object that could not be read is left alone for so long.
const UNREADABLE_FOR: Duration = Duration::from_secs(600);
/// Most objects that are left alone for a while; with more, the one that has been for longest is tried again.
const UNREADABLE_MAX: usize = 1000;

/// What a merger has done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Merges that were committed.
    pub merges: AtomicU64,
    /// Objects whose rows were re-homed.
    pub objects: AtomicU64,
    /// Runs that were replaced.
    pub runs: AtomicU64,
    /// Bytes that were written.
    pub bytes: AtomicU64,
    /// Merges that failed.
    pub failures: AtomicU64,
    /// Objects that are left alone now: damaged ones for good, unreadable ones for a while.
    pub set_aside: AtomicU64,
    /// When a merge was last committed, or nothing was found that is worth one, in milliseconds since 1970; 0 if never yet.
    pub success_at_ms: AtomicI64,
}

/// Merges in the background.
#[derive(Debug)]
pub struct Merger {
    log: Log,
    store: Store,
    options: Options,
    counts: Arc<Counts>,
    set_aside: Mutex<SetAside>,
    turn: Turn,
    exhausted: watch::Sender<Option<CommitNumber>>,
}

/// Objects that are left alone.
#[derive(Debug, Default)]
struct SetAside {
    /// For good.
    damaged: BTreeSet<ObjectId>,
    /// Until then.
    unreadable: BTreeMap<ObjectId, Instant>,
    /// Could not be read the last time, although the store answered right afterwards: once more, and it is unreadable.
    doubted: Option<ObjectId>,
}

impl SetAside {
    /// Those that a plan at `now` must do without.
    fn at(&mut self, now: Instant) -> BTreeSet<ObjectId> {
        self.unreadable.retain(|_, until| *until > now);
        self.damaged.iter().chain(self.unreadable.keys()).copied().collect()
    }

    fn add_unreadable(&mut self, object: ObjectId, until: Instant) {
        self.unreadable.insert(object, until);
        if self.unreadable.len() > UNREADABLE_MAX
            && let Some(oldest) = self.unreadable.iter().min_by_key(|(_, until)| **until).map(|(object, _)| *object)
        {
            self.unreadable.remove(&oldest);
        }
    }

    /// When the first of them may be tried again.
    fn next_try(&self) -> Option<Instant> {
        self.unreadable.values().min().copied()
    }
}

impl Merger {
    /// A merger of `log`, whose objects are in `store`.
    pub fn new(log: Log, store: Store, options: Options) -> Self {
        let (exhausted, _) = watch::channel(None);
        Self {
            log,
            store,
            options,
            counts: Arc::default(),
            set_aside: Mutex::default(),
            turn: Turn::default(),
            exhausted,
        }
    }

    /// The same, which takes turns with others who rewrite.
    #[must_use]
    pub fn taking_turns(self, turn: Turn) -> Self {
        Self { turn, ..self }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// How many damaged objects it leaves alone.
    pub fn damaged(&self) -> usize {
        self.set_aside().damaged.len()
    }

    /// The number of the last state in which nothing was left to merge; `None` before the first.
    pub fn exhausted(&self) -> watch::Receiver<Option<CommitNumber>> {
        self.exhausted.subscribe()
    }

    fn set_aside(&self) -> MutexGuard<'_, SetAside> {
        self.set_aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Merges whenever there is something worth merging, until the log closes.
    ///
    /// # Cancel
    /// May leave a segment that nothing names.
    pub async fn run(&self) {
        let mut commits = self.log.watch();
        loop {
            commits.mark_unchanged();
            let looked = Instant::now();
            while self.step().await {}
            tokio::select! {
                biased;
                _ = self.log.closed() => return,
                changed = commits.changed() => if changed.is_err() { return },
                () = self.next_try() => {}
            }
            if self.log.state().run_count() < self.options.runs_high {
                tokio::time::sleep_until(looked + LOOK_INTERVAL).await;
            }
        }
    }

    /// Waits until an object that could not be read may be tried again.
    async fn next_try(&self) {
        let next = self.set_aside().next_try();
        match next {
            Some(next) => tokio::time::sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// Does the next merge, if there is one; whether it did.
    pub async fn step(&self) -> bool {
        if self.log.is_closed().is_some() {
            return false;
        }
        // Near the limit of live runs producers will be throttled.
        let is_pressing = self.log.state().run_count() >= self.options.runs_high;
        let turn = if is_pressing { self.turn.take_soon().await } else { self.turn.take().await };
        let state = self.log.state();
        let without = self.set_aside().at(Instant::now());
        self.counts.set_aside.store(without.len() as u64, Ordering::Relaxed);
        let planned = match self.damaged() < DAMAGED_MAX {
            true => {
                let (visited, options) = (state.clone(), self.options.clone());
                self.log.seams().offload.run(move || plan(&visited, &options, &without)).await
            }
            false => None,
        };
        let Some(next) = planned else {
            self.succeeded();
            self.exhausted.send_replace(Some(state.number()));
            return false;
        };
        let merged = merge(&self.log, &self.store, &state, &next).await;
        drop(turn);
        match merged {
            Ok(merged) => {
                self.succeeded();
                self.counts.merges.fetch_add(1, Ordering::Relaxed);
                self.counts.objects.fetch_add(merged.objects as u64, Ordering::Relaxed);
                self.counts.runs.fetch_add(merged.runs_before as u64, Ordering::Relaxed);
                self.counts.bytes.fetch_add(merged.bytes, Ordering::Relaxed);
                tracing::debug!(
                    objects = merged.objects,
                    runs = merged.runs_before,
                    into = merged.runs_after,
                    "merged"
                );
            }
            Err(error) => self.failed(&error).await,
        }
        true
    }

    fn succeeded(&self) {
        self.counts.success_at_ms.store((self.log.seams().wall)(), Ordering::Relaxed);
    }

    /// Whether an object that could not be read is to blame for it, and not the store: when the store answers a barrier right
    /// afterwards, twice in a row. An outage may end between the two of one time.
    async fn is_to_blame(&self, object: ObjectId) -> bool {
        let answers = self.log.barrier().await.is_ok();
        let mut set_aside = self.set_aside();
        let again = set_aside.doubted == Some(object);
        set_aside.doubted = (answers && !again).then_some(object);
        answers && again
    }

    async fn failed(&self, error: &RewriteError) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        match error {
            RewriteError::Damaged { object, .. } => {
                // Whoever has been fenced, or comes late, reads what was reclaimed meanwhile.
                let Ok(state) = self.log.barrier().await else { return };
                if state.object(*object).is_none() {
                    return tracing::debug!(%error, "a merge came too late");
                }
                tracing::error!(%error, "a damaged object is left as it is");
                self.set_aside().damaged.insert(*object);
            }
            // A topic was deleted, or a log start moved: the next plan sees it.
            RewriteError::Stale(_) => tracing::debug!(%error, "a merge came too late"),
            _ if self.log.is_closed().is_some() => {}
            RewriteError::Taken { .. } => {
                tracing::error!(%error, "a merge failed: please report this bug; trying again later");
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
            RewriteError::Read { object, source } => {
                let (error, seconds) = (source as &(dyn Error + Send + Sync + 'static), UNREADABLE_FOR.as_secs());
                if self.is_to_blame(*object).await {
                    tracing::warn!(error, seconds, "an object can't be read: merging leaves it alone for so long");
                    self.set_aside().add_unreadable(*object, Instant::now() + UNREADABLE_FOR);
                } else {
                    tracing::warn!(error, "an object can't be read now; the merge is tried again");
                }
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
            _ => {
                tracing::warn!(%error, "a merge failed; trying again later");
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
        }
    }
}
