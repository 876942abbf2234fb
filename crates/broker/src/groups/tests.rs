//! Claims about the state machine of groups, on a clock that the test moves.

use std::collections::BTreeMap;

use bytes::Bytes;
use lakebed_model::{Generation, GroupId, GroupKind};

use super::group::Phase;
use super::machine::{Limits, Machine, Stored};
use super::member::{Effect, GroupError, Join, Joined, MemberRef, Sync, Synced};
use super::reconcile::member::Beaten;

mod failures;
mod flow;
mod mixed;
mod random;
mod statics;
mod writing;

const SECOND: u64 = 1000;

/// A machine, its clock, and what it has answered.
struct World {
    machine: Machine<u32>,
    now: u64,
    joined: BTreeMap<u32, Result<Joined, GroupError>>,
    synced: BTreeMap<u32, Result<Synced, GroupError>>,
    told: BTreeMap<u32, Result<Beaten, GroupError>>,
    /// Generations that began, each with its members.
    started: Vec<(Generation, u32)>,
    stored: Stored,
    tickets: u32,
}

fn limits() -> Limits {
    Limits { session_min: 6 * SECOND, session_max: 60 * SECOND, initial_delay: 0, members_max: 4, bytes_max: 1 << 20 }
}

fn id() -> GroupId {
    GroupId::new("readers").unwrap()
}

fn nothing_stored() -> Stored {
    Stored { kind: None, generation: Generation::ZERO, protocol_type: String::new() }
}

/// A member that joins with an id of its own choice where it has none.
fn member(name: &str) -> Join {
    Join {
        group: id(),
        member_id: String::new(),
        fresh_id: name.to_owned(),
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/here".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"range-data"))],
        session: 10 * SECOND,
        rebalance: 30 * SECOND,
        wants_id_first: false,
        may_skip_assignment: false,
    }
}

/// As [`member`], joining again under its id.
fn again(name: &str) -> Join {
    Join { member_id: name.to_owned(), ..member("unused") }
}

impl World {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: Limits) -> Self {
        Self {
            machine: Machine::new(limits, Generation::ZERO),
            now: 0,
            joined: BTreeMap::new(),
            synced: BTreeMap::new(),
            told: BTreeMap::new(),
            started: Vec::new(),
            stored: nothing_stored(),
            tickets: 0,
        }
    }

    fn ticket(&mut self) -> u32 {
        self.tickets += 1;
        self.tickets
    }

    /// Takes what the machine wants done; a generation is durable at once.
    fn settle(&mut self) {
        // What becomes durable has answers of its own.
        loop {
            let effects = self.machine.take_effects();
            if effects.is_empty() {
                return;
            }
            self.take(effects);
        }
    }

    fn take(&mut self, effects: Vec<Effect<u32>>) {
        for effect in effects {
            match effect {
                Effect::Join { to, answer } => assert!(self.joined.insert(to, answer).is_none(), "answered twice"),
                Effect::Sync { to, answer } => assert!(self.synced.insert(to, answer).is_none(), "answered twice"),
                Effect::Beat { to, answer } => assert!(self.told.insert(to, answer).is_none(), "answered twice"),
                Effect::Nudge { .. } => panic!("nobody can be nudged here"),
                Effect::Start(start) => {
                    let last = self.started.last().map_or(Generation::ZERO, |(generation, _)| *generation);
                    assert!(start.generation > last, "generation {} after {last}", start.generation);
                    self.started.push((start.generation, start.members));
                    self.stored = Stored {
                        kind: Some(start.kind),
                        generation: start.generation,
                        protocol_type: start.protocol_type.as_ref().to_owned(),
                    };
                    self.machine.durable(self.now, &(start.group, start.generation));
                    for (to, joined) in start.answers {
                        assert!(self.joined.insert(to, Ok(joined)).is_none(), "answered twice");
                    }
                }
            }
        }
    }

    fn join(&mut self, join: Join) -> u32 {
        let to = self.ticket();
        self.machine.join(self.now, join, &self.stored, to);
        self.machine.run_due(self.now);
        self.settle();
        to
    }

    fn sync(&mut self, name: &str, assignments: &[(&str, &'static str)]) -> u32 {
        let member = self.member(name);
        self.sync_as(member, assignments)
    }

    fn sync_as(&mut self, member: MemberRef, assignments: &[(&str, &'static str)]) -> u32 {
        let to = self.ticket();
        let assignments = assignments.iter().map(|(id, what)| ((*id).to_owned(), Bytes::from_static(what.as_bytes())));
        let sync = Sync { member, protocol_type: None, protocol: None, assignments: assignments.collect() };
        self.machine.sync(self.now, sync, to);
        self.settle();
        to
    }

    /// A member of the generation that began last.
    fn member(&self, name: &str) -> MemberRef {
        let generation = self.started.last().map_or(0, |(generation, _)| generation.get() as i32);
        MemberRef { group: id(), member_id: name.to_owned(), instance_id: None, generation }
    }

    fn heartbeat(&mut self, name: &str) -> Result<(), GroupError> {
        let from = self.member(name);
        let beaten = self.machine.heartbeat(self.now, &from);
        self.settle();
        beaten
    }

    fn leave(&mut self, name: &str) -> Result<(), GroupError> {
        let left = self.machine.leave(self.now, &id(), &[(name.to_owned(), None)]);
        self.settle();
        left.and_then(|mut left| left.remove(0))
    }

    fn commit(&mut self, from: &MemberRef) -> Result<Generation, GroupError> {
        let checked = self.machine.check_commit(self.now, from, &self.stored);
        self.settle();
        checked
    }

    /// Lets time pass, doing what becomes due when it does.
    fn wait(&mut self, millis: u64) {
        let until = self.now + millis;
        while let Some(due) = self.machine.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.machine.run_due(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn phase(&self) -> Phase {
        self.machine.describe(&id()).map_or(Phase::Empty, |group| group.phase)
    }

    fn names(&self) -> Vec<String> {
        let members = self.machine.describe(&id()).map(|group| group.members).unwrap_or_default();
        members.into_iter().map(|member| member.member_id).collect()
    }

    /// What came of joining.
    fn joined(&self, ticket: u32) -> &Joined {
        self.joined.get(&ticket).expect("it was answered").as_ref().unwrap()
    }

    fn join_error(&self, ticket: u32) -> &GroupError {
        self.joined.get(&ticket).expect("it was answered").as_ref().unwrap_err()
    }

    fn waits(&self, ticket: u32) -> bool {
        !self.joined.contains_key(&ticket) && !self.synced.contains_key(&ticket)
    }

    fn assignment(&self, ticket: u32) -> Result<&[u8], &GroupError> {
        self.synced.get(&ticket).expect("it was answered").as_ref().map(|synced| &synced.assignment[..])
    }
}

/// A stable group of these members, of which the first leads.
fn stable(names: &[&'static str]) -> World {
    let mut world = World::new();
    let first = world.join(member(names[0]));
    assert!(!world.waits(first));
    for name in &names[1..] {
        let waiting = world.join(member(name));
        assert!(world.waits(waiting), "the others have not joined again");
        for other in names.iter().take_while(|other| *other != name) {
            world.join(again(other));
        }
        assert!(!world.waits(waiting));
    }
    let assignments: Vec<(&str, &'static str)> = names.iter().map(|name| (*name, *name)).collect();
    let followers: Vec<u32> = names[1..].iter().map(|name| world.sync(name, &[])).collect();
    assert!(followers.iter().all(|ticket| world.waits(*ticket)));
    world.sync(names[0], &assignments);
    assert_eq!(world.phase(), Phase::Stable);
    world
}
