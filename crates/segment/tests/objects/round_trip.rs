//! Whatever rows go in come out, in every respect that anyone can see.

use bytes::Bytes;
use lakebed_model::{Nonce, Offset, PartitionKey};
use lakebed_segment::batch::{Header, Limits, TimestampType, decode};
use lakebed_segment::body::{SealError, seal, seal_pieces};
use lakebed_segment::commit::{commit_object, segment_object};
use lakebed_segment::footer::Kind;
use lakebed_segment::rows::{BodyBatch, Piece, RowSource};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::samples::{self, Content, INGEST_TIME_MS, Rec, identity, partition, rec, rows_of, segment_id};
use crate::{read_all, records_of};

fn some_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..20))
}

fn record() -> impl Strategy<Value = Rec> {
    let timestamp = prop_oneof![Just(-1_i64), 0..10_i64, Just(i64::MAX / 1000)];
    let headers = prop_oneof![3 => Just(Vec::new()), 1 => vec(("[a-zé]{0,3}", some_bytes()), 0..4)];
    (timestamp, some_bytes(), some_bytes(), headers).prop_map(|(timestamp_ms, key, value, headers)| Rec {
        timestamp_ms,
        key,
        value,
        headers,
    })
}

type Batch = (u32, Option<i64>, Vec<Rec>);

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let batch = (0..5_u32, option::weighted(0.2, 0..3_i64), vec(record(), 1..12));
    vec(batch, 0..8).prop_map(|mut batches| {
        batches.sort_by_key(|(partition, ..)| *partition);
        batches
    })
}

fn content(batches: &[Batch]) -> Content {
    Content {
        batches: batches
            .iter()
            .map(|(index, time, records)| (partition(u128::from(index / 3), *index), rows_of(records), *time))
            .collect(),
    }
}

/// The records as they must come back: with the log's time where it stamps them.
fn expected(batches: &[Batch]) -> Vec<Rec> {
    let stamped =
        |time: Option<i64>, record: &Rec| Rec { timestamp_ms: time.unwrap_or(record.timestamp_ms), ..record.clone() };
    batches.iter().flat_map(|(_, time, records)| records.iter().map(move |record| stamped(*time, record))).collect()
}

