//! The state: the fold of the commit log, and the one door through which it changes.
//!
//! A [`State`] is a persistent value: a clone is cheap and shares structure, so a reader, a checkpoint and the sequencer's draft each
//! hold their own without copying. Invariants are named and checked in [`crate::invariants`].

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::commit::{Commit, Entry, FlushBody, Outcome, Takeover};
use crate::group::GroupId;
use crate::ids::{
    CommitNumber, Directory, Epoch, FeatureLevel, FlushId, Generation, Nonce, Offset, PartitionIndex, PartitionKey,
    Place, ProducerId, SegmentId, TableFileId, TopicId,
};
use crate::member::MEMBERS_MAX;
use crate::producer::Producer;
use crate::topic::{PARTITIONS_MAX, Topic, TopicName};

mod append;
pub(crate) mod groups;
mod grown;
mod keys;
pub(crate) mod members;
mod merge;
mod naming;
mod producers;
mod run;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
mod topics_at;

pub(crate) use append::{FlushFacts, RunFacts};
pub use producers::{PRODUCER_IDS_AT_ONCE_MAX, PRODUCERS_MAX, PRODUCERS_PER_PARTITION_MAX};
pub use run::{ObjectId, Run};
pub use topics_at::TopicsAt;

/// The highest feature level whose rules this code knows.
pub const FEATURE_LEVEL_MAX: FeatureLevel = FeatureLevel::new(1);

/// Where a partition begins and ends. Readable offsets are `log_start..high_watermark`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Partition {
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The offset that the next record gets.
    pub high_watermark: Offset,
}

/// How much of an object is still named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Object {
    /// How many runs name it.
    pub live_runs: u32,
    /// Bytes of their keys, values and headers.
    pub live_bytes: u64,
    /// Whether it is a table file with rows that are not named any more: readers of the table see them until it is rewritten.
    pub is_partial: bool,
}

impl Object {
    /// Counts one more run that names it.
    pub(crate) fn count(&mut self, run: &Run) {
        self.live_runs += 1;
        self.live_bytes += run.bytes;
    }
}

/// What came of each batch of one run of a flush.
pub type RunOutcomes = (PartitionKey, Vec<Outcome>);

/// What came of a flush, kept until the reclaim boundary passes its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushOutcome {
    /// The commit that holds it.
    pub number: CommitNumber,
    /// For each of its runs, what came of each batch.
    pub runs: Vec<RunOutcomes>,
}

impl FlushOutcome {
    /// How many things it remembers: its runs, and the outcomes of their batches.
    pub fn count(&self) -> usize {
        self.runs.iter().map(|(_, outcomes)| 1 + outcomes.len()).sum()
    }
}

