//! The shape of the requests of consumer groups.

use super::Kind::{Array, Bool, Int32, Int64, NullableArray, NullableBytes, NullableString, String, Uuid};
use super::{Kind, Struct, always, plain, since, until, versions};

pub(super) const OFFSET_COMMIT: Struct = plain(
    176,
    &[
        always("group_id", String),
        always("generation", Int32),
        always("member_id", String),
        since(7, "group_instance_id", NullableString),
        versions(2, 4, "retention_time_ms", Int64),
        always("topics", Array(&Kind::Struct(&OFFSET_COMMIT_TOPIC))),
    ],
);
pub(in super::super) const OFFSET_COMMIT_TOPIC: Struct = plain(
    104,
    &[always("topic.name", String), always("topic.partitions", Array(&Kind::Struct(&OFFSET_COMMIT_PARTITION)))],
);
pub(in super::super) const OFFSET_COMMIT_PARTITION: Struct = plain(
    88,
    &[
        always("partition.index", Int32),
        always("partition.offset", Int64),
        since(6, "partition.leader_epoch", Int32),
        always("partition.metadata", NullableString),
    ],
);

pub(super) const OFFSET_FETCH: Struct = plain(
    128,
    &[
        until(7, "group_id", String),
        until(1, "topics", Array(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
        versions(2, 7, "topics", NullableArray(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
        since(8, "groups", Array(&Kind::Struct(&OFFSET_FETCH_GROUP))),
        since(7, "require_stable", Bool),
    ],
);
/// Of both forms of the request: this is the larger of what they decode to.
pub(in super::super) const OFFSET_FETCH_TOPIC: Struct =
    plain(104, &[always("topic.name", String), always("topic.partitions", Array(&Int32))]);
pub(in super::super) const OFFSET_FETCH_GROUP: Struct = plain(
    136,
    &[
        always("group.id", String),
        since(9, "group.member_id", NullableString),
        since(9, "group.member_epoch", Int32),
        always("group.topics", NullableArray(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
    ],
);

pub(super) const JOIN_GROUP: Struct = plain(
    240,
    &[
        always("group_id", String),
        always("session_timeout_ms", Int32),
        since(1, "rebalance_timeout_ms", Int32),
        always("member_id", String),
        since(5, "group_instance_id", NullableString),
        always("protocol_type", String),
        always("protocols", Array(&Kind::Struct(&JOIN_GROUP_PROTOCOL))),
        since(8, "reason", NullableString),
    ],
);
pub(in super::super) const JOIN_GROUP_PROTOCOL: Struct =
    plain(96, &[always("protocol.name", String), always("protocol.metadata", NullableBytes)]);

pub(super) const SYNC_GROUP: Struct = plain(
    240,
    &[
        always("group_id", String),
        always("generation", Int32),
        always("member_id", String),
        since(3, "group_instance_id", NullableString),
        since(5, "protocol_type", NullableString),
        since(5, "protocol_name", NullableString),
        always("assignments", Array(&Kind::Struct(&SYNC_GROUP_ASSIGNMENT))),
    ],
);
pub(in super::super) const SYNC_GROUP_ASSIGNMENT: Struct =
    plain(96, &[always("assignment.member_id", String), always("assignment.assignment", NullableBytes)]);

pub(super) const HEARTBEAT: Struct = plain(
    136,
    &[
        always("group_id", String),
        always("generation", Int32),
        always("member_id", String),
        since(3, "group_instance_id", NullableString),
    ],
);

pub(super) const LEAVE_GROUP: Struct = plain(
    128,
    &[
        always("group_id", String),
        until(2, "member_id", String),
        since(3, "members", Array(&Kind::Struct(&LEAVE_GROUP_MEMBER))),
    ],
);
pub(in super::super) const LEAVE_GROUP_MEMBER: Struct = plain(
    128,
    &[
        always("member.id", String),
        always("member.group_instance_id", NullableString),
        since(5, "member.reason", NullableString),
    ],
);

pub(super) const DESCRIBE_GROUPS: Struct =
    plain(64, &[always("groups", Array(&String)), since(3, "include_authorized_operations", Bool)]);

pub(super) const LIST_GROUPS: Struct =
    plain(80, &[since(4, "states_filter", Array(&String)), since(5, "types_filter", Array(&String))]);

pub(super) const DELETE_GROUPS: Struct = plain(56, &[always("groups", Array(&String))]);

pub(super) const OFFSET_DELETE: Struct =
    plain(80, &[always("group_id", String), always("topics", Array(&Kind::Struct(&OFFSET_DELETE_TOPIC)))]);
pub(in super::super) const OFFSET_DELETE_TOPIC: Struct = plain(
    80,
    &[always("topic.name", String), always("topic.partitions", Array(&Kind::Struct(&OFFSET_DELETE_PARTITION)))],
);
pub(in super::super) const OFFSET_DELETE_PARTITION: Struct = plain(8, &[always("partition.index", Int32)]);

pub(super) const CONSUMER_GROUP_HEARTBEAT: Struct = plain(
    320,
    &[
        always("group_id", String),
        always("member_id", String),
        always("member_epoch", Int32),
        always("instance_id", NullableString),
        always("rack_id", NullableString),
        always("rebalance_timeout_ms", Int32),
        always("subscribed_topic_names", NullableArray(&String)),
        since(1, "subscribed_topic_regex", NullableString),
        always("server_assignor", NullableString),
        always("topic_partitions", NullableArray(&Kind::Struct(&HELD_TOPIC))),
    ],
);
pub(in super::super) const HELD_TOPIC: Struct =
    plain(72, &[always("topic.id", Uuid), always("topic.partitions", Array(&Int32))]);

pub(super) const CONSUMER_GROUP_DESCRIBE: Struct =
    plain(64, &[always("groups", Array(&String)), always("include_authorized_operations", Bool)]);
