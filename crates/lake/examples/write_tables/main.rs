//! Writes tables for foreign readers to judge: `write_tables URL`. What they must find goes to standard output, as JSON.
//!
//! Each table has several versions; for each its snapshot's id and the rows that it shows.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example that tests run")]

mod files;

use std::collections::BTreeMap;

use files::{Row, table_file};
use lakebed_lake::{
    Expiry, Options, PartitionBy, Publisher, Shown, ShownFile, TableName, TableVersion, ValueFormat, layout,
    readers_root,
};
use lakebed_model::CommitNumber;
use lakebed_store::{Key, Store, StoreOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

/// 2026-11-01T00:00:00Z.
const BEGIN_MS: i64 = 1_793_491_200_000;
const DAY_US: i64 = 86_400_000_000;

struct Table {
    store: Store,
    publisher: Publisher,
    rng: StdRng,
    shown: Shown,
    /// By the key of the file.
    rows: BTreeMap<Key, Vec<Row>>,
    next_offset: [i64; 3],
    versions: Vec<Value>,
}

impl Table {
    fn new(store: &Store, table: &str, by: PartitionBy, format: ValueFormat) -> Self {
        let shown = Shown {
            table_uuid: Uuid::new_v5(&Uuid::NAMESPACE_OID, table.as_bytes()),
            name: TableName::new("default", table).unwrap(),
            topic: table.to_owned(),
            root: readers_root(store.url()),
            version: TableVersion::new(1).unwrap(),
            commit: CommitNumber::new(7),
            time_ms: BEGIN_MS,
            value_format: format,
            partition_by: by,
            properties: BTreeMap::new(),
            files: Vec::new(),
        };
        let options =
            Options { expiry: Expiry { age_ms: 3_600_000, snapshots_max: 6, metadata_max: 6 }, ..Options::default() };
        Self {
            store: store.clone(),
            publisher: Publisher::new(store.clone(), options),
            rng: StdRng::seed_from_u64(table.len() as u64),
            shown,
            rows: BTreeMap::new(),
            next_offset: [0; 3],
            versions: Vec::new(),
        }
    }

    fn row(&mut self, partition: usize, day: i64) -> Row {
        let rng = &mut self.rng;
        let offset = self.next_offset[partition];
        // Offsets may have gaps.
        self.next_offset[partition] += rng.random_range(1..3);
        let bytes =
            |rng: &mut StdRng, max: usize| -> Vec<u8> { (0..rng.random_range(0..max)).map(|_| rng.random()).collect() };
        let text = |rng: &mut StdRng| {
            format!(
                "{{\"user_id\": {}, \"note\": \"Grüße {}\"}}",
                rng.random::<u16>(),
                "x".repeat(rng.random_range(0..40))
            )
        };
        let is_text = self.shown.value_format == ValueFormat::Text;
        let kind = rng.random_range(0..10);
        let value = match (kind, is_text) {
            (0, _) => None,
            (1, _) => Some(Vec::new()),
            (2, true) => None,
            (_, true) => Some(text(rng).into_bytes()),
            (_, false) => Some(bytes(rng, 60)),
        };
        let value_raw = (kind == 2 && is_text).then(|| vec![0xff, 0xfe, rng.random()]);
        let header = |rng: &mut StdRng, key: &str| (key.to_owned(), (!rng.random_bool(0.3)).then(|| bytes(rng, 5)));
        let headers = match rng.random_range(0..4) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![header(rng, "trace")]),
            _ => Some(vec![header(rng, "a"), header(rng, "a"), header(rng, "ü")]),
        };
        // A partition of a table by days has no nulls beside times.
        let has_time = self.shown.partition_by != PartitionBy::Nothing || rng.random_range(0..8) > 0;
        let at = BEGIN_MS * 1000 + day * DAY_US + rng.random_range(0..3_600_000_000);
        Row {
            partition: partition as i32,
            offset,
            timestamp_us: has_time.then_some(at),
            ingest_us: at + 5,
            headers,
            key: (!rng.random_bool(0.3)).then(|| bytes(rng, 40)),
            value,
            value_raw,
        }
    }

    async fn add(&mut self, count: usize, day: i64) {
        let mut rows: Vec<Row> = (0..count).map(|index| self.row(index % 3, day)).collect();
        rows.sort_by_key(|row| (row.partition, row.offset));
        self.write(rows).await;
    }

    async fn write(&mut self, rows: Vec<Row>) {
        let bytes = table_file(&rows, self.shown.value_format == ValueFormat::Text, 100);
        let id = Uuid::from_u128(self.rng.random());
        let key =
            Key::new(format!("{}/data/{:020}-{id}.parquet", self.shown.name.directory(), self.shown.commit.get()))
                .unwrap();
        self.shown.files.push(ShownFile { key: key.clone(), size_bytes: bytes.len() as u64, rows: rows.len() as u64 });
        self.store.create(&key, bytes).await.unwrap();
        self.rows.insert(key, rows);
    }

    /// Puts the first `count` files into one.
    async fn compact(&mut self, count: usize) {
        let files: Vec<ShownFile> = self.shown.files.drain(..count).collect();
        let mut rows: Vec<Row> = files.iter().flat_map(|file| self.rows[&file.key].clone()).collect();
        rows.sort_by_key(|row| (row.partition, row.offset));
        self.write(rows).await;
    }

    fn drop_first(&mut self, count: usize) {
        self.shown.files.drain(..count);
    }

    async fn publish(&mut self) {
        let publication = self.publisher.publish(&self.shown).await.unwrap();
        let rows: Vec<Value> =
            self.shown.files.iter().flat_map(|file| self.rows[&file.key].iter().map(row_json)).collect();
        self.versions.push(json!({
            "version": self.shown.version.get(),
            "snapshot_id": publication.snapshot_id.to_string(),
            "metadata": format!("{}/{}", self.shown.root, layout::metadata_key(&self.shown.name, self.shown.version)),
            "files": self.shown.files.len(),
            "rows": rows,
        }));
        let next = u64::from(self.shown.version.get()) + self.rng.random_range(1..4);
        self.shown.version = TableVersion::new(next).unwrap();
        self.shown.commit = CommitNumber::new(self.shown.commit.get() + 5);
        self.shown.time_ms += 60_000;
    }

    fn told(self) -> Value {
        json!({
            "namespace": self.shown.name.namespace,
            "table": self.shown.name.table,
            "location": self.shown.location(),
            "text": self.shown.value_format == ValueFormat::Text,
            "versions": self.versions,
        })
    }
}

