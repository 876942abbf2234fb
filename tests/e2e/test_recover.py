"""Disaster: the log and its checkpoints are lost, and a cluster is made anew of the tables alone.

What consumers got before is compared record by record with what they get afterwards, and with DuckDB on the same files.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from conftest import BINARY
from kafka_clients import admin, consumer, create_topic
from schema import check_json
from test_key_compaction import CURRENT, EAGER, TOPIC, compacted, drawn, wait_until
from test_key_compaction import consumed as keyed_consumed
from test_key_compaction import produce as keyed
from test_tables import catalog, consumed, duck, produce, rows_of

SECONDS_MAX = 60


def root_of(bucket):
    return Path(bucket.url.removeprefix("file://"))


def lose_all_but_tables(bucket):
    """Deletes every object that is not below tables/."""
    if bucket.endpoint is None:
        for path in root_of(bucket).iterdir():
            if path.name != "tables":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    import boto3

    name, prefix = bucket.url.removeprefix("s3://").split("/", 1)
    client = boto3.resource("s3", endpoint_url=f"http://{bucket.endpoint}", region_name="us-east-1",
                            aws_access_key_id="test", aws_secret_access_key="test")
    for item in client.Bucket(name).objects.filter(Prefix=prefix):
        if not item.key.startswith(f"{prefix}/tables/"):
            item.delete()


def recover(lakebed, bucket, *arguments, code=0):
    result = lakebed("recover", bucket.url, "-o", "json", *arguments, env=bucket.environment)
    assert result.returncode == code, (result.stdout, result.stderr)
    return check_json(result.stdout, "recovered") if result.stdout else check_json(result.stderr, "error")["error"]


@pytest.fixture
def lost(start_broker, bucket, lakebed):
    """What consumers got of a cluster of which only tables/ is left: {topic: rows}; and the tables' versions."""
    broker = start_broker(bucket)
    got, versions = {}, {}
    for topic, partitions in (("orders", 3), ("Odd.Name", 3), ("empty", 1)):
        create_topic(broker, topic, partitions)
        for first in (0, 300, 600) if topic != "empty" else ():
            produce(broker, topic, first, 300)
            catalog(broker, bucket).load_table(f"default.{topic.lower().replace('.', '_')}")
        table = catalog(broker, bucket).load_table(f"default.{topic.lower().replace('.', '_')}")
        versions[topic] = int(Path(table.metadata_location).name.removeprefix("v").split(".")[0])
        got[topic] = consumed(broker, topic, partitions)
    cluster = json.loads(lakebed("cluster", "info", "--server", broker.http, "-o", "json").stdout)["cluster_id"]
    broker.stop()
    lose_all_but_tables(bucket)
    return got, versions, cluster


