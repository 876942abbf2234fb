//! Claims about the messages as a broker reads them: they are those of the generated types, byte for byte.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn bytes(random: &mut StdRng) -> Option<Bytes> {
    random.random_bool(0.7).then(|| {
        let length = random.random_range(0..300);
        (0..length).map(|_| random.random::<u8>()).collect()
    })
}

fn record(random: &mut StdRng) -> v1::Record {
    let headers = (0..random.random_range(0..4))
        .map(|index| v1::Header { key: ["", "a", "ключ", "a"][index].to_owned(), value: bytes(random) });
    let headers = headers.collect();
    v1::Record {
        key: bytes(random),
        value: bytes(random),
        headers,
        timestamp: random.random_bool(0.5).then(|| random.random()),
        offset: random.random_bool(0.2).then(|| random.random()),
        timestamp_type: random.random_range(0..3),
    }
}

/// A record as the generated type has it, but for what producers leave out.
fn owned(record: &Record<'_>) -> v1::Record {
    let copied = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    v1::Record {
        key: record.key.map(copied),
        value: record.value.map(copied),
        headers: record
            .headers
            .clone()
            .map(|(key, value)| v1::Header { key: String::from_utf8(key.to_vec()).unwrap(), value: value.map(copied) })
            .collect(),
        timestamp: record.timestamp_ms,
        offset: record.offset,
        timestamp_type: 0,
    }
}

#[test]
fn what_the_generated_types_say_is_read_back_from_the_same_bytes() {
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let records: Vec<v1::Record> = (0..random.random_range(0..20)).map(|_| record(&mut random)).collect();
        let sent = v1::ProduceBatch {
            correlation_id: random.random::<u64>() >> random.random_range(0..64),
            partition: random.random_bool(0.5).then(|| random.random()),
            payload: Some(v1::produce_batch::Payload::Records(v1::Records { records: records.clone() })),
            expected_next_offset: random.random_bool(0.5).then(|| random.random()),
        };
        let request = v1::produce_stream_request::Request::Batch(sent.clone());
        let encoded = Bytes::from(v1::ProduceStreamRequest { request: Some(request) }.encode_to_vec());
        let read = ProduceStreamRequest::decode(encoded.clone()).unwrap();
        assert_eq!(read.encode_to_vec(), encoded, "and written as they were");
        let Some(StreamRequest::Batch(batch)) = read.request else { panic!("{read:?}") };
        assert_eq!(
            (batch.correlation_id, batch.partition, batch.expected_next_offset),
            (sent.correlation_id, sent.partition, sent.expected_next_offset)
        );
        assert_eq!(batch.payload.pieces, 1);
        let Some(Content::Records(slice)) = batch.payload.last else { panic!("{:?}", batch.payload) };
        assert!(slice.is_empty() || encoded.as_ptr_range().contains(&slice.as_ptr()), "the records were copied");
        let walked: Vec<v1::Record> = Records::new(&slice).map(|record| owned(&record.unwrap())).collect();
        let expected: Vec<v1::Record> =
            records.into_iter().map(|record| v1::Record { timestamp_type: 0, ..record }).collect();
        assert_eq!(walked, expected);
    }
}

#[test]
fn a_unary_request_is_read_back_from_the_same_bytes() {
    let sent = v1::ProduceRequest {
        topic: "t".to_owned(),
        partition: Some(-1),
        payload: Some(v1::produce_request::Payload::KafkaBatch(Bytes::from_static(b"batch"))),
        expected_next_offset: Some(0),
    };
    let read = ProduceRequest::decode(sent.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read.encode_to_vec(), sent.encode_to_vec());
    assert_eq!((read.topic.as_str(), read.partition, read.expected_next_offset), ("t", Some(-1), Some(0)));
    assert_eq!(read.payload.last, Some(Content::KafkaBatch(Bytes::from_static(b"batch"))));
}

#[test]
fn a_payload_in_pieces_is_told_from_a_whole_one() {
    let piece = |payload| v1::ProduceRequest { payload: Some(payload), ..Default::default() }.encode_to_vec();
    let records = piece(v1::produce_request::Payload::Records(v1::Records { records: vec![v1::Record::default()] }));
    let batch = piece(v1::produce_request::Payload::KafkaBatch(Bytes::from_static(b"batch")));
    for pieces in [[&records, &records], [&records, &batch]] {
        let read = ProduceRequest::decode(pieces.map(Vec::as_slice).concat().as_slice()).unwrap();
        assert_eq!(read.payload.pieces, 2);
    }
    assert_eq!(ProduceRequest::default().payload.pieces, 0);
}

#[test]
fn unknown_fields_are_skipped_and_the_last_of_a_field_counts() {
    let record =
        [&b"\x0a\x01a"[..], b"\x78\x01", b"\x81\x01\0\0\0\0\0\0\0\0", b"\x85\x01\0\0\0\0", b"\x0a\x01b"].concat();
    let records = [&[0x10, 0x01, 0x0a, record.len() as u8][..], &record].concat();
    let keys: Vec<_> = Records::new(&records).map(|record| record.unwrap().key.unwrap()).collect();
    assert_eq!(keys, [b"b"]);
}

#[test]
fn bytes_that_are_no_records_end_in_one_error_and_never_in_a_panic() {
    let cases: [(&[u8], &str); 9] = [
        (b"\x0a\x05\x0a\x01", "longer than the bytes"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "longer than the bytes"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "does not end"),
        (b"\x08\x01", "records are messages"),
        (b"\x0b\x0c", "a type that is not used"),
        (b"\x02\x00", "number is out of range"),
        (b"\x0a\x02\x08\x01", "another type"),
        (b"\x0a\x05\x1a\x03\x0a\x01\xff", "not UTF-8"),
        (b"\x0a\x04\x1a\x02\x10\x00", "field of a header"),
    ];
    for (bytes, expected) in cases {
        let told: Vec<_> = Records::new(bytes).collect();
        let [Err(error)] = &told[..] else { panic!("{bytes:?}: {told:?}") };
        assert!(error.to_string().contains(expected), "{bytes:?}: {error}");
    }
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..20_000 {
        let mut encoded = v1::Records { records: vec![record(&mut random)] }.encode_to_vec();
        let at = random.random_range(0..encoded.len());
        encoded[at] = random.random();
        let generated = v1::Records::decode(encoded.as_slice());
        let walked: Result<Vec<_>, _> = Records::new(&encoded).collect();
        if let (Ok(records), Ok(walked)) = (&generated, &walked) {
            let records: Vec<_> =
                records.records.iter().map(|one| v1::Record { timestamp_type: 0, ..one.clone() }).collect();
            assert_eq!(walked.iter().map(owned).collect::<Vec<_>>(), records);
        }
        assert!(walked.is_err() || generated.is_ok(), "what other readers refuse is taken: {encoded:?}");
    }
}
