//! One compaction: read runs of a topic, verify them, write table files, read those back, swap.
//!
//! 1. Rows stream through: a part of a run at a time, a row group of the file, and the file, whose size is bounded.
//! 2. A file lies in one partition of the table. Files of several are made at once, so that each has the rows of all of the topic's partitions.
//! 3. What was written is decoded again and compared before the log may name it: the runs that it replaces will be deleted.
//! 4. Rows below the log start are not written: the same commit cuts them off their run and swaps what is left of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lakebed_log::{AppendError, Log, Offload};
use lakebed_model::{
    Change, CompactedFile, Compaction, MergedRun, ObjectId, Offset, PartitionKey, Refusal, RowsHash, Run, SegmentId,
    State, TableFileId, TimestampRange, TopicId, TopicName, TrimRun,
};
use lakebed_segment::body::NO_TIMESTAMP_MS;
use lakebed_segment::commit::Identity;
use lakebed_segment::layout;
use lakebed_segment::row_hash::hash_source;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::RowSource;
use lakebed_segment::table::{ParsedTable, TableFileName, TableFooter, TableSettings, TableWriter};
use lakebed_store::{Created, Key, Store};

use crate::objects::{OpenObject, RewriteError, table_rows};

/// Most footers that are kept at once.
const OPENED_MAX: usize = 512;
/// Most files that are made at once, each of another partition of the table.
const MAKING_MAX: usize = 8;
/// What was written is read back so many rows at a time.
const READ_BACK_ROWS: u64 = 65_536;

/// Runs to put into table files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The topic.
    pub topic: TopicId,
    /// Whole runs of it, ascending by partition and offset.
    pub runs: Vec<(PartitionKey, Offset, Run)>,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Runs that were replaced.
    pub runs: usize,
    /// Bytes of keys, values and headers that were re-homed.
    pub bytes_in: u64,
    /// Files that took their place.
    pub files: usize,
    /// Their bytes.
    pub bytes_out: u64,
    /// Rows of the log of which the value is not what the topic says that its values are; those of table files were counted before.
    pub misfits: u64,
}

/// A file in the making.
struct Making {
    id: TableFileId,
    writer: TableWriter,
    runs: Vec<MergedRun>,
    rows: u64,
}

impl Making {
    fn begin(going: &Going<'_>) -> Result<Self, RewriteError> {
        let id = TableFileId::new(going.log.mint().ulid());
        let name = TableFileName { id, topic_id: going.topic, topic: going.name.clone() };
        let writer = TableWriter::new(&going.log.identity(), name, going.settings)?;
        Ok(Self { id, writer, runs: Vec::new(), rows: 0 })
    }

    /// Takes rows in, but the first `skipped` of them; the hashes are those of what was read, not those of the state.
    fn push(mut self, key: PartitionKey, base: Offset, rows: &RowSet, skipped: usize) -> Result<Self, RewriteError> {
        let taken = skipped..rows.len();
        let (count, hash) = (taken.len() as u64, hash_source(rows, taken.clone()));
        self.writer.push(key.partition, base, rows, taken)?;
        match self.runs.last_mut() {
            Some(last) if last.partition == key && last.base_offset.checked_add(last.rows) == Some(base) => {
                last.hash = last.hash.concat(hash, count);
                last.rows += count;
            }
            _ => self.runs.push(MergedRun {
                partition: key,
                base_offset: base,
                rows: count,
                first_row: self.rows,
                hash: RowsHash::EMPTY.concat(hash, count),
            }),
        }
        self.rows += count;
        Ok(self)
    }

    /// The file, read back.
    fn finish(self, identity: &Identity) -> Result<Made, RewriteError> {
        let bytes = Bytes::from(self.writer.finish()?);
        read_back(identity, self.id, &bytes, &self.runs)?;
        Ok(Made { file: CompactedFile { id: self.id, runs: self.runs }, bytes })
    }
}

/// A file that is finished.
struct Made {
    file: CompactedFile,
    bytes: Bytes,
}

/// The rows of a run that lie below its partition's log start, in the order of their reading, and what is known of the others.
struct Trimming {
    trim: TrimRun,
    base: Offset,
}

impl Trimming {
    /// `None` if all rows of the run are above the log start.
    fn of(state: &State, key: PartitionKey, base: Offset) -> Option<Self> {
        let offset = state.partition(key)?.log_start;
        let rows = offset.since(base);
        let trim = TrimRun { partition: key, offset, rows, hash: RowsHash::EMPTY, bytes: 0, timestamps: None };
        (rows > 0).then_some(Self { trim, base })
    }

    /// What is to be committed, once all rows of the run were looked at.
    fn change(self, run: &Run) -> Change {
        Change::TrimRun(TrimRun { bytes: self.trim.bytes.min(run.bytes), ..self.trim })
    }

