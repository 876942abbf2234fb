//! Kafka record batches (magic v2), both directions: our own code, pure, without I/O.
//!
//! `decode` verifies a batch that a producer sent and finds its records *in place*: the rows point into the request's
//! own bytes, or into one decompressed buffer. `Encoder` makes batches for consumers. `address` and
//! `with_log_append_time` change the few header fields that the log decides.
//!
//! Invariants:
//! 1. Nothing is allocated for what a length or a count merely claims: both are checked against the bytes that remain.
//!    An uncompressed batch needs at most 8 times its own bytes; a compressed one [`Limits`] beyond that.
//! 2. A batch that `decode` accepts has exactly `count` records, contiguous from offset delta 0, and no byte left over.
//! 3. Null is not empty, and headers keep their order and their duplicates, in both directions.
//!
//! It does not decide policy that needs more than the batch: the largest batch of a topic, the window of timestamps,
//! producer sequences. It knows no magic 0 or 1.
//!
//! Source: the Kafka protocol guide, "Record Batch"; KIP-98 (v2), KIP-110 (zstd), KIP-32 (timestamps).

mod codec;
mod decode;
mod encode;
mod error;
mod header;
mod rows;
mod varint;

pub use codec::Codec;
pub use decode::{Decoded, EncodedBatch, Limits, Stored, decode, decode_stored};
pub use encode::{EncodeError, Encoder, Fields, Producer, Record};
pub use error::{DecodeError, Kind};
pub use header::{
    Attributes, HEADER_BYTES, Header, LEADER_EPOCH, PREFIX_BYTES, TimestampType, address, address_copy, split,
    with_log_append_time,
};
pub use rows::{Rows, Slice};

/// A record's timestamp when it has none.
pub const NO_TIMESTAMP: i64 = -1;

/// The latest timestamp that a record may carry, in milliseconds: beyond it microseconds overflow 64 bits.
pub const TIMESTAMP_MAX_MS: i64 = i64::MAX / 1000;
