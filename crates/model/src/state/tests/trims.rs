//! Rows below the log start that are cut off their run, and table files that hold rows which are not named any more.

use super::{append, batch, change, key, offset, segment, topic_id, with_topic};
use crate::commit::{CompactedFile, Compaction, Merge, MergedRun, TimestampRange, TrimRun};
use crate::draft::{Change, Draft};
use crate::hash::RowsHash;
use crate::ids::{PartitionKey, TableFileId};
use crate::state::{ObjectId, Refusal, State};

fn file(number: u128) -> TableFileId {
    TableFileId::new(number.into())
}

fn run(partition: PartitionKey, base: u64, rows: u32, first_row: u64, first_hash: u64) -> MergedRun {
    let hash = batch(rows, first_hash).hash;
    MergedRun { partition, base_offset: offset(base), rows: rows.into(), first_row, hash }
}

fn compaction(id: u128, runs: Vec<MergedRun>) -> Change {
    Change::Compact(Compaction { topic: topic_id(1), files: vec![CompactedFile { id: file(id), runs }] })
}

fn to(partition: u32, start: u64) -> Change {
    Change::MoveLogStart { partition: key(1, partition), offset: offset(start) }
}

/// One table file with 5 rows of partition 0, which hash like 1 to 5, and 4 of partition 1, like 20 to 23.
fn with_file() -> State {
    let mut state = with_topic();
    append(&mut state, key(1, 0), batch(5, 1));
    append(&mut state, key(1, 1), batch(4, 20));
    change(&mut state, compaction(100, vec![run(key(1, 0), 0, 5, 0, 1), run(key(1, 1), 0, 4, 5, 20)])).unwrap();
    state
}

/// What cuts the first `rows` of partition 0 off.
fn trim(rows: u32) -> TrimRun {
    TrimRun {
        partition: key(1, 0),
        offset: offset(rows.into()),
        rows: rows.into(),
        hash: batch(rows, 1).hash,
        bytes: 100 * u64::from(5 - rows),
        timestamps: Some(TimestampRange { first_ms: 9, last_ms: 10 }),
    }
}

fn refused(state: &mut State, refused: Change) -> Refusal {
    let before = state.clone();
    let refusal = change(state, refused).unwrap_err();
    assert_eq!(*state, before, "what is refused changes nothing");
    refusal
}

#[test]
fn what_is_cut_off_is_not_named_any_more_and_the_rest_is_as_it_was() {
    let mut state = with_file();
    change(&mut state, to(0, 3)).unwrap();
    assert_eq!(state.partial_files(topic_id(1)).into_iter().collect::<Vec<_>>(), [file(100)]);
    change(&mut state, Change::TrimRun(trim(3))).unwrap();
    let (base, left) = state.runs_of(key(1, 0)).next().unwrap();
    assert_eq!((base, left.rows, left.first_row, left.bytes), (offset(3), 2, 3, 200));
    assert_eq!((left.hash, left.timestamps), (batch(2, 4).hash, trim(3).timestamps));
    let object = state.object(ObjectId::Table(file(100))).unwrap();
    assert_eq!((object.live_runs, object.live_bytes, object.is_partial), (2, 600, true));
    assert_eq!(state.table(topic_id(1)).unwrap().version, 1, "what readers see is the same file");
    // With the log start further inside, some of it may still be cut off.
    change(&mut state, to(0, 4)).unwrap();
    let rest = TrimRun { offset: offset(4), rows: 1, hash: batch(1, 4).hash, bytes: 100, ..trim(3) };
    change(&mut state, Change::TrimRun(rest)).unwrap();
    assert_eq!(state.runs_of(key(1, 0)).next().unwrap().1.hash, batch(1, 5).hash);
}

