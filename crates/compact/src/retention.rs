//! What of a topic is too old or too much, from the state alone. Pure.
//!
//! As in Kafka, whole runs go from the log start on (there they are segments): by the age of their newest record, and by size as long as what is
//! left is not less than what is to be kept. A table file is dropped, not rewritten, when all of its runs go. So
//!
//! 1. A run waits for the others of its file. By age it does so for [`WAIT_SHARE`] of the topic's `retention.ms` at most, since its file is
//!    rewritten then, and with it all others of which a run has waited so long: a file is rewritten at most once in that time.
//! 2. By size it waits until what would go of its partition is at least a [`WORTH`]th of what would have to be rewritten for it: a byte that
//!    goes costs at most so many bytes of rewriting.
//! 3. Files of which keys were compacted are rewritten only by the next compaction of keys: nothing waits for them, and a file that still holds
//!    others shows what went until then. Compaction cuts its runs where a share of `retention.ms` ends, so that they go by their own age.
//! 4. Small files are joined only with those of the same share of `retention.ms`, and up to that share of what the partitions may hold together:
//!    see [`crate::files_job`]. Else they would wait for one another.
//!
//! Of rows without a timestamp the time counts at which their object was made, as in Kafka that of the segment's file. Commits don't have one in
//! their name, so such rows wait until they are merged or compacted: an hour at most.

use std::collections::{BTreeMap, BTreeSet};

use lakebed_model::{ObjectId, Offset, PartitionKey, Run, State, TopicId};

use crate::backlog::cleaned;

/// A run that has been too old for this part of the topic's age no longer waits for the others of its file.
const WAIT_SHARE: i64 = 8;
/// Most bytes that are rewritten for a byte that goes because its partition is too large.
const WORTH: u64 = 4;

/// What a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Records that are older than so many milliseconds go; `None` keeps them.
    pub age_ms: Option<i64>,
    /// A partition with more bytes of keys, values and headers than that loses its oldest; `None` keeps them.
    pub bytes: Option<u64>,
}

impl Retention {
    /// Whether nothing ever goes.
    pub fn is_for_ever(&self) -> bool {
        *self == Self::default()
    }

    /// How many bytes of a topic are joined in one file, so that a partition does not go in too large pieces.
    pub(crate) fn joined_bytes(&self, partitions: u32) -> Option<u64> {
        self.bytes.map(|bytes| bytes.saturating_mul(partitions.into()) / WAIT_SHARE.unsigned_abs())
    }

    /// Within which span of time records are joined in one file, so that they go together.
    pub(crate) fn window_ms(&self) -> Option<i64> {
        self.age_ms.map(|age_ms| (age_ms / WAIT_SHARE).max(1))
    }
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It is too old.
    Age,
    /// Its partition is too large.
    Size,
}

/// How much goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Records that can't be read any more.
    pub records: u64,
    /// Bytes of keys, values and headers.
    pub bytes: u64,
    /// Table files that go whole.
    pub files: u64,
}

/// What of a topic goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expiring {
    /// Where partitions begin afterwards, ascending.
    pub moves: Vec<(PartitionKey, Offset)>,
    /// Whether table files must be rewritten for it.
    pub rewrites: bool,
    /// How much goes, and why.
    pub tallies: BTreeMap<Cause, Tally>,
    /// When more goes by age if nothing changes, in milliseconds since 1970; `None` for never.
    pub next_ms: Option<i64>,
}

/// The runs of one partition, and how many of them go.
struct Rows {
    key: PartitionKey,
    log_start: Offset,
    runs: Vec<(Offset, Run)>,
    /// Why each of the first ones may go.
    causes: Vec<Cause>,
    /// How many of these do.
    end: usize,
}

