//! Batches made to exhaust a broker are refused, and cost no more memory than documented: counted by an allocator.
//!
//! The tests of this binary run one at a time, since they share the count.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lakebed_segment::batch::{
    Codec, DecodeError, Decoded, Encoder, Fields, Kind, Limits, Record, TimestampType, decode,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MEBIBYTE: usize = 1 << 20;
const LIMITS: Limits = Limits { max_decompressed_bytes: 8 * MEBIBYTE };

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decodes; the bytes allocated meanwhile stay within 8 times the input, 1 MiB, and `beyond`.
fn decode_within(beyond: usize, batch: Vec<u8>) -> Result<Decoded, DecodeError> {
    let input = batch.len();
    let batch = Bytes::from(batch);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let outcome = decode(batch, &LIMITS);
    let allocated = ALLOCATOR.peak_usage().saturating_sub(before);
    let allowed = 8 * input + MEBIBYTE + beyond;
    assert!(allocated <= allowed, "{allocated} bytes allocated for {input} of input, {allowed} allowed: {outcome:?}");
    outcome
}

/// A batch that claims `count` records, with right lengths and CRC.
fn batch(codec: Codec, count: i32, records: &[u8]) -> Vec<u8> {
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 0);
    encoder.push(Record { offset: 0, timestamp_ms: 0, key: None, value: None }, []).unwrap();
    let mut batch = encoder.finish().unwrap()[..61].to_vec();
    batch[8..12].copy_from_slice(&(records.len() as i32 + 49).to_be_bytes());
    batch[22] = codec.id();
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch.extend_from_slice(records);
    let crc = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn varint(number: i64) -> Vec<u8> {
    let mut rest = (number << 1 ^ number >> 63) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// Record `index` with `headers` headers of two bytes each.
fn record(index: i64, headers: usize) -> Vec<u8> {
    let mut body = [&[0, 0][..], &varint(index), &[1, 1], &varint(headers as i64)].concat();
    body.extend(std::iter::repeat_n([0, 1], headers).flatten());
    [varint(body.len() as i64), body].concat()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn lz4(plain: &[u8]) -> Vec<u8> {
    let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max4MB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn xerial(plain: &[u8]) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for chunk in plain.chunks(32 * 1024) {
        let compressed = snap::raw::Encoder::new().compress_vec(chunk).unwrap();
        out.extend((compressed.len() as u32).to_be_bytes());
        out.extend(compressed);
    }
    out
}

#[test]
fn a_batch_of_61_bytes_that_claims_two_billion_records_is_refused() {
    let _alone = alone();
    let hostile = batch(Codec::None, i32::MAX, &[]);
    assert_eq!(hostile.len(), 61);
    let error = decode_within(0, hostile).unwrap_err();
    assert_eq!(error, DecodeError::Count { claimed: i32::MAX, present: 0 });
    assert_eq!(error.kind(), Kind::InvalidRecord);
}

#[test]
fn a_record_that_claims_two_billion_headers_is_refused() {
    let _alone = alone();
    let body = [&[0, 0, 0, 1, 1][..], &varint(i64::from(i32::MAX))].concat();
    let hostile = batch(Codec::None, 1, &[varint(body.len() as i64), body].concat());
    assert_eq!(hostile.len(), 72);
    assert!(matches!(decode_within(0, hostile), Err(DecodeError::Record { index: 0, .. })));
}

#[test]
fn a_value_that_claims_two_billion_bytes_is_refused() {
    let _alone = alone();
    let body = [&[0, 0, 0, 1][..], &varint(i64::from(i32::MAX)), &[0]].concat();
    let hostile = batch(Codec::None, 1, &[varint(body.len() as i64), body].concat());
    assert!(matches!(decode_within(0, hostile), Err(DecodeError::Record { index: 0, .. })));
}

#[test]
fn a_decompression_bomb_of_every_codec_stops_at_the_limit() {
    let _alone = alone();
    let plain = vec![0; 64 * MEBIBYTE];
    let bombs = [
        (Codec::Gzip, gzip(&plain)),
        (Codec::Snappy, snap::raw::Encoder::new().compress_vec(&plain).unwrap()),
        (Codec::Snappy, xerial(&plain)),
        (Codec::Lz4, lz4(&plain)),
        (Codec::Zstd, zstd::bulk::compress(&plain, 3).unwrap()),
    ];
    drop(plain);
    for (codec, bomb) in bombs {
        // The buffer, and the one that it outgrew.
        let outcome = decode_within(2 * LIMITS.max_decompressed_bytes, batch(codec, 1, &bomb));
        let error = outcome.unwrap_err();
        assert_eq!(error, DecodeError::TooLarge { limit: LIMITS.max_decompressed_bytes as u64 }, "{codec:?}");
        assert_eq!(error.kind(), Kind::TooLarge);
    }
}

#[test]
fn a_frame_that_merely_claims_a_size_gets_nothing_for_it() {
    let _alone = alone();
    let snappy = [&varint(i64::from(i32::MAX / 2))[..], &[0, 0]].concat();
    // One segment, content size in 8 bytes, one raw block of one byte.
    let zstd_size = [&[0x28, 0xB5, 0x2F, 0xFD, 0xE0][..], &(1u64 << 22).to_le_bytes(), &[9, 0, 0, 7]].concat();
    // No content size, a window of 128 MiB, one raw block of one byte.
    let zstd_window = [0x28, 0xB5, 0x2F, 0xFD, 0, (27 - 10) << 3, 9, 0, 0, 7].to_vec();
    // Blocks of up to 4 MiB; one of a byte.
    let lz4_block = [4, 0x22, 0x4D, 0x18, 0x60, 0x70, 0, 1, 0, 0, 0, 0x10, 0, 0, 0, 0].to_vec();
    for (codec, frame) in [
        (Codec::Snappy, snappy),
        (Codec::Zstd, zstd_size),
        (Codec::Zstd, zstd_window),
        (Codec::Lz4, lz4_block),
        (Codec::Gzip, gzip(b"x")),
    ] {
        assert!(decode_within(0, batch(codec, 1, &frame)).is_err());
    }
}

#[test]
fn the_densest_batches_need_eight_times_their_bytes_at_most() {
    let _alone = alone();
    let smallest: Vec<u8> = (0..300_000).flat_map(|index| record(index, 0)).collect();
    let rows = decode_within(0, batch(Codec::None, 300_000, &smallest)).unwrap().rows;
    assert_eq!(rows.len(), 300_000);

    let one_of_many_headers = record(0, 1_000_000);
    let rows = decode_within(0, batch(Codec::None, 1, &one_of_many_headers)).unwrap().rows;
    assert_eq!(rows.headers_of(0).len(), 1_000_000);

    let then_more: Vec<u8> =
        (0..2000).flat_map(|index| record(index, if index == 1000 { 500_000 } else { 3 })).collect();
    let rows = decode_within(0, batch(Codec::None, 2000, &then_more)).unwrap().rows;
    assert_eq!(rows.headers.len(), 500_000 + 1999 * 3);
    assert_eq!(rows.headers_of(1999).len(), 3);
}

#[test]
fn a_compressed_batch_of_dense_records_stays_within_the_limit() {
    let _alone = alone();
    // 4 MiB of one record's headers: the payload fits the limit, the payload and what points into it do not.
    let dense = record(0, 2 * MEBIBYTE);
    assert!(dense.len() < LIMITS.max_decompressed_bytes);
    let hostile = batch(Codec::Zstd, 1, &zstd::bulk::compress(&dense, 3).unwrap());
    assert!(hostile.len() < 4096);
    let error = decode_within(LIMITS.max_decompressed_bytes, hostile).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);

    let records: Vec<u8> = (0..600_000).flat_map(|index| record(index, 0)).collect();
    let hostile = batch(Codec::Lz4, 600_000, &lz4(&records));
    let outcome = decode_within(2 * LIMITS.max_decompressed_bytes, hostile);
    assert!(outcome.is_ok() || outcome.is_err_and(|error| error.kind() == Kind::TooLarge));
}
