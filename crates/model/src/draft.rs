//! The sequencer's side: deciding what the next commit says.
//!
//! A draft works on its own copy of the state, so that a decision sees all decisions before it, durable or not. What comes out is a
//! commit and the state after it, which equals [`State::apply`] of that commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::commit::{
    BatchFacts, Commit, Compaction, Entry, Flush, FlushBody, FlushRun, KeyCompaction, Merge, Takeover, TrimRun,
};
use crate::group::{CommitOffsets, DeleteOffsets, GroupId, StartGeneration};
use crate::ids::{
    CommitNumber, FeatureLevel, FlushId, Generation, Nonce, Offset, PartitionKey, Place, SegmentId, TopicId,
};
use crate::member::Member;
use crate::state::{FlushFacts, FlushOutcome, Refusal, RunFacts, State};
use crate::topic::TopicName;

/// A flush as its broker proposes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushProposal {
    /// Its id; the same when it is sent again.
    pub id: FlushId,
    /// The broker that flushed.
    pub broker: Nonce,
    /// The flush of the same broker before this one; `None` for its first.
    pub previous: Option<FlushId>,
    /// Where its rows are.
    pub body: FlushBody,
    /// Milliseconds since 1970 at which the broker sealed it.
    pub ingest_time_ms: i64,
    /// One per partition, ascending, in the order of the rows.
    pub runs: Vec<ProposedRun>,
}

/// Consecutive rows of one partition in a proposed flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedRun {
    /// The partition.
    pub partition: PartitionKey,
    /// Index of the first row in the object.
    pub first_row: u64,
    /// Its batches in order.
    pub batches: Vec<BatchFacts>,
}

/// A change that is no flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Raise the feature level.
    RaiseFeatureLevel(FeatureLevel),
    /// Create a topic.
    CreateTopic {
        /// Its identity, freshly drawn.
        id: TopicId,
        /// Its name.
        name: TopicName,
        /// How many partitions.
        partitions: u32,
        /// Its settings.
        config: BTreeMap<String, String>,
    },
    /// Replace a topic's settings.
    AlterTopic {
        /// The topic.
        id: TopicId,
        /// All its settings.
        config: BTreeMap<String, String>,
    },
    /// Give a topic more partitions.
    AddPartitions {
        /// The topic.
        id: TopicId,
        /// The new number.
        partitions: u32,
    },
    /// Delete a topic.
    DeleteTopic {
        /// The topic.
        id: TopicId,
    },
    /// Swap runs for those of a merged segment.
    Merge(Merge),
    /// Swap runs for table files.
    Compact(Compaction),
    /// Swap runs of table files for what is left of them.
    CompactKeys(KeyCompaction),
    /// Say that a version of a table is published.
    PublishTable {
        /// The topic.
        topic: TopicId,
        /// The version.
        version: u32,
    },
    /// Move a partition's log start.
    MoveLogStart {
        /// The partition.
        partition: PartitionKey,
        /// Where it starts from now on.
        offset: Offset,
    },
    /// Cut rows below the log start off the run that holds it.
    TrimRun(TrimRun),
    /// Begin a generation of a group.
    StartGeneration(StartGeneration),
    /// Commit offsets of a group.
    CommitOffsets(CommitOffsets),
    /// Forget committed offsets.
    DeleteOffsets(DeleteOffsets),
    /// Forget what a group without members committed before a time.
    ExpireOffsets {
        /// The group.
        group: GroupId,
        /// Its generation.
        generation: Generation,
        /// Milliseconds since 1970.
        before_ms: i64,
    },
    /// Delete a group with its offsets.
    DeleteGroup {
        /// The group.
        group: GroupId,
        /// Its generation.
        generation: Generation,
    },
    /// Move the reclaim boundary.
    MoveReclaimBoundary(SegmentId),
    /// Take a broker in, or describe it anew.
    Join(Member),
    /// A broker is no member any more.
    Leave {
        /// The process.
        member: Nonce,
    },
    /// Allot producer ids.
    AllotProducerIds {
        /// The number of the first: [`State::producer_ids_allotted`].
        first: u64,
        /// How many.
        count: u32,
    },
    /// Forget producers that were idle for long.
    ExpireProducers {
        /// Those whose last batch is older than this, in milliseconds since 1970.
        before_ms: i64,
        /// How many these are: [`State::idle_producers`].
        forgotten: u64,
    },
}

/// What a decided change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The commit that holds it.
    pub number: CommitNumber,
}

/// A commit in the making.
#[derive(Debug, Clone)]
pub struct Draft {
    state: State,
    entries: Vec<Entry>,
    inline: bool,
}

impl Draft {
    /// A draft of the commit after `state`.
    pub fn after(state: &State) -> Self {
        Self { state: state.clone(), entries: Vec::new(), inline: false }
    }

    /// The number that the commit will have.
    pub fn number(&self) -> CommitNumber {
        self.state.number
    }

    /// Where the commit will stand.
    pub fn place(&self) -> Place {
        self.state.place
    }

    /// Whether nothing has been decided that must be written.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a flush of this commit is inline already; there can be one.
    pub fn has_inline(&self) -> bool {
        self.inline
    }

