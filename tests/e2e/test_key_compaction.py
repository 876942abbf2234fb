"""cleanup.policy=compact: of each key the last record stays, at its offset, for consumers and for the table alike."""

import json
import os
import random
import subprocess
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from conftest import Broker, RereadBroker
from kafka_clients import admin, create_topic, kcat, line
from reflected import Refused, Server
from test_demo import answer, installed  # noqa: F401
from test_grpc_consume import optional, rows_of_arrow, to_the_end
from test_java import java
from test_tables import catalog, duck

SECONDS_MAX = 60
TOPIC = "consume"
SEED = 41
# As soon as anything is dirty.
EAGER = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0"}
# The last value of every key, whatever was cleaned; docs/tables.md has it, too.
CURRENT = """
SELECT decode(key), decode(value) FROM (
  SELECT key, value, row_number() OVER (PARTITION BY _kafka_partition, key ORDER BY _kafka_offset DESC) AS age
  FROM {} WHERE key IS NOT NULL
) WHERE age = 1 AND value IS NOT NULL
"""


@pytest.fixture(params=[Broker, RereadBroker], ids=["tail", "no-tail"])
def keeper(request, start_broker, tmp_bucket):
    return start_broker(tmp_bucket, kind=request.param)


def wait_until(condition, what):
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def produce(broker, records, partition=0):
    """Produces (key, value) one after another."""
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 5})
    failures = []
    for key, value in records:
        producer.produce(TOPIC, value, key, partition=partition, on_delivery=lambda error, _: failures.append(error) if error else None)
        producer.poll(0)
    assert producer.flush(SECONDS_MAX) == 0
    return failures


def consumed(broker, start=0, partition=0):
    """(offset, key, value) of what a consumer gets from an offset to the end of the partition."""
    reader = Consumer({"bootstrap.servers": broker.kafka, "group.id": "reader", "enable.auto.commit": False, "enable.partition.eof": True,
                       "auto.offset.reset": "error", "check.crcs": True})
    try:
        reader.assign([TopicPartition(TOPIC, partition, start)])
        found, deadline = [], time.monotonic() + SECONDS_MAX
        while True:
            assert time.monotonic() < deadline, found
            message = reader.poll(0.2)
            if message is None:
                continue
            if message.error():
                if message.error().code() == KafkaError._PARTITION_EOF:
                    return found
                raise KafkaException(message.error())
            found.append((message.offset(), message.key(), message.value()))
    finally:
        reader.close()


def compacted(broker, bucket):
    """Loads the table, so that everything is in its files, and waits until nothing of it is dirty."""
    before = broker.metrics()["lakebed_key_compactions_total"]
    catalog(broker, bucket).load_table(f"default.{TOPIC}")
    wait_until(lambda: broker.metrics()["lakebed_key_compactions_total"] > before, "keys are compacted")
    assert broker.metrics()["lakebed_key_compaction_failures_total"] == 0


def last_of(records):
    """What is left of (key, value) one after another: offset, key, value."""
    last = {key: (offset, key, value) for offset, (key, value) in enumerate(records)}
    return sorted(last.values())


def drawn(seed, count, keys=50):
    dice = random.Random(seed)
    return [(b"key %d" % dice.randrange(keys), None if dice.random() < 0.2 else b"value %d" % n * dice.randrange(1, 40)) for n in range(count)]


