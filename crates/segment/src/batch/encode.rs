//! From records to a batch for consumers.

use bytes::Bytes;

use super::codec::{self, Codec};
use super::decode::EncodedBatch;
use super::error::DecodeError;
use super::header::{Attributes, HEADER_BYTES, Header, LEADER_EPOCH, LENGTH_FROM, TimestampType, write_crc};
use super::{NO_TIMESTAMP, varint};

/// The most bytes of records in a batch: a codec that makes them larger by a sixth still fits the length field.
const RECORDS_BYTES_MAX: usize = 1 << 30;

/// What holds for a whole batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// How the records are compressed.
    pub codec: Codec,
    /// Who stamped the records. Those stamped by the log share one batch only if they share the time.
    pub timestamp_type: TimestampType,
    /// Who sent the records, if idempotent.
    pub producer: Option<Producer>,
    /// Whether the records belong to a transaction.
    pub is_transactional: bool,
}

/// An idempotent producer's place in its own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The sequence of the batch's first record.
    pub base_sequence: i32,
}

/// A record for a batch; its headers are passed beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Above that of the record before; gaps are kept.
    pub offset: i64,
    /// Milliseconds, or -1 for none.
    pub timestamp_ms: i64,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    /// `None` is null.
    pub value: Option<&'a [u8]>,
}

/// Why a record does not go into this batch. The batch is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Offsets must ascend, from 0 on.
    #[error("offset {offset} does not follow {previous}")]
    OffsetOrder {
        /// Of the record before; -1 if there is none.
        previous: i64,
        /// Of the record.
        offset: i64,
    },
    /// Timestamps are -1 or later.
    #[error("timestamp {timestamp_ms} is below -1")]
    Timestamp {
        /// Of the record.
        timestamp_ms: i64,
    },
    /// The offset is too far from the first one for this batch.
    #[error("offset {offset} is too far from the batch's first, {base_offset}")]
    OffsetSpan {
        /// Of the first record.
        base_offset: i64,
        /// Of the record.
        offset: i64,
    },
    /// The log took the record at another time than this batch's.
    #[error("append time {timestamp_ms} is not that of the batch, {batch_timestamp_ms}")]
    AppendTime {
        /// Of the batch.
        batch_timestamp_ms: i64,
        /// Of the record.
        timestamp_ms: i64,
    },
    /// The format's length field ends.
    #[error("the batch would have {bytes} bytes of records")]
    TooLarge {
        /// With the record.
        bytes: u64,
    },
}

impl EncodeError {
    /// Whether the record fits a batch of its own, so that this one is to be finished and the next begun. (For
    /// [`Self::TooLarge`] only if this batch is not empty.)
    #[must_use]
    pub fn wants_next_batch(&self) -> bool {
        matches!(self, Self::OffsetSpan { .. } | Self::AppendTime { .. } | Self::TooLarge { .. })
    }
}

