//! What a body is made of: rows, wherever their bytes are.

use std::ops::Range;

use lakebed_model::PartitionKey;

use crate::batch::{Rows, TimestampType};

/// Rows by index. Bytes are borrowed from where they are; nothing is copied.
pub trait RowSource {
    /// How many rows there are.
    fn row_count(&self) -> usize;
    /// Milliseconds since 1970; -1 for none.
    fn timestamp_ms(&self, row: usize) -> i64;
    /// Who stamped the row.
    fn timestamp_type(&self, row: usize) -> TimestampType;
    /// Milliseconds since 1970 at which the row's broker sealed its flush.
    fn ingest_time_ms(&self, row: usize) -> i64;
    /// The key; `None` for null.
    fn key(&self, row: usize) -> Option<&[u8]>;
    /// The value; `None` for null.
    fn value(&self, row: usize) -> Option<&[u8]>;
    /// The headers in order, duplicates kept; a header's value is `None` for null.
    fn headers(&self, row: usize) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> + Clone;
}

/// One record batch on its way into a body.
#[derive(Debug, Clone, Copy)]
pub struct BodyBatch<'a> {
    /// Its partition.
    pub partition: PartitionKey,
    /// Its rows.
    pub rows: &'a Rows,
    /// Milliseconds since 1970 that take the place of the records' timestamps, in a topic that stamps them when they are appended.
    pub log_append_time_ms: Option<i64>,
}

/// The rows of a batch with the times that its flush gives them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StampedRows<'a> {
    pub(crate) rows: &'a Rows,
    pub(crate) log_append_time_ms: Option<i64>,
    pub(crate) ingest_time_ms: i64,
}

impl<'a> StampedRows<'a> {
    pub(crate) fn new(batch: &BodyBatch<'a>, ingest_time_ms: i64) -> Self {
        Self { rows: batch.rows, log_append_time_ms: batch.log_append_time_ms, ingest_time_ms }
    }
}

impl RowSource for StampedRows<'_> {
    fn row_count(&self) -> usize {
        self.rows.len()
    }

    #[inline]
    fn timestamp_ms(&self, row: usize) -> i64 {
        self.log_append_time_ms.unwrap_or_else(|| self.rows.timestamps_ms[row])
    }

    #[inline]
    fn timestamp_type(&self, _row: usize) -> TimestampType {
        if self.log_append_time_ms.is_some() { TimestampType::LogAppend } else { TimestampType::Create }
    }

    #[inline]
    fn ingest_time_ms(&self, _row: usize) -> i64 {
        self.ingest_time_ms
    }

    #[inline]
    fn key(&self, row: usize) -> Option<&[u8]> {
        self.rows.key(row)
    }

    #[inline]
    fn value(&self, row: usize) -> Option<&[u8]> {
        self.rows.value(row)
    }

    #[inline]
    fn headers(&self, row: usize) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> + Clone {
        self.rows.headers_of(row)
    }
}

/// Consecutive rows of one source that go into one partition's run.
#[derive(Debug, Clone)]
pub struct Piece<'a, S> {
    /// The partition.
    pub partition: PartitionKey,
    /// Where the rows are.
    pub source: &'a S,
    /// Which of them.
    pub rows: Range<usize>,
}

/// Who stamped a row, as the number that Parquet and the row hash have for it (Kafka's).
pub(crate) fn timestamp_type_number(timestamp_type: TimestampType) -> u8 {
    match timestamp_type {
        TimestampType::Create => 0,
        TimestampType::LogAppend => 1,
    }
}
