//! Members of both protocols in one group: from the one to the other and back, without anybody's partitions being anybody else's meanwhile.

use bytes::{BufMut, BytesMut};
use lakebed_model::{PartitionIndex, PartitionKey, TopicId, TopicName};
use uuid::Uuid;

use super::*;
use crate::groups::reconcile::member::{Beat, Beaten, Departure};
use crate::groups::reconcile::topics::Known;
use crate::groups::subscription;

fn topic() -> TopicId {
    TopicId::new(Uuid::from_u128(1))
}

fn keys(partitions: std::ops::Range<u32>) -> std::collections::BTreeSet<PartitionKey> {
    partitions.map(|index| PartitionKey::new(topic(), PartitionIndex::new(index))).collect()
}

/// What a consumer says of itself that wants `orders` and holds some of its partitions (version 1).
fn metadata(held: std::ops::Range<u32>) -> Bytes {
    let mut bytes = BytesMut::from(&[0, 1, 0, 0, 0, 1, 0, 6][..]);
    bytes.put_slice(b"orders");
    bytes.put_i32(-1);
    bytes.put_slice(&[0, 0, 0, 1, 0, 6]);
    bytes.put_slice(b"orders");
    bytes.put_u32(held.end - held.start);
    held.for_each(|index| bytes.put_u32(index));
    bytes.freeze()
}

fn reads(name: &str, held: std::ops::Range<u32>) -> Join {
    Join { protocols: vec![("range".to_owned(), metadata(held))], ..member(name) }
}

fn reads_again(name: &str, held: std::ops::Range<u32>) -> Join {
    Join { member_id: name.to_owned(), ..reads("unused", held) }
}

fn assignment(partitions: std::ops::Range<u32>) -> Bytes {
    let named: Vec<(&str, u32)> = partitions.map(|index| ("orders", index)).collect();
    subscription::write_assignment(&metadata(0..0), &named)
}

fn beat(name: &str, epoch: u32) -> Beat {
    let joins = epoch == 0;
    Beat {
        group: id(),
        kind: GroupKind::Consumer,
        member_id: name.to_owned(),
        epoch: Generation::new(epoch),
        instance_id: None,
        rack_id: None,
        client_id: "client".to_owned(),
        client_host: "/here".to_owned(),
        names: joins.then(|| vec!["orders".to_owned()]),
        pattern: None,
        assignor: None,
        owned: joins.then(std::collections::BTreeSet::new),
        session: 45 * SECOND,
        rebalance: joins.then_some(30 * SECOND),
    }
}

impl World {
    fn beaten(&mut self, beat: Beat) -> Result<Beaten, GroupError> {
        let to = self.ticket();
        self.machine.beat(self.now, beat, &self.stored, to);
        self.settle();
        self.told.remove(&to).expect("it was answered")
    }

    fn told_of(&mut self, beat: Beat) -> (u32, Option<std::collections::BTreeSet<PartitionKey>>) {
        let beaten = self.beaten(beat).unwrap();
        (beaten.epoch.get(), beaten.assignment)
    }

    fn named(&self, name: &str, generation: u32) -> MemberRef {
        MemberRef { generation: i32::try_from(generation).unwrap(), ..self.member(name) }
    }

    fn beat_as(&mut self, name: &str, generation: u32) -> Result<(), GroupError> {
        let from = self.named(name, generation);
        let beaten = self.machine.heartbeat(self.now, &from);
        self.settle();
        beaten
    }

    /// What a member is assigned that asks.
    fn asked(&mut self, name: &str, generation: u32) -> Result<Bytes, GroupError> {
        let ticket = self.sync_as(self.named(name, generation), &[]);
        self.synced.remove(&ticket).unwrap().map(|synced| synced.assignment)
    }

    fn departs(&mut self, name: &str) {
        let departure = Departure { group: id(), member_id: name.to_owned(), instance_id: None, comes_back: false };
        let stored = self.stored.clone();
        self.machine.depart(self.now, &departure, &stored).unwrap();
        self.settle();
    }

    fn kind(&self) -> Option<GroupKind> {
        self.machine.listed(&id()).and_then(|listed| listed.kind)
    }
}

/// A group of the classic protocol whose one member has all four partitions of `orders`.
fn classic() -> World {
    let mut world = World::new();
    let known = Known { id: topic(), partitions: 4 };
    world.machine.topics_changed(0, [(TopicName::new("orders").unwrap(), Some(known))]);
    let ticket = world.join(reads("a", 0..0));
    assert_eq!(world.joined(ticket).generation.get(), 1);
    let mut sync = Sync { member: world.member("a"), protocol_type: None, protocol: None, assignments: Vec::new() };
    sync.assignments.push(("a".to_owned(), assignment(0..4)));
    let to = world.ticket();
    world.machine.sync(world.now, sync, to);
    world.settle();
    assert_eq!(world.phase(), Phase::Stable);
    world
}

#[test]
fn a_member_of_the_new_protocol_takes_the_group_along_and_waits_for_what_the_others_have() {
    let mut world = classic();
    assert_eq!(world.told_of(beat("b", 0)), (2, Some(keys(0..0))));
    assert_eq!(world.kind(), Some(GroupKind::Consumer));
    assert_eq!(world.beat_as("a", 1), Err(GroupError::RebalanceInProgress));
    // One that gives up everything before it joins again.
    let ticket = world.join(reads_again("a", 0..0));
    let joined = world.joined(ticket).clone();
    assert_eq!((joined.generation.get(), joined.leader.as_str(), joined.protocol.as_str()), (2, "", "range"));
    assert_eq!(world.asked("a", 2), Ok(assignment(0..2)));
    assert_eq!(world.told_of(beat("b", 2)), (2, Some(keys(2..4))));
    assert_eq!(world.beat_as("a", 2), Ok(()));
    assert_eq!(world.commit(&world.named("a", 2)), Ok(Generation::new(2)));
    assert_eq!(world.commit(&world.named("a", 1)), Err(GroupError::IllegalGeneration));
    assert_eq!(world.commit(&world.named("b", 1)), Err(GroupError::StaleEpoch));
}

