//! Who a beat comes from: a member, one that comes anew, or one that takes a static member's place.

use std::collections::BTreeSet;
use std::sync::Arc;

use lakebed_model::Generation;

use super::super::group::Context;
use super::super::member::GroupError;
use super::member::{Beat, Member, Stage};
use super::{Group, cancel_timers};

impl<T> Group<T> {
    /// The member that a beat comes from, taken in if it joins; whether it is new.
    pub(super) fn seat(&mut self, cx: &mut Context<'_, T>, beat: &Beat) -> Result<(Arc<str>, bool), GroupError> {
        let joins = beat.epoch == Generation::ZERO;
        let owner = beat.instance_id.as_ref().and_then(|instance| self.instances.get(instance)).cloned();
        match (&beat.instance_id, owner) {
            (Some(instance), Some(owner)) if joins => {
                let old = &self.members[&owner];
                if !old.is_away && old.joins.is_none() {
                    return Err(GroupError::UnreleasedInstance);
                }
                if owner.as_ref() != beat.member_id && self.members.contains_key(beat.member_id.as_str()) {
                    return Err(GroupError::FencedInstance);
                }
                let id: Arc<str> = beat.member_id.as_str().into();
                self.replace(cx, instance, &owner, &id);
                Ok((id, false))
            }
            (Some(_), Some(owner)) => {
                if owner.as_ref() != beat.member_id {
                    return Err(GroupError::FencedInstance);
                }
                self.check(&owner, beat)?;
                Ok((owner, false))
            }
            (Some(_), None) if !joins => Err(GroupError::UnknownMember),
            (_, _) => match self.key(&beat.member_id) {
                Some(id) => {
                    self.check(&id, beat)?;
                    Ok((id, false))
                }
                None if joins => {
                    let id: Arc<str> = beat.member_id.as_str().into();
                    self.add(&id);
                    Ok((id, true))
                }
                None => Err(GroupError::UnknownMember),
            },
        }
    }

    fn key(&self, member_id: &str) -> Option<Arc<str>> {
        self.members.get_key_value(member_id).map(|(id, _)| Arc::clone(id))
    }

    pub(super) fn add(&mut self, id: &Arc<str>) {
        let member = Member::new();
        self.bytes += member.bytes() + id.len();
        self.members.insert(Arc::clone(id), member);
    }

    /// The member of that id, if the static name, where there is one, is its own.
    pub(super) fn find(&self, member_id: &str, instance_id: Option<&str>) -> Result<Arc<str>, GroupError> {
        match instance_id {
            None => self.key(member_id).ok_or(GroupError::UnknownMember),
            Some(instance) => match self.instances.get(instance) {
                None => Err(GroupError::UnknownMember),
                Some(owner) if owner.as_ref() != member_id => Err(GroupError::FencedInstance),
                Some(owner) => Ok(Arc::clone(owner)),
            },
        }
    }

    /// Whether a member names an epoch that it can have been told last.
    fn check(&self, id: &Arc<str>, beat: &Beat) -> Result<(), GroupError> {
        let member = &self.members[id];
        if beat.epoch == member.epoch && !member.is_away {
            return Ok(());
        }
        // The answer that told of the present epoch may have been lost: then it holds nothing yet that it did not have.
        let holds_no_more = beat.owned.as_ref().is_some_and(|owned| owned.is_subset(&member.assigned));
        if beat.epoch < member.epoch && beat.epoch == member.previous && holds_no_more && !member.is_away {
            return Ok(());
        }
        Err(GroupError::FencedEpoch)
    }

    /// Another process has come under a static name: it has what the one before had, and begins at epoch 0.
    pub(super) fn replace(&mut self, cx: &mut Context<'_, T>, instance: &str, old: &Arc<str>, new: &Arc<str>) {
        let mut member = self.members.remove(old).expect("an instance is one of a member");
        cancel_timers(cx, old);
        self.bytes -= member.bytes() + old.len();
        let released: Vec<_> = std::mem::take(&mut member.revoking).into_iter().collect();
        self.hand_over(cx, old, &released, &[]);
        for key in &member.assigned {
            self.holders.insert(*key, Arc::clone(new));
        }
        (member.epoch, member.previous) = (Generation::ZERO, Generation::ZERO);
        (member.is_away, member.stage, member.joins, member.nudged) = (false, Stage::Waiting, None, false);
        self.bytes += member.bytes() + new.len();
        self.members.insert(Arc::clone(new), member);
        self.instances.insert(instance.to_owned(), Arc::clone(new));
    }

    /// Takes over what a member says of itself; whether it wants other topics than before.
    pub(super) fn update(&mut self, id: &Arc<str>, beat: Beat) -> bool {
        let member = self.members.get_mut(id).expect("it has its seat");
        self.bytes -= member.bytes();
        if let Some(instance) = beat.instance_id {
            if let Some(other) = member.instance_id.replace(instance.clone()).filter(|other| *other != instance) {
                self.instances.remove(&other);
            }
            self.instances.insert(instance, Arc::clone(id));
        }
        (member.client_id, member.client_host, member.session) = (beat.client_id, beat.client_host, beat.session);
        member.rack_id = beat.rack_id.or(member.rack_id.take());
        member.rebalance = beat.rebalance.unwrap_or(member.rebalance);
        member.assignor = beat.assignor.or(member.assignor);
        let mut changed = false;
        if let Some(names) = beat.names {
            let names: BTreeSet<Arc<str>> = names.into_iter().map(Arc::from).collect();
            changed |= names != member.names;
            member.names = names;
        }
        if let Some(pattern) = beat.pattern {
            let pattern = Some(pattern).filter(|pattern| !pattern.is_empty()).map(Arc::from);
            changed |= pattern != member.pattern;
            member.pattern = pattern;
        }
        self.bytes += member.bytes();
        changed
    }
}
