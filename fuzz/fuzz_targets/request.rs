//! `cargo fuzz run -s none request`: see `src/request.rs` for what is claimed.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    lakebed_fuzz::request::check(input);
});
