//! The assignors: everything goes to somebody who wants it, evenly, and stays where it is if it can.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::groups::reconcile::assign::{Candidate, assign};

struct Asked {
    names: Vec<String>,
    instances: Vec<Option<String>>,
    wanted: Vec<BTreeSet<TopicId>>,
    before: Vec<Partitions>,
    topics: BTreeMap<TopicId, u32>,
}

impl Asked {
    /// Members that want all topics and had nothing.
    fn same(members: usize, topics: &[u32]) -> Self {
        let topics: BTreeMap<TopicId, u32> = (1..).map(topic).zip(topics.iter().copied()).collect();
        Self {
            names: (0..members).map(|number| format!("m{number}")).collect(),
            instances: vec![None; members],
            wanted: vec![topics.keys().copied().collect(); members],
            before: vec![Partitions::new(); members],
            topics,
        }
    }

    fn assign(&self, assignor: Assignor) -> Vec<Partitions> {
        let candidate = |at: usize| Candidate {
            instance_id: self.instances[at].as_deref(),
            member_id: &self.names[at],
            topics: self.wanted[at].clone(),
            before: &self.before[at],
        };
        let candidates: Vec<Candidate<'_>> = (0..self.names.len()).map(candidate).collect();
        let assigned = assign(assignor, &candidates, &self.topics);
        self.check(&assigned);
        assigned
    }

    /// Each subscribed partition has one holder, who wants it.
    fn check(&self, assigned: &[Partitions]) {
        let mut seen = Partitions::new();
        for (at, partitions) in assigned.iter().enumerate() {
            for key in partitions {
                assert!(seen.insert(*key), "{key} goes to two");
                assert!(self.wanted[at].contains(&key.topic), "{key} is not wanted");
            }
        }
        let wanted = self.topics.iter().filter(|(topic, _)| self.wanted.iter().any(|wanted| wanted.contains(*topic)));
        assert_eq!(
            seen.len(),
            wanted.map(|(_, count)| *count as usize).sum::<usize>(),
            "all that are wanted are dealt out"
        );
    }
}

fn sizes(assigned: &[Partitions]) -> Vec<usize> {
    assigned.iter().map(Partitions::len).collect()
}

#[test]
fn a_range_has_neighbours_of_each_topic_and_static_members_first() {
    let mut asked = Asked::same(3, &[4, 4]);
    asked.instances[2] = Some("z".to_owned());
    let assigned = asked.assign(Assignor::Range);
    let both =
        |range: std::ops::Range<u32>| keys(1, range.clone()).into_iter().chain(keys(2, range)).collect::<Partitions>();
    assert_eq!(assigned, [both(2..3), both(3..4), both(0..2)]);
    assert_eq!(sizes(&Asked::same(3, &[2]).assign(Assignor::Range)), [1, 1, 0]);
}

#[test]
fn uniform_is_even_over_topics_and_moves_only_what_it_must() {
    let mut asked = Asked::same(3, &[2, 2, 3]);
    let mut assigned = asked.assign(Assignor::Uniform);
    assigned.sort_by_key(Partitions::len);
    assert_eq!(sizes(&assigned), [2, 2, 3]);
    // A fourth member: it gets one, and nobody else gets anything.
    asked =
        Asked { before: assigned.iter().cloned().chain([Partitions::new()]).collect(), ..Asked::same(4, &[2, 2, 3]) };
    let after = asked.assign(Assignor::Uniform);
    assert_eq!(sizes(&after), [2, 2, 2, 1]);
    assert!(after.iter().zip(&asked.before).take(3).all(|(after, before)| after.is_subset(before)));
    // The fourth goes again: the others keep what they had.
    asked = Asked { before: after[..3].to_vec(), ..Asked::same(3, &[2, 2, 3]) };
    let last = asked.assign(Assignor::Uniform);
    assert!(last.iter().zip(&asked.before).all(|(last, before)| last.is_superset(before)));
}

#[test]
fn whatever_is_wanted_is_dealt_out_as_evenly_as_it_can_be() {
    for seed in 0..2000 {
        let mut random = StdRng::seed_from_u64(seed);
        let counts: Vec<u32> = (0..random.random_range(0..6)).map(|_| random.random_range(1..9)).collect();
        let mut asked = Asked::same(random.random_range(1..7), &counts);
        let all: Vec<TopicId> = asked.topics.keys().copied().collect();
        for wanted in &mut asked.wanted {
            let is_picky: bool = random.random();
            wanted.retain(|_| !is_picky || random.random::<bool>());
        }
        for _ in 0..3 {
            asked.assign(Assignor::Range);
            let assigned = asked.assign(Assignor::Uniform);
            for (at, held) in assigned.iter().enumerate() {
                for key in held {
                    let least = (0..assigned.len()).filter(|other| asked.wanted[*other].contains(&key.topic));
                    let least = least.map(|other| assigned[other].len()).min().unwrap();
                    assert!(held.len() <= least + 1, "seed {seed}: {at} has {} where one has {least}", held.len());
                }
            }
            let again = Asked { before: assigned.clone(), ..asked };
            assert_eq!(again.assign(Assignor::Uniform), assigned, "seed {seed}: what is even stays");
            asked = again;
            // Somebody changes its mind.
            let at = random.random_range(0..asked.wanted.len());
            asked.wanted[at] = all.iter().copied().filter(|_| random.random::<bool>()).collect();
        }
    }
}

#[test]
fn most_votes_say_how_it_is_dealt_out() {
    let mut world = World::new(4);
    world.topic("pay", 2, Some(4));
    let votes =
        |name: &str, assignor| Beat { assignor, names: Some(vec!["orders".into(), "pay".into()]), ..joins(name) };
    world.told(votes("a", None));
    assert_eq!(world.group().unwrap().assignor, Assignor::Uniform);
    world.told(votes("b", Some(Assignor::Range)));
    assert_eq!(world.group().unwrap().assignor, Assignor::Range);
    let range: Partitions = keys(1, 2..4).into_iter().chain(keys(2, 2..4)).collect();
    assert_eq!(world.member("b").target, range);
    world.told(votes("c", Some(Assignor::Uniform)));
    assert_eq!(world.group().unwrap().assignor, Assignor::Uniform);
    assert_eq!((Assignor::named("range"), Assignor::named("Range")), (Some(Assignor::Range), None));
}
