//! Requests: from a frame to a message that is safe to work with.
//!
//! The body is walked by the guard of `wire`, and only then decoded by crate `kafka-protocol`: unguarded, that crate allocates what a
//! body of four bytes claims.

use bytes::Bytes;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    FetchRequest, FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::Decodable;
use lakebed_wire::kafka::{self, Api, Support};

use super::response::ReplyTo;

/// A request with its header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// Where its answer goes.
    pub(crate) reply_to: ReplyTo,
    /// What is asked.
    pub(crate) body: Body,
    /// What its client calls itself; only told with what makes a member of a group.
    pub(crate) client_id: String,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Produce(ProduceRequest),
    Fetch(FetchRequest),
    ListOffsets(ListOffsetsRequest),
    Metadata(MetadataRequest),
    FindCoordinator(FindCoordinatorRequest),
    ApiVersions(ApiVersionsRequest),
    CreateTopics(CreateTopicsRequest),
    DeleteTopics(DeleteTopicsRequest),
    InitProducerId(InitProducerIdRequest),
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest),
    Group(Box<GroupBody>),
    Admin(Admin),
}

/// What is asked by those who administer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Admin {
    DeleteRecords(DeleteRecordsRequest),
    DescribeConfigs(DescribeConfigsRequest),
    AlterConfigs(AlterConfigsRequest),
    DescribeLogDirs(DescribeLogDirsRequest),
    CreatePartitions(CreatePartitionsRequest),
    ElectLeaders(ElectLeadersRequest),
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    ListPartitionReassignments(ListPartitionReassignmentsRequest),
    DescribeClientQuotas(DescribeClientQuotasRequest),
    DescribeCluster(DescribeClusterRequest),
    DescribeProducers(DescribeProducersRequest),
    ListConfigResources(ListConfigResourcesRequest),
    DescribeTopicPartitions(DescribeTopicPartitionsRequest),
}

/// What is asked of a consumer group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GroupBody {
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
    Commit(OffsetCommitRequest),
    Fetch(OffsetFetchRequest),
    Describe(DescribeGroupsRequest),
    List(ListGroupsRequest),
    Delete(DeleteGroupsRequest),
    DeleteOffsets(OffsetDeleteRequest),
    Beat(ConsumerGroupHeartbeatRequest),
    DescribeAssigned(ConsumerGroupDescribeRequest),
}

/// What a frame holds.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A request that is worked on.
    Request(Box<Request>),
    /// `ApiVersions` of a version that we don't know; it is answered in version 0.
    ApiVersionsTooNew(ReplyTo),
}

