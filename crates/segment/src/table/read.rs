//! Reading a table file, without I/O: parse a footer from the end of an object, say which bytes rows need, decode them.
//!
//! Invariant: what the decoder is given was verified; what was not handed in, or not verified, is not there for it.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use bytes::Bytes;
use lakebed_model::{Cell, Offset, PartitionIndex, TableFileId, TopicId, TopicName};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;
use uuid::Uuid;

use super::{BLOCK_BYTES, KIND, RunV1, Stretch, TableFileName, ValueFormat, key, schema};
use crate::batch::TimestampType;
use crate::body::NO_TIMESTAMP_MS;
use crate::checksum::{DIGITS, crc32c, parse_digits};
use crate::commit::{self, Identity};
use crate::error::{FormatError, malformed};
use crate::footer::{check_format, metadata_range, open_seal};
use crate::row_set::{RowSet, Span};
use crate::thrift::key_values;

/// Most rows that are decoded at once.
const BATCH_ROWS_MAX: usize = 65_536;

/// What came of parsing the end of an object.
#[derive(Debug, Clone)]
pub enum ParsedTable {
    /// The footer is complete.
    Whole(TableFooter),
    /// So many bytes of the object's end are needed.
    NeedsSuffix(u64),
}

/// The footer of a table file.
#[derive(Debug, Clone)]
pub struct TableFooter {
    /// Whose file it is.
    pub identity: Identity,
    /// Which one.
    pub name: TableFileName,
    /// How many rows it has.
    pub rows: u64,
    /// What its values are.
    pub value_format: ValueFormat,
    runs: Vec<RunV1>,
    blocks: Vec<u32>,
    pages_end: u64,
    object_bytes: u64,
    metadata: ArrowReaderMetadata,
}

/// A run as a footer describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescribedRun {
    /// Its partition.
    pub partition: PartitionIndex,
    /// The first offset that it covers.
    pub base_offset: Offset,
    /// How many rows it has.
    pub rows: u64,
    /// How many offsets it covers: more than it has rows if it has gaps.
    pub span: u64,
    /// Whether its keys were compacted.
    pub is_clean: bool,
}

/// Rows of a table file with their offsets, which ascend within a partition.
#[derive(Debug, Clone, Default)]
pub struct TableRows {
    /// The rows.
    pub rows: RowSet,
    /// The partition of each.
    pub partitions: Vec<PartitionIndex>,
    /// The offset of each.
    pub offsets: Vec<Offset>,
}

/// The key-values, before they are believed.
#[derive(Default)]
struct Words<'a> {
    format: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    cluster: Option<&'a [u8]>,
    cell: Option<&'a [u8]>,
    topic: Option<&'a [u8]>,
    topic_id: Option<&'a [u8]>,
    file: Option<&'a [u8]>,
    runs: Option<&'a [u8]>,
    blocks: Option<&'a [u8]>,
    value_format: Option<&'a [u8]>,
    seal: Option<(&'a [u8], usize)>,
}

impl TableFooter {
    /// Parses the footer at the end of an object of `object_bytes` bytes. `suffix` is any number of its last bytes.
    ///
    /// # Errors
    /// [`FormatError::Newer`] if the object is of a newer format; others if it is not ours or damaged.
    pub fn parse(suffix: &Bytes, object_bytes: u64) -> Result<ParsedTable, FormatError> {
        let metadata = match metadata_range(suffix, object_bytes)? {
            Ok(range) => range,
            Err(needed) => return Ok(ParsedTable::NeedsSuffix(needed)),
        };
        let words = Words::find(&suffix[metadata.clone()])?;
        check_format(words.format)?;
        let pages_end = match open_seal(suffix, object_bytes, metadata.start, words.seal)? {
            Ok(pages_end) => pages_end,
            Err(needed) => return Ok(ParsedTable::NeedsSuffix(needed)),
        };
        words.believe(suffix, object_bytes, pages_end).map(ParsedTable::Whole)
    }