/// Why an entry is refused. The state is untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A topic of that name exists.
    #[error("topic {name} already exists")]
    TopicExists {
        /// The name.
        name: TopicName,
    },
    /// Another topic would have the same table.
    #[error("topic {name} would have the same table name, {table:?}, as topic {other}")]
    TableNameTaken {
        /// The refused name.
        name: TopicName,
        /// The topic that has the table.
        other: TopicName,
        /// The table's name.
        table: String,
    },
    /// No such topic.
    #[error("topic {id} does not exist")]
    UnknownTopic {
        /// The id that was named.
        id: TopicId,
    },
    /// A topic of that id exists.
    #[error("topic id {id} is taken")]
    TopicIdTaken {
        /// The id.
        id: TopicId,
    },
    /// Too few or too many partitions.
    #[error("{partitions} partitions: must be more than {existing} and at most {max}", max = PARTITIONS_MAX)]
    PartitionsOutOfRange {
        /// What was asked for.
        partitions: u32,
        /// How many there are now (0 for a new topic).
        existing: u32,
    },
    /// More partitions than the broker allows in all.
    #[error("{partitions} more partitions: there are {existing}, and {max} are allowed in all")]
    TooManyPartitions {
        /// How many would be added.
        partitions: u32,
        /// How many there are, of all topics.
        existing: usize,
        /// How many there may be.
        max: usize,
    },
    /// No such partition.
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// The key that was named.
        partition: PartitionKey,
    },
    /// A log start outside of the log, or moving back.
    #[error("log start {offset} of {partition} is outside of {log_start}..={high_watermark}")]
    LogStartOutOfRange {
        /// The partition.
        partition: PartitionKey,
        /// What was asked for.
        offset: Offset,
        /// Where it starts now.
        log_start: Offset,
        /// Where it ends.
        high_watermark: Offset,
    },
    /// An id below the reclaim boundary: its object may be gone, its outcome forgotten.
    #[error("{id} is below the reclaim boundary {boundary}")]
    BelowReclaimBoundary {
        /// The id.
        id: SegmentId,
        /// The boundary.
        boundary: SegmentId,
    },
    /// The flush that its broker sent before it has not been committed (yet).
    #[error("flush {id} comes before {previous}, the flush of its broker that precedes it")]
    FlushOutOfOrder {
        /// The flush.
        id: FlushId,
        /// The one that must come first.
        previous: FlushId,
    },
    /// A boundary that does not move forward, or beyond what was committed.
    #[error("reclaim boundary {id} is not above {boundary} and at most {highest}")]
    BoundaryOutOfRange {
        /// What was asked for.
        id: SegmentId,
        /// Where it is.
        boundary: SegmentId,
        /// The highest committed id.
        highest: SegmentId,
    },
    /// The object is in use already.
    #[error("segment {segment} is already part of the log")]
    SegmentKnown {
        /// The segment.
        segment: SegmentId,
    },
    /// The table file is in use already.
    #[error("table file {file} is already part of the log")]
    TableFileKnown {
        /// The file.
        file: TableFileId,
    },
    /// A version of a table that was never allotted.
    #[error("version {version} of the table of topic {topic} was never allotted")]
    TableVersionUnknown {
        /// The topic.
        topic: TopicId,
        /// What was named.
        version: u32,
    },
    /// No version is left for a change of a table.
    #[error("the tables of the cell have no versions left")]
    TableVersionsExhausted,
    /// A merged run does not take the place of whole runs: another change came first.
    #[error("the runs of {partition} at {base_offset} are no longer what was merged")]
    MergeStale {
        /// The partition.
        partition: PartitionKey,
        /// Where the merged run begins.
        base_offset: Offset,
    },
    /// A topic whose keys are to stay as they are.
    #[error("the keys of topic {topic} are not to be compacted: its cleanup.policy doesn't say so")]
    KeysStay {
        /// The topic.
        topic: TopicId,
    },
    /// A merged run has other rows than those that it would replace.
    #[error("merged rows of {partition} at {base_offset} differ from the rows they would replace")]
    MergeDiffers {
        /// The partition.
        partition: PartitionKey,
        /// Where the merged run begins.
        base_offset: Offset,
    },
    /// No such group.
    #[error("group {group} does not exist")]
    UnknownGroup {
        /// The id that was named.
        group: GroupId,
    },
    /// The generation is not the one in force, or not above all before it.
    #[error("generation {named} of group {group} is not the one that may come: {current} is in force")]
    StaleGeneration {
        /// The group.
        group: GroupId,
        /// What was named.
        named: Generation,
        /// What is in force.
        current: Generation,
    },
    /// The group has members, so nothing of it expires.
    #[error("group {group} has members")]
    GroupHasMembers {
        /// The group.
        group: GroupId,
    },
    /// The groups of the cell and what they have committed take all the room that there is for them.
    #[error("groups and their committed offsets take more than {bytes_max} bytes")]
    GroupsFull {
        /// The room.
        bytes_max: u64,
    },
    /// The entry contradicts itself (empty, rows that overlap, two inline bodies).
    #[error("malformed entry: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Feature levels only rise.
    #[error("feature level {level} is not above {current} and at most {max}", max = FEATURE_LEVEL_MAX)]
    FeatureLevelOutOfRange {
        /// What was asked for.
        level: FeatureLevel,
        /// The level in force.
        current: FeatureLevel,
    },
    /// No such member.
    #[error("broker {nonce} is no member")]
    UnknownMember {
        /// The process.
        nonce: Nonce,
    },
    /// More brokers than a cell may have.
    #[error("the cell has {max} members already", max = MEMBERS_MAX)]
    TooManyMembers,
    /// Producer ids that were allotted already, or that skip some, or more or fewer at once than may be.
    #[error("{count} producer ids from {first} on: the next is {next}, and 1 to {max} are allotted at once", max = PRODUCER_IDS_AT_ONCE_MAX)]
    ProducerIdsOutOfRange {
        /// The first number.
        first: u64,
        /// How many.
        count: u32,
        /// The next that was not allotted.
        next: u64,
    },
    /// An expiry that forgets nothing, or another number of producers than it says.
    #[error("{forgotten} producers were to be forgotten, but {idle} were idle since {before_ms} ms")]
    ExpiryDiffers {
        /// The time.
        before_ms: i64,
        /// What was asked for.
        forgotten: u64,
        /// How many there are.
        idle: u64,
    },
}

