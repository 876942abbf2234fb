//! The shapes of administration: partitions, records, settings, and what tools look at.

use super::Kind::{Array, Bool, Int8, Int32, Int64, NullableArray, NullableString, NullableStruct, String};
use super::{Kind, Struct, always, plain, since};

pub(in super::super) const DELETE_RECORDS: Struct =
    plain(56, &[always("topics", Array(&Kind::Struct(&DELETE_RECORDS_TOPIC))), always("timeout_ms", Int32)]);
pub(in super::super) const DELETE_RECORDS_TOPIC: Struct = plain(
    96,
    &[always("topic.name", String), always("topic.partitions", Array(&Kind::Struct(&DELETE_RECORDS_PARTITION)))],
);
pub(in super::super) const DELETE_RECORDS_PARTITION: Struct =
    plain(40, &[always("partition.index", Int32), always("partition.offset", Int64)]);

pub(in super::super) const DESCRIBE_CONFIGS: Struct = plain(
    56,
    &[
        always("resources", Array(&Kind::Struct(&DESCRIBE_CONFIGS_RESOURCE))),
        always("include_synonyms", Bool),
        since(3, "include_documentation", Bool),
    ],
);
pub(in super::super) const DESCRIBE_CONFIGS_RESOURCE: Struct = plain(
    96,
    &[
        always("resource.type", Int8),
        always("resource.name", String),
        always("resource.configuration_keys", NullableArray(&String)),
    ],
);

pub(in super::super) const ALTER_CONFIGS: Struct =
    plain(56, &[always("resources", Array(&Kind::Struct(&ALTER_RESOURCE))), always("validate_only", Bool)]);
pub(in super::super) const ALTER_RESOURCE: Struct = plain(
    96,
    &[
        always("resource.type", Int8),
        always("resource.name", String),
        always("resource.configs", Array(&Kind::Struct(&ALTER_CONFIG))),
    ],
);
pub(in super::super) const ALTER_CONFIG: Struct =
    plain(96, &[always("config.name", String), always("config.value", NullableString)]);

pub(in super::super) const INCREMENTAL_ALTER_CONFIGS: Struct =
    plain(56, &[always("resources", Array(&Kind::Struct(&INCREMENTAL_RESOURCE))), always("validate_only", Bool)]);
pub(in super::super) const INCREMENTAL_RESOURCE: Struct = plain(
    96,
    &[
        always("resource.type", Int8),
        always("resource.name", String),
        always("resource.configs", Array(&Kind::Struct(&INCREMENTAL_CONFIG))),
    ],
);
pub(in super::super) const INCREMENTAL_CONFIG: Struct = plain(
    104,
    &[always("config.name", String), always("config.operation", Int8), always("config.value", NullableString)],
);

pub(in super::super) const DESCRIBE_LOG_DIRS: Struct =
    plain(56, &[always("topics", NullableArray(&Kind::Struct(&TOPIC_WITH_PARTITIONS)))]);
/// Of several requests: a topic's name and some of its partitions.
pub(in super::super) const TOPIC_WITH_PARTITIONS: Struct =
    plain(96, &[always("topic.name", String), always("topic.partitions", Array(&Int32))]);

pub(in super::super) const CREATE_PARTITIONS: Struct = plain(
    64,
    &[
        always("topics", Array(&Kind::Struct(&CREATE_PARTITIONS_TOPIC))),
        always("timeout_ms", Int32),
        always("validate_only", Bool),
    ],
);
pub(in super::super) const CREATE_PARTITIONS_TOPIC: Struct = plain(
    112,
    &[
        always("topic.name", String),
        always("topic.count", Int32),
        always("topic.assignments", NullableArray(&Kind::Struct(&CREATE_PARTITIONS_ASSIGNMENT))),
    ],
);
pub(in super::super) const CREATE_PARTITIONS_ASSIGNMENT: Struct =
    plain(56, &[always("assignment.broker_ids", Array(&Int32))]);

pub(in super::super) const ELECT_LEADERS: Struct = plain(
    64,
    &[
        since(1, "election_type", Int8),
        always("topic_partitions", NullableArray(&Kind::Struct(&TOPIC_WITH_PARTITIONS))),
        always("timeout_ms", Int32),
    ],
);

pub(in super::super) const LIST_PARTITION_REASSIGNMENTS: Struct =
    plain(64, &[always("timeout_ms", Int32), always("topics", NullableArray(&Kind::Struct(&TOPIC_WITH_PARTITIONS)))]);

pub(in super::super) const DESCRIBE_CLIENT_QUOTAS: Struct =
    plain(56, &[always("components", Array(&Kind::Struct(&QUOTA_COMPONENT))), always("strict", Bool)]);
pub(in super::super) const QUOTA_COMPONENT: Struct = plain(
    104,
    &[
        always("component.entity_type", String),
        always("component.match_type", Int8),
        always("component.match", NullableString),
    ],
);

pub(in super::super) const DESCRIBE_CLUSTER: Struct = plain(
    40,
    &[
        always("include_cluster_authorized_operations", Bool),
        since(1, "endpoint_type", Int8),
        since(2, "include_fenced_brokers", Bool),
    ],
);

pub(in super::super) const DESCRIBE_PRODUCERS: Struct =
    plain(56, &[always("topics", Array(&Kind::Struct(&TOPIC_WITH_PARTITIONS)))]);

pub(in super::super) const LIST_CONFIG_RESOURCES: Struct = plain(56, &[since(1, "resource_types", Array(&Int8))]);

pub(in super::super) const DESCRIBE_TOPIC_PARTITIONS: Struct = plain(
    112,
    &[
        always("topics", Array(&Kind::Struct(&DESCRIBE_TOPIC_PARTITIONS_TOPIC))),
        always("response_partition_limit", Int32),
        always("cursor", NullableStruct(&DESCRIBE_TOPIC_PARTITIONS_CURSOR)),
    ],
);
pub(in super::super) const DESCRIBE_TOPIC_PARTITIONS_TOPIC: Struct = plain(64, &[always("topic.name", String)]);
pub(in super::super) const DESCRIBE_TOPIC_PARTITIONS_CURSOR: Struct =
    plain(72, &[always("cursor.topic_name", String), always("cursor.partition_index", Int32)]);
