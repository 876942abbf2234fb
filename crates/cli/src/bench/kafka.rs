//! The bench over Kafka's protocol: one connection a partition that produces, one a consumer that follows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

use super::pool::Pool;
use super::{Report, histogram, micros};
use crate::args::BenchArgs;
use crate::failure::Failure;

const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
/// Bytes asked for in one fetch.
const FETCH_BYTES: i32 = 4 << 20;

pub(super) async fn run(args: &BenchArgs) -> Result<Report, Failure> {
    let pool = Arc::new(Pool::new(args.record, args.batch)?);
    let starts = make_topic(args).await?;
    let per_partition = (args.volume as u64 / pool.value_bytes.max(1) / starts.len() as u64).max(1);
    let began = Instant::now();
    let deadline = began + Duration::from_secs(args.seconds_max);
    let mut producers = Vec::new();
    let mut consumers = Vec::new();
    for (partition, start) in (0_i32..).zip(starts) {
        let written = Arc::new(AtomicU64::new(u64::MAX));
        let job = Job { args: JobArgs::of(args)?, pool: Arc::clone(&pool), partition, start, batches: per_partition };
        for _ in 0..args.consumers {
            consumers.push(tokio::spawn(follow(job.clone(), Arc::clone(&written))));
        }
        producers.push(tokio::spawn(produce(job, deadline, written)));
    }
    let mut report = Report {
        what: "kafka",
        records: 0,
        bytes: 0,
        elapsed: Duration::ZERO,
        latency_us: histogram(),
        verified_bytes: 0,
    };
    for producer in producers {
        let (batches, latency) = joined(producer.await)?;
        report.records += batches * u64::from(pool.records);
        report.bytes += batches * pool.value_bytes;
        report.latency_us.add(&latency).map_err(|error| Failure::new("latencies can't be added").cause(error))?;
    }
    for consumer in consumers {
        report.verified_bytes += joined(consumer.await)?;
    }
    report.elapsed = began.elapsed();
    Ok(report)
}

fn joined<T>(result: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new("a part of the bench ended before its time").cause(error))?
}

/// Makes the topic if it is not there; answers where each partition ends.
pub(super) async fn make_topic(args: &BenchArgs) -> Result<Vec<i64>, Failure> {
    let (client, server) = args.server.connect().await?;
    let partitions = i32::try_from(args.partitions).unwrap_or(i32::MAX);
    match client.create_topic(&args.topic, Some(partitions), Default::default()).await {
        Ok(_) => {}
        Err(error) if error.reason() == "TOPIC_ALREADY_EXISTS" => {}
        Err(error) => return Err(Failure::call(format!("topic {} can't be made", args.topic), &server, &error)),
    }
    let described = client.describe_topic(&args.topic).await;
    let described = described.map_err(|error| Failure::call("the topic can't be described", &server, &error))?;
    let starts: Vec<i64> = described.partitions.iter().map(|partition| partition.latest_offset).collect();
    if starts.len() == args.partitions as usize {
        Ok(starts)
    } else {
        let what = format!(
            "topic {} has {} partitions, not the {} of --partitions",
            args.topic,
            starts.len(),
            args.partitions
        );
        Err(Failure::new(what).remedy("name another topic with --topic"))
    }
}

#[derive(Clone)]
struct JobArgs {
    address: String,
    topic: TopicName,
    in_flight: usize,
}

impl JobArgs {
    fn of(args: &BenchArgs) -> Result<Self, Failure> {
        let topic = TopicName(StrBytes::from_string(args.topic.clone()));
        let address = args.kafka.clone().map_or_else(|| args.server.find().map(|server| server.kafka), Ok)?;
        Ok(Self { address, topic, in_flight: args.in_flight.max(1) })
    }
}

/// What one connection does.
#[derive(Clone)]
struct Job {
    args: JobArgs,
    pool: Arc<Pool>,
    partition: i32,
    start: i64,
    batches: u64,
}

/// Writes batches, keeping `in_flight` requests outstanding; answers how many, and how long each took.
async fn produce(
    job: Job,
    deadline: Instant,
    written: Arc<AtomicU64>,
) -> Result<(u64, hdrhistogram::Histogram<u64>), Failure> {
    let mut connection = Connection::open(&job.args.address).await?;
    let mut latency = histogram();
    let mut sent_at: VecDeque<Instant> = VecDeque::new();
    let (mut sent, mut acknowledged) = (0_u64, 0_u64);
    loop {
        let more = sent < job.batches && Instant::now() < deadline;
        if more && sent_at.len() < job.args.in_flight {
            let head = produce_head(&job, sent)?;
            sent_at.push_back(Instant::now());
            connection.send(&head, job.pool.batch(sent), &PRODUCE_TAIL).await?;
            sent += 1;
            continue;
        }
        let Some(begun) = sent_at.pop_front() else { break };
        let mut answer = connection.receive(ApiKey::Produce, PRODUCE_VERSION).await?;
        latency.saturating_record(micros(begun.elapsed()));
        check_acknowledgement(&job, &mut answer, acknowledged)?;
        acknowledged += 1;
    }
    written.store(acknowledged, Ordering::Release);
    Ok((acknowledged, latency))
}

/// What follows the records in a Produce v9 request of one partition: empty tagged fields of partition, topic and request.
const PRODUCE_TAIL: [u8; 3] = [0, 0, 0];

/// Everything of a Produce request before its records.
fn produce_head(job: &Job, index: u64) -> Result<Bytes, Failure> {
    let records = Bytes::copy_from_slice(&[]);
    let data = PartitionProduceData::default().with_index(job.partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(job.args.topic.clone()).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    let correlation_id = (index & 0x7fff_ffff) as i32;
    let mut head = request_frame(ApiKey::Produce, PRODUCE_VERSION, correlation_id, &request)?;
    // The frame ends in the length of the (empty) records and three empty tag lists: cut these, write the true length.
    head.truncate(head.len() - PRODUCE_TAIL.len() - 1);
    put_varint(&mut head, job.pool.batch(index).len() as u64 + 1);
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

/// Reads what is written until all of it has come back, and compares it; answers how many bytes of values it compared.
async fn follow(job: Job, written: Arc<AtomicU64>) -> Result<u64, Failure> {
    let mut connection = Connection::open(&job.args.address).await?;
    let mut offset = job.start;
    let (mut verified, mut correlation_id) = (0_u64, 0);
    loop {
        let batches = written.load(Ordering::Acquire);
        let read = (offset - job.start) as u64;
        if batches != u64::MAX && read >= batches * u64::from(job.pool.records) {
            return Ok(verified);
        }
        let partition = FetchPartition::default()
            .with_partition(job.partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(FETCH_BYTES);
        let topic = FetchTopic::default().with_topic(job.args.topic.clone()).with_partitions(vec![partition]);
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
        let (next, bytes) = compare(&job, records, offset)?;
        offset = next;
        verified += bytes;
    }
}

/// Compares record batches with what was written from `offset` on; answers where to go on and how many bytes of values it was.
fn compare(job: &Job, mut records: Bytes, mut offset: i64) -> Result<(i64, u64), Failure> {
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
        let sent = job.pool.batch(index);
        if base == offset
            && ((base - job.start) as u64).is_multiple_of(u64::from(job.pool.records))
            && batch[UNCOVERED..] == sent[UNCOVERED..]
        {
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
            let expected = job.pool.value((record.offset - job.start) as u64);
            if record.offset != offset || record.value.as_ref() != Some(expected) {
                return Err(differs(record.offset));
            }
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
