"""confluent-kafka: acknowledgements, headers, timestamps, offsets by time, topics."""

import pytest
from confluent_kafka import (TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, KafkaError,
                             KafkaException, Producer, TopicPartition)
from confluent_kafka.admin import OffsetSpec
from kafka_clients import SECONDS_MAX, admin, consumer, create_topic, read

TOPIC = "confluent"


def produce(broker, records, settings=(), topic=TOPIC):
    """Sends records (arguments of `produce`) and waits for every answer. Returns the offsets in order."""
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 0, **dict(settings)})
    answers = []
    for record in records:
        producer.produce(topic, **{"partition": 0, **record}, on_delivery=lambda error, message: answers.append((error, message)))
    assert producer.flush(SECONDS_MAX) == 0
    for error, _ in answers:
        if error:
            raise KafkaException(error)
    return [message.offset() for _, message in answers]


@pytest.mark.parametrize("acks", ["all", "1"])
def test_acknowledged_offsets_are_the_offsets_that_are_read(client_broker, acks):
    create_topic(client_broker, TOPIC)
    offsets = produce(client_broker, [{"value": b"%d" % n} for n in range(500)], {"acks": acks, "batch.num.messages": 7})
    assert offsets == list(range(500))
    client_broker.before_reading()
    assert [(m.offset(), m.value()) for m in read(client_broker, TOPIC)] == [(n, b"%d" % n) for n in range(500)]


def test_without_acknowledgement_records_arrive_in_order(client_broker):
    create_topic(client_broker, TOPIC)
    produce(client_broker, [{"value": b"%d" % n} for n in range(100)], {"acks": 0})
    # Of another producer: it says nothing about those before it, and they may come after it.
    produce(client_broker, [{"value": b"last"}])
    reader = consumer(client_broker)
    reader.assign([TopicPartition(TOPIC, 0, 0)])
    # Nobody is told when they have arrived: wait for the records themselves.
    got = reader.consume(101, timeout=SECONDS_MAX)
    reader.close()
    assert sorted(m.value() for m in got) == sorted([b"%d" % n for n in range(100)] + [b"last"])
    client_broker.before_reading()
    in_order = [m.value() for m in read(client_broker, TOPIC) if m.value() != b"last"]
    assert in_order == [b"%d" % n for n in range(100)]


def test_null_is_not_empty_and_headers_keep_order_and_duplicates(client_broker):
    create_topic(client_broker, TOPIC)
    headers = [("b", b"1"), ("a", None), ("b", b""), ("b", b"1"), ("ключ", bytes(range(256)))]
    records = [{"key": None, "value": b""}, {"key": b"", "value": None}, {"key": b"\x00", "value": b"\xff", "headers": headers}]
    assert produce(client_broker, records) == [0, 1, 2]
    client_broker.before_reading()
    assert [(m.key(), m.value(), m.headers()) for m in read(client_broker, TOPIC)] == [
        (None, b"", None), (b"", None, None), (b"\x00", b"\xff", headers)]


def test_offsets_are_found_by_time(client_broker):
    create_topic(client_broker, TOPIC)
    times = [1_700_000_000_000 + 1000 * n for n in range(20)]
    produce(client_broker, [{"value": b"x", "timestamp": time} for time in times], {"batch.num.messages": 3})
    client_broker.before_reading()
    assert [m.timestamp() for m in read(client_broker, TOPIC)] == [(TIMESTAMP_CREATE_TIME, time) for time in times]
    reader = consumer(client_broker)
    for time, offset in [(times[0] - 1, 0), (times[7], 7), (times[7] + 1, 8), (times[19], 19), (times[19] + 1, -1)]:
        (found,) = reader.offsets_for_times([TopicPartition(TOPIC, 0, time)], timeout=SECONDS_MAX)
        assert found.error is None and found.offset == offset, time
    reader.close()
    client, place = admin(client_broker), TopicPartition(TOPIC, 0)
    for spec, offset in [(OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 20), (OffsetSpec.max_timestamp(), 19)]:
        found = client.list_offsets({place: spec}, request_timeout=SECONDS_MAX)[place].result(SECONDS_MAX)
        assert found.offset == offset, spec


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_record_is_found_by_its_time_as_soon_as_it_is_acknowledged(client_broker):
    # The answer to a producer and that to a reader come by different ways: none may overtake what it tells of.
    create_topic(client_broker, TOPIC)
    producer = Producer({"bootstrap.servers": client_broker.kafka, "linger.ms": 0})
    reader, admins, place = consumer(client_broker), admin(client_broker), TopicPartition(TOPIC, 0)
    missed = []
    for number in range(300):
        time = 1_700_000_000_000 + 1000 * number
        producer.produce(TOPIC, b"x", partition=0, timestamp=time)
        assert producer.flush(SECONDS_MAX) == 0
        (found,) = reader.offsets_for_times([TopicPartition(TOPIC, 0, time)], timeout=SECONDS_MAX)
        newest = admins.list_offsets({place: OffsetSpec.max_timestamp()}, request_timeout=SECONDS_MAX)[place].result(SECONDS_MAX)
        if (found.offset, newest.offset) != (number, number):
            missed.append((number, found.offset, newest.offset))
    reader.close()
    assert missed == []