#[test]
fn one_that_keeps_what_it_has_joins_twice() {
    let mut world = classic();
    world.told_of(beat("b", 0));
    let ticket = world.join(reads_again("a", 0..4));
    assert_eq!(world.joined(ticket).generation.get(), 1, "it stays in its epoch until it has let go");
    assert_eq!(world.asked("a", 1), Ok(assignment(0..2)));
    assert_eq!(world.told_of(beat("b", 2)), (2, None));
    assert_eq!(world.beat_as("a", 1), Err(GroupError::RebalanceInProgress));
    let ticket = world.join(reads_again("a", 0..2));
    assert_eq!(world.joined(ticket).generation.get(), 2);
    assert_eq!(world.told_of(beat("b", 2)), (2, Some(keys(2..4))));
    assert_eq!(world.asked("a", 2), Ok(assignment(0..2)));
}

#[test]
fn when_the_last_of_the_new_protocol_goes_the_others_join_again_among_themselves() {
    let mut world = classic();
    world.told_of(beat("b", 0));
    let ticket = world.join(reads_again("a", 0..0));
    assert_eq!(world.joined(ticket).generation.get(), 2);
    world.departs("b");
    assert_eq!((world.kind(), world.phase()), (Some(GroupKind::Classic), Phase::Preparing));
    assert_eq!(world.beaten(beat("b", 2)), Err(GroupError::GroupNotFound));
    let ticket = world.join(reads_again("a", 0..2));
    let joined = world.joined(ticket).clone();
    assert_eq!((joined.generation.get(), joined.leader.as_str()), (4, "a"));
    assert_eq!(world.stored.kind, Some(GroupKind::Classic));
    world.leave("a").unwrap();
    assert_eq!(world.machine.size(), (0, 0, 0));
}

#[test]
fn new_members_of_the_classic_protocol_are_given_their_ids_first_and_leave_as_ever() {
    let mut world = classic();
    world.told_of(beat("b", 0));
    let asked = world.join(Join { wants_id_first: true, ..reads("c", 0..0) });
    assert_eq!(world.join_error(asked), &GroupError::MemberIdRequired { member_id: "c".to_owned() });
    let ticket = world.join(reads_again("c", 0..0));
    assert_eq!(world.joined(ticket).generation.get(), 3);
    let other = Join { protocols: vec![("sticky".to_owned(), metadata(0..0))], ..reads("d", 0..0) };
    let ticket = world.join(other);
    assert_eq!(world.join_error(ticket), &GroupError::InconsistentProtocol);
    let connect = world.join(Join { protocol_type: "connect".to_owned(), ..reads("d", 0..0) });
    assert_eq!(world.join_error(connect), &GroupError::InconsistentProtocol);
    assert_eq!(world.leave("b"), Err(GroupError::UnknownMember), "it leaves by a beat");
    assert_eq!((world.leave("c"), world.leave("c")), (Ok(()), Err(GroupError::UnknownMember)));
    assert_eq!(world.beat_as("b", 3), Err(GroupError::UnknownMember));
    assert_eq!(world.asked("b", 3), Err(GroupError::UnknownMember));
}

#[test]
fn one_that_does_not_join_again_in_time_is_out() {
    let mut world = classic();
    world.told_of(beat("b", 0));
    assert_eq!(world.beat_as("a", 1), Err(GroupError::RebalanceInProgress));
    for _ in 0..29 {
        world.wait(SECOND);
        assert_eq!(world.beat_as("a", 1), Err(GroupError::RebalanceInProgress));
    }
    world.wait(SECOND);
    assert_eq!(world.beat_as("a", 1), Err(GroupError::UnknownMember));
    assert_eq!(world.told_of(beat("b", 2)), (3, Some(keys(0..4))));
}

#[test]
fn a_group_whose_members_are_no_consumers_or_cannot_be_read_stays_as_it_is() {
    for wrong in [
        Join { protocol_type: "connect".to_owned(), ..reads("a", 0..0) },
        Join { protocols: vec![("range".to_owned(), Bytes::from_static(b"\0"))], ..reads("a", 0..0) },
    ] {
        let mut world = World::new();
        world.join(wrong);
        world.sync("a", &[]);
        assert_eq!(world.beaten(beat("b", 0)), Err(GroupError::OtherKind));
        assert_eq!((world.phase(), world.heartbeat("a")), (Phase::Stable, Ok(())));
    }
}

#[test]
fn those_who_wait_are_told_to_join_again_when_the_group_changes_its_protocol() {
    let mut world = classic();
    let waiting = world.join(reads("c", 0..0));
    assert!(world.waits(waiting), "a has not joined again");
    world.told_of(beat("b", 0));
    assert_eq!(world.join_error(waiting), &GroupError::RebalanceInProgress);
    // And the other way: what waits for an epoch to be durable.
    assert_eq!(world.machine.listed(&id()).map(|listed| listed.members), Some(3));
    let ticket = world.join(reads_again("c", 0..0));
    assert_eq!(world.joined(ticket).generation.get(), 2);
}
