//! Moving committed offsets of a group without members.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use lakebed_model::{CommittedOffset, GroupId, Offset, PartitionKey, State};
use lakebed_wire::v1;
use lakebed_wire::v1::reset_offsets_request::To;
use lakebed_wire::v1::start_position::Position;
use tonic::Status;

use super::offsets::committed_after;
use super::{AT_ONCE, OFFSETS_MAX, check_group, check_partitions, group_status, key};
use crate::groups::member::GroupError;
use crate::grpc::Services;
use crate::grpc::consume::resolve;
use crate::grpc::produce::{wire_offset, wire_partition};
use crate::grpc::status::invalid;

/// Where each partition goes, with its topic's name and the metadata to keep.
type Places = BTreeMap<PartitionKey, (String, Place, String)>;

enum Place {
    /// As a reader would begin.
    Position(Position),
    /// So far from what is committed.
    Shifted { from: Offset, by: i64 },
}

impl Services {
    pub(super) async fn reset_group_offsets(
        &self,
        request: v1::ResetOffsetsRequest,
    ) -> Result<v1::ResetOffsetsResponse, Status> {
        let group = check_group(&request.group)?;
        let state = self.barrier().await?;
        let refuse = |error: &GroupError| group_status(error, &group);
        // Before anything is read: it would be refused in the end.
        self.rooms.groups.check_reset(&group).map_err(|error| refuse(&error))?;
        let places = self.places(&state, &group, &request).await?;
        if places.len() > OFFSETS_MAX {
            let what = format!("{} partitions: at most {OFFSETS_MAX} can be moved at once", places.len());
            return Err(invalid("partitions", what));
        }
        let found = places.into_iter().map(|(key, (topic, place, metadata))| {
            let state = &state;
            async move {
                let offset = self.place(state, &topic, key, place).await?;
                Ok::<_, Status>((key, topic, offset, metadata))
            }
        });
        let found: Vec<_> = stream::iter(found.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await?;
        let time_ms = (self.rooms.seams.wall)();
        let mut answer = v1::ResetOffsetsResponse::default();
        let mut offsets = Vec::with_capacity(found.len());
        for (key, topic, offset, metadata) in found {
            answer.offsets.push(v1::ResetOffset {
                topic,
                partition: wire_partition(key.partition.get()),
                old_offset: state.committed(&group, key).map(|committed| wire_offset(committed.offset)),
                new_offset: wire_offset(offset),
            });
            offsets.push((key, CommittedOffset { offset, leader_epoch: None, time_ms, metadata: metadata.into() }));
        }
        if !request.validate_only && !offsets.is_empty() {
            self.rooms.groups.reset(&group, offsets).await.map_err(|error| refuse(&error))?;
        }
        Ok(answer)
    }

    /// Where each partition is to go.
    async fn places(
        &self,
        state: &State,
        group: &GroupId,
        request: &v1::ResetOffsetsRequest,
    ) -> Result<Places, Status> {
        let to = request.to.as_ref().ok_or_else(|| invalid("to", "say where to: earliest, latest, an offset, …"))?;
        if let To::Offsets(list) = to {
            return self.listed_places(request, list).await;
        }
        let keys = partitions(state, group, &request.partitions)?;
        let places = keys.into_iter().map(|(key, topic)| {
            let place = match to {
                To::Earliest(_) => Place::Position(Position::Earliest(v1::Earliest {})),
                To::Latest(_) => Place::Position(Position::Latest(v1::Latest {})),
                To::Offset(offset) if *offset < 0 => return Err(invalid("offset", "offset must not be negative")),
                To::Offset(offset) => Place::Position(Position::Offset(*offset)),
                To::Timestamp(timestamp_ms) if *timestamp_ms < 0 => {
                    return Err(invalid("timestamp", "timestamp must not be negative"));
                }
                To::Timestamp(timestamp_ms) => Place::Position(Position::Timestamp(*timestamp_ms)),
                To::ShiftBy(by) => match state.committed(group, key) {
                    Some(committed) => Place::Shifted { from: committed.offset, by: *by },
                    None => {
                        let what = format!(
                            "nothing is committed in partition {} of topic {topic}, so it can't be shifted",
                            key.partition
                        );
                        return Err(invalid("partitions", what));
                    }
                },
                To::Offsets(_) => unreachable!("a list has places of its own"),
            };
            Ok((key, (topic, place, String::new())))
        });
        places.collect()
    }

    async fn listed_places(&self, request: &v1::ResetOffsetsRequest, list: &v1::OffsetList) -> Result<Places, Status> {
        if !request.partitions.is_empty() {
            return Err(invalid("partitions", "the offsets name their partitions: leave partitions out"));
        }
        let checked = self.check_offsets(&list.offsets, "offsets.offsets").await?;
        if checked.len() < list.offsets.len() {
            return Err(invalid("offsets.offsets", "a partition is named twice"));
        }
        let state = self.rooms.log.state();
        let place = |(key, committed): (PartitionKey, CommittedOffset)| {
            let topic = state.topic(key.topic).map(|topic| topic.name.to_string()).unwrap_or_default();
            let place = Place::Position(Position::Offset(wire_offset(committed.offset)));
            (key, (topic, place, committed.metadata.as_ref().to_owned()))
        };
        Ok(checked.into_iter().map(place).collect())
    }

    async fn place(&self, state: &State, topic: &str, key: PartitionKey, place: Place) -> Result<Offset, Status> {
        match place {
            Place::Position(position) => resolve(self, state, topic, key, Some(&position)).await,
            Place::Shifted { from, by } => {
                let first = resolve(self, state, topic, key, Some(&Position::Earliest(v1::Earliest {}))).await?;
                let last = resolve(self, state, topic, key, None).await?;
                let shifted = if by < 0 {
                    from.get().saturating_sub(by.unsigned_abs())
                } else {
                    from.get().saturating_add(by.unsigned_abs())
                };
                Ok(Offset::new(shifted).clamp(first, last))
            }
        }
    }
}

/// The partitions that a request names, or all that the group has committed; with the names of their topics.
fn partitions(
    state: &State,
    group: &GroupId,
    named: &[v1::TopicPartitions],
) -> Result<BTreeMap<PartitionKey, String>, Status> {
    if named.is_empty() {
        if state.group(group).is_none() {
            return Err(group_status(&GroupError::GroupNotFound, group));
        }
        let name = |key: PartitionKey| state.topic(key.topic).map(|topic| (key, topic.name.to_string()));
        return Ok(committed_after(state, group, None).filter_map(|(key, _)| name(key)).collect());
    }
    let mut keys = BTreeMap::new();
    for (topic, indexes) in check_partitions(state, named)? {
        let all = if indexes.is_empty() { (0..topic.partitions).collect() } else { indexes };
        keys.extend(all.into_iter().map(|index| (key(topic.id, index), topic.name.to_string())));
    }
    Ok(keys)
}