impl Rows {
    fn of(state: &State, retention: &Retention, now_ms: i64, key: PartitionKey, runs: Vec<(Offset, Run)>) -> Self {
        let log_start = state.partition(key).map_or(Offset::ZERO, |bounds| bounds.log_start);
        let mut bytes: u64 = runs.iter().map(|(_, run)| run.bytes).sum();
        let mut causes = Vec::new();
        for (_, run) in &runs {
            let is_old = |age_ms: i64| time_ms(run).is_some_and(|time_ms| now_ms.saturating_sub(time_ms) > age_ms);
            let is_surplus = |kept: u64| bytes.saturating_sub(run.bytes) >= kept;
            let cause = match retention {
                Retention { age_ms: Some(age_ms), .. } if is_old(*age_ms) => Cause::Age,
                Retention { bytes: Some(kept), .. } if is_surplus(*kept) => Cause::Size,
                _ => break,
            };
            bytes -= run.bytes;
            causes.push(cause);
        }
        // SUBTLE: what has no bytes goes only with what comes after it, or a partition that is exactly full would lose it for nothing.
        while causes.last() == Some(&Cause::Size) && runs[causes.len() - 1].1.bytes == 0 {
            causes.pop();
        }
        let end = causes.len();
        Self { key, log_start, runs, causes, end }
    }

    fn staying(&self) -> &[(Offset, Run)] {
        &self.runs[self.end..]
    }

    fn going(&self) -> &[(Offset, Run)] {
        &self.runs[..self.end]
    }

    /// Those that may go, and wait for others of their file.
    fn waiting(&self) -> &[(Offset, Run)] {
        &self.runs[self.end..self.causes.len()]
    }
}

/// When the newest record of a run was made, or its object.
fn time_ms(run: &Run) -> Option<i64> {
    let made = |ulid: u128| i64::try_from(ulid >> 80).ok();
    match (run.timestamps, run.object) {
        (Some(timestamps), _) => Some(timestamps.last_ms),
        (None, ObjectId::Segment(id)) => made(id.ulid().0),
        (None, ObjectId::Table(id)) => made(id.ulid().0),
        (None, ObjectId::Commit(_)) => None,
    }
}

/// When the newest record of each table file of some runs was made, or the file.
pub(crate) fn newest(runs: impl Iterator<Item = (PartitionKey, Offset, Run)>) -> BTreeMap<ObjectId, i64> {
    let mut newest = BTreeMap::new();
    for (_, _, run) in runs.filter(|(.., run)| matches!(run.object, ObjectId::Table(_))) {
        let time_ms = time_ms(&run).unwrap_or(i64::MAX);
        newest.entry(run.object).and_modify(|known: &mut i64| *known = time_ms.max(*known)).or_insert(time_ms);
    }
    newest
}

/// What of a topic goes at `now_ms`. For it table files with at most `rewritten_bytes_max` bytes of rows that stay are rewritten, or one.
///
/// # Cost Visits the topic's runs, a few times if files are held by some of them.
pub fn expiring(
    state: &State,
    topic: TopicId,
    retention: &Retention,
    now_ms: i64,
    rewritten_bytes_max: u64,
) -> Expiring {
    if retention.is_for_ever() {
        return Expiring::default();
    }
    let mut partitions: Vec<Rows> = Vec::new();
    let runs: Vec<_> = state.runs_of_topic(topic).collect();
    for runs in runs.chunk_by(|a, b| a.0 == b.0) {
        let of_partition = runs.iter().map(|(_, base, run)| (*base, *run)).collect();
        partitions.push(Rows::of(state, retention, now_ms, runs[0].0, of_partition));
    }
    let cleaned = cleaned(runs.iter().map(|(.., run)| *run));
    let mut rewritten = BTreeSet::new();
    loop {
        settle(&mut partitions, &rewritten, &cleaned);
        let more = worth(&partitions, retention, now_ms, (&rewritten, &cleaned), rewritten_bytes_max);
        if more.is_empty() {
            break;
        }
        rewritten.extend(more);
    }
    let moves = partitions.iter().filter_map(|rows| {
        let (base, run) = rows.going().last()?;
        Some((rows.key, run.end(*base)))
    });
    let next = partitions.iter().filter_map(|rows| next_ms(rows, retention, now_ms)).min();
    Expiring { moves: moves.collect(), rewrites: !rewritten.is_empty(), tallies: tallies(&partitions), next_ms: next }
}