    /// The runs: partition, offset of the first row, how many rows. They lie one after another.
    pub fn runs(&self) -> impl Iterator<Item = (PartitionIndex, Offset, u64)> + '_ {
        self.runs.iter().map(|run| (PartitionIndex::new(run.partition), Offset::new(run.base_offset), run.rows))
    }

    /// The runs with what compaction of keys has left of them, in the same order.
    pub fn described_runs(&self) -> impl Iterator<Item = DescribedRun> + '_ {
        self.runs.iter().map(|run| {
            let (base_offset, span) = (run.base_offset, run.span());
            let is_clean = run.cleaned.last().is_some_and(|(end, _)| *end >= base_offset + span);
            let (partition, base_offset) = (PartitionIndex::new(run.partition), Offset::new(base_offset));
            DescribedRun { partition, base_offset, rows: run.rows, span, is_clean }
        })
    }

    /// About how many bytes its rows take once they are decoded.
    pub fn decoded_bytes(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0)).sum()
    }

    /// The least and the greatest ingest time of its rows, in milliseconds since 1970, by its statistics; `None` if it has none.
    pub fn ingest_times_ms(&self) -> Option<(i64, i64)> {
        const INGEST_COLUMN: usize = 4;
        let groups = self.metadata.metadata().row_groups().iter();
        let times = groups.map(|group| match group.column(INGEST_COLUMN).statistics() {
            Some(Statistics::Int64(times)) => Some((*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        });
        let (least, greatest) = times.reduce(|all, one| {
            let ((least, greatest), (first, last)) = (all?, one?);
            Some((least.min(first), greatest.max(last)))
        })??;
        Some((least.div_euclid(1000), greatest.div_euclid(1000)))
    }

    /// Whether a run covers offsets that no row has, because its keys were compacted.
    pub fn has_gaps(&self) -> bool {
        self.runs.iter().any(|run| run.span() != run.rows)
    }

    /// What the footer takes in memory, about.
    pub fn memory_bytes(&self) -> usize {
        let runs: usize = self.runs.iter().map(RunV1::memory_bytes).sum();
        self.metadata.metadata().memory_size() + self.blocks.len() * 4 + runs
    }

    /// A run as `lakebed.runs` has it, and its first row, if there is one with these rows.
    fn run(&self, partition: PartitionIndex, base_offset: Offset, first_row: u64) -> Option<&RunV1> {
        let mut next = 0;
        let mut found = None;
        for run in &self.runs {
            if next == first_row && (run.partition, run.base_offset) == (partition.get(), base_offset.get()) {
                found = Some(run);
            }
            next += run.rows;
        }
        found
    }

    /// The stretches of a run with gaps, which begins with row `first_row` of the file, from the one that covers `offset` on; none if it
    /// has no such run, or covers other offsets than `span` from its base on.
    pub fn stretches(
        &self,
        partition: PartitionIndex,
        base_offset: Offset,
        span: u64,
        first_row: u64,
        offset: Offset,
    ) -> Vec<Stretch> {
        let run = self.run(partition, base_offset, first_row);
        let run = run.filter(|run| run.span() == span);
        run.map(|run| run.stretches(first_row, offset)).unwrap_or_default()
    }

    /// When the keys of a run, which begins with row `first_row` of the file, were compacted for the first time: up to an offset each, in
    /// milliseconds since 1970; empty if they never were.
    pub fn cleaned(&self, partition: PartitionIndex, base_offset: Offset, first_row: u64) -> Vec<(Offset, i64)> {
        let cleaned = self.run(partition, base_offset, first_row).map(|run| &run.cleaned[..]).unwrap_or_default();
        cleaned.iter().map(|(end, time_ms)| (Offset::new(*end), *time_ms)).collect()
    }

    /// The byte ranges of the object that rows `rows` need, ascending, whole blocks.
    ///
    /// # Errors
    /// [`FormatError::RowsOutOfRange`], or the footer contradicts itself.
    pub fn ranges(&self, rows: Range<u64>) -> Result<Vec<Range<u64>>, FormatError> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(FormatError::RowsOutOfRange { start: rows.start, end: rows.end, rows: self.rows });
        }
        let mut needed = Vec::new();
        let parquet = self.metadata.metadata();
        let mut first = 0;
        for (number, group) in parquet.row_groups().iter().enumerate() {
            let index = parquet.page_index_for_row_group(number);
            let end = first + group.num_rows() as u64;
            let (from, to) = (rows.start.max(first), rows.end.min(end));
            if from < to {
                for (at, column) in group.columns().iter().enumerate() {
                    let pages = index.offset_index(at).ok_or_else(|| malformed("no offset index"))?.page_locations();
                    let (start, length) = column.byte_range();
                    let chunk = start..start.saturating_add(length);
                    let place = |offset: i64| u64::try_from(offset).unwrap_or(u64::MAX).clamp(chunk.start, chunk.end);
                    let dictionary = pages.first().map_or(chunk.start, |page| place(page.offset));
                    needed.push(chunk.start..dictionary);
                    for (at, page) in pages.iter().enumerate() {
                        let next = pages.get(at + 1);
                        let page_end_row = next.map_or(end - first, |next| next.first_row_index as u64);
                        if (page.first_row_index as u64) < to - first && page_end_row > from - first {
                            needed.push(place(page.offset)..next.map_or(chunk.end, |next| place(next.offset)));
                        }
                    }
                }
            }
            first = end;
        }
        Ok(self.whole_blocks(needed))
    }

    fn whole_blocks(&self, mut needed: Vec<Range<u64>>) -> Vec<Range<u64>> {
        needed.retain(|range| !range.is_empty());
        needed.sort_unstable_by_key(|range| range.start);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in needed {
            let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
            let end = range.end.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES).min(self.pages_end);
            match ranges.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// Where the checksums of blocks end, and the footer's begins.
    pub fn pages_end(&self) -> u64 {
        self.pages_end
    }

    /// Verifies whole blocks, whether or not rows are in them.
    ///
    /// # Errors
    /// [`FormatError`] if bytes are missing or damaged.
    pub fn verify_blocks(&self, range: Range<u64>, parts: &[(u64, Bytes)]) -> Result<(), FormatError> {
        self.verify(range, parts).map(drop)
    }

    /// Decodes rows. `parts` are bytes of the object with the position of each part's first byte; they hold [`TableFooter::ranges`].
    ///
    /// # Errors
    /// [`FormatError`] if bytes are missing or damaged.
    ///
    /// # Cost
    /// Decompresses the pages that hold the rows; keys and values are not copied again.
    pub fn read(&self, rows: Range<u64>, parts: &[(u64, Bytes)]) -> Result<TableRows, FormatError> {
        let ranges = self.ranges(rows.clone())?;
        let verified = ranges.into_iter().map(|range| self.verify(range, parts)).collect::<Result<Vec<_>, _>>()?;
        decode(&self.metadata, rows, &Verified::of(verified, self.object_bytes))
    }

    /// What Parquet's metadata says.
    pub(super) fn parquet(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// The runs, with all that is known of them.
    pub(super) fn runs_v1(&self) -> &[RunV1] {
        &self.runs
    }

    /// Finds whole blocks in the parts, and verifies each.
    fn verify(&self, range: Range<u64>, parts: &[(u64, Bytes)]) -> Result<(u64, Bytes), FormatError> {
        let holds = |(start, part): &&(u64, Bytes)| *start <= range.start && range.end - *start <= part.len() as u64;
        let missing = FormatError::Missing { start: range.start, end: range.end };
        let (start, part) = parts.iter().find(holds).ok_or(missing)?;
        let bytes = part.slice((range.start - start) as usize..(range.end - start) as usize);
        let first = range.start / BLOCK_BYTES;
        for (block, index) in bytes.chunks(BLOCK_BYTES as usize).zip(first..) {
            let at = index * BLOCK_BYTES;
            let expected = self.blocks.get(index as usize).copied().ok_or_else(|| malformed("a block too many"))?;
            let found = crc32c(block);
            if found != expected {
                return Err(FormatError::Checksum { what: format!("the block at {at}"), expected, found });
            }
        }
        Ok((range.start, bytes))
    }
}

/// Decodes rows, counted from the first row group of `metadata` on, out of verified bytes.
pub(super) fn decode(
    metadata: &ArrowReaderMetadata,
    rows: Range<u64>,
    verified: &Verified,
) -> Result<TableRows, FormatError> {
    let mut read = TableRows::default();
    let count = usize::try_from(rows.end - rows.start).map_err(|_| malformed("too many rows"))?;
    if count == 0 {
        return Ok(read);
    }
    let (groups, selection) = select(metadata, &rows);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(verified.clone(), metadata.clone())
        .with_batch_size(count.min(BATCH_ROWS_MAX))
        .with_row_groups(groups)
        .with_row_selection(selection)
        .build()
        .map_err(|error| undecodable(&error))?;
    for batch in reader {
        read.extend(&batch.map_err(|error| malformed(format!("rows can't be decoded: {error}")))?)?;
    }
    if read.offsets.len() != count || read.rows.len() != count {
        return Err(malformed(format!("{} rows were decoded, not {count}", read.offsets.len())));
    }
    Ok(read)
}

/// The row groups that hold rows, and which rows of them.
fn select(metadata: &ArrowReaderMetadata, rows: &Range<u64>) -> (Vec<usize>, RowSelection) {
    let (mut groups, mut selectors, mut first) = (Vec::new(), Vec::new(), 0);
    for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
        let end = first + group.num_rows() as u64;
        let (from, to) = (rows.start.max(first), rows.end.min(end));
        if from < to {
            groups.push(index);
            selectors.push(RowSelector::skip((from - first) as usize));
            selectors.push(RowSelector::select((to - from) as usize));
            selectors.push(RowSelector::skip((end - to) as usize));
        }
        first = end;
    }
    (groups, RowSelection::from(selectors))
}

