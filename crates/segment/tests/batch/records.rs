//! Records to make batches of, at random and by hand, and what is expected of them.

use bytes::Bytes;
use lakebed_segment::batch::{Codec, Encoder, Fields, Limits, Record, Rows, TimestampType};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

pub(crate) const LIMITS: Limits = Limits { max_decompressed_bytes: 4 << 20 };

/// Where [`crc`](set_crc) is, and where it covers from.
const CRC: std::ops::Range<usize> = 17..21;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

pub(crate) fn config() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(20_261_123), failure_persistence: None, ..ProptestConfig::default() }
}

fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        5 => prop::collection::vec(any::<u8>(), 0..90).prop_map(Some),
        1 => (any::<u8>(), 0usize..20_000).prop_map(|(byte, len)| Some(vec![byte; len])),
    ]
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![Just(-1), Just(0), 1_700_000_000_000i64..1_700_000_100_000, 0..=i64::MAX / 1000]
}

prop_compose! {
    fn record(duplicates: bool)(
        timestamp_ms in timestamp(),
        key in bytes(),
        value in bytes(),
        headers in prop::collection::vec((prop_oneof!["[ab]", "\\PC{0,70}"], bytes()), 0..5),
        gap in prop_oneof![3 => Just(1i64), 1 => 1i64..1000],
    ) -> Owned {
        let mut headers = headers;
        if !duplicates {
            headers.sort();
            headers.dedup_by(|one, other| one.0 == other.0);
        }
        Owned { offset: gap, timestamp_ms, key, value, headers }
    }
}

/// Records from a base on, with gaps if wanted.
pub(crate) fn records(duplicates: bool, gaps: bool) -> impl Strategy<Value = Vec<Owned>> {
    (0i64..1 << 40, prop::collection::vec(record(duplicates), 1..40)).prop_map(move |(mut offset, mut records)| {
        for record in &mut records {
            offset += if gaps { record.offset } else { 1 };
            record.offset = offset;
        }
        records
    })
}

pub(crate) fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(Codec::ALL.to_vec())
}

pub(crate) fn fields(codec: Codec) -> Fields {
    Fields { codec, timestamp_type: TimestampType::Create, producer: None, is_transactional: false }
}

pub(crate) fn push(encoder: &mut Encoder, owned: &Owned) {
    let record = Record {
        offset: owned.offset,
        timestamp_ms: owned.timestamp_ms,
        key: owned.key.as_deref(),
        value: owned.value.as_deref(),
    };
    encoder.push(record, owned.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref()))).unwrap();
}

pub(crate) fn encode(fields: Fields, records: &[Owned]) -> Bytes {
    let mut encoder = Encoder::new(fields, 0);
    records.iter().for_each(|record| push(&mut encoder, record));
    assert_eq!(encoder.count() as usize, records.len());
    encoder.finish().unwrap()
}

/// The rows as records from `base_offset` on.
pub(crate) fn owned(rows: &Rows, base_offset: i64) -> Vec<Owned> {
    (0..rows.len())
        .map(|row| Owned {
            offset: base_offset + row as i64,
            timestamp_ms: rows.timestamps_ms[row],
            key: rows.key(row).map(<[u8]>::to_vec),
            value: rows.value(row).map(<[u8]>::to_vec),
            headers: rows
                .headers_of(row)
                .map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), value.map(<[u8]>::to_vec)))
                .collect(),
        })
        .collect()
}

pub(crate) fn set_crc(batch: &mut [u8]) {
    let crc = crc_fast::crc32_iscsi(&batch[CRC.end..]);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
}

/// A batch with `batch`'s header fields, other records, and lengths and CRC that fit.
pub(crate) fn with_records(batch: &[u8], codec: Codec, records: &[u8]) -> Bytes {
    let mut other = batch[..61].to_vec();
    other[8..12].copy_from_slice(&(records.len() as i32 + 49).to_be_bytes());
    other[22] = other[22] & !7 | codec.id();
    other.extend_from_slice(records);
    set_crc(&mut other);
    Bytes::from(other)
}
