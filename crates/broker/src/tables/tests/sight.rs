//! Tables of topics that go, come again, or are being published meanwhile, and their hints.

use std::sync::atomic::{AtomicBool, Ordering};

use lakebed_store::Directory;
use lakebed_store::faults::{Fault, FaultBackend, Operation};

use super::*;

/// How long a request takes that is slow: less than an attempt may.
const SLOW: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);

/// A store of which some requests are slow while the switch is on.
fn slow_at(is_slow: impl Fn(&Operation<'_>) -> bool + Send + Sync + 'static) -> (Arc<dyn Backend>, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let is_on = Arc::clone(&switch);
    let plan = move |operation: &Operation<'_>| match is_on.load(Ordering::Relaxed) && is_slow(operation) {
        true => Fault { before: SLOW, ..Fault::NONE },
        false => Fault::NONE,
    };
    (Arc::new(FaultBackend::new(Arc::new(MemoryBackend::default()), plan)), switch)
}

fn creates_metadata(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::Create { key, .. } if key.as_str().ends_with(".metadata.json"))
}

#[tokio::test(start_paused = true)]
async fn what_is_published_of_a_topic_while_it_is_deleted_is_withdrawn_as_well() {
    let (backend, slow) = slow_at(creates_metadata);
    let world = World::over(backend, 1).await;
    world.create(1).await;
    world.file(1).await;
    world.produce(1).await;
    slow.store(true, Ordering::Relaxed);
    let tables = world.tables.clone();
    let refresh = tokio::spawn(async move { tables.refresh(key(1).topic).await });
    tokio::time::sleep(SECOND).await;
    assert!(!refresh.is_finished());
    world.delete(1).await;
    let refreshed = refresh.await.unwrap();
    assert!(matches!(refreshed, Err(TableError::UnknownTopic { .. })), "{refreshed:?}");
    let published = lakebed_lake::layout::metadata_key(&table(1), TableVersion::new(2).unwrap());
    assert!(world.keys(1).await.contains(&published.to_string()), "it was published behind the deletion");
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.hint(1).await, None);
    world.create(2).await;
    world.file(2).await;
    world.move_boundary().await;
    tokio::time::sleep(2 * GRACE).await;
    assert_eq!(world.keys(1).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_created_again_while_others_are_withdrawn_keeps_its_hint() {
    let (backend, slow) = slow_at(|operation| matches!(operation, Operation::Delete { .. }));
    let world = World::over(backend, 1).await;
    // More than are withdrawn at once.
    let topics = 1..=PUBLISHED_AT_ONCE as u128 + 2;
    for topic in topics.clone() {
        world.create(topic).await;
        world.file(topic).await;
    }
    tokio::time::sleep(MINUTE).await;
    slow.store(true, Ordering::Relaxed);
    for topic in topics.clone() {
        world.delete(topic).await;
    }
    let last = *topics.end();
    world.create_named(100, last).await;
    world.produce(100).await;
    world.tables.refresh(key(100).topic).await.unwrap();
    let published = world.log.state().table(key(100).topic).unwrap().published.to_string();
    assert_eq!(world.hint(last).await, Some(published.clone()));
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(world.hint(last).await, Some(published));
    for topic in topics.take(PUBLISHED_AT_ONCE) {
        assert_eq!(world.hint(topic).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_survey_mends_hints_that_are_missing_or_behind() {
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    for topic in [1, 2] {
        world.create(topic).await;
        world.file(topic).await;
        world.file(topic).await;
    }
    let hint = |topic| lakebed_lake::layout::hint_key(&table(topic));
    world.store.delete(&[hint(1)]).await.unwrap();
    world.store.overwrite(&hint(2), "1").await.unwrap();
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    for topic in [1, 2] {
        assert_eq!(world.hint(topic).await.as_deref(), Some("2"), "of {topic}");
    }
}

/// As after a recovery: the topics and their tables are those of before, but the log knows of no publication.
#[tokio::test(start_paused = true)]
async fn a_log_that_was_made_anew_keeps_the_hints_of_its_tables_and_no_others() {
    let before = World::new(&Arc::default(), 1).await;
    for topic in [1, 2] {
        before.create(topic).await;
        before.file(topic).await;
    }
    let backend = Arc::default();
    let anew = World::new(&backend, 2).await;
    anew.create(1).await;
    // Another topic of the name.
    anew.create_named(20, 2).await;
    let tables = before.store.list(&Directory::new("tables").unwrap(), None, 1000).await.unwrap();
    for object in tables.objects {
        anew.store.create(&object.key, before.store.get(&object.key).await.unwrap()).await.unwrap();
    }
    anew.crash().await;
    let world = World::new(&backend, 3).await;
    assert_eq!(world.log.state().table(key(1).topic), None);
    tokio::time::sleep(SECOND).await;
    assert_eq!((world.hint(1).await.as_deref(), world.hint(2).await), (Some("1"), None));
}

#[tokio::test(start_paused = true)]
async fn files_of_a_deleted_topic_have_their_hour_also_if_they_waited_already() {
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    let file = world.gone_file().await;
    tokio::time::sleep(GRACE + 10 * MINUTE).await;
    assert!(world.stands(1, file).await, "a snapshot shows it");
    world.delete(1).await;
    tokio::time::sleep(GRACE - MINUTE).await;
    assert!(world.stands(1, file).await, "a query may run");
    tokio::time::sleep(2 * MINUTE).await;
    assert_eq!(world.keys(1).await, Vec::<String>::new());
}
