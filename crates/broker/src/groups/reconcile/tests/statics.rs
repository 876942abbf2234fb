//! Static members: whoever comes under the name takes the place.

use super::*;

fn static_joins(name: &str, instance: &str) -> Beat {
    Beat { instance_id: Some(instance.to_owned()), ..joins(name) }
}

fn goes_for_a_while(name: &str, instance: &str) -> Departure {
    Departure { instance_id: Some(instance.to_owned()), comes_back: true, ..leaves(name) }
}

#[test]
fn the_place_of_one_that_goes_for_a_while_is_kept_for_who_comes_under_its_name() {
    let mut world = World::new(4);
    assert_eq!(world.told(static_joins("a", "i")), (1, Some(keys(1, 0..4))));
    assert_eq!(world.beat(static_joins("b", "i")), Err(GroupError::UnreleasedInstance));
    assert_eq!(world.depart(&goes_for_a_while("a", "i")), Ok(()));
    assert_eq!(world.member("a").epoch, None);
    let there_as = |name| Beat { instance_id: Some("i".to_owned()), ..there(name, 1) };
    assert_eq!(world.beat(there_as("a")), Err(GroupError::FencedEpoch));
    assert_eq!(world.told(static_joins("b", "i")), (1, Some(keys(1, 0..4))), "no epoch begins");
    assert_eq!(world.beat(there_as("a")), Err(GroupError::FencedInstance));
    assert_eq!(world.told(there_as("b")), (1, None));
    assert_eq!(world.machine.size().1, 1);
}

#[test]
fn the_same_process_may_come_back_under_its_old_id() {
    let mut world = World::new(2);
    world.told(static_joins("a", "i"));
    world.depart(&goes_for_a_while("a", "i")).unwrap();
    assert_eq!(world.told(static_joins("a", "i")), (1, Some(keys(1, 0..2))));
}

#[test]
fn who_does_not_come_back_in_its_session_is_out() {
    let mut world = World::new(2);
    world.told(static_joins("a", "i"));
    world.depart(&goes_for_a_while("a", "i")).unwrap();
    world.told(joins("b"));
    world.wait(SESSION - 1);
    assert_eq!(world.told(there("b", 2)).1, None);
    world.wait(1);
    assert_eq!(world.told(there("b", 2)), (3, Some(keys(1, 0..2))));
    assert_eq!(world.told(static_joins("c", "i")).0, 4);
}

#[test]
fn others_wait_for_what_one_that_is_away_holds() {
    let mut world = World::new(2);
    world.told(static_joins("a", "i"));
    world.told(joins("b"));
    // It had been told to let go of one, and goes for a while: that one is free.
    let a_there = Beat { instance_id: Some("i".to_owned()), ..there("a", 1) };
    assert_eq!(world.told(a_there), (1, Some(keys(1, 0..1))));
    world.depart(&goes_for_a_while("a", "i")).unwrap();
    assert_eq!(world.told(there("b", 2)), (2, Some(keys(1, 1..2))));
    assert_eq!(world.told(static_joins("c", "i")), (2, Some(keys(1, 0..1))));
    assert_eq!(world.progress(), Progress::Stable);
}

#[test]
fn names_and_ids_of_others_are_refused() {
    let mut world = World::new(2);
    world.told(static_joins("a", "i"));
    world.told(static_joins("b", "j"));
    world.depart(&goes_for_a_while("a", "i")).unwrap();
    assert_eq!(world.beat(static_joins("b", "i")), Err(GroupError::FencedInstance), "b is another member");
    assert_eq!(world.depart(&goes_for_a_while("a", "nobody")), Err(GroupError::UnknownMember));
    assert_eq!(world.depart(&goes_for_a_while("x", "j")), Err(GroupError::FencedInstance));
    let stranger = Beat { instance_id: Some("nobody".to_owned()), ..there("a", 1) };
    assert_eq!(world.beat(stranger), Err(GroupError::UnknownMember));
}
