//! Coming, going, letting go, and what is told when.

use super::*;

#[test]
fn the_first_member_gets_everything_and_is_told_it_once() {
    let mut world = World::new(4);
    assert_eq!(world.told(joins("a")), (1, Some(keys(1, 0..4))));
    assert_eq!(world.told(there("a", 1)), (1, None));
    assert_eq!(world.told(holds("a", 1, keys(1, 0..4))), (1, None));
    assert_eq!(world.progress(), Progress::Stable);
    // One that says everything is told everything.
    let whole = Beat { epoch: Generation::new(1), owned: Some(keys(1, 0..4)), ..joins("a") };
    assert_eq!(world.told(whole), (1, Some(keys(1, 0..4))));
}

#[test]
fn a_second_member_gets_its_share_when_the_first_has_let_go_of_it() {
    let mut world = World::new(4);
    world.told(joins("a"));
    assert_eq!(world.told(joins("b")), (2, Some(Partitions::new())), "nothing is free");
    assert_eq!(world.progress(), Progress::Reconciling);
    assert_eq!(world.told(there("a", 1)), (1, Some(keys(1, 0..2))), "it stays in its epoch until it has let go");
    assert_eq!(world.told(there("b", 2)), (2, None));
    assert_eq!(world.told(holds("a", 1, keys(1, 0..4))), (1, None), "it still holds them");
    assert_eq!(world.told(there("b", 2)), (2, None));
    assert_eq!(world.told(holds("a", 1, keys(1, 0..2))), (2, None));
    assert_eq!(world.told(there("b", 2)), (2, Some(keys(1, 2..4))));
    assert_eq!(world.progress(), Progress::Stable);
}

#[test]
fn what_one_that_leaves_had_is_free_at_once() {
    let mut world = World::new(4);
    world.told(joins("a"));
    world.told(joins("b"));
    world.told(there("a", 1));
    world.told(holds("a", 1, keys(1, 0..2)));
    world.told(there("b", 2));
    assert_eq!(world.depart(&leaves("a")), Ok(()));
    assert_eq!(world.progress(), Progress::Assigning);
    assert_eq!(world.told(there("b", 2)), (3, Some(keys(1, 0..4))));
    assert_eq!(world.beat(there("a", 2)), Err(GroupError::UnknownMember));
    assert_eq!(world.depart(&leaves("a")), Err(GroupError::UnknownMember));
    assert_eq!(world.depart(&leaves("b")), Ok(()));
    assert_eq!((world.group(), world.machine.size()), (None, (0, 0, 0)));
    assert_eq!(world.beat(there("b", 3)), Err(GroupError::UnknownMember));
    assert_eq!(world.told(joins("b")).0, 5, "4 had no members");
}

#[test]
fn nobody_learns_of_an_epoch_that_is_not_durable() {
    let mut world = World::new(2);
    world.at_once = false;
    let first = world.send(joins("a"));
    assert_eq!((world.told.get(&first), &world.begun[..]), (None, &[(Generation::new(1), 1)][..]));
    let second = world.send(joins("b"));
    world.machine.durable(0, &(id(), Generation::new(1)));
    world.begun.remove(0);
    world.settle();
    assert!(world.told[&first].is_ok() && !world.told.contains_key(&second));
    world.all_durable();
    assert!(world.told[&second].is_ok());
    // It can't be made durable: everybody begins anew, and who waits is told.
    let third = world.send(joins("c"));
    let waits = world.send(there("b", 2));
    let why = GroupError::NotAvailable { why: "no store".to_owned() };
    world.machine.not_durable(0, &id(), &why);
    world.begun.clear();
    world.settle();
    assert_eq!((&world.told[&third], &world.told[&waits]), (&Err(why.clone()), &Err(why)));
    assert_eq!(world.machine.size(), (0, 0, 0));
}

#[test]
fn one_that_asks_again_gives_the_older_question_up() {
    let mut world = World::new(2);
    world.at_once = false;
    let first = world.send(joins("a"));
    let again = world.send(joins("a"));
    assert!(matches!(world.told[&first], Err(GroupError::NotAvailable { .. })));
    world.all_durable();
    assert_eq!(world.told[&again].as_ref().unwrap().assignment, Some(keys(1, 0..2)));
}

#[test]
fn a_lost_answer_is_given_again_and_any_other_epoch_is_fenced() {
    let mut world = World::new(4);
    world.told(joins("a"));
    world.told(joins("b"));
    world.depart(&leaves("b")).unwrap();
    assert_eq!(world.told(there("a", 1)).0, 3);
    // The answer is lost, and it comes again with what it had.
    assert_eq!(world.told(holds("a", 1, keys(1, 0..4))), (3, None));
    assert_eq!(world.beat(there("a", 1)), Err(GroupError::FencedEpoch), "it does not say what it holds");
    assert_eq!(world.beat(holds("a", 1, keys(1, 0..5))), Err(GroupError::FencedEpoch), "it holds more");
    assert_eq!(world.beat(there("a", 2)), Err(GroupError::FencedEpoch));
    assert_eq!(world.beat(there("a", 4)), Err(GroupError::FencedEpoch));
    assert_eq!(world.beat(joins("a")), Err(GroupError::FencedEpoch));
}

