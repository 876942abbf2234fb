//! Manifest lists: the manifests of a snapshot, with what a reader needs to skip them (Iceberg spec, "Manifest Lists", format version 2).

use apache_avro::types::Value;

use crate::avro::{self, AvroError, Row, optional, record};
use crate::manifest::{Entry, Status};
use crate::shown::PartitionBy;

/// Files and rows of one status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) files: i32,
    pub(crate) rows: i64,
}

/// What the partitions of a manifest's files are between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partitions {
    pub(crate) has_null: bool,
    pub(crate) bounds: Option<(i32, i32)>,
}

/// A manifest as its list describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestFile {
    /// Its URI.
    pub(crate) path: String,
    pub(crate) size_bytes: i64,
    pub(crate) by: PartitionBy,
    /// That of the snapshot that it was written for.
    pub(crate) sequence: i64,
    /// The lowest of its live files; its own if it has none.
    pub(crate) min_sequence: i64,
    /// The snapshot that it was written for.
    pub(crate) snapshot: i64,
    pub(crate) added: Tally,
    pub(crate) existing: Tally,
    pub(crate) deleted: Tally,
    /// `None` without partitions.
    pub(crate) partitions: Option<Partitions>,
}

impl ManifestFile {
    /// Describes a manifest of `entries`, written for `snapshot`.
    pub(crate) fn of(
        path: String,
        size_bytes: usize,
        by: PartitionBy,
        snapshot: i64,
        sequence: i64,
        entries: &[Entry],
    ) -> Self {
        let tally = |status: Status| {
            let of_status = entries.iter().filter(|entry| entry.status == status);
            of_status.fold(Tally::default(), |sum, entry| Tally {
                files: sum.files + 1,
                rows: sum.rows.saturating_add_unsigned(entry.file.rows),
            })
        };
        let values = || entries.iter().filter_map(|entry| entry.file.partition);
        let partitions = by.field().map(|_| Partitions {
            has_null: entries.iter().any(|entry| entry.file.partition.is_none()),
            bounds: values().min().zip(values().max()),
        });
        Self {
            path,
            size_bytes: size_bytes as i64,
            by,
            sequence,
            min_sequence: entries
                .iter()
                .filter(|entry| entry.is_live())
                .map(|entry| entry.sequence)
                .min()
                .unwrap_or(sequence),
            snapshot,
            added: tally(Status::Added),
            existing: tally(Status::Existing),
            deleted: tally(Status::Deleted),
            partitions,
        }
    }
}

const LIST_SCHEMA: &str = concat!(
    r#"{"type":"record","name":"manifest_file","fields":["#,
    r#"{"name":"manifest_path","type":"string","field-id":500},"#,
    r#"{"name":"manifest_length","type":"long","field-id":501},"#,
    r#"{"name":"partition_spec_id","type":"int","field-id":502},"#,
    r#"{"name":"content","type":"int","field-id":517},"#,
    r#"{"name":"sequence_number","type":"long","field-id":515},"#,
    r#"{"name":"min_sequence_number","type":"long","field-id":516},"#,
    r#"{"name":"added_snapshot_id","type":"long","field-id":503},"#,
    r#"{"name":"added_files_count","type":"int","field-id":504},"#,
    r#"{"name":"existing_files_count","type":"int","field-id":505},"#,
    r#"{"name":"deleted_files_count","type":"int","field-id":506},"#,
    r#"{"name":"added_rows_count","type":"long","field-id":512},"#,
    r#"{"name":"existing_rows_count","type":"long","field-id":513},"#,
    r#"{"name":"deleted_rows_count","type":"long","field-id":514},"#,
    r#"{"name":"partitions","field-id":507,"default":null,"type":["null",{"type":"array","element-id":508,"items":{"type":"record","name":"r508","fields":["#,
    r#"{"name":"contains_null","type":"boolean","field-id":509},"#,
    r#"{"name":"contains_nan","type":["null","boolean"],"default":null,"field-id":518},"#,
    r#"{"name":"lower_bound","type":["null","bytes"],"default":null,"field-id":510},"#,
    r#"{"name":"upper_bound","type":["null","bytes"],"default":null,"field-id":511}"#,
    "]}}]}]}"
);

/// A manifest list's bytes.
///
/// # Errors
/// [`AvroError`] if a manifest does not fit the schema: a bug.
pub(crate) fn encode(
    snapshot: i64,
    parent: Option<i64>,
    sequence: i64,
    manifests: &[ManifestFile],
) -> Result<Vec<u8>, AvroError> {
    let metadata = [
        ("snapshot-id", snapshot.to_string()),
        ("parent-snapshot-id", parent.map_or("null".to_owned(), |parent| parent.to_string())),
        ("sequence-number", sequence.to_string()),
        ("format-version", "2".to_owned()),
    ];
    avro::write(LIST_SCHEMA, &metadata, manifests.iter().map(value))
}

