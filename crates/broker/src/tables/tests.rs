//! What is deleted of tables, when, and what a crash leaves, on the real log over a store in memory.

use std::collections::BTreeMap;

use lakebed_compact::{CompactionOptions, Turn};
use lakebed_ingest::Ingest;
use lakebed_log::{Offload, Seams};
use lakebed_model::{Offset, PartitionIndex, PartitionKey, TableFileId, TopicName};
use lakebed_store::{Backend, MemoryBackend, StoreOptions};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::*;
use crate::one_record;

mod sight;

const GRACE: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn key(topic: u128) -> PartitionKey {
    PartitionKey::new(TopicId::new(Uuid::from_u128(topic)), PartitionIndex::ZERO)
}

fn table(topic: u128) -> TableName {
    name_of(&format!("topic-{topic}"))
}

/// A log and its tables. What is published and deleted runs by itself.
struct World {
    store: Store,
    log: Log,
    ingest: Ingest,
    tables: Tables,
    running: AbortOnDropHandle<()>,
}

impl World {
    async fn new(backend: &Arc<MemoryBackend>, seed: u64) -> Self {
        Self::over(Arc::clone(backend) as Arc<dyn Backend>, seed).await
    }

    async fn over(backend: Arc<dyn Backend>, seed: u64) -> Self {
        let store = Store::new("memory://", backend, &StoreOptions::default());
        let begun = Instant::now();
        let elapsed_ms = move || i64::try_from(begun.elapsed().as_millis()).unwrap();
        // A clock that goes with that of the runtime, and on from where the one before it stood.
        let wall = Arc::new(move || 1_700_000_000_000 + 100_000_000 * seed as i64 + elapsed_ms());
        let log = Log::open(store.clone(), Default::default(), Seams { wall, seed, offload: Offload::Inline });
        let log = log.await.unwrap();
        let (ingest, mut committed) = Ingest::start(log.clone(), Default::default());
        tokio::spawn(async move { while committed.recv().await.is_some() {} });
        let compactor = Compactor::new(log.clone(), store.clone(), CompactionOptions::default(), Turn::default());
        let tables = Tables::new(log.clone(), store.clone(), compactor, TableOptions { grace: GRACE });
        let running = AbortOnDropHandle::new(tokio::spawn(tables.clone().run()));
        Self { store, log, ingest, tables, running }
    }

    async fn create(&self, topic: u128) {
        self.create_named(topic, topic).await;
    }

    /// A topic with the name that another one may have had.
    async fn create_named(&self, topic: u128, name: u128) {
        let name = TopicName::new(&format!("topic-{name}")).unwrap();
        let change = Change::CreateTopic { id: key(topic).topic, name, partitions: 1, config: BTreeMap::new() };
        self.log.change(change).await.unwrap();
    }

    async fn delete(&self, topic: u128) {
        self.log.change(Change::DeleteTopic { id: key(topic).topic }).await.unwrap();
    }

    /// What the hint of a name says; `None` if there is none.
    async fn hint(&self, name: u128) -> Option<String> {
        let hint = self.store.get(&lakebed_lake::layout::hint_key(&table(name))).await.ok()?;
        Some(String::from_utf8(hint.to_vec()).unwrap())
    }

    async fn produce(&self, topic: u128) {
        let batch = one_record::batch(None);
        self.ingest.produce(vec![(key(topic), batch)]).await.pop().unwrap().await.unwrap();
    }

    /// One more table file with one more record.
    async fn file(&self, topic: u128) -> TableFileId {
        self.produce(topic).await;
        self.tables.refresh(key(topic).topic).await.unwrap();
        let files = self.log.state().table_files(key(topic).topic);
        files.last().unwrap().0
    }

    /// Deletes all records: every file goes, and the table shows it.
    async fn empty(&self, topic: u128) {
        let offset = self.log.state().partition(key(topic)).unwrap().high_watermark;
        assert_ne!(offset, Offset::ZERO);
        self.log.change(Change::MoveLogStart { partition: key(topic), offset }).await.unwrap();
        self.tables.refresh(key(topic).topic).await.unwrap();
    }