def test_a_cluster_is_recovered_from_its_tables_and_goes_on(lost, start_broker, bucket, lakebed, tmp_path):
    got, versions, cluster = lost
    dry = recover(lakebed, bucket, "--dry-run")
    assert not dry["written"] and {topic["name"] for topic in dry["topics"]} == set(got)
    assert not any(key.startswith(("cells/", "lakebed")) for key in bucket.objects(tmp_path / "seen")), "nothing was written"
    recovered = recover(lakebed, bucket)
    assert recovered["written"] and recovered["cluster_id"] == cluster and recovered["left_out"] == recovered["damaged"] == []
    for topic in recovered["topics"]:
        assert topic["row_count"] == len(got[topic["name"]])
        assert topic["table_version"] == versions[topic["name"]] + 1
    again = recover(lakebed, bucket, code=4)
    assert again["code"] == "LOG_STANDS" and "lakebed.json" in again["cause"]
    assert lakebed("storage", "scrub", bucket.url, env=bucket.environment).returncode == 0
    broker = start_broker(bucket)
    for topic, rows in got.items():
        assert consumed(broker, topic, 3 if rows else 1) == rows
    # Tables go on, with what is produced from here on behind the last offset.
    produce(broker, "orders", 900, 30)
    after = consumed(broker, "orders")
    assert after[:300] == got["orders"][:300] and len(after) == 930
    assert sorted(row[:2] for row in after) == [(partition, offset) for partition in range(3) for offset in range(310)]
    table = catalog(broker, bucket).load_table("default.orders")
    assert rows_of(table) == after
    assert int(Path(table.metadata_location).name.removeprefix("v").split(".")[0]) > versions["orders"]
    connection = duck(broker, bucket)
    query = f"SELECT count(*), count(DISTINCT (_kafka_partition, _kafka_offset)) FROM iceberg_scan('{table.metadata.location}')"
    assert connection.execute(query).fetchone() == (930, 930)
    # The log that was made is one like others: it is opened again, also after a crash.
    broker.restart(kill=True)
    assert consumed(broker, "orders") == after


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_recovery_that_is_killed_is_begun_again(lost, start_broker, bucket, lakebed):
    got, _, _ = lost
    root, kills = root_of(bucket), 0
    for tenth in range(40):
        process = subprocess.Popen([BINARY, "recover", bucket.url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.002 * tenth)
        process.kill()
        process.wait()
        kills += 1
        if (root / "lakebed.json").exists():
            break
    if not (root / "lakebed.json").exists():
        assert recover(lakebed, bucket)["written"]
    assert recover(lakebed, bucket, code=4)["code"] == "LOG_STANDS" and kills >= 1
    broker = start_broker(bucket)
    for topic, rows in got.items():
        assert consumed(broker, topic, 3 if rows else 1) == rows


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_what_stands_of_a_log_is_left_alone(lost, bucket, lakebed):
    log = root_of(bucket) / "cells/0/log/0000000003-00000000deadbeef/000000000000.parquet"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"somebody's records")
    assert recover(lakebed, bucket, code=4)["code"] == "LOG_STANDS"
    # Not even with the mark of a recovery beside it, which may be of one that came to its end.
    (root_of(bucket) / "lakebed-recovery.json").write_text("0000000000-0000000000000001\n")
    assert recover(lakebed, bucket, code=4)["code"] == "LOG_STANDS"
    assert log.read_bytes() == b"somebody's records" and not (root_of(bucket) / "lakebed.json").exists()


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_superseded_files_that_still_stand_give_no_row_twice(start_broker, bucket, lakebed):
    broker = start_broker(bucket)
    create_topic(broker, "orders", 3)
    table = root_of(bucket) / "tables/default/orders"
    for first in range(0, 600, 60):
        produce(broker, "orders", first, 60)
        catalog(broker, bucket).load_table("default.orders")

    def live():
        listed = lakebed("topic", "files", "orders", "--server", broker.http, "-o", "json").stdout
        return {Path(file["uri"]).name for file in json.loads(listed)["files"] if file["kind"] == "table"}

    # Ten small files are more than are left as they are.
    deadline = time.monotonic() + SECONDS_MAX
    while len(live()) >= 8:
        assert time.monotonic() < deadline, live()
    catalog(broker, bucket).load_table("default.orders")
    got = consumed(broker, "orders")
    standing = {path.name for path in (table / "data").iterdir()}
    assert len(got) == 600 and live() < standing, "superseded files stand beside"
    broker.stop()
    # Without metadata only the files can tell.
    for metadata in (True, False):
        lose_all_but_tables(bucket)
        if not metadata:
            shutil.rmtree(table / "metadata")
        recovered = recover(lakebed, bucket)
        [topic] = recovered["topics"]
        assert topic["row_count"] == 600 and recovered["left_out"] == [] and topic["superseded_count"] > 0
        broker = start_broker(bucket)
        assert consumed(broker, "orders") == got
        assert rows_of(catalog(broker, bucket).load_table("default.orders")) == got
        broker.stop()


def described(lakebed, broker, topic):
    return json.loads(lakebed("topic", "describe", topic, "--server", broker.http, "-o", "json").stdout)


def lose(broker, bucket):
    broker.stop()
    lose_all_but_tables(bucket)


