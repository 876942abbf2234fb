//! The columns of segments, and how Parquet describes them.

use crate::thrift::Fields;

/// A leaf column, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    Topic,
    Partition,
    Timestamp,
    TimestampType,
    IngestTimestamp,
    HeaderKey,
    HeaderValue,
    Key,
    Value,
}

/// Every leaf column, in the order of the file.
pub(crate) const COLUMNS: [Column; 9] = [
    Column::Topic,
    Column::Partition,
    Column::Timestamp,
    Column::TimestampType,
    Column::IngestTimestamp,
    Column::HeaderKey,
    Column::HeaderValue,
    Column::Key,
    Column::Value,
];

/// The columns that make a record; the others say whose it is.
pub(crate) const RECORD_COLUMNS: [Column; 7] = [
    Column::Timestamp,
    Column::TimestampType,
    Column::IngestTimestamp,
    Column::HeaderKey,
    Column::HeaderValue,
    Column::Key,
    Column::Value,
];

const INT32: i32 = 1;
const INT64: i32 = 2;
const BYTE_ARRAY: i32 = 6;
const FIXED_LEN_BYTE_ARRAY: i32 = 7;

const REQUIRED: i32 = 0;
const OPTIONAL: i32 = 1;
const REPEATED: i32 = 2;

const CONVERTED_UTF8: i32 = 0;
const CONVERTED_LIST: i32 = 3;
const CONVERTED_TIMESTAMP_MICROS: i32 = 10;

const LOGICAL_STRING: u8 = 1;
const LOGICAL_LIST: u8 = 3;
const LOGICAL_TIMESTAMP: u8 = 8;
const LOGICAL_UUID: u8 = 14;

impl Column {
    /// Parquet's physical type.
    pub(crate) fn physical_type(self) -> i32 {
        match self {
            Self::Topic => FIXED_LEN_BYTE_ARRAY,
            Self::Partition | Self::TimestampType => INT32,
            Self::Timestamp | Self::IngestTimestamp => INT64,
            Self::HeaderKey | Self::HeaderValue | Self::Key | Self::Value => BYTE_ARRAY,
        }
    }

    /// The path of the column, from the root of the schema.
    pub(crate) fn path(self) -> &'static [&'static str] {
        match self {
            Self::Topic => &["_lakebed_topic"],
            Self::Partition => &["_kafka_partition"],
            Self::Timestamp => &["_kafka_timestamp"],
            Self::TimestampType => &["_kafka_timestamp_type"],
            Self::IngestTimestamp => &["_kafka_ingest_timestamp"],
            Self::HeaderKey => &["_kafka_headers", "list", "element", "key"],
            Self::HeaderValue => &["_kafka_headers", "list", "element", "value"],
            Self::Key => &["key"],
            Self::Value => &["value"],
        }
    }
}

/// One element of Parquet's flattened schema tree.
#[derive(Clone, Copy)]
pub(crate) struct Element {
    name: &'static str,
    physical: Option<i32>,
    repetition: Option<i32>,
    children: Option<i32>,
    converted: Option<i32>,
    logical: Option<u8>,
    id: Option<i32>,
}

const fn leaf(name: &'static str, physical: i32, repetition: i32, id: i32) -> Element {
    Element {
        name,
        physical: Some(physical),
        repetition: Some(repetition),
        children: None,
        converted: None,
        logical: None,
        id: Some(id),
    }
}

const fn group(name: &'static str, repetition: Option<i32>, children: i32, id: Option<i32>) -> Element {
    Element { name, physical: None, repetition, children: Some(children), converted: None, logical: None, id }
}

const fn annotated(element: Element, converted: Option<i32>, logical: u8) -> Element {
    Element { converted, logical: Some(logical), ..element }
}

const fn timestamp(name: &'static str, repetition: i32, id: i32) -> Element {
    annotated(leaf(name, INT64, repetition, id), Some(CONVERTED_TIMESTAMP_MICROS), LOGICAL_TIMESTAMP)
}

/// The schema, depth first, as Parquet stores it.
pub(crate) const SCHEMA: [Element; 13] = [
    group("lakebed", None, 8, None),
    annotated(leaf("_lakebed_topic", FIXED_LEN_BYTE_ARRAY, REQUIRED, 20), None, LOGICAL_UUID),
    leaf("_kafka_partition", INT32, REQUIRED, 1),
    timestamp("_kafka_timestamp", OPTIONAL, 3),
    leaf("_kafka_timestamp_type", INT32, REQUIRED, 4),
    timestamp("_kafka_ingest_timestamp", REQUIRED, 5),
    annotated(group("_kafka_headers", Some(OPTIONAL), 1, Some(6)), Some(CONVERTED_LIST), LOGICAL_LIST),
    group("list", Some(REPEATED), 1, None),
    group("element", Some(REQUIRED), 2, Some(21)),
    annotated(leaf("key", BYTE_ARRAY, REQUIRED, 22), Some(CONVERTED_UTF8), LOGICAL_STRING),
    leaf("value", BYTE_ARRAY, OPTIONAL, 23),
    leaf("key", BYTE_ARRAY, OPTIONAL, 7),
    leaf("value", BYTE_ARRAY, OPTIONAL, 8),
];

impl Element {
    /// Writes Parquet's SchemaElement.
    pub(crate) fn write(self, fields: &mut Fields<'_>) {
        if let Some(physical) = self.physical {
            fields.i32(1, physical);
        }
        if self.physical == Some(FIXED_LEN_BYTE_ARRAY) {
            fields.i32(2, 16);
        }
        if let Some(repetition) = self.repetition {
            fields.i32(3, repetition);
        }
        fields.text(4, self.name);
        if let Some(children) = self.children {
            fields.i32(5, children);
        }
        if let Some(converted) = self.converted {
            fields.i32(6, converted);
        }
        if let Some(id) = self.id {
            fields.i32(9, id);
        }
        if let Some(logical) = self.logical {
            fields.structure(10, |union| union.structure(logical, |inner| write_logical(inner, logical)));
        }
    }
}

fn write_logical(inner: &mut Fields<'_>, logical: u8) {
    if logical == LOGICAL_TIMESTAMP {
        const MICROS: u8 = 2;
        inner.bool(1, true);
        inner.structure(2, |unit| unit.structure(MICROS, |_| ()));
    }
}
