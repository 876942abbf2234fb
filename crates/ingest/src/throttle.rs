//! Producers wait while merging lags behind: the state keeps every live run in memory, so merging goes first.
//!
//! 1. At `live_runs_max` the throttle closes. It opens when merging has brought the runs an eighth below that, so that the log says so
//!    once when it closes and once when it opens, not at every merge.
//! 2. While it is closed no batch enters the buffer; what had entered is flushed and answered.
//! 3. Nobody waits for what does not come: if merging has nothing left to do in the state as it is, producers are refused, and let in
//!    as soon as the runs are fewer than the bound, by whatever means.
//! 4. It opens as well when the log closes or the write path drains: then producers are told so.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use lakebed_log::Log;
use lakebed_model::CommitNumber;
use tokio::sync::watch;

use crate::ticket::Obstacle;

/// How far below the bound runs must be for producers to go on: this part of it.
const RELIEF: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Throttle {
    log: Log,
    live_runs_max: usize,
    is_closed: AtomicBool,
    /// Whether merging had nothing left to do at some time since the throttle closed.
    is_exhausted: AtomicBool,
    closed_ms: AtomicI64,
    held: AtomicU64,
    held_now: AtomicU64,
    merging_exhausted: watch::Sender<Option<CommitNumber>>,
}

/// A call that is held, for as long as it is.
struct Held<'a> {
    throttle: &'a Throttle,
}

impl<'a> Held<'a> {
    fn new(throttle: &'a Throttle) -> Self {
        throttle.held.fetch_add(1, Ordering::Relaxed);
        throttle.held_now.fetch_add(1, Ordering::Relaxed);
        Self { throttle }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.throttle.held_now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What becomes of a producer now.
enum Verdict {
    GoOn,
    Wait,
    Refuse { live_runs: usize },
}

impl Throttle {
    /// A throttle that closes at `live_runs_max`.
    pub(crate) fn new(log: Log, live_runs_max: usize) -> Self {
        let (is_closed, is_exhausted) = (AtomicBool::new(false), AtomicBool::new(false));
        let (merging_exhausted, _) = watch::channel(None);
        let (held, held_now) = (AtomicU64::new(0), AtomicU64::new(0));
        let closed_ms = AtomicI64::new(0);
        Self { log, live_runs_max, is_closed, is_exhausted, closed_ms, held, held_now, merging_exhausted }
    }

    /// How many calls were held.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// How many calls are held now.
    pub(crate) fn held_now(&self) -> u64 {
        self.held_now.load(Ordering::Relaxed)
    }

    /// Since when it is closed, if it is: batches wait or are refused.
    pub(crate) fn closed_since_ms(&self) -> Option<i64> {
        self.is_closed.load(Ordering::Relaxed).then(|| self.closed_ms.load(Ordering::Relaxed))
    }

    /// Takes note that there was nothing to merge in the state of that number.
    pub(crate) fn merging_exhausted(&self, at: CommitNumber) {
        self.merging_exhausted.send_replace(Some(at));
    }

    /// Waits while merging lags behind.
    ///
    /// # Errors
    /// Why batches may not go on.
    pub(crate) async fn pass(&self, mut draining: watch::Receiver<bool>) -> Result<(), Obstacle> {
        let (mut commits, mut exhausted) = (self.log.watch(), self.merging_exhausted.subscribe());
        let mut held: Option<Held<'_>> = None;
        loop {
            match self.judge() {
                Verdict::GoOn => return Ok(()),
                Verdict::Refuse { live_runs } => {
                    return Err(Obstacle::RunsExhausted { live_runs, live_runs_max: self.live_runs_max });
                }
                Verdict::Wait => drop(held.get_or_insert_with(|| Held::new(self))),
            }
            tokio::select! {
                biased;
                _ = self.log.closed() => return Ok(()),
                _ = draining.wait_for(|draining| *draining) => return Err(Obstacle::ShuttingDown),
                changed = commits.changed() => if changed.is_err() { return Ok(()) },
                changed = exhausted.changed() => changed.expect("the sender is our own"),
            }
        }
    }

    /// Judges anew, and logs what has changed.
    fn judge(&self) -> Verdict {
        let state = self.log.state();
        let (live_runs, max) = (state.run_count(), self.live_runs_max);
        if !self.is_closed.load(Ordering::Relaxed) {
            if live_runs < max {
                return Verdict::GoOn;
            }
            self.closed_ms.store((self.log.seams().wall)(), Ordering::Relaxed);
            if !self.is_closed.swap(true, Ordering::Relaxed) {
                tracing::warn!(live_runs, live_runs_max = max, "merging lags behind: producers wait for it");
            }
        } else if live_runs < max - max / RELIEF {
            self.is_exhausted.store(false, Ordering::Relaxed);
            if self.is_closed.swap(false, Ordering::Relaxed) {
                tracing::info!(live_runs, "live runs are few enough again: producers go on");
            }
            return Verdict::GoOn;
        }
        let nothing_helps = self.merging_exhausted.borrow().is_some_and(|at| at >= state.number());
        if nothing_helps && !self.is_exhausted.swap(true, Ordering::Relaxed) {
            tracing::error!(
                live_runs,
                live_runs_max = max,
                "nothing is left to merge: producers are refused while so many runs are live; delete topics that are not needed, or give the broker more memory"
            );
        }
        match (live_runs < max, nothing_helps) {
            (true, _) if self.is_exhausted.load(Ordering::Relaxed) => Verdict::GoOn,
            (false, true) => Verdict::Refuse { live_runs },
            _ => Verdict::Wait,
        }
    }
}
