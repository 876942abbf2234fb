//! Merge: the same offsets, the same rows, fewer objects.

use super::{append, batch, change, flush_id, key, offset, segment, with_topic};
use crate::commit::{Merge, MergedRun};
use crate::draft::Change;
use crate::hash::RowsHash;
use crate::ids::{Offset, PartitionKey, SegmentId};
use crate::state::{ObjectId, Refusal, State};

/// Partition 0 with runs 0..2, 2..5 and 5..6, whose rows hash like 1 to 6, and partition 1 with 0..4.
fn with_runs() -> State {
    let mut state = with_topic();
    append(&mut state, key(1, 0), batch(2, 1));
    append(&mut state, key(1, 0), batch(3, 3));
    append(&mut state, key(1, 0), batch(1, 6));
    append(&mut state, key(1, 1), batch(4, 20));
    state
}

fn run(partition: PartitionKey, base: u64, rows: u32, first_row: u64, first_hash: u64) -> MergedRun {
    let hash = batch(rows, first_hash).hash;
    MergedRun { partition, base_offset: Offset::new(base), rows: u64::from(rows), first_row, hash }
}

fn merge(state: &mut State, segment: SegmentId, runs: Vec<MergedRun>) -> Result<(), Refusal> {
    let before = state.clone();
    let result = change(state, Change::Merge(Merge { segment, runs })).map(|_| ());
    if result.is_err() {
        assert_eq!(*state, before, "a refused merge changes nothing");
    }
    result
}

fn stale(base: u64) -> Result<(), Refusal> {
    Err(Refusal::MergeStale { partition: key(1, 0), base_offset: offset(base) })
}

#[test]
fn a_merge_swaps_whole_runs_and_frees_their_objects() {
    let mut state = with_runs();
    assert_eq!(state.object_count(), 4);
    merge(&mut state, segment(100), vec![run(key(1, 0), 0, 6, 0, 1), run(key(1, 1), 0, 4, 6, 20)]).unwrap();
    let objects: Vec<_> = state.objects().map(|(id, object)| (id, object.live_runs, object.live_bytes)).collect();
    assert_eq!(objects, [(ObjectId::Segment(segment(100)), 2, 1000)]);
    let merged = state.runs_of(key(1, 0)).next().unwrap().1;
    assert_eq!((merged.rows, merged.bytes, merged.first_row), (6, 600, 0));
    let timestamps = merged.timestamps.unwrap();
    assert_eq!((timestamps.first_ms, timestamps.last_ms), (1, 7), "the range of all of them");
    assert_eq!(state.highest_id(), segment(100));
}

#[test]
fn a_merge_of_some_runs_leaves_the_others() {
    let mut state = with_runs();
    merge(&mut state, segment(100), vec![run(key(1, 0), 2, 4, 0, 3)]).unwrap();
    let bases: Vec<_> = state.runs_of(key(1, 0)).map(|(base, run)| (base.get(), run.rows)).collect();
    assert_eq!(bases, [(0, 2), (2, 4)]);
}

#[test]
fn a_merge_with_other_rows_is_refused() {
    let differs = Err(Refusal::MergeDiffers { partition: key(1, 0), base_offset: offset(0) });
    assert_eq!(merge(&mut with_runs(), segment(100), vec![run(key(1, 0), 0, 6, 0, 2)]), differs);
    let swapped = [2, 1, 3, 4, 5, 6].into_iter().fold(RowsHash::EMPTY, RowsHash::push);
    let reordered = MergedRun { hash: swapped, ..run(key(1, 0), 0, 6, 0, 1) };
    assert_eq!(merge(&mut with_runs(), segment(100), vec![reordered]), differs);
}

#[test]
fn a_merge_that_covers_a_part_of_a_run_is_stale() {
    for (base, rows, first_hash) in [(0, 1, 1), (1, 1, 2), (0, 3, 1), (1, 4, 2), (3, 3, 4), (0, 7, 1), (6, 1, 7)] {
        let result = merge(&mut with_runs(), segment(100), vec![run(key(1, 0), base, rows, 0, first_hash)]);
        assert_eq!(result, stale(base), "{base}..{}", base + u64::from(rows));
    }
}

