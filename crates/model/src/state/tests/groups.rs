//! Claims about groups: generations that only rise, commits that name them, offsets that go with their topics.

use std::collections::BTreeMap;

use super::{change, create, key, owned, topic_id};
use crate::draft::{Change, Draft};
use crate::group::{
    CommitOffsets, CommittedOffset, DeleteOffsets, GROUPS_BYTES_MAX, GroupId, GroupKind, OFFSET_METADATA_BYTES_MAX,
    StartGeneration,
};
use crate::ids::{Generation, Offset, PartitionKey};
use crate::state::{Refusal, State};

/// One of a few groups, the empty id among them.
pub(super) fn group_of(pick: u8) -> GroupId {
    GroupId::new(["", "readers", "writers"][usize::from(pick) % 3]).unwrap()
}

/// A naive account of what groups have committed: told by what was accepted, it knows nothing of how a state keeps it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    committed: BTreeMap<(GroupId, PartitionKey), CommittedOffset>,
    /// The greatest generation that each name ever had.
    greatest: BTreeMap<GroupId, Generation>,
    /// The group's generation, members and beginning.
    current: BTreeMap<GroupId, (Generation, u32, i64)>,
}

impl Ledger {
    /// Writes down what a change did, and whether it might. `state` is the one after it.
    pub(super) fn account(&mut self, change: &Change, accepted: bool, state: &State) {
        let in_force = |ledger: &Self, group: &GroupId| ledger.current.get(group).map(|(generation, ..)| *generation);
        match change {
            Change::StartGeneration(start) if accepted => {
                let greatest = self.greatest.entry(start.group.clone()).or_default();
                assert!(start.generation > *greatest, "generation {} again", start.generation);
                *greatest = start.generation;
                self.current.insert(start.group.clone(), (start.generation, start.members, start.time_ms));
            }
            Change::CommitOffsets(commit) => {
                let expected = in_force(self, &commit.group).unwrap_or_default();
                let exist = commit.offsets.iter().all(|(key, _)| state.partition(*key).is_some());
                assert_eq!(accepted, commit.generation == expected && exist, "{commit:?} under {expected}");
                for (key, committed) in commit.offsets.iter().filter(|_| accepted) {
                    self.committed.insert((commit.group.clone(), *key), committed.clone());
                }
                if accepted {
                    self.current.entry(commit.group.clone()).or_default();
                }
            }
            Change::DeleteOffsets(delete) => {
                assert_eq!(accepted, in_force(self, &delete.group) == Some(delete.generation), "{delete:?}");
                self.committed
                    .retain(|(group, key), _| !accepted || *group != delete.group || !delete.partitions.contains(key));
            }
            Change::DeleteGroup { group, generation } => {
                assert_eq!(accepted, in_force(self, group) == Some(*generation), "{group} {generation}");
                if accepted {
                    self.forget(group);
                }
            }
            Change::ExpireOffsets { group, before_ms, .. } if accepted => {
                let (_, members, since_ms) = self.current[group];
                assert_eq!(members, 0, "a group with members keeps what it has");
                self.committed.retain(|(owner, _), committed| owner != group || committed.time_ms >= *before_ms);
                if since_ms < *before_ms && !self.committed.keys().any(|(owner, _)| owner == group) {
                    self.forget(group);
                }
            }
            Change::DeleteTopic { id } if accepted => self.committed.retain(|(_, key), _| key.topic != *id),
            _ => {}
        }
    }

    fn forget(&mut self, group: &GroupId) {
        self.current.remove(group);
        self.committed.retain(|(owner, _), _| owner != group);
    }

    /// Compares a state with the account.
    pub(super) fn check(&self, state: &State) {
        let found = state.groups().flat_map(|(id, group)| {
            group.offsets.iter().map(|(key, committed)| ((id.clone(), *key), committed.clone()))
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), self.committed);
        let found = state.groups().map(|(id, group)| (id.clone(), (group.generation, group.members, group.since_ms)));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), self.current);
    }
}

fn at(offset: u64) -> CommittedOffset {
    CommittedOffset { offset: Offset::new(offset), leader_epoch: Some(0), time_ms: 5, metadata: "m".into() }
}

fn start(generation: u32, members: u32) -> Change {
    Change::StartGeneration(StartGeneration {
        group: group_of(1),
        generation: Generation::new(generation),
        kind: GroupKind::Classic,
        protocol_type: "consumer".into(),
        members,
        time_ms: 7,
    })
}

fn commit(generation: u32, offsets: Vec<(PartitionKey, CommittedOffset)>) -> Change {
    Change::CommitOffsets(CommitOffsets { group: group_of(1), generation: Generation::new(generation), offsets })
}

fn started() -> Draft {
    let mut state = owned();
    for step in [create(1, "orders", 2), create(2, "clicks", 1), start(3, 1)] {
        change(&mut state, step).unwrap();
    }
    Draft::after(&state)
}

