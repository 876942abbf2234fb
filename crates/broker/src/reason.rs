//! The one table of refusals: what is answered to Kafka clients, and what to gRPC clients, for the same reason.
//!
//! | reason | what became of the bytes |
//! |---|---|
//! | [`Reason::OutcomeUnknown`] | may be stored, now or a little later: Kafka's REQUEST_TIMED_OUT, which clients retry and count as *possibly persisted* |
//! | [`Reason::Internal`] | may be stored |
//! | all others | nothing was stored, nothing was changed |
//!
//! Kafka's codes are those that clients act upon rightly: what passes by itself is retriable there (NOT_LEADER_OR_FOLLOWER refreshes
//! metadata and retries as *not persisted*; KAFKA_STORAGE_ERROR backs off), what does not pass is not.

use std::time::Duration;

use kafka_protocol::ResponseError;
use lakebed_fetch::FetchError;
use lakebed_ingest::{AdmitError, Obstacle, ProduceError};
use lakebed_log::{AppendError, BarrierError, Closed};
use lakebed_model::{BatchRefusal, Refusal};
use lakebed_segment::batch::Kind;
use tonic::Code;

use crate::groups::member::GroupError;

/// Why something was refused. The names are those of `lakebed.v1.Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No topic of that name.
    TopicNotFound,
    /// No topic with that id.
    TopicIdNotFound,
    /// A topic of that name exists.
    TopicAlreadyExists,
    /// The topic has no such partition.
    PartitionNotFound,
    /// Below the log start, or above the high watermark.
    OffsetOutOfRange,
    /// Larger than `max.message.bytes`.
    MessageTooLarge,
    /// Checksum, length or framing of a batch is wrong.
    CorruptBatch,
    /// A batch contradicts itself, is of magic 0 or 1, or holds what a client may not send.
    InvalidRecord,
    /// A compression that is not known.
    UnsupportedCompression,
    /// The request is not one that this call takes.
    InvalidRequest,
    /// A number of acknowledgements that does not exist.
    InvalidAcks,
    /// A timestamp outside of what the topic accepts.
    InvalidTimestamp,
    /// Not a topic name.
    InvalidTopicName,
    /// A setting is unknown, or its value isn't one that it takes.
    InvalidConfig,
    /// Below 1 or above the limit.
    InvalidPartitionCount,
    /// Another broker has taken over.
    Fenced,
    /// The broker is shutting down.
    ShuttingDown,
    /// The broker holds as much as it may.
    Overloaded,
    /// The object store can't be reached or refuses.
    StoreUnavailable,
    /// It can't be found out whether the write took place.
    OutcomeUnknown,
    /// An object in the store is damaged or missing.
    DamagedObject,
    /// The broker doesn't have the feature.
    Unsupported,
    /// A sequence that does not continue the producer's.
    OutOfOrderSequence,
    /// A producer epoch below one that has been seen.
    InvalidProducerEpoch,
    /// The connection has reached its age; the broker goes on.
    ConnectionAged,
    /// Not a token of this cluster, or of another version.
    InvalidResumeToken,
    /// The next offset of a partition is not the one that was expected.
    OffsetMismatch,
    /// Not the name of a group.
    InvalidGroupId,
    /// No group of that name.
    GroupNotFound,
    /// The group has members.
    GroupNotEmpty,
    /// The members of the group speak another protocol.
    GroupKindMismatch,
    /// A member of the group subscribes to the topic.
    GroupSubscribed,
    /// The group has as many members as it may have.
    GroupFull,
    /// Not a member, or not any more.
    MemberFenced,
    /// Another process has the member's instance id.
    InstanceFenced,
    /// Not the generation, or the epoch, that is in force.
    StaleGeneration,
    /// The members are joining anew.
    Rebalancing,
    /// The member does not have the partition.
    PartitionNotAssigned,
    /// No room for more committed offsets.
    OffsetsFull,
    /// A bug in the broker.
    Internal,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The reason.
    pub reason: Reason,
    /// Its name in `google.rpc.ErrorInfo`.
    pub name: &'static str,
    /// Kafka's code.
    pub kafka: ResponseError,
    /// gRPC's code.
    pub grpc: Code,
}

const fn row(reason: Reason, name: &'static str, kafka: ResponseError, grpc: Code) -> Row {
    Row { reason, name, kafka, grpc }
}

use ResponseError as K;

