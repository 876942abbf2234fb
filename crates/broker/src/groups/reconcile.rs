//! One group whose partitions are assigned here: members say what they want and hold, and are told what they may read (after KIP-848).
//!
//! Its epoch grows with everything that may change who is to read what: a member comes, goes or wants something else, a topic appears or
//! grows. With the epoch comes a *target*, and each member goes towards it at its own pace, without the others having to wait. Invariants:
//!
//! 1. A partition has one holder: what one is to have that another holds waits until that one has let go of it, or is gone.
//! 2. An epoch is durable before any member is told of it; answers wait for that. The epochs of a group, and of each member, only grow.
//! 3. Whoever asks is answered once.
//! 4. Where everybody lets go of what they are told to, each subscribed partition has a holder in the end.
//!
//! The target is made when the first member asks after the epoch grew, so that many changes at once cost one. Members that can be told something
//! unasked get [`Effect::Nudge`] when asking would tell them something new.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakebed_model::{Generation, GroupKind, PartitionKey};

use super::group::Context;
use super::member::{Effect, GroupError, Joined, Start};
use super::timers::Timer;

pub(crate) mod assign;
pub(crate) mod describe;
pub(crate) mod joining;
pub(crate) mod member;
pub(crate) mod pattern;
mod seats;
mod subscribed;
#[cfg(test)]
mod tests;
pub(crate) mod topics;

use assign::{Assignor, Candidate, Partitions};
use member::{Beat, Beaten, Departure, Member, Stage};
use subscribed::Subscribed;

/// What waits for an epoch to be durable.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a beat.
    Beat(Beaten),
    /// To a member that joins and asks.
    Join(Joined),
}

/// An answer, and where it goes.
#[derive(Debug)]
struct Waiting<T> {
    member: Arc<str>,
    epoch: Generation,
    to: T,
    answer: Answer,
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group<T> {
    pub(crate) kind: GroupKind,
    pub(crate) epoch: Generation,
    /// The epoch that is known to be durable.
    pub(crate) durable: Generation,
    /// The epoch that the target was made for.
    pub(crate) target_epoch: Generation,
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    pub(crate) instances: BTreeMap<String, Arc<str>>,
    /// Who holds each partition.
    holders: BTreeMap<PartitionKey, Arc<str>>,
    subscribed: Subscribed,
    waiting: Vec<Waiting<T>>,
    /// About what it takes in memory.
    pub(crate) bytes: usize,
}

type Answered = Result<(), GroupError>;

impl<T> Group<T> {
    /// A group without members.
    pub(crate) fn new(kind: GroupKind, epoch: Generation, durable: Generation) -> Self {
        Self {
            kind,
            epoch,
            durable,
            target_epoch: epoch,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            holders: BTreeMap::new(),
            subscribed: Subscribed::default(),
            waiting: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether nothing of it needs to be kept in memory.
    pub(crate) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.waiting.is_empty() && self.durable == self.epoch
    }

    /// A member is there. The answer comes as an effect, when what it tells is durable.
    pub(crate) fn beat(&mut self, cx: &mut Context<'_, T>, beat: Beat, to: T) {
        match self.try_beat(cx, beat) {
            Ok(beaten) => {
                let member: Arc<str> = beaten.member_id.as_str().into();
                self.answer(cx, Waiting { member, epoch: beaten.epoch, to, answer: Answer::Beat(beaten) });
            }
            Err(error) => cx.effects.push(Effect::Beat { to, answer: Err(error) }),
        }
    }

    fn try_beat(&mut self, cx: &mut Context<'_, T>, beat: Beat) -> Result<Beaten, GroupError> {
        let is_member = self.members.contains_key(beat.member_id.as_str());
        if !is_member && self.members.len() >= cx.members_max {
            return Err(GroupError::GroupFull);
        }
        self.check_pattern(&beat)?;
        let wants_all = beat.wants_all();
        let (id, is_new) = self.seat(cx, &beat)?;
        let owned = beat.owned.clone();
        // One that wants nothing changes nothing for the others; but a group without members is none that the log lets live.
        let changed = self.update(&id, beat) || (is_new && self.members.len() == 1);
        let assigned = self.advance(cx, &id, changed, owned.as_ref());
        let member = &self.members[&id];
        cx.timers.set(cx.id, Timer::Member(Arc::clone(&id)), cx.now.saturating_add(member.session));
        let assignment = (assigned || wants_all).then(|| member.assigned.clone());
        Ok(Beaten { member_id: id.as_ref().to_owned(), epoch: member.epoch, assignment })
    }

    fn check_pattern(&self, beat: &Beat) -> Answered {
        let Some(pattern) = beat.pattern.as_deref().filter(|pattern| !pattern.is_empty()) else { return Ok(()) };
        let member = self.members.get(beat.member_id.as_str());
        if member.is_some_and(|member| member.pattern.as_deref() == Some(pattern)) {
            return Ok(());
        }
        pattern::compile(pattern).map(drop).map_err(|why| GroupError::InvalidPattern { why })
    }

    /// Sees to it that the target is that of what all want now, and has a member go towards it. Whether what it may read is another set.
    fn advance(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>, changed: bool, owned: Option<&Partitions>) -> bool {
        let other_topics = self.subscribed.refresh(cx.topics, &self.members, changed);
        // An epoch whose target is still to be made takes in other topics as well.
        if changed || (other_topics && self.epoch == self.target_epoch) {
            self.bump(cx, Some(id));
        }
        if self.epoch > self.target_epoch {
            self.retarget();
        }
        self.reconcile(cx, id, owned)
    }

    /// A new epoch begins.
    fn bump(&mut self, cx: &mut Context<'_, T>, but: Option<&Arc<str>>) {
        self.epoch = self.epoch.max(cx.floor).next();
        cx.effects.push(Effect::Start(Start {
            group: cx.id.clone(),
            generation: self.epoch,
            kind: self.kind,
            protocol_type: self.protocol_type().into(),
            members: u32::try_from(self.members.len()).unwrap_or(u32::MAX),
            is_awaited: true,
            answers: Vec::new(),
        }));
        self.nudge_all(cx, but);
    }

    /// What its members' protocols are for, as the log and tools have it.
    pub(crate) fn protocol_type(&self) -> &'static str {
        match self.kind {
            GroupKind::Classic | GroupKind::Consumer => super::subscription::PROTOCOL_TYPE,
            GroupKind::Grpc => "",
        }
    }

