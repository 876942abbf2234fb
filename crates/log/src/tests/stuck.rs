//! A store that takes no commits: what needs a proof is told so after a while, and never answered without one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome as Fate, Symptom};
use tokio::time::Instant;

use super::*;

/// A log on a store that can be told to take nothing more; it still can be read.
async fn log_on_a_store_that_fills_up() -> (Log, Arc<AtomicBool>) {
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let faults = move |operation: &Operation<'_>| match operation {
        Operation::Create { .. } if is_full.load(Ordering::Relaxed) => Fault::at_once(Fate::LostWith(Symptom::Refused)),
        _ => Fault::NONE,
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let log = open(&store, 1).await;
    create_topic(&log).await;
    (log, full)
}

#[tokio::test(start_paused = true)]
async fn a_barrier_behind_a_stuck_commit_is_given_up_after_a_while_and_passes_when_the_commit_lands() {
    let (log, full) = log_on_a_store_that_fills_up().await;
    full.store(true, Ordering::Relaxed);
    let appending = tokio::spawn({
        let log = log.clone();
        async move { append(&log, &["a"]).await }
    });
    while log.counts().in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    let after = Options::default().barrier_time_max;
    assert_eq!(log.barrier().await.err(), Some(BarrierError::Unproven { after }));
    assert_eq!(begun.elapsed(), after);
    assert!(log.counts().oldest_in_flight().unwrap() >= after, "it is known to be stuck");
    full.store(false, Ordering::Relaxed);
    assert_eq!(appending.await.unwrap(), Ok(Outcome::Appended(Offset::ZERO)));
    let proven = log.barrier().await.unwrap();
    assert_eq!(proven.partition(partition()).unwrap().high_watermark, Offset::new(1));
    assert_eq!((log.counts().in_flight(), log.counts().oldest_in_flight()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn barriers_that_were_given_up_take_no_place_from_what_comes_later() {
    let (log, full) = log_on_a_store_that_fills_up().await;
    full.store(true, Ordering::Relaxed);
    let appending = tokio::spawn({
        let log = log.clone();
        async move { append(&log, &["a"]).await }
    });
    while log.counts().in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        let barriers = futures::future::join_all((0..1000).map(|_| log.barrier())).await;
        assert!(barriers.iter().all(|one| matches!(one, Err(BarrierError::Unproven { .. }))));
    }
    let begun = Instant::now();
    full.store(false, Ordering::Relaxed);
    assert_eq!(appending.await.unwrap(), Ok(Outcome::Appended(Offset::ZERO)));
    assert_eq!(append(&log, &["b"]).await, Ok(Outcome::Appended(Offset::new(1))));
    assert!(log.barrier().await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}: no longer than the pause of the commit", begun.elapsed());
}

/// How long a store may be back before what waited for it is done.
const BACK_MAX: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_store_that_was_away_is_used_within_five_seconds_of_its_return_and_then_at_its_own_pace() {
    for symptom in [Symptom::NotSent, Symptom::SlowDown, Symptom::ServerError, Symptom::Cut, Symptom::Refused] {
        // However far apart the attempts are by then; longer than one call is tried.
        for away in (1..130).step_by(3).map(Duration::from_secs) {
            let is_away = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&is_away);
            let faults = move |_: &Operation<'_>| match told.load(Ordering::Relaxed) {
                true => Fault::at_once(Fate::LostWith(symptom)),
                false => Fault::NONE,
            };
            let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
            let options = StoreOptions { seed: away.as_secs(), ..StoreOptions::default() };
            let log = open(&Store::new("memory://", Arc::new(backend), &options), 1).await;
            create_topic(&log).await;
            is_away.store(true, Ordering::Relaxed);
            let appending = tokio::spawn({
                let log = log.clone();
                async move { append(&log, &["a"]).await }
            });
            tokio::time::sleep(away).await;
            assert!(!appending.is_finished(), "{symptom:?} for {away:?}");
            is_away.store(false, Ordering::Relaxed);
            let back = Instant::now();
            assert_eq!(appending.await.unwrap(), Ok(Outcome::Appended(Offset::ZERO)));
            assert!(back.elapsed() <= BACK_MAX, "{symptom:?} for {away:?}: {:?} after its return", back.elapsed());
            let begun = Instant::now();
            for offset in 1..20 {
                assert_eq!(append(&log, &["b"]).await, Ok(Outcome::Appended(Offset::new(offset))));
            }
            log.barrier().await.unwrap();
            assert_eq!(begun.elapsed(), Duration::ZERO, "{symptom:?} for {away:?}: nothing waits for a pause any more");
        }
    }
}