    /// What lies below every id that was committed may be deleted from now on.
    async fn move_boundary(&self) {
        self.log.change(Change::MoveReclaimBoundary(self.log.state().highest_id())).await.unwrap();
    }

    async fn keys(&self, topic: u128) -> Vec<String> {
        let listing = self.store.list(&table(topic).directory(), None, 10_000).await.unwrap();
        listing.objects.into_iter().map(|object| object.key.as_str().to_owned()).collect()
    }

    async fn stands(&self, topic: u128, file: TableFileId) -> bool {
        let key = layout::table_file_key(&format!("topic-{topic}"), file);
        self.keys(topic).await.contains(&key)
    }

    /// The versions of the snapshots to which the newest metadata leads.
    async fn snapshots(&self, topic: u128) -> Vec<u64> {
        let published = self.log.state().table(key(topic).topic).unwrap().published;
        let version = TableVersion::new(published.into()).unwrap();
        let metadata = self.store.get(&lakebed_lake::layout::metadata_key(&table(topic), version)).await.unwrap();
        let metadata: Value = serde_json::from_slice(&metadata).unwrap();
        let snapshots = metadata["snapshots"].as_array().unwrap().iter();
        snapshots.map(|snapshot| snapshot["sequence-number"].as_u64().unwrap()).collect()
    }

    /// A topic with a table file that is not named any more.
    async fn gone_file(&self) -> TableFileId {
        self.create(1).await;
        let file = self.file(1).await;
        self.produce(1).await;
        self.empty(1).await;
        self.move_boundary().await;
        file
    }

