//! The shape of every request that is decoded, as data: enough of Kafka's message definitions to walk a body.
//!
//! Whether lengths are compact and structs end in tagged fields follows from the API's first flexible version.
//! No struct contains itself, so the depth of a walk is the depth of these constants.

pub(super) mod admin;
pub(super) mod groups;

/// What is encoded in one place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uuid,
    String,
    NullableString,
    /// Bytes, or a record batch: not looked into.
    NullableBytes,
    Array(&'static Kind),
    NullableArray(&'static Kind),
    Struct(&'static Struct),
    /// A struct behind a byte that says whether it is there.
    NullableStruct(&'static Struct),
}

/// Fields in their order.
#[derive(Debug)]
pub(super) struct Struct {
    pub(super) fields: &'static [Field],
    /// Tagged fields that the decoder knows.
    pub(super) tagged: &'static [Tagged],
    /// At least what the decoder's struct takes in memory, without what it points at.
    pub(super) decoded_bytes: usize,
}

/// A field that is there in versions `since..=until`.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) since: i16,
    pub(super) until: i16,
    pub(super) kind: Kind,
}

/// A tagged field that is known from version `since` on.
#[derive(Debug)]
pub(super) struct Tagged {
    pub(super) tag: u32,
    pub(super) name: &'static str,
    pub(super) since: i16,
    pub(super) kind: Kind,
}

/// The body of requests of one API in versions `since..=until`.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) key: i16,
    pub(super) since: i16,
    pub(super) until: i16,
    pub(super) fields: Struct,
}

/// The shape of requests of `key` and `version`, if there is one.
pub(super) fn body(key: i16, version: i16) -> Option<&'static Struct> {
    BODIES.iter().find(|body| body.key == key && (body.since..=body.until).contains(&version)).map(|body| &body.fields)
}

const fn always(name: &'static str, kind: Kind) -> Field {
    versions(0, i16::MAX, name, kind)
}

const fn since(since: i16, name: &'static str, kind: Kind) -> Field {
    versions(since, i16::MAX, name, kind)
}

const fn until(until: i16, name: &'static str, kind: Kind) -> Field {
    versions(0, until, name, kind)
}

const fn versions(since: i16, until: i16, name: &'static str, kind: Kind) -> Field {
    Field { name, since, until, kind }
}

const fn plain(decoded_bytes: usize, fields: &'static [Field]) -> Struct {
    Struct { fields, tagged: &[], decoded_bytes }
}

use Kind::{Array, Bool, Int8, Int16, Int32, Int64, NullableArray, NullableBytes, NullableString, String, Uuid};

