//! OffsetForLeaderEpoch: there is one epoch, so it ends where the log ends.

use std::sync::Arc;

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use lakebed_log::BarrierError;
use lakebed_model::{PartitionIndex, PartitionKey, State};

use super::response::{Reply, ReplyTo};
use super::{LEADER_EPOCH, Service, epoch_error};
use crate::reason::Reason;

/// Answers behind a barrier: a client truncates to what it is told.
pub(super) async fn answer(service: Arc<Service>, reply_to: ReplyTo, request: OffsetForLeaderEpochRequest) -> Reply {
    let state = service.rooms.log.barrier().await;
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| end_offset(&state, &topic.topic, asked));
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions.collect())
    });
    reply_to.send(&OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
}

fn end_offset(state: &Result<State, BarrierError>, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(asked.partition);
    let state = match state {
        Ok(state) => state,
        Err(error) => return answer.with_error_code(Reason::from(error).kafka()),
    };
    let partition = state.topic_id(topic).and_then(|id| {
        let index = PartitionIndex::new(u32::try_from(asked.partition).ok()?);
        state.partition(PartitionKey::new(id, index))
    });
    let Some(partition) = partition else { return answer.with_error_code(Reason::PartitionNotFound.kafka()) };
    if let Some(error) = epoch_error(asked.current_leader_epoch) {
        return answer.with_error_code(error.code());
    }
    if asked.leader_epoch != LEADER_EPOCH {
        return answer; // Not known: epoch and offset are -1.
    }
    let end = i64::try_from(partition.high_watermark.get()).expect("offsets have 63 bits");
    answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(end)
}
