//! The 61 bytes before a batch's records: parsed, checked, and the few fields that the log decides.
//!
//! ```text
//!  0 base offset i64      12 leader epoch i32   17 CRC-32C u32          | the CRC covers 21.. to the end
//!  8 batch length i32     16 magic i8 (2)       21 attributes i16       | 23 last offset delta i32
//! 27 base timestamp i64   35 max timestamp i64  43 producer id i64      | 51 producer epoch i16
//! 53 base sequence i32    57 record count i32   61 records
//! ```
//! All are big-endian. The batch length counts from byte 12 on.

use bytes::{Bytes, BytesMut};

use super::codec::Codec;
use super::error::DecodeError;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;

/// Bytes of a batch that the log may change without touching its CRC: base offset, batch length, leader epoch.
pub const PREFIX_BYTES: usize = 16;

/// The leader epoch of every batch: the constant of a topic id.
pub const LEADER_EPOCH: i32 = 0;

/// Bytes before those that the batch length counts.
pub(super) const LENGTH_FROM: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
/// Where the bytes begin that the CRC covers.
pub(super) const CRC_FROM: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;
/// The only format that we speak.
pub(super) const MAGIC: u8 = 2;

/// A batch's attribute bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes(pub u16);

/// Who stamped a batch's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer: each record has its own.
    Create,
    /// The log: the batch's max timestamp holds for every record.
    LogAppend,
}

impl Attributes {
    const CODEC: u16 = 0b111;
    const LOG_APPEND: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    const KNOWN_OF_PRODUCERS: u16 = Self::CODEC | Self::LOG_APPEND | Self::TRANSACTIONAL;

    pub(super) fn new(codec: Codec, timestamp_type: TimestampType, transactional: bool) -> Self {
        let log_append = if timestamp_type == TimestampType::LogAppend { Self::LOG_APPEND } else { 0 };
        let transactional = if transactional { Self::TRANSACTIONAL } else { 0 };
        Self(u16::from(codec.id()) | log_append | transactional)
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// [`DecodeError::UnknownCodec`] for the ids 5 to 7.
    pub fn codec(self) -> Result<Codec, DecodeError> {
        let id = (self.0 & Self::CODEC) as u8;
        Codec::from_id(id).ok_or(DecodeError::UnknownCodec { id })
    }

    /// Who stamped the records.
    #[must_use]
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND == 0 { TimestampType::Create } else { TimestampType::LogAppend }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction marker, which only the log writes.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether a bit is set that producers don't set. Unknown bits count: a new one may change what the bytes mean.
    pub(super) fn has_bits_not_of_producers(self) -> bool {
        self.0 & !Self::KNOWN_OF_PRODUCERS != 0
    }
}

/// The fields of a batch's header, as they stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record. A producer's is without meaning.
    pub base_offset: i64,
    /// Bytes of the batch after this field; at least 49.
    pub batch_length: u32,
    /// Outside of the CRC; without meaning here.
    pub partition_leader_epoch: i32,
    /// CRC-32C (Castagnoli) of the bytes from the attributes to the end.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control.
    pub attributes: Attributes,
    /// Offset of the last record less `base_offset`.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are added to, in milliseconds.
    pub base_timestamp: i64,
    /// As the producer claims it, in milliseconds; [`super::Rows`] has that of the records.
    pub max_timestamp: i64,
    /// -1 when none.
    pub producer_id: i64,
    /// -1 when none.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1 when none.
    pub base_sequence: i32,
    /// How many records the batch claims; at least 1.
    pub count: u32,
}

