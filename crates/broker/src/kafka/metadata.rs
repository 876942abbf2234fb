//! Metadata: which topics there are and who leads them: the sequencer leads everything.

use std::net::SocketAddr;

use futures::StreamExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use lakebed_log::BarrierError;
use lakebed_model::{State, TopicId};

use super::response::{Reply, ReplyTo};
use super::{Brokers, LEADER_EPOCH, NO_NODE, Service};
use crate::reason::Reason;
use crate::topics::{self, FoundTopic, TopicReference, find};

/// Topics of one request that are created at once; they share commits.
const CREATED_AT_ONCE: usize = 64;

/// Answers with what was asked for, creating topics where the client and the broker allow it.
pub(super) async fn answer(
    service: &Service,
    reply_to: ReplyTo,
    request: MetadataRequest,
    reached_at: SocketAddr,
) -> Reply {
    let Brokers { all: brokers, leader } = service.brokers(reached_at).await;
    if leader == NO_NODE
        && let Some(closed) = service.rooms.log.is_closed()
    {
        // Whoever asks again is told by what this broker is then.
        return Reply::Close { why: closed.to_string() };
    }
    let brokers = brokers.into_iter().map(|(id, (host, port))| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(id))
            .with_host(StrBytes::from_string(host))
            .with_port(i32::from(port))
    });
    let mut topics = match wanted(reply_to.version, &request) {
        Wanted::All => match all(service, reply_to.version).await {
            Ok(topics) => topics,
            Err(error) => return Reply::Close { why: error.to_string() },
        },
        Wanted::Some(topics) => {
            let may_create = request.allow_auto_topic_creation && service.rooms.config.auto_create_topics;
            some(service, reply_to.version, topics, may_create).await
        }
        Wanted::Wrong(why) => return Reply::Close { why: why.to_owned() },
    };
    topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|partition| led_by(partition, leader));
    let cluster_id = service.rooms.log.identity().cluster_id.to_string();
    reply_to.send(
        &MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(StrBytes::from_string(cluster_id)))
            .with_controller_id(BrokerId(leader))
            .with_topics(topics),
    )
}

/// All topics; those that are known, if it can't be proven that there are no others.
///
/// SUBTLE: the answer has no place for an error of its own. Closing the connection would end what else is under way on it. A topic
/// that has an error, or is missing, is gone for consumers that subscribe to a pattern: they give its partitions up. An error of each
/// *partition* takes nothing away from anybody, and has clients ask again.
///
/// # Errors
/// The log is closed, or no topic is known.
async fn all(service: &Service, version: i16) -> Result<Vec<MetadataResponseTopic>, BarrierError> {
    let unproven = match service.rooms.topics.list().await {
        Ok(topics) => return Ok(topics.iter().map(|topic| described(topic, version)).collect()),
        Err(error) => error,
    };
    let known = topics::all(&service.rooms.log.state());
    if known.is_empty() || service.rooms.log.is_closed().is_some() {
        return Err(unproven);
    }
    let mut topics: Vec<MetadataResponseTopic> = known.iter().map(|topic| described(topic, version)).collect();
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        partition.error_code = ResponseError::LeaderNotAvailable.code();
    }
    Ok(topics)
}

enum Wanted<'a> {
    All,
    Some(&'a [MetadataRequestTopic]),
    Wrong(&'static str),
}

fn wanted(version: i16, request: &MetadataRequest) -> Wanted<'_> {
    match &request.topics {
        None => Wanted::All,
        // Version 0 has no null: an empty list means all there.
        Some(topics) if version == 0 && topics.is_empty() => Wanted::All,
        Some(topics) if version < 12 && topics.iter().any(|topic| topic.name.is_none()) => {
            Wanted::Wrong("Metadata names a topic by id before version 12")
        }
        Some(topics) => Wanted::Some(topics),
    }
}

async fn some(
    service: &Service,
    version: i16,
    topics: &[MetadataRequestTopic],
    may_create: bool,
) -> Vec<MetadataResponseTopic> {
    let references: Vec<TopicReference> = topics.iter().map(reference).collect();
    // What can be created is asked of the sequencer itself; for the rest, missing must be proven.
    let proven = |reference: &TopicReference| may_create && matches!(reference, TopicReference::Name(_));
    let nothing_missing =
        |state: &State| references.iter().all(|reference| proven(reference) || find(state, reference).is_some());
    let state = service.state_where(nothing_missing).await;
    let answers = topics.iter().zip(references).map(|(asked, reference)| {
        let state = &state;
        async move {
            let state = match state {
                Ok(state) => state,
                Err(error) => return refused(asked, version, Reason::from(error)),
            };
            match (find(state, &reference), &reference) {
                (Some(found), _) => described(&found, version),
                (None, TopicReference::Name(name)) if may_create => match service.rooms.topics.ensure(name).await {
                    Ok(found) => described(&found, version),
                    Err(error) => refused(asked, version, Reason::from(&error)),
                },
                (None, TopicReference::Name(name)) if lakebed_model::TopicName::new(name).is_err() => {
                    refused(asked, version, Reason::InvalidTopicName)
                }
                (None, TopicReference::Name(_)) => refused(asked, version, Reason::TopicNotFound),
                (None, TopicReference::Id(_)) => refused(asked, version, Reason::TopicIdNotFound),
            }
        }
    });
    // Collected first: a closure that lends across an await is not `Send` for all lifetimes.
    futures::stream::iter(answers.collect::<Vec<_>>()).buffered(CREATED_AT_ONCE).collect().await
}

fn reference(topic: &MetadataRequestTopic) -> TopicReference {
    match &topic.name {
        Some(name) => TopicReference::Name(name.to_string()),
        None => TopicReference::Id(TopicId::new(topic.topic_id)),
    }
}

fn described(topic: &FoundTopic, version: i16) -> MetadataResponseTopic {
    let partition = |index: u32| {
        MetadataResponsePartition::default()
            .with_partition_index(i32::try_from(index).expect("partitions are bounded far below 2^31"))
            .with_leader_epoch(LEADER_EPOCH)
    };
    let name = TopicName(StrBytes::from_string(topic.name.as_str().to_owned()));
    let described = MetadataResponseTopic::default()
        .with_name(Some(name))
        .with_partitions((0..topic.partitions).map(partition).collect());
    if version >= 10 { described.with_topic_id(topic.id.uuid()) } else { described }
}

/// Names the broker that leads a partition, if one is known.
fn led_by(partition: &mut MetadataResponsePartition, leader: i32) {
    partition.leader_id = BrokerId(leader);
    if leader == NO_NODE {
        partition.error_code = ResponseError::LeaderNotAvailable.code();
        return;
    }
    partition.replica_nodes = vec![BrokerId(leader)];
    partition.isr_nodes = vec![BrokerId(leader)];
}

fn refused(asked: &MetadataRequestTopic, version: i16, reason: Reason) -> MetadataResponseTopic {
    let code = match ResponseError::try_from_code(reason.kafka()) {
        // A client asks again after this one, but treats a code that it doesn't expect of Metadata as final.
        Some(ResponseError::RequestTimedOut | ResponseError::NotLeaderOrFollower) => {
            ResponseError::LeaderNotAvailable.code()
        }
        _ => reason.kafka(),
    };
    // Before version 12 the name can't be null.
    let name = asked.name.clone().or_else(|| (version < 12).then(TopicName::default));
    let refused = MetadataResponseTopic::default().with_error_code(code).with_name(name);
    if version >= 10 { refused.with_topic_id(asked.topic_id) } else { refused }
}
