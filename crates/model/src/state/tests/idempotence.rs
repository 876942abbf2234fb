//! Idempotent producers: the rules of Kafka (KIP-98, KIP-360).

use super::{append, batch, flush, key, offset, proposal, stamped, with_topic};
use crate::commit::{BatchFacts, BatchRefusal, Outcome};
use crate::ids::Sequence;

const OUT_OF_ORDER: Outcome = Outcome::Refused(BatchRefusal::OutOfOrderSequence);

#[test]
fn the_last_five_batches_are_duplicates_and_the_sixth_is_refused() {
    let mut state = with_topic();
    for index in 0..6 {
        let outcome = append(&mut state, key(1, 0), stamped(2, 7, 0, index * 2));
        assert_eq!(outcome, Outcome::Appended(offset(index as u64 * 2)));
    }
    for index in 1..6 {
        let outcome = append(&mut state, key(1, 0), stamped(2, 7, 0, index * 2));
        assert_eq!(outcome, Outcome::Duplicate(offset(index as u64 * 2)), "batch {index}");
    }
    assert_eq!(append(&mut state, key(1, 0), stamped(2, 7, 0, 0)), OUT_OF_ORDER);
    assert_eq!(state.partition(key(1, 0)).unwrap().high_watermark, offset(12), "only the six were appended");
}

#[test]
fn a_duplicate_is_the_same_sequence_with_the_same_count() {
    let mut state = with_topic();
    append(&mut state, key(1, 0), stamped(3, 7, 0, 0));
    assert_eq!(append(&mut state, key(1, 0), stamped(2, 7, 0, 0)), OUT_OF_ORDER);
    assert_eq!(append(&mut state, key(1, 0), stamped(4, 7, 0, 0)), OUT_OF_ORDER);
    assert_eq!(append(&mut state, key(1, 0), stamped(3, 7, 0, 0)), Outcome::Duplicate(offset(0)));
}

#[test]
fn a_gap_and_a_step_back_are_refused_and_remembered_by_nobody() {
    let mut state = with_topic();
    append(&mut state, key(1, 0), stamped(3, 7, 0, 0));
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 0, 4)), OUT_OF_ORDER);
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 0, 2)), OUT_OF_ORDER);
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 0, 3)), Outcome::Appended(offset(3)));
}

#[test]
fn a_sequence_wraps_to_zero_after_the_greatest() {
    assert_eq!(Sequence::new(i32::MAX).advance(1), Sequence::ZERO);
    assert_eq!(Sequence::new(i32::MAX - 1).advance(3), Sequence::new(1));
    let mut state = with_topic();
    append(&mut state, key(1, 0), stamped(2, 7, 0, i32::MAX - 2));
    // This batch holds the sequences MAX and 0.
    assert_eq!(append(&mut state, key(1, 0), stamped(2, 7, 0, i32::MAX)), Outcome::Appended(offset(2)));
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 0, 0)), OUT_OF_ORDER);
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 0, 1)), Outcome::Appended(offset(4)));
    assert_eq!(append(&mut state, key(1, 0), stamped(2, 7, 0, i32::MAX)), Outcome::Duplicate(offset(2)));
}

#[test]
fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
    let mut state = with_topic();
    append(&mut state, key(1, 0), stamped(1, 7, 3, 0));
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 4, 1)), OUT_OF_ORDER);
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 4, 0)), Outcome::Appended(offset(1)));
    let fenced = Outcome::Refused(BatchRefusal::InvalidProducerEpoch);
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 3, 1)), fenced);
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 3, 0)), fenced, "even what was appended once");
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 4, 1)), Outcome::Appended(offset(2)));
}

#[test]
fn a_partition_that_remembers_nothing_accepts_any_sequence() {
    let mut state = with_topic();
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 7, 2, 41)), Outcome::Appended(offset(0)));
}

#[test]
fn producers_and_partitions_are_judged_apart() {
    let mut state = with_topic();
    append(&mut state, key(1, 0), stamped(1, 7, 0, 0));
    assert_eq!(append(&mut state, key(1, 0), stamped(1, 8, 0, 0)), Outcome::Appended(offset(1)));
    assert_eq!(append(&mut state, key(1, 1), stamped(1, 7, 0, 0)), Outcome::Appended(offset(0)));
}

#[test]
fn batches_of_one_flush_see_one_another_and_rows_that_are_not_appended_split_its_runs() {
    let mut state = with_topic();
    let batches = vec![
        stamped(2, 7, 0, 0),
        stamped(2, 7, 0, 2),
        stamped(2, 7, 0, 0), // sent again by an impatient client
        stamped(1, 7, 0, 9),
        stamped(3, 7, 0, 4),
    ];
    let outcomes = flush(&mut state, &proposal(1, vec![(key(1, 0), batches)])).unwrap();
    let expected = [
        Outcome::Appended(offset(0)),
        Outcome::Appended(offset(2)),
        Outcome::Duplicate(offset(0)),
        OUT_OF_ORDER,
        Outcome::Appended(offset(4)),
    ];
    assert_eq!(outcomes, expected);
    let runs: Vec<_> =
        state.runs_of(key(1, 0)).map(|(base, run)| (base.get(), run.first_row, run.rows, run.bytes)).collect();
    assert_eq!(runs, [(0, 0, 4, 400), (4, 7, 3, 300)], "the duplicate's rows are never referenced");
}

#[test]
fn a_deleted_topic_takes_the_memory_of_its_producers_along() {
    let mut state = with_topic();
    append(&mut state, key(1, 0), stamped(1, 7, 5, 0));
    super::change(&mut state, crate::Change::DeleteTopic { id: super::topic_id(1) }).unwrap();
    super::change(&mut state, super::create(2, "orders", 3)).unwrap();
    assert_eq!(append(&mut state, key(2, 0), stamped(1, 7, 0, 3)), Outcome::Appended(offset(0)));
    assert_eq!(state.producers.len(), 1);
}

#[test]
fn a_batch_that_expects_an_offset_is_appended_there_or_not_at_all_and_is_a_duplicate_when_it_is_sent_again() {
    let (mut state, partition) = (with_topic(), key(1, 0));
    let expecting = |facts, next| BatchFacts { expected_next_offset: Some(offset(next)), ..facts };
    let mismatch = |next| Outcome::Refused(BatchRefusal::OffsetMismatch { next: offset(next) });
    assert_eq!(append(&mut state, partition, expecting(batch(2, 1), 1)), mismatch(0));
    assert_eq!(append(&mut state, partition, expecting(batch(2, 1), 0)), Outcome::Appended(offset(0)));
    assert_eq!(append(&mut state, partition, expecting(batch(2, 1), 0)), mismatch(2));
    let stamped = expecting(stamped(3, 1, 0, 0), 2);
    assert_eq!(append(&mut state, partition, expecting(stamped, 9)), mismatch(2));
    assert_eq!(append(&mut state, partition, stamped), Outcome::Appended(offset(2)), "the refusal left no trace");
    assert_eq!(append(&mut state, partition, stamped), Outcome::Duplicate(offset(2)));
    assert_eq!(append(&mut state, partition, batch(1, 1)), Outcome::Appended(offset(5)));
}
