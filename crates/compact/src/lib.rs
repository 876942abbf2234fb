//! Merge: many small objects become one larger segment, so that runs and objects stay few.
//!
//! [`plan`] (which objects, from the state alone) -> [`merge`] (read, verify, write, swap), over and over by a [`Merger`].
//!
//! Compaction: rows of a topic become table files, and small table files larger ones. [`backlogs`] and [`log_job`] (what waits) -> [`compact`]
//! (read, verify, write, read back, swap), by a [`Compactor`].
//!
//! Compaction of keys: table files lose the records that later ones of their keys have made obsolete. [`key_job`] (what is worth it) ->
//! [`clean`], by a [`Cleaner`].
//!
//! Retention: log starts move when records are too old or too many. [`expiring`] (what goes) -> a commit that moves them, by a [`Retainer`],
//! with the rewrite of table files that hold rows which go and others. Invariants:
//!
//! 1. Merges and compactions only ever replace whole runs by the same rows; the state checks that by their hashes. Compaction of keys has a rule of
//!    its own, which the state can check in part: the same offsets, no more rows.
//! 2. What can't be verified is not rewritten: an object that is damaged is left out from then on, named once in the log. One
//!    that can't be read is left out for a while.
//! 3. A race that is lost, a crash, or a refusal leaves an orphan, which reclaim deletes; never a hole and never a double.
//! 4. Memory is bounded, whatever the size of files: by [`Options::bytes_max`], about three times as much, by [`CompactionOptions::group_bytes`], about
//!    three times as much, and one run, by [`KeyOptions::map_bytes`].

mod backlog;
mod compaction;
mod compactor;
mod keys;
mod merge;
mod merger;
mod objects;
mod packing;
mod plan;
mod retainer;
mod retention;
#[cfg(test)]
mod tests;
mod turn;

pub use backlog::{
    Backlog, CompactionOptions, FilePartitions, Known, backlogs, files_job, log_job, partial_topics, trim_job,
};
pub use compaction::{Compacted, FileSizes, Job, compact};
pub use compactor::{CompactionCounts, Compactor};
pub use keys::{Cleaned, Cleaner, CleaningCounts, KeyJob, KeyOptions, KeyPartition, KeySettings, clean, key_job};
pub use merge::{Merged, merge};
pub use merger::{Counts, Merger};
pub use objects::RewriteError;
pub use packing::Packing;
pub use plan::{Options, Plan, RunKey, plan};
pub use retainer::{RemovedCounts, Retainer, RetentionCounts, RetentionOf, SKEW_MAX};
pub use retention::{Cause, Expiring, Retention, Tally, expiring};
pub use turn::Turn;
