//! How fast `ProduceStream` is, beside what it is compared with, in the same run: a bare tonic echo of the same messages for single
//! records, and Kafka's Produce for batches of 64 records of 1 KiB. Servers are in a process of their own, so that their processor
//! time can be told; the store is memory.
//!
//! `cargo run --release -p lakebed-broker --example produce_rate [SECONDS]`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints, and may stop where it is surprised"
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use lakebed_broker::services::produce_service_server::{ProduceService, ProduceServiceServer};
use lakebed_broker::topics::NewTopic;
use lakebed_broker::{Broker, Config};
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
use lakebed_wire::received::{self, ProduceStreamRequest, StreamRequest};
use lakebed_wire::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};

const TOPIC: &str = "rate";
/// Records of a batch, and bytes of a record.
const RECORDS: usize = 64;
const RECORD_BYTES: usize = 1024;

/// Answers every batch at once.
struct Echo;

#[tonic::async_trait]
impl ProduceService for Echo {
    type ProduceStreamStream = Pin<Box<dyn Stream<Item = Result<v1::ProduceStreamResponse, Status>> + Send>>;

    async fn produce(&self, _: Request<received::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        Ok(Response::new(v1::ProduceResponse::default()))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        use v1::produce_stream_response::Response as Hear;
        let answers = request.into_inner().map(|request| {
            let response = match request?.request {
                Some(StreamRequest::Batch(batch)) => Hear::Ack(v1::ProduceAck {
                    correlation_id: batch.correlation_id,
                    base_offset: 1_000_000,
                    last_offset: 1_000_000,
                    ..v1::ProduceAck::default()
                }),
                _ => Hear::InitAck(v1::ProduceInitAck::default()),
            };
            Ok(v1::ProduceStreamResponse { response: Some(response) })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Serves the echo and a broker, and prints where.
async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener)
        .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(ProduceServiceServer::new(Echo))
        .serve_with_incoming(incoming);
    let broker = Broker::start(Config::default()).await.unwrap();
    let new = NewTopic { name: TOPIC.to_owned(), partitions: Some(1), config: Default::default() };
    broker.rooms().topics.create(new, false).await.unwrap();
    println!("{echo} {} {}", broker.http_address(), broker.kafka_address());
    // Until this process is killed by the one that measures.
    let (served, ran) = tokio::join!(server, broker.run_until(std::future::pending()));
    served.unwrap();
    ran.unwrap();
}

/// What was done within the time, and what it cost the servers.
struct Measured {
    batches: u64,
    elapsed: Duration,
    cpu: Duration,
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.batches as f64 / self.elapsed.as_secs_f64()
    }

    fn gib(&self) -> f64 {
        (self.batches as usize * RECORDS * RECORD_BYTES) as f64 / f64::from(1 << 30)
    }
}

/// Processor time of a process (`man 5 proc`: fields 14 and 15, in hundredths of a second).
fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 = behind_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Sends a batch again and again over one stream, `in_flight` at a time.
async fn stream(address: SocketAddr, pid: u32, payload: Bytes, in_flight: usize, time: Duration) -> Measured {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true);
    let endpoint = endpoint.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
    let mut grpc = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    // Messages as they are decoded by a broker: the records are encoded once.
    let codec: tonic_prost::ProstCodec<ProduceStreamRequest, v1::ProduceStreamResponse> = Default::default();
    let (requests, receiver) = mpsc::channel(in_flight);
    let path = PathAndQuery::from_static("/lakebed.v1.ProduceService/ProduceStream");
    let opened = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, codec).await;
    let mut responses = opened.unwrap().into_inner();
    let init = v1::ProduceInit { topic: TOPIC.to_owned(), partition: Some(0) };
    requests.send(ProduceStreamRequest { request: Some(StreamRequest::Init(init)) }).await.unwrap();
    responses.next().await.unwrap().unwrap();
    let batch = |correlation_id| ProduceStreamRequest {
        request: Some(StreamRequest::Batch(received::ProduceBatch {
            correlation_id,
            payload: received::Payload { last: Some(received::Content::Records(payload.clone())), pieces: 1 },
            ..received::ProduceBatch::default()
        })),
    };
    let (begun, cpu_before) = (Instant::now(), cpu_of(pid));
    let mut sent = 0;
    while sent < in_flight as u64 {
        requests.send(batch(sent)).await.unwrap();
        sent += 1;
    }
    let mut answered = 0;
    while answered < sent {
        let response = responses.next().await.unwrap().unwrap().response;
        let Some(v1::produce_stream_response::Response::Ack(ack)) = response else { panic!("{response:?}") };
        assert_eq!(ack.correlation_id, answered);
        answered += 1;
        if begun.elapsed() < time {
            requests.send(batch(sent)).await.unwrap();
            sent += 1;
        }
    }
    Measured { batches: answered, elapsed: begun.elapsed(), cpu: cpu_of(pid) - cpu_before }
}

