//! Record batches: what is claimed of any bytes that a producer may send.
//!
//! 1. Neither decoder panics, nor allocates beyond the bound of [`crate::allocation`].
//! 2. What is decoded, encoded and decoded again is the same, and encodes to the same bytes.
//! 3. Crate `kafka-protocol` reads the same records, and reads none where we call a record malformed.
//!
//! Few mutations survive a checksum: the bytes are tried as they are, and again with a length and a CRC that fit them.

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;
use lakebed_segment::batch::{
    Codec, DecodeError, Decoded, Encoder, Fields, HEADER_BYTES, Limits, Producer, Record, Rows, TimestampType, decode,
    decode_stored,
};

use crate::allocation::within_bound;

/// The buffer and the one that it outgrew stay within the 1 MiB of the bound.
const LIMITS: Limits = Limits { max_decompressed_bytes: 256 << 10 };

const LENGTH: std::ops::Range<usize> = 8..12;
const CRC: std::ops::Range<usize> = 17..21;
const BASE_TIMESTAMP: std::ops::Range<usize> = 27..35;

/// Asserts the claims of `input`. Returns whether any of it was accepted.
pub fn check(input: &[u8]) -> bool {
    let accepted = check_one(Bytes::copy_from_slice(input));
    if input.len() < HEADER_BYTES {
        return accepted;
    }
    let mut fitting = input.to_vec();
    fit(&mut fitting);
    check_one(fitting.into()) || accepted
}

/// Gives a batch the length and the CRC of its bytes.
fn fit(batch: &mut [u8]) {
    let length = u32::try_from(batch.len() - LENGTH.end).unwrap_or(u32::MAX);
    batch[LENGTH].copy_from_slice(&length.to_be_bytes());
    let crc = crc_fast::crc32_iscsi(&batch[CRC.end..]);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
}

fn check_one(batch: Bytes) -> bool {
    let sent = within_bound(batch.len(), || decode(batch.clone(), &LIMITS));
    let stored = within_bound(batch.len(), || decode_stored(batch.clone(), &LIMITS));
    match &sent {
        Ok(decoded) => {
            let stored = stored.expect("what a producer may send may be stored");
            assert_eq!((stored.header, &stored.rows), (decoded.header, &decoded.rows));
            assert_stable(decoded);
            let plain = match decoded.header.attributes.codec() {
                Ok(Codec::None) => batch,
                _ => encode(decoded, Codec::None),
            };
            assert_eq!(records_by_kafka_protocol(&plain), Some(with_headers_once(records(&decoded.rows))));
        }
        Err(error) => {
            if let Ok(stored) = &stored {
                // Compaction of keys leaves gaps, and only the broker stamps.
                let has_gaps = i64::from(stored.header.last_offset_delta) >= i64::from(stored.header.count);
                let is_stamped = stored.timestamp_type == TimestampType::LogAppend;
                assert!(has_gaps || is_stamped, "refused, but stored: {error}");
            }
            let is_plain = || batch[22] & 7 == Codec::None.id() && !may_hold_wide_numbers(&batch[HEADER_BYTES..]);
            if calls_a_record_malformed(error) && is_plain() {
                assert_eq!(records_by_kafka_protocol(&batch), None, "{error}");
            }
        }
    }
    sent.is_ok()
}

/// Whether the other decoder must see the same. It takes any offset delta, and bytes that are left over in a record; and it allocates
/// for a count of headers before it looks whether they are there.
fn calls_a_record_malformed(error: &DecodeError) -> bool {
    const OURS_ALONE: [&str; 3] = ["count of headers is more", "offset delta is not", "left over"];
    matches!(error, DecodeError::Record { what, .. } if OURS_ALONE.iter().all(|ours| !what.contains(ours)))
}

/// Whether there may be a number that takes all bytes that it may: the other decoder takes one that does not end there, and drops bits.
fn may_hold_wide_numbers(records: &[u8]) -> bool {
    const CONTINUED: usize = 4;
    records.windows(CONTINUED).any(|bytes| bytes.iter().all(|byte| *byte >= 0x80))
}

