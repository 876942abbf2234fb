//! The look for a takeover: a broker that only serves readers, or is only followed, would not notice by itself that it has lost the log.

use std::sync::Arc;
use std::time::Duration;

use lakebed_log::{BarrierError, Log};
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

/// A log without commits for so long is quiet (`takeover.after`).
pub(super) const QUIET: Duration = Duration::from_secs(1);
/// While it stays quiet, each look comes after twice the time of the one before, up to this.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(16);

/// Looks whether another broker has taken over when somebody is connected and nothing has been committed for [`QUIET`], and now and then after
/// that. Liveness only; an idle broker to which nobody is connected asks nothing. Ends when the log is closed.
pub(super) async fn probe_when_quiet(log: Log, connections: TaskTracker, metrics: Arc<Metrics>) {
    let mut commits = log.watch();
    let mut pause = QUIET;
    loop {
        match tokio::time::timeout(pause, commits.changed()).await {
            Ok(Ok(())) => pause = QUIET,
            Ok(Err(_)) => return,
            Err(_) if connections.is_empty() && log.followers() == 0 => {}
            Err(_) => match log.barrier().await {
                Ok(_) => {
                    metrics.probed((log.seams().wall)());
                    pause = (2 * pause).min(LOOK_EVERY_MAX);
                }
                Err(BarrierError::Unproven { .. }) => {}
                Err(BarrierError::Closed { .. }) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use lakebed_log::{Closed, Offload, Options, Seams};
    use lakebed_store::{MemoryBackend, Store, StoreOptions};

    use super::*;

    async fn log_on(backend: &Arc<MemoryBackend>) -> (Store, Log) {
        let store = Store::new("memory://", Arc::clone(backend) as _, &StoreOptions::default());
        let seams = Seams { wall: Arc::new(|| 0), seed: 1, offload: Offload::Inline };
        let log = Log::open(store.clone(), Options::default(), seams).await.unwrap();
        (store, log)
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_log_is_looked_at_ever_more_seldom_and_only_while_clients_are_connected() {
        let (store, log) = log_on(&Arc::default()).await;
        let connections = TaskTracker::new();
        let probing = tokio::spawn(probe_when_quiet(log.clone(), connections.clone(), Arc::default()));
        let asked_before = store.counts().requests();
        tokio::time::advance(10 * QUIET).await;
        tokio::time::timeout(10 * QUIET, std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(store.counts().requests(), asked_before, "nobody is connected");

        let client = connections.token();
        tokio::time::timeout(63 * QUIET + QUIET / 2, std::future::pending::<()>()).await.unwrap_err();
        let looked = store.counts().requests() - asked_before;
        assert!((6..=7).contains(&looked), "after 1, 2, 4, 8, 16, 16 and 16 s; {looked} times");
        drop(client);
        assert!(!probing.is_finished());
        probing.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_broker_that_was_taken_over_learns_it_while_a_client_is_connected() {
        let backend = Arc::default();
        let (_, first) = log_on(&backend).await;
        let connections = TaskTracker::new();
        let _client = connections.token();
        let probing = tokio::spawn(probe_when_quiet(first.clone(), connections, Arc::default()));
        let (_, _second) = log_on(&backend).await;
        assert_eq!(first.is_closed(), None, "nothing has told it yet");
        probing.await.unwrap();
        assert!(matches!(first.is_closed(), Some(Closed::Fenced { .. })));
    }
}
