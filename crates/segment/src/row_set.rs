//! Rows that were read back, as places in the bytes that hold them.

use std::ops::Range;

use bytes::Bytes;
use lakebed_model::RowsHash;

use crate::batch::TimestampType;
use crate::row_hash::hash_source;
use crate::rows::RowSource;

/// A place in one of the buffers of a [`RowSet`], or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) buffer: u32,
    pub(crate) start: u32,
    /// -1 for null.
    pub(crate) length: i32,
}

impl Span {
    pub(crate) const NULL: Self = Self { buffer: 0, start: 0, length: -1 };
}

/// Consecutive rows of an object. Keys, values and headers stay in the bytes that were fetched.
#[derive(Debug, Clone, Default)]
pub struct RowSet {
    pub(crate) buffers: Vec<Bytes>,
    pub(crate) timestamps_ms: Vec<i64>,
    pub(crate) timestamp_types: Vec<TimestampType>,
    pub(crate) ingest_times_ms: Vec<i64>,
    pub(crate) keys: Vec<Span>,
    pub(crate) values: Vec<Span>,
    pub(crate) headers_end: Vec<u32>,
    pub(crate) headers: Vec<(Span, Span)>,
}

impl RowSet {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.timestamps_ms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timestamps_ms.is_empty()
    }

    /// The combinable hash of all rows, to compare with what the state says of a run.
    pub fn hash(&self) -> RowsHash {
        hash_source(self, 0..self.len())
    }

    #[inline]
    fn bytes(&self, span: Span) -> Option<&[u8]> {
        let length = usize::try_from(span.length).ok()?;
        let start = span.start as usize;
        Some(&self.buffers[span.buffer as usize][start..start + length])
    }

    fn headers_range(&self, row: usize) -> Range<usize> {
        let start = if row == 0 { 0 } else { self.headers_end[row - 1] };
        start as usize..self.headers_end[row] as usize
    }
}

impl RowSource for RowSet {
    fn row_count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn timestamp_ms(&self, row: usize) -> i64 {
        self.timestamps_ms[row]
    }

    #[inline]
    fn timestamp_type(&self, row: usize) -> TimestampType {
        self.timestamp_types[row]
    }

    #[inline]
    fn ingest_time_ms(&self, row: usize) -> i64 {
        self.ingest_times_ms[row]
    }

    #[inline]
    fn key(&self, row: usize) -> Option<&[u8]> {
        self.bytes(self.keys[row])
    }

    #[inline]
    fn value(&self, row: usize) -> Option<&[u8]> {
        self.bytes(self.values[row])
    }

    #[inline]
    fn headers(&self, row: usize) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> + Clone {
        let headers = self.headers[self.headers_range(row)].iter();
        headers.map(|(key, value)| (self.bytes(*key).unwrap_or_default(), self.bytes(*value)))
    }
}
