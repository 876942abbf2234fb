"""Administration by the admin clients that people have: confluent-kafka's, kafka-python's and Java's."""

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, NewPartitions,
                                   OffsetSpec, ResourceType)
from kafka import KafkaAdminClient
from kafka_clients import SECONDS_MAX, admin, create_topic, read
from test_java import java

TOPIC = "administered"


@pytest.fixture
def broker(start_broker, tmp_bucket):
    made = start_broker(tmp_bucket)
    create_topic(made, TOPIC, partitions=2)
    return made


def produce(broker, count):
    producer = Producer({"bootstrap.servers": broker.kafka, "enable.idempotence": True})
    for number in range(count):
        producer.produce(TOPIC, b"%d" % number, partition=0)
    assert producer.flush(SECONDS_MAX) == 0


def code(refused):
    return refused.value.args[0].code()


def test_partitions_are_added_and_never_taken_away(broker):
    client = admin(broker)
    client.create_partitions([NewPartitions(TOPIC, 5)])[TOPIC].result(SECONDS_MAX)
    assert len(client.list_topics(TOPIC).topics[TOPIC].partitions) == 5
    with pytest.raises(KafkaException) as refused:
        client.create_partitions([NewPartitions(TOPIC, 3)])[TOPIC].result(SECONDS_MAX)
    assert code(refused) == KafkaError.INVALID_PARTITIONS
    client.create_partitions([NewPartitions(TOPIC, 9)], validate_only=True)[TOPIC].result(SECONDS_MAX)
    assert len(client.list_topics(TOPIC).topics[TOPIC].partitions) == 5


def test_records_are_deleted_for_good(broker):
    produce(broker, 20)
    client, place = admin(broker), TopicPartition(TOPIC, 0, 7)
    assert client.delete_records([place])[place].result(SECONDS_MAX).low_watermark == 7
    with pytest.raises(KafkaException) as refused:
        beyond = TopicPartition(TOPIC, 0, 21)
        client.delete_records([beyond])[beyond].result(SECONDS_MAX)
    assert code(refused) == KafkaError.OFFSET_OUT_OF_RANGE
    broker.restart(kill=True)
    client = admin(broker)
    assert client.list_offsets({TopicPartition(TOPIC, 0): OffsetSpec.earliest()})[TopicPartition(TOPIC, 0)].result(SECONDS_MAX).offset == 7
    assert [m.offset() for m in read(broker, TOPIC, start=7)] == list(range(7, 20))
    everything = TopicPartition(TOPIC, 0, -1)
    assert client.delete_records([everything])[everything].result(SECONDS_MAX).low_watermark == 20
    assert read(broker, TOPIC, start=20) == []


def configs(client, kind, name):
    resource = ConfigResource(kind, name)
    return client.describe_configs([resource])[resource].result(SECONDS_MAX)


def alter(client, *entries):
    resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[
        ConfigEntry(name, value, incremental_operation=operation) for name, operation, value in entries])
    client.incremental_alter_configs([resource])[resource].result(SECONDS_MAX)


def test_settings_are_told_with_their_defaults_and_altered(broker):
    client = admin(broker)
    told = configs(client, ResourceType.TOPIC, TOPIC)
    assert len(told) > 30 and all(entry.source == ConfigSource.DEFAULT_CONFIG.value for entry in told.values())
    alter(client, ("max.message.bytes", AlterConfigOpType.SET, "500"), ("retention.ms", AlterConfigOpType.SET, "1000"))
    alter(client, ("retention.ms", AlterConfigOpType.DELETE, None))
    told = configs(client, ResourceType.TOPIC, TOPIC)
    assert (told["max.message.bytes"].value, told["max.message.bytes"].source) == ("500", ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
    assert (told["retention.ms"].value, told["retention.ms"].source) == ("604800000", ConfigSource.DEFAULT_CONFIG.value)
    failed = []
    producer = Producer({"bootstrap.servers": broker.kafka})
    producer.produce(TOPIC, bytes(1000), partition=0, on_delivery=lambda error, _: failed.append(error.code()))
    assert producer.flush(SECONDS_MAX) == 0 and failed == [KafkaError.MSG_SIZE_TOO_LARGE], "it is in force"
    for name, value in [("retention.sm", "1"), ("retention.ms", "soon"), ("cleanup.policy", "shred")]:
        with pytest.raises(KafkaException) as refused:
            alter(client, (name, AlterConfigOpType.SET, value))
        assert code(refused) == KafkaError.INVALID_CONFIG
    broker_told = configs(client, ResourceType.BROKER, "1")
    assert broker_told["advertised.listeners"].value == f"PLAINTEXT://{broker.kafka}"
    assert broker_told["group.min.session.timeout.ms"].value == "6000"
    assert broker_told["num.partitions"].value == "1" and all(entry.is_read_only for entry in broker_told.values())


def test_the_cluster_is_described(broker):
    # The client must outlive its answers.
    client = admin(broker)
    cluster = client.describe_cluster().result(SECONDS_MAX)
    assert (cluster.controller.id, [node.id for node in cluster.nodes]) == (1, [1])
    assert f"{cluster.nodes[0].host}:{cluster.nodes[0].port}" == broker.kafka


def test_kafka_python_administers(broker):
    produce(broker, 10)
    client = KafkaAdminClient(bootstrap_servers=broker.kafka)
    try:
        assert client.describe_cluster()["controller_id"] == 1
        assert TOPIC in str(client.describe_log_dirs())
    finally:
        client.close()


def test_java_administers(broker):
    produce(broker, 10)
    told = dict(line.split("=", 1) for line in java("administer", broker.kafka, TOPIC))
    assert told == {"partitions": "4", "retention.ms": "1234 DYNAMIC_TOPIC_CONFIG", "segment.ms": "604800000 DEFAULT_CONFIG",
                    "low watermark": "3", "nodes": "1", "size is known": "true", "producers": "1", "reassignments": "0",
                    "quotas": "0", "election": "ElectionNotNeededException", "topics": TOPIC, "deleted by id": "true"}
