//! Table files as tests need them: the columns of the format with their ids, written with crate `parquet`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// A header of a record.
pub(crate) type Header = (String, Option<Vec<u8>>);

/// A row of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// `None` for Kafka's -1.
    pub(crate) timestamp_us: Option<i64>,
    pub(crate) ingest_us: i64,
    pub(crate) headers: Option<Vec<Header>>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) value_raw: Option<Vec<u8>>,
}

fn with_id(field: Field, id: i32) -> Field {
    field.with_metadata(HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]))
}

fn header_fields() -> Fields {
    Fields::from(vec![
        with_id(Field::new("key", DataType::Utf8, false), 22),
        with_id(Field::new("value", DataType::Binary, true), 23),
    ])
}

fn element() -> Field {
    with_id(Field::new("element", DataType::Struct(header_fields()), false), 21)
}

fn schema(is_text: bool) -> Schema {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let value = if is_text { DataType::Utf8 } else { DataType::Binary };
    Schema::new(vec![
        with_id(Field::new("_kafka_partition", DataType::Int32, false), 1),
        with_id(Field::new("_kafka_offset", DataType::Int64, false), 2),
        with_id(Field::new("_kafka_timestamp", timestamp.clone(), true), 3),
        with_id(Field::new("_kafka_timestamp_type", DataType::Int32, false), 4),
        with_id(Field::new("_kafka_ingest_timestamp", timestamp, false), 5),
        with_id(Field::new("_kafka_headers", DataType::List(Arc::new(element())), true), 6),
        with_id(Field::new("key", DataType::Binary, true), 7),
        with_id(Field::new("value", value, true), 8),
        with_id(Field::new("_kafka_value_raw", DataType::Binary, true), 9),
    ])
}

fn headers(rows: &[Row]) -> ArrayRef {
    let parts: Vec<Box<dyn arrow_array::builder::ArrayBuilder>> =
        vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())];
    let mut list = ListBuilder::new(StructBuilder::new(header_fields(), parts)).with_field(element());
    for row in rows {
        for (key, value) in row.headers.iter().flatten() {
            let header = list.values();
            header.field_builder::<StringBuilder>(0).unwrap().append_value(key);
            header.field_builder::<BinaryBuilder>(1).unwrap().append_option(value.as_deref());
            header.append(true);
        }
        list.append(row.headers.is_some());
    }
    Arc::new(list.finish())
}

/// The bytes of a file with `rows` in their order, `group_rows` in each row group.
pub(crate) fn table_file(rows: &[Row], is_text: bool, group_rows: usize) -> Vec<u8> {
    let times = |times: Vec<Option<i64>>| Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let binary = |of: fn(&Row) -> Option<&[u8]>| Arc::new(rows.iter().map(of).collect::<BinaryArray>()) as ArrayRef;
    let value = match is_text {
        false => binary(|row| row.value.as_deref()),
        true => {
            let text = |row: &Row| row.value.clone().map(|value| String::from_utf8(value).unwrap());
            Arc::new(rows.iter().map(text).collect::<StringArray>())
        }
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.partition).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| row.offset).collect::<Int64Array>()),
        times(rows.iter().map(|row| row.timestamp_us).collect()),
        Arc::new(rows.iter().map(|_| 0).collect::<Int32Array>()),
        times(rows.iter().map(|row| Some(row.ingest_us)).collect()),
        headers(rows),
        binary(|row| row.key.as_deref()),
        value,
        binary(|row| row.value_raw.as_deref()),
    ];
    let schema = Arc::new(schema(is_text));
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let sorted = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: true };
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(vec![sorted(0), sorted(1)]))
        .set_max_row_group_row_count(Some(group_rows))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}
