//! Producer ids, expiry, and the bounds on what is remembered.

use std::collections::VecDeque;

use super::{append, batch, change, flush, key, offset, proposal, stamped, with_topic};
use crate::commit::Outcome;
use crate::draft::Change;
use crate::ids::{Cell, PartitionKey, ProducerEpoch, ProducerId, Sequence};
use crate::producer::{NUMBERS_MAX, Producer, RecentBatch};
use crate::state::{
    PRODUCER_IDS_AT_ONCE_MAX, PRODUCERS_MAX, PRODUCERS_PER_PARTITION_MAX as PER_PARTITION_MAX, Refusal, State,
};

#[test]
fn an_id_names_its_cell_and_no_two_are_equal() {
    assert_eq!(ProducerId::of(Cell::ZERO, 0), Some(ProducerId::new(0)));
    assert_eq!(ProducerId::of(Cell::new(3), 5), Some(ProducerId::new((3 << 47) + 5)));
    assert_eq!(ProducerId::of(Cell::new(u16::MAX), NUMBERS_MAX - 1), Some(ProducerId::new(i64::MAX)));
    assert_eq!(ProducerId::of(Cell::ZERO, NUMBERS_MAX), None);
    for cell in [0, 1, u16::MAX].map(Cell::new) {
        for number in [0, 1, NUMBERS_MAX - 1] {
            assert_eq!(ProducerId::of(cell, number).and_then(ProducerId::cell), Some(cell));
        }
    }
    assert_eq!(ProducerId::new(-1).cell(), None);
}

#[test]
fn ids_are_allotted_once_and_one_after_another() {
    let mut state = with_topic();
    let allot = |first, count| Change::AllotProducerIds { first, count };
    let refused = |first, count, next| Err(Refusal::ProducerIdsOutOfRange { first, count, next });
    assert!(change(&mut state, allot(0, 1000)).is_ok());
    assert_eq!(change(&mut state, allot(0, 1000)).map(drop), refused(0, 1000, 1000), "they were given");
    assert_eq!(change(&mut state, allot(999, 1)).map(drop), refused(999, 1, 1000));
    assert_eq!(change(&mut state, allot(1001, 1)).map(drop), refused(1001, 1, 1000), "none is left out");
    assert_eq!(change(&mut state, allot(1000, 0)).map(drop), refused(1000, 0, 1000));
    let many = PRODUCER_IDS_AT_ONCE_MAX + 1;
    assert_eq!(change(&mut state, allot(1000, many)).map(drop), refused(1000, many, 1000));
    assert!(change(&mut state, allot(1000, 1)).is_ok());
    assert_eq!(State::restore(state.snapshot()).unwrap().producer_ids_allotted(), 1001);
    state.producer_ids = NUMBERS_MAX - 1;
    assert_eq!(change(&mut state, allot(NUMBERS_MAX - 1, 2)).map(drop), refused(NUMBERS_MAX - 1, 2, NUMBERS_MAX - 1));
    assert!(change(&mut state, allot(NUMBERS_MAX - 1, 1)).is_ok(), "the last one");
}

/// Appends one stamped batch by a flush that was sealed at a time.
fn append_at(state: &mut State, partition: PartitionKey, producer: i64, sequence: i32, at_ms: i64) -> Outcome {
    let mut proposal =
        proposal(state.highest_id().ulid().0 + 1, vec![(partition, vec![stamped(1, producer, 0, sequence)])]);
    proposal.ingest_time_ms = at_ms;
    flush(state, &proposal).unwrap()[0]
}

