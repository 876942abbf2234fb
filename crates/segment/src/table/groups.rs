//! The row groups of a file in the making: encoded one at a time, read back, and handed out.
//!
//! 1. A row group is decoded by the very code that reads files, with the places of its pages, before anybody gets its bytes; every row is
//!    compared with what was put in.
//! 2. What the footer says in the end of row groups and pages is compared with that by which they were read back.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use lakebed_model::{Offset, PartitionIndex, RowsHash};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::metadata::page_index::PageIndexBuilder;
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder, RowGroupMetaData};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::writer::SerializedFileWriter;

use super::read::{Verified, decode};
use super::write::TableError;
use super::{BLOCK_BYTES, TableSettings, schema};
use crate::checksum::crc32c;
use crate::row_hash::{hash_row, place_hash};

/// What is read back is decoded so many bytes at a time.
const READ_BACK_BYTES: u64 = 8 << 20;
/// And so many rows at a time.
const READ_BACK_ROWS: u64 = 65_536;

/// Where the encoder writes to, until it is handed out.
#[derive(Debug, Default)]
struct Sink {
    bytes: Vec<u8>,
}

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The row group in the making.
#[derive(Debug)]
struct Group {
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

/// A row group as it stands in the file, but for its bytes.
#[derive(Debug, Clone)]
struct Written {
    metadata: RowGroupMetaData,
    pages: Vec<OffsetIndexMetaData>,
}

/// Encodes rows as row groups.
#[derive(Debug)]
pub(super) struct Groups {
    file: SerializedFileWriter<Sink>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    settings: TableSettings,
    group: Option<Group>,
    /// Of the rows that were put in since the last row group, those that are not encoded yet too.
    expected: RowsHash,
    written: Vec<Written>,
    /// Whole row groups that nobody has taken yet.
    ready: Vec<Bytes>,
    /// Bytes that have left the encoder.
    drained: u64,
    blocks: Vec<u32>,
    /// The beginning of the next block.
    block: Vec<u8>,
}

/// A row, as it is compared.
fn mark(row_hash: u64, partition: PartitionIndex, offset: Offset) -> u64 {
    place_hash(place_hash(row_hash, offset), Offset::new(u64::from(partition.get())))
}

impl Groups {
    pub(super) fn new(
        schema: &SchemaRef,
        options: ArrowWriterOptions,
        settings: TableSettings,
    ) -> Result<Self, ParquetError> {
        let writer = ArrowWriter::try_new_with_options(Sink::default(), Arc::clone(schema), options)?;
        let (file, factory) = writer.into_serialized_writer()?;
        Ok(Self {
            file,
            factory,
            schema: Arc::clone(schema),
            settings,
            group: None,
            expected: RowsHash::EMPTY,
            written: Vec::new(),
            ready: Vec::new(),
            drained: 0,
            blocks: Vec::new(),
            block: Vec::new(),
        })
    }

    /// Notes a row that is to come back.
    pub(super) fn expect(&mut self, row_hash: u64, partition: PartitionIndex, offset: Offset) {
        self.expected = self.expected.push(mark(row_hash, partition, offset));
    }