impl<'a> Words<'a> {
    fn find(metadata: &'a [u8]) -> Result<Self, FormatError> {
        let mut words = Self::default();
        key_values(metadata, |key, value, position| {
            match std::str::from_utf8(key).unwrap_or_default() {
                commit::key::FORMAT => words.format = Some(value),
                commit::key::KIND => words.kind = Some(value),
                commit::key::CLUSTER => words.cluster = Some(value),
                commit::key::CELL => words.cell = Some(value),
                commit::key::FOOTER => words.seal = Some((value, position)),
                key::TOPIC => words.topic = Some(value),
                key::TOPIC_ID => words.topic_id = Some(value),
                key::FILE => words.file = Some(value),
                key::RUNS => words.runs = Some(value),
                key::BLOCKS => words.blocks = Some(value),
                key::VALUE_FORMAT => words.value_format = Some(value),
                _ => {}
            }
            Ok(())
        })?;
        Ok(words)
    }

    /// Reads what the checksum covers.
    fn believe(self, suffix: &Bytes, object_bytes: u64, pages_end: u64) -> Result<TableFooter, FormatError> {
        if text(commit::key::KIND, self.kind)? != KIND {
            return Err(malformed("it is no table file"));
        }
        let uuid = |key, value| {
            let parsed = Uuid::try_parse(text(key, value)?);
            parsed.map_err(|error| malformed(format!("{key}: {error}")))
        };
        let cell = text(commit::key::CELL, self.cell)?.parse();
        let identity = Identity {
            cluster_id: uuid(commit::key::CLUSTER, self.cluster)?,
            cell: Cell::new(cell.map_err(|_| malformed("lakebed.cell is no number"))?),
        };
        let id: Result<TableFileId, _> = text(key::FILE, self.file)?.parse();
        let name = TableFileName {
            id: id.map_err(|error| malformed(error.to_string()))?,
            topic_id: TopicId::new(uuid(key::TOPIC_ID, self.topic_id)?),
            topic: TopicName::new(text(key::TOPIC, self.topic)?).map_err(|error| malformed(error.to_string()))?,
        };
        let runs: Vec<RunV1> = serde_json::from_str(text(key::RUNS, self.runs)?)
            .map_err(|error| malformed(format!("lakebed.runs: {error}")))?;
        let (digits, rest) = self.blocks.ok_or_else(|| malformed("no lakebed.blocks"))?.as_chunks::<DIGITS>();
        let blocks = digits.iter().map(|digits| parse_digits(digits)).collect::<Result<Vec<_>, _>>()?;
        if !rest.is_empty() || blocks.len() as u64 != pages_end.div_ceil(BLOCK_BYTES) {
            return Err(malformed("lakebed.blocks has another number of blocks than the file"));
        }
        let value_format = match self.value_format {
            None => ValueFormat::Binary,
            word => {
                let word = text(key::VALUE_FORMAT, word)?;
                ValueFormat::of_word(word).ok_or_else(|| malformed(format!("values of the unknown format {word:?}")))?
            }
        };
        let end = Verified::of(vec![(object_bytes - suffix.len() as u64, suffix.clone())], object_bytes);
        let metadata = ParquetMetaDataReader::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&end)
            .map_err(|error| undecodable(&error))?;
        let rows = u64::try_from(metadata.file_metadata().num_rows()).map_err(|_| malformed("fewer rows than none"))?;
        let options = ArrowReaderOptions::new().with_schema(schema(value_format));
        let metadata =
            ArrowReaderMetadata::try_new(Arc::new(metadata), options).map_err(|error| undecodable(&error))?;
        if let Some(run) = runs.iter().find(|run| !run.is_sound()) {
            return Err(malformed(format!("lakebed.runs: {run:?} contradicts itself")));
        }
        let counted = runs.iter().try_fold(0_u64, |sum, run| sum.checked_add(run.rows));
        if counted != Some(rows) {
            return Err(malformed(format!("runs of {counted:?} rows in a file of {rows}")));
        }
        Ok(TableFooter { identity, name, rows, value_format, runs, blocks, pages_end, object_bytes, metadata })
    }
}