#[test]
fn only_rows_below_the_log_start_are_cut_off_and_only_of_the_run_that_holds_it() {
    let mut state = with_file();
    let stale = |at| Refusal::MergeStale { partition: key(1, 0), base_offset: offset(at) };
    let above = Refusal::Malformed { what: "rows above the log start are not cut off" };
    assert_eq!(refused(&mut state, Change::TrimRun(trim(3))), above);
    change(&mut state, to(0, 3)).unwrap();
    assert_eq!(refused(&mut state, Change::TrimRun(trim(4))), above);
    assert_eq!(refused(&mut state, Change::TrimRun(trim(0))), stale(0));
    assert_eq!(refused(&mut state, Change::TrimRun(TrimRun { rows: 2, ..trim(3) })), stale(3));
    let more = Refusal::Malformed { what: "a part of a run has more bytes than the run" };
    assert_eq!(refused(&mut state, Change::TrimRun(TrimRun { bytes: 501, ..trim(3) })), more);
    let unknown = TrimRun { partition: key(1, 7), ..trim(3) };
    assert_eq!(refused(&mut state, Change::TrimRun(unknown)), Refusal::UnknownPartition { partition: key(1, 7) });
    change(&mut state, Change::TrimRun(trim(3))).unwrap();
    assert_eq!(refused(&mut state, Change::TrimRun(trim(3))), stale(3), "once");
    change(&mut state, to(0, 5)).unwrap();
    assert_eq!(refused(&mut state, Change::TrimRun(trim(4))), stale(4), "the run is gone");
}

#[test]
fn what_is_left_of_a_run_is_swapped_in_one_commit_with_the_cut_and_only_for_the_same_rows() {
    let mut state = with_file();
    change(&mut state, to(0, 3)).unwrap();
    let rewritten = || vec![run(key(1, 0), 3, 2, 0, 4), run(key(1, 1), 0, 4, 2, 20)];
    assert!(Draft::after(&state).change_all(vec![compaction(101, rewritten())]).is_err(), "runs are swapped whole");
    let lie = TrimRun { hash: batch(3, 2).hash, ..trim(3) };
    let told = Draft::after(&state).change_all(vec![Change::TrimRun(lie), compaction(101, rewritten())]);
    assert_eq!(told, Err(Refusal::MergeDiffers { partition: key(1, 0), base_offset: offset(3) }));
    let mut draft = Draft::after(&state);
    draft.change_all(vec![Change::TrimRun(trim(3)), compaction(101, rewritten())]).unwrap();
    super::commit(&mut state, draft);
    assert_eq!(state.table_files(topic_id(1)), [(file(101), 6)]);
    assert!(state.partial_files(topic_id(1)).is_empty());
    assert_eq!(state.table(topic_id(1)).unwrap().version, 2);
}

#[test]
fn a_file_of_which_a_partition_goes_is_partial_until_all_of_it_goes_or_is_rewritten() {
    let mut state = with_file();
    change(&mut state, to(1, 4)).unwrap();
    assert!(state.object(ObjectId::Table(file(100))).unwrap().is_partial);
    let restored = State::restore(state.snapshot()).unwrap();
    assert_eq!(restored, state, "a checkpoint keeps it");
    let mut gone = state.clone();
    change(&mut gone, to(0, 5)).unwrap();
    assert_eq!((gone.object_count(), gone.snapshot().partial_files), (0, vec![]));
    change(&mut state, compaction(101, vec![run(key(1, 0), 0, 5, 0, 1)])).unwrap();
    assert!(state.partial_files(topic_id(1)).is_empty());
    let mut snapshot = state.snapshot();
    snapshot.partial_files.push(file(100));
    assert!(State::restore(snapshot).is_err(), "a file that is not there is not partial");
}

#[test]
fn a_segment_of_which_rows_are_cut_off_is_merged_as_any_other() {
    let mut state = with_topic();
    append(&mut state, key(1, 0), batch(5, 1));
    change(&mut state, to(0, 3)).unwrap();
    change(&mut state, Change::TrimRun(trim(3))).unwrap();
    assert!(state.objects().all(|(_, object)| !object.is_partial));
    let merge = Merge { segment: segment(100), runs: vec![run(key(1, 0), 3, 2, 0, 4)] };
    change(&mut state, Change::Merge(merge)).unwrap();
    assert_eq!(state.runs_of(key(1, 0)).next().unwrap().1.hash, RowsHash::EMPTY.push(4).push(5));
}

#[test]
fn a_table_gets_a_version_that_shows_what_it_showed_before() {
    let mut state = with_file();
    let before = state.table_files(topic_id(1));
    change(&mut state, Change::Compact(Compaction { topic: topic_id(1), files: Vec::new() })).unwrap();
    assert_eq!((state.table(topic_id(1)).unwrap().version, state.table_files(topic_id(1))), (2, before));
}
