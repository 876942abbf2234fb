//! Lists of groups, and one group in full: members, and how far it has come in each partition.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use futures::stream::{self, StreamExt};
use lakebed_model::{GroupId, GroupKind, Offset, PartitionKey, State};
use lakebed_wire::v1;
use prost::Message;
use tonic::Status;

use super::offsets::committed_after;
use super::{
    AT_ONCE, PAGE_BYTES_MAX, PAGE_SIZE_MAX, check_group, check_page_size, group_status, key, key_of, token_of,
};
use crate::groups::member::GroupError;
use crate::groups::overview::{Listed, Overview, Seen, Standing};
use crate::grpc::Services;
use crate::grpc::produce::{wire_offset, wire_partition};
use crate::grpc::status::invalid;

/// Members and partitions in one page if the request says nothing.
const DESCRIBED_DEFAULT: usize = 100;

/// As [`PAGE_BYTES_MAX`], of members and partitions together.
const DESCRIBED_BYTES_MAX: usize = 3 << 20;

/// Where a page of a description begins.
enum Begin {
    /// Behind this member; at the first if it is empty.
    Member(String),
    /// Behind this partition; at the first if there is none.
    Partition(Option<PartitionKey>),
}

impl Services {
    pub(super) async fn listed_groups(&self, request: v1::ListGroupsRequest) -> Result<v1::ListGroupsResponse, Status> {
        let size = check_page_size(request.page_size, PAGE_SIZE_MAX)?;
        check_known(&request.states, "states", |state| {
            v1::GroupState::try_from(state).is_ok_and(|known| known as i32 > 0)
        })?;
        check_known(&request.kinds, "kinds", |kind| v1::GroupKind::try_from(kind).is_ok())?;
        let state = self.barrier().await?;
        let listed = self.rooms.groups.listed(&state);
        let asked_for = |filter: &[i32], value: i32| filter.is_empty() || filter.contains(&value);
        let groups = listed.iter().filter(|(id, _)| id.as_str() > request.page_token.as_str());
        let groups = groups.map(|(id, listed)| wire_group(id, listed));
        let groups =
            groups.filter(|group| asked_for(&request.states, group.state) && asked_for(&request.kinds, group.kind));
        let mut page = v1::ListGroupsResponse::default();
        let mut bytes = 0;
        for group in groups {
            bytes += group.encoded_len();
            if page.groups.len() == size || (bytes > PAGE_BYTES_MAX && !page.groups.is_empty()) {
                page.next_page_token = page.groups.last().map(|last| last.name.clone()).unwrap_or_default();
                break;
            }
            page.groups.push(group);
        }
        Ok(page)
    }

    pub(super) async fn described_group(
        &self,
        request: v1::DescribeGroupRequest,
    ) -> Result<v1::DescribeGroupResponse, Status> {
        let id = check_group(&request.group)?;
        let size = check_page_size(request.page_size, DESCRIBED_DEFAULT)?;
        let begin = begin(&request.page_token)?;
        let state = self.barrier().await?;
        let overview = self.rooms.groups.overview(&id, &state);
        let overview = overview.ok_or_else(|| group_status(&GroupError::GroupNotFound, &id))?;
        let mut page = v1::DescribeGroupResponse {
            group: Some(wire_group(&id, &overview.listed)),
            assignor: overview.assignor.clone(),
            ..v1::DescribeGroupResponse::default()
        };
        let mut bytes = 0;
        let after = match begin {
            Begin::Partition(after) => after,
            Begin::Member(after) => {
                let members = overview.members.range::<str, _>((Excluded(after.as_str()), Unbounded));
                for (member_id, seen) in members {
                    let member = wire_member(member_id, seen);
                    bytes += member.encoded_len();
                    if page.members.len() == size || (bytes > PAGE_BYTES_MAX && !page.members.is_empty()) {
                        let last = page.members.last().map(|last| last.member_id.as_str()).unwrap_or_default();
                        page.next_page_token = format!("member/{last}");
                        return Ok(page);
                    }
                    page.members.push(member);
                }
                None
            }
        };
        self.describe_partitions(&state, &id, &overview, after, size, &mut page).await;
        Ok(page)
    }

