//! From a producer's batch to rows: everything is verified, nothing is copied.

use bytes::Bytes;

use super::codec::{self, Codec};
use super::error::DecodeError;
use super::header::{CRC_FROM, HEADER_BYTES, Header, LENGTH_FROM, TimestampType};
use super::rows::{Rows, Slice};
use super::{NO_TIMESTAMP, TIMESTAMP_MAX_MS, varint};

/// Length, attributes, two deltas, key, value, count of headers: a byte each.
const RECORD_BYTES_MIN: usize = 7;
/// Lengths of key and value: a byte each.
const RECORD_HEADER_BYTES_MIN: usize = 2;
/// What the columns of a record take: timestamp, key, value.
const ROW_BYTES: usize = size_of::<i64>() + 2 * size_of::<Slice>();
/// A compressed batch may take this many times its own bytes beyond the limit, as an uncompressed one does.
const INDEX_RATIO: usize = 8;

/// How much a batch may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes that a compressed batch's records and their [`Rows`] may take; at least the largest batch of a topic.
    /// While they are decompressed, the buffer and the one that it outgrew may take twice this. More lets in batches
    /// that compress better, and lets one request take more memory.
    pub max_decompressed_bytes: usize,
}

/// A batch that is what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Its header, as sent.
    pub header: Header,
    /// Its records.
    pub rows: Rows,
}

/// Verifies a batch that a producer sent, and finds its records.
///
/// `batch` is exactly one batch (see [`super::split`]). Base offset and leader epoch are read but mean nothing. The
/// attributes of single records, which have no meaning yet, are ignored as Kafka does, and so is the header's claim
/// of a max timestamp.
///
/// # Cost
/// One pass for the CRC, one over the records' edges; allocates 24 bytes a record and 16 a header, at most 8 times the
/// records' bytes. A compressed batch costs its decompression, within `limits`.
///
/// # Errors
/// The first thing that is wrong with it; see [`DecodeError::kind`].
pub fn decode(batch: Bytes, limits: &Limits) -> Result<Decoded, DecodeError> {
    let (header, rows) = decode_rows(batch, limits, false)?;
    Ok(Decoded { header, rows })
}

/// A batch that our own [`Encoder`](super::Encoder) made, with its records. Nobody else can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBatch {
    batch: Bytes,
    decoded: Decoded,
}

impl EncodedBatch {
    /// Finds the records in `batch`, which is not compressed and has its checksum from the encoder.
    ///
    /// # Errors
    /// As [`decode`], of what the encoder leaves to its caller: timestamps, UTF-8 in the keys of headers.
    pub(super) fn find(batch: Bytes) -> Result<Self, DecodeError> {
        let header = Header::peek(&batch)?;
        let payload = batch.slice(HEADER_BYTES..);
        let rows = read_rows(&header, payload, usize::MAX, DecodeError::TooLarge { limit: u64::MAX }, false)?;
        Ok(Self { batch, decoded: Decoded { header, rows } })
    }

    /// Its bytes, and what they say.
    pub fn into_parts(self) -> (Bytes, Decoded) {
        (self.batch, self.decoded)
    }
}

fn decode_rows(batch: Bytes, limits: &Limits, is_stored: bool) -> Result<(Header, Rows), DecodeError> {
    let header = Header::peek(&batch)?;
    if header.total_bytes() != batch.len() {
        let present = (batch.len() - LENGTH_FROM) as u64;
        return Err(DecodeError::Length { claimed: header.batch_length as i32, present });
    }
    let computed = crc_fast::crc32_iscsi(&batch[CRC_FROM..]);
    if computed != header.crc {
        return Err(DecodeError::Crc { claimed: header.crc, computed });
    }
    let codec = check(&header, is_stored)?;
    let mut payload = batch.slice(HEADER_BYTES..);
    let mut rows_bytes_max = usize::MAX;
    if codec != Codec::None {
        // Slices are 32 bits wide.
        let limit = limits.max_decompressed_bytes.min(i32::MAX as usize);
        payload = Bytes::from(codec::decompress(codec, &payload, limit)?);
        rows_bytes_max = (limit - payload.len()).saturating_add(batch.len().saturating_mul(INDEX_RATIO));
    }
    let too_large = DecodeError::TooLarge { limit: limits.max_decompressed_bytes as u64 };
    Ok((header, read_rows(&header, payload, rows_bytes_max, too_large, is_stored)?))
}

