"""What stands in a store, told without a broker: how much for whom, what nothing names, and what is not as it was written.

Damage is a flipped byte in one object of each kind; nothing that only looks may change anything.
"""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from conftest import BINARY, Bucket
from kafka_clients import admin, create_topic
from schema import check_json
from test_tables import catalog, consumed, produce

SECONDS_MAX = 60


def looked(lakebed, bucket, verb, *arguments, code=0):
    """What a verb of `storage` prints as JSON."""
    result = lakebed("storage", verb, bucket.url, "-o", "json", *arguments, env=bucket.environment)
    assert result.returncode == code, (result.stdout, result.stderr)
    return check_json(result.stdout, {"usage": "usage", "orphans": "orphans", "scrub": "scrub"}[verb])


def digest(bucket, tmp_path):
    """Every object of a root with a hash of it; but for the lock of a directory."""
    objects = bucket.objects(tmp_path / "digest")
    return {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in objects.items()
            if key != "lock" and not key.startswith(".staging")}


@pytest.fixture
def filled(start_broker, bucket):
    """A broker with a topic in its table and in the log, one that was deleted, and superseded files."""
    broker = start_broker(bucket)
    tables = catalog(broker, bucket)
    for topic in ("orders", "gone"):
        create_topic(broker, topic, 3)
        for first in (0, 300):
            produce(broker, topic, first, 300)
            tables.load_table(f"default.{topic}")
    client = admin(broker)
    client.delete_topics(["gone"])["gone"].result(timeout=SECONDS_MAX)
    produce(broker, "orders", 600, 30)
    return broker


def test_usage_and_orphans_tell_of_every_object_once_and_change_nothing(filled, bucket, lakebed, tmp_path):
    # While the broker serves: a directory is not locked for it.
    looked(lakebed, bucket, "usage")
    filled.stop()
    before = digest(bucket, tmp_path)
    usage, orphans = looked(lakebed, bucket, "usage"), looked(lakebed, bucket, "orphans")["orphans"]
    sizes = {key: path.stat().st_size for key, path in bucket.objects(tmp_path / "sizes").items() if key in before}
    fates = ("live", "waiting", "unreferenced")
    assert sum(kind[fate]["objects"] for kind in usage["kinds"] for fate in fates) == len(sizes)
    assert sum(kind[fate]["bytes"] for kind in usage["kinds"] for fate in fates) == sum(sizes.values())
    kinds = {kind["kind"]: kind for kind in usage["kinds"]}
    assert kinds["table files"]["live"]["objects"] >= 1 and kinds["root"]["live"]["objects"] == 1
    [orders] = [table for table in usage["tables"] if table["topic"] == "orders"]
    assert (orders["table_rows"], orders["log_rows"]) == (600, 30) and orders["log_bytes"] > 0
    [gone] = [table for table in usage["tables"] if table["table"] == "gone"]
    assert gone["topic"] is None and gone["live"]["objects"] == 0
    assert gone["waiting"]["objects"] + gone["unreferenced"]["objects"] == sum(key.startswith("tables/default/gone/") for key in sizes)
    # Orphans are what usage does not call live, each with the size that it has and a reason.
    assert all(sizes[orphan["key"]] == orphan["bytes"] and orphan["why"] for orphan in orphans)
    told = sum(kind[fate]["objects"] for kind in usage["kinds"] for fate in fates[1:])
    assert len(orphans) == told == len({orphan["key"] for orphan in orphans})
    files = [orphan for orphan in orphans if orphan["kind"] == "table files"]
    assert files and all(orphan["created_ms"] > 1_600_000_000_000 for orphan in files)
    some = lakebed("storage", "orphans", bucket.url, "--count", "1", env=bucket.environment)
    assert "more than these 1" in some.stderr and len(some.stdout.splitlines()) == 2
    looked(lakebed, bucket, "scrub")
    assert digest(bucket, tmp_path) == before


def test_a_whole_store_has_no_damage_while_a_broker_rewrites_it(filled, bucket, lakebed):
    for first in (630, 660, 690):
        produce(filled, "orders", first, 30)
        scrubbed = looked(lakebed, bucket, "scrub")
        assert scrubbed["damaged"] == [] and scrubbed["rows"] >= 600 and scrubbed["objects"] > 10
        catalog(filled, bucket).load_table("default.orders")
    told = lakebed("storage", "scrub", bucket.url, env=bucket.environment)
    assert told.returncode == 0 and re.search(r"rows compared; 0 damaged$", told.stdout)
    only = looked(lakebed, bucket, "scrub", "--topic", "orders", "--rate", "1GiB")
    assert only["damaged"] == [] and 0 < only["objects"] < scrubbed["objects"]


