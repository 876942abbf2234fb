//! Random requests of consumer groups; see `generate`.

use kafka_protocol::messages::*;
use lakebed_wire::kafka::*;
use rand::Rng;
use rand::rngs::StdRng;

use super::{maybe, payload, some, text, uuid};

/// Whether it is a request of groups.
pub(crate) fn is_one(key: i16) -> bool {
    matches!(
        key,
        OFFSET_COMMIT
            | OFFSET_FETCH
            | JOIN_GROUP
            | SYNC_GROUP
            | HEARTBEAT
            | LEAVE_GROUP
            | DESCRIBE_GROUPS
            | LIST_GROUPS
            | DELETE_GROUPS
            | OFFSET_DELETE
            | CONSUMER_GROUP_HEARTBEAT
            | CONSUMER_GROUP_DESCRIBE
    )
}

/// A request of `key` that can be encoded in `version`.
pub(crate) fn request(random: &mut StdRng, key: i16, version: i16) -> RequestKind {
    match key {
        OFFSET_COMMIT => offset_commit(random, version),
        OFFSET_FETCH => offset_fetch(random, version),
        JOIN_GROUP => join_group(random, version),
        SYNC_GROUP => sync_group(random, version),
        HEARTBEAT => heartbeat(random, version),
        LEAVE_GROUP => leave_group(random, version),
        DESCRIBE_GROUPS => describe_groups(random, version),
        LIST_GROUPS => list_groups(random, version),
        DELETE_GROUPS => {
            let groups = some(random, |random| text(random).into());
            RequestKind::DeleteGroups(DeleteGroupsRequest::default().with_groups_names(groups))
        }
        OFFSET_DELETE => offset_delete(random),
        CONSUMER_GROUP_HEARTBEAT => consumer_group_heartbeat(random, version),
        CONSUMER_GROUP_DESCRIBE => {
            let groups = some(random, |random| text(random).into());
            let request = ConsumerGroupDescribeRequest::default().with_group_ids(groups);
            RequestKind::ConsumerGroupDescribe(request.with_include_authorized_operations(random.random()))
        }
        _ => panic!("no generator for API {key}: write one"),
    }
}

fn offset_commit(random: &mut StdRng, version: i16) -> RequestKind {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let topics = some(random, |random| {
        let partitions = some(random, |random| {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(random.random())
                .with_committed_offset(random.random())
                .with_committed_metadata(maybe(random, text));
            if version >= 6 { partition.with_committed_leader_epoch(random.random()) } else { partition }
        });
        OffsetCommitRequestTopic::default().with_name(text(random).into()).with_partitions(partitions)
    });
    let mut request = OffsetCommitRequest::default()
        .with_group_id(text(random).into())
        .with_generation_id_or_member_epoch(random.random())
        .with_member_id(text(random))
        .with_topics(topics);
    if version <= 4 {
        request.retention_time_ms = random.random();
    }
    if version >= 7 {
        request.group_instance_id = maybe(random, text);
    }
    RequestKind::OffsetCommit(request)
}

fn offset_fetch(random: &mut StdRng, version: i16) -> RequestKind {
    use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
    let mut request = OffsetFetchRequest::default();
    if version >= 7 {
        request.require_stable = random.random();
    }
    if version >= 8 {
        request.groups = some(random, |random| {
            let topics = maybe(random, |random| {
                some(random, |random| {
                    let topic = OffsetFetchRequestTopics::default().with_name(text(random).into());
                    topic.with_partition_indexes(some(random, |random| random.random()))
                })
            });
            let mut group = OffsetFetchRequestGroup::default().with_group_id(text(random).into()).with_topics(topics);
            if version >= 9 {
                group.member_id = maybe(random, text);
                group.member_epoch = random.random();
            }
            group
        });
        return RequestKind::OffsetFetch(request);
    }
    let topics = some(random, |random| {
        let topic = OffsetFetchRequestTopic::default().with_name(text(random).into());
        topic.with_partition_indexes(some(random, |random| random.random()))
    });
    let all = version >= 2 && random.random_ratio(1, 5);
    RequestKind::OffsetFetch(request.with_group_id(text(random).into()).with_topics((!all).then_some(topics)))
}

