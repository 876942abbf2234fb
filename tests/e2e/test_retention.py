"""Retention: what a topic does not keep goes for consumers and readers of its table alike, and nothing else does.

Consumers are confluent-kafka, readers DuckDB and pyiceberg. The broker looks every 100 ms.
"""

import json
import threading
import time
import urllib.request

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, OffsetSpec
from conftest import Bucket
from kafka_clients import admin, consumer, create_topic
from test_tables import catalog, consumed, duck, rows_of

SECONDS_MAX = 60
PARTITIONS = 3
LOOKS = ["--retention-check-interval", "100ms"]
DAY_MS = 86_400_000


@pytest.fixture
def looking(start_broker, bucket):
    """A broker that looks often for what is to go."""
    return start_broker(bucket, arguments=LOOKS)


@pytest.fixture
def looking_here(start_broker, tmp_bucket):
    """The same, on a directory."""
    return start_broker(tmp_bucket, arguments=LOOKS)


def until(holds, what):
    """Waits until `holds()` is true, and returns what it returned."""
    deadline = time.monotonic() + SECONDS_MAX
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {SECONDS_MAX} s: {what}"
        time.sleep(0.02)
    return found


def produce(broker, topic, count, age_ms=0, partitions=range(PARTITIONS), size=20, key=None):
    """`count` records in each of some partitions, whose timestamps are so old."""
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 2})
    failures = []
    at_ms = int(time.time() * 1000) - age_ms
    for number in range(count):
        for partition in partitions:
            value = (b"%d/%d " % (partition, number)).ljust(size, b".")
            producer.produce(topic, value, key, partition=partition, timestamp=at_ms, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(SECONDS_MAX) == 0 and failures == []


def alter(broker, topic, **settings):
    entries = [ConfigEntry(name.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    client = admin(broker)
    client.incremental_alter_configs([resource])[resource].result(timeout=SECONDS_MAX)


def starts(broker, topic, partitions=PARTITIONS):
    """The earliest offset of each partition."""
    client = admin(broker)
    asked = {TopicPartition(topic, partition): OffsetSpec.earliest() for partition in range(partitions)}
    return {place.partition: told.result(timeout=SECONDS_MAX).offset for place, told in client.list_offsets(asked).items()}


def refused(broker, topic, offset):
    """What a consumer is told that asks for an offset and may not go elsewhere."""
    reader = consumer(broker, **{"auto.offset.reset": "error"})
    try:
        reader.assign([TopicPartition(topic, 0, offset)])
        message = until(lambda: reader.poll(0.2), "an answer")
        assert message.error().code() == KafkaError._AUTO_OFFSET_RESET
        return message.error().str()
    finally:
        reader.close()


def removed(broker, cause):
    metrics = broker.metrics()
    return tuple(int(metrics[f'lakebed_retention_{what}_total{{cause="{cause}"}}']) for what in ("records_removed", "files_removed"))


def same(broker, bucket, topic, partitions=PARTITIONS):
    """Asserts that consumers, pyiceberg and DuckDB see the same rows, and returns them as (partition, offset)."""
    rows = consumed(broker, topic, partitions, starts(broker, topic, partitions))
    table = catalog(broker, bucket).load_table(f"default.{topic}")
    assert rows_of(table) == rows
    query = f"SELECT _kafka_partition, _kafka_offset, value FROM lake.default.{topic} ORDER BY ALL"
    assert duck(broker, bucket).execute(query).fetchall() == [(row[0], row[1], row[5]) for row in rows]
    return [row[:2] for row in rows]


def test_what_is_too_old_goes_for_consumers_and_tables(looking, bucket):
    broker = looking
    create_topic(broker, "orders", PARTITIONS, {"retention.ms": str(DAY_MS)})
    produce(broker, "orders", 10, age_ms=DAY_MS // 2)
    table = catalog(broker, bucket).load_table("default.orders")
    produce(broker, "orders", 5)
    assert len(same(broker, bucket, "orders")) == 15 * PARTITIONS, "nothing is too old"
    # By Kafka's meaning it is from now on: those of half a day ago.
    alter(broker, "orders", retention_ms=DAY_MS // 4)
    until(lambda: set(starts(broker, "orders").values()) == {10}, "log starts at 10")
    assert same(broker, bucket, "orders") == [(partition, offset) for partition in range(PARTITIONS) for offset in range(10, 15)]
    assert removed(broker, "age") == (30, 1)
    # Whoever comes too late is told so, or begins where there is something.
    assert "Offset out of range" in refused(broker, "orders", 3)
    reader = consumer(broker, **{"auto.offset.reset": "earliest"})
    reader.assign([TopicPartition("orders", 0, 3)])
    assert until(lambda: reader.poll(0.2), "a message").offset() == 10
    reader.close()
    # A query that has begun ends.
    assert len(rows_of(table)) == 30
    alter(broker, "orders", retention_ms=1)
    until(lambda: set(starts(broker, "orders").values()) == {15}, "nothing left")
    assert same(broker, bucket, "orders") == []
    produce(broker, "orders", 1, partitions=[1], age_ms=-60_000)
    assert same(broker, bucket, "orders") == [(1, 15)], "offsets go on"


def test_a_partition_that_is_too_large_loses_its_oldest(looking, bucket):
    broker = looking
    create_topic(broker, "orders", PARTITIONS)
    produce(broker, "orders", 10, partitions=[1])
    for _ in range(4):
        produce(broker, "orders", 10, partitions=[0], size=100)
        catalog(broker, bucket).load_table("default.orders")
    # The first file holds records of partition 1, too, which stay: it is rewritten.
    alter(broker, "orders", retention_bytes=2000)
    until(lambda: starts(broker, "orders") == {0: 20, 1: 0, 2: 0}, "what is too much is gone")
    expected = [(0, offset) for offset in range(20, 40)] + [(1, offset) for offset in range(10)]
    assert same(broker, bucket, "orders") == expected
    assert removed(broker, "size")[0] == 20
    broker.restart(kill=True)
    assert same(broker, bucket, "orders") == expected


def test_records_that_are_deleted_leave_no_row_in_a_fresh_table(start_broker, bucket):
    broker = start_broker(bucket)
    create_topic(broker, "orders", PARTITIONS)
    produce(broker, "orders", 30)
    older = catalog(broker, bucket).load_table("default.orders")
    produce(broker, "orders", 10)
    # In a table file, in the log, at its end, and not at all in partition 2.
    client = admin(broker)
    places = [TopicPartition("orders", 0, 17), TopicPartition("orders", 1, -1)]
    for told in client.delete_records(places).values():
        told.result(timeout=SECONDS_MAX)
    expected = [(0, offset) for offset in range(17, 40)] + [(2, offset) for offset in range(40)]
    assert same(broker, bucket, "orders") == expected
    assert "Offset out of range" in refused(broker, "orders", 16)
    assert len(rows_of(older)) == 90, "a query that has begun ends"
    client.delete_records([TopicPartition("orders", 0, 35)])[TopicPartition("orders", 0)].result(timeout=SECONDS_MAX)
    assert same(broker, bucket, "orders") == [row for row in expected if row[0] == 2 or row[1] >= 35]
    broker.restart(kill=True)
    assert same(broker, bucket, "orders") == [row for row in expected if row[0] == 2 or row[1] >= 35]


def test_whoever_kills_the_broker_while_records_go_finds_log_and_table_in_step(looking_here, tmp_bucket):
    broker, bucket = looking_here, tmp_bucket
    create_topic(broker, "orders", PARTITIONS, {"retention.bytes": "1000"})
    seen = dict.fromkeys(range(PARTITIONS), 0)
    for round in range(8):
        # One partition grows faster than the others, so that files are rewritten.
        produce(broker, "orders", 20, partitions=[0], size=100)
        produce(broker, "orders", 5, partitions=[1, 2])
        loading = threading.Thread(target=load, args=(broker,), daemon=True)
        loading.start()
        time.sleep(0.03 * round)
        broker.restart(kill=True)
        loading.join(SECONDS_MAX)
        now = starts(broker, "orders")
        assert all(now[partition] >= seen[partition] for partition in now), "a log start never goes back"
        seen = now
    produce(broker, "orders", 20, partitions=[0], size=100)
    until(lambda: starts(broker, "orders")[0] >= 160, "what is too much is gone")
    rows = same(broker, bucket, "orders")
    assert {offset for partition, offset in rows if partition == 1} == set(range(40)), "nothing else is"


def load(broker):
    """Loads the table, whatever comes of it."""
    try:
        urllib.request.urlopen(f"http://{broker.http}/iceberg/v1/namespaces/default/tables/orders", timeout=SECONDS_MAX).read()
    except OSError:
        pass


def test_compacted_topics_and_those_that_keep_everything_lose_nothing(looking_here, tmp_bucket):
    broker = looking_here
    create_topic(broker, "kept", 1, {"retention.ms": "-1"})
    create_topic(broker, "compacted", 1, {"cleanup.policy": "compact", "retention.ms": "1000"})
    create_topic(broker, "both", 1, {"cleanup.policy": "compact,delete", "retention.ms": "1000"})
    create_topic(broker, "gone", 1, {"retention.ms": "1000"})
    for topic in ("kept", "compacted", "both", "gone"):
        produce(broker, topic, 5, age_ms=DAY_MS, partitions=[0], key=b"k")
    until(lambda: starts(broker, "gone", 1) == {0: 5} and starts(broker, "both", 1) == {0: 5}, "those of others are gone")
    assert starts(broker, "kept", 1) == {0: 0} and starts(broker, "compacted", 1) == {0: 0}


def test_nothing_goes_while_the_clocks_of_broker_and_store_disagree(start_broker, s3_server):
    bucket = Bucket.on_s3(s3_server.endpoint)
    broker = start_broker(bucket, arguments=LOOKS)
    create_topic(broker, "orders", 1)
    produce(broker, "orders", 5, age_ms=DAY_MS, partitions=[0])
    # The store's clock is ten minutes behind.
    s3_server.conduct(clock_shift_seconds=-600)
    produce(broker, "orders", 5, age_ms=DAY_MS, partitions=[0])
    until(lambda: keep_talking(broker) == 1, "retention is paused")
    alter(broker, "orders", retention_ms=1000)
    with urllib.request.urlopen(f"http://{broker.http}/readyz", timeout=SECONDS_MAX) as answer:
        told = json.loads(answer.read())
    assert told["ready"] is True and [one["reason"] for one in told["warnings"]] == ["CLOCK_SKEW"]
    assert "600 s ahead" in told["warnings"][0]["message"] or "599 s ahead" in told["warnings"][0]["message"]
    assert starts(broker, "orders", 1) == {0: 0}
    s3_server.conduct()
    until(lambda: keep_talking(broker) == 0, "it goes on")
    until(lambda: starts(broker, "orders", 1)[0] >= 10, "what is too old is gone")
    assert removed(broker, "age")[0] >= 10


def keep_talking(broker):
    """Produces a record, so that the store tells its time, and says whether retention is paused."""
    produce(broker, "orders", 1, age_ms=DAY_MS, partitions=[0])
    return broker.metrics()["lakebed_retention_paused"]


def test_a_group_that_was_away_too_long_begins_where_there_is_something(looking_here, tmp_bucket):
    broker = looking_here
    create_topic(broker, "orders", 1)
    produce(broker, "orders", 5, age_ms=DAY_MS, partitions=[0])
    settings = {"bootstrap.servers": broker.kafka, "group.id": "away", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    member = Consumer(settings)
    member.subscribe(["orders"])
    first = until(lambda: member.poll(0.2), "a message")
    member.commit(message=first, asynchronous=False)
    member.close()
    alter(broker, "orders", retention_ms=DAY_MS // 2)
    until(lambda: starts(broker, "orders", 1) == {0: 5}, "what is too old is gone")
    produce(broker, "orders", 1, partitions=[0])
    member = Consumer(settings)
    member.subscribe(["orders"])
    message = until(lambda: member.poll(0.2), "a message")
    assert not message.error() and message.offset() == 5, message.error() and KafkaException(message.error())
    member.close()
