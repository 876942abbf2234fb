//! What format 1 persists of groups, in commits and in checkpoints.
//!
//! These types are never changed once released; a new format gets a module of its own.

use std::sync::Arc;

use lakebed_model::{
    CommitOffsets, CommittedOffset, DeleteOffsets, Generation, Group, GroupId, GroupKind, Offset, PartitionIndex,
    PartitionKey, StartGeneration, TopicId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{FormatError, malformed};
use crate::text::Text;

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GroupKindV1 {
    Classic,
    Consumer,
    Grpc,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartGenerationV1 {
    group: String,
    generation: u32,
    kind: GroupKindV1,
    protocol_type: String,
    members: u32,
    time_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitOffsetsV1 {
    group: String,
    generation: u32,
    topics: Vec<TopicOffsetsV1>,
}

/// Consecutive offsets that are of one topic stand together.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicOffsetsV1 {
    topic: Text<Uuid>,
    offsets: Vec<OffsetV1>,
}

/// Partition, offset, leader epoch, commit time in milliseconds, metadata.
type OffsetV1 = (u32, u64, Option<i32>, i64, String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteOffsetsV1 {
    group: String,
    generation: u32,
    topics: Vec<TopicPartitionsV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicPartitionsV1 {
    topic: Text<Uuid>,
    partitions: Vec<u32>,
}

/// A group of a checkpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupV1 {
    group: String,
    generation: u32,
    kind: GroupKindV1,
    protocol_type: String,
    members: u32,
    since_ms: i64,
    topics: Vec<TopicOffsetsV1>,
}

/// Reads a persisted group id.
pub(crate) fn group_id(text: &str) -> Result<GroupId, FormatError> {
    GroupId::new(text).map_err(|error| malformed(error.to_string()))
}

fn partition_key(topic: Uuid, partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(topic), PartitionIndex::new(partition))
}

impl From<GroupKind> for GroupKindV1 {
    fn from(kind: GroupKind) -> Self {
        match kind {
            GroupKind::Classic => Self::Classic,
            GroupKind::Consumer => Self::Consumer,
            GroupKind::Grpc => Self::Grpc,
        }
    }
}

impl From<GroupKindV1> for GroupKind {
    fn from(kind: GroupKindV1) -> Self {
        match kind {
            GroupKindV1::Classic => Self::Classic,
            GroupKindV1::Consumer => Self::Consumer,
            GroupKindV1::Grpc => Self::Grpc,
        }
    }
}

impl From<&StartGeneration> for StartGenerationV1 {
    fn from(start: &StartGeneration) -> Self {
        Self {
            group: start.group.as_str().to_owned(),
            generation: start.generation.get(),
            kind: start.kind.into(),
            protocol_type: start.protocol_type.as_ref().to_owned(),
            members: start.members,
            time_ms: start.time_ms,
        }
    }
}

impl TryFrom<StartGenerationV1> for StartGeneration {
    type Error = FormatError;

    fn try_from(start: StartGenerationV1) -> Result<Self, FormatError> {
        Ok(Self {
            group: group_id(&start.group)?,
            generation: Generation::new(start.generation),
            kind: start.kind.into(),
            protocol_type: start.protocol_type.into(),
            members: start.members,
            time_ms: start.time_ms,
        })
    }
}

/// A committed offset with its partition.
type Committed = (PartitionKey, CommittedOffset);

fn topics_v1<'a>(offsets: impl Iterator<Item = (&'a PartitionKey, &'a CommittedOffset)>) -> Vec<TopicOffsetsV1> {
    let mut topics: Vec<TopicOffsetsV1> = Vec::new();
    for (key, committed) in offsets {
        let CommittedOffset { offset, leader_epoch, time_ms, metadata } = committed;
        let row: OffsetV1 = (key.partition.get(), offset.get(), *leader_epoch, *time_ms, metadata.as_ref().to_owned());
        match topics.last_mut().filter(|topic| topic.topic.0 == key.topic.uuid()) {
            Some(topic) => topic.offsets.push(row),
            None => topics.push(TopicOffsetsV1 { topic: Text(key.topic.uuid()), offsets: vec![row] }),
        }
    }
    topics
}

fn offsets(topics: Vec<TopicOffsetsV1>) -> Vec<Committed> {
    let rows = topics.into_iter().flat_map(|TopicOffsetsV1 { topic, offsets }| {
        offsets.into_iter().map(move |(partition, offset, leader_epoch, time_ms, metadata)| {
            let offset = Offset::new(offset);
            let committed = CommittedOffset { offset, leader_epoch, time_ms, metadata: metadata.into() };
            (partition_key(topic.0, partition), committed)
        })
    });
    rows.collect()
}

impl From<&CommitOffsets> for CommitOffsetsV1 {
    fn from(commit: &CommitOffsets) -> Self {
        Self {
            group: commit.group.as_str().to_owned(),
            generation: commit.generation.get(),
            topics: topics_v1(commit.offsets.iter().map(|(key, committed)| (key, committed))),
        }
    }
}

impl TryFrom<CommitOffsetsV1> for CommitOffsets {
    type Error = FormatError;

    fn try_from(commit: CommitOffsetsV1) -> Result<Self, FormatError> {
        let generation = Generation::new(commit.generation);
        Ok(Self { group: group_id(&commit.group)?, generation, offsets: offsets(commit.topics) })
    }
}

impl From<&DeleteOffsets> for DeleteOffsetsV1 {
    fn from(delete: &DeleteOffsets) -> Self {
        let topics = delete.partitions.chunk_by(|one, next| one.topic == next.topic).map(|keys| TopicPartitionsV1 {
            topic: Text(keys[0].topic.uuid()),
            partitions: keys.iter().map(|key| key.partition.get()).collect(),
        });
        Self { group: delete.group.as_str().to_owned(), generation: delete.generation.get(), topics: topics.collect() }
    }
}

impl TryFrom<DeleteOffsetsV1> for DeleteOffsets {
    type Error = FormatError;

    fn try_from(delete: DeleteOffsetsV1) -> Result<Self, FormatError> {
        let partitions = delete.topics.into_iter().flat_map(|TopicPartitionsV1 { topic, partitions }| {
            partitions.into_iter().map(move |partition| partition_key(topic.0, partition))
        });
        let partitions = partitions.collect();
        Ok(Self { group: group_id(&delete.group)?, generation: Generation::new(delete.generation), partitions })
    }
}

impl From<(&GroupId, &Group)> for GroupV1 {
    fn from((id, group): (&GroupId, &Group)) -> Self {
        Self {
            group: id.as_str().to_owned(),
            generation: group.generation.get(),
            kind: group.kind.into(),
            protocol_type: group.protocol_type.as_ref().to_owned(),
            members: group.members,
            since_ms: group.since_ms,
            topics: topics_v1(group.offsets.iter()),
        }
    }
}

impl TryFrom<GroupV1> for (GroupId, Group) {
    type Error = FormatError;

    fn try_from(group: GroupV1) -> Result<Self, FormatError> {
        let value = Group {
            kind: group.kind.into(),
            protocol_type: Arc::from(group.protocol_type),
            generation: Generation::new(group.generation),
            members: group.members,
            since_ms: group.since_ms,
            offsets: offsets(group.topics).into_iter().collect(),
        };
        Ok((group_id(&group.group)?, value))
    }
}
