//! What is claimed of every input, however hostile. `fuzz_targets` give these functions to libFuzzer; the tests `fuzzed` of crates
//! `segment` and `wire` run them on the seeds and on mutations of them.

pub mod allocation;
pub mod batch;
pub mod request;
pub mod segment;