#[test]
fn who_was_idle_is_forgotten_by_an_entry_that_says_how_many_and_the_others_are_not() {
    let (mut state, first, second) = (with_topic(), key(1, 0), key(1, 1));
    for (partition, producer, at_ms) in [(first, 1, 100), (first, 2, 200), (second, 1, 300), (second, 3, 100)] {
        append_at(&mut state, partition, producer, 0, at_ms);
    }
    // A duplicate is no sign of life, a batch that goes on is.
    assert_eq!(append_at(&mut state, second, 3, 0, 900), Outcome::Duplicate(offset(1)));
    assert_eq!(append_at(&mut state, first, 2, 1, 250), Outcome::Appended(offset(2)));
    let expire = |before_ms, forgotten| Change::ExpireProducers { before_ms, forgotten };
    let refused = |before_ms, forgotten, idle| Err(Refusal::ExpiryDiffers { before_ms, forgotten, idle });
    assert_eq!(change(&mut state, expire(100, 0)).map(drop), refused(100, 0, 0), "it would say nothing");
    assert_eq!(change(&mut state, expire(101, 1)).map(drop), refused(101, 1, 2));
    assert_eq!(state.idle_producers(250), 2);
    assert!(change(&mut state, expire(250, 2)).is_ok());
    let known = |state: &State, key| state.producers_of(key).map(|(id, _)| id.get()).collect::<Vec<_>>();
    assert_eq!((known(&state, first), known(&state, second)), (vec![2], vec![1]));
    assert_eq!(append_at(&mut state, first, 2, 1, 400), Outcome::Duplicate(offset(2)));
    assert_eq!(
        append_at(&mut state, first, 1, 0, 400),
        Outcome::Appended(offset(3)),
        "nothing is known of it (KIP-360)"
    );
    assert_eq!(append_at(&mut state, second, 3, 9, 400), Outcome::Appended(offset(2)));
    assert_eq!(state.producer_count(), 4);
}

#[test]
fn who_mints_ids_makes_a_partition_forget_the_idle_and_grows_nothing() {
    let (mut state, partition) = (with_topic(), key(1, 0));
    append_at(&mut state, partition, 7, 0, 1);
    append_at(&mut state, key(1, 1), 7, 0, 0);
    let rounds = 3 * PER_PARTITION_MAX as i64 / 500;
    for round in 0..rounds {
        let minted = (0..500).map(|id| stamped(1, 1_000 + round * 500 + id, 0, 0)).collect();
        let id = state.highest_id().ulid().0 + 1;
        let mut proposal = proposal(id, vec![(partition, minted)]);
        proposal.ingest_time_ms = 2 + round;
        flush(&mut state, &proposal).unwrap();
        // The steady one writes now and then.
        append_at(&mut state, partition, 7, 1 + i32::try_from(round).unwrap(), 2 + round);
        assert!(state.producer_count() <= PER_PARTITION_MAX + 1, "{round}");
    }
    let again = append_at(&mut state, partition, 7, i32::try_from(rounds).unwrap(), 99);
    assert!(matches!(again, Outcome::Duplicate(_)), "who writes is remembered: {again:?}");
    assert!(state.producers_of(key(1, 1)).count() == 1, "other partitions are left alone");
    assert_eq!(State::restore(state.snapshot()).as_ref(), Ok(&state));
}

#[test]
fn all_partitions_together_remember_so_many_and_then_forget_the_idlest_quarter() {
    let mut state = with_topic();
    let partitions = (PRODUCERS_MAX / PER_PARTITION_MAX) as u32;
    change(&mut state, super::create(2, "wide", partitions)).unwrap();
    for partition in (0..partitions).map(|index| key(2, index)) {
        append(&mut state, partition, batch(1, 1));
    }
    let mut snapshot = state.snapshot();
    let recent = RecentBatch { first: Sequence::ZERO, rows: 1, base_offset: offset(0) };
    for partition in snapshot.partitions.iter_mut().filter(|one| one.key.topic == super::topic_id(2)) {
        let index = i64::from(partition.key.partition.get());
        let producer = |id: i64| Producer {
            epoch: ProducerEpoch::ZERO,
            // The first of each partition wrote last.
            last_ms: 1_000_000 - id * 1_000 - index,
            recent: VecDeque::from([recent]),
        };
        partition.producers = (0..PER_PARTITION_MAX as i64).map(|id| (ProducerId::new(id), producer(id))).collect();
    }
    let mut state = State::restore(snapshot).unwrap();
    assert_eq!(state.producer_count(), PRODUCERS_MAX);
    append_at(&mut state, key(1, 0), 5, 0, 0);
    assert_eq!(state.producer_count(), PRODUCERS_MAX * 3 / 4 + 1, "the newcomer stays");
    for index in 0..partitions {
        let left: Vec<i64> = state.producers_of(key(2, index)).map(|(id, _)| id.get()).collect();
        assert_eq!(left, (0..PER_PARTITION_MAX as i64 * 3 / 4).collect::<Vec<_>>(), "partition {index}");
    }
    assert_eq!(State::restore(state.snapshot()).as_ref(), Ok(&state));
}
