//! Each rule for a producer's batch, broken alone: the refusal names it, with the right kind.

use bytes::Bytes;
use lakebed_segment::batch::{
    Codec, DecodeError, EncodeError, Encoder, Fields, Kind, Record, TIMESTAMP_MAX_MS, TimestampType, decode,
};

use crate::records::{LIMITS, Owned, encode, fields, set_crc, with_records};

fn batch_of(count: usize) -> Vec<u8> {
    let record = |offset| Owned { offset, timestamp_ms: 5, key: None, value: Some(b"v".to_vec()), headers: vec![] };
    encode(fields(Codec::None), &(0..count as i64).map(record).collect::<Vec<_>>()).to_vec()
}

/// Two records after `field` was written at `at`, under a right CRC.
fn batch_with(at: usize, field: &[u8]) -> Bytes {
    let mut batch = batch_of(2);
    batch[at..at + field.len()].copy_from_slice(field);
    set_crc(&mut batch);
    Bytes::from(batch)
}

fn refusal_with(at: usize, field: &[u8]) -> DecodeError {
    decode(batch_with(at, field), &LIMITS).unwrap_err()
}

/// One record of these bytes, its length before it.
fn refusal_of(record: &[u8]) -> DecodeError {
    let mut records = vec![2 * record.len() as u8];
    records.extend_from_slice(record);
    decode(with_records(&batch_of(1), Codec::None, &records), &LIMITS).unwrap_err()
}

#[test]
fn old_and_unknown_formats_are_told_apart() {
    for magic in [0u8, 1] {
        let error = refusal_with(16, &[magic]);
        assert_eq!(error, DecodeError::OldFormat { magic: magic as i8 });
        assert_eq!(error.kind(), Kind::UnsupportedForMessageFormat);
    }
    for magic in [3u8, 255] {
        assert_eq!(refusal_with(16, &[magic]).kind(), Kind::Corrupt);
    }
    // Shorter than our header, as their messages may be.
    assert_eq!(decode(Bytes::from(vec![0; 26]), &LIMITS).unwrap_err().kind(), Kind::UnsupportedForMessageFormat);
}

#[test]
fn attributes_that_producers_must_not_set_are_refused() {
    assert_eq!(refusal_with(21, &[0, 1 << 5]).kind(), Kind::InvalidRecord);
    assert_eq!(refusal_with(21, &[0, 1 << 6]).kind(), Kind::InvalidRecord);
    assert_eq!(refusal_with(21, &[0x80, 0]).kind(), Kind::InvalidRecord);
    assert_eq!(refusal_with(21, &[0, 1 << 3]), DecodeError::LogAppendTime);
    assert_eq!(DecodeError::LogAppendTime.kind(), Kind::InvalidTimestamp);
    for id in 5..8 {
        assert_eq!(refusal_with(21, &[0, id]), DecodeError::UnknownCodec { id });
        assert_eq!(refusal_with(21, &[0, id]).kind(), Kind::UnsupportedCompression);
    }
}

#[test]
fn counts_and_lengths_must_add_up() {
    assert!(matches!(refusal_with(57, &3i32.to_be_bytes()), DecodeError::LastOffsetDelta { count: 3, .. }));
    assert!(matches!(refusal_with(57, &0i32.to_be_bytes()), DecodeError::Count { claimed: 0, .. }));
    assert!(matches!(refusal_with(57, &(-1i32).to_be_bytes()), DecodeError::Count { claimed: -1, .. }));
    assert!(matches!(refusal_with(23, &7i32.to_be_bytes()), DecodeError::LastOffsetDelta { .. }));
    assert!(matches!(refusal_with(23, &(-1i32).to_be_bytes()), DecodeError::LastOffsetDelta { .. }));
    // One record fewer, and one more, than there are.
    let fewer = [&0i32.to_be_bytes()[..], &batch_of(2)[27..57], &1i32.to_be_bytes()].concat();
    assert!(matches!(refusal_with(23, &fewer), DecodeError::LeftOver { .. }));
    let more = [&2i32.to_be_bytes()[..], &batch_of(2)[27..57], &3i32.to_be_bytes()].concat();
    assert!(matches!(refusal_with(23, &more), DecodeError::Count { .. } | DecodeError::Record { index: 2, .. }));
    for length in [0, 48, -1, i32::MIN] {
        assert!(matches!(refusal_with(8, &length.to_be_bytes()), DecodeError::Length { .. }), "{length}");
    }
    assert!(matches!(refusal_with(8, &i32::MAX.to_be_bytes()), DecodeError::Truncated { .. }));
}

#[test]
fn a_producer_is_whole_or_absent() {
    let field = |id: i64, epoch: i16, sequence: i32| {
        [&id.to_be_bytes()[..], &epoch.to_be_bytes(), &sequence.to_be_bytes()].concat()
    };
    for (epoch, sequence) in [(-1, -1), (-1, 0), (0, 0)] {
        assert!(decode(batch_with(43, &field(-1, epoch, sequence)), &LIMITS).is_ok(), "no id, {epoch}, {sequence}");
    }
    for (id, epoch, sequence) in [(1, -1, -1), (1, 1, -1), (1, -1, 1), (-2, -2, -2)] {
        let field = field(id, epoch, sequence);
        let error = refusal_with(43, &field);
        assert_eq!(error, DecodeError::Producer { id, epoch, sequence });
        assert_eq!(error.kind(), Kind::InvalidRecord);
    }
}

