//! Admission: a producer's batch is verified, decoded in place and measured. Pure; the caller runs it where it reads requests.

use bytes::Bytes;
use lakebed_model::{Offset, ProducerEpoch, ProducerId, ProducerStamp, Sequence};
use lakebed_segment::batch::{self, DecodeError, Decoded, EncodedBatch, NO_TIMESTAMP, Rows};

/// What a batch costs beside its bytes: its ticket, its places in queues, what is known of it.
const OVERHEAD_BYTES: usize = 768;

/// What a topic asks of its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most bytes of a batch as it was sent (`max.message.bytes`).
    pub message_bytes_max: usize,
    /// Most bytes that a compressed batch may need once it is decompressed.
    pub decompressed_bytes_max: usize,
    /// How far a record's timestamp may lie before `now_ms`, in milliseconds (`message.timestamp.before.max.ms`).
    pub timestamp_before_max_ms: i64,
    /// How far it may lie after `now_ms` (`message.timestamp.after.max.ms`).
    pub timestamp_after_max_ms: i64,
    /// The wall clock: milliseconds since 1970.
    pub now_ms: i64,
    /// Whether the topic stamps records when they are appended; then the producer's timestamps don't count.
    pub log_append: bool,
    /// Whether every record must have a key (`cleanup.policy=compact`): one without could never be compacted.
    pub keys_required: bool,
}

/// Why a batch is not admitted. Nothing of it is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// It is no batch that a producer may send.
    #[error(transparent)]
    Batch(#[from] DecodeError),
    /// It is larger than its topic allows.
    #[error("the batch has {bytes} bytes, but its topic allows {max}")]
    TooLarge {
        /// As it was sent.
        bytes: usize,
        /// What the topic allows.
        max: usize,
    },
    /// A record's timestamp is too far from the broker's clock.
    #[error("a record has timestamp {timestamp_ms} ms, but {earliest_ms} to {latest_ms} are accepted now")]
    TimestampOutOfWindow {
        /// The record's.
        timestamp_ms: i64,
        /// The earliest that is accepted.
        earliest_ms: i64,
        /// The latest that is accepted.
        latest_ms: i64,
    },
    /// A record has no key, and its topic keeps the last one of each.
    #[error(
        "record {index} has no key, but its topic keeps the last record of each key (cleanup.policy has compact): give it a key, or change the policy"
    )]
    KeyMissing {
        /// Its place in the batch.
        index: usize,
    },
    /// It belongs to a transaction, and there are none yet.
    #[error("transactions are not supported")]
    Transactional,
}

/// A batch that may be produced. It holds the bytes that it was decoded from.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub(crate) batch: Bytes,
    pub(crate) rows: Rows,
    pub(crate) producer: Option<ProducerStamp>,
    pub(crate) log_append: bool,
    pub(crate) expected_next_offset: Option<Offset>,
    compressed: bool,
}

/// Verifies and decodes one batch: exactly the bytes of `batch`, without a copy unless it is compressed.
///
/// # Errors
/// [`AdmitError`]
/// # Cost
/// One CRC, one pass over the edges of its records, its decompression; see [`batch::decode`].
pub fn admit(batch: Bytes, limits: &BatchLimits) -> Result<Admitted, AdmitError> {
    if batch.len() > limits.message_bytes_max {
        return Err(AdmitError::TooLarge { bytes: batch.len(), max: limits.message_bytes_max });
    }
    let decode_limits = batch::Limits { max_decompressed_bytes: limits.decompressed_bytes_max };
    let decoded = batch::decode(batch.clone(), &decode_limits)?;
    admit_decoded(batch, decoded, limits)
}

/// Admits a batch that our own encoder made: there is nothing to verify in it but what the topic asks for.
///
/// # Errors
/// [`AdmitError`]
pub fn admit_encoded(encoded: EncodedBatch, limits: &BatchLimits) -> Result<Admitted, AdmitError> {
    let (batch, decoded) = encoded.into_parts();
    if batch.len() > limits.message_bytes_max {
        return Err(AdmitError::TooLarge { bytes: batch.len(), max: limits.message_bytes_max });
    }
    admit_decoded(batch, decoded, limits)
}

fn admit_decoded(batch: Bytes, decoded: Decoded, limits: &BatchLimits) -> Result<Admitted, AdmitError> {
    let header = decoded.header;
    if header.attributes.is_transactional() {
        return Err(AdmitError::Transactional);
    }
    if !limits.log_append {
        check_window(&decoded.rows, limits)?;
    }
    if limits.keys_required
        && let Some(index) = decoded.rows.keys.iter().position(|key| key.is_null())
    {
        return Err(AdmitError::KeyMissing { index });
    }
    let producer = (header.producer_id >= 0).then(|| ProducerStamp {
        id: ProducerId::new(header.producer_id),
        epoch: ProducerEpoch::new(header.producer_epoch),
        sequence: Sequence::new(header.base_sequence),
    });
    let compressed = header.attributes.codec()? != batch::Codec::None;
    Ok(Admitted {
        batch,
        rows: decoded.rows,
        producer,
        log_append: limits.log_append,
        expected_next_offset: None,
        compressed,
    })
}

impl Admitted {
    /// The same batch, to be appended only if its first record gets this offset; else it is refused
    /// ([`OffsetMismatch`](lakebed_model::BatchRefusal::OffsetMismatch)).
    #[must_use]
    pub fn expecting(self, next: Offset) -> Self {
        Self { expected_next_offset: Some(next), ..self }
    }

    /// How many records it has; at least 1.
    pub fn records(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("a batch counts its records in 32 bits")
    }

    /// Bytes of the batch as it was sent.
    pub fn size_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Bytes of memory that it takes until it is durable: itself, its decompressed records, their index, its share of the sealed body.
    pub fn cost_bytes(&self) -> usize {
        let copies = if self.compressed { 2 } else { 1 };
        let index = self.rows.len() * 24 + self.rows.headers_end.len() * 4 + self.rows.headers.len() * 16;
        self.batch.len() + copies * self.rows.payload.len() + index + OVERHEAD_BYTES
    }
}

/// A record without a timestamp is accepted, as Kafka does.
fn check_window(rows: &Rows, limits: &BatchLimits) -> Result<(), AdmitError> {
    let earliest_ms = limits.now_ms.saturating_sub(limits.timestamp_before_max_ms);
    let latest_ms = limits.now_ms.saturating_add(limits.timestamp_after_max_ms);
    let window = earliest_ms..=latest_ms;
    if window.contains(&rows.min_timestamp_ms) && window.contains(&rows.max_timestamp_ms) {
        return Ok(());
    }
    let outside = |timestamp: &&i64| **timestamp != NO_TIMESTAMP && !window.contains(*timestamp);
    match rows.timestamps_ms.iter().find(outside) {
        None => Ok(()),
        Some(&timestamp_ms) => Err(AdmitError::TimestampOutOfWindow { timestamp_ms, earliest_ms, latest_ms }),
    }
}
