//! Records as Arrow IPC streams, in the columns of the tables: for readers that work on columns.
//!
//! A stream is whole by itself: schema, one record batch, end. Columns, with the ids of the tables' columns as `PARQUET:field_id`:
//!
//! | column | type | null |
//! |---|---|---|
//! | `_kafka_partition` | int32 | never |
//! | `_kafka_offset` | int64 | never |
//! | `_kafka_timestamp` | timestamp in microseconds, UTC | the record has none |
//! | `_kafka_timestamp_type` | int32: 0 the producer's time, 1 the log's | never |
//! | `_kafka_headers` | list of (`key`: string, `value`: binary) in order, duplicates kept | the record has none |
//! | `key`, `value` | binary | as produced: null is not empty |

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, Int32Array, ListArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow_buffer::{Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, TimeUnit};
use bytes::Bytes;
use lakebed_model::{Offset, PartitionIndex};

use crate::batch::{NO_TIMESTAMP, Rows, TimestampType};

/// At least what a stream takes beside its rows: schema, metadata and padding of buffers.
pub const STREAM_BYTES: usize = 4096;
/// At least what a row takes beside its key, value and headers: partition, offset, timestamp and type, three ends, and bits.
pub const ROW_BYTES: usize = 4 + 8 + 8 + 4 + 3 * 4 + 1;
/// At least what a header takes beside its key and value: two ends, and bits.
pub const HEADER_BYTES: usize = 2 * 4 + 1;

/// Buffers begin at multiples of this: enough for any type here.
const ALIGNMENT: usize = 8;

/// Which columns a reader wants; partition and offset always come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Projection {
    /// `key`.
    pub key: bool,
    /// `value`.
    pub value: bool,
    /// `_kafka_headers`.
    pub headers: bool,
    /// `_kafka_timestamp` and `_kafka_timestamp_type`.
    pub timestamp: bool,
}

/// Builds one stream of records of one partition. Columns that are not wanted cost nothing.
#[derive(Debug)]
pub struct IpcBuilder {
    partition: PartitionIndex,
    projection: Projection,
    offsets: Int64Builder,
    timestamps: TimestampMicrosecondBuilder,
    timestamp_types: Int32Builder,
    headers_end: Vec<i32>,
    headers_nulls: NullBufferBuilder,
    header_keys: StringBuilder,
    header_values: BinaryBuilder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    size_bytes: usize,
}

impl IpcBuilder {
    /// An empty stream.
    pub fn new(partition: PartitionIndex, projection: Projection) -> Self {
        Self {
            partition,
            projection,
            offsets: Int64Builder::new(),
            timestamps: TimestampMicrosecondBuilder::new(),
            timestamp_types: Int32Builder::new(),
            headers_end: vec![0],
            headers_nulls: NullBufferBuilder::new(0),
            header_keys: StringBuilder::new(),
            header_values: BinaryBuilder::new(),
            keys: BinaryBuilder::new(),
            values: BinaryBuilder::new(),
            size_bytes: STREAM_BYTES,
        }
    }

    /// At least as many bytes as the stream has so far.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// How many records there are.
    pub fn rows(&self) -> usize {
        self.headers_end.len() - 1
    }

    /// Adds record `row` of a batch, which stands at `offset`.
    ///
    /// # Panics
    /// If keys, values or headers are more than 2 GiB: the caller stops long before.
    pub fn push(&mut self, offset: Offset, rows: &Rows, row: usize, timestamp_type: TimestampType) {
        let Projection { key, value, headers, timestamp } = self.projection;
        let length = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
        self.size_bytes += ROW_BYTES;
        self.offsets.append_value(offset.get() as i64);
        if timestamp {
            let timestamp_ms = Some(rows.timestamps_ms[row]).filter(|timestamp_ms| *timestamp_ms != NO_TIMESTAMP);
            // Timestamps up to `TIMESTAMP_MAX_MS` fit; others are refused at the edge.
            self.timestamps.append_option(timestamp_ms.map(|timestamp_ms| timestamp_ms.saturating_mul(1000)));
            self.timestamp_types.append_value(i32::from(timestamp_type == TimestampType::LogAppend));
        }
        let headers_before = self.header_keys.len();
        if headers {
            for (name, value) in rows.headers_of(row) {
                self.header_keys.append_value(String::from_utf8_lossy(name));
                self.header_values.append_option(value);
                self.size_bytes += HEADER_BYTES + name.len() + length(value);
            }
            self.headers_nulls.append(self.header_keys.len() > headers_before);
        }
        self.headers_end.push(i32::try_from(self.header_keys.len()).expect("a message has fewer headers"));
        if key {
            self.keys.append_option(rows.key(row));
            self.size_bytes += length(rows.key(row));
        }
        if value {
            self.values.append_option(rows.value(row));
            self.size_bytes += length(rows.value(row));
        }
    }

