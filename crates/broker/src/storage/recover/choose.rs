//! Which file an offset is served from, when several have it: files that others have taken the place of stand for a while.
//!
//! 1. What the newest version of the table shows comes first: of two such files, which is never so, the newer.
//! 2. Of the other files, newest first, comes what lies behind the last offset that is shown: it was compacted after the last publication.
//!    What lies before was superseded, or dropped, and is passed over.
//! 3. If a file that is shown can't be read, or no version can, all that no better file has is taken, wherever it lies: superseded rows are the
//!    same rows.
//! 4. No offset is taken twice, and none between two that are taken is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lakebed_model::{Offset, TableFileId, TopicId};

use super::Facts;

/// A file that was read and verified.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) id: TableFileId,
    pub(super) topic: TopicId,
    /// In the order of the rows.
    pub(super) runs: Vec<FileRun>,
}

/// Rows of one partition in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileRun {
    pub(super) partition: u32,
    pub(super) base: Offset,
    pub(super) rows: u64,
    pub(super) first_row: u64,
    pub(super) facts: Facts,
}

impl FileRun {
    fn end(&self) -> u64 {
        self.base.get() + self.rows
    }
}

/// Offsets that are served from a run of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) file: TableFileId,
    /// Which run of the file.
    pub(super) run: usize,
    pub(super) base: Offset,
    pub(super) rows: u64,
}

/// What is taken of each partition, by offset, without gaps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) partitions: BTreeMap<u32, Vec<Taken>>,
}

/// Offsets that no file has, between some that are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    partition: u32,
    first: u64,
    end: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offsets {} to {} of partition {}", self.first, self.end - 1, self.partition)
    }
}

impl Chosen {
    /// Whether all offsets of a run (partition, base, rows) are taken from somewhere.
    pub(super) fn covers(&self, (partition, base, rows): (u32, Offset, u64)) -> bool {
        let taken = self.partitions.get(&partition).map(Vec::as_slice).unwrap_or_default();
        let ends = taken.first().zip(taken.last());
        ends.is_some_and(|(first, last)| first.base <= base && base.get() + rows <= last.base.get() + last.rows)
    }
}

/// Chooses among the files of one topic, which ascend; `shown` are those of the newest version that can be read.
///
/// # Errors
/// The first [`Gap`].
pub(super) fn choose(files: &[Candidate], shown: Option<&BTreeSet<TableFileId>>) -> Result<Chosen, Gap> {
    let is_shown = |file: &Candidate| shown.is_some_and(|shown| shown.contains(&file.id));
    let is_whole = shown.is_some_and(|shown| shown.iter().all(|id| files.iter().any(|file| file.id == *id)));
    let mut taken: BTreeMap<u32, BTreeMap<u64, Taken>> = BTreeMap::new();
    let mut shown_ends: BTreeMap<u32, u64> = BTreeMap::new();
    for file in files.iter().rev().filter(|file| is_shown(file)) {
        for (index, run) in file.runs.iter().enumerate() {
            let end = shown_ends.entry(run.partition).or_default();
            *end = run.end().max(*end);
            fill(taken.entry(run.partition).or_default(), file.id, (index, run), 0);
        }
    }
    for file in files.iter().rev().filter(|file| !is_shown(file)) {
        for (index, run) in file.runs.iter().enumerate() {
            let from = if is_whole { shown_ends.get(&run.partition).copied().unwrap_or(0) } else { 0 };
            fill(taken.entry(run.partition).or_default(), file.id, (index, run), from);
        }
    }
    let mut chosen = Chosen::default();
    for (partition, by_offset) in taken {
        let mut next: Option<u64> = None;
        for taken in by_offset.values() {
            let first = next.unwrap_or(taken.base.get());
            if first != taken.base.get() {
                return Err(Gap { partition, first, end: taken.base.get() });
            }
            next = Some(taken.base.get() + taken.rows);
        }
        if !by_offset.is_empty() {
            chosen.partitions.insert(partition, by_offset.into_values().collect());
        }
    }
    Ok(chosen)
}

