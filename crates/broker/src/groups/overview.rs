//! Groups as tools see them, whatever protocol their members speak.

use std::collections::BTreeMap;

use lakebed_model::{Generation, GroupId, GroupKind, State};

use super::group::Phase;
use super::machine::Described;
use super::{Groups, subscription};

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It has no members.
    Empty,
    /// Members have what they are to have.
    Stable,
    /// Members join anew.
    Preparing,
    /// Members wait for what their leader assigns.
    Completing,
}

impl From<Phase> for Standing {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Empty => Self::Empty,
            Phase::Preparing => Self::Preparing,
            Phase::Completing => Self::Completing,
            Phase::Stable => Self::Stable,
        }
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Whose protocol its members speak, or spoke last; `None` as long as it had none.
    pub(crate) kind: Option<GroupKind>,
    /// Where it stands.
    pub(crate) standing: Standing,
    /// How many members it has.
    pub(crate) members: usize,
    /// Its generation or epoch.
    pub(crate) generation: Generation,
}

/// A group with its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overview {
    pub(crate) listed: Listed,
    /// How partitions are shared.
    pub(crate) assignor: String,
    /// By their ids.
    pub(crate) members: BTreeMap<String, Seen>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    /// What it reads: topics by name with their partitions.
    pub(crate) assignment: Vec<(String, Vec<u32>)>,
    /// Its epoch, if it has one of its own.
    pub(crate) epoch: i32,
}

impl Groups {
    /// All groups by name.
    pub(crate) fn listed(&self, state: &State) -> BTreeMap<GroupId, Listed> {
        let mut all: BTreeMap<GroupId, Listed> =
            state.groups().map(|(id, group)| (id.clone(), stored(group))).collect();
        let machine = self.machine();
        for (id, phase, _) in machine.list().filter(|(_, phase, _)| *phase != Phase::Empty) {
            let (members, generation) = machine.count(id);
            all.insert(
                id.clone(),
                Listed { kind: Some(GroupKind::Classic), standing: phase.into(), members, generation },
            );
        }
        all
    }

    /// One group, if it exists.
    pub(crate) fn overview(&self, id: &GroupId, state: &State) -> Option<Overview> {
        let machine = self.machine();
        let live = machine.describe(id).filter(|live| live.phase != Phase::Empty);
        let Some(Described { phase, protocol, members, .. }) = live else {
            let listed = stored(state.group(id)?);
            return Some(Overview { listed, assignor: String::new(), members: BTreeMap::new() });
        };
        let (count, generation) = machine.count(id);
        let listed = Listed { kind: Some(GroupKind::Classic), standing: phase.into(), members: count, generation };
        let members = members.into_iter().map(|member| {
            let seen = Seen {
                instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                assignment: subscription::assigned(&member.assignment).unwrap_or_default(),
                epoch: 0,
            };
            (member.member_id, seen)
        });
        Some(Overview { listed, assignor: protocol, members: members.collect() })
    }
}

/// A group that nobody is a member of now.
fn stored(group: &lakebed_model::Group) -> Listed {
    let had_members = group.generation > Generation::ZERO;
    let kind = had_members.then_some(group.kind);
    Listed { kind, standing: Standing::Empty, members: 0, generation: group.generation }
}