/// The same over Kafka's protocol, a batch a request.
async fn kafka(address: SocketAddr, pid: u32, batch: Bytes, in_flight: usize, time: Duration) -> Measured {
    let part = PartitionProduceData::default().with_index(0).with_records(Some(batch));
    let name = TopicName(StrBytes::from_static_str(TOPIC));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![part]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(60_000).with_topic_data(vec![topic]);
    let mut body = BytesMut::new();
    let header = RequestHeader::default().with_request_api_key(ApiKey::Produce as i16).with_request_api_version(9);
    header.encode(&mut body, 2).unwrap();
    request.encode(&mut body, 9).unwrap();
    let frame = [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (begun, cpu_before) = (Instant::now(), cpu_of(pid));
    let (mut sent, mut answered) = (0, 0_u64);
    let mut answer = Vec::new();
    while sent < in_flight as u64 {
        stream.write_all(&frame).await.unwrap();
        sent += 1;
    }
    while answered < sent {
        let length = stream.read_u32().await.unwrap();
        answer.resize(length as usize, 0);
        stream.read_exact(&mut answer).await.unwrap();
        answered += 1;
        if begun.elapsed() < time {
            stream.write_all(&frame).await.unwrap();
            sent += 1;
        }
    }
    Measured { batches: answered, elapsed: begun.elapsed(), cpu: cpu_of(pid) - cpu_before }
}

fn records(count: usize, bytes: usize) -> (Bytes, Bytes) {
    use prost::Message;
    let value: Bytes = (0..bytes).map(|at| b"0123456789abcdefghijklmnop"[at * 7 % 26]).collect();
    let record = v1::Record { value: Some(value.clone()), ..v1::Record::default() };
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, count * (bytes + 16));
    for offset in 0..count {
        let record = Record { offset: offset as i64, timestamp_ms: -1, key: None, value: Some(&value) };
        encoder.push(record, []).unwrap();
    }
    (v1::Records { records: vec![record; count] }.encode_to_vec().into(), encoder.finish().unwrap())
}

fn spawn() -> (Child, [SocketAddr; 3]) {
    let mut child = Command::new(std::env::current_exe().unwrap()).arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addresses: Vec<SocketAddr> = line.split_whitespace().map(|address| address.parse().unwrap()).collect();
    (child, addresses.try_into().unwrap())
}

#[tokio::main]
async fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("serve") {
        return serve().await;
    }
    let time = Duration::from_secs(argument.map_or(5, |seconds| seconds.parse().unwrap()));
    let (mut child, [echo, http, kafka_address]) = spawn();
    let pid = child.id();
    let (single, _) = records(1, 100);
    let (many, batch) = records(RECORDS, RECORD_BYTES);
    for round in 1..=2 {
        println!("round {round}");
        let echoed = stream(echo, pid, single.clone(), 64, time).await;
        let taken = stream(http, pid, single.clone(), 64, time).await;
        println!("echo     {:>9.0} messages/s, {:.2} us of processor each", echoed.per_second(), micros(&echoed));
        println!("single   {:>9.0} messages/s, {:.2} us of processor each", taken.per_second(), micros(&taken));
        println!("         {:.2} of the echo", taken.per_second() / echoed.per_second());
        let by_kafka = kafka(kafka_address, pid, batch.clone(), 16, time).await;
        let streamed = stream(http, pid, many.clone(), 16, time).await;
        let cost = |measured: &Measured| measured.cpu.as_secs_f64() / measured.gib();
        let speed = |measured: &Measured| measured.gib() * 1_073.741_824 / measured.elapsed.as_secs_f64();
        println!("kafka    {:>9.0} MB/s, {:.2} s of processor a GiB", speed(&by_kafka), cost(&by_kafka));
        println!("streamed {:>9.0} MB/s, {:.2} s of processor a GiB", speed(&streamed), cost(&streamed));
        let (speed, cost) = (speed(&streamed) / speed(&by_kafka), cost(&streamed) / cost(&by_kafka));
        println!("         {speed:.2} of the throughput, {cost:.2} of the processor time");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn micros(measured: &Measured) -> f64 {
    measured.cpu.as_secs_f64() * 1e6 / measured.batches as f64
}
