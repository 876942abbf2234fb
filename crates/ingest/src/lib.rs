//! The write path: admit -> buffer -> seal -> (upload) -> commit -> acknowledge.
//!
//! [`admit()`] verifies a producer's batch where it was received. [`Ingest`] gathers admitted batches of all partitions, seals them to one
//! Parquet body a flush, has it committed by the log, and answers each batch's [`Ticket`]. Invariants:
//!
//! 1. Nothing is acknowledged before it and everything below it in the log is durable; that holds for duplicates and refusals too.
//! 2. Batches of a partition are appended in the order in which they were handed over.
//! 3. Whatever becomes of a flush, each of its batches is answered once, with what became of it: done, not done, or unknown.
//! 4. What is not durable yet takes at most `buffer_bytes` of memory; producers wait at the bound.
//! 5. Payloads are copied once, into the sealed body.
//!
//! It knows no topics' names or settings, and decides no offsets: that is the log's.

mod admit;
mod chain;
mod counts;
mod ingest;
mod options;
mod pipeline;
mod seal;
mod spacing;
mod throttle;
mod ticket;

#[cfg(test)]
mod tests;

pub use admit::{AdmitError, Admitted, BatchLimits, admit, admit_encoded};
pub use counts::Counts;
pub use ingest::Ingest;
pub use options::Options;
pub use seal::Committed;
pub use ticket::{Obstacle, ProduceError, Produced, Ticket};
