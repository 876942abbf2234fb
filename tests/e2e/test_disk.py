"""Directories that can't be written to, or not any more: one clear error, nothing lost, nothing touched.

The file systems are mounted in a mount namespace of the broker's own, so that nothing of them is left; that takes root.
"""

import hashlib
import json
import os

import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition
from conftest import Bucket
from kafka_clients import SECONDS_MAX, consumer, create_topic, read

TOPIC = "full"
DISK_BYTES = 8 << 20
VALUE_BYTES = 300_000
LISTEN = ["--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")


def in_namespace(mounts):
    """What a command is to be run within, so that `mounts` (a shell command) holds for it alone. Its process keeps its id."""
    return ["unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$0" "$@"']


def snapshot(directory):
    """All files of a directory with what is in them."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def produce(broker, number):
    """Sends one record, without a retry. Returns the error and the offset."""
    producer = Producer({"bootstrap.servers": broker.kafka, "retries": 0, "request.timeout.ms": 2000, "message.timeout.ms": 30_000,
                         "message.max.bytes": 2 * VALUE_BYTES})
    told = []
    producer.produce(TOPIC, b"%08d" % number * (VALUE_BYTES // 8), partition=0,
                     on_delivery=lambda error, message: told.append((error, message.offset())))
    assert producer.flush(SECONDS_MAX) == 0
    return told[0]


def first_numbers(broker, count):
    """The numbers of the first records: by their offsets, since nobody can say where the log ends while a commit is on its way."""
    reader = consumer(broker, **{"fetch.message.max.bytes": 2 * VALUE_BYTES})
    try:
        reader.assign([TopicPartition(TOPIC, 0, 0)])
        messages = [reader.poll(SECONDS_MAX) for _ in range(count)]
        assert all(message is not None and not message.error() for message in messages), messages
        return [int(message.value()[:8]) for message in messages]
    finally:
        reader.close()


def numbers(broker):
    """The numbers of the records in the log, in order."""
    return [int(message.value()[:8]) for message in read(broker, TOPIC, **{"fetch.message.max.bytes": 2 * VALUE_BYTES})]


@needs_root
@pytest.mark.parametrize("arguments", [[], ["--no-tail"]], ids=["tail", "no-tail"])
def test_a_full_disk_refuses_records_loses_none_and_recovers(start_broker, tmp_path, arguments):
    disk = tmp_path / "disk"
    disk.mkdir()
    bucket = Bucket(f"file://{disk}/root", dict(os.environ))
    within = in_namespace(f"mount -t tmpfs -o size={DISK_BYTES} lakebed {disk}")
    broker = start_broker(bucket, arguments=arguments, within=within)
    create_topic(broker, TOPIC)
    seen = f"/proc/{broker.process.pid}/root{disk}"
    with open(f"{seen}/filler", "wb") as filler:
        filler.write(bytes(DISK_BYTES // 2))
    acknowledged, refused = {}, []
    for number in range(DISK_BYTES // VALUE_BYTES):
        error, offset = produce(broker, number)
        if error:
            refused.append((number, error))
            break
        acknowledged[number] = offset
    assert acknowledged and refused, "the disk took some, and then no more"
    (_, error), = refused
    # It is not known yet: the broker goes on trying.
    assert error.code() == KafkaError.REQUEST_TIMED_OUT, error
    assert first_numbers(broker, len(acknowledged)) == list(acknowledged), "it reads what it has acknowledged"

    os.remove(f"{seen}/filler")
    error, offset = produce(broker, 1000)
    assert error is None, "there is room again"
    there = numbers(broker)
    assert [there[offset] for offset in acknowledged.values()] == list(acknowledged)
    # The record that was given up by its producer may have been stored, once.
    assert there in ([*acknowledged, 1000], [*acknowledged, refused[0][0], 1000]) and there[offset] == 1000


@needs_root
def test_a_broker_on_a_full_disk_ends_when_it_is_asked_to_and_says_what_it_could_not_do(start_broker, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    within = in_namespace(f"mount -t tmpfs -o size={DISK_BYTES} lakebed {disk}")
    broker = start_broker(Bucket(f"file://{disk}/root", dict(os.environ)), within=within)
    create_topic(broker, TOPIC)
    with open(f"/proc/{broker.process.pid}/root{disk}/filler", "wb") as filler:
        filler.write(bytes(DISK_BYTES - VALUE_BYTES))
    error, _ = produce(broker, 0)
    assert error is not None
    broker.process.terminate()
    code, told = broker.wait_for_end()
    assert code == 1
    assert len([line for line in told.splitlines() if line.startswith("error: ")]) == 1, told
    assert "could not be made durable" in told and "No space left on device" in told


@needs_root
def test_a_directory_that_can_not_be_written_is_refused_and_left_alone(start_broker, tmp_bucket, tmp_path, lakebed):
    start_broker(tmp_bucket).stop()
    root = tmp_path / "root"
    before = snapshot(root)
    within = in_namespace(f"mount --bind {root} {root} && mount -o remount,bind,ro {root}")
    for place in (root, root / "below"):
        refused = lakebed("serve", "--store", f"file://{place}", *LISTEN, within=within)
        assert refused.returncode == 1 and refused.stdout == ""
        assert [line for line in refused.stderr.splitlines() if line.startswith("error: ")] == ["error: the broker can't start"]
        assert str(place) in refused.stderr and "Read-only file system" in refused.stderr
        assert snapshot(root) == before


def test_a_root_of_a_newer_format_is_refused_and_left_alone(start_broker, tmp_bucket, tmp_path, lakebed):
    start_broker(tmp_bucket).stop()
    root = tmp_path / "root"
    (root / "lakebed.json").write_text(json.dumps(json.loads((root / "lakebed.json").read_text()) | {"format": 7}))
    (root / ".staging/17").write_text("half written by a newer broker")
    before = snapshot(root)
    refused = lakebed("serve", "--store", tmp_bucket.url, *LISTEN)
    assert refused.returncode == 1 and refused.stdout == ""
    assert [line for line in refused.stderr.splitlines() if line.startswith("error: ")] == ["error: the broker can't start"]
    assert "lakebed.json" in refused.stderr and "format 7 is newer" in refused.stderr
    assert {path: sum for path, sum in snapshot(root).items() if not path.endswith("/lock")} == {
        path: sum for path, sum in before.items() if not path.endswith("/lock")}, "but for who holds the lock"


def test_a_directory_in_use_is_refused_and_left_alone(start_broker, tmp_bucket, tmp_path, lakebed):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    before = snapshot(tmp_path / "root")
    refused = lakebed("serve", "--store", tmp_bucket.url, *LISTEN)
    assert refused.returncode == 1 and refused.stdout == ""
    assert [line for line in refused.stderr.splitlines() if line.startswith("error: ")] == ["error: the broker can't start"]
    assert "another" in refused.stderr and "--store" in refused.stderr, refused.stderr
    assert snapshot(tmp_path / "root") == before
    assert produce(broker, 0) == (None, 0)