    /// The stream, in pieces that follow each other.
    ///
    /// # Cost
    /// The columns are not copied again.
    pub fn finish(mut self) -> Vec<Bytes> {
        let rows = self.rows();
        let batch = self.record_batch(rows).expect("the columns are those of the schema, of one length");
        let pieces = encode(&batch).expect("a record batch without dictionaries can be written to memory");
        pieces.into_iter().filter(|piece| !piece.is_empty()).map(Bytes::from_owner).collect()
    }

    fn record_batch(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let Projection { key, value, headers, timestamp } = self.projection;
        let partition = i32::try_from(self.partition.get()).expect("topics have at most 100,000 partitions");
        let mut fields = vec![
            field("_kafka_partition", DataType::Int32, false, 1),
            field("_kafka_offset", DataType::Int64, false, 2),
        ];
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from_value(partition, rows)), Arc::new(self.offsets.finish())];
        if timestamp {
            let times = self.timestamps.finish().with_timezone("UTC");
            fields.push(field(
                "_kafka_timestamp",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                true,
                3,
            ));
            columns.push(Arc::new(times));
            fields.push(field("_kafka_timestamp_type", DataType::Int32, false, 4));
            columns.push(Arc::new(self.timestamp_types.finish()));
        }
        if headers {
            let list = self.headers()?;
            fields.push(field("_kafka_headers", arrow_array::Array::data_type(&list).clone(), true, 6));
            columns.push(Arc::new(list));
        }
        if key {
            fields.push(field("key", DataType::Binary, true, 7));
            columns.push(Arc::new(self.keys.finish()));
        }
        if value {
            fields.push(field("value", DataType::Binary, true, 8));
            columns.push(Arc::new(self.values.finish()));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
    }

    fn headers(&mut self) -> Result<ListArray, ArrowError> {
        let fields =
            Fields::from(vec![field("key", DataType::Utf8, false, 22), field("value", DataType::Binary, true, 23)]);
        let columns: Vec<ArrayRef> = vec![Arc::new(self.header_keys.finish()), Arc::new(self.header_values.finish())];
        let headers = StructArray::try_new(fields.clone(), columns, None)?;
        let element = field("element", DataType::Struct(fields), false, 21);
        let ends = OffsetBuffer::new(ScalarBuffer::from(std::mem::take(&mut self.headers_end)));
        ListArray::try_new(Arc::new(element), ends, Arc::new(headers), self.headers_nulls.finish())
    }
}

fn field(name: &str, data_type: DataType, nullable: bool, id: i32) -> Field {
    let metadata = HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]);
    Field::new(name, data_type, nullable).with_metadata(metadata)
}