/// The table, one row per reason.
pub const TABLE: &[Row] = &[
    row(Reason::TopicNotFound, "TOPIC_NOT_FOUND", K::UnknownTopicOrPartition, Code::NotFound),
    row(Reason::TopicIdNotFound, "TOPIC_NOT_FOUND", K::UnknownTopicId, Code::NotFound),
    row(Reason::TopicAlreadyExists, "TOPIC_ALREADY_EXISTS", K::TopicAlreadyExists, Code::AlreadyExists),
    row(Reason::PartitionNotFound, "PARTITION_NOT_FOUND", K::UnknownTopicOrPartition, Code::NotFound),
    row(Reason::OffsetOutOfRange, "OFFSET_OUT_OF_RANGE", K::OffsetOutOfRange, Code::OutOfRange),
    row(Reason::MessageTooLarge, "MESSAGE_TOO_LARGE", K::MessageTooLarge, Code::InvalidArgument),
    row(Reason::CorruptBatch, "CORRUPT_BATCH", K::CorruptMessage, Code::InvalidArgument),
    row(Reason::InvalidRecord, "CORRUPT_BATCH", K::InvalidRecord, Code::InvalidArgument),
    row(Reason::UnsupportedCompression, "CORRUPT_BATCH", K::UnsupportedCompressionType, Code::InvalidArgument),
    row(Reason::InvalidRequest, "INVALID_REQUEST", K::InvalidRequest, Code::InvalidArgument),
    row(Reason::InvalidAcks, "INVALID_REQUEST", K::InvalidRequiredAcks, Code::InvalidArgument),
    row(Reason::InvalidTimestamp, "INVALID_TIMESTAMP", K::InvalidTimestamp, Code::InvalidArgument),
    row(Reason::InvalidTopicName, "INVALID_TOPIC_NAME", K::InvalidTopicException, Code::InvalidArgument),
    row(Reason::InvalidConfig, "INVALID_CONFIG", K::InvalidConfig, Code::InvalidArgument),
    row(Reason::InvalidPartitionCount, "INVALID_PARTITION_COUNT", K::InvalidPartitions, Code::InvalidArgument),
    row(Reason::Fenced, "FENCED", K::NotLeaderOrFollower, Code::Unavailable),
    row(Reason::ShuttingDown, "SHUTTING_DOWN", K::NotLeaderOrFollower, Code::Unavailable),
    row(Reason::Overloaded, "OVERLOADED", K::KafkaStorageError, Code::ResourceExhausted),
    row(Reason::StoreUnavailable, "STORE_UNAVAILABLE", K::KafkaStorageError, Code::Unavailable),
    row(Reason::OutcomeUnknown, "OUTCOME_UNKNOWN", K::RequestTimedOut, Code::Unknown),
    row(Reason::DamagedObject, "DAMAGED_OBJECT", K::CorruptMessage, Code::DataLoss),
    row(Reason::Unsupported, "UNSUPPORTED", K::UnsupportedVersion, Code::Unimplemented),
    row(Reason::OutOfOrderSequence, "INVALID_REQUEST", K::OutOfOrderSequenceNumber, Code::FailedPrecondition),
    row(Reason::InvalidProducerEpoch, "INVALID_REQUEST", K::InvalidProducerEpoch, Code::FailedPrecondition),
    row(Reason::ConnectionAged, "CONNECTION_AGED", K::NotLeaderOrFollower, Code::Unavailable),
    row(Reason::InvalidResumeToken, "INVALID_RESUME_TOKEN", K::InvalidRequest, Code::InvalidArgument),
    row(Reason::OffsetMismatch, "OFFSET_MISMATCH", K::InvalidRequest, Code::Aborted),
    row(Reason::InvalidGroupId, "INVALID_GROUP_ID", K::InvalidGroupId, Code::InvalidArgument),
    row(Reason::GroupNotFound, "GROUP_NOT_FOUND", K::GroupIdNotFound, Code::NotFound),
    row(Reason::GroupNotEmpty, "GROUP_NOT_EMPTY", K::NonEmptyGroup, Code::FailedPrecondition),
    row(Reason::GroupKindMismatch, "GROUP_KIND_MISMATCH", K::InconsistentGroupProtocol, Code::FailedPrecondition),
    row(Reason::GroupSubscribed, "GROUP_SUBSCRIBED", K::GroupSubscribedToTopic, Code::FailedPrecondition),
    row(Reason::GroupFull, "GROUP_FULL", K::GroupMaxSizeReached, Code::FailedPrecondition),
    row(Reason::MemberFenced, "MEMBER_FENCED", K::UnknownMemberId, Code::Aborted),
    row(Reason::InstanceFenced, "INSTANCE_FENCED", K::FencedInstanceId, Code::FailedPrecondition),
    row(Reason::StaleGeneration, "STALE_GENERATION", K::IllegalGeneration, Code::Aborted),
    row(Reason::Rebalancing, "REBALANCING", K::RebalanceInProgress, Code::Aborted),
    row(Reason::PartitionNotAssigned, "PARTITION_NOT_ASSIGNED", K::InvalidRequest, Code::FailedPrecondition),
    row(Reason::OffsetsFull, "OFFSETS_FULL", K::InvalidCommitOffsetSize, Code::FailedPrecondition),
    row(Reason::Internal, "INTERNAL", K::UnknownServerError, Code::Internal),
];

