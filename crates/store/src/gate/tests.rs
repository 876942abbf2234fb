//! Waiting for a turn: in which order, for how long, and what is left of those who do not wait any longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::task::JoinSet;
use tokio::time::{advance, sleep};

use super::*;
use crate::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};
use crate::{Key, MemoryBackend, Store, StoreOptions};

fn gate(requests: u32) -> Arc<Gate> {
    let pacing = Pacing { requests_first: requests, requests_max: requests };
    Arc::new(Gate::new(&pacing, RetryPolicy::default(), 1))
}

fn throttled() -> Result<(), Failure> {
    Err(Failure::new(FailureKind::Throttled, "503 SlowDown"))
}

/// Lets every task do what it can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_in_by_priority_and_then_as_they_came() {
    let gate = gate(2);
    let mut held: Vec<Turn> = Vec::new();
    for _ in 0..2 {
        held.push(gate.turn(Priority::Produce).await);
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    use Priority::{Backfill, Compaction, Produce, Tail};
    for (number, priority) in [Compaction, Backfill, Produce, Tail, Produce, Compaction].into_iter().enumerate() {
        let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
        tasks.spawn(async move {
            let turn = gate.turn(priority).await;
            order.lock().unwrap().push((priority, number));
            sleep(Duration::from_millis(1)).await;
            drop(turn);
        });
        settle().await;
    }
    assert_eq!(gate.paced(), Paced { limit: 2, under_way: 2, waiting: [2, 1, 1, 2] });
    assert!(gate.free_turn(Produce).is_none(), "nothing is free while somebody waits");
    held.clear();
    while tasks.join_next().await.is_some() {}
    let order = std::mem::take(&mut *order.lock().unwrap());
    assert_eq!(order, [(Produce, 2), (Produce, 4), (Tail, 3), (Backfill, 1), (Compaction, 0), (Compaction, 5)]);
    assert_eq!(gate.paced(), Paced { limit: 2, under_way: 0, waiting: [0; 4] });
}

