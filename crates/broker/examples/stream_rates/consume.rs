//! Consumers over `Consume`, of what a broker holds in memory, and of what is written meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lakebed_wire::v1::consume_request::Request as Say;
use lakebed_wire::v1::{self, start_position::Position};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::produce::connect;
use crate::server::Server;
use crate::{BATCHES_IN_FLIGHT, Measured, Meter, RECORDS, SINGLES_IN_FLIGHT, TOPIC, kafka, produce};

/// How long a log is written that is read then: little enough that all of it stays in memory.
const FILL: Duration = Duration::from_millis(50);
const FILL_SINGLES: Duration = Duration::from_millis(300);
/// Credit of a consumer, again and again.
const CREDIT_BYTES: u64 = 16 << 20;

/// `ConsumeResponse` with records left as they came: what is measured is the server.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    batch: Option<Batch>,
}

/// `ConsumeBatch`, likewise; all payloads are messages.
#[derive(Clone, PartialEq, prost::Message)]
struct Batch {
    #[prost(bytes = "bytes", optional, tag = "2")]
    records: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    kafka_batches: Option<Bytes>,
    #[prost(int64, tag = "4")]
    next_offset: i64,
    #[prost(bytes = "bytes", optional, tag = "7")]
    arrow_ipc: Option<Bytes>,
}

impl Batch {
    fn bytes(&self) -> usize {
        [&self.records, &self.kafka_batches, &self.arrow_ipc].into_iter().flatten().map(Bytes::len).sum()
    }
}

/// A consumer of partition 0.
struct Consumer {
    says: mpsc::Sender<v1::ConsumeRequest>,
    hears: Streaming<Answer>,
    granted: u64,
    next: i64,
}

fn at(offset: i64) -> Option<v1::StartPosition> {
    Some(v1::StartPosition { position: Some(Position::Offset(offset)) })
}

impl Consumer {
    async fn open(address: SocketAddr, format: v1::Format) -> Self {
        let mut grpc = connect(address).await;
        let codec: ProstCodec<v1::ConsumeRequest, Answer> = Default::default();
        let (says, receiver) = mpsc::channel(16);
        let partitions = vec![v1::PartitionStart { partition: 0, start: at(0) }];
        let init = v1::ConsumeInit { topic: TOPIC.to_owned(), partitions, format: format as i32, ..Default::default() };
        says.send(v1::ConsumeRequest { request: Some(Say::Init(init)) }).await.unwrap();
        let path = PathAndQuery::from_static("/lakebed.v1.ConsumeService/Consume");
        let opened = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, codec).await;
        let mut consumer = Self { says, hears: opened.unwrap().into_inner(), granted: 0, next: 0 };
        consumer.grant().await;
        consumer
    }

    async fn say(&self, request: Say) {
        self.says.send(v1::ConsumeRequest { request: Some(request) }).await.unwrap();
    }

    async fn grant(&mut self) {
        self.granted += CREDIT_BYTES;
        self.say(Say::Credit(v1::ConsumeCredit { bytes: CREDIT_BYTES, records: u64::from(u32::MAX) })).await;
    }

    /// How many records the next message has; it follows what was read.
    async fn read(&mut self) -> u64 {
        loop {
            let Some(batch) = self.hears.next().await.unwrap().unwrap().batch else { continue };
            self.granted = self.granted.saturating_sub(batch.bytes() as u64);
            if self.granted < CREDIT_BYTES / 2 {
                self.grant().await;
            }
            assert!(batch.next_offset > self.next, "{} behind {}", batch.next_offset, self.next);
            return (batch.next_offset - std::mem::replace(&mut self.next, batch.next_offset)) as u64;
        }
    }

    /// Goes back to the beginning; what is on its way is read away, up to the answer to that.
    async fn rewind(&mut self) {
        let start = at(0);
        self.say(Say::Seek(v1::ConsumeSeek { seek_id: 1, partition: 0, start })).await;
        while self.hears.next().await.unwrap().unwrap() != Answer::default() {}
        self.next = 0;
    }
}

/// Reads a log of so many records from its beginning to its end, again and again.
async fn read(server: &Server, format: v1::Format, records: u64, time: Duration) -> Measured {
    let mut consumer = Consumer::open(server.http, format).await;
    let meter = Meter::begin(server);
    let mut read = 0;
    while meter.elapsed() < time {
        read += consumer.read().await;
        if consumer.next as u64 == records {
            consumer.rewind().await;
        }
    }
    meter.end(read)
}

/// The same of batches.
async fn read_batches(format: v1::Format, batch: &Bytes, time: Duration) -> Value {
    let server = Server::spawn();
    let batches = kafka::produce(&server, batch.clone(), BATCHES_IN_FLIGHT, FILL).await.count;
    let mut measured = read(&server, format, batches * RECORDS as u64, time).await;
    measured.count /= RECORDS as u64;
    measured.batches()
}

/// What an echo sends of itself, for as long; counts records.
async fn echo(format: v1::Format, time: Duration) -> Measured {
    let server = Server::spawn();
    let mut consumer = Consumer::open(server.echo, format).await;
    let meter = Meter::begin(&server);
    let mut read = 0;
    while meter.elapsed() < time {
        read += consumer.read().await;
    }
    meter.end(read)
}

/// Records that come one in a message, read while they are written, until all are there.
async fn live(single: &Bytes, time: Duration) -> (Measured, Measured) {
    let server = Server::spawn();
    let (told, mut tells) = tokio::sync::oneshot::channel();
    let mut consumer = Consumer::open(server.http, v1::Format::Records).await;
    let reading = async {
        let meter = Meter::begin(&server);
        let (mut read, mut end) = (0, u64::MAX);
        while read < end {
            tokio::select! {
                biased;
                count = &mut tells, if end == u64::MAX => end = count.unwrap(),
                count = consumer.read() => read += count,
            }
        }
        meter.end(read)
    };
    let writing = async {
        let written = produce::stream(&server, server.http, single.clone(), SINGLES_IN_FLIGHT, time).await;
        told.send(written.count).unwrap();
        written
    };
    tokio::join!(reading, writing)
}

/// Everything once.
pub(crate) async fn measure(single: &Bytes, batch: &Bytes, time: Duration) -> Value {
    let server = Server::spawn();
    let batches = kafka::produce(&server, batch.clone(), BATCHES_IN_FLIGHT, FILL).await.count;
    let kafka = kafka::fetch(&server, batch, batches, time).await.batches();
    drop(server);
    let whole = read_batches(v1::Format::KafkaBatches, batch, time).await;
    let records = read_batches(v1::Format::Records, batch, time).await;
    let arrow = read_batches(v1::Format::ArrowIpc, batch, time).await;
    let mut bare = echo(v1::Format::KafkaBatches, time).await;
    bare.count /= RECORDS as u64;
    let echo = echo(v1::Format::Records, time).await.singles();
    let server = Server::spawn();
    let filled = produce::stream(&server, server.http, single.clone(), SINGLES_IN_FLIGHT, FILL_SINGLES).await.count;
    let singles = read(&server, v1::Format::Records, filled, time).await.singles();
    drop(server);
    let (read, written) = live(single, time).await;
    json!({
        "kafka": kafka, "bare": bare.batches(), "batches": whole, "records": records, "arrow": arrow, "echo": echo, "singles": singles,
        "live": read.singles(), "live_written": written.singles(),
    })
}
