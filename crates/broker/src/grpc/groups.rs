//! `GroupService`: the groups of all protocols for tools, and membership for gRPC clients.
//!
//! 1. What is read rests on a barrier that began after the request, so that no answer goes back in time.
//! 2. What changes something is all or nothing, and durable when it is answered.
//! 3. Answers come in pages below 4 MiB, whatever a group holds.

mod describe;
mod join;
mod member;
mod offsets;
mod reset;
mod streams;

use std::pin::Pin;

use futures::{Stream, TryStreamExt, stream};
use lakebed_model::{GroupId, PartitionIndex, PartitionKey, State, TopicId};
use lakebed_wire::v1;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::status::{invalid, status, violation};
use crate::groups::member::GroupError;
use crate::http::ending::Ending;
use crate::http::messages::Closed;
use crate::reason::Reason;
use crate::services::group_service_server::GroupService;
use crate::topics::{self, FoundTopic, TopicReference};

pub(super) use streams::Streams;

/// Entries in one page at most.
const PAGE_SIZE_MAX: usize = 1000;
/// A page ends before it is larger: clients take 4 MiB by default.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// Most partitions that one request moves or commits: what waits for the log is bounded by them.
const OFFSETS_MAX: usize = 10_000;
/// Partitions of one request that are looked up in the store at once.
const AT_ONCE: usize = 16;

#[tonic::async_trait]
impl GroupService for Services {
    type JoinStream = Pin<Box<dyn Stream<Item = Result<v1::JoinResponse, Status>> + Send>>;

    async fn join(&self, request: Request<Streaming<v1::JoinRequest>>) -> Result<Response<Self::JoinStream>, Status> {
        let connection = join::Connection {
            ending: Ending::of(request.extensions()),
            closed: Closed::of(request.extensions()),
            peer: request.extensions().get().copied(),
        };
        // The head goes out at once, for some clients wait for that before they send.
        let opened = join::open(self.clone(), connection, request.into_inner());
        Ok(Response::new(Box::pin(stream::once(opened).try_flatten())))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        self.commit_group_offsets(request.into_inner()).await.map(Response::new)
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        self.fetch_group_offsets(request.into_inner()).await.map(Response::new)
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        self.listed_groups(request.into_inner()).await.map(Response::new)
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        self.described_group(request.into_inner()).await.map(Response::new)
    }

    async fn reset_offsets(
        &self,
        request: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        self.reset_group_offsets(request.into_inner()).await.map(Response::new)
    }

    async fn delete_offsets(
        &self,
        request: Request<v1::DeleteOffsetsRequest>,
    ) -> Result<Response<v1::DeleteOffsetsResponse>, Status> {
        self.delete_group_offsets(request.into_inner()).await.map(Response::new)
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let v1::DeleteGroupRequest { group, validate_only } = request.into_inner();
        let id = check_group(&group)?;
        let groups = &self.rooms.groups;
        let deleted = if validate_only { groups.check_delete(&id).await } else { groups.delete(&id).await };
        deleted.map_err(|error| group_status(&error, &id))?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}

/// The name of a group in the field `group`.
fn check_group(name: &str) -> Result<GroupId, Status> {
    check_group_at(name, "group")
}

/// As [`check_group`], in another field.
fn check_group_at(name: &str, field: &str) -> Result<GroupId, Status> {
    if name.is_empty() {
        return Err(violation(Reason::InvalidGroupId, field, "the name of the group is missing", []));
    }
    GroupId::new(name).map_err(|error| violation(Reason::InvalidGroupId, field, error, []))
}

/// The status of what a group refuses.
fn group_status(error: &GroupError, group: &GroupId) -> Status {
    let message = match error {
        GroupError::GroupNotFound => format!("group {:?} does not exist", group.as_str()),
        GroupError::NonEmptyGroup => format!("group {:?} has members: stop them first", group.as_str()),
        GroupError::UnknownMember => format!("not a member of group {:?}, or not any more", group.as_str()),
        _ => format!("group {:?}: {error}", group.as_str()),
    };
    status(Reason::from(error), message, [("group", group.to_string())])
}

/// A topic that is named in a request.
fn topic_of(state: &State, name: &str) -> Result<FoundTopic, Status> {
    topics::find(state, &TopicReference::Name(name.to_owned())).ok_or_else(|| {
        let message = format!("topic {name:?} does not exist");
        status(Reason::TopicNotFound, message, [("topic", name.to_owned())])
    })
}

/// Checks partitions that a request names: of each topic once, each partition once. No partitions of a topic stay none.
///
/// # Errors
/// TOPIC_NOT_FOUND, PARTITION_NOT_FOUND, INVALID_REQUEST.
fn check_partitions(state: &State, named: &[v1::TopicPartitions]) -> Result<Vec<(FoundTopic, Vec<u32>)>, Status> {
    let mut seen = std::collections::BTreeSet::new();
    let mut checked = Vec::with_capacity(named.len().min(OFFSETS_MAX));
    for (at, of_topic) in named.iter().enumerate() {
        let topic = topic_of(state, &of_topic.topic)?;
        if !seen.insert(topic.id) {
            let what = format!("topic {} is named twice", topic.name);
            return Err(invalid(&format!("partitions[{at}].topic"), what));
        }
        let indexes = of_topic.partitions.iter();
        let mut indexes: Vec<u32> =
            indexes.map(|index| super::batch::check_partition(&topic, *index)).collect::<Result<_, _>>()?;
        indexes.sort_unstable();
        if let Some(twice) = indexes.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = format!("partition {} of topic {} is named twice", twice[0], topic.name);
            return Err(invalid(&format!("partitions[{at}].partitions"), what));
        }
        checked.push((topic, indexes));
    }
    Ok(checked)
}

fn key(topic: TopicId, partition: u32) -> PartitionKey {
    PartitionKey::new(topic, PartitionIndex::new(partition))
}

/// How many entries a page may have.
fn check_page_size(asked: i32, default: usize) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Err(_) => Err(invalid("page_size", "page_size must not be negative")),
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
    }
}

/// The place of a partition, as a page token.
fn token_of(key: PartitionKey) -> String {
    format!("{}/{}", key.topic, key.partition)
}

/// The partition that a page token names.
fn key_of(token: &str) -> Result<PartitionKey, Status> {
    let parsed = || {
        let (topic, partition) = token.split_once('/')?;
        let topic = uuid::Uuid::try_parse(topic).ok()?;
        Some(key(TopicId::new(topic), partition.parse().ok()?))
    };
    parsed().ok_or_else(|| invalid("page_token", "page_token is not one that this call gave"))
}
