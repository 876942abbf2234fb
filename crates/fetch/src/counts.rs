//! What the caches did so far, for metrics.

/// One cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// How often a value was there, or was being made for somebody else.
    pub hits: u64,
    /// How often it had to be made, or could not be.
    pub misses: u64,
    /// What is kept now, in bytes.
    pub bytes: usize,
    /// The most that is kept, in bytes.
    pub bytes_max: usize,
}

/// All caches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Fresh batches as their producers sent them; a hit is a read of a partition that needed nothing else.
    pub tail: CacheUse,
    /// Footers of objects, and small objects whole.
    pub footers: CacheUse,
    /// Ranges of larger objects.
    pub ranges: CacheUse,
    /// Batches that were rebuilt from objects.
    pub batches: CacheUse,
}