#[test]
fn timestamps_end_where_microseconds_overflow() {
    for base in [-2, i64::MIN, TIMESTAMP_MAX_MS + 1, i64::MAX] {
        let error = refusal_with(27, &base.to_be_bytes());
        assert_eq!(error, DecodeError::Timestamp { index: 0, base, delta: 0 });
        assert_eq!(error.kind(), Kind::InvalidTimestamp);
    }
    for base in [-1, 0, TIMESTAMP_MAX_MS] {
        let mut batch = batch_of(2);
        batch[27..35].copy_from_slice(&base.to_be_bytes());
        set_crc(&mut batch);
        let rows = decode(Bytes::from(batch), &LIMITS).unwrap().rows;
        assert_eq!(rows.timestamps_ms, [base, base]);
    }
    // i64::MAX + 1 wraps around to a delta that looks right.
    let mut record = vec![0];
    record.extend([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    record.extend([0, 1, 1, 0]);
    assert_eq!(refusal_of(&record), DecodeError::Timestamp { index: 0, base: 5, delta: i64::MAX });
}

#[test]
fn a_malformed_record_is_refused() {
    let refused = |record: &[u8]| {
        let error = refusal_of(record);
        assert_eq!(error.kind(), Kind::InvalidRecord);
        match error {
            DecodeError::Record { index: 0, what } => what,
            other => panic!("{other}"),
        }
    };
    // attributes, timestamp delta, offset delta, key, value, headers
    assert_eq!(refused(&[0, 0, 2, 1, 1, 0]), "offset delta is not its place in the batch");
    assert_eq!(refused(&[0, 0, 0, 3, 1, 0]), "key does not fit the record");
    assert_eq!(refused(&[0, 0, 0, 6, 1, 0]), "key does not fit the record");
    assert_eq!(refused(&[0, 0, 0, 1, 2, 0]), "count of headers is malformed");
    assert_eq!(refused(&[0, 0, 0, 1, 4, 0]), "value does not fit the record");
    assert_eq!(refused(&[0, 0, 0, 1, 1, 1]), "count of headers is negative");
    assert_eq!(refused(&[0, 0, 0, 1, 1, 4, 0, 1, 0]), "count of headers is more than the record can hold");
    assert_eq!(refused(&[0, 0, 0, 1, 1, 0, 0]), "bytes are left over in the record");
    assert_eq!(refused(&[0, 0, 0, 1, 1, 2, 1, 1]), "header key is null");
    assert_eq!(refused(&[0, 0, 0, 1, 1, 2, 4, 0xff, 0xfe, 1]), "header key is not UTF-8");
    assert_eq!(refused(&[0, 0, 0, 1, 1, 2, 0, 4]), "header value does not fit the record");
}

#[test]
fn a_damaged_stream_is_corrupt_and_not_a_panic() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for records in [&b""[..], b"x", b"not compressed at all, and long enough", &[0xff; 40]] {
            let error = decode(with_records(&batch_of(1), codec, records), &LIMITS).unwrap_err();
            assert!(matches!(error.kind(), Kind::Corrupt | Kind::InvalidRecord), "{codec:?}: {error}");
        }
    }
}

#[test]
fn the_encoder_refuses_what_the_format_cannot_say_and_stays_as_it_was() {
    let record = |offset, timestamp_ms| Record { offset, timestamp_ms, key: None, value: None };
    let fields = Fields { timestamp_type: TimestampType::LogAppend, ..fields(Codec::None) };
    let mut encoder = Encoder::new(fields, 0);
    assert!(matches!(encoder.push(record(-1, 0), []), Err(EncodeError::OffsetOrder { .. })));
    assert!(matches!(encoder.push(record(0, -2), []), Err(EncodeError::Timestamp { .. })));
    encoder.push(record(7, 5), []).unwrap();
    let size = encoder.size_bytes();
    assert!(matches!(encoder.push(record(7, 5), []), Err(EncodeError::OffsetOrder { .. })));
    let far = encoder.push(record(8 + i64::from(i32::MAX), 5), []).unwrap_err();
    assert!(matches!(far, EncodeError::OffsetSpan { base_offset: 7, .. }) && far.wants_next_batch());
    let other_time = encoder.push(record(8, 6), []).unwrap_err();
    assert!(matches!(other_time, EncodeError::AppendTime { .. }) && other_time.wants_next_batch());
    assert_eq!((encoder.size_bytes(), encoder.count()), (size, 1));
    encoder.push(record(7 + i64::from(i32::MAX), 5), []).unwrap();
    let size = encoder.size_bytes();
    assert_eq!(encoder.finish().unwrap().len(), size);
    assert_eq!(Encoder::new(fields, 0).finish(), None);
}
