//! Publications that are cut off, repeated, late, or raced by others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome as Fate, Symptom};

use super::*;

/// The same store, on which the request number `at` comes to `fate`, and is counted.
fn failing(world: &World, at: usize, fate: Fate) -> (Store, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let plan = move |_: &Operation<'_>| {
        let outcome = if counted.fetch_add(1, Ordering::Relaxed) == at { fate } else { Fate::Answered };
        Fault::at_once(outcome)
    };
    (store_on(Arc::new(FaultBackend::new(world.backend.clone(), plan))), requests)
}

/// Two versions that stand, and a third to come: a file more, and one less.
async fn before() -> World {
    let mut world = World::new();
    for _ in 0..2 {
        world.add(3).await;
        world.add(1).await;
        world.publish().await;
        world.advance(1);
    }
    world.add(2).await;
    world.shown.files.remove(1);
    world
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_leaves_the_old_or_the_new_version_and_the_next_one_ends_it() {
    let undisturbed = before().await;
    let old = look(&undisturbed.store).await.unwrap();
    let old_paths = old.paths(&undisturbed.store).await;
    undisturbed.publish().await;
    let expected = contents(&undisturbed.store).await;
    let (mut crashes, mut seen_old, mut seen_new) = (0, 0, 0);
    for fate in [Fate::LostWith(Symptom::Silence), Fate::AppliedWith(Symptom::Silence)] {
        for at in 0.. {
            let world = before().await;
            let (store, requests) = failing(&world, at, fate);
            let publisher = Publisher::new(store, options());
            // Less than an attempt may take: the publisher is gone while it waits.
            let cut = tokio::time::timeout(Duration::from_secs(5), publisher.publish(&world.shown)).await;
            if cut.is_ok() {
                assert_eq!(requests.load(Ordering::Relaxed), at, "every request was cut once");
                break;
            }
            crashes += 1;
            let view = look(&world.store).await.unwrap();
            match view.version == old.version {
                true => seen_old += 1,
                false => seen_new += 1,
            }
            let expected_paths = if view.version == old.version { old_paths.clone() } else { world.paths() };
            assert_eq!(view.paths(&world.store).await, expected_paths, "{fate:?} at {at}");
            let again = Publisher::new(world.store.clone(), options()).publish(&world.shown).await.unwrap();
            assert!(matches!(again.outcome, Outcome::Published | Outcome::PublishedByAnother), "{fate:?} at {at}");
            assert_eq!(contents(&world.store).await, expected, "{fate:?} at {at}: the same objects, and no others");
        }
    }
    assert!(crashes > 15 && seen_old > 5 && seen_new > 1, "{crashes} crashes, {seen_old} old, {seen_new} new");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_no_failure() {
    let undisturbed = before().await;
    undisturbed.publish().await;
    let expected = contents(&undisturbed.store).await;
    for symptom in [Symptom::ServerError, Symptom::Cut, Symptom::SlowDown] {
        for at in 0..20 {
            let world = before().await;
            let (store, _) = failing(&world, at, Fate::AppliedWith(symptom));
            let publication = Publisher::new(store, options()).publish(&world.shown).await.unwrap();
            assert_eq!(publication.outcome, Outcome::Published, "{symptom:?} at {at}");
            assert_eq!(contents(&world.store).await, expected, "{symptom:?} at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_error_and_harms_nothing() {
    let mut refused = 0;
    for at in 0..20 {
        let world = before().await;
        let old = look(&world.store).await.unwrap().version;
        let (store, _) = failing(&world, at, Fate::LostWith(Symptom::Refused));
        let publisher = Publisher::new(store, options());
        if publisher.publish(&world.shown).await.is_err() {
            refused += 1;
            let view = look(&world.store).await.unwrap();
            assert!(view.version == old || view.version == world.shown.version.get());
            publisher.publish(&world.shown).await.unwrap();
        }
        assert_eq!(look(&world.store).await.unwrap().paths(&world.store).await, world.paths(), "at {at}");
    }
    assert!(refused >= 10, "{refused}");
}

/// A store on which every request to the hint's key reaches it so much later.
fn slow_hint(world: &World, before: Duration) -> Store {
    let plan = move |operation: &Operation<'_>| match operation {
        Operation::Overwrite { .. } => Fault { before, after: Duration::ZERO, outcome: Fate::Answered },
        _ => Fault::NONE,
    };
    store_on(Arc::new(FaultBackend::new(world.backend.clone(), plan)))
}

#[tokio::test(start_paused = true)]
async fn a_slow_publisher_repairs_the_hint_that_it_points_back() {
    let mut world = before().await;
    let slow = Publisher::new(slow_hint(&world, Duration::from_secs(2)), options());
    let older = world.shown.clone();
    world.advance(1);
    world.add(5).await;
    let newer = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.publish().await
    };
    let (older, newer) = tokio::join!(slow.publish(&older), newer);
    assert_eq!((older.unwrap().outcome, newer), (Outcome::Published, Outcome::Published));
    let view = look(&world.store).await.unwrap();
    assert_eq!(view.version, world.shown.version.get());
    assert_eq!(view.paths(&world.store).await, world.paths());
}

#[tokio::test(start_paused = true)]
async fn a_zombie_with_an_older_version_changes_nothing() {
    let mut world = before().await;
    let older = world.shown.clone();
    world.advance(2);
    world.add(5).await;
    world.publish().await;
    let expected = contents(&world.store).await;
    let zombie = Publisher::new(world.store.clone(), options());
    let publication = zombie.publish(&older).await.unwrap();
    assert_eq!(publication.outcome, Outcome::Superseded { by: world.shown.version });
    assert_eq!(contents(&world.store).await, expected);
    // One that does not look, since it published the version before, leaves objects that nothing names; the hint stays.
    let mut world = before().await;
    let older = world.shown.clone();
    world.advance(2);
    Publisher::new(world.store.clone(), options()).publish(&world.shown).await.unwrap();
    assert_eq!(world.publisher.publish(&older).await.unwrap().outcome, Outcome::Published);
    assert_eq!(look(&world.store).await.unwrap().version, world.shown.version.get());
    world.advance(1);
    world.add(1).await;
    world.publish().await;
    let view = look(&world.store).await.unwrap();
    assert_eq!(view.paths(&world.store).await, world.paths());
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_lands_late_is_repaired() {
    let mut world = before().await;
    let late = |operation: &Operation<'_>| match operation {
        Operation::Overwrite { .. } => Fault::at_once(Fate::LateWith(Symptom::Cut, Duration::from_secs(90))),
        _ => Fault::NONE,
    };
    let store = store_on(Arc::new(FaultBackend::new(world.backend.clone(), late)));
    let publisher = Publisher::new(store, options());
    assert!(publisher.publish(&world.shown).await.is_err(), "the hint never seems to be written");
    let older = world.shown.version.get();
    world.advance(1);
    world.publish().await;
    assert_eq!(look(&world.store).await.unwrap().version, world.shown.version.get());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(look(&world.store).await.unwrap().version, older, "it landed");
    world.publisher.repair_hint(&name()).await.unwrap();
    assert_eq!(look(&world.store).await.unwrap().version, world.shown.version.get());
    world.publisher.withdraw(&name()).await.unwrap();
    assert!(look(&world.store).await.is_none());
}

#[tokio::test]
async fn rivals_with_one_version_agree() {
    let world = before().await;
    let rivals = (0..8).map(|_| {
        let (store, shown) = (world.store.clone(), world.shown.clone());
        async move { Publisher::new(store, options()).publish(&shown).await.unwrap().outcome }
    });
    let outcomes = futures::future::join_all(rivals).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Published | Outcome::PublishedByAnother)));
    assert_eq!(look(&world.store).await.unwrap().paths(&world.store).await, world.paths());
    let foreign = Shown { table_uuid: Uuid::from_u128(99), files: Vec::new(), ..world.shown.clone() };
    let error = Publisher::new(world.store.clone(), options()).publish(&foreign).await.unwrap_err();
    assert!(error.to_string().contains("v3.metadata.json"), "{error}");
}

#[tokio::test]
async fn a_publication_costs_what_its_documentation_says() {
    let mut world = before().await;
    world.publish().await;
    world.advance(1);
    world.add(1).await;
    let before = world.store.counts();
    world.publish().await;
    let after = world.store.counts();
    assert_eq!(after.put.requests() - before.put.requests(), 4, "manifest, list, metadata, hint");
    assert_eq!(after.list.requests() - before.list.requests(), 1);
    assert_eq!(after.get.requests() - before.get.requests(), 3, "a footer, and the hint before and after");
}