    /// The state as it will be after the commit, so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Decides the outcome of a flush; one that is known already gets the outcome that it got.
    ///
    /// # Errors
    /// [`Refusal::BelowReclaimBoundary`]: whether it was committed can't be known any more. Others: it is malformed. The draft is
    /// unchanged.
    pub fn flush(&mut self, proposal: &FlushProposal) -> Result<Arc<FlushOutcome>, Refusal> {
        if let Some(outcome) = self.state.flush(proposal.id) {
            return Ok(Arc::clone(outcome));
        }
        if self.inline && proposal.body == FlushBody::Inline {
            return Err(Refusal::Malformed { what: "more than one inline flush" });
        }
        let mut next = self.state.clone();
        let outcome = next.append_flush(&proposal.facts())?;
        self.state = next;
        self.inline |= proposal.body == FlushBody::Inline;
        self.entries.push(Entry::Flush(proposal.decided(&outcome)));
        Ok(outcome)
    }

    /// Decides a change.
    ///
    /// # Errors
    /// The [`Refusal`] to answer; the draft is unchanged. The answer rests on everything decided so far, so it waits until that is
    /// durable.
    pub fn change(&mut self, change: Change) -> Result<Changed, Refusal> {
        let entry = change.into_entry();
        let mut next = self.state.clone();
        next.perform(&entry)?;
        self.state = next;
        self.entries.push(entry);
        Ok(Changed { number: self.state.number })
    }

    /// Decides changes that belong together: all of them, or none.
    ///
    /// # Errors
    /// As [`Draft::change`], of the first that is refused; the draft is unchanged.
    pub fn change_all(&mut self, changes: Vec<Change>) -> Result<Changed, Refusal> {
        let mut next = self.clone();
        for change in changes {
            next.change(change)?;
        }
        *self = next;
        Ok(Changed { number: self.state.number })
    }

    /// The commit, and the state after it.
    ///
    /// `writer` is the sequencer's own nonce; `time_ms` its wall clock, for humans.
    ///
    /// # Panics
    /// If nothing has been decided, or if `writer` does not own the directory: such a commit would stop every reader for ever.
    pub fn seal(mut self, writer: Nonce, time_ms: i64) -> (Commit, State) {
        assert!(!self.entries.is_empty(), "an empty draft is not committed");
        let owned = matches!(self.entries[..], [Entry::Takeover(_)]) || self.state.owner == Some(writer);
        assert!(owned, "{writer} does not own {}", self.state.place.directory);
        let commit =
            Commit { number: self.state.number, place: self.state.place, writer, time_ms, entries: self.entries };
        self.state.advance(writer, &commit.entries, time_ms);
        (commit, self.state)
    }

    /// A takeover of the log at `state`: the commit that closes its directory and names the next.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if `takeover` does not name the next epoch.
    pub fn takeover(
        state: &State,
        takeover: Takeover,
        writer: Nonce,
        time_ms: i64,
    ) -> Result<(Commit, State), Refusal> {
        let mut draft = Self::after(state);
        let entry = Entry::Takeover(takeover);
        draft.state.perform(&entry)?;
        draft.entries.push(entry);
        Ok(draft.seal(writer, time_ms))
    }
}

impl FlushProposal {
    fn facts(&self) -> FlushFacts<'_> {
        let runs = self.runs.iter().map(|run| RunFacts {
            partition: run.partition,
            first_row: run.first_row,
            batches: run.batches.iter().collect(),
        });
        FlushFacts {
            id: self.id,
            previous: self.previous,
            body: self.body,
            ingest_time_ms: self.ingest_time_ms,
            runs: runs.collect(),
        }
    }

    fn decided(&self, outcome: &FlushOutcome) -> Flush {
        let runs = self.runs.iter().zip(&outcome.runs).map(|(run, (_, outcomes))| FlushRun {
            partition: run.partition,
            first_row: run.first_row,
            batches: run.batches.iter().copied().zip(outcomes.iter().copied()).collect(),
        });
        Flush {
            id: self.id,
            broker: self.broker,
            previous: self.previous,
            body: self.body,
            ingest_time_ms: self.ingest_time_ms,
            runs: runs.collect(),
        }
    }
}

impl Change {
    fn into_entry(self) -> Entry {
        match self {
            Self::RaiseFeatureLevel(level) => Entry::RaiseFeatureLevel(level),
            Self::CreateTopic { id, name, partitions, config } => Entry::CreateTopic { id, name, partitions, config },
            Self::AlterTopic { id, config } => Entry::AlterTopic { id, config },
            Self::AddPartitions { id, partitions } => Entry::AddPartitions { id, partitions },
            Self::DeleteTopic { id } => Entry::DeleteTopic { id },
            Self::Merge(merge) => Entry::Merge(merge),
            Self::Compact(compaction) => Entry::Compact(compaction),
            Self::CompactKeys(compaction) => Entry::CompactKeys(compaction),
            Self::PublishTable { topic, version } => Entry::PublishTable { topic, version },
            Self::MoveLogStart { partition, offset } => Entry::MoveLogStart { partition, offset },
            Self::TrimRun(trim) => Entry::TrimRun(trim),
            Self::StartGeneration(start) => Entry::StartGeneration(start),
            Self::CommitOffsets(commit) => Entry::CommitOffsets(commit),
            Self::DeleteOffsets(delete) => Entry::DeleteOffsets(delete),
            Self::ExpireOffsets { group, generation, before_ms } => {
                Entry::ExpireOffsets { group, generation, before_ms }
            }
            Self::DeleteGroup { group, generation } => Entry::DeleteGroup { group, generation },
            Self::MoveReclaimBoundary(id) => Entry::MoveReclaimBoundary(id),
            Self::Join(member) => Entry::Join(member),
            Self::Leave { member } => Entry::Leave { member },
            Self::AllotProducerIds { first, count } => Entry::AllotProducerIds { first, count },
            Self::ExpireProducers { before_ms, forgotten } => Entry::ExpireProducers { before_ms, forgotten },
        }
    }
}