/// Why a frame is no request. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// A key or version that is not advertised.
    #[error("API key {key} version {version} is not one that is taken")]
    Unsupported {
        /// The key.
        key: i16,
        /// The version.
        version: i16,
    },
    /// The header is not one.
    #[error(transparent)]
    Header(#[from] kafka::HeaderError),
    /// The body claims what it has not.
    #[error(transparent)]
    Guard(#[from] kafka::GuardError),
    /// The body holds what the decoder refuses.
    #[error("{api} v{version}: {what}")]
    Undecodable {
        /// The kind of request.
        api: &'static str,
        /// Its version.
        version: i16,
        /// What is wrong.
        what: String,
    },
}

impl Request {
    /// Whether only the sequencer can answer it, and clients send it to any broker, or to one that was the sequencer a moment ago.
    pub(crate) fn is_for_sequencer(&self, creates: impl Fn(&MetadataRequest) -> bool) -> bool {
        match &self.body {
            Body::Metadata(request) => creates(request),
            Body::InitProducerId(_) => true,
            // What is in memory of a group, the sequencer alone knows.
            Body::Group(body) => {
                self.changes() || matches!(**body, GroupBody::Describe(_) | GroupBody::DescribeAssigned(_))
            }
            _ => self.changes(),
        }
    }

    /// Whether it changes topics, settings or groups.
    pub(crate) fn changes(&self) -> bool {
        match &self.body {
            Body::CreateTopics(_) | Body::DeleteTopics(_) => true,
            Body::Admin(admin) => matches!(
                admin,
                Admin::CreatePartitions(_)
                    | Admin::DeleteRecords(_)
                    | Admin::AlterConfigs(_)
                    | Admin::IncrementalAlterConfigs(_)
            ),
            Body::Group(body) => matches!(**body, GroupBody::Delete(_) | GroupBody::DeleteOffsets(_)),
            _ => false,
        }
    }

    /// Whether its payload is accounted for by the ingest buffer once it is started.
    pub(crate) fn is_produce(&self) -> bool {
        matches!(self.body, Body::Produce(_))
    }
}

/// Parses a frame.
///
/// # Errors
/// [`RequestError`]: close.
pub(crate) fn parse(frame: &Bytes) -> Result<Parsed, RequestError> {
    let header = kafka::parse_header(frame)?;
    let (version, correlation_id) = (header.version, header.correlation_id);
    let api = match header.support {
        Support::Decoded(api) => api,
        Support::AnswerApiVersionsZero => {
            let api = kafka::api(header.key).expect("only an API of the table is answered");
            return Ok(Parsed::ApiVersionsTooNew(ReplyTo { api, version: 0, correlation_id }));
        }
        Support::Close => return Err(RequestError::Unsupported { key: header.key, version }),
    };
    let body_bytes = kafka::guard(api.key, version, &frame[header.body_start..])?;
    let mut rest = frame.slice(header.body_start..).slice(..body_bytes);
    let body =
        decode(api, version, &mut rest).map_err(|what| RequestError::Undecodable { api: api.name, version, what })?;
    let makes_members = matches!(api.key, kafka::JOIN_GROUP | kafka::CONSUMER_GROUP_HEARTBEAT);
    let named = if makes_members { header.client_id.unwrap_or_default() } else { "" };
    let client_id = named.to_owned();
    Ok(Parsed::Request(Box::new(Request { reply_to: ReplyTo { api, version, correlation_id }, body, client_id })))
}

fn decode(api: &Api, version: i16, bytes: &mut Bytes) -> Result<Body, String> {
    fn message<M: Decodable>(bytes: &mut Bytes, version: i16) -> Result<M, String> {
        M::decode(bytes, version).map_err(|error| error.to_string())
    }
    Ok(match api.key {
        kafka::PRODUCE => Body::Produce(message(bytes, version)?),
        kafka::FETCH => Body::Fetch(message(bytes, version)?),
        kafka::LIST_OFFSETS => Body::ListOffsets(message(bytes, version)?),
        kafka::METADATA => Body::Metadata(message(bytes, version)?),
        kafka::FIND_COORDINATOR => Body::FindCoordinator(message(bytes, version)?),
        kafka::API_VERSIONS => Body::ApiVersions(message(bytes, version)?),
        kafka::CREATE_TOPICS => Body::CreateTopics(message(bytes, version)?),
        kafka::DELETE_TOPICS => Body::DeleteTopics(message(bytes, version)?),
        kafka::INIT_PRODUCER_ID => Body::InitProducerId(message(bytes, version)?),
        kafka::OFFSET_FOR_LEADER_EPOCH => Body::OffsetForLeaderEpoch(message(bytes, version)?),
        kafka::DELETE_RECORDS => Body::Admin(Admin::DeleteRecords(message(bytes, version)?)),
        kafka::DESCRIBE_CONFIGS => Body::Admin(Admin::DescribeConfigs(message(bytes, version)?)),
        kafka::ALTER_CONFIGS => Body::Admin(Admin::AlterConfigs(message(bytes, version)?)),
        kafka::DESCRIBE_LOG_DIRS => Body::Admin(Admin::DescribeLogDirs(message(bytes, version)?)),
        kafka::CREATE_PARTITIONS => Body::Admin(Admin::CreatePartitions(message(bytes, version)?)),
        kafka::ELECT_LEADERS => Body::Admin(Admin::ElectLeaders(message(bytes, version)?)),
        kafka::INCREMENTAL_ALTER_CONFIGS => Body::Admin(Admin::IncrementalAlterConfigs(message(bytes, version)?)),
        kafka::LIST_PARTITION_REASSIGNMENTS => Body::Admin(Admin::ListPartitionReassignments(message(bytes, version)?)),
        kafka::DESCRIBE_CLIENT_QUOTAS => Body::Admin(Admin::DescribeClientQuotas(message(bytes, version)?)),
        kafka::DESCRIBE_CLUSTER => Body::Admin(Admin::DescribeCluster(message(bytes, version)?)),
        kafka::DESCRIBE_PRODUCERS => Body::Admin(Admin::DescribeProducers(message(bytes, version)?)),
        kafka::LIST_CONFIG_RESOURCES => Body::Admin(Admin::ListConfigResources(message(bytes, version)?)),
        kafka::DESCRIBE_TOPIC_PARTITIONS => Body::Admin(Admin::DescribeTopicPartitions(message(bytes, version)?)),
        kafka::CONSUMER_GROUP_HEARTBEAT => GroupBody::Beat(message(bytes, version)?).into(),
        kafka::CONSUMER_GROUP_DESCRIBE => GroupBody::DescribeAssigned(message(bytes, version)?).into(),
        kafka::JOIN_GROUP => GroupBody::Join(message(bytes, version)?).into(),
        kafka::SYNC_GROUP => GroupBody::Sync(message(bytes, version)?).into(),
        kafka::HEARTBEAT => GroupBody::Heartbeat(message(bytes, version)?).into(),
        kafka::LEAVE_GROUP => GroupBody::Leave(message(bytes, version)?).into(),
        kafka::OFFSET_COMMIT => GroupBody::Commit(message(bytes, version)?).into(),
        kafka::OFFSET_FETCH => GroupBody::Fetch(message(bytes, version)?).into(),
        kafka::DESCRIBE_GROUPS => GroupBody::Describe(message(bytes, version)?).into(),
        kafka::LIST_GROUPS => GroupBody::List(message(bytes, version)?).into(),
        kafka::DELETE_GROUPS => GroupBody::Delete(message(bytes, version)?).into(),
        kafka::OFFSET_DELETE => GroupBody::DeleteOffsets(message(bytes, version)?).into(),
        other => unreachable!("API key {other} is in the table and has a message"),
    })
}
