//! Records of fetched batches, for those who don't speak Kafka's batches.

use bytes::Bytes;
use lakebed_model::Offset;
use lakebed_segment::batch::{Limits, NO_TIMESTAMP, Rows, Slice, TimestampType, decode_stored};

use crate::request::{FetchError, Fetched, FetchedBatch};
use crate::timestamps::Stamped;

/// What the records of a stored batch may take. It was admitted under its topic's limit, which is lower.
const LIMITS: Limits = Limits { max_decompressed_bytes: i32::MAX as usize };

/// One record. Its bytes are shared with its batch, or with what that was decompressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecord {
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since 1970, or -1 for none.
    pub timestamp_ms: i64,
    /// Who stamped it.
    pub timestamp_type: TimestampType,
    /// The key; `None` for null.
    pub key: Option<Bytes>,
    /// The value; `None` for null.
    pub value: Option<Bytes>,
    /// The headers in order, duplicates kept; a value is `None` for null.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// The records of one batch, as columns.
#[derive(Debug, Clone)]
pub struct DecodedBatch {
    /// Offset of the first record; for those of the others ask [`DecodedBatch::offset`].
    pub base_offset: Offset,
    /// The offset behind the last that it covers.
    next_offset: Offset,
    /// Who stamped the records.
    pub timestamp_type: TimestampType,
    /// The records. Their bytes are shared with the batch, or with what it was decompressed to.
    pub rows: Rows,
}

impl DecodedBatch {
    /// The offset behind the last that it covers: compaction of keys may have left a gap behind the last record.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The offset of a record.
    pub fn offset(&self, row: usize) -> Offset {
        Offset::new(self.base_offset.get() + self.rows.offset_delta(row))
    }

    /// The first record at or above an offset; how many there are if there is none.
    pub fn row_from(&self, offset: Offset) -> usize {
        self.rows.row_at(offset.get().saturating_sub(self.base_offset.get()))
    }
}

/// Decodes a batch.
///
/// # Errors
/// [`FetchError::Unavailable`]: the batch was verified when it came in, so memory or this code is at fault.
/// # Cost
/// One CRC and one pass over the edges of the records, the decompression of a compressed batch; bytes are not copied.
pub fn decode(batch: &FetchedBatch) -> Result<DecodedBatch, FetchError> {
    if batch.records() == 0 {
        let rows = Rows {
            payload: Bytes::new(),
            timestamps_ms: Vec::new(),
            min_timestamp_ms: NO_TIMESTAMP,
            max_timestamp_ms: NO_TIMESTAMP,
            keys: Vec::new(),
            values: Vec::new(),
            headers_end: Vec::new(),
            headers: Vec::new(),
            offset_deltas: Vec::new(),
        };
        let (base_offset, next_offset) = (batch.base_offset, batch.next_offset());
        return Ok(DecodedBatch { base_offset, next_offset, timestamp_type: TimestampType::Create, rows });
    }
    let stored = decode_stored(batch.encoded().clone(), &LIMITS).map_err(|error| FetchError::Unavailable {
        why: format!("the batch of offset {} can't be decoded: {error}", batch.base_offset),
    })?;
    Ok(DecodedBatch {
        base_offset: batch.base_offset,
        next_offset: batch.next_offset(),
        timestamp_type: stored.timestamp_type,
        rows: stored.rows,
    })
}

/// The records of all batches from `offset` on, in order. Each batch is decoded when its first record is taken.
///
/// An error stands for a whole batch, which is skipped.
///
/// # Cost
/// One CRC and one pass over the edges of the records, the decompression of compressed batches; bytes are not copied.
pub fn records(fetched: &Fetched, offset: Offset) -> impl Iterator<Item = Result<FetchedRecord, FetchError>> {
    fetched.batches.iter().flat_map(move |batch| {
        let (decoded, error) = match decode(batch) {
            Ok(decoded) => (Some(decoded), None),
            Err(error) => (None, Some(Err(error))),
        };
        let of_batch = decoded
            .into_iter()
            .flat_map(move |decoded| (0..decoded.rows.len()).map(move |row| Ok(record(&decoded, row))));
        let wanted =
            move |record: &Result<FetchedRecord, FetchError>| record.as_ref().is_ok_and(|r| r.offset >= offset);
        of_batch.filter(wanted).chain(error)
    })
}

/// Offsets and timestamps of a batch's records, in order.
pub(crate) fn timestamps(batch: &FetchedBatch) -> Result<impl Iterator<Item = Stamped>, FetchError> {
    let decoded = decode(batch)?;
    Ok((0..decoded.rows.len()).map(move |row| (decoded.offset(row), decoded.rows.timestamps_ms[row])))
}

fn record(decoded: &DecodedBatch, row: usize) -> FetchedRecord {
    let DecodedBatch { rows, timestamp_type, .. } = decoded;
    let bytes = |slice: Slice| {
        let length = usize::try_from(slice.len).ok()?;
        let start = slice.start as usize;
        Some(rows.payload.slice(start..start + length))
    };
    let (start, end) = match rows.headers_end.is_empty() {
        true => (0, 0),
        false => (if row == 0 { 0 } else { rows.headers_end[row - 1] }, rows.headers_end[row]),
    };
    let headers = rows.headers[start as usize..end as usize].iter();
    FetchedRecord {
        offset: decoded.offset(row),
        timestamp_ms: rows.timestamps_ms[row],
        timestamp_type: *timestamp_type,
        key: bytes(rows.keys[row]),
        value: bytes(rows.values[row]),
        headers: headers.map(|(key, value)| (bytes(*key).unwrap_or_default(), bytes(*value))).collect(),
    }
}
