//! From fetched batches to what goes into one message.
//!
//! A part ends where its limits say, whichever comes first; it holds at least one record, or batch, if there is any below the bounds. Batches go
//! out as they are; only one that reaches beyond a bound, or is too large for a message, is cut, and made anew.

use bytes::Bytes;
use lakebed_fetch::{DecodedBatch, FetchError, Fetched, FetchedBatch};
use lakebed_model::{Offset, PartitionIndex};
use lakebed_segment::batch::{Codec, Encoder, Fields, NO_TIMESTAMP, Record, Rows, TimestampType};
use lakebed_segment::ipc::{self, IpcBuilder, Projection};
use lakebed_wire::outgoing::{OutgoingRecord, Payload, RecordsEncoder};
use lakebed_wire::v1;
use tonic::Status;

use crate::grpc::produce::wire_offset;
use crate::grpc::status::invalid;

/// Bytes of batches from which to take records out of them takes more than about half a millisecond.
const HEAVY_BYTES: usize = 512 << 10;
/// A compressed batch may be so many times larger: what compresses best keeps a thread busy for longest.
const INFLATION: usize = 128;

/// How records go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Records,
    Batches,
    Arrow,
}

/// Format and projection of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) format: Format,
    pub(super) key: bool,
    pub(super) value: bool,
    pub(super) headers: bool,
    pub(super) timestamp: bool,
}

impl Shape {
    /// Records with everything.
    const WHOLE: Self = Self { format: Format::Records, key: true, value: true, headers: true, timestamp: true };

    /// What a request asks for. `within` stands before the paths of its fields.
    pub(super) fn check(format: i32, fields: &[i32], within: &str) -> Result<Self, Status> {
        let format = match v1::Format::try_from(format) {
            Ok(v1::Format::Unspecified | v1::Format::Records) => Format::Records,
            Ok(v1::Format::KafkaBatches) => Format::Batches,
            Ok(v1::Format::ArrowIpc) => Format::Arrow,
            Err(_) => return Err(invalid(&format!("{within}format"), format_args!("format {format} is unknown"))),
        };
        if fields.is_empty() {
            return Ok(Self { format, ..Self::WHOLE });
        }
        if format == Format::Batches {
            let what = "fields can't be chosen with FORMAT_KAFKA_BATCHES: batches go out as they are";
            return Err(invalid(&format!("{within}fields"), what));
        }
        let mut shape = Self { format, key: false, value: false, headers: false, timestamp: false };
        for (index, field) in fields.iter().enumerate() {
            match v1::RecordField::try_from(*field) {
                Ok(v1::RecordField::Key) => shape.key = true,
                Ok(v1::RecordField::Value) => shape.value = true,
                Ok(v1::RecordField::Headers) => shape.headers = true,
                Ok(v1::RecordField::Timestamp) => shape.timestamp = true,
                Ok(v1::RecordField::Unspecified) | Err(_) => {
                    let what = format!("fields: {field} is no field of a record");
                    return Err(invalid(&format!("{within}fields[{index}]"), what));
                }
            }
        }
        Ok(shape)
    }
}

/// What one message may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Before this offset.
    pub(super) end: Option<Offset>,
    /// Before the first record of this time or later.
    pub(super) end_timestamp_ms: Option<i64>,
    /// So many records; batches are whole.
    pub(super) records_max: u64,
    /// Stop before there are more bytes of records.
    pub(super) bytes_max: u64,
    /// Stop when there are so many bytes of records.
    pub(super) bytes_enough: u64,
    /// Stop before the message has more bytes.
    pub(super) message_bytes_max: usize,
    /// A batch of more bytes is cut.
    pub(super) batch_bytes_max: usize,
}

/// Where records are taken from.
#[derive(Debug)]
pub(super) enum Source {
    /// What was fetched.
    Fetched(Fetched),
    /// A batch of which a part has been sent.
    Rest(DecodedBatch),
}