/// Lets go of what may go but is held by a run that stays in the same table file, unless that is rewritten, or only compaction of keys rewrites it.
fn settle(partitions: &mut [Rows], rewritten: &BTreeSet<ObjectId>, cleaned: &BTreeSet<ObjectId>) {
    partitions.iter_mut().for_each(|rows| rows.end = rows.causes.len());
    loop {
        let staying = partitions.iter().flat_map(Rows::staying).map(|(_, run)| run.object);
        let held: BTreeSet<ObjectId> = staying
            .filter(|id| matches!(id, ObjectId::Table(_)) && !rewritten.contains(id) && !cleaned.contains(id))
            .collect();
        let mut settled = true;
        for rows in partitions.iter_mut() {
            if let Some(first) = rows.going().iter().position(|(_, run)| held.contains(&run.object)) {
                rows.end = first;
                settled = false;
            }
        }
        if settled {
            return;
        }
    }
}

/// The files that are worth rewriting besides those that are, for the sake of a run that waits.
fn worth(
    partitions: &[Rows],
    retention: &Retention,
    now_ms: i64,
    (rewritten, cleaned): (&BTreeSet<ObjectId>, &BTreeSet<ObjectId>),
    bytes_max: u64,
) -> BTreeSet<ObjectId> {
    if partitions.iter().all(|rows| rows.waiting().is_empty()) {
        return BTreeSet::new();
    }
    // Of each file: bytes that stay even if everything goes that may.
    let mut staying: BTreeMap<ObjectId, u64> = BTreeMap::new();
    for rows in partitions {
        for (_, run) in &rows.runs[rows.causes.len()..] {
            *staying.entry(run.object).or_default() += run.bytes;
        }
    }
    let bytes_of = |id: &ObjectId| staying.get(id).copied().unwrap_or(0);
    let mut bytes: u64 = rewritten.iter().map(bytes_of).sum();
    let mut more = BTreeSet::new();
    for rows in partitions {
        let Some((_, run)) = rows.waiting().first() else { continue };
        if cleaned.contains(&run.object) || !matches!(run.object, ObjectId::Table(_)) {
            continue;
        }
        if rewritten.contains(&run.object) || more.contains(&run.object) {
            continue;
        }
        let waits: u64 = rows.waiting().iter().map(|(_, run)| run.bytes).sum();
        let is_worth = match rows.causes[rows.end] {
            Cause::Age => overdue_ms(run, retention).is_some_and(|overdue_ms| overdue_ms < now_ms),
            Cause::Size => waits.saturating_mul(WORTH) >= bytes_of(&run.object),
        };
        let is_first = rewritten.is_empty() && more.is_empty();
        if is_worth && (is_first || bytes + bytes_of(&run.object) <= bytes_max) {
            bytes += bytes_of(&run.object);
            more.insert(run.object);
        }
    }
    more
}

/// Until when a run waits for the others of its file.
fn overdue_ms(run: &Run, retention: &Retention) -> Option<i64> {
    let age_ms = retention.age_ms?;
    Some(time_ms(run)?.saturating_add(age_ms).saturating_add(age_ms / WAIT_SHARE))
}

fn next_ms(rows: &Rows, retention: &Retention, now_ms: i64) -> Option<i64> {
    let age_ms = retention.age_ms?;
    let too_old =
        rows.runs.get(rows.causes.len()).and_then(|(_, run)| time_ms(run)).map(|at| at.saturating_add(age_ms));
    let waits = rows.waiting().first().and_then(|(_, run)| overdue_ms(run, retention));
    too_old.into_iter().chain(waits).min().map(|at_ms| at_ms.saturating_add(1).max(now_ms))
}

fn tallies(partitions: &[Rows]) -> BTreeMap<Cause, Tally> {
    let mut tallies: BTreeMap<Cause, Tally> = BTreeMap::new();
    let mut files: BTreeMap<ObjectId, Cause> = BTreeMap::new();
    for rows in partitions {
        for ((base, run), cause) in rows.going().iter().zip(&rows.causes) {
            let tally = tallies.entry(*cause).or_default();
            tally.records += run.rows - rows.log_start.since(*base).min(run.rows);
            tally.bytes += run.bytes;
            if matches!(run.object, ObjectId::Table(_)) {
                files.insert(run.object, *cause);
            }
        }
    }
    for (_, run) in partitions.iter().flat_map(Rows::staying) {
        files.remove(&run.object);
    }
    for cause in files.into_values() {
        tallies.entry(cause).or_default().files += 1;
    }
    tallies
}

#[cfg(test)]
mod tests;
