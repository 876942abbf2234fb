//! Which file an offset is served from, when several have it: files that others have taken the place of stand for a while.
//!
//! 1. What the newest version of the table shows comes first: of two such files, which is never so, the newer.
//! 2. Of the other files, newest first, comes what lies behind the last offset that is shown: it was compacted after the last publication.
//!    What lies before was superseded, or dropped, and is passed over.
//! 3. If a file that is shown can't be read, or no version can, all that no better file has is taken, wherever it lies: superseded rows are the
//!    same rows.
//! 4. No offset is taken twice. Those that nothing has, between some that are taken or behind them, are told: see [`Chosen::holes`].
//!
//! Compaction of keys leaves other rows, so of a topic that had it rule 3 is another:
//!
//! 5. What a version shows is taken as it is, for it is one state of the topic; behind it come only rows as they were produced. An older file beside
//!    a newer one may have values again of which the newer has let the tombstones go.
//! 6. If no version can be read, the newest files are taken that cover everything; who writes runs from the first offset of a partition on, so
//!    a newer file before an older one is no harm, and what is clean never follows what is not: see [`Chosen::odd`].
//! 7. A run with gaps is taken whole or not at all, for where its rows are stands in its file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use lakebed_model::{Offset, TableFileId, TopicId};

use super::facts::Facts;

/// How many of the newest files with gaps are left out at most, in search of some that cover everything: those that a compaction has left that
/// did not come to its end.
const PASSED_OVER_MAX: usize = 64;

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
    /// How many offsets it covers.
    pub(super) span: u64,
    /// Whether its keys were compacted.
    pub(super) clean: bool,
    pub(super) first_row: u64,
    pub(super) facts: Facts,
}

impl Candidate {
    /// Whether it is what a recovery writes to close a hole: gaps that no compaction of keys has made.
    pub(super) fn closes_a_hole(&self) -> bool {
        self.runs.iter().any(FileRun::has_gaps) && !self.runs.iter().any(|run| run.clean)
    }
}

impl FileRun {
    pub(super) fn end(&self) -> u64 {
        self.base.get() + self.span
    }

    pub(super) fn has_gaps(&self) -> bool {
        self.span != self.rows
    }

    fn is_as_produced(&self) -> bool {
        !self.has_gaps() && !self.clean
    }
}

/// Offsets that are served from a run of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) file: TableFileId,
    /// Which run of the file.
    pub(super) run: usize,
    pub(super) base: Offset,
    /// How many offsets.
    pub(super) span: u64,
    clean: bool,
}

impl Taken {
    pub(super) fn end(&self) -> u64 {
        self.base.get() + self.span
    }
}

/// What is taken of each partition, by offset.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) partitions: BTreeMap<u32, Vec<Taken>>,
    /// Offsets that are not taken from anywhere, between some that are or behind them, by partition.
    pub(super) holes: Vec<(u32, Range<u64>)>,
    /// Partitions in which something clean follows something that is not: no state of the topic was ever so.
    pub(super) odd: Vec<u32>,
    /// Offsets of a partition that a file has which a newer one has, too, though a version shows both.
    pub(super) doubled: Vec<(u32, Range<u64>, TableFileId)>,
    /// Whether keys of the topic were compacted.
    pub(super) compacted: bool,
}

/// Offsets of a partition, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offsets(pub(super) u32, pub(super) Range<u64>);

impl fmt::Display for Offsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(partition, Range { start, end }) = self;
        write!(f, "offsets {start} to {} of partition {partition}", end - 1)
    }
}

impl Chosen {
    /// What of some offsets of a partition is taken from nowhere.
    pub(super) fn lacks(&self, partition: u32, offsets: Range<u64>) -> Vec<Range<u64>> {
        let taken = self.partitions.get(&partition).map(Vec::as_slice).unwrap_or_default();
        let (mut lacks, mut next) = (Vec::new(), offsets.start);
        for taken in taken.iter().filter(|taken| taken.end() > offsets.start && taken.base.get() < offsets.end) {
            if taken.base.get() > next {
                lacks.push(next..taken.base.get());
            }
            next = taken.end();
        }
        if next < offsets.end {
            lacks.push(next..offsets.end);
        }
        lacks
    }
}

/// A run that may be taken.
#[derive(Clone, Copy)]
struct Offer<'a> {
    file: TableFileId,
    index: usize,
    run: &'a FileRun,
    is_shown: bool,
}

/// What is taken of a partition, by its first offset.
type ByOffset = BTreeMap<u64, Taken>;

