//! Administration: every version of its requests, and what comes of them.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource as Replacing, AlterableConfig as Replace};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::*;
use lakebed_segment::batch::Codec;
use lakebed_wire::kafka;

use crate::client::{Client, Running, batch, text, topic_name};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Tries a version of a request of administration; `false` if it is none.
pub(crate) async fn try_out(broker: &Running, client: &mut Client, key: i16, version: i16) -> bool {
    let topic = format!("admin-{key}-{version}");
    let id = client.topic(&topic).await.topic_id;
    assert!(!id.is_nil());
    for value in [b"one", b"two"] {
        assert_eq!(client.produce(&topic, 0, batch(Codec::None, &[value])).await.error_code, 0);
    }
    match key {
        kafka::CREATE_PARTITIONS => create_partitions(client, version, &topic).await,
        kafka::DELETE_RECORDS => delete_records(client, version, &topic).await,
        kafka::DESCRIBE_CONFIGS => describe_configs(client, version, &topic).await,
        kafka::ALTER_CONFIGS => alter_configs(client, version, &topic).await,
        kafka::INCREMENTAL_ALTER_CONFIGS => incremental_alter_configs(client, version, &topic).await,
        kafka::LIST_CONFIG_RESOURCES => list_config_resources(client, version, &topic).await,
        kafka::DESCRIBE_TOPIC_PARTITIONS => describe_topic_partitions(client, version, &topic).await,
        kafka::DESCRIBE_CLUSTER => describe_cluster(broker, client, version).await,
        kafka::DESCRIBE_LOG_DIRS => describe_log_dirs(client, version, &topic).await,
        kafka::DESCRIBE_PRODUCERS => describe_producers(client, version, &topic).await,
        kafka::ELECT_LEADERS => elect_leaders(client, version, &topic).await,
        kafka::LIST_PARTITION_REASSIGNMENTS => {
            let answer = client.call(version, &ListPartitionReassignmentsRequest::default().with_topics(None)).await;
            assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
        }
        kafka::DESCRIBE_CLIENT_QUOTAS => {
            let answer = client.call(version, &DescribeClientQuotasRequest::default()).await;
            assert_eq!((answer.error_code, answer.entries.map(|entries| entries.len())), (0, Some(0)));
        }
        _ => return false,
    }
    true
}

async fn create_partitions(client: &mut Client, version: i16, topic: &str) {
    let asked = |count, assigned: Option<usize>| {
        let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
        let topic = CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(count);
        let topic = topic.with_assignments(assigned.map(|count| vec![assignment; count]));
        CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000)
    };
    let invalid = ResponseError::InvalidPartitions.code();
    for (request, code, partitions) in [
        (asked(4, None), invalid, 4),
        (asked(-1, None), invalid, 4),
        (asked(5, None).with_validate_only(true), 0, 4),
        (asked(6, Some(1)), ResponseError::InvalidReplicaAssignment.code(), 4),
        (asked(6, Some(2)), 0, 6),
        (asked(7, None), 0, 7),
    ] {
        let answer = client.call(version, &request).await.results.remove(0);
        assert_eq!((answer.name.as_str(), answer.error_code), (topic, code), "{request:?}");
        assert_eq!(client.topic(topic).await.partitions.len(), partitions);
    }
    let nobody = CreatePartitionsTopic::default().with_name(topic_name("nobody")).with_count(9).with_assignments(None);
    let twice = CreatePartitionsRequest::default().with_topics(vec![nobody.clone(); 2]);
    let codes: Vec<_> = client.call(version, &twice).await.results.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [ResponseError::InvalidRequest.code(); 2]);
    let answer = client.call(version, &CreatePartitionsRequest::default().with_topics(vec![nobody])).await;
    assert_eq!(answer.results[0].error_code, ResponseError::UnknownTopicOrPartition.code());
}

async fn delete_records(client: &mut Client, version: i16, topic: &str) {
    let out_of_range = ResponseError::OffsetOutOfRange.code();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    for (index, offset, expected) in [
        (0, 3, (out_of_range, -1)),
        (0, -2, (out_of_range, -1)),
        (0, 1, (0, 1)),
        (0, 0, (0, 1)),
        (9, 0, (unknown, -1)),
        (0, -1, (0, 2)),
        (1, -1, (0, 0)),
    ] {
        let partition = DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
        let asked = DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        let answer = client.call(version, &DeleteRecordsRequest::default().with_topics(vec![asked])).await;
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.low_watermark), expected, "{index} at {offset}");
    }
    assert_eq!(client.fetch(topic, 0, 1).await.error_code, out_of_range);
    assert_eq!(client.fetch(topic, 0, 2).await.log_start_offset, 2);
}

