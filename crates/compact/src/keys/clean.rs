//! One compaction of keys: look at what is dirty, then write what is left of all of it, and swap.
//!
//! 1. A record goes only if a later one of its key was seen in rows that are rewritten with it, if it has no key, or if it is a tombstone whose
//!    time is over. The last row of a partition stays when all would go: somebody has to cover their offsets.
//! 2. Everything that is read is compared with what the log says of it before anything is committed, and what is written is read back.
//! 3. A partition at a time: the map of its keys, a part of a run and a row group are in memory, and what is on its way to the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lakebed_log::{AppendError, Log};
use lakebed_model::{
    Change, CleanedFile, KeyCompaction, ObjectId, Offset, PartitionKey, RowsHash, Run, SegmentId, State, TableFileId,
};
use lakebed_segment::layout;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::RowSource;
use lakebed_store::{Created, Key, Store, Upload};

use super::map::OffsetMap;
use super::shape::{FirstCleaned, Shaper, Step, few};
use super::{KeyJob, KeyOptions, KeyPartition, KeySettings};
use crate::compaction::FileSizes;
use crate::objects::{OpenObject, RewriteError};
use crate::turn::{Pace, Turn};

/// Most footers that are kept at once.
const OPENED_MAX: usize = 512;

/// What a compaction of keys did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Rows that were looked at.
    pub rows_in: u64,
    /// Rows that were left.
    pub rows_out: u64,
    /// Bytes of keys, values and headers that were read: what is dirty, twice.
    pub bytes_in: u64,
    /// Files that were written.
    pub files: usize,
    /// Their bytes.
    pub bytes_out: u64,
    /// Partitions of which the map held not all keys, so that a part is left for the next time.
    pub partial: usize,
}

/// Rewrites table files of a topic without the records that later ones have made obsolete. `now_ms` is a wall clock: when tombstones are
/// compacted first, and whether their time is over.
///
/// # Errors
/// [`RewriteError`]; the log is as it was, unless the fate of the swap is unknown.
/// # Cost
/// A few GETs a run, twice of what is dirty; one PUT for each 8 MiB of a file and two more if it is larger, one entry of a commit.
/// # Cancel
/// May leave files that nothing names; they are deleted later.
pub async fn clean(
    log: &Log,
    store: &Store,
    state: &State,
    job: &KeyJob,
    options: &KeyOptions,
    now_ms: i64,
) -> Result<Cleaned, RewriteError> {
    let Some(topic) = state.topic(job.topic) else { return Ok(Cleaned::default()) };
    // Till the swap is durable the boundary must not pass the new files: the first has the lowest id.
    let _hold = log.hold(SegmentId::from(log.mint()));
    let window_ms = (options.retention)(&topic.config).window_ms();
    let sizes = FileSizes { file_bytes_max: options.file_bytes_max, group_bytes: options.group_bytes };
    let shaper = Shaper::new(log.clone(), job.topic, topic, sizes, window_ms);
    let mut cleaning = Cleaning {
        log,
        store,
        state,
        opened: BTreeMap::new(),
        settings: job.settings,
        map_bytes: options.map_bytes,
        now_ms,
        upload: None,
        files: Vec::new(),
        done: Cleaned::default(),
    };
    let mut shaper = Some(shaper);
    for partition in &job.partitions {
        cleaning.partition(partition, &mut shaper).await?;
    }
    cleaning.upload(&mut shaper, true).await?;
    let Cleaning { files, done, .. } = cleaning;
    if files.is_empty() {
        return Ok(done);
    }
    let runs = job.partitions.iter().flat_map(|partition| &partition.runs);
    let replaced: BTreeSet<TableFileId> = runs
        .filter_map(|(_, run)| match run.object {
            ObjectId::Table(id) => Some(id),
            ObjectId::Commit(_) | ObjectId::Segment(_) => None,
        })
        .collect();
    let compaction = KeyCompaction { topic: job.topic, replaces: replaced.into_iter().collect(), files };
    match log.change(Change::CompactKeys(compaction)).await {
        Ok(_) => Ok(done),
        Err(AppendError::Refused(refusal)) => Err(RewriteError::Stale(refusal)),
        Err(error) => Err(error.into()),
    }
}

struct Cleaning<'a> {
    log: &'a Log,
    store: &'a Store,
    state: &'a State,
    opened: BTreeMap<ObjectId, OpenObject<'a>>,
    settings: KeySettings,
    map_bytes: usize,
    now_ms: i64,
    /// The file of which the store has row groups.
    upload: Option<(TableFileId, Upload)>,
    files: Vec<CleanedFile>,
    done: Cleaned,
}

