//! Reads a topic from its beginning to its end by Kafka's Fetch, a MiB at a time, looks only at where batches end, and prints a line of
//! JSON: bytes of record batches, records and seconds.
//!
//! `cargo run --release -p lakebed-broker --example read_topic HOST:PORT TOPIC PARTITIONS`, for `tests/measure`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints, and may stop where it is surprised"
)]

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes that one fetch asks for: what clients ask for by default of a partition.
const FETCH_BYTES: i32 = 1 << 20;
/// The version of Fetch whose frames are written here.
const FETCH: i16 = 12;
/// Offsets of fields in a record batch: <https://kafka.apache.org/documentation/#recordbatch>.
const LENGTH: usize = 8;
const LAST_OFFSET_DELTA: usize = 23;
const RECORD_COUNT: usize = 57;

/// What of a topic was read.
#[derive(Default)]
struct Read {
    bytes: u64,
    records: u64,
}

fn frame(topic: &str, partition: i32, offset: i64) -> Vec<u8> {
    let part = FetchPartition::default().with_partition(partition).with_fetch_offset(offset);
    let part = part.with_partition_max_bytes(FETCH_BYTES);
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let topic = FetchTopic::default().with_topic(name).with_partitions(vec![part]);
    let request = FetchRequest::default().with_max_wait_ms(1000).with_min_bytes(1).with_max_bytes(FETCH_BYTES);
    let request = request.with_session_epoch(-1).with_topics(vec![topic]);
    let header = RequestHeader::default().with_request_api_key(ApiKey::Fetch as i16).with_request_api_version(FETCH);
    let mut body = BytesMut::new();
    header.encode(&mut body, 2).unwrap();
    request.encode(&mut body, FETCH).unwrap();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

/// Takes batches in; the offset behind the last.
fn take(mut batches: Bytes, read: &mut Read) -> Option<i64> {
    let mut next = None;
    while batches.len() > RECORD_COUNT + 4 {
        let field = |at: usize| (&batches[at..]).get_i32();
        let whole = LENGTH + 4 + usize::try_from(field(LENGTH)).unwrap();
        if whole > batches.len() {
            break;
        }
        next = Some((&batches[..]).get_i64() + i64::from(field(LAST_OFFSET_DELTA)) + 1);
        read.records += u64::try_from(field(RECORD_COUNT)).unwrap();
        read.bytes += whole as u64;
        batches.advance(whole);
    }
    next
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, topic, partitions] = &arguments[..] else { panic!("HOST:PORT TOPIC PARTITIONS, not {arguments:?}") };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (begun, mut read, mut buffer) = (Instant::now(), Read::default(), BytesMut::new());
    for partition in 0..partitions.parse().unwrap() {
        let mut offset = 0;
        loop {
            stream.write_all(&frame(topic, partition, offset)).await.unwrap();
            let length = stream.read_u32().await.unwrap() as usize;
            buffer.resize(length, 0);
            stream.read_exact(&mut buffer).await.unwrap();
            let mut answer = buffer.split().freeze();
            ResponseHeader::decode(&mut answer, 1).unwrap();
            let answer = FetchResponse::decode(&mut answer, FETCH).unwrap();
            let part = &answer.responses[0].partitions[0];
            assert_eq!(part.error_code, 0, "partition {partition} from {offset} on");
            match take(part.records.clone().unwrap_or_default(), &mut read) {
                Some(next) => offset = next,
                None => panic!("nothing of partition {partition} from {offset} on"),
            }
            if offset >= part.high_watermark {
                break;
            }
        }
    }
    println!("{}", json!({ "bytes": read.bytes, "records": read.records, "seconds": begun.elapsed().as_secs_f64() }));
}
