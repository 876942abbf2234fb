//! Topics: create, alter, add partitions, delete, create again; log start.

use std::collections::BTreeMap;

use super::{append, batch, change, commit, create, flush, key, name, offset, owned, proposal, topic_id, with_topic};
use crate::commit::{BatchRefusal, Outcome};
use crate::draft::{Change, Draft};
use crate::state::{Refusal, State};
use crate::topic::PARTITIONS_MAX;

fn refused(state: &mut State, what: Change) -> Refusal {
    let before = state.clone();
    let refusal = change(state, what).unwrap_err();
    assert_eq!(*state, before, "a refused change changes nothing");
    refusal
}

#[test]
fn a_topic_has_the_partitions_that_it_was_created_with() {
    let state = with_topic();
    let id = state.topic_id("orders").unwrap();
    assert_eq!((id, state.topic(id).unwrap().partitions, state.partition_count()), (topic_id(1), 3, 3));
    assert!(state.partition(key(1, 2)).is_some() && state.partition(key(1, 3)).is_none());
}

#[test]
fn a_name_an_id_and_a_table_name_are_taken_once() {
    let mut state = with_topic();
    assert_eq!(refused(&mut state, create(2, "orders", 1)), Refusal::TopicExists { name: name("orders") });
    assert_eq!(refused(&mut state, create(1, "other", 1)), Refusal::TopicIdTaken { id: topic_id(1) });
    change(&mut state, create(2, "a.b", 1)).unwrap();
    let taken = Refusal::TableNameTaken { name: name("a_b"), other: name("a.b"), table: "a_b".to_owned() };
    assert_eq!(refused(&mut state, create(3, "a_b", 1)), taken);
    for other in ["A.B", "A_b"] {
        let taken = Refusal::TableNameTaken { name: name(other), other: name("a.b"), table: "a_b".to_owned() };
        assert_eq!(refused(&mut state, create(3, other, 1)), taken, "readers of tables and of directories fold case");
    }
    change(&mut state, Change::DeleteTopic { id: topic_id(2) }).unwrap();
    change(&mut state, create(3, "A_b", 1)).unwrap();
    assert_eq!(state.topic_id("A_b"), Some(topic_id(3)));
    assert_eq!(state.topic_id("a_b"), None, "names of topics are Kafka's: their case counts");
    assert_eq!(state.topic(topic_id(3)).unwrap().name.table_name(), "a_b");
}

#[test]
fn partitions_are_only_added_and_within_the_limit() {
    let mut state = with_topic();
    for (partitions, existing) in [(0, 0), (PARTITIONS_MAX + 1, 0)] {
        let refusal = Refusal::PartitionsOutOfRange { partitions, existing };
        assert_eq!(refused(&mut state, create(2, "other", partitions)), refusal);
    }
    for partitions in [0, 2, 3, PARTITIONS_MAX + 1] {
        let refusal = Refusal::PartitionsOutOfRange { partitions, existing: 3 };
        assert_eq!(refused(&mut state, Change::AddPartitions { id: topic_id(1), partitions }), refusal);
    }
    append(&mut state, key(1, 0), batch(2, 1));
    change(&mut state, Change::AddPartitions { id: topic_id(1), partitions: 5 }).unwrap();
    assert_eq!(state.partition(key(1, 0)).unwrap().high_watermark, offset(2), "what is there stays");
    assert_eq!(append(&mut state, key(1, 4), batch(1, 1)), Outcome::Appended(offset(0)));
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    let mut state = with_topic();
    let id = topic_id(8);
    for unknown in [
        Change::DeleteTopic { id },
        Change::AddPartitions { id, partitions: 2 },
        Change::AlterTopic { id, config: BTreeMap::new() },
    ] {
        assert_eq!(refused(&mut state, unknown), Refusal::UnknownTopic { id });
    }
    let moved = Change::MoveLogStart { partition: key(1, 3), offset: offset(1) };
    assert_eq!(refused(&mut state, moved), Refusal::UnknownPartition { partition: key(1, 3) });
}

