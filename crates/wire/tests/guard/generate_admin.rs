//! Random requests of administration.

use kafka_protocol::messages::*;
use lakebed_wire::kafka::*;
use rand::Rng;
use rand::rngs::StdRng;

use super::{maybe, some, text};

/// A request of `key` that can be encoded in `version`.
pub(super) fn request(random: &mut StdRng, key: i16, version: i16) -> RequestKind {
    match key {
        DELETE_RECORDS => delete_records(random),
        DESCRIBE_CONFIGS => describe_configs(random, version),
        ALTER_CONFIGS => alter_configs(random),
        INCREMENTAL_ALTER_CONFIGS => incremental_alter_configs(random),
        CREATE_PARTITIONS => create_partitions(random),
        DESCRIBE_LOG_DIRS => {
            let topics = maybe(random, |random| {
                some(random, |random| {
                    let topic = describe_log_dirs_request::DescribableLogDirTopic::default();
                    topic.with_topic(text(random).into()).with_partitions(some(random, |random| random.random()))
                })
            });
            RequestKind::DescribeLogDirs(DescribeLogDirsRequest::default().with_topics(topics))
        }
        ELECT_LEADERS => {
            let topics = maybe(random, |random| {
                some(random, |random| {
                    let topic = elect_leaders_request::TopicPartitions::default();
                    topic.with_topic(text(random).into()).with_partitions(some(random, |random| random.random()))
                })
            });
            let request = ElectLeadersRequest::default().with_topic_partitions(topics);
            let request = request.with_timeout_ms(random.random());
            let kind = if version >= 1 { random.random() } else { 0 };
            RequestKind::ElectLeaders(request.with_election_type(kind))
        }
        LIST_PARTITION_REASSIGNMENTS => {
            let topics = maybe(random, |random| {
                some(random, |random| {
                    let topic = list_partition_reassignments_request::ListPartitionReassignmentsTopics::default();
                    topic.with_name(text(random).into()).with_partition_indexes(some(random, |random| random.random()))
                })
            });
            let request = ListPartitionReassignmentsRequest::default().with_topics(topics);
            RequestKind::ListPartitionReassignments(request.with_timeout_ms(random.random()))
        }
        DESCRIBE_CLIENT_QUOTAS => {
            let components = some(random, |random| {
                let component = describe_client_quotas_request::ComponentData::default().with_entity_type(text(random));
                component.with_match_type(random.random()).with_match(maybe(random, text))
            });
            let request = DescribeClientQuotasRequest::default().with_components(components);
            RequestKind::DescribeClientQuotas(request.with_strict(random.random()))
        }
        DESCRIBE_CLUSTER => describe_cluster(random, version),
        DESCRIBE_PRODUCERS => {
            let topics = some(random, |random| {
                let topic = describe_producers_request::TopicRequest::default().with_name(text(random).into());
                topic.with_partition_indexes(some(random, |random| random.random()))
            });
            RequestKind::DescribeProducers(DescribeProducersRequest::default().with_topics(topics))
        }
        LIST_CONFIG_RESOURCES => {
            let types = if version >= 1 { some(random, |random| random.random()) } else { Vec::new() };
            RequestKind::ListConfigResources(ListConfigResourcesRequest::default().with_resource_types(types))
        }
        DESCRIBE_TOPIC_PARTITIONS => {
            use describe_topic_partitions_request::{Cursor, TopicRequest};
            let topics = some(random, |random| TopicRequest::default().with_name(text(random).into()));
            let cursor = maybe(random, |random| {
                Cursor::default().with_topic_name(text(random).into()).with_partition_index(random.random())
            });
            let request = DescribeTopicPartitionsRequest::default().with_topics(topics).with_cursor(cursor);
            RequestKind::DescribeTopicPartitions(request.with_response_partition_limit(random.random()))
        }
        _ => panic!("no generator for API {key}: write one"),
    }
}

fn delete_records(random: &mut StdRng) -> RequestKind {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let topics = some(random, |random| {
        let partitions = some(random, |random| {
            DeleteRecordsPartition::default().with_partition_index(random.random()).with_offset(random.random())
        });
        DeleteRecordsTopic::default().with_name(text(random).into()).with_partitions(partitions)
    });
    RequestKind::DeleteRecords(DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(random.random()))
}

fn describe_configs(random: &mut StdRng, version: i16) -> RequestKind {
    use describe_configs_request::DescribeConfigsResource;
    let resources = some(random, |random| {
        let resource = DescribeConfigsResource::default().with_resource_type(random.random());
        let keys = maybe(random, |random| some(random, text));
        resource.with_resource_name(text(random)).with_configuration_keys(keys)
    });
    let request = DescribeConfigsRequest::default().with_resources(resources);
    let request = request.with_include_synonyms(random.random());
    RequestKind::DescribeConfigs(request.with_include_documentation(version >= 3 && random.random()))
}

fn alter_configs(random: &mut StdRng) -> RequestKind {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let resources = some(random, |random| {
        let configs =
            some(random, |random| AlterableConfig::default().with_name(text(random)).with_value(maybe(random, text)));
        let resource = AlterConfigsResource::default().with_resource_type(random.random());
        resource.with_resource_name(text(random)).with_configs(configs)
    });
    let request = AlterConfigsRequest::default().with_resources(resources);
    RequestKind::AlterConfigs(request.with_validate_only(random.random()))
}

fn incremental_alter_configs(random: &mut StdRng) -> RequestKind {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let resources = some(random, |random| {
        let configs = some(random, |random| {
            let config = AlterableConfig::default().with_name(text(random)).with_config_operation(random.random());
            config.with_value(maybe(random, text))
        });
        let resource = AlterConfigsResource::default().with_resource_type(random.random());
        resource.with_resource_name(text(random)).with_configs(configs)
    });
    let request = IncrementalAlterConfigsRequest::default().with_resources(resources);
    RequestKind::IncrementalAlterConfigs(request.with_validate_only(random.random()))
}

fn create_partitions(random: &mut StdRng) -> RequestKind {
    use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
    let topics = some(random, |random| {
        let assignments = maybe(random, |random| {
            some(random, |random| {
                let brokers = some(random, |random| random.random::<i32>().into());
                CreatePartitionsAssignment::default().with_broker_ids(brokers)
            })
        });
        let topic = CreatePartitionsTopic::default().with_name(text(random).into()).with_count(random.random());
        topic.with_assignments(assignments)
    });
    let request = CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(random.random());
    RequestKind::CreatePartitions(request.with_validate_only(random.random()))
}

fn describe_cluster(random: &mut StdRng, version: i16) -> RequestKind {
    let mut request = DescribeClusterRequest::default();
    request.include_cluster_authorized_operations = random.random();
    if version >= 1 {
        request.endpoint_type = random.random();
    }
    if version >= 2 {
        request.include_fenced_brokers = random.random();
    }
    RequestKind::DescribeCluster(request)
}
