//! Flushes and the reclaim boundary: what is refused, and that it leaves nothing behind.

use super::{
    ALICE, append, batch, change, commit, flush, flush_id, key, offset, proposal, raw_commit, segment, stamped,
    topic_id, with_topic,
};
use crate::commit::{BatchFacts, BatchRefusal, FlushBody, Merge, MergedRun, Outcome};
use crate::draft::{Change, Draft, FlushProposal};
use crate::ids::{FeatureLevel, Offset, SegmentId};
use crate::state::{ApplyError, Partition, Refusal, State};

fn refused(state: &State, proposal: &FlushProposal) -> Refusal {
    let mut draft = Draft::after(state);
    let refusal = draft.flush(proposal).unwrap_err();
    assert_eq!(draft.state(), state, "a refused flush changes nothing");
    assert!(draft.is_empty());
    refusal
}

#[test]
fn a_flush_that_contradicts_itself_is_malformed() {
    let state = with_topic();
    let good = proposal(1, vec![(key(1, 0), vec![batch(2, 1)]), (key(1, 1), vec![batch(2, 1)])]);
    let mut spoiled = vec![FlushProposal { runs: vec![], ..good.clone() }];
    let spoilers: [fn(&mut FlushProposal); 10] = [
        |flush| flush.runs[1].first_row += 1,
        |flush| flush.runs[0].first_row = 1,
        |flush| flush.runs[1].batches.clear(),
        |flush| flush.runs[0].batches[0].rows = 0,
        |flush| flush.runs[1].partition = key(1, 0),
        |flush| flush.runs[0].partition = key(1, 2),
        |flush| flush.runs[0].batches[0].bytes = u64::MAX,
        |flush| flush.runs[0].batches[0] = stamped(2, 5, 0, -1),
        |flush| flush.runs[0].batches[0] = stamped(2, 5, -1, 0),
        |flush| flush.runs[0].batches[0] = stamped(2, -1, 0, 0),
    ];
    for spoil in spoilers {
        let mut flush = good.clone();
        spoil(&mut flush);
        spoiled.push(flush);
    }
    for flush in spoiled {
        assert!(matches!(refused(&state, &flush), Refusal::Malformed { .. }), "{flush:?}");
    }
    assert!(Draft::after(&state).flush(&good).is_ok());
}

#[test]
fn a_commit_holds_at_most_one_inline_flush() {
    let mut state = with_topic();
    let inline = |id| FlushProposal { body: FlushBody::Inline, ..proposal(id, vec![(key(1, 0), vec![batch(1, 1)])]) };
    let mut draft = Draft::after(&state);
    draft.flush(&inline(1)).unwrap();
    assert!(draft.has_inline());
    assert_eq!(draft.flush(&inline(2)), Err(Refusal::Malformed { what: "more than one inline flush" }));
    draft.flush(&proposal(3, vec![(key(1, 0), vec![batch(1, 1)])])).unwrap();
    let sealed = commit(&mut state, draft);
    assert_eq!(sealed.entries.len(), 2);
}

#[test]
fn a_batch_of_no_topic_or_no_partition_is_refused_alone() {
    let mut state = with_topic();
    let runs = vec![
        (key(1, 0), vec![batch(1, 1)]),
        (key(1, 3), vec![batch(1, 2), batch(1, 3)]),
        (key(2, 0), vec![batch(1, 4)]),
    ];
    let no_partition = Outcome::Refused(BatchRefusal::UnknownPartition);
    let outcomes = flush(&mut state, &proposal(1, runs)).unwrap();
    let no_topic = Outcome::Refused(BatchRefusal::UnknownTopic);
    assert_eq!(outcomes, [Outcome::Appended(offset(0)), no_partition, no_partition, no_topic]);
    assert_eq!(state.run_count(), 1);
}

#[test]
fn offsets_end_where_kafkas_63_bits_end() {
    let mut state = with_topic();
    let end = Offset::new(i64::MAX as u64 - 1);
    state.partitions.insert(key(1, 0), Partition { log_start: end, high_watermark: end });
    let full = Outcome::Refused(BatchRefusal::OffsetsExhausted);
    assert_eq!(append(&mut state, key(1, 0), batch(2, 1)), full);
    assert_eq!(append(&mut state, key(1, 0), batch(1, 1)), Outcome::Appended(end));
    assert_eq!(append(&mut state, key(1, 0), batch(1, 1)), full);
}

#[test]
fn a_flush_that_is_sent_again_gets_its_first_outcome_even_when_its_topic_is_gone() {
    let mut state = with_topic();
    let sent = proposal(5, vec![(key(1, 0), vec![batch(2, 1)])]);
    flush(&mut state, &sent).unwrap();
    let number = state.number();
    change(&mut state, Change::DeleteTopic { id: topic_id(1) }).unwrap();
    assert_eq!(flush(&mut state, &sent).unwrap(), [Outcome::Appended(offset(0))]);
    assert_eq!(state.number(), number.next(), "nothing is written for it");
    assert_eq!(state.flush(flush_id(5)).unwrap().number.next(), number);
}

#[test]
fn a_committed_flush_is_refused_by_every_reader_when_it_comes_twice() {
    let mut state = with_topic();
    let mut draft = Draft::after(&state);
    draft.flush(&proposal(5, vec![(key(1, 0), vec![batch(2, 1)])])).unwrap();
    let first = commit(&mut state, draft);
    let again = raw_commit(&state, first.entries);
    let refusal = Refusal::SegmentKnown { segment: segment(5) };
    let expected = ApplyError::Refused { number: state.number(), entry: 0, refusal };
    assert_eq!(state.clone().apply(&again), Err(expected));
}

