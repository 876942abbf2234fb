//! What became of the flushes so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lakebed_store::Histogram;

/// See the module. All only grow.
#[derive(Debug)]
pub struct Counts {
    /// Bytes of the sealed bodies of flushes that were committed.
    pub flush_bytes: Histogram,
    /// Microseconds from the beginning of their sealing until they were known to be durable.
    pub flush_micros: Histogram,
    /// Microseconds for which the oldest batch of a flush had waited when its sealing began.
    pub flush_age_micros: Histogram,
    /// Records in batches that were appended: neither duplicates nor refused ones.
    pub records: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            flush_bytes: Histogram::of_sizes(),
            flush_micros: Histogram::of_times(),
            flush_age_micros: Histogram::of_times(),
            records: AtomicU64::new(0),
        }
    }
}

impl Counts {
    /// Flushes that were committed.
    pub fn flushes(&self) -> u64 {
        self.flush_bytes.counted().count()
    }

    pub(crate) fn committed(&self, bytes: u64, took: Duration) {
        self.flush_bytes.observe(bytes);
        self.flush_micros.observe_time(took);
    }

    pub(crate) fn appended(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }
}
