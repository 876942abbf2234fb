"""Spark 4.1 with Iceberg's runtime over a broker's tables: by the REST catalog on a directory and on S3, and by the directory alone.

It is large and slow to start: only `tests/run --long` installs it and runs this.
"""

import json
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Producer
from conftest import READY_SECONDS
from kafka_clients import create_topic
from test_tables import PARTITIONS, SECONDS_MAX, ask, consumed, produce

HERE = Path(__file__).parent / "spark"
TOOLS = Path(__file__).parents[1] / ".tools"


class Spark:
    """A session of Spark in a process of its own."""

    def __init__(self, broker, bucket, log):
        warehouse = "" if bucket.endpoint else bucket.url.removeprefix("file://") + "/tables"
        endpoint = f"http://{bucket.endpoint}" if bucket.endpoint else ""
        command = [TOOLS / "spark-venv/bin/python", HERE / "read.py", TOOLS / "spark", f"http://{broker.http}/iceberg", warehouse, endpoint]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"), text=True)
        self.log = log

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-4000:]
        return json.loads(line)

    def rows(self, table, version=None):
        answer = self.ask(table=table, version=version)
        assert "rows" in answer, answer
        return answer["rows"]


@pytest.fixture
def spark(broker, bucket, tmp_path):
    session = Spark(broker, bucket, tmp_path / "spark.log")
    yield session
    session.process.stdin.close()
    session.process.wait(SECONDS_MAX)


def as_spark_says(rows):
    """Rows of `consumed`, with bytes as hexadecimal digits."""
    digits = lambda value: None if value is None else (value.encode() if isinstance(value, str) else value).hex()
    return [[partition, offset, time, [[key, digits(value)] for key, value in headers] if headers else None, digits(key), digits(value)]
            for partition, offset, time, headers, key, value in rows]


def is_json(value):
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def test_spark_reads_every_row_as_a_consumer_gets_it(broker, bucket, spark):
    for topic in ("orders", "Other.Topic", "emptied", "documents"):
        create_topic(broker, topic, PARTITIONS, {"value.format": "json"} if topic == "documents" else {})
    produce(broker, "orders", 0, 600)
    produce(broker, "Other.Topic", 0, 40)
    produce(broker, "documents", 0, 90)
    producer = Producer({"bootstrap.servers": broker.kafka, "message.max.bytes": 20_000_000})
    producer.produce("orders", bytes(range(256)) * 2_000, partition=0)
    assert producer.flush(READY_SECONDS) == 0
    former = spark.rows("lake.default.orders")
    assert former == as_spark_says(consumed(broker, "orders"))
    snapshot = ask(broker, "namespaces/default/tables/orders", {"X-Lakebed-Refresh": "false"})[2]["metadata"]["current-snapshot-id"]
    produce(broker, "orders", 600, 60)
    # A session keeps what it has loaded until it is told.
    spark.ask(sql="REFRESH TABLE lake.default.orders")
    catalogs = ["lake"] if bucket.endpoint else ["lake", "files"]
    for table, topic in (("orders", "orders"), ("other_topic", "Other.Topic"), ("emptied", "emptied")):
        expected = as_spark_says(consumed(broker, topic))
        for catalog in catalogs:
            assert spark.rows(f"{catalog}.default.{table}") == expected, (catalog, table)
    assert spark.rows("lake.default.orders", snapshot) == former
    # What is no JSON stands beside the others.
    raw = "SELECT count(value), count(_kafka_value_raw), count(*) FROM lake.default.documents"
    values = [row[5] for row in consumed(broker, "documents")]
    documents = sum(is_json(value) for value in values if value is not None)
    expected = [documents, sum(value is not None for value in values) - documents, len(values)]
    assert spark.ask(sql=raw)["rows"] == [expected]
    names = {row[1] for row in spark.ask(sql="SHOW TABLES IN lake.default")["rows"]}
    assert names == {"orders", "other_topic", "emptied", "documents"}
    pruned = spark.ask(sql="SELECT count(*) FROM lake.default.orders WHERE _kafka_partition = 1 AND _kafka_offset >= 200")["rows"]
    assert pruned == [[sum(row[0] == 1 and row[1] >= 200 for row in consumed(broker, "orders"))]]
    for change in ("DROP TABLE lake.default.orders", "CREATE TABLE lake.default.mine (a INT)",
                   "INSERT INTO lake.default.emptied SELECT * FROM lake.default.orders", "DELETE FROM lake.default.orders"):
        assert "refused" in spark.ask(sql=change), change
    assert spark.rows("lake.default.orders") == as_spark_says(consumed(broker, "orders"))