#[test]
fn altering_replaces_all_settings_of_one_topic() {
    let mut state = with_topic();
    let config = BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]);
    change(&mut state, Change::AlterTopic { id: topic_id(1), config: config.clone() }).unwrap();
    assert_eq!(*state.topic(topic_id(1)).unwrap().config, config);
    change(&mut state, Change::AlterTopic { id: topic_id(1), config: BTreeMap::new() }).unwrap();
    assert!(state.topic(topic_id(1)).unwrap().config.is_empty());
}

#[test]
fn a_topic_that_is_deleted_and_created_again_is_another_topic() {
    let mut state = with_topic();
    append(&mut state, key(1, 0), batch(2, 1));
    append(&mut state, key(1, 2), batch(2, 1));
    change(&mut state, Change::DeleteTopic { id: topic_id(1) }).unwrap();
    assert_eq!((state.partition_count(), state.run_count(), state.object_count()), (0, 0, 0));
    change(&mut state, create(2, "orders", 3)).unwrap();
    assert_eq!(state.topic_id("orders"), Some(topic_id(2)));
    assert_eq!(append(&mut state, key(2, 0), batch(1, 1)), Outcome::Appended(offset(0)));
    let late = append(&mut state, key(1, 0), batch(1, 1));
    assert_eq!(late, Outcome::Refused(BatchRefusal::UnknownTopic), "a batch is bound to the id, not to the name");
}

#[test]
fn deleting_a_topic_leaves_its_neighbours_in_shared_objects() {
    let mut state = with_topic();
    change(&mut state, create(2, "other", 1)).unwrap();
    let runs = vec![(key(1, 0), vec![batch(2, 1)]), (key(2, 0), vec![batch(3, 3)])];
    flush(&mut state, &proposal(1, runs)).unwrap();
    change(&mut state, Change::DeleteTopic { id: topic_id(1) }).unwrap();
    let (_, object) = state.objects().next().unwrap();
    assert_eq!((object.live_runs, object.live_bytes, state.object_count()), (1, 300, 1));
}

#[test]
fn the_log_start_only_moves_forward_within_the_log_and_drops_whole_runs() {
    let mut state = with_topic();
    append(&mut state, key(1, 0), batch(2, 1));
    append(&mut state, key(1, 0), batch(3, 3));
    let to = |offset_value| Change::MoveLogStart { partition: key(1, 0), offset: offset(offset_value) };
    let out = |asked, start| Refusal::LogStartOutOfRange {
        partition: key(1, 0),
        offset: offset(asked),
        log_start: offset(start),
        high_watermark: offset(5),
    };
    assert_eq!(refused(&mut state, to(0)), out(0, 0));
    assert_eq!(refused(&mut state, to(6)), out(6, 0));
    change(&mut state, to(1)).unwrap();
    assert_eq!(state.run_count(), 2, "a run that still holds a readable row stays");
    assert_eq!(refused(&mut state, to(1)), out(1, 1));
    change(&mut state, to(2)).unwrap();
    assert_eq!((state.run_count(), state.object_count()), (1, 1));
    change(&mut state, to(5)).unwrap();
    assert_eq!((state.run_count(), state.object_count()), (0, 0));
    assert_eq!(append(&mut state, key(1, 0), batch(1, 1)), Outcome::Appended(offset(5)), "offsets are never reused");
}

#[test]
fn decisions_of_one_draft_see_one_another() {
    let mut state = owned();
    let mut draft = Draft::after(&state);
    draft.change(create(1, "orders", 1)).unwrap();
    assert!(draft.change(create(2, "orders", 1)).is_err());
    let outcome = draft.flush(&proposal(1, vec![(key(1, 0), vec![batch(2, 1)])])).unwrap();
    assert_eq!(outcome.runs[0].1, [Outcome::Appended(offset(0))]);
    draft.change(Change::MoveLogStart { partition: key(1, 0), offset: offset(2) }).unwrap();
    draft.change(Change::DeleteTopic { id: topic_id(1) }).unwrap();
    let sealed = commit(&mut state, draft);
    assert_eq!((sealed.entries.len(), state.partition_count()), (4, 0));
}