def test_every_client_reads_a_cleaned_topic_from_every_offset(keeper, tmp_bucket):
    create_topic(keeper, TOPIC, config=EAGER)
    records = drawn(SEED, 3000)
    assert produce(keeper, records) == []
    compacted(keeper, tmp_bucket)
    keeper.before_reading()
    expected = last_of(records)
    assert len(expected) == 50 and expected[0][0] > 0
    assert consumed(keeper) == expected
    places = [0, 1, expected[0][0], *(offset + 1 for offset, _, _ in expected[::9]), expected[-1][0], 2999, 3000]
    for start in places:
        assert consumed(keeper, start) == [record for record in expected if record[0] >= start], start
    told = kcat(keeper, "-C", "-t", TOPIC, "-p", "0", "-o", "beginning", "-e", "-q", "-f", "%o %k\n").decode()
    assert told.split("\n")[:-1] == [f"{offset} {key.decode()}" for offset, key, _ in expected]
    words = [told.split()[0] + " " + " ".join(told.split()[2:]) for told in java("consume", keeper.kafka, TOPIC)]
    assert words == [f"{offset} {line(0, key, value).split(maxsplit=1)[1]}" for offset, key, value in expected]
    with Server(keeper) as server:
        for start in places:
            wanted = [record for record in expected if record[0] >= start]
            begin = {"partitions": [{"partition": 0, "start": {"offset": start}}], "stop": {"latest": True}}
            rows = [(record.offset, record.key, optional(record, "value")) for answer in to_the_end(server, **begin)
                    if answer.HasField("batch") for record in answer.batch.records.records]
            assert rows == wanted, start
            arrow = [(row[1], row[5], row[6]) for answer in to_the_end(server, format="FORMAT_ARROW_IPC", **begin)
                     if answer.HasField("batch") for row in rows_of_arrow(answer.batch)]
            assert arrow == wanted, start
            told = to_the_end(server, format="FORMAT_KAFKA_BATCHES", **begin)
            assert [answer.partition_end.next_offset for answer in told if answer.HasField("partition_end")] == [3000]
            # One call at a time: each says where to go on, and it always goes on.
            at, found = start, []
            while at < 3000:
                fetched = server.call("ConsumeService/Fetch", topic=TOPIC, partition=0, offset=at, max_bytes=2000)
                assert fetched.next_offset > at
                found += [(record.offset, record.key, optional(record, "value")) for record in fetched.records.records]
                at = fetched.next_offset
            assert found == wanted, start
        [segment] = server.call("AdminService/ListSegments", topic=TOPIC).segments
        assert (segment.base_offset, segment.last_offset, segment.row_count) == (0, 2999, 50)
    client = admin(keeper)
    assert client.list_topics(TOPIC, timeout=SECONDS_MAX).topics[TOPIC].error is None


def test_what_comes_later_is_compacted_with_what_is_clean_and_the_table_has_the_state(keeper, tmp_bucket, lakebed, installed):
    create_topic(keeper, TOPIC, partitions=2, config={"cleanup.policy": "compact"})
    written = {0: [], 1: []}
    for round_ in range(6):
        for partition in written:
            fresh = drawn((SEED, round_, partition).__hash__(), 300, keys=40)
            assert produce(keeper, fresh, partition) == []
            written[partition] += fresh
        catalog(keeper, tmp_bucket).load_table(f"default.{TOPIC}")
    wait_until(lambda: keeper.metrics()["lakebed_key_compactions_total"] > 0, "something is cleaned")
    # Not cleaned yet.
    for partition in written:
        fresh = drawn((SEED, 9, partition).__hash__(), 20, keys=40)
        assert produce(keeper, fresh, partition) == []
        written[partition] += fresh
    keeper.before_reading()
    state = set()
    for partition, records in written.items():
        found = consumed(keeper, 0, partition)
        assert all(records[offset] == (key, value) for offset, key, value in found)
        values = {key: value for _, key, value in found}
        assert {key: value for key, value in values.items() if value is not None} == \
            {key: value for _, key, value in last_of(records) if value is not None}
        state |= {(partition, key.decode(), value.decode()) for _, key, value in last_of(records) if value is not None}
    table = catalog(keeper, tmp_bucket).load_table(f"default.{TOPIC}")
    for source in (f"lake.default.{TOPIC}", f"iceberg_scan('{table.metadata.location}')"):
        rows = duck(keeper, tmp_bucket).execute(CURRENT.format(source)).fetchall()
        assert sorted(rows) == sorted((key, value) for _, key, value in state)
    # And as `lakebed sql` prints it.
    told = lakebed("sql", TOPIC, "--server", keeper.http, "--engine", "duckdb", "-o", "json")
    assert told.returncode == 0, told.stderr
    [printed] = [one["text"] for one in json.loads(told.stdout)["statements"] if one["way"] == "state"]
    rows = answer(installed, printed.replace("SELECT *, row_number", "SELECT key, value, row_number").replace("SELECT * FROM (", "SELECT key, value FROM ("))
    assert sorted((key.decode(), value.decode()) for key, value in rows) == sorted((key, value) for _, key, value in state)
    rows = table.scan(selected_fields=("_kafka_partition", "_kafka_offset", "key", "value")).to_arrow().to_pylist()
    for partition in written:
        of_partition = sorted((row["_kafka_offset"], row["key"], row["value"]) for row in rows if row["_kafka_partition"] == partition)
        assert of_partition == consumed(keeper, 0, partition), "the table has what a consumer gets, and nothing twice"
    metrics = keeper.metrics()
    bytes_in = sum(len(key) + len(value or b"") for records in written.values() for key, value in records)
    if metrics["lakebed_key_compactions_total"]:
        assert metrics["lakebed_key_compaction_read_bytes_total"] <= 3 * bytes_in, "1 + 1 / ratio at most"