/// What is known of a partition's keys.
struct Seen {
    map: OffsetMap,
    /// From here on keys are not in the map.
    end: Offset,
    /// The latest time at which a row came in, in milliseconds since 1970.
    newest_ms: i64,
    is_full: bool,
}

impl Seen {
    /// Takes rows in, until there is no room.
    fn take(mut self, rows: &RowSet, offsets: &[Offset]) -> Self {
        for (row, offset) in offsets.iter().enumerate() {
            self.newest_ms = self.newest_ms.max(rows.ingest_time_ms(row));
            if rows.key(row).is_some_and(|key| !self.map.put(key, *offset)) {
                self.is_full = true;
                self.end = *offset;
                break;
            }
        }
        self
    }
}

/// By what rows of a partition are judged.
struct Verdict {
    map: OffsetMap,
    log_start: Offset,
    /// From here on nothing is known, and every row stays.
    dirty: Offset,
    cleaned: FirstCleaned,
    /// Where the first run begins that was not clean before.
    new: Offset,
    now_ms: i64,
    delete_retention_ms: i64,
}

impl Verdict {
    fn stays(&self, offset: Offset, rows: &RowSet, row: usize) -> bool {
        if offset < self.log_start {
            return false;
        }
        if offset >= self.dirty {
            return true;
        }
        // Kafka's cleaner drops records without a key, too: they came before the topic was compacted.
        let Some(key) = rows.key(row) else { return false };
        if self.map.last(key).is_some_and(|last| last > offset) {
            return false;
        }
        rows.value(row).is_some() || offset >= self.new || !self.is_over(self.first_cleaned(offset))
    }

    fn first_cleaned(&self, offset: Offset) -> i64 {
        let at = self.cleaned.partition_point(|(to, _)| *to <= offset);
        self.cleaned.get(at).map_or(self.now_ms, |(_, time_ms)| *time_ms)
    }

    fn is_over(&self, time_ms: i64) -> bool {
        self.now_ms > time_ms.saturating_add(self.delete_retention_ms)
    }
}

impl<'a> Cleaning<'a> {
    async fn partition(&mut self, partition: &KeyPartition, shaper: &mut Option<Shaper>) -> Result<(), RewriteError> {
        let (key, base, end) = (partition.key, partition.runs[0].0, partition.end());
        let seen = self.look(partition).await?;
        self.done.partial += usize::from(seen.is_full);
        let new = partition.runs.get(partition.clean).map_or(end, |(base, _)| *base);
        let mut verdict = Verdict {
            map: seen.map,
            log_start: self.state.partition(key).map_or(Offset::ZERO, |bounds| bounds.log_start),
            dirty: seen.end,
            cleaned: self.times(partition, new, seen.end, self.now_ms.max(seen.newest_ms)).await?,
            new,
            now_ms: self.now_ms,
            delete_retention_ms: self.settings.delete_retention_ms,
        };
        let kept = few(std::mem::take(&mut verdict.cleaned), |_| false);
        verdict.cleaned = kept.clone();
        let times = few(kept, |time_ms| verdict.is_over(time_ms));
        let verdict = Arc::new(verdict);
        shaped(shaper).begin(key, base, verdict.dirty, times);
        let mut last: Option<(Arc<RowSet>, Offset)> = None;
        for (base, run) in &partition.runs {
            self.open(key, run.object).await?;
            let mut hash = RowsHash::EMPTY;
            for wanted in self.opened[&run.object].parts(run) {
                let (rows, offsets) = self.read(key, *base, run, wanted, &mut hash).await?;
                let Some(behind) = offsets.last().copied() else { continue };
                let rows = Arc::new(rows);
                last = Some((Arc::clone(&rows), behind));
                let (mut taken, verdict) = (shaper.take().expect("it is there between two uses"), Arc::clone(&verdict));
                let placed = self.log.seams().offload.run_gently(move || {
                    let mut count = 0;
                    for (row, offset) in offsets.into_iter().enumerate() {
                        if verdict.stays(offset, &rows, row) {
                            taken.place(offset, &rows, row)?;
                            count += 1;
                        }
                    }
                    Ok::<_, RewriteError>((taken, count))
                });
                let (taken, count) = placed.await?;
                *shaper = Some(taken);
                self.done.rows_out += count;
                self.upload(shaper, false).await?;
            }
            self.opened[&run.object].check(key, *base, run, hash)?;
            self.done.rows_in += run.rows;
        }
        if let Some((rows, offset)) = last.filter(|_| !shaped(shaper).has_rows()) {
            shaped(shaper).place(offset, &rows, rows.len() - 1)?;
            self.done.rows_out += 1;
        }
        let mut taken = shaper.take().expect("it is there between two uses");
        let ended = self.log.seams().offload.run_gently(move || taken.end(end).map(|()| taken));
        *shaper = Some(ended.await?);
        self.upload(shaper, false).await
    }