/// What became of the bytes, and of whatever else was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing was stored, nothing was changed.
    NothingHappened,
    /// It may have been done, now or a little later.
    MayHaveHappened,
}

impl Reason {
    /// What became of the request.
    pub fn fate(self) -> Fate {
        match self {
            Self::OutcomeUnknown | Self::Internal => Fate::MayHaveHappened,
            _ => Fate::NothingHappened,
        }
    }

    /// When to come back with the same request, if what stands in its way passes by itself and nothing of it happened.
    pub fn pause(self) -> Option<Duration> {
        match self {
            // At once, on another connection.
            Self::ConnectionAged => Some(Duration::ZERO),
            Self::Fenced | Self::ShuttingDown | Self::Overloaded => Some(Duration::from_millis(200)),
            Self::StoreUnavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// What the client is to do about it; for `docs/errors.md`.
    pub fn advice(self) -> &'static str {
        match self {
            Self::TopicNotFound | Self::TopicIdNotFound => "Look at the name (`ListTopics`), or create the topic.",
            Self::TopicAlreadyExists => "Use it, or choose another name.",
            Self::PartitionNotFound => "Ask how many partitions there are (`DescribeTopic`).",
            Self::OffsetOutOfRange => "Go on at `earliest` or `latest` of the metadata.",
            Self::MessageTooLarge => "Send smaller batches, or raise `max.message.bytes` of the topic.",
            Self::CorruptBatch | Self::UnsupportedCompression => "Build the batch anew; it is refused again as it is.",
            Self::InvalidRecord => "Correct the record that the message names.",
            Self::InvalidRequest | Self::InvalidAcks => "Correct the field that `BadRequest` names.",
            Self::InvalidTimestamp => {
                "Correct the producer's clock, or raise `message.timestamp.before.max.ms` or `message.timestamp.after.max.ms`."
            }
            Self::InvalidTopicName => "Choose another name; the message says what is wrong with this one.",
            Self::InvalidConfig => "Correct the setting; the message has the nearest name, or what values it takes.",
            Self::InvalidPartitionCount => "Ask for a number within the bounds that the message names.",
            Self::Fenced => "Send it again, to any broker of the cluster.",
            Self::ShuttingDown => "Connect again, and send it again.",
            Self::ConnectionAged => "Send it again at once on another connection; the broker goes on.",
            Self::Overloaded => "Send it again after a pause, or give the broker more memory.",
            Self::StoreUnavailable => "Send it again after a pause; look at the store.",
            Self::OutcomeUnknown => {
                "Read what is there before sending it again; an idempotent producer of Kafka's may send it again as it is."
            }
            Self::DamagedObject => "Other offsets can be read. Look at the object that the metadata names.",
            Self::OffsetMismatch => {
                "Look at what was written meanwhile; `next_offset` of the metadata is where the partition is."
            }
            Self::InvalidResumeToken => "Begin anew at an offset or a time.",
            Self::Unsupported => "Do without, or use a broker that has it.",
            Self::OutOfOrderSequence => "A batch before this one is missing: begin with a new producer id.",
            Self::InvalidProducerEpoch => "Another producer of this id has begun: stop this one.",
            Self::InvalidGroupId => "Choose another name.",
            Self::GroupNotFound => "Look at the name (`ListGroups`).",
            Self::GroupNotEmpty => "Stop its members first; `DescribeGroup` shows them.",
            Self::GroupKindMismatch => "Use another group, or stop the members of the other protocol first.",
            Self::GroupSubscribed => "Stop the members that subscribe to the topic first.",
            Self::GroupFull => "Use fewer members, or raise `group_members_max` of the broker.",
            Self::MemberFenced => "Let go of all partitions, and join again as a new member.",
            Self::InstanceFenced => "Stop this process: another one has taken its place.",
            Self::StaleGeneration => "Take the generation, or the epoch, of the last assignment.",
            Self::Rebalancing => "Join again, and commit after that.",
            Self::PartitionNotAssigned => "Commit before acknowledging that the partition is given up.",
            Self::OffsetsFull => "Delete groups that are not used any more.",
            Self::Internal => "Read what is there before sending it again, and report what the broker's log says.",
        }
    }

    /// Its row.
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.reason == self).expect("every reason has a row; a test holds it")
    }

    /// Kafka's code.
    pub fn kafka(self) -> i16 {
        self.row().kafka.code()
    }
}

