//! What is to be put into table files, from the state alone: rows of the log, and small table files. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lakebed_model::{ObjectId, Run, State, TableFileId, TopicId};
use lakebed_segment::table::{PartitionBy, TableSettings};

use crate::compaction::{FileSizes, GROUP_BYTES, Job};
use crate::packing::Packing;
use crate::retainer::RetentionOf;
use crate::retention::{Retention, newest};

/// Table files of one tier are rewritten into a larger one when there are so many.
const FAN_IN: usize = 8;
/// What files are joined for is so much more than is needed (an eighth), for how large they become is not known exactly.
const MARGIN: u64 = 8;
/// The first tier holds files of at most so many bytes of keys, values and headers; each one after it so many times as much.
const FIRST_TIER_BYTES: u64 = 1 << 20;
const TIER_FACTOR: u64 = 8;

/// Settings of compaction.
#[derive(Debug, Clone)]
pub struct CompactionOptions {
    /// A topic is compacted when so many bytes of it are in no table file (64 MiB). More makes fewer and larger files, and fewer requests; less
    /// makes tables fresher.
    pub bytes: u64,
    /// No topic is compacted before its oldest rows have waited so long (10 s), unless somebody asks for its table: a burst is taken in first, and
    /// becomes fewer and larger files.
    pub age_least: Duration,
    /// A busy topic is compacted at the latest when its oldest rows have waited so long (60 s).
    pub age_min: Duration,
    /// A quiet one at the latest after this (1 h).
    pub age_max: Duration,
    /// About how large a table file becomes at most. Small files are joined until they are half as large.
    pub file_bytes_max: usize,
    /// About how many bytes of row groups in the making are held in memory while table files are written (64 MiB).
    pub group_bytes: usize,
    /// Bytes of keys, values and headers of one compaction of rows of the log (256 MiB), or of rows that stay when others go; bounds how long
    /// one takes, and how long who wants a fresh table may have to wait for it.
    pub job_bytes_max: u64,
    /// The same of table files that are joined (1 GiB), which nobody waits for.
    pub join_bytes_max: u64,
    /// Compactions an hour that age alone causes, of all topics together (2000): what quiet topics may cost. A compaction with its publication
    /// is seven writes to the store or listings, so 2000 an hour are $50 a month at $5 a million.
    pub quiet_per_hour: u32,
    /// What the settings of a topic keep (everything): table files are joined only with those of about the same age, so that they go whole.
    pub retention: RetentionOf,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            age_least: Duration::from_secs(10),
            age_min: Duration::from_secs(60),
            age_max: Duration::from_secs(3600),
            file_bytes_max: 256 << 20,
            group_bytes: GROUP_BYTES,
            job_bytes_max: 256 << 20,
            join_bytes_max: 1 << 30,
            quiet_per_hour: 2000,
            retention: |_| Retention::default(),
        }
    }
}

impl CompactionOptions {
    pub(crate) fn sizes(&self) -> FileSizes {
        FileSizes { file_bytes_max: self.file_bytes_max, group_bytes: self.group_bytes }
    }

    /// How long rows of a topic may wait, given how many bytes wait: the fewer, the longer.
    pub fn age(&self, bytes: u64) -> Duration {
        let share = self.bytes as f64 / bytes.max(1) as f64;
        Duration::try_from_secs_f64(self.age_min.as_secs_f64() * share).unwrap_or(self.age_max).min(self.age_max)
    }

    /// A file of so many bytes is not joined with others any more.
    pub fn file_bytes_aim(&self) -> u64 {
        self.file_bytes_max as u64 / 2
    }
}

/// In which partition of its table each file lies, of tables that have any; `None` if it lies in several. The state doesn't know it.
pub type FilePartitions = BTreeMap<TableFileId, Option<i64>>;

/// What a plan must know besides the state.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Objects that are left alone.
    pub without: BTreeSet<ObjectId>,
    /// Files of tables with partitions. One that is not among them is not rewritten with others.
    pub partitions: FilePartitions,
    /// How large rows become in table files.
    pub packing: Packing,
}

