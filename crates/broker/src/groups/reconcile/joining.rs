//! Members that join and ask for their assignments, in a group whose partitions are assigned here (KIP-848's way from the one protocol to the
//! other): joining is their beat, what they are told to join again for is a new epoch, and the leader that they look for is nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use lakebed_model::{Generation, PartitionIndex, PartitionKey};

use super::super::group::Context;
use super::super::member::{Effect, GroupError, Join, Joined, MemberRef, Sync, Synced};
use super::super::subscription::{self, PROTOCOL_TYPE};
use super::super::timers::Timer;
use super::assign::Partitions;
use super::member::{Joins, Member, Stage};
use super::topics::Topics;
use super::{Answer, Answered, Group, Waiting};

/// Partitions by the names of their topics; those of topics that there are not are left out.
pub(crate) fn keys_of(topics: &Topics, named: Vec<(String, Vec<u32>)>) -> Partitions {
    let known = named.into_iter().filter_map(|(name, indexes)| Some((topics.get(&name)?.id, indexes)));
    known
        .flat_map(|(id, indexes)| indexes.into_iter().map(move |index| (id, index)))
        .map(|(id, index)| PartitionKey::new(id, PartitionIndex::new(index)))
        .collect()
}

impl<T> Group<T> {
    /// A member joins; it is answered with its epoch as the generation when that is durable.
    pub(crate) fn join(&mut self, cx: &mut Context<'_, T>, join: Join, to: T) {
        match self.try_join(cx, join) {
            Ok(joined) => {
                let member: Arc<str> = joined.member_id.as_str().into();
                self.answer(cx, Waiting { member, epoch: joined.generation, to, answer: Answer::Join(joined) });
            }
            Err(error) => cx.effects.push(Effect::Join { to, answer: Err(error) }),
        }
    }

    fn try_join(&mut self, cx: &mut Context<'_, T>, join: Join) -> Result<Joined, GroupError> {
        let is_new = join.member_id.is_empty();
        let known = !is_new && self.members.contains_key(join.member_id.as_str());
        if !known && self.members.len() >= cx.members_max {
            return Err(GroupError::GroupFull);
        }
        if !self.supports(&join) {
            return Err(GroupError::InconsistentProtocol);
        }
        let first = join.protocols.first().ok_or(GroupError::InconsistentProtocol)?;
        let wanted = subscription::topics(&first.1).ok_or(GroupError::InconsistentProtocol)?;
        let owned = keys_of(cx.topics, subscription::owned(&first.1).ok_or(GroupError::InconsistentProtocol)?);
        if is_new && join.wants_id_first && join.instance_id.is_none() {
            return Err(GroupError::MemberIdRequired { member_id: join.fresh_id });
        }
        let (id, came) = self.seat_joining(cx, &join)?;
        let protocol = first.0.clone();
        let changed = self.update_joining(&id, join, wanted) || came;
        self.advance(cx, &id, changed, Some(&owned));
        let member = &self.members[&id];
        cx.timers.cancel(cx.id, Timer::MustJoin(Arc::clone(&id)));
        cx.timers.set(cx.id, Timer::Member(Arc::clone(&id)), cx.now.saturating_add(member.session));
        cx.timers.set(cx.id, Timer::MustSync(Arc::clone(&id)), cx.now.saturating_add(member.rebalance));
        Ok(Joined {
            generation: member.epoch,
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol,
            leader: String::new(),
            member_id: id.as_ref().to_owned(),
            members: Vec::new(),
            skip_assignment: false,
        })
    }

    fn supports(&self, join: &Join) -> bool {
        let mut others = self.members.iter().filter(|(id, _)| id.as_ref() != join.member_id);
        let has = |member: &Member, name: &str| {
            member.joins.as_ref().is_none_or(|joins| joins.protocols.iter().any(|(known, _)| known == name))
        };
        join.protocol_type == PROTOCOL_TYPE
            && join.protocols.iter().any(|(name, _)| others.all(|(_, member)| has(member, name)))
    }

    /// The member that joins, taken in if it is new; whether it is.
    fn seat_joining(&mut self, cx: &mut Context<'_, T>, join: &Join) -> Result<(Arc<str>, bool), GroupError> {
        let fresh: Arc<str> = join.fresh_id.as_str().into();
        let Some(instance) = &join.instance_id else {
            return Ok(match self.members.get_key_value(join.member_id.as_str()) {
                Some((id, _)) => (Arc::clone(id), false),
                None => {
                    // It comes with the id that it was told to come with.
                    let id: Arc<str> = if join.member_id.is_empty() { fresh } else { join.member_id.as_str().into() };
                    self.add(&id);
                    (id, true)
                }
            });
        };
        match self.instances.get(instance).cloned() {
            Some(old) if join.member_id.is_empty() => {
                self.replace(cx, instance, &old, &fresh);
                Ok((fresh, false))
            }
            Some(owner) if owner.as_ref() == join.member_id => Ok((owner, false)),
            Some(_) => Err(GroupError::FencedInstance),
            None if join.member_id.is_empty() => {
                self.add(&fresh);
                Ok((fresh, true))
            }
            None => Err(GroupError::UnknownMember),
        }
    }