/// Takes of a run what lies at or behind `from` and is not taken yet.
fn fill(taken: &mut BTreeMap<u64, Taken>, file: TableFileId, (index, run): (usize, &FileRun), from: u64) {
    let mut start = run.base.get().max(from);
    while start < run.end() {
        let before = taken.range(..=start).next_back().map(|(_, before)| before.base.get() + before.rows);
        if let Some(end) = before.filter(|end| *end > start) {
            start = end;
            continue;
        }
        let end = taken.range(start..).next().map_or(run.end(), |(next, _)| (*next).min(run.end()));
        taken.insert(start, Taken { file, run: index, base: Offset::new(start), rows: end - start });
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> TableFileId {
        ulid::Ulid(number).to_string().parse().unwrap()
    }

    /// A file with runs of (partition, base, end).
    fn file(number: u128, runs: &[(u32, u64, u64)]) -> Candidate {
        let mut first_row = 0;
        let run = |(partition, base, end): &(u32, u64, u64)| {
            let rows = end - base;
            first_row += rows;
            let (base, first_row) = (Offset::new(*base), first_row - rows);
            FileRun { partition: *partition, base, rows, first_row, facts: Facts::default() }
        };
        Candidate { id: id(number), topic: TopicId::new(uuid::Uuid::nil()), runs: runs.iter().map(run).collect() }
    }

    /// What is taken, as (partition, base, end, file).
    fn taken(chosen: &Chosen, files: &[Candidate]) -> Vec<(u32, u64, u64, usize)> {
        let of = |partition: u32| {
            chosen.partitions[&partition].iter().map(move |taken| {
                let file = files.iter().position(|file| file.id == taken.file).unwrap();
                (partition, taken.base.get(), taken.base.get() + taken.rows, file)
            })
        };
        chosen.partitions.keys().flat_map(|partition| of(*partition)).collect()
    }

    fn shown(numbers: &[u128]) -> BTreeSet<TableFileId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    #[test]
    fn superseded_files_are_passed_over() {
        let files = [file(1, &[(0, 0, 10)]), file(2, &[(0, 10, 20)]), file(3, &[(0, 0, 20)])];
        let chosen = choose(&files, Some(&shown(&[3]))).unwrap();
        assert_eq!(taken(&chosen, &files), [(0, 0, 20, 2)]);
        // The swap was made, and not published yet: the same rows from the former files.
        let chosen = choose(&files, Some(&shown(&[1, 2]))).unwrap();
        assert_eq!(taken(&chosen, &files), [(0, 0, 10, 0), (0, 10, 20, 1)]);
        let chosen = choose(&files, None).unwrap();
        assert_eq!(taken(&chosen, &files), [(0, 0, 20, 2)]);
    }

    #[test]
    fn what_was_compacted_after_the_last_publication_is_taken_too() {
        let files = [file(1, &[(0, 0, 10), (1, 5, 7)]), file(2, &[(0, 0, 15), (2, 0, 3)])];
        let chosen = choose(&files, Some(&shown(&[1]))).unwrap();
        assert_eq!(taken(&chosen, &files), [(0, 0, 10, 0), (0, 10, 15, 1), (1, 5, 7, 0), (2, 0, 3, 1)]);
        assert!(chosen.covers((0, Offset::new(3), 12)) && !chosen.covers((0, Offset::new(3), 13)));
        assert!(!chosen.covers((1, Offset::new(4), 1)) && !chosen.covers((3, Offset::ZERO, 1)));
    }

    #[test]
    fn dropped_rows_do_not_come_back() {
        let files = [file(1, &[(0, 0, 10)]), file(2, &[(0, 10, 20)])];
        let chosen = choose(&files, Some(&shown(&[2]))).unwrap();
        assert_eq!(taken(&chosen, &files), [(0, 10, 20, 1)]);
    }

    #[test]
    fn the_rows_of_a_shown_file_that_is_lost_are_taken_from_those_that_it_replaced() {
        // File 3, which replaced 1 and 2, can't be read.
        let files = [file(1, &[(0, 0, 10)]), file(2, &[(0, 10, 20)]), file(4, &[(0, 20, 25)])];
        let chosen = choose(&files, Some(&shown(&[3, 4]))).unwrap();
        assert_eq!(taken(&chosen, &files), [(0, 0, 10, 0), (0, 10, 20, 1), (0, 20, 25, 2)]);
        let gap = choose(&[files[0].clone(), files[2].clone()], Some(&shown(&[3, 4]))).unwrap_err();
        assert_eq!(gap.to_string(), "offsets 10 to 19 of partition 0");
    }

    #[test]
    fn files_that_overlap_in_any_way_give_every_offset_once() {
        let files = [
            file(1, &[(0, 0, 4), (0, 8, 12)]),
            file(2, &[(0, 2, 9)]),
            file(3, &[(0, 11, 20)]),
            file(4, &[(0, 3, 5), (0, 6, 7)]),
        ];
        let chosen = choose(&files, None).unwrap();
        let taken = taken(&chosen, &files);
        let offsets: Vec<u64> = taken.iter().flat_map(|(_, base, end, _)| *base..*end).collect();
        assert_eq!(offsets, (0..20).collect::<Vec<_>>());
        let file_at = |offset: u64| taken.iter().find(|(_, base, end, _)| (*base..*end).contains(&offset)).unwrap().3;
        assert_eq!([0, 2, 3, 5, 6, 7, 9, 11].map(file_at), [0, 1, 3, 1, 3, 1, 0, 2]);
    }
}