#[test]
fn a_member_that_says_nothing_for_its_session_is_out() {
    let mut world = World::new(2);
    world.told(joins("a"));
    world.wait(SESSION - 1);
    world.told(there("a", 1));
    world.wait(SESSION - 1);
    assert!(world.beat(there("a", 1)).is_ok());
    world.wait(SESSION);
    assert_eq!(world.beat(there("a", 1)), Err(GroupError::UnknownMember));
    assert_eq!(world.machine.next_due(), None);
}

#[test]
fn a_member_that_does_not_let_go_in_time_is_out() {
    let mut world = World::new(2);
    world.told(Beat { rebalance: Some(10 * SECOND), ..joins("a") });
    world.told(joins("b"));
    assert_eq!(world.told(there("a", 1)), (1, Some(keys(1, 0..1))));
    world.wait(9 * SECOND);
    assert!(world.beat(there("a", 1)).is_ok());
    world.wait(SECOND);
    assert_eq!(world.beat(there("a", 1)), Err(GroupError::UnknownMember));
    assert_eq!(world.told(there("b", 2)), (3, Some(keys(1, 0..2))));
}

#[test]
fn one_that_lets_go_in_time_is_not_put_out_afterwards() {
    let mut world = World::new(2);
    world.told(Beat { rebalance: Some(10 * SECOND), ..joins("a") });
    world.told(joins("b"));
    world.told(there("a", 1));
    assert_eq!(world.told(holds("a", 1, keys(1, 0..1))).0, 2);
    world.wait(20 * SECOND);
    assert!(world.beat(there("a", 2)).is_ok());
}

#[test]
fn there_is_room_for_so_many_members_and_so_many_bytes() {
    let mut world = World::new(2);
    for number in 0..6 {
        world.told(joins(&format!("m{number}")));
    }
    assert_eq!(world.beat(joins("one more")), Err(GroupError::GroupFull));
    assert!(world.beat(there("m0", 1)).is_ok());
    world.depart(&leaves("m0")).unwrap();
    let large = Beat { names: Some(vec!["x".repeat(1 << 20)]), ..joins("large") };
    assert_eq!(world.beat(large), Err(GroupError::Overloaded));
    assert!(world.beat(joins("small")).is_ok());
}

#[test]
fn who_would_be_told_something_new_is_nudged_once() {
    let mut world = World::new(4);
    world.told(joins("a"));
    assert_eq!(world.take_nudged(), Vec::<String>::new());
    world.told(joins("b"));
    world.told(joins("c"));
    assert_eq!(world.take_nudged(), ["a", "b"], "once each, though b came, too");
    world.told(there("a", 1));
    let kept = world.member("a").assigned;
    assert_eq!(world.take_nudged(), Vec::<String>::new(), "nothing is free yet");
    world.told(holds("a", 1, kept));
    let nudged = world.take_nudged();
    assert!(!nudged.is_empty() && !nudged.contains(&"a".to_owned()), "{nudged:?}");
    for name in nudged {
        let epoch = world.member(&name).epoch.unwrap().get();
        assert!(world.told(there(&name, epoch)).1.is_some(), "{name} has something new");
    }
    world.topic("unheard-of", 9, Some(1));
    assert_eq!(world.take_nudged(), Vec::<String>::new(), "it concerns nobody");
    world.topic("orders", 1, Some(5));
    assert_eq!(world.take_nudged(), ["a", "c"], "b has not asked since it was nudged");
    let epoch = world.member("c").epoch.unwrap().get();
    world.told(there("c", epoch));
    world.wait(SESSION - 1);
    world.told(there("a", world.member("a").epoch.unwrap().get()));
    world.take_nudged();
    world.wait(1);
    assert!(world.take_nudged().contains(&"c".to_owned()), "it is out");
}

#[test]
fn members_of_two_kinds_share_no_group_until_it_is_empty() {
    let mut world = World::new(2);
    world.told(joins("a"));
    let other = Beat { kind: GroupKind::Consumer, ..joins("b") };
    assert_eq!(world.beat(other.clone()), Err(GroupError::OtherKind));
    world.depart(&leaves("a")).unwrap();
    let ticket = world.tickets + 1;
    world.machine.beat(world.now, other, &world.stored, ticket);
    let [Effect::Start(start)] = &world.machine.take_effects()[..] else { panic!("one epoch begins") };
    assert_eq!((start.kind, start.generation.get()), (GroupKind::Consumer, 3));
}
