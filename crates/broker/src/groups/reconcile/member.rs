//! A member of a group whose partitions are assigned here, and how it gets from what it has to what it is to have.
//!
//! 1. It is given a partition only when nobody holds it: not until its holder has said that it let go.
//! 2. Its epoch only grows, and is the group's when it has let go of all that it is to let go of.

use std::collections::BTreeSet;
use std::sync::Arc;

use lakebed_model::{Generation, GroupId, GroupKind, PartitionKey};

use super::super::member::{MEMBER_BYTES, Protocols};
use super::super::timers::Millis;
use super::assign::{Assignor, Partitions};

/// What a partition counts in each of the sets that it is in: about what it takes in memory.
const PARTITION_BYTES: usize = 48;

/// A member says that it is there, what it wants if that is new, and what it holds if that is new.
#[derive(Debug, Clone)]
pub(crate) struct Beat {
    /// The group.
    pub(crate) group: GroupId,
    /// Whose protocol it speaks.
    pub(crate) kind: GroupKind,
    /// Its id.
    pub(crate) member_id: String,
    /// The epoch that it was told last; 0: it joins.
    pub(crate) epoch: Generation,
    /// Its name as a static member: whoever comes with it again takes its place.
    pub(crate) instance_id: Option<String>,
    /// Where it runs, if it says so.
    pub(crate) rack_id: Option<String>,
    /// What its client calls itself.
    pub(crate) client_id: String,
    /// Where it is.
    pub(crate) client_host: String,
    /// The topics that it wants by name, if that is new. They need not exist.
    pub(crate) names: Option<Vec<String>>,
    /// The pattern of the topics that it wants, if that is new; empty: none.
    pub(crate) pattern: Option<String>,
    /// How partitions should be dealt out, if that is new. What most members ask for is done.
    pub(crate) assignor: Option<Assignor>,
    /// What it holds, if that is new: all that it has not let go of.
    pub(crate) owned: Option<Partitions>,
    /// Not heard of for so long, it is taken for gone.
    pub(crate) session: Millis,
    /// How long it may take to let go of partitions, if that is new.
    pub(crate) rebalance: Option<Millis>,
}

impl Beat {
    /// Whether it says everything, as one does that does not know whether it was understood: it is told everything.
    pub(super) fn wants_all(&self) -> bool {
        let subscribes = self.names.is_some() || self.pattern.is_some();
        self.epoch == Generation::ZERO || (self.rebalance.is_some() && subscribes && self.owned.is_some())
    }
}

/// A member goes.
#[derive(Debug, Clone)]
pub(crate) struct Departure {
    /// The group.
    pub(crate) group: GroupId,
    /// Its id.
    pub(crate) member_id: String,
    /// Its name as a static member.
    pub(crate) instance_id: Option<String>,
    /// Its partitions are kept for it, or rather for who comes under its static name, for as long as its session lasts.
    pub(crate) comes_back: bool,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beaten {
    /// Its id.
    pub(crate) member_id: String,
    /// Its epoch: it names it from now on.
    pub(crate) epoch: Generation,
    /// What it may read, if that is new or it had asked for all. It lets go of everything else, and says so.
    pub(crate) assignment: Option<Partitions>,
}

/// How far a member has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has what its epoch means it to have.
    Stable,
    /// It is to let go of partitions and has not said so yet.
    Revoking,
    /// It is to have partitions that others have not let go of yet.
    Waiting,
}

/// What a member of the protocol in which members join and ask for their assignments needs beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joins {
    /// What it can.
    pub(crate) protocols: Protocols,
}

/// A member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance_id: Option<String>,
    pub(crate) rack_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) names: BTreeSet<Arc<str>>,
    pub(crate) pattern: Option<Arc<str>>,
    pub(crate) assignor: Option<Assignor>,
    pub(crate) session: Millis,
    pub(crate) rebalance: Millis,
    pub(crate) epoch: Generation,
    /// The one before: the answer that told of the last may have been lost.
    pub(crate) previous: Generation,
    /// It has gone to come back.
    pub(crate) is_away: bool,
    pub(crate) stage: Stage,
    /// What it has, or may have.
    pub(crate) assigned: Partitions,
    /// What it is to let go of.
    pub(crate) revoking: Partitions,
    /// What it is to have in the end.
    pub(crate) target: Partitions,
    /// It was told that there is something new, and has not asked yet.
    pub(crate) nudged: bool,
    /// Set for one that joins and asks.
    pub(crate) joins: Option<Joins>,
}

