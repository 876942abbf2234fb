//! Answers with many records, written straight from the bytes in which the records are.
//!
//! [`ConsumeAnswer`] and [`FetchAnswer`] are the generated `ConsumeResponse` and `FetchResponse` with their payload beside them, in pieces that
//! are shared with the log; on the wire they are the same. A payload is copied once, into the buffer that goes to the socket.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, encode_varint, encoded_len_varint};
use prost::{DecodeError, Message};

use crate::v1;

/// The type of a field that is a length and so many bytes.
const LENGTH_DELIMITED: u8 = 2;
/// The type of a field that is a varint.
const VARINT: u8 = 0;

/// The key of a field below 16.
const fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

/// Records in one of the forms of the API.
#[derive(Debug, Clone)]
pub struct Payload {
    form: Form,
    /// The payload's message without its length.
    pieces: Vec<Bytes>,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Records,
    KafkaBatches,
    ArrowIpc,
}

impl Payload {
    /// Whole record batches, in pieces that follow each other.
    pub fn kafka_batches(batches: Vec<Bytes>) -> Self {
        let mut head = BytesMut::new();
        let length: usize = batches.iter().map(Bytes::len).sum();
        put_length(&mut head, 1, length);
        Self { form: Form::KafkaBatches, pieces: std::iter::once(head.freeze()).chain(batches).collect() }
    }

    /// An Arrow IPC stream of so many records, in pieces that follow each other.
    pub fn arrow_ipc(stream: Vec<Bytes>, records: u64) -> Self {
        let mut head = BytesMut::new();
        head.put_u8(key(2, VARINT));
        encode_varint(records, &mut head);
        put_length(&mut head, 1, stream.iter().map(Bytes::len).sum());
        Self { form: Form::ArrowIpc, pieces: std::iter::once(head.freeze()).chain(stream).collect() }
    }

    /// Bytes of the message without its length.
    pub fn size_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Its field in `ConsumeBatch`.
    fn field_of_batch(&self) -> u8 {
        match self.form {
            Form::Records => 2,
            Form::KafkaBatches => 3,
            Form::ArrowIpc => 7,
        }
    }

    /// Its field in `FetchResponse`.
    fn field_of_fetch(&self) -> u8 {
        match self.form {
            Form::Records => 1,
            Form::KafkaBatches => 2,
            Form::ArrowIpc => 6,
        }
    }

    /// As a field, with its key and length.
    fn field_bytes(&self) -> usize {
        field_bytes(self.size_bytes())
    }

    fn put(&self, field: u8, out: &mut impl BufMut) {
        put_length(out, field, self.size_bytes());
        self.pieces.iter().for_each(|piece| out.put_slice(piece));
    }
}

/// What a field below 16 of so many bytes takes with its key and length.
fn field_bytes(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn put_length(out: &mut impl BufMut, field: u8, length: usize) {
    out.put_u8(key(field, LENGTH_DELIMITED));
    encode_varint(length as u64, out);
}

fn put_bytes(out: &mut BytesMut, field: u8, bytes: &[u8]) {
    put_length(out, field, bytes.len());
    out.put_slice(bytes);
}

/// One record as it goes out; what was not asked for is left out.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingRecord<'a> {
    /// Its place.
    pub offset: i64,
    /// Milliseconds since 1970 and what they mean; `None` for a record without timestamp, or if it is not asked for.
    pub timestamp: Option<(i64, v1::TimestampType)>,
    /// The key; `None` for null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` for null.
    pub value: Option<&'a [u8]>,
}

/// Encodes `Records`, record by record.
#[derive(Debug, Default)]
pub struct RecordsEncoder {
    out: BytesMut,
}

