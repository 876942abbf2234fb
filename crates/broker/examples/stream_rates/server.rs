//! The process that is measured: an echo and a broker.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::{Stream, StreamExt};
use lakebed_broker::services::consume_service_server::{ConsumeService, ConsumeServiceServer};
use lakebed_broker::services::produce_service_server::{ProduceService, ProduceServiceServer};
use lakebed_broker::topics::NewTopic;
use lakebed_broker::{Broker, Config};
use lakebed_wire::outgoing::{ConsumeAnswer, FetchAnswer, OutgoingRecord, Payload, RecordsEncoder};
use lakebed_wire::received::{self, ProduceStreamRequest, StreamRequest};
use lakebed_wire::v1;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{RECORD_BYTES, RECORDS, SINGLE_BYTES, TOPIC, records};

/// Batches in a message of the echo, as many as a broker sends in one.
const BATCHES_PER_MESSAGE: usize = 15;

/// Answers every batch at once; to a consumer it sends for as long as that reads: messages of whole batches, if it asks for those, else
/// single records.
struct Echo;

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ProduceService for Echo {
    type ProduceStreamStream = Boxed<v1::ProduceStreamResponse>;

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

#[tonic::async_trait]
impl ConsumeService for Echo {
    type ConsumeStream = Boxed<ConsumeAnswer>;

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<FetchAnswer>, Status> {
        Ok(Response::new(FetchAnswer::default()))
    }

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        use v1::consume_request::Request as Say;
        let first = request.into_inner().next().await.transpose()?.and_then(|first| first.request);
        if matches!(first, Some(Say::Init(init)) if init.format() == v1::Format::KafkaBatches) {
            let (_, batch) = records(RECORDS, RECORD_BYTES);
            let messages = (1..).map(move |count| {
                let next_offset = count * (BATCHES_PER_MESSAGE * RECORDS) as i64;
                let batches = Payload::kafka_batches(vec![batch.clone(); BATCHES_PER_MESSAGE]);
                Ok(ConsumeAnswer::batch(v1::ConsumeBatch { next_offset, ..Default::default() }, batches))
            });
            return Ok(Response::new(Box::pin(futures::stream::iter(messages))));
        }
        let value = vec![b'x'; SINGLE_BYTES];
        let messages = (0..).map(move |offset| {
            let mut records = RecordsEncoder::with_capacity(SINGLE_BYTES + RecordsEncoder::RECORD_BYTES);
            let timestamp = Some((1_700_000_000_000, v1::TimestampType::CreateTime));
            records.push(OutgoingRecord { offset, timestamp, key: None, value: Some(&value) }, std::iter::empty());
            let batch = v1::ConsumeBatch { next_offset: offset + 1, ..v1::ConsumeBatch::default() };
            Ok(ConsumeAnswer::batch(batch, records.finish()))
        });
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }
}

/// Serves until this process is killed by the one that measures; prints where.
pub(crate) async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener)
        .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(ProduceServiceServer::new(Echo))
        .add_service(ConsumeServiceServer::new(Echo))
        .serve_with_incoming(incoming);
    let broker = Broker::start(Config::default()).await.unwrap();
    let new = NewTopic { name: TOPIC.to_owned(), partitions: Some(1), config: Default::default() };
    broker.rooms().topics.create(new, false).await.unwrap();
    println!("{echo} {} {}", broker.http_address(), broker.kafka_address());
    let (served, ran) = tokio::join!(server, broker.run_until(std::future::pending()));
    served.unwrap();
    ran.unwrap();
}

/// What a server takes at most while it is measured.
const TOUCHED_BYTES: usize = 2 << 30;

/// A server process; killed when it is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) echo: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) kafka: SocketAddr,
}

impl Server {
    /// Starts one, after so much memory as it may take has been used: a virtual machine may have lent out what was long unused, and
    /// to get it back is no part of what is measured.
    pub(crate) fn spawn() -> Self {
        drop(std::hint::black_box(vec![1_u8; TOUCHED_BYTES]));
        let program = std::env::current_exe().unwrap();
        let mut process = Command::new(program).arg("serve").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addresses: Vec<SocketAddr> = line.split_whitespace().map(|address| address.parse().unwrap()).collect();
        let [echo, http, kafka] = addresses.try_into().unwrap();
        Self { process, echo, http, kafka }
    }

    /// Its processor time so far (`man 5 proc`: fields 14 and 15, in hundredths of a second).
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let behind_name = stat.rsplit_once(')').unwrap().1;
        let fields = behind_name.split_whitespace().skip(11).take(2);
        Duration::from_millis(fields.map(|field| field.parse::<u64>().unwrap() * 10).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
