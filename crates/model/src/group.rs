//! Consumer groups as the state knows them: generations and committed offsets.
//!
//! Who is a member is not here: membership is soft, and its coordinator's. What is here survives every broker.

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;

use crate::ids::{Generation, Offset, PartitionKey};

/// Longest id of a group, in bytes.
pub const GROUP_ID_BYTES_MAX: usize = 1024;
/// Longest protocol type of a group, in bytes.
pub const PROTOCOL_TYPE_BYTES_MAX: usize = 256;
/// Longest metadata of a committed offset, in bytes: Kafka's 4096 characters of UTF-16.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096 * 3;
/// Most bytes that all groups of a cell may count together; see [`Group::bytes`]. More is refused.
pub const GROUPS_BYTES_MAX: u64 = 64 << 20;

/// What a group counts beside its texts: about what it takes in memory.
const GROUP_BYTES: u64 = 256;
/// What a committed offset counts beside its metadata.
const OFFSET_BYTES: u64 = 160;

/// The name of a group: at most [`GROUP_ID_BYTES_MAX`] bytes. It may be empty: clients without a group commit under that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Arc<str>);

/// Why a text is no group id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a group id of {bytes} bytes is too long: at most {GROUP_ID_BYTES_MAX}")]
pub struct GroupIdError {
    /// How long it is.
    pub bytes: usize,
}

impl GroupId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`GroupIdError`] if it is too long.
    pub fn new(id: &str) -> Result<Self, GroupIdError> {
        if id.len() <= GROUP_ID_BYTES_MAX { Ok(Self(id.into())) } else { Err(GroupIdError { bytes: id.len() }) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose protocol the members of a group speak. Members of two kinds can't share a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// Kafka's JoinGroup and SyncGroup.
    Classic,
    /// Kafka's ConsumerGroupHeartbeat (KIP-848).
    Consumer,
    /// Our gRPC service.
    Grpc,
}

impl GroupKind {
    /// Its name, for people and as Kafka's `ListGroups` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
            Self::Grpc => "grpc",
        }
    }
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The leader epoch of the record before it, if the client told one.
    pub leader_epoch: Option<i32>,
    /// When it was committed, by the coordinator's clock: milliseconds since 1970.
    pub time_ms: i64,
    /// Whatever the client keeps with it.
    pub metadata: Arc<str>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Whose protocol its members speak, or spoke last.
    pub kind: GroupKind,
    /// Kafka's protocol type of its members (`consumer`); empty as long as it had none.
    pub protocol_type: Arc<str>,
    /// Its generation; 0 as long as it had no members.
    pub generation: Generation,
    /// How many members that generation began with; 0 for one that began when the last had left.
    pub members: u32,
    /// When the generation began, by the coordinator's clock: milliseconds since 1970; 0 for generation 0.
    pub since_ms: i64,
    /// Its committed offsets.
    pub offsets: OrdMap<PartitionKey, CommittedOffset>,
}

impl Group {
    /// A group that only has committed offsets.
    pub(crate) fn without_members() -> Self {
        Self {
            kind: GroupKind::Classic,
            protocol_type: "".into(),
            generation: Generation::ZERO,
            members: 0,
            since_ms: 0,
            offsets: OrdMap::new(),
        }
    }

    /// What it counts against [`GROUPS_BYTES_MAX`].
    pub fn bytes(&self, id: &GroupId) -> u64 {
        self.own_bytes(id) + self.offsets.values().map(CommittedOffset::bytes).sum::<u64>()
    }

    /// As [`Group::bytes`], without its offsets.
    pub(crate) fn own_bytes(&self, id: &GroupId) -> u64 {
        GROUP_BYTES + id.0.len() as u64 + self.protocol_type.len() as u64
    }
}

impl CommittedOffset {
    /// What it counts against [`GROUPS_BYTES_MAX`].
    pub fn bytes(&self) -> u64 {
        OFFSET_BYTES + self.metadata.len() as u64
    }
}

/// A generation that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartGeneration {
    /// The group.
    pub group: GroupId,
    /// Greater than every generation that the group had, under this name, before it was deleted too.
    pub generation: Generation,
    /// Whose protocol its members speak.
    pub kind: GroupKind,
    /// Kafka's protocol type.
    pub protocol_type: Arc<str>,
    /// How many members it begins with; 0: the last has left.
    pub members: u32,
    /// The coordinator's clock: milliseconds since 1970.
    pub time_ms: i64,
}

/// Offsets that a group commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffsets {
    /// The group. It is created if it does not exist and the generation is 0.
    pub group: GroupId,
    /// The generation that its coordinator believes to be in force; another one is refused.
    pub generation: Generation,
    /// One per partition, ascending, at least one.
    pub offsets: Vec<(PartitionKey, CommittedOffset)>,
}

/// Committed offsets that are forgotten; those that are not there are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteOffsets {
    /// The group.
    pub group: GroupId,
    /// The generation that its coordinator believes to be in force; another one is refused.
    pub generation: Generation,
    /// Ascending, at least one.
    pub partitions: Vec<PartitionKey>,
}