def test_a_topic_can_stamp_records_with_the_time_of_append(client_broker):
    create_topic(client_broker, TOPIC, config={"message.timestamp.type": "LogAppendTime"})
    produce(client_broker, [{"value": b"x", "timestamp": 1}])
    client_broker.before_reading()
    (message,) = read(client_broker, TOPIC)
    kind, time = message.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME and time > 1_700_000_000_000


def test_topics_are_listed_created_and_deleted(client_broker):
    create_topic(client_broker, TOPIC, partitions=3)
    create_topic(client_broker, "other")
    produce(client_broker, [{"value": b"of the first"}])
    with pytest.raises(KafkaException) as refused:
        create_topic(client_broker, TOPIC)
    assert refused.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    client_broker.before_reading()
    client = admin(client_broker)
    listed = client.list_topics(timeout=SECONDS_MAX)
    assert {name: len(topic.partitions) for name, topic in listed.topics.items()} == {TOPIC: 3, "other": 1}
    client.delete_topics([TOPIC], request_timeout=SECONDS_MAX)[TOPIC].result(SECONDS_MAX)
    assert set(client.list_topics(timeout=SECONDS_MAX).topics) == {"other"}
    create_topic(client_broker, TOPIC)
    assert produce(client_broker, [{"value": b"of the second"}]) == [0], "it is another topic"
    assert [m.value() for m in read(client_broker, TOPIC)] == [b"of the second"]


@pytest.mark.parametrize(("name", "config", "code"), [
    ("not a name", {}, KafkaError.TOPIC_EXCEPTION),
    ("t", {"retention.sm": "1"}, KafkaError.INVALID_CONFIG),
    ("t", {"retention.ms": "soon"}, KafkaError.INVALID_CONFIG),
])
def test_a_topic_that_makes_no_sense_is_refused(start_broker, tmp_bucket, name, config, code):
    broker = start_broker(tmp_bucket)
    with pytest.raises(KafkaException) as refused:
        create_topic(broker, name, config=config)
    assert refused.value.args[0].code() == code


def test_an_unknown_topic_and_a_record_that_is_too_large_are_refused(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, config={"max.message.bytes": "1000"})
    with pytest.raises(KafkaException) as refused:
        produce(broker, [{"value": bytes(2000)}])
    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    with pytest.raises(KafkaException) as refused:
        produce(broker, [{"value": b"x"}], {"topic.metadata.propagation.max.ms": 0}, topic="nobody-made-this")
    assert refused.value.args[0].code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
    assert produce(broker, [{"value": bytes(100)}]) == [0], "the refused one left no trace"


def test_a_reader_that_waits_gets_what_arrives(client_broker):
    create_topic(client_broker, TOPIC)
    client_broker.before_reading()
    reader = consumer(client_broker, **{"fetch.wait.max.ms": 500})
    reader.assign([TopicPartition(TOPIC, 0, 0)])
    for n in range(5):
        produce(client_broker, [{"value": b"%d" % n}])
        (message,) = reader.consume(1, timeout=SECONDS_MAX)
        assert message.error() is None and message.value() == b"%d" % n
    reader.close()