async fn configs_of(client: &mut Client, version: i16, kind: i8, name: &str) -> Vec<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None)]);
    let answer = client.call(version, &request.with_include_synonyms(true)).await.results.remove(0);
    assert_eq!((answer.error_code, answer.resource_type, answer.resource_name.as_str()), (0, kind, name));
    answer.configs
}

/// Value and source of a setting.
async fn setting(client: &mut Client, topic: &str, name: &str) -> (String, i8) {
    let configs = configs_of(client, 4, TOPIC, topic).await;
    let found = configs.iter().find(|config| config.name.as_str() == name).unwrap();
    (found.value.as_ref().unwrap().to_string(), found.config_source)
}

async fn describe_configs(client: &mut Client, version: i16, topic: &str) {
    let configs = configs_of(client, version, TOPIC, topic).await;
    assert!(configs.len() > 30 && configs.iter().all(|config| !config.read_only && config.config_source == 5));
    let retention = configs.iter().find(|config| config.name.as_str() == "retention.ms").unwrap();
    assert_eq!(retention.value.as_deref(), Some("604800000"));
    let synonyms: Vec<_> = retention.synonyms.iter().map(|one| (one.name.as_str(), one.source)).collect();
    assert_eq!(synonyms, [("log.retention.ms", 5)]);
    assert!(version < 3 || retention.config_type == 5, "a long");
    let broker = configs_of(client, version, BROKER, "1").await;
    assert!(broker.iter().all(|config| config.read_only));
    let named = |name: &str| broker.iter().find(|config| config.name.as_str() == name).unwrap().value.clone().unwrap();
    assert_eq!(named("num.partitions").as_str(), "4");
    assert_eq!(named("producer.id.expiration.ms").as_str(), "86400000");
    assert_eq!(named("lakebed.memory").as_str(), "1GiB");
    assert_eq!(configs_of(client, version, BROKER, "").await, []);
    let named = DescribeConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text(topic));
    let named = named.with_configuration_keys(Some(vec![text("segment.ms"), text("nonsense")]));
    let missing = DescribeConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text("nobody"));
    let other = DescribeConfigsResource::default().with_resource_type(BROKER).with_resource_name(text("7"));
    let request = DescribeConfigsRequest::default().with_resources(vec![named, missing, other]);
    let results = client.call(version, &request).await.results;
    let (unknown, invalid) = (ResponseError::UnknownTopicOrPartition.code(), ResponseError::InvalidRequest.code());
    assert_eq!(results.iter().map(|one| one.error_code).collect::<Vec<_>>(), [0, unknown, invalid]);
    assert_eq!(results[0].configs.len(), 1);
    assert!(results[0].configs[0].synonyms.is_empty(), "they were not asked for");
}

async fn alter_configs(client: &mut Client, version: i16, topic: &str) {
    let set = |name, value| Replace::default().with_name(text(name)).with_value(Some(text(value)));
    let asked = |kind, name, configs| {
        let resource = Replacing::default().with_resource_type(kind).with_resource_name(text(name));
        AlterConfigsRequest::default().with_resources(vec![resource.with_configs(configs)])
    };
    let (config, request) = (ResponseError::InvalidConfig.code(), ResponseError::InvalidRequest.code());
    for (asked, code) in [
        (asked(TOPIC, topic, vec![set("retention.ms", "5")]).with_validate_only(true), 0),
        (asked(TOPIC, topic, vec![set("retention.ms", "1000"), set("segment.ms", "7")]), 0),
        (asked(TOPIC, topic, vec![set("retention.ms", "2000")]), 0),
        (asked(TOPIC, topic, vec![set("retention.ms", "soon")]), config),
        (asked(TOPIC, topic, vec![set("cleanup.policy", "shred")]), config),
        (asked(TOPIC, topic, vec![set("segment.ms", "1"), set("segment.ms", "2")]), request),
        (asked(TOPIC, topic, vec![Replace::default().with_name(text("segment.ms")).with_value(None)]), request),
        (asked(TOPIC, "nobody", vec![]), ResponseError::UnknownTopicOrPartition.code()),
        (asked(BROKER, "1", vec![set("num.partitions", "2")]), request),
    ] {
        let answer = client.call(version, &asked).await.responses.remove(0);
        assert_eq!((answer.error_code, answer.error_message.is_some()), (code, code != 0), "{asked:?}");
    }
    assert_eq!(setting(client, topic, "retention.ms").await, ("2000".to_owned(), 1));
    assert_eq!(setting(client, topic, "segment.ms").await, ("604800000".to_owned(), 5), "it was not named any more");
}

