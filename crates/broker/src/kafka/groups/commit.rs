//! OffsetCommit: durable before it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use lakebed_model::{CommittedOffset, Offset, PartitionIndex, PartitionKey, State};

use super::{code, group_id};
use crate::groups::member::{GroupError, MemberRef};
use crate::kafka::connection::Started;
use crate::kafka::response::{Reply, ReplyTo};
use crate::kafka::{Service, ready};

/// Kafka's limit on the metadata of an offset, in characters of UTF-16.
const METADATA_MAX: usize = 4096;

/// From this version on members name their epoch (KIP-848): those that are told their epochs by beats must.
const EPOCHS_SINCE: i16 = 9;

/// Starts a commit: it is in its place in the order when this returns.
pub(super) async fn start(service: &Arc<Service>, reply_to: ReplyTo, body: OffsetCommitRequest) -> Started {
    let group = match group_id(&body.group_id) {
        Ok(group) => group,
        Err(error) => return ready(answer(reply_to, &body, |_, _| code(&error))),
    };
    let too_old = reply_to.version < EPOCHS_SINCE && service.rooms.groups.beats(&group, &body.member_id);
    if too_old {
        return ready(answer(reply_to, &body, |_, _| code(&GroupError::TooOld)));
    }
    let named = |state: &State| body.topics.iter().all(|topic| state.topic_id(&topic.name).is_some());
    let state = match service.state_where(named).await {
        Ok(state) => state,
        Err(error) => return ready(answer(reply_to, &body, |_, _| code(&GroupError::unseen(&error)))),
    };
    let time_ms = (service.rooms.seams.wall)();
    // The last one counts if a partition is named twice.
    let mut offsets: BTreeMap<PartitionKey, CommittedOffset> = BTreeMap::new();
    let mut refused: BTreeMap<(usize, usize), i16> = BTreeMap::new();
    for (at_topic, topic) in body.topics.iter().enumerate() {
        for (at, partition) in topic.partitions.iter().enumerate() {
            match one(&state, &topic.name, partition, time_ms) {
                Ok((key, committed)) => drop(offsets.insert(key, committed)),
                Err(error) => drop(refused.insert((at_topic, at), error.code())),
            }
        }
    }
    let from = MemberRef {
        group,
        member_id: body.member_id.to_string(),
        instance_id: body.group_instance_id.as_ref().map(ToString::to_string),
        generation: body.generation_id_or_member_epoch,
    };
    if offsets.is_empty() {
        return ready(answer(reply_to, &body, |at_topic, at| refused.get(&(at_topic, at)).copied().unwrap_or(0)));
    }
    let committing = service.rooms.groups.commit(from, offsets.into_iter().collect()).await;
    async move {
        let committed = match committing {
            Ok(durable) => durable.await,
            Err(error) => Err(error),
        };
        let all = committed.as_ref().err().map_or(0, code);
        answer(reply_to, &body, |at_topic, at| match &committed {
            // The group's own refusal stands over what is wrong with a partition.
            Err(error) if !matches!(error, GroupError::PartitionGone) => all,
            _ => refused.get(&(at_topic, at)).copied().unwrap_or(all),
        })
    }
    .boxed()
}

fn one(
    state: &State,
    topic: &str,
    asked: &OffsetCommitRequestPartition,
    time_ms: i64,
) -> Result<(PartitionKey, CommittedOffset), ResponseError> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let id = state.topic_id(topic).ok_or(unknown)?;
    let index = u32::try_from(asked.partition_index).map_err(|_| unknown)?;
    let key = PartitionKey::new(id, PartitionIndex::new(index));
    state.partition(key).ok_or(unknown)?;
    let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
    if metadata.encode_utf16().count() > METADATA_MAX {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let offset = u64::try_from(asked.committed_offset).map_err(|_| ResponseError::OffsetOutOfRange)?;
    let leader_epoch = (asked.committed_leader_epoch >= 0).then_some(asked.committed_leader_epoch);
    Ok((key, CommittedOffset { offset: Offset::new(offset), leader_epoch, time_ms, metadata: metadata.into() }))
}

/// Answers each partition with the code that `code_of` gives it, by the places of its topic and itself in the request.
fn answer(reply_to: ReplyTo, body: &OffsetCommitRequest, code_of: impl Fn(usize, usize) -> i16) -> Reply {
    let topics = body.topics.iter().enumerate().map(|(at_topic, topic)| {
        let partitions = topic.partitions.iter().enumerate().map(|(at, partition)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code_of(at_topic, at))
        });
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    reply_to.send(&OffsetCommitResponse::default().with_topics(topics.collect()))
}