impl RecordsEncoder {
    /// At least what a record takes beside its key, value and headers.
    pub const RECORD_BYTES: usize = 48;
    /// At least what a header takes beside its key and value.
    pub const HEADER_BYTES: usize = 18;

    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: BytesMut::with_capacity(bytes) }
    }

    /// Bytes so far.
    pub fn size_bytes(&self) -> usize {
        self.out.len()
    }

    /// Adds a record with its headers, in order. A header key is UTF-8: others are refused at the edge.
    pub fn push<'h, H>(&mut self, record: OutgoingRecord<'_>, headers: H)
    where
        H: Iterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    {
        let present = |field: Option<&[u8]>| field.map_or(0, |bytes| field_bytes(bytes.len()));
        let header_bytes = |(key, value): (&[u8], Option<&[u8]>)| {
            // The generated code leaves an empty key out.
            let key = if key.is_empty() { 0 } else { field_bytes(key.len()) };
            key + present(value)
        };
        let varint = |value: i64| 1 + encoded_len_varint(value as u64);
        let timestamp = record.timestamp.map_or(0, |(ms, kind)| varint(ms) + varint(i64::from(kind as i32)));
        let length = present(record.key)
            + present(record.value)
            + headers.clone().map(|header| field_bytes(header_bytes(header))).sum::<usize>()
            + timestamp
            + varint(record.offset);

        let out = &mut self.out;
        put_length(out, 1, length);
        if let Some(key) = record.key {
            put_bytes(out, 1, key);
        }
        if let Some(value) = record.value {
            put_bytes(out, 2, value);
        }
        for header in headers {
            put_length(out, 3, header_bytes(header));
            if !header.0.is_empty() {
                put_bytes(out, 1, header.0);
            }
            if let Some(value) = header.1 {
                put_bytes(out, 2, value);
            }
        }
        let mut put_varint = |field: u8, value: i64| {
            out.put_u8(key(field, VARINT));
            encode_varint(value as u64, out);
        };
        if let Some((ms, _)) = record.timestamp {
            put_varint(4, ms);
        }
        put_varint(5, record.offset);
        if let Some((_, kind)) = record.timestamp {
            put_varint(6, i64::from(kind as i32));
        }
    }

    /// All records as a payload, which takes no more memory than about what it has bytes.
    pub fn finish(self) -> Payload {
        let is_roomy = self.out.capacity() > 2 * self.out.len();
        let records = if is_roomy { Bytes::copy_from_slice(&self.out) } else { self.out.freeze() };
        Payload { form: Form::Records, pieces: vec![records] }
    }
}

/// A `ConsumeResponse`.
#[derive(Debug, Default)]
pub struct ConsumeAnswer {
    /// Everything, if there is no payload.
    plain: v1::ConsumeResponse,
    batch: Option<(v1::ConsumeBatch, Payload)>,
}

impl ConsumeAnswer {
    /// Records; `batch` says everything else about them.
    pub fn batch(batch: v1::ConsumeBatch, payload: Payload) -> Self {
        Self { plain: v1::ConsumeResponse::default(), batch: Some((batch, payload)) }
    }
}

impl From<v1::consume_response::Response> for ConsumeAnswer {
    fn from(response: v1::consume_response::Response) -> Self {
        Self { plain: v1::ConsumeResponse { response: Some(response) }, batch: None }
    }
}

impl Message for ConsumeAnswer {
    fn encode_raw(&self, out: &mut impl BufMut) {
        match &self.batch {
            None => self.plain.encode_raw(out),
            Some((batch, payload)) => {
                put_length(out, 1, batch.encoded_len() + payload.field_bytes());
                batch.encode_raw(out);
                payload.put(payload.field_of_batch(), out);
            }
        }
    }

