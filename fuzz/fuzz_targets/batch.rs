//! `cargo fuzz run -s none batch`: see `src/batch.rs` for what is claimed.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    lakebed_fuzz::batch::check(input);
});