/// One row per API that is decoded. A row names the versions that it was checked for, so that showing a new version
/// without looking here fails a test.
pub(super) const BODIES: &[Body] = &[
    Body { key: super::PRODUCE, since: 3, until: 12, fields: PRODUCE },
    Body { key: super::FETCH, since: 4, until: 17, fields: FETCH },
    Body { key: super::LIST_OFFSETS, since: 1, until: 10, fields: LIST_OFFSETS },
    Body { key: super::METADATA, since: 0, until: 13, fields: METADATA },
    Body { key: super::FIND_COORDINATOR, since: 0, until: 6, fields: FIND_COORDINATOR },
    Body { key: super::API_VERSIONS, since: 0, until: 4, fields: API_VERSIONS },
    Body { key: super::CREATE_TOPICS, since: 2, until: 7, fields: CREATE_TOPICS },
    Body { key: super::DELETE_TOPICS, since: 1, until: 6, fields: DELETE_TOPICS },
    Body { key: super::INIT_PRODUCER_ID, since: 0, until: 5, fields: INIT_PRODUCER_ID },
    Body { key: super::OFFSET_FOR_LEADER_EPOCH, since: 2, until: 4, fields: OFFSET_FOR_LEADER_EPOCH },
    Body { key: super::DELETE_RECORDS, since: 0, until: 2, fields: admin::DELETE_RECORDS },
    Body { key: super::DESCRIBE_CONFIGS, since: 1, until: 4, fields: admin::DESCRIBE_CONFIGS },
    Body { key: super::ALTER_CONFIGS, since: 0, until: 2, fields: admin::ALTER_CONFIGS },
    Body { key: super::DESCRIBE_LOG_DIRS, since: 1, until: 4, fields: admin::DESCRIBE_LOG_DIRS },
    Body { key: super::CREATE_PARTITIONS, since: 0, until: 3, fields: admin::CREATE_PARTITIONS },
    Body { key: super::ELECT_LEADERS, since: 0, until: 2, fields: admin::ELECT_LEADERS },
    Body { key: super::INCREMENTAL_ALTER_CONFIGS, since: 0, until: 1, fields: admin::INCREMENTAL_ALTER_CONFIGS },
    Body { key: super::LIST_PARTITION_REASSIGNMENTS, since: 0, until: 0, fields: admin::LIST_PARTITION_REASSIGNMENTS },
    Body { key: super::DESCRIBE_CLIENT_QUOTAS, since: 0, until: 1, fields: admin::DESCRIBE_CLIENT_QUOTAS },
    Body { key: super::DESCRIBE_CLUSTER, since: 0, until: 2, fields: admin::DESCRIBE_CLUSTER },
    Body { key: super::DESCRIBE_PRODUCERS, since: 0, until: 0, fields: admin::DESCRIBE_PRODUCERS },
    Body { key: super::LIST_CONFIG_RESOURCES, since: 0, until: 1, fields: admin::LIST_CONFIG_RESOURCES },
    Body { key: super::OFFSET_COMMIT, since: 2, until: 9, fields: groups::OFFSET_COMMIT },
    Body { key: super::OFFSET_FETCH, since: 1, until: 9, fields: groups::OFFSET_FETCH },
    Body { key: super::JOIN_GROUP, since: 0, until: 9, fields: groups::JOIN_GROUP },
    Body { key: super::HEARTBEAT, since: 0, until: 4, fields: groups::HEARTBEAT },
    Body { key: super::LEAVE_GROUP, since: 0, until: 5, fields: groups::LEAVE_GROUP },
    Body { key: super::SYNC_GROUP, since: 0, until: 5, fields: groups::SYNC_GROUP },
    Body { key: super::DESCRIBE_GROUPS, since: 0, until: 6, fields: groups::DESCRIBE_GROUPS },
    Body { key: super::LIST_GROUPS, since: 0, until: 5, fields: groups::LIST_GROUPS },
    Body { key: super::DELETE_GROUPS, since: 0, until: 2, fields: groups::DELETE_GROUPS },
    Body { key: super::CONSUMER_GROUP_HEARTBEAT, since: 0, until: 1, fields: groups::CONSUMER_GROUP_HEARTBEAT },
    Body { key: super::CONSUMER_GROUP_DESCRIBE, since: 0, until: 1, fields: groups::CONSUMER_GROUP_DESCRIBE },
    Body { key: super::DESCRIBE_TOPIC_PARTITIONS, since: 0, until: 0, fields: admin::DESCRIBE_TOPIC_PARTITIONS },
    Body { key: super::OFFSET_DELETE, since: 0, until: 0, fields: groups::OFFSET_DELETE },
];

const PRODUCE: Struct = plain(
    112,
    &[
        always("transactional_id", NullableString),
        always("acks", Int16),
        always("timeout_ms", Int32),
        always("topics", Array(&Kind::Struct(&PRODUCE_TOPIC))),
    ],
);
pub(super) const PRODUCE_TOPIC: Struct =
    plain(104, &[always("topic.name", String), always("topic.partitions", Array(&Kind::Struct(&PRODUCE_PARTITION)))]);
pub(super) const PRODUCE_PARTITION: Struct =
    plain(64, &[always("partition.index", Int32), always("partition.records", NullableBytes)]);

const FETCH: Struct = Struct {
    fields: &[
        until(14, "replica_id", Int32),
        always("max_wait_ms", Int32),
        always("min_bytes", Int32),
        always("max_bytes", Int32),
        always("isolation_level", Int8),
        since(7, "session_id", Int32),
        since(7, "session_epoch", Int32),
        always("topics", Array(&Kind::Struct(&FETCH_TOPIC))),
        since(7, "forgotten_topics", Array(&Kind::Struct(&FORGOTTEN_TOPIC))),
        since(11, "rack_id", String),
    ],
    tagged: &[
        Tagged { tag: 0, name: "cluster_id", since: 12, kind: NullableString },
        Tagged { tag: 1, name: "replica_state", since: 15, kind: Kind::Struct(&REPLICA_STATE) },
    ],
    decoded_bytes: 240,
};
const REPLICA_STATE: Struct = plain(40, &[always("replica_id", Int32), always("replica_epoch", Int64)]);
pub(super) const FETCH_TOPIC: Struct = plain(
    104,
    &[
        until(12, "topic.name", String),
        since(13, "topic.id", Uuid),
        always("topic.partitions", Array(&Kind::Struct(&FETCH_PARTITION))),
    ],
);
pub(super) const FETCH_PARTITION: Struct = Struct {
    fields: &[
        always("partition.index", Int32),
        since(9, "partition.current_leader_epoch", Int32),
        always("partition.fetch_offset", Int64),
        since(12, "partition.last_fetched_epoch", Int32),
        since(5, "partition.log_start_offset", Int64),
        always("partition.max_bytes", Int32),
    ],
    tagged: &[Tagged { tag: 0, name: "partition.replica_directory_id", since: 17, kind: Uuid }],
    decoded_bytes: 96,
};
pub(super) const FORGOTTEN_TOPIC: Struct = plain(
    104,
    &[
        until(12, "forgotten_topic.name", String),
        since(13, "forgotten_topic.id", Uuid),
        always("forgotten_topic.partitions", Array(&Int32)),
    ],
);

