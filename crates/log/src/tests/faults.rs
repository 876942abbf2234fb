//! The log on a store that loses answers and requests.

use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome as Fate, Symptom};

use super::*;

/// A store whose every `period`-th create has the given fate; the others are answered.
fn faulty(period: u64, fate: fn(Symptom) -> Fate) -> Store {
    let mut creates = 0_u64;
    let faults = move |operation: &Operation<'_>| {
        if !matches!(operation, Operation::Create { .. }) {
            return Fault::NONE;
        }
        creates += 1;
        if creates.is_multiple_of(period) { Fault::at_once(fate(Symptom::ServerError)) } else { Fault::NONE }
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    Store::new("memory://", Arc::new(backend), &StoreOptions::default())
}

async fn everything_that_is_appended_is_there(store: &Store) {
    let log = open(store, 1).await;
    create_topic(&log).await;
    let appends = (0..50).map(|_| append(&log, &["x", "y"]));
    let outcomes = futures::future::join_all(appends).await;
    let mut offsets: Vec<u64> = Vec::new();
    for outcome in outcomes {
        let Ok(Outcome::Appended(offset)) = outcome else { panic!("{outcome:?}") };
        offsets.push(offset.get());
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..50).map(|index| index * 2).collect::<Vec<_>>());
    drop(log);
    let log = open(store, 2).await;
    assert_eq!(log.state().partition(partition()).unwrap().high_watermark, Offset::new(100));
}

#[tokio::test(start_paused = true)]
async fn commits_whose_answers_are_lost_are_durable_once() {
    everything_that_is_appended_is_there(&faulty(2, Fate::AppliedWith)).await;
    everything_that_is_appended_is_there(&faulty(1, Fate::AppliedWith)).await;
}

#[tokio::test(start_paused = true)]
async fn commits_whose_requests_are_lost_are_put_again_at_the_same_place() {
    everything_that_is_appended_is_there(&faulty(2, Fate::LostWith)).await;
    everything_that_is_appended_is_there(&faulty(3, Fate::LostWith)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_is_gone_leaves_the_fate_of_its_flush_open() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    let (proposal, body) = flush(&log, &["x"]);
    let pending = log.submit(proposal, Some(body)).await;
    log.abort();
    let fate = pending.await;
    assert!(matches!(fate, Err(AppendError::Unknown { .. })), "{fate:?}");
}