fn hex(bytes: &Option<Vec<u8>>) -> Value {
    bytes
        .as_ref()
        .map_or(Value::Null, |bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

fn row_json(row: &Row) -> Value {
    let headers = row
        .headers
        .as_ref()
        .map(|headers| headers.iter().map(|(key, value)| json!([key, hex(value)])).collect::<Vec<_>>());
    json!([
        row.partition,
        row.offset,
        row.timestamp_us,
        row.ingest_us,
        headers,
        hex(&row.key),
        hex(&row.value),
        hex(&row.value_raw)
    ])
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::args().nth(1).expect("the URL of a store");
    let store = Store::open(&url, &StoreOptions::default()).unwrap();
    let kinds = [
        ("plain", PartitionBy::Nothing, ValueFormat::Binary),
        ("by_day", PartitionBy::Day, ValueFormat::Binary),
        ("by-hour", PartitionBy::Hour, ValueFormat::Text),
        ("9_text", PartitionBy::Nothing, ValueFormat::Text),
    ];
    let mut told = Vec::new();
    for (name, by, format) in kinds {
        let mut table = Table::new(&store, name, by, format);
        table.publish().await;
        table.add(250, 0).await;
        table.publish().await;
        for day in 0..4 {
            table.add(30, day).await;
            table.add(5, day).await;
        }
        table.publish().await;
        table.compact(3).await;
        table.publish().await;
        table.drop_first(2);
        table.add(1, 5).await;
        table.publish().await;
        // One that lies in many partitions.
        table.compact(4).await;
        table.publish().await;
        told.push(table.told());
    }
    let mut emptied = Table::new(&store, "emptied", PartitionBy::Nothing, ValueFormat::Binary);
    emptied.add(10, 0).await;
    emptied.publish().await;
    emptied.drop_first(1);
    emptied.publish().await;
    emptied.publish().await;
    told.push(emptied.told());
    let mut many = Table::new(&store, "many", PartitionBy::Nothing, ValueFormat::Binary);
    for _ in 0..30 {
        many.add(20, 1).await;
        many.publish().await;
    }
    told.push(many.told());
    println!("{}", Value::Array(told));
}
