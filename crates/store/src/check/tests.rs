//! A check passes what keeps its promises, leaves nothing behind, and does not judge what can't be asked.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::check::{CheckError, CheckOptions, Promise};
use crate::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};
use crate::key::Directory;
use crate::memory::MemoryBackend;
use crate::store::{Store, StoreOptions};

fn options() -> CheckOptions {
    CheckOptions { rounds: 6, large_bytes: 3 << 20, samples: 5, nonce: 7 }
}

fn faulty(outcome: impl Fn(&Operation<'_>) -> Outcome + Send + 'static) -> Store {
    let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let decide = move |operation: &Operation<'_>| Fault {
        before: Duration::ZERO,
        after: Duration::ZERO,
        outcome: outcome(operation),
    };
    Store::new("memory://", Arc::new(FaultBackend::new(inner, decide)), &StoreOptions::default())
}

#[tokio::test(start_paused = true)]
async fn a_good_store_passes_and_nothing_is_left_in_it() {
    for url in ["memory://", tempfile::tempdir().unwrap().path().to_str().unwrap()] {
        let store = Store::open(url, &StoreOptions::default()).unwrap();
        let report = store.check(&options()).await.unwrap();
        assert!(report.passed(), "{report:#?}");
        assert_eq!(report.findings.iter().map(|finding| finding.promise).collect::<Vec<_>>(), Promise::ALL);
        let operations: Vec<_> = report.latencies.iter().map(|latency| latency.operation).collect();
        assert_eq!(operations, ["create", "read", "list"]);
        assert_eq!(report.requests, store.counts().requests());
        assert_eq!(store.overwrites(8).await.unwrap(), None);
        assert!(store.list(&Directory::root(), None, 10).await.unwrap().objects.is_empty(), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_in_trouble_is_not_judged_by_its_trouble() {
    let turn = std::sync::atomic::AtomicU64::new(0);
    let store = faulty(move |operation| match turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 5 {
        0 => Outcome::LostWith(Symptom::SlowDown),
        2 => Outcome::AppliedWith(Symptom::ServerError),
        3 if matches!(operation, Operation::Create { .. }) => Outcome::LostWith(Symptom::Conflict),
        _ => Outcome::Answered,
    });
    let report = store.check(&options()).await.unwrap();
    assert!(report.passed(), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_can_not_be_asked_has_broken_no_promise() {
    let store = faulty(|operation| match operation {
        Operation::Create { .. } => Outcome::LostWith(Symptom::Refused),
        _ => Outcome::Answered,
    });
    assert!(matches!(store.check(&options()).await, Err(CheckError::Create(_))));
    assert!(matches!(store.overwrites(1).await, Err(CheckError::Create(_))));
    let store = faulty(|operation| match operation {
        Operation::List { .. } => Outcome::LostWith(Symptom::SlowDown),
        _ => Outcome::Answered,
    });
    assert!(matches!(store.check(&options()).await, Err(CheckError::List(_))));
}
