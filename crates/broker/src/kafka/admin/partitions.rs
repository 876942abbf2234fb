//! CreatePartitions and DeleteRecords.

use std::collections::BTreeMap;

use futures::StreamExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
};
use lakebed_model::Offset;

use super::super::Service;
use super::super::response::{Reply, ReplyTo};
use super::{partition_of, words};
use crate::reason::Reason;
use crate::topics::{Alteration, ConfigAlteration, TopicReference};

/// What is worked on at once of one request; it shares commits.
const AT_ONCE: usize = 64;
/// Kafka's word for the high watermark.
const UP_TO_THE_END: i64 = -1;

/// Kafka's code and a sentence for people.
type Refused = (ResponseError, String);

/// Gives topics more partitions, each for itself.
pub(super) async fn create(service: &Service, reply_to: ReplyTo, request: CreatePartitionsRequest) -> Reply {
    let mut names = BTreeMap::<String, usize>::new();
    for topic in &request.topics {
        *names.entry(topic.name.to_string()).or_default() += 1;
    }
    let validate_only = request.validate_only;
    let created = request.topics.into_iter().map(|topic| {
        let repeated = names.get(topic.name.as_str()).is_some_and(|count| *count > 1);
        async move {
            let done = if repeated {
                Err((ResponseError::InvalidRequest, "the request names the topic more than once".to_owned()))
            } else {
                create_of(service, &topic, validate_only).await
            };
            let result = CreatePartitionsTopicResult::default().with_name(topic.name);
            match done {
                Ok(()) => result.with_error_message(None),
                Err((error, why)) => result.with_error_code(error.code()).with_error_message(Some(words(why))),
            }
        }
    });
    // Collected first: a closure that lends across an await is not `Send` for all lifetimes.
    let results = futures::stream::iter(created.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
    reply_to.send(&CreatePartitionsResponse::default().with_results(results))
}

async fn create_of(service: &Service, asked: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let wrong = |why: String| Err((ResponseError::InvalidPartitions, why));
    let topics = &service.rooms.topics;
    let found = topics.find(&TopicReference::Name(asked.name.to_string())).await;
    let found = found.map_err(|error| (Reason::from(&error).row().kafka, error.to_string()))?;
    let Some(count) = u32::try_from(asked.count).ok().filter(|count| *count > found.partitions) else {
        return wrong(format!("the topic has {} partitions; {} is not more", found.partitions, asked.count));
    };
    if let Some(assignments) = &asked.assignments {
        let fits = assignments.len() == (count - found.partitions) as usize
            && assignments.iter().all(|assignment| !assignment.broker_ids.is_empty());
        if !fits {
            let why =
                format!("an assignment must name a broker for each of {} new partitions", count - found.partitions);
            return Err((ResponseError::InvalidReplicaAssignment, why));
        }
    }
    let config = ConfigAlteration::Some(BTreeMap::new());
    let alteration = Alteration { name: asked.name.to_string(), id: Some(found.id), partitions: Some(count), config };
    let altered = topics.alter(alteration, validate_only).await;
    altered.map(drop).map_err(|error| (Reason::from(&error).row().kafka, error.to_string()))
}

/// Moves log starts, each for itself.
pub(super) async fn delete_records(service: &Service, reply_to: ReplyTo, request: DeleteRecordsRequest) -> Reply {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.as_str();
        let deleted = topic.partitions.iter().map(|part| async move {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(part.partition_index);
            match delete_up_to(service, name, part.partition_index, part.offset).await {
                Ok(start) => result.with_low_watermark(i64::try_from(start.get()).expect("offsets have 63 bits")),
                Err(reason) => result.with_low_watermark(-1).with_error_code(reason.kafka()),
            }
        });
        let partitions = futures::stream::iter(deleted.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
        topics.push(DeleteRecordsTopicResult::default().with_partitions(partitions).with_name(topic.name));
    }
    reply_to.send(&DeleteRecordsResponse::default().with_topics(topics))
}

async fn delete_up_to(service: &Service, topic: &str, index: i32, offset: i64) -> Result<Offset, Reason> {
    let nothing_missing = |state: &lakebed_model::State| partition_of(state, topic, index).is_some();
    let state = service.state_where(nothing_missing).await.map_err(|error| Reason::from(&error))?;
    let key = partition_of(&state, topic, index).ok_or(Reason::PartitionNotFound)?;
    let offset = match u64::try_from(offset) {
        Ok(offset) => Some(Offset::new(offset)),
        Err(_) if offset == UP_TO_THE_END => None,
        Err(_) => return Err(Reason::OffsetOutOfRange),
    };
    service.rooms.topics.delete_records(key, offset).await.map_err(|error| Reason::from(&error))
}
