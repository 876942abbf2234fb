//! The invariants of a state, by number and name; checked after every restore, in tests, and in debug builds.

use std::collections::{BTreeMap, BTreeSet};

use crate::group::{GROUPS_BYTES_MAX, OFFSET_METADATA_BYTES_MAX, PROTOCOL_TYPE_BYTES_MAX};
use crate::ids::{CommitNumber, Generation, NodeId, Offset, PartitionKey, SegmentId, TableFileId, TopicId};
use crate::member::MEMBERS_MAX;
use crate::producer::{NUMBERS_MAX, Producer, RECENT_BATCHES, RecentBatch};
use crate::state::{FEATURE_LEVEL_MAX, Object, ObjectId, PRODUCERS_MAX, PRODUCERS_PER_PARTITION_MAX, State};
use crate::table::TABLE_VERSION_MAX;

/// Debug builds check a state of at most this many parts after every commit, and a larger one now and then.
const CHECK_ALWAYS_BELOW: usize = 256;
/// How often a larger state is checked in debug builds: every so many commits.
const CHECK_EVERY: u64 = 1024;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {invariant} is broken: {what}")]
pub struct Violation {
    /// Its number and name.
    pub invariant: &'static str,
    /// What breaks it.
    pub what: String,
}

fn broken<T>(invariant: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { invariant, what })
}

