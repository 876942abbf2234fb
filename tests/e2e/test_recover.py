"""Disaster: the log and its checkpoints are lost, and a cluster is made anew of the tables alone.

What consumers got before is compared record by record with what they get afterwards, and with DuckDB on the same files.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import BINARY
from kafka_clients import create_topic
from schema import check_json
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
    settings = json.loads(lakebed("topic", "describe", "orders", "--server", broker.http, "-o", "json").stdout)["config"]
    assert settings["retention.ms"] == "-1", "nothing expires before somebody says so"
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


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_topic_with_a_damaged_file_is_said_by_name_and_others_can_be_had(lost, start_broker, bucket, lakebed):
    got, _, _ = lost
    path = sorted((root_of(bucket) / "tables/default/orders/data").glob("*.parquet"))[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    told = lakebed("recover", bucket.url, "-o", "json")
    shown = check_json(told.stdout, "recovered")
    assert told.returncode == 1 and check_json(told.stderr, "error")["error"]["code"] == "DAMAGE_FOUND"
    assert not shown["written"] and not (root_of(bucket) / "lakebed.json").exists()
    assert [left_out["table"] for left_out in shown["left_out"]] == ["orders"]
    assert [damaged["key"] for damaged in shown["damaged"]] == [str(path.relative_to(root_of(bucket)))]
    shown = recover(lakebed, bucket, "--skip-damaged")
    assert shown["written"] and {topic["name"] for topic in shown["topics"]} == {"Odd.Name", "empty"}
    broker = start_broker(bucket)
    assert consumed(broker, "Odd.Name") == got["Odd.Name"]


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_where_no_tables_are_nothing_is_made(bucket, lakebed, tmp_path):
    (tmp_path / "root").mkdir()
    assert recover(lakebed, bucket, code=3)["code"] == "TABLES_NOT_FOUND"
    assert {path.name for path in (tmp_path / "root").iterdir()} <= {"lock"}
    assert recover(lakebed, bucket, "--dry-run", code=3)["code"] == "TABLES_NOT_FOUND"
