//! The claims that `fuzz/` makes of hostile requests, on its seeds and on a million seeded mutations of them.
//!
//! `cargo fuzz run -s none request` runs the same claims under libFuzzer. A failure prints the number of the mutation, which is its seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::{alone, corpus, mutate, request};

const MUTATIONS: u64 = 1_000_000;

/// What the files of `fuzz/seeds/request` hold, by name.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/request");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut seeds: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn there_is_a_seed_for_every_version_that_is_decoded() {
    let seeds = seeds();
    for (name, bytes) in corpus::files() {
        let kept = seeds.iter().find(|(kept, _)| *kept == name).map(|(_, bytes)| bytes);
        let write = "run `cargo run -p lakebed-wire --example write_requests -- fuzz/seeds/request`";
        assert_eq!(kept, Some(&bytes), "{name}: {write}");
    }
}

#[test]
fn no_request_breaks_a_claim() {
    let _alone = alone();
    let seeds = seeds();
    for (name, seed) in &seeds {
        assert!(request::check(seed), "{name} is accepted");
    }
    let mut accepted = 0;
    for number in 0..MUTATIONS {
        let (name, seed) = &seeds[number as usize % seeds.len()];
        let input = mutate(&mut StdRng::seed_from_u64(number), seed);
        match catch_unwind(AssertUnwindSafe(|| request::check(&input))) {
            Ok(was_accepted) => accepted += u64::from(was_accepted),
            Err(_) => panic!("mutation {number}, of {name}, breaks a claim (see above): {input:02x?}"),
        }
    }
    assert!(accepted > MUTATIONS / 20, "{accepted} of {MUTATIONS} mutations were accepted: too few to show anything");
    assert!(accepted < MUTATIONS / 20 * 19, "{accepted} of {MUTATIONS} mutations were accepted: they are not hostile");
}
