//! Every API in every version that is advertised, sent and answered on the wire.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
};
use lakebed_segment::batch::Codec;
use lakebed_wire::kafka;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::client::{Client, Running, batch, fetch_of, metadata_of, produce_of, text, topic_name};
use crate::group_versions;

/// What every version is tried on.
struct World {
    broker: Running,
    client: Client,
    topic_id: Uuid,
}

#[tokio::test]
async fn every_advertised_version_of_every_api_is_answered() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    let topic_id = client.topic("orders").await.topic_id;
    assert_eq!(client.produce("orders", 0, batch(Codec::None, &[b"one", b"two"])).await.error_code, 0);
    let mut world = World { broker, client, topic_id };

    let advertised = world.api_versions(0).await;
    // What only prepared the test does not count.
    world.client.sent.clear();
    let mut expected = BTreeSet::new();
    for (key, min, max) in advertised {
        for version in min..=max {
            expected.insert((key, version));
            world.try_out(key, version).await;
        }
    }
    let missing: Vec<_> = expected.difference(&world.client.sent).collect();
    assert!(missing.is_empty(), "advertised, but never sent: {missing:?}");
    world.broker.stop().await;
}

#[tokio::test]
async fn a_newer_api_versions_is_answered_in_version_0_with_the_whole_table() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    // A version that does not exist yet: key, version, correlation id, and a body that nobody knows.
    client.stream.write_all(&[0, 0, 0, 13, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 1, 2, 3]).await.unwrap();
    let (correlation_id, answer) = client.receive::<ApiVersionsRequest>(0).await;
    assert_eq!((correlation_id, answer.error_code), (7, ResponseError::UnsupportedVersion.code()));
    assert_eq!(answer.api_keys.len(), kafka::API_TABLE.len());
    // The client asks again on the same connection.
    let request =
        ApiVersionsRequest::default().with_client_software_name(text("t")).with_client_software_version(text("1"));
    assert_eq!(client.call(4, &request).await.error_code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn what_is_not_advertised_closes_the_connection() {
    let broker = Running::in_memory().await;
    for (key, version) in [
        (kafka::FETCH, 3),
        (kafka::METADATA, 14),
        (kafka::PRODUCE, 13),
        (kafka::JOIN_GROUP, 10),
        (24, 0),
        (999, 0),
        (-1, -1),
    ] {
        let mut client = broker.client().await;
        let mut bytes = vec![0, 0, 0, 10];
        bytes.extend_from_slice(&i16::to_be_bytes(key));
        bytes.extend_from_slice(&i16::to_be_bytes(version));
        bytes.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
        client.stream.write_all(&bytes).await.unwrap();
        assert!(client.is_closed().await, "{key} v{version}");
    }
    broker.stop().await;
}

impl World {
    async fn try_out(&mut self, key: i16, version: i16) {
        match key {
            kafka::PRODUCE if version < 3 => self.produce_too_old(version).await,
            kafka::PRODUCE => self.produce(version).await,
            kafka::FETCH => self.fetch(version).await,
            kafka::LIST_OFFSETS => self.list_offsets(version).await,
            kafka::METADATA => self.metadata(version).await,
            kafka::FIND_COORDINATOR => self.find_coordinator(version).await,
            kafka::API_VERSIONS => {
                self.api_versions(version).await;
            }
            kafka::CREATE_TOPICS => self.create_topics(version).await,
            kafka::DELETE_TOPICS => self.delete_topics(version).await,
            kafka::INIT_PRODUCER_ID => self.init_producer_id(version).await,
            kafka::OFFSET_FOR_LEADER_EPOCH => self.leader_epoch(version).await,
            key if crate::admin::try_out(&self.broker, &mut self.client, key, version).await => {}
            other if group_versions::try_out(&mut self.client, other, version).await => {}
            other => panic!("API key {other} is advertised, but this test does not know it"),
        }
    }

    async fn api_versions(&mut self, version: i16) -> Vec<(i16, i16, i16)> {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request.with_client_software_name(text("test")).with_client_software_version(text("1.0"));
        }
        let answer = self.client.call(version, &request).await;
        assert_eq!(answer.error_code, 0);
        answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect()
    }

    /// Advertised for librdkafka's sake, answered by closing.
    async fn produce_too_old(&mut self, version: i16) {
        let mut client = self.broker.client().await;
        let [high, low] = version.to_be_bytes();
        client.send_frame(&[0, 0, 0, 10, 0, 0, high, low, 0, 0, 0, 1, 0xff, 0xff]).await;
        assert!(client.is_closed().await, "v{version}");
        self.client.sent.append(&mut client.sent);
    }

    async fn produce(&mut self, version: i16) {
        let request = produce_of("orders", 1, -1, batch(Codec::None, &[b"more"]));
        let answer = self.client.call(version, &request).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.index, partition.error_code), (1, 0));
        assert_eq!((partition.base_offset, partition.log_append_time_ms), (i64::from(version - 3), -1));
    }

    async fn fetch(&mut self, version: i16) {
        let mut request = fetch_of("orders", 0, 1, 0);
        if version >= 13 {
            request.topics[0].topic = topic_name("");
            request.topics[0].topic_id = self.topic_id;
        }
        let answer = self.client.call(version, &request).await;
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        let topic = &answer.responses[0];
        let named = if version >= 13 { topic.topic_id == self.topic_id } else { topic.topic.as_str() == "orders" };
        assert!(named, "v{version}");
        let partition = &topic.partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark, partition.last_stable_offset), (0, 2, 2));
        assert!(!partition.records.as_ref().unwrap().is_empty(), "the batch that holds the offset comes whole");
    }

    async fn list_offsets(&mut self, version: i16) {
        let specials: &[(i64, i64)] = &[(-1, 2), (-2, 0), (-3, 1), (-4, 0), (0, 0), (i64::MAX, -1)];
        let allowed = |place: i64| place >= -2 || (place == -3 && version >= 7) || (place == -4 && version >= 8);
        for (place, expected) in specials.iter().filter(|(place, _)| allowed(*place)) {
            let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(*place);
            let topic = ListOffsetsTopic::default().with_name(topic_name("orders")).with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
            let answer = self.client.call(version, &request).await;
            let partition = &answer.topics[0].partitions[0];
            assert_eq!((partition.error_code, partition.offset), (0, *expected), "v{version} at {place}");
        }
    }

    async fn metadata(&mut self, version: i16) {
        let answer = self.client.call(version, &metadata_of("orders")).await;
        let topic = &answer.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 4), "v{version}");
        assert!(version < 10 || topic.topic_id == self.topic_id);
        let leader = topic.partitions[3].leader_id;
        assert!(answer.brokers.iter().any(|broker| broker.node_id == leader));
        assert_eq!(answer.brokers[0].port, i32::from(self.broker.kafka.port()));
        let all = if version == 0 { Some(Vec::new()) } else { None };
        let answer = self.client.call(version, &MetadataRequest::default().with_topics(all)).await;
        assert!(answer.topics.iter().any(|topic| topic.name.as_ref().is_some_and(|name| name.as_str() == "orders")));
        if version >= 12 {
            let by_id = MetadataRequestTopic::default().with_topic_id(self.topic_id).with_name(None);
            let answer = self.client.call(version, &MetadataRequest::default().with_topics(Some(vec![by_id]))).await;
            assert_eq!(answer.topics[0].name.as_ref().unwrap().as_str(), "orders");
        }
    }

    async fn find_coordinator(&mut self, version: i16) {
        let transactions = ResponseError::CoordinatorNotAvailable.code();
        let port = i32::from(self.broker.kafka.port());
        let request = FindCoordinatorRequest::default();
        if version >= 1 {
            let keys = request.clone().with_key_type(1);
            let keys =
                if version >= 4 { keys.with_coordinator_keys(vec![text("t")]) } else { keys.with_key(text("t")) };
            let answer = self.client.call(version, &keys).await;
            let code = answer.coordinators.first().map_or(answer.error_code, |one| one.error_code);
            assert_eq!(code, transactions, "there are no transactions yet");
        }
        if version >= 4 {
            let answer = self.client.call(version, &request.with_coordinator_keys(vec![text("a"), text("b")])).await;
            let codes: Vec<_> =
                answer.coordinators.iter().map(|one| (one.key.as_str(), one.error_code, one.port)).collect();
            assert_eq!(codes, [("a", 0, port), ("b", 0, port)]);
        } else {
            let answer = self.client.call(version, &request.with_key(text("a"))).await;
            assert_eq!((answer.error_code, answer.port), (0, port));
        }
    }

    async fn create_topics(&mut self, version: i16) {
        let name = format!("created-{version}");
        let topic = CreatableTopic::default()
            .with_name(topic_name(&name))
            .with_num_partitions(if version >= 4 { -1 } else { 3 })
            .with_replication_factor(if version >= 4 { -1 } else { 1 });
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000);
        let created = self.client.call(version, &request).await.topics.remove(0);
        assert_eq!((created.name.as_str(), created.error_code), (name.as_str(), 0));
        assert!(version < 5 || created.num_partitions == 4);
        assert!(version < 7 || !created.topic_id.is_nil());
        let again = self.client.call(version, &request).await.topics.remove(0);
        assert_eq!(again.error_code, ResponseError::TopicAlreadyExists.code());
    }

    async fn delete_topics(&mut self, version: i16) {
        let name = format!("deleted-{version}");
        let id = self.client.topic(&name).await.topic_id;
        let request = if version >= 6 {
            let by_id = DeleteTopicState::default().with_name(None).with_topic_id(id);
            DeleteTopicsRequest::default().with_topics(vec![by_id])
        } else {
            DeleteTopicsRequest::default().with_topic_names(vec![topic_name(&name)])
        };
        let deleted = self.client.call(version, &request).await.responses.remove(0);
        assert_eq!((deleted.error_code, deleted.name.unwrap().as_str()), (0, name.as_str()));
        let again = self.client.call(version, &request).await.responses.remove(0);
        let unknown = if version >= 6 { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
        assert_eq!(again.error_code, unknown.code());
    }

    async fn init_producer_id(&mut self, version: i16) {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let request = request.with_transaction_timeout_ms(i32::MAX);
        let first = self.client.call(version, &request).await;
        let second = self.client.call(version, &request).await;
        assert_eq!((first.error_code, first.producer_epoch, second.producer_epoch), (0, 0, 0));
        assert_eq!(second.producer_id.0, first.producer_id.0 + 1, "v{version}");
        if version >= 3 {
            let old = request.clone().with_producer_id(first.producer_id).with_producer_epoch(4);
            let fresh = self.client.call(version, &old).await;
            assert_eq!((fresh.error_code, fresh.producer_epoch), (0, 0), "what it had before does not count");
            assert_eq!(fresh.producer_id.0, second.producer_id.0 + 1);
            let half = self.client.call(version, &old.with_producer_epoch(-1)).await;
            let invalid = ResponseError::InvalidRequest.code();
            assert_eq!((half.error_code, half.producer_id.0, half.producer_epoch), (invalid, -1, -1));
        }
        for (id, expected) in [("", ResponseError::InvalidRequest), ("t", ResponseError::UnsupportedVersion)] {
            let transactional = request.clone().with_transactional_id(Some(text(id).into()));
            let refused = self.client.call(version, &transactional).await;
            assert_eq!((refused.error_code, refused.producer_id.0, refused.producer_epoch), (expected.code(), -1, -1));
        }
    }

    async fn leader_epoch(&mut self, version: i16) {
        for (epoch, expected) in [(0, (0, 2)), (1, (-1, -1))] {
            let partition = OffsetForLeaderPartition::default().with_partition(0).with_leader_epoch(epoch);
            let topic =
                OffsetForLeaderTopic::default().with_topic(topic_name("orders")).with_partitions(vec![partition]);
            let answer =
                self.client.call(version, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic])).await;
            let partition = &answer.topics[0].partitions[0];
            assert_eq!(
                (partition.error_code, partition.leader_epoch, partition.end_offset),
                (0, expected.0, expected.1)
            );
        }
    }
}
