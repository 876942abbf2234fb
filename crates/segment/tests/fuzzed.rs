//! The claims that `fuzz/` makes of hostile bytes, on its seeds and on seeded mutations of them: what a fuzzer finds in hours begins
//! here, and what it has found stays here as a seed.
//!
//! `cargo fuzz run -s none TARGET` runs the same claims under libFuzzer; `tests/run --long` does. A failure prints the seed of the
//! mutation; `LAKEBED_TEST_LONG=1` makes a hundred times as many.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(unreachable_pub, reason = "shared with the fuzz targets")]

#[path = "../../../fuzz/src/allocation.rs"]
mod allocation;
#[path = "../../../fuzz/src/batch.rs"]
mod batch;
#[path = "../../../fuzz/src/segment.rs"]
mod segment;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

const MUTATIONS: u32 = 40_000;
/// More than one in so many mutations must be accepted, or checksums hide what is behind them.
const ACCEPTED_RATIO_MIN: usize = 50;
const LONG_FACTOR: u32 = 100;

/// The count of allocations is of the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The files of a directory with an ending, in the order of their names.
fn seeds(directory: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let named = files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path));
    let mut chosen: Vec<_> = named.filter(|(name, _)| name.ends_with(ending)).collect();
    chosen.sort();
    chosen.into_iter().map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
}

/// Changes a few places as a fuzzer does: bits, interesting numbers, copies of another place, cuts.
fn mutate(random: &mut TestRng, seed: &[u8]) -> Vec<u8> {
    let mut below = |bound: usize| (random.next_u64() % bound.max(1) as u64) as usize;
    let mut bytes = seed.to_vec();
    for _ in 0..1 + below(4) {
        let length = bytes.len();
        if length == 0 {
            return bytes;
        }
        let at = below(length);
        match below(6) {
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff][below(7)],
            2 => {
                let number = [0_u32, 1, u32::MAX, 1 << 31, i32::MAX as u32][below(5)].to_be_bytes();
                let end = length.min(at + 4);
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            3 => {
                let (from, count) = (below(length), below(32));
                let piece = bytes[from..length.min(from + count)].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => drop(bytes.drain(at..length.min(at + 1 + below(16)))),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Asserts the claims of every seed and of mutations of all of them.
fn assert_claims(check: fn(&[u8]) -> bool, seeds: &[(String, Vec<u8>)]) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!seeds.is_empty(), "there are seeds");
    for (name, seed) in seeds {
        assert!(check(seed), "{name} is accepted");
    }
    let is_long = std::env::var("LAKEBED_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let mutations = MUTATIONS * if is_long { LONG_FACTOR } else { 1 };
    let mut accepted = 0;
    for number in 0..mutations {
        let (name, seed) = &seeds[number as usize % seeds.len()];
        let mut words = [0; 32];
        words[..4].copy_from_slice(&number.to_le_bytes());
        let input = mutate(&mut TestRng::from_seed(RngAlgorithm::ChaCha, &words), seed);
        match catch_unwind(AssertUnwindSafe(|| check(&input))) {
            Ok(was_accepted) => accepted += usize::from(was_accepted),
            Err(_) => panic!("mutation {number}, of {name}, breaks a claim (see above): {input:02x?}"),
        }
    }
    assert!(accepted * ACCEPTED_RATIO_MIN > mutations as usize, "{accepted} of {mutations} mutations were accepted");
}

#[test]
fn no_batch_breaks_a_claim() {
    assert_claims(batch::check, &seeds("../../fuzz/seeds/batch", ".batch"));
}

#[test]
fn no_object_breaks_a_claim() {
    let mut seeds = [seeds("tests/golden/v1", ".parquet"), seeds("../../fuzz/seeds/segment", ".parquet")].concat();
    // A table file is read by Parquet's own crate once its checksums have been verified; test `table` damages those.
    seeds.retain(|(name, _)| !name.starts_with("table") && name != "cleaned.parquet");
    assert_claims(segment::check, &seeds);
}
