//! Groups as tools see them, whatever protocol their members speak.

use std::collections::BTreeMap;

use lakebed_model::{Generation, GroupId, GroupKind, State};

use super::group::Phase;
use super::machine::Described;
use super::reconcile::describe::{DescribedAssigned, Progress};
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
    /// It is being worked out who is to have what.
    Assigning,
    /// Partitions are on their way from one member to another.
    Reconciling,
}

impl Standing {
    /// Kafka's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => Phase::Empty.name(),
            Self::Stable => Phase::Stable.name(),
            Self::Preparing => Phase::Preparing.name(),
            Self::Completing => Phase::Completing.name(),
            Self::Assigning => Progress::Assigning.name(),
            Self::Reconciling => Progress::Reconciling.name(),
        }
    }
}

impl From<Progress> for Standing {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Empty => Self::Empty,
            Progress::Assigning => Self::Assigning,
            Progress::Reconciling => Self::Reconciling,
            Progress::Stable => Self::Stable,
        }
    }
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
    /// What its members' protocols are for.
    pub(crate) protocol_type: String,
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
        for (id, listed) in machine.list().filter(|(_, listed)| listed.standing != Standing::Empty) {
            all.insert(id.clone(), listed);
        }
        all
    }

    /// One group, if it exists.
    pub(crate) fn overview(&self, id: &GroupId, state: &State) -> Option<Overview> {
        let machine = self.machine();
        if let Some(group) = machine.describe_assigned(id) {
            return machine.listed(id).map(|listed| assigned(listed, group, state));
        }
        let live = machine.describe(id).filter(|live| live.phase != Phase::Empty).zip(machine.listed(id));
        let Some((Described { protocol, members, .. }, listed)) = live else {
            let listed = stored(state.group(id)?);
            return Some(Overview { listed, assignor: String::new(), members: BTreeMap::new() });
        };
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

/// A group whose partitions are assigned here.
fn assigned(listed: Listed, group: DescribedAssigned, state: &State) -> Overview {
    let members = group.members.into_iter().map(|member| {
        let mut topics: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for key in &member.assigned {
            if let Some(topic) = state.topic(key.topic) {
                topics.entry(topic.name.as_str()).or_default().push(key.partition.get());
            }
        }
        let seen = Seen {
            instance_id: member.instance_id,
            client_id: member.client_id,
            client_host: member.client_host,
            assignment: topics.into_iter().map(|(name, partitions)| (name.to_owned(), partitions)).collect(),
            epoch: member.epoch.map_or(0, |epoch| i32::try_from(epoch.get()).unwrap_or(i32::MAX)),
        };
        (member.member_id, seen)
    });
    Overview { listed, assignor: group.assignor.name().to_owned(), members: members.collect() }
}

/// A group that nobody is a member of now.
fn stored(group: &lakebed_model::Group) -> Listed {
    let had_members = group.generation > Generation::ZERO;
    let kind = had_members.then_some(group.kind);
    let protocol_type = group.protocol_type.as_ref().to_owned();
    Listed { kind, standing: Standing::Empty, members: 0, generation: group.generation, protocol_type }
}
