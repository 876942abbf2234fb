//! The requests of consumer groups in every version that is advertised; see [`crate::versions`].

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupsRequest,
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
    SyncGroupResponse,
};
use lakebed_wire::kafka;

use crate::client::{Client, text, topic_name};

/// The codes of a list of answers.
const OK: i16 = 0;

pub(crate) fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

/// A subscription to "orders", as consumers write it.
pub(crate) fn subscription() -> Bytes {
    Bytes::from_static(b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff")
}

pub(crate) fn join_of(id: &str, member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(subscription());
    JoinGroupRequest::default()
        .with_group_id(group(id))
        .with_session_timeout_ms(10_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// Joins as the only member, with the round that gives it its id where the version has it.
pub(crate) async fn join(client: &mut Client, version: i16, id: &str) -> JoinGroupResponse {
    let mut request = join_of(id, "");
    if version >= 1 {
        request.rebalance_timeout_ms = 10_000;
    }
    if version >= 4 {
        let answer = client.call(version, &request).await;
        assert_eq!(answer.error_code, ResponseError::MemberIdRequired.code());
        assert!(answer.member_id.starts_with("test-"), "{}", answer.member_id.as_str());
        request.member_id = answer.member_id;
    }
    let answer = client.call(version, &request).await;
    assert_eq!((answer.error_code, &answer.leader), (OK, &answer.member_id), "v{version}");
    answer
}

/// Joins, and assigns itself `assignment`.
pub(crate) async fn settle(client: &mut Client, id: &str) -> (JoinGroupResponse, SyncGroupResponse) {
    let joined = join(client, 5, id).await;
    let synced = client.call(3, &sync_of(id, &joined)).await;
    assert_eq!(synced.error_code, OK);
    (joined, synced)
}

fn sync_of(id: &str, joined: &JoinGroupResponse) -> SyncGroupRequest {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"mine"));
    SyncGroupRequest::default()
        .with_group_id(group(id))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment])
}

pub(crate) fn commit_of(id: &str, member_id: &str, generation: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(1)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("note")));
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name("orders")).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_member_id(text(member_id))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic])
}

/// What a group has committed in partition 1 of "orders".
pub(crate) async fn committed(client: &mut Client, id: &str) -> i64 {
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name("orders")).with_partition_indexes(vec![1]);
    let request = OffsetFetchRequest::default().with_group_id(group(id)).with_topics(Some(vec![topic]));
    let answer = client.call(5, &request).await;
    assert_eq!(answer.error_code, OK);
    answer.topics[0].partitions[0].committed_offset
}

/// Tries a request of groups out; false if it is not one.
pub(crate) async fn try_out(client: &mut Client, key: i16, version: i16) -> bool {
    let id = format!("group-{key}-{version}");
    match key {
        kafka::JOIN_GROUP => join_group(client, version, &id).await,
        kafka::SYNC_GROUP => sync_group(client, version, &id).await,
        kafka::HEARTBEAT => heartbeat(client, version, &id).await,
        kafka::LEAVE_GROUP => leave_group(client, version, &id).await,
        kafka::OFFSET_COMMIT => offset_commit(client, version, &id).await,
        kafka::OFFSET_FETCH => offset_fetch(client, version, &id).await,
        kafka::DESCRIBE_GROUPS => describe_groups(client, version, &id).await,
        kafka::LIST_GROUPS => list_groups(client, version, &id).await,
        kafka::DELETE_GROUPS => delete_groups(client, version, &id).await,
        kafka::OFFSET_DELETE => offset_delete(client, version, &id).await,
        kafka::CONSUMER_GROUP_HEARTBEAT => drop(beat(client, version, &id).await),
        kafka::CONSUMER_GROUP_DESCRIBE => describe_assigned(client, version, &id).await,
        _ => return false,
    }
    true
}

