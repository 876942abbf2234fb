//! Writing a table file: rows come in order, a row group at a time is encoded and read back, and leaves memory when it is taken.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use bytes::Bytes;
use lakebed_model::{Offset, PartitionIndex, RowsHash};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ConvertedType, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{ColumnPath, SchemaDescriptor, Type};

use super::gaps::Marks;
use super::groups::Groups;
use super::{KIND, ParsedTable, RunV1, TableFileName, TableFooter, TableSettings, ValueFormat, key, schema};
use crate::FORMAT;
use crate::body::NO_TIMESTAMP_MS;
use crate::checksum::DIGITS;
use crate::commit::{self, CREATED_BY, Identity, SEAL_BYTES};
use crate::row_hash::hash_row;
use crate::rows::{RowSource, timestamp_type_number};

/// The name of the schema's root.
const ROOT: &str = "table";
/// A row group has at most so many rows.
const GROUP_ROWS_MAX: usize = 1 << 20;
/// A row group ends when its pages have so many bytes, if nothing else is said.
const GROUP_BYTES: usize = 64 << 20;
/// A page has about so many bytes before compression: what a seek to one row decodes.
const PAGE_BYTES: usize = 256 * 1024;
/// A page of small values has at most so many rows.
const PAGE_ROWS_MAX: usize = 20_000;
/// Rows are handed to the encoder when they have so many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Or when they are so many.
const BATCH_ROWS: usize = 8192;
/// What the statistics keep of a key or a value at most.
const STATISTICS_BYTES: usize = 64;

