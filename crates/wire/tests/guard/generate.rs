//! Random requests that are valid in a given version, with every array populated.

#[path = "generate_admin.rs"]
mod admin;
#[path = "generate_groups.rs"]
mod groups;

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use lakebed_wire::kafka::*;
use rand::Rng;
use rand::rngs::StdRng;
use uuid::Uuid;

/// A request of `key` that can be encoded in `version`.
pub(crate) fn request(random: &mut StdRng, key: i16, version: i16) -> RequestKind {
    match key {
        PRODUCE => produce(random),
        FETCH => fetch(random, version),
        LIST_OFFSETS => list_offsets(random, version),
        METADATA => metadata(random, version),
        FIND_COORDINATOR => find_coordinator(random, version),
        API_VERSIONS => api_versions(random, version),
        CREATE_TOPICS => create_topics(random),
        DELETE_TOPICS => delete_topics(random, version),
        INIT_PRODUCER_ID => init_producer_id(random, version),
        OFFSET_FOR_LEADER_EPOCH => offset_for_leader_epoch(random, version),
        key if groups::is_one(key) => groups::request(random, key, version),
        key => admin::request(random, key, version),
    }
}

pub(crate) fn text(random: &mut StdRng) -> StrBytes {
    let length = if random.random_ratio(1, 8) { random.random_range(100..300) } else { random.random_range(0..12) };
    StrBytes::from_string((0..length).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect())
}

pub(crate) fn uuid(random: &mut StdRng) -> Uuid {
    Uuid::from_u128(random.random())
}

pub(crate) fn maybe<T>(random: &mut StdRng, make: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    random.random_bool(0.7).then(|| make(random))
}

pub(crate) fn some<T>(random: &mut StdRng, mut make: impl FnMut(&mut StdRng) -> T) -> Vec<T> {
    let count = random.random_range(0..5);
    (0..count).map(|_| make(random)).collect()
}

pub(crate) fn payload(random: &mut StdRng) -> Bytes {
    let length = random.random_range(0..400);
    (0..length).map(|_| random.random::<u8>()).collect()
}

fn produce(random: &mut StdRng) -> RequestKind {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let topics = some(random, |random| {
        let partitions = some(random, |random| {
            PartitionProduceData::default().with_index(random.random()).with_records(maybe(random, payload))
        });
        TopicProduceData::default().with_name(text(random).into()).with_partition_data(partitions)
    });
    let request = ProduceRequest::default()
        .with_transactional_id(maybe(random, |random| text(random).into()))
        .with_acks(random.random())
        .with_timeout_ms(random.random())
        .with_topic_data(topics);
    RequestKind::Produce(request)
}

fn fetch(random: &mut StdRng, version: i16) -> RequestKind {
    use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
    let topics = some(random, |random| {
        let partitions = some(random, |random| {
            let mut partition = FetchPartition::default();
            partition.partition = random.random();
            partition.fetch_offset = random.random();
            partition.partition_max_bytes = random.random();
            if version >= 9 {
                partition.current_leader_epoch = random.random();
            }
            if version >= 12 {
                partition.last_fetched_epoch = random.random();
                partition.unknown_tagged_fields = tagged(random, 2);
            }
            if version >= 5 {
                partition.log_start_offset = random.random();
            }
            if version >= 17 && random.random() {
                partition.replica_directory_id = uuid(random);
            }
            partition
        });
        let topic = FetchTopic::default().with_partitions(partitions);
        if version >= 13 { topic.with_topic_id(uuid(random)) } else { topic.with_topic(text(random).into()) }
    });
    let mut request = FetchRequest::default().with_topics(topics);
    request.max_wait_ms = random.random();
    request.min_bytes = random.random();
    request.max_bytes = random.random();
    request.isolation_level = random.random();
    if version < 15 {
        request.replica_id = random.random::<i32>().into();
    } else {
        let state = ReplicaState::default().with_replica_id(random.random::<i32>().into());
        request.replica_state = state.with_replica_epoch(random.random());
    }
    if version >= 7 {
        request.session_id = random.random();
        request.session_epoch = random.random();
        request.forgotten_topics_data = some(random, |random| {
            let forgotten = ForgottenTopic::default().with_partitions(some(random, |random| random.random()));
            if version >= 13 {
                forgotten.with_topic_id(uuid(random))
            } else {
                forgotten.with_topic(text(random).into())
            }
        });
    }
    if version >= 11 {
        request.rack_id = text(random);
    }
    if version >= 12 {
        request.cluster_id = maybe(random, text);
    }
    RequestKind::Fetch(request)
}

/// Tagged fields that nobody knows, numbered from `first`.
fn tagged(random: &mut StdRng, first: i32) -> std::collections::BTreeMap<i32, Bytes> {
    (first..first + random.random_range(0..4)).map(|tag| (tag, payload(random))).collect()
}