impl Source {
    /// Whether to take records from it keeps a thread busy for more than about half a millisecond.
    pub(super) fn is_heavy(&self, shape: Shape, limits: &Limits) -> bool {
        let Self::Fetched(fetched) = self else { return false };
        let is_decoded = shape.format != Format::Batches || limits.end_timestamp_ms.is_some();
        let weight = |batch: &FetchedBatch| batch.size_bytes() * if batch.is_compressed() { INFLATION } else { 1 };
        is_decoded && fetched.batches.iter().map(weight).sum::<usize>() > HEAVY_BYTES
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Fetched(fetched) => fetched.size_bytes(),
            Self::Rest(batch) => batch.rows.payload.len(),
        }
    }

    /// The batches, each decoded when it is its turn.
    fn decoded(self) -> Box<dyn Iterator<Item = Result<DecodedBatch, FetchError>>> {
        match self {
            Self::Fetched(fetched) => Box::new(fetched.batches.into_iter().map(|batch| lakebed_fetch::decode(&batch))),
            Self::Rest(batch) => Box::new(std::iter::once(Ok(batch))),
        }
    }
}

/// What of a fetch goes into one message.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) payload: Payload,
    /// Where to go on.
    pub(super) next: Offset,
    /// Bytes of keys, values and headers that are sent, or of batches.
    pub(super) bytes: u64,
    /// How many records; of batches, from the wanted offset on.
    pub(super) records: u64,
    /// Whether the record at `next` is one before which the part must end because of its time.
    pub(super) is_at_timestamp: bool,
    /// The batch that holds `next`, if it was decoded.
    pub(super) rest: Option<DecodedBatch>,
}

/// Takes records or batches from `offset` on.
///
/// # Errors
/// [`FetchError`] of the first batch; what precedes a batch that can't be read is taken.
pub(super) fn take(
    partition: PartitionIndex,
    source: Source,
    offset: Offset,
    shape: Shape,
    limits: &Limits,
) -> Result<Part, FetchError> {
    match source {
        Source::Fetched(fetched) if shape.format == Format::Batches => batches(&fetched, offset, limits),
        source => records(partition, source, offset, shape, limits),
    }
}

/// Counts what was taken against the limits.
struct Count<'a> {
    limits: &'a Limits,
    bytes: u64,
    records: u64,
}

impl Count<'_> {
    fn new(limits: &Limits) -> Count<'_> {
        Count { limits, bytes: 0, records: 0 }
    }

    /// Whether something of so many bytes is too much beside what was taken, which makes a message of `message_bytes` with it.
    fn is_full(&self, bytes: u64, message_bytes: usize) -> bool {
        let Limits { records_max, bytes_max, bytes_enough, message_bytes_max, .. } = *self.limits;
        self.records > 0
            && (self.records >= records_max
                || self.bytes >= bytes_enough
                || self.bytes + bytes > bytes_max
                || message_bytes > message_bytes_max)
    }
}

/// What records are written into.
enum Sink {
    Records(RecordsEncoder),
    Arrow(Box<IpcBuilder>),
}

impl Sink {
    fn new(partition: PartitionIndex, shape: Shape, capacity_bytes: usize) -> Self {
        let Shape { key, value, headers, timestamp, .. } = shape;
        match shape.format {
            Format::Arrow => {
                Self::Arrow(Box::new(IpcBuilder::new(partition, Projection { key, value, headers, timestamp })))
            }
            Format::Records | Format::Batches => Self::Records(RecordsEncoder::with_capacity(capacity_bytes)),
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Records(encoder) => encoder.size_bytes(),
            Self::Arrow(builder) => builder.size_bytes(),
        }
    }

