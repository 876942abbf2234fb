//! CreateTopics and DeleteTopics.
//!
//! Replication is the bucket's business: a replication factor and a manual assignment are accepted, because tools send them, and one
//! replica is what is told.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use lakebed_model::TopicId;
use uuid::Uuid;

use super::Service;
use super::response::{Reply, ReplyTo};
use crate::reason::Reason;
use crate::topics::{FoundTopic, NewTopic, TopicReference};

/// Topics of one request that are worked on at once; they share commits.
const AT_ONCE: usize = 64;
/// Kafka's number for a setting that was given for this topic.
const SET_FOR_TOPIC: i8 = 1;

/// Kafka's code and a sentence for people.
type Refused = (ResponseError, String);

/// Creates topics, each for itself.
pub(super) async fn create(service: &Service, reply_to: ReplyTo, request: CreateTopicsRequest) -> Reply {
    let mut names = BTreeMap::<String, usize>::new();
    for topic in &request.topics {
        *names.entry(topic.name.to_string()).or_default() += 1;
    }
    let created = request.topics.iter().map(|topic| {
        let repeated = names.get(topic.name.as_str()).is_some_and(|count| *count > 1);
        async move {
            let refused = |refused: Refused| create_refused(&topic.name, reply_to.version, refused);
            if repeated {
                return refused((
                    ResponseError::InvalidRequest,
                    "the request names the topic more than once".to_owned(),
                ));
            }
            let new = match new_topic(topic) {
                Ok(new) => new,
                Err(wrong) => return refused(wrong),
            };
            match service.rooms.topics.create(new, request.validate_only).await {
                Ok(found) => create_done(&found, reply_to.version),
                Err(error) => refused((Reason::from(&error).row().kafka, error.to_string())),
            }
        }
    });
    // Collected first: a closure that lends across an await is not `Send` for all lifetimes.
    let results = futures::stream::iter(created.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
    reply_to.send(&CreateTopicsResponse::default().with_topics(results))
}

fn new_topic(asked: &CreatableTopic) -> Result<NewTopic, Refused> {
    let wrong = |code, why: &str| Err((code, why.to_owned()));
    let partitions = if asked.assignments.is_empty() {
        match asked.num_partitions {
            -1 => None,
            count => match u32::try_from(count) {
                Ok(count) if count > 0 => Some(count),
                _ => return wrong(ResponseError::InvalidPartitions, "the number of partitions must be above 0, or -1"),
            },
        }
    } else {
        if asked.num_partitions != -1 || asked.replication_factor != -1 {
            return wrong(
                ResponseError::InvalidRequest,
                "with an assignment, the number of partitions and the replication factor must be -1",
            );
        }
        Some(assigned_partitions(asked)?)
    };
    if asked.assignments.is_empty() && asked.replication_factor != -1 && asked.replication_factor < 1 {
        return wrong(ResponseError::InvalidReplicationFactor, "the replication factor must be above 0, or -1");
    }
    let mut config = BTreeMap::new();
    for setting in &asked.configs {
        let Some(value) = &setting.value else {
            return wrong(ResponseError::InvalidConfig, &format!("setting {} has no value", setting.name));
        };
        config.insert(setting.name.to_string(), value.to_string());
    }
    Ok(NewTopic { name: asked.name.to_string(), partitions, config })
}

/// How many partitions a manual assignment names: 0 to that many, each once, each on somebody.
fn assigned_partitions(asked: &CreatableTopic) -> Result<u32, Refused> {
    let indexes: BTreeSet<i32> = asked.assignments.iter().map(|assignment| assignment.partition_index).collect();
    let count = asked.assignments.len();
    let dense = indexes.len() == count
        && indexes.first() == Some(&0)
        && indexes.last().copied() == i32::try_from(count - 1).ok();
    if !dense || asked.assignments.iter().any(|assignment| assignment.broker_ids.is_empty()) {
        let why = "an assignment must name partitions from 0 on, each once and with a broker";
        return Err((ResponseError::InvalidReplicaAssignment, why.to_owned()));
    }
    Ok(u32::try_from(count).expect("a request has fewer than 2^32 assignments"))
}

fn create_done(found: &FoundTopic, version: i16) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(name(found));
    if version < 5 {
        return result;
    }
    let setting = |(name, value): (&String, &String)| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
            .with_config_source(SET_FOR_TOPIC)
    };
    let result = result
        .with_num_partitions(i32::try_from(found.partitions).expect("partitions are bounded far below 2^31"))
        .with_replication_factor(1)
        .with_configs(Some(found.config.iter().map(setting).collect()));
    if version >= 7 { result.with_topic_id(found.id.uuid()) } else { result }
}

fn create_refused(name: &TopicName, version: i16, (code, why): Refused) -> CreatableTopicResult {
    let result = CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(why)));
    if version >= 5 {
        result.with_num_partitions(-1).with_replication_factor(-1).with_configs(Some(Vec::new()))
    } else {
        result
    }
}

fn name(found: &FoundTopic) -> TopicName {
    TopicName(StrBytes::from_string(found.name.as_str().to_owned()))
}

/// One topic of a deletion as the client named it.
struct Named {
    name: Option<TopicName>,
    id: Uuid,
}

/// Deletes topics, each for itself.
pub(super) async fn delete(service: &Service, reply_to: ReplyTo, request: DeleteTopicsRequest) -> Reply {
    let asked: Vec<Named> = if reply_to.version >= 6 {
        request.topics.into_iter().map(|topic| Named { name: topic.name, id: topic.topic_id }).collect()
    } else {
        request.topic_names.into_iter().map(|name| Named { name: Some(name), id: Uuid::nil() }).collect()
    };
    let deleted = asked.into_iter().map(|asked| delete_one(service, reply_to.version, asked));
    let results = futures::stream::iter(deleted.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
    reply_to.send(&DeleteTopicsResponse::default().with_responses(results))
}

async fn delete_one(service: &Service, version: i16, asked: Named) -> DeletableTopicResult {
    let reference = match (&asked.name, asked.id) {
        (Some(name), id) if id.is_nil() => TopicReference::Name(name.to_string()),
        (None, id) if !id.is_nil() => TopicReference::Id(TopicId::new(id)),
        _ => {
            let why = "a topic must be named by name or by id, and not by both";
            return delete_result(version, asked, Some((ResponseError::InvalidRequest, why.to_owned())));
        }
    };
    match service.rooms.topics.delete(&reference).await {
        Ok(found) => delete_result(version, Named { name: Some(name(&found)), id: found.id.uuid() }, None),
        Err(error) => {
            let refused = (Reason::from(&error).row().kafka, error.to_string());
            delete_result(version, asked, Some(refused))
        }
    }
}

fn delete_result(version: i16, named: Named, refused: Option<Refused>) -> DeletableTopicResult {
    // Before version 6 the name can't be null.
    let name = named.name.or_else(|| (version < 6).then(TopicName::default));
    let mut result = DeletableTopicResult::default().with_name(name);
    if version >= 6 {
        result = result.with_topic_id(named.id);
    }
    if let Some((code, why)) = refused {
        result = result.with_error_code(code.code());
        if version >= 5 {
            result = result.with_error_message(Some(StrBytes::from_string(why)));
        }
    }
    result
}
