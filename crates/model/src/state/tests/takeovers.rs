//! Epochs: who may write where.

use super::{ALICE, BOB, change, create, directory, owned, place, raw_commit, take_over, with_topic};
use crate::commit::{Commit, Entry, Takeover};
use crate::draft::Draft;
use crate::ids::{CommitNumber, Directory, Place};
use crate::state::{ApplyError, Refusal, State};

fn takeover(next: Directory) -> Entry {
    Entry::Takeover(Takeover { next, address: "host:1".to_owned() })
}

fn entry() -> Entry {
    Entry::CreateTopic { id: super::topic_id(4), name: super::name("t"), partitions: 1, config: Default::default() }
}

fn apply(state: &State, commit: &Commit) -> Result<State, ApplyError> {
    let mut after = state.clone();
    let result = after.apply(commit);
    if result.is_err() {
        assert_eq!(after, *state, "a refused commit changes nothing");
    }
    result.map(|()| after)
}

#[test]
fn directory_0_belongs_to_nobody_so_the_first_commit_is_a_takeover() {
    let state = State::new(directory(0, 9));
    assert_eq!(state.owner(), None);
    let early = raw_commit(&state, vec![entry()]);
    let refusal = ApplyError::NotOwner { number: CommitNumber::ZERO, writer: ALICE, owner: None };
    assert_eq!(apply(&state, &early), Err(refusal));
    let after = apply(&state, &raw_commit(&state, vec![takeover(directory(1, 5))])).unwrap();
    assert_eq!(after.owner(), Some(ALICE));
    assert_eq!(after.place(), place(1, 5, 0));
    assert_eq!(after.number(), CommitNumber::new(1), "numbers are counted over all epochs");
}

#[test]
fn only_the_takeovers_writer_writes_in_the_directory_that_it_named() {
    let mut state = owned();
    take_over(&mut state, BOB, 2);
    let late = Commit { writer: ALICE, ..raw_commit(&state, vec![entry()]) };
    let refusal = ApplyError::NotOwner { number: state.number(), writer: ALICE, owner: Some(BOB) };
    assert_eq!(apply(&state, &late), Err(refusal));
    assert!(apply(&state, &Commit { writer: BOB, ..late }).is_ok());
}

#[test]
fn a_takeover_stands_alone_and_there_is_one() {
    let state = owned();
    let next = takeover(directory(2, 5));
    for entries in [vec![next.clone(), entry()], vec![entry(), next.clone()], vec![next.clone(), next.clone()]] {
        let refusal = Refusal::Malformed { what: "a takeover stands alone in its commit" };
        let expected = ApplyError::Refused { number: state.number(), entry: 0, refusal };
        assert_eq!(apply(&state, &raw_commit(&state, entries)), Err(expected));
    }
}

#[test]
fn a_takeover_names_the_next_epoch_and_no_other() {
    let state = owned();
    for epoch in [0, 1, 3, u32::MAX] {
        let refusal = Refusal::Malformed { what: "a takeover names the next epoch" };
        let expected = ApplyError::Refused { number: state.number(), entry: 0, refusal };
        assert_eq!(apply(&state, &raw_commit(&state, vec![takeover(directory(epoch, 5))])), Err(expected));
    }
    assert!(apply(&state, &raw_commit(&state, vec![takeover(directory(2, 5))])).is_ok());
}

#[test]
fn anybody_may_take_over_and_the_owner_may_again() {
    let mut state = owned();
    take_over(&mut state, BOB, 2);
    take_over(&mut state, BOB, 3);
    take_over(&mut state, ALICE, 4);
    assert_eq!((state.owner(), state.place()), (Some(ALICE), place(4, 4, 0)));
}

#[test]
fn a_commit_at_the_right_number_in_a_left_directory_is_not_the_next() {
    let mut state = with_topic();
    let left = state.place();
    take_over(&mut state, BOB, 2);
    let late = Commit { place: left, writer: ALICE, ..raw_commit(&state, vec![entry()]) };
    assert!(matches!(apply(&state, &late), Err(ApplyError::NotNext { .. })));
}

#[test]
fn an_empty_commit_is_refused() {
    let state = owned();
    assert!(matches!(apply(&state, &raw_commit(&state, vec![])), Err(ApplyError::Refused { entry: 0, .. })));
}

#[test]
#[should_panic(expected = "does not own")]
fn a_draft_is_not_sealed_for_a_writer_that_does_not_own_the_directory() {
    let mut draft = Draft::after(&owned());
    draft.change(create(4, "t", 1)).unwrap();
    let _ = draft.seal(BOB, 0);
}

#[test]
#[should_panic(expected = "empty draft")]
fn an_empty_draft_is_not_sealed() {
    let _ = Draft::after(&owned()).seal(ALICE, 0);
}

#[test]
fn places_map_to_numbers_over_many_epochs_and_back() {
    let mut state = owned();
    let mut expected = vec![place(0, 9, 0)];
    let mut topics = 10;
    for epoch in 1..40_u32 {
        for index in 0..u64::from(epoch % 4) {
            change(&mut state, create(topics, &format!("t{topics}"), 1)).unwrap();
            topics += 1;
            expected.push(Place { directory: state.place().directory, index });
        }
        expected.push(state.place());
        take_over(&mut state, if epoch % 2 == 0 { ALICE } else { BOB }, u64::from(epoch) % 3);
    }
    assert_eq!(state.number(), CommitNumber::new(expected.len() as u64));
    for (number, place) in (0..).map(CommitNumber::new).zip(&expected) {
        assert_eq!(state.place_of(number), Some(*place));
        assert_eq!(state.number_at(*place), Some(number));
    }
    for (number, next) in state.directories().skip(1) {
        let takeover = expected[usize::try_from(number.get()).unwrap() - 1];
        assert_eq!(state.takeover_of(takeover.directory), Some(takeover), "closed by the takeover that names {next}");
    }
    assert_eq!(state.takeover_of(state.place().directory), None, "the last directory is open");
    assert_eq!(state.takeover_of(place(3, 77, 0).directory), None);
    let beyond_its_takeover = Place { index: 3, ..place(2, 1, 0) };
    assert_eq!(state.number_at(beyond_its_takeover), None);
    assert_eq!(state.number_at(place(3, 77, 0)), None, "a directory that lost the race is not of the log");
    assert_eq!(state.number_at(Place { index: u64::MAX, ..expected[5] }), None);
}