    /// Looks at rows that lie from `first` on; how many of them are below the log start.
    fn take(&mut self, first: Offset, rows: &RowSet) -> usize {
        let below = self.trim.rows.saturating_sub(first.since(self.base));
        let below = usize::try_from(below).unwrap_or(usize::MAX).min(rows.len());
        self.trim.hash = self.trim.hash.concat(hash_source(rows, 0..below), below as u64);
        for row in below..rows.len() {
            let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
            let headers = rows.headers(row).map(|(key, value)| key.len() as u64 + length(value));
            self.trim.bytes += length(rows.key(row)) + length(rows.value(row)) + headers.sum::<u64>();
            let time_ms = rows.timestamp_ms(row);
            let one = (time_ms != NO_TIMESTAMP_MS).then_some(TimestampRange { first_ms: time_ms, last_ms: time_ms });
            self.trim.timestamps = TimestampRange::union(self.trim.timestamps, one);
        }
        below
    }
}

/// Whether somebody waits for a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Yes.
    Urgent,
    /// No: it gets what others leave of the processor.
    Gentle,
}

impl Pace {
    async fn run<T: Send + 'static>(self, offload: Offload, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Urgent => offload.run(work).await,
            Self::Gentle => offload.run_gently(work).await,
        }
    }
}

/// A compaction that is going on.
struct Going<'a> {
    log: &'a Log,
    store: &'a Store,
    state: &'a State,
    topic: TopicId,
    name: TopicName,
    settings: TableSettings,
    file_bytes_max: usize,
    pace: Pace,
    /// Files in the making, by the partition of the table in which their rows lie.
    making: BTreeMap<i64, Making>,
    files: Vec<CompactedFile>,
    /// What is committed before the files are swapped in.
    changes: Vec<Change>,
    done: Compacted,
}

impl Going<'_> {
    /// Takes a run in, whole: the state swaps whole runs. It goes where its first row belongs, and no run of a topic whose table has partitions
    /// lies in two of them, unless runs pressed.
    async fn take(
        &mut self,
        key: PartitionKey,
        base: Offset,
        run: &Run,
        object: &OpenObject<'_>,
    ) -> Result<(), RewriteError> {
        let mut hash = RowsHash::EMPTY;
        let mut trimming = Trimming::of(self.state, key, base);
        let mut current: Option<(i64, Making)> = None;
        for wanted in object.parts(run) {
            let part = object.part(key, base, run, wanted).await?;
            hash = hash.concat(part.rows.hash(), part.rows.len() as u64);
            let skipped = trimming.as_mut().map_or(0, |trimming| trimming.take(part.base, &part.rows));
            if skipped == part.rows.len() {
                continue;
            }
            let (partition, making) = match current.take() {
                Some(current) => current,
                None => {
                    let partition = self.settings.partition_by.partition_of(part.rows.ingest_time_ms(skipped));
                    let begun = self.making.remove(&partition);
                    (partition, begun.map_or_else(|| Making::begin(self), Ok)?)
                }
            };
            let before = making.writer.misfits();
            let first = Offset::new(part.base.get() + skipped as u64);
            let pushed = move || making.push(key, first, &part.rows, skipped);
            let making = self.pace.run(self.log.seams().offload, pushed).await?;
            if !matches!(run.object, ObjectId::Table(_)) {
                self.done.misfits += making.writer.misfits() - before;
            }
            current = Some((partition, making));
        }
        object.check(key, base, run, hash)?;
        self.changes.extend(trimming.map(|trimming| trimming.change(run)));
        self.done.bytes_in += run.bytes;
        if let Some((partition, making)) = current {
            self.making.insert(partition, making);
        }
        while let Some(partition) = self.too_large() {
            self.finish(partition).await?;
        }
        Ok(())
    }

    /// The partition of the largest file, if all together have more bytes than one may have, or are too many.
    fn too_large(&self) -> Option<i64> {
        let sizes = || self.making.iter().map(|(partition, making)| (making.writer.size_bytes(), *partition));
        let total: usize = sizes().map(|(size_bytes, _)| size_bytes).sum();
        let is_due = total >= self.file_bytes_max || self.making.len() > MAKING_MAX;
        sizes().max().filter(|_| is_due).map(|(_, partition)| partition)
    }

    /// The partition of any file.
    fn any(&self) -> Option<i64> {
        self.making.keys().next().copied()
    }

    /// Finishes a file, and uploads it.
    async fn finish(&mut self, partition: i64) -> Result<(), RewriteError> {
        let Some(making) = self.making.remove(&partition) else { return Ok(()) };
        let owner = self.log.identity();
        let Made { file, bytes } = self.pace.run(self.log.seams().offload, move || making.finish(&owner)).await?;
        let table = self.name.table_name();
        let key = Key::new(layout::table_file_key(&table, file.id)).expect("keys of the layout are valid");
        self.done.files += 1;
        self.done.bytes_out += bytes.len() as u64;
        match self.store.create(&key, bytes).await? {
            Created::New | Created::Mine => self.files.push(file),
            Created::Other => return Err(RewriteError::Taken { key: key.to_string() }),
        }
        Ok(())
    }
}

