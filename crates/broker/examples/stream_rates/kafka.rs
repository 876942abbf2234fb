//! A producer and a consumer over Kafka's protocol.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, FetchRequest, ProduceRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::Server;
use crate::{Measured, Meter, RECORDS, TOPIC};

/// Bytes that one fetch asks for: what clients ask for by default of a partition.
const FETCH_BYTES: i32 = 1 << 20;
/// The version of Produce, and of Fetch, whose frames are written here.
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;

fn frame<R: Encodable>(key: ApiKey, version: i16, request: &R) -> Vec<u8> {
    let mut body = BytesMut::new();
    let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
    header.encode(&mut body, 2).unwrap();
    request.encode(&mut body, version).unwrap();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

async fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.kafka).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn answer(stream: &mut TcpStream, answer: &mut Vec<u8>) {
    let length = stream.read_u32().await.unwrap();
    answer.resize(length as usize, 0);
    stream.read_exact(answer).await.unwrap();
}

/// Sends a batch again and again, each in a request of its own, `in_flight` at a time.
pub(crate) async fn produce(server: &Server, batch: Bytes, in_flight: usize, time: Duration) -> Measured {
    let part = PartitionProduceData::default().with_index(0).with_records(Some(batch));
    let name = TopicName(StrBytes::from_static_str(TOPIC));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![part]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(60_000).with_topic_data(vec![topic]);
    let frame = frame(ApiKey::Produce, PRODUCE, &request);
    let mut stream = connect(server).await;
    let meter = Meter::begin(server);
    let (mut sent, mut answered) = (0, 0_u64);
    let mut buffer = Vec::new();
    while sent < in_flight as u64 {
        stream.write_all(&frame).await.unwrap();
        sent += 1;
    }
    while answered < sent {
        answer(&mut stream, &mut buffer).await;
        answered += 1;
        if meter.elapsed() < time {
            stream.write_all(&frame).await.unwrap();
            sent += 1;
        }
    }
    meter.end(answered)
}

/// Reads a log of `batches` from its beginning to its end, again and again, `FETCH_BYTES` at a time; counts batches.
pub(crate) async fn fetch(server: &Server, batch: &Bytes, batches: u64, time: Duration) -> Measured {
    let request = |offset| {
        let part = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(FETCH_BYTES);
        let name = TopicName(StrBytes::from_static_str(TOPIC));
        let topic = FetchTopic::default().with_topic(name).with_partitions(vec![part]);
        let request = FetchRequest::default().with_max_wait_ms(1000).with_min_bytes(1).with_max_bytes(FETCH_BYTES);
        frame(ApiKey::Fetch, FETCH, &request.with_session_epoch(-1).with_topics(vec![topic]))
    };
    let mut stream = connect(server).await;
    let meter = Meter::begin(server);
    let (mut read, mut at) = (0, 0);
    let mut buffer = Vec::new();
    while meter.elapsed() < time {
        stream.write_all(&request((at * RECORDS as u64) as i64)).await.unwrap();
        answer(&mut stream, &mut buffer).await;
        // All batches are of one size, and an answer has little else.
        let count = (buffer.len() / batch.len()) as u64;
        assert!(count > 0, "an answer of {} bytes", buffer.len());
        read += count;
        at = (at + count) % batches;
    }
    meter.end(read)
}
