//! Settings of the read path.

/// Settings of a [`Fetch`](crate::Fetch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of recent batches kept as their producers sent them (64 MiB). More lets slower consumers read without the store; 0
    /// keeps none, and everything is read from the store.
    pub tail_bytes: usize,
    /// Bytes of the caches of objects and of rebuilt batches (64 MiB). More saves requests when several consumers read the same
    /// old offsets.
    pub cache_bytes: usize,
    /// Bytes of one request to the store for a part of a larger object (1 MiB). More means fewer requests for consumers that read
    /// on, and more needless bytes for those that don't. Smaller objects are read whole.
    pub chunk_bytes: usize,
    /// Requests to the store at once for reads that miss all caches (16). Bounds what a backfill takes from everybody else; each may
    /// hold `chunk_bytes` in memory.
    pub backfill_requests_max: usize,
    /// Bytes of keys, values and headers in a batch that is rebuilt from Parquet (about 1 MiB).
    pub batch_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tail_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            chunk_bytes: 1 << 20,
            backfill_requests_max: 16,
            batch_bytes: 1_000_000,
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
        if self.chunk_bytes < 4096 {
            problems.push(format!("chunk_bytes is {}: it must be at least 4096", self.chunk_bytes));
        }
        if self.backfill_requests_max == 0 {
            problems.push("backfill_requests_max is 0: nothing could be read from the store".to_owned());
        }
        if !(1024..=64 << 20).contains(&self.batch_bytes) {
            problems.push(format!("batch_bytes is {}: it must be 1024 to 67108864", self.batch_bytes));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}