#[test]
fn a_merge_that_lost_a_race_is_stale() {
    let mut merged_already = with_runs();
    merge(&mut merged_already, segment(100), vec![run(key(1, 0), 0, 6, 0, 1)]).unwrap();
    assert_eq!(merge(&mut merged_already, segment(101), vec![run(key(1, 0), 0, 5, 0, 1)]), stale(0));

    let mut retained = with_runs();
    change(&mut retained, Change::MoveLogStart { partition: key(1, 0), offset: offset(2) }).unwrap();
    assert_eq!(merge(&mut retained, segment(101), vec![run(key(1, 0), 0, 6, 0, 1)]), stale(0));

    let mut deleted = with_runs();
    change(&mut deleted, Change::DeleteTopic { id: super::topic_id(1) }).unwrap();
    assert_eq!(merge(&mut deleted, segment(101), vec![run(key(1, 0), 0, 6, 0, 1)]), stale(0));
}

#[test]
fn a_merge_keeps_a_run_that_holds_the_log_start_whole() {
    let mut state = with_runs();
    change(&mut state, Change::MoveLogStart { partition: key(1, 0), offset: offset(3) }).unwrap();
    merge(&mut state, segment(100), vec![run(key(1, 0), 2, 4, 0, 3)]).unwrap();
    assert_eq!(state.partition(key(1, 0)).unwrap().log_start, offset(3));
}

#[test]
fn runs_of_a_merge_that_overlap_or_leave_holes_are_malformed() {
    let first = run(key(1, 0), 0, 6, 0, 1);
    let again = MergedRun { first_row: 6, ..first };
    for runs in [vec![], vec![first, again], vec![again], vec![MergedRun { rows: 0, ..first }]] {
        let result = merge(&mut with_runs(), segment(100), runs.clone());
        assert!(matches!(result, Err(Refusal::Malformed { .. })), "{runs:?}: {result:?}");
    }
    let descending = vec![run(key(1, 1), 0, 4, 0, 20), run(key(1, 0), 0, 6, 4, 1)];
    assert!(matches!(merge(&mut with_runs(), segment(100), descending), Err(Refusal::Malformed { .. })));
}

#[test]
fn a_segment_that_is_known_is_not_merged_into_again() {
    let mut state = with_runs();
    merge(&mut state, segment(100), vec![run(key(1, 1), 0, 4, 0, 20)]).unwrap();
    let known = Err(Refusal::SegmentKnown { segment: segment(100) });
    assert_eq!(merge(&mut state, segment(100), vec![run(key(1, 0), 0, 6, 0, 1)]), known);
    // The object of the first flush names no live row any more after this; its id still is that flush's.
    merge(&mut state, segment(101), vec![run(key(1, 0), 0, 2, 0, 1)]).unwrap();
    let (flushed, _) = state.flushes().next().unwrap();
    assert!(state.object(ObjectId::Segment(flushed.into())).is_none() && flushed == flush_id(1));
    let known = Err(Refusal::SegmentKnown { segment: flushed.into() });
    assert_eq!(merge(&mut state, flushed.into(), vec![run(key(1, 0), 0, 6, 0, 1)]), known);
}

#[test]
fn bytes_that_can_not_be_counted_are_refused_and_not_wrapped() {
    let mut state = with_topic();
    for base in 0..2 {
        append(&mut state, key(1, base), crate::BatchFacts { bytes: u64::MAX / 2 + 1, ..batch(1, 1) });
    }
    let runs = vec![run(key(1, 0), 0, 1, 0, 1), run(key(1, 1), 0, 1, 1, 1)];
    assert!(matches!(merge(&mut state, segment(100), runs), Err(Refusal::Malformed { .. })));
    assert!(State::restore(state.snapshot()).is_err(), "neither is it restored");
}
