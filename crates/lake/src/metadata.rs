//! Table metadata: the JSON that a reader begins with (Iceberg spec, "Table Metadata", format version 2).
//!
//! 1. A function of the version before and of what is shown: the same input gives the same bytes, so a publication that is repeated after
//!    a lost answer writes the same objects.
//! 2. Times only go forward, whatever the clocks of those who commit say.
//! 3. Snapshots expire from the oldest on, and never the current one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::layout;
use crate::schema;
use crate::shown::{PartitionBy, Shown, TableVersion, ValueFormat};

/// How long old versions are kept.
#[derive(Debug, Clone)]
pub struct Expiry {
    /// A snapshot, and a version's metadata, stays in sight so long after it was superseded, in milliseconds. Default one hour: that is
    /// how long files that are no longer shown are kept, so an older snapshot could not be read. Longer: more to list.
    pub age_ms: i64,
    /// Most snapshots in sight. Default 100. More: a larger object to write and to read for each version.
    pub snapshots_max: usize,
    /// Most earlier versions' metadata in sight. Default 100.
    pub metadata_max: usize,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { age_ms: 3_600_000, snapshots_max: 100, metadata_max: 100 }
    }
}

/// The metadata of one version of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TableMetadata {
    pub(crate) format_version: u8,
    pub(crate) table_uuid: Uuid,
    pub(crate) location: String,
    pub(crate) last_sequence_number: i64,
    pub(crate) last_updated_ms: i64,
    pub(crate) last_column_id: i32,
    pub(crate) current_schema_id: i32,
    pub(crate) schemas: Vec<Value>,
    pub(crate) default_spec_id: i32,
    pub(crate) partition_specs: Vec<Value>,
    pub(crate) last_partition_id: i32,
    pub(crate) default_sort_order_id: i32,
    pub(crate) sort_orders: Vec<Value>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) current_snapshot_id: i64,
    pub(crate) refs: BTreeMap<String, Reference>,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) statistics: Vec<Value>,
    pub(crate) partition_statistics: Vec<Value>,
    pub(crate) snapshot_log: Vec<SnapshotLogged>,
    pub(crate) metadata_log: Vec<MetadataLogged>,
}

/// A branch: there is one, `main`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Reference {
    pub(crate) snapshot_id: i64,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// What a version shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Snapshot {
    pub(crate) snapshot_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent_snapshot_id: Option<i64>,
    pub(crate) sequence_number: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) manifest_list: String,
    pub(crate) summary: BTreeMap<String, String>,
    pub(crate) schema_id: i32,
}

/// When a snapshot became the current one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SnapshotLogged {
    pub(crate) timestamp_ms: i64,
    pub(crate) snapshot_id: i64,
}

/// An earlier version's metadata, and when it was the newest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct MetadataLogged {
    pub(crate) timestamp_ms: i64,
    pub(crate) metadata_file: String,
}

/// The id of a version's snapshot: positive, and the same for whoever publishes the version.
pub fn snapshot_id(table_uuid: Uuid, version: TableVersion) -> i64 {
    let digest = Uuid::new_v5(&table_uuid, format!("snapshot {version}").as_bytes());
    let (high, _) = digest.as_u64_pair();
    ((high >> 1) as i64).max(1)
}

/// Snapshots are dated so much earlier than their commits. A reader that looks for the snapshot of the time at which its query began (DuckDB does)
/// would never find the one that its own load of the table makes: this is how long a load may take, and how far clocks may be apart.
pub(crate) const DATED_BACK_MS: i64 = 60_000;

/// The date of a version's snapshot, in milliseconds since 1970: [`DATED_BACK_MS`] before its commit, but after the version before.
pub(crate) fn snapshot_time_ms(shown: &Shown, previous: Option<&TableMetadata>) -> i64 {
    let dated_ms = shown.time_ms.saturating_sub(DATED_BACK_MS);
    previous.map_or(dated_ms, |previous| dated_ms.max(previous.last_updated_ms.saturating_add(1)))
}

