//! What a log did so far, for metrics and for whoever asks whether it goes on.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lakebed_model::CommitNumber;
use lakebed_store::Histogram;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Counts {
    /// Microseconds from a commit's being sent until it was durable.
    pub commit_micros: Histogram,
    /// The number of the last checkpoint that was written or loaded.
    pub checkpoint_number: AtomicU64,
    /// Checkpoints that were written.
    pub checkpoints: AtomicU64,
    /// When the last checkpoint was written, in milliseconds since 1970; 0 if none was.
    pub checkpoint_at_ms: AtomicI64,
    /// When reclaiming last went through, in milliseconds since 1970; 0 if it never did.
    pub reclaim_at_ms: AtomicI64,
    /// Objects that were reclaimed.
    pub reclaimed: AtomicU64,
    /// Checkpoints and passes of reclaim that failed.
    pub keeping_failures: AtomicU64,
    in_flight: Mutex<InFlight>,
    /// Since when a follower has not reached the sequencer.
    sequencer_lost: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct InFlight {
    commits: usize,
    oldest: Option<Instant>,
}

impl Counts {
    pub(crate) fn new(checkpoint: CommitNumber) -> Self {
        Self {
            commit_micros: Histogram::of_times(),
            checkpoint_number: AtomicU64::new(checkpoint.get()),
            checkpoints: AtomicU64::new(0),
            checkpoint_at_ms: AtomicI64::new(0),
            reclaim_at_ms: AtomicI64::new(0),
            reclaimed: AtomicU64::new(0),
            keeping_failures: AtomicU64::new(0),
            in_flight: Mutex::default(),
            sequencer_lost: Mutex::default(),
        }
    }

    /// How many commits are sent and not durable yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).commits
    }

    /// For how long the oldest of them has been under way.
    pub fn oldest_in_flight(&self) -> Option<Duration> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).oldest.map(|oldest| oldest.elapsed())
    }

    /// For how long this broker, which follows, has not reached the sequencer; `None` if it does.
    pub fn sequencer_lost(&self) -> Option<Duration> {
        self.sequencer_lost.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    pub(crate) fn set_sequencer_lost(&self, is_lost: bool) {
        let mut lost = self.sequencer_lost.lock().unwrap_or_else(PoisonError::into_inner);
        *lost = is_lost.then(|| lost.unwrap_or_else(Instant::now));
    }

    pub(crate) fn set_in_flight(&self, commits: usize, oldest: Option<Instant>) {
        *self.in_flight.lock().unwrap_or_else(PoisonError::into_inner) = InFlight { commits, oldest };
    }

    pub(crate) fn checkpoint_written(&self, number: CommitNumber, now_ms: i64) {
        self.checkpoint_number.store(number.get(), Ordering::Relaxed);
        self.checkpoint_at_ms.store(now_ms, Ordering::Relaxed);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reclaim_done(&self, objects: u64, now_ms: i64) {
        self.reclaimed.fetch_add(objects, Ordering::Relaxed);
        self.reclaim_at_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn keeping_failed(&self) {
        self.keeping_failures.fetch_add(1, Ordering::Relaxed);
    }
}