#[test]
fn a_commit_of_another_generation_than_the_one_in_force_changes_nothing() {
    let mut draft = started();
    draft.change(commit(3, vec![(key(1, 0), at(5))])).unwrap();
    draft.change(start(4, 2)).unwrap();
    let before = draft.state().clone();
    for named in [3, 5, 0] {
        let (named, current) = (Generation::new(named), Generation::new(4));
        let refused = draft.change(commit(named.get(), vec![(key(1, 0), at(9))]));
        assert_eq!(refused, Err(Refusal::StaleGeneration { group: group_of(1), named, current }));
    }
    assert_eq!(*draft.state(), before);
    assert_eq!(before.committed(&group_of(1), key(1, 0)), Some(&at(5)), "what was committed outlives its generation");
}

#[test]
fn a_generation_is_never_used_twice_not_even_when_the_group_was_deleted() {
    let mut draft = started();
    assert!(draft.change(start(3, 1)).is_err());
    assert!(draft.change(start(2, 1)).is_err());
    assert!(draft.change(start(i32::MAX as u32 + 1, 1)).is_err());
    draft.change(Change::DeleteGroup { group: group_of(1), generation: Generation::new(3) }).unwrap();
    assert_eq!(draft.state().group_count(), 0);
    assert!(draft.change(start(3, 1)).is_err());
    draft.change(start(4, 1)).unwrap();
}

#[test]
fn what_was_committed_goes_with_its_topic_and_with_no_other() {
    let mut draft = started();
    draft.change(commit(3, vec![(key(1, 0), at(1)), (key(1, 1), at(2)), (key(2, 0), at(3))])).unwrap();
    draft.change(Change::DeleteTopic { id: topic_id(1) }).unwrap();
    let left: Vec<_> = draft.state().group(&group_of(1)).unwrap().offsets.keys().copied().collect();
    assert_eq!(left, [key(2, 0)]);
    draft.change(create(3, "orders", 2)).unwrap();
    assert_eq!(draft.state().committed(&group_of(1), key(3, 0)), None, "another topic of the name begins anew");
    draft.state().check_invariants().unwrap();
}

#[test]
fn only_what_is_older_expires_and_only_of_a_group_without_members() {
    let mut draft = started();
    let newer = CommittedOffset { time_ms: 50, ..at(2) };
    draft.change(commit(3, vec![(key(1, 0), at(1)), (key(1, 1), newer)])).unwrap();
    let expire = |generation, before_ms| Change::ExpireOffsets { group: group_of(1), generation, before_ms };
    let three = Generation::new(3);
    assert_eq!(draft.change(expire(three, 100)), Err(Refusal::GroupHasMembers { group: group_of(1) }));
    draft.change(start(4, 0)).unwrap();
    assert!(draft.change(expire(three, 100)).is_err());
    let four = Generation::new(4);
    draft.change(expire(four, 50)).unwrap();
    assert_eq!(draft.state().group(&group_of(1)).unwrap().offsets.len(), 1);
    draft.change(expire(four, 51)).unwrap();
    assert_eq!(draft.state().group(&group_of(1)), None, "nothing is left, and it had no members for as long");
}

#[test]
fn malformed_commits_and_unknown_groups_and_partitions_are_refused() {
    let mut draft = started();
    let before = draft.state().clone();
    let long = CommittedOffset { metadata: "x".repeat(OFFSET_METADATA_BYTES_MAX + 1).into(), ..at(1) };
    let far = CommittedOffset { offset: Offset::new(u64::MAX), ..at(1) };
    for offsets in [
        vec![],
        vec![(key(1, 1), at(1)), (key(1, 0), at(1))],
        vec![(key(1, 0), at(1)), (key(1, 0), at(1))],
        vec![(key(1, 0), long)],
        vec![(key(1, 0), far)],
    ] {
        assert!(matches!(draft.change(commit(3, offsets)), Err(Refusal::Malformed { .. })));
    }
    let missing = draft.change(commit(3, vec![(key(1, 0), at(1)), (key(1, 2), at(1))]));
    assert_eq!(missing, Err(Refusal::UnknownPartition { partition: key(1, 2) }));
    let unknown = DeleteOffsets { group: group_of(2), generation: Generation::ZERO, partitions: vec![key(1, 0)] };
    assert_eq!(draft.change(Change::DeleteOffsets(unknown)), Err(Refusal::UnknownGroup { group: group_of(2) }));
    assert_eq!(*draft.state(), before);
}

#[test]
fn groups_that_would_take_more_than_their_room_are_refused_and_what_makes_room_is_not() {
    let mut draft = started();
    draft.change(create(9, "wide", 10_000)).unwrap();
    let metadata: std::sync::Arc<str> = "x".repeat(OFFSET_METADATA_BYTES_MAX).into();
    let wide = |range: std::ops::Range<u32>| {
        let offset = CommittedOffset { metadata: metadata.clone(), ..at(1) };
        commit(3, range.map(|partition| (key(9, partition), offset.clone())).collect())
    };
    let fit = u32::try_from(GROUPS_BYTES_MAX / (OFFSET_METADATA_BYTES_MAX as u64 + 160)).unwrap() - 1;
    draft.change(wide(0..fit)).unwrap();
    let before = draft.state().clone();
    assert_eq!(draft.change(wide(fit..fit + 2)), Err(Refusal::GroupsFull { bytes_max: GROUPS_BYTES_MAX }));
    assert_eq!(*draft.state(), before);
    draft.change(commit(3, vec![(key(9, 0), at(1)), (key(9, 1), at(1))])).unwrap();
    draft.change(wide(fit..fit + 1)).unwrap();
}
