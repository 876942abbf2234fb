//! What became of the flushes so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// See the module. All only grow.
#[derive(Debug, Default)]
pub struct Counts {
    /// Flushes that were committed.
    pub flushes: AtomicU64,
    /// Bytes of their sealed bodies.
    pub flush_bytes: AtomicU64,
    /// Microseconds from the beginning of their sealing until they were known to be durable, added up.
    pub flush_micros: AtomicU64,
}

impl Counts {
    pub(crate) fn committed(&self, bytes: u64, took: Duration) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flush_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.flush_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
