//! Compaction of keys: the same offsets, fewer rows.

use std::collections::BTreeMap;

use super::{append, batch, change, key, offset, with_topic};
use crate::commit::{CleanedFile, CleanedRun, CompactedFile, Compaction, KeyCompaction, MergedRun};
use crate::draft::Change;
use crate::hash::RowsHash;
use crate::ids::{Offset, TableFileId};
use crate::state::{ObjectId, Refusal, Run, State};

fn file(number: u128) -> TableFileId {
    TableFileId::new(number.into())
}

fn policy(state: &mut State, policy: &str) {
    let config = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
    change(state, Change::AlterTopic { id: key(1, 0).topic, config }).unwrap();
}

/// Partition 0 with offsets 0..4 and 4..6 in table file 50, partition 1 with 0..2 in the same, and 6..8 of partition 0 in a segment.
fn with_files() -> State {
    let mut state = with_topic();
    policy(&mut state, "compact");
    for (partition, rows, first) in [(0, 4, 1), (0, 2, 5), (1, 2, 20)] {
        append(&mut state, key(1, partition), batch(rows, first));
    }
    let run = |partition, base, rows: u32, first_row, first| MergedRun {
        partition: key(1, partition),
        base_offset: offset(base),
        rows: rows.into(),
        first_row,
        hash: batch(rows, first).hash,
    };
    let runs = vec![run(0, 0, 4, 0, 1), run(0, 4, 2, 4, 5), run(1, 0, 2, 6, 20)];
    let files = vec![CompactedFile { id: file(50), runs }];
    change(&mut state, Change::Compact(Compaction { topic: key(1, 0).topic, files })).unwrap();
    append(&mut state, key(1, 0), batch(2, 7));
    state
}

fn run(partition: u32, offsets: std::ops::Range<u64>, rows: u64, first_row: u64) -> CleanedRun {
    CleanedRun {
        partition: key(1, partition),
        base_offset: Offset::new(offsets.start),
        span: offsets.end - offsets.start,
        rows,
        first_row,
        bytes: rows * 100,
        timestamps: None,
        hash: RowsHash::EMPTY.push(rows),
        clean: true,
    }
}

fn clean(state: &mut State, files: Vec<(u128, Vec<CleanedRun>)>) -> Result<(), Refusal> {
    let before = state.clone();
    let replaces = state.table_files(key(1, 0).topic).into_iter().map(|(id, _)| id).collect();
    clean_instead(state, replaces, files).inspect_err(|_| assert_eq!(*state, before, "what is refused changes nothing"))
}

fn clean_instead(
    state: &mut State,
    replaces: Vec<TableFileId>,
    files: Vec<(u128, Vec<CleanedRun>)>,
) -> Result<(), Refusal> {
    let files = files.into_iter().map(|(id, runs)| CleanedFile { id: file(id), runs }).collect();
    let topic = key(1, 0).topic;
    change(state, Change::CompactKeys(KeyCompaction { topic, replaces, files })).map(|_| ())
}

fn covered(state: &State) -> Vec<(u64, u64, u64, bool)> {
    let of_run = |(base, run): (Offset, Run)| (base.get(), run.end(base).get(), run.rows, run.clean);
    state.runs_of(key(1, 0)).map(of_run).collect()
}

#[test]
fn what_is_left_covers_the_same_offsets_and_the_old_file_is_free() {
    let mut state = with_files();
    clean(&mut state, vec![(60, vec![run(0, 0..6, 2, 0)]), (61, vec![run(1, 0..2, 1, 0)])]).unwrap();
    assert_eq!(covered(&state), [(0, 6, 2, true), (6, 8, 2, false)]);
    assert_eq!(state.object(ObjectId::Table(file(50))), None);
    assert_eq!(state.table(key(1, 0).topic).map(|table| table.version), Some(2));
    let holding = |at| state.runs_from(key(1, 0), offset(at)).map(|(base, _)| base.get()).collect::<Vec<_>>();
    assert_eq!([holding(0), holding(5), holding(6), holding(8)], [vec![0, 6], vec![0, 6], vec![6], vec![]]);
    // Whatever was cut where: whole runs in, and out of, and again.
    clean(&mut state, vec![(70, vec![run(0, 0..3, 1, 0), run(0, 3..6, 1, 1), run(1, 0..2, 1, 2)])]).unwrap();
    assert_eq!(covered(&state), [(0, 3, 1, true), (3, 6, 1, true), (6, 8, 2, false)]);
}

#[test]
fn what_was_made_from_files_that_are_gone_comes_too_late_though_others_cover_the_same() {
    let mut state = with_files();
    let all = || vec![run(0, 0..6, 2, 0), run(1, 0..2, 1, 2)];
    clean(&mut state, vec![(60, all())]).unwrap();
    let stale = Err(Refusal::MergeStale { partition: key(1, 0), base_offset: offset(0) });
    assert_eq!(clean_instead(&mut state, vec![file(50)], vec![(70, all())]), stale);
    assert_eq!(clean_instead(&mut state, vec![file(50), file(60)], vec![(70, all())]), stale);
    assert_eq!(clean_instead(&mut state, Vec::new(), vec![(70, all())]), stale);
    clean_instead(&mut state, vec![file(60)], vec![(70, all())]).unwrap();
}

