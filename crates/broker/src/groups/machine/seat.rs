//! A group in memory: of the classic protocol, whose members assign the partitions, or one whose partitions are assigned here.

use lakebed_model::{Generation, GroupId, GroupKind};

use super::super::group::{Context, Group, Phase};
use super::super::member::GroupError;
use super::{Listed, Machine, reconcile};

/// A group in memory.
#[derive(Debug)]
pub(super) enum Seat<T> {
    /// Its members assign.
    Classic(Group<T>),
    /// Partitions are assigned here.
    Assigned(reconcile::Group<T>),
}

impl<T> Seat<T> {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Classic(group) => group.bytes,
            Self::Assigned(group) => group.bytes,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_idle(),
            Self::Assigned(group) => group.is_idle(),
        }
    }

    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Classic(group) => group.phase == Phase::Empty,
            Self::Assigned(group) => group.members.is_empty(),
        }
    }

    pub(super) fn member_count(&self) -> usize {
        match self {
            Self::Classic(group) => group.members.len(),
            Self::Assigned(group) => group.members.len(),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        match self {
            Self::Classic(group) => group.generation,
            Self::Assigned(group) => group.epoch,
        }
    }

    /// The group is deleted: the next begins anew.
    pub(super) fn forget_generation(&mut self) {
        let zero = Generation::ZERO;
        match self {
            Self::Classic(group) => (group.generation, group.durable) = (zero, zero),
            Self::Assigned(group) => (group.epoch, group.durable, group.target_epoch) = (zero, zero, zero),
        }
    }

    pub(super) fn set_durable(&mut self, cx: &mut Context<'_, T>, generation: Generation) {
        match self {
            Self::Classic(group) => group.durable = group.durable.max(generation),
            Self::Assigned(group) => group.set_durable(cx, generation),
        }
    }

    /// Everybody has to begin anew.
    pub(super) fn dissolve(&mut self, cx: &mut Context<'_, T>, why: &GroupError) {
        match self {
            Self::Classic(group) => {
                group.dissolve(cx, why);
                group.durable = group.generation;
            }
            Self::Assigned(group) => group.dissolve(cx, why),
        }
    }

    /// If it has no members: becomes one of the classic protocol (`None`), or one of a kind whose partitions are assigned here.
    pub(super) fn become_kind(&mut self, cx: &mut Context<'_, T>, kind: Option<GroupKind>) {
        if !self.is_empty() {
            return;
        }
        match (self, kind) {
            (Self::Assigned(group), Some(kind)) => group.kind = kind,
            (seat @ Self::Classic(_), Some(kind)) => {
                let Self::Classic(group) = seat else { return };
                // Ids that were given out are forgotten: whoever comes with one is taken in under it, or told to ask for another.
                group.dissolve(cx, &GroupError::RebalanceInProgress);
                *seat = Self::Assigned(reconcile::Group::new(kind, group.generation, group.durable));
            }
            (seat @ Self::Assigned(_), None) => {
                let Self::Assigned(group) = seat else { return };
                let mut classic = Group::new(group.epoch, group.protocol_type().to_owned());
                classic.durable = group.durable;
                *seat = Self::Classic(classic);
            }
            (Self::Classic(_), None) => {}
        }
    }

    /// Becomes one of the classic protocol if the last of those that don't join and ask has gone.
    pub(super) fn settle(&mut self, cx: &mut Context<'_, T>) {
        let Self::Assigned(group) = self else { return };
        if group.all_join() {
            let (epochs, kind) = ((group.epoch, group.durable), group.kind);
            let group = std::mem::replace(group, reconcile::Group::new(kind, epochs.0, epochs.1));
            let members = group.into_members(cx);
            *self = Self::Classic(Group::downgraded(cx, epochs, members));
        }
    }

    pub(super) fn listed(&self) -> Listed {
        let (kind, standing, protocol_type) = match self {
            Self::Classic(group) => (GroupKind::Classic, group.phase.into(), group.protocol_type.as_str()),
            Self::Assigned(group) => (group.kind, group.progress().into(), group.protocol_type()),
        };
        let (members, generation) = (self.member_count(), self.generation());
        Listed { kind: Some(kind), standing, members, generation, protocol_type: protocol_type.to_owned() }
    }
}

impl<T> Machine<T> {
    /// The group in memory, if it is of the classic protocol.
    pub(super) fn classic(&self, id: &GroupId) -> Option<&Group<T>> {
        match self.groups.get(id)? {
            Seat::Classic(group) => Some(group),
            Seat::Assigned(_) => None,
        }
    }

    /// The group in memory, if its partitions are assigned here.
    pub(super) fn assigned(&self, id: &GroupId) -> Option<&reconcile::Group<T>> {
        match self.groups.get(id)? {
            Seat::Assigned(group) => Some(group),
            Seat::Classic(_) => None,
        }
    }
}
