//! From one protocol to the other while members live: what a group takes along (KIP-848).

use std::collections::BTreeMap;
use std::sync::Arc;

use lakebed_model::{Generation, GroupKind};

use super::{Context, Effect, Group, GroupError, Member, Phase, Timer};
use crate::groups::reconcile;
use crate::groups::reconcile::joining::keys_of;
use crate::groups::reconcile::member::{Joins, Member as Assignee};
use crate::groups::subscription::{self, PROTOCOL_TYPE};

impl<T> Group<T> {
    /// This group as one whose partitions are assigned here: its members keep what they have, and go on joining and asking. Whoever waits is told to
    /// join again.
    ///
    /// # Errors
    /// [`GroupError::GroupNotFound`] (Kafka's word) if its members are no consumers, or what they told one another can't be read. Nothing is changed.
    pub(crate) fn upgraded(&mut self, cx: &mut Context<'_, T>) -> Result<reconcile::Group<T>, GroupError> {
        if self.protocol_type != PROTOCOL_TYPE {
            return Err(GroupError::OtherKind);
        }
        let mut assignees = BTreeMap::new();
        for (id, member) in &self.members {
            assignees.insert(Arc::clone(id), self.assignee(cx, member).ok_or(GroupError::OtherKind)?);
        }
        let mut group = reconcile::Group::new(GroupKind::Consumer, self.generation, self.durable);
        for (id, assignee) in assignees {
            let due = cx.now.saturating_add(assignee.session);
            group.take_in(&id, assignee);
            cx.timers.set(cx.id, Timer::Member(id), due);
        }
        let waiting = self.members.values_mut();
        for member in waiting {
            let answer = GroupError::RebalanceInProgress;
            cx.effects.extend(member.joining.take().map(|to| Effect::Join { to, answer: Err(answer.clone()) }));
            cx.effects.extend(member.syncing.take().map(|to| Effect::Sync { to, answer: Err(answer.clone()) }));
        }
        for id in std::mem::take(&mut self.pending) {
            cx.timers.cancel(cx.id, Timer::Member(id));
        }
        cx.timers.cancel(cx.id, Timer::Join);
        cx.timers.cancel(cx.id, Timer::Sync);
        Ok(group)
    }

    fn assignee(&self, cx: &Context<'_, T>, member: &Member<T>) -> Option<Assignee> {
        let agreed = Some(&self.protocol).filter(|protocol| !protocol.is_empty());
        let name = agreed.or(member.protocols.first().map(|(name, _)| name))?;
        let names = subscription::topics(&member.metadata(name))?;
        let assigned = match member.assignment.is_empty() {
            true => Vec::new(),
            false => subscription::assigned(&member.assignment)?,
        };
        let assigned = keys_of(cx.topics, assigned);
        let mut assignee = Assignee::new();
        assignee.instance_id.clone_from(&member.instance_id);
        assignee.client_id.clone_from(&member.client_id);
        assignee.client_host.clone_from(&member.client_host);
        assignee.names = names.into_iter().map(Arc::from).collect();
        (assignee.session, assignee.rebalance) = (member.session, member.rebalance);
        (assignee.epoch, assignee.previous) = (self.generation, self.generation);
        assignee.target = assigned.clone();
        assignee.assigned = assigned;
        // What all agreed on is the first from now on.
        let mut protocols = member.protocols.clone();
        protocols.sort_by_key(|(known, _)| known != name);
        assignee.joins = Some(Joins { protocols });
        Some(assignee)
    }

    /// A group of the classic protocol of members that were assigned their partitions here, and that all join and ask: they are told to join again.
    pub(crate) fn downgraded(
        cx: &mut Context<'_, T>,
        (generation, durable): (Generation, Generation),
        assignees: BTreeMap<Arc<str>, Assignee>,
    ) -> Self {
        let mut group = Self::new(generation, PROTOCOL_TYPE.to_owned());
        group.durable = durable;
        for (id, assignee) in assignees {
            let member = Member {
                instance_id: assignee.instance_id,
                client_id: assignee.client_id,
                client_host: assignee.client_host,
                protocols: assignee.joins.map(|joins| joins.protocols).unwrap_or_default(),
                session: assignee.session,
                rebalance: assignee.rebalance,
                may_skip_assignment: false,
                is_new: false,
                joining: None,
                syncing: None,
                assignment: bytes::Bytes::new(),
            };
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), Arc::clone(&id));
            }
            group.bytes += member.bytes() + id.len();
            group.leader.get_or_insert_with(|| Arc::clone(&id));
            cx.timers.set(cx.id, Timer::Member(Arc::clone(&id)), cx.now.saturating_add(member.session));
            group.members.insert(id, member);
        }
        group.phase = Phase::Stable;
        group.protocol = group.select_protocol();
        group.rebalance(cx);
        group
    }
}
