//! Settings of the write path.

use std::time::Duration;

/// Settings of an [`Ingest`](crate::Ingest).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A flush is sealed when it has so many bytes of batches (8 MiB). More means fewer and larger requests to the store, and a longer
    /// PUT.
    pub flush_bytes: usize,
    /// Least time between the beginnings of two flushes that are not full (250 ms). It bounds what an almost idle broker costs: more
    /// means fewer requests and more latency. A record that comes after a quiet interval is flushed at once. 0 flushes whenever
    /// the log has room.
    pub flush_interval: Duration,
    /// Bytes held for records that are not durable yet, all copies counted (64 MiB). At the bound
    /// [`produce`](crate::Ingest::produce) waits. A single batch that is larger is refused.
    pub buffer_bytes: usize,
    /// Flushes that are sealed and not durable yet (6). More hide the store's latency and give smaller flushes; records gather in
    /// the buffer while so many are in flight. Below 5, a producer with five requests in flight can't have each in a flush of its own, and
    /// one of them waits for a second latency of the store.
    pub flushes_in_flight_max: usize,
    /// Live runs of the log at which [`produce`](crate::Ingest::produce) waits for merging (1,000,000), until they are an eighth fewer, or refuses if
    /// nothing is left to merge. More takes more memory, about 150 bytes a run, and longer checkpoints.
    pub live_runs_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flush_bytes: 8 << 20,
            flush_interval: Duration::from_millis(250),
            buffer_bytes: 64 << 20,
            flushes_in_flight_max: 6,
            live_runs_max: 1_000_000,
        }
    }
}

impl Options {
    /// Everything that is wrong with the settings.
    ///
    /// # Errors
    /// One sentence a problem.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if !(1..=1 << 30).contains(&self.flush_bytes) {
            problems.push(format!("flush_bytes is {}: it must be 1 to {}", self.flush_bytes, 1 << 30));
        }
        if !(1024..=BUFFER_BYTES_MAX).contains(&self.buffer_bytes) {
            problems.push(format!("buffer_bytes is {}: it must be 1024 to {BUFFER_BYTES_MAX}", self.buffer_bytes));
        }
        if !(1..=1024).contains(&self.flushes_in_flight_max) {
            problems.push(format!("flushes_in_flight_max is {}: it must be 1 to 1024", self.flushes_in_flight_max));
        }
        if self.live_runs_max == 0 {
            problems.push("live_runs_max is 0: it must be 1 or more".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// Bytes are counted by a semaphore that takes 32 bits at once.
const BUFFER_BYTES_MAX: usize = u32::MAX as usize;