/// Builds one batch.
#[derive(Debug)]
pub struct Encoder {
    fields: Fields,
    /// Room for the header, then the records, not compressed yet.
    batch: Vec<u8>,
    count: u32,
    base_offset: i64,
    last_offset: i64,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Encoder {
    /// An empty batch that has room for `capacity_bytes`.
    #[must_use]
    pub fn new(fields: Fields, capacity_bytes: usize) -> Self {
        let mut batch = Vec::with_capacity(capacity_bytes.max(HEADER_BYTES));
        batch.resize(HEADER_BYTES, 0);
        Self {
            fields,
            batch,
            count: 0,
            base_offset: 0,
            last_offset: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// How many records it holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the batch so far, before compression: where to stop is the caller's choice.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Adds a record with its headers (key, which must be UTF-8, and value), in order.
    ///
    /// # Cost
    /// One copy of its bytes; the headers are walked twice.
    ///
    /// # Errors
    /// See [`EncodeError::wants_next_batch`]; in any case the batch is as it was.
    pub fn push<'h, H>(&mut self, record: Record<'_>, headers: H) -> Result<(), EncodeError>
    where
        H: IntoIterator<Item = (&'h [u8], Option<&'h [u8]>), IntoIter: Clone>,
    {
        let (offset_delta, timestamp_delta) = self.deltas(&record)?;
        let headers = headers.into_iter();
        let mut headers_count = 0i64;
        let mut length = 1
            + varint::size(timestamp_delta)
            + varint::size(offset_delta)
            + field_bytes(record.key)
            + field_bytes(record.value);
        for (key, value) in headers.clone() {
            headers_count += 1;
            length += field_bytes(Some(key)) + field_bytes(value);
        }
        length += varint::size(headers_count);
        let bytes = self.batch.len() - HEADER_BYTES + varint::size(length as i64) + length;
        if bytes > RECORDS_BYTES_MAX {
            return Err(EncodeError::TooLarge { bytes: bytes as u64 });
        }

        let out = &mut self.batch;
        varint::write(out, length as i64);
        out.push(0);
        varint::write(out, timestamp_delta);
        varint::write(out, offset_delta);
        write_field(out, record.key);
        write_field(out, record.value);
        varint::write(out, headers_count);
        for (key, value) in headers {
            write_field(out, Some(key));
            write_field(out, value);
        }
        assert!(out.len() == HEADER_BYTES + bytes, "the headers' iterator gave other headers the second time");
        self.took(&record);
        Ok(())
    }

    /// The record's offset and timestamp as the format has them, if they fit this batch.
    fn deltas(&self, record: &Record<'_>) -> Result<(i64, i64), EncodeError> {
        let Record { offset, timestamp_ms, .. } = *record;
        if offset <= self.last_offset {
            return Err(EncodeError::OffsetOrder { previous: self.last_offset, offset });
        }
        if timestamp_ms < NO_TIMESTAMP {
            return Err(EncodeError::Timestamp { timestamp_ms });
        }
        if self.count == 0 {
            return Ok((0, 0));
        }
        let offset_delta = offset - self.base_offset;
        if offset_delta > i64::from(i32::MAX) {
            return Err(EncodeError::OffsetSpan { base_offset: self.base_offset, offset });
        }
        if self.fields.timestamp_type == TimestampType::LogAppend && timestamp_ms != self.base_timestamp {
            return Err(EncodeError::AppendTime { batch_timestamp_ms: self.base_timestamp, timestamp_ms });
        }
        Ok((offset_delta, timestamp_ms.wrapping_sub(self.base_timestamp)))
    }

    fn took(&mut self, record: &Record<'_>) {
        if self.count == 0 {
            self.base_offset = record.offset;
            self.base_timestamp = record.timestamp_ms;
        }
        self.count += 1;
        self.last_offset = record.offset;
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
    }

    /// The finished batch with its records found in it; `None` if it holds no record. Not for one that is compressed.
    ///
    /// # Cost
    /// One CRC and one pass over the records' edges, where [`decode`](super::decode()) would verify the CRC again.
    ///
    /// # Errors
    /// [`DecodeError`] of what the caller has to see to: timestamps that are too large, keys of headers that are not UTF-8.
    pub fn finish_with_rows(self) -> Result<Option<EncodedBatch>, DecodeError> {
        assert!(self.fields.codec == Codec::None, "the records of a compressed batch are not in its bytes");
        self.finish().map(EncodedBatch::find).transpose()
    }

    /// The finished batch, which covers the offsets up to `last_offset`, though no record has them, as far as the format can say so; or
    /// `None` if it holds no record.
    #[must_use]
    pub fn finish_through(mut self, last_offset: i64) -> Option<Bytes> {
        self.last_offset = self.last_offset.max(last_offset.min(self.base_offset.saturating_add(i64::from(i32::MAX))));
        self.finish()
    }

    /// A batch without records over some offsets, as far as the format can say so, and the last of them.
    ///
    /// Kafka's cleaner leaves such batches, and its clients go on behind them.
    #[must_use]
    pub fn empty(fields: Fields, base_offset: i64, last_offset: i64) -> (Bytes, i64) {
        let mut encoder = Self::new(fields, HEADER_BYTES);
        encoder.base_offset = base_offset;
        encoder.last_offset = last_offset.clamp(base_offset, base_offset.saturating_add(i64::from(i32::MAX)));
        let last_offset = encoder.last_offset;
        (encoder.sealed(), last_offset)
    }

    /// The finished batch, or `None` if it holds no record.
    ///
    /// # Cost
    /// Compression, if any, and one CRC; an uncompressed batch is not copied.
    #[must_use]
    pub fn finish(self) -> Option<Bytes> {
        (self.count > 0).then(|| self.sealed())
    }

    fn sealed(self) -> Bytes {
        let Fields { codec, timestamp_type, producer, is_transactional } = self.fields;
        let mut batch = self.batch;
        if codec != Codec::None {
            let mut compressed = Vec::with_capacity(HEADER_BYTES + batch.len() / 2);
            compressed.resize(HEADER_BYTES, 0);
            codec::compress(codec, &batch[HEADER_BYTES..], &mut compressed);
            batch = compressed;
        }
        let producer = producer.unwrap_or(Producer { id: -1, epoch: -1, base_sequence: -1 });
        let header = Header {
            base_offset: self.base_offset,
            batch_length: (batch.len() - LENGTH_FROM) as u32,
            partition_leader_epoch: LEADER_EPOCH,
            crc: 0,
            attributes: Attributes::new(codec, timestamp_type, is_transactional),
            last_offset_delta: (self.last_offset - self.base_offset) as i32,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: producer.base_sequence,
            count: self.count,
        };
        batch[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        write_crc(&mut batch);
        Bytes::from(batch)
    }
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    match field {
        None => varint::size(-1),
        Some(bytes) => varint::size(bytes.len() as i64) + bytes.len(),
    }
}

fn write_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::write(out, -1),
        Some(bytes) => {
            varint::write(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