/// A stored batch: as a producer sent it, stamped by the log perhaps, or rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its header.
    pub header: Header,
    /// Its records; those that the log stamped have its time.
    pub rows: Rows,
    /// Who stamped its records.
    pub timestamp_type: TimestampType,
}

/// Like [`decode`], for a batch that is in the log: the log may have stamped it.
///
/// # Errors
/// As [`decode`].
pub fn decode_stored(batch: Bytes, limits: &Limits) -> Result<Stored, DecodeError> {
    let (header, mut rows) = decode_rows(batch, limits, true)?;
    let timestamp_type = header.attributes.timestamp_type();
    if timestamp_type == TimestampType::LogAppend {
        rows.timestamps_ms.fill(header.max_timestamp);
        rows.min_timestamp_ms = header.max_timestamp;
        rows.max_timestamp_ms = header.max_timestamp;
    }
    Ok(Stored { header, rows, timestamp_type })
}

/// The rules for the header's fields, each by itself.
fn check(header: &Header, is_stored: bool) -> Result<Codec, DecodeError> {
    let codec = header.attributes.codec()?;
    if header.attributes.has_bits_not_of_producers() {
        return Err(DecodeError::Attributes { attributes: header.attributes.0 });
    }
    if !is_stored && header.attributes.timestamp_type() == TimestampType::LogAppend {
        return Err(DecodeError::LogAppendTime);
    }
    // What compaction of keys has left covers the offsets of what went.
    let (covered, dense) = (i64::from(header.last_offset_delta), i64::from(header.count) - 1);
    if covered < dense || (covered > dense && !is_stored) {
        let Header { last_offset_delta, count, .. } = *header;
        return Err(DecodeError::LastOffsetDelta { last_offset_delta, count });
    }
    let Header { producer_id: id, producer_epoch: epoch, base_sequence: sequence, .. } = *header;
    // Without an id, Kafka looks at neither of the others; aiokafka leaves a sequence of 0 there.
    if id != -1 && (id < 0 || epoch < 0 || sequence < 0) {
        return Err(DecodeError::Producer { id, epoch, sequence });
    }
    Ok(codec)
}

fn read_rows(
    header: &Header,
    payload: Bytes,
    rows_bytes_max: usize,
    too_large: DecodeError,
    is_stored: bool,
) -> Result<Rows, DecodeError> {
    let count = header.count as usize;
    if count > payload.len() / RECORD_BYTES_MIN {
        return Err(DecodeError::Count { claimed: header.count as i32, present: payload.len() as u64 });
    }
    if count * ROW_BYTES > rows_bytes_max {
        return Err(too_large);
    }
    let mut timestamps_ms = Vec::with_capacity(count);
    let mut keys = Vec::with_capacity(count);
    let mut values = Vec::with_capacity(count);
    let mut headers_end: Vec<u32> = Vec::new();
    let mut headers = Vec::new();
    let mut offset_deltas: Vec<u32> = Vec::new();
    let (mut min_timestamp_ms, mut max_timestamp_ms) = (i64::MAX, i64::MIN);
    let bytes = &payload[..];
    let mut at = 0;
    for index in 0..header.count {
        let start = at;
        let record = record(bytes, &mut at).map_err(|what| DecodeError::Record { index, what })?;
        if record.offset_delta != index as i32 || !offset_deltas.is_empty() {
            if !is_stored {
                return Err(DecodeError::Record { index, what: "offset delta is not its place in the batch" });
            }
            place(&mut offset_deltas, index, record.offset_delta, header)?;
        }
        let timestamp_ms = timestamp(header.base_timestamp, record.timestamp_delta, index)?;
        min_timestamp_ms = min_timestamp_ms.min(timestamp_ms);
        max_timestamp_ms = max_timestamp_ms.max(timestamp_ms);
        timestamps_ms.push(timestamp_ms);
        keys.push(record.key);
        values.push(record.value);
        if record.headers > 0 && headers.is_empty() {
            let total = count_headers(bytes, start, header.count - index);
            if count * (ROW_BYTES + size_of::<u32>()) + total * size_of::<(Slice, Slice)>() > rows_bytes_max {
                return Err(too_large);
            }
            headers.reserve_exact(total);
            headers_end.reserve_exact(count);
            headers_end.resize(index as usize, 0);
        }
        read_headers(&bytes[..record.end], &mut at, record.headers, &mut headers)
            .map_err(|what| DecodeError::Record { index, what })?;
        if !headers.is_empty() {
            headers_end.push(headers.len() as u32);
        }
    }
    if at != bytes.len() {
        return Err(DecodeError::LeftOver { bytes: (bytes.len() - at) as u64 });
    }
    Ok(Rows {
        payload,
        timestamps_ms,
        min_timestamp_ms,
        max_timestamp_ms,
        keys,
        values,
        headers_end,
        headers,
        offset_deltas,
    })
}

