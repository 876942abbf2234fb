//! What tools are shown of a group whose partitions are assigned here.

use std::collections::BTreeSet;
use std::sync::Arc;

use lakebed_model::{Generation, GroupKind};

use super::Group;
use super::assign::{Assignor, Partitions};
use super::member::Member;

/// Where such a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has no members.
    Empty,
    /// Its target is to be made anew.
    Assigning,
    /// Some members are not where the target wants them.
    Reconciling,
    /// All are.
    Stable,
}

impl Progress {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedAssigned {
    pub(crate) kind: GroupKind,
    pub(crate) progress: Progress,
    pub(crate) epoch: Generation,
    /// The epoch of the target.
    pub(crate) target_epoch: Generation,
    pub(crate) assignor: Assignor,
    pub(crate) members: Vec<DescribedAssignee>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedAssignee {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) rack_id: Option<String>,
    /// `None`: it has gone to come back.
    pub(crate) epoch: Option<Generation>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) names: BTreeSet<Arc<str>>,
    pub(crate) pattern: Option<Arc<str>>,
    pub(crate) assigned: Partitions,
    pub(crate) target: Partitions,
    /// It speaks the protocol in which members join and ask for their assignments.
    pub(crate) joins: bool,
    /// It has what it is to have.
    pub(crate) is_reconciled: bool,
}

impl<T> Group<T> {
    /// Where it stands.
    pub(crate) fn progress(&self) -> Progress {
        if self.members.is_empty() {
            Progress::Empty
        } else if self.epoch > self.target_epoch {
            Progress::Assigning
        } else if self.members.values().all(|member| member.is_reconciled(self.target_epoch)) {
            Progress::Stable
        } else {
            Progress::Reconciling
        }
    }

    /// All of it.
    pub(crate) fn describe(&self) -> DescribedAssigned {
        let member = |(id, member): (&Arc<str>, &Member)| DescribedAssignee {
            member_id: id.as_ref().to_owned(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            epoch: (!member.is_away).then_some(member.epoch),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            names: member.names.clone(),
            pattern: member.pattern.clone(),
            assigned: member.assigned.clone(),
            target: member.target.clone(),
            joins: member.joins.is_some(),
            is_reconciled: member.is_reconciled(self.target_epoch),
        };
        DescribedAssigned {
            kind: self.kind,
            progress: self.progress(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            assignor: self.assignor(),
            members: self.members.iter().map(member).collect(),
        }
    }
}
