//! A broker in a task, and a client of its gRPC services that says exactly what it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lakebed_broker::{Broker, Config, Rooms, RunError};
use lakebed_model::TopicId;
use lakebed_segment::batch::{Limits, decode_stored};
use lakebed_wire::v1;
use lakebed_wire::v1::consume_request::Request as Said;
use lakebed_wire::v1::consume_response::Response;
use lakebed_wire::v1::start_position::Position;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{IntoStreamingRequest, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

pub(crate) const TOPIC: &str = "t";
/// Credit for everything.
pub(crate) const MUCH: u64 = 1 << 50;

/// More requests than any test has under way.
const REQUESTS_MAX: usize = 10_000;

/// A broker that runs in a task.
pub(crate) struct Running {
    address: std::net::SocketAddr,
    pub(crate) rooms: Arc<Rooms>,
    stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        Self::run(Broker::start(config).await.unwrap())
    }

    pub(crate) fn run(broker: Broker) -> Self {
        let (address, rooms) = (broker.http_address(), Arc::clone(broker.rooms()));
        let (stop, stopped) = oneshot::channel();
        let asked = async {
            let _ = stopped.await;
        };
        Self { address, rooms, stop, ended: tokio::spawn(broker.run_until(asked)) }
    }

    /// A broker in memory with a topic.
    pub(crate) async fn with_topic(partitions: i32) -> (Self, Client) {
        let broker = Self::start(Config::default()).await;
        let mut client = broker.client().await;
        client.create(partitions).await;
        (broker, client)
    }

    pub(crate) async fn client(&self) -> Client {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Client { channel: endpoint.connect().await.unwrap() }
    }

    pub(crate) fn topic_id(&self) -> TopicId {
        self.rooms.log.state().topic_id(TOPIC).unwrap()
    }

    /// Asks it to stop; `ended` says when it has.
    pub(crate) fn ask_to_stop(self) -> JoinHandle<Result<(), RunError>> {
        self.stop.send(()).unwrap();
        self.ended
    }

    pub(crate) async fn stop(self) {
        self.ask_to_stop().await.unwrap().unwrap();
    }
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
}

/// The reason of a status, and its facts.
pub(crate) fn reason(status: &Status) -> (String, BTreeMap<String, String>) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?} has a reason"));
    assert_eq!(info.domain, "lakebed");
    (info.reason, info.metadata.into_iter().collect())
}

pub(crate) fn reason_of(status: &Status) -> String {
    reason(status).0
}

impl Client {
    pub(crate) async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + 'static,
        A: prost::Message + Default + Send + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let answer = grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn create(&mut self, partitions: i32) {
        let request =
            v1::CreateTopicRequest { name: TOPIC.to_owned(), partition_count: Some(partitions), ..Default::default() };
        self.call::<_, v1::CreateTopicResponse>("/lakebed.v1.AdminService/CreateTopic", request).await.unwrap();
    }

    pub(crate) async fn delete(&mut self) {
        let request = v1::DeleteTopicRequest { name: TOPIC.to_owned(), ..Default::default() };
        self.call::<_, v1::DeleteTopicResponse>("/lakebed.v1.AdminService/DeleteTopic", request).await.unwrap();
    }

    /// Produces records as one batch.
    pub(crate) async fn produce_records(&mut self, partition: i32, records: Vec<v1::Record>) -> v1::ProduceResponse {
        let payload = v1::produce_request::Payload::Records(v1::Records { records });
        let request = v1::ProduceRequest {
            topic: TOPIC.to_owned(),
            partition: Some(partition),
            payload: Some(payload),
            ..Default::default()
        };
        self.call("/lakebed.v1.ProduceService/Produce", request).await.unwrap()
    }

    /// Produces values as one batch.
    pub(crate) async fn produce(&mut self, partition: i32, values: impl IntoIterator<Item = Vec<u8>>) {
        let record = |value| v1::Record { value: Some(Bytes::from(value)), ..Default::default() };
        self.produce_records(partition, values.into_iter().map(record).collect()).await;
    }