    fn push(&mut self, offset: Offset, batch: &DecodedBatch, row: usize, shape: Shape) {
        let DecodedBatch { rows, timestamp_type, .. } = batch;
        let encoder = match self {
            Self::Arrow(builder) => return builder.push(offset, rows, row, *timestamp_type),
            Self::Records(encoder) => encoder,
        };
        let timestamp_ms = rows.timestamps_ms[row];
        let record = OutgoingRecord {
            offset: wire_offset(offset),
            timestamp: Some((timestamp_ms, wire_type(*timestamp_type)))
                .filter(|_| shape.timestamp && timestamp_ms != NO_TIMESTAMP),
            key: rows.key(row).filter(|_| shape.key),
            value: rows.value(row).filter(|_| shape.value),
        };
        let headers = if shape.headers { usize::MAX } else { 0 };
        encoder.push(record, rows.headers_of(row).take(headers));
    }

    fn finish(self) -> Payload {
        match self {
            Self::Records(encoder) => encoder.finish(),
            Self::Arrow(builder) => {
                let records = builder.rows() as u64;
                Payload::arrow_ipc(builder.finish(), records)
            }
        }
    }
}

fn records(
    partition: PartitionIndex,
    source: Source,
    offset: Offset,
    shape: Shape,
    limits: &Limits,
) -> Result<Part, FetchError> {
    let mut sink = Sink::new(partition, shape, source.size_bytes().min(limits.message_bytes_max));
    let mut count = Count::new(limits);
    let mut next = offset;
    let mut is_at_timestamp = false;
    let mut rest = None;
    for decoded in source.decoded() {
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(error) if count.records == 0 => return Err(error),
            Err(_) => break,
        };
        next = next.max(limits.end.map_or(decoded.base_offset, |end| end.min(decoded.base_offset)));
        let mut is_cut = false;
        for row in wanted(&decoded, next, limits.end) {
            // Over what compaction of keys has left nothing of.
            next = decoded.offset(row);
            is_at_timestamp = limits.end_timestamp_ms.is_some_and(|end| decoded.rows.timestamps_ms[row] >= end);
            let (bytes, overhead) = sizes(&decoded.rows, row, shape);
            is_cut = is_at_timestamp || count.is_full(bytes as u64, sink.size_bytes() + bytes + overhead);
            if is_cut {
                break;
            }
            sink.push(next, &decoded, row, shape);
            count.records += 1;
            count.bytes += bytes as u64;
            next = Offset::new(next.get() + 1);
        }
        if !is_cut {
            next = next.max(limits.end.map_or(decoded.next_offset(), |end| end.min(decoded.next_offset())));
        }
        if next < decoded.next_offset() {
            rest = Some(decoded);
            break;
        }
    }
    let Count { bytes, records, .. } = count;
    Ok(Part { payload: sink.finish(), next, bytes, records, is_at_timestamp, rest })
}

/// The rows of a batch from `offset` on, before `end`.
fn wanted(batch: &DecodedBatch, offset: Offset, end: Option<Offset>) -> std::ops::Range<usize> {
    let last = end.map_or(batch.rows.len(), |end| batch.row_from(end));
    batch.row_from(offset).min(last)..last
}

/// The bytes of a record that are sent, and the most that a message needs beside them.
fn sizes(rows: &Rows, row: usize, shape: Shape) -> (usize, usize) {
    let length = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let mut bytes = 0;
    // What a record needs in the one form is enough in the other.
    let mut overhead = RecordsEncoder::RECORD_BYTES.max(ipc::ROW_BYTES);
    if shape.key {
        bytes += length(rows.key(row));
    }
    if shape.value {
        bytes += length(rows.value(row));
    }
    if shape.headers {
        for (key, value) in rows.headers_of(row) {
            bytes += key.len() + length(value);
            overhead += RecordsEncoder::HEADER_BYTES.max(ipc::HEADER_BYTES);
        }
    }
    (bytes, overhead)
}

fn wire_type(kind: TimestampType) -> v1::TimestampType {
    match kind {
        TimestampType::Create => v1::TimestampType::CreateTime,
        TimestampType::LogAppend => v1::TimestampType::LogAppendTime,
    }
}

