//! One group of the classic protocol: who is in it, and what follows from what its members do and fail to do.
//!
//! After Kafka's `ClassicGroup` and the classic parts of its `GroupMetadataManager` (4.x), whose steps keep their order here. Invariants:
//!
//! 1. Whoever waits is answered once: when the phase that it waits for ends, or when it is removed or replaced.
//! 2. A generation is greater than all before it.
//! 3. There is a leader exactly when there are members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lakebed_model::{Generation, GroupId, GroupKind};

use super::member::{
    Effect, GroupError, Join, Joined, JoinedMember, Member, MemberRef, PENDING_BYTES, Start, Sync, Synced,
};
use super::reconcile::topics::Topics;
use super::timers::{Millis, Timer, Timers};

mod migrating;

/// A member that has joined and does not know its id yet can't send heartbeats: so long it is taken to be there (Kafka's number).
const NEW_MEMBER_JOIN: Millis = 5 * 60 * 1000;

/// Where a group stands; Kafka's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has no members.
    Empty,
    /// Members join.
    Preparing,
    /// Members wait for what the leader assigns.
    Completing,
    /// Members have their assignments.
    Stable,
}

impl Phase {
    /// Kafka's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group<T> {
    pub(crate) phase: Phase,
    pub(crate) generation: Generation,
    /// The generation that is known to be durable.
    pub(crate) durable: Generation,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: Option<Arc<str>>,
    pub(crate) members: BTreeMap<Arc<str>, Member<T>>,
    instances: BTreeMap<String, Arc<str>>,
    /// Ids that were given to clients that have not joined with them yet.
    pending: BTreeSet<Arc<str>>,
    pending_sync: BTreeSet<Arc<str>>,
    /// The first rebalance of a group waits a while for more members.
    initial: bool,
    new_member_added: bool,
    /// How long that wait may be drawn out.
    initial_left: Millis,
    /// About what it takes in memory.
    pub(crate) bytes: usize,
}

/// What a step of a group works with besides the group.
pub(crate) struct Context<'a, T> {
    pub(crate) id: &'a GroupId,
    pub(crate) now: Millis,
    pub(crate) initial_delay: Millis,
    pub(crate) members_max: usize,
    /// Generations begin above this one.
    pub(crate) floor: Generation,
    pub(crate) topics: &'a Topics,
    pub(crate) timers: &'a mut Timers,
    pub(crate) effects: &'a mut Vec<Effect<T>>,
}

type Answered = Result<(), GroupError>;

impl<T> Group<T> {
    /// A group without members, of the generation that is durable.
    pub(crate) fn new(generation: Generation, protocol_type: String) -> Self {
        Self {
            phase: Phase::Empty,
            generation,
            durable: generation,
            protocol_type,
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            initial: false,
            new_member_added: false,
            initial_left: 0,
            bytes: 0,
        }
    }

