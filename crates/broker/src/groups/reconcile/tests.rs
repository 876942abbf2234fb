//! Claims about groups whose partitions are assigned here, on a clock that the test moves.

use std::collections::BTreeMap;

use lakebed_model::{Generation, GroupId, GroupKind, PartitionIndex, PartitionKey, TopicId, TopicName};
use uuid::Uuid;

use super::assign::{Assignor, Partitions};
use super::describe::{DescribedAssigned, DescribedAssignee, Progress};
use super::member::{Beat, Beaten, Departure};
use super::topics::Known;
use crate::groups::machine::{Limits, Machine, Stored};
use crate::groups::member::{Effect, GroupError};

mod assigning;
mod flow;
mod random;
mod statics;
mod subscribing;

const SECOND: u64 = 1000;
const SESSION: u64 = 45 * SECOND;
const REBALANCE: u64 = 60 * SECOND;

type Told = Result<Beaten, GroupError>;

/// A machine with one group, its clock, and what it has answered.
pub(super) struct World {
    pub(super) machine: Machine<u32>,
    pub(super) now: u64,
    told: BTreeMap<u32, Told>,
    nudged: Vec<String>,
    /// Epochs that began, each with its members, that are not durable yet.
    begun: Vec<(Generation, u32)>,
    /// Epochs become durable at once.
    at_once: bool,
    stored: Stored,
    tickets: u32,
}

pub(super) fn id() -> GroupId {
    GroupId::new("readers").unwrap()
}

fn limits() -> Limits {
    Limits { session_min: 6 * SECOND, session_max: 60 * SECOND, initial_delay: 0, members_max: 6, bytes_max: 1 << 20 }
}

fn topic(number: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(number))
}

fn keys(number: u128, partitions: impl IntoIterator<Item = u32>) -> Partitions {
    partitions.into_iter().map(|index| PartitionKey::new(topic(number), PartitionIndex::new(index))).collect()
}

/// A member that joins and wants `orders`.
fn joins(name: &str) -> Beat {
    Beat {
        group: id(),
        kind: GroupKind::Grpc,
        member_id: name.to_owned(),
        epoch: Generation::ZERO,
        instance_id: None,
        rack_id: None,
        client_id: "client".to_owned(),
        client_host: "/here".to_owned(),
        names: Some(vec!["orders".to_owned()]),
        pattern: None,
        assignor: None,
        owned: Some(Partitions::new()),
        session: SESSION,
        rebalance: Some(REBALANCE),
    }
}

/// One that is there, and holds what it did.
fn there(name: &str, epoch: u32) -> Beat {
    Beat { epoch: Generation::new(epoch), names: None, owned: None, rebalance: None, ..joins(name) }
}

fn holds(name: &str, epoch: u32, owned: Partitions) -> Beat {
    Beat { owned: Some(owned), ..there(name, epoch) }
}

fn leaves(name: &str) -> Departure {
    Departure { group: id(), member_id: name.to_owned(), instance_id: None, comes_back: false }
}

impl World {
    /// A world with `orders` (topic 1) of so many partitions.
    pub(super) fn new(partitions: u32) -> Self {
        let mut world = Self {
            machine: Machine::new(limits(), Generation::ZERO),
            now: 0,
            told: BTreeMap::new(),
            nudged: Vec::new(),
            begun: Vec::new(),
            at_once: true,
            stored: Stored { kind: None, generation: Generation::ZERO, protocol_type: String::new() },
            tickets: 0,
        };
        world.topic("orders", 1, Some(partitions));
        world
    }

    /// A topic comes, grows or goes.
    fn topic(&mut self, name: &str, number: u128, partitions: Option<u32>) {
        let known = partitions.map(|partitions| Known { id: topic(number), partitions });
        self.machine.topics_changed(self.now, [(TopicName::new(name).unwrap(), known)]);
        self.settle();
    }

    fn settle(&mut self) {
        for effect in self.machine.take_effects() {
            match effect {
                Effect::Beat { to, answer } => assert!(self.told.insert(to, answer).is_none(), "answered twice"),
                Effect::Nudge { member, .. } => self.nudged.push(member.as_ref().to_owned()),
                Effect::Start(start) => {
                    let last = self.begun.last().map_or(self.stored.generation, |(generation, _)| *generation);
                    assert!(start.generation > last, "epoch {} after {last}", start.generation);
                    assert_eq!((start.kind, start.answers.len()), (GroupKind::Grpc, 0));
                    self.begun.push((start.generation, start.members));
                }
                Effect::Join { .. } | Effect::Sync { .. } => panic!("nobody joins and asks here"),
            }
        }
        if self.at_once {
            self.all_durable();
        }
    }

    /// What began is durable now.
    fn all_durable(&mut self) {
        for (generation, _) in std::mem::take(&mut self.begun) {
            self.stored = Stored { kind: Some(GroupKind::Grpc), generation, protocol_type: String::new() };
            self.machine.durable(self.now, &(id(), generation));
        }
        let effects = self.machine.take_effects();
        for effect in effects {
            let Effect::Beat { to, answer } = effect else { panic!("{effect:?}") };
            assert!(self.told.insert(to, answer).is_none(), "answered twice");
        }
    }

    fn send(&mut self, beat: Beat) -> u32 {
        self.tickets += 1;
        self.machine.beat(self.now, beat, &self.stored, self.tickets);
        self.machine.run_due(self.now);
        self.settle();
        self.tickets
    }

    /// What a beat is told, which is told at once.
    fn beat(&mut self, beat: Beat) -> Told {
        let ticket = self.send(beat);
        self.told.get(&ticket).expect("it was answered").clone()
    }

    /// Epoch and assignment that a beat is told.
    fn told(&mut self, beat: Beat) -> (u32, Option<Partitions>) {
        let beaten = self.beat(beat).unwrap();
        (beaten.epoch.get(), beaten.assignment)
    }

    fn depart(&mut self, departure: &Departure) -> Result<(), GroupError> {
        let stored = self.stored.clone();
        let left = self.machine.depart(self.now, departure, &stored);
        self.settle();
        left
    }

    fn wait(&mut self, millis: u64) {
        let until = self.now + millis;
        while let Some(due) = self.machine.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.machine.run_due(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn group(&self) -> Option<DescribedAssigned> {
        self.machine.describe_assigned(&id())
    }

    fn member(&self, name: &str) -> DescribedAssignee {
        let members = self.group().unwrap().members;
        members.into_iter().find(|member| member.member_id == name).expect("it is a member")
    }

    fn progress(&self) -> Progress {
        self.group().map_or(Progress::Empty, |group| group.progress)
    }

    fn take_nudged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.nudged)
    }
}
