//! The requests that a broker advertises and takes, as data.
//!
//! Our own table, because crate `kafka-protocol`'s ranges hold versions that are unstable or meant between brokers.

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Kafka's number of it.
    pub key: i16,
    /// Kafka's name of it.
    pub name: &'static str,
    /// Lowest version that `ApiVersions` shows.
    pub min: i16,
    /// Highest version that `ApiVersions` shows, inclusive.
    pub max: i16,
    /// Lowest version that is decoded; versions below are shown but refused.
    ///
    /// SUBTLE: Kafka 4 decodes Produce from version 3 and shows it from 0, and so do we: librdkafka takes a broker that
    /// doesn't show Produce 0 for one that can't compress, and silently sends uncompressed batches.
    pub decoded_from: i16,
    /// First version whose headers and bodies are *flexible* (compact lengths, tagged fields; KIP-482).
    pub flexible_from: i16,
}

/// What is done with a request of some key and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It is guarded, decoded and answered.
    Decoded(&'static Api),
    /// It is `ApiVersions` of a version that we don't know: answered in version 0 with UNSUPPORTED_VERSION (35) and
    /// the whole list of APIs, so that the client can ask again (KIP-511). Its body is not looked at.
    AnswerApiVersionsZero,
    /// It can't be answered, since the client would not understand: the connection is closed.
    Close,
}

/// Key of Produce.
pub const PRODUCE: i16 = 0;
/// Key of Fetch.
pub const FETCH: i16 = 1;
/// Key of ListOffsets.
pub const LIST_OFFSETS: i16 = 2;
/// Key of Metadata.
pub const METADATA: i16 = 3;
/// Key of OffsetCommit.
pub const OFFSET_COMMIT: i16 = 8;
/// Key of OffsetFetch.
pub const OFFSET_FETCH: i16 = 9;
/// Key of FindCoordinator.
pub const FIND_COORDINATOR: i16 = 10;
/// Key of JoinGroup.
pub const JOIN_GROUP: i16 = 11;
/// Key of Heartbeat.
pub const HEARTBEAT: i16 = 12;
/// Key of LeaveGroup.
pub const LEAVE_GROUP: i16 = 13;
/// Key of SyncGroup.
pub const SYNC_GROUP: i16 = 14;
/// Key of DescribeGroups.
pub const DESCRIBE_GROUPS: i16 = 15;
/// Key of ListGroups.
pub const LIST_GROUPS: i16 = 16;
/// Key of ApiVersions.
pub const API_VERSIONS: i16 = 18;
/// Key of CreateTopics.
pub const CREATE_TOPICS: i16 = 19;
/// Key of DeleteTopics.
pub const DELETE_TOPICS: i16 = 20;
/// Key of InitProducerId.
pub const INIT_PRODUCER_ID: i16 = 22;
/// Key of OffsetForLeaderEpoch.
pub const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
/// Key of DeleteRecords.
pub const DELETE_RECORDS: i16 = 21;
/// Key of DescribeConfigs.
pub const DESCRIBE_CONFIGS: i16 = 32;
/// Key of AlterConfigs.
pub const ALTER_CONFIGS: i16 = 33;
/// Key of DescribeLogDirs.
pub const DESCRIBE_LOG_DIRS: i16 = 35;
/// Key of CreatePartitions.
pub const CREATE_PARTITIONS: i16 = 37;
/// Key of ElectLeaders.
pub const ELECT_LEADERS: i16 = 43;
/// Key of IncrementalAlterConfigs.
pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
/// Key of ListPartitionReassignments.
pub const LIST_PARTITION_REASSIGNMENTS: i16 = 46;
/// Key of DescribeClientQuotas.
pub const DESCRIBE_CLIENT_QUOTAS: i16 = 48;
/// Key of DescribeCluster.
pub const DESCRIBE_CLUSTER: i16 = 60;
/// Key of DescribeProducers.
pub const DESCRIBE_PRODUCERS: i16 = 61;
/// Key of ConsumerGroupHeartbeat.
pub const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
/// Key of ConsumerGroupDescribe.
pub const CONSUMER_GROUP_DESCRIBE: i16 = 69;
/// Key of ListConfigResources.
pub const LIST_CONFIG_RESOURCES: i16 = 74;
/// Key of DescribeTopicPartitions.
pub const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
/// Key of DeleteGroups.
pub const DELETE_GROUPS: i16 = 42;
/// Key of OffsetDelete.
pub const OFFSET_DELETE: i16 = 47;

/// No version is flexible.
const NEVER: i16 = i16::MAX;