def flip(path, at):
    """Flips a bit of a byte of a file; a negative place counts from its end."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def kinds(root):
    """One object of each kind whose every byte counts, and a byte in it: {name: (path, place)}."""
    def middle(path):
        return path.stat().st_size // 2

    def pick(pattern, last=True):
        found = sorted(root.glob(pattern))
        return found[-1 if last else 0]

    objects = {
        "table file": pick("tables/default/orders/data/*.parquet"),
        "manifest list": pick("tables/default/orders/metadata/snap-*.avro"),
        "metadata": max(root.glob("tables/default/orders/metadata/v*.json"), key=lambda path: int(path.name[1:].split(".")[0])),
    }
    # The commit with the rows that are not in the table.
    commits = sorted(root.glob("cells/0/log/*/*.parquet"))
    objects["commit"] = max(commits[-6:], key=lambda path: path.stat().st_size)
    places = {name: middle(path) for name, path in objects.items()}
    # A value of a row; and JSON has no checksum, but what it refers to must be there.
    places |= {"commit": objects["commit"].read_bytes().index(b'{"number"') + 3, "metadata": objects["metadata"].read_bytes().index(b'"current-snapshot-id":') + 25}
    return {name: (path, places[name]) for name, path in objects.items()}


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
@pytest.mark.parametrize("kind", ["commit", "commit's first page", "table file", "table file's footer", "manifest list", "metadata", "missing table file", "missing manifest list"])
def test_a_flipped_byte_is_found_with_what_it_touches(filled, bucket, lakebed, kind):
    filled.stop()
    assert looked(lakebed, bucket, "scrub")["damaged"] == []
    root = Path(bucket.url.removeprefix("file://"))
    path, place = kinds(root)[kind.removeprefix("missing ").removesuffix("'s footer").removesuffix("'s first page")]
    if kind.startswith("missing"):
        path.unlink()
    else:
        flip(path, -40 if kind.endswith("footer") else 64 if kind.endswith("first page") else place)
    key = str(path.relative_to(root))
    scrubbed = looked(lakebed, bucket, "scrub", code=1)
    [damage] = [damage for damage in scrubbed["damaged"] if damage["key"] == key]
    assert damage["what"] and damage["remedy"]
    if kind.endswith("table file") or kind.endswith("footer"):
        touched = sorted((one["topic"], one["partition"], one["base_offset"], one["last_offset"]) for one in damage["touched"])
        assert touched and all(topic == "orders" and first <= last for topic, _, first, last in touched)
        # The rest of the topic is no damage, and another topic is none of it.
        assert looked(lakebed, bucket, "scrub", "--topic", "orders", code=1)["damaged"]
    told = lakebed("storage", "scrub", bucket.url)
    assert told.returncode == 1 and key in told.stdout and "damaged" in told.stderr


def check_flips(lakebed, bucket, paths):
    """Every flip is found in the object that it was made in, and nothing once it is undone."""
    root = Path(bucket.url.removeprefix("file://"))
    assert looked(lakebed, bucket, "scrub")["damaged"] == [] and paths
    for path in paths:
        whole = path.read_bytes()
        flip(path, len(whole) // 2)
        damaged = looked(lakebed, bucket, "scrub", code=1)["damaged"]
        assert str(path.relative_to(root)) in {damage["key"] for damage in damaged}, damaged
        path.write_bytes(whole)
    assert looked(lakebed, bucket, "scrub")["damaged"] == []


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_flipped_byte_of_a_merged_segment_is_found(start_broker, bucket, lakebed):
    broker = start_broker(bucket)
    create_topic(broker, "orders", 1)
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 0})
    segments = Path(bucket.url.removeprefix("file://")) / "cells/0/segments"
    # Each is a commit of its own, and many small objects are merged into one.
    deadline = time.monotonic() + SECONDS_MAX
    while not segments.exists() or not list(segments.iterdir()):
        assert time.monotonic() < deadline
        producer.produce("orders", b"one of many")
        assert producer.flush(SECONDS_MAX) == 0
    broker.stop()
    check_flips(lakebed, bucket, sorted(segments.iterdir())[:1])


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_flipped_byte_of_a_checkpoint_is_found(filled, bucket, lakebed):
    filled.stop()
    root = Path(bucket.url.removeprefix("file://"))
    # A recovery begins with checkpoints.
    (root / "lakebed.json").unlink()
    shutil.rmtree(root / "cells")
    assert lakebed("recover", bucket.url).returncode == 0
    newest = root / "cells/0/checkpoints/00000000000000000003"
    check_flips(lakebed, bucket, [newest / "manifest.json", *newest.glob("base-*.json")])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_scrub_that_is_interrupted_tells_what_it_has_found_and_goes_on_where_it_was(filled, bucket, lakebed, how):
    filled.stop()
    root = Path(bucket.url.removeprefix("file://"))
    (root / "lakebed.json").unlink()
    shutil.rmtree(root / "cells")
    assert lakebed("recover", bucket.url).returncode == 0
    whole = looked(lakebed, bucket, "scrub")
    assert (whole["complete"], whole["after"]) == (True, None)
    # The first object of all: a part of the older checkpoint, without which the log is opened.
    first = sorted(path for path in root.glob("cells/0/checkpoints/00000000000000000002/*"))[0]
    flip(first, first.stat().st_size // 2)
    key = str(first.relative_to(root))
    # A byte a second: it waits for hours behind its first object.
    scrub = subprocess.Popen([BINARY, "storage", "scrub", bucket.url, "--rate", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert key in (line := scrub.stderr.readline()) and line.startswith("looks damaged: ")
    scrub.send_signal(how)
    out, error = scrub.communicate(timeout=SECONDS_MAX)
    assert scrub.returncode == 1 and key in out and "1 damaged" in out and "was stopped before its end" in error
    [after] = re.findall(r"--after (\S+)`", error)
    assert after == key
    rest = looked(lakebed, bucket, "scrub", "--after", after, code=1)
    assert rest["complete"] and rest["objects"] == whole["objects"] - 1 and rest["rows"] == whole["rows"]
    # That one is not read again; that its checkpoint can't be loaded is told at the end.
    assert key not in {damage["key"] for damage in rest["damaged"]} and all("checkpoints/00000000000000000002" in damage["key"] for damage in rest["damaged"])
    flip(first, first.stat().st_size // 2)
    last = max(bucket.objects(root.parent / "seen"))
    assert looked(lakebed, bucket, "scrub", "--after", "cells/0/log")["damaged"] == []
    # What is missing is found wherever it was.
    file = sorted(root.glob("tables/default/orders/data/*.parquet"))[-1]
    file.unlink()
    behind = looked(lakebed, bucket, "scrub", "--after", last, code=1)
    assert behind["objects"] == 0 and str(file.relative_to(root)) in {damage["key"] for damage in behind["damaged"]}
    wrong = lakebed("storage", "scrub", bucket.url, "--after", "../x")
    assert wrong.returncode == 2 and "--after" in wrong.stderr


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_what_is_no_store_is_told_so(bucket, lakebed, tmp_path):
    empty = Bucket(f"file://{tmp_path}/empty", bucket.environment)
    (tmp_path / "empty").mkdir()
    for verb in ("usage", "orphans", "scrub"):
        told = lakebed("storage", verb, empty.url, "-o", "json")
        assert told.returncode == 3 and check_json(told.stderr, "error")["error"]["code"] == "ROOT_NOT_FOUND"
        missing = lakebed("storage", verb, f"{empty.url}/not/there", "-o", "json")
        assert missing.returncode == 1 and json.loads(missing.stderr)["error"]["code"] == "STORE_NOT_OPENED"
    assert list((tmp_path / "empty").iterdir()) == [], "nothing is made"


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_topic_that_does_not_exist_is_not_scrubbed(filled, bucket, lakebed):
    told = lakebed("storage", "scrub", bucket.url, "--topic", "nobody", "-o", "json")
    assert told.returncode == 3 and check_json(told.stderr, "error")["error"]["code"] == "TOPIC_NOT_FOUND"


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_damaged_root_stops_with_its_name(filled, bucket, lakebed):
    filled.stop()
    flip(Path(bucket.url.removeprefix("file://")) / "lakebed.json", 20)
    told = lakebed("storage", "scrub", bucket.url, "-o", "json")
    error = check_json(told.stderr, "error")["error"]
    assert told.returncode == 1 and error["code"] == "LOG_NOT_READ" and "lakebed.json" in error["cause"]


def test_what_consumers_get_is_as_it_was(filled, bucket, lakebed):
    before = consumed(filled, "orders")
    looked(lakebed, bucket, "scrub")
    assert consumed(filled, "orders") == before and len(before) == 630
