//! One compaction: read runs of a topic, verify them, write table files, read those back, swap.
//!
//! 1. Rows stream through: a part of a run and a row group of each file are in memory, and what is on its way to the store; no file is.
//! 2. A file lies in one partition of the table. Files of several are made at once, so that each has the rows of all of the topic's partitions.
//! 3. What was written is decoded again and compared, a row group at a time before the store gets it, and the footer in the end; and the log may
//!    name a file only when the store has all of it: the runs that it replaces will be deleted.
//! 4. Rows below the log start are not written: the same commit cuts them off their run and swaps what is left of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lakebed_log::{AppendError, Log};
use lakebed_model::{
    Change, CompactedFile, Compaction, MergedRun, ObjectId, Offset, PartitionKey, Refusal, RowsHash, Run, SegmentId,
    State, TableFileId, TimestampRange, TopicId, TopicName, TrimRun,
};
use lakebed_segment::body::NO_TIMESTAMP_MS;
use lakebed_segment::layout;
use lakebed_segment::row_hash::hash_source;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::RowSource;
use lakebed_segment::table::{TableFileName, TableFooter, TableSettings, TableWriter};
use lakebed_store::{Created, Key, Store, Upload};

use crate::objects::{OpenObject, RewriteError};
use crate::packing::scaled;
use crate::turn::Pace;

/// Most footers that are kept at once.
const OPENED_MAX: usize = 512;
/// Most files that are made at once, each of another partition of the table.
const MAKING_MAX: usize = 8;

/// How large table files and what they are made of become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSizes {
    /// About how large a file becomes at most, in bytes.
    pub file_bytes_max: usize,
    /// About how large row groups in the making become together, in bytes: what is held in memory of files that are written.
    pub group_bytes: usize,
}

/// Without a bound of their own row groups become so large.
pub(crate) const GROUP_BYTES: usize = 64 << 20;

impl From<usize> for FileSizes {
    fn from(file_bytes_max: usize) -> Self {
        Self { file_bytes_max, group_bytes: GROUP_BYTES }
    }
}

/// Runs to put into table files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The topic.
    pub topic: TopicId,
    /// Whole runs of it, ascending by partition and offset.
    pub runs: Vec<(PartitionKey, Offset, Run)>,
}

impl Job {
    /// Whether no rows of the log are left of the topic besides.
    pub(crate) fn takes_all(&self, state: &State) -> bool {
        let of_log = state.runs_of_topic(self.topic).filter(|(.., run)| !matches!(run.object, ObjectId::Table(_)));
        of_log.count() == self.runs.len()
    }
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
    /// Bytes of files in the making that were in memory at most, encoded: row groups that were not finished, and what the store had not got.
    pub held_bytes_max: u64,
}

/// A file in the making.
struct Making {
    id: TableFileId,
    writer: TableWriter,
    runs: Vec<MergedRun>,
    rows: u64,
    /// Bytes of whole row groups that the store has not got yet.
    ready: Vec<Bytes>,
}

impl Making {
    fn begin(going: &Going<'_>) -> Result<Self, RewriteError> {
        let id = TableFileId::new(going.log.mint().ulid());
        let name = TableFileName { id, topic_id: going.topic, topic: going.name.clone() };
        let writer = TableWriter::new(&going.log.identity(), name, going.settings)?;
        let writer = writer.with_group_bytes(going.sizes.group_bytes);
        Ok(Self { id, writer, runs: Vec::new(), rows: 0, ready: Vec::new() })
    }

