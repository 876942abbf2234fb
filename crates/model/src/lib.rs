//! The nouns of the log, its rules, and the state machine that every broker and every reader folds commits with.
//!
//! Pure: no I/O, no runtime, no clock, no randomness; `now`, ids and nonces come in as arguments. What is here decides what a
//! producer is answered, so it is written to be proofread:
//!
//! 1. [`State::apply`] is the one door through which a state changes; a commit that is refused changes nothing.
//! 2. The sequencer *decides* with a [`Draft`]; everybody else *verifies* the same rules in [`State::apply`] and stops loudly on
//!    a difference.
//! 3. Equal commits give equal states, on every machine and at every time.

pub mod commit;
pub mod draft;
pub mod group;
pub mod hash;
pub mod ids;
pub mod invariants;
pub mod member;
pub mod mint;
pub mod producer;
pub mod snapshot;
pub mod state;
pub mod table;
pub mod topic;

pub use commit::{
    BatchFacts, BatchRefusal, CleanedFile, CleanedRun, Commit, CompactedFile, Compaction, Entry, Flush, FlushBody,
    FlushRun, KeyCompaction, Merge, MergedRun, Outcome, ProducerStamp, Takeover, TimestampRange, TrimRun,
};
pub use draft::{Change, Changed, Draft, FlushProposal, ProposedRun};
pub use group::{CommitOffsets, CommittedOffset, DeleteOffsets, Group, GroupId, GroupKind, StartGeneration};
pub use hash::RowsHash;
pub use ids::{
    Cell, CommitNumber, Directory, Epoch, FeatureLevel, FlushId, Generation, NodeId, Nonce, Offset, PartitionIndex,
    PartitionKey, Place, ProducerEpoch, ProducerId, SegmentId, Sequence, TableFileId, TopicId,
};
pub use member::{Member, Node};
pub use mint::Mint;
pub use snapshot::Snapshot;
pub use state::PRODUCER_IDS_AT_ONCE_MAX;
pub use state::{ApplyError, FlushOutcome, ObjectId, Partition, Refusal, Run, State, TopicsAt};
pub use table::Table;
pub use topic::{Topic, TopicName};
