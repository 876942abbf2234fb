//! Runs: which rows of which object are which offsets of a partition.

use crate::commit::TimestampRange;
use crate::hash::RowsHash;
use crate::ids::{CommitNumber, Offset, SegmentId, TableFileId};

/// An object that holds rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectId {
    /// The commit of this number.
    Commit(CommitNumber),
    /// An object under `segments/`.
    Segment(SegmentId),
    /// A table file of the run's topic.
    Table(TableFileId),
}

/// Consecutive rows of one partition inside one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many rows; at least one.
    pub rows: u64,
    /// How many offsets it covers from its base on. If they are as many as the rows, those have them one after another; if they are more, it
    /// has gaps, which only compaction of keys makes: the offsets of its rows stand with them, ascending, in a table file.
    pub span: u64,
    /// Whether its keys were compacted: of the rows of one key in this run and the clean ones before it, only the last is left.
    pub clean: bool,
    /// The object that holds them.
    pub object: ObjectId,
    /// Index of the first row in the object.
    pub first_row: u64,
    /// Bytes of keys, values and headers.
    pub bytes: u64,
    /// Range of record timestamps; `None` if no record has one.
    pub timestamps: Option<TimestampRange>,
    /// Hash of the rows; of a run with gaps, of the rows with their offsets.
    pub hash: RowsHash,
}

impl Run {
    /// Whether it covers offsets that no row has.
    pub fn has_gaps(&self) -> bool {
        self.span != self.rows
    }

    /// The offset behind the last that it covers, given its base.
    pub fn end(&self, base: Offset) -> Offset {
        Offset::new(base.get().saturating_add(self.span))
    }
}
