//! Publications on a memory store, read back as a foreign reader would: from the hint on, with the schemas in the files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apache_avro::Reader;
use lakebed_log::Offload;
use lakebed_model::CommitNumber;
use lakebed_store::{Backend, Key, MemoryBackend, Store, StoreOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Expiry, Options, Outcome, PartitionBy, Publisher, Shown, ShownFile, TableName, TableVersion, ValueFormat, layout,
};
use files::{Row, table_file};

mod crashes;
#[path = "../examples/write_tables/files.rs"]
mod files;
mod golden;
mod histories;
mod manifests;
mod sweeps;

/// A table and its store.
struct World {
    backend: Arc<dyn Backend>,
    store: Store,
    publisher: Publisher,
    shown: Shown,
    next_offset: i64,
}

fn name() -> TableName {
    TableName::new("default", "orders").unwrap()
}

fn version(number: u64) -> TableVersion {
    TableVersion::new(number).unwrap()
}

fn options() -> Options {
    Options { offload: Offload::Inline, ..Options::default() }
}

fn store_on(backend: Arc<dyn Backend>) -> Store {
    Store::new("memory://", backend, &StoreOptions::default())
}

impl World {
    fn new() -> Self {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
        let store = store_on(backend.clone());
        let shown = Shown {
            table_uuid: Uuid::from_u128(7),
            name: name(),
            topic: "orders".to_owned(),
            root: "s3://bucket/root".to_owned(),
            version: version(1),
            commit: CommitNumber::new(10),
            time_ms: 1_700_000_000_000,
            value_format: ValueFormat::Binary,
            partition_by: PartitionBy::Nothing,
            properties: BTreeMap::new(),
            files: Vec::new(),
        };
        Self { publisher: Publisher::new(store.clone(), options()), backend, store, shown, next_offset: 0 }
    }

    /// Writes a file of `rows` rows and shows it from now on.
    async fn add(&mut self, rows: i64) -> Key {
        let file = self.write(&self.rows(rows, 0)).await;
        self.next_offset += rows;
        self.shown.files.push(file.clone());
        file.key
    }

    fn rows(&self, count: i64, day: i64) -> Vec<Row> {
        let row = |offset: i64| Row {
            partition: 0,
            offset,
            timestamp_us: Some(day * 86_400_000_000 + offset),
            ingest_us: day * 86_400_000_000 + offset,
            headers: None,
            key: Some(format!("key {offset}").into_bytes()),
            value: None,
            value_raw: None,
        };
        (self.next_offset..self.next_offset + count).map(row).collect()
    }

    async fn write(&self, rows: &[Row]) -> ShownFile {
        let bytes = table_file(rows, false, 100);
        let id = format!("{:020}-{:06}-{}", self.shown.commit.get(), self.next_offset, self.shown.files.len());
        let key = Key::new(format!("{}/data/{id}.parquet", name().directory())).unwrap();
        let size_bytes = bytes.len() as u64;
        self.store.create(&key, bytes).await.unwrap();
        ShownFile { key, size_bytes, rows: rows.len() as u64 }
    }

    /// Goes on to another version, a minute later.
    fn advance(&mut self, versions: u64) {
        self.shown.version = version(u64::from(self.shown.version.get()) + versions);
        self.shown.commit = CommitNumber::new(self.shown.commit.get() + 3 * versions);
        self.shown.time_ms += 60_000;
    }

    async fn publish(&self) -> Outcome {
        self.publisher.publish(&self.shown).await.unwrap().outcome
    }

    fn paths(&self) -> BTreeSet<String> {
        self.shown.files.iter().map(|file| self.shown.uri(&file.key)).collect()
    }
}

/// What a foreign reader finds.
#[derive(Debug)]
struct View {
    version: u32,
    metadata: Value,
}

/// An entry of a manifest, as the file's own schema has it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    path: String,
    status: i64,
    snapshot: i64,
    sequence: i64,
    rows: i64,
}

/// Follows the hint; `None` if there is none.
async fn look(store: &Store) -> Option<View> {
    let hint = store.get(&layout::hint_key(&name())).await.ok()?;
    let hint = std::str::from_utf8(&hint).unwrap();
    assert!(hint.bytes().all(|byte| byte.is_ascii_digit()), "the hint is {hint:?}");
    let number = hint.parse().unwrap();
    Some(View {
        version: number,
        metadata: json_of(store, &layout::metadata_key(&name(), version(number.into()))).await,
    })
}

async fn json_of(store: &Store, key: &Key) -> Value {
    serde_json::from_slice(&store.get(key).await.unwrap()).unwrap()
}

