//! Commits: what happened, in order, with its outcomes.
//!
//! A commit carries decisions, not requests: each batch's outcome is written down by the sequencer that decided it, so that neither
//! a bug fix nor a rolling upgrade can change what a producer was answered.

use std::collections::BTreeMap;

use crate::group::{CommitOffsets, DeleteOffsets, GroupId, StartGeneration};
use crate::hash::RowsHash;
use crate::ids::{
    CommitNumber, Directory, FeatureLevel, FlushId, Generation, Nonce, Offset, PartitionIndex, PartitionKey, Place,
    ProducerEpoch, ProducerId, SegmentId, Sequence, TableFileId, TopicId,
};
use crate::member::Member;
use crate::topic::TopicName;

/// One numbered object of the commit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Counted over all epochs.
    pub number: CommitNumber,
    /// Where it stands.
    pub place: Place,
    /// The process that wrote it.
    pub writer: Nonce,
    /// The writer's wall clock in milliseconds since 1970; decides nothing.
    pub time_ms: i64,
    /// What happened, in order. At least one.
    pub entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Closes the directory and names the next. Stands alone in its commit.
    Takeover(Takeover),
    /// New rules begin at the next commit.
    RaiseFeatureLevel(FeatureLevel),
    /// A topic was created.
    CreateTopic {
        /// Its identity.
        id: TopicId,
        /// Its name.
        name: TopicName,
        /// How many partitions it has.
        partitions: u32,
        /// Its settings.
        config: BTreeMap<String, String>,
    },
    /// A topic's settings were replaced.
    AlterTopic {
        /// The topic.
        id: TopicId,
        /// All its settings from now on.
        config: BTreeMap<String, String>,
    },
    /// A topic has more partitions.
    AddPartitions {
        /// The topic.
        id: TopicId,
        /// The new number of partitions.
        partitions: u32,
    },
    /// A topic and everything in it is gone.
    DeleteTopic {
        /// The topic.
        id: TopicId,
    },
    /// Records came in.
    Flush(Flush),
    /// Runs were re-homed into a larger segment.
    Merge(Merge),
    /// Rows of a topic were re-homed into table files.
    Compact(Compaction),
    /// Rows of a topic went that later ones of their keys had made obsolete.
    CompactKeys(KeyCompaction),
    /// A version of a topic's table can be seen by readers.
    PublishTable {
        /// The topic.
        topic: TopicId,
        /// The version; all before it are published too, or never will be.
        version: u32,
    },
    /// Records below an offset are gone.
    MoveLogStart {
        /// The partition.
        partition: PartitionKey,
        /// The new log start offset.
        offset: Offset,
    },
    /// Rows below the log start were cut off the run that holds it.
    TrimRun(TrimRun),
    /// The members of a group were counted anew.
    StartGeneration(StartGeneration),
    /// A group has come this far.
    CommitOffsets(CommitOffsets),
    /// Committed offsets were forgotten.
    DeleteOffsets(DeleteOffsets),
    /// What a group without members committed before a time was forgotten; the group too, if nothing is left and it had none since then.
    ExpireOffsets {
        /// The group.
        group: GroupId,
        /// Its generation; another one is refused.
        generation: Generation,
        /// Milliseconds since 1970.
        before_ms: i64,
    },
    /// A group and all that it committed is gone.
    DeleteGroup {
        /// The group.
        group: GroupId,
        /// Its generation; another one is refused.
        generation: Generation,
    },
    /// Objects and flush ids below this id are no longer accepted, and may be deleted if nothing names them.
    MoveReclaimBoundary(SegmentId),
    /// A broker serves the log from now on, or describes itself anew.
    Join(Member),
    /// A broker is no member any more.
    Leave {
        /// The process.
        member: Nonce,
    },
    /// Producer ids were allotted to the broker that wrote the commit: the numbers `first..first + count` of the cell.
    AllotProducerIds {
        /// The number of the first.
        first: u64,
        /// How many.
        count: u32,
    },
    /// Producers that were idle are forgotten: those of every partition whose last batch was sealed before a time.
    ExpireProducers {
        /// The time, in milliseconds since 1970.
        before_ms: i64,
        /// How many are forgotten, counted once a partition.
        forgotten: u64,
    },
}

/// Closes an epoch and names the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// The directory of the next epoch; only the writer of this takeover writes there.
    pub next: Directory,
    /// Where the new sequencer can be reached; empty if it takes no calls.
    pub address: String,
}

/// A flush with what came of each of its batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flush {
    /// Its id.
    pub id: FlushId,
    /// The broker that flushed.
    pub broker: Nonce,
    /// The flush of the same broker before this one; `None` for its first. It keeps flushes of one broker in order, whoever
    /// commits them.
    pub previous: Option<FlushId>,
    /// Where its rows are.
    pub body: FlushBody,
    /// Milliseconds since 1970 at which the broker sealed it: the ingest timestamp of its rows.
    pub ingest_time_ms: i64,
    /// One per partition, in the order of the rows.
    pub runs: Vec<FlushRun>,
}

/// Where the rows of a flush are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushBody {
    /// In the commit object itself; at most one flush of a commit is inline.
    Inline,
    /// In `segments/{id}`, uploaded before.
    Segment,
}

/// Consecutive rows of one partition in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushRun {
    /// The partition.
    pub partition: PartitionKey,
    /// Index of the first row in the object.
    pub first_row: u64,
    /// Its batches in order, each with its outcome.
    pub batches: Vec<(BatchFacts, Outcome)>,
}

