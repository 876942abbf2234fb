//! What members want, by name and by pattern, as topics come, grow and go.

use super::*;

fn wants(name: &str, pattern: &str) -> Beat {
    Beat { names: None, pattern: Some(pattern.to_owned()), ..joins(name) }
}

#[test]
fn a_topic_that_grows_begins_an_epoch() {
    let mut world = World::new(1);
    assert_eq!(world.told(joins("a")), (1, Some(keys(1, 0..1))));
    world.topic("orders", 1, Some(3));
    assert_eq!(world.told(there("a", 1)), (2, Some(keys(1, 0..3))));
    world.topic("other", 2, Some(3));
    assert_eq!(world.told(there("a", 2)), (2, None));
}

#[test]
fn a_topic_that_is_wanted_may_come_later_and_under_another_id() {
    let mut world = World::new(1);
    let both = Beat { names: Some(vec!["later".into(), "orders".into(), "no/name".into()]), ..joins("a") };
    assert_eq!(world.told(both), (1, Some(keys(1, 0..1))));
    world.topic("later", 2, Some(2));
    let all: Partitions = keys(1, 0..1).into_iter().chain(keys(2, 0..2)).collect();
    assert_eq!(world.told(there("a", 1)), (2, Some(all)));
    world.topic("later", 2, None);
    assert_eq!(world.told(there("a", 2)), (2, Some(keys(1, 0..1))), "it is to let go of what is gone");
    world.topic("later", 7, Some(1));
    let all: Partitions = keys(1, 0..1).into_iter().chain(keys(7, 0..1)).collect();
    assert_eq!(world.told(holds("a", 2, keys(1, 0..1))), (4, Some(all)));
}

#[test]
fn a_pattern_matches_topics_as_they_come_and_go() {
    let mut world = World::new(1);
    assert_eq!(world.told(wants("a", "ord.*|pay-[0-9]+")), (1, Some(keys(1, 0..1))));
    world.topic("pay-1", 2, Some(1));
    world.topic("pay-x", 3, Some(1));
    let all: Partitions = keys(1, 0..1).into_iter().chain(keys(2, 0..1)).collect();
    assert_eq!(world.told(there("a", 1)), (2, Some(all)));
    assert_eq!(world.told(there("a", 2)), (2, None));
    world.topic("orders", 1, None);
    assert_eq!(world.told(there("a", 2)), (2, Some(keys(2, 0..1))));
    assert_eq!(world.told(holds("a", 2, keys(2, 0..1))), (3, None));
    // No pattern any more, and no names either.
    let nothing = Beat { pattern: Some(String::new()), ..there("a", 3) };
    assert_eq!(world.told(nothing), (3, Some(Partitions::new())));
    assert_eq!(world.told(holds("a", 3, Partitions::new())), (4, None));
}

#[test]
fn a_pattern_that_is_none_changes_nothing() {
    let mut world = World::new(1);
    assert!(matches!(world.beat(wants("a", "(")), Err(GroupError::InvalidPattern { .. })));
    assert_eq!(world.machine.size(), (0, 0, 0));
    world.told(joins("a"));
    let wrong = Beat { pattern: Some("*".to_owned()), ..there("a", 1) };
    assert!(matches!(world.beat(wrong), Err(GroupError::InvalidPattern { .. })));
    assert_eq!(world.told(there("a", 1)), (1, None));
}

#[test]
fn names_and_patterns_add_up_and_each_gets_only_what_it_wants() {
    let mut world = World::new(2);
    world.topic("pay", 2, Some(2));
    let both = Beat { pattern: Some("p.*".to_owned()), ..joins("a") };
    let all: Partitions = keys(1, 0..2).into_iter().chain(keys(2, 0..2)).collect();
    assert_eq!(world.told(both), (1, Some(all)));
    world.told(wants("b", "pay"));
    let kept = world.told(there("a", 1)).1.unwrap();
    assert!(kept.is_superset(&keys(1, 0..2)), "{kept:?}");
    world.told(holds("a", 1, kept));
    let got = world.told(there("b", 2)).1.unwrap();
    assert_eq!(got, keys(2, 0..2), "as even as can be");
}

#[test]
fn many_changes_are_caught_up_with() {
    let mut world = World::new(1);
    world.told(wants("a", "t[0-9]+"));
    for number in 0..5000_u32 {
        world.topic(&format!("t{number}"), u128::from(number) + 10, Some(1));
        world.topic(&format!("u{number}"), u128::from(number) + 10_000, Some(1));
    }
    assert_eq!(world.told(there("a", 1)).1.map(|all| all.len()), Some(5000));
}