const LIST_OFFSETS: Struct = plain(
    64,
    &[
        always("replica_id", Int32),
        since(2, "isolation_level", Int8),
        always("topics", Array(&Kind::Struct(&LIST_OFFSETS_TOPIC))),
        since(10, "timeout_ms", Int32),
    ],
);
pub(super) const LIST_OFFSETS_TOPIC: Struct = plain(
    88,
    &[always("topic.name", String), always("topic.partitions", Array(&Kind::Struct(&LIST_OFFSETS_PARTITION)))],
);
pub(super) const LIST_OFFSETS_PARTITION: Struct = plain(
    48,
    &[
        always("partition.index", Int32),
        since(4, "partition.current_leader_epoch", Int32),
        always("partition.timestamp", Int64),
    ],
);

const METADATA: Struct = plain(
    64,
    &[
        until(0, "topics", Array(&Kind::Struct(&METADATA_TOPIC))),
        since(1, "topics", NullableArray(&Kind::Struct(&METADATA_TOPIC))),
        since(4, "allow_auto_topic_creation", Bool),
        versions(8, 10, "include_cluster_authorized_operations", Bool),
        since(8, "include_topic_authorized_operations", Bool),
    ],
);
pub(super) const METADATA_TOPIC: Struct =
    plain(72, &[since(10, "topic.id", Uuid), until(9, "topic.name", String), since(10, "topic.name", NullableString)]);

const FIND_COORDINATOR: Struct =
    plain(96, &[until(3, "key", String), since(1, "key_type", Int8), since(4, "coordinator_keys", Array(&String))]);

const API_VERSIONS: Struct =
    plain(96, &[since(3, "client_software_name", String), since(3, "client_software_version", String)]);

const CREATE_TOPICS: Struct = plain(
    64,
    &[
        always("topics", Array(&Kind::Struct(&CREATABLE_TOPIC))),
        always("timeout_ms", Int32),
        always("validate_only", Bool),
    ],
);
pub(super) const CREATABLE_TOPIC: Struct = plain(
    112,
    &[
        always("topic.name", String),
        always("topic.partition_count", Int32),
        always("topic.replication_factor", Int16),
        always("topic.assignments", Array(&Kind::Struct(&CREATABLE_ASSIGNMENT))),
        always("topic.configs", Array(&Kind::Struct(&CREATABLE_CONFIG))),
    ],
);
pub(super) const CREATABLE_ASSIGNMENT: Struct =
    plain(56, &[always("assignment.partition_index", Int32), always("assignment.broker_ids", Array(&Int32))]);
pub(super) const CREATABLE_CONFIG: Struct =
    plain(88, &[always("config.name", String), always("config.value", NullableString)]);

const DELETE_TOPICS: Struct = plain(
    80,
    &[
        since(6, "topics", Array(&Kind::Struct(&DELETE_TOPIC))),
        until(5, "topic_names", Array(&String)),
        always("timeout_ms", Int32),
    ],
);
pub(super) const DELETE_TOPIC: Struct = plain(72, &[always("topic.name", NullableString), always("topic.id", Uuid)]);

const INIT_PRODUCER_ID: Struct = plain(
    96,
    &[
        always("transactional_id", NullableString),
        always("transaction_timeout_ms", Int32),
        since(3, "producer_id", Int64),
        since(3, "producer_epoch", Int16),
    ],
);

const OFFSET_FOR_LEADER_EPOCH: Struct =
    plain(56, &[since(3, "replica_id", Int32), always("topics", Array(&Kind::Struct(&OFFSET_FOR_LEADER_TOPIC)))]);
pub(super) const OFFSET_FOR_LEADER_TOPIC: Struct = plain(
    88,
    &[always("topic.name", String), always("topic.partitions", Array(&Kind::Struct(&OFFSET_FOR_LEADER_PARTITION)))],
);
pub(super) const OFFSET_FOR_LEADER_PARTITION: Struct = plain(
    40,
    &[
        always("partition.index", Int32),
        always("partition.current_leader_epoch", Int32),
        always("partition.leader_epoch", Int32),
    ],
);
