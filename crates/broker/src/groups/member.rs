//! What members ask of their group, what they are answered, and what the group knows of each.

use std::sync::Arc;

use bytes::Bytes;
use lakebed_log::{BarrierError, Closed};
use lakebed_model::{Generation, GroupId, GroupKind};

use super::reconcile::member::Beaten;
use super::timers::Millis;

/// What a member, a pending member and a group count beside their texts: about what they take in memory.
pub(crate) const MEMBER_BYTES: usize = 1024;
/// As [`MEMBER_BYTES`], of an id that was given and not used yet.
pub(crate) const PENDING_BYTES: usize = 512;

/// Why a group refuses; Kafka's codes by their names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    /// The group's id is empty or too long.
    #[error("the group id is not one that may be used here")]
    InvalidGroupId,
    /// The session timeout is out of bounds.
    #[error("the session timeout is out of the bounds that the broker has")]
    InvalidSessionTimeout,
    /// The member is not one of the group.
    #[error("the member is not known to the group")]
    UnknownMember,
    /// Another member has the instance id now.
    #[error("another member has the instance id now")]
    FencedInstance,
    /// Join again with this id.
    #[error("join again with the member id {member_id}")]
    MemberIdRequired {
        /// The id.
        member_id: String,
    },
    /// The generation is not the group's.
    #[error("the generation is not that of the group")]
    IllegalGeneration,
    /// The members are joining anew.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// The member's protocols are not those of the group.
    #[error("the protocols of the member have none in common with those of the group")]
    InconsistentProtocol,
    /// The group has as many members as it may have.
    #[error("the group has as many members as it may have")]
    GroupFull,
    /// The broker holds as much of groups as it may.
    #[error("the broker has no memory left for members of groups")]
    Overloaded,
    /// The broker stops.
    #[error("the coordinator is not available: the broker stops")]
    Stopped,
    /// What is durable can't be seen, or nothing can be made durable. Nothing happened.
    #[error("the coordinator is not available: {why}")]
    NotAvailable {
        /// Why.
        why: String,
    },
    /// It may have been done, or may be a little later.
    #[error("it is unknown whether it was done: {why}")]
    Unanswered {
        /// Why.
        why: String,
    },
    /// Another broker has taken over.
    #[error("another broker is the coordinator now")]
    NotCoordinator,
    /// No such group.
    #[error("the group does not exist")]
    GroupNotFound,
    /// The group has members.
    #[error("the group has members")]
    NonEmptyGroup,
    /// A member reads the topic.
    #[error("a member of the group is subscribed to the topic")]
    SubscribedToTopic,
    /// There is no room for more offsets.
    #[error("there is no room for more committed offsets")]
    OffsetsFull,
    /// The epoch is not one that the member can have been told last: it gives up what it has and begins anew.
    #[error("the member epoch is not that of the member: it gives up its partitions and joins again")]
    FencedEpoch,
    /// The epoch is not that of the member: it asks again with the one that it is told next.
    #[error("the member epoch is not that of the member")]
    StaleEpoch,
    /// Another member has the instance id, and has not left.
    #[error("another member has the instance id, and has not left")]
    UnreleasedInstance,
    /// A pattern of topics is not one.
    #[error("the pattern of topics can't be used: {why}")]
    InvalidPattern {
        /// What is wrong with it.
        why: String,
    },
    /// The group has members that speak another protocol.
    #[error("the group has members of another protocol")]
    OtherKind,
    /// The request is of a version that does not know what its member needs to be told.
    #[error("the member has to use a later version of the request")]
    TooOld,
    /// A partition that was committed is gone.
    #[error("a partition does not exist any more")]
    PartitionGone,
}

impl GroupError {
    /// What is durable can't be seen.
    pub(crate) fn unseen(error: &BarrierError) -> Self {
        match error {
            BarrierError::Closed { why: Closed::Fenced { .. } } => Self::NotCoordinator,
            BarrierError::Closed { why: Closed::ShuttingDown } => Self::Stopped,
            other => Self::NotAvailable { why: other.to_string() },
        }
    }
}

/// Protocols by name, the most wanted first, each with the member's metadata.
pub(crate) type Protocols = Vec<(String, Bytes)>;