/// Why a commit can't be the next of this state. The state is untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It is not the next one.
    #[error("commit {number} at {place} is not the next: expected {expected_number} at {expected_place}")]
    NotNext {
        /// Its number.
        number: CommitNumber,
        /// Its place.
        place: Place,
        /// The number expected.
        expected_number: CommitNumber,
        /// The place expected.
        expected_place: Place,
    },
    /// It is written by a process that does not own the directory.
    #[error("commit {number} is written by {writer}, but the directory belongs to {owner:?}")]
    NotOwner {
        /// Its number.
        number: CommitNumber,
        /// Who wrote it.
        writer: Nonce,
        /// Whose directory it is; `None` for directory 0.
        owner: Option<Nonce>,
    },
    /// It breaks a rule.
    #[error("commit {number}, entry {entry}: {refusal}")]
    Refused {
        /// Its number.
        number: CommitNumber,
        /// Which entry.
        entry: usize,
        /// The rule.
        refusal: Refusal,
    },
    /// It records another outcome than the rules give: stop, and find out why before going on.
    #[error("commit {number}, entry {entry}: recorded outcome {recorded:?} differs from {derived:?}")]
    Diverged {
        /// Its number.
        number: CommitNumber,
        /// Which entry.
        entry: usize,
        /// What the commit says.
        recorded: Option<Outcome>,
        /// What the rules say.
        derived: Option<Outcome>,
    },
}

/// The fold of a cell's commit log.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(crate) number: CommitNumber,
    pub(crate) place: Place,
    pub(crate) owner: Option<Nonce>,
    /// Where the owner said that it can be reached; empty if nowhere.
    pub(crate) owner_address: String,
    pub(crate) feature_level: FeatureLevel,
    pub(crate) boundary: SegmentId,
    pub(crate) highest: SegmentId,
    /// The number of the first commit of each directory.
    pub(crate) directories: OrdMap<CommitNumber, Directory>,
    pub(crate) topics: OrdMap<TopicId, Topic>,
    pub(crate) names: OrdMap<TopicName, TopicId>,
    pub(crate) tables: OrdMap<String, TopicId>,
    pub(crate) partitions: OrdMap<PartitionKey, Partition>,
    pub(crate) runs: OrdMap<(PartitionKey, Offset), Run>,
    pub(crate) objects: OrdMap<ObjectId, Object>,
    pub(crate) producers: OrdMap<(PartitionKey, ProducerId), Producer>,
    /// How many producers each partition remembers; of those that remember any.
    pub(crate) producer_counts: OrdMap<PartitionKey, u32>,
    /// How many producer ids were allotted: the number of the next.
    pub(crate) producer_ids: u64,
    pub(crate) flushes: OrdMap<FlushId, Arc<FlushOutcome>>,
    /// What the remembered flushes count together.
    pub(crate) outcomes: usize,
    pub(crate) groups: groups::Groups,
    pub(crate) versions: tables::Versions,
    pub(crate) members: members::Members,
}