fn assert_stable(decoded: &Decoded) {
    let again = encode(decoded, decoded.header.attributes.codec().expect("what was decoded has a codec"));
    let roomy = Limits { max_decompressed_bytes: 1 << 30 };
    let second = decode(again.clone(), &roomy).expect("what we encode we decode");
    assert_eq!(records(&second.rows), records(&decoded.rows));
    assert_eq!(stamp(&second), stamp(decoded));
    assert_eq!(encode(&second, second.header.attributes.codec().expect("it was set")), again, "the same bytes");
}

/// Who sent a batch, as far as it means something: without an id, epoch and sequence are ignored.
fn stamp(decoded: &Decoded) -> (Option<(i64, i16, i32)>, bool) {
    let header = &decoded.header;
    let producer = (header.producer_id, header.producer_epoch, header.base_sequence);
    (Some(producer).filter(|(id, ..)| *id >= 0), header.attributes.is_transactional())
}

fn encode(decoded: &Decoded, codec: Codec) -> Bytes {
    let (producer, is_transactional) = stamp(decoded);
    let producer = producer.map(|(id, epoch, base_sequence)| Producer { id, epoch, base_sequence });
    let mut encoder =
        Encoder::new(Fields { codec, timestamp_type: TimestampType::Create, producer, is_transactional }, 0);
    let rows = &decoded.rows;
    for row in 0..rows.len() {
        let timestamp_ms = rows.timestamps_ms[row];
        let record = Record { offset: row as i64, timestamp_ms, key: rows.key(row), value: rows.value(row) };
        encoder.push(record, rows.headers_of(row)).expect("a record of a batch goes into a batch");
    }
    encoder.finish().expect("there is a record")
}

/// A record's timestamp, key, value and headers.
#[derive(Debug, PartialEq, Eq)]
struct Owned {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn records(rows: &Rows) -> Vec<Owned> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let record = |row: usize| Owned {
        timestamp_ms: rows.timestamps_ms[row],
        key: owned(rows.key(row)),
        value: owned(rows.value(row)),
        headers: rows.headers_of(row).map(|(key, value)| (key.to_vec(), owned(value))).collect(),
    };
    (0..rows.len()).map(record).collect()
}

/// Records as `kafka-protocol` reads them from an uncompressed batch, if it does.
fn records_by_kafka_protocol(batch: &[u8]) -> Option<Vec<Owned>> {
    // SUBTLE: it adds base and delta without a look at overflow, which panics in a debug build: it reads from base 0.
    let mut from_zero = batch.to_vec();
    from_zero[..LENGTH.start].fill(0);
    let base = i64::from_be_bytes(batch[BASE_TIMESTAMP].try_into().expect("eight bytes"));
    from_zero[BASE_TIMESTAMP].fill(0);
    fit(&mut from_zero);
    let set = RecordBatchDecoder::decode(&mut Bytes::from(from_zero)).ok()?;
    let owned = |bytes: Option<&Bytes>| bytes.map(|bytes| bytes.to_vec());
    let records = set.records.iter().map(|record| Owned {
        timestamp_ms: base + record.timestamp,
        key: owned(record.key.as_ref()),
        value: owned(record.value.as_ref()),
        headers: record.headers.iter().map(|(key, value)| (key.as_bytes().to_vec(), owned(value.as_ref()))).collect(),
    });
    Some(records.collect())
}

/// The other decoder keeps headers in a map: a key once, where it first stood, with its last value.
fn with_headers_once(mut records: Vec<Owned>) -> Vec<Owned> {
    for record in &mut records {
        let mut once: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for (key, value) in record.headers.drain(..) {
            match once.iter_mut().find(|(other, _)| *other == key) {
                Some(kept) => kept.1 = value,
                None => once.push((key, value)),
            }
        }
        record.headers = once;
    }
    records
}