impl TableMetadata {
    /// The metadata of the version that is shown, after `previous`.
    pub(crate) fn next(
        shown: &Shown,
        previous: Option<(TableVersion, &Self)>,
        snapshot: Snapshot,
        expiry: &Expiry,
    ) -> Self {
        let now_ms = snapshot.timestamp_ms;
        let (id, sequence) = (snapshot.snapshot_id, snapshot.sequence_number);
        let logged = SnapshotLogged { timestamp_ms: now_ms, snapshot_id: id };
        let before = previous.map(|(_, metadata)| metadata);
        let mut snapshots = before.map_or(Vec::new(), |before| before.snapshots.clone());
        snapshots.push(snapshot);
        expire(&mut snapshots, now_ms, expiry);
        let mut snapshot_log = before.map_or(Vec::new(), |before| before.snapshot_log.clone());
        snapshot_log.push(logged);
        snapshot_log.retain(|logged| snapshots.iter().any(|snapshot| snapshot.snapshot_id == logged.snapshot_id));
        Self {
            format_version: 2,
            table_uuid: shown.table_uuid,
            location: shown.location(),
            last_sequence_number: sequence,
            last_updated_ms: now_ms,
            last_column_id: schema::LAST_COLUMN,
            current_schema_id: shown.value_format.schema_id(),
            schemas: [ValueFormat::Binary, ValueFormat::Text].map(schema::schema).into(),
            default_spec_id: shown.partition_by.spec_id(),
            partition_specs: [PartitionBy::Nothing, PartitionBy::Day, PartitionBy::Hour]
                .map(schema::partition_spec)
                .into(),
            last_partition_id: schema::LAST_PARTITION_FIELD,
            default_sort_order_id: schema::SORT_ORDER,
            sort_orders: vec![schema::sort_order()],
            properties: properties(shown),
            current_snapshot_id: id,
            refs: [("main".to_owned(), Reference { snapshot_id: id, kind: "branch".to_owned() })].into(),
            snapshots,
            statistics: Vec::new(),
            partition_statistics: Vec::new(),
            snapshot_log,
            metadata_log: metadata_log(shown, previous, now_ms, expiry),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has only what JSON has")
    }

    /// The version of the oldest snapshot in sight: its sequence number.
    pub(crate) fn oldest(&self) -> Option<TableVersion> {
        let oldest = self.snapshots.iter().map(|snapshot| snapshot.sequence_number).min()?;
        TableVersion::new(u64::try_from(oldest).ok()?)
    }

    /// The snapshot that the version shows.
    pub(crate) fn current(&self) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.snapshot_id == self.current_snapshot_id)
    }
}

/// Lets go of snapshots that were superseded long ago, from the oldest on.
fn expire(snapshots: &mut Vec<Snapshot>, now_ms: i64, expiry: &Expiry) {
    let superseded_at = |index: usize| snapshots.get(index + 1).map(|next: &Snapshot| next.timestamp_ms);
    let is_old = |index: usize| superseded_at(index).is_some_and(|at| now_ms.saturating_sub(at) > expiry.age_ms);
    let old = (0..snapshots.len()).take_while(|index| is_old(*index)).count();
    let surplus = snapshots.len().saturating_sub(expiry.snapshots_max.max(1));
    snapshots.drain(..old.max(surplus));
}

fn metadata_log(
    shown: &Shown,
    previous: Option<(TableVersion, &TableMetadata)>,
    now_ms: i64,
    expiry: &Expiry,
) -> Vec<MetadataLogged> {
    let Some((version, before)) = previous else { return Vec::new() };
    let mut log = before.metadata_log.clone();
    let superseded_at: Vec<i64> =
        log.iter().skip(1).map(|logged| logged.timestamp_ms).chain([before.last_updated_ms]).collect();
    let old = superseded_at.iter().take_while(|at| now_ms.saturating_sub(**at) > expiry.age_ms).count();
    let file = shown.uri(&layout::metadata_key(&shown.name, version));
    log.push(MetadataLogged { timestamp_ms: before.last_updated_ms, metadata_file: file });
    let surplus = log.len().saturating_sub(expiry.metadata_max);
    log.drain(..old.max(surplus));
    log
}

fn properties(shown: &Shown) -> BTreeMap<String, String> {
    let owned = |key: &str, value: String| (key.to_owned(), value);
    let mut properties = shown.properties.clone();
    properties.extend([
        owned("schema.name-mapping.default", schema::name_mapping().to_string()),
        // Files and metadata are ours to delete: a maintenance job that obeys this leaves them alone.
        owned("gc.enabled", "false".to_owned()),
        owned("write.parquet.compression-codec", "zstd".to_owned()),
        owned("lakebed.topic", shown.topic.clone()),
        owned("lakebed.version", shown.version.to_string()),
    ]);
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_snapshots_are_positive_and_differ_by_table_and_version() {
        let mut seen = std::collections::BTreeSet::new();
        for table in 0..20 {
            for version in 1..=50 {
                let id = snapshot_id(Uuid::from_u128(table), TableVersion::new(version).unwrap());
                assert!(id > 0);
                assert!(seen.insert(id), "table {table} version {version}");
            }
        }
    }

    fn snapshots(times_ms: &[i64]) -> Vec<Snapshot> {
        let snapshot = |(index, time_ms): (usize, &i64)| Snapshot {
            snapshot_id: index as i64,
            parent_snapshot_id: None,
            sequence_number: 1,
            timestamp_ms: *time_ms,
            manifest_list: String::new(),
            summary: BTreeMap::new(),
            schema_id: 0,
        };
        times_ms.iter().enumerate().map(snapshot).collect()
    }

    #[test]
    fn a_snapshot_expires_by_when_it_was_superseded_and_the_current_one_never() {
        let expiry = Expiry { age_ms: 100, snapshots_max: 3, metadata_max: 9 };
        let left = |times_ms: &[i64], now_ms| {
            let mut snapshots = snapshots(times_ms);
            expire(&mut snapshots, now_ms, &expiry);
            snapshots.into_iter().map(|snapshot| snapshot.timestamp_ms).collect::<Vec<_>>()
        };
        assert_eq!(left(&[0, 1000], 1000), [0, 1000], "it was current until now");
        assert_eq!(left(&[0, 900, 1001], 1001), [900, 1001]);
        assert_eq!(left(&[0, 901, 1001], 1001), [0, 901, 1001]);
        assert_eq!(left(&[1, 2, 3, 4], 4), [2, 3, 4]);
        assert_eq!(left(&[1], i64::MAX), [1]);
    }
}
