//! The read path: plan -> cache -> read, and the tail.
//!
//! [`Fetch`] answers whole record batches from an offset on: out of the tail (the producers' own bytes, in memory), out of a cache of batches
//! rebuilt from Parquet, or out of objects. Invariants:
//!
//! 1. Nothing is answered that is not durable, and never other records than were produced.
//! 2. *Visible* is what was published (at the start: what was durable); consumers wait above it, and are woken by the publication.
//! 3. That an offset is out of range, or a partition does not exist, is answered only behind a barrier.
//! 4. Tail, caches and requests under way have bounds in bytes and in number; reads that miss all caches can't starve the tail.
//! 5. A damaged object fails the reads of its own rows, with its name, and no others.
//! 6. Payloads are not copied between the tail and the answer.

mod cache;
mod cold;
mod counts;
mod fetch;
mod objects;
mod options;
mod plan;
mod records;
mod request;
mod tail;
mod timestamps;
mod waiters;

#[cfg(test)]
mod tests;

pub use counts::{CacheCounts, CacheUse};
pub use fetch::{Fetch, Watch};
pub use options::Options;
pub use records::{DecodedBatch, FetchedRecord, decode, records};
pub use request::{FetchError, FetchPartition, FetchRequest, Fetched, FetchedBatch};
pub use tail::Published;
pub use timestamps::Stamped;