#[tokio::test(start_paused = true)]
async fn compaction_that_never_ends_does_not_keep_produce_waiting() {
    let gate = gate(8);
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let gate = Arc::clone(&gate);
        tasks.spawn(async move {
            let _turn = gate.turn(Priority::Compaction).await;
            std::future::pending::<()>().await;
        });
    }
    settle().await;
    assert_eq!(gate.paced().under_way, 2, "a quarter of the places");
    let begun = Instant::now();
    for _ in 0..10_000 {
        drop(gate.turn(Priority::Produce).await);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn all_are_held_back_when_one_is_throttled_those_too_who_waited_for_a_place() {
    let gate = gate(4);
    let mut held: Vec<Turn> = Vec::new();
    for _ in 0..4 {
        held.push(gate.turn(Priority::Produce).await);
    }
    let (begun, entered) = (Instant::now(), Arc::new(AtomicU32::new(0)));
    let mut tasks = JoinSet::new();
    for priority in Priority::ALL.into_iter().cycle().take(40) {
        let (gate, entered) = (Arc::clone(&gate), Arc::clone(&entered));
        tasks.spawn(async move {
            let mut turn = gate.turn(priority).await;
            entered.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(1)).await;
            turn.hear(&Ok(()));
            begun.elapsed()
        });
    }
    settle().await;
    // The last of those who could have let others in are gone before anybody may go in.
    held.iter_mut().for_each(|turn| turn.hear(&throttled()));
    held.clear();
    settle().await;
    advance(Duration::from_millis(5)).await;
    settle().await;
    assert_eq!(entered.load(Ordering::Relaxed), 0, "the rest is 12 ms at least");
    assert_eq!(gate.paced().limit, 2);
    let mut last = Duration::ZERO;
    while let Some(waited) = tasks.join_next().await {
        let waited = waited.unwrap();
        assert!(waited >= Duration::from_millis(12), "{waited:?}");
        last = last.max(waited);
    }
    assert!(last < Duration::from_millis(120), "they come in as the limit lets them: {last:?}");
    assert!(gate.paced().limit > 2, "and it rises again");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_too_long_goes_in_without_a_place() {
    let gate = gate(2);
    let held = [gate.turn(Priority::Produce).await, gate.turn(Priority::Produce).await];
    let begun = Instant::now();
    let beyond = gate.turn(Priority::Produce).await;
    assert_eq!(begun.elapsed(), STALLED, "nothing moves");
    assert_eq!(gate.paced(), Paced { limit: 2, under_way: 2, waiting: [0; 4] });
    drop(beyond);
    assert_eq!(gate.paced().under_way, 2, "what took no place gives none back");
    let moving = Arc::clone(&gate);
    let mover = tokio::spawn(async move {
        loop {
            // Produce comes and goes, and leaves no moment of peace.
            drop(moving.turn(Priority::Produce).await);
            sleep(STALLED / 2).await;
        }
    });
    drop(held);
    let held = gate.turn(Priority::Tail).await;
    let begun = Instant::now();
    let more = gate.turn(Priority::Compaction).await;
    assert_eq!(begun.elapsed(), RetryPolicy::default().attempt_time_max);
    mover.abort();
    drop(mover.await);
    assert_eq!(gate.paced(), Paced { limit: 2, under_way: 1, waiting: [0; 4] });
    drop(more);
    drop(held);
    assert_eq!(gate.paced().under_way, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_dropped_leaves_neither_a_place_nor_an_entry() {
    for seed in 0..50 {
        let mut random = StdRng::seed_from_u64(seed);
        let gate = gate(random.random_range(2..6));
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let gate = Arc::clone(&gate);
            let priority = Priority::ALL[random.random_range(0..4)];
            let (come, patience) = (random.random_range(0..200), random.random_range(0..60));
            let (held, is_throttled) = (random.random_range(0..30), random.random_range(0..8) == 0);
            tasks.spawn(async move {
                sleep(Duration::from_millis(come)).await;
                let work = async {
                    let mut turn = gate.turn(priority).await;
                    sleep(Duration::from_millis(held)).await;
                    turn.hear(&if is_throttled { throttled() } else { Ok(()) });
                };
                // It is dropped wherever it is: before it waits, in the queue, with a turn that it has not seen, with one that it has.
                drop(timeout(Duration::from_millis(patience), work).await);
            });
        }
        while tasks.join_next().await.is_some() {}
        let paced = gate.paced();
        assert_eq!((paced.under_way, paced.waiting), (0, [0; 4]), "seed {seed}");
        assert!(timeout(Duration::from_secs(4), gate.turn(Priority::Compaction)).await.is_ok(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_given_to_somebody_who_is_gone_goes_to_the_next() {
    let gate = gate(2);
    let held = gate.turn(Priority::Produce).await;
    let other = gate.turn(Priority::Produce).await;
    let mut first = Box::pin(gate.turn(Priority::Produce));
    let mut second = Box::pin(gate.turn(Priority::Produce));
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    drop(held);
    // The first has the turn and has not looked.
    drop(first);
    assert!(futures::poll!(&mut second).is_ready());
    drop(other);
    assert_eq!(gate.paced(), Paced { limit: 2, under_way: 0, waiting: [0; 4] });
}

#[tokio::test(start_paused = true)]
async fn a_store_that_throttles_for_a_while_is_asked_less_and_less_and_every_create_comes_through() {
    let memory = Arc::new(MemoryBackend::default());
    let mut requests = Vec::new();
    for pacing in [None, Some(Pacing { requests_first: 64, requests_max: 64 })] {
        let begun = Instant::now();
        let plan = move |_: &Operation<'_>| {
            let is_throttling = begun.elapsed() < Duration::from_secs(10);
            let outcome = if is_throttling { Outcome::LostWith(Symptom::SlowDown) } else { Outcome::Answered };
            Fault { before: Duration::from_millis(5), after: Duration::from_millis(5), outcome }
        };
        let backend = Arc::new(FaultBackend::new(memory.clone(), plan));
        let store = Store::new("test", backend, &StoreOptions { pacing, seed: 3, ..StoreOptions::default() });
        let name = pacing.map_or("as they come", |_| "paced");
        let creates = (0..100).map(|number| {
            let (store, key) = (store.clone(), Key::new(format!("{name}/{number}")).unwrap());
            async move { store.create(&key, "ours").await }
        });
        let created = futures::future::join_all(creates).await;
        assert!(created.iter().all(Result::is_ok), "no throttle is the end of anything");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        requests.push(store.counts().put.throttled + store.counts().get.throttled);
        if let Some(paced) = store.paced() {
            assert_eq!((paced.under_way, paced.waiting), (0, [0; 4]));
        }
    }
    assert!(requests[1] * 10 < requests[0], "each for itself they ask for more: {requests:?}");
}