    /// Whether nothing of it needs to be kept in memory.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Empty && self.pending.is_empty() && self.durable == self.generation
    }

    /// Takes a member in, now or when the others have joined.
    pub(crate) fn join(&mut self, cx: &mut Context<'_, T>, join: Join, to: T) {
        if !self.accepts(cx, &join.member_id) {
            if let Some(id) = self.key(&join.member_id) {
                self.remove_and_go_on(cx, &id, GroupError::GroupFull);
            } else {
                self.remove_pending(cx, &join.member_id);
            }
            return cx.effects.push(Effect::Join { to, answer: Err(GroupError::GroupFull) });
        }
        if !self.supports(&join) {
            return cx.effects.push(Effect::Join { to, answer: Err(GroupError::InconsistentProtocol) });
        }
        if join.member_id.is_empty() { self.join_new(cx, join, to) } else { self.join_known(cx, join, to) }
    }

    /// Whether there is room for the member.
    fn accepts(&self, cx: &Context<'_, T>, member_id: &str) -> bool {
        let member = self.members.get(member_id);
        match self.phase {
            Phase::Empty => true,
            Phase::Preparing => {
                let joining = self.members.values().filter(|member| member.joining.is_some()).count();
                member.is_some_and(|member| member.joining.is_some()) || joining < cx.members_max
            }
            Phase::Completing | Phase::Stable => member.is_some() || self.members.len() < cx.members_max,
        }
    }

    fn supports(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let common = self.common_protocols();
        join.protocol_type == self.protocol_type
            && join.protocols.iter().any(|(name, _)| common.contains(name.as_str()))
    }

    fn join_new(&mut self, cx: &mut Context<'_, T>, join: Join, to: T) {
        let id: Arc<str> = join.fresh_id.as_str().into();
        if let Some(instance) = &join.instance_id {
            return match self.instances.get(instance).cloned() {
                Some(old) => self.replace_static(cx, (&old, id), join, to),
                None => self.add(cx, id, join, to),
            };
        }
        if !join.wants_id_first {
            return self.add(cx, id, join, to);
        }
        self.bytes += PENDING_BYTES + id.len();
        cx.timers.set(cx.id, Timer::Member(Arc::clone(&id)), cx.now.saturating_add(join.session));
        let error = GroupError::MemberIdRequired { member_id: id.as_ref().to_owned() };
        self.pending.insert(id);
        cx.effects.push(Effect::Join { to, answer: Err(error) });
    }

    fn join_known(&mut self, cx: &mut Context<'_, T>, join: Join, to: T) {
        // An id that was given first is never that of a static member.
        let may_be_pending = join.instance_id.is_none();
        if let Some(id) = may_be_pending.then(|| self.pending.take(join.member_id.as_str())).flatten() {
            self.bytes -= PENDING_BYTES + id.len();
            return self.add(cx, id, join, to);
        }
        let id = match self.validate(&join.member_id, join.instance_id.as_deref()) {
            Ok(id) => id,
            Err(error) => return cx.effects.push(Effect::Join { to, answer: Err(error) }),
        };
        let same = self.members.get(&id).is_some_and(|member| member.protocols == join.protocols);
        let leads = self.leader.as_ref() == Some(&id);
        match self.phase {
            Phase::Completing if same => {
                // It may not have got its answer.
                let answer = self.joined(&id, leads);
                cx.effects.push(Effect::Join { to, answer: Ok(answer) });
            }
            Phase::Stable if same && !leads => {
                let answer = self.joined(&id, false);
                cx.effects.push(Effect::Join { to, answer: Ok(answer) });
            }
            Phase::Empty => cx.effects.push(Effect::Join { to, answer: Err(GroupError::UnknownMember) }),
            Phase::Preparing | Phase::Completing | Phase::Stable => {
                self.update(cx, &id, join, to);
                self.rebalance_or_complete(cx);
            }
        }
    }

    fn add(&mut self, cx: &mut Context<'_, T>, id: Arc<str>, join: Join, to: T) {
        if self.phase == Phase::Preparing && self.initial {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), Arc::clone(&id));
        }
        self.leader.get_or_insert_with(|| Arc::clone(&id));
        let member = Member::new(join, to);
        self.bytes += member.bytes() + id.len();
        self.members.insert(Arc::clone(&id), member);
        cx.timers.set(cx.id, Timer::Member(id), cx.now + NEW_MEMBER_JOIN);
        self.rebalance_or_complete(cx);
    }

    /// Takes over what a member that joins again says of itself; it waits to join from now on.
    fn update(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>, join: Join, to: T) {
        let member = self.members.get_mut(id).expect("the member was looked up");
        self.bytes -= member.bytes();
        member.protocols = join.protocols;
        member.session = join.session;
        member.rebalance = join.rebalance;
        member.may_skip_assignment = join.may_skip_assignment;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        self.bytes += member.bytes();
        if let Some(older) = member.joining.replace(to) {
            cx.effects.push(Effect::Join { to: older, answer: Err(GroupError::RebalanceInProgress) });
        }
        // It waits now for something else.
        if let Some(older) = member.syncing.take() {
            cx.effects.push(Effect::Sync { to: older, answer: Err(GroupError::RebalanceInProgress) });
        }
    }

    /// A static member has begun anew under a fresh id, which takes the place of the old one.
    fn replace_static(&mut self, cx: &mut Context<'_, T>, (old, new): (&Arc<str>, Arc<str>), join: Join, to: T) {
        let mut member = self.members.remove(old).expect("an instance is one of a member");
        if let Some(to) = member.joining.take() {
            cx.effects.push(Effect::Join { to, answer: Err(GroupError::FencedInstance) });
        }
        if let Some(to) = member.syncing.take() {
            cx.effects.push(Effect::Sync { to, answer: Err(GroupError::FencedInstance) });
        }
        self.bytes = self.bytes + new.len() - old.len();
        cx.timers.cancel(cx.id, Timer::Member(Arc::clone(old)));
        let leads = self.leader.as_ref() == Some(old);
        if leads {
            self.leader = Some(Arc::clone(&new));
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(Arc::clone(&new));
        }
        self.instances.insert(join.instance_id.clone().unwrap_or_default(), Arc::clone(&new));
        let session = join.session;
        let may_skip = join.may_skip_assignment;
        self.members.insert(Arc::clone(&new), member);
        self.update(cx, &new, join, to);
        cx.timers.set(cx.id, Timer::Member(Arc::clone(&new)), cx.now.saturating_add(session));
        if self.phase != Phase::Stable || self.select_protocol() != self.protocol {
            return self.rebalance_or_complete(cx);
        }
        // Nothing changes for the others: it goes on with the assignment that it had.
        let mut answer = self.joined(&new, leads && may_skip);
        answer.skip_assignment = leads && may_skip;
        if leads && !may_skip {
            // SUBTLE: told that it leads, it would assign; the old id makes it a follower.
            answer.leader = old.as_ref().to_owned();
        }
        let waiting = self.members.get_mut(&new).and_then(|member| member.joining.take());
        cx.effects.extend(waiting.map(|to| Effect::Join { to, answer: Ok(answer) }));
    }

    fn key(&self, member_id: &str) -> Option<Arc<str>> {
        self.members.get_key_value(member_id).map(|(id, _)| Arc::clone(id))
    }

    /// The member of that id, if the instance id, where there is one, is its own.
    fn validate(&self, member_id: &str, instance_id: Option<&str>) -> Result<Arc<str>, GroupError> {
        if let Some(instance) = instance_id {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(owner) if owner.as_ref() != member_id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        self.key(member_id).ok_or(GroupError::UnknownMember)
    }

    /// Members join anew if they don't do so already; if they do and were waited for only by this one, they have.
    fn rebalance_or_complete(&mut self, cx: &mut Context<'_, T>) {
        if self.phase == Phase::Preparing { self.maybe_complete_join(cx) } else { self.rebalance(cx) }
    }

    fn rebalance(&mut self, cx: &mut Context<'_, T>) {
        for (id, member) in &mut self.members {
            if self.phase == Phase::Completing {
                self.bytes -= member.assignment.len();
                member.assignment = Bytes::new();
            }
            if let Some(to) = member.syncing.take() {
                cx.effects.push(Effect::Sync { to, answer: Err(GroupError::RebalanceInProgress) });
                cx.timers.set(cx.id, Timer::Member(Arc::clone(id)), cx.now.saturating_add(member.session));
            }
        }
        cx.timers.cancel(cx.id, Timer::Sync);
        self.pending_sync.clear();
        self.initial = self.phase == Phase::Empty;
        self.phase = Phase::Preparing;
        let rebalance = self.rebalance_time();
        if self.initial {
            self.new_member_added = false;
            self.initial_left = rebalance.saturating_sub(cx.initial_delay);
            let delay = cx.initial_delay.min(rebalance);
            if delay == 0 {
                return self.complete_join(cx);
            }
            cx.timers.set(cx.id, Timer::Join, cx.now.saturating_add(delay));
        } else {
            cx.timers.set(cx.id, Timer::Join, cx.now.saturating_add(rebalance));
            self.maybe_complete_join(cx);
        }
    }

    fn rebalance_time(&self) -> Millis {
        self.members.values().map(|member| member.rebalance).max().unwrap_or(0)
    }

    fn maybe_complete_join(&mut self, cx: &mut Context<'_, T>) {
        let all = self.members.values().all(|member| member.joining.is_some()) && self.pending.is_empty();
        if self.phase == Phase::Preparing && all && !self.initial {
            self.complete_join(cx);
        }
    }

    /// The time to join is over.
    pub(crate) fn join_due(&mut self, cx: &mut Context<'_, T>) {
        if self.phase != Phase::Preparing {
            return;
        }
        if self.initial && self.new_member_added && self.initial_left > 0 {
            self.new_member_added = false;
            let delay = cx.initial_delay.min(self.initial_left);
            self.initial_left -= delay;
            return cx.timers.set(cx.id, Timer::Join, cx.now.saturating_add(delay));
        }
        self.complete_join(cx);
    }

    /// Goes on with those who have joined; static members are waited for as long as their session lasts.
    fn complete_join(&mut self, cx: &mut Context<'_, T>) {
        cx.timers.cancel(cx.id, Timer::Join);
        let missing = |member: &Member<T>| member.joining.is_none() && member.instance_id.is_none();
        let gone: Vec<Arc<str>> =
            self.members.iter().filter(|(_, member)| missing(member)).map(|(id, _)| Arc::clone(id)).collect();
        gone.iter().for_each(|id| self.remove(cx, id, GroupError::UnknownMember));
        if !self.members.is_empty() && !self.elect_joined_leader() {
            return cx.timers.set(cx.id, Timer::Join, cx.now.saturating_add(self.rebalance_time()));
        }
        self.generation = self.generation.max(cx.floor).next();
        self.pending_sync.clear();
        self.initial = false;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.protocol = String::new();
            return self.start(cx, GroupKind::Classic, Vec::new());
        }
        self.phase = Phase::Completing;
        self.protocol = self.select_protocol();
        let mut answers = Vec::new();
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id, self.leader.as_ref() == Some(&id));
            let member = self.members.get_mut(&id).expect("the ids are those of the members");
            member.is_new = false;
            answers.extend(member.joining.take().map(|to| (to, answer)));
            cx.timers.set(cx.id, Timer::Member(Arc::clone(&id)), cx.now.saturating_add(member.session));
            self.pending_sync.insert(id);
        }
        cx.timers.set(cx.id, Timer::Sync, cx.now.saturating_add(self.rebalance_time()));
        self.start(cx, GroupKind::Classic, answers);
    }

    fn start(&self, cx: &mut Context<'_, T>, kind: GroupKind, answers: Vec<(T, Joined)>) {
        cx.effects.push(Effect::Start(Start {
            group: cx.id.clone(),
            generation: self.generation,
            kind,
            protocol_type: self.protocol_type.as_str().into(),
            members: u32::try_from(self.members.len()).unwrap_or(u32::MAX),
            is_awaited: !answers.is_empty(),
            answers,
        }));
    }

    /// Begins a generation without members, unless there are some. Those that the log has were of that kind.
    pub(crate) fn mark_empty(&mut self, cx: &mut Context<'_, T>, kind: GroupKind) {
        if self.phase == Phase::Empty {
            self.generation = self.generation.max(cx.floor).next();
            self.start(cx, kind, Vec::new());
        }
    }

    /// Sees to it that the leader is one who has joined; false if nobody has.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &Member<T>| member.joining.is_some();
        if self.leader.as_ref().and_then(|id| self.members.get(id)).is_some_and(joined) {
            return true;
        }
        match self.members.iter().find(|(_, member)| joined(member)) {
            Some((id, _)) => {
                self.leader = Some(Arc::clone(id));
                true
            }
            None => false,
        }
    }

    /// The protocols that all members can.
    fn common_protocols(&self) -> BTreeSet<&str> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let names: BTreeSet<&str> = member.protocols.iter().map(|(name, _)| name.as_str()).collect();
            names.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
        }
        counts.into_iter().filter(|(_, count)| *count == self.members.len()).map(|(name, _)| name).collect()
    }

    /// The protocol that most members want of those that all can; of equals the first by name.
    fn select_protocol(&self) -> String {
        let common = self.common_protocols();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common.contains(name.as_str())) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied();
        votes.into_iter().find(|(_, count)| Some(*count) == most).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    fn joined(&self, id: &Arc<str>, with_members: bool) -> Joined {
        let member = |(id, member): (&Arc<str>, &Member<T>)| JoinedMember {
            member_id: id.as_ref().to_owned(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(&self.protocol),
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            member_id: id.as_ref().to_owned(),
            members: if with_members { self.members.iter().map(member).collect() } else { Vec::new() },
            skip_assignment: false,
        }
    }

    /// Gives a member its assignment, now or when the leader has brought it.
    pub(crate) fn sync(&mut self, cx: &mut Context<'_, T>, sync: Sync, to: T) {
        match self.check_sync(&sync) {
            Ok(id) => self.sync_of(cx, &id, sync.assignments, to),
            Err(error) => cx.effects.push(Effect::Sync { to, answer: Err(error) }),
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<Arc<str>, GroupError> {
        let id = self.validate(&sync.member.member_id, sync.member.instance_id.as_deref())?;
        self.check_generation(sync.member.generation)?;
        let differs = |said: &Option<String>, own: &str| said.as_ref().is_some_and(|said| said != own);
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.phase {
            Phase::Empty => Err(GroupError::UnknownMember),
            Phase::Preparing => Err(GroupError::RebalanceInProgress),
            Phase::Completing | Phase::Stable => Ok(id),
        }
    }

    fn check_generation(&self, generation: i32) -> Answered {
        let same = u32::try_from(generation).is_ok_and(|generation| generation == self.generation.get());
        if same { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    fn sync_of(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>, assignments: Vec<(String, Bytes)>, to: T) {
        self.pending_sync.remove(id);
        let older = self.members.get_mut(id).and_then(|member| member.syncing.replace(to));
        cx.effects.extend(older.map(|to| Effect::Sync { to, answer: Err(GroupError::RebalanceInProgress) }));
        if self.phase == Phase::Completing {
            if self.leader.as_ref() != Some(id) {
                return;
            }
            let mut assignments: BTreeMap<String, Bytes> = assignments.into_iter().collect();
            for (id, member) in &mut self.members {
                self.bytes -= member.assignment.len();
                member.assignment = assignments.remove(id.as_ref()).unwrap_or_default();
                self.bytes += member.assignment.len();
            }
            self.phase = Phase::Stable;
        }
        for (id, member) in &mut self.members {
            let Some(to) = member.syncing.take() else { continue };
            let synced = Synced {
                protocol_type: self.protocol_type.clone(),
                protocol: self.protocol.clone(),
                assignment: member.assignment.clone(),
            };
            cx.effects.push(Effect::Sync { to, answer: Ok(synced) });
            cx.timers.set(cx.id, Timer::Member(Arc::clone(id)), cx.now.saturating_add(member.session));
        }
    }

    /// The time to ask for assignments is over: who has not asked is gone.
    pub(crate) fn sync_due(&mut self, cx: &mut Context<'_, T>) {
        if !matches!(self.phase, Phase::Completing | Phase::Stable) || self.pending_sync.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.pending_sync);
        gone.iter().for_each(|id| self.remove(cx, id, GroupError::UnknownMember));
        self.rebalance(cx);
    }

    /// A member is there.
    pub(crate) fn heartbeat(&mut self, cx: &mut Context<'_, T>, from: &MemberRef) -> Answered {
        let id = self.validate(&from.member_id, from.instance_id.as_deref())?;
        self.check_generation(from.generation)?;
        self.heard_of(cx, &id);
        match self.phase {
            Phase::Empty => Err(GroupError::UnknownMember),
            Phase::Preparing => Err(GroupError::RebalanceInProgress),
            Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    fn heard_of(&self, cx: &mut Context<'_, T>, id: &Arc<str>) {
        if let Some(member) = self.members.get(id) {
            cx.timers.set(cx.id, Timer::Member(Arc::clone(id)), cx.now.saturating_add(member.session));
        }
    }

    /// Whether offsets may be committed by whoever says that it is `from`.
    pub(crate) fn check_commit(&mut self, cx: &mut Context<'_, T>, from: &MemberRef) -> Answered {
        if from.generation < 0 && self.phase == Phase::Empty {
            return Ok(()); // No member: a tool, or a consumer that assigns its partitions itself.
        }
        if from.generation < 0 && from.member_id.is_empty() && from.instance_id.is_none() {
            return Err(GroupError::UnknownMember);
        }
        let id = self.validate(&from.member_id, from.instance_id.as_deref())?;
        self.check_generation(from.generation)?;
        if self.phase == Phase::Completing {
            return Err(GroupError::RebalanceInProgress);
        }
        self.heard_of(cx, &id);
        Ok(())
    }

    /// Members leave, each by id or by instance id; the outcome of each.
    pub(crate) fn leave(&mut self, cx: &mut Context<'_, T>, members: &[(String, Option<String>)]) -> Vec<Answered> {
        let mut outcomes = Vec::with_capacity(members.len());
        for (id, instance) in members {
            outcomes.push(self.leave_one(cx, id, instance.as_deref()));
        }
        if outcomes.iter().any(Result::is_ok) {
            self.after_removal(cx);
        }
        outcomes
    }

    fn leave_one(&mut self, cx: &mut Context<'_, T>, member_id: &str, instance: Option<&str>) -> Answered {
        let id = match instance {
            Some(instance) if member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)?
            }
            _ if self.take_pending(cx, member_id) => return Ok(()),
            _ => self.validate(member_id, instance)?,
        };
        self.remove(cx, &id, GroupError::UnknownMember);
        Ok(())
    }

    /// A member was not heard of for its session.
    pub(crate) fn member_due(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>) {
        if self.pending.contains(id) {
            return self.remove_pending(cx, id);
        }
        let Some(member) = self.members.get(id) else { return };
        // Who waits for the others is not gone; its session begins when it is answered.
        let waits = member.syncing.is_some() || (member.joining.is_some() && !member.is_new);
        if !waits {
            self.remove_and_go_on(cx, id, GroupError::UnknownMember);
        }
    }

    fn remove_pending(&mut self, cx: &mut Context<'_, T>, id: &str) {
        if self.take_pending(cx, id) {
            self.maybe_complete_join(cx);
        }
    }

    fn take_pending(&mut self, cx: &mut Context<'_, T>, id: &str) -> bool {
        let taken = self.pending.take(id);
        if let Some(id) = &taken {
            self.bytes -= PENDING_BYTES + id.len();
            cx.timers.cancel(cx.id, Timer::Member(Arc::clone(id)));
        }
        taken.is_some()
    }

    fn remove_and_go_on(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>, why: GroupError) {
        self.remove(cx, id, why);
        self.after_removal(cx);
    }

    fn after_removal(&mut self, cx: &mut Context<'_, T>) {
        match self.phase {
            Phase::Empty => {}
            Phase::Preparing => self.maybe_complete_join(cx),
            Phase::Completing | Phase::Stable => self.rebalance(cx),
        }
    }

    fn remove(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>, why: GroupError) {
        let Some(mut member) = self.members.remove(id) else { return };
        self.bytes -= member.bytes() + id.len();
        cx.timers.cancel(cx.id, Timer::Member(Arc::clone(id)));
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        self.pending_sync.remove(id);
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(to) = member.joining.take() {
            cx.effects.push(Effect::Join { to, answer: Err(why.clone()) });
        }
        if let Some(to) = member.syncing.take() {
            cx.effects.push(Effect::Sync { to, answer: Err(why) });
        }
    }

    /// Takes everybody out and answers who waits.
    pub(crate) fn dissolve(&mut self, cx: &mut Context<'_, T>, why: &GroupError) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        ids.iter().for_each(|id| self.remove(cx, id, why.clone()));
        let pending: Vec<Arc<str>> = self.pending.iter().cloned().collect();
        for id in pending {
            self.take_pending(cx, &id);
        }
        cx.timers.cancel(cx.id, Timer::Join);
        cx.timers.cancel(cx.id, Timer::Sync);
        self.phase = Phase::Empty;
        self.initial = false;
    }
}