impl From<&Closed> for Reason {
    fn from(closed: &Closed) -> Self {
        match closed {
            Closed::Fenced { .. } | Closed::Follows { .. } | Closed::Successor => Self::Fenced,
            Closed::Damaged { .. } => Self::DamagedObject,
            Closed::ShuttingDown => Self::ShuttingDown,
        }
    }
}

impl From<&BarrierError> for Reason {
    fn from(error: &BarrierError) -> Self {
        match error {
            BarrierError::Closed { why } => Self::from(why),
            BarrierError::Unproven { .. } => Self::StoreUnavailable,
        }
    }
}

impl From<&Refusal> for Reason {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::TopicExists { .. } => Self::TopicAlreadyExists,
            Refusal::TableNameTaken { .. } => Self::InvalidTopicName,
            Refusal::UnknownTopic { .. } => Self::TopicIdNotFound,
            Refusal::PartitionsOutOfRange { .. } | Refusal::TooManyPartitions { .. } => Self::InvalidPartitionCount,
            Refusal::UnknownPartition { .. } => Self::PartitionNotFound,
            Refusal::LogStartOutOfRange { .. } => Self::OffsetOutOfRange,
            _ => Self::Internal,
        }
    }
}

impl From<&AppendError> for Reason {
    fn from(error: &AppendError) -> Self {
        match error {
            AppendError::NotDone { why } => Self::from(why),
            AppendError::Unknown { .. } => Self::OutcomeUnknown,
            AppendError::Refused(refusal) => Self::from(refusal),
        }
    }
}

impl From<BatchRefusal> for Reason {
    fn from(refusal: BatchRefusal) -> Self {
        match refusal {
            BatchRefusal::UnknownTopic => Self::TopicNotFound,
            BatchRefusal::UnknownPartition => Self::PartitionNotFound,
            BatchRefusal::OutOfOrderSequence => Self::OutOfOrderSequence,
            BatchRefusal::InvalidProducerEpoch => Self::InvalidProducerEpoch,
            BatchRefusal::OffsetsExhausted => Self::Internal,
            BatchRefusal::OffsetMismatch { .. } => Self::OffsetMismatch,
        }
    }
}

impl From<&AdmitError> for Reason {
    fn from(error: &AdmitError) -> Self {
        match error {
            AdmitError::Batch(error) => match error.kind() {
                Kind::Corrupt => Self::CorruptBatch,
                Kind::UnsupportedForMessageFormat | Kind::InvalidRecord => Self::InvalidRecord,
                Kind::InvalidTimestamp => Self::InvalidTimestamp,
                Kind::TooLarge => Self::MessageTooLarge,
                Kind::UnsupportedCompression => Self::UnsupportedCompression,
            },
            AdmitError::TooLarge { .. } => Self::MessageTooLarge,
            AdmitError::KeyMissing { .. } => Self::InvalidRecord,
            AdmitError::TimestampOutOfWindow { .. } => Self::InvalidTimestamp,
            AdmitError::Transactional => Self::Unsupported,
        }
    }
}