async fn join_group(client: &mut Client, version: i16, id: &str) {
    let joined = join(client, version, id).await;
    assert_eq!((joined.generation_id, joined.protocol_name.as_deref()), (1, Some("range")));
    assert_eq!(joined.members.len(), 1);
    assert_eq!((&joined.members[0].member_id, &joined.members[0].metadata), (&joined.member_id, &subscription()));
    assert!(version < 7 || joined.protocol_type.as_deref() == Some("consumer"));
}

async fn sync_group(client: &mut Client, version: i16, id: &str) {
    let joined = join(client, 5, id).await;
    let mut request = sync_of(id, &joined);
    if version >= 5 {
        request = request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
    }
    let synced = client.call(version, &request).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (OK, &b"mine"[..]));
    assert!(version < 5 || synced.protocol_name.as_deref() == Some("range"));
    let refused = client.call(version, &request.with_generation_id(9)).await;
    assert_eq!(refused.error_code, ResponseError::IllegalGeneration.code());
}

async fn heartbeat(client: &mut Client, version: i16, id: &str) {
    let (joined, _) = settle(client, id).await;
    let request = HeartbeatRequest::default()
        .with_group_id(group(id))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id);
    assert_eq!(client.call(version, &request).await.error_code, OK);
    let unknown = client.call(version, &request.with_member_id(text("nobody"))).await;
    assert_eq!(unknown.error_code, ResponseError::UnknownMemberId.code());
}

async fn leave_group(client: &mut Client, version: i16, id: &str) {
    let (joined, _) = settle(client, id).await;
    let unknown = ResponseError::UnknownMemberId.code();
    let request = LeaveGroupRequest::default().with_group_id(group(id));
    if version < 3 {
        let request = request.with_member_id(joined.member_id);
        assert_eq!(client.call(version, &request).await.error_code, OK);
        assert_eq!(client.call(version, &request).await.error_code, unknown);
        return;
    }
    let one = |member_id| MemberIdentity::default().with_member_id(member_id);
    let request = request.with_members(vec![one(text("nobody")), one(joined.member_id)]);
    let answer = client.call(version, &request).await;
    let codes: Vec<i16> = answer.members.iter().map(|member| member.error_code).collect();
    assert_eq!((answer.error_code, codes), (OK, vec![unknown, OK]));
}

async fn offset_commit(client: &mut Client, version: i16, id: &str) {
    let (joined, _) = settle(client, id).await;
    let mut request = commit_of(id, &joined.member_id, joined.generation_id, 7);
    let nowhere = OffsetCommitRequestPartition::default().with_partition_index(99).with_committed_offset(1);
    request.topics[0].partitions.push(nowhere);
    if version >= 6 {
        request.topics[0].partitions[0].committed_leader_epoch = 0;
    }
    let answer = client.call(version, &request).await;
    let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [OK, ResponseError::UnknownTopicOrPartition.code()]);
    assert_eq!(committed(client, id).await, 7);
    let stale = commit_of(id, &joined.member_id, joined.generation_id + 1, 8);
    let refused = client.call(version, &stale).await.topics[0].partitions[0].error_code;
    assert_eq!(refused, ResponseError::IllegalGeneration.code());
    assert_eq!(committed(client, id).await, 7);
}