    /// Whether its members can be told something unasked.
    fn can_be_nudged(&self) -> bool {
        self.kind == GroupKind::Grpc
    }

    fn nudge(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>) {
        if !self.can_be_nudged() {
            return;
        }
        let Some(member) = self.members.get_mut(id) else { return };
        if !std::mem::replace(&mut member.nudged, true) {
            cx.effects.push(Effect::Nudge { group: cx.id.clone(), member: Arc::clone(id) });
        }
    }

    fn nudge_all(&mut self, cx: &mut Context<'_, T>, but: Option<&Arc<str>>) {
        if self.can_be_nudged() {
            let ids: Vec<Arc<str>> = self.members.keys().filter(|id| Some(*id) != but).cloned().collect();
            ids.iter().for_each(|id| self.nudge(cx, id));
        }
    }

    /// How partitions are dealt out: as most members ask for that ask for something.
    pub(crate) fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|member| member.assignor) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.into_iter().max_by_key(|(assignor, votes)| (*votes, std::cmp::Reverse(*assignor)));
        most.map_or(Assignor::ALL[0], |(assignor, _)| assignor)
    }

    fn retarget(&mut self) {
        let candidates: Vec<Candidate<'_>> = self
            .members
            .iter()
            .map(|(id, member)| Candidate {
                instance_id: member.instance_id.as_deref(),
                member_id: id,
                topics: self.subscribed.topics_of(member),
                before: &member.target,
            })
            .collect();
        let targets = assign::assign(self.assignor(), &candidates, &self.subscribed.partitions());
        for (member, target) in self.members.values_mut().zip(targets) {
            self.bytes -= member.bytes();
            member.target = target;
            self.bytes += member.bytes();
        }
        self.target_epoch = self.epoch;
    }

    fn reconcile(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>, owned: Option<&Partitions>) -> bool {
        let member = self.members.get_mut(id).expect("it has its seat");
        let holders = &mut self.holders;
        self.bytes -= member.bytes();
        member.nudged = false;
        let step = member.reconcile(self.target_epoch, owned, |key| holders.get(key).is_none_or(|holder| holder == id));
        self.bytes += member.bytes();
        // One that joins and asks has its time to join again instead.
        if step.began_to_revoke && member.joins.is_none() {
            let due = cx.now.saturating_add(member.rebalance);
            cx.timers.set(cx.id, Timer::Revoke(Arc::clone(id)), due);
        } else if member.stage != Stage::Revoking {
            cx.timers.cancel(cx.id, Timer::Revoke(Arc::clone(id)));
        }
        self.hand_over(cx, id, &step.released, &step.taken);
        step.assigned
    }

    /// Books who holds what after a step of a member, and tells those who wait for what it let go of.
    fn hand_over(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>, released: &[PartitionKey], taken: &[PartitionKey]) {
        for key in released {
            let holder = self.holders.remove(key);
            assert_eq!(holder.as_ref(), Some(id), "a member lets go of what it holds");
        }
        for key in taken {
            let holder = self.holders.insert(*key, Arc::clone(id));
            assert!(holder.is_none(), "a partition has one holder");
        }
        if released.is_empty() || !self.can_be_nudged() {
            return;
        }
        let waits =
            |member: &Member| member.stage == Stage::Waiting && released.iter().any(|key| member.target.contains(key));
        let waiting: Vec<Arc<str>> =
            self.members.iter().filter(|(_, member)| waits(member)).map(|(id, _)| Arc::clone(id)).collect();
        waiting.iter().for_each(|id| self.nudge(cx, id));
    }

    /// Whether a member that waits for partitions could have one of them now.
    pub(crate) fn could_have_more(&self, member: &Member) -> bool {
        member.stage == Stage::Waiting
            && member.target.iter().any(|key| !member.assigned.contains(key) && !self.holders.contains_key(key))
    }

    /// Gives an answer when its epoch is durable.
    fn answer(&mut self, cx: &mut Context<'_, T>, waiting: Waiting<T>) {
        if waiting.epoch <= self.durable {
            return cx.effects.push(effect(waiting, Ok(())));
        }
        // One that asks again has given the other up: what it is told now is newer.
        if let Some(at) = self.waiting.iter().position(|other| other.member == waiting.member) {
            let older = self.waiting.swap_remove(at);
            let why = GroupError::NotAvailable { why: "the member has asked again".to_owned() };
            cx.effects.push(effect(older, Err(why)));
        }
        self.waiting.push(waiting);
    }

    /// An epoch is durable.
    pub(crate) fn set_durable(&mut self, cx: &mut Context<'_, T>, epoch: Generation) {
        self.durable = self.durable.max(epoch);
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.epoch <= self.durable);
        self.waiting = waiting;
        cx.effects.extend(ready.into_iter().map(|waiting| effect(waiting, Ok(()))));
    }

    /// A member goes.
    ///
    /// # Errors
    /// [`GroupError`]
    pub(crate) fn depart(&mut self, cx: &mut Context<'_, T>, departure: &Departure) -> Answered {
        let id = self.find(&departure.member_id, departure.instance_id.as_deref())?;
        if !departure.comes_back {
            self.remove(cx, &id);
            self.bump(cx, None);
            return Ok(());
        }
        let member = self.members.get_mut(&id).expect("it was found");
        self.bytes -= member.bytes();
        member.is_away = true;
        let released: Vec<PartitionKey> = std::mem::take(&mut member.revoking).into_iter().collect();
        if member.stage == Stage::Revoking {
            // It has let go of everything: it could go on when it is back.
            member.stage = Stage::Waiting;
        }
        self.bytes += member.bytes();
        cx.timers.cancel(cx.id, Timer::Revoke(Arc::clone(&id)));
        self.hand_over(cx, &id, &released, &[]);
        Ok(())
    }

    /// A member was not heard of for its session.
    pub(crate) fn member_due(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>) {
        if self.members.contains_key(id) {
            self.remove(cx, id);
            self.bump(cx, None);
        }
    }

    /// A member has had its time to let go of partitions.
    pub(crate) fn revoke_due(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>) {
        if self.members.get(id).is_some_and(|member| member.stage == Stage::Revoking) {
            self.member_due(cx, id);
        }
    }

    /// Takes a member out, and what it held from it.
    fn remove(&mut self, cx: &mut Context<'_, T>, id: &Arc<str>) {
        self.nudge(cx, id);
        let Some(member) = self.members.remove(id) else { return };
        self.bytes -= member.bytes() + id.len();
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        cancel_timers(cx, id);
        let released: Vec<PartitionKey> = member.held().copied().collect();
        self.hand_over(cx, id, &released, &[]);
        self.subscribed.are_outdated();
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.member == *id) {
            let waiting = self.waiting.swap_remove(at);
            cx.effects.push(effect(waiting, Err(GroupError::UnknownMember)));
        }
    }

    /// Takes in a member of another protocol with what it has.
    pub(crate) fn take_in(&mut self, id: &Arc<str>, mut member: Member) {
        // What two were given by mistake is the first one's.
        member.assigned.retain(|key| !self.holders.contains_key(key));
        self.holders.extend(member.assigned.iter().map(|key| (*key, Arc::clone(id))));
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), Arc::clone(id));
        }
        self.bytes += member.bytes() + id.len();
        self.members.insert(Arc::clone(id), member);
        self.subscribed.are_outdated();
    }

    /// Whether all its members join and ask: they could do without partitions being assigned here.
    pub(crate) fn all_join(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|member| member.joins.is_some())
    }

    /// Its members, without whatever waits for them.
    pub(crate) fn into_members(mut self, cx: &mut Context<'_, T>) -> BTreeMap<Arc<str>, Member> {
        for waiting in std::mem::take(&mut self.waiting) {
            cx.effects.push(effect(waiting, Err(GroupError::RebalanceInProgress)));
        }
        self.members.keys().for_each(|id| cancel_timers(cx, id));
        self.members
    }

    /// Takes everybody out and answers who waits.
    pub(crate) fn dissolve(&mut self, cx: &mut Context<'_, T>, why: &GroupError) {
        for waiting in std::mem::take(&mut self.waiting) {
            cx.effects.push(effect(waiting, Err(why.clone())));
        }
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        ids.iter().for_each(|id| self.remove(cx, id));
        self.durable = self.epoch;
    }

    /// Whether offsets may be committed by whoever says that it is a member of this epoch. Without members anybody may.
    pub(crate) fn check_commit(&self, member_id: &str, epoch: i32) -> Answered {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        self.check_epoch(member_id, epoch)
    }

    /// The topics of these names that members want.
    pub(crate) fn wanted<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| self.subscribed.wants(name)).collect()
    }

    /// Whether it is a member, of this epoch.
    pub(crate) fn check_epoch(&self, member_id: &str, epoch: i32) -> Answered {
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMember)?;
        if !member.is_away && u32::try_from(epoch).is_ok_and(|epoch| epoch == member.epoch.get()) {
            return Ok(());
        }
        Err(if member.joins.is_some() { GroupError::IllegalGeneration } else { GroupError::StaleEpoch })
    }

    /// The topics have changed: nudges those whom that may concern.
    pub(crate) fn topics_changed(&mut self, cx: &mut Context<'_, T>) {
        if self.can_be_nudged() && self.subscribed.is_concerned(cx.topics) {
            self.nudge_all(cx, None);
        }
    }
}

fn cancel_timers<T>(cx: &mut Context<'_, T>, id: &Arc<str>) {
    for timer in [Timer::Member, Timer::Revoke, Timer::MustJoin, Timer::MustSync] {
        cx.timers.cancel(cx.id, timer(Arc::clone(id)));
    }
}

fn effect<T>(waiting: Waiting<T>, result: Answered) -> Effect<T> {
    let to = waiting.to;
    match waiting.answer {
        Answer::Beat(beaten) => Effect::Beat { to, answer: result.map(|()| beaten) },
        Answer::Join(joined) => Effect::Join { to, answer: result.map(|()| joined) },
    }
}