impl View {
    fn snapshots(&self) -> &Vec<Value> {
        self.metadata["snapshots"].as_array().unwrap()
    }

    fn current(&self) -> &Value {
        let id = &self.metadata["current-snapshot-id"];
        assert_eq!(self.metadata["refs"]["main"]["snapshot-id"], *id);
        self.snapshots().iter().find(|snapshot| snapshot["snapshot-id"] == *id).unwrap()
    }

    /// The files that the version shows.
    async fn paths(&self, store: &Store) -> BTreeSet<String> {
        live(&entries(store, self.current()).await)
    }
}

fn live(entries: &[Seen]) -> BTreeSet<String> {
    let live: Vec<&Seen> = entries.iter().filter(|entry| entry.status != 2).collect();
    let paths: BTreeSet<String> = live.iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(paths.len(), live.len(), "a file is shown twice");
    paths
}

fn key_of(uri: &str) -> Key {
    Key::new(uri.strip_prefix("s3://bucket/root/").unwrap()).unwrap()
}

async fn avro_of(store: &Store, uri: &str) -> Vec<Value> {
    let bytes = store.get(&key_of(uri)).await.unwrap();
    let rows = Reader::new(&bytes[..]).unwrap().map(|row| Value::try_from(row.unwrap()).unwrap());
    rows.collect()
}

/// The manifests of a snapshot.
async fn manifests(store: &Store, snapshot: &Value) -> Vec<Value> {
    avro_of(store, snapshot["manifest-list"].as_str().unwrap()).await
}

/// The entries of a snapshot. What its list says of each manifest is checked on the way.
async fn entries(store: &Store, snapshot: &Value) -> Vec<Seen> {
    let mut all = Vec::new();
    for manifest in manifests(store, snapshot).await {
        let rows = avro_of(store, manifest["manifest_path"].as_str().unwrap()).await;
        let entries: Vec<Seen> = rows.iter().map(seen).collect();
        for (status, word) in [(0, "existing"), (1, "added"), (2, "deleted")] {
            let of_status: Vec<&Seen> = entries.iter().filter(|entry| entry.status == status).collect();
            assert_eq!(manifest[format!("{word}_files_count")], of_status.len() as i64);
            assert_eq!(manifest[format!("{word}_rows_count")], of_status.iter().map(|entry| entry.rows).sum::<i64>());
        }
        let size = store.size(&key_of(manifest["manifest_path"].as_str().unwrap())).await.unwrap();
        assert_eq!(manifest["manifest_length"], size as i64);
        let lowest = entries.iter().filter(|entry| entry.status != 2).map(|entry| entry.sequence).min();
        assert_eq!(manifest["min_sequence_number"].as_i64(), lowest.or(manifest["sequence_number"].as_i64()));
        all.extend(entries);
    }
    all
}

fn seen(row: &Value) -> Seen {
    let long = |value: &Value| value.as_i64().unwrap();
    assert_eq!(row["sequence_number"], row["file_sequence_number"]);
    Seen {
        path: row["data_file"]["file_path"].as_str().unwrap().to_owned(),
        status: long(&row["status"]),
        snapshot: long(&row["snapshot_id"]),
        sequence: long(&row["sequence_number"]),
        rows: long(&row["data_file"]["record_count"]),
    }
}

/// Every object, by key.
async fn contents(store: &Store) -> BTreeMap<String, bytes::Bytes> {
    let listing = store.list(&lakebed_store::Directory::root(), None, 1_000_000).await.unwrap();
    let mut contents = BTreeMap::new();
    for listed in listing.objects {
        contents.insert(listed.key.to_string(), store.get(&listed.key).await.unwrap());
    }
    contents
}

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

