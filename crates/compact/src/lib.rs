//! Merge: many small objects become one larger segment, so that runs and objects stay few.
//!
//! [`plan`] (which objects, from the state alone) -> [`merge`] (read, verify, write, swap), over and over by a [`Merger`].
//!
//! Compaction: rows of a topic become table files, and small table files larger ones. [`backlogs`] and [`log_job`] (what waits) -> [`compact`]
//! (read, verify, write, read back, swap), by a [`Compactor`]. Invariants of both:
//!
//! 1. A merge only ever replaces whole runs by the same rows; the state checks that by their hashes.
//! 2. What can't be verified is not rewritten: an object that is damaged is left out from then on, named once in the log. One
//!    that can't be read is left out for a while.
//! 3. A race that is lost, a crash, or a refusal leaves an orphan, which reclaim deletes; never a hole and never a double.
//! 4. Memory is bounded: by [`Options::bytes_max`], about three times as much, and by [`CompactionOptions::file_bytes_max`] and one run.

mod backlog;
mod compaction;
mod compactor;
mod merge;
mod merger;
mod objects;
mod plan;
#[cfg(test)]
mod tests;

pub use backlog::{Backlog, CompactionOptions, FilePartitions, Known, backlogs, files_job, log_job};
pub use compaction::{Compacted, Job, compact};
pub use compactor::{CompactionCounts, Compactor, Turn};
pub use merge::{Merged, merge};
pub use merger::{Counts, Merger};
pub use objects::RewriteError;
pub use plan::{Options, Plan, RunKey, plan};