def test_tombstones_go_after_their_time(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, config={**EAGER, "delete.retention.ms": "0"})
    assert produce(broker, [(b"a", b"1"), (b"b", b"1"), (b"a", None)]) == []
    compacted(broker, tmp_bucket)
    assert consumed(broker) == [(1, b"b", b"1"), (2, b"a", None)], "it was compacted for the first time now"
    assert produce(broker, [(b"c", b"1")]) == []
    compacted(broker, tmp_bucket)
    assert consumed(broker) == [(1, b"b", b"1"), (3, b"c", b"1")]


def test_a_record_without_a_key_is_refused_and_those_from_before_go(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    assert produce(broker, [(None, b"before"), (b"a", b"1"), (b"a", b"2")]) == []
    client = admin(broker)

    def policy(value):
        entries = [ConfigEntry(name, text, incremental_operation=AlterConfigOpType.SET) for name, text in {**EAGER, "cleanup.policy": value}.items()]
        resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=entries)
        for future in client.incremental_alter_configs([resource], request_timeout=SECONDS_MAX).values():
            future.result(timeout=SECONDS_MAX)

    policy("compact,delete")
    assert [error.code() for error in produce(broker, [(None, b"x")])] == [KafkaError.INVALID_RECORD]
    with Server(broker) as server:
        with pytest.raises(Refused) as refused:
            server.call("ProduceService/Produce", topic=TOPIC, partition=0, records={"records": [{"key": b"k", "value": b"v"}, {"value": b"x"}]})
        assert refused.value.reason == "CORRUPT_BATCH" and "record 1 has no key" in str(refused.value)
    compacted(broker, tmp_bucket)
    assert consumed(broker) == [(2, b"a", b"2")]
    policy("delete")
    assert produce(broker, [(None, b"after")]) == []
    assert consumed(broker) == [(2, b"a", b"2"), (3, None, b"after")]


def test_a_broker_that_is_killed_while_it_cleans_loses_nothing(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, config=EAGER)
    records = []
    for round_ in range(4):
        fresh = drawn(SEED + round_, 4000, keys=300)
        assert produce(broker, fresh) == []
        records += fresh
        # Killed somewhere between the load, which puts all into table files, and the end of the cleaning after it.
        asking = threading.Thread(target=lambda: ask_for_table(broker))
        asking.start()
        asking.join(SECONDS_MAX)
        broker.restart(kill=True)
        values = {key: value for _, key, value in consumed(broker)}
        expected = {key: value for _, key, value in last_of(records)}
        assert {key: value for key, value in values.items() if value is not None} == \
            {key: value for key, value in expected.items() if value is not None}
    produce(broker, [(b"last", b"one")])
    compacted(broker, tmp_bucket)
    wait_until(lambda: len(consumed(broker)) == len(last_of(records)) + 1, "all is clean")
    assert consumed(broker)[:-1] == last_of(records)


def ask_for_table(broker):
    command = ["curl", "-s", "-o", "/dev/null", f"http://{broker.http}/iceberg/v1/namespaces/default/tables/{TOPIC}"]
    subprocess.run(command, timeout=SECONDS_MAX, check=False, env=dict(os.environ))
