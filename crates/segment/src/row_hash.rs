//! The hash of a row, and what a commit says of a batch.
//!
//! A row's hash covers everything that a consumer or a table can see of it: timestamp, timestamp type, ingest timestamp, key, value,
//! headers, with lengths and nulls. `docs/format.md` defines it; it is part of format 1. It finds bugs and damage, not forgers.

use lakebed_model::{BatchFacts, Offset, ProducerStamp, RowsHash, TimestampRange};

use crate::batch::Rows;
use crate::rows::{BodyBatch, RowSource, StampedRows, timestamp_type_number};

/// Where the hash of a row begins (the first 64 fractional bits of pi).
const SEED: u64 = 0x243f_6a88_85a3_08d3;
/// What every word is multiplied with (the 64 bits after those; odd).
const MULTIPLIER: u64 = 0x1319_8a2e_0370_7345;
/// The length of null.
const NULL: u64 = u64::MAX;

/// Bytes that are folded at once, a word into each of four lanes that do not wait for one another.
const BLOCK_BYTES: usize = 32;

#[inline]
fn fold(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
    (product as u64) ^ (product >> 64) as u64 ^ hash.rotate_left(32)
}

#[inline]
fn fold_bytes(hash: u64, bytes: Option<&[u8]>) -> u64 {
    let Some(bytes) = bytes else { return fold(hash, NULL) };
    let mut hash = fold(hash, bytes.len() as u64);
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    if !blocks.is_empty() {
        let mut lanes = [SEED, SEED + 1, SEED + 2, SEED + 3];
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                *lane = fold(*lane, u64::from_le_bytes(*word));
            }
        }
        hash = lanes.into_iter().fold(hash, fold);
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash = fold(hash, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut word = [0_u8; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = fold(hash, u64::from_le_bytes(word));
    }
    hash
}

/// The hash of one row.
pub fn hash_row<S: RowSource>(source: &S, row: usize) -> u64 {
    let mut hash = fold(SEED, source.timestamp_ms(row) as u64);
    hash = fold(hash, u64::from(timestamp_type_number(source.timestamp_type(row))));
    hash = fold(hash, source.ingest_time_ms(row) as u64);
    hash = fold_bytes(hash, source.key(row));
    hash = fold_bytes(hash, source.value(row));
    let headers = source.headers(row);
    hash = fold(hash, headers.len() as u64);
    for (key, value) in headers {
        hash = fold_bytes(fold_bytes(hash, Some(key)), value);
    }
    hash
}

/// The combinable hash of consecutive rows of a source.
pub fn hash_source<S: RowSource>(source: &S, rows: std::ops::Range<usize>) -> RowsHash {
    rows.fold(RowsHash::EMPTY, |hash, row| hash.push(hash_row(source, row)))
}

/// The combinable hash of rows of a run with gaps: each with its offset, which its place does not tell.
pub fn hash_placed<S: RowSource>(source: &S, rows: std::ops::Range<usize>, offsets: &[Offset]) -> RowsHash {
    let placed = rows.zip(offsets);
    placed.fold(RowsHash::EMPTY, |hash, (row, offset)| hash.push(place_hash(hash_row(source, row), *offset)))
}

/// The hash of a row with its offset, given that of the row.
pub fn place_hash(row_hash: u64, offset: Offset) -> u64 {
    fold(row_hash, offset.get())
}

/// The combinable hash of a batch's rows, with the times that its flush gives them.
pub fn hash_rows(rows: &Rows, log_append_time_ms: Option<i64>, ingest_time_ms: i64) -> RowsHash {
    let stamped = StampedRows { rows, log_append_time_ms, ingest_time_ms };
    hash_source(&stamped, 0..rows.len())
}

/// What a commit says of a batch that expects nothing, if it is sealed with this ingest time.
///
/// # Cost
/// Reads all keys, values and headers once.
pub fn facts(batch: &BodyBatch<'_>, ingest_time_ms: i64, producer: Option<ProducerStamp>) -> BatchFacts {
    let source = StampedRows::new(batch, ingest_time_ms);
    let mut bytes = 0_u64;
    let mut timestamps = None;
    for row in 0..source.row_count() {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
        let headers = source.headers(row).map(|(key, value)| key.len() as u64 + length(value));
        bytes += length(source.key(row)) + length(source.value(row)) + headers.sum::<u64>();
        let time_ms = source.timestamp_ms(row);
        if time_ms != crate::body::NO_TIMESTAMP_MS {
            let one = TimestampRange { first_ms: time_ms, last_ms: time_ms };
            timestamps = TimestampRange::union(timestamps, Some(one));
        }
    }
    BatchFacts {
        rows: u32::try_from(source.row_count()).expect("a batch counts its records in 32 bits"),
        bytes,
        timestamps,
        hash: hash_source(&source, 0..source.row_count()),
        producer,
        expected_next_offset: None,
    }
}