impl Known {
    /// The partition of the table in which a file lies; `None` if it is not to be rewritten with others.
    fn partition(&self, by: PartitionBy, file: ObjectId) -> Option<i64> {
        match (by, file) {
            (PartitionBy::Nothing, _) => Some(0),
            (_, ObjectId::Table(id)) => self.partitions.get(&id).copied().flatten(),
            (_, ObjectId::Commit(_) | ObjectId::Segment(_)) => None,
        }
    }
}

/// By what the table of a topic is partitioned.
pub(crate) fn partition_by(state: &State, topic: TopicId) -> PartitionBy {
    state.topic(topic).map(|topic| TableSettings::of(&topic.config).partition_by).unwrap_or_default()
}

/// What of a topic could be compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Runs that are in no table file.
    pub runs: usize,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// Whether enough small table files wait to become a larger one.
    pub small_files: bool,
}

/// The backlog of every topic that has one.
///
/// # Cost Visits every run.
pub fn backlogs(state: &State, options: &CompactionOptions, known: &Known) -> BTreeMap<TopicId, Backlog> {
    let mut backlogs: BTreeMap<TopicId, Backlog> = BTreeMap::new();
    let mut files: BTreeSet<TopicId> = BTreeSet::new();
    let cleaned = cleaned(state.runs().map(|(.., run)| run));
    for (key, _, run) in state.runs() {
        if known.without.contains(&run.object) || cleaned.contains(&run.object) {
            continue;
        }
        if matches!(run.object, ObjectId::Table(_)) {
            files.insert(key.topic);
            continue;
        }
        let backlog = backlogs.entry(key.topic).or_default();
        backlog.runs += 1;
        backlog.bytes += run.bytes;
    }
    for topic in files {
        if full_tier(state, topic, options, known).is_some() {
            backlogs.entry(topic).or_default().small_files = true;
        }
    }
    backlogs
}

/// The smallest tier of files of a topic, and of one partition of its table, that is full: of so many files, or of as many as make one that is large
/// enough. Files that are large enough are in none, nor are those of which keys were compacted: only compaction of keys rewrites them. If records go by age, files are of one tier only if their newest records are of
/// the same part of that age: then so is what they become. If they go by size, files are joined up to a part of that, for runs go whole.
fn full_tier(state: &State, topic: TopicId, options: &CompactionOptions, known: &Known) -> Option<BTreeSet<ObjectId>> {
    let about = state.topic(topic)?;
    let retention = (options.retention)(&about.config);
    let window_ms = retention.window_ms();
    let joined_bytes_max = retention.joined_bytes(about.partitions).unwrap_or(u64::MAX).min(options.join_bytes_max);
    let (by, aim) = (partition_by(state, topic), options.file_bytes_aim());
    let is_one = |bytes| known.packing.file_bytes(topic, bytes) >= aim + aim / MARGIN;
    let cleaned = cleaned(state.runs_of_topic(topic).map(|(.., run)| run));
    let mut tiers: BTreeMap<(u32, i64, i64), (BTreeSet<ObjectId>, u64)> = BTreeMap::new();
    for (file, newest_ms) in newest(state.runs_of_topic(topic)) {
        if known.without.contains(&file) || cleaned.contains(&file) {
            continue;
        }
        let bytes = state.object(file)?.live_bytes;
        if known.packing.file_bytes(topic, bytes) >= aim {
            continue;
        }
        let Some(partition) = known.partition(by, file) else { continue };
        let window = window_ms.map_or(0, |window_ms| newest_ms.div_euclid(window_ms));
        let (tier, total) = tiers.entry((tier_of(bytes), partition, window)).or_default();
        if tier.len() < FAN_IN && !is_one(*total) && *total + bytes <= joined_bytes_max {
            tier.insert(file);
            *total += bytes;
        }
    }
    let is_full = |files: &BTreeSet<ObjectId>, total| files.len() >= FAN_IN || (files.len() > 1 && is_one(total));
    tiers.into_values().find(|(files, total)| is_full(files, *total)).map(|(files, _)| files)
}