/// Chooses among the files of one topic, which ascend; `shown` are those of the newest version that can be read.
pub(super) fn choose(files: &[Candidate], shown: Option<&BTreeSet<TableFileId>>) -> Chosen {
    let is_shown = |file: &Candidate| shown.is_some_and(|shown| shown.contains(&file.id));
    let is_whole = shown.is_some_and(|shown| shown.iter().all(|id| files.iter().any(|file| file.id == *id)));
    let compacted = files.iter().flat_map(|file| &file.runs).any(|run| run.clean);
    let mut offers: BTreeMap<u32, Vec<Offer<'_>>> = BTreeMap::new();
    for file in files.iter().rev() {
        for (index, run) in file.runs.iter().enumerate() {
            let offer = Offer { file: file.id, index, run, is_shown: is_shown(file) };
            offers.entry(run.partition).or_default().push(offer);
        }
    }
    let mut chosen = Chosen { compacted, ..Chosen::default() };
    for (partition, offers) in offers {
        let taken = match (shown.is_some(), compacted) {
            (false, true) => whole_of(&offers),
            (is_known, _) => beginning_with_shown(&offers, is_whole || is_known && compacted, compacted),
        };
        chosen.doubled.extend(doubled(&taken, &offers).into_iter().map(|(offsets, file)| (partition, offsets, file)));
        chosen.holes.extend(holes(&taken, &offers).into_iter().map(|hole| (partition, hole)));
        let taken: Vec<Taken> = taken.into_values().collect();
        if taken.windows(2).any(|pair| !pair[0].clean && pair[1].clean) {
            chosen.odd.push(partition);
        }
        if !taken.is_empty() {
            chosen.partitions.insert(partition, taken);
        }
    }
    chosen
}