    /// Produces a batch as it is.
    pub(crate) async fn produce_batch(&mut self, partition: i32, batch: Bytes) {
        let request = v1::ProduceRequest {
            topic: TOPIC.to_owned(),
            partition: Some(partition),
            payload: Some(v1::produce_request::Payload::KafkaBatch(batch)),
            ..Default::default()
        };
        self.call::<_, v1::ProduceResponse>("/lakebed.v1.ProduceService/Produce", request).await.unwrap();
    }

    /// Produces numbers as values, each a batch.
    pub(crate) async fn produce_singly(&mut self, partition: i32, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.produce(partition, [number.to_string().into_bytes()]).await;
        }
    }

    pub(crate) async fn fetch(&mut self, request: v1::FetchRequest) -> Result<v1::FetchResponse, Status> {
        self.call("/lakebed.v1.ConsumeService/Fetch", request).await
    }

    /// Opens a stream without credit.
    pub(crate) async fn open(&mut self, init: v1::ConsumeInit) -> Result<Stream, Status> {
        self.open_saying(vec![Said::Init(init)]).await
    }

    /// With what a stream is refused.
    pub(crate) async fn refused(&mut self, init: v1::ConsumeInit) -> Status {
        match self.open(init.clone()).await.unwrap().next().await {
            Err(status) => status,
            Ok(answer) => panic!("{init:?} was taken: {answer:?}"),
        }
    }

    /// Opens a stream on which nothing is said.
    pub(crate) async fn open_silently(&mut self) -> Stream {
        self.open_saying(Vec::new()).await.unwrap()
    }

    async fn open_saying(&mut self, requests: Vec<Said>) -> Result<Stream, Status> {
        let (said, said_later) = mpsc::channel(REQUESTS_MAX);
        for request in requests {
            said.try_send(v1::ConsumeRequest { request: Some(request) }).unwrap();
        }
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let codec: ProstCodec<v1::ConsumeRequest, v1::ConsumeResponse> = ProstCodec::default();
        let request = ReceiverStream::new(said_later).into_streaming_request();
        let path = PathAndQuery::from_static("/lakebed.v1.ConsumeService/Consume");
        let answers = grpc.streaming(request, path, codec).await?.into_inner();
        Ok(Stream { said, answers })
    }

    /// Opens a stream that may send everything.
    pub(crate) async fn consume(&mut self, init: v1::ConsumeInit) -> Result<Stream, Status> {
        let credit = v1::ConsumeCredit { bytes: MUCH, records: MUCH };
        self.open_saying(vec![Said::Init(init), Said::Credit(credit)]).await
    }

    /// All batches of a stream that ends by itself, with its ends of partitions.
    pub(crate) async fn consume_to_the_end(&mut self, init: v1::ConsumeInit) -> Read {
        self.consume(init).await.unwrap().read_out().await
    }
}

/// One side of a Consume stream.
pub(crate) struct Stream {
    said: mpsc::Sender<v1::ConsumeRequest>,
    pub(crate) answers: Streaming<v1::ConsumeResponse>,
}

/// What a stream sent until it ended.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) batches: Vec<v1::ConsumeBatch>,
    /// Partition and next offset.
    pub(crate) ends: Vec<(i32, i64)>,
}

impl Read {
    /// Partition and offset of all records.
    pub(crate) fn places(&self) -> Vec<(i32, i64)> {
        self.batches
            .iter()
            .flat_map(|batch| offsets(batch).into_iter().map(|offset| (batch.partition, offset)))
            .collect()
    }
}

impl Stream {
    pub(crate) fn say(&self, request: Said) {
        self.said.try_send(v1::ConsumeRequest { request: Some(request) }).unwrap();
    }

    pub(crate) fn grant(&self, bytes: u64, records: u64) {
        self.say(Said::Credit(v1::ConsumeCredit { bytes, records }));
    }

    pub(crate) fn seek(&self, seek_id: u64, partition: i32, position: Position) {
        self.say(Said::Seek(v1::ConsumeSeek { seek_id, partition, start: start(position) }));
    }

    pub(crate) fn pause(&self, partitions: &[i32], paused: bool) {
        self.say(Said::Pause(v1::ConsumePause { partitions: partitions.to_vec(), paused }));
    }