fn batches(fetched: &Fetched, offset: Offset, limits: &Limits) -> Result<Part, FetchError> {
    let mut chunks = Vec::new();
    let mut count = Count::new(limits);
    let mut next = offset;
    let mut is_at_timestamp = false;
    for batch in &fetched.batches {
        let bytes = batch.size_bytes() as u64;
        let is_over = limits.end.is_some_and(|end| next >= end) || is_at_timestamp;
        if is_over || count.is_full(bytes, (count.bytes + bytes) as usize) {
            break;
        }
        let (end, at_timestamp) = match batch_end(batch, next, limits) {
            Ok(end) => end,
            Err(error) if count.records == 0 => return Err(error),
            Err(_) => break,
        };
        is_at_timestamp = at_timestamp;
        if end <= next {
            break;
        }
        // More offsets than records lie behind it if compaction of keys has left gaps.
        let mut records = end.since(next).min(batch.records());
        let end = if end == batch.next_offset() && batch.size_bytes() <= limits.batch_bytes_max {
            chunks.extend(batch.chunks());
            count.bytes += bytes;
            end
        } else {
            let (cut, cut_end) = match cut(batch, next, end, limits.batch_bytes_max) {
                Ok(cut) => cut,
                Err(error) if count.records == 0 => return Err(error),
                Err(_) => break,
            };
            records = cut.as_ref().map_or(0, |(_, records)| *records);
            if let Some((cut, _)) = cut {
                count.bytes += cut.len() as u64;
                chunks.push(cut);
            }
            is_at_timestamp &= cut_end == end;
            cut_end
        };
        count.records += records;
        next = end;
    }
    let Count { bytes, records, .. } = count;
    Ok(Part { payload: Payload::kafka_batches(chunks), next, bytes, records, is_at_timestamp, rest: None })
}

/// Where a batch must end, and whether that is because of the time of the record there.
fn batch_end(batch: &FetchedBatch, offset: Offset, limits: &Limits) -> Result<(Offset, bool), FetchError> {
    let end = limits.end.map_or(batch.next_offset(), |end| end.min(batch.next_offset()));
    let Some(end_timestamp_ms) = limits.end_timestamp_ms else { return Ok((end, false)) };
    let decoded = lakebed_fetch::decode(batch)?;
    let mut rows = wanted(&decoded, offset, Some(end));
    let found = rows.find(|row| decoded.rows.timestamps_ms[*row] >= end_timestamp_ms);
    Ok(found.map_or((end, false), |row| (decoded.offset(row), true)))
}

/// A batch that was made anew, and how many records it has.
type Cut = (Bytes, u64);

/// The records of a batch from `offset` on, before `end`, as a batch of about `bytes_max`, if there are any; and where it ends.
fn cut(
    batch: &FetchedBatch,
    offset: Offset,
    end: Offset,
    bytes_max: usize,
) -> Result<(Option<Cut>, Offset), FetchError> {
    let decoded = lakebed_fetch::decode(batch)?;
    let failed = |why: &dyn std::fmt::Display| FetchError::Unavailable {
        why: format!("the batch of offset {} can't be cut to {offset}..{end}: {why}", batch.base_offset),
    };
    let timestamp_type = decoded.timestamp_type;
    let fields = Fields { codec: Codec::None, timestamp_type, producer: None, is_transactional: false };
    let rows = &decoded.rows;
    let mut encoder = Encoder::new(fields, rows.payload.len().min(bytes_max));
    let mut next = end;
    for row in wanted(&decoded, offset, Some(end)) {
        let (bytes, overhead) = sizes(rows, row, Shape::WHOLE);
        if encoder.count() > 0 && encoder.size_bytes() + bytes + overhead > bytes_max {
            next = decoded.offset(row);
            break;
        }
        let record = Record {
            offset: wire_offset(decoded.offset(row)),
            timestamp_ms: rows.timestamps_ms[row],
            key: rows.key(row),
            value: rows.value(row),
        };
        encoder.push(record, rows.headers_of(row)).map_err(|error| failed(&error))?;
    }
    let records = u64::from(encoder.count());
    Ok((encoder.finish_through(wire_offset(next) - 1).map(|cut| (cut, records)), next))
}