fn join_group(random: &mut StdRng, version: i16) -> RequestKind {
    use join_group_request::JoinGroupRequestProtocol;
    let protocols = some(random, |random| {
        JoinGroupRequestProtocol::default().with_name(text(random)).with_metadata(payload(random))
    });
    let mut request = JoinGroupRequest::default()
        .with_group_id(text(random).into())
        .with_session_timeout_ms(random.random())
        .with_member_id(text(random))
        .with_protocol_type(text(random))
        .with_protocols(protocols);
    if version >= 1 {
        request.rebalance_timeout_ms = random.random();
    }
    if version >= 5 {
        request.group_instance_id = maybe(random, text);
    }
    if version >= 8 {
        request.reason = maybe(random, text);
    }
    RequestKind::JoinGroup(request)
}

fn sync_group(random: &mut StdRng, version: i16) -> RequestKind {
    use sync_group_request::SyncGroupRequestAssignment;
    let assignments = some(random, |random| {
        SyncGroupRequestAssignment::default().with_member_id(text(random)).with_assignment(payload(random))
    });
    let mut request = SyncGroupRequest::default()
        .with_group_id(text(random).into())
        .with_generation_id(random.random())
        .with_member_id(text(random))
        .with_assignments(assignments);
    if version >= 3 {
        request.group_instance_id = maybe(random, text);
    }
    if version >= 5 {
        request.protocol_type = maybe(random, text);
        request.protocol_name = maybe(random, text);
    }
    RequestKind::SyncGroup(request)
}

fn heartbeat(random: &mut StdRng, version: i16) -> RequestKind {
    let mut request = HeartbeatRequest::default()
        .with_group_id(text(random).into())
        .with_generation_id(random.random())
        .with_member_id(text(random));
    if version >= 3 {
        request.group_instance_id = maybe(random, text);
    }
    RequestKind::Heartbeat(request)
}

fn leave_group(random: &mut StdRng, version: i16) -> RequestKind {
    use leave_group_request::MemberIdentity;
    let mut request = LeaveGroupRequest::default().with_group_id(text(random).into());
    if version >= 3 {
        request.members = some(random, |random| {
            let mut member = MemberIdentity::default().with_member_id(text(random));
            member.group_instance_id = maybe(random, text);
            if version >= 5 {
                member.reason = maybe(random, text);
            }
            member
        });
    } else {
        request.member_id = text(random);
    }
    RequestKind::LeaveGroup(request)
}

fn describe_groups(random: &mut StdRng, version: i16) -> RequestKind {
    let mut request = DescribeGroupsRequest::default().with_groups(some(random, |random| text(random).into()));
    if version >= 3 {
        request.include_authorized_operations = random.random();
    }
    RequestKind::DescribeGroups(request)
}

fn list_groups(random: &mut StdRng, version: i16) -> RequestKind {
    let mut request = ListGroupsRequest::default();
    if version >= 4 {
        request.states_filter = some(random, text);
    }
    if version >= 5 {
        request.types_filter = some(random, text);
    }
    RequestKind::ListGroups(request)
}

fn offset_delete(random: &mut StdRng) -> RequestKind {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let topics = some(random, |random| {
        let partitions =
            some(random, |random| OffsetDeleteRequestPartition::default().with_partition_index(random.random()));
        OffsetDeleteRequestTopic::default().with_name(text(random).into()).with_partitions(partitions)
    });
    RequestKind::OffsetDelete(OffsetDeleteRequest::default().with_group_id(text(random).into()).with_topics(topics))
}

fn consumer_group_heartbeat(random: &mut StdRng, version: i16) -> RequestKind {
    use consumer_group_heartbeat_request::TopicPartitions;
    let held = maybe(random, |random| {
        some(random, |random| {
            let topic = TopicPartitions::default().with_topic_id(uuid(random));
            topic.with_partitions(some(random, |random| random.random()))
        })
    });
    let mut request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text(random).into())
        .with_member_id(text(random))
        .with_member_epoch(random.random())
        .with_instance_id(maybe(random, text))
        .with_rack_id(maybe(random, text))
        .with_rebalance_timeout_ms(random.random())
        .with_subscribed_topic_names(maybe(random, |random| some(random, |random| text(random).into())))
        .with_server_assignor(maybe(random, text))
        .with_topic_partitions(held);
    if version >= 1 {
        request.subscribed_topic_regex = maybe(random, text);
    }
    RequestKind::ConsumerGroupHeartbeat(request)
}
