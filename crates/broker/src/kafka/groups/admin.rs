//! DescribeGroups, ListGroups, DeleteGroups and OffsetDelete: what tools ask, behind a barrier.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId as KafkaGroupId,
    ListGroupsRequest, ListGroupsResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use lakebed_model::{GroupKind, PartitionIndex, PartitionKey, State};

use super::{code, code_of, group_id, text};
use crate::groups::Forget;
use crate::groups::member::GroupError;
use crate::groups::overview::Listed;
use crate::kafka::Service;
use crate::kafka::response::{Reply, ReplyTo};

/// Groups of one request that are deleted at once; they share commits.
const AT_ONCE: usize = 64;
/// From this version on a group that does not exist is said not to.
const NOT_FOUND_SINCE: i16 = 6;

pub(super) async fn describe(service: Arc<Service>, reply_to: ReplyTo, body: DescribeGroupsRequest) -> Reply {
    let state = service.rooms.log.barrier().await.map_err(|error| GroupError::unseen(&error));
    let groups = body.groups.iter().map(|id| {
        let found = state.as_ref().map_err(Clone::clone).and_then(|state| one(&service, state, id, reply_to.version));
        found.unwrap_or_else(|error| dead(id, code(&error), None))
    });
    reply_to.send(&DescribeGroupsResponse::default().with_groups(groups.collect()))
}

fn dead(id: &KafkaGroupId, error_code: i16, why: Option<String>) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(id.clone())
        .with_error_code(error_code)
        .with_error_message(why.map(text))
        .with_group_state(text("Dead"))
}

fn one(service: &Service, state: &State, asked: &KafkaGroupId, version: i16) -> Result<DescribedGroup, GroupError> {
    let Some(found) = service.rooms.groups.describe(&group_id(asked)?, state) else {
        return Ok(if version >= NOT_FOUND_SINCE {
            let why = format!("group {} does not exist", asked.as_str());
            dead(asked, ResponseError::GroupIdNotFound.code(), Some(why))
        } else {
            dead(asked, 0, None)
        });
    };
    let members = found.members.into_iter().map(|member| {
        let answer = DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        if version >= 4 { answer.with_group_instance_id(member.instance_id.map(text)) } else { answer }
    });
    Ok(DescribedGroup::default()
        .with_group_id(asked.clone())
        .with_group_state(text(found.phase.name()))
        .with_protocol_type(text(found.protocol_type))
        .with_protocol_data(text(found.protocol))
        .with_members(members.collect()))
}

/// Kafka's type of a group. Groups of our gRPC service are shown as consumers' groups: tools that know no others can tell how far they have
/// come, and reset them.
fn type_of(kind: Option<GroupKind>) -> &'static str {
    match kind.unwrap_or(GroupKind::Classic) {
        GroupKind::Classic => GroupKind::Classic.name(),
        GroupKind::Consumer | GroupKind::Grpc => GroupKind::Consumer.name(),
    }
}

fn protocol_type_of(listed: &Listed) -> &str {
    match listed.kind {
        None | Some(GroupKind::Classic) => &listed.protocol_type,
        Some(GroupKind::Consumer | GroupKind::Grpc) => "consumer",
    }
}

pub(super) async fn list(service: Arc<Service>, reply_to: ReplyTo, body: ListGroupsRequest) -> Reply {
    let state = match service.rooms.log.barrier().await {
        Ok(state) => state,
        Err(error) => {
            return reply_to.send(&ListGroupsResponse::default().with_error_code(code(&GroupError::unseen(&error))));
        }
    };
    let asked_for = |filter: &[kafka_protocol::protocol::StrBytes], name: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let groups = service.rooms.groups.listed(&state).into_iter();
    let groups = groups.filter(|(_, listed)| {
        asked_for(&body.states_filter, listed.standing.name()) && asked_for(&body.types_filter, type_of(listed.kind))
    });
    let groups = groups.map(|(id, listed)| {
        let group = ListedGroup::default()
            .with_group_id(KafkaGroupId(text(id.as_str())))
            .with_protocol_type(text(protocol_type_of(&listed)));
        let group = if reply_to.version >= 4 { group.with_group_state(text(listed.standing.name())) } else { group };
        if reply_to.version >= 5 { group.with_group_type(text(type_of(listed.kind))) } else { group }
    });
    reply_to.send(&ListGroupsResponse::default().with_groups(groups.collect()))
}

pub(super) async fn delete(service: Arc<Service>, reply_to: ReplyTo, body: DeleteGroupsRequest) -> Reply {
    let deleted = body.groups_names.iter().map(|name| {
        let groups = &service.rooms.groups;
        async move {
            let deleted = match group_id(name) {
                Ok(id) => groups.delete(&id).await,
                Err(error) => Err(error),
            };
            DeletableGroupResult::default().with_group_id(name.clone()).with_error_code(code_of(&deleted))
        }
    });
    let results = futures::stream::iter(deleted.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
    reply_to.send(&DeleteGroupsResponse::default().with_results(results))
}

pub(super) async fn delete_offsets(service: Arc<Service>, reply_to: ReplyTo, body: OffsetDeleteRequest) -> Reply {
    let refused = |error: &GroupError| reply_to.send(&OffsetDeleteResponse::default().with_error_code(code(error)));
    let state = match service.rooms.log.barrier().await {
        Ok(state) => state,
        Err(error) => return refused(&GroupError::unseen(&error)),
    };
    let id = match group_id(&body.group_id) {
        Ok(id) => id,
        Err(error) => return refused(&error),
    };
    let key_of = |topic: &str, index: i32| {
        let index = PartitionIndex::new(u32::try_from(index).ok()?);
        Some(PartitionKey::new(state.topic_id(topic)?, index)).filter(|key| state.partition(*key).is_some())
    };
    let named = body.topics.iter().flat_map(|topic| {
        let keys = topic.partitions.iter().filter_map(|partition| key_of(&topic.name, partition.partition_index));
        keys.map(|key| (topic.name.to_string(), key))
    });
    let read: BTreeSet<String> =
        match service.rooms.groups.delete_offsets(&id, named.collect(), Forget::default()).await {
            Ok(read) => read.into_iter().collect(),
            Err(error) => return refused(&error),
        };
    let topics = body.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let error_code = match key_of(&topic.name, partition.partition_index) {
                None => ResponseError::UnknownTopicOrPartition.code(),
                Some(_) if read.contains(topic.name.as_str()) => code(&GroupError::SubscribedToTopic),
                Some(_) => 0,
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error_code)
        });
        OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    reply_to.send(&OffsetDeleteResponse::default().with_topics(topics.collect()))
}
