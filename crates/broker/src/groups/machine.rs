//! All groups of a broker as one state machine: pure, with the time as an argument.
//!
//! What a step makes necessary comes out as [`Effect`]s, in order. Memory is bounded: at the bound nobody new is taken in.

use std::collections::BTreeMap;

use lakebed_model::{Generation, GroupId, GroupKind, State};

use super::group::{Context, Group, Phase};
use super::member::{Effect, GroupError, Join, MemberRef, Start, Sync};
use super::overview::Listed;
use super::reconcile;
use super::reconcile::topics::Topics;
use super::subscription;
use super::timers::{Millis, Timer, Timers};

mod beats;
mod seat;

use seat::Seat;

/// What a group counts beside its members.
const GROUP_BYTES: usize = 768;

/// The bounds of groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Shortest session.
    pub(crate) session_min: Millis,
    /// Longest session.
    pub(crate) session_max: Millis,
    /// How long the first rebalance of a group waits for more members.
    pub(crate) initial_delay: Millis,
    /// Most members of a group.
    pub(crate) members_max: usize,
    /// What all members may take in memory.
    pub(crate) bytes_max: usize,
}

/// What the log knows of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Whose protocol its members spoke last; `None` if there is no such group.
    pub(crate) kind: Option<GroupKind>,
    /// Its generation.
    pub(crate) generation: Generation,
    /// What its protocols were for.
    pub(crate) protocol_type: String,
}

impl Stored {
    /// What `state` knows of a group.
    pub(crate) fn of(state: &State, id: &GroupId) -> Self {
        match state.group(id) {
            Some(group) => Self {
                kind: Some(group.kind),
                generation: group.generation,
                protocol_type: group.protocol_type.as_ref().to_owned(),
            },
            None => Self { kind: None, generation: Generation::ZERO, protocol_type: String::new() },
        }
    }
}

/// A group as a description shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) phase: Phase,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// A member as a description shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) metadata: bytes::Bytes,
    pub(crate) assignment: bytes::Bytes,
}

/// See the module. `T` is where an answer goes.
#[derive(Debug)]
pub(crate) struct Machine<T> {
    limits: Limits,
    groups: BTreeMap<GroupId, Seat<T>>,
    topics: Topics,
    timers: Timers,
    effects: Vec<Effect<T>>,
    /// What the groups take in memory.
    bytes: usize,
    /// New generations are greater, whatever group they are of.
    floor: Generation,
    /// Nobody is taken in any more.
    stopped: bool,
}

impl<T> Machine<T> {
    /// A machine without groups in memory. `floor`: see [`State::generation_gone`].
    pub(crate) fn new(limits: Limits, floor: Generation) -> Self {
        let (groups, timers, effects) = (BTreeMap::new(), Timers::default(), Vec::new());
        Self { limits, groups, topics: Topics::default(), timers, effects, bytes: 0, floor, stopped: false }
    }