async fn offset_fetch(client: &mut Client, version: i16, id: &str) {
    let mut request = commit_of(id, "", -1, 11);
    request.topics[0].partitions[0].committed_leader_epoch = 0;
    assert_eq!(client.call(6, &request).await.topics[0].partitions[0].error_code, OK);
    let epoch = if version >= 5 { 0 } else { -1 };
    if version >= 8 {
        let topic = OffsetFetchRequestTopics::default();
        let topic = topic.with_name(topic_name("orders")).with_partition_indexes(vec![0, 1]);
        let named = OffsetFetchRequestGroup::default().with_group_id(group(id)).with_topics(Some(vec![topic]));
        let all = OffsetFetchRequestGroup::default().with_group_id(group(id)).with_topics(None);
        let unknown = OffsetFetchRequestGroup::default().with_group_id(group("nobody's")).with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![named, all, unknown]).with_require_stable(true);
        let answer = client.call(version, &request).await;
        let found: Vec<Vec<_>> = answer
            .groups
            .iter()
            .map(|group| {
                assert_eq!(group.error_code, OK);
                let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
                partitions
                    .map(|p| (p.partition_index, p.committed_offset, p.committed_leader_epoch, p.metadata.as_deref()))
                    .collect()
            })
            .collect();
        let here = (1, 11, 0, Some("note"));
        assert_eq!(found, [vec![(0, -1, -1, Some("")), here], vec![here], vec![]]);
        return;
    }
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name("orders")).with_partition_indexes(vec![1, 0]);
    let mut request = OffsetFetchRequest::default().with_group_id(group(id)).with_topics(Some(vec![topic]));
    request.require_stable = version >= 7;
    let answer = client.call(version, &request).await;
    let partitions = answer.topics[0].partitions.iter();
    let found: Vec<_> = partitions
        .map(|p| (p.partition_index, p.committed_offset, p.committed_leader_epoch, p.metadata.as_deref(), p.error_code))
        .collect();
    assert_eq!(found, [(1, 11, epoch, Some("note"), OK), (0, -1, -1, Some(""), OK)]);
    if version >= 2 {
        let answer = client.call(version, &request.with_topics(None)).await;
        assert_eq!((answer.error_code, answer.topics.len()), (OK, 1));
        assert_eq!(answer.topics[0].partitions[0].committed_offset, 11);
    }
}

async fn describe_groups(client: &mut Client, version: i16, id: &str) {
    let (joined, _) = settle(client, id).await;
    let request = DescribeGroupsRequest::default().with_groups(vec![group(id), group("nobody's")]);
    let answer = client.call(version, &request).await;
    let [live, dead] = &answer.groups[..] else { panic!("{answer:?}") };
    assert_eq!((live.error_code, live.group_state.as_str(), live.protocol_type.as_str()), (OK, "Stable", "consumer"));
    assert_eq!(live.protocol_data.as_str(), "range");
    let member = &live.members[0];
    assert_eq!((&member.member_id, member.client_id.as_str()), (&joined.member_id, "test"));
    assert_eq!((member.client_host.as_str(), &member.member_assignment[..]), ("/127.0.0.1", &b"mine"[..]));
    assert_eq!(member.member_metadata, subscription());
    let expected = if version >= 6 { ResponseError::GroupIdNotFound.code() } else { OK };
    assert_eq!((dead.error_code, dead.group_state.as_str()), (expected, "Dead"));
}

async fn list_groups(client: &mut Client, version: i16, id: &str) {
    settle(client, id).await;
    let ids = |groups: &[kafka_protocol::messages::list_groups_response::ListedGroup]| {
        groups.iter().map(|group| group.group_id.as_str().to_owned()).collect::<Vec<_>>()
    };
    let answer = client.call(version, &ListGroupsRequest::default()).await;
    assert!(ids(&answer.groups).contains(&id.to_owned()));
    let this = answer.groups.iter().find(|group| group.group_id.as_str() == id).unwrap();
    assert_eq!(this.protocol_type.as_str(), "consumer");
    assert_eq!(this.group_state.as_str(), if version >= 4 { "Stable" } else { "" });
    assert_eq!(this.group_type.as_str(), if version >= 5 { "classic" } else { "" });
    if version >= 4 {
        let empty = ListGroupsRequest::default().with_states_filter(vec![text("Empty")]);
        assert!(!ids(&client.call(version, &empty).await.groups).contains(&id.to_owned()));
    }
    if version >= 5 {
        let consumers = ListGroupsRequest::default().with_types_filter(vec![text("consumer")]);
        assert!(client.call(version, &consumers).await.groups.is_empty());
    }
}

