//! Static members (KIP-345): an instance keeps its place while its client restarts.

use super::*;

fn instance(name: &str, instance: &str) -> Join {
    Join { instance_id: Some(instance.to_owned()), ..member(name) }
}

fn as_instance(world: &World, name: &str, instance: &str) -> MemberRef {
    MemberRef { instance_id: Some(instance.to_owned()), ..world.member(name) }
}

/// A stable group of a static leader `a` and a static follower `b`.
fn pair() -> World {
    let mut world = World::new();
    world.join(instance("a", "A"));
    world.join(instance("b", "B"));
    world.join(Join { member_id: "a".to_owned(), ..instance("unused", "A") });
    world.sync("b", &[]);
    world.sync("a", &[("a", "one"), ("b", "two")]);
    assert_eq!(world.phase(), Phase::Stable);
    world
}

#[test]
fn a_static_member_is_not_given_an_id_first() {
    let mut world = World::new();
    let ticket = world.join(Join { wants_id_first: true, ..instance("a", "A") });
    assert_eq!(world.joined(ticket).member_id, "a");
}

#[test]
fn an_instance_that_begins_anew_takes_its_place_without_a_rebalance_and_the_old_id_is_fenced() {
    let mut world = pair();
    let ticket = world.join(instance("b2", "B"));
    let joined = world.joined(ticket).clone();
    assert_eq!((joined.generation.get(), joined.member_id.as_str(), world.phase()), (2, "b2", Phase::Stable));
    let synced = world.sync_as(as_instance(&world, "b2", "B"), &[]);
    assert_eq!(world.assignment(synced), Ok(&b"two"[..]), "the assignment that the instance had");
    let old = as_instance(&world, "b", "B");
    assert_eq!(world.machine.heartbeat(world.now, &old), Err(GroupError::FencedInstance));
    assert_eq!(world.commit(&old), Err(GroupError::FencedInstance));
    let fenced = world.sync_as(old, &[]);
    assert_eq!(world.assignment(fenced), Err(&GroupError::FencedInstance));
    let stranger = as_instance(&world, "b2", "C");
    assert_eq!(world.machine.heartbeat(world.now, &stranger), Err(GroupError::UnknownMember));
}

#[test]
fn a_leader_that_begins_anew_is_told_to_follow_or_that_nothing_is_to_be_assigned() {
    let mut world = pair();
    let old_client = world.join(instance("a2", "A"));
    assert_eq!(world.joined(old_client).leader, "a", "it must not assign, so it is not told that it leads");
    assert!(world.joined(old_client).members.is_empty());
    let new_client = world.join(Join { may_skip_assignment: true, ..instance("a3", "A") });
    let joined = world.joined(new_client);
    assert_eq!((joined.leader.as_str(), joined.skip_assignment, joined.members.len()), ("a3", true, 2));
}

#[test]
fn an_instance_that_begins_anew_while_it_waits_fences_the_one_that_waits() {
    let mut world = stable(&["a"]);
    let first = world.join(instance("b", "B"));
    let second = world.join(instance("b2", "B"));
    assert_eq!(world.join_error(first), &GroupError::FencedInstance);
    assert!(world.waits(second));
    world.join(again("a"));
    assert_eq!(world.joined(second).member_id, "b2");
    assert_eq!(world.names(), ["a", "b2"]);
}

#[test]
fn a_static_member_that_is_away_is_waited_for_as_long_as_its_session_lasts() {
    let mut world = pair();
    let c = world.join(Join { rebalance: 3 * SECOND, ..member("c") });
    world.join(Join { member_id: "a".to_owned(), rebalance: 3 * SECOND, ..instance("unused", "A") });
    assert!(world.waits(c));
    world.wait(9 * SECOND);
    assert!(world.waits(c), "everybody's time to join is over, but for b's");
    world.wait(SECOND);
    assert!(!world.waits(c));
    let members = world.machine.describe(&id()).unwrap().members;
    assert_eq!(members.len(), 2, "b was gone after its session of 10 s");
}

#[test]
fn an_instance_is_removed_by_its_name_alone() {
    let mut world = pair();
    let members = [(String::new(), Some("B".to_owned())), (String::new(), Some("nobody".to_owned()))];
    let left = world.machine.leave(world.now, &id(), &members).unwrap();
    world.settle();
    assert_eq!(left, [Ok(()), Err(GroupError::UnknownMember)]);
    assert_eq!(world.phase(), Phase::Preparing);
}
