//! A Kafka client that says exactly what it is told to, in exactly the version it is told to.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use lakebed_broker::{Broker, Config, RunError};
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A broker that runs in a task.
pub(crate) struct Running {
    pub(crate) kafka: std::net::SocketAddr,
    pub(crate) http: std::net::SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        Self::run(Broker::start(config).await.unwrap())
    }

    pub(crate) fn run(broker: Broker) -> Self {
        let (kafka, http) = (broker.kafka_address(), broker.http_address());
        let (stop, stopped) = oneshot::channel();
        let asked = async {
            let _ = stopped.await;
        };
        Self { kafka, http, stop, ended: tokio::spawn(broker.run_until(asked)) }
    }

    pub(crate) async fn in_memory() -> Self {
        Self::start(Config::default()).await
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.kafka).await
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    correlation_id: i32,
    /// Key and version of what was sent, as they stood in the bytes.
    pub(crate) sent: BTreeSet<(i16, i16)>,
}

impl Client {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, correlation_id: 0, sent: BTreeSet::new() }
    }

    /// Sends a request and returns its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation_id += 1;
        self.send_frame(&frame(self.correlation_id, version, request)).await;
        self.correlation_id
    }

    /// Sends a whole frame, and notes the key and the version that stand behind its length.
    pub(crate) async fn send_frame(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).await.unwrap();
        let mut head = &frame[4..8];
        self.sent.insert((head.get_i16(), head.get_i16()));
    }

    /// Receives the answer to a request of `R` in `version`: its correlation id and itself.
    pub(crate) async fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let mut body = self.receive_frame().await.expect("an answer");
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version)).unwrap();
        let response = R::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "{} bytes behind the answer", body.len());
        (header.correlation_id, response)
    }

    pub(crate) async fn receive_frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length).await {
            Ok(_) => {}
            Err(_) => return None,
        }
        let mut body = vec![0; (&length[..]).get_u32() as usize];
        self.stream.read_exact(&mut body).await.unwrap();
        Some(body.into())
    }

    /// One request and its answer.
    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request).await;
        let (received, response) = self.receive::<R>(version).await;
        assert_eq!(sent, received);
        response
    }

    /// Whether the broker closes the connection without another word.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.receive_frame().await.is_none()
    }

    /// Creates a topic by asking for it.
    pub(crate) async fn topic(&mut self, name: &str) -> MetadataResponseTopic {
        let request = metadata_of(name);
        let topic = self.call(12, &request).await.topics.remove(0);
        assert_eq!(topic.error_code, 0);
        topic
    }

    /// Produces one batch and returns what became of it.
    pub(crate) async fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> PartitionProduceResponse {
        let request = produce_of(topic, partition, -1, batch);
        self.call(9, &request).await.responses.remove(0).partition_responses.remove(0)
    }

    /// Fetches from an offset without waiting.
    pub(crate) async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let request = fetch_of(topic, partition, offset, 0);
        self.call(12, &request).await.responses.remove(0).partitions.remove(0)
    }
}

pub(crate) fn frame<R: Request>(correlation_id: i32, version: i16, request: &R) -> Bytes {
    let mut body = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(text("test")))
        .encode(&mut body, R::header_version(version))
        .unwrap();
    request.encode(&mut body, version).unwrap();
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(body.len()).unwrap());
    frame.put(body);
    frame.freeze()
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) fn metadata_of(name: &str) -> MetadataRequest {
    MetadataRequest::default()
        .with_allow_auto_topic_creation(true)
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic_name(name)))]))
}

pub(crate) fn produce_of(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let part = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![part]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(60_000).with_topic_data(vec![topic])
}

pub(crate) fn fetch_of(topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let part =
        FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![part]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(8 << 20)
        .with_topics(vec![topic])
}

/// A batch of records with these values, dated now.
pub(crate) fn batch(codec: Codec, values: &[&[u8]]) -> Bytes {
    batch_at(now_ms(), codec, values)
}

/// A batch of records with these values, each a millisecond later than the one before.
pub(crate) fn batch_at(first_ms: i64, codec: Codec, values: &[&[u8]]) -> Bytes {
    let fields = Fields { codec, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 1024);
    for (offset, value) in (0_i64..).zip(values) {
        let record = Record { offset, timestamp_ms: first_ms + offset, key: Some(b"key"), value: Some(value) };
        let headers: [(&[u8], Option<&[u8]>); 3] = [(b"a", Some(b"1")), (b"a", None), (b"b", Some(b""))];
        encoder.push(record, headers).unwrap();
    }
    encoder.finish().unwrap()
}

#[allow(clippy::disallowed_methods)]
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