    /// Takes rows in, but the first `skipped` of them; the hashes are those of what was read, not those of the state.
    fn push(mut self, key: PartitionKey, base: Offset, rows: &RowSet, skipped: usize) -> Result<Self, RewriteError> {
        let taken = skipped..rows.len();
        let count = taken.len() as u64;
        let hash = self.writer.push(key.partition, base, rows, taken)?;
        self.ready.extend(self.writer.take());
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

    fn ready_bytes(&self) -> usize {
        self.ready.iter().map(Bytes::len).sum()
    }

    /// Ends the row group in the making, to have less in memory.
    fn end_group(mut self) -> Result<Self, RewriteError> {
        self.writer.end_group()?;
        self.ready.extend(self.writer.take());
        Ok(self)
    }

    /// The file, read back.
    fn finish(self) -> Result<Made, RewriteError> {
        let closed = self.writer.close()?;
        are_those_of(&closed.footer, &self.runs)?;
        let rest = self.ready.into_iter().chain(closed.rest).collect();
        Ok(Made { file: CompactedFile { id: self.id, runs: self.runs }, rest, size_bytes: closed.size_bytes })
    }
}

/// A file that is finished.
struct Made {
    file: CompactedFile,
    /// What the store has not got yet.
    rest: Vec<Bytes>,
    size_bytes: u64,
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

/// A compaction that is going on.
struct Going<'a> {
    log: &'a Log,
    store: &'a Store,
    state: &'a State,
    topic: TopicId,
    name: TopicName,
    settings: TableSettings,
    sizes: FileSizes,
    /// Bytes of keys, values and headers of the runs that are not taken in yet.
    waiting_bytes: u64,
    pace: Pace,
    /// Files in the making, by the partition of the table in which their rows lie.
    making: BTreeMap<i64, Making>,
    /// Those of which the store has row groups. Not with the others: dropped where rows are encoded, they could not be given up.
    uploads: BTreeMap<TableFileId, Upload>,
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
            hash = hash.concat(part.hash, part.rows.len() as u64);
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
            let mut making = self.pace.run(self.log.seams().offload, pushed).await?;
            self.note_held(&making);
            self.store_ready(&mut making).await?;
            if !matches!(run.object, ObjectId::Table(_)) {
                self.done.misfits += making.writer.misfits() - before;
            }
            current = Some((partition, making));
        }
        object.check(key, base, run, hash)?;
        self.changes.extend(trimming.map(|trimming| trimming.change(run)));
        self.done.bytes_in += run.bytes;
        self.waiting_bytes -= run.bytes;
        if let Some((partition, making)) = current {
            self.making.insert(partition, making);
        }
        while let Some(partition) = self.too_large() {
            self.finish(partition).await?;
        }
        while let Some(partition) = self.too_much() {
            self.end_group(partition).await?;
        }
        Ok(())
    }

    /// The partition of the largest row group in the making, if all together have more bytes than they may.
    fn too_much(&self) -> Option<i64> {
        let sizes = || self.making.iter().map(|(partition, making)| (making.writer.group_bytes(), *partition));
        let total: usize = sizes().map(|(group_bytes, _)| group_bytes).sum();
        sizes()
            .max()
            .filter(|(largest, _)| *largest > 0 && total > self.sizes.group_bytes)
            .map(|(_, partition)| partition)
    }

    async fn end_group(&mut self, partition: i64) -> Result<(), RewriteError> {
        let Some(making) = self.making.remove(&partition) else { return Ok(()) };
        let mut making = self.pace.run(self.log.seams().offload, move || making.end_group()).await?;
        self.store_ready(&mut making).await?;
        self.making.insert(partition, making);
        Ok(())
    }

    /// Notes what is in memory, of a file that is taken out and of the others.
    fn note_held(&mut self, making: &Making) {
        let all = self.making.values().chain([making]);
        let making: usize = all.map(|making| making.writer.group_bytes() + making.ready_bytes()).sum();
        let on_their_way: usize = self.uploads.values().map(Upload::held_bytes).sum();
        self.done.held_bytes_max = self.done.held_bytes_max.max((making + on_their_way) as u64);
    }

    /// Gives the store the row groups that are finished.
    async fn store_ready(&mut self, making: &mut Making) -> Result<(), RewriteError> {
        if making.ready.is_empty() {
            return Ok(());
        }
        let key = self.key(making.id);
        let upload = self.uploads.entry(making.id).or_insert_with(|| self.store.create_in_parts(&key));
        for bytes in std::mem::take(&mut making.ready) {
            upload.push(bytes).await?;
        }
        Ok(())
    }

    fn key(&self, id: TableFileId) -> Key {
        let key = layout::table_file_key(&self.name.table_name(), id);
        Key::new(key).expect("keys of the layout are valid")
    }

    /// The partition of the largest file, if all together have more bytes than one may have, or are too many; or if it has half of that, and what
    /// is still to come is as much: so what is left over is no small file.
    fn too_large(&self) -> Option<i64> {
        let sizes = || self.making.iter().map(|(partition, making)| (making.writer.size_bytes() as u64, *partition));
        let (max, total) = (self.sizes.file_bytes_max as u64, sizes().map(|(size_bytes, _)| size_bytes).sum::<u64>());
        let (largest, partition) = sizes().max()?;
        let to_come = scaled(self.waiting_bytes, self.done.bytes_out + total, self.done.bytes_in);
        let is_due = total >= max || self.making.len() > MAKING_MAX || (largest >= max / 2 && to_come >= max / 2);
        is_due.then_some(partition)
    }

    /// The partition of any file.
    fn any(&self) -> Option<i64> {
        self.making.keys().next().copied()
    }

    /// Finishes a file: the store then has all of it.
    async fn finish(&mut self, partition: i64) -> Result<(), RewriteError> {
        let Some(making) = self.making.remove(&partition) else { return Ok(()) };
        let Made { file, rest, size_bytes } = self.pace.run(self.log.seams().offload, move || making.finish()).await?;
        let key = self.key(file.id);
        let mut upload = self.uploads.remove(&file.id).unwrap_or_else(|| self.store.create_in_parts(&key));
        for bytes in rest {
            upload.push(bytes).await?;
        }
        self.done.files += 1;
        self.done.bytes_out += size_bytes;
        match upload.finish().await? {
            Created::New | Created::Mine => self.files.push(file),
            Created::Other => return Err(RewriteError::Taken { key: key.to_string() }),
        }
        Ok(())
    }
}

