//! What members fail to do, and what is refused.

use super::*;

#[test]
fn a_member_that_is_not_heard_of_for_its_session_is_gone() {
    let mut world = stable(&["a", "b"]);
    world.wait(9 * SECOND);
    assert_eq!(world.heartbeat("b"), Ok(()));
    world.wait(SECOND);
    assert_eq!(world.phase(), Phase::Preparing, "a is gone, and b has to join again");
    assert_eq!(world.heartbeat("a"), Err(GroupError::UnknownMember));
    let b = world.join(again("b"));
    assert_eq!((world.joined(b).leader.as_str(), world.joined(b).members.len()), ("b", 1));
}

#[test]
fn a_commit_of_offsets_is_a_sign_of_life() {
    let mut world = stable(&["a"]);
    world.wait(9 * SECOND);
    let a = world.member("a");
    world.commit(&a).unwrap();
    world.wait(9 * SECOND);
    assert_eq!(world.heartbeat("a"), Ok(()));
    world.wait(10 * SECOND);
    assert_eq!(world.heartbeat("a"), Err(GroupError::UnknownMember));
}

#[test]
fn a_rebalance_waits_for_its_time_and_then_goes_on_without_those_who_did_not_join() {
    let mut world = stable(&["a", "b"]);
    let c = world.join(member("c"));
    for _ in 0..5 {
        world.wait(5 * SECOND);
        assert_eq!(world.heartbeat("a"), Err(GroupError::RebalanceInProgress));
        assert_eq!(world.heartbeat("b"), Err(GroupError::RebalanceInProgress));
    }
    let b = world.join(again("b"));
    assert!(world.waits(c));
    world.wait(5 * SECOND);
    assert_eq!(world.joined(c).generation, world.joined(b).generation);
    assert_eq!(world.names().len(), 2, "a sends heartbeats but did not join within 30 s");
    let leader = world.joined(c).leader.clone();
    assert_ne!(leader, "a");
}