    /// Encodes rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let group = match self.group.take() {
            Some(group) => group,
            None => Group { columns: self.factory.create_column_writers(self.written.len())?, rows: 0 },
        };
        let group = self.group.insert(group);
        let mut writers = group.columns.iter_mut();
        for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, column)? {
                writers.next().expect("there is a writer for each leaf").write(&leaf)?;
            }
        }
        group.rows += batch.num_rows();
        Ok(())
    }

    /// Rows of the row group in the making.
    pub(super) fn rows(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.rows)
    }

    /// About how many bytes the row group in the making has.
    pub(super) fn group_bytes(&self) -> usize {
        let columns = self.group.iter().flat_map(|group| &group.columns);
        columns.map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// About how many bytes the file has.
    pub(super) fn size_bytes(&self) -> usize {
        self.file.bytes_written() + self.group_bytes()
    }

    /// Ends the row group in the making, if there is one, and reads it back. All rows that were expected were written.
    pub(super) fn end_group(&mut self) -> Result<(), TableError> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let mut writer = self.file.next_row_group()?;
        let mut pages = Vec::with_capacity(group.columns.len());
        for column in group.columns {
            let chunk = column.close()?;
            pages.extend(chunk.close().offset_index.clone());
            chunk.append_to_row_group(&mut writer)?;
        }
        let metadata = RowGroupMetaData::clone(&*writer.close()?);
        // The pages of a column follow one another, wherever it has come to stand.
        for (pages, column) in pages.iter_mut().zip(metadata.columns()) {
            let mut offset = column.data_page_offset();
            for page in &mut pages.page_locations {
                page.offset = offset;
                offset += i64::from(page.compressed_page_size);
            }
        }
        let written = Written { metadata, pages };
        let (start, bytes) = self.drain()?;
        let expected = std::mem::replace(&mut self.expected, RowsHash::EMPTY);
        self.read_back(&written, start, &bytes, expected)?;
        self.written.push(written);
        Ok(())
    }

    /// What the encoder has written since, which is then ready; and where it begins.
    fn drain(&mut self) -> Result<(u64, Bytes), ParquetError> {
        self.file.flush()?;
        let bytes = Bytes::from(std::mem::take(&mut self.file.inner_mut().bytes));
        let start = self.drained;
        self.drained += bytes.len() as u64;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES as usize - self.block.len()));
            self.block.extend_from_slice(now);
            rest = later;
            if self.block.len() == BLOCK_BYTES as usize {
                self.blocks.push(crc32c(&self.block));
                self.block.clear();
            }
        }
        self.ready.push(bytes.clone());
        Ok((start, bytes))
    }

    fn read_back(&self, written: &Written, start: u64, bytes: &Bytes, expected: RowsHash) -> Result<(), TableError> {
        let unfaithful = |what: String| TableError::Unfaithful { what };
        let metadata = self.parsed(written)?;
        let verified = Verified::of(vec![(start, bytes.clone())], start + bytes.len() as u64);
        let rows = u64::try_from(written.metadata.num_rows()).unwrap_or(0);
        let size = u64::try_from(written.metadata.total_byte_size()).unwrap_or(0);
        let at_once = (READ_BACK_BYTES * rows / size.max(1)).clamp(1, READ_BACK_ROWS);
        let (mut hash, mut from) = (RowsHash::EMPTY, 0);
        while from < rows {
            let to = (from + at_once).min(rows);
            let read = decode(&metadata, from..to, &verified);
            let read = read.map_err(|error| unfaithful(format!("row {from} and those behind it: {error}")))?;
            for (row, (partition, offset)) in read.partitions.iter().zip(&read.offsets).enumerate() {
                hash = hash.push(mark(hash_row(&read.rows, row), *partition, *offset));
            }
            from = to;
        }
        if hash == expected { Ok(()) } else { Err(unfaithful("rows of a row group differ".to_owned())) }
    }

    /// The metadata of a file of one row group, where it stands.
    fn parsed(&self, written: &Written) -> Result<ArrowReaderMetadata, ParquetError> {
        let mut index = PageIndexBuilder::new(1, written.pages.len());
        for (column, pages) in written.pages.iter().enumerate() {
            index.put_offset_index(pages.clone(), 0, column);
        }
        let descriptor = Arc::new(self.file.schema_descr().clone());
        let about = FileMetaData::new(1, written.metadata.num_rows(), None, None, descriptor, None);
        let metadata: ParquetMetaData = ParquetMetaDataBuilder::new(about)
            .set_row_groups(vec![written.metadata.clone()])
            .set_page_index(Some(Arc::new(index.build())))
            .build();
        let options = ArrowReaderOptions::new().with_schema(schema(self.settings.value_format));
        ArrowReaderMetadata::try_new(Arc::new(metadata), options)
    }

    /// Row groups that are finished, once.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.ready)
    }

    /// Where the pages end, and the checksums of their blocks. No row group is in the making, and none follows.
    pub(super) fn end_pages(&mut self) -> Result<(u64, Vec<u32>), ParquetError> {
        // A file without rows has four bytes that nobody has taken yet.
        self.drain()?;
        let mut blocks = std::mem::take(&mut self.blocks);
        if !self.block.is_empty() {
            blocks.push(crc32c(&self.block));
        }
        Ok((self.drained, blocks))
    }

    /// What stands behind the pages.
    pub(super) fn footer(
        &mut self,
        pairs: impl Iterator<Item = (&'static str, String)>,
    ) -> Result<Vec<u8>, ParquetError> {
        for (key, value) in pairs {
            self.file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.file.finish()?;
        Ok(std::mem::take(&mut self.file.inner_mut().bytes))
    }

    /// Whether metadata says of all row groups by what they were read back.
    pub(super) fn are_those_of(&self, metadata: &ParquetMetaData) -> bool {
        let is_same = |written: &Written, index: usize| {
            let (group, pages) = (metadata.row_group(index), metadata.page_index_for_row_group(index));
            let columns = written.metadata.columns().iter().zip(group.columns()).zip(&written.pages).enumerate();
            written.metadata.num_rows() == group.num_rows()
                && written.metadata.num_columns() == group.num_columns()
                && columns.into_iter().all(|(at, ((written, found), locations))| {
                    written.byte_range() == found.byte_range()
                        && written.data_page_offset() == found.data_page_offset()
                        && written.num_values() == found.num_values()
                        && written.compression() == found.compression()
                        && pages.offset_index(at).is_some_and(|pages| pages.page_locations == locations.page_locations)
                })
        };
        metadata.num_row_groups() == self.written.len()
            && self.written.iter().enumerate().all(|(index, written)| is_same(written, index))
    }
}

#[cfg(test)]
mod tests;
