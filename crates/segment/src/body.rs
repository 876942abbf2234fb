//! The body of a commit or a segment: Parquet's magic and the pages of one row group, without a footer, because the footer holds
//! decisions that are made later.
//!
//! The pages are written by our own code (`docs/decisions/0004-own-pages.md` has the reasons): PLAIN, data page v1, no dictionary, no
//! compression, one copy of each key and value from where the request left them. Invariants:
//!
//! 1. Pages tile the body from its 4th byte on, column after column, without a gap.
//! 2. A page holds at most [`PAGE_ROWS_MAX`] rows, and more than [`PAGE_BYTES`] only if it holds a single row.
//! 3. Equal rows give equal bytes.

use std::ops::Range;

use lakebed_model::PartitionKey;

use crate::checksum::crc32c;
use crate::rows::{BodyBatch, Piece, RowSource, StampedRows, timestamp_type_number};
use crate::schema::{COLUMNS, Column};

mod pages;

use pages::{ColumnWriter, Layout};

/// Parquet's magic, first and last in a file.
pub(crate) const MAGIC: &[u8; 4] = b"PAR1";

/// A page has at most so many rows: what a seek to one row reads is bounded by it.
pub const PAGE_ROWS_MAX: usize = 4096;

/// A page of several rows has at most so many bytes of values: about what one answer to a fetch carries.
pub const PAGE_BYTES: usize = 1 << 20;

/// A record's timestamp when it has none; null in Parquet.
pub const NO_TIMESTAMP_MS: i64 = -1;

/// Timestamps stand in microseconds in files.
const TIMESTAMP_MAX_MS: i64 = i64::MAX / 1000;

/// A sealed body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: u64,
    /// In the order of [`COLUMNS`]; all empty if there are no rows.
    pub(crate) columns: Vec<Vec<Page>>,
}

/// One page, as the index of the footer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// Bytes of header and payload.
    pub(crate) bytes: u32,
    /// Bytes of the header.
    pub(crate) header_bytes: u32,
    /// Rows that begin in it (a row never spans pages).
    pub(crate) rows: u32,
    /// Entries of levels: rows, but for headers, of which a row may have several.
    pub(crate) values: u32,
    /// CRC-32C of header and payload.
    pub(crate) crc32c: u32,
}

/// Why rows can't be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Partitions do not ascend.
    #[error("rows of {next} come after rows of {previous}")]
    OutOfOrder {
        /// The partition that comes first.
        previous: PartitionKey,
        /// The partition that should come before it.
        next: PartitionKey,
    },
    /// A partition index that Parquet's 32 signed bits can't hold.
    #[error("partition {partition} is beyond 2^31")]
    PartitionOutOfRange {
        /// The partition.
        partition: PartitionKey,
    },
    /// A timestamp below -1, an ingest time below 0, or one that microseconds can't hold.
    #[error("timestamp {timestamp_ms} ms is out of range")]
    TimestampOutOfRange {
        /// The timestamp.
        timestamp_ms: i64,
    },
    /// The headers or the bytes of a row are more than a page can hold.
    #[error("a row of {bytes} bytes is too large")]
    RowTooLarge {
        /// Its bytes in one column.
        bytes: u64,
    },
    /// More rows than an object can hold.
    #[error("{rows} rows are too many for one object")]
    TooManyRows {
        /// How many.
        rows: u64,
    },
}

