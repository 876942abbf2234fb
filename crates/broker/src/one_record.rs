//! For tests: a batch of one record, as the write path takes it.

use lakebed_ingest::{Admitted, BatchLimits, admit};
use lakebed_segment::batch::{Codec, Encoder, Fields, Producer, Record, TimestampType};

/// A record of 1970 without a key, by a producer or without one.
pub(crate) fn batch(producer: Option<Producer>) -> Admitted {
    let (codec, timestamp_type) = (Codec::None, TimestampType::Create);
    let mut encoder = Encoder::new(Fields { codec, timestamp_type, producer, is_transactional: false }, 256);
    encoder.push(Record { offset: 0, timestamp_ms: 1, key: None, value: Some(b"x") }, []).unwrap();
    let limits = BatchLimits {
        message_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 20,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: 1,
        log_append: false,
        keys_required: false,
    };
    admit(encoder.finish().unwrap(), &limits).unwrap()
}