fn tier_of(bytes: u64) -> u32 {
    let mut tier = 0;
    let mut limit = FIRST_TIER_BYTES;
    while bytes > limit {
        tier += 1;
        limit = limit.saturating_mul(TIER_FACTOR);
    }
    tier
}

/// The next compaction of rows of the log of a topic: whole runs, the first by partition and offset.
///
/// # Cost Visits the topic's runs.
pub fn log_job(
    state: &State,
    topic: TopicId,
    options: &CompactionOptions,
    without: &BTreeSet<ObjectId>,
) -> Option<Job> {
    log_job_until(state, state, topic, options, without)
}

/// The same, of runs that were there in an earlier state.
pub(crate) fn log_job_until(
    state: &State,
    until: &State,
    topic: TopicId,
    options: &CompactionOptions,
    without: &BTreeSet<ObjectId>,
) -> Option<Job> {
    let mut job = Job { topic, runs: Vec::new() };
    let mut bytes = 0;
    for (key, base, run) in state.runs_of_topic(topic) {
        let is_later = until.partition(key).is_none_or(|bounds| base >= bounds.high_watermark);
        if is_later || matches!(run.object, ObjectId::Table(_)) || without.contains(&run.object) {
            continue;
        }
        bytes += run.bytes;
        if bytes > options.job_bytes_max && !job.runs.is_empty() {
            break;
        }
        job.runs.push((key, base, run));
    }
    (!job.runs.is_empty()).then_some(job)
}

/// The files of which keys were compacted: only compaction of keys rewrites them.
pub(crate) fn cleaned(runs: impl Iterator<Item = Run>) -> BTreeSet<ObjectId> {
    runs.filter(|run| run.clean || run.has_gaps()).map(|run| run.object).collect()
}

/// The next rewrite of table files of a topic that hold rows which are gone: below a log start, or of runs that others of the file have
/// outlived. As many files as one job takes, the first by their runs; those in `without` are left alone, and those of which keys were compacted.
///
/// # Cost Visits the topic's runs.
pub fn trim_job(
    state: &State,
    topic: TopicId,
    options: &CompactionOptions,
    without: &BTreeSet<ObjectId>,
) -> Option<Job> {
    let cleaned = cleaned(state.runs_of_topic(topic).map(|(.., run)| run));
    let mut chosen: BTreeSet<ObjectId> = BTreeSet::new();
    let mut bytes = 0;
    for file in state.partial_files(topic) {
        let id = ObjectId::Table(file);
        let live_bytes = state.object(id).map_or(0, |object| object.live_bytes);
        let is_too_much = bytes + live_bytes > options.job_bytes_max && !chosen.is_empty();
        if without.contains(&id) || cleaned.contains(&id) || is_too_much {
            continue;
        }
        bytes += live_bytes;
        chosen.insert(id);
    }
    let runs: Vec<_> = state.runs_of_topic(topic).filter(|(.., run)| chosen.contains(&run.object)).collect();
    (!runs.is_empty()).then_some(Job { topic, runs })
}

/// The topics that have something for [`trim_job`].
///
/// # Cost Visits every run.
pub fn partial_topics(state: &State) -> BTreeSet<TopicId> {
    let cleaned = cleaned(state.runs().map(|(.., run)| run));
    let is_partial = |key, base, run: &Run| state.is_partial(key, base, run) && !cleaned.contains(&run.object);
    let partial = state.runs().filter(|(key, base, run)| is_partial(*key, *base, run));
    partial.map(|(key, ..)| key.topic).collect()
}

/// The next rewrite of small table files of a topic into a larger one.
///
/// # Cost Visits the topic's runs.
pub fn files_job(state: &State, topic: TopicId, options: &CompactionOptions, known: &Known) -> Option<Job> {
    let chosen = full_tier(state, topic, options, known)?;
    let runs = state.runs_of_topic(topic).filter(|(.., run)| chosen.contains(&run.object));
    Some(Job { topic, runs: runs.collect() })
}
