//! Records of the API -> Kafka record batches.

use bytes::Bytes;
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
use lakebed_wire::v1;
use tonic::Status;

use super::status::{invalid, status};
use crate::reason::Reason;

/// What a record costs in a batch beyond its key, value and headers, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// One batch of all the records. A record without a timestamp gets `now_ms`, as Kafka's clients do.
///
/// # Errors
/// INVALID_ARGUMENT that names the record.
pub(super) fn encode(records: &[v1::Record], now_ms: i64) -> Result<Bytes, Status> {
    if records.is_empty() {
        return Err(invalid("there are no records in the request"));
    }
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let capacity_bytes = records.iter().map(size_bytes).sum();
    let mut encoder = Encoder::new(fields, capacity_bytes);
    for (index, record) in (0_i64..).zip(records) {
        let timestamp_ms = record.timestamp.unwrap_or(now_ms);
        if timestamp_ms < 0 {
            let message = format!("record {index}: timestamp {timestamp_ms} is before 1970; leave it out for now");
            return Err(status(Reason::InvalidTimestamp, message, []));
        }
        if record.offset.is_some() {
            return Err(invalid(format_args!("record {index}: its offset is the broker's to give; leave it out")));
        }
        let encoded =
            Record { offset: index, timestamp_ms, key: record.key.as_deref(), value: record.value.as_deref() };
        let headers = record.headers.iter().map(|header| (header.key.as_bytes(), header.value.as_deref()));
        encoder.push(encoded, headers).map_err(|error| invalid(format_args!("record {index}: {error}")))?;
    }
    encoder.finish().ok_or_else(|| invalid("there are no records in the request"))
}

/// Bytes of a record, about.
fn size_bytes(record: &v1::Record) -> usize {
    let field = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record.headers.iter().map(|header| header.key.len() + field(&header.value) + 8).sum();
    field(&record.key) + field(&record.value) + headers + RECORD_OVERHEAD_BYTES
}
