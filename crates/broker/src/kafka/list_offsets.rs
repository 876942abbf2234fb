//! ListOffsets: where a partition begins and ends, and where a time begins in it.

use std::sync::Arc;

use futures::future::join_all;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};
use lakebed_fetch::FetchError;
use lakebed_log::BarrierError;
use lakebed_model::{Offset, PartitionIndex, PartitionKey, State};

use super::response::{Reply, ReplyTo};
use super::{LEADER_EPOCH, Service, epoch_error};
use crate::reason::Reason;

/// Kafka's names for places, in place of a timestamp.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Partitions of one request that are looked up in the store at once.
const LOOKED_UP_AT_ONCE: usize = 8;

/// An offset with the timestamp of its record; `None` if there is none.
type Found = Option<(i64, i64)>;

/// Answers behind a barrier: a latest offset must not go back in time.
pub(super) async fn answer(service: Arc<Service>, reply_to: ReplyTo, request: ListOffsetsRequest) -> Reply {
    let state = service.rooms.log.barrier().await;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for some in topic.partitions.chunks(LOOKED_UP_AT_ONCE) {
            let lookups = some.iter().map(|asked| one(&service, &state, reply_to.version, &topic.name, asked));
            partitions.extend(join_all(lookups).await);
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    reply_to.send(&ListOffsetsResponse::default().with_topics(topics))
}

async fn one(
    service: &Service,
    state: &Result<State, BarrierError>,
    version: i16,
    topic: &TopicName,
    asked: &ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_offset(-1)
        .with_timestamp(-1)
        .with_leader_epoch(-1);
    match find(service, state, topic, asked).await {
        Ok(Some((offset, timestamp))) => {
            let found = answer.with_offset(offset).with_timestamp(timestamp);
            if version >= 4 { found.with_leader_epoch(LEADER_EPOCH) } else { found }
        }
        Ok(None) => answer,
        Err(code) => answer.with_error_code(code),
    }
}

async fn find(
    service: &Service,
    state: &Result<State, BarrierError>,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> Result<Found, i16> {
    let state = state.as_ref().map_err(|error| Reason::from(error).kafka())?;
    let id = state.topic_id(topic).ok_or(Reason::TopicNotFound.kafka())?;
    let index = u32::try_from(asked.partition_index).map_err(|_| Reason::PartitionNotFound.kafka())?;
    let key = PartitionKey::new(id, PartitionIndex::new(index));
    let partition = state.partition(key).ok_or(Reason::PartitionNotFound.kafka())?;
    if let Some(error) = epoch_error(asked.current_leader_epoch) {
        return Err(error.code());
    }
    let stored = |found: Result<Option<(Offset, i64)>, FetchError>| match found {
        Ok(found) => Ok(found.map(|(at, timestamp)| (offset(at), timestamp))),
        Err(error) => {
            service.rooms.damage.note(&key, &error);
            Err(Reason::from(&error).kafka())
        }
    };
    match asked.timestamp {
        LATEST => Ok(Some((offset(partition.high_watermark), -1))),
        EARLIEST | EARLIEST_LOCAL => Ok(Some((offset(partition.log_start), -1))),
        MAX_TIMESTAMP => {
            wait_visible(service, key, partition).await?;
            stored(service.rooms.fetch.max_timestamp(key).await)
        }
        LATEST_TIERED => Ok(None), // Nothing lies in a second tier.
        timestamp if timestamp < 0 => Err(Reason::InvalidRequest.kafka()),
        timestamp => {
            wait_visible(service, key, partition).await?;
            stored(service.rooms.fetch.offset_for_timestamp(key, timestamp).await)
        }
    }
}

/// Waits until all that the barrier has proven can be read.
///
/// SUBTLE: a record that is durable but not visible yet would not be found by its time, and then be passed over.
async fn wait_visible(service: &Service, key: PartitionKey, partition: lakebed_model::Partition) -> Result<(), i16> {
    service.rooms.fetch.wait_visible(key, partition.high_watermark).await;
    if service.rooms.fetch.is_stopped() { Err(Reason::ShuttingDown.kafka()) } else { Ok(()) }
}

fn offset(offset: Offset) -> i64 {
    i64::try_from(offset.get()).expect("offsets have 63 bits")
}
