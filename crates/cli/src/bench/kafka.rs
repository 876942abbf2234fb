//! The bench over Kafka's protocol: one connection a partition that produces, one a consumer that follows.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::RecordBatchDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::hash::{Hash, Reader};
use super::load::{Followed, Job, Written};
use super::{histogram, micros};
use crate::failure::Failure;

const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
/// Bytes asked for in one fetch.
const FETCH_BYTES: i32 = 4 << 20;

/// Writes batches, keeping `in_flight` requests outstanding.
pub(super) async fn produce(job: &Job) -> Result<Written, Failure> {
    let mut connection = Connection::open(&job.kafka).await?;
    let mut written = Written { batches: 0, latency_us: histogram(), hash: Hash::EMPTY };
    let mut sent_at: VecDeque<Instant> = VecDeque::new();
    let (mut sent, mut one) = (0_u64, [0]);
    loop {
        let may_send = sent_at.len() < job.in_flight && job.has_more(sent);
        let waits_until = if may_send { job.waits_until(sent) } else { None };
        if may_send && waits_until.is_none() {
            let head = produce_head(job, sent)?;
            sent_at.push_back(job.sending(sent));
            connection.send(&head, job.batch(sent), &PRODUCE_TAIL).await?;
            sent += 1;
            continue;
        }
        if sent_at.is_empty() && waits_until.is_none() {
            return Ok(written);
        }
        tokio::select! {
            biased;
            // A byte has come: the rest of the answer is on its way.
            ready = connection.stream.peek(&mut one), if !sent_at.is_empty() => {
                ready.map_err(|error| Failure::new("the connection broke").cause(error))?;
                let mut answer = connection.receive(ApiKey::Produce, PRODUCE_VERSION).await?;
                check_acknowledgement(job, &mut answer, written.batches)?;
                let from = sent_at.pop_front().expect("there is a request that is not answered");
                job.acknowledged(from, &mut written);
            }
            () = sleep_until(waits_until.unwrap_or_else(Instant::now)), if waits_until.is_some() => {}
        }
    }
}

/// What follows the records in a Produce v9 request of one partition: empty tagged fields of partition, topic and request.
const PRODUCE_TAIL: [u8; 3] = [0, 0, 0];

fn topic_name(job: &Job) -> TopicName {
    TopicName(StrBytes::from_string(job.topic.clone()))
}