impl Body {
    /// The body of a commit without rows.
    pub fn empty() -> Self {
        Self { bytes: MAGIC.to_vec(), rows: 0, columns: vec![Vec::new(); COLUMNS.len()] }
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes its pages have; the footer comes on top.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Seals batches: in ascending order of their partitions, those of one partition in the order in which they arrived.
///
/// `ingest_time_ms` is the wall clock of the broker, in milliseconds since 1970.
///
/// # Errors
/// [`SealError`] if the batches are out of order or hold what the edge should have refused.
///
/// # Cost
/// One allocation of about the size of the object, one copy of each key, value and header.
pub fn seal(batches: &[BodyBatch<'_>], ingest_time_ms: i64) -> Result<Body, SealError> {
    seal_in(batches, ingest_time_ms, Vec::with_capacity)
}

/// Seals batches into the buffer that `buffer` gives for so many bytes; it should be empty, and have room for them.
///
/// # Errors
/// As [`seal`].
pub fn seal_in(
    batches: &[BodyBatch<'_>],
    ingest_time_ms: i64,
    buffer: impl FnOnce(usize) -> Vec<u8>,
) -> Result<Body, SealError> {
    let sources: Vec<StampedRows<'_>> = batches.iter().map(|batch| StampedRows::new(batch, ingest_time_ms)).collect();
    let pieces: Vec<Piece<'_, StampedRows<'_>>> = batches
        .iter()
        .zip(&sources)
        .map(|(batch, source)| Piece { partition: batch.partition, source, rows: 0..source.row_count() })
        .collect();
    seal_pieces_in(&pieces, buffer)
}

/// Seals rows that may come from many places; a merge seals the rows of many objects, each with its own ingest time.
///
/// # Errors
/// As [`seal`].
pub fn seal_pieces<S: RowSource>(pieces: &[Piece<'_, S>]) -> Result<Body, SealError> {
    seal_pieces_in(pieces, Vec::with_capacity)
}

/// As [`seal_pieces`], into a buffer as [`seal_in`].
///
/// # Errors
/// As [`seal`].
pub fn seal_pieces_in<S: RowSource>(
    pieces: &[Piece<'_, S>],
    buffer: impl FnOnce(usize) -> Vec<u8>,
) -> Result<Body, SealError> {
    check_order(pieces)?;
    let layout = Layout::new(pieces);
    if layout.rows() == 0 {
        return Ok(Body::empty());
    }
    if layout.rows() > i32::MAX as u64 {
        return Err(SealError::TooManyRows { rows: layout.rows() });
    }
    check_times(pieces)?;
    let mut bytes = buffer(layout.capacity());
    bytes.clear();
    bytes.extend_from_slice(MAGIC);
    let mut columns = Vec::with_capacity(COLUMNS.len());
    for column in COLUMNS {
        columns.push(write_column(&mut bytes, &layout, column)?);
    }
    Ok(Body { bytes, rows: layout.rows(), columns })
}

fn check_order<S>(pieces: &[Piece<'_, S>]) -> Result<(), SealError> {
    for piece in pieces {
        if i32::try_from(piece.partition.partition.get()).is_err() {
            return Err(SealError::PartitionOutOfRange { partition: piece.partition });
        }
    }
    match pieces.windows(2).find(|pair| pair[0].partition > pair[1].partition) {
        Some(pair) => Err(SealError::OutOfOrder { previous: pair[0].partition, next: pair[1].partition }),
        None => Ok(()),
    }
}

fn check_times<S: RowSource>(pieces: &[Piece<'_, S>]) -> Result<(), SealError> {
    for piece in pieces {
        for row in piece.rows.clone() {
            let (timestamp_ms, ingest_time_ms) = (piece.source.timestamp_ms(row), piece.source.ingest_time_ms(row));
            if !(NO_TIMESTAMP_MS..=TIMESTAMP_MAX_MS).contains(&timestamp_ms) {
                return Err(SealError::TimestampOutOfRange { timestamp_ms });
            }
            if !(0..=TIMESTAMP_MAX_MS).contains(&ingest_time_ms) {
                return Err(SealError::TimestampOutOfRange { timestamp_ms: ingest_time_ms });
            }
        }
    }
    Ok(())
}

fn write_column<S: RowSource>(
    out: &mut Vec<u8>,
    layout: &Layout<'_, S>,
    column: Column,
) -> Result<Vec<Page>, SealError> {
    let mut writer = ColumnWriter::new(out, layout);
    match column {
        Column::Topic => writer.required(|piece, _| *piece.partition.topic.uuid().as_bytes()),
        Column::Partition => writer.required(|piece, _| piece.partition.partition.get().to_le_bytes()),
        Column::TimestampType => writer
            .required(|piece, row| u32::from(timestamp_type_number(piece.source.timestamp_type(row))).to_le_bytes()),
        Column::IngestTimestamp => {
            writer.required(|piece, row| (piece.source.ingest_time_ms(row) * 1000).to_le_bytes())
        }
        Column::Timestamp => writer.timestamps(|source, row| source.timestamp_ms(row))?,
        Column::Key => writer.binaries(|source, row| source.key(row))?,
        Column::Value => writer.binaries(|source, row| source.value(row))?,
        Column::HeaderKey => writer.headers(false)?,
        Column::HeaderValue => writer.headers(true)?,
    }
    Ok(writer.finish())
}

/// Appends a page: its header, then `payload`'s parts; gives its entry for the index.
fn append_page(out: &mut Vec<u8>, rows: Range<u64>, values: usize, payload_bytes: usize) -> (Page, usize) {
    use crate::thrift::write_struct;
    const DATA_PAGE: i32 = 0;
    const PLAIN: i32 = 0;
    const RLE: i32 = 3;
    let start = out.len();
    let size = i32::try_from(payload_bytes).expect("the size of a page is checked before it is written");
    let count = i32::try_from(values).expect("the entries of a page are checked before it is written");
    write_struct(out, |page| {
        page.i32(1, DATA_PAGE);
        page.i32(2, size);
        page.i32(3, size);
        page.structure(5, |data| {
            data.i32(1, count);
            data.i32(2, PLAIN);
            data.i32(3, RLE);
            data.i32(4, RLE);
        });
    });
    let header_bytes = (out.len() - start) as u32;
    let page = Page {
        bytes: header_bytes + payload_bytes as u32,
        header_bytes,
        rows: (rows.end - rows.start) as u32,
        values: values as u32,
        crc32c: 0,
    };
    (page, start)
}

fn close_page(out: &[u8], page: Page, start: usize) -> Page {
    assert_eq!(out.len() - start, page.bytes as usize, "a page has the size that its header says");
    Page { crc32c: crc32c(&out[start..]), ..page }
}

#[cfg(test)]
mod tests;