/// Puts runs into table files.
///
/// # Errors
/// [`RewriteError`]
/// # Cost
/// A few GETs a run, one PUT for each 8 MiB of a file and two more if it is larger, its share of a commit. Holds a part of a run; row groups in the
/// making (of files of several partitions of the table, together about as large as one may be) and one that is finished; of that a part decoded.
/// # Cancel
/// May leave files that nothing names; they are deleted later. Parts of one that was on its way are deleted at once.
pub async fn compact(
    log: &Log,
    store: &Store,
    state: &State,
    job: &Job,
    sizes: impl Into<FileSizes>,
) -> Result<Compacted, RewriteError> {
    compact_after(log, store, state, job, (sizes.into(), Pace::Urgent), Vec::new()).await
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
    (sizes, pace): (FileSizes, Pace),
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
        sizes,
        waiting_bytes: job.runs.iter().map(|(.., run)| run.bytes).sum(),
        pace,
        making: BTreeMap::new(),
        uploads: BTreeMap::new(),
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
            let object = OpenObject::open(log, store, state, *key, run.object, going.pace.clone()).await?;
            opened.insert(run.object, object);
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

/// Whether a file has the runs that the log is to name, where it is to name them.
fn are_those_of(footer: &TableFooter, runs: &[MergedRun]) -> Result<(), RewriteError> {
    let (mut found, mut first_row) = (footer.runs(), 0);
    for run in runs {
        let is_there = found.next() == Some((run.partition.partition, run.base_offset, run.rows));
        if !is_there || run.first_row != first_row {
            let what = format!("it has other rows from offset {} on", run.base_offset);
            return Err(RewriteError::Unfaithful { partition: run.partition, what });
        }
        first_row += run.rows;
    }
    match (found.next(), runs.first()) {
        (Some(_), Some(run)) => {
            Err(RewriteError::Unfaithful { partition: run.partition, what: "it has a run too many".to_owned() })
        }
        _ => Ok(()),
    }
}