/// Everything that `ApiVersions` shows, in the order of keys.
pub const API_TABLE: &[Api] = &[
    Api { key: PRODUCE, name: "Produce", min: 0, max: 12, decoded_from: 3, flexible_from: 9 },
    Api { key: FETCH, name: "Fetch", min: 4, max: 17, decoded_from: 4, flexible_from: 12 },
    Api { key: LIST_OFFSETS, name: "ListOffsets", min: 1, max: 10, decoded_from: 1, flexible_from: 6 },
    Api { key: METADATA, name: "Metadata", min: 0, max: 13, decoded_from: 0, flexible_from: 9 },
    Api { key: OFFSET_COMMIT, name: "OffsetCommit", min: 2, max: 9, decoded_from: 2, flexible_from: 8 },
    Api { key: OFFSET_FETCH, name: "OffsetFetch", min: 1, max: 9, decoded_from: 1, flexible_from: 6 },
    Api { key: FIND_COORDINATOR, name: "FindCoordinator", min: 0, max: 6, decoded_from: 0, flexible_from: 3 },
    Api { key: JOIN_GROUP, name: "JoinGroup", min: 0, max: 9, decoded_from: 0, flexible_from: 6 },
    Api { key: HEARTBEAT, name: "Heartbeat", min: 0, max: 4, decoded_from: 0, flexible_from: 4 },
    Api { key: LEAVE_GROUP, name: "LeaveGroup", min: 0, max: 5, decoded_from: 0, flexible_from: 4 },
    Api { key: SYNC_GROUP, name: "SyncGroup", min: 0, max: 5, decoded_from: 0, flexible_from: 4 },
    Api { key: DESCRIBE_GROUPS, name: "DescribeGroups", min: 0, max: 6, decoded_from: 0, flexible_from: 5 },
    Api { key: LIST_GROUPS, name: "ListGroups", min: 0, max: 5, decoded_from: 0, flexible_from: 3 },
    Api { key: API_VERSIONS, name: "ApiVersions", min: 0, max: 4, decoded_from: 0, flexible_from: 3 },
    Api { key: CREATE_TOPICS, name: "CreateTopics", min: 2, max: 7, decoded_from: 2, flexible_from: 5 },
    Api { key: DELETE_TOPICS, name: "DeleteTopics", min: 1, max: 6, decoded_from: 1, flexible_from: 4 },
    Api { key: DELETE_RECORDS, name: "DeleteRecords", min: 0, max: 2, decoded_from: 0, flexible_from: 2 },
    // Version 6 is not stable.
    Api { key: INIT_PRODUCER_ID, name: "InitProducerId", min: 0, max: 5, decoded_from: 0, flexible_from: 2 },
    Api {
        key: OFFSET_FOR_LEADER_EPOCH,
        name: "OffsetForLeaderEpoch",
        min: 2,
        max: 4,
        decoded_from: 2,
        flexible_from: 4,
    },
    Api { key: DESCRIBE_CONFIGS, name: "DescribeConfigs", min: 1, max: 4, decoded_from: 1, flexible_from: 4 },
    Api { key: ALTER_CONFIGS, name: "AlterConfigs", min: 0, max: 2, decoded_from: 0, flexible_from: 2 },
    Api { key: DESCRIBE_LOG_DIRS, name: "DescribeLogDirs", min: 1, max: 4, decoded_from: 1, flexible_from: 2 },
    Api { key: CREATE_PARTITIONS, name: "CreatePartitions", min: 0, max: 3, decoded_from: 0, flexible_from: 2 },
    Api { key: DELETE_GROUPS, name: "DeleteGroups", min: 0, max: 2, decoded_from: 0, flexible_from: 2 },
    Api { key: ELECT_LEADERS, name: "ElectLeaders", min: 0, max: 2, decoded_from: 0, flexible_from: 2 },
    Api {
        key: INCREMENTAL_ALTER_CONFIGS,
        name: "IncrementalAlterConfigs",
        min: 0,
        max: 1,
        decoded_from: 0,
        flexible_from: 1,
    },
    Api {
        key: LIST_PARTITION_REASSIGNMENTS,
        name: "ListPartitionReassignments",
        min: 0,
        max: 0,
        decoded_from: 0,
        flexible_from: 0,
    },
    Api { key: OFFSET_DELETE, name: "OffsetDelete", min: 0, max: 0, decoded_from: 0, flexible_from: NEVER },
    Api {
        key: DESCRIBE_CLIENT_QUOTAS,
        name: "DescribeClientQuotas",
        min: 0,
        max: 1,
        decoded_from: 0,
        flexible_from: 1,
    },
    Api { key: DESCRIBE_CLUSTER, name: "DescribeCluster", min: 0, max: 2, decoded_from: 0, flexible_from: 0 },
    Api { key: DESCRIBE_PRODUCERS, name: "DescribeProducers", min: 0, max: 0, decoded_from: 0, flexible_from: 0 },
    Api {
        key: CONSUMER_GROUP_HEARTBEAT,
        name: "ConsumerGroupHeartbeat",
        min: 0,
        max: 1,
        decoded_from: 0,
        flexible_from: 0,
    },
    Api {
        key: CONSUMER_GROUP_DESCRIBE,
        name: "ConsumerGroupDescribe",
        min: 0,
        max: 1,
        decoded_from: 0,
        flexible_from: 0,
    },
    Api { key: LIST_CONFIG_RESOURCES, name: "ListConfigResources", min: 0, max: 1, decoded_from: 0, flexible_from: 0 },
    Api {
        key: DESCRIBE_TOPIC_PARTITIONS,
        name: "DescribeTopicPartitions",
        min: 0,
        max: 0,
        decoded_from: 0,
        flexible_from: 0,
    },
];

impl Api {
    /// Whether requests of `version` are decoded.
    pub fn decodes(&self, version: i16) -> bool {
        (self.decoded_from..=self.max).contains(&version)
    }

    /// Whether `version` is flexible: compact lengths and tagged fields in bodies.
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// Version of the header that a request of `version` begins with: 2 (tagged fields) or 1.
    pub fn request_header_version(&self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the header that the answer to a request of `version` begins with: 1 (tagged fields) or 0.
    ///
    /// SUBTLE: that of `ApiVersions` is always 0: the client reads it before it knows what the broker understands.
    pub fn response_header_version(&self, version: i16) -> i16 {
        if self.is_flexible(version) && self.key != API_VERSIONS { 1 } else { 0 }
    }
}

/// The row of `key`, if we have the API.
pub fn api(key: i16) -> Option<&'static Api> {
    API_TABLE.iter().find(|api| api.key == key)
}

/// What is done with a request of `key` and `version`.
pub fn support(key: i16, version: i16) -> Support {
    match api(key) {
        Some(api) if api.decodes(version) => Support::Decoded(api),
        Some(api) if api.key == API_VERSIONS => Support::AnswerApiVersionsZero,
        _ => Support::Close,
    }
}