/// Takes down the place of a record that does not follow the one before it, or of one after such a record.
#[cold]
fn place(offset_deltas: &mut Vec<u32>, index: u32, delta: i32, header: &Header) -> Result<(), DecodeError> {
    if offset_deltas.is_empty() {
        offset_deltas.reserve_exact(header.count as usize);
        offset_deltas.extend(0..index);
    }
    let least = offset_deltas.last().map_or(0, |last| i64::from(*last) + 1);
    if i64::from(delta) < least || delta > header.last_offset_delta {
        return Err(DecodeError::Record { index, what: "offset delta is outside of the batch" });
    }
    offset_deltas.push(delta as u32);
    Ok(())
}

#[inline]
fn timestamp(base: i64, delta: i64, index: u32) -> Result<i64, DecodeError> {
    base.checked_add(delta)
        .filter(|timestamp| (NO_TIMESTAMP..=TIMESTAMP_MAX_MS).contains(timestamp))
        .ok_or(DecodeError::Timestamp { index, base, delta })
}

/// A record up to its headers.
struct Record {
    end: usize,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Slice,
    value: Slice,
    /// Claimed, and no more than the record's bytes can hold.
    headers: usize,
}

/// Reads the record at `*at` and moves to its headers. Inlined by force, as what it calls: it is the inner loop.
#[inline(always)]
fn record(payload: &[u8], at: &mut usize) -> Result<Record, &'static str> {
    let length = varint::read_i32(payload, at).ok_or("length is malformed")?;
    let length = usize::try_from(length).map_err(|_| "length is negative")?;
    if length > payload.len() - *at {
        return Err("length is more than the bytes that remain");
    }
    let end = *at + length;
    let bytes = &payload[..end];
    if length == 0 {
        return Err("length is zero");
    }
    let _attributes = bytes[*at];
    *at += 1;
    let timestamp_delta = varint::read_i64(bytes, at).ok_or("timestamp delta is malformed")?;
    let offset_delta = varint::read_i32(bytes, at).ok_or("offset delta is malformed")?;
    let key = field(bytes, at).ok_or("key does not fit the record")?;
    let value = field(bytes, at).ok_or("value does not fit the record")?;
    let headers = varint::read_i32(bytes, at).ok_or("count of headers is malformed")?;
    let headers = usize::try_from(headers).map_err(|_| "count of headers is negative")?;
    if headers > (end - *at) / RECORD_HEADER_BYTES_MIN {
        return Err("count of headers is more than the record can hold");
    }
    Ok(Record { end, timestamp_delta, offset_delta, key, value, headers })
}

/// Reads a length and moves past the bytes that it counts; -1 is null, which has none.
#[inline(always)]
fn field(bytes: &[u8], at: &mut usize) -> Option<Slice> {
    let len = varint::read_i32(bytes, at)?;
    let start = *at as u32;
    if len == -1 {
        return Some(Slice { start, len });
    }
    let present = usize::try_from(len).ok()?;
    if present > bytes.len() - *at {
        return None;
    }
    *at += present;
    Some(Slice { start, len })
}

/// Reads `count` headers, which must end where the record does.
#[inline]
fn read_headers(
    record: &[u8],
    at: &mut usize,
    count: usize,
    headers: &mut Vec<(Slice, Slice)>,
) -> Result<(), &'static str> {
    for _ in 0..count {
        let key = field(record, at).ok_or("header key does not fit the record")?;
        let name = key.as_option(record).ok_or("header key is null")?;
        if std::str::from_utf8(name).is_err() {
            return Err("header key is not UTF-8");
        }
        let value = field(record, at).ok_or("header value does not fit the record")?;
        headers.push((key, value));
    }
    if *at == record.len() { Ok(()) } else { Err("bytes are left over in the record") }
}

/// How many headers the next `records` claim, so that they are allocated once, at their size: growing by doubling would
/// take three times that. Stops at a malformed record, which the caller is about to meet.
fn count_headers(payload: &[u8], mut at: usize, records: u32) -> usize {
    let mut total = 0;
    for _ in 0..records {
        let Ok(record) = record(payload, &mut at) else { break };
        total += record.headers;
        at = record.end;
    }
    total
}
