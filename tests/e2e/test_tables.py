"""Topics as tables: what was acknowledged before a query is in it, once and exactly, and consumers are served from the same files.

Readers are DuckDB and pyiceberg, over the broker's catalog and over the bucket alone.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import duckdb
import pytest
from confluent_kafka import Producer, TopicPartition
from kafka_clients import admin, create_topic, read
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import StaticTable

SECONDS_MAX = 60
PARTITIONS = 3
COLUMNS = ("_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_kafka_headers", "key", "value")


def storage(bucket):
    """How pyiceberg reaches the bucket."""
    properties = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
    if bucket.endpoint:
        properties |= {
            "s3.endpoint": f"http://{bucket.endpoint}", "s3.access-key-id": "test", "s3.secret-access-key": "test", "s3.region": "us-east-1",
        }
    return properties


def catalog(broker, bucket):
    return RestCatalog("lakebed", uri=f"http://{broker.http}/iceberg", **storage(bucket))


def duck(broker, bucket):
    """DuckDB with the broker's catalog as `lake`."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name in ("httpfs", "avro", "iceberg"):
        module = __import__(f"duckdb_extension_{name}")
        [extension] = Path(module.__file__).parent.glob(f"extensions/*/{name}.duckdb_extension")
        connection.execute(f"LOAD '{extension}'")
    if bucket.endpoint:
        connection.execute(f"CREATE SECRET (TYPE s3, KEY_ID 'test', SECRET 'test', REGION 'us-east-1', ENDPOINT '{bucket.endpoint}', "
                           "USE_SSL false, URL_STYLE 'path')")
    connection.execute(f"ATTACH 'lakebed' AS lake (TYPE iceberg, ENDPOINT 'http://{broker.http}/iceberg', AUTHORIZATION_TYPE 'none', "
                       "ACCESS_DELEGATION_MODE 'none')")
    return connection


def produce(broker, topic, first, count):
    """Records of every kind, numbered from `first` on: null and empty keys and values, headers that come twice or have no value."""
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 5, "compression.type": "lz4"})
    failures = []
    for number in range(first, first + count):
        key = [None, b"", b"key-%d" % (number % 10)][number % 3]
        value = [None, b"", b'{"number": %d}' % number, bytes([number % 256]) * (number % 700)][number % 4]
        headers = [[], [("trace", b"%d" % number)], [("twice", b"a"), ("twice", None), ("empty", b"")]][number % 3]
        producer.produce(topic, value, key, partition=number % PARTITIONS, timestamp=1_700_000_000_000 + number, headers=headers,
                         on_delivery=lambda error, _: failures.append(error) if error else None)
        producer.poll(0)
    assert producer.flush(SECONDS_MAX) == 0 and failures == []


def consumed(broker, topic, partitions=PARTITIONS, starts=None):
    """What a Kafka consumer gets, as rows of the table."""
    rows = []
    for partition in range(partitions):
        start = (starts or {}).get(partition, 0)
        for message in read(broker, topic, partition, start):
            headers = message.headers()
            rows.append((partition, message.offset(), message.timestamp()[1], [tuple(h) for h in headers] if headers else None,
                         message.key(), message.value()))
    return rows


def rows_of(table, **scan):
    """The rows of a scan by pyiceberg, as `consumed` has them."""
    rows = []
    for row in table.scan(selected_fields=COLUMNS, **scan).to_arrow().to_pylist():
        time_ms = round(row["_kafka_timestamp"].timestamp() * 1000) if row["_kafka_timestamp"] else -1
        headers = [(header["key"], header["value"]) for header in row["_kafka_headers"]] if row["_kafka_headers"] else None
        rows.append((row["_kafka_partition"], row["_kafka_offset"], time_ms, headers, row["key"], row["value"]))
    return sorted(rows, key=lambda row: row[:2])


def test_a_load_shows_all_that_was_acknowledged_before_it(broker, bucket):
    create_topic(broker, "orders", PARTITIONS)
    tables = catalog(broker, bucket)
    empty = tables.load_table("default.orders")
    assert rows_of(empty) == [], "a topic without records is a table without rows"
    produce(broker, "orders", 0, 1000)
    first = tables.load_table("default.orders")
    expected = consumed(broker, "orders")
    assert len(expected) == 1000 and rows_of(first) == expected
    produce(broker, "orders", 1000, 500)
    second = tables.load_table("default.orders")
    assert rows_of(second) == consumed(broker, "orders")
    # Nothing new: the same version. And an older snapshot shows what it showed.
    assert tables.load_table("default.orders").metadata_location == second.metadata_location
    assert rows_of(second, snapshot_id=first.current_snapshot().snapshot_id) == expected
    assert len(rows_of(first)) == 1000
    assert tables.list_tables("default") == [("default", "orders")]
    # DuckDB over the catalog, and over the bucket alone.
    connection = duck(broker, bucket)
    query = "SELECT count(*), count(key), count(value), sum(octet_length(value)), max(_kafka_offset) FROM "
    rows = consumed(broker, "orders")
    answer = (len(rows), sum(row[4] is not None for row in rows), sum(row[5] is not None for row in rows),
              sum(len(row[5] or b"") for row in rows), max(row[1] for row in rows))
    assert connection.execute(query + "lake.default.orders").fetchone() == answer
    location = second.metadata.location
    assert connection.execute(query + f"iceberg_scan('{location}')").fetchone() == answer
    assert connection.execute(query + f"read_parquet('{location}/data/*.parquet')").fetchone() == answer
    static = StaticTable.from_metadata(second.metadata_location, storage(bucket))
    assert rows_of(static, row_filter="_kafka_partition = 1") == [row for row in rows if row[0] == 1]


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_the_first_query_of_duckdb_shows_all_that_was_acknowledged_before_it(broker, bucket):
    # It looks for the snapshot of the time at which its transaction began, and its own load of the table makes a later one.
    create_topic(broker, "orders", PARTITIONS)
    connection, counted = duck(broker, bucket), []
    for number in range(5):
        produce(broker, "orders", 30 * number, 30)
        counted.append(connection.execute("SELECT count(*) FROM lake.default.orders").fetchone()[0])
    assert counted == [30, 60, 90, 120, 150]