/// The batch without the mark that the log stamped it, which our decoder takes from no producer.
fn as_of_producer(batch: &[u8]) -> Bytes {
    const ATTRIBUTES_AT: usize = 22;
    const LOG_APPEND: u8 = 8;
    let mut bytes = batch.to_vec();
    bytes[ATTRIBUTES_AT] &= !LOG_APPEND;
    let crc = crc_fast::crc32_iscsi(&bytes[ATTRIBUTES_AT - 1..]);
    bytes[ATTRIBUTES_AT - 5..ATTRIBUTES_AT - 1].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

proptest! {
    #[test]
    fn rows_come_back_as_they_went_in(batches in batches()) {
        let content = content(&batches);
        let object = bytes::Bytes::from(segment_object(&identity(), segment_id(), Nonce::new(1), content.body()));
        let (footer, rows) = read_all(&object).unwrap();
        prop_assert_eq!(records_of(&rows), expected(&batches));
        let types = batches.iter().flat_map(|(_, time, records)| records.iter().map(|_| time.is_some()));
        let read = (0..rows.len()).map(|row| rows.timestamp_type(row) == TimestampType::LogAppend);
        prop_assert!(types.eq(read));
        prop_assert!((0..rows.len()).all(|row| rows.ingest_time_ms(row) == INGEST_TIME_MS));
        // Every run by itself, with the hash that its commit has.
        let mut first = 0;
        for (_, facts) in content.facts() {
            let end = first + u64::from(facts.rows);
            let run = footer.read(first..end, &[(0, object.clone())]).unwrap();
            prop_assert_eq!(run.hash(), facts.hash);
            first = end;
        }
    }

    #[test]
    fn consumers_get_the_records_with_their_offsets(batches in batches(), bytes_max in 1_usize..400, base in 0..1000_u64) {
        let content = content(&batches);
        let object = bytes::Bytes::from(segment_object(&identity(), segment_id(), Nonce::new(1), content.body()));
        let (_, rows) = read_all(&object).unwrap();
        let mut records = Vec::new();
        let mut next = base;
        for batch in rows.to_batches(Offset::new(base), bytes_max).unwrap() {
            let stamped = Header::peek(&batch.bytes).unwrap().attributes.timestamp_type() == TimestampType::LogAppend;
            let decoded = decode(as_of_producer(&batch.bytes), &Limits { max_decompressed_bytes: 0 }).unwrap();
            prop_assert_eq!(batch.first.get(), next);
            prop_assert_eq!(decoded.header.base_offset, next as i64);
            next += decoded.rows.len() as u64;
            prop_assert_eq!(batch.last.get() + 1, next);
            prop_assert!(batch.bytes.len() <= bytes_max || decoded.rows.len() == 1);
            for row in 0..decoded.rows.len() {
                let headers = decoded.rows.headers_of(row);
                let timestamp = decoded.rows.timestamps_ms[row];
                prop_assert!(!stamped || timestamp == decoded.header.max_timestamp);
                records.push(Rec {
                    timestamp_ms: timestamp,
                    key: decoded.rows.key(row).map(<[u8]>::to_vec),
                    value: decoded.rows.value(row).map(<[u8]>::to_vec),
                    headers: headers
                        .map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), value.map(<[u8]>::to_vec)))
                        .collect(),
                });
            }
        }
        prop_assert_eq!(records, expected(&batches));
    }

    #[test]
    fn merged_rows_are_the_rows_that_were_merged(batches in batches(), cut in 0..8_usize) {
        // Two objects, sealed at different times, become one with a run per partition.
        let (left, right) = batches.split_at(cut.min(batches.len()));
        let objects: Vec<_> = [(left, 5_i64), (right, 9)]
            .into_iter()
            .map(|(batches, time)| {
                let content = content(batches);
                let body = seal(&content.body_batches(), time).unwrap();
                let object = bytes::Bytes::from(segment_object(&identity(), segment_id(), Nonce::new(1), body));
                (content, read_all(&object).unwrap().1)
            })
            .collect();
        let mut pieces: Vec<Piece<'_, _>> = Vec::new();
        for (content, rows) in &objects {
            let mut first = 0;
            for (partition, batch, _) in &content.batches {
                pieces.push(Piece { partition: *partition, source: rows, rows: first..first + batch.len() });
                first += batch.len();
            }
        }
        pieces.sort_by_key(|piece| piece.partition);
        let merged = bytes::Bytes::from(segment_object(&identity(), segment_id(), Nonce::new(1), seal_pieces(&pieces).unwrap()));
        let (_, merged) = read_all(&merged).unwrap();
        let mut row = 0;
        for piece in &pieces {
            for other in piece.rows.clone() {
                let hash = |rows, row| lakebed_segment::row_hash::hash_row(rows, row);
                prop_assert_eq!(hash(&merged, row), hash(piece.source, other));
                prop_assert_eq!(merged.ingest_time_ms(row), piece.source.ingest_time_ms(other));
                row += 1;
            }
        }
        prop_assert_eq!(row, merged.len());
    }
}

