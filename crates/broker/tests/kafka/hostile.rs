//! Bad input: the connection is closed, nothing is stored, nothing is held, and the broker lives.

use lakebed_segment::batch::Codec;
use tokio::io::AsyncWriteExt;

use crate::client::{Running, batch, frame, produce_of};

/// A frame of version `version` of API `key` with this body; header version 1, or 2 without tagged fields.
fn request(key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
    if flexible {
        bytes.push(0);
    }
    bytes.extend_from_slice(body);
    let mut framed = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(&bytes);
    framed
}

/// Most memory that this process has had resident, in bytes.
fn peak_resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

async fn still_serves(broker: &Running) {
    let mut client = broker.client().await;
    client.topic("alive").await;
    assert_eq!(client.produce("alive", 0, batch(Codec::None, &[b"yes"])).await.error_code, 0);
}

#[tokio::test]
async fn what_claims_more_than_it_has_closes_the_connection_and_leaves_the_broker_alone() {
    let broker = Running::in_memory().await;
    still_serves(&broker).await;
    let before = peak_resident_bytes();
    let claims = [
        ("Metadata of 4 bytes that claims 2^31-1 topics", request(3, 1, false, &[0x7f, 0xff, 0xff, 0xff])),
        (
            "Produce of 12 bytes that claims 2^31-1 topics",
            request(0, 7, false, &[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff]),
        ),
        ("Metadata v9 that claims 2^32-2 topics", request(3, 9, true, &[0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("Metadata that ends before its fields", request(3, 4, false, &[0, 0, 0, 0])),
        ("a frame of 2 GiB", vec![0x7f, 0xff, 0xff, 0xff, 0, 0]),
        ("a frame of negative length", vec![0x80, 0, 0, 0, 0, 0]),
        ("a frame that is too short for a request", vec![0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]),
        ("a large frame that is no Produce", vec![0x03, 0, 0, 0, 0, 3]),
        ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
    ];
    for (what, bytes) in claims {
        let mut client = broker.client().await;
        client.stream.write_all(&bytes).await.unwrap();
        assert!(client.is_closed().await, "{what}");
    }
    still_serves(&broker).await;
    let grown = peak_resident_bytes() - before;
    assert!(grown < 64 << 20, "{grown} bytes more were resident");
    broker.stop().await;
}

#[tokio::test]
async fn what_was_asked_before_the_bad_request_is_answered() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    let mut bytes = frame(7, 9, &produce_of("t", 0, -1, batch(Codec::None, &[b"good"]))).to_vec();
    bytes.extend_from_slice(&request(3, 1, false, &[0x7f, 0xff, 0xff, 0xff]));
    client.stream.write_all(&bytes).await.unwrap();
    let (correlation_id, answer) = client.receive::<kafka_protocol::messages::ProduceRequest>(9).await;
    assert_eq!((correlation_id, answer.responses[0].partition_responses[0].error_code), (7, 0));
    assert!(client.is_closed().await);
    broker.stop().await;
}

#[tokio::test]
async fn half_sent_frames_hold_no_more_than_what_was_sent() {
    let broker = Running::in_memory().await;
    still_serves(&broker).await;
    let before = peak_resident_bytes();
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut client = broker.client().await;
        // Each claims 60 MiB of Produce and sends 11 bytes of it.
        client.stream.write_all(&[0x03, 0xc0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0]).await.unwrap();
        silent.push(client);
    }
    still_serves(&broker).await;
    let grown = peak_resident_bytes() - before;
    assert!(grown < 64 << 20, "{grown} bytes more were resident");
    drop(silent);
    still_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_frame_cut_anywhere_stores_nothing() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    let whole = frame(1, 9, &produce_of("t", 0, -1, batch(Codec::None, &[b"never"])));
    for end in 0..whole.len() {
        let mut cut = broker.client().await;
        cut.stream.write_all(&whole[..end]).await.unwrap();
        cut.stream.shutdown().await.unwrap();
        assert!(cut.is_closed().await, "cut after {end} bytes");
    }
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 0);
    broker.stop().await;
}

#[tokio::test]
async fn batches_and_records_that_claim_more_than_they_have_are_refused() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    let good = batch(Codec::None, &[b"x"]);
    // A header alone that claims 2^31-1 records, and a record that claims as many headers; each with a right checksum.
    let mut header = good[..61].to_vec();
    header[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    header[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    let mut record = good[..61].to_vec();
    record.extend_from_slice(&[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]);
    for (what, mut bytes) in [("61 bytes", header), ("72 bytes", record)] {
        let length = u32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[21..]);
        bytes[17..21].copy_from_slice(&u32::try_from(checksum).unwrap().to_be_bytes());
        let answer = client.produce("t", 0, bytes.into()).await;
        assert_eq!(answer.error_code, kafka_protocol::ResponseError::InvalidRecord.code(), "{what}: {answer:?}");
    }
    still_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn bytes_behind_the_last_field_are_ignored_as_kafka_does() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    // librdkafka asks for all topics like this: four bytes of null where one belongs.
    client.stream.write_all(&request(3, 12, true, &[0, 0, 0, 0, 1, 0, 0])).await.unwrap();
    let (correlation_id, answer) = client.receive::<kafka_protocol::messages::MetadataRequest>(12).await;
    assert_eq!((correlation_id, answer.brokers.len()), (1, 1));
    broker.stop().await;
}
