//! Record batches as producers make them.

use bytes::Bytes;
use lakebed_ingest::{Admitted, BatchLimits, admit};
use lakebed_segment::batch::{Codec, Encoder, Fields, Producer, Record, TimestampType};
use rand::Rng;
use rand::rngs::StdRng;

use crate::history::Row;

/// Some records of a writer, the first of which is its `number`-th.
pub(crate) fn rows(rng: &mut StdRng, writer: usize, number: u64) -> Vec<Row> {
    let count = rng.random_range(1..=4);
    let row = |index: u64| Row {
        key: (!(number + index).is_multiple_of(5)).then(|| format!("k{}", index % 3)),
        value: format!("writer {writer} record {}", number + index),
        timestamp_ms: if (number + index).is_multiple_of(7) { -1 } else { 1_700_000_000_000 + (number + index) as i64 },
    };
    (0..count).map(row).collect()
}

/// A batch of them.
pub(crate) fn encode(rows: &[Row], producer: Option<Producer>) -> Bytes {
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer, is_transactional: false };
    let mut encoder = Encoder::new(fields, 256);
    for (offset, row) in rows.iter().enumerate() {
        let record = Record {
            offset: offset as i64,
            timestamp_ms: row.timestamp_ms,
            key: row.key.as_deref().map(str::as_bytes),
            value: Some(row.value.as_bytes()),
        };
        let headers = [(&b"from"[..], Some(row.value.as_bytes())), (&b"null"[..], None)];
        encoder.push(record, headers).expect("small records with ascending offsets fit");
    }
    encoder.finish().expect("a batch has records")
}

/// An admitted batch.
pub(crate) fn admitted(batch: Bytes) -> Admitted {
    let limits = BatchLimits {
        message_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 20,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: 0,
        log_append: false,
        keys_required: false,
    };
    admit(batch, &limits).expect("batches of producers here are valid")
}
