//! OffsetFetch: what groups have committed, behind a barrier. What is not durable is not there, so `require_stable` holds anyway.

use std::sync::Arc;

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use lakebed_model::{GroupId, PartitionIndex, PartitionKey, State};

use super::{code, group_id, text};
use crate::groups::member::GroupError;
use crate::kafka::Service;
use crate::kafka::response::{Reply, ReplyTo};

/// What is answered of one partition.
struct Found {
    index: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: String,
}

type Topics = Vec<(TopicName, Vec<Found>)>;

pub(super) async fn answer(service: Arc<Service>, reply_to: ReplyTo, body: OffsetFetchRequest) -> Reply {
    let state = service.rooms.log.barrier().await.map_err(|error| GroupError::unseen(&error));
    if reply_to.version >= 8 {
        let groups = body.groups.iter().map(|asked| group(&service, &state, asked));
        return reply_to.send(&OffsetFetchResponse::default().with_groups(groups.collect()));
    }
    let asked: Option<Vec<(TopicName, Vec<i32>)>> =
        body.topics.map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
    let found = state.and_then(|state| Ok(find(&state, &group_id(&body.group_id)?, asked.as_deref())));
    let error_code = found.as_ref().err().map_or(0, code);
    // Version 1 has an error with each partition only.
    let each = if reply_to.version >= 2 { 0 } else { error_code };
    let topics = match found {
        Ok(found) => found,
        Err(_) if reply_to.version >= 2 => Vec::new(),
        Err(_) => nothing(asked.as_deref().unwrap_or_default()),
    };
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|found| {
            let answer = OffsetFetchResponsePartition::default()
                .with_partition_index(found.index)
                .with_committed_offset(found.offset)
                .with_metadata(Some(text(found.metadata)))
                .with_error_code(each);
            if reply_to.version >= 5 { answer.with_committed_leader_epoch(found.leader_epoch) } else { answer }
        });
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    let answer = OffsetFetchResponse::default().with_topics(topics.collect());
    reply_to.send(&if reply_to.version >= 2 { answer.with_error_code(error_code) } else { answer })
}

fn group(
    service: &Service,
    state: &Result<State, GroupError>,
    asked: &OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone());
    let topics: Option<Vec<(TopicName, Vec<i32>)>> = asked
        .topics
        .as_ref()
        .map(|topics| topics.iter().map(|topic| (topic.name.clone(), topic.partition_indexes.clone())).collect());
    let found = state.as_ref().map_err(Clone::clone).and_then(|state| {
        let id = group_id(&asked.group_id)?;
        let member_id = asked.member_id.as_ref().map(StrBytes::as_str);
        service.rooms.groups.check_fetch(&id, member_id, asked.member_epoch)?;
        Ok(find(state, &id, topics.as_deref()))
    });
    match found {
        Err(error) => answer.with_error_code(code(&error)),
        Ok(found) => {
            let topics = found.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|found| {
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(found.index)
                        .with_committed_offset(found.offset)
                        .with_committed_leader_epoch(found.leader_epoch)
                        .with_metadata(Some(text(found.metadata)))
                });
                OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
            });
            answer.with_topics(topics.collect())
        }
    }
}

/// What a group has committed in the topics that are named, or in all.
fn find(state: &State, id: &GroupId, asked: Option<&[(TopicName, Vec<i32>)]>) -> Topics {
    let Some(asked) = asked else { return all(state, id) };
    let topics = asked.iter().map(|(name, indexes)| {
        let topic = state.topic_id(name);
        let partitions = indexes.iter().map(|index| {
            let known = topic.zip(u32::try_from(*index).ok());
            let key = known.map(|(topic, index)| PartitionKey::new(topic, PartitionIndex::new(index)));
            committed(state, id, *index, key)
        });
        (name.clone(), partitions.collect())
    });
    topics.collect()
}

fn all(state: &State, id: &GroupId) -> Topics {
    let mut topics: Topics = Vec::new();
    let mut of = None;
    for key in state.group(id).into_iter().flat_map(|group| group.offsets.keys()) {
        let Some(topic) = state.topic(key.topic) else { continue };
        if of != Some(key.topic) {
            of = Some(key.topic);
            topics.push((TopicName(text(topic.name.as_str())), Vec::new()));
        }
        let index = i32::try_from(key.partition.get()).unwrap_or(i32::MAX);
        topics.last_mut().expect("one was pushed").1.push(committed(state, id, index, Some(*key)));
    }
    topics
}

fn committed(state: &State, id: &GroupId, index: i32, key: Option<PartitionKey>) -> Found {
    match key.and_then(|key| state.committed(id, key)) {
        Some(committed) => Found {
            index,
            offset: i64::try_from(committed.offset.get()).unwrap_or(i64::MAX),
            leader_epoch: committed.leader_epoch.unwrap_or(-1),
            metadata: committed.metadata.as_ref().to_owned(),
        },
        None => Found { index, offset: -1, leader_epoch: -1, metadata: String::new() },
    }
}

fn nothing(asked: &[(TopicName, Vec<i32>)]) -> Topics {
    let none = |index: &i32| Found { index: *index, offset: -1, leader_epoch: -1, metadata: String::new() };
    asked.iter().map(|(name, indexes)| (name.clone(), indexes.iter().map(none).collect())).collect()
}