#[test]
fn members_that_don_t_ask_for_their_assignment_are_gone_after_the_time_to_rebalance() {
    let mut world = stable(&["a"]);
    let b = world.join(member("b"));
    world.join(again("a"));
    assert!(!world.waits(b));
    world.sync("a", &[("a", "x"), ("b", "y")]);
    for _ in 0..6 {
        world.wait(5 * SECOND);
        let _ = (world.heartbeat("a"), world.heartbeat("b"));
    }
    assert_eq!(world.phase(), Phase::Preparing);
    assert_eq!(world.heartbeat("b"), Err(GroupError::UnknownMember));
    assert_eq!(world.heartbeat("a"), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_follower_whose_leader_dies_before_it_assigned_is_told_to_join_again() {
    let mut world = stable(&["a"]);
    world.join(member("b"));
    world.join(again("a"));
    let waiting = world.sync("b", &[]);
    world.wait(10 * SECOND);
    assert_eq!(world.assignment(waiting), Err(&GroupError::RebalanceInProgress));
    let b = world.join(again("b"));
    assert_eq!(world.joined(b).leader, "b");
}

#[test]
fn a_member_whose_connection_broke_while_it_waited_is_gone_after_its_session() {
    // Its answer goes nowhere; nothing else is heard of it.
    let mut world = stable(&["a"]);
    let b = world.join(member("b"));
    world.join(again("a"));
    assert!(!world.waits(b));
    world.sync("a", &[("a", "x")]);
    world.wait(9 * SECOND);
    world.heartbeat("a").unwrap();
    world.wait(SECOND);
    assert_eq!(world.heartbeat("b"), Err(GroupError::UnknownMember));
}

#[test]
fn sessions_out_of_bounds_and_groups_without_a_name_are_refused() {
    let mut world = World::new();
    for session in [6 * SECOND - 1, 60 * SECOND + 1] {
        let ticket = world.join(Join { session, ..member("a") });
        assert_eq!(world.join_error(ticket), &GroupError::InvalidSessionTimeout);
    }
    let nameless = GroupId::new("").unwrap();
    let ticket = world.join(Join { group: nameless.clone(), ..member("a") });
    assert_eq!(world.join_error(ticket), &GroupError::InvalidGroupId);
    let from = MemberRef { group: nameless, ..world.member("a") };
    assert_eq!(world.machine.heartbeat(0, &from), Err(GroupError::InvalidGroupId));
}

#[test]
fn a_generation_or_protocol_that_is_not_the_group_s_is_refused() {
    let mut world = stable(&["a"]);
    let a = world.member("a");
    for generation in [0, 2, -1] {
        let wrong = MemberRef { generation, ..a.clone() };
        assert_eq!(world.machine.heartbeat(world.now, &wrong), Err(GroupError::IllegalGeneration));
        let ticket = world.sync_as(wrong, &[]);
        assert_eq!(world.assignment(ticket), Err(&GroupError::IllegalGeneration));
    }
    for (protocol_type, protocol) in [(Some("connect"), None), (None, Some("sticky"))] {
        let to = world.ticket();
        let sync = Sync {
            member: a.clone(),
            protocol_type: protocol_type.map(str::to_owned),
            protocol: protocol.map(str::to_owned),
            assignments: Vec::new(),
        };
        world.machine.sync(world.now, sync, to);
        world.settle();
        assert_eq!(world.assignment(to), Err(&GroupError::InconsistentProtocol));
    }
}

#[test]
fn a_full_group_takes_nobody_more() {
    let mut world = stable(&["a", "b", "c", "d"]);
    let e = world.join(member("e"));
    assert_eq!(world.join_error(e), &GroupError::GroupFull);
    assert_eq!(world.phase(), Phase::Stable);
}

#[test]
fn at_the_bound_in_bytes_nobody_is_taken_in_and_what_is_freed_can_be_used_again() {
    let mut world = World::with(Limits { bytes_max: 64 * 1024, ..limits() });
    let large = |name: &str| {
        let protocols = vec![("range".to_owned(), Bytes::from(vec![1; 40 * 1024]))];
        Join { protocols, ..member(name) }
    };
    let a = world.join(large("a"));
    assert_eq!(world.joined(a).generation.get(), 1);
    let b = world.join(large("b"));
    assert_eq!(world.join_error(b), &GroupError::Overloaded);
    let huge = world.sync("a", &[("a", std::str::from_utf8(&[b'x'; 64 * 1024]).unwrap().to_owned().leak())]);
    assert_eq!(world.assignment(huge), Err(&GroupError::Overloaded));
    world.leave("a").unwrap();
    assert_eq!(world.machine.size(), (0, 0, 0));
    let b = world.join(large("b"));
    assert_eq!(world.joined(b).generation.get(), 3);
}

#[test]
fn a_generation_that_could_not_be_made_durable_answers_nobody_with_it_and_everybody_begins_anew() {
    let mut world = stable(&["a"]);
    world.machine.not_durable(world.now, &id(), &GroupError::NotCoordinator);
    world.settle();
    assert_eq!((world.phase(), world.heartbeat("a")), (Phase::Empty, Err(GroupError::UnknownMember)));
    let b = world.join(member("b"));
    assert_eq!(world.joined(b).generation.get(), 2);
}

#[test]
fn stopping_answers_everybody_who_waits_and_takes_nobody_in() {
    let mut world = stable(&["a", "b"]);
    let c = world.join(member("c"));
    world.machine.stop(world.now);
    world.settle();
    assert!(matches!(world.join_error(c), GroupError::Stopped));
    let d = world.join(member("d"));
    assert!(matches!(world.join_error(d), GroupError::Stopped));
    assert!(matches!(world.heartbeat("a"), Err(GroupError::Stopped)));
    assert_eq!((world.machine.size(), world.machine.next_due()), ((0, 0, 0), None));
}