/// How often a Bloom filter says of a key that is not there that it may be. Ten bits a key: a row group of 2^20 keys has 2 MiB, which is the most; one
/// with fewer has less, for the filter is folded when all its keys are known.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// Why rows can't be written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Rows came out of order.
    #[error("rows of partition {partition} from offset {base_offset} on are not in order")]
    OutOfOrder {
        /// The partition.
        partition: PartitionIndex,
        /// The first offset.
        base_offset: Offset,
    },
    /// A header's key is no UTF-8: the edge refuses those.
    #[error("a header's key is not UTF-8")]
    HeaderKey,
    /// A number that Parquet's signed types can't hold.
    #[error("{what} {number} is out of range")]
    OutOfRange {
        /// What it is.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// The rows don't fit the arrays: more than 2 GiB in one batch.
    #[error("rows can't be arranged: {0}")]
    Arrow(#[from] ArrowError),
    /// The encoder failed.
    #[error("rows can't be encoded: {0}")]
    Parquet(#[from] ParquetError),
    /// What was written does not read back as what was put in.
    #[error("what was written does not read back: {what}")]
    Unfaithful {
        /// What differs.
        what: String,
    },
}

/// The end of a file.
#[derive(Debug)]
pub struct Closed {
    /// What stands behind all that was taken before.
    pub rest: Vec<Bytes>,
    /// Bytes of the whole file.
    pub size_bytes: u64,
    /// Its footer, as readers understand it.
    pub footer: TableFooter,
}

/// Writes one table file into memory, which its row groups leave as they are [taken](Self::take).
#[derive(Debug)]
pub struct TableWriter {
    identity: Identity,
    name: TableFileName,
    pub(super) groups: Groups,
    group_bytes: usize,
    rows: Columns,
    runs: Vec<RunV1>,
    /// Of the run that is being placed.
    marks: Marks,
    /// Where the next row may begin.
    next: (PartitionIndex, Offset),
    settings: TableSettings,
}

impl TableWriter {
    /// A file without rows.
    ///
    /// # Errors
    /// [`TableError::Parquet`], not for any input.
    pub fn new(identity: &Identity, name: TableFileName, settings: TableSettings) -> Result<Self, TableError> {
        let schema = schema(settings.value_format);
        let options = ArrowWriterOptions::new()
            .with_properties(properties(settings)?)
            .with_skip_arrow_metadata(true)
            .with_schema_root(ROOT.to_owned());
        let options = match settings.value_format {
            ValueFormat::Binary | ValueFormat::String => options,
            ValueFormat::Json => options.with_parquet_schema(with_json(&schema)?),
        };
        let groups = Groups::new(&schema, options, settings)?;
        let next = (PartitionIndex::ZERO, Offset::ZERO);
        let rows = Columns::new(schema, settings.value_format);
        let (runs, marks) = (Vec::new(), Marks::default());
        let group_bytes = GROUP_BYTES;
        Ok(Self { identity: *identity, name, groups, group_bytes, rows, runs, marks, next, settings })
    }

    /// The same, of which a row group ends when it has so many bytes (64 MiB): that is about what a writer holds in memory.
    #[must_use]
    pub fn with_group_bytes(self, group_bytes: usize) -> Self {
        Self { group_bytes, ..self }
    }

    /// Appends rows of a partition; the offset of the first is `base_offset`, and there is no gap between them. Partitions ascend, and
    /// the offsets of one partition too. Gives the hash of the rows.
    ///
    /// # Errors
    /// [`TableError`]; the file is then good for nothing.
    ///
    /// # Cost
    /// Copies the rows, encodes them now and then, and decodes a row group when it ends.
    pub fn push<S: RowSource>(
        &mut self,
        partition: PartitionIndex,
        base_offset: Offset,
        source: &S,
        rows: Range<usize>,
    ) -> Result<RowsHash, TableError> {
        let mut hash = RowsHash::EMPTY;
        if rows.is_empty() {
            return Ok(hash);
        }
        if (partition, base_offset) < self.next {
            return Err(TableError::OutOfOrder { partition, base_offset });
        }
        let number = i32::try_from(partition.get());
        let number =
            number.map_err(|_| TableError::OutOfRange { what: "partition", number: u64::from(partition.get()) })?;
        let count = rows.len() as u64;
        let end = base_offset.checked_add(count).filter(|end| i64::try_from(end.get()).is_ok());
        let end = end.ok_or(TableError::OutOfRange { what: "offset", number: base_offset.get() })?;
        for (offset, row) in (base_offset.get() as i64..).zip(rows) {
            self.rows.append(number, offset, source, row)?;
            let row_hash = hash_row(source, row);
            hash = hash.push(row_hash);
            self.groups.expect(row_hash, partition, Offset::new(offset as u64));
            if self.rows.is_full() {
                self.encode()?;
            }
        }
        match self.runs.last_mut() {
            Some(last) if last.ends_at(partition, base_offset) => last.rows += count,
            _ => self.runs.push(RunV1::new(partition.get(), base_offset.get(), count)),
        }
        self.next = (partition, end);
        Ok(hash)
    }

    /// Begins a run of a partition, whose rows are [placed](Self::place) one by one.
    ///
    /// # Errors
    /// [`TableError::OutOfOrder`]; the file is then good for nothing.
    pub fn begin_run(&mut self, partition: PartitionIndex, base_offset: Offset) -> Result<(), TableError> {
        if (partition, base_offset) < self.next {
            return Err(TableError::OutOfOrder { partition, base_offset });
        }
        self.marks = Marks::default();
        self.runs.push(RunV1::new(partition.get(), base_offset.get(), 0));
        self.next = (partition, base_offset);
        Ok(())
    }

    /// Appends a row to the run that was begun last; offsets ascend, with gaps. Gives the hash of the row.
    ///
    /// # Errors
    /// [`TableError`]; the file is then good for nothing.
    pub fn place<S: RowSource>(&mut self, offset: Offset, source: &S, row: usize) -> Result<u64, TableError> {
        let partition = self.next.0;
        if offset < self.next.1 {
            return Err(TableError::OutOfOrder { partition, base_offset: offset });
        }
        let number = i32::try_from(partition.get());
        let number =
            number.map_err(|_| TableError::OutOfRange { what: "partition", number: u64::from(partition.get()) })?;
        let next = offset.checked_add(1).ok_or(TableError::OutOfRange { what: "offset", number: offset.get() })?;
        let bytes = self.rows.bytes;
        self.rows.append(number, offset.get() as i64, source, row)?;
        let bytes = self.rows.bytes - bytes;
        let row_hash = hash_row(source, row);
        self.groups.expect(row_hash, partition, offset);
        if let Some(run) = self.runs.last_mut() {
            self.marks.see(run.rows, offset, bytes);
            run.rows += 1;
        }
        self.next.1 = next;
        if self.rows.is_full() {
            self.encode()?;
        }
        Ok(row_hash)
    }

    /// Ends the run that was begun last: it covers all offsets up to `end`. `cleaned` says up to which offset its keys were compacted for the
    /// first time when; both ascend.
    ///
    /// # Errors
    /// [`TableError::OutOfOrder`] if it has no row, or one at or above `end`; the file is then good for nothing.
    pub fn end_run(&mut self, end: Offset, cleaned: &[(Offset, i64)]) -> Result<(), TableError> {
        let marks = std::mem::take(&mut self.marks);
        let out_of_order = TableError::OutOfOrder { partition: self.next.0, base_offset: end };
        let run = self.runs.last_mut().filter(|run| run.rows > 0 && end >= self.next.1);
        let run = run.ok_or(out_of_order)?;
        let span = end.get() - run.base_offset;
        run.gaps = (span != run.rows).then(|| marks.into_gaps(span));
        run.cleaned = cleaned.iter().map(|(end, time_ms)| (end.get(), *time_ms)).collect();
        self.next.1 = end;
        Ok(())
    }

    fn encode(&mut self) -> Result<(), TableError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let batch = self.rows.finish()?;
        self.groups.write(&batch)?;
        let is_full = self.groups.rows() + BATCH_ROWS > GROUP_ROWS_MAX;
        if is_full || self.groups.group_bytes() >= self.group_bytes { self.groups.end_group() } else { Ok(()) }
    }

    /// Ends the row group in the making, so that it can leave memory.
    ///
    /// # Errors
    /// [`TableError`]; the file is then good for nothing.
    pub fn end_group(&mut self) -> Result<(), TableError> {
        self.encode()?;
        self.groups.end_group()
    }

    /// The bytes of row groups that are finished and were not taken yet, in their order; each was read back.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.groups.take()
    }

    /// About how many bytes the row group in the making has.
    pub fn group_bytes(&self) -> usize {
        self.groups.group_bytes() + self.rows.bytes
    }

    /// How many rows have a value that is not what the topic's values are.
    pub fn misfits(&self) -> u64 {
        self.rows.misfits
    }

    /// About how many bytes the file has so far.
    pub fn size_bytes(&self) -> usize {
        self.groups.size_bytes()
    }

    /// The bytes of the file, but those that were taken.
    ///
    /// # Errors
    /// [`TableError`]
    pub fn finish(self) -> Result<Vec<u8>, TableError> {
        Ok(self.close()?.rest.concat())
    }

    /// Ends the file. What its footer says is read as readers do, and compared with what was put in, and with that by which row groups were
    /// read back.
    ///
    /// # Errors
    /// [`TableError`]
    pub fn close(mut self) -> Result<Closed, TableError> {
        self.end_group()?;
        let (pages_end, blocks) = self.groups.end_pages()?;
        let blocks: Vec<String> = blocks.into_iter().map(|block| format!("{block:08x}")).collect();
        let runs = serde_json::to_string(&self.runs).expect("persisted types have string keys");
        let format = self.settings.value_format;
        let format = (format != ValueFormat::Binary).then(|| (key::VALUE_FORMAT, format.word().to_owned()));
        let pairs = [
            (commit::key::FORMAT, FORMAT.to_string()),
            (commit::key::KIND, KIND.to_owned()),
            (commit::key::CLUSTER, self.identity.cluster_id.hyphenated().to_string()),
            (commit::key::CELL, self.identity.cell.to_string()),
            (key::TOPIC, self.name.topic.as_str().to_owned()),
            (key::TOPIC_ID, self.name.topic_id.uuid().hyphenated().to_string()),
            (key::FILE, self.name.id.to_string()),
            (key::RUNS, runs),
            (key::BLOCKS, blocks.concat()),
            (commit::key::FOOTER, format!("{pages_end:016x}-{:08x}", 0)),
        ];
        let mut behind = self.groups.footer(format.into_iter().chain(pairs))?;
        commit::write_seal(&mut behind, 0);
        let behind = Bytes::from(behind);
        let size_bytes = pages_end + behind.len() as u64;
        let unfaithful = |what: String| TableError::Unfaithful { what };
        let footer = match TableFooter::parse(&behind, size_bytes) {
            Ok(ParsedTable::Whole(footer)) => footer,
            other => return Err(unfaithful(format!("its footer: {other:?}"))),
        };
        let is_same = footer.identity == self.identity
            && footer.name == self.name
            && footer.value_format == self.settings.value_format
            && footer.runs_v1() == self.runs
            && self.groups.are_those_of(footer.parquet());
        if !is_same {
            return Err(unfaithful("its footer says something else".to_owned()));
        }
        let mut rest = self.groups.take();
        rest.push(behind);
        Ok(Closed { rest, size_bytes, footer })
    }
}