/// The manifests of a list's bytes.
///
/// # Errors
/// [`AvroError`] if it is not whole, or not of ours.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<ManifestFile>, AvroError> {
    avro::read(bytes)?.iter().map(read).collect()
}

fn value(manifest: &ManifestFile) -> Value {
    let partitions = manifest.partitions.map(|partitions| {
        let bound = |value: Option<i32>| optional(value.map(|value| Value::Bytes(value.to_le_bytes().to_vec())));
        let summary = record([
            ("contains_null", Value::Boolean(partitions.has_null)),
            ("contains_nan", optional(Some(Value::Boolean(false)))),
            ("lower_bound", bound(partitions.bounds.map(|(lower, _)| lower))),
            ("upper_bound", bound(partitions.bounds.map(|(_, upper)| upper))),
        ]);
        Value::Array(vec![summary])
    });
    record([
        ("manifest_path", Value::String(manifest.path.clone())),
        ("manifest_length", Value::Long(manifest.size_bytes)),
        ("partition_spec_id", Value::Int(manifest.by.spec_id())),
        ("content", Value::Int(0)),
        ("sequence_number", Value::Long(manifest.sequence)),
        ("min_sequence_number", Value::Long(manifest.min_sequence)),
        ("added_snapshot_id", Value::Long(manifest.snapshot)),
        ("added_files_count", Value::Int(manifest.added.files)),
        ("existing_files_count", Value::Int(manifest.existing.files)),
        ("deleted_files_count", Value::Int(manifest.deleted.files)),
        ("added_rows_count", Value::Long(manifest.added.rows)),
        ("existing_rows_count", Value::Long(manifest.existing.rows)),
        ("deleted_rows_count", Value::Long(manifest.deleted.rows)),
        ("partitions", optional(Some(partitions.unwrap_or(Value::Array(Vec::new()))))),
    ])
}

fn read(value: &Value) -> Result<ManifestFile, AvroError> {
    let row = Row::of(value, "manifest_file")?;
    let by = PartitionBy::of_spec_id(row.int("partition_spec_id")?).ok_or(AvroError::Field("partition_spec_id"))?;
    let partitions = match row.array("partitions") {
        [summary] => {
            let summary = Row::of(summary, "partitions")?;
            let bound =
                |name| summary.bytes(name).ok().and_then(|bytes| Some(i32::from_le_bytes(bytes.try_into().ok()?)));
            let has_null = matches!(summary.get("contains_null"), Some(Value::Boolean(true)));
            Some(Partitions { has_null, bounds: bound("lower_bound").zip(bound("upper_bound")) })
        }
        _ => None,
    };
    Ok(ManifestFile {
        path: row.text("manifest_path")?,
        size_bytes: row.long("manifest_length")?,
        by,
        sequence: row.long("sequence_number")?,
        min_sequence: row.long("min_sequence_number")?,
        snapshot: row.long("added_snapshot_id")?,
        added: Tally { files: row.int("added_files_count")?, rows: row.long("added_rows_count")? },
        existing: Tally { files: row.int("existing_files_count")?, rows: row.long("existing_rows_count")? },
        deleted: Tally { files: row.int("deleted_files_count")?, rows: row.long("deleted_rows_count")? },
        partitions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_as_they_were_written() {
        let manifest = |by, partitions| ManifestFile {
            path: "s3://b/m.avro".to_owned(),
            size_bytes: 12,
            by,
            sequence: 9,
            min_sequence: 2,
            snapshot: i64::MAX,
            added: Tally { files: 1, rows: 2 },
            existing: Tally { files: 3, rows: 4 },
            deleted: Tally { files: 5, rows: 6 },
            partitions,
        };
        let manifests = [
            manifest(PartitionBy::Nothing, None),
            manifest(PartitionBy::Day, Some(Partitions { has_null: true, bounds: Some((-1, 20_000)) })),
            manifest(PartitionBy::Hour, Some(Partitions { has_null: true, bounds: None })),
        ];
        let bytes = encode(5, Some(4), 9, &manifests).unwrap();
        assert_eq!(decode(&bytes).unwrap(), manifests);
        assert_eq!(decode(&encode(5, None, 9, &[]).unwrap()).unwrap(), []);
    }
}