/// A member that wants to join.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// The group.
    pub(crate) group: GroupId,
    /// Its id; empty for one that has none yet.
    pub(crate) member_id: String,
    /// The id that it gets if it has none: freshly drawn.
    pub(crate) fresh_id: String,
    /// Its name as a static member (KIP-345).
    pub(crate) instance_id: Option<String>,
    /// What its client calls itself.
    pub(crate) client_id: String,
    /// Where it is.
    pub(crate) client_host: String,
    /// What the protocols are for: `consumer`.
    pub(crate) protocol_type: String,
    /// What it can.
    pub(crate) protocols: Protocols,
    /// Not heard of for so long, it is taken for gone.
    pub(crate) session: Millis,
    /// How long the group waits for it when it rebalances.
    pub(crate) rebalance: Millis,
    /// It is to be given its id before it joins (KIP-394).
    pub(crate) wants_id_first: bool,
    /// As a leader it can be told that nothing is to be assigned (KIP-814).
    pub(crate) may_skip_assignment: bool,
}

/// Who asks, of which generation.
#[derive(Debug, Clone)]
pub(crate) struct MemberRef {
    /// The group.
    pub(crate) group: GroupId,
    /// Its id.
    pub(crate) member_id: String,
    /// Its name as a static member.
    pub(crate) instance_id: Option<String>,
    /// The generation; below 0: none.
    pub(crate) generation: i32,
}

/// A member that asks for its assignment; the leader brings everybody's.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    /// Who.
    pub(crate) member: MemberRef,
    /// What it takes the protocol type to be, if it says so.
    pub(crate) protocol_type: Option<String>,
    /// What it takes the protocol to be, if it says so.
    pub(crate) protocol: Option<String>,
    /// Of the leader: what each member gets.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// What a member learns that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The generation that it is a member of.
    pub(crate) generation: Generation,
    /// What the protocols are for.
    pub(crate) protocol_type: String,
    /// The protocol that all members can.
    pub(crate) protocol: String,
    /// Who assigns.
    pub(crate) leader: String,
    /// Its own id.
    pub(crate) member_id: String,
    /// Of the leader: all members with their metadata of that protocol.
    pub(crate) members: Vec<JoinedMember>,
    /// Of the leader: the assignments stay as they are.
    pub(crate) skip_assignment: bool,
}

/// One member, as the leader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) metadata: Bytes,
}

/// What a member gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) assignment: Bytes,
}

/// What is to be done because of what happened. `T` is where an answer goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect<T> {
    /// A member that is assigned its partitions here is answered.
    Beat { to: T, answer: Result<Beaten, GroupError> },
    /// A member would be told something new if it asked.
    Nudge { group: GroupId, member: Arc<str> },
    /// A member that waited to join is answered.
    Join { to: T, answer: Result<Joined, GroupError> },
    /// A member that waited for its assignment is answered.
    Sync { to: T, answer: Result<Synced, GroupError> },
    /// A generation begins: it is made durable, then the answers are given.
    Start(Start<T>),
}

/// A generation that begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start<T> {
    pub(crate) group: GroupId,
    pub(crate) generation: Generation,
    /// Whose protocol its members speak.
    pub(crate) kind: GroupKind,
    pub(crate) protocol_type: Arc<str>,
    /// How many members; 0: the last has left.
    pub(crate) members: u32,
    /// Somebody waits for it, whether for an answer in it or for one that the group keeps.
    pub(crate) is_awaited: bool,
    pub(crate) answers: Vec<(T, Joined)>,
}

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Member<T> {
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) protocols: Protocols,
    pub(crate) session: Millis,
    pub(crate) rebalance: Millis,
    pub(crate) may_skip_assignment: bool,
    /// It does not know its id yet, so it can't send heartbeats.
    pub(crate) is_new: bool,
    /// Where the answer goes while it waits to join.
    pub(crate) joining: Option<T>,
    /// Where the answer goes while it waits for its assignment.
    pub(crate) syncing: Option<T>,
    pub(crate) assignment: Bytes,
}

impl<T> Member<T> {
    /// A member that joins.
    pub(crate) fn new(join: Join, to: T) -> Self {
        Self {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            protocols: join.protocols,
            session: join.session,
            rebalance: join.rebalance,
            may_skip_assignment: join.may_skip_assignment,
            is_new: true,
            joining: Some(to),
            syncing: None,
            assignment: Bytes::new(),
        }
    }

    /// Its metadata of a protocol.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    /// About what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let protocols: usize = self.protocols.iter().map(|(name, metadata)| 96 + name.len() + metadata.len()).sum();
        let instance = self.instance_id.as_ref().map_or(0, String::len);
        MEMBER_BYTES
            + protocols
            + self.assignment.len()
            + self.client_id.len() * 3
            + self.client_host.len()
            + 3 * instance
    }
}