    /// The next answer.
    pub(crate) async fn next(&mut self) -> Result<Response, Status> {
        match self.answers.message().await? {
            Some(answer) => Ok(answer.response.unwrap()),
            None => panic!("the stream has ended with OK"),
        }
    }

    /// The next batch; heartbeats are passed over, anything else is a surprise.
    pub(crate) async fn batch(&mut self) -> v1::ConsumeBatch {
        loop {
            match self.next().await.unwrap() {
                Response::Batch(batch) => return batch,
                Response::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn heartbeat(&mut self) -> v1::ConsumeHeartbeat {
        match self.next().await.unwrap() {
            Response::Heartbeat(heartbeat) => heartbeat,
            other => panic!("{other:?}"),
        }
    }

    /// The status with which the stream ends; what comes before it is passed over.
    pub(crate) async fn failure(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    pub(crate) async fn read_out(mut self) -> Read {
        let mut read = Read::default();
        while let Some(answer) = self.answers.message().await.unwrap() {
            match answer.response.unwrap() {
                Response::Batch(batch) => read.batches.push(batch),
                Response::PartitionEnd(end) => read.ends.push((end.partition, end.next_offset)),
                Response::Heartbeat(_) => {}
                Response::SeekAck(ack) => panic!("{ack:?}"),
            }
        }
        read
    }

    /// Says nothing more, but reads on.
    pub(crate) fn half_close(self) -> Streaming<v1::ConsumeResponse> {
        self.answers
    }
}

pub(crate) fn start(position: Position) -> Option<v1::StartPosition> {
    Some(v1::StartPosition { position: Some(position) })
}

pub(crate) fn earliest() -> Option<v1::StartPosition> {
    start(Position::Earliest(v1::Earliest {}))
}

/// All partitions from their first record on.
pub(crate) fn all() -> v1::ConsumeInit {
    v1::ConsumeInit { topic: TOPIC.to_owned(), start: earliest(), ..Default::default() }
}

/// All partitions from their first record on, up to what there is now.
pub(crate) fn all_there_is() -> v1::ConsumeInit {
    v1::ConsumeInit { stop: Some(v1::StopBounds { latest: true, ..Default::default() }), ..all() }
}

/// A stream that goes on where a token says, up to what there is now.
pub(crate) fn resume(token: &Bytes) -> v1::ConsumeInit {
    v1::ConsumeInit { resume_token: token.clone(), start: None, ..all_there_is() }
}

/// Offsets of a batch of any format, as they stand in it.
pub(crate) fn offsets(batch: &v1::ConsumeBatch) -> Vec<i64> {
    use v1::consume_batch::Payload;
    match batch.payload.as_ref().unwrap() {
        Payload::Records(records) => records.records.iter().map(|record| record.offset.unwrap()).collect(),
        Payload::KafkaBatches(batches) => kafka_offsets(&batches.data),
        // Read by Arrow's own reader in the end-to-end tests.
        Payload::ArrowIpc(arrow) => (batch.next_offset - arrow.records as i64..batch.next_offset).collect(),
    }
}

/// Offsets of the records in Kafka's batches, each of which must be whole.
pub(crate) fn kafka_offsets(data: &Bytes) -> Vec<i64> {
    let mut data = data.clone();
    let mut offsets = Vec::new();
    while !data.is_empty() {
        let base = i64::from_be_bytes(data[..8].try_into().unwrap());
        let length = 12 + u32::from_be_bytes(data[8..12].try_into().unwrap()) as usize;
        let stored = decode_stored(data.split_to(length), &Limits { max_decompressed_bytes: 1 << 30 }).unwrap();
        offsets.extend(base..base + stored.rows.len() as i64);
    }
    offsets
}

/// Values of a batch of records.
pub(crate) fn values(batch: &v1::ConsumeBatch) -> Vec<Bytes> {
    match batch.payload.as_ref().unwrap() {
        v1::consume_batch::Payload::Records(records) => {
            records.records.iter().map(|record| record.value.clone().unwrap()).collect()
        }
        other => panic!("{other:?}"),
    }
}