#[test]
fn the_reclaim_boundary_only_rises_to_what_was_committed_and_forgets_what_is_below() {
    let mut state = with_topic();
    for id in [5, 7, 9] {
        flush(&mut state, &proposal(id, vec![(key(1, 0), vec![batch(1, 1)])])).unwrap();
    }
    let out_of_range = |id, boundary| {
        Err(Refusal::BoundaryOutOfRange { id: segment(id), boundary: segment(boundary), highest: segment(9) })
    };
    assert_eq!(change(&mut state, Change::MoveReclaimBoundary(segment(10))), out_of_range(10, 0));
    assert_eq!(change(&mut state, Change::MoveReclaimBoundary(SegmentId::MIN)), out_of_range(0, 0));
    change(&mut state, Change::MoveReclaimBoundary(segment(7))).unwrap();
    assert_eq!(change(&mut state, Change::MoveReclaimBoundary(segment(7))), out_of_range(7, 7));
    assert_eq!(change(&mut state, Change::MoveReclaimBoundary(segment(6))), out_of_range(6, 7));
    let remembered: Vec<_> = state.flushes().map(|(id, _)| id).collect();
    assert_eq!(remembered, [flush_id(7), flush_id(9)], "the boundary itself is still known");
    assert_eq!(state.object_count(), 3, "rows are not forgotten");
    change(&mut state, Change::MoveReclaimBoundary(segment(9))).unwrap();
}

#[test]
fn an_object_below_the_boundary_is_not_accepted_by_flush_or_merge() {
    let mut state = with_topic();
    flush(&mut state, &proposal(5, vec![(key(1, 0), vec![batch(2, 1)])])).unwrap();
    flush(&mut state, &proposal(9, vec![(key(1, 1), vec![batch(2, 1)])])).unwrap();
    change(&mut state, Change::MoveReclaimBoundary(segment(9))).unwrap();
    let below = |id| Refusal::BelowReclaimBoundary { id: segment(id), boundary: segment(9) };
    let forgotten = proposal(5, vec![(key(1, 0), vec![batch(2, 1)])]);
    assert_eq!(refused(&state, &forgotten), below(5), "its fate can't be known any more");
    let inline = FlushProposal { body: FlushBody::Inline, ..proposal(8, vec![(key(1, 0), vec![batch(2, 1)])]) };
    assert_eq!(refused(&state, &inline), below(8));
    let run = MergedRun { partition: key(1, 0), base_offset: offset(0), rows: 2, first_row: 0, hash: batch(2, 1).hash };
    let merge = |id| Change::Merge(Merge { segment: segment(id), runs: vec![run] });
    assert_eq!(change(&mut state, merge(8)), Err(below(8)));
    change(&mut state, merge(10)).unwrap();
}

#[test]
fn a_recorded_outcome_that_the_rules_do_not_give_stops_the_reader() {
    let mut state = with_topic();
    let mut draft = Draft::after(&state);
    draft.flush(&proposal(5, vec![(key(1, 0), vec![batch(2, 1)])])).unwrap();
    let (mut forged, _) = draft.seal(ALICE, 0);
    if let crate::Entry::Flush(flush) = &mut forged.entries[0] {
        flush.runs[0].batches[0].1 = Outcome::Appended(offset(4));
    }
    let expected = ApplyError::Diverged {
        number: forged.number,
        entry: 0,
        recorded: Some(Outcome::Appended(offset(4))),
        derived: Some(Outcome::Appended(offset(0))),
    };
    let before = state.clone();
    assert_eq!(state.apply(&forged), Err(expected));
    assert_eq!(state, before);
}

#[test]
fn a_later_entry_that_is_refused_undoes_the_earlier_ones() {
    let mut state = with_topic();
    let before = state.clone();
    let entries = vec![
        crate::Entry::DeleteTopic { id: topic_id(1) },
        crate::Entry::AddPartitions { id: topic_id(1), partitions: 9 },
    ];
    let expected =
        ApplyError::Refused { number: before.number(), entry: 1, refusal: Refusal::UnknownTopic { id: topic_id(1) } };
    assert_eq!(state.apply(&raw_commit(&before, entries)), Err(expected));
    assert_eq!(state, before);
}

#[test]
fn a_feature_level_that_this_code_does_not_know_stops_it() {
    let mut state = with_topic();
    for level in [0, 1, 2] {
        let level = FeatureLevel::new(level);
        let refusal = Refusal::FeatureLevelOutOfRange { level, current: FeatureLevel::new(1) };
        assert_eq!(change(&mut state, Change::RaiseFeatureLevel(level)), Err(refusal));
    }
}

#[test]
fn hashes_of_batches_of_one_run_combine_to_the_hash_of_its_rows() {
    let mut state = with_topic();
    let batches: Vec<BatchFacts> = vec![batch(2, 1), batch(3, 3), batch(1, 6)];
    flush(&mut state, &proposal(1, vec![(key(1, 0), batches)])).unwrap();
    assert_eq!(state.runs_of(key(1, 0)).next().unwrap().1.hash, batch(6, 1).hash);
}