impl State {
    /// The state before the first commit of a log whose directory 0 is `directory`.
    pub fn new(directory: Directory) -> Self {
        Self {
            number: CommitNumber::ZERO,
            place: Place { directory, index: 0 },
            owner: None,
            owner_address: String::new(),
            feature_level: FeatureLevel::new(1),
            boundary: SegmentId::MIN,
            highest: SegmentId::MIN,
            directories: OrdMap::unit(CommitNumber::ZERO, directory),
            topics: OrdMap::new(),
            names: OrdMap::new(),
            tables: OrdMap::new(),
            partitions: OrdMap::new(),
            runs: OrdMap::new(),
            objects: OrdMap::new(),
            producers: OrdMap::new(),
            producer_counts: OrdMap::new(),
            producer_ids: 0,
            flushes: OrdMap::new(),
            outcomes: 0,
            groups: groups::Groups::new(),
            versions: tables::Versions::default(),
            members: members::Members::default(),
        }
    }

    /// Folds the next commit in, verifying every outcome that it records.
    ///
    /// # Errors
    /// [`ApplyError`]: the state is untouched. Anything but [`ApplyError::NotNext`] means that the log is wrong: stop loudly.
    pub fn apply(&mut self, commit: &Commit) -> Result<(), ApplyError> {
        let mut next = self.clone();
        next.check_header(commit)?;
        for (index, entry) in commit.entries.iter().enumerate() {
            next.verify_entry(commit.number, index, entry)?;
        }
        next.advance(commit.writer, &commit.entries, commit.time_ms);
        *self = next;
        self.debug_check();
        Ok(())
    }

    fn check_header(&self, commit: &Commit) -> Result<(), ApplyError> {
        let number = commit.number;
        if number != self.number || commit.place != self.place {
            return Err(ApplyError::NotNext {
                number,
                place: commit.place,
                expected_number: self.number,
                expected_place: self.place,
            });
        }
        let refused = |what| Err(ApplyError::Refused { number, entry: 0, refusal: Refusal::Malformed { what } });
        let takeovers = commit.entries.iter().filter(|entry| matches!(entry, Entry::Takeover(_))).count();
        let inline = |entry: &&Entry| matches!(entry, Entry::Flush(flush) if flush.body == FlushBody::Inline);
        if commit.entries.is_empty() {
            return refused("a commit without entries");
        }
        if takeovers > 0 && commit.entries.len() > 1 {
            return refused("a takeover stands alone in its commit");
        }
        if commit.entries.iter().filter(inline).count() > 1 {
            return refused("more than one inline flush");
        }
        if takeovers == 0 && self.owner != Some(commit.writer) {
            return Err(ApplyError::NotOwner { number, writer: commit.writer, owner: self.owner });
        }
        Ok(())
    }

    fn verify_entry(&mut self, number: CommitNumber, index: usize, entry: &Entry) -> Result<(), ApplyError> {
        let refused = |refusal| ApplyError::Refused { number, entry: index, refusal };
        let Entry::Flush(flush) = entry else { return self.perform(entry).map_err(refused) };
        let outcome = self.append_flush(&FlushFacts::of(flush)).map_err(refused)?;
        let recorded = flush.runs.iter().flat_map(|run| run.batches.iter().map(|(_, outcome)| *outcome));
        let derived = outcome.runs.iter().flat_map(|(_, outcomes)| outcomes.iter().copied());
        match recorded.clone().zip(derived.clone()).find(|(recorded, derived)| recorded != derived) {
            Some((recorded, derived)) => {
                Err(ApplyError::Diverged { number, entry: index, recorded: Some(recorded), derived: Some(derived) })
            }
            None => Ok(()),
        }
    }

