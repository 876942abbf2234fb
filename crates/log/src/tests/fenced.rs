//! What a sequencer tells those who wait when it was fenced while it could not see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lakebed_model::{CommitNumber, Place};
use lakebed_segment::layout;
use lakebed_store::Key;
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome as Fate, Symptom};

use super::*;

/// A bucket, and a way to it on which one broker hears of nothing but errors while it is stunned.
struct Stunning {
    inner: Arc<MemoryBackend>,
    stunned: Arc<AtomicBool>,
    /// How many of its creates are applied while it is stunned.
    applied: Arc<AtomicU64>,
}

impl Stunning {
    fn new() -> Self {
        Self { inner: Arc::default(), stunned: Arc::default(), applied: Arc::default() }
    }

    fn clear(&self) -> Store {
        Store::new("memory://", self.inner.clone(), &StoreOptions::default())
    }

    fn stunned(&self) -> Store {
        let (stunned, applied) = (self.stunned.clone(), self.applied.clone());
        let faults = move |operation: &Operation<'_>| {
            if !stunned.load(Ordering::Relaxed) {
                return Fault::NONE;
            }
            let left = applied.load(Ordering::Relaxed);
            if matches!(operation, Operation::Create { .. }) && left > 0 {
                applied.store(left - 1, Ordering::Relaxed);
                return Fault::at_once(Fate::AppliedWith(Symptom::ServerError));
            }
            Fault::at_once(Fate::LostWith(Symptom::ServerError))
        };
        let backend = FaultBackend::new(self.inner.clone(), faults);
        Store::new("memory://", Arc::new(backend), &StoreOptions::default())
    }

    fn stun(&self, applied: u64) {
        self.applied.store(applied, Ordering::Relaxed);
        self.stunned.store(true, Ordering::Relaxed);
    }

    fn wake(&self) {
        self.stunned.store(false, Ordering::Relaxed);
    }

    async fn copy(&self) -> Store {
        let (from, to) = (self.clear(), store());
        for one in from.list(&Directory::root(), None, 100_000).await.unwrap().objects {
            to.create(&one.key, from.get(&one.key).await.unwrap()).await.unwrap();
        }
        to
    }
}

fn commit_key(log: &Log, place: Place) -> Key {
    Key::new(layout::commit_key(log.identity().cell, place)).unwrap()
}

