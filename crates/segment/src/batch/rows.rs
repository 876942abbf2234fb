//! What a batch holds, column by column, as places in one payload: nothing is copied out of it.

use bytes::Bytes;

/// A place in a payload, or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// First byte.
    pub start: u32,
    /// Bytes, or -1 for null, which is not the same as empty.
    pub len: i32,
}

impl Slice {
    /// Whether there is no value, as opposed to an empty one.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.len < 0
    }

    /// The bytes at this place of the payload that it was made for, or `None` for null.
    #[inline]
    #[must_use]
    pub fn as_option(self, payload: &[u8]) -> Option<&[u8]> {
        let len = usize::try_from(self.len).ok()?;
        let start = self.start as usize;
        Some(&payload[start..start + len])
    }
}

/// The records of a batch. All columns but the headers' have one entry per record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// What the slices point into: the batch's own bytes after the header, or what they were decompressed to.
    pub payload: Bytes,
    /// Milliseconds, or -1 for none.
    pub timestamps_ms: Vec<i64>,
    /// The earliest of `timestamps_ms`.
    pub min_timestamp_ms: i64,
    /// The latest of `timestamps_ms`.
    pub max_timestamp_ms: i64,
    /// Keys.
    pub keys: Vec<Slice>,
    /// Values.
    pub values: Vec<Slice>,
    /// Where the headers of each record end in `headers`; empty if no record has a header.
    pub headers_end: Vec<u32>,
    /// Key (never null, always UTF-8) and value of the headers of all records, in order.
    pub headers: Vec<(Slice, Slice)>,
    /// How far the offset of each record is from the batch's first; empty if they follow one another without gaps.
    pub offset_deltas: Vec<u32>,
}

impl Rows {
    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps_ms.len()
    }

    /// Whether there are none, which `decode` never returns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps_ms.is_empty()
    }

    /// How far the offset of record `row` is from the batch's first.
    #[inline]
    #[must_use]
    pub fn offset_delta(&self, row: usize) -> u64 {
        self.offset_deltas.get(row).map_or(row as u64, |delta| u64::from(*delta))
    }

    /// The first record whose offset is at least so far from the batch's first; how many there are if there is none.
    #[must_use]
    pub fn row_at(&self, delta: u64) -> usize {
        match self.offset_deltas.is_empty() {
            true => usize::try_from(delta).unwrap_or(usize::MAX).min(self.len()),
            false => self.offset_deltas.partition_point(|known| u64::from(*known) < delta),
        }
    }

    /// What they take in memory, in bytes; the payload may be shared.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let columns = self.len() * (size_of::<i64>() + 2 * size_of::<Slice>());
        let headers = self.headers_end.len() * size_of::<u32>() + self.headers.len() * size_of::<(Slice, Slice)>();
        self.payload.len() + columns + headers + self.offset_deltas.len() * size_of::<u32>()
    }

    /// The key of record `row`.
    #[must_use]
    pub fn key(&self, row: usize) -> Option<&[u8]> {
        self.keys[row].as_option(&self.payload)
    }

    /// The value of record `row`.
    #[must_use]
    pub fn value(&self, row: usize) -> Option<&[u8]> {
        self.values[row].as_option(&self.payload)
    }

    /// The headers of record `row`, in order, duplicates kept.
    pub fn headers_of(&self, row: usize) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> + Clone {
        let end = self.headers_end.get(row).map_or(0, |end| *end as usize);
        let start = if row == 0 { 0 } else { self.headers_end.get(row - 1).map_or(0, |end| *end as usize) };
        self.headers[start..end]
            .iter()
            .map(|(key, value)| (key.as_option(&self.payload).unwrap_or_default(), value.as_option(&self.payload)))
    }
}