#[test]
fn the_log_start_drops_a_run_with_gaps_when_all_that_it_covers_is_below_it() {
    let mut state = with_files();
    clean(&mut state, vec![(60, vec![run(0, 0..6, 2, 0), run(1, 0..2, 1, 2)])]).unwrap();
    change(&mut state, Change::MoveLogStart { partition: key(1, 0), offset: offset(5) }).unwrap();
    assert_eq!(covered(&state), [(0, 6, 2, true), (6, 8, 2, false)]);
    change(&mut state, Change::MoveLogStart { partition: key(1, 0), offset: offset(6) }).unwrap();
    assert_eq!(covered(&state), [(6, 8, 2, false)]);
}

#[test]
fn what_would_leave_an_offset_or_a_row_behind_or_make_more_of_it_is_refused() {
    let all = || vec![run(0, 0..6, 2, 0), run(1, 0..2, 1, 2)];
    let stale = |base| Refusal::MergeStale { partition: key(1, 0), base_offset: offset(base) };
    let refused = |spoil: &dyn Fn(&mut Vec<CleanedRun>)| {
        let mut runs = all();
        spoil(&mut runs);
        clean(&mut with_files(), vec![(60, runs)]).unwrap_err()
    };
    assert_eq!(refused(&|runs| runs[0] = run(0, 0..5, 2, 0)), stale(0), "an end that is lost");
    assert_eq!(refused(&|runs| runs[0] = run(0, 1..6, 2, 0)), stale(1), "a begin that is lost");
    assert_eq!(refused(&|runs| runs[0] = run(0, 0..7, 2, 0)), stale(0), "a part of a run of a segment");
    assert_eq!(refused(&|runs| runs[0] = run(0, 0..8, 2, 0)), stale(0), "a whole run of a segment");
    let malformed = |refusal: Refusal| matches!(refusal, Refusal::Malformed { .. });
    assert!(malformed(refused(&|runs| _ = runs.pop())), "rows of the file stay named");
    assert!(malformed(refused(&|runs| runs[0].bytes = 601)), "more bytes");
    assert!(malformed(refused(&|runs| runs[0].rows = 0)), "no row");
    assert!(malformed(refused(&|runs| runs[0].rows = 7)), "more rows than offsets");
    assert!(malformed(refused(&|runs| runs[1].first_row = 3)), "rows that nobody has");
    assert!(malformed(refused(&|runs| runs.swap(0, 1))), "not in order");
    let mut state = with_files();
    assert!(malformed(clean(&mut state, Vec::new()).unwrap_err()));
    assert_eq!(clean(&mut state, vec![(50, all())]), Err(Refusal::TableFileKnown { file: file(50) }));
    let moved = Change::MoveLogStart { partition: key(1, 0), offset: offset(3) };
    change(&mut state, moved).unwrap();
    let below = vec![run(0, 0..3, 1, 0), run(0, 3..6, 1, 1), run(1, 0..2, 1, 2)];
    assert_eq!(clean(&mut state, vec![(60, below)]), Err(stale(0)), "the log start has passed a run meanwhile");
    policy(&mut state, "delete");
    let topic = key(1, 0).topic;
    assert_eq!(clean(&mut state, vec![(60, all())]), Err(Refusal::KeysStay { topic }));
    policy(&mut state, "delete,compact");
    clean(&mut state, vec![(60, all())]).unwrap();
}

#[test]
fn rows_with_gaps_between_them_are_not_taken_for_others_without() {
    let mut state = with_files();
    clean(&mut state, vec![(60, vec![run(0, 0..6, 2, 0), run(1, 0..2, 2, 2)])]).unwrap();
    let merged = |partition, rows, hash: RowsHash| MergedRun {
        partition: key(1, partition),
        base_offset: offset(0),
        rows,
        first_row: 0,
        hash,
    };
    let mut compact = |run| {
        let files = vec![CompactedFile { id: file(80), runs: vec![run] }];
        change(&mut state, Change::Compact(Compaction { topic: key(1, 0).topic, files })).map(|_| ())
    };
    let stale = Refusal::MergeStale { partition: key(1, 0), base_offset: offset(0) };
    for rows in [2, 6] {
        assert_eq!(compact(merged(0, rows, RowsHash::EMPTY.push(2))), Err(stale.clone()));
    }
    // Without a gap they are rows like others, and stay clean.
    compact(merged(1, 2, RowsHash::EMPTY.push(2))).unwrap();
    assert!(state.runs_of(key(1, 1)).all(|(_, run)| run.clean));
}