    /// Performs any entry but a flush.
    pub(crate) fn perform(&mut self, entry: &Entry) -> Result<(), Refusal> {
        match entry {
            Entry::Takeover(takeover) => self.check_takeover(takeover),
            Entry::RaiseFeatureLevel(level) => self.raise_feature_level(*level),
            Entry::CreateTopic { id, name, partitions, config } => self.create_topic(*id, name, *partitions, config),
            Entry::AlterTopic { id, config } => self.alter_topic(*id, config),
            Entry::AddPartitions { id, partitions } => self.add_partitions(*id, *partitions),
            Entry::DeleteTopic { id } => self.delete_topic(*id),
            Entry::Flush(_) => Err(Refusal::Malformed { what: "a flush is appended, not performed" }),
            Entry::Merge(merge) => self.merge(merge),
            Entry::Compact(compaction) => self.compact(compaction),
            Entry::CompactKeys(compaction) => self.compact_keys(compaction),
            Entry::PublishTable { topic, version } => self.publish_table(*topic, *version),
            Entry::MoveLogStart { partition, offset } => self.move_log_start(*partition, *offset),
            Entry::TrimRun(trim) => self.trim_run(trim),
            Entry::StartGeneration(start) => self.start_generation(start),
            Entry::CommitOffsets(commit) => self.commit_offsets(commit),
            Entry::DeleteOffsets(delete) => self.delete_offsets(delete),
            Entry::ExpireOffsets { group, generation, before_ms } => {
                self.expire_offsets(group, *generation, *before_ms)
            }
            Entry::DeleteGroup { group, generation } => self.delete_group(group, *generation),
            Entry::MoveReclaimBoundary(id) => self.move_reclaim_boundary(*id),
            Entry::Join(member) => self.join(member),
            Entry::Leave { member } => self.leave(*member),
            Entry::AllotProducerIds { first, count } => self.allot_producer_ids(*first, *count),
            Entry::ExpireProducers { before_ms, forgotten } => self.expire_producers(*before_ms, *forgotten),
        }
    }

    /// Counts the commit and moves to the next place.
    pub(crate) fn advance(&mut self, writer: Nonce, entries: &[Entry], time_ms: i64) {
        self.date_tables(entries, time_ms);
        self.number = self.number.next();
        if let [Entry::Takeover(takeover)] = entries {
            self.place = Place { directory: takeover.next, index: 0 };
            self.owner = Some(writer);
            self.owner_address.clone_from(&takeover.address);
            self.directories.insert(self.number, takeover.next);
        } else {
            self.place.index += 1;
        }
    }

    fn check_takeover(&self, takeover: &Takeover) -> Result<(), Refusal> {
        let next = self.place.directory.epoch.get().checked_add(1).map(Epoch::new);
        if Some(takeover.next.epoch) == next {
            Ok(())
        } else {
            Err(Refusal::Malformed { what: "a takeover names the next epoch" })
        }
    }

    fn raise_feature_level(&mut self, level: FeatureLevel) -> Result<(), Refusal> {
        if level <= self.feature_level || level > FEATURE_LEVEL_MAX {
            return Err(Refusal::FeatureLevelOutOfRange { level, current: self.feature_level });
        }
        self.feature_level = level;
        Ok(())
    }

    fn create_topic(
        &mut self,
        id: TopicId,
        name: &TopicName,
        partitions: u32,
        config: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let table = name.table_name();
        if self.names.contains_key(name) {
            return Err(Refusal::TopicExists { name: name.clone() });
        }
        if let Some(other) = self.tables.get(&table).and_then(|other| self.topics.get(other)) {
            return Err(Refusal::TableNameTaken { name: name.clone(), other: other.name.clone(), table });
        }
        if self.topics.contains_key(&id) {
            return Err(Refusal::TopicIdTaken { id });
        }
        check_partitions(partitions, 0)?;
        self.topics.insert(id, Topic { name: name.clone(), partitions, config: Arc::new(config.clone()) });
        self.names.insert(name.clone(), id);
        self.tables.insert(table, id);
        self.open_partitions(id, 0..partitions);
        Ok(())
    }

    fn open_partitions(&mut self, id: TopicId, indexes: std::ops::Range<u32>) {
        for index in indexes {
            self.partitions.insert(PartitionKey::new(id, PartitionIndex::new(index)), Partition::default());
        }
    }

