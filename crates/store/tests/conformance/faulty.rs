//! The suite over a store that fails: every third request goes wrong in one way, and the caller must not notice.

use std::sync::Arc;
use std::time::Duration;

use lakebed_store::faults::{Fault, FaultBackend, FaultCounts, Operation, Outcome, Symptom};
use lakebed_store::{Hedging, MemoryBackend, Pacing, RetryPolicy, Store, StoreOptions};

use crate::suite;

const SYMPTOMS: [Symptom; 4] = [Symptom::SlowDown, Symptom::ServerError, Symptom::Cut, Symptom::Silence];

/// Runs the suite with `outcome` for every third request that `applies` to, all of them with latency.
async fn run(outcome: Outcome, applies: fn(&Operation<'_>) -> bool) -> FaultCounts {
    let mut requests = 0u64;
    let plan = move |operation: &Operation<'_>| {
        requests += 1;
        let outcome = if requests.is_multiple_of(3) && applies(operation) { outcome } else { Outcome::Answered };
        // Different for neighbours, so that rivals overtake each other.
        let before = Duration::from_millis(1 + requests * 7 % 11);
        Fault { before, after: Duration::from_millis(2), outcome }
    };
    let counts = run_on(plan, StoreOptions::default()).await;
    // As a bucket is asked: with hedges, and few requests at once.
    let hedging = Some(Hedging { percent_max: 50, delay_min: Duration::ZERO, learned_min: 4 });
    let pacing = Some(Pacing { requests_first: 4, requests_max: 8 });
    run_on(plan, StoreOptions { hedging, pacing, ..StoreOptions::default() }).await;
    counts
}

async fn run_on(plan: impl FnMut(&Operation<'_>) -> Fault + Send + 'static, options: StoreOptions) -> FaultCounts {
    let backend = Arc::new(FaultBackend::new(Arc::new(MemoryBackend::default()), plan));
    let retry = RetryPolicy { attempt_time_max: Duration::from_secs(2), ..RetryPolicy::default() };
    let options = StoreOptions { retry, seed: 7, part_bytes: Some(3000), ..options };
    suite::run(&Store::new("faulty", backend.clone(), &options), 11).await;
    backend.counts()
}

fn any(_: &Operation<'_>) -> bool {
    true
}

fn creates(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::Create { .. } | Operation::Complete { .. })
}

/// A late create behind a delete would bring the object back, which nobody can prevent.
fn creates_of_what_is_kept(operation: &Operation<'_>) -> bool {
    let deleted = ["delete", "dirs", "odd", "count"];
    matches!(operation, Operation::Create { key, .. } | Operation::Complete { key } if !deleted.iter().any(|name| key.as_str().starts_with(name)))
}

#[tokio::test(start_paused = true)]
async fn a_store_that_loses_requests_conforms() {
    for symptom in SYMPTOMS.into_iter().chain([Symptom::NotSent]) {
        assert!(run(Outcome::LostWith(symptom), any).await.lost > 50, "{symptom:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_loses_answers_conforms() {
    for symptom in SYMPTOMS {
        assert!(run(Outcome::AppliedWith(symptom), any).await.applied_with_error > 20, "{symptom:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_reports_conflicts_without_a_rival_conforms() {
    for outcome in [Outcome::LostWith(Symptom::Conflict), Outcome::AppliedWith(Symptom::Conflict)] {
        let counts = run(outcome, creates).await;
        assert!(counts.lost + counts.applied_with_error > 20, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_applies_late_conforms() {
    for symptom in SYMPTOMS {
        for late in [Duration::from_millis(5), Duration::from_millis(30), Duration::from_secs(1)] {
            let counts = run(Outcome::LateWith(symptom, late), creates_of_what_is_kept).await;
            let landed = counts.late_creates_won + counts.late_creates_declined + counts.late_pending;
            assert!(landed > 10, "{symptom:?}, {late:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cuts_bodies_conforms() {
    for kept in [0, 1, 4] {
        assert!(run(Outcome::CutBody(kept), any).await.bodies_cut > 5, "{kept}");
    }
}
