//! Why a record batch is refused: the facts of each refusal, and its kind for Kafka's error codes.

use super::codec::Codec;

/// Why a record batch is refused. Nothing of the batch is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the batch does, or there are none.
    #[error("the batch is cut off: {needed} bytes needed, {present} present")]
    Truncated {
        /// What the header, or a batch's own length, asks for.
        needed: u64,
        /// What is there.
        present: u64,
    },
    /// The length field does not describe a batch, or leaves bytes over.
    #[error("batch length field is {claimed}, but {present} bytes follow it")]
    Length {
        /// The field's value.
        claimed: i32,
        /// Bytes after the field.
        present: u64,
    },
    /// A message set of before Kafka 0.11.
    #[error("message format v{magic} is not supported, only v2")]
    OldFormat {
        /// 0 or 1.
        magic: i8,
    },
    /// No format that Kafka has had.
    #[error("unknown message format: magic byte is {magic}")]
    Magic {
        /// The magic byte.
        magic: i8,
    },
    /// The bytes are not those that the producer checksummed.
    #[error("CRC-32C is {computed:08x}, but the header says {claimed:08x}")]
    Crc {
        /// In the header.
        claimed: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// Attribute bits that no producer may set, or that nobody has given a meaning yet.
    #[error("batch attributes {attributes:#06x} are not for producers to set")]
    Attributes {
        /// All of them.
        attributes: u16,
    },
    /// A producer claims that the log stamped the batch.
    #[error("a producer's batch must not have log append time")]
    LogAppendTime,
    /// A compression codec that does not exist.
    #[error("unknown compression codec {id}")]
    UnknownCodec {
        /// The codec bits.
        id: u8,
    },
    /// A count of records that the batch can't hold.
    #[error("the batch claims {claimed} records in {present} bytes")]
    Count {
        /// The count field.
        claimed: i32,
        /// Bytes of records.
        present: u64,
    },
    /// Count and last offset delta disagree.
    #[error("last offset delta is {last_offset_delta}, but the batch has {count} records")]
    LastOffsetDelta {
        /// The field.
        last_offset_delta: i32,
        /// The count field.
        count: u32,
    },
    /// The producer's id is set, but its epoch or sequence is not; or the id is below -1.
    #[error("producer id {id}, epoch {epoch}, sequence {sequence}: all must be set, or the id be -1")]
    Producer {
        /// The id field.
        id: i64,
        /// The epoch field.
        epoch: i16,
        /// The base sequence field.
        sequence: i32,
    },
    /// The compressed bytes are not what the codec writes.
    #[error("the records are not valid {codec:?} data: {what}")]
    Decompress {
        /// The batch's codec.
        codec: Codec,
        /// What is wrong with them.
        what: &'static str,
    },
    /// The batch would need more memory than the limit allows.
    #[error("the records need more than {limit} bytes once decompressed")]
    TooLarge {
        /// The limit that was passed.
        limit: u64,
    },
    /// A record is malformed.
    #[error("record {index}: {what}")]
    Record {
        /// Its place in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A timestamp below -1 or beyond 64 bits of microseconds.
    #[error("record {index} has a timestamp that is out of range: base {base} ms, delta {delta} ms")]
    Timestamp {
        /// Its place in the batch, from 0.
        index: u32,
        /// The batch's base timestamp.
        base: i64,
        /// The record's delta.
        delta: i64,
    },
    /// Bytes follow the last record.
    #[error("{bytes} bytes follow the last record")]
    LeftOver {
        /// How many.
        bytes: u64,
    },
}

/// Which of Kafka's error codes answers a refused batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `CORRUPT_MESSAGE`: the bytes were damaged on their way, or are no batch at all.
    Corrupt,
    /// `UNSUPPORTED_FOR_MESSAGE_FORMAT`: magic 0 or 1.
    UnsupportedForMessageFormat,
    /// `INVALID_TIMESTAMP`.
    InvalidTimestamp,
    /// `INVALID_RECORD`: the bytes are as the producer sent them, and they are wrong.
    InvalidRecord,
    /// `MESSAGE_TOO_LARGE`.
    TooLarge,
    /// `UNSUPPORTED_COMPRESSION_TYPE`.
    UnsupportedCompression,
}

impl DecodeError {
    /// What became of the batch, for the table of Kafka codes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Truncated { .. }
            | Self::Length { .. }
            | Self::Magic { .. }
            | Self::Crc { .. }
            | Self::Decompress { .. } => Kind::Corrupt,
            Self::OldFormat { .. } => Kind::UnsupportedForMessageFormat,
            Self::LogAppendTime | Self::Timestamp { .. } => Kind::InvalidTimestamp,
            Self::Attributes { .. }
            | Self::Count { .. }
            | Self::LastOffsetDelta { .. }
            | Self::Producer { .. }
            | Self::Record { .. }
            | Self::LeftOver { .. } => Kind::InvalidRecord,
            Self::TooLarge { .. } => Kind::TooLarge,
            Self::UnknownCodec { .. } => Kind::UnsupportedCompression,
        }
    }
}
