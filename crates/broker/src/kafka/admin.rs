//! Administration: what tools ask of a cluster. Each kind of request has a handler; what there is only one of here (a broker, a replica,
//! a place for the data) is answered as such.

use std::net::SocketAddr;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use lakebed_model::producer::Producer;
use lakebed_model::{PartitionIndex, PartitionKey, State};

use super::request::Admin;
use super::response::{Reply, ReplyTo};
use super::{Brokers, Service};
use crate::reason::Reason;
use crate::topics::{TopicReference, find};

mod configs;
mod partitions;
mod topic_partitions;

/// Kafka's word for the endpoint of a broker, as opposed to a controller.
const BROKER_ENDPOINT: i8 = 1;
/// Kafka's word for operations that were not asked for.
const NO_OPERATIONS: i32 = i32::MIN;

/// Answers a request of administration.
pub(super) async fn answer(service: &Service, reply_to: ReplyTo, request: Admin, reached_at: SocketAddr) -> Reply {
    match request {
        Admin::CreatePartitions(request) => partitions::create(service, reply_to, request).await,
        Admin::DeleteRecords(request) => partitions::delete_records(service, reply_to, request).await,
        Admin::DescribeConfigs(request) => configs::describe(service, reply_to, request, reached_at).await,
        Admin::AlterConfigs(request) => configs::replace(service, reply_to, request).await,
        Admin::IncrementalAlterConfigs(request) => configs::alter(service, reply_to, request).await,
        Admin::ListConfigResources(request) => configs::list_resources(service, reply_to, &request).await,
        Admin::DescribeTopicPartitions(request) => {
            topic_partitions::describe(service, reply_to, request, reached_at).await
        }
        Admin::DescribeCluster(request) => describe_cluster(service, reply_to, &request, reached_at).await,
        Admin::DescribeLogDirs(request) => describe_log_dirs(service, reply_to, &request).await,
        Admin::DescribeProducers(request) => describe_producers(service, reply_to, request).await,
        Admin::ElectLeaders(request) => elect_leaders(service, reply_to, request).await,
        // Nothing is ever reassigned, and there are no quotas.
        Admin::ListPartitionReassignments(_) => reply_to.send(&ListPartitionReassignmentsResponse::default()),
        Admin::DescribeClientQuotas(_) => {
            reply_to.send(&DescribeClientQuotasResponse::default().with_entries(Some(Vec::new())))
        }
    }
}

fn words(text: impl ToString) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

/// The partition of a topic's name, if there is one.
fn partition_of(state: &State, topic: &str, index: i32) -> Option<PartitionKey> {
    let key = PartitionKey::new(state.topic_id(topic)?, PartitionIndex::new(u32::try_from(index).ok()?));
    state.partition(key).map(|_| key)
}

async fn describe_cluster(
    service: &Service,
    reply_to: ReplyTo,
    request: &DescribeClusterRequest,
    reached_at: SocketAddr,
) -> Reply {
    let cluster = DescribeClusterResponse::default().with_cluster_authorized_operations(NO_OPERATIONS);
    if reply_to.version >= 1 && request.endpoint_type != BROKER_ENDPOINT {
        let why = "this is a broker, and there are no controllers besides";
        let refused = cluster.with_error_code(ResponseError::MismatchedEndpointType.code());
        return reply_to.send(&refused.with_error_message(Some(words(why))));
    }
    let Brokers { all, leader } = service.brokers(reached_at).await;
    let brokers = all.into_iter().map(|(id, (host, port))| {
        DescribeClusterBroker::default().with_broker_id(BrokerId(id)).with_host(words(host)).with_port(i32::from(port))
    });
    let cluster = cluster
        .with_cluster_id(words(service.rooms.log.identity().cluster_id))
        .with_controller_id(BrokerId(leader))
        .with_brokers(brokers.collect());
    reply_to.send(&cluster)
}

