//! Taking turns at rewriting: merges and compactions would each make the other's work stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lakebed_log::Offload;
use tokio::sync::{Mutex, MutexGuard};

/// Whose turn it is to rewrite: a merge's or a compaction's. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    holder: Mutex<()>,
    /// How many wait who can't wait long.
    pressing: AtomicUsize,
}

/// One who waits and can't wait long, for as long as it lives.
struct Pressing<'a>(&'a AtomicUsize);

impl<'a> Pressing<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Pressing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turn {
    /// Waits for the turn, which lasts until the answer is dropped.
    pub(crate) async fn take(&self) -> MutexGuard<'_, ()> {
        self.shared.holder.lock().await
    }

    /// The same for who can't wait long: work that is done gently meanwhile makes haste.
    pub(crate) async fn take_soon(&self) -> MutexGuard<'_, ()> {
        let _pressing = Pressing::new(&self.shared.pressing);
        self.take().await
    }

    /// Whether somebody waits who can't wait long.
    pub(crate) fn is_pressed(&self) -> bool {
        self.shared.pressing.load(Ordering::Relaxed) > 0
    }
}

/// Whether somebody waits for what is done.
#[derive(Debug, Clone)]
pub(crate) enum Pace {
    /// Yes.
    Urgent,
    /// No: it gets what others leave of the processor, unless somebody can't wait for the turn that it has.
    Gentle(Turn),
}

impl Pace {
    /// Does what is much work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        offload: Offload,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match self {
            Self::Gentle(turn) if !turn.is_pressed() => offload.run_gently(work).await,
            Self::Urgent | Self::Gentle(_) => offload.run(work).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_holds_the_turn_knows_of_those_who_can_not_wait() {
        let turn = Turn::default();
        let held = turn.take().await;
        let (patient, pressing) = (turn.take(), turn.take_soon());
        let (mut patient, mut pressing) = (Box::pin(patient), Box::pin(pressing));
        assert!(patient.as_mut().now_or_never().is_none() && !turn.is_pressed());
        assert!(pressing.as_mut().now_or_never().is_none() && turn.is_pressed());
        // Who gives up waits no more.
        drop(pressing);
        assert!(!turn.is_pressed());
        let pressing = turn.take_soon();
        drop((held, patient));
        let _held = pressing.await;
        assert!(!turn.is_pressed(), "it has its turn");
    }
}