#[test]
fn every_visible_difference_changes_the_hash_of_a_row() {
    let hash = |record: &Rec, time, ingest| {
        lakebed_segment::row_hash::hash_rows(&rows_of(std::slice::from_ref(record)), time, ingest)
    };
    let with = |headers: &[(&str, Option<&[u8]>)]| {
        let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), value.map(<[u8]>::to_vec)));
        Rec { headers: headers.collect(), ..rec(5, Some(b"k"), Some(b"v")) }
    };
    let base = rec(5, Some(b"k"), Some(b"v"));
    let variants = [
        hash(&base, None, 7),
        hash(&base, Some(5), 7),
        hash(&base, Some(6), 7),
        hash(&base, None, 8),
        hash(&rec(-1, Some(b"k"), Some(b"v")), None, 7),
        hash(&rec(6, Some(b"k"), Some(b"v")), None, 7),
        hash(&rec(5, None, Some(b"v")), None, 7),
        hash(&rec(5, Some(b""), Some(b"v")), None, 7),
        hash(&rec(5, Some(b"k"), None), None, 7),
        hash(&rec(5, Some(b"k"), Some(b"")), None, 7),
        hash(&rec(5, Some(b"v"), Some(b"k")), None, 7),
        hash(&rec(5, Some(b"kv"), Some(b"")), None, 7),
        hash(&rec(5, Some(b"k"), Some(b"v\0")), None, 7),
        hash(&with(&[("a", None)]), None, 7),
        hash(&with(&[("a", Some(b""))]), None, 7),
        hash(&with(&[("", Some(b"a"))]), None, 7),
        hash(&with(&[("a", Some(b"")), ("a", None)]), None, 7),
        hash(&with(&[("a", None), ("a", Some(b""))]), None, 7),
    ];
    for (index, one) in variants.iter().enumerate() {
        assert!(variants[..index].iter().all(|other| other != one), "variant {index} has the hash of another");
    }
}

#[test]
fn a_commit_comes_back_with_every_kind_of_entry_and_outcome() {
    let commit = samples::commit_with_rows();
    let (footer, rows) = read_all(&commit_object(&identity(), &commit, samples::content().body()).into()).unwrap();
    assert_eq!(footer.kind, Kind::Commit(commit));
    assert_eq!(footer.rows, rows.len() as u64);
}

#[test]
fn what_the_edge_should_have_refused_is_not_sealed() {
    let rows = rows_of(&[rec(5, None, None)]);
    let batch = |partition: PartitionKey| BodyBatch { partition, rows: &rows, log_append_time_ms: None };
    let order = seal(&[batch(partition(1, 1)), batch(partition(1, 0))], 5);
    assert_eq!(order, Err(SealError::OutOfOrder { previous: partition(1, 1), next: partition(1, 0) }));
    let far = partition(1, 1 << 31);
    assert_eq!(seal(&[batch(far)], 5), Err(SealError::PartitionOutOfRange { partition: far }));
    let time = BodyBatch { log_append_time_ms: Some(i64::MAX / 1000 + 1), ..batch(partition(1, 0)) };
    assert_eq!(seal(&[time], 5), Err(SealError::TimestampOutOfRange { timestamp_ms: i64::MAX / 1000 + 1 }));
    assert_eq!(seal(&[batch(partition(1, 0))], -1), Err(SealError::TimestampOutOfRange { timestamp_ms: -1 }));
}

#[test]
fn every_bit_of_a_value_is_in_the_hash_of_its_row() {
    let hash = |value: &[u8]| lakebed_segment::row_hash::hash_rows(&rows_of(&[rec(5, None, Some(value))]), None, 7);
    for length in [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100] {
        let value: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let whole = hash(&value);
        for bit in 0..8 * length {
            let mut other = value.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(hash(&other), whole, "bit {bit} of {length} bytes");
        }
        let mut swapped = value.clone();
        swapped.reverse();
        assert!(length == 1 || hash(&swapped) != whole, "{length} bytes reversed");
    }
}

#[test]
fn the_hash_of_a_row_is_the_one_of_the_specification() {
    // Computed by the words of docs/format.md in another language: tests/readers/check_segments.py has the code.
    let long: Vec<u8> = (0..45).collect();
    let mut record = rec(1_764_000_000_000, Some(b"key"), Some(&long));
    record.headers = vec![("a".to_owned(), None), ("b".to_owned(), Some(Vec::new()))];
    let hash = lakebed_segment::row_hash::hash_rows(&rows_of(&[record]), None, INGEST_TIME_MS);
    assert_eq!(format!("{:016x}", hash.to_bits()), "157ca188d013bdc6");
}
