//! Rows that were read back, as places in the bytes that hold them.

use std::ops::Range;

use bytes::Bytes;
use lakebed_model::{Offset, RowsHash};

use crate::batch::{Codec, EncodeError, Encoder, Fields, HEADER_BYTES, Record, TimestampType};
use crate::row_hash::{hash_placed, hash_source};
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
    /// No rows, with room for `count`.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self {
            buffers: Vec::new(),
            timestamps_ms: Vec::with_capacity(count),
            timestamp_types: Vec::with_capacity(count),
            ingest_times_ms: Vec::with_capacity(count),
            keys: Vec::with_capacity(count),
            values: Vec::with_capacity(count),
            headers_end: Vec::with_capacity(count),
            headers: Vec::new(),
        }
    }

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

    /// The same of rows of a run with gaps, given their offsets.
    pub fn hash_placed(&self, offsets: &[Offset]) -> RowsHash {
        hash_placed(self, 0..self.len(), offsets)
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

/// A record batch that was rebuilt for consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerBatch {
    /// Offset of its first record.
    pub first: Offset,
    /// The last offset that it covers: that of its last record, unless there is a gap behind it.
    pub last: Offset,
    /// The batch, not compressed.
    pub bytes: Bytes,
}

impl RowSet {
    /// Rebuilds record batches of about `bytes_max` bytes for consumers; `base_offset` is that of the first row.
    ///
    /// A batch has one timestamp type, and one time if the log stamped it; it is larger than `bytes_max` only if it holds one record.
    /// Producer stamps are not kept: they mean nothing to consumers.
    ///
    /// # Errors
    /// [`EncodeError`] if a row does not fit any batch, or its offset is beyond Kafka's 63 bits.
    ///
    /// # Cost
    /// Copies every key, value and header once.
    pub fn to_batches(&self, base_offset: Offset, bytes_max: usize) -> Result<Vec<ConsumerBatch>, EncodeError> {
        self.build(bytes_max, |row| base_offset.get().saturating_add(row as u64))
    }

    /// The same of rows with gaps between them; `offsets` are theirs, and the last batch covers all up to `end`.
    ///
    /// A batch covers the offsets up to the next one, as Kafka's cleaner leaves it: a consumer goes on behind a gap.
    ///
    /// # Errors
    /// As [`Self::to_batches`].
    pub fn to_batches_placed(
        &self,
        offsets: &[Offset],
        end: Offset,
        bytes_max: usize,
    ) -> Result<Vec<ConsumerBatch>, EncodeError> {
        self.build(bytes_max, |row| offsets.get(row).copied().unwrap_or(end).get())
    }

    /// Batches of the rows, given the offset of each, and the one behind what they cover.
    fn build(&self, bytes_max: usize, offset: impl Fn(usize) -> u64) -> Result<Vec<ConsumerBatch>, EncodeError> {
        let wire = |offset: u64| offset.min(i64::MAX as u64) as i64;
        let mut batches = Vec::new();
        let mut row = 0;
        while row < self.len() {
            let too_far = |other: usize| offset(other).saturating_sub(offset(row)) > i32::MAX as u64;
            let end = self.batch_end(row, bytes_max, too_far);
            let fields = Fields {
                codec: Codec::None,
                timestamp_type: self.timestamp_types[row],
                producer: None,
                is_transactional: false,
            };
            let capacity = (row..end).map(|row| self.encoded_bytes_max(row)).sum::<usize>() + HEADER_BYTES;
            let mut encoder = Encoder::new(fields, capacity);
            for row in row..end {
                let record = Record {
                    offset: wire(offset(row)),
                    timestamp_ms: self.timestamps_ms[row],
                    key: self.key(row),
                    value: self.value(row),
                };
                encoder.push(record, self.headers(row))?;
            }
            let first = offset(row);
            let last = offset(end).saturating_sub(1).max(offset(end - 1)).min(first.saturating_add(i32::MAX as u64));
            let bytes = encoder.finish_through(wire(last)).expect("a batch of at least one record");
            batches.push(ConsumerBatch { first: Offset::new(first), last: Offset::new(last), bytes });
            row = end;
        }
        Ok(batches)
    }

    /// Where the batch that begins with `row` ends.
    fn batch_end(&self, row: usize, bytes_max: usize, too_far: impl Fn(usize) -> bool) -> usize {
        let kind = self.timestamp_types[row];
        let same = |other: usize| {
            self.timestamp_types[other] == kind
                && (kind == TimestampType::Create || self.timestamps_ms[other] == self.timestamps_ms[row])
        };
        let mut bytes = HEADER_BYTES + self.encoded_bytes_max(row);
        let mut end = row + 1;
        while end < self.len() && same(end) && !too_far(end) {
            bytes += self.encoded_bytes_max(end);
            if bytes > bytes_max {
                break;
            }
            end += 1;
        }
        end
    }

    /// At least as many bytes as the record of a row takes in a batch.
    fn encoded_bytes_max(&self, row: usize) -> usize {
        /// Length, attributes, timestamp, offset, lengths of key and value, count of headers: varints of at most 10 and 5 bytes.
        const RECORD_BYTES: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        const LENGTHS_BYTES: usize = 10;
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers = self.headers(row).map(|(key, value)| key.len() + length(value) + LENGTHS_BYTES);
        RECORD_BYTES + length(self.key(row)) + length(self.value(row)) + headers.sum::<usize>()
    }
}
