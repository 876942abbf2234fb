//! A client of `ProduceService` that says exactly what it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use lakebed_broker::topics::NewTopic;
use lakebed_broker::{Broker, Config, Rooms, RunError};
use lakebed_store::{MemoryBackend, Store, StoreOptions};
use lakebed_wire::v1;
use lakebed_wire::v1::produce_stream_request::Request as Say;
use lakebed_wire::v1::produce_stream_response::Response as Hear;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

pub(crate) const STREAM: &str = "/lakebed.v1.ProduceService/ProduceStream";

/// A broker that runs in a task.
pub(crate) struct Running {
    pub(crate) http: std::net::SocketAddr,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn on(store: Store, config: Config) -> Self {
        let broker = Broker::start_on(store, config).await.unwrap();
        let (http, rooms) = (broker.http_address(), Arc::clone(broker.rooms()));
        let (stop, stopped) = oneshot::channel();
        let asked = async {
            let _ = stopped.await;
        };
        Self { http, rooms, stop, ended: tokio::spawn(broker.run_until(asked)) }
    }

    pub(crate) async fn in_memory() -> Self {
        Self::on(memory(&Arc::default()), Config::default()).await
    }

    pub(crate) async fn topic(&self, name: &str, partitions: u32) {
        self.topic_with(name, partitions, &[]).await;
    }

    pub(crate) async fn topic_with(&self, name: &str, partitions: u32, config: &[(&str, &str)]) {
        let config: BTreeMap<String, String> =
            config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let new = NewTopic { name: name.to_owned(), partitions: Some(partitions), config };
        self.rooms.topics.create(new, false).await.unwrap();
    }

    pub(crate) async fn stop(self) {
        drop(self.rooms);
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

pub(crate) fn memory(backend: &Arc<MemoryBackend>) -> Store {
    Store::new("memory://", Arc::clone(backend) as _, &StoreOptions::default())
}

pub(crate) async fn connect(address: std::net::SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true).connect().await.unwrap()
}

/// One open stream.
pub(crate) struct Stream {
    /// Dropped to close this side.
    pub(crate) requests: Option<mpsc::Sender<v1::ProduceStreamRequest>>,
    pub(crate) responses: Streaming<v1::ProduceStreamResponse>,
    pub(crate) window: v1::ProduceInitAck,
}

/// What came of a batch: correlation id, and its partition with its first and last offset, or its reason.
pub(crate) type Told = (u64, Result<(i32, i64, i64), String>);

impl Stream {
    /// Opens a stream to a topic and takes the answer to its init.
    pub(crate) async fn open(address: std::net::SocketAddr, topic: &str, partition: Option<i32>) -> Self {
        let init = v1::ProduceInit { topic: topic.to_owned(), partition };
        let (requests, mut responses) = Self::raw(address).await;
        requests.send(say(Say::Init(init))).await.unwrap();
        let first = responses.next().await.unwrap().unwrap().response;
        let Some(Hear::InitAck(window)) = first else { panic!("{first:?}") };
        Self { requests: Some(requests), responses, window }
    }

    /// A stream on which nothing has been said. Its head comes before anything is said.
    pub(crate) async fn raw(
        address: std::net::SocketAddr,
    ) -> (mpsc::Sender<v1::ProduceStreamRequest>, Streaming<v1::ProduceStreamResponse>) {
        let (requests, receiver) = mpsc::channel(1);
        let mut grpc = Grpc::new(connect(address).await);
        grpc.ready().await.unwrap();
        let codec: ProstCodec<v1::ProduceStreamRequest, v1::ProduceStreamResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static(STREAM);
        let request = tonic::Request::new(ReceiverStream::new(receiver));
        (requests, grpc.streaming(request, path, codec).await.unwrap().into_inner())
    }

    pub(crate) async fn send(&self, batch: v1::ProduceBatch) {
        self.requests.as_ref().unwrap().send(say(Say::Batch(batch))).await.unwrap();
    }

    /// Closes this side.
    pub(crate) fn close(&mut self) {
        self.requests = None;
    }

    /// The next answer; `None` at the end with OK.
    pub(crate) async fn hear(&mut self) -> Result<Option<Told>, Status> {
        Ok(self.responses.next().await.transpose()?.map(|answer| match answer.response.unwrap() {
            Hear::InitAck(ack) => panic!("{ack:?}"),
            Hear::Ack(ack) => (ack.correlation_id, Ok((ack.partition, ack.base_offset, ack.last_offset))),
            Hear::Error(error) => (error.correlation_id, Err(reason_of_message(&error.status.unwrap()))),
        }))
    }

    /// All answers until the end, and the status if that was not OK.
    pub(crate) async fn rest(&mut self) -> (Vec<Told>, Option<Status>) {
        let mut told = Vec::new();
        loop {
            match self.hear().await {
                Ok(Some(one)) => told.push(one),
                Ok(None) => return (told, None),
                Err(status) => return (told, Some(status)),
            }
        }
    }
}

pub(crate) fn say(request: Say) -> v1::ProduceStreamRequest {
    v1::ProduceStreamRequest { request: Some(request) }
}

/// A batch of records with these values.
pub(crate) fn batch(correlation_id: u64, values: &[&[u8]]) -> v1::ProduceBatch {
    let records =
        values.iter().map(|value| v1::Record { value: Some(Bytes::copy_from_slice(value)), ..v1::Record::default() });
    of_records(correlation_id, records.collect())
}

pub(crate) fn of_records(correlation_id: u64, records: Vec<v1::Record>) -> v1::ProduceBatch {
    let payload = Some(v1::produce_batch::Payload::Records(v1::Records { records }));
    v1::ProduceBatch { correlation_id, payload, ..v1::ProduceBatch::default() }
}

/// The reason in a status, with the code that it came with.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("a status of ours has a reason: {status:?}"));
    assert_eq!(info.domain, "lakebed");
    format!("{:?} {}", status.code(), info.reason)
}

fn reason_of_message(status: &lakebed_wire::rpc::Status) -> String {
    let details = Bytes::from(status.encode_to_vec());
    reason(&Status::with_details(status.code.into(), status.message.clone(), details))
}

/// The values of a partition from its beginning, as a broker of these rooms serves them.
pub(crate) async fn values(rooms: &Rooms, topic: &str, partition: u32) -> Vec<Bytes> {
    use lakebed_fetch::{FetchPartition, FetchRequest};
    use lakebed_model::{Offset, PartitionIndex, PartitionKey};
    let id = rooms.log.barrier().await.unwrap().topic_id(topic).unwrap();
    let key = PartitionKey::new(id, PartitionIndex::new(partition));
    let (mut next, mut values) = (Offset::ZERO, Vec::new());
    loop {
        let partitions = vec![FetchPartition { key, offset: next, bytes_max: 1 << 20 }];
        let request =
            FetchRequest { partitions, bytes_max: 1 << 20, bytes_min: 0, wait_max: std::time::Duration::ZERO };
        let fetched = rooms.fetch.fetch(request).await.pop().unwrap().unwrap();
        let before = values.len();
        for record in lakebed_fetch::records(&fetched, next) {
            let record = record.unwrap();
            assert_eq!(record.offset.get(), values.len() as u64, "offsets are dense");
            values.push(record.value.unwrap());
        }
        if values.len() == before {
            return values;
        }
        next = Offset::new(values.len() as u64);
    }
}

/// A message with its gRPC frame.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}
