//! `cargo fuzz run -s none segment`: see `src/segment.rs` for what is claimed.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    lakebed_fuzz::segment::check(input);
});
