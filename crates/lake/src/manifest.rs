//! Manifests: which files came, stay or go, with their statistics (Iceberg spec, "Manifests", format version 2).

use std::sync::Arc;

use apache_avro::types::Value;

use crate::avro::{self, AvroError, Row, optional, record};
use crate::file::{Column, DataFile};
use crate::schema;
use crate::shown::{PartitionBy, ValueFormat};

/// What became of a file in the snapshot that a manifest was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Existing,
    Added,
    Deleted,
}

/// A file in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) status: Status,
    /// The snapshot that added the file, or that deleted it.
    pub(crate) snapshot: i64,
    /// The sequence number of the snapshot that added it.
    pub(crate) sequence: i64,
    pub(crate) file: Arc<DataFile>,
}

impl Entry {
    /// Whether the snapshot shows the file.
    pub(crate) fn is_live(&self) -> bool {
        self.status != Status::Deleted
    }
}

/// A manifest's bytes.
///
/// # Errors
/// [`AvroError`] if an entry does not fit the schema: a bug.
pub(crate) fn encode(by: PartitionBy, format: ValueFormat, entries: &[Entry]) -> Result<Vec<u8>, AvroError> {
    let metadata = [
        ("schema", schema::schema(format).to_string()),
        ("schema-id", format.schema_id().to_string()),
        ("partition-spec", schema::partition_fields(by).to_string()),
        ("partition-spec-id", by.spec_id().to_string()),
        ("format-version", "2".to_owned()),
        ("content", "data".to_owned()),
    ];
    avro::write(&avro_schema(by), &metadata, entries.iter().map(entry_value))
}

/// The entries of a manifest's bytes.
///
/// # Errors
/// [`AvroError`] if it is not whole, or not of ours.
pub(crate) fn decode(by: PartitionBy, bytes: &[u8]) -> Result<Vec<Entry>, AvroError> {
    avro::read(bytes)?.iter().map(|value| read_entry(by, value)).collect()
}