async fn delete_groups(client: &mut Client, version: i16, id: &str) {
    let (joined, _) = settle(client, id).await;
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group(id), group("nobody's")]);
    let codes = |answer: kafka_protocol::messages::DeleteGroupsResponse| {
        answer.results.iter().map(|result| result.error_code).collect::<Vec<_>>()
    };
    let not_found = ResponseError::GroupIdNotFound.code();
    let first = codes(client.call(version, &request).await);
    assert_eq!(first, [ResponseError::NonEmptyGroup.code(), not_found]);
    let leave = LeaveGroupRequest::default().with_group_id(group(id)).with_member_id(joined.member_id);
    assert_eq!(client.call(0, &leave).await.error_code, OK);
    assert_eq!(codes(client.call(version, &request).await), [OK, not_found]);
    assert_eq!(codes(client.call(version, &request).await), [not_found, not_found]);
}

async fn offset_delete(client: &mut Client, version: i16, id: &str) {
    let delete = |id: &str| {
        let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
        let topic = OffsetDeleteRequestTopic::default().with_name(topic_name("orders"));
        let topic = topic.with_partitions(vec![partition(1), partition(99)]);
        OffsetDeleteRequest::default().with_group_id(group(id)).with_topics(vec![topic])
    };
    let unknown = client.call(version, &delete(id)).await;
    assert_eq!(unknown.error_code, ResponseError::GroupIdNotFound.code());
    let request = commit_of(id, "", -1, 3);
    assert_eq!(client.call(6, &request).await.topics[0].partitions[0].error_code, OK);
    let answer = client.call(version, &delete(id)).await;
    let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!((answer.error_code, codes), (OK, vec![OK, ResponseError::UnknownTopicOrPartition.code()]));
    assert_eq!(committed(client, id).await, -1);
    let live = format!("{id}-live");
    settle(client, &live).await;
    let answer = client.call(version, &delete(&live)).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, ResponseError::GroupSubscribedToTopic.code());
}

/// Joins a group whose partitions the broker assigns, as the only member.
async fn beat(client: &mut Client, version: i16, id: &str) -> ConsumerGroupHeartbeatResponse {
    let mut request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group(id))
        .with_rebalance_timeout_ms(10_000)
        .with_subscribed_topic_names(Some(vec![topic_name("orders")]))
        .with_topic_partitions(Some(Vec::new()));
    if version >= 1 {
        request.member_id = text("own");
        request.subscribed_topic_regex = Some(text("(order|pay)s"));
    }
    let answer = client.call(version, &request).await;
    assert_eq!((answer.error_code, answer.heartbeat_interval_ms), (OK, 5000), "v{version}");
    let given = &answer.assignment.as_ref().unwrap().topic_partitions;
    assert_eq!(given.iter().map(|topic| topic.partitions.clone()).collect::<Vec<_>>(), [vec![0, 1, 2, 3]]);
    assert_eq!(answer.member_id.as_ref().is_some_and(|id| id.as_str() == "own"), version >= 1);
    answer
}

async fn describe_assigned(client: &mut Client, version: i16, id: &str) {
    let beaten = beat(client, version.min(1), id).await;
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(id), group("nowhere")]);
    let answer = client.call(version, &request).await;
    let [described, missing] = &answer.groups[..] else { panic!("{answer:?}") };
    assert_eq!((described.error_code, described.group_state.as_str()), (OK, "Stable"));
    assert_eq!((described.group_epoch, described.members[0].member_epoch), (beaten.member_epoch, beaten.member_epoch));
    assert_eq!(described.members[0].assignment, described.members[0].target_assignment);
    assert_eq!(described.members[0].assignment.topic_partitions[0].topic_name, topic_name("orders"));
    assert_eq!(described.members[0].member_type, if version >= 1 { 1 } else { -1 });
    assert_eq!(missing.error_code, ResponseError::GroupIdNotFound.code());
}