/// Everything of a Produce request before its records.
fn produce_head(job: &Job, index: u64) -> Result<Bytes, Failure> {
    let records = Bytes::copy_from_slice(&[]);
    let data = PartitionProduceData::default().with_index(job.partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(topic_name(job)).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    let correlation_id = (index & 0x7fff_ffff) as i32;
    let mut head = request_frame(ApiKey::Produce, PRODUCE_VERSION, correlation_id, &request)?;
    // The frame ends in the length of the (empty) records and three empty tag lists: cut these, write the true length.
    head.truncate(head.len() - PRODUCE_TAIL.len() - 1);
    put_varint(&mut head, job.batch(index).len() as u64 + 1);
    Ok(head.freeze())
}

fn put_varint(buffer: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

fn check_acknowledgement(job: &Job, answer: &mut Bytes, index: u64) -> Result<(), Failure> {
    let response = ProduceResponse::decode(answer, PRODUCE_VERSION).map_err(malformed)?;
    let partition = response.responses.first().and_then(|topic| topic.partition_responses.first());
    let partition = partition.ok_or_else(|| Failure::new("an acknowledgement names no partition"))?;
    let expected = job.start + (index * u64::from(job.pool.records)) as i64;
    if partition.error_code != 0 {
        let what = format!(
            "batch {index} of partition {} was refused with Kafka error {}",
            job.partition, partition.error_code
        );
        return Err(Failure::new(what));
    }
    if partition.base_offset != expected {
        let what = format!(
            "batch {index} of partition {} got offset {}, not {expected}",
            job.partition, partition.base_offset
        );
        return Err(Failure::new(what).remedy("let nobody else write to the topic of a bench"));
    }
    Ok(())
}

/// Reads what is written until all of it has come back, and compares it.
pub(super) async fn follow(job: &Job) -> Result<Followed, Failure> {
    let mut connection = Connection::open(&job.kafka).await?;
    let mut followed = Followed::new();
    let mut reader = Reader::new(job.pool.records);
    let (mut offset, mut correlation_id) = (job.start, 0);
    let mut waiting_since = Instant::now();
    while !job.has_all(offset) {
        let partition = FetchPartition::default()
            .with_partition(job.partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(FETCH_BYTES);
        let topic = FetchTopic::default().with_topic(topic_name(job)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let frame = request_frame(ApiKey::Fetch, FETCH_VERSION, correlation_id, &request)?.freeze();
        correlation_id = correlation_id.wrapping_add(1) & 0x7fff_ffff;
        connection.send(&frame, &Bytes::new(), &[]).await?;
        let mut answer = connection.receive(ApiKey::Fetch, FETCH_VERSION).await?;
        let response = FetchResponse::decode(&mut answer, FETCH_VERSION).map_err(malformed)?;
        let partition = response.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        let partition = partition.ok_or_else(|| Failure::new("a fetch names no partition"))?;
        if partition.error_code != 0 {
            return Err(Failure::new(format!(
                "a fetch at {offset} was refused with Kafka error {}",
                partition.error_code
            )));
        }
        let records = partition.records.unwrap_or_default();
        if !records.is_empty() {
            followed.waits_us.saturating_record(micros(waiting_since.elapsed()));
            waiting_since = Instant::now();
        }
        let (next, bytes) = compare(job, records, offset, &mut reader)?;
        job.arrived(offset, next, &mut followed);
        offset = next;
        followed.bytes += bytes;
    }
    followed.hash = reader.hash();
    Ok(followed)
}

/// Compares record batches with what was written from `offset` on; answers where to go on and how many bytes of values it was.
pub(super) fn compare(
    job: &Job,
    mut records: Bytes,
    mut offset: i64,
    reader: &mut Reader,
) -> Result<(i64, u64), Failure> {
    /// Bytes of a batch that precede what its checksum covers, with the base offset, length, leader epoch, magic and checksum.
    const UNCOVERED: usize = 21;
    let differs =
        |offset: i64| Failure::new(format!("what came back at offset {offset} differs from what was written"));
    let mut bytes = 0;
    while records.len() >= 61 {
        let base = i64::from_be_bytes(records[..8].try_into().expect("eight bytes"));
        let length = 12 + i32::from_be_bytes(records[8..12].try_into().expect("four bytes")).max(0) as usize;
        if length > records.len() {
            break;
        }
        let batch = records.split_to(length);
        let index = (base - job.start) as u64 / u64::from(job.pool.records);
        let sent = job.batch(index);
        if base == offset
            && ((base - job.start) as u64).is_multiple_of(u64::from(job.pool.records))
            && batch[UNCOVERED..] == sent[UNCOVERED..]
        {
            reader.batch(job.hash(index));
            offset += i64::from(job.pool.records);
            bytes += job.pool.value_bytes;
            continue;
        }
        // Not the producer's own batch: rebuilt from the store, so compare records.
        let decoded = RecordBatchDecoder::decode(&mut batch.clone()).map_err(|error| differs(base).cause(error))?;
        for record in decoded.records {
            if record.offset < offset {
                continue;
            }
            let expected = job.value((record.offset - job.start) as u64);
            if record.offset != offset || record.value.as_ref() != Some(expected) {
                return Err(differs(record.offset));
            }
            reader.record(expected);
            offset += 1;
            bytes += expected.len() as u64;
        }
    }
    Ok((offset, bytes))
}

fn malformed(error: impl std::fmt::Display) -> Failure {
    Failure::new("an answer can't be decoded").cause(error)
}

/// A request without its length prefix: header and body.
fn request_frame(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    request: &impl Encodable,
) -> Result<BytesMut, Failure> {
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("lakebed-bench")));
    let encoded = header
        .encode(&mut frame, api.request_header_version(version))
        .and_then(|()| request.encode(&mut frame, version));
    encoded.map_err(|error| Failure::new("a request can't be encoded").cause(error))?;
    Ok(frame)
}

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    async fn open(address: &str) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::new(format!("no Kafka connection to {address}"))
                .cause(error)
                .remedy("name the broker's Kafka address with --kafka")
        };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self { stream, buffer: BytesMut::new() })
    }

    async fn send(&mut self, head: &Bytes, records: &Bytes, tail: &[u8]) -> Result<(), Failure> {
        let length = head.len() + records.len() + tail.len();
        let length = i32::try_from(length).map_err(|_| Failure::new("a request larger than 2 GiB"))?.to_be_bytes();
        let mut parts = Buf::chain(&length[..], head.clone()).chain(records.clone()).chain(tail);
        while parts.has_remaining() {
            self.stream
                .write_buf(&mut parts)
                .await
                .map_err(|error| Failure::new("the connection broke").cause(error))?;
        }
        Ok(())
    }

    /// The body of the next answer.
    async fn receive(&mut self, api: ApiKey, version: i16) -> Result<Bytes, Failure> {
        let broke = |error: std::io::Error| Failure::new("the connection broke").cause(error);
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.map_err(broke)?;
        let length = i32::from_be_bytes(length).max(0) as usize;
        self.buffer.clear();
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer).await.map_err(broke)?;
        let mut answer = self.buffer.split().freeze();
        // Correlation id, and an empty list of tags where the header is flexible.
        let header = if api.response_header_version(version) >= 1 { 5 } else { 4 };
        if answer.len() < header {
            return Err(Failure::new("an answer without a header"));
        }
        answer.advance(header);
        Ok(answer)
    }
}
