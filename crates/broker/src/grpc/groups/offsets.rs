//! Committed offsets: committing, reading and forgetting them.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use lakebed_model::{CommittedOffset, GroupId, Offset, PartitionKey, State, TopicId};
use lakebed_wire::v1;
use prost::Message;
use tonic::Status;

use super::{
    OFFSETS_MAX, PAGE_BYTES_MAX, PAGE_SIZE_MAX, check_group, check_page_size, check_partitions, group_status, key,
    key_of, token_of,
};
use crate::groups::Forget;
use crate::groups::member::MemberRef;
use crate::grpc::Services;
use crate::grpc::batch::check_partition;
use crate::grpc::produce::{wire_offset, wire_partition};
use crate::grpc::status::{invalid, status};
use crate::reason::Reason;
use crate::topics::FoundTopic;

/// Kafka's limit on the metadata of an offset, in characters of UTF-16.
const METADATA_MAX: usize = 4096;

/// Offsets that are to be committed, by partition.
pub(super) type Offsets = BTreeMap<PartitionKey, CommittedOffset>;

impl Services {
    pub(super) async fn commit_group_offsets(
        &self,
        request: v1::CommitOffsetsRequest,
    ) -> Result<v1::CommitOffsetsResponse, Status> {
        let group = check_group(&request.group)?;
        let generation = match request.generation {
            None => -1,
            Some(generation) if generation >= 0 => generation,
            Some(_) => return Err(invalid("generation", "generation must not be negative; leave it out for none")),
        };
        if generation >= 0 && request.member_id.is_empty() {
            return Err(invalid("member_id", "a generation is that of a member: name its member_id"));
        }
        let offsets = self.check_offsets(&request.offsets, "offsets").await?;
        let instance_id = Some(request.instance_id).filter(|id| !id.is_empty());
        let from = MemberRef { group: group.clone(), member_id: request.member_id, instance_id, generation };
        let refuse = |error| group_status(&error, &group);
        let committing = self.rooms.groups.commit(from, offsets.into_iter().collect()).await.map_err(refuse)?;
        committing.await.map_err(refuse)?;
        Ok(v1::CommitOffsetsResponse {})
    }

    /// Offsets that a request commits; what is missing is looked for behind a barrier.
    ///
    /// # Errors
    /// INVALID_REQUEST, TOPIC_NOT_FOUND, PARTITION_NOT_FOUND: the first that is wrong.
    pub(super) async fn check_offsets(&self, named: &[v1::CommittedOffset], field: &str) -> Result<Offsets, Status> {
        if named.is_empty() || named.len() > OFFSETS_MAX {
            let what = format!("{} offsets: 1 to {OFFSETS_MAX} can be committed at once", named.len());
            return Err(invalid(field, what));
        }
        let mut state = self.rooms.log.state();
        let there = |one: &v1::CommittedOffset, state: &State| {
            let topic = state.topic_id(&one.topic).and_then(|id| state.topic(id));
            topic.is_some_and(|topic| u32::try_from(one.partition).is_ok_and(|index| index < topic.partitions))
        };
        if !named.iter().all(|one| there(one, &state)) {
            state = self.barrier().await?;
        }
        let time_ms = (self.rooms.seams.wall)();
        let mut topics: BTreeMap<&str, FoundTopic> = BTreeMap::new();
        let mut offsets = Offsets::new();
        for (at, one) in named.iter().enumerate() {
            let topic = match topics.get(one.topic.as_str()) {
                Some(topic) => topic,
                None => topics.entry(&one.topic).or_insert(super::topic_of(&state, &one.topic)?),
            };
            let partition = check_partition(topic, one.partition)?;
            let offset = u64::try_from(one.offset)
                .map_err(|_| invalid(&format!("{field}[{at}].offset"), "offset must not be negative"))?;
            if one.metadata.encode_utf16().count() > METADATA_MAX {
                let what = format!("metadata has at most {METADATA_MAX} characters of UTF-16");
                return Err(invalid(&format!("{field}[{at}].metadata"), what));
            }
            let committed = CommittedOffset {
                offset: Offset::new(offset),
                leader_epoch: one.leader_epoch.filter(|epoch| *epoch >= 0),
                time_ms,
                metadata: one.metadata.as_str().into(),
            };
            offsets.insert(key(topic.id, partition), committed);
        }
        Ok(offsets)
    }

