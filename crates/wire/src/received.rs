//! What producers send, as a broker reads it: the messages of `ProduceService` with their records left in place.
//!
//! On the wire these are the messages of [`crate::v1`] with the same names. The generated types would make a struct of every record
//! before anything can be refused: 2 bytes of a message can become 150 of memory. Here records are one slice of the message, and
//! [`Records`] walks over them without allocating.
//!
//! A message whose payload comes in several pieces, which protobuf would merge, is told from one that comes whole
//! ([`Payload::pieces`]): it has to be refused, for only its last piece is kept.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::v1;

mod records;

pub use records::{Headers, Malformed, Record, Records};

/// What a batch brings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Payload {
    /// The last that came.
    pub last: Option<Content>,
    /// How often a payload came.
    pub pieces: u32,
}

/// One payload.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// An encoded `lakebed.v1.Records`.
    Records(Bytes),
    /// A Kafka record batch.
    KafkaBatch(Bytes),
}

/// The numbers of the fields of a payload, the same in both messages.
const RECORDS: u32 = 3;
const KAFKA_BATCH: u32 = 4;

/// `lakebed.v1.ProduceRequest`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProduceRequest {
    /// Name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: Option<i32>,
    /// What to append.
    pub payload: Payload,
    /// What the next offset of the partition has to be.
    pub expected_next_offset: Option<i64>,
}

/// `lakebed.v1.ProduceBatch`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProduceBatch {
    /// Comes back with the answer.
    pub correlation_id: u64,
    /// The partition.
    pub partition: Option<i32>,
    /// What to append.
    pub payload: Payload,
    /// What the next offset of the partition has to be.
    pub expected_next_offset: Option<i64>,
}

/// `lakebed.v1.ProduceStreamRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ProduceStreamRequest {
    /// `None` is a kind that is not known.
    #[prost(oneof = "StreamRequest", tags = "1, 2")]
    pub request: Option<StreamRequest>,
}

/// What is said on a stream.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum StreamRequest {
    /// The first message.
    #[prost(message, tag = "1")]
    Init(v1::ProduceInit),
    /// All others.
    #[prost(message, tag = "2")]
    Batch(ProduceBatch),
}

impl Payload {
    fn merge(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut bytes = Bytes::new();
        encoding::bytes::merge(wire_type, &mut bytes, buf, context)?;
        self.last = Some(if tag == RECORDS { Content::Records(bytes) } else { Content::KafkaBatch(bytes) });
        self.pieces = self.pieces.saturating_add(1);
        Ok(())
    }

    fn field(&self) -> Option<(u32, &Bytes)> {
        self.last.as_ref().map(|last| match last {
            Content::Records(bytes) => (RECORDS, bytes),
            Content::KafkaBatch(bytes) => (KAFKA_BATCH, bytes),
        })
    }

    fn encode(&self, buf: &mut impl BufMut) {
        if let Some((tag, bytes)) = self.field() {
            encoding::bytes::encode(tag, bytes, buf);
        }
    }

    fn encoded_len(&self) -> usize {
        self.field().map_or(0, |(tag, bytes)| encoding::bytes::encoded_len(tag, bytes))
    }
}

impl Message for ProduceRequest {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.topic.is_empty() {
            encoding::string::encode(1, &self.topic, buf);
        }
        if let Some(partition) = &self.partition {
            encoding::int32::encode(2, partition, buf);
        }
        self.payload.encode(buf);
        if let Some(offset) = &self.expected_next_offset {
            encoding::int64::encode(5, offset, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::string::merge(wire_type, &mut self.topic, buf, context),
            2 => encoding::int32::merge(wire_type, self.partition.get_or_insert_default(), buf, context),
            RECORDS | KAFKA_BATCH => self.payload.merge(tag, wire_type, buf, context),
            5 => encoding::int64::merge(wire_type, self.expected_next_offset.get_or_insert_default(), buf, context),
            _ => encoding::skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let topic = if self.topic.is_empty() { 0 } else { encoding::string::encoded_len(1, &self.topic) };
        let partition = self.partition.as_ref().map_or(0, |partition| encoding::int32::encoded_len(2, partition));
        let expected = self.expected_next_offset.as_ref();
        topic
            + partition
            + self.payload.encoded_len()
            + expected.map_or(0, |offset| encoding::int64::encoded_len(5, offset))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for ProduceBatch {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.correlation_id != 0 {
            encoding::uint64::encode(1, &self.correlation_id, buf);
        }
        if let Some(partition) = &self.partition {
            encoding::int32::encode(2, partition, buf);
        }
        self.payload.encode(buf);
        if let Some(offset) = &self.expected_next_offset {
            encoding::int64::encode(5, offset, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::uint64::merge(wire_type, &mut self.correlation_id, buf, context),
            2 => encoding::int32::merge(wire_type, self.partition.get_or_insert_default(), buf, context),
            RECORDS | KAFKA_BATCH => self.payload.merge(tag, wire_type, buf, context),
            5 => encoding::int64::merge(wire_type, self.expected_next_offset.get_or_insert_default(), buf, context),
            _ => encoding::skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let id = if self.correlation_id == 0 { 0 } else { encoding::uint64::encoded_len(1, &self.correlation_id) };
        let partition = self.partition.as_ref().map_or(0, |partition| encoding::int32::encoded_len(2, partition));
        let expected = self.expected_next_offset.as_ref();
        id + partition
            + self.payload.encoded_len()
            + expected.map_or(0, |offset| encoding::int64::encoded_len(5, offset))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
