"""kafka-python: a client that shares no code with librdkafka. Produce with every codec, read assigned partitions."""

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka_clients import SECONDS_MAX, create_topic

TOPIC = "kafka-python"


def produce(broker, records, **settings):
    """Sends records (arguments of `send`) to partition 0. Returns their offsets."""
    producer = KafkaProducer(bootstrap_servers=broker.kafka, acks="all", enable_idempotence=False, **settings)
    try:
        futures = [producer.send(TOPIC, partition=0, **record) for record in records]
        producer.flush(SECONDS_MAX)
        return [future.get(SECONDS_MAX).offset for future in futures]
    finally:
        producer.close(SECONDS_MAX)


def read(broker, start=0):
    """The records of partition 0 from offset `start` to its end."""
    consumer = KafkaConsumer(bootstrap_servers=broker.kafka, group_id=None, enable_auto_commit=False, check_crcs=True,
                             fetch_max_wait_ms=100, consumer_timeout_ms=SECONDS_MAX * 1000)
    partition = TopicPartition(TOPIC, 0)
    try:
        end = consumer.end_offsets([partition])[partition]
        consumer.assign([partition])
        consumer.seek(partition, start)
        return [next(consumer) for _ in range(start, end)]
    finally:
        consumer.close()


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_of_every_codec_come_back(client_broker, earthquakes, codec):
    create_topic(client_broker, TOPIC)
    lines = earthquakes[:300]
    assert produce(client_broker, [{"value": line} for line in lines], compression_type=codec) == list(range(300))
    client_broker.before_reading()
    assert [(record.offset, record.value) for record in read(client_broker)] == list(enumerate(lines))
    assert [record.value for record in read(client_broker, start=290)] == lines[290:]


def test_keys_headers_timestamps_and_nulls_come_back(client_broker):
    create_topic(client_broker, TOPIC)
    headers = [("b", b"1"), ("a", b""), ("b", b"2")]
    produce(client_broker, [{"key": b"k", "value": b"v", "headers": headers, "timestamp_ms": 1_700_000_000_000},
                            {"key": b"k", "value": None, "timestamp_ms": 1_700_000_000_001}])
    client_broker.before_reading()
    first, second = read(client_broker)
    assert (first.key, first.value, list(first.headers), first.timestamp) == (b"k", b"v", headers, 1_700_000_000_000)
    assert (second.key, second.value, list(second.headers), second.timestamp) == (b"k", None, [], 1_700_000_000_001)


def test_offsets_are_found_by_time(client_broker):
    create_topic(client_broker, TOPIC)
    produce(client_broker, [{"value": b"x", "timestamp_ms": 1_700_000_000_000 + n} for n in range(10)])
    client_broker.before_reading()
    consumer = KafkaConsumer(bootstrap_servers=client_broker.kafka, group_id=None)
    partition = TopicPartition(TOPIC, 0)
    try:
        assert consumer.offsets_for_times({partition: 1_700_000_000_004})[partition].offset == 4
        assert consumer.beginning_offsets([partition]) == {partition: 0}
        assert consumer.end_offsets([partition]) == {partition: 10}
    finally:
        consumer.close()