impl From<&ProduceError> for Reason {
    fn from(error: &ProduceError) -> Self {
        match error {
            ProduceError::Refused(refusal) => Self::from(*refusal),
            ProduceError::NotDone { why: Obstacle::Log(closed) } => Self::from(closed),
            ProduceError::NotDone { why: Obstacle::ShuttingDown } => Self::ShuttingDown,
            ProduceError::NotDone { why: Obstacle::TooLarge { .. } } => Self::MessageTooLarge,
            ProduceError::NotDone { why: Obstacle::RunsExhausted { .. } } => Self::Overloaded,
            ProduceError::NotDone { .. } => Self::StoreUnavailable,
            ProduceError::Unknown { .. } => Self::OutcomeUnknown,
        }
    }
}

impl From<&FetchError> for Reason {
    fn from(error: &FetchError) -> Self {
        match error {
            FetchError::UnknownTopicOrPartition => Self::PartitionNotFound,
            FetchError::OffsetOutOfRange { .. } => Self::OffsetOutOfRange,
            FetchError::Damaged { .. } => Self::DamagedObject,
            FetchError::Unavailable { .. } => Self::StoreUnavailable,
        }
    }
}

impl From<&GroupError> for Reason {
    fn from(error: &GroupError) -> Self {
        match error {
            GroupError::InvalidGroupId => Self::InvalidGroupId,
            GroupError::InvalidSessionTimeout => Self::InvalidRequest,
            GroupError::UnknownMember | GroupError::MemberIdRequired { .. } => Self::MemberFenced,
            GroupError::FencedInstance => Self::InstanceFenced,
            GroupError::IllegalGeneration => Self::StaleGeneration,
            GroupError::RebalanceInProgress => Self::Rebalancing,
            GroupError::InconsistentProtocol => Self::GroupKindMismatch,
            GroupError::GroupFull => Self::GroupFull,
            GroupError::Overloaded => Self::Overloaded,
            GroupError::Stopped => Self::ShuttingDown,
            GroupError::NotAvailable { .. } => Self::StoreUnavailable,
            GroupError::Unanswered { .. } => Self::OutcomeUnknown,
            GroupError::NotCoordinator => Self::Fenced,
            GroupError::GroupNotFound => Self::GroupNotFound,
            GroupError::NonEmptyGroup => Self::GroupNotEmpty,
            GroupError::SubscribedToTopic => Self::GroupSubscribed,
            GroupError::OffsetsFull => Self::OffsetsFull,
            GroupError::FencedEpoch => Self::MemberFenced,
            GroupError::StaleEpoch => Self::StaleGeneration,
            GroupError::UnreleasedInstance => Self::InstanceFenced,
            GroupError::InvalidPattern { .. } | GroupError::TooOld => Self::InvalidRequest,
            GroupError::OtherKind => Self::GroupKindMismatch,
            GroupError::PartitionGone => Self::PartitionNotFound,
        }
    }
}

#[cfg(test)]
mod page;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unavailable_says_that_nothing_happened_and_what_may_have_happened_says_so() {
        for row in TABLE {
            let open = matches!(row.grpc, Code::Unknown | Code::Internal);
            assert_eq!(row.reason.fate() == Fate::MayHaveHappened, open, "{:?}", row.reason);
            let passes = matches!(row.grpc, Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(row.reason.pause().is_some(), passes, "{:?}", row.reason);
        }
    }

    #[test]
    fn every_reason_has_one_row_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.reason as usize, index, "{:?}", row.reason);
        }
        assert_eq!(Reason::Internal as usize + 1, TABLE.len());
    }

    #[test]
    fn every_name_is_one_of_the_protocol_definition() {
        for row in TABLE {
            let name = format!("REASON_{}", row.name);
            assert!(lakebed_wire::v1::Reason::from_str_name(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_retriable_for_kafka_clients_and_nothing_else_is_but_a_missing_topic() {
        use Reason::{
            ConnectionAged, CorruptBatch, DamagedObject, Fenced, OutcomeUnknown, Overloaded, ShuttingDown,
            StoreUnavailable,
        };
        let passing = [Fenced, ShuttingDown, Overloaded, StoreUnavailable, OutcomeUnknown, ConnectionAged];
        // Kafka marks CORRUPT_MESSAGE and the topics' codes retriable: a checksum may have broken on the way, metadata may lag.
        let kafkas =
            [CorruptBatch, DamagedObject, Reason::TopicNotFound, Reason::TopicIdNotFound, Reason::PartitionNotFound];
        for row in TABLE {
            let expected = passing.contains(&row.reason) || kafkas.contains(&row.reason);
            assert_eq!(row.kafka.is_retriable(), expected, "{:?}", row.reason);
        }
    }
}