impl Header {
    /// Reads the header of the batch that `bytes` begin with, which may go on beyond it.
    ///
    /// Checked are the magic, that the whole batch is there, and that it claims a record; neither CRC nor contents.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::OldFormat`], [`DecodeError::Magic`], [`DecodeError::Length`],
    /// [`DecodeError::Count`].
    pub fn peek(bytes: &[u8]) -> Result<Self, DecodeError> {
        let truncated = |needed: u64| DecodeError::Truncated { needed, present: bytes.len() as u64 };
        match bytes.get(MAGIC_AT).copied().ok_or(truncated(HEADER_BYTES as u64))? {
            MAGIC => {}
            magic @ (0 | 1) => return Err(DecodeError::OldFormat { magic: magic as i8 }),
            magic => return Err(DecodeError::Magic { magic: magic as i8 }),
        }
        let fields: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(truncated(HEADER_BYTES as u64))?;
        let claimed = i32::from_be_bytes(field(fields, 8));
        let present = (bytes.len() - LENGTH_FROM) as u64;
        let batch_length = u32::try_from(claimed).map_err(|_| DecodeError::Length { claimed, present })?;
        if (batch_length as usize) < HEADER_BYTES - LENGTH_FROM {
            return Err(DecodeError::Length { claimed, present });
        }
        if u64::from(batch_length) > present {
            return Err(truncated(u64::from(batch_length) + LENGTH_FROM as u64));
        }
        let claimed = i32::from_be_bytes(field(fields, 57));
        let count = u32::try_from(claimed).unwrap_or(0);
        if count == 0 {
            return Err(DecodeError::Count { claimed, present: present - (HEADER_BYTES - LENGTH_FROM) as u64 });
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(fields, 0)),
            batch_length,
            partition_leader_epoch: i32::from_be_bytes(field(fields, 12)),
            crc: u32::from_be_bytes(field(fields, CRC_AT)),
            attributes: Attributes(u16::from_be_bytes(field(fields, CRC_FROM))),
            last_offset_delta: i32::from_be_bytes(field(fields, 23)),
            base_timestamp: i64::from_be_bytes(field(fields, 27)),
            max_timestamp: i64::from_be_bytes(field(fields, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(fields, 43)),
            producer_epoch: i16::from_be_bytes(field(fields, 51)),
            base_sequence: i32::from_be_bytes(field(fields, 53)),
            count,
        })
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        LENGTH_FROM + self.batch_length as usize
    }

    /// The header's bytes, CRC as it stands in `self`.
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.base_offset.to_be_bytes());
        put(8, &self.batch_length.to_be_bytes());
        put(12, &self.partition_leader_epoch.to_be_bytes());
        put(MAGIC_AT, &[MAGIC]);
        put(CRC_AT, &self.crc.to_be_bytes());
        put(CRC_FROM, &self.attributes.0.to_be_bytes());
        put(23, &self.last_offset_delta.to_be_bytes());
        put(27, &self.base_timestamp.to_be_bytes());
        put(MAX_TIMESTAMP_AT, &self.max_timestamp.to_be_bytes());
        put(43, &self.producer_id.to_be_bytes());
        put(51, &self.producer_epoch.to_be_bytes());
        put(53, &self.base_sequence.to_be_bytes());
        put(57, &self.count.to_be_bytes());
        bytes
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field lies within the header")
}

/// Divides the records field of a produce request into its whole batches, in order, without a copy.
///
/// The batches are not verified yet. There are at most `records.len() / 61` of them.
///
/// # Errors
/// As [`Header::peek`]; bytes that are no whole batch, and no bytes at all, are [`DecodeError::Truncated`].
pub fn split(mut records: Bytes) -> Result<Vec<Bytes>, DecodeError> {
    let mut batches = Vec::new();
    loop {
        let header = Header::peek(&records)?;
        batches.push(records.split_to(header.total_bytes()));
        if records.is_empty() {
            return Ok(batches);
        }
    }
}

/// Gives a stored batch its base offset and [`LEADER_EPOCH`] without copying it: send the prefix, then the rest.
///
/// Both fields lie outside of the CRC. `batch` is one that [`super::decode`] accepted or [`super::Encoder`] made.
#[must_use]
pub fn address(batch: &Bytes, base_offset: i64) -> ([u8; PREFIX_BYTES], Bytes) {
    assert!(batch.len() >= HEADER_BYTES, "only whole batches are addressed");
    let mut prefix = *batch.first_chunk::<PREFIX_BYTES>().expect("a header is longer than its prefix");
    prefix[..8].copy_from_slice(&base_offset.to_be_bytes());
    prefix[LENGTH_FROM..].copy_from_slice(&LEADER_EPOCH.to_be_bytes());
    (prefix, batch.slice(PREFIX_BYTES..))
}

/// Like [`address`], in one piece.
///
/// # Cost
/// One copy of the batch.
#[must_use]
pub fn address_copy(batch: &Bytes, base_offset: i64) -> Bytes {
    let (prefix, rest) = address(batch, base_offset);
    let mut copy = BytesMut::with_capacity(batch.len());
    copy.extend_from_slice(&prefix);
    copy.extend_from_slice(&rest);
    copy.freeze()
}

/// Stamps a batch with the time at which the log took it: it holds for every record, whatever the producer said.
///
/// `batch` is one that [`super::decode`] accepted or [`super::Encoder`] made.
///
/// # Cost
/// One copy and one CRC of the batch.
#[must_use]
pub fn with_log_append_time(batch: &[u8], time_ms: i64) -> Bytes {
    assert!(batch.len() >= HEADER_BYTES, "only whole batches are stamped");
    let mut copy = BytesMut::from(batch);
    let attributes = u16::from_be_bytes([copy[CRC_FROM], copy[CRC_FROM + 1]]) | Attributes::LOG_APPEND;
    copy[CRC_FROM..CRC_FROM + 2].copy_from_slice(&attributes.to_be_bytes());
    copy[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&time_ms.to_be_bytes());
    write_crc(&mut copy);
    copy.freeze()
}

/// Computes the CRC of a whole batch and sets it in its header.
pub(super) fn write_crc(batch: &mut [u8]) {
    let crc = crc_fast::crc32_iscsi(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}
