//! Table files: the rows of one topic as Parquet for everybody, sorted by partition and offset. The long-term and only copy.
//!
//! Here the `parquet` crate writes and reads, because these files are compressed and encoded as analysts want them. What is ours is in the
//! footer's key-values (`docs/format.md` lists them). Invariants:
//!
//! 1. The pages are covered by CRC-32Cs, one for each [`BLOCK_BYTES`] of the file (`lakebed.blocks`); what stands behind the pages by that of
//!    `lakebed.footer`. A byte is verified before a decoder sees it.
//! 2. Rows stand in the order of their partitions and offsets; `lakebed.runs` says where each run begins.
//! 3. Equal rows give equal bytes.
//! 4. Every value comes back as it was, whatever the column `value` says that it holds: what is no such thing stands in `_kafka_value_raw`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use lakebed_model::{TableFileId, TopicId, TopicName};
use serde::{Deserialize, Serialize};

mod fits;
mod gaps;
mod groups;
mod read;
mod settings;
mod write;

pub use read::{DescribedRun, ParsedTable, TableFooter, TableRows};
pub use settings::{BLOOM_FILTER, PARTITION_BY, PartitionBy, TableSettings, VALUE_FORMAT, ValueFormat};
pub use write::{Closed, TableError, TableWriter};

/// So many bytes of a file share a checksum: what a seek to one row reads is a multiple of it for each column.
pub const BLOCK_BYTES: u64 = 128 * 1024;

/// Keys of the footer's key-values that segments don't have.
mod key {
    pub(super) const TOPIC: &str = "lakebed.topic";
    pub(super) const TOPIC_ID: &str = "lakebed.topic_id";
    pub(super) const FILE: &str = "lakebed.file";
    pub(super) const RUNS: &str = "lakebed.runs";
    pub(super) const BLOCKS: &str = "lakebed.blocks";
    pub(super) const VALUE_FORMAT: &str = "lakebed.value_format";
}

/// What `lakebed.kind` says of a table file.
const KIND: &str = "table";

/// Which table file of which topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFileName {
    /// Its id.
    pub id: TableFileId,
    /// The topic.
    pub topic_id: TopicId,
    /// The topic's name.
    pub topic: TopicName,
}

/// A run in `lakebed.runs`: its rows begin where those of the run before it end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunV1 {
    partition: u32,
    base_offset: u64,
    rows: u64,
    /// If it covers more offsets than it has rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gaps: Option<GapsV1>,
    /// If its keys were compacted: up to which offset for the first time when, in milliseconds since 1970; both ascend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cleaned: Vec<(u64, i64)>,
}

/// Where to find the rows of a run with gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GapsV1 {
    /// How many offsets it covers.
    span: u64,
    /// The place of a row in the run, and its offset: of the first, and of others here and there. Both ascend.
    marks: Vec<(u64, u64)>,
}

impl RunV1 {
    fn new(partition: u32, base_offset: u64, rows: u64) -> Self {
        Self { partition, base_offset, rows, gaps: None, cleaned: Vec::new() }
    }
}

/// Rows between two marks of a run with gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Which rows of the file.
    pub rows: std::ops::Range<u64>,
    /// The offsets that they cover: all up to the first row of the next stretch, or up to the end of the run. Those of the first stretch begin
    /// with the run's.
    pub offsets: std::ops::Range<lakebed_model::Offset>,
}

/// The columns, as Arrow knows them; each has the id by which Iceberg knows it.
pub fn schema(format: ValueFormat) -> SchemaRef {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let header =
        Fields::from(vec![field("key", DataType::Utf8, false, 22), field("value", DataType::Binary, true, 23)]);
    let headers = DataType::List(Arc::new(field("element", DataType::Struct(header), false, 21)));
    let mut fields = vec![
        field("_kafka_partition", DataType::Int32, false, 1),
        field("_kafka_offset", DataType::Int64, false, 2),
        field("_kafka_timestamp", micros.clone(), true, 3),
        field("_kafka_timestamp_type", DataType::Int32, false, 4),
        field("_kafka_ingest_timestamp", micros, false, 5),
        field("_kafka_headers", headers, true, 6),
        field("key", DataType::Binary, true, 7),
    ];
    match format {
        ValueFormat::Binary => fields.push(field("value", DataType::Binary, true, 8)),
        ValueFormat::String | ValueFormat::Json => {
            fields.push(field("value", DataType::Utf8, true, 8));
            fields.push(field("_kafka_value_raw", DataType::Binary, true, 9));
        }
    }
    Arc::new(Schema::new(fields))
}

fn field(name: &str, data_type: DataType, nullable: bool, id: i32) -> Field {
    let metadata = HashMap::from([(parquet::arrow::PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
    Field::new(name, data_type, nullable).with_metadata(metadata)
}