    fn alter_topic(&mut self, id: TopicId, config: &BTreeMap<String, String>) -> Result<(), Refusal> {
        let topic = self.topics.get_mut(&id).ok_or(Refusal::UnknownTopic { id })?;
        topic.config = Arc::new(config.clone());
        Ok(())
    }

    fn add_partitions(&mut self, id: TopicId, partitions: u32) -> Result<(), Refusal> {
        let topic = self.topics.get_mut(&id).ok_or(Refusal::UnknownTopic { id })?;
        let existing = topic.partitions;
        check_partitions(partitions, existing)?;
        topic.partitions = partitions;
        self.open_partitions(id, existing..partitions);
        Ok(())
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<(), Refusal> {
        let topic = self.topics.remove(&id).ok_or(Refusal::UnknownTopic { id })?;
        self.names.remove(&topic.name);
        self.tables.remove(&topic.name.table_name());
        self.drop_offsets_of(id);
        self.drop_table(id);
        for index in 0..topic.partitions {
            let key = PartitionKey::new(id, PartitionIndex::new(index));
            self.partitions.remove(&key);
            let _gone = self.drop_runs(key, Offset::new(u64::MAX));
            self.forget_producers_of(key);
        }
        Ok(())
    }

    fn move_log_start(&mut self, key: PartitionKey, offset: Offset) -> Result<(), Refusal> {
        let partition = self.partitions.get_mut(&key).ok_or(Refusal::UnknownPartition { partition: key })?;
        let Partition { log_start, high_watermark } = *partition;
        if offset <= log_start || offset > high_watermark {
            return Err(Refusal::LogStartOutOfRange { partition: key, offset, log_start, high_watermark });
        }
        partition.log_start = offset;
        let of_table = |run: &Run| matches!(run.object, ObjectId::Table(_));
        if self.drop_runs(key, offset).iter().any(of_table) { self.change_table(key.topic) } else { Ok(()) }
    }

    fn move_reclaim_boundary(&mut self, id: SegmentId) -> Result<(), Refusal> {
        if id <= self.boundary || id > self.highest {
            return Err(Refusal::BoundaryOutOfRange { id, boundary: self.boundary, highest: self.highest });
        }
        self.boundary = id;
        let passed: Vec<FlushId> =
            self.flushes.keys().take_while(|flush| SegmentId::from(**flush) < id).copied().collect();
        for flush in passed {
            self.outcomes -= self.flushes.remove(&flush).map_or(0, |outcome| outcome.count());
        }
        Ok(())
    }

    pub(crate) fn remember(&mut self, id: FlushId, outcome: Arc<FlushOutcome>) {
        self.outcomes += outcome.count();
        self.flushes.insert(id, outcome);
    }
}

/// Reading.
impl State {
    /// The number that the next commit gets: how many have been folded.
    pub fn number(&self) -> CommitNumber {
        self.number
    }

    /// Where the next commit stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The process that may write there; `None` before the first takeover.
    pub fn owner(&self) -> Option<Nonce> {
        self.owner
    }

    /// Where the owner said, when it took over, that other brokers can reach it; empty if nowhere.
    pub fn owner_address(&self) -> &str {
        &self.owner_address
    }

    /// The rules in force.
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// Ids below it are refused.
    pub fn reclaim_boundary(&self) -> SegmentId {
        self.boundary
    }

    /// The highest id that was committed.
    pub fn highest_id(&self) -> SegmentId {
        self.highest
    }

    /// Where commit `number` stands or stood; `None` if it has not been folded.
    pub fn place_of(&self, number: CommitNumber) -> Option<Place> {
        if number >= self.number {
            return None;
        }
        let (first, directory) = self.directories.get_prev(&number)?;
        Some(Place { directory: *directory, index: number.get() - first.get() })
    }