/// The Avro schema of an entry. The partition's own fields come with the spec.
fn avro_schema(by: PartitionBy) -> String {
    let partition = by.field().map_or(String::new(), |(name, id, _)| {
        let kind = if by == PartitionBy::Day { r#"{"type":"int","logicalType":"date"}"# } else { r#""int""# };
        format!(r#"{{"name":"{name}","type":["null",{kind}],"default":null,"field-id":{id}}}"#)
    });
    ENTRY_SCHEMA.replace("PARTITION_FIELDS", &partition)
}

const ENTRY_SCHEMA: &str = concat!(
    r#"{"type":"record","name":"manifest_entry","fields":["#,
    r#"{"name":"status","type":"int","field-id":0},"#,
    r#"{"name":"snapshot_id","type":["null","long"],"default":null,"field-id":1},"#,
    r#"{"name":"sequence_number","type":["null","long"],"default":null,"field-id":3},"#,
    r#"{"name":"file_sequence_number","type":["null","long"],"default":null,"field-id":4},"#,
    r#"{"name":"data_file","field-id":2,"type":{"type":"record","name":"r2","fields":["#,
    r#"{"name":"content","type":"int","field-id":134},"#,
    r#"{"name":"file_path","type":"string","field-id":100},"#,
    r#"{"name":"file_format","type":"string","field-id":101},"#,
    r#"{"name":"partition","field-id":102,"type":{"type":"record","name":"r102","fields":[PARTITION_FIELDS]}},"#,
    r#"{"name":"record_count","type":"long","field-id":103},"#,
    r#"{"name":"file_size_in_bytes","type":"long","field-id":104},"#,
    r#"{"name":"column_sizes","field-id":108,"default":null,"type":["null",{"type":"array","logicalType":"map","items":{"type":"record","name":"k117_v118","fields":["#,
    r#"{"name":"key","type":"int","field-id":117},{"name":"value","type":"long","field-id":118}]}}]},"#,
    r#"{"name":"value_counts","field-id":109,"default":null,"type":["null",{"type":"array","logicalType":"map","items":{"type":"record","name":"k119_v120","fields":["#,
    r#"{"name":"key","type":"int","field-id":119},{"name":"value","type":"long","field-id":120}]}}]},"#,
    r#"{"name":"null_value_counts","field-id":110,"default":null,"type":["null",{"type":"array","logicalType":"map","items":{"type":"record","name":"k121_v122","fields":["#,
    r#"{"name":"key","type":"int","field-id":121},{"name":"value","type":"long","field-id":122}]}}]},"#,
    r#"{"name":"lower_bounds","field-id":125,"default":null,"type":["null",{"type":"array","logicalType":"map","items":{"type":"record","name":"k126_v127","fields":["#,
    r#"{"name":"key","type":"int","field-id":126},{"name":"value","type":"bytes","field-id":127}]}}]},"#,
    r#"{"name":"upper_bounds","field-id":128,"default":null,"type":["null",{"type":"array","logicalType":"map","items":{"type":"record","name":"k129_v130","fields":["#,
    r#"{"name":"key","type":"int","field-id":129},{"name":"value","type":"bytes","field-id":130}]}}]},"#,
    r#"{"name":"split_offsets","field-id":132,"default":null,"type":["null",{"type":"array","items":"long","element-id":133}]},"#,
    r#"{"name":"sort_order_id","field-id":140,"default":null,"type":["null","int"]}"#,
    "]}}]}"
);

fn entry_value(entry: &Entry) -> Value {
    let status = match entry.status {
        Status::Existing => 0,
        Status::Added => 1,
        Status::Deleted => 2,
    };
    record([
        ("status", Value::Int(status)),
        ("snapshot_id", optional(Some(Value::Long(entry.snapshot)))),
        ("sequence_number", optional(Some(Value::Long(entry.sequence)))),
        ("file_sequence_number", optional(Some(Value::Long(entry.sequence)))),
        ("data_file", file_value(&entry.file)),
    ])
}

fn file_value(file: &DataFile) -> Value {
    let partition = file.by.field().map(|(name, _, _)| {
        let value = file
            .partition
            .map(|value| if file.by == PartitionBy::Day { Value::Date(value) } else { Value::Int(value) });
        (name.to_owned(), optional(value))
    });
    let long = |number: u64| Value::Long(number.try_into().unwrap_or(i64::MAX));
    let map = |of: &dyn Fn(&Column) -> Option<Value>| {
        let pairs = file
            .columns
            .iter()
            .filter_map(|(id, column)| Some(record([("key", Value::Int(*id)), ("value", of(column)?)])));
        optional(Some(Value::Array(pairs.collect())))
    };
    let splits = file.split_offsets.iter().map(|offset| Value::Long(*offset)).collect();
    record([
        ("content", Value::Int(0)),
        ("file_path", Value::String(file.path.clone())),
        ("file_format", Value::String("PARQUET".to_owned())),
        ("partition", Value::Record(partition.into_iter().collect())),
        ("record_count", long(file.rows)),
        ("file_size_in_bytes", long(file.size_bytes)),
        ("column_sizes", map(&|column| Some(long(column.size_bytes)))),
        ("value_counts", map(&|column| column.values.map(long))),
        ("null_value_counts", map(&|column| column.nulls.map(long))),
        ("lower_bounds", map(&|column| column.lower.clone().map(Value::Bytes))),
        ("upper_bounds", map(&|column| column.upper.clone().map(Value::Bytes))),
        ("split_offsets", optional(Some(Value::Array(splits)))),
        ("sort_order_id", optional(Some(Value::Int(if file.is_sorted { schema::SORT_ORDER } else { 0 })))),
    ])
}

fn read_entry(by: PartitionBy, value: &Value) -> Result<Entry, AvroError> {
    let row = Row::of(value, "manifest_entry")?;
    let status = match row.int("status")? {
        0 => Status::Existing,
        1 => Status::Added,
        2 => Status::Deleted,
        _ => return Err(AvroError::Field("status")),
    };
    Ok(Entry {
        status,
        snapshot: row.long("snapshot_id")?,
        sequence: row.long("sequence_number")?,
        file: Arc::new(read_file(by, &row.row("data_file")?)?),
    })
}

fn read_file(by: PartitionBy, row: &Row<'_>) -> Result<DataFile, AvroError> {
    let mut file = DataFile {
        path: row.text("file_path")?,
        by,
        partition: None,
        rows: row.count("record_count")?,
        size_bytes: row.count("file_size_in_bytes")?,
        columns: std::collections::BTreeMap::new(),
        split_offsets: Vec::new(),
        is_sorted: row.optional_long("sort_order_id") == Some(i64::from(schema::SORT_ORDER)),
    };
    if let Some((name, _, _)) = by.field() {
        let partition = row.row("partition")?.optional_long(name);
        file.partition = partition.map(i32::try_from).transpose().map_err(|_| AvroError::Field("partition"))?;
    }
    for pair in row.array("column_sizes") {
        let pair = Row::of(pair, "column_sizes")?;
        file.columns.entry(pair.int("key")?).or_default().size_bytes = pair.count("value")?;
    }
    for pair in row.array("value_counts") {
        let pair = Row::of(pair, "value_counts")?;
        file.columns.entry(pair.int("key")?).or_default().values = Some(pair.count("value")?);
    }
    for pair in row.array("null_value_counts") {
        let pair = Row::of(pair, "null_value_counts")?;
        file.columns.entry(pair.int("key")?).or_default().nulls = Some(pair.count("value")?);
    }
    for pair in row.array("lower_bounds") {
        let pair = Row::of(pair, "lower_bounds")?;
        file.columns.entry(pair.int("key")?).or_default().lower = Some(pair.bytes("value")?);
    }
    for pair in row.array("upper_bounds") {
        let pair = Row::of(pair, "upper_bounds")?;
        file.columns.entry(pair.int("key")?).or_default().upper = Some(pair.bytes("value")?);
    }
    for offset in row.array("split_offsets") {
        let Value::Long(offset) = offset else { return Err(AvroError::Field("split_offsets")) };
        file.split_offsets.push(*offset);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(by: PartitionBy, partition: Option<i32>) -> DataFile {
        let bounded =
            Column { size_bytes: 10, values: Some(9), nulls: Some(1), lower: Some(vec![1]), upper: Some(vec![2, 3]) };
        let bare = Column { size_bytes: 7, ..Column::default() };
        DataFile {
            path: "s3://b/tables/default/t/data/x.parquet".to_owned(),
            by,
            partition,
            rows: 9,
            size_bytes: 4096,
            columns: [(1, bounded), (22, bare)].into(),
            split_offsets: vec![4, 2000],
            is_sorted: true,
        }
    }

    #[test]
    fn entries_come_back_as_they_were_written() {
        for (by, partition) in [
            (PartitionBy::Nothing, None),
            (PartitionBy::Day, Some(20_000)),
            (PartitionBy::Day, None),
            (PartitionBy::Hour, Some(-5)),
        ] {
            let entry =
                |status, sequence| Entry { status, snapshot: 77, sequence, file: Arc::new(file(by, partition)) };
            let entries = [entry(Status::Added, 3), entry(Status::Existing, 2), entry(Status::Deleted, 1)];
            let bytes = encode(by, ValueFormat::Text, &entries).unwrap();
            assert_eq!(decode(by, &bytes).unwrap(), entries);
            assert_eq!(bytes, encode(by, ValueFormat::Text, &entries).unwrap());
        }
    }
}
