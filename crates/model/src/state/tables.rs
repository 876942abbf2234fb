//! How table files take the place of runs, and how the versions of tables count.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;

use super::{ObjectId, Refusal, Run, State};
use crate::commit::{Compaction, Entry};
use crate::ids::{Offset, PartitionKey, SegmentId, TableFileId, TopicId};
use crate::table::{TABLE_VERSION_MAX, Table};

/// The versions of all tables.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Versions {
    /// Of topics whose table had a file at some time.
    pub(crate) by_topic: OrdMap<TopicId, Table>,
    /// The highest version of any table whose topic was deleted.
    pub(crate) gone: u32,
}

impl State {
    /// Swaps whole runs of a topic for those of table files, and allots the next version of its table.
    ///
    /// # Errors
    /// [`Refusal::MergeStale`] if another change came first (the files are orphans), [`Refusal::MergeDiffers`] if the rows are not the
    /// same. On an error the caller drops this state.
    pub(crate) fn compact(&mut self, compaction: &Compaction) -> Result<(), Refusal> {
        let topic = compaction.topic;
        let below = compaction.files.iter().map(|file| SegmentId::from(file.id)).find(|id| *id < self.boundary);
        if let Some(id) = below {
            return Err(Refusal::BelowReclaimBoundary { id, boundary: self.boundary });
        }
        if !self.topics.contains_key(&topic) {
            return Err(Refusal::UnknownTopic { id: topic });
        }
        if compaction.files.iter().any(|file| file.runs.is_empty()) {
            return Err(Refusal::Malformed { what: "a table file without runs" });
        }
        for file in &compaction.files {
            if self.objects.contains_key(&ObjectId::Table(file.id)) {
                return Err(Refusal::TableFileKnown { file: file.id });
            }
            if file.runs.iter().any(|run| run.partition.topic != topic) {
                return Err(Refusal::Malformed { what: "a table file has rows of one topic" });
            }
            self.swap_all(ObjectId::Table(file.id), &file.runs)?;
            self.highest = self.highest.max(file.id.into());
        }
        self.change_table(topic)
    }

    /// Allots the next version of a table, whose files have changed.
    pub(super) fn change_table(&mut self, topic: TopicId) -> Result<(), Refusal> {
        let known = self.versions.by_topic.get(&topic).copied();
        // However much a commit changes, it allots one version, which shows what comes of all of it.
        if known.is_some_and(|table| table.commit == self.number) {
            return Ok(());
        }
        let before = known.map_or(0, |table| table.version).max(self.versions.gone);
        if before >= TABLE_VERSION_MAX {
            return Err(Refusal::TableVersionsExhausted);
        }
        let published = known.map_or(0, |table| table.published);
        self.versions.by_topic.insert(topic, Table { version: before + 1, published, commit: self.number, time_ms: 0 });
        Ok(())
    }

    /// Dates the versions that a commit allotted.
    pub(super) fn date_tables(&mut self, entries: &[Entry], time_ms: i64) {
        for entry in entries {
            let topic = match entry {
                Entry::Compact(compaction) => compaction.topic,
                Entry::CompactKeys(compaction) => compaction.topic,
                Entry::MoveLogStart { partition, .. } => partition.topic,
                _ => continue,
            };
            let number = self.number;
            if let Some(table) = self.versions.by_topic.get_mut(&topic).filter(|table| table.commit == number) {
                table.time_ms = time_ms;
            }
        }
    }

    /// Remembers that a version of a table is published. One that was already is passed over.
    pub(crate) fn publish_table(&mut self, topic: TopicId, version: u32) -> Result<(), Refusal> {
        if !self.topics.contains_key(&topic) {
            return Err(Refusal::UnknownTopic { id: topic });
        }
        let table = self.versions.by_topic.get_mut(&topic).filter(|table| version <= table.version);
        let table = table.ok_or(Refusal::TableVersionUnknown { topic, version })?;
        table.published = table.published.max(version);
        Ok(())
    }

    /// Forgets the table of a topic that goes, but not how far its versions came.
    pub(super) fn drop_table(&mut self, topic: TopicId) {
        if let Some(table) = self.versions.by_topic.remove(&topic) {
            self.versions.gone = self.versions.gone.max(table.version);
        }
    }

    /// The table of a topic; `None` if it never had a file.
    pub fn table(&self, topic: TopicId) -> Option<Table> {
        self.versions.by_topic.get(&topic).copied()
    }

    /// The topic whose table has a name, which is [`TopicName::table_name`](crate::TopicName::table_name).
    pub fn topic_of_table(&self, table: &str) -> Option<TopicId> {
        self.tables.get(table).copied()
    }

    /// All tables that have had a file, by topic.
    pub fn tables(&self) -> impl Iterator<Item = (TopicId, Table)> {
        self.versions.by_topic.iter().map(|(topic, table)| (*topic, *table))
    }

    /// The highest version of any table whose topic was deleted.
    pub fn table_version_gone(&self) -> u32 {
        self.versions.gone
    }

    /// The runs of a topic, by partition and base offset.
    pub fn runs_of_topic(&self, topic: TopicId) -> impl Iterator<Item = (PartitionKey, Offset, Run)> {
        let first = (PartitionKey::first_of(topic), Offset::ZERO);
        let of_topic = self.runs.range(first..).take_while(move |((key, _), _)| key.topic == topic);
        of_topic.map(|((key, base), run)| (*key, *base, *run))
    }

    /// The table files of a topic that hold rows below a log start, or others that are not named any more.
    ///
    /// # Cost Visits the topic's runs.
    pub fn partial_files(&self, topic: TopicId) -> BTreeSet<TableFileId> {
        let files = self.runs_of_topic(topic).filter_map(|(key, base, run)| match run.object {
            ObjectId::Table(id) if self.is_partial(key, base, &run) => Some(id),
            _ => None,
        });
        files.collect()
    }

    /// Whether the table file of a run holds rows that are not named any more, or the run begins below the log start.
    pub fn is_partial(&self, key: PartitionKey, base: Offset, run: &Run) -> bool {
        let of_object = || self.object(run.object).is_some_and(|object| object.is_partial);
        let below = || self.partition(key).is_some_and(|bounds| base < bounds.log_start);
        matches!(run.object, ObjectId::Table(_)) && (of_object() || below())
    }

    /// The table files of a topic, ascending, with how many rows of each are named.
    ///
    /// # Cost Visits the topic's runs.
    pub fn table_files(&self, topic: TopicId) -> Vec<(TableFileId, u64)> {
        let named = self.runs_of_topic(topic).filter_map(|(_, _, run)| match run.object {
            ObjectId::Table(id) => Some((id, run.rows)),
            ObjectId::Commit(_) | ObjectId::Segment(_) => None,
        });
        let mut files = BTreeMap::new();
        named.for_each(|(id, rows)| *files.entry(id).or_insert(0) += rows);
        files.into_iter().collect()
    }
}