def told(lakebed, broker, topic):
    """Settings, and (partition, earliest offset, latest offset) of each partition."""
    about = described(lakebed, broker, topic)
    return about["config"], [(one["partition"], one["earliest_offset"], one["latest_offset"]) for one in about["partitions"]]


def test_topics_come_back_with_their_partitions_and_settings(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    kept = {
        "events": (7, {"cleanup.policy": "delete", "retention.ms": "31536000000", "retention.bytes": "1000000000", "value.format": "json",
                       "table.partition.by": "day", "table.bloom.filter": "true", "max.message.bytes": "2000000"}),
        "plain": (2, {}),
        "trimmed": (3, {"message.timestamp.type": "CreateTime"}),
        "nothing": (4, {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.3"}),
    }
    for topic, (partitions, config) in kept.items():
        create_topic(broker, topic, partitions, config=config)
    for topic in ("events", "plain", "trimmed"):
        produce_to(broker, topic, {0: 40, 1: 30})
    # All records of a partition are deleted, and some of another, in the middle of a file.
    client = admin(broker)
    cuts = [TopicPartition("trimmed", 0, 40), TopicPartition("trimmed", 1, 11)]
    for done in client.delete_records(cuts).values():
        done.result(timeout=SECONDS_MAX)
    before = {}
    for topic, (partitions, _) in kept.items():
        catalog(broker, tmp_bucket).load_table(f"default.{topic}")
        before[topic] = (told(lakebed, broker, topic), plainly_consumed(broker, topic, partitions))
    assert before["trimmed"][0][1] == [(0, 40, 40), (1, 11, 30), (2, 0, 0)] and len(before["events"][0][1]) == 7
    assert before["plain"][0][0].get("retention.ms") is None
    lose(broker, tmp_bucket)
    recovered = recover(lakebed, tmp_bucket)
    for topic in recovered["topics"]:
        assert topic["notes"] == [] and topic["config"] == kept[topic["name"]][1]
    broker = start_broker(tmp_bucket)
    for topic, (partitions, _) in kept.items():
        assert (told(lakebed, broker, topic), plainly_consumed(broker, topic, partitions)) == before[topic], topic
    # What is produced goes on behind what was there, also where everything had been deleted.
    produce_to(broker, "trimmed", {0: 2, 1: 2, 2: 2})
    assert told(lakebed, broker, "trimmed")[1] == [(0, 40, 42), (1, 11, 32), (2, 0, 2)]
    table = catalog(broker, tmp_bucket).load_table("default.trimmed")
    assert sorted(row[:2] for row in rows_of(table)) == sorted((p, o) for p, (first, end) in enumerate([(40, 42), (11, 32), (0, 2)]) for o in range(first, end))


def newest_metadata(bucket, table):
    return max((root_of(bucket) / f"tables/default/{table}/metadata").glob("v*.json"), key=lambda path: int(path.name[1:].split(".")[0]))


@pytest.mark.parametrize("case", ["changed", "none", "unreadable"])
def test_settings_that_can_not_be_believed_are_left_out_and_that_is_said(start_broker, tmp_bucket, lakebed, case):
    broker = start_broker(tmp_bucket)
    create_topic(broker, "orders", 5, config={"retention.ms": "3600000", "value.format": "string"})
    produce_to(broker, "orders", {0: 5, 2: 7})
    catalog(broker, tmp_bucket).load_table("default.orders")
    got = plainly_consumed(broker, "orders", 5)
    lose(broker, tmp_bucket)
    path = newest_metadata(tmp_bucket, "orders")
    metadata = json.loads(path.read_text())
    assert metadata["properties"]["lakebed.partitions"] == "5" and metadata["properties"]["lakebed.config.retention.ms"] == "3600000"
    if case == "changed":
        metadata["properties"]["lakebed.config.retention.ms"] = "1"
    else:
        metadata["properties"] = {name: value for name, value in metadata["properties"].items() if not name.startswith("lakebed.")}
    path.write_text("{" if case == "unreadable" else json.dumps(metadata))
    recovered = recover(lakebed, tmp_bucket)
    [topic] = recovered["topics"]
    [note] = topic["notes"]
    assert "retention.ms=-1" in note and {"changed": "lakebed.seal", "none": "no property lakebed.seal", "unreadable": "can't be used"}[case] in note
    assert topic["config"] == {"retention.ms": "-1", "retention.bytes": "-1", "value.format": "string"} and len(topic["partitions"]) == 3
    assert topic["table_version"] > int(path.name[1:].split(".")[0])
    broker = start_broker(tmp_bucket)
    assert plainly_consumed(broker, "orders", 3) == got
    table = catalog(broker, tmp_bucket).load_table("default.orders")
    assert len(rows_of(table)) == len(got)


def produce_to(broker, topic, counts):
    """So many records with a key and a JSON value to each partition."""
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 5})
    failures = []
    for partition, count in counts.items():
        for number in range(count):
            producer.produce(topic, b'{"n": %d}' % number, b"key %d" % (number % 10), partition=partition,
                             on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(SECONDS_MAX) == 0 and failures == []


def plainly_consumed(broker, topic, partitions):
    """(partition, offset, key, value) from the beginning of each partition to its end, in order; offsets may have gaps."""
    # A fetch that waits for more at the end of all partitions would only cost time.
    reader = consumer(broker, **{"enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50})
    rows, ended, deadline = [], set(), time.monotonic() + SECONDS_MAX
    try:
        reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
        while len(ended) < partitions:
            assert time.monotonic() < deadline, (ended, rows)
            message = reader.poll(0.2)
            if message is not None and message.error():
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
            elif message is not None:
                rows.append((message.partition(), message.offset(), message.key(), message.value()))
    finally:
        reader.close()
    in_order = sorted(rows, key=lambda row: row[0])
    assert all(one[1] < next_[1] for one, next_ in zip(in_order, in_order[1:]) if one[0] == next_[0])
    return in_order


@pytest.mark.parametrize("metadata", [True, False], ids=["metadata", "files alone"])
def test_compacted_topics_come_back_with_their_gaps(start_broker, tmp_bucket, lakebed, metadata):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, 2, config=EAGER)
    for round_ in range(3):
        for partition in (0, 1):
            assert keyed(broker, drawn((round_, partition).__hash__(), 400), partition) == []
        compacted(broker, tmp_bucket)
    # The last offset of all is of a record that is superseded later, but for the last one: the log ends where it did.
    assert keyed(broker, [(b"late", b"1"), (b"late", None)], 0) == []
    catalog(broker, tmp_bucket).load_table(f"default.{TOPIC}")
    wait_until(lambda: 1200 not in [offset for offset, _, _ in keyed_consumed(broker)], "the rest is compacted too")
    catalog(broker, tmp_bucket).load_table(f"default.{TOPIC}")
    before = {partition: keyed_consumed(broker, partition=partition) for partition in (0, 1)}
    assert all(0 < len(rows) < 200 for rows in before.values()) and before[0][-1][0] == 1201
    ends = told(lakebed, broker, TOPIC)
    state = sorted(duck(broker, tmp_bucket).execute(CURRENT.format(f"lake.default.{TOPIC}")).fetchall())
    lose(broker, tmp_bucket)
    if not metadata:
        shutil.rmtree(root_of(tmp_bucket) / f"tables/default/{TOPIC}/metadata")
    recovered = recover(lakebed, tmp_bucket)
    [topic] = recovered["topics"]
    assert topic["row_count"] == sum(map(len, before.values())) and recovered["left_out"] == recovered["damaged"] == recovered["missing"] == []
    assert lakebed("storage", "scrub", tmp_bucket.url).returncode == 0
    broker = start_broker(tmp_bucket)
    for partition, rows in before.items():
        assert keyed_consumed(broker, partition=partition) == rows
        for start in (0, 1, rows[1][0], rows[1][0] + 1, rows[-1][0]):
            assert keyed_consumed(broker, start, partition) == [row for row in rows if row[0] >= start]
    if metadata:
        assert told(lakebed, broker, TOPIC) == ends
    else:
        assert told(lakebed, broker, TOPIC)[1] == ends[1] and "nothing expires" in topic["notes"][0] and "cleanup.policy" in topic["notes"][1]
        alter(broker, TOPIC, EAGER)
    assert sorted(duck(broker, tmp_bucket).execute(CURRENT.format(f"lake.default.{TOPIC}")).fetchall()) == state
    # Compaction goes on with what it finds clean.
    fresh = drawn(77, 300)
    assert keyed(broker, fresh, 0) == []
    compacted(broker, tmp_bucket)
    last = {key: (offset, key, value) for offset, key, value in before[0]}
    last |= {key: (1202 + number, key, value) for number, (key, value) in enumerate(fresh)}
    wait_until(lambda: len(keyed_consumed(broker)) <= len(last), "all of it is compacted")
    assert keyed_consumed(broker) == sorted(last.values())
    broker.restart(kill=True)
    assert keyed_consumed(broker) == sorted(last.values())


def alter(broker, topic, config):
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    # The client must outlive its answer.
    client = admin(broker)
    client.incremental_alter_configs([resource])[resource].result(timeout=SECONDS_MAX)


@pytest.mark.parametrize("stands", ["a table", "a log", "both", "a recovery"])
def test_no_broker_begins_an_empty_cluster_beside_what_is_left_of_another(start_broker, tmp_bucket, lakebed, stands):
    broker = start_broker(tmp_bucket)
    create_topic(broker, "orders", 3)
    produce(broker, "orders", 0, 30)
    catalog(broker, tmp_bucket).load_table("default.orders")
    got = consumed(broker, "orders")
    broker.stop()
    root = root_of(tmp_bucket)
    lost = root.parent / "lost"
    lost.mkdir()
    (root / "lakebed.json").rename(lost / "lakebed.json")
    if stands in ("a table", "a recovery"):
        (root / "cells").rename(lost / "cells")
    if stands == "a log":
        (root / "tables").rename(lost / "tables")
    if stands == "a recovery":
        (root / "lakebed-recovery.json").write_text("0000000000-0000000000000001 0000000001-0000000000000002\n")
    before = sorted(str(path) for path in root.rglob("*") if path.is_file())
    for verb in ("serve", "dev"):
        refused = subprocess.run([BINARY, verb, "--store", tmp_bucket.url, "--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "-o", "json"],
                                 capture_output=True, text=True, timeout=SECONDS_MAX, env=tmp_bucket.environment)
        assert refused.returncode == 1, refused
        error = check_json(refused.stderr.splitlines()[-1], "error")["error"]
        assert error["code"] == "ROOT_LOST" and "lakebed.json is missing" in error["cause"], error
        assert ("tables/default/orders/" in error["cause"]) == (stands != "a log")
        assert ("cells/0/" in error["cause"]) == (stands in ("a log", "both"))
        assert ("lakebed recover" in error["hint"]) == (stands != "a log")
    after = sorted(str(path) for path in root.rglob("*") if path.is_file() and path.name != "lock")
    assert after == [path for path in before if not path.endswith("/lock")], "nothing was written"
    # What it says helps.
    if stands in ("a table", "a recovery"):
        assert recover(lakebed, tmp_bucket)["written"]
    else:
        for path in lost.iterdir():
            path.rename(root / path.name)
    broker = start_broker(tmp_bucket)
    assert consumed(broker, "orders") == got


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_where_no_tables_are_nothing_is_made(bucket, lakebed, tmp_path):
    (tmp_path / "root").mkdir()
    assert recover(lakebed, bucket, code=3)["code"] == "TABLES_NOT_FOUND"
    assert {path.name for path in (tmp_path / "root").iterdir()} <= {"lock"}
    assert recover(lakebed, bucket, "--dry-run", code=3)["code"] == "TABLES_NOT_FOUND"