/// Puts runs into table files of about `file_bytes_max` at most.
///
/// # Errors
/// [`RewriteError`]
/// # Cost
/// A few GETs a run, one PUT a file, its share of a commit. Holds a part of a run, a file (or several of other partitions of the table, together no
/// larger), and that file decoded in parts.
/// # Cancel
/// May leave files that nothing names; they are deleted later.
pub async fn compact(
    log: &Log,
    store: &Store,
    state: &State,
    job: &Job,
    file_bytes_max: usize,
) -> Result<Compacted, RewriteError> {
    compact_after(log, store, state, job, (file_bytes_max, Pace::Urgent), Vec::new()).await
}

/// As [`compact`], in one commit with changes that come before: `state` is what they lead to.
///
/// # Errors
/// [`RewriteError`]; nothing of it is done then, unless its fate is unknown.
pub(crate) async fn compact_after(
    log: &Log,
    store: &Store,
    state: &State,
    job: &Job,
    (file_bytes_max, pace): (usize, Pace),
    changes: Vec<Change>,
) -> Result<Compacted, RewriteError> {
    let Some(topic) = state.topic(job.topic).cloned() else { return Ok(Compacted::default()) };
    // Till the swap is durable the boundary must not pass the new files: the first has the lowest id.
    let _hold = log.hold(SegmentId::from(log.mint()));
    let mut going = Going {
        log,
        store,
        state,
        topic: job.topic,
        name: topic.name.clone(),
        settings: TableSettings::of(&topic.config),
        file_bytes_max,
        pace,
        making: BTreeMap::new(),
        files: Vec::new(),
        changes,
        done: Compacted { runs: job.runs.len(), ..Compacted::default() },
    };
    let mut opened: BTreeMap<ObjectId, OpenObject<'_>> = BTreeMap::new();
    for (key, base, run) in &job.runs {
        if !opened.contains_key(&run.object) {
            if opened.len() >= OPENED_MAX {
                opened.clear();
            }
            opened.insert(run.object, OpenObject::open(log, store, state, *key, run.object).await?);
        }
        going.take(*key, *base, run, &opened[&run.object]).await?;
    }
    while let Some(partition) = going.any() {
        going.finish(partition).await?;
    }
    let Going { files, done, mut changes, .. } = going;
    if files.is_empty() && changes.is_empty() {
        return Ok(done);
    }
    if !files.is_empty() {
        changes.push(Change::Compact(Compaction { topic: job.topic, files }));
    }
    commit(log, job.topic, topic.config, changes).await?;
    Ok(done)
}

/// Commits what was made ready, all of it or nothing.
async fn commit(
    log: &Log,
    topic: TopicId,
    config: Arc<BTreeMap<String, String>>,
    changes: Vec<Change>,
) -> Result<(), RewriteError> {
    let first = changes.iter().find_map(|change| match change {
        Change::MoveLogStart { partition, offset } => Some((*partition, *offset)),
        _ => None,
    });
    // Settings decide what goes: others than those that were planned by are not acted upon.
    let decide = move |state: &State| match (first, state.topic(topic)) {
        (Some((partition, base_offset)), Some(topic)) if topic.config != config => {
            Err(Refusal::MergeStale { partition, base_offset })
        }
        _ => Ok(changes),
    };
    match log.alter(decide).await {
        Ok(_) => Ok(()),
        Err(AppendError::Refused(refusal)) => Err(RewriteError::Stale(refusal)),
        Err(error) => Err(error.into()),
    }
}

/// Decodes a file that was written just now, and compares every run with what was put into it.
fn read_back(identity: &Identity, id: TableFileId, bytes: &Bytes, runs: &[MergedRun]) -> Result<(), RewriteError> {
    let Some(first) = runs.first() else { return Ok(()) };
    let unfaithful = |partition, what: String| RewriteError::Unfaithful { partition, what };
    let footer = match TableFooter::parse(bytes, bytes.len() as u64) {
        Ok(ParsedTable::Whole(footer)) => footer,
        other => return Err(unfaithful(first.partition, format!("{other:?}"))),
    };
    if footer.identity != *identity || footer.name.id != id {
        return Err(unfaithful(first.partition, "it says that it is another file".to_owned()));
    }
    let parts = [(0, bytes.clone())];
    for run in runs {
        let mut hash = RowsHash::EMPTY;
        let mut from = 0;
        while from < run.rows {
            let to = (from + READ_BACK_ROWS).min(run.rows);
            let rows = run.first_row + from..run.first_row + to;
            let base = Offset::new(run.base_offset.get() + from);
            let read = table_rows(&footer, rows, &parts, run.partition, base);
            let read = read.map_err(|error| unfaithful(run.partition, error.to_string()))?;
            hash = hash.concat(read.hash(), to - from);
            from = to;
        }
        if hash != run.hash {
            return Err(unfaithful(run.partition, format!("rows from offset {} on differ", run.base_offset)));
        }
    }
    Ok(())
}