#[tokio::test]
async fn statistics_are_those_of_the_files() {
    let mut world = World::new();
    world.add(250).await;
    world.publish().await;
    let view = look(&world.store).await.unwrap();
    let manifests = manifests(&world.store, view.current()).await;
    let row = &avro_of(&world.store, manifests[0]["manifest_path"].as_str().unwrap()).await[0];
    let file = &row["data_file"];
    let of = |field: &str, id: i64| -> Value {
        let pairs = file[field].as_array().unwrap();
        pairs.iter().find(|pair| pair["key"] == id).map_or(Value::Null, |pair| pair["value"].clone())
    };
    let bytes = |value: Value| -> Vec<u8> {
        value.as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect()
    };
    assert_eq!(file["record_count"], 250);
    assert_eq!(
        (of("value_counts", 2), of("null_value_counts", 2), of("null_value_counts", 8)),
        (250.into(), 0.into(), 250.into())
    );
    assert_eq!(bytes(of("lower_bounds", 2)), 0_i64.to_le_bytes());
    assert_eq!(bytes(of("upper_bounds", 2)), 249_i64.to_le_bytes());
    assert_eq!(bytes(of("upper_bounds", 1)), 0_i32.to_le_bytes());
    assert_eq!((bytes(of("lower_bounds", 7)), bytes(of("upper_bounds", 7))), (b"key 0".to_vec(), b"key 99".to_vec()));
    assert_eq!(
        (of("lower_bounds", 8), of("value_counts", 22)),
        (Value::Null, Value::Null),
        "nulls have no bounds, lists no counts"
    );
    assert!(of("column_sizes", 2).as_i64().unwrap() > 0 && of("column_sizes", 22).as_i64().is_some());
    assert_eq!(file["split_offsets"].as_array().unwrap().len(), 3, "250 rows in groups of 100");
    assert_eq!((&file["split_offsets"][0], &file["sort_order_id"]), (&4.into(), &1.into()));
}

#[tokio::test]
async fn a_file_that_is_not_what_the_state_says_is_not_published() {
    let mut world = World::new();
    world.add(5).await;
    let sound = world.shown.files[0].clone();
    for (file, expected) in [
        (ShownFile { rows: 6, ..sound.clone() }, "5 rows, and not 6"),
        (ShownFile { size_bytes: 1, ..sound.clone() }, "bytes, and not 1"),
    ] {
        world.shown.files = vec![file];
        let error = world.publisher.publish(&world.shown).await.unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains(expected) && text.contains(sound.key.as_str()), "{text}");
    }
    let torn = Key::new("tables/default/orders/data/torn.parquet").unwrap();
    world.store.create(&torn, "PAR1 no Parquet").await.unwrap();
    world.shown.files = vec![ShownFile { key: torn, size_bytes: 15, rows: 1 }];
    assert!(world.publisher.publish(&world.shown).await.is_err());
    world.shown.files = vec![sound.clone(), sound.clone()];
    assert!(world.publisher.publish(&world.shown).await.is_err(), "shown twice");
    let elsewhere = Key::new("tables/default/orders2/data/x.parquet").unwrap();
    world.shown.files = vec![ShownFile { key: elsewhere, ..sound.clone() }];
    assert!(world.publisher.publish(&world.shown).await.is_err());
    assert!(look(&world.store).await.is_none(), "nothing was published");
    world.shown.files = vec![sound];
    assert_eq!(world.publish().await, Outcome::Published);
    world.shown.files[0].rows = 9;
    world.advance(1);
    let error = world.publisher.publish(&world.shown).await.unwrap_err().to_string();
    assert!(error.contains("was published with 5 rows"), "{error}");
}

#[tokio::test]
async fn a_file_of_which_only_some_rows_count_any_more_is_shown_as_it_is() {
    let mut world = World::new();
    world.add(5).await;
    assert_eq!(world.publish().await, Outcome::Published);
    // The log start moved into it, and another file came.
    world.shown.files[0].rows = 3;
    world.add(2).await;
    world.shown.files[1].rows = 1;
    world.advance(1);
    assert_eq!(world.publish().await, Outcome::Published);
    let view = look(&world.store).await.unwrap();
    assert_eq!(view.snapshots().last().unwrap()["summary"]["total-records"], "7");
}

#[tokio::test]
async fn a_file_in_several_partitions_is_shown_without_one() {
    let mut world = World::new();
    world.shown.partition_by = PartitionBy::Day;
    for day in [3, 4] {
        let file = world.write(&world.rows(3, day)).await;
        world.next_offset += 3;
        world.shown.files.push(file);
    }
    let mut mixed = world.rows(2, 3);
    mixed[1].ingest_us += 86_400_000_000;
    let file = world.write(&mixed).await;
    world.shown.files.push(file.clone());
    let publication = world.publisher.publish(&world.shown).await.unwrap();
    assert_eq!(publication.unpartitioned, [file.key]);
    let view = look(&world.store).await.unwrap();
    assert_eq!(view.paths(&world.store).await, world.paths());
    let manifests = manifests(&world.store, view.current()).await;
    let specs: Vec<&Value> = manifests.iter().map(|manifest| &manifest["partition_spec_id"]).collect();
    assert_eq!(specs, [0, 1]);
    let bound = |name: &str| manifests[1]["partitions"][0][name].clone();
    assert_eq!(
        (bound("lower_bound"), bound("upper_bound")),
        (serde_json::json!([3, 0, 0, 0]), serde_json::json!([4, 0, 0, 0]))
    );
}