    pub(super) async fn fetch_group_offsets(
        &self,
        request: v1::FetchOffsetsRequest,
    ) -> Result<v1::FetchOffsetsResponse, Status> {
        let group = check_group(&request.group)?;
        let size = check_page_size(request.page_size, PAGE_SIZE_MAX)?;
        let after =
            Some(&request.page_token).filter(|token| !token.is_empty()).map(|token| key_of(token)).transpose()?;
        let state = self.barrier().await?;
        let mut asked = check_partitions(&state, &request.partitions)?;
        asked.sort_by_key(|(topic, _)| topic.id);
        let all = asked.is_empty().then(|| committed_after(&state, &group, after)).into_iter().flatten();
        let some = asked.iter().flat_map(|(topic, indexes)| {
            of_topic(&state, &group, topic.id, indexes).filter(|(key, _)| after.is_none_or(|after| *key > after))
        });
        let mut page = v1::FetchOffsetsResponse::default();
        let mut bytes = 0;
        let mut last = None;
        for (key, committed) in all.chain(some) {
            let Some(topic) = state.topic(key.topic) else { continue };
            let one = wire_committed(topic.name.as_str(), key, committed);
            bytes += one.encoded_len();
            if page.offsets.len() == size || (bytes > PAGE_BYTES_MAX && last.is_some()) {
                page.next_page_token = last.map(token_of).unwrap_or_default();
                break;
            }
            page.offsets.push(one);
            last = Some(key);
        }
        Ok(page)
    }

    pub(super) async fn delete_group_offsets(
        &self,
        request: v1::DeleteOffsetsRequest,
    ) -> Result<v1::DeleteOffsetsResponse, Status> {
        let group = check_group(&request.group)?;
        if request.partitions.is_empty() {
            return Err(invalid("partitions", "name the topics whose offsets are to be forgotten"));
        }
        let state = self.barrier().await?;
        let asked = check_partitions(&state, &request.partitions)?;
        let mut forgotten = Vec::new();
        let mut answer = v1::DeleteOffsetsResponse::default();
        for (topic, indexes) in &asked {
            let keys: Vec<PartitionKey> = of_topic(&state, &group, topic.id, indexes).map(|(key, _)| key).collect();
            if !keys.is_empty() {
                let partitions = keys.iter().map(|key| wire_partition(key.partition.get())).collect();
                answer.partitions.push(v1::TopicPartitions { topic: topic.name.to_string(), partitions });
            }
            forgotten.extend(keys.into_iter().map(|key| (topic.name.to_string(), key)));
        }
        let how = Forget { all_or_none: true, validate_only: request.validate_only };
        let read = self.rooms.groups.delete_offsets(&group, forgotten, how).await;
        let read = read.map_err(|error| group_status(&error, &group))?;
        match read.first() {
            None => Ok(answer),
            Some(topic) => {
                let message = format!("a member of group {:?} subscribes to topic {topic}", group.as_str());
                let facts = [("group", group.to_string()), ("topic", topic.clone())];
                Err(status(Reason::GroupSubscribed, message, facts))
            }
        }
    }
}

/// What a group has committed behind a partition, ascending.
pub(super) fn committed_after<'a>(
    state: &'a State,
    group: &GroupId,
    after: Option<PartitionKey>,
) -> Box<dyn Iterator<Item = (PartitionKey, &'a CommittedOffset)> + Send + 'a> {
    let Some(group) = state.group(group) else { return Box::new(std::iter::empty()) };
    let from = after.map_or(Unbounded, Excluded);
    Box::new(group.offsets.range((from, Unbounded)).map(|(key, committed)| (*key, committed)))
}

/// What a group has committed in some partitions of a topic, or in all if none is named; ascending.
fn of_topic<'a>(
    state: &'a State,
    group: &GroupId,
    topic: TopicId,
    indexes: &'a [u32],
) -> Box<dyn Iterator<Item = (PartitionKey, &'a CommittedOffset)> + Send + 'a> {
    let Some(group) = state.group(group) else { return Box::new(std::iter::empty()) };
    if indexes.is_empty() {
        let from = group.offsets.range(key(topic, 0)..).take_while(move |(key, _)| key.topic == topic);
        return Box::new(from.map(|(key, committed)| (*key, committed)));
    }
    let named = indexes.iter().map(move |index| key(topic, *index));
    Box::new(named.filter_map(|key| Some((key, group.offsets.get(&key)?))))
}

fn wire_committed(topic: &str, key: PartitionKey, committed: &CommittedOffset) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: topic.to_owned(),
        partition: wire_partition(key.partition.get()),
        offset: wire_offset(committed.offset),
        metadata: committed.metadata.as_ref().to_owned(),
        leader_epoch: committed.leader_epoch,
        commit_time: committed.time_ms,
    }
}
