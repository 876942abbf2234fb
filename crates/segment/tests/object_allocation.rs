//! Damaged and forged objects cost no more memory than documented: counted by an allocator.
//!
//! The tests of this binary run one at a time, since they share the count.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "objects/samples.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod samples;

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lakebed_model::Nonce;
use lakebed_segment::FormatError;
use lakebed_segment::commit::segment_object;
use lakebed_segment::footer::{Footer, Parsed};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MEBIBYTE: usize = 1 << 20;

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Parses and reads everything; the bytes allocated meanwhile stay within 8 times the input and 1 MiB.
fn read_within(object: &Bytes) -> Result<usize, FormatError> {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let outcome = Footer::parse(object, object.len() as u64).and_then(|parsed| match parsed {
        Parsed::Whole(footer) => footer.read(0..footer.rows, &[(0, object.clone())]).map(|rows| rows.len()),
        Parsed::NeedsSuffix(bytes) => panic!("{bytes} bytes are needed of {}", object.len()),
    });
    let allocated = ALLOCATOR.peak_usage().saturating_sub(before);
    let allowed = 8 * object.len() + MEBIBYTE;
    assert!(allocated <= allowed, "{allocated} bytes allocated for {}, {allowed} allowed", object.len());
    outcome
}

/// The object with a part of its footer replaced by a text of the same length, and a right checksum.
fn forged(object: &Bytes, from: &str, to: &str) -> Bytes {
    assert_eq!(from.len(), to.len());
    let find = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).rposition(|window| window == text).unwrap();
    let mut bytes = object.to_vec();
    let at = find(&bytes, from.as_bytes());
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    let seal = find(&bytes, b"lakebed.footer") + "lakebed.footer".len() + 2;
    let start = usize::from_str_radix(std::str::from_utf8(&bytes[seal..seal + 16]).unwrap(), 16).unwrap();
    bytes[seal + 17..seal + 25].copy_from_slice(b"00000000");
    let checksum = format!("{:08x}", crc_fast::crc32_iscsi(&bytes[start..]));
    bytes[seal + 17..seal + 25].copy_from_slice(checksum.as_bytes());
    bytes.into()
}

fn sample() -> Bytes {
    segment_object(&samples::identity(), samples::segment_id(), Nonce::new(1), samples::content().body()).into()
}

#[test]
fn small_rows_are_read_within_the_bound() {
    let _alone = alone();
    let records: Vec<samples::Rec> = (0..100_000).map(|_| samples::rec(-1, None, None)).collect();
    let batches = vec![(samples::partition(1, 0), samples::rows_of(&records), None)];
    let body = samples::Content { batches }.body();
    let object: Bytes = segment_object(&samples::identity(), samples::segment_id(), Nonce::new(1), body).into();
    assert_eq!(read_within(&object), Ok(100_000));
}

#[test]
fn many_small_headers_are_read_within_the_bound() {
    let _alone = alone();
    let headers: Vec<(String, Option<Vec<u8>>)> = (0..50_000).map(|_| (String::new(), None)).collect();
    let record = samples::Rec { headers, ..samples::rec(0, None, None) };
    let batches = vec![(samples::partition(1, 0), samples::rows_of(&[record.clone(), record]), None)];
    let body = samples::Content { batches }.body();
    let object: Bytes = segment_object(&samples::identity(), samples::segment_id(), Nonce::new(1), body).into();
    assert_eq!(read_within(&object), Ok(2));
}

#[test]
fn flipped_and_cut_objects_are_read_within_the_bound() {
    let _alone = alone();
    let object = sample();
    assert_eq!(read_within(&object), Ok(26));
    for index in 0..object.len() {
        for bit in 0..8 {
            let mut bytes = object.to_vec();
            bytes[index] ^= 1 << bit;
            let _ = read_within_or_needs(&bytes.into());
        }
        let _ = read_within_or_needs(&object.slice(index..));
        let _ = read_within_or_needs(&object.slice(..index));
    }
}

fn read_within_or_needs(object: &Bytes) -> Option<usize> {
    match Footer::parse(object, object.len() as u64) {
        Ok(Parsed::NeedsSuffix(bytes)) => {
            assert!(bytes <= object.len() as u64);
            None
        }
        _ => read_within(object).ok(),
    }
}

#[test]
fn claims_of_a_forged_footer_allocate_nothing() {
    let _alone = alone();
    let object = sample();
    assert_eq!(forged(&object, "[435,19,26,26,", "[435,19,26,26,"), object, "a forgery of nothing changes nothing");
    // Entries of a flat page, of a page of header keys, and of a page of header values.
    for (from, to) in [
        ("[435,19,26,26,", "[435,19,26,99,"),
        ("[435,19,26,26,", "[435,19,99,99,"),
        ("[88,19,26,30,", "[88,19,26,99,"),
        ("[68,17,26,30,", "[68,17,26,99,"),
        ("[289,19,", "[289,99,"),
        ("[435,19,", "[999,19,"),
    ] {
        assert!(read_within(&forged(&object, from, to)).is_err(), "{from} forged to {to}");
    }
}