impl State {
    /// Checks every invariant.
    ///
    /// # Errors
    /// The first [`Violation`].
    ///
    /// # Cost
    /// Visits the whole state.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        self.runs_are_dense()?;
        self.objects_count_their_runs()?;
        self.topics_have_their_partitions()?;
        self.directories_lead_to_the_place()?;
        self.memories_are_bounded()?;
        self.producers_are_bounded()?;
        self.groups_are_counted()?;
        self.tables_have_versions()?;
        self.members_are_told_apart()
    }

    pub(crate) fn debug_check(&self) {
        if cfg!(debug_assertions) {
            let size = self.partitions.len() + self.runs.len() + self.groups.by_topic.len();
            if size <= CHECK_ALWAYS_BELOW || self.number.get().is_multiple_of(CHECK_EVERY) {
                let checked = self.check_invariants();
                assert!(checked.is_ok(), "{checked:?}");
            }
        }
    }

    /// Live runs cover `log_start..high_watermark` without gap or overlap, and belong to partitions that exist; only in table files are there
    /// runs that cover more offsets than they have rows, or are clean.
    fn runs_are_dense(&self) -> Result<(), Violation> {
        const NAME: &str = "1 (runs are dense)";
        // Ascending by partition, as runs are.
        let mut ends: Vec<(PartitionKey, Offset)> = Vec::new();
        for (key, base, run) in self.runs() {
            let Some(bounds) = self.partition(key) else {
                return broken(NAME, format!("a run of {key}, which does not exist"));
            };
            let Some(end) = base.checked_add(run.span) else {
                return broken(NAME, format!("run of {key} at {base} has no end"));
            };
            let previous = ends.pop_if(|(owner, _)| *owner == key);
            let fits = match previous {
                Some((_, previous)) => previous == base,
                None => base <= bounds.log_start && bounds.log_start < end,
            };
            if !fits || run.rows == 0 || end > bounds.high_watermark {
                return broken(NAME, format!("run {base}..{end} of {key} does not follow"));
            }
            let is_of_table = matches!(run.object, ObjectId::Table(_));
            if run.rows > run.span || ((run.has_gaps() || run.clean) && !is_of_table) {
                return broken(NAME, format!("run {base}..{end} of {key} has {} rows in {:?}", run.rows, run.object));
            }
            ends.push((key, end));
        }
        let mut ends = ends.into_iter().peekable();
        for (key, bounds) in &self.partitions {
            let end = ends.next_if(|(owner, _)| owner == key).map_or(bounds.log_start, |(_, end)| end);
            if end != bounds.high_watermark {
                return broken(NAME, format!("runs of {key} end at {end}, not at {}", bounds.high_watermark));
            }
        }
        Ok(())
    }

    /// An object is known exactly as long as runs name it, with their number and bytes; commits lie in the past, segments at or
    /// below the highest id.
    fn objects_count_their_runs(&self) -> Result<(), Violation> {
        const NAME: &str = "2 (objects count their runs)";
        let mut counted: BTreeMap<ObjectId, Object> = BTreeMap::new();
        for (_, _, run) in self.runs() {
            counted.entry(run.object).or_default().count(&run);
        }
        if !self.objects().map(|(id, object)| (id, Object { is_partial: false, ..object })).eq(counted) {
            return broken(NAME, "live counts differ from the runs".to_owned());
        }
        let is_partial = |(id, object): &(ObjectId, Object)| object.is_partial && !matches!(id, ObjectId::Table(_));
        if let Some((id, _)) = self.objects().find(is_partial) {
            return broken(NAME, format!("{id:?} is no table file, and partial"));
        }
        let folded = |id: &ObjectId| match id {
            ObjectId::Commit(number) => *number < self.number,
            ObjectId::Segment(segment) => *segment <= self.highest,
            ObjectId::Table(file) => SegmentId::from(*file) <= self.highest,
        };
        match self.objects.keys().find(|id| !folded(id)) {
            Some(id) => broken(NAME, format!("{id:?} is not folded yet")),
            None => Ok(()),
        }
    }

    /// Names, tables and partitions are those of the topics, no more and no fewer.
    fn topics_have_their_partitions(&self) -> Result<(), Violation> {
        const NAME: &str = "3 (topics have their partitions)";
        let mut partitions = 0_usize;
        for (id, topic) in self.topics() {
            partitions += topic.partitions as usize;
            let named =
                self.names.get(&topic.name) == Some(&id) && self.tables.get(&topic.name.table_name()) == Some(&id);
            if !named || topic.partitions == 0 {
                return broken(NAME, format!("topic {id} ({})", topic.name));
            }
        }
        // As many partitions as the topics say, and each one is a topic's: so none is missing either.
        let belongs =
            |key: &PartitionKey| self.topic(key.topic).is_some_and(|topic| key.partition.get() < topic.partitions);
        if let Some(key) = self.partitions.keys().find(|key| !belongs(key)) {
            return broken(NAME, format!("partition {key} of no topic"));
        }
        if self.names.len() != self.topics.len()
            || self.tables.len() != self.topics.len()
            || partitions != self.partitions.len()
        {
            return broken(NAME, "names, tables or partitions without a topic".to_owned());
        }
        Ok(())
    }

    /// Epochs count up from directory to directory, the last of which leads to the place of the next commit; only directory 0
    /// belongs to nobody.
    fn directories_lead_to_the_place(&self) -> Result<(), Violation> {
        const NAME: &str = "4 (directories lead to the place)";
        let mut expected_epoch = self.directories.get_min().map(|(_, directory)| directory.epoch.get());
        for (first, directory) in self.directories() {
            if Some(directory.epoch.get()) != expected_epoch {
                return broken(NAME, format!("directory {directory} is not of the next epoch"));
            }
            expected_epoch = directory.epoch.get().checked_add(1);
            if first > self.number {
                return broken(NAME, format!("directory {directory} begins at {first}, beyond {}", self.number));
            }
        }
        let begins = self.directories.get_min().map(|(first, _)| *first);
        if begins != Some(CommitNumber::ZERO) || self.owner.is_none() != (self.directories.len() == 1) {
            return broken(NAME, format!("begins at {begins:?}, owner {:?}", self.owner));
        }
        let last = self.directories.get_max().map(|(first, directory)| (*first, *directory));
        let expected = (CommitNumber::new(self.number.get().saturating_sub(self.place.index)), self.place.directory);
        if last == Some(expected) { Ok(()) } else { broken(NAME, format!("{last:?} does not lead to {}", self.place)) }
    }

    /// Groups are within their bound and counted right; what they committed lies in partitions that exist.
    fn groups_are_counted(&self) -> Result<(), Violation> {
        const NAME: &str = "7 (groups are counted)";
        let (mut bytes, mut by_topic) = (0_u64, BTreeMap::new());
        for (id, group) in self.groups() {
            bytes = bytes.saturating_add(group.bytes(id));
            if group.generation > Generation::MAX || group.protocol_type.len() > PROTOCOL_TYPE_BYTES_MAX {
                return broken(NAME, format!("group {id} of generation {}", group.generation));
            }
            for (key, committed) in &group.offsets {
                *by_topic.entry((key.topic, id.clone())).or_insert(0_u32) += 1;
                let fits = committed.metadata.len() <= OFFSET_METADATA_BYTES_MAX;
                if self.partition(*key).is_none() || !fits || committed.offset.get() > i64::MAX as u64 {
                    return broken(NAME, format!("group {id} committed {} in {key}", committed.offset));
                }
            }
        }
        if bytes != self.groups.bytes || bytes > GROUPS_BYTES_MAX || !self.groups.by_topic.iter().eq(by_topic.iter()) {
            return broken(NAME, format!("{} bytes are counted, {bytes} are there", self.groups.bytes));
        }
        Ok(())
    }

    /// A topic whose runs name a table file has a version of its table, which is above 0 and not below what is published; a table file
    /// belongs to one topic.
    fn tables_have_versions(&self) -> Result<(), Violation> {
        const NAME: &str = "8 (tables have versions)";
        let mut owners: BTreeMap<TableFileId, TopicId> = BTreeMap::new();
        for (key, base, run) in self.runs() {
            let ObjectId::Table(file) = run.object else { continue };
            if self.table(key.topic).is_none() || *owners.entry(file).or_insert(key.topic) != key.topic {
                return broken(NAME, format!("table file {file} of {key} at {base}"));
            }
        }
        for (topic, table) in self.tables() {
            let counted = (1..=TABLE_VERSION_MAX).contains(&table.version) && table.published <= table.version;
            let counted = counted && table.commit < self.number;
            if self.topic(topic).is_none() || !counted {
                return broken(NAME, format!("{table:?} of topic {topic}"));
            }
        }
        if self.table_version_gone() > TABLE_VERSION_MAX {
            return broken(NAME, format!("version {} of a table", self.table_version_gone()));
        }
        Ok(())
    }

    /// No two members have one process or one address, and their numbers were given.
    fn members_are_told_apart(&self) -> Result<(), Violation> {
        const NAME: &str = "9 (members are told apart)";
        let members = &self.members;
        let mut nonces = BTreeSet::new();
        let (mut kafka, mut http) = (BTreeSet::new(), BTreeSet::new());
        for (id, member) in &members.by_id {
            let is_given = *id > NodeId::ZERO && *id <= members.highest;
            let has_own = kafka.insert(&member.kafka) && http.insert(&member.http);
            let is_only = nonces.insert(member.nonce) && has_own;
            if !is_given || !is_only || member.wrong().is_some() {
                return broken(NAME, format!("node {id} is {member:?}"));
            }
        }
        if members.by_id.len() > MEMBERS_MAX || members.highest < NodeId::ZERO {
            return broken(NAME, format!("{} members, up to number {}", members.by_id.len(), members.highest));
        }
        Ok(())
    }

    /// Remembered flushes and the feature level are within their bounds, and nothing is remembered of the future.
    fn memories_are_bounded(&self) -> Result<(), Violation> {
        const NAME: &str = "5 (memories are bounded)";
        if let Some((id, _)) = self.flushes().find(|(_, outcome)| outcome.number >= self.number) {
            return broken(NAME, format!("flush {id} is not folded yet"));
        }
        if self.flushes.keys().any(|id| SegmentId::from(*id) < self.boundary) {
            return broken(NAME, "a flush below the reclaim boundary is remembered".to_owned());
        }
        let outcomes: usize = self.flushes.values().map(|outcome| outcome.count()).sum();
        if outcomes != self.outcomes {
            return broken(NAME, format!("{} outcomes are counted, {outcomes} remembered", self.outcomes));
        }
        if self.boundary > self.highest || self.feature_level > FEATURE_LEVEL_MAX {
            return broken(NAME, format!("boundary {} or feature level {}", self.boundary, self.feature_level));
        }
        Ok(())
    }

    /// What is remembered of producers is within its bounds, counted rightly, and lies in the past; ids are in range.
    fn producers_are_bounded(&self) -> Result<(), Violation> {
        const NAME: &str = "6 (producers are bounded)";
        let bounded = |count: usize| (1..=RECENT_BATCHES).contains(&count);
        if let Some((key, _)) = self.producers.iter().find(|(_, producer)| !bounded(producer.recent.len())) {
            return broken(NAME, format!("producer {key:?}"));
        }
        if let Some((key, _)) = self.producers.iter().find(|((key, _), _)| self.partition(*key).is_none()) {
            return broken(NAME, format!("producer {key:?} of no partition"));
        }
        let past = |key: &PartitionKey, batch: &RecentBatch| {
            let end = batch.base_offset.checked_add(u64::from(batch.rows));
            end.is_some_and(|end| self.partition(*key).is_some_and(|bounds| end <= bounds.high_watermark))
        };
        let all_past = |key, producer: &Producer| producer.recent.iter().all(|batch| past(key, batch));
        if let Some((key, _)) = self.producers.iter().find(|((key, _), producer)| !all_past(key, producer)) {
            return broken(NAME, format!("producer {key:?} wrote beyond the high watermark"));
        }
        let mut counts: BTreeMap<PartitionKey, u32> = BTreeMap::new();
        self.producers.keys().for_each(|(key, _)| *counts.entry(*key).or_default() += 1);
        if !self.producer_counts.iter().eq(counts.iter()) {
            return broken(NAME, "producers are counted wrongly".to_owned());
        }
        if let Some((key, count)) = counts.iter().find(|(_, count)| **count as usize > PRODUCERS_PER_PARTITION_MAX) {
            return broken(NAME, format!("{count} producers of {key}"));
        }
        if self.producers.len() > PRODUCERS_MAX || self.producer_ids > NUMBERS_MAX {
            return broken(NAME, format!("{} producers, {} ids", self.producers.len(), self.producer_ids));
        }
        Ok(())
    }
}
