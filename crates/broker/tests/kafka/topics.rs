//! Topics through Kafka's requests.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest, MetadataRequest};
use lakebed_broker::Config;
use lakebed_segment::batch::Codec;

use crate::client::{Client, Running, batch, metadata_of, text, topic_name};

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(partitions).with_replication_factor(-1)
}

fn with_config(topic: CreatableTopic, name: &str, value: &str) -> CreatableTopic {
    topic.with_configs(vec![CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))])
}

async fn create(client: &mut Client, topics: Vec<CreatableTopic>, validate_only: bool) -> Vec<i16> {
    let request = CreateTopicsRequest::default().with_topics(topics).with_validate_only(validate_only);
    client.call(7, &request).await.topics.iter().map(|topic| topic.error_code).collect()
}

#[tokio::test]
async fn each_topic_of_a_request_is_created_or_refused_for_itself() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    let assigned = |indexes: &[i32]| {
        let assignment = |index: &i32| {
            CreatableReplicaAssignment::default().with_partition_index(*index).with_broker_ids(vec![BrokerId(1)])
        };
        topic("assigned", -1).with_assignments(indexes.iter().map(assignment).collect())
    };
    let cases = [
        (vec![topic("a", 3), topic("b", 1)], vec![0, 0]),
        (vec![topic("twice", 1), topic("twice", 1)], vec![ResponseError::InvalidRequest.code(); 2]),
        (vec![topic("no/name", 1)], vec![ResponseError::InvalidTopicException.code()]),
        (vec![topic("zero", 0)], vec![ResponseError::InvalidPartitions.code()]),
        (vec![topic("many", 100_001)], vec![ResponseError::InvalidPartitions.code()]),
        (vec![topic("c", 1).with_replication_factor(0)], vec![ResponseError::InvalidReplicationFactor.code()]),
        (vec![with_config(topic("d", 1), "retention.ms", "soon")], vec![ResponseError::InvalidConfig.code()]),
        (vec![with_config(topic("d", 1), "unheard.of", "1")], vec![ResponseError::InvalidConfig.code()]),
        (vec![assigned(&[0, 2])], vec![ResponseError::InvalidReplicaAssignment.code()]),
        (vec![assigned(&[1, 0])], vec![0]),
        (vec![topic("with.dot", 1), topic("ok", 1)], vec![0, 0]),
        // One table can't hold two topics.
        (vec![topic("with_dot", 1)], vec![ResponseError::InvalidTopicException.code()]),
    ];
    for (topics, expected) in cases {
        assert_eq!(create(&mut client, topics.clone(), false).await, expected, "{topics:?}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn validating_answers_as_if_and_changes_nothing() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    assert_eq!(create(&mut client, vec![topic("a", 2)], true).await, [0]);
    assert_eq!(create(&mut client, vec![topic("a", 2)], false).await, [0]);
    assert_eq!(create(&mut client, vec![topic("a", 2)], true).await, [ResponseError::TopicAlreadyExists.code()]);
    broker.stop().await;
}

#[tokio::test]
async fn partitions_of_all_topics_are_limited_together() {
    let broker = Running::start(Config { partitions_max: 5, ..Config::default() }).await;
    let mut client = broker.client().await;
    let refused = ResponseError::InvalidPartitions.code();
    assert_eq!(create(&mut client, vec![topic("a", 3), topic("b", 3)], false).await, [0, refused]);
    assert_eq!(create(&mut client, vec![topic("b", 3)], true).await, [refused]);
    assert_eq!(create(&mut client, vec![topic("b", 2)], false).await, [0]);
    // What exists is told to exist, and asking for it creates nothing.
    assert_eq!(create(&mut client, vec![topic("b", 3)], false).await, [ResponseError::TopicAlreadyExists.code()]);
    client.topic("a").await;
    broker.stop().await;
}

#[tokio::test]
async fn settings_are_kept_and_obeyed() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    let small = with_config(topic("small", 1), "max.message.bytes", "100");
    let stamped = with_config(topic("stamped", 1), "message.timestamp.type", "LogAppendTime");
    let request = CreateTopicsRequest::default().with_topics(vec![small, stamped]);
    let answer = client.call(7, &request).await;
    let config = &answer.topics[0].configs.as_ref().unwrap()[0];
    assert_eq!((config.name.as_str(), config.value.as_ref().unwrap().as_str()), ("max.message.bytes", "100"));
    let refused = client.produce("small", 0, batch(Codec::None, &[&[0; 100]])).await;
    assert_eq!(refused.error_code, ResponseError::MessageTooLarge.code());
    let produced = client.produce("stamped", 0, batch(Codec::None, &[b"x"])).await;
    assert_eq!(produced.error_code, 0);
    assert!(produced.log_append_time_ms > 0);
    broker.stop().await;
}

#[tokio::test]
async fn topics_are_created_by_asking_only_where_client_and_broker_allow_it() {
    let broker = Running::start(Config { default_partitions: 7, ..Config::default() }).await;
    let mut client = broker.client().await;
    let missing = ResponseError::UnknownTopicOrPartition.code();
    let not_allowed = metadata_of("t").with_allow_auto_topic_creation(false);
    assert_eq!(client.call(9, &not_allowed).await.topics[0].error_code, missing);
    assert_eq!(client.topic("t").await.partitions.len(), 7);
    let answer = client.call(9, &metadata_of("no/name")).await;
    assert_eq!(answer.topics[0].error_code, ResponseError::InvalidTopicException.code());
    broker.stop().await;

    let broker = Running::start(Config { auto_create_topics: false, ..Config::default() }).await;
    let mut client = broker.client().await;
    assert_eq!(client.call(9, &metadata_of("t")).await.topics[0].error_code, missing);
    assert!(client.call(9, &MetadataRequest::default().with_topics(None)).await.topics.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn clients_that_ask_for_one_new_topic_at_once_get_one_topic() {
    let broker = Running::in_memory().await;
    let asking = (0..16).map(|_| async {
        let mut client = broker.client().await;
        client.topic("popular").await.topic_id
    });
    let ids = futures::future::join_all(asking).await;
    assert!(ids.iter().all(|id| *id == ids[0] && !id.is_nil()), "{ids:?}");
    broker.stop().await;
}

#[tokio::test]
async fn clients_are_told_the_advertised_address_if_there_is_one() {
    let config = Config { advertise: Some("kafka.example:1234".to_owned()), ..Config::default() };
    let broker = Running::start(config).await;
    let mut client = broker.client().await;
    let answer = client.call(9, &metadata_of("t")).await;
    assert_eq!((answer.brokers[0].host.as_str(), answer.brokers[0].port), ("kafka.example", 1234));
    broker.stop().await;
}
