//! Counts what a decoder allocates, and holds it to the documented bound: 8 times its input and 1 MiB.
//!
//! The count is of the whole process: whoever measures must be alone.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MEBIBYTE: usize = 1 << 20;
const INPUT_RATIO: usize = 8;

/// What `decode` returns; it allocates at most what `input_bytes` bytes of input allow.
pub fn within_bound<T>(input_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let (outcome, allocated) = allocated_by(decode);
    let allowed = INPUT_RATIO * input_bytes + MEBIBYTE;
    assert!(allocated <= allowed, "{allocated} bytes allocated for {input_bytes} of input, {allowed} allowed");
    outcome
}

/// What `work` returns, and the most bytes that it had allocated at a time.
pub fn allocated_by<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let outcome = work();
    (outcome, ALLOCATOR.peak_usage().saturating_sub(before))
}
