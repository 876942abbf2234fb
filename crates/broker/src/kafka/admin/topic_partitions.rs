//! DescribeTopicPartitions (KIP-966): topics by name, in order, so many partitions at a time.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};
use lakebed_model::State;

use super::{NO_OPERATIONS, words};
use crate::kafka::response::{Reply, ReplyTo};
use crate::kafka::{LEADER_EPOCH, Service};
use crate::reason::Reason;
use crate::topics::{TopicReference, find};

/// Most partitions in an answer: Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: i32 = 2000;

/// Answers with the topics that are named, or with all, from the cursor on; what does not fit any more is where the next cursor points.
pub(super) async fn describe(
    service: &Service,
    reply_to: ReplyTo,
    request: DescribeTopicPartitionsRequest,
    reached_at: SocketAddr,
) -> Reply {
    let leader = BrokerId(service.brokers(reached_at).await.leader);
    let mut answer = match service.rooms.log.barrier().await {
        Ok(_) if !is_in_place(&request) => refused(&request, ResponseError::InvalidRequest.code()),
        Ok(state) => page(&state, &request),
        // An answer without topics would say that there are none.
        Err(error) if request.topics.is_empty() => return Reply::Close { why: error.to_string() },
        Err(error) => refused(&request, Reason::from(&error).kafka()),
    };
    for partition in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        partition.leader_id = leader;
        partition.replica_nodes = vec![leader];
        partition.isr_nodes = vec![leader];
    }
    reply_to.send(&answer)
}

/// Whether a cursor points into what is asked for.
fn is_in_place(request: &DescribeTopicPartitionsRequest) -> bool {
    request.cursor.as_ref().is_none_or(|cursor| {
        let named = request.topics.iter().any(|topic| topic.name == cursor.topic_name);
        cursor.partition_index >= 0 && (request.topics.is_empty() || named)
    })
}

/// There is no place for an error of the whole.
fn refused(request: &DescribeTopicPartitionsRequest, code: i16) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|asked| topic(asked.name.as_str()).with_error_code(code));
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

fn page(state: &State, request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let (from, first) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
        None => ("", 0),
    };
    let all = request.topics.is_empty();
    let names: BTreeSet<&str> = if all {
        state.topics().map(|(_, topic)| topic.name.as_str()).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    let mut left = request.response_partition_limit.clamp(1, PARTITIONS_MAX);
    let mut answer = DescribeTopicPartitionsResponse::default();
    for name in names.range(from..) {
        if left == 0 {
            return answer.with_next_cursor(Some(cursor(name, 0)));
        }
        let Some(found) = find(state, &TopicReference::Name((*name).to_owned())) else {
            let error = match lakebed_model::TopicName::new(name) {
                Ok(_) => ResponseError::UnknownTopicOrPartition,
                Err(_) => ResponseError::InvalidTopicException,
            };
            answer.topics.push(topic(name).with_error_code(error.code()));
            continue;
        };
        let count = i32::try_from(found.partitions).expect("partitions are bounded far below 2^31");
        let begin = if *name == from { first.min(count) } else { 0 };
        let end = begin.saturating_add(left).min(count);
        left -= end - begin;
        let described =
            topic(name).with_topic_id(found.id.uuid()).with_partitions((begin..end).map(partition).collect());
        answer.topics.push(described);
        if end < count {
            return answer.with_next_cursor(Some(cursor(name, end)));
        }
    }
    answer
}

fn topic(name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(words(name))))
        .with_topic_authorized_operations(NO_OPERATIONS)
}

fn cursor(name: &str, partition: i32) -> Cursor {
    Cursor::default().with_topic_name(TopicName(words(name))).with_partition_index(partition)
}

fn partition(index: i32) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(index)
        .with_leader_epoch(LEADER_EPOCH)
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
}