async fn incremental_alter_configs(client: &mut Client, version: i16, topic: &str) {
    let change = |name, operation, value: Option<&str>| {
        let config = AlterableConfig::default().with_name(text(name)).with_config_operation(operation);
        config.with_value(value.map(text))
    };
    let asked = |kind, name, configs| {
        let resource = AlterConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(configs)])
    };
    let (config, request) = (ResponseError::InvalidConfig.code(), ResponseError::InvalidRequest.code());
    let replicas = "leader.replication.throttled.replicas";
    for (asked, code) in [
        (asked(TOPIC, topic, vec![change("retention.ms", 0, Some("1")), change("segment.ms", 0, Some("7"))]), 0),
        (asked(TOPIC, topic, vec![change("retention.ms", 1, None)]), 0),
        (asked(TOPIC, topic, vec![change("segment.ms", 0, Some("8"))]).with_validate_only(true), 0),
        (asked(TOPIC, topic, vec![change(replicas, 2, Some("0:1,1:1"))]), 0),
        (asked(TOPIC, topic, vec![change(replicas, 3, Some("0:1"))]), 0),
        (asked(TOPIC, topic, vec![change("segment.ms", 2, Some("1"))]), config),
        (asked(TOPIC, topic, vec![change("retention.sm", 0, Some("1"))]), config),
        (asked(TOPIC, topic, vec![change("segment.ms", 9, Some("1"))]), request),
        (asked(TOPIC, topic, vec![change("segment.ms", 0, None)]), request),
        (asked(BROKER, "1", vec![change("num.partitions", 0, Some("2"))]), request),
        (asked(TOPIC, "nobody", vec![]), ResponseError::UnknownTopicOrPartition.code()),
    ] {
        let answer = client.call(version, &asked).await.responses.remove(0);
        assert_eq!((answer.error_code, answer.error_message.is_some()), (code, code != 0), "{asked:?}");
    }
    for (name, value, source) in [("retention.ms", "604800000", 5), ("segment.ms", "7", 1), (replicas, "1:1", 1)] {
        assert_eq!(setting(client, topic, name).await, (value.to_owned(), source), "{name}");
    }
}

async fn list_config_resources(client: &mut Client, version: i16, topic: &str) {
    let answer = client.call(version, &ListConfigResourcesRequest::default()).await;
    assert_eq!(answer.error_code, 0);
    let listed: Vec<_> =
        answer.config_resources.iter().map(|one| (one.resource_type, one.resource_name.as_str())).collect();
    if version == 0 {
        assert_eq!(listed, [], "metrics of clients, of which there are none");
        return;
    }
    assert!(listed.contains(&(TOPIC, topic)) && listed.contains(&(BROKER, "1")), "{listed:?}");
    let brokers = ListConfigResourcesRequest::default().with_resource_types(vec![BROKER]);
    assert_eq!(client.call(version, &brokers).await.config_resources.len(), 1);
    let unknown = ListConfigResourcesRequest::default().with_resource_types(vec![99]);
    assert_eq!(client.call(version, &unknown).await.error_code, ResponseError::UnsupportedVersion.code());
}

