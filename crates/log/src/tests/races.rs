//! Opening a log whose sequencer goes on: checkpoints are replaced between LIST and GET.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::FutureExt;
use lakebed_store::faults::{Fault, FaultBackend, Operation};
use lakebed_store::{Key, ReadError};

use super::*;

/// All objects of a store at one time.
type Instant = Vec<(Key, Bytes)>;

async fn instant(store: &Store) -> Instant {
    let listed = store.list(&Directory::root(), None, 100_000).await.unwrap();
    let mut objects = Vec::new();
    for one in listed.objects {
        let bytes = store.get(&one.key).await.unwrap();
        objects.push((one.key, bytes));
    }
    objects
}

/// Every instant at which a log has two checkpoints that the instant before did not have.
async fn life_of_a_log(instants: usize) -> Vec<Instant> {
    let store = store();
    let log = Log::open(store.clone(), busy(), seams(1)).await.unwrap();
    create_topic(&log).await;
    let mut seen: Vec<Instant> = Vec::new();
    while seen.len() < instants {
        append(&log, &["x"]).await.unwrap();
        let now = instant(&store).await;
        let manifests = manifests(&now);
        let replaced = seen.last().is_none_or(|before| self::manifests(before).iter().all(|m| !manifests.contains(m)));
        if manifests.len() == 2 && replaced {
            seen.push(now);
        }
    }
    seen
}

fn manifests(objects: &Instant) -> Vec<Key> {
    let is_manifest = |key: &&Key| key.as_str().ends_with(lakebed_segment::layout::MANIFEST);
    objects.iter().map(|(key, _)| key).filter(is_manifest).cloned().collect()
}

/// A store that is at the first instant, and goes on to the next right before each of its manifests is read for the first time.
fn hurrying(instants: Vec<Instant>) -> Store {
    let inner = Arc::new(MemoryBackend::default());
    let content = Store::new("memory://", inner.clone(), &StoreOptions::default());
    let mut instants = VecDeque::from(instants);
    let mut now = instants.pop_front().expect("there is a first");
    move_on(&content, &Vec::new(), &now);
    let faults = move |operation: &Operation<'_>| {
        if let Operation::Get { key, .. } = operation
            && manifests(&now).contains(key)
            && let Some(next) = instants.pop_front()
        {
            move_on(&content, &now, &next);
            now = next;
        }
        Fault::NONE
    };
    let backend = FaultBackend::new(inner, faults);
    Store::new("memory://", Arc::new(backend), &StoreOptions::default())
}

/// Replaces what a memory store holds.
fn move_on(content: &Store, from: &Instant, to: &Instant) {
    let gone: Vec<Key> = from.iter().map(|(key, _)| key.clone()).collect();
    if !gone.is_empty() {
        content.delete(&gone).now_or_never().expect("memory never waits").unwrap();
    }
    for (key, bytes) in to {
        content.create(key, bytes.clone()).now_or_never().expect("memory never waits").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn checkpoints_that_are_replaced_between_list_and_get_are_listed_again() {
    for races in 1..=10 {
        let instants = life_of_a_log(races + 1).await;
        let last = instants.last().unwrap().clone();
        let expected = {
            let still = hurrying(vec![last]);
            let log = open(&still, 2).await;
            (log.state().number(), log.state().partition(partition()).unwrap())
        };
        let log = open(&hurrying(instants), 2).await;
        assert_eq!((log.state().number(), log.state().partition(partition()).unwrap()), expected, "{races} races");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_outrun_for_ever_says_so() {
    let instants = life_of_a_log(40).await;
    let error = Log::open(hurrying(instants), Options::default(), seams(2)).await.unwrap_err();
    let OpenError::Replay(crate::ReplayError::Outrun { lists }) = error else { panic!("{error}") };
    assert!((10..40).contains(&lists), "{lists}");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_missing_for_good_is_said_so() {
    let instants = life_of_a_log(3).await;
    let store = hurrying(vec![instants.into_iter().next_back().unwrap()]);
    let parts = objects(&store).await;
    let parts: Vec<Key> =
        parts.iter().filter(|key| key.contains("/bucket-")).map(|key| Key::new(key.as_str()).unwrap()).collect();
    assert!(!parts.is_empty());
    store.delete(&parts).await.unwrap();
    let error = Log::open(store.clone(), Options::default(), seams(2)).await.unwrap_err();
    let OpenError::Replay(crate::ReplayError::Checkpoint { what, .. }) = error else { panic!("{error}") };
    assert!(what.contains("is missing"), "{what}");
    assert!(matches!(store.get(&parts[0]).await, Err(ReadError::NotFound { .. })));
}
