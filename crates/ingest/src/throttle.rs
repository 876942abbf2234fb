//! Producers wait while merging lags behind: the state keeps every live run in memory, so merging goes first.
//!
//! 1. At `live_runs_max` the throttle closes. It opens when merging has brought the runs an eighth below that, so that the log says so
//!    once when it closes and once when it opens, not at every merge.
//! 2. While it is closed no batch enters the buffer; what had entered is flushed and answered.
//! 3. It opens as well when the log closes or the write path drains: then producers are told so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lakebed_log::Log;
use tokio::sync::watch;

/// How far below the bound runs must be for producers to go on: this part of it.
const RELIEF: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Throttle {
    log: Log,
    live_runs_max: usize,
    is_closed: AtomicBool,
    held: AtomicU64,
}

impl Throttle {
    /// A throttle that closes at `live_runs_max`.
    pub(crate) fn new(log: Log, live_runs_max: usize) -> Self {
        Self { log, live_runs_max, is_closed: AtomicBool::new(false), held: AtomicU64::new(0) }
    }

    /// How many calls were held.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Waits while merging lags behind; whether batches may go on. If not, the write path drained meanwhile.
    pub(crate) async fn pass(&self, mut draining: watch::Receiver<bool>) -> bool {
        if !self.holds() {
            return true;
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        let mut commits = self.log.watch();
        while self.holds() {
            tokio::select! {
                biased;
                _ = self.log.closed() => return true,
                _ = draining.wait_for(|draining| *draining) => return false,
                changed = commits.changed() => if changed.is_err() { return true },
            }
        }
        true
    }

    /// Whether producers have to wait, judged anew.
    fn holds(&self) -> bool {
        let (runs, max) = (self.log.state().run_count(), self.live_runs_max);
        if self.is_closed.load(Ordering::Relaxed) {
            let relieved = runs < max - max / RELIEF;
            if relieved && self.is_closed.swap(false, Ordering::Relaxed) {
                tracing::info!(live_runs = runs, "merging has caught up: producers go on");
            }
            !relieved
        } else {
            let full = runs >= max;
            if full && !self.is_closed.swap(true, Ordering::Relaxed) {
                tracing::warn!(live_runs = runs, live_runs_max = max, "merging lags behind: producers wait for it");
            }
            full
        }
    }
}
