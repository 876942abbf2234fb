//! Who is to read which partitions: pure functions from members and topics to a target.
//!
//! 1. Every partition of a topic that somebody subscribed to goes to exactly one of its subscribers.
//! 2. Nobody gets what it has not subscribed to.

use std::collections::{BTreeMap, BTreeSet};

use lakebed_model::{PartitionIndex, PartitionKey, TopicId};

/// Partitions.
pub(crate) type Partitions = BTreeSet<PartitionKey>;

/// How often all partitions are looked through for one that should move.
const ROUNDS_MAX: usize = 16;

/// How partitions are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    /// As many to each as can be, each keeping what it has.
    Uniform,
    /// Of each topic neighbouring partitions to each: equal numbers of different topics to the same member.
    Range,
}

impl Assignor {
    /// All, the one first that is taken when nobody asks for one.
    pub(crate) const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }
}

/// A member that partitions can go to.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    /// By what it is put in order: its static name, or its id.
    pub(crate) instance_id: Option<&'a str>,
    /// Its id.
    pub(crate) member_id: &'a str,
    /// What it has subscribed to, of the topics that there are.
    pub(crate) topics: BTreeSet<TopicId>,
    /// What was meant for it before.
    pub(crate) before: &'a Partitions,
}

/// What each of `members` is to have, in their order; `topics` says how many partitions each topic has.
pub(crate) fn assign(
    assignor: Assignor,
    members: &[Candidate<'_>],
    topics: &BTreeMap<TopicId, u32>,
) -> Vec<Partitions> {
    match assignor {
        Assignor::Uniform => Uniform::new(members, topics).run(members, topics),
        Assignor::Range => range(members, topics),
    }
}

fn partitions_of(topic: TopicId, count: u32) -> impl Iterator<Item = PartitionKey> {
    (0..count).map(move |index| PartitionKey::new(topic, PartitionIndex::new(index)))
}

fn range(members: &[Candidate<'_>], topics: &BTreeMap<TopicId, u32>) -> Vec<Partitions> {
    // Static members first: they come back under other ids, and are to keep their places.
    let mut order: Vec<usize> = (0..members.len()).collect();
    let rank = |at: &usize| {
        let member = &members[*at];
        (member.instance_id.is_none(), member.instance_id.unwrap_or(member.member_id))
    };
    order.sort_by(|one, other| rank(one).cmp(&rank(other)));
    let mut assigned = vec![Partitions::new(); members.len()];
    for (topic, count) in topics {
        let subscribers: Vec<usize> = order.iter().copied().filter(|at| members[*at].topics.contains(topic)).collect();
        let Some(number) = u32::try_from(subscribers.len()).ok().filter(|number| *number > 0) else { continue };
        let (each, more) = (count / number, count % number);
        let mut partitions = partitions_of(*topic, *count);
        for (place, at) in (0_u32..).zip(subscribers) {
            let share = each + u32::from(place < more);
            assigned[at].extend(partitions.by_ref().take(share as usize));
        }
    }
    assigned
}

/// Members that have subscribed to the same topics as seen from the topics: those of one class have the same subscribers.
struct Uniform {
    assigned: Vec<Partitions>,
    class_of: BTreeMap<TopicId, usize>,
    /// The subscribers of each class by how much they have.
    classes: Vec<BTreeSet<(usize, usize)>>,
    /// The classes that each member is in.
    classes_of: Vec<Vec<usize>>,
}

impl Uniform {
    fn new(members: &[Candidate<'_>], topics: &BTreeMap<TopicId, u32>) -> Self {
        let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            for topic in member.topics.iter().filter(|topic| topics.contains_key(*topic)) {
                subscribers.entry(*topic).or_default().push(at);
            }
        }
        let mut numbers: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut class_of = BTreeMap::new();
        for (topic, members) in subscribers {
            let next = numbers.len();
            class_of.insert(topic, *numbers.entry(members).or_insert(next));
        }
        let mut classes = vec![BTreeSet::new(); numbers.len()];
        let mut classes_of = vec![Vec::new(); members.len()];
        for (subscribers, class) in numbers {
            for at in subscribers {
                classes[class].insert((0, at));
                classes_of[at].push(class);
            }
        }
        Self { assigned: vec![Partitions::new(); members.len()], class_of, classes, classes_of }
    }

    fn run(mut self, members: &[Candidate<'_>], topics: &BTreeMap<TopicId, u32>) -> Vec<Partitions> {
        let mut free: Partitions = topics.iter().flat_map(|(topic, count)| partitions_of(*topic, *count)).collect();
        for (at, member) in members.iter().enumerate() {
            let kept = member.before.iter().filter(|key| member.topics.contains(&key.topic));
            for key in kept {
                if free.remove(key) {
                    self.give(*key, at);
                }
            }
        }
        for key in free {
            if let Some((_, least)) = self.class_of.get(&key.topic).and_then(|class| self.classes[*class].first()) {
                self.give(key, *least);
            }
        }
        let mut rounds = 0;
        while self.balance() && rounds < ROUNDS_MAX {
            rounds += 1;
        }
        self.assigned
    }

    fn recount(&mut self, at: usize, change: impl FnOnce(&mut Partitions) -> bool) {
        let before = self.assigned[at].len();
        assert!(change(&mut self.assigned[at]), "a partition is given once, and taken from who has it");
        let after = self.assigned[at].len();
        for class in &self.classes_of[at] {
            self.classes[*class].remove(&(before, at));
            self.classes[*class].insert((after, at));
        }
    }

    fn give(&mut self, key: PartitionKey, at: usize) {
        self.recount(at, |assigned| assigned.insert(key));
    }

    /// Moves partitions from those who have two more than another who could have them; whether there was one.
    fn balance(&mut self) -> bool {
        let mut moved = false;
        // Those with the most first.
        let mut order: Vec<usize> = (0..self.assigned.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.assigned[*at].len()));
        for at in order {
            // The last ones go: those that were kept longest are not moved about.
            let held: Vec<PartitionKey> = self.assigned[at].iter().rev().copied().collect();
            for key in held {
                let class = self.class_of.get(&key.topic).copied().expect("only subscribed topics are dealt out");
                let (least, to) = *self.classes[class].first().expect("its holder is a subscriber");
                if least + 2 > self.assigned[at].len() {
                    continue;
                }
                self.recount(at, |assigned| assigned.remove(&key));
                self.give(key, to);
                moved = true;
            }
        }
        moved
    }
}