/// The schema in Parquet's words, in which `value` is JSON: Arrow has no such type.
fn with_json(schema: &SchemaRef) -> Result<SchemaDescriptor, ParquetError> {
    let plain = ArrowSchemaConverter::new().schema_root(ROOT).convert(schema)?;
    let json = Type::primitive_type_builder("value", Physical::BYTE_ARRAY)
        .with_repetition(Repetition::OPTIONAL)
        .with_converted_type(ConvertedType::JSON)
        .with_logical_type(Some(LogicalType::Json))
        .with_id(Some(8))
        .build()?;
    let json = Arc::new(json);
    let fields = plain.root_schema().get_fields().iter();
    let fields = fields.map(|field| Arc::clone(if field.name() == json.name() { &json } else { field })).collect();
    Ok(SchemaDescriptor::new(Arc::new(Type::group_type_builder(ROOT).with_fields(fields).build()?)))
}

fn properties(settings: TableSettings) -> Result<WriterProperties, ParquetError> {
    let path = |name: &str| ColumnPath::from(name);
    let header = |name: &str| ColumnPath::new(["_kafka_headers", "list", "element", name].map(str::to_owned).to_vec());
    let sorting = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_write_batch_size(256)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES))
        .set_column_index_truncate_length(Some(STATISTICS_BYTES))
        .set_sorting_columns(Some(vec![sorting(0), sorting(1)]))
        .set_dictionary_enabled(false);
    for name in ["_kafka_offset", "_kafka_timestamp", "_kafka_ingest_timestamp"] {
        properties = properties.set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["_kafka_partition", "_kafka_timestamp_type"] {
        properties = properties.set_column_dictionary_enabled(path(name), true);
    }
    properties = properties
        .set_column_dictionary_enabled(header("key"), true)
        .set_column_encoding(header("value"), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    for name in ["key", "value"] {
        properties = properties.set_column_encoding(path(name), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    // The least and the greatest of payloads tell nobody anything, but how many are null does.
    properties = properties.set_column_statistics_enabled(path("value"), EnabledStatistics::Chunk);
    if settings.value_format != ValueFormat::Binary {
        let raw = path("_kafka_value_raw");
        properties = properties
            .set_column_encoding(raw.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
            .set_column_statistics_enabled(raw, EnabledStatistics::Chunk);
    }
    if settings.bloom_filter {
        properties = properties
            .set_column_bloom_filter_fpp(path("key"), BLOOM_FALSE_POSITIVES)
            .set_column_bloom_filter_max_ndv(path("key"), GROUP_ROWS_MAX as u64);
    }
    Ok(properties.build())
}

/// Rows on their way to the encoder.
#[derive(Debug)]
struct Columns {
    schema: SchemaRef,
    partitions: Int32Builder,
    offsets: Int64Builder,
    timestamps: TimestampMicrosecondBuilder,
    timestamp_types: Int32Builder,
    ingest_timestamps: TimestampMicrosecondBuilder,
    headers_end: Vec<i32>,
    headers_nulls: NullBufferBuilder,
    header_keys: StringBuilder,
    header_values: BinaryBuilder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    /// Values that the format does not hold; not written if it holds all.
    raw_values: BinaryBuilder,
    format: ValueFormat,
    /// How many of them there were in all.
    misfits: u64,
    bytes: usize,
}

impl Columns {
    fn new(schema: SchemaRef, format: ValueFormat) -> Self {
        Self {
            schema,
            partitions: Int32Builder::new(),
            offsets: Int64Builder::new(),
            timestamps: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            timestamp_types: Int32Builder::new(),
            ingest_timestamps: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            headers_end: vec![0],
            headers_nulls: NullBufferBuilder::new(0),
            header_keys: StringBuilder::new(),
            header_values: BinaryBuilder::new(),
            keys: BinaryBuilder::new(),
            values: BinaryBuilder::new(),
            raw_values: BinaryBuilder::new(),
            format,
            misfits: 0,
            bytes: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.headers_end.len() == 1
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.headers_end.len() > BATCH_ROWS
    }

    fn append<S: RowSource>(&mut self, partition: i32, offset: i64, source: &S, row: usize) -> Result<(), TableError> {
        self.partitions.append_value(partition);
        self.offsets.append_value(offset);
        let timestamp_ms = source.timestamp_ms(row);
        let timestamp = if timestamp_ms == NO_TIMESTAMP_MS { None } else { Some(micros(timestamp_ms)?) };
        self.timestamps.append_option(timestamp);
        self.timestamp_types.append_value(i32::from(timestamp_type_number(source.timestamp_type(row))));
        self.ingest_timestamps.append_value(micros(source.ingest_time_ms(row))?);
        let (key, value) = (source.key(row), source.value(row));
        self.keys.append_option(key);
        let fits = value.is_none_or(|value| self.format.holds(value));
        self.values.append_option(value.filter(|_| fits));
        self.raw_values.append_option(value.filter(|_| !fits));
        self.misfits += u64::from(!fits);
        self.bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        let headers = source.headers(row);
        self.headers_nulls.append(headers.len() > 0);
        for (key, value) in headers {
            let key = std::str::from_utf8(key).map_err(|_| TableError::HeaderKey)?;
            self.header_keys.append_value(key);
            self.header_values.append_option(value);
            self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        }
        let count = self.header_values_len();
        let end = i32::try_from(count).map_err(|_| TableError::OutOfRange { what: "headers", number: count as u64 })?;
        self.headers_end.push(end);
        Ok(())
    }

    fn header_values_len(&self) -> usize {
        use arrow_array::builder::ArrayBuilder;
        self.header_values.len()
    }

    /// The rows so far, and none from then on.
    fn finish(&mut self) -> Result<RecordBatch, TableError> {
        let DataType::List(element) = self.schema.field(5).data_type() else { unreachable!("headers are a list") };
        let DataType::Struct(fields) = element.data_type() else { unreachable!("a header is a struct") };
        let parts: Vec<ArrayRef> = vec![Arc::new(self.header_keys.finish()), Arc::new(self.header_values.finish())];
        let entries = StructArray::try_new(fields.clone(), parts, None)?;
        let ends = std::mem::replace(&mut self.headers_end, vec![0]);
        let headers = ListArray::try_new(
            Arc::clone(element),
            OffsetBuffer::new(ScalarBuffer::from(ends)),
            Arc::new(entries),
            self.headers_nulls.finish(),
        )?;
        let (values, raw_values) = (self.values.finish(), self.raw_values.finish());
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.partitions.finish()),
            Arc::new(self.offsets.finish()),
            Arc::new(self.timestamps.finish()),
            Arc::new(self.timestamp_types.finish()),
            Arc::new(self.ingest_timestamps.finish()),
            Arc::new(headers),
            Arc::new(self.keys.finish()),
        ];
        match self.format {
            ValueFormat::Binary => columns.push(Arc::new(values)),
            ValueFormat::String | ValueFormat::Json => {
                columns.push(Arc::new(StringArray::try_from_binary(values)?));
                columns.push(Arc::new(raw_values));
            }
        }
        self.bytes = 0;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn micros(time_ms: i64) -> Result<i64, TableError> {
    let micros = time_ms.checked_mul(1000).filter(|micros| *micros >= 0);
    micros.ok_or(TableError::OutOfRange { what: "time in milliseconds", number: time_ms as u64 })
}

// The seal of the footer has the place of its digits from there.
const _: () = assert!(SEAL_BYTES > DIGITS);
