//! What is claimed of every input, however hostile. `fuzz_targets` give these functions to libFuzzer; the test `fuzzed` of crate
//! `segment` runs them on the seeds and on mutations of them.

pub mod allocation;
pub mod batch;
pub mod segment;
