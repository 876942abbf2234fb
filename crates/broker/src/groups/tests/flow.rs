//! How members come, go and are given their assignments.

use super::*;

#[test]
fn a_lone_member_joins_leads_and_gets_what_it_assigned_itself() {
    let mut world = World::new();
    let ticket = world.join(member("a"));
    let joined = world.joined(ticket).clone();
    assert_eq!((joined.generation.get(), joined.protocol.as_str(), joined.leader.as_str()), (1, "range", "a"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(world.phase(), Phase::Completing);
    let synced = world.sync("a", &[("a", "all")]);
    assert_eq!(world.assignment(synced), Ok(&b"all"[..]));
    assert_eq!((world.phase(), world.heartbeat("a")), (Phase::Stable, Ok(())));
}

#[test]
fn a_member_without_an_id_is_given_one_first_and_the_group_waits_for_it() {
    let mut world = stable(&["a"]);
    let asked = world.join(Join { wants_id_first: true, ..member("b") });
    assert_eq!(world.join_error(asked), &GroupError::MemberIdRequired { member_id: "b".to_owned() });
    let third = world.join(member("c"));
    world.join(again("a"));
    assert!(world.waits(third), "b has its id and may join any moment");
    let b = world.join(again("b"));
    assert_eq!((world.joined(b).generation, world.joined(third).generation.get()), (Generation::new(2), 2));
}

#[test]
fn an_id_that_nobody_joins_with_is_forgotten_after_its_session() {
    let mut world = World::new();
    world.join(Join { wants_id_first: true, ..member("b") });
    assert_eq!(world.machine.size().0, 1);
    world.wait(9 * SECOND);
    assert_eq!(world.machine.size().0, 1);
    world.wait(SECOND);
    assert_eq!(world.machine.size(), (0, 0, 0), "and nothing is left of the group");
    world.stored = nothing_stored();
    let late = world.join(again("b"));
    assert_eq!(world.join_error(late), &GroupError::UnknownMember);
}

#[test]
fn a_second_member_makes_the_first_join_again_and_the_leader_learns_of_both() {
    let mut world = stable(&["a"]);
    let b = world.join(member("b"));
    assert_eq!((world.phase(), world.heartbeat("a")), (Phase::Preparing, Err(GroupError::RebalanceInProgress)));
    let a = world.join(again("a"));
    let leader = world.joined(a);
    assert_eq!((leader.leader.as_str(), leader.members.len(), leader.generation.get()), ("a", 2, 2));
    assert!(world.joined(b).members.is_empty(), "only the leader is told of the others");
    let follower = world.sync("b", &[]);
    assert!(world.waits(follower));
    let leading = world.sync("a", &[("a", "one"), ("b", "two")]);
    assert_eq!((world.assignment(leading), world.assignment(follower)), (Ok(&b"one"[..]), Ok(&b"two"[..])));
    let repeated = world.sync("b", &[]);
    assert_eq!(world.assignment(repeated), Ok(&b"two"[..]), "an answer that was lost is given again");
}

#[test]
fn a_member_that_leaves_makes_the_others_join_again_and_the_last_one_leaves_an_empty_generation() {
    let mut world = stable(&["a", "b"]);
    assert_eq!(world.leave("a"), Ok(()));
    assert_eq!(world.phase(), Phase::Preparing);
    let b = world.join(again("b"));
    assert_eq!((world.joined(b).leader.as_str(), world.joined(b).members.len()), ("b", 1));
    assert_eq!(world.leave("a"), Err(GroupError::UnknownMember));
    assert_eq!(world.leave("b"), Ok(()));
    assert_eq!(world.started.last().map(|(_, members)| *members), Some(0));
    assert_eq!(world.machine.size(), (0, 0, 0), "an empty group is in the log, not in memory");
    let next = world.join(member("c"));
    assert_eq!(world.joined(next).generation.get(), world.started.len() as u32, "its generations go on");
}

#[test]
fn whoever_does_not_leave_is_not_thrown_out_by_one_that_is_none() {
    let mut world = stable(&["a"]);
    assert_eq!(world.leave("nobody"), Err(GroupError::UnknownMember));
    assert_eq!((world.phase(), world.heartbeat("a")), (Phase::Stable, Ok(())));
}

#[test]
fn a_new_group_waits_for_more_members_and_for_each_that_comes_anew() {
    let mut world = World::with(Limits { initial_delay: 3 * SECOND, ..limits() });
    let a = world.join(member("a"));
    world.wait(2 * SECOND);
    let b = world.join(member("b"));
    world.wait(2 * SECOND);
    assert!(world.waits(a) && world.waits(b), "b came within the first delay");
    world.wait(2 * SECOND);
    assert_eq!((world.joined(a).generation.get(), world.joined(b).generation.get()), (1, 1));
    assert_eq!(world.started.len(), 1, "one rebalance for both");
}

#[test]
fn the_wait_of_a_new_group_ends_with_the_time_to_rebalance_however_many_come() {
    let mut world = World::with(Limits { initial_delay: 3 * SECOND, members_max: 100, ..limits() });
    let first = world.join(Join { rebalance: 7 * SECOND, ..member("m0") });
    for number in 1..8 {
        world.wait(SECOND);
        world.join(Join { rebalance: 7 * SECOND, ..member(&format!("m{number}")) });
    }
    assert_eq!(world.joined(first).generation.get(), 1);
}

#[test]
fn members_vote_for_the_protocol_that_all_of_them_can() {
    let protocols = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect();
    let mut world = World::new();
    world.join(Join { protocols: protocols(&["sticky", "range"]), ..member("a") });
    world.join(Join { protocols: protocols(&["range", "sticky"]), ..member("b") });
    world.join(Join { protocols: protocols(&["roundrobin", "range", "sticky"]), ..member("c") });
    world.join(Join { protocols: protocols(&["sticky", "range"]), ..again("a") });
    let b = world.join(Join { protocols: protocols(&["range", "sticky"]), ..again("b") });
    assert_eq!(world.joined(b).protocol, "range", "two of three want it of those that all can");
    let none = world.join(Join { protocols: protocols(&["roundrobin"]), ..member("d") });
    assert_eq!(world.join_error(none), &GroupError::InconsistentProtocol);
    let other = world.join(Join { protocol_type: "connect".to_owned(), ..member("d") });
    assert_eq!(world.join_error(other), &GroupError::InconsistentProtocol);
    let nothing = world.join(Join { protocols: Vec::new(), ..member("d") });
    assert_eq!(world.join_error(nothing), &GroupError::InconsistentProtocol);
}

#[test]
fn a_follower_that_joins_again_as_it_was_is_told_the_same_and_one_that_changed_rebalances() {
    let mut world = stable(&["a", "b"]);
    let same = world.join(again("b"));
    assert_eq!((world.joined(same).generation.get(), world.phase()), (2, Phase::Stable));
    let changed = vec![("range".to_owned(), Bytes::from_static(b"other"))];
    let ticket = world.join(Join { protocols: changed, ..again("b") });
    assert!(world.waits(ticket));
    assert_eq!(world.phase(), Phase::Preparing);
}

#[test]
fn a_leader_that_joins_again_rebalances() {
    let mut world = stable(&["a", "b"]);
    let ticket = world.join(again("a"));
    assert!(world.waits(ticket));
    assert_eq!(world.heartbeat("b"), Err(GroupError::RebalanceInProgress));
}

#[test]
fn offsets_may_be_committed_by_members_of_the_generation_and_by_anybody_if_there_are_none() {
    let mut world = World::new();
    let nobody = MemberRef { group: id(), member_id: String::new(), instance_id: None, generation: -1 };
    assert_eq!(world.commit(&nobody), Ok(Generation::ZERO));
    let unknown = MemberRef { generation: 0, ..nobody.clone() };
    assert_eq!(world.commit(&unknown), Err(GroupError::IllegalGeneration), "of a group that does not exist");
    world.join(member("a"));
    let a = world.member("a");
    assert_eq!(world.commit(&a), Err(GroupError::RebalanceInProgress), "it has no assignment yet");
    world.sync("a", &[]);
    assert_eq!(world.commit(&a), Ok(Generation::new(1)));
    assert_eq!(world.commit(&nobody), Err(GroupError::UnknownMember), "not beside members");
    assert_eq!(world.commit(&MemberRef { generation: 2, ..a.clone() }), Err(GroupError::IllegalGeneration));
    assert_eq!(world.commit(&world.member("b")), Err(GroupError::UnknownMember));
    world.join(member("b"));
    assert_eq!(world.commit(&a), Ok(Generation::new(1)), "while others join, what was read is still committed");
}

#[test]
fn only_a_group_without_members_is_deleted_and_only_unread_topics_are() {
    let mut world = World::new();
    let stored = world.stored.clone();
    assert_eq!(world.machine.check_empty(&id(), &stored), Err(GroupError::GroupNotFound));
    let subscription = Bytes::from_static(b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff");
    world.join(Join { protocols: vec![("range".to_owned(), subscription)], ..member("a") });
    let stored = world.stored.clone();
    assert_eq!(world.machine.check_empty(&id(), &stored), Err(GroupError::NonEmptyGroup));
    let checked = world.machine.check_delete_offsets(&id(), &stored, &["orders", "clicks"]);
    assert_eq!(checked, Ok((Generation::new(1), vec!["orders"])));
    world.leave("a").unwrap();
    let stored = world.stored.clone();
    assert_eq!(world.machine.check_empty(&id(), &stored), Ok(Generation::new(2)));
    world.machine.deleted(world.now, &id(), Generation::new(2));
    world.stored = nothing_stored();
    let next = world.join(member("b"));
    assert_eq!(world.joined(next).generation.get(), 3, "a number is never used twice");
}

#[test]
fn after_a_restart_nobody_is_a_member_and_the_next_generation_is_above_all_before() {
    let mut world = World::new();
    world.stored = Stored {
        kind: Some(GroupKind::Classic),
        generation: Generation::new(41),
        protocol_type: "consumer".to_owned(),
    };
    world.started.push((Generation::new(41), 1));
    assert_eq!(world.heartbeat("a"), Err(GroupError::UnknownMember));
    assert_eq!(world.commit(&world.member("a")), Err(GroupError::UnknownMember));
    let old = world.join(again("a"));
    assert_eq!(world.join_error(old), &GroupError::UnknownMember);
    let new = world.join(member("b"));
    assert_eq!(world.joined(new).generation.get(), 42);
}
