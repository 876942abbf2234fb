//! Compaction of keys: which table files of a topic to clean, from the state alone. Pure.
//!
//! All runs of a partition up to some offset are cleaned together, as Kafka does it: what the *dirty* ones (not cleaned yet) say of a key makes
//! what stands before it obsolete. A table file holds many partitions, and readers of the table see whole files, so files are cleaned whole.
//!
//! The bound: a topic is cleaned when its dirty bytes are more than `min.cleanable.dirty.ratio` of all that would be rewritten, so a byte that
//! comes in causes at most `1 / ratio` bytes to be rewritten (2, by default), and as many to be read, and itself once more. Two things cost more:
//! keys that don't fit the map of offsets, of which a part is cleaned at a time; and `max.compaction.lag.ms`, which waits for no ratio.

use std::collections::{BTreeMap, BTreeSet};

use lakebed_model::topic::compacts_keys;
use lakebed_model::{ObjectId, Offset, PartitionKey, Run, State, TopicId};

use crate::compaction::GROUP_BYTES;
use crate::retainer::RetentionOf;
use crate::retention::Retention;

mod busy;
mod clean;
mod cleaner;
mod map;
mod shape;

pub(crate) use busy::Busy;
pub use clean::{Cleaned, clean};
pub use cleaner::{Cleaner, CleaningCounts};

/// Settings of the compaction of keys.
#[derive(Debug, Clone)]
pub struct KeyOptions {
    /// What the map from keys to offsets may take in memory (16 MiB: 460,000 keys). With more keys of a partition to compact, a part of them is
    /// compacted at a time, and what is clean already is rewritten more often.
    pub map_bytes: usize,
    /// About how large a table file becomes at most.
    pub file_bytes_max: usize,
    /// About how many bytes of it are held in memory while it is written (64 MiB).
    pub group_bytes: usize,
    /// What the settings of a topic keep (everything): runs are cut so that they go by age.
    pub retention: RetentionOf,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self {
            map_bytes: 16 << 20,
            file_bytes_max: 128 << 20,
            group_bytes: GROUP_BYTES,
            retention: |_| Retention::default(),
        }
    }
}

/// What a topic's settings say of the compaction of its keys; the names and defaults are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeySettings {
    /// Rows younger than this are left alone (`min.compaction.lag.ms`).
    pub lag_min_ms: i64,
    /// Rows older than this wait for no ratio (`max.compaction.lag.ms`).
    pub lag_max_ms: i64,
    /// The share of dirty bytes above which it is worth it (`min.cleanable.dirty.ratio`).
    pub dirty_ratio: f64,
    /// For how long a tombstone stays after it was compacted first (`delete.retention.ms`).
    pub delete_retention_ms: i64,
}

impl KeySettings {
    /// Those of a topic whose keys are compacted; a value that can't be read counts as absent.
    pub fn of(config: &BTreeMap<String, String>) -> Option<Self> {
        fn value<T: std::str::FromStr>(config: &BTreeMap<String, String>, name: &str, default: T) -> T {
            config.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
        }
        compacts_keys(config).then(|| Self {
            lag_min_ms: value(config, "min.compaction.lag.ms", 0),
            lag_max_ms: value(config, "max.compaction.lag.ms", i64::MAX),
            dirty_ratio: value(config, "min.cleanable.dirty.ratio", 0.5),
            delete_retention_ms: value(config, "delete.retention.ms", 86_400_000),
        })
    }
}

/// What to clean of a topic: whole table files.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyJob {
    /// The topic.
    pub topic: TopicId,
    /// What its settings say.
    pub settings: KeySettings,
    /// By partition, ascending.
    pub partitions: Vec<KeyPartition>,
    /// Bytes of keys, values and headers of what is dirty.
    pub dirty_bytes: u64,
    /// The same of all.
    pub bytes: u64,
    /// Whether it is due only because rows have waited longer than they may: it may cost more than it is worth.
    pub is_late: bool,
}

/// What to clean of a partition: its first runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPartition {
    /// The partition.
    pub key: PartitionKey,
    /// Runs of table files, one after another from the first of the partition on.
    pub runs: Vec<(Offset, Run)>,
    /// How many of them are clean; no later one is.
    pub clean: usize,
}

impl KeyPartition {
    /// The offset behind all.
    pub(crate) fn end(&self) -> Offset {
        self.runs.last().map_or(Offset::ZERO, |(base, run)| run.end(*base))
    }

    fn bytes(runs: &[(Offset, Run)]) -> u64 {
        runs.iter().map(|(_, run)| run.bytes).sum()
    }
}