    /// Reads what is dirty, as far as its keys fit the map.
    async fn look(&mut self, partition: &KeyPartition) -> Result<Seen, RewriteError> {
        let dirty = &partition.runs[partition.clean..];
        let rows = dirty.iter().map(|(_, run)| run.rows).sum();
        let map = OffsetMap::new(self.map_bytes, rows);
        let mut seen = Seen { map, end: partition.end(), newest_ms: 0, is_full: false };
        for (base, run) in dirty {
            self.open(partition.key, run.object).await?;
            let mut hash = RowsHash::EMPTY;
            for wanted in self.opened[&run.object].parts(run) {
                let (rows, offsets) = self.read(partition.key, *base, run, wanted, &mut hash).await?;
                seen = self.log.seams().offload.run_gently(move || seen.take(&rows, &offsets)).await;
                if seen.is_full {
                    return Ok(seen);
                }
            }
            self.opened[&run.object].check(partition.key, *base, run, hash)?;
        }
        Ok(seen)
    }

    /// When what was clean before was compacted first, and that the rest, up to `dirty`, is at `time_ms`.
    async fn times(
        &mut self,
        partition: &KeyPartition,
        new: Offset,
        dirty: Offset,
        time_ms: i64,
    ) -> Result<FirstCleaned, RewriteError> {
        let mut cleaned = FirstCleaned::new();
        for (base, run) in &partition.runs[..partition.clean] {
            self.open(partition.key, run.object).await?;
            let known = self.opened[&run.object].cleaned(partition.key, *base, run);
            // Of what nobody knows the time, the time begins now.
            let is_known = known.last().is_some_and(|(end, _)| *end >= run.end(*base));
            cleaned.extend(known);
            if !is_known {
                cleaned.push((run.end(*base), time_ms));
            }
        }
        if dirty > new {
            cleaned.push((dirty, time_ms));
        }
        Ok(cleaned)
    }

    async fn open(&mut self, key: PartitionKey, object: ObjectId) -> Result<(), RewriteError> {
        if !self.opened.contains_key(&object) {
            if self.opened.len() >= OPENED_MAX {
                self.opened.clear();
            }
            let opened = OpenObject::open(self.log, self.store, self.state, key, object, gently()).await?;
            self.opened.insert(object, opened);
        }
        Ok(())
    }

    async fn read(
        &mut self,
        key: PartitionKey,
        base: Offset,
        run: &Run,
        wanted: std::ops::Range<u64>,
        hash: &mut RowsHash,
    ) -> Result<(RowSet, Vec<Offset>), RewriteError> {
        let count = wanted.end - wanted.start;
        let (rows, offsets, part) = self.opened[&run.object].placed(key, base, run, wanted).await?;
        *hash = hash.concat(part, count);
        self.done.bytes_in += (u128::from(run.bytes) * u128::from(count) / u128::from(run.rows.max(1))) as u64;
        Ok((rows, offsets))
    }

    /// Gives the store what is finished of files; all of them at the end.
    async fn upload(&mut self, shaper: &mut Option<Shaper>, is_end: bool) -> Result<(), RewriteError> {
        if is_end {
            let mut taken = shaper.take().expect("it is there between two uses");
            let finished = self.log.seams().offload.run_gently(move || taken.finish_file().map(|()| taken));
            *shaper = Some(finished.await?);
        }
        let shaper = shaped(shaper);
        let table = shaper.name.table_name();
        for step in shaper.take_steps() {
            let (id, bytes, ended) = match step {
                Step::Groups(id, bytes) => (id, bytes, None),
                Step::End(file, bytes, size_bytes) => (file.id, bytes, Some((file, size_bytes))),
            };
            let key = Key::new(layout::table_file_key(&table, id)).expect("keys of the layout are valid");
            let begun = self.upload.take().filter(|(begun, _)| *begun == id);
            let (_, mut upload) = begun.unwrap_or_else(|| (id, self.store.create_in_parts(&key)));
            for bytes in bytes {
                upload.push(bytes).await?;
            }
            let Some((file, size_bytes)) = ended else {
                self.upload = Some((id, upload));
                continue;
            };
            self.done.files += 1;
            self.done.bytes_out += size_bytes;
            match upload.finish().await? {
                Created::New | Created::Mine => self.files.push(file),
                Created::Other => return Err(RewriteError::Taken { key: key.to_string() }),
            }
        }
        Ok(())
    }
}

/// Nobody waits for a compaction of keys.
fn gently() -> Pace {
    Pace::Gentle(Turn::default())
}

fn shaped(shaper: &mut Option<Shaper>) -> &mut Shaper {
    shaper.as_mut().expect("it is there between two uses")
}
