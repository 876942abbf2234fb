//! What comes in from outside: the wall clock, randomness, and where heavy work runs. A simulation owns all three.

use std::fmt;
use std::sync::Arc;

/// A wall clock: milliseconds since 1970. It dates things for people; it decides nothing.
pub type Wall = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The seams of one process.
#[derive(Clone)]
pub struct Seams {
    /// The wall clock.
    pub wall: Wall,
    /// Seeds every random choice (nonces, ids, jitter). Must differ between processes.
    pub seed: u64,
    /// Where work of more than half a millisecond runs.
    pub offload: Offload,
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seams").field("seed", &self.seed).field("offload", &self.offload).finish_non_exhaustive()
    }
}

/// Where CPU work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// On the runtime's blocking threads.
    Blocking,
    /// At once, on the calling task: deterministic.
    Inline,
}

impl Offload {
    /// Runs `work` and returns what it returned.
    ///
    /// # Cancel
    /// If the future is dropped, work that has begun on a blocking thread ends there and its result is dropped.
    ///
    /// # Panics
    /// If `work` panics, or the runtime shuts down.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => work(),
            Self::Blocking => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(cancelled) => panic!("blocking work was cancelled: {cancelled}"),
                },
            },
        }
    }
}