/// What a step of a member changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// What it may read is another set.
    pub(crate) assigned: bool,
    /// It holds these no longer.
    pub(crate) released: Vec<PartitionKey>,
    /// It holds these now.
    pub(crate) taken: Vec<PartitionKey>,
    /// It began to let go of something.
    pub(crate) began_to_revoke: bool,
}

impl Member {
    pub(crate) fn new() -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            names: BTreeSet::new(),
            pattern: None,
            assignor: None,
            session: 0,
            rebalance: 0,
            epoch: Generation::ZERO,
            previous: Generation::ZERO,
            is_away: false,
            stage: Stage::Stable,
            assigned: Partitions::new(),
            revoking: Partitions::new(),
            target: Partitions::new(),
            nudged: false,
            joins: None,
        }
    }

    /// Whether it is where the group wants it.
    pub(crate) fn is_reconciled(&self, to: Generation) -> bool {
        self.stage == Stage::Stable && self.epoch == to && !self.is_away
    }

    /// All that it may still hold.
    pub(crate) fn held(&self) -> impl Iterator<Item = &PartitionKey> {
        self.assigned.iter().chain(&self.revoking)
    }

    /// Goes as far towards its target, which is that of epoch `to`, as others let it. `owned` is what it says that it holds, if it says;
    /// `is_free` whether nobody else holds a partition.
    pub(crate) fn reconcile(
        &mut self,
        to: Generation,
        owned: Option<&Partitions>,
        is_free: impl Fn(&PartitionKey) -> bool,
    ) -> Step {
        let holds = |revoking: &Partitions| owned.is_none_or(|owned| !owned.is_disjoint(revoking));
        match self.stage {
            Stage::Stable if self.epoch == to => return Step::default(),
            Stage::Revoking if holds(&self.revoking) => return Step::default(),
            Stage::Stable | Stage::Revoking | Stage::Waiting => {}
        }
        let kept: Partitions = self.assigned.intersection(&self.target).copied().collect();
        let surplus: Partitions = self.assigned.difference(&self.target).copied().collect();
        // What it had been told to let go of it has let go of.
        let mut released: Vec<PartitionKey> = std::mem::take(&mut self.revoking).into_iter().collect();
        let mut step = Step { assigned: kept.len() != self.assigned.len(), ..Step::default() };
        if !surplus.is_empty() && holds(&surplus) {
            (self.stage, self.assigned, self.revoking) = (Stage::Revoking, kept, surplus);
            // It stays in its epoch; the one before is over for it.
            self.previous = self.epoch;
            return Step { released, began_to_revoke: true, ..step };
        }
        released.extend(surplus);
        let lacking = self.target.difference(&kept);
        let (free, held): (Vec<PartitionKey>, Vec<PartitionKey>) = lacking.copied().partition(|key| is_free(key));
        self.stage = if held.is_empty() { Stage::Stable } else { Stage::Waiting };
        (self.previous, self.epoch) = (self.epoch, to);
        step.assigned |= !free.is_empty();
        self.assigned = kept;
        self.assigned.extend(free.iter().copied());
        Step { released, taken: free, ..step }
    }

    /// About what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.instance_id, &self.rack_id].into_iter().flatten().map(String::len).sum::<usize>();
        let names: usize = self.names.iter().map(|name| 48 + name.len()).sum();
        let protocols = self.joins.iter().flat_map(|joins| &joins.protocols);
        let protocols: usize = protocols.map(|(name, metadata)| 96 + name.len() + metadata.len()).sum();
        // What is assigned is counted again where the group keeps who holds it.
        let partitions = 2 * self.assigned.len() + 2 * self.revoking.len() + self.target.len();
        MEMBER_BYTES
            + 3 * texts
            + names
            + protocols
            + self.pattern.as_ref().map_or(0, |pattern| pattern.len())
            + self.client_id.len() * 3
            + self.client_host.len()
            + PARTITION_BYTES * partitions
    }
}