async fn describe_topic_partitions(client: &mut Client, version: i16, topic: &str) {
    use describe_topic_partitions_request::{Cursor, TopicRequest};
    let more = CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(5).with_assignments(None);
    let more = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(1000);
    assert_eq!(client.call(3, &more).await.results[0].error_code, 0);
    let names = [topic, "nobody", "no name"].map(|name| TopicRequest::default().with_name(topic_name(name)));
    let asked = DescribeTopicPartitionsRequest::default().with_topics(names.to_vec());
    let pages = [(0, 2, Some(2)), (2, 2, Some(4)), (4, 2, None)];
    for (at, limit, next) in pages {
        let cursor = Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(at);
        let asked = asked.clone().with_response_partition_limit(limit).with_cursor((at > 0).then_some(cursor));
        let answer = client.call(version, &asked).await;
        let indexes: Vec<i32> = answer.topics[0].partitions.iter().map(|partition| partition.partition_index).collect();
        assert_eq!(indexes, (at..(at + limit).min(5)).collect::<Vec<_>>());
        let found = answer.next_cursor.map(|cursor| (cursor.topic_name, cursor.partition_index));
        assert_eq!(found, next.map(|next| (topic_name(topic), next)));
    }
    // In the order of their names.
    let answer = client.call(version, &asked).await;
    let told: Vec<(&str, i16)> =
        answer.topics.iter().map(|topic| (topic.name.as_ref().unwrap().as_str(), topic.error_code)).collect();
    let (unknown, invalid) =
        (ResponseError::UnknownTopicOrPartition.code(), ResponseError::InvalidTopicException.code());
    assert_eq!(told, [(topic, 0), ("no name", invalid), ("nobody", unknown)]);
    assert!(answer.topics[1].topic_id.is_nil() && !answer.topics[0].topic_id.is_nil());
    let all = client.call(version, &DescribeTopicPartitionsRequest::default()).await;
    assert!(all.topics.iter().any(|found| found.name == Some(topic_name(topic))), "no names are all");
}

async fn describe_cluster(broker: &Running, client: &mut Client, version: i16) {
    let answer = client.call(version, &DescribeClusterRequest::default()).await;
    assert_eq!((answer.error_code, answer.controller_id.0, answer.brokers.len()), (0, 1, 1));
    assert_eq!(answer.brokers[0].port, i32::from(broker.kafka.port()));
    let metadata = client.call(12, &MetadataRequest::default().with_topics(Some(Vec::new()))).await;
    assert_eq!(Some(answer.cluster_id), metadata.cluster_id);
    if version >= 1 {
        let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
        let code = ResponseError::MismatchedEndpointType.code();
        assert_eq!(client.call(version, &controllers).await.error_code, code);
    }
}

async fn describe_log_dirs(client: &mut Client, version: i16, topic: &str) {
    let all = client.call(version, &DescribeLogDirsRequest::default().with_topics(None)).await.results.remove(0);
    assert_eq!((all.error_code, all.log_dir.as_str()), (0, "memory://"));
    let of_topic = all.topics.iter().find(|one| one.name.as_str() == topic).unwrap();
    let sizes: Vec<_> = of_topic.partitions.iter().map(|one| (one.partition_index, one.partition_size > 0)).collect();
    assert_eq!(sizes, [(0, true), (1, false), (2, false), (3, false)]);
    let some = DescribableLogDirTopic::default().with_topic(topic_name(topic)).with_partitions(vec![0, 9]);
    let asked = DescribeLogDirsRequest::default().with_topics(Some(vec![some]));
    let some = client.call(version, &asked).await.results.remove(0);
    assert_eq!(some.topics.iter().map(|one| one.partitions.len()).collect::<Vec<_>>(), [1]);
}

async fn describe_producers(client: &mut Client, version: i16, topic: &str) {
    for sequence in 0..3 {
        let sent = crate::in_flight::stamped(77, sequence);
        assert_eq!(client.produce(topic, 1, sent).await.error_code, 0);
    }
    let asked = describe_producers_request::TopicRequest::default().with_name(topic_name(topic));
    let asked = asked.with_partition_indexes(vec![0, 1, 9]);
    let answer = client.call(version, &DescribeProducersRequest::default().with_topics(vec![asked])).await;
    let partitions = &answer.topics[0].partitions;
    let codes: Vec<_> = partitions.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [0, 0, ResponseError::UnknownTopicOrPartition.code()]);
    assert!(partitions[0].active_producers.is_empty());
    let producer = &partitions[1].active_producers[0];
    assert_eq!((producer.producer_id.0, producer.producer_epoch, producer.last_sequence), (77, 0, 2));
    assert!(producer.last_timestamp > 1_700_000_000_000);
}

async fn elect_leaders(client: &mut Client, version: i16, topic: &str) {
    let named = TopicPartitions::default().with_topic(topic_name(topic)).with_partitions(vec![0, 9]);
    let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![named]));
    let answer = client.call(version, &request).await;
    let codes: Vec<_> = answer.replica_election_results[0].partition_result.iter().map(|one| one.error_code).collect();
    let expected = [ResponseError::ElectionNotNeeded, ResponseError::UnknownTopicOrPartition];
    assert_eq!(codes, expected.map(|error| error.code()));
    let all = client.call(version, &ElectLeadersRequest::default().with_topic_partitions(None)).await;
    assert_eq!((all.error_code, all.replica_election_results.len()), (0, 0));
}
