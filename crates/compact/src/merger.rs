//! The background task that merges: woken by commits, one merge at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lakebed_log::Log;
use lakebed_model::ObjectId;
use lakebed_store::Store;

use crate::merge::{MergeError, merge};
use crate::plan::{Options, plan};

/// After a merge that failed, the next one waits so long.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Most damaged objects that are remembered; with more, merging stops and says so.
const DAMAGED_MAX: usize = 1000;

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
}

/// Merges in the background.
#[derive(Debug)]
pub struct Merger {
    log: Log,
    store: Store,
    options: Options,
    counts: Arc<Counts>,
    damaged: Mutex<BTreeSet<ObjectId>>,
}

impl Merger {
    /// A merger of `log`, whose objects are in `store`.
    pub fn new(log: Log, store: Store, options: Options) -> Self {
        Self { log, store, options, counts: Arc::default(), damaged: Mutex::default() }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// How many damaged objects it leaves alone.
    pub fn damaged(&self) -> usize {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Merges whenever there is something worth merging, until the log closes.
    ///
    /// # Cancel
    /// May leave a segment that nothing names.
    pub async fn run(&self) {
        let mut commits = self.log.watch();
        loop {
            commits.mark_unchanged();
            while self.step().await {}
            tokio::select! {
                biased;
                _ = self.log.closed() => return,
                changed = commits.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Does the next merge, if there is one; whether it did.
    pub async fn step(&self) -> bool {
        if self.log.is_closed().is_some() {
            return false;
        }
        let state = self.log.state();
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if damaged.len() >= DAMAGED_MAX {
            return false;
        }
        let (visited, options) = (state.clone(), self.options.clone());
        let planned = self.log.seams().offload.run(move || plan(&visited, &options, &damaged)).await;
        let Some(next) = planned else { return false };
        match merge(&self.log, &self.store, &state, &next).await {
            Ok(merged) => {
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

    async fn failed(&self, error: &MergeError) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        match error {
            MergeError::Damaged { object, .. } => {
                // Whoever has been fenced, or comes late, reads what was reclaimed meanwhile.
                let Ok(state) = self.log.barrier().await else { return };
                if state.object(*object).is_none() {
                    return tracing::debug!(%error, "a merge came too late");
                }
                tracing::error!(%error, "a damaged object is left as it is");
                self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(*object);
            }
            // A topic was deleted, or a log start moved: the next plan sees it.
            MergeError::Stale(_) => tracing::debug!(%error, "a merge came too late"),
            _ if self.log.is_closed().is_some() => {}
            _ => {
                tracing::warn!(%error, "a merge failed; trying again later");
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
        }
    }
}