    /// Takes over what a member that joins says of itself; whether it wants other topics than before.
    fn update_joining(&mut self, id: &Arc<str>, join: Join, wanted: Vec<String>) -> bool {
        let member = self.members.get_mut(id).expect("it has its seat");
        self.bytes -= member.bytes();
        if let Some(instance) = join.instance_id {
            self.instances.insert(instance.clone(), Arc::clone(id));
            member.instance_id = Some(instance);
        }
        (member.client_id, member.client_host) = (join.client_id, join.client_host);
        (member.session, member.rebalance) = (join.session, join.rebalance);
        member.joins = Some(Joins { protocols: join.protocols });
        let names: BTreeSet<Arc<str>> = wanted.into_iter().map(Arc::from).collect();
        let changed = names != member.names || member.pattern.is_some();
        (member.names, member.pattern, member.assignor) = (names, None, None);
        self.bytes += member.bytes();
        changed
    }

    /// The member that joins and asks of that id, if the generation is its epoch.
    fn joined(&self, from: &MemberRef) -> Result<Arc<str>, GroupError> {
        let id = self.find(&from.member_id, from.instance_id.as_deref())?;
        let member = &self.members[&id];
        if member.joins.is_none() {
            return Err(GroupError::UnknownMember);
        }
        let is_its_own = u32::try_from(from.generation).is_ok_and(|named| Generation::new(named) == member.epoch);
        if is_its_own { Ok(id) } else { Err(GroupError::IllegalGeneration) }
    }

    /// A member asks for its assignment.
    pub(crate) fn sync(&mut self, cx: &mut Context<'_, T>, sync: Sync, to: T) {
        let answer = self.try_sync(cx, sync);
        cx.effects.push(Effect::Sync { to, answer });
    }

    fn try_sync(&mut self, cx: &mut Context<'_, T>, sync: Sync) -> Result<Synced, GroupError> {
        let id = self.joined(&sync.member)?;
        let member = &self.members[&id];
        let (name, metadata) = member.joins.iter().flat_map(|joins| &joins.protocols).next().expect("it has joined");
        let other_type = sync.protocol_type.as_deref().is_some_and(|named| named != PROTOCOL_TYPE);
        if other_type || sync.protocol.as_ref().is_some_and(|named| named != name) {
            return Err(GroupError::InconsistentProtocol);
        }
        // One that lets go of partitions has joined already: it does that first.
        if self.epoch > member.epoch && member.stage != Stage::Revoking {
            self.must_join(cx, &id);
            return Err(GroupError::RebalanceInProgress);
        }
        let names = self.subscribed.name_of_each();
        let name_of = |key: &PartitionKey| Some((*names.get(&key.topic)?, key.partition.get()));
        let named: Vec<(&str, u32)> = member.assigned.iter().filter_map(name_of).collect();
        let synced = Synced {
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol: name.clone(),
            assignment: subscription::write_assignment(metadata, &named),
        };
        cx.timers.cancel(cx.id, Timer::MustSync(Arc::clone(&id)));
        cx.timers.set(cx.id, Timer::Member(Arc::clone(&id)), cx.now.saturating_add(member.session));
        Ok(synced)
    }

    fn must_join(&self, cx: &mut Context<'_, T>, id: &Arc<str>) {
        let due = cx.now.saturating_add(self.members[id].rebalance);
        cx.timers.set_if_absent(cx.id, Timer::MustJoin(Arc::clone(id)), due);
    }

    /// A member that joins and asks is there.
    pub(crate) fn heartbeat(&mut self, cx: &mut Context<'_, T>, from: &MemberRef) -> Answered {
        let id = self.joined(from)?;
        let member = &self.members[&id];
        cx.timers.set(cx.id, Timer::Member(Arc::clone(&id)), cx.now.saturating_add(member.session));
        if member.epoch < self.epoch || member.stage == Stage::Revoking || self.could_have_more(member) {
            self.must_join(cx, &id);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Members that join and ask leave, each by id or by static name; the outcome of each.
    pub(crate) fn leave(&mut self, cx: &mut Context<'_, T>, members: &[(String, Option<String>)]) -> Vec<Answered> {
        let mut outcomes = Vec::with_capacity(members.len());
        for (id, instance) in members {
            let found = match instance {
                Some(instance) if id.is_empty() => {
                    self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)
                }
                instance => self.find(id, instance.as_deref()),
            };
            let found = found.and_then(|id| match self.members[&id].joins {
                Some(_) => Ok(id),
                None => Err(GroupError::UnknownMember),
            });
            outcomes.push(found.map(|id| self.remove(cx, &id)));
        }
        if outcomes.iter().any(Result::is_ok) {
            self.bump(cx, None);
        }
        outcomes
    }
}