/// What is known of a batch without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchFacts {
    /// How many records.
    pub rows: u32,
    /// Bytes of its keys, values and headers; what a fetch plans with.
    pub bytes: u64,
    /// The least and the greatest record timestamp; `None` if no record has one.
    pub timestamps: Option<TimestampRange>,
    /// Hash of its rows.
    pub hash: RowsHash,
    /// The idempotent producer's stamp.
    pub producer: Option<ProducerStamp>,
    /// The offset that its first record must get, or the batch is refused.
    pub expected_next_offset: Option<Offset>,
}

/// Milliseconds since 1970, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampRange {
    /// The least.
    pub first_ms: i64,
    /// The greatest.
    pub last_ms: i64,
}

impl TimestampRange {
    /// The smallest range that holds both.
    pub fn union(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => {
                Some(Self { first_ms: a.first_ms.min(b.first_ms), last_ms: a.last_ms.max(b.last_ms) })
            }
            (a, b) => a.or(b),
        }
    }
}

/// Producer id, epoch and the sequence of a batch's first record; none of them is below 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Who.
    pub id: ProducerId,
    /// Which life of it.
    pub epoch: ProducerEpoch,
    /// The first record's sequence.
    pub sequence: Sequence,
}

impl ProducerStamp {
    /// Whether it is one: Kafka's -1 stands for none.
    pub fn is_set(&self) -> bool {
        self.id.get() >= 0 && self.epoch.get() >= 0 && self.sequence.get() >= 0
    }
}

/// What came of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its first record has this offset.
    Appended(Offset),
    /// The same batch was appended before, at this offset; its rows are never referenced.
    Duplicate(Offset),
    /// Not appended; its rows are never referenced.
    Refused(BatchRefusal),
}

/// Why a batch was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchRefusal {
    /// Its topic does not exist (any more).
    #[error("the topic does not exist")]
    UnknownTopic,
    /// Its topic has no such partition.
    #[error("the topic has no such partition")]
    UnknownPartition,
    /// Its sequence does not continue the producer's.
    #[error("the batch's sequence does not continue that of its producer")]
    OutOfOrderSequence,
    /// A later epoch of its producer has been seen.
    #[error("a later epoch of its producer has been seen")]
    InvalidProducerEpoch,
    /// The partition has no offsets left.
    #[error("the partition has no offsets left")]
    OffsetsExhausted,
    /// The offset that it expected is not the next one.
    #[error("the next offset of the partition is {next}, not the expected one")]
    OffsetMismatch {
        /// The next one, when the batch was decided.
        next: Offset,
    },
}

/// One larger segment in place of many small ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The new object.
    pub segment: SegmentId,
    /// One per partition, in the order of the rows.
    pub runs: Vec<MergedRun>,
}

/// A run of a merged segment. It takes the place of the whole runs that covered its offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergedRun {
    /// The partition.
    pub partition: PartitionKey,
    /// Offset of its first row.
    pub base_offset: Offset,
    /// How many rows.
    pub rows: u64,
    /// Index of the first row in the segment.
    pub first_row: u64,
    /// Hash of its rows, computed from the rows that were written.
    pub hash: RowsHash,
}

/// Table files in place of runs, and a new version of the topic's table, which has them. Without files the version shows what the one
/// before it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// The topic.
    pub topic: TopicId,
    /// The files; none for a version that shows nothing new.
    pub files: Vec<CompactedFile>,
}

/// A table file that takes the place of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactedFile {
    /// Its id.
    pub id: TableFileId,
    /// Those of the topic, ascending by partition and offset, in the order of the rows; they fill the file.
    pub runs: Vec<MergedRun>,
}

/// Table files with what was left of the rows of others, and a new version of the topic's table, which has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCompaction {
    /// The topic; its `cleanup.policy` says that its keys are compacted.
    pub topic: TopicId,
    /// The files whose place the others take, ascending: all those that had what they cover, and no more. So what was made from files that are
    /// no longer there comes too late, even if others cover the same.
    pub replaces: Vec<TableFileId>,
    /// At least one.
    pub files: Vec<CleanedFile>,
}

/// A table file with what was left of the rows of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanedFile {
    /// Its id.
    pub id: TableFileId,
    /// Those of the topic, ascending by partition and offset over all files, in the order of the rows; they fill the file.
    pub runs: Vec<CleanedRun>,
}

/// A run of such a file. Those that follow one another without a gap between them cover exactly what whole runs of table files covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanedRun {
    /// The partition.
    pub partition: PartitionKey,
    /// The first offset that it covers.
    pub base_offset: Offset,
    /// How many offsets it covers.
    pub span: u64,
    /// How many rows are left of them; at least one, or the run would have no place.
    pub rows: u64,
    /// Index of the first row in the file.
    pub first_row: u64,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// Range of their timestamps; `None` if none has one.
    pub timestamps: Option<TimestampRange>,
    /// Hash of the rows that were written; with their offsets, if it covers more offsets than it has rows.
    pub hash: RowsHash,
    /// Whether all that is obsolete is gone: of the rows of one key in it and in what is clean before it, only the last is left.
    pub clean: bool,
}

/// A run that begins at the log start, or below it, from now on: the rows before are not named any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimRun {
    /// The partition.
    pub partition: PartitionKey,
    /// Where the run begins from now on.
    pub offset: Offset,
    /// How many rows are cut off.
    pub rows: u64,
    /// Their hash, computed from what was read.
    pub hash: RowsHash,
    /// Bytes of keys, values and headers of the rows that stay.
    pub bytes: u64,
    /// The least and the greatest timestamp of the rows that stay; `None` if none of them has one.
    pub timestamps: Option<TimestampRange>,
}

impl PartitionKey {
    /// The first partition of a topic: where a range over its partitions begins.
    pub const fn first_of(topic: TopicId) -> Self {
        Self { topic, partition: PartitionIndex::ZERO }
    }
}