    /// What is to be done because of the steps since it was asked last.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect<T>> {
        std::mem::take(&mut self.effects)
    }

    /// When the next timer is due.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        self.timers.next_due()
    }

    /// How many groups are in memory, how many members they have, and what they take.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        (self.groups.len(), self.groups.values().map(Seat::member_count).sum(), self.bytes)
    }

    /// Does a step of a group of the classic protocol, loading it first and dropping it from memory afterwards if nothing of it needs to be
    /// kept. One of another protocol must have no members.
    fn with<R>(
        &mut self,
        now: Millis,
        id: &GroupId,
        stored: &Stored,
        step: impl FnOnce(&mut Group<T>, &mut Context<'_, T>) -> R,
    ) -> R {
        self.seat(now, id, stored, None);
        let stepped = self.with_seat(now, id, |seat, cx| match seat {
            Seat::Classic(group) => Some(step(group, cx)),
            Seat::Assigned(_) => None,
        });
        stepped.flatten().expect("it was seated as one of the classic protocol")
    }

    /// Loads a group, as one of the classic protocol or as one whose partitions are assigned here. One that has no members becomes another
    /// kind at once.
    fn seat(&mut self, now: Millis, id: &GroupId, stored: &Stored, kind: Option<GroupKind>) {
        if !self.groups.contains_key(id) {
            let group = Group::new(stored.generation, stored.protocol_type.clone());
            self.bytes += GROUP_BYTES + id.as_str().len();
            self.groups.insert(id.clone(), Seat::Classic(group));
        }
        // It is stepped right afterwards, so it stays loaded.
        self.with_loaded_seat(now, id, |seat, cx| seat.become_kind(cx, kind));
    }

    fn with_seat<R>(
        &mut self,
        now: Millis,
        id: &GroupId,
        step: impl FnOnce(&mut Seat<T>, &mut Context<'_, T>) -> R,
    ) -> Option<R> {
        let result = self.with_loaded_seat(now, id, step)?;
        if self.groups.get(id).is_some_and(Seat::is_idle) {
            self.groups.remove(id);
            self.bytes -= GROUP_BYTES + id.as_str().len();
        }
        Some(result)
    }

    fn with_loaded_seat<R>(
        &mut self,
        now: Millis,
        id: &GroupId,
        step: impl FnOnce(&mut Seat<T>, &mut Context<'_, T>) -> R,
    ) -> Option<R> {
        let seat = self.groups.get_mut(id)?;
        let mut context = Context {
            id,
            now,
            initial_delay: self.limits.initial_delay,
            members_max: self.limits.members_max,
            floor: self.floor,
            topics: &self.topics,
            timers: &mut self.timers,
            effects: &mut self.effects,
        };
        let before = seat.bytes();
        let result = step(seat, &mut context);
        seat.settle(&mut context);
        self.bytes = self.bytes + seat.bytes() - before;
        Some(result)
    }

    /// A member joins; the answer comes as an effect, now or later.
    pub(crate) fn join(&mut self, now: Millis, join: Join, stored: &Stored, to: T) {
        match self.check_join(&join, stored) {
            Ok(()) if self.assigned(&join.group).is_some_and(|group| !group.members.is_empty()) => {
                self.join_assigned(now, join, to);
            }
            Ok(()) => {
                let id = join.group.clone();
                self.with(now, &id, stored, |group, cx| group.join(cx, join, to));
            }
            Err(error) => self.effects.push(Effect::Join { to, answer: Err(error) }),
        }
    }

    fn check_join(&self, join: &Join, stored: &Stored) -> Result<(), GroupError> {
        if self.stopped {
            return Err(stopped());
        }
        if join.group.as_str().is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        if !(self.limits.session_min..=self.limits.session_max).contains(&join.session) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let is_other = |group: &reconcile::Group<T>| !group.members.is_empty() && group.kind != GroupKind::Consumer;
        if self.assigned(&join.group).is_some_and(is_other) {
            return Err(GroupError::InconsistentProtocol);
        }
        let known = self.groups.contains_key(&join.group) || stored.kind.is_some();
        if !join.member_id.is_empty() && !known {
            return Err(GroupError::UnknownMember);
        }
        // About what it may take: itself, and its group if it is the first.
        let texts: usize = join.protocols.iter().map(|(name, metadata)| 96 + name.len() + metadata.len()).sum();
        if self.bytes + texts + super::member::MEMBER_BYTES + GROUP_BYTES > self.limits.bytes_max {
            return Err(GroupError::Overloaded);
        }
        Ok(())
    }

    /// A member asks for its assignment; the answer comes as an effect, now or later.
    pub(crate) fn sync(&mut self, now: Millis, sync: Sync, to: T) {
        if let Err(error) = self.check_named(&sync.member.group) {
            return self.effects.push(Effect::Sync { to, answer: Err(error) });
        }
        let id = sync.member.group.clone();
        let assigned: usize = sync.assignments.iter().map(|(_, assignment)| assignment.len()).sum();
        if self.bytes + assigned > self.limits.bytes_max {
            return self.effects.push(Effect::Sync { to, answer: Err(GroupError::Overloaded) });
        }
        if !self.groups.contains_key(&id) {
            return self.effects.push(Effect::Sync { to, answer: Err(GroupError::UnknownMember) });
        }
        self.with_seat(now, &id, |seat, cx| match seat {
            Seat::Classic(group) => group.sync(cx, sync, to),
            Seat::Assigned(group) => group.sync(cx, sync, to),
        });
    }

    fn check_named(&self, group: &GroupId) -> Result<(), GroupError> {
        if self.stopped {
            return Err(stopped());
        }
        if group.as_str().is_empty() { Err(GroupError::InvalidGroupId) } else { Ok(()) }
    }

    /// A member is there.
    pub(crate) fn heartbeat(&mut self, now: Millis, from: &MemberRef) -> Result<(), GroupError> {
        self.check_named(&from.group)?;
        let beaten = self.with_seat(now, &from.group, |seat, cx| match seat {
            Seat::Classic(group) => group.heartbeat(cx, from),
            Seat::Assigned(group) => group.heartbeat(cx, from),
        });
        beaten.unwrap_or(Err(GroupError::UnknownMember))
    }

    /// Members leave, each by its id or its instance id; what came of each.
    ///
    /// # Errors
    /// [`GroupError`] if it is the same for all.
    pub(crate) fn leave(
        &mut self,
        now: Millis,
        id: &GroupId,
        members: &[(String, Option<String>)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.check_named(id)?;
        let left = self.with_seat(now, id, |seat, cx| match seat {
            Seat::Classic(group) => group.leave(cx, members),
            Seat::Assigned(group) => group.leave(cx, members),
        });
        left.ok_or(GroupError::UnknownMember)
    }

    /// The generation that offsets are to be committed under, if they may be.
    pub(crate) fn check_commit(
        &mut self,
        now: Millis,
        from: &MemberRef,
        stored: &Stored,
    ) -> Result<Generation, GroupError> {
        if self.stopped {
            return Err(stopped());
        }
        if stored.kind.is_none() && from.generation >= 0 && !self.groups.contains_key(&from.group) {
            return Err(GroupError::IllegalGeneration);
        }
        if let Some(group) = self.assigned(&from.group) {
            return group.check_commit(&from.member_id, from.generation).map(|()| group.epoch);
        }
        self.with(now, &from.group, stored, |group, cx| group.check_commit(cx, from).map(|()| group.generation))
    }

    /// The generation that a group is deleted or reset under: it must have no members.
    pub(crate) fn check_empty(&mut self, id: &GroupId, stored: &Stored) -> Result<Generation, GroupError> {
        if self.stopped {
            return Err(stopped());
        }
        match self.groups.get(id) {
            Some(seat) if !seat.is_empty() => Err(GroupError::NonEmptyGroup),
            // Ids that are given out make no group; its clients will join a new one.
            Some(seat) if stored.kind.is_some() || seat.generation() > Generation::ZERO => Ok(seat.generation()),
            None if stored.kind.is_some() => Ok(stored.generation),
            _ => Err(GroupError::GroupNotFound),
        }
    }

    /// Whether nobody is a member of the group, which need not exist.
    pub(crate) fn check_without_members(&self, id: &GroupId) -> Result<(), GroupError> {
        if self.stopped {
            return Err(stopped());
        }
        let has_members = self.groups.get(id).is_some_and(|seat| !seat.is_empty());
        if has_members { Err(GroupError::NonEmptyGroup) } else { Ok(()) }
    }

    /// A group is being deleted: see [`Machine::check_empty`].
    pub(crate) fn deleted(&mut self, now: Millis, id: &GroupId, generation: Generation) {
        self.raise_floor(generation);
        self.with_seat(now, id, |seat, _| seat.forget_generation());
    }

    /// A group of this generation may be forgotten: new ones begin above it.
    pub(crate) fn raise_floor(&mut self, generation: Generation) {
        self.floor = self.floor.max(generation);
    }

    /// Begins a generation without members, if there are none: those that the log has of a group did not come back.
    pub(crate) fn mark_empty(&mut self, now: Millis, id: &GroupId, stored: &Stored) {
        let kind = stored.kind.unwrap_or(GroupKind::Classic);
        self.with(now, id, stored, |group, cx| group.mark_empty(cx, kind));
    }

    /// The generation under which offsets of some topics may be deleted, and which of the topics are read by members.
    pub(crate) fn check_delete_offsets<'a>(
        &mut self,
        id: &GroupId,
        stored: &Stored,
        topics: &[&'a str],
    ) -> Result<(Generation, Vec<&'a str>), GroupError> {
        if let Some(group) = self.assigned(id).filter(|group| !group.members.is_empty()) {
            return Ok((group.epoch, group.wanted(topics)));
        }
        let Some(group) = self.classic(id).filter(|group| group.phase != Phase::Empty) else {
            return self.check_empty(id, stored).map(|generation| (generation, Vec::new()));
        };
        if group.protocol_type != subscription::PROTOCOL_TYPE {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut subscribed = std::collections::BTreeSet::new();
        for member in group.members.values() {
            let protocol = if group.protocol.is_empty() { None } else { Some(&group.protocol) };
            let first = member.protocols.first().map(|(name, _)| name);
            let metadata = protocol.or(first).map(|name| member.metadata(name)).unwrap_or_default();
            // What can't be read may be a subscription to anything.
            let Some(names) = subscription::topics(&metadata) else { return Ok((group.generation, topics.to_vec())) };
            subscribed.extend(names);
        }
        let read = topics.iter().copied().filter(|topic| subscribed.contains(*topic)).collect();
        Ok((group.generation, read))
    }

    /// A generation is durable: memory need not hold it for its number.
    pub(crate) fn durable(&mut self, now: Millis, start: &(GroupId, Generation)) {
        let (id, generation) = start;
        self.with_seat(now, id, |seat, cx| seat.set_durable(cx, *generation));
    }

    /// A generation could not be made durable: everybody has to begin anew.
    pub(crate) fn not_durable(&mut self, now: Millis, id: &GroupId, why: &GroupError) {
        self.with_seat(now, id, |seat, cx| seat.dissolve(cx, why));
    }

    /// Does what is due.
    pub(crate) fn run_due(&mut self, now: Millis) {
        while let Some((id, timer)) = self.timers.pop(now) {
            self.with_seat(now, &id, |seat, cx| match (seat, timer) {
                (Seat::Classic(group), Timer::Join) => group.join_due(cx),
                (Seat::Classic(group), Timer::Sync) => group.sync_due(cx),
                (Seat::Classic(group), Timer::Member(member)) => group.member_due(cx, &member),
                (Seat::Assigned(group), Timer::Member(member)) => group.member_due(cx, &member),
                (Seat::Assigned(group), Timer::Revoke(member)) => group.revoke_due(cx, &member),
                (Seat::Assigned(group), Timer::MustJoin(member) | Timer::MustSync(member)) => {
                    group.member_due(cx, &member);
                }
                (Seat::Classic(_), Timer::Revoke(_) | Timer::MustJoin(_) | Timer::MustSync(_))
                | (Seat::Assigned(_), Timer::Join | Timer::Sync) => {}
            });
        }
    }

    /// Answers everybody who waits, and takes in nobody any more.
    pub(crate) fn stop(&mut self, now: Millis) {
        self.stopped = true;
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for id in ids {
            self.not_durable(now, &id, &stopped());
        }
    }

    /// Whether something of a group is kept in memory.
    pub(crate) fn is_loaded(&self, id: &GroupId) -> bool {
        self.groups.contains_key(id)
    }

    /// A group of the classic protocol as it is in memory.
    pub(crate) fn describe(&self, id: &GroupId) -> Option<Described> {
        let group = self.classic(id)?;
        let stable = group.phase == Phase::Stable;
        let members = group.members.iter().map(|(id, member)| DescribedMember {
            member_id: id.as_ref().to_owned(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(&group.protocol) } else { bytes::Bytes::new() },
            assignment: if stable { member.assignment.clone() } else { bytes::Bytes::new() },
        });
        Some(Described {
            phase: group.phase,
            protocol_type: group.protocol_type.clone(),
            protocol: if stable { group.protocol.clone() } else { String::new() },
            members: members.collect(),
        })
    }

    /// A group in memory.
    pub(crate) fn listed(&self, id: &GroupId) -> Option<Listed> {
        self.groups.get(id).map(Seat::listed)
    }

    /// The groups in memory. Those that only gave out ids are left out.
    pub(crate) fn list(&self) -> impl Iterator<Item = (&GroupId, Listed)> {
        let groups = self.groups.iter();
        let real = groups.filter(|(_, seat)| !seat.is_empty() || seat.generation() > Generation::ZERO);
        real.map(|(id, seat)| (id, seat.listed()))
    }
}

fn stopped() -> GroupError {
    GroupError::Stopped
}

/// What a generation that begins is called in the log.
pub(crate) fn start_entry<T>(start: &Start<T>, time_ms: i64) -> lakebed_model::StartGeneration {
    lakebed_model::StartGeneration {
        group: start.group.clone(),
        generation: start.generation,
        kind: start.kind,
        protocol_type: start.protocol_type.clone(),
        members: start.members,
        time_ms,
    }
}