/// Rules 1 to 3, and 5. If a version `decides`, what is not shown counts only behind what is.
fn beginning_with_shown(offers: &[Offer<'_>], decides: bool, compacted: bool) -> ByOffset {
    let mut taken = ByOffset::new();
    for offer in offers.iter().filter(|offer| offer.is_shown) {
        fill(&mut taken, offer, 0);
    }
    let end = offers.iter().filter(|offer| offer.is_shown).map(|offer| offer.run.end()).max().unwrap_or(0);
    let from = if decides { end } else { 0 };
    for offer in offers.iter().filter(|offer| !offer.is_shown && (!compacted || offer.run.is_as_produced())) {
        fill(&mut taken, offer, from);
    }
    taken
}

/// Rule 6.
fn whole_of(offers: &[Offer<'_>]) -> ByOffset {
    let mut with_gaps: Vec<TableFileId> =
        offers.iter().filter(|offer| offer.run.has_gaps()).map(|offer| offer.file).collect();
    with_gaps.dedup();
    let mut newest: Option<ByOffset> = None;
    for passed_over in 0..=with_gaps.len().min(PASSED_OVER_MAX) {
        let mut taken = ByOffset::new();
        for offer in offers.iter().filter(|offer| !with_gaps[..passed_over].contains(&offer.file)) {
            fill(&mut taken, offer, 0);
        }
        let begins = |taken: &ByOffset| taken.keys().next().copied();
        let is_later = newest.as_ref().is_some_and(|newest| begins(&taken) > begins(newest));
        if holes(&taken, offers).is_empty() && !is_later {
            return taken;
        }
        newest.get_or_insert(taken);
    }
    newest.unwrap_or_default()
}

/// What of the runs that are shown is taken from another file that is.
fn doubled(taken: &ByOffset, offers: &[Offer<'_>]) -> Vec<(Range<u64>, TableFileId)> {
    let shown: BTreeSet<TableFileId> = offers.iter().filter(|offer| offer.is_shown).map(|offer| offer.file).collect();
    let mut doubled = Vec::new();
    for Offer { file, run, .. } in offers.iter().filter(|offer| offer.is_shown) {
        let before = taken.range(..run.end()).rev().map(|(_, taken)| taken);
        let others = before.take_while(|taken| taken.end() > run.base.get()).filter(|taken| taken.file != *file);
        for other in others.filter(|taken| shown.contains(&taken.file)) {
            doubled.push((other.base.get().max(run.base.get())..other.end().min(run.end()), *file));
        }
    }
    doubled
}

/// What is not taken, from the first offset that is, or that any run has if none is, to the last that any has.
fn holes(taken: &ByOffset, offers: &[Offer<'_>]) -> Vec<Range<u64>> {
    let begins = offers.iter().map(|offer| offer.run.base.get()).min().unwrap_or(0);
    let ends = offers.iter().map(|offer| offer.run.end()).max().unwrap_or(0);
    let mut next = taken.keys().next().copied().unwrap_or(begins);
    let mut holes = Vec::new();
    for (base, taken) in taken {
        if *base > next {
            holes.push(next..*base);
        }
        next = taken.end();
    }
    if next < ends {
        holes.push(next..ends);
    }
    holes
}

/// Takes of a run what lies at or behind `from` and is not taken yet; of one with gaps all or nothing.
fn fill(taken: &mut ByOffset, offer: &Offer<'_>, from: u64) {
    let Offer { file, index, run, .. } = *offer;
    let mut start = run.base.get().max(from);
    while start < run.end() {
        let before = taken.range(..=start).next_back().map(|(_, before)| before.end());
        if let Some(end) = before.filter(|end| *end > start) {
            start = end;
            continue;
        }
        let end = taken.range(start..).next().map_or(run.end(), |(next, _)| (*next).min(run.end()));
        if run.has_gaps() && (start, end) != (run.base.get(), run.end()) {
            return;
        }
        let one = Taken { file, run: index, base: Offset::new(start), span: end - start, clean: run.clean };
        taken.insert(start, one);
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(offsets: Vec<Range<u64>>) -> Vec<(u64, u64)> {
        offsets.into_iter().map(|offsets| (offsets.start, offsets.end)).collect()
    }

    fn id(number: u128) -> TableFileId {
        ulid::Ulid(number).to_string().parse().unwrap()
    }

    /// A file with runs of (partition, base, end), as they were produced.
    fn file(number: u128, runs: &[(u32, u64, u64)]) -> Candidate {
        let runs: Vec<_> =
            runs.iter().map(|(partition, base, end)| (*partition, *base, *end, end - base, false)).collect();
        made(number, &runs)
    }

    /// The same of runs that are clean, of which every other row is left.
    fn cleaned(number: u128, runs: &[(u32, u64, u64)]) -> Candidate {
        let runs: Vec<_> =
            runs.iter().map(|(partition, base, end)| (*partition, *base, *end, (end - base) / 2, true)).collect();
        made(number, &runs)
    }

    fn made(number: u128, runs: &[(u32, u64, u64, u64, bool)]) -> Candidate {
        let mut first_row = 0;
        let run = |(partition, base, end, rows, clean): &(u32, u64, u64, u64, bool)| {
            first_row += rows;
            let (base, first_row, span) = (Offset::new(*base), first_row - rows, end - base);
            let facts = Facts::default();
            FileRun { partition: *partition, base, rows: *rows, span, clean: *clean, first_row, facts }
        };
        Candidate { id: id(number), topic: TopicId::new(uuid::Uuid::nil()), runs: runs.iter().map(run).collect() }
    }

    /// What is taken, as (partition, base, end, file).
    fn taken(chosen: &Chosen, files: &[Candidate]) -> Vec<(u32, u64, u64, usize)> {
        let of = |partition: u32| {
            chosen.partitions[&partition].iter().map(move |taken| {
                let file = files.iter().position(|file| file.id == taken.file).unwrap();
                (partition, taken.base.get(), taken.end(), file)
            })
        };
        chosen.partitions.keys().flat_map(|partition| of(*partition)).collect()
    }

    fn shown(numbers: &[u128]) -> BTreeSet<TableFileId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    /// Chooses where nothing may be missing.
    fn all(files: &[Candidate], shown: Option<&BTreeSet<TableFileId>>) -> Vec<(u32, u64, u64, usize)> {
        let chosen = choose(files, shown);
        assert!(chosen.holes.is_empty() && chosen.odd.is_empty(), "{chosen:?}");
        taken(&chosen, files)
    }

    #[test]
    fn superseded_files_are_passed_over() {
        let files = [file(1, &[(0, 0, 10)]), file(2, &[(0, 10, 20)]), file(3, &[(0, 0, 20)])];
        assert_eq!(all(&files, Some(&shown(&[3]))), [(0, 0, 20, 2)]);
        // The swap was made, and not published yet: the same rows from the former files.
        assert_eq!(all(&files, Some(&shown(&[1, 2]))), [(0, 0, 10, 0), (0, 10, 20, 1)]);
        assert_eq!(all(&files, None), [(0, 0, 20, 2)]);
    }

    #[test]
    fn what_was_compacted_after_the_last_publication_is_taken_too() {
        let files = [file(1, &[(0, 0, 10), (1, 5, 7)]), file(2, &[(0, 0, 15), (2, 0, 3)])];
        let chosen = choose(&files, Some(&shown(&[1])));
        assert_eq!(taken(&chosen, &files), [(0, 0, 10, 0), (0, 10, 15, 1), (1, 5, 7, 0), (2, 0, 3, 1)]);
        assert_eq!(chosen.lacks(0, 3..15), []);
        assert_eq!(bounds(chosen.lacks(0, 3..17)), [(15, 17)]);
        assert_eq!(bounds(chosen.lacks(1, 4..9)), [(4, 5), (7, 9)]);
        assert_eq!(bounds(chosen.lacks(3, 0..1)), [(0, 1)]);
    }

    #[test]
    fn dropped_rows_do_not_come_back() {
        let files = [file(1, &[(0, 0, 10)]), file(2, &[(0, 10, 20)])];
        assert_eq!(all(&files, Some(&shown(&[2]))), [(0, 10, 20, 1)]);
    }

    #[test]
    fn the_rows_of_a_shown_file_that_is_lost_are_taken_from_those_that_it_replaced() {
        // File 3, which replaced 1 and 2, can't be read.
        let files = [file(1, &[(0, 0, 10)]), file(2, &[(0, 10, 20)]), file(4, &[(0, 20, 25)])];
        assert_eq!(all(&files, Some(&shown(&[3, 4]))), [(0, 0, 10, 0), (0, 10, 20, 1), (0, 20, 25, 2)]);
        let chosen = choose(&[files[0].clone(), files[2].clone()], Some(&shown(&[3, 4])));
        assert_eq!(chosen.holes, [(0, 10..20)]);
        assert_eq!(Offsets(0, 10..20).to_string(), "offsets 10 to 19 of partition 0");
    }

    #[test]
    fn files_that_overlap_in_any_way_give_every_offset_once() {
        let files = [
            file(1, &[(0, 0, 4), (0, 8, 12)]),
            file(2, &[(0, 2, 9)]),
            file(3, &[(0, 11, 20)]),
            file(4, &[(0, 3, 5), (0, 6, 7)]),
        ];
        let taken = all(&files, None);
        let offsets: Vec<u64> = taken.iter().flat_map(|(_, base, end, _)| *base..*end).collect();
        assert_eq!(offsets, (0..20).collect::<Vec<_>>());
        let file_at = |offset: u64| taken.iter().find(|(_, base, end, _)| (*base..*end).contains(&offset)).unwrap().3;
        assert_eq!([0, 2, 3, 5, 6, 7, 9, 11].map(file_at), [0, 1, 3, 1, 3, 1, 0, 2]);
    }

    #[test]
    fn of_compacted_keys_a_version_is_taken_as_it_is_with_what_was_produced_behind_it() {
        // 3 has cleaned 1 and 2; 4 came afterwards; 5 has cleaned all of them.
        let files = [
            file(1, &[(0, 0, 10)]),
            file(2, &[(0, 10, 20)]),
            cleaned(3, &[(0, 0, 20)]),
            file(4, &[(0, 20, 30)]),
            cleaned(5, &[(0, 0, 30)]),
        ];
        assert_eq!(all(&files, Some(&shown(&[5]))), [(0, 0, 30, 4)]);
        assert_eq!(all(&files, Some(&shown(&[3]))), [(0, 0, 20, 2), (0, 20, 30, 3)]);
        assert_eq!(all(&files, Some(&shown(&[1, 2]))), [(0, 0, 10, 0), (0, 10, 20, 1), (0, 20, 30, 3)]);
        assert_eq!(all(&files, None), [(0, 0, 30, 4)]);
        // Rows that only a later compaction has may not stand behind those that an earlier version shows.
        let without_4 = [files[2].clone(), files[4].clone()];
        assert_eq!(choose(&without_4, Some(&shown(&[3]))).holes, [(0, 20..30)]);
    }

    #[test]
    fn of_compacted_keys_nothing_superseded_takes_the_place_of_what_is_lost() {
        // 4, which replaced 1 and 2 together with 3, can't be read.
        let files = [file(1, &[(0, 0, 10)]), cleaned(2, &[(0, 0, 10)]), cleaned(3, &[(0, 10, 20)])];
        let chosen = choose(&files, Some(&shown(&[3, 4])));
        assert_eq!(taken(&chosen, &files), [(0, 10, 20, 2)]);
        assert_eq!(bounds(chosen.lacks(0, 0..20)), [(0, 10)]);
        // Without a version nobody can say that 3 is not what follows 2. It follows no rows as they were produced, though.
        assert_eq!(all(&files, None), [(0, 0, 10, 1), (0, 10, 20, 2)]);
        assert_eq!(choose(&[files[0].clone(), files[2].clone()], None).odd, [0]);
    }

    #[test]
    fn of_compacted_keys_what_a_compaction_has_left_that_did_not_end_is_passed_over() {
        // 3 has the beginning of what 2 has whole.
        let files = [file(1, &[(0, 0, 10)]), cleaned(2, &[(0, 0, 20)]), cleaned(3, &[(0, 0, 12)])];
        assert_eq!(all(&files, None), [(0, 0, 20, 1)]);
        // Nothing else has it whole: a newer one before rows as they were produced.
        let files = [file(1, &[(0, 0, 30)]), cleaned(3, &[(0, 0, 12)])];
        assert_eq!(all(&files, None), [(0, 0, 12, 1), (0, 12, 30, 0)]);
        let files = [cleaned(2, &[(0, 5, 20)]), cleaned(3, &[(0, 0, 12)])];
        assert_eq!(choose(&files, None).holes, [(0, 12..20)]);
    }
}