def test_consumers_are_served_from_table_files_which_are_the_only_copy(broker, bucket):
    create_topic(broker, "orders", PARTITIONS)
    produce(broker, "orders", 0, 3000)
    before = consumed(broker, "orders")
    catalog(broker, bucket).load_table("default.orders")
    broker.restart(kill=True)
    metrics = broker.metrics()
    assert metrics["lakebed_log_live_runs"] == PARTITIONS and metrics["lakebed_log_live_objects"] == 1
    assert consumed(broker, "orders") == before
    # From the middle, and with what comes later in the log again.
    starts = {0: 7, 1: 999, 2: 500}
    produce(broker, "orders", 3000, 300)
    after = consumed(broker, "orders", starts=starts)
    assert after == [row for row in consumed(broker, "orders") if row[1] >= starts[row[0]]]
    assert rows_of(catalog(broker, bucket).load_table("default.orders")) == consumed(broker, "orders")
    assert broker.metrics()["lakebed_compaction_failures_total"] == 0


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_whoever_kills_the_broker_while_tables_are_made_loses_nothing(broker, bucket):
    create_topic(broker, "orders", PARTITIONS)
    sent = 0
    for round in range(6):
        produce(broker, "orders", sent, 400)
        sent += 400
        asking = threading.Thread(target=ask, args=(broker, "namespaces/default/tables/orders"), daemon=True)
        asking.start()
        time.sleep(0.004 * round)
        broker.restart(kill=True)
        asking.join(SECONDS_MAX)
    rows = rows_of(catalog(broker, bucket).load_table("default.orders"))
    assert rows == consumed(broker, "orders")
    assert sorted(row[:2] for row in rows) == [(partition, offset) for partition in range(PARTITIONS) for offset in range(sent // PARTITIONS)]


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_deleted_topic_is_no_table_and_its_successor_another(broker, bucket):
    create_topic(broker, "orders.v1", PARTITIONS)
    produce(broker, "orders.v1", 0, 30)
    tables = catalog(broker, bucket)
    former = tables.load_table("default.orders_v1")
    client = admin(broker)
    client.delete_topics(["orders.v1"])["orders.v1"].result(timeout=SECONDS_MAX)
    with pytest.raises(NoSuchTableError):
        tables.load_table("default.orders_v1")
    # A query that runs still reads what it began with.
    assert len(rows_of(former)) == 30
    create_topic(broker, "orders.v1", PARTITIONS)
    produce(broker, "orders.v1", 100, 3)
    successor = tables.load_table("default.orders_v1")
    assert successor.metadata.table_uuid != former.metadata.table_uuid
    assert rows_of(successor) == consumed(broker, "orders.v1")
    version = lambda table: int(Path(table.metadata_location).name.removeprefix("v").split(".")[0])
    assert version(successor) > version(former)


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_records_that_are_deleted_leave_the_table(broker, bucket):
    create_topic(broker, "orders", 1)
    producer = Producer({"bootstrap.servers": broker.kafka})
    tables = catalog(broker, bucket)
    for number in range(3):
        for _ in range(10):
            producer.produce("orders", b"%d" % number)
        assert producer.flush(SECONDS_MAX) == 0
        before = tables.load_table("default.orders")
    client = admin(broker)
    client.delete_records([TopicPartition("orders", 0, 15)])[TopicPartition("orders", 0)].result()
    table = tables.load_table("default.orders")
    assert [row[1] for row in rows_of(table)] == list(range(15, 30))
    assert len(rows_of(before)) == 30


def ask(broker, path, headers=None):
    """Status, headers and JSON of an answer of the catalog; nothing if the broker goes away."""
    request = urllib.request.Request(f"http://{broker.http}/iceberg/v1/{path}", headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())
    except (OSError, ValueError):
        return None


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_load_may_be_content_with_what_was_published(broker, bucket):
    create_topic(broker, "orders", PARTITIONS)
    produce(broker, "orders", 0, 30)
    fresh, _, told = ask(broker, "namespaces/default/tables/orders")
    produce(broker, "orders", 30, 30)
    _, headers, old = ask(broker, "namespaces/default/tables/orders", {"X-Lakebed-Refresh": "false"})
    assert (fresh, old["metadata-location"]) == (200, told["metadata-location"])
    assert ask(broker, "namespaces/default/tables/orders")[2]["metadata-location"] != told["metadata-location"]
    assert headers["etag"]


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_many_who_ask_at_once_share_refreshes(broker, bucket):
    create_topic(broker, "orders", PARTITIONS)
    produce(broker, "orders", 0, 300)
    answers = []
    asking = [threading.Thread(target=lambda: answers.append(ask(broker, "namespaces/default/tables/orders"))) for _ in range(24)]
    for one in asking:
        one.start()
    for one in asking:
        one.join(SECONDS_MAX)
    assert [status for status, _, _ in answers] == [200] * 24
    assert len({told["metadata-location"] for _, _, told in answers}) == 1
    assert broker.metrics()["lakebed_compaction_compactions_total"] == 1