    /// The number of the commit that stands or stood at `place`; `None` if the place is not one of the log (the directory is
    /// unknown, or the place lies beyond its takeover, or nothing has been folded there yet).
    pub fn number_at(&self, place: Place) -> Option<CommitNumber> {
        let mut known = self.directories.iter().filter(|(_, directory)| **directory == place.directory);
        let (first, _) = known.next()?;
        let number = CommitNumber::new(first.get().checked_add(place.index)?);
        (self.place_of(number) == Some(place)).then_some(number)
    }

    /// Where the takeover stands that closed a directory; `None` if the directory is open or unknown.
    pub fn takeover_of(&self, directory: Directory) -> Option<Place> {
        let (first, _) = self.directories.iter().find(|(_, known)| **known == directory)?;
        let (next, _) = self.directories.get_next(&first.next())?;
        Some(Place { directory, index: next.get() - first.get() - 1 })
    }

    /// Every directory of the log with the number of its first commit, oldest first.
    pub fn directories(&self) -> impl Iterator<Item = (CommitNumber, Directory)> {
        self.directories.iter().map(|(number, directory)| (*number, *directory))
    }

    /// Whether commit `number` is a takeover.
    pub fn is_takeover(&self, number: CommitNumber) -> bool {
        self.directories.contains_key(&number.next())
    }

    /// All topics, by id.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        self.topics.iter().map(|(id, topic)| (*id, topic))
    }

    /// The topic of an id.
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// The id of a topic's name.
    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        let name = TopicName::new(name).ok()?;
        self.names.get(&name).copied()
    }

    /// Where a partition begins and ends.
    pub fn partition(&self, key: PartitionKey) -> Option<Partition> {
        self.partitions.get(&key).copied()
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// The runs of a partition with their base offsets, in order.
    pub fn runs_of(&self, key: PartitionKey) -> impl Iterator<Item = (Offset, Run)> {
        let range = (key, Offset::ZERO)..=(key, Offset::new(u64::MAX));
        self.runs.range(range).map(|((_, base), run)| (*base, *run))
    }

    /// The runs of a partition from the one that holds `offset` on, in order.
    pub fn runs_from(&self, key: PartitionKey, offset: Offset) -> impl Iterator<Item = (Offset, Run)> {
        let holding = self
            .runs
            .get_prev(&(key, offset))
            .filter(|((owner, base), run)| *owner == key && offset.since(*base) < run.span)
            .map_or(offset, |((_, base), _)| *base);
        let range = (key, holding)..=(key, Offset::new(u64::MAX));
        self.runs.range(range).map(|((_, base), run)| (*base, *run))
    }

    /// All runs, by partition and base offset.
    pub fn runs(&self) -> impl Iterator<Item = (PartitionKey, Offset, Run)> {
        self.runs.iter().map(|((key, base), run)| (*key, *base, *run))
    }

    /// How many runs are live.
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// The objects whose rows are named, in order: commits by number, then segments and table files by id.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, Object)> {
        self.objects.iter().map(|(id, object)| (*id, *object))
    }

    /// How much of an object is named; `None` if nothing.
    pub fn object(&self, id: ObjectId) -> Option<Object> {
        self.objects.get(&id).copied()
    }

    /// How many objects are named.
    pub fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// What came of a flush, if it was committed and the reclaim boundary has not passed it.
    pub fn flush(&self, id: FlushId) -> Option<&Arc<FlushOutcome>> {
        self.flushes.get(&id)
    }

    /// How many flushes are remembered.
    pub fn flush_count(&self) -> usize {
        self.flushes.len()
    }

    /// How many outcomes they have together; see [`FlushOutcome::count`].
    pub fn outcome_count(&self) -> usize {
        self.outcomes
    }

    /// The remembered flushes, by id.
    pub fn flushes(&self) -> impl DoubleEndedIterator<Item = (FlushId, &Arc<FlushOutcome>)> {
        self.flushes.iter().map(|(id, outcome)| (*id, outcome))
    }
}

fn check_partitions(partitions: u32, existing: u32) -> Result<(), Refusal> {
    if partitions > existing && partitions <= PARTITIONS_MAX {
        Ok(())
    } else {
        Err(Refusal::PartitionsOutOfRange { partitions, existing })
    }
}