/// One place for all the data: the store. A partition's size is that of its keys, values and headers.
async fn describe_log_dirs(service: &Service, reply_to: ReplyTo, request: &DescribeLogDirsRequest) -> Reply {
    let place = DescribeLogDirsResult::default().with_log_dir(words(service.rooms.store.url()));
    let state = match service.rooms.log.barrier().await {
        Ok(state) => state,
        Err(error) => {
            let refused = place.with_error_code(Reason::from(&error).kafka());
            return reply_to.send(&DescribeLogDirsResponse::default().with_results(vec![refused]));
        }
    };
    let described = |topic: &str, partitions: &mut dyn Iterator<Item = i32>| {
        let described = partitions.filter_map(|index| {
            let key = partition_of(&state, topic, index)?;
            let bytes: u64 = state.runs_of(key).map(|(_, run)| run.bytes).sum();
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            Some(DescribeLogDirsPartition::default().with_partition_index(index).with_partition_size(bytes))
        });
        let described = DescribeLogDirsTopic::default().with_partitions(described.collect());
        described.with_name(TopicName(words(topic)))
    };
    let topics: Vec<_> = match &request.topics {
        None => state
            .topics()
            .map(|(_, topic)| {
                let count = i32::try_from(topic.partitions).expect("partitions are bounded far below 2^31");
                described(topic.name.as_str(), &mut (0..count))
            })
            .collect(),
        Some(topics) => {
            topics.iter().map(|asked| described(&asked.topic, &mut asked.partitions.iter().copied())).collect()
        }
    };
    let topics = topics.into_iter().filter(|topic| !topic.partitions.is_empty()).collect();
    reply_to.send(&DescribeLogDirsResponse::default().with_results(vec![place.with_topics(topics)]))
}

async fn describe_producers(service: &Service, reply_to: ReplyTo, request: DescribeProducersRequest) -> Reply {
    let state = service.rooms.log.barrier().await;
    let described = |topic: &str, index: i32| {
        let partition = PartitionResponse::default().with_partition_index(index);
        let state = match &state {
            Ok(state) => state,
            Err(error) => return partition.with_error_code(Reason::from(error).kafka()),
        };
        match partition_of(state, topic, index) {
            None => partition.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            Some(key) => partition.with_active_producers(
                state.producers_of(key).map(|(id, one)| producer_state(id.get(), one)).collect(),
            ),
        }
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| described(&topic.name, *index)).collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    reply_to.send(&DescribeProducersResponse::default().with_topics(topics.collect()))
}

fn producer_state(id: i64, producer: &Producer) -> ProducerState {
    let last = producer.recent.back().map(|batch| batch.first.advance(batch.rows - 1).get());
    ProducerState::default()
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(producer.epoch.get().into())
        .with_last_sequence(last.unwrap_or(-1))
        .with_last_timestamp(producer.last_ms)
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(-1)
}

/// Every partition is led by whom it is to be led by. As in Kafka, those are only told to who names them.
async fn elect_leaders(service: &Service, reply_to: ReplyTo, request: ElectLeadersRequest) -> Reply {
    let state = match service.rooms.log.barrier().await {
        Ok(state) => state,
        Err(error) => {
            let code = Reason::from(&error).kafka();
            return reply_to.send(&elect_response(reply_to.version, code, Vec::new()));
        }
    };
    let results = request.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            let (error, why) = match partition_of(&state, &topic.topic, *index) {
                Some(_) => (ResponseError::ElectionNotNeeded, "the leader is the one it should be"),
                None => (ResponseError::UnknownTopicOrPartition, "there is no such partition"),
            };
            let result = PartitionResult::default().with_partition_id(*index).with_error_code(error.code());
            result.with_error_message(Some(words(why)))
        });
        ReplicaElectionResult::default().with_partition_result(partitions.collect()).with_topic(topic.topic)
    });
    reply_to.send(&elect_response(reply_to.version, 0, results.collect()))
}

/// Before version 1 there is no error for the whole.
fn elect_response(version: i16, code: i16, results: Vec<ReplicaElectionResult>) -> ElectLeadersResponse {
    let code = if version >= 1 { code } else { 0 };
    ElectLeadersResponse::default().with_error_code(code).with_replica_election_results(results)
}

/// Whether a topic of that name exists, behind a barrier.
async fn topic_config(
    service: &Service,
    name: &str,
) -> Result<std::sync::Arc<std::collections::BTreeMap<String, String>>, (ResponseError, String)> {
    let state = service.rooms.log.barrier().await;
    let state = state.map_err(|error| (Reason::from(&error).row().kafka, error.to_string()))?;
    let found = find(&state, &TopicReference::Name(name.to_owned()));
    let missing = || (ResponseError::UnknownTopicOrPartition, format!("topic {name:?} does not exist"));
    found.map(|topic| topic.config).ok_or_else(missing)
}