fn list_offsets(random: &mut StdRng, version: i16) -> RequestKind {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let topics = some(random, |random| {
        let partitions = some(random, |random| {
            let partition = ListOffsetsPartition::default();
            let partition = partition.with_partition_index(random.random()).with_timestamp(random.random());
            if version >= 4 { partition.with_current_leader_epoch(random.random()) } else { partition }
        });
        ListOffsetsTopic::default().with_name(text(random).into()).with_partitions(partitions)
    });
    let mut request = ListOffsetsRequest::default().with_topics(topics);
    request.replica_id = random.random::<i32>().into();
    if version >= 2 {
        request.isolation_level = random.random();
    }
    if version >= 10 {
        request.timeout_ms = random.random();
    }
    RequestKind::ListOffsets(request)
}

fn metadata(random: &mut StdRng, version: i16) -> RequestKind {
    use metadata_request::MetadataRequestTopic;
    let mut topics = some(random, |random| {
        let topic = MetadataRequestTopic::default();
        if version >= 10 {
            topic.with_topic_id(uuid(random)).with_name(maybe(random, |random| text(random).into()))
        } else {
            topic.with_name(Some(text(random).into()))
        }
    });
    let mut request = MetadataRequest::default();
    if version >= 4 {
        request.allow_auto_topic_creation = random.random();
    }
    if (8..=10).contains(&version) {
        request.include_cluster_authorized_operations = random.random();
    }
    if version >= 8 {
        request.include_topic_authorized_operations = random.random();
    }
    if version >= 9 {
        request.unknown_tagged_fields = tagged(random, 0);
        for topic in &mut topics {
            topic.unknown_tagged_fields = tagged(random, 0);
        }
    }
    let all = version >= 1 && random.random_ratio(1, 5);
    RequestKind::Metadata(request.with_topics((!all).then_some(topics)))
}

fn find_coordinator(random: &mut StdRng, version: i16) -> RequestKind {
    let mut request = FindCoordinatorRequest::default();
    if version >= 1 {
        request.key_type = random.random();
    }
    if version >= 4 {
        request.coordinator_keys = some(random, text);
    } else {
        request.key = text(random);
    }
    RequestKind::FindCoordinator(request)
}

fn api_versions(random: &mut StdRng, version: i16) -> RequestKind {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = text(random);
        request.client_software_version = text(random);
    }
    RequestKind::ApiVersions(request)
}

fn create_topics(random: &mut StdRng) -> RequestKind {
    use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
    let topics = some(random, |random| {
        let assignments = some(random, |random| {
            CreatableReplicaAssignment::default()
                .with_partition_index(random.random())
                .with_broker_ids(some(random, |random| random.random::<i32>().into()))
        });
        let configs = some(random, |random| {
            CreatableTopicConfig::default().with_name(text(random)).with_value(maybe(random, text))
        });
        CreatableTopic::default()
            .with_name(text(random).into())
            .with_num_partitions(random.random())
            .with_replication_factor(random.random())
            .with_assignments(assignments)
            .with_configs(configs)
    });
    let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(random.random());
    RequestKind::CreateTopics(request.with_validate_only(random.random()))
}

fn delete_topics(random: &mut StdRng, version: i16) -> RequestKind {
    use delete_topics_request::DeleteTopicState;
    let mut request = DeleteTopicsRequest::default().with_timeout_ms(random.random());
    if version >= 6 {
        request.topics = some(random, |random| {
            let topic = DeleteTopicState::default().with_topic_id(uuid(random));
            topic.with_name(maybe(random, |random| text(random).into()))
        });
    } else {
        request.topic_names = some(random, |random| text(random).into());
    }
    RequestKind::DeleteTopics(request)
}

fn init_producer_id(random: &mut StdRng, version: i16) -> RequestKind {
    let mut request = InitProducerIdRequest::default()
        .with_transactional_id(maybe(random, |random| text(random).into()))
        .with_transaction_timeout_ms(random.random());
    if version >= 3 {
        request.producer_id = random.random::<i64>().into();
        request.producer_epoch = random.random();
    }
    RequestKind::InitProducerId(request)
}

fn offset_for_leader_epoch(random: &mut StdRng, version: i16) -> RequestKind {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let topics = some(random, |random| {
        let partitions = some(random, |random| {
            OffsetForLeaderPartition::default()
                .with_partition(random.random())
                .with_current_leader_epoch(random.random())
                .with_leader_epoch(random.random())
        });
        OffsetForLeaderTopic::default().with_topic(text(random).into()).with_partitions(partitions)
    });
    let mut request = OffsetForLeaderEpochRequest::default().with_topics(topics);
    if version >= 3 {
        request.replica_id = random.random::<i32>().into();
    }
    RequestKind::OffsetForLeaderEpoch(request)
}