async fn live_through_checkpoints(log: &Log) {
    for turn in 0..40 {
        let name = TopicName::new(&format!("t{turn}")).unwrap();
        let id = TopicId::new(Uuid::from_u128(1000 + turn));
        log.change(Change::CreateTopic { id, name, partitions: 1, config: BTreeMap::new() }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_did_not_land_before_the_takeover_is_not_done_even_if_the_log_has_long_gone_on() {
    let bucket = Stunning::new();
    let first = Log::open(bucket.stunned(), busy(), seams(1)).await.unwrap();
    create_topic(&first).await;
    bucket.stun(0);
    let (proposal, body) = flush(&first, &["never"]);
    let pending = first.submit(proposal, Some(body)).await;
    let second = Log::open(bucket.clear(), busy(), seams(2)).await.unwrap();
    live_through_checkpoints(&second).await;
    bucket.wake();
    let fate = pending.await;
    assert!(matches!(fate, Err(AppendError::NotDone { why: Closed::Fenced { .. } })), "{fate:?}");
    assert_eq!(second.barrier().await.unwrap().partition(partition()).unwrap().high_watermark, Offset::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_landed_below_the_takeover_is_acknowledged_even_if_it_was_reclaimed_since() {
    let bucket = Stunning::new();
    let first = Log::open(bucket.stunned(), busy(), seams(1)).await.unwrap();
    create_topic(&first).await;
    let place = first.state().place();
    // A third broker is about to take over at the very place; its request will be late.
    let aside = bucket.copy().await;
    let third = Log::open(aside.clone(), busy(), seams(3)).await.unwrap();
    let late = aside.get(&commit_key(&third, place)).await.unwrap();
    bucket.stun(1);
    let (proposal, body) = flush(&first, &["landed"]);
    let landed = first.submit(proposal, Some(body)).await;
    let (proposal, body) = flush(&first, &["lost"]);
    let lost = first.submit(proposal, Some(body)).await;
    let lost_change = {
        let first = first.clone();
        tokio::spawn(async move { first.change(Change::DeleteTopic { id: partition().topic }).await })
    };
    let key = commit_key(&first, place);
    while bucket.clear().get(&key).await.is_err() {
        tokio::task::yield_now().await;
    }
    let second = Log::open(bucket.clear(), busy(), seams(2)).await.unwrap();
    assert_eq!(second.state().partition(partition()).unwrap().high_watermark, Offset::new(1));
    second.change(Change::DeleteTopic { id: partition().topic }).await.unwrap();
    live_through_checkpoints(&second).await;
    assert!(bucket.clear().get(&key).await.is_err(), "the commit was not reclaimed");
    bucket.clear().create(&key, late).await.unwrap();
    bucket.wake();
    let outcome = landed.await.unwrap();
    assert_eq!(outcome.runs[0].1, [Outcome::Appended(Offset::ZERO)]);
    let lost = lost.await;
    assert!(matches!(lost, Err(AppendError::NotDone { why: Closed::Fenced { .. } })), "{lost:?}");
    let lost = lost_change.await.unwrap();
    assert!(matches!(lost, Err(AppendError::NotDone { why: Closed::Fenced { .. } })), "{lost:?}");
    assert!(matches!(first.closed().await, Closed::Fenced { .. }));
    assert_eq!(first.state().partition(partition()).unwrap().high_watermark, Offset::new(1));
}

#[tokio::test(start_paused = true)]
async fn a_fate_that_the_store_hides_stays_unknown() {
    let bucket = Stunning::new();
    let first = Log::open(bucket.stunned(), busy(), seams(1)).await.unwrap();
    create_topic(&first).await;
    bucket.stun(0);
    let (proposal, body) = flush(&first, &["who knows"]);
    let pending = first.submit(proposal, Some(body)).await;
    let second = Log::open(bucket.clear(), busy(), seams(2)).await.unwrap();
    live_through_checkpoints(&second).await;
    // All checkpoints are damaged, and the log below them is reclaimed: nobody can read it any more.
    let clear = bucket.clear();
    for key in objects(&clear).await.iter().filter(|key| key.ends_with(layout::MANIFEST)) {
        let key = Key::new(key.as_str()).unwrap();
        clear.delete(std::slice::from_ref(&key)).await.unwrap();
        clear.create(&key, Bytes::from_static(b"{}")).await.unwrap();
    }
    bucket.wake();
    let fate = pending.await;
    assert!(matches!(fate, Err(AppendError::Unknown { why: Closed::Fenced { .. } })), "{fate:?}");
}

#[tokio::test(start_paused = true)]
async fn what_lands_late_in_a_closed_directory_is_reclaimed_and_its_takeover_is_not() {
    let store = store();
    let first = open(&store, 1).await;
    create_topic(&first).await;
    append(&first, &["kept"]).await.unwrap();
    let closed = first.state().place();
    let second = Log::open(store.clone(), busy(), seams(2)).await.unwrap();
    let takeover = commit_key(&second, closed);
    let object = store.get(&takeover).await.unwrap();
    let beyond: Vec<Key> =
        (1..4).map(|step| commit_key(&second, Place { index: closed.index + step, ..closed })).collect();
    for _ in 0..2 {
        for key in &beyond {
            store.create(key, object.clone()).await.unwrap();
        }
        live_and_delete(&second).await;
        for key in &beyond {
            assert!(store.get(key).await.is_err(), "{key} is still there");
        }
    }
    assert_eq!(store.get(&takeover).await.unwrap(), object);
    let state = open(&store, 3).await.state();
    assert_eq!(state.partition(partition()).unwrap().high_watermark, Offset::new(1));
    assert!(state.number() > CommitNumber::new(60));
}

/// Long enough for two checkpoints and what they reclaim.
async fn live_and_delete(log: &Log) {
    live_through_checkpoints(log).await;
    for turn in 0..40 {
        log.change(Change::DeleteTopic { id: TopicId::new(Uuid::from_u128(1000 + turn)) }).await.unwrap();
    }
}