fn text<'a>(key: &str, value: Option<&'a [u8]>) -> Result<&'a str, FormatError> {
    let value = value.ok_or_else(|| malformed(format!("no {key}")))?;
    std::str::from_utf8(value).map_err(|_| malformed(format!("{key} is not UTF-8")))
}

fn undecodable(error: &ParquetError) -> FormatError {
    malformed(format!("its Parquet can't be read: {error}"))
}

/// Verified bytes of an object, for the decoder.
#[derive(Clone)]
pub(super) struct Verified {
    parts: Arc<Vec<(u64, Bytes)>>,
    object_bytes: u64,
}

impl Verified {
    /// Parts of an object of so many bytes, each with where it begins.
    pub(super) fn of(parts: Vec<(u64, Bytes)>, object_bytes: u64) -> Self {
        Self { parts: Arc::new(parts), object_bytes }
    }

    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let holds = |(at, part): &&(u64, Bytes)| *at <= start && start - *at <= part.len() as u64;
        let found = self.parts.iter().rev().find(holds).map(|(at, part)| part.slice((start - at) as usize..));
        found.ok_or_else(|| ParquetError::General(format!("byte {start} was not asked for")))
    }
}

impl Length for Verified {
    fn len(&self) -> u64 {
        self.object_bytes
    }
}