fn encode(batch: &RecordBatch) -> Result<Vec<Buffer>, ArrowError> {
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut encoder = StreamEncoder::try_new_with_options(&batch.schema(), options)?;
    let mut pieces = encoder.encode(batch)?;
    pieces.extend(encoder.finish()?);
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
    use arrow_ipc::reader::StreamReader;

    use super::*;
    use crate::batch::{Codec, Encoder, Limits, Record, decode_stored};

    const ALL: Projection = Projection { key: true, value: true, headers: true, timestamp: true };

    type Headers<'a> = &'a [(&'a [u8], Option<&'a [u8]>)];
    type Row<'a> = (i64, Option<&'a [u8]>, Option<&'a [u8]>, Headers<'a>);

    /// Everything that a record may lack, and what it may have twice.
    const ROWS: [Row<'_>; 4] = [
        (1_700_000_000_123, Some(b"key"), Some(b"value"), &[(b"b", Some(b"1")), (b"a", None), (b"b", Some(b""))]),
        (NO_TIMESTAMP, None, None, &[]),
        (0, Some(b""), Some(b""), &[]),
        (5, Some(&[0xff, 0]), None, &[(b"", Some(&[0xfe]))]),
    ];

    fn rows() -> Rows {
        let fields = crate::batch::Fields {
            codec: Codec::None,
            timestamp_type: TimestampType::Create,
            producer: None,
            is_transactional: false,
        };
        let mut encoder = Encoder::new(fields, 0);
        for (offset, (timestamp_ms, key, value, headers)) in (0..).zip(ROWS) {
            encoder.push(Record { offset, timestamp_ms, key, value }, headers.iter().copied()).unwrap();
        }
        decode_stored(encoder.finish().unwrap(), &Limits { max_decompressed_bytes: 1 << 20 }).unwrap().rows
    }

    fn read(pieces: &[Bytes]) -> RecordBatch {
        let stream = pieces.concat();
        let mut reader = StreamReader::try_new(&stream[..], None).unwrap();
        let batch = reader.next().unwrap().unwrap();
        assert!(reader.next().is_none());
        batch
    }

    #[test]
    fn what_is_read_is_what_was_written_null_and_empty_order_and_duplicates_too() {
        let rows = rows();
        let mut builder = IpcBuilder::new(PartitionIndex::new(7), ALL);
        for row in 0..rows.len() {
            builder.push(Offset::new(100 + row as u64), &rows, row, TimestampType::Create);
        }
        let size_bytes = builder.size_bytes();
        let pieces = builder.finish();
        assert!(pieces.iter().map(Bytes::len).sum::<usize>() <= size_bytes, "the size that was stated is enough");
        let batch = read(&pieces);
        let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let expected = [
            "_kafka_partition",
            "_kafka_offset",
            "_kafka_timestamp",
            "_kafka_timestamp_type",
            "_kafka_headers",
            "key",
            "value",
        ];
        assert_eq!(names, expected);
        let headers = batch.column(4).as_list::<i32>();
        for (row, (timestamp_ms, key, value, expected)) in ROWS.iter().enumerate() {
            assert_eq!(batch.column(0).as_primitive::<Int32Type>().value(row), 7);
            assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(row), 100 + row as i64);
            let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
            let time = times.is_valid(row).then(|| times.value(row));
            assert_eq!(time, (*timestamp_ms != NO_TIMESTAMP).then(|| timestamp_ms * 1000));
            assert_eq!(batch.column(3).as_primitive::<Int32Type>().value(row), 0);
            let binary = |column: usize| {
                let column = batch.column(column).as_binary::<i32>();
                column.is_valid(row).then(|| column.value(row).to_vec())
            };
            assert_eq!((binary(5).as_deref(), binary(6).as_deref()), (*key, *value));
            assert_eq!(headers.is_valid(row), !expected.is_empty());
            let of_row = headers.value(row);
            let (keys, values) = (of_row.as_struct().column(0), of_row.as_struct().column(1));
            let (keys, values) = (keys.as_string::<i32>(), values.as_binary::<i32>());
            let read: Vec<(&[u8], Option<&[u8]>)> = (0..keys.len())
                .map(|at| (keys.value(at).as_bytes(), values.is_valid(at).then(|| values.value(at))))
                .collect();
            assert_eq!(read, *expected);
        }
    }

    #[test]
    fn columns_that_are_not_wanted_are_not_there_and_no_rows_are_a_stream_too() {
        let rows = rows();
        let none = Projection { key: false, value: false, headers: false, timestamp: false };
        for (projection, expected) in [
            (none, &["_kafka_partition", "_kafka_offset"][..]),
            (Projection { value: true, ..none }, &["_kafka_partition", "_kafka_offset", "value"]),
            (
                Projection { headers: true, key: true, ..none },
                &["_kafka_partition", "_kafka_offset", "_kafka_headers", "key"],
            ),
        ] {
            let mut builder = IpcBuilder::new(PartitionIndex::ZERO, projection);
            builder.push(Offset::ZERO, &rows, 0, TimestampType::LogAppend);
            let batch = read(&builder.finish());
            let schema = batch.schema();
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!((names.as_slice(), batch.num_rows()), (expected, 1));
            assert_eq!(read(&IpcBuilder::new(PartitionIndex::ZERO, projection).finish()).num_rows(), 0);
        }
    }
}
