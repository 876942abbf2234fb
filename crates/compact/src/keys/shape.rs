//! What is left goes into files: rows come in order, runs and files are cut between them.

use bytes::Bytes;
use lakebed_log::Log;
use lakebed_model::{
    CleanedFile, CleanedRun, Offset, PartitionKey, RowsHash, TableFileId, TimestampRange, Topic, TopicId, TopicName,
};
use lakebed_segment::body::NO_TIMESTAMP_MS;
use lakebed_segment::row_hash::place_hash;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::RowSource;
use lakebed_segment::table::{TableFileName, TableFooter, TableSettings, TableWriter};

use crate::compaction::FileSizes;
use crate::objects::RewriteError;

/// Whether a file is full is asked after so many rows of a run.
const ROWS_PER_LOOK: u64 = 64;
/// Most times that are kept of a run, at which parts of it were compacted first.
const TIMES_MAX: usize = 64;

/// Up to an offset, for the first time at a time in milliseconds since 1970; ascending.
pub(crate) type FirstCleaned = Vec<(Offset, i64)>;

/// What the store is to get next, all of it read back.
pub(crate) enum Step {
    /// Row groups of a file.
    Groups(TableFileId, Vec<Bytes>),
    /// The end of a file, which has so many bytes.
    End(CleanedFile, Vec<Bytes>, u64),
}

struct File {
    id: TableFileId,
    writer: TableWriter,
    runs: Vec<CleanedRun>,
    rows: u64,
}

/// The partition whose rows come.
struct Current {
    key: PartitionKey,
    /// Where the next run begins.
    next: Offset,
    /// From here on rows are not cleaned.
    dirty: Offset,
    cleaned: FirstCleaned,
    open: Option<OpenRun>,
}

/// A run in the making.
struct OpenRun {
    run: CleanedRun,
    /// In which window its rows came in.
    window: i64,
    /// The hash if it has no gaps.
    plain: RowsHash,
    /// The hash if it has.
    placed: RowsHash,
}

/// See the module.
pub(crate) struct Shaper {
    pub(crate) log: Log,
    pub(crate) topic: TopicId,
    pub(crate) name: TopicName,
    settings: TableSettings,
    sizes: FileSizes,
    /// Rows that came in within so many milliseconds go together by age; `None` if none do.
    window_ms: Option<i64>,
    file: Option<File>,
    current: Option<Current>,
    steps: Vec<Step>,
}

impl Shaper {
    pub(crate) fn new(log: Log, id: TopicId, topic: &Topic, sizes: FileSizes, window_ms: Option<i64>) -> Self {
        let (name, settings) = (topic.name.clone(), TableSettings::of(&topic.config));
        let (file, current, steps) = (None, None, Vec::new());
        Self { log, topic: id, name, settings, sizes, window_ms, file, current, steps }
    }

    /// What the store is to get, once.
    pub(crate) fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// Begins a partition: offsets from `base` on will be covered, those below `dirty` by clean runs.
    pub(crate) fn begin(&mut self, key: PartitionKey, base: Offset, dirty: Offset, cleaned: FirstCleaned) {
        self.current = Some(Current { key, next: base, dirty, cleaned, open: None });
    }

    /// Whether a row of the partition was placed.
    pub(crate) fn has_rows(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.open.is_some())
    }

    /// Takes the next row of the partition that stays.
    pub(crate) fn place(&mut self, offset: Offset, rows: &RowSet, row: usize) -> Result<(), RewriteError> {
        let Some(current) = &self.current else { return Ok(()) };
        let (key, dirty, is_clean) = (current.key, current.dirty, offset < current.dirty);
        let window = self.window_ms.map_or(0, |window_ms| rows.ingest_time_ms(row).div_euclid(window_ms));
        let open = current.open.as_ref();
        let is_other = open.is_some_and(|open| open.run.clean != is_clean);
        let is_later = open.is_some_and(|open| open.window != window);
        let is_look = open.is_some_and(|open| open.run.rows.is_multiple_of(ROWS_PER_LOOK));
        if is_other {
            self.end_run(dirty)?;
        } else if is_later {
            self.end_run(offset)?;
        } else if is_look && self.is_full(1, 1) {
            self.end_run(offset)?;
            self.finish_file()?;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => self.begin_file()?,
        };
        let (file, Some(current)) = (self.file.insert(file), &mut self.current) else { return Ok(()) };
        if current.open.is_none() {
            file.writer.begin_run(key.partition, current.next)?;
        }
        let (next, first_row) = (current.next, file.rows);
        let open = current.open.get_or_insert_with(|| OpenRun::new(key, next, first_row, (is_clean, window)));
        let hash = file.writer.place(offset, rows, row)?;
        file.rows += 1;
        open.count(offset, rows, row, hash);
        let groups = file.writer.take();
        if !groups.is_empty() {
            self.steps.push(Step::Groups(file.id, groups));
        }
        Ok(())
    }

    /// Ends the partition: all offsets up to `end` are covered. There was a row.
    pub(crate) fn end(&mut self, end: Offset) -> Result<(), RewriteError> {
        self.end_run(end)?;
        self.current = None;
        // A large partition has files of its own, so that cleaning others does not rewrite it.
        if self.is_full(3, 4) { self.finish_file() } else { Ok(()) }
    }

    fn is_full(&self, numerator: usize, denominator: usize) -> bool {
        let max = self.sizes.file_bytes_max / denominator * numerator;
        self.file.as_ref().is_some_and(|file| file.writer.size_bytes() >= max)
    }

    fn begin_file(&self) -> Result<File, RewriteError> {
        let id = TableFileId::new(self.log.mint().ulid());
        let name = TableFileName { id, topic_id: self.topic, topic: self.name.clone() };
        let writer = TableWriter::new(&self.log.identity(), name, self.settings)?;
        let writer = writer.with_group_bytes(self.sizes.group_bytes);
        Ok(File { id, writer, runs: Vec::new(), rows: 0 })
    }

    fn end_run(&mut self, end: Offset) -> Result<(), RewriteError> {
        let (Some(current), Some(file)) = (&mut self.current, &mut self.file) else { return Ok(()) };
        let Some(open) = current.open.take() else { return Ok(()) };
        let mut run = open.run;
        run.span = end.since(run.base_offset);
        run.hash = if run.span == run.rows { open.plain } else { open.placed };
        let cleaned = if run.clean { clip(&current.cleaned, run.base_offset, end) } else { Vec::new() };
        file.writer.end_run(end, &cleaned)?;
        file.runs.push(run);
        current.next = end;
        Ok(())
    }

    /// Finishes the file, if there is one, and reads it back.
    pub(crate) fn finish_file(&mut self) -> Result<(), RewriteError> {
        let Some(File { id, writer, runs, .. }) = self.file.take() else { return Ok(()) };
        let closed = writer.close()?;
        are_those_of(&closed.footer, &runs)?;
        self.steps.push(Step::End(CleanedFile { id, runs }, closed.rest, closed.size_bytes));
        Ok(())
    }
}

