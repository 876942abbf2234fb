//! Consumer groups of the classic protocol, on the wire.
//!
//! A request enters its group when it is started, so the requests of a connection enter in their order; an answer may take until the
//! other members have done their part.

use bytes::Bytes;
use futures::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ListGroupsResponse;
use kafka_protocol::protocol::StrBytes;
use lakebed_model::GroupId;

use super::Service;
use super::connection::Started;
use super::request::{Body, GroupBody};
use super::response::ReplyTo;
use crate::cluster::leads;
use crate::groups::member::GroupError;

mod admin;
mod beats;
mod commit;
mod fetch;
mod members;

/// Who sends a request.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    /// What it calls itself.
    pub(super) client_id: String,
    /// Where it is, as Kafka's brokers write it.
    pub(super) host: String,
}

/// Starts a request.
pub(super) async fn start(
    service: &std::sync::Arc<Service>,
    reply_to: ReplyTo,
    body: GroupBody,
    sender: Sender,
) -> Started {
    match body {
        GroupBody::Join(body) => members::join(service, reply_to, body, sender),
        GroupBody::Sync(body) => members::sync(service, reply_to, body),
        GroupBody::Heartbeat(body) => members::heartbeat(service, reply_to, &body),
        GroupBody::Leave(body) => members::leave(service, reply_to, body),
        GroupBody::Commit(body) => commit::start(service, reply_to, body).await,
        GroupBody::Fetch(body) => fetch::answer(std::sync::Arc::clone(service), reply_to, body).boxed(),
        GroupBody::Describe(body) => admin::describe(std::sync::Arc::clone(service), reply_to, body).boxed(),
        GroupBody::Beat(body) => beats::start(service, reply_to, body, sender),
        GroupBody::DescribeAssigned(body) => beats::describe(std::sync::Arc::clone(service), reply_to, body).boxed(),
        // Each broker lists those that it coordinates.
        GroupBody::List(_) if !leads(&service.rooms.log) => super::ready(reply_to.send(&ListGroupsResponse::default())),
        GroupBody::List(body) => admin::list(std::sync::Arc::clone(service), reply_to, body).boxed(),
        GroupBody::Delete(body) => admin::delete(std::sync::Arc::clone(service), reply_to, body).boxed(),
        GroupBody::DeleteOffsets(body) => admin::delete_offsets(std::sync::Arc::clone(service), reply_to, body).boxed(),
    }
}

impl From<GroupBody> for Body {
    fn from(body: GroupBody) -> Self {
        Self::Group(Box::new(body))
    }
}

/// Kafka's code.
fn code(error: &GroupError) -> i16 {
    use ResponseError as K;
    let code = match error {
        GroupError::InvalidGroupId => K::InvalidGroupId,
        GroupError::InvalidSessionTimeout => K::InvalidSessionTimeout,
        GroupError::UnknownMember => K::UnknownMemberId,
        GroupError::FencedInstance => K::FencedInstanceId,
        GroupError::MemberIdRequired { .. } => K::MemberIdRequired,
        GroupError::IllegalGeneration => K::IllegalGeneration,
        GroupError::RebalanceInProgress => K::RebalanceInProgress,
        GroupError::InconsistentProtocol => K::InconsistentGroupProtocol,
        GroupError::GroupFull => K::GroupMaxSizeReached,
        GroupError::Overloaded
        | GroupError::Stopped
        | GroupError::NotAvailable { .. }
        | GroupError::Unanswered { .. } => K::CoordinatorNotAvailable,
        GroupError::NotCoordinator => K::NotCoordinator,
        GroupError::GroupNotFound => K::GroupIdNotFound,
        GroupError::NonEmptyGroup => K::NonEmptyGroup,
        GroupError::SubscribedToTopic => K::GroupSubscribedToTopic,
        GroupError::OffsetsFull => K::InvalidCommitOffsetSize,
        GroupError::FencedEpoch => K::FencedMemberEpoch,
        GroupError::StaleEpoch => K::StaleMemberEpoch,
        GroupError::UnreleasedInstance => K::UnreleasedInstanceId,
        GroupError::InvalidPattern { .. } => K::InvalidRegularExpression,
        GroupError::OtherKind => K::GroupIdNotFound,
        GroupError::TooOld => K::UnsupportedVersion,
        GroupError::PartitionGone => K::UnknownTopicOrPartition,
    };
    code.code()
}

fn code_of<T>(result: &Result<T, GroupError>) -> i16 {
    result.as_ref().err().map_or(0, code)
}

/// A group's id as the client names it.
fn group_id(id: &str) -> Result<GroupId, GroupError> {
    GroupId::new(id).map_err(|_| GroupError::InvalidGroupId)
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// A copy of its own: a slice would keep the whole request in memory.
fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
