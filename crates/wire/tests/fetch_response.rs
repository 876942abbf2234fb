//! Crate `kafka-protocol` reads in every version what was encoded, and records are not copied on the way.

#![allow(clippy::unwrap_used, reason = "a test may stop where it is surprised")]

use bytes::{Buf, Bytes};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{self, ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, StrBytes};
use lakebed_wire::kafka::{
    FETCH, FetchResponse, FetchResponseError, FetchedPartition, FetchedTopic, api, fetch_response,
};
use uuid::Uuid;

fn partition(index: i32, records: Vec<Bytes>) -> FetchedPartition {
    FetchedPartition {
        index,
        error_code: i16::try_from(index).unwrap(),
        high_watermark: 1_000_000_007,
        last_stable_offset: 1_000_000_006,
        log_start_offset: 42,
        records,
    }
}

/// Two topics; partitions with no records, one chunk, several chunks with an empty one between, and only empty ones.
fn answer() -> FetchResponse {
    let chunk = |byte: u8, length: usize| Bytes::from(vec![byte; length]);
    let partitions = vec![
        partition(0, vec![]),
        partition(1, vec![chunk(1, 300)]),
        partition(2, vec![chunk(2, 1), Bytes::new(), chunk(3, 70_000)]),
        partition(3, vec![Bytes::new()]),
    ];
    FetchResponse {
        correlation_id: 0x0102_0304,
        throttle_time_ms: 17,
        error_code: 70,
        read_committed: false,
        topics: vec![
            FetchedTopic { name: "orders".into(), id: [7; 16], partitions },
            FetchedTopic { name: "t".repeat(200), id: [8; 16], partitions: vec![partition(9, vec![chunk(4, 5)])] },
            FetchedTopic { name: "none".into(), id: [9; 16], partitions: vec![] },
        ],
    }
}

/// What `kafka-protocol` should make of `sent` in `version`.
fn expected(sent: &FetchResponse, version: i16) -> messages::FetchResponse {
    let read_committed = sent.read_committed;
    let partition = |sent: &FetchedPartition| {
        // Kafka's UNKNOWN_TOPIC_OR_PARTITION: it tells everybody that there are none.
        let aborted = (read_committed || sent.error_code == 3).then(Vec::new);
        PartitionData::default()
            .with_partition_index(sent.index)
            .with_error_code(sent.error_code)
            .with_high_watermark(sent.high_watermark)
            .with_last_stable_offset(sent.last_stable_offset)
            .with_log_start_offset(if version >= 5 { sent.log_start_offset } else { -1 })
            .with_aborted_transactions(aborted)
            .with_preferred_read_replica((-1).into())
            .with_records(Some(sent.records.concat().into()))
    };
    let topic = |sent: &FetchedTopic| {
        let topic = FetchableTopicResponse::default().with_partitions(sent.partitions.iter().map(partition).collect());
        if version >= 13 {
            topic.with_topic_id(Uuid::from_bytes(sent.id))
        } else {
            topic.with_topic(StrBytes::from_string(sent.name.clone()).into())
        }
    };
    messages::FetchResponse::default()
        .with_throttle_time_ms(sent.throttle_time_ms)
        .with_error_code(if version >= 7 { sent.error_code } else { 0 })
        .with_session_id(0)
        .with_responses(sent.topics.iter().map(topic).collect())
}

fn versions() -> impl Iterator<Item = i16> {
    let api = api(FETCH).unwrap();
    api.decoded_from..=api.max
}

fn decode(version: i16, chunks: &[Bytes]) -> (i32, messages::FetchResponse) {
    let mut frame = Bytes::from(chunks.concat());
    let length = frame.get_i32();
    assert_eq!(usize::try_from(length).unwrap(), frame.remaining(), "v{version}: the frame's length");
    let header = ResponseHeader::decode(&mut frame, ApiKey::Fetch.response_header_version(version)).unwrap();
    let body = messages::FetchResponse::decode(&mut frame, version).unwrap();
    assert!(frame.is_empty(), "v{version}: {} bytes are left", frame.len());
    (header.correlation_id, body)
}

#[test]
fn every_field_is_read_as_it_was_given_in_every_version() {
    for version in versions() {
        for read_committed in [false, true] {
            let answer = || FetchResponse { read_committed, ..answer() };
            let (correlation_id, body) = decode(version, &fetch_response(version, answer()).unwrap());
            assert_eq!(correlation_id, 0x0102_0304, "v{version}");
            assert_eq!(body, expected(&answer(), version), "v{version}");
        }
    }
}

#[test]
fn an_answer_without_topics_is_read_in_every_version() {
    for version in versions() {
        let (_, body) = decode(version, &fetch_response(version, FetchResponse::default()).unwrap());
        assert_eq!(body, expected(&FetchResponse::default(), version), "v{version}");
    }
}

#[test]
fn records_are_not_copied() {
    for version in versions() {
        let answer = answer();
        let given: Vec<*const u8> = answer
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .flat_map(|partition| &partition.records)
            .filter(|chunk| !chunk.is_empty())
            .map(|chunk| chunk.as_ptr())
            .collect();
        let chunks = fetch_response(version, answer).unwrap();
        assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
        let written: Vec<*const u8> = chunks.iter().map(|chunk| chunk.as_ptr()).collect();
        assert_eq!(given.len(), 4);
        assert!(given.iter().all(|pointer| written.contains(pointer)), "v{version}: records were copied");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let unsupported = |version| Err(FetchResponseError::Unsupported { version });
    assert_eq!(fetch_response(3, answer()), unsupported(3));
    assert_eq!(fetch_response(18, answer()), unsupported(18));

    let name = "n".repeat(40_000);
    let long = FetchedTopic { name, ..FetchedTopic::default() };
    let answer = FetchResponse { topics: vec![long], ..FetchResponse::default() };
    assert_eq!(fetch_response(4, answer), Err(FetchResponseError::NameTooLong { version: 4, length: 40_000 }));

    // The same mebibyte, many times: more than a frame's length can say.
    let mebibyte = Bytes::from(vec![0; 1 << 20]);
    let partitions = vec![partition(0, vec![mebibyte.clone(); 1024]), partition(1, vec![mebibyte; 1024])];
    let large = FetchedTopic { partitions, ..FetchedTopic::default() };
    let answer = FetchResponse { topics: vec![large], ..FetchResponse::default() };
    assert!(matches!(fetch_response(12, answer), Err(FetchResponseError::TooLarge { .. })));
}