    fn encoded_len(&self) -> usize {
        match &self.batch {
            None => self.plain.encoded_len(),
            Some((batch, payload)) => field_bytes(batch.encoded_len() + payload.field_bytes()),
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl bytes::Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.plain.merge_field(tag, wire_type, buffer, context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A `FetchResponse`.
#[derive(Debug, Default)]
pub struct FetchAnswer {
    plain: v1::FetchResponse,
    payload: Option<Payload>,
}

impl FetchAnswer {
    /// Records; `plain` says everything else about them.
    pub fn new(plain: v1::FetchResponse, payload: Payload) -> Self {
        Self { plain, payload: Some(payload) }
    }
}

impl Message for FetchAnswer {
    fn encode_raw(&self, out: &mut impl BufMut) {
        self.plain.encode_raw(out);
        if let Some(payload) = &self.payload {
            payload.put(payload.field_of_fetch(), out);
        }
    }

    fn encoded_len(&self) -> usize {
        self.plain.encoded_len() + self.payload.as_ref().map_or(0, Payload::field_bytes)
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl bytes::Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.plain.merge_field(tag, wire_type, buffer, context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: &str, value: Option<&'static [u8]>) -> v1::Header {
        v1::Header { key: key.to_owned(), value: value.map(Bytes::from_static) }
    }

    /// Records that differ in everything that may be absent.
    fn records() -> Vec<v1::Record> {
        let record = |offset, timestamp: Option<i64>, key: Option<&'static [u8]>, value: Option<Vec<u8>>| v1::Record {
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from),
            headers: Vec::new(),
            timestamp,
            offset: Some(offset),
            timestamp_type: timestamp.map_or(0, |_| v1::TimestampType::CreateTime as i32),
        };
        let headers = vec![header("b", Some(b"1")), header("a", None), header("b", Some(b"")), header("", Some(b"x"))];
        vec![
            record(0, Some(0), None, None),
            record(127, Some(1_700_000_000_000), Some(b""), Some(Vec::new())),
            v1::Record { headers, ..record(i64::MAX, Some(i64::MAX / 1000), Some(b"key"), Some(vec![7; 100_000])) },
            record(5, None, None, Some(vec![1; 127])),
            record(6, None, Some(b"k"), Some(vec![1; 128])),
        ]
    }

    fn encoded(records: &[v1::Record]) -> Payload {
        let mut encoder = RecordsEncoder::default();
        for record in records {
            let before = encoder.size_bytes();
            let timestamp = record.timestamp.map(|ms| (ms, record.timestamp_type()));
            let outgoing = OutgoingRecord {
                offset: record.offset.unwrap(),
                timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
            };
            encoder
                .push(outgoing, record.headers.iter().map(|header| (header.key.as_bytes(), header.value.as_deref())));
            let field = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
            let headers = record.headers.iter().map(|h| h.key.len() + field(&h.value) + RecordsEncoder::HEADER_BYTES);
            let bound =
                field(&record.key) + field(&record.value) + headers.sum::<usize>() + RecordsEncoder::RECORD_BYTES;
            assert!(encoder.size_bytes() - before <= bound, "the overheads that are stated are enough");
        }
        encoder.finish()
    }

    fn batch() -> v1::ConsumeBatch {
        v1::ConsumeBatch {
            partition: 300,
            next_offset: 1 << 40,
            high_watermark: i64::MAX,
            resume_token: Bytes::from_static(b"token"),
            payload: None,
        }
    }

    fn forms() -> Vec<(Payload, v1::consume_batch::Payload, v1::fetch_response::Payload)> {
        let records = v1::Records { records: records() };
        let batches = v1::KafkaBatches { data: Bytes::from_static(b"onetwo") };
        let arrow = v1::ArrowIpc { data: Bytes::from(vec![3; 70_000]), records: 300 };
        let pieces = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        vec![
            (
                encoded(&records.records),
                v1::consume_batch::Payload::Records(records.clone()),
                v1::fetch_response::Payload::Records(records),
            ),
            (
                Payload::kafka_batches(pieces),
                v1::consume_batch::Payload::KafkaBatches(batches.clone()),
                v1::fetch_response::Payload::KafkaBatches(batches),
            ),
            (
                Payload::arrow_ipc(vec![arrow.data.slice(..1), arrow.data.slice(1..)], arrow.records),
                v1::consume_batch::Payload::ArrowIpc(arrow.clone()),
                v1::fetch_response::Payload::ArrowIpc(arrow),
            ),
        ]
    }

    #[test]
    fn an_answer_is_on_the_wire_what_the_generated_message_is() {
        for (payload, of_batch, of_fetch) in forms() {
            let consume = ConsumeAnswer::batch(batch(), payload.clone());
            let bytes = consume.encode_to_vec();
            assert_eq!(bytes.len(), consume.encoded_len());
            let expected = v1::ConsumeBatch { payload: Some(of_batch), ..batch() };
            let expected = v1::ConsumeResponse { response: Some(v1::consume_response::Response::Batch(expected)) };
            assert_eq!(v1::ConsumeResponse::decode(&bytes[..]).unwrap(), expected);
            assert_eq!(bytes.len(), expected.encoded_len(), "nothing is written twice");

            let plain = v1::FetchResponse { next_offset: 7, high_watermark: 8, log_start_offset: 1, payload: None };
            let fetch = FetchAnswer::new(plain.clone(), payload);
            let bytes = fetch.encode_to_vec();
            assert_eq!(bytes.len(), fetch.encoded_len());
            let expected = v1::FetchResponse { payload: Some(of_fetch), ..plain };
            assert_eq!(v1::FetchResponse::decode(&bytes[..]).unwrap(), expected);
        }
    }

    #[test]
    fn an_answer_without_records_is_the_generated_message() {
        let ack = v1::ConsumeSeekAck { seek_id: 3, partition: 1, next_offset: 2 };
        let response = v1::consume_response::Response::SeekAck(ack);
        let answer = ConsumeAnswer::from(response.clone());
        let expected = v1::ConsumeResponse { response: Some(response) };
        assert_eq!(answer.encode_to_vec(), expected.encode_to_vec());
        assert_eq!(ConsumeAnswer::decode(&expected.encode_to_vec()[..]).unwrap().plain, expected);
    }
}