impl ChunkReader for Verified {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        self.from(start).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let rest = self.from(start)?;
        if length > rest.len() {
            return Err(ParquetError::General(format!("{length} bytes at {start} were not asked for")));
        }
        Ok(rest.slice(..length))
    }
}

impl TableRows {
    fn extend(&mut self, batch: &RecordBatch) -> Result<(), FormatError> {
        let [partitions, offsets, timestamps, types, ingest, headers, keys, values, raw @ ..] = batch.columns() else {
            return Err(malformed("a table file has other columns"));
        };
        for partition in partitions.as_primitive::<Int32Type>().values() {
            let partition = u32::try_from(*partition).map_err(|_| malformed(format!("partition {partition}")))?;
            self.partitions.push(PartitionIndex::new(partition));
        }
        for offset in offsets.as_primitive::<Int64Type>().values() {
            let offset = u64::try_from(*offset).map_err(|_| malformed(format!("offset {offset}")))?;
            self.offsets.push(Offset::new(offset));
        }
        let rows = &mut self.rows;
        for timestamp in timestamps.as_primitive::<TimestampMicrosecondType>() {
            rows.timestamps_ms.push(timestamp.map_or(Ok(NO_TIMESTAMP_MS), millis)?);
        }
        for number in types.as_primitive::<Int32Type>().values() {
            rows.timestamp_types.push(match number {
                0 => TimestampType::Create,
                1 => TimestampType::LogAppend,
                other => return Err(malformed(format!("timestamp type {other}"))),
            });
        }
        for time in ingest.as_primitive::<TimestampMicrosecondType>().values() {
            rows.ingest_times_ms.push(millis(*time)?);
        }
        let keys = spans(&mut rows.buffers, keys.as_binary::<i32>())?;
        rows.keys.extend(keys);
        match raw {
            [] => {
                let values = spans(&mut rows.buffers, values.as_binary::<i32>())?;
                rows.values.extend(values);
            }
            [raw, ..] => {
                let values = spans(&mut rows.buffers, &bytes_of(values.as_string::<i32>()))?;
                let raw = spans(&mut rows.buffers, raw.as_binary::<i32>())?;
                for pair in values.into_iter().zip(raw) {
                    rows.values.push(match pair {
                        (value, Span::NULL) => value,
                        (Span::NULL, raw) => raw,
                        _ => return Err(malformed("a row has a value twice")),
                    });
                }
            }
        }
        extend_headers(rows, headers)
    }
}