    /// As a crash: nothing of it goes on.
    async fn crash(self) {
        self.log.abort();
        self.running.abort();
        drop(self.running.await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_went_stays_for_the_grace_and_as_long_as_a_snapshot_in_sight_shows_it() {
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    let file = world.gone_file().await;
    assert_eq!(world.snapshots(1).await, [1, 2]);
    let (mut passed, mut out_of_sight) = (Duration::ZERO, None);
    while world.stands(1, file).await {
        tokio::time::sleep(MINUTE).await;
        passed += MINUTE;
        assert!(passed < 4 * GRACE, "it stays for ever");
        if out_of_sight.is_none() && world.snapshots(1).await == [2, 3] {
            out_of_sight = Some(passed);
        }
    }
    let out_of_sight = out_of_sight.expect("the snapshot that shows it goes out of sight first");
    assert!(out_of_sight >= 2 * GRACE, "a version after {out_of_sight:?}");
    assert!(passed + MINUTE >= out_of_sight + GRACE, "out of sight after {out_of_sight:?}, it went after {passed:?}");
    // Then the table is left alone.
    let number = world.log.state().number();
    tokio::time::sleep(20 * GRACE).await;
    assert_eq!(world.log.state().number(), number);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_goes_on_gets_no_version_for_what_waits() {
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    let file = world.gone_file().await;
    tokio::time::sleep(GRACE - MINUTE).await;
    assert!(world.stands(1, file).await);
    tokio::time::sleep(10 * MINUTE).await;
    assert!(world.stands(1, file).await, "a snapshot shows it");
    // One that comes after an hour lets go of it.
    world.file(1).await;
    assert_eq!(world.snapshots(1).await, [2, 3]);
    tokio::time::sleep(GRACE - MINUTE).await;
    assert!(world.stands(1, file).await, "who began with the version before may still go back to that snapshot");
    tokio::time::sleep(GRACE / 4).await;
    assert!(!world.stands(1, file).await);
    assert_eq!(world.log.state().table(key(1).topic).unwrap().version, 3);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_can_not_be_published_holds_up_no_other() {
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    world.create(1).await;
    world.create(2).await;
    // It loses a file, so that old snapshots are to go out of sight, but nothing can be published any more.
    world.file(1).await;
    world.produce(1).await;
    world.empty(1).await;
    let missing = world.file(1).await;
    let name = layout::table_file_key("topic-1", missing);
    world.store.delete(&[Key::new(name).unwrap()]).await.unwrap();
    world.produce(1).await;
    let refused = world.tables.refresh(key(1).topic).await;
    assert!(matches!(refused, Err(TableError::Missing { .. })), "{refused:?}");
    let file = world.file(2).await;
    world.produce(2).await;
    world.empty(2).await;
    world.move_boundary().await;
    let versions = || world.log.state().table(key(1).topic).map(|table| (table.version, table.published));
    assert_eq!(versions(), Some((4, 3)));
    let mut passed = Duration::ZERO;
    while world.stands(2, file).await {
        tokio::time::sleep(MINUTE).await;
        passed += MINUTE;
        assert!(passed < 4 * GRACE, "it is held up");
    }
    tokio::time::sleep(GRACE).await;
    assert_eq!(versions(), Some((4, 3)));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_topic_that_is_gone_is_found_after_a_crash() {
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    world.create(1).await;
    world.create(2).await;
    world.file(1).await;
    let other = world.file(2).await;
    // The deletion is durable, and nothing else has come of it.
    world.running.abort();
    world.delete(1).await;
    world.crash().await;

    let again = World::new(&backend, 2).await;
    tokio::time::sleep(MINUTE).await;
    let keys = again.keys(1).await;
    assert!(!keys.is_empty() && keys.iter().all(|key| !key.ends_with("version-hint.text")), "{keys:?}");
    again.move_boundary().await;
    tokio::time::sleep(2 * GRACE).await;
    assert_eq!(again.keys(1).await, Vec::<String>::new());
    assert!(again.stands(2, other).await && again.keys(2).await.iter().any(|key| key.ends_with("version-hint.text")));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_created_again_keeps_what_it_needs_of_its_name() {
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    world.create(1).await;
    let before = world.file(1).await;
    world.delete(1).await;
    tokio::time::sleep(MINUTE).await;
    world.create_named(9, 1).await;
    world.produce(9).await;
    world.tables.refresh(key(9).topic).await.unwrap();
    world.move_boundary().await;
    tokio::time::sleep(4 * GRACE).await;
    assert!(!world.stands(1, before).await);
    let published = world.log.state().table(key(9).topic).unwrap().published;
    assert_eq!(world.hint(1).await, Some(published.to_string()));
    assert!(world.keys(1).await.iter().any(|key| key.ends_with(&format!("v{published}.metadata.json"))));
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_has_left_of_a_quiet_table_is_found_and_what_is_being_made_is_not_touched() {
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    world.create(1).await;
    let orphan = TableFileId::new(world.log.mint().ulid());
    let file = world.file(1).await;
    let key_of = |id| Key::new(layout::table_file_key("topic-1", id)).unwrap();
    world.store.create(&key_of(orphan), "a compaction that crashed").await.unwrap();
    world.move_boundary().await;
    world.crash().await;

    let again = World::new(&backend, 2).await;
    let making = TableFileId::new(again.log.mint().ulid());
    again.store.create(&key_of(making), "a compaction that runs").await.unwrap();
    tokio::time::sleep(GRACE - MINUTE).await;
    assert!(again.stands(1, orphan).await);
    tokio::time::sleep(3 * GRACE).await;
    assert_eq!((again.stands(1, orphan).await, again.stands(1, making).await), (false, true));
    assert!(again.stands(1, file).await);
}

#[tokio::test(start_paused = true)]
async fn quiet_tables_cost_a_few_requests_a_day() {
    const TABLES: u128 = 60;
    let backend = Arc::default();
    let world = World::new(&backend, 1).await;
    for topic in 1..=TABLES {
        world.create(topic).await;
        world.file(topic).await;
    }
    tokio::time::sleep(10 * MINUTE).await;
    let before = world.store.counts();
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    let after = world.store.counts();
    let objects = after.list.requests() - before.list.requests();
    // 60 tables of a file, a manifest, a list, a version and a hint.
    assert_eq!(objects, 1, "one LIST for each thousand objects");
    // Each one's hint, metadata and list.
    assert_eq!(after.get.requests() - before.get.requests(), 3 * TABLES as u64);
    assert_eq!((after.put, after.delete), (before.put, before.delete));
}