/// The next compaction of keys of a topic, if it wants any and one is due. Objects in `without` are left alone.
///
/// # Cost Visits the topic's runs several times.
pub fn key_job(state: &State, topic: TopicId, now_ms: i64, without: &BTreeSet<ObjectId>) -> Option<KeyJob> {
    let settings = KeySettings::of(&state.topic(topic)?.config)?;
    let mut partitions = cleanable(state, topic, &settings, now_ms, without);
    retain_dirty(&mut partitions);
    let dirty = |partition: &KeyPartition| KeyPartition::bytes(&partition.runs[partition.clean..]);
    let dirty_bytes: u64 = partitions.iter().map(dirty).sum();
    let bytes: u64 = partitions.iter().map(|partition| KeyPartition::bytes(&partition.runs)).sum();
    let oldest = |partition: &KeyPartition| {
        let runs = partition.runs[partition.clean..].iter();
        runs.map(|(_, run)| time_of(run, |range| range.first_ms)).min()
    };
    let oldest_ms = partitions.iter().filter_map(oldest).min()?;
    let is_late = oldest_ms < now_ms.saturating_sub(settings.lag_max_ms);
    // Rows without a byte are worth nothing, but they are rows.
    let is_worth_it = dirty_bytes.max(1) as f64 / bytes.max(1) as f64 > settings.dirty_ratio;
    let job = KeyJob { topic, settings, partitions, dirty_bytes, bytes, is_late: !is_worth_it };
    (is_late || is_worth_it).then_some(job)
}

/// What could be cleaned: the first runs of each partition, as far as they lie in files of which every run can be, and are old enough.
fn cleanable(
    state: &State,
    topic: TopicId,
    settings: &KeySettings,
    now_ms: i64,
    without: &BTreeSet<ObjectId>,
) -> Vec<KeyPartition> {
    let young_ms = now_ms.saturating_sub(settings.lag_min_ms);
    let is_young = |run: &Run| settings.lag_min_ms > 0 && !run.clean && time_of(run, |range| range.last_ms) > young_ms;
    let is_out =
        |run: &Run| !matches!(run.object, ObjectId::Table(_)) || without.contains(&run.object) || is_young(run);
    let mut out: BTreeSet<ObjectId> =
        state.runs_of_topic(topic).filter(|(.., run)| is_out(run)).map(|(.., run)| run.object).collect();
    loop {
        let before = out.len();
        let mut blocked: Option<PartitionKey> = None;
        for (key, _, run) in state.runs_of_topic(topic) {
            if out.contains(&run.object) {
                blocked = Some(key);
            } else if blocked == Some(key) {
                out.insert(run.object);
            }
        }
        if out.len() == before {
            break;
        }
    }
    let mut partitions: Vec<KeyPartition> = Vec::new();
    for (key, base, run) in state.runs_of_topic(topic).filter(|(.., run)| !out.contains(&run.object)) {
        match partitions.last_mut().filter(|last| last.key == key) {
            Some(last) => last.runs.push((base, run)),
            None => partitions.push(KeyPartition { key, runs: vec![(base, run)], clean: 0 }),
        }
    }
    for partition in &mut partitions {
        partition.clean = partition.runs.iter().take_while(|(_, run)| run.clean).count();
    }
    partitions
}

/// Leaves out what shares no file with anything dirty.
fn retain_dirty(partitions: &mut Vec<KeyPartition>) {
    let mut wanted: BTreeSet<PartitionKey> = BTreeSet::new();
    let mut files: BTreeSet<ObjectId> = BTreeSet::new();
    loop {
        let before = wanted.len();
        for partition in partitions.iter() {
            let shares = partition.runs.iter().any(|(_, run)| files.contains(&run.object));
            if (partition.clean < partition.runs.len() || shares) && wanted.insert(partition.key) {
                files.extend(partition.runs.iter().map(|(_, run)| run.object));
            }
        }
        if wanted.len() == before {
            break;
        }
    }
    partitions.retain(|partition| wanted.contains(&partition.key));
}

/// When the rows of a run were made: by their timestamps, or, if none has one, when their file was begun.
fn time_of(run: &Run, edge: impl Fn(lakebed_model::TimestampRange) -> i64) -> i64 {
    let begun = match run.object {
        ObjectId::Table(id) => i64::try_from(id.ulid().timestamp_ms()).unwrap_or(i64::MAX),
        ObjectId::Commit(_) | ObjectId::Segment(_) => i64::MAX,
    };
    run.timestamps.map_or(begun, edge)
}