    /// Fills a page up with partitions.
    async fn describe_partitions(
        &self,
        state: &State,
        id: &GroupId,
        overview: &Overview,
        after: Option<PartitionKey>,
        size: usize,
        page: &mut v1::DescribeGroupResponse,
    ) {
        let room = size - page.members.len();
        let readers = readers(state, overview);
        let from = after.map_or(Unbounded, Excluded);
        // One more than there is room for tells whether there is another page.
        let committed = committed_after(state, id, after).map(|(key, _)| key).take(room + 1);
        let read = readers.range((from, Unbounded)).map(|(key, _)| *key).take(room + 1);
        let keys: BTreeSet<PartitionKey> = committed.chain(read).collect();
        let partitions = keys.iter().take(room).map(|key| {
            let reader = readers.get(key).copied().unwrap_or_default();
            self.describe_partition(state, id, *key, reader)
        });
        let partitions: Vec<_> = stream::iter(partitions.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
        let mut bytes: usize = page.encoded_len();
        let mut last = None;
        for (key, partition) in keys.iter().zip(partitions) {
            bytes += partition.encoded_len();
            if bytes > DESCRIBED_BYTES_MAX && last.is_some() {
                break;
            }
            page.partitions.push(partition);
            last = Some(*key);
        }
        if page.partitions.len() < keys.len() {
            page.next_page_token = match last {
                Some(last) => format!("partition/{}", token_of(last)),
                None => "partition/".to_owned(),
            };
        }
    }

    async fn describe_partition(
        &self,
        state: &State,
        id: &GroupId,
        key: PartitionKey,
        reader: &str,
    ) -> v1::GroupPartition {
        let topic = state.topic(key.topic).map(|topic| topic.name.to_string()).unwrap_or_default();
        let (earliest, latest) =
            state.partition(key).map_or((Offset::ZERO, Offset::ZERO), |found| (found.log_start, found.high_watermark));
        let committed = state.committed(id, key);
        let mut partition = v1::GroupPartition {
            topic,
            partition: wire_partition(key.partition.get()),
            committed_offset: committed.map(|committed| wire_offset(committed.offset)),
            metadata: committed.map(|committed| committed.metadata.as_ref().to_owned()).unwrap_or_default(),
            earliest_offset: wire_offset(earliest),
            latest_offset: wire_offset(latest),
            lag_records: None,
            lag_seconds: None,
            member_id: reader.to_owned(),
        };
        if let Some(committed) = committed {
            let next = committed.offset.max(earliest);
            partition.lag_records = Some(wire_offset(latest).saturating_sub(wire_offset(next)).max(0));
            partition.lag_seconds = self.lag_seconds(key, next, latest).await;
        }
        partition
    }

    /// How old the first record from `next` on is.
    async fn lag_seconds(&self, key: PartitionKey, next: Offset, latest: Offset) -> Option<f64> {
        if next >= latest {
            return Some(0.0);
        }
        let fetch = &self.rooms.fetch;
        // What is durable may not be visible yet.
        fetch.wait_visible(key, latest).await;
        let first = fetch.first_from(key, next).await;
        let (_, timestamp_ms) = first.inspect_err(|error| self.rooms.damage.note(&key, error)).ok()??;
        let age_ms = (self.rooms.seams.wall)().saturating_sub(timestamp_ms).max(0);
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of any age have fewer than 53 bits")]
        (timestamp_ms >= 0).then_some(age_ms as f64 / 1000.0)
    }
}

/// Refuses values of an enum that are not known.
fn check_known(values: &[i32], field: &str, is_known: impl Fn(i32) -> bool) -> Result<(), Status> {
    match values.iter().position(|value| !is_known(*value)) {
        None => Ok(()),
        Some(at) => {
            Err(invalid(&format!("{field}[{at}]"), format_args!("{} is none that this broker knows", values[at])))
        }
    }
}

/// Where the page of a token begins.
fn begin(token: &str) -> Result<Begin, Status> {
    match token.split_once('/') {
        None if token.is_empty() => Ok(Begin::Member(String::new())),
        Some(("member", member_id)) => Ok(Begin::Member(member_id.to_owned())),
        Some(("partition", "")) => Ok(Begin::Partition(None)),
        Some(("partition", place)) => Ok(Begin::Partition(Some(key_of(place)?))),
        _ => Err(invalid("page_token", "page_token is not one that this call gave")),
    }
}

/// Who reads each partition.
fn readers<'a>(state: &State, overview: &'a Overview) -> BTreeMap<PartitionKey, &'a str> {
    let mut readers = BTreeMap::new();
    for (member_id, seen) in &overview.members {
        for (topic, partitions) in &seen.assignment {
            let Some(topic) = state.topic_id(topic) else { continue };
            let keys = partitions.iter().map(|index| key(topic, *index));
            readers.extend(keys.filter(|key| state.partition(*key).is_some()).map(|key| (key, member_id.as_str())));
        }
    }
    readers
}

fn wire_group(id: &GroupId, listed: &Listed) -> v1::Group {
    let kind = match listed.kind {
        None => v1::GroupKind::Unspecified,
        Some(GroupKind::Classic) => v1::GroupKind::Classic,
        Some(GroupKind::Consumer) => v1::GroupKind::Consumer,
        Some(GroupKind::Grpc) => v1::GroupKind::Grpc,
    };
    let state = match listed.standing {
        Standing::Empty => v1::GroupState::Empty,
        Standing::Stable => v1::GroupState::Stable,
        Standing::Preparing => v1::GroupState::PreparingRebalance,
        Standing::Completing => v1::GroupState::CompletingRebalance,
        Standing::Assigning => v1::GroupState::Assigning,
        Standing::Reconciling => v1::GroupState::Reconciling,
    };
    v1::Group {
        name: id.to_string(),
        kind: kind as i32,
        state: state as i32,
        member_count: i32::try_from(listed.members).unwrap_or(i32::MAX),
        generation: i32::try_from(listed.generation.get()).unwrap_or(i32::MAX),
    }
}

fn wire_member(member_id: &str, seen: &Seen) -> v1::GroupMember {
    let assignment = seen.assignment.iter().map(|(topic, partitions)| {
        let mut partitions: Vec<i32> = partitions.iter().filter_map(|index| i32::try_from(*index).ok()).collect();
        partitions.sort_unstable();
        v1::TopicPartitions { topic: topic.clone(), partitions }
    });
    v1::GroupMember {
        member_id: member_id.to_owned(),
        instance_id: seen.instance_id.clone().unwrap_or_default(),
        client_id: seen.client_id.clone(),
        client_host: seen.client_host.clone(),
        assignment: assignment.collect(),
        member_epoch: seen.epoch,
    }
}