fn millis(micros: i64) -> Result<i64, FormatError> {
    if micros >= 0 && micros % 1000 == 0 {
        Ok(micros / 1000)
    } else {
        Err(malformed(format!("{micros} µs is no timestamp in whole milliseconds")))
    }
}

/// Takes the bytes of an array over; they are not copied.
fn spans(buffers: &mut Vec<Bytes>, array: &BinaryArray) -> Result<Vec<Span>, FormatError> {
    let buffer = u32::try_from(buffers.len()).map_err(|_| malformed("too many buffers"))?;
    buffers.push(Bytes::from_owner(array.values().clone()));
    let spans = array.offsets().windows(2).enumerate().map(|(row, ends)| {
        if array.is_null(row) {
            Span::NULL
        } else {
            // Offsets of an array ascend from 0 on.
            Span { buffer, start: ends[0] as u32, length: ends[1] - ends[0] }
        }
    });
    Ok(spans.collect())
}

/// The same texts as bytes; they are not copied.
fn bytes_of(texts: &StringArray) -> BinaryArray {
    BinaryArray::new(texts.offsets().clone(), texts.values().clone(), texts.nulls().cloned())
}

fn extend_headers(rows: &mut RowSet, headers: &ArrayRef) -> Result<(), FormatError> {
    let headers = headers.as_list::<i32>();
    let entries = headers.values().as_struct();
    let keys = spans(&mut rows.buffers, &bytes_of(entries.column(0).as_string::<i32>()))?;
    let values = spans(&mut rows.buffers, entries.column(1).as_binary::<i32>())?;
    for (row, ends) in headers.offsets().windows(2).enumerate() {
        if headers.is_valid(row) {
            let range = ends[0] as usize..ends[1] as usize;
            rows.headers.extend(range.map(|entry| (keys[entry], values[entry])));
        }
        let end = u32::try_from(rows.headers.len()).map_err(|_| malformed("too many headers"))?;
        rows.headers_end.push(end);
    }
    Ok(())
}