/// Whether a file has the runs that the log is to name, where it is to name them.
fn are_those_of(footer: &TableFooter, runs: &[CleanedRun]) -> Result<(), RewriteError> {
    let mut found = footer.runs();
    for run in runs {
        let (partition, base) = (run.partition.partition, run.base_offset);
        let is_there = found.next() == Some((partition, base, run.rows))
            && !footer.stretches(partition, base, run.span, run.first_row, base).is_empty();
        if !is_there {
            let what = format!("it has other rows from offset {base} on");
            return Err(RewriteError::Unfaithful { partition: run.partition, what });
        }
    }
    match (found.next(), runs.first()) {
        (Some(_), Some(run)) => {
            Err(RewriteError::Unfaithful { partition: run.partition, what: "it has a run too many".to_owned() })
        }
        _ => Ok(()),
    }
}

impl OpenRun {
    fn new(partition: PartitionKey, base_offset: Offset, first_row: u64, (clean, window): (bool, i64)) -> Self {
        let (timestamps, hash) = (None, RowsHash::EMPTY);
        let run = CleanedRun { partition, base_offset, span: 0, rows: 0, first_row, bytes: 0, timestamps, hash, clean };
        Self { run, window, plain: RowsHash::EMPTY, placed: RowsHash::EMPTY }
    }

    fn count(&mut self, offset: Offset, rows: &RowSet, row: usize, hash: u64) {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
        let headers = rows.headers(row).map(|(key, value)| key.len() as u64 + length(value));
        self.run.bytes += length(rows.key(row)) + length(rows.value(row)) + headers.sum::<u64>();
        self.run.rows += 1;
        let time_ms = rows.timestamp_ms(row);
        if time_ms != NO_TIMESTAMP_MS {
            let one = TimestampRange { first_ms: time_ms, last_ms: time_ms };
            self.run.timestamps = TimestampRange::union(self.run.timestamps, Some(one));
        }
        self.plain = self.plain.push(hash);
        self.placed = self.placed.push(place_hash(hash, offset));
    }
}

/// What of the times concerns the offsets `base..end`.
fn clip(cleaned: &[(Offset, i64)], base: Offset, end: Offset) -> FirstCleaned {
    let first = cleaned.partition_point(|(to, _)| *to <= base);
    let mut clipped = FirstCleaned::new();
    for (to, time_ms) in &cleaned[first..] {
        clipped.push(((*to).min(end), *time_ms));
        if *to >= end {
            break;
        }
    }
    clipped
}

/// Few enough times. Where `is_over` says that no tombstone of a time is left, the next later one will do; and where there are too many: a
/// tombstone that is taken for a younger one stays longer.
pub(crate) fn few(mut cleaned: FirstCleaned, is_over: impl Fn(i64) -> bool) -> FirstCleaned {
    let mut latest = i64::MIN;
    for (_, time_ms) in &mut cleaned {
        latest = latest.max(*time_ms);
        *time_ms = latest;
    }
    let last = cleaned.pop();
    cleaned.retain(|(_, time_ms)| !is_over(*time_ms));
    cleaned.extend(last);
    let too_many = cleaned.len().saturating_sub(TIMES_MAX);
    cleaned.drain(..too_many);
    cleaned
}
