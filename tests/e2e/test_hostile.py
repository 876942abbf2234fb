"""Clients that mean harm beside one that does not: the broker lives, its memory is bounded, and nobody else notices."""

import json
import os
import socket
import subprocess
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin

from conftest import S3_SERVER

ROOT = Path(__file__).resolve().parents[2]
CLIENT = Path(S3_SERVER).with_name("hostile-client")
SEED = int(os.environ.get("LAKEBED_TEST_SEED", "1"))
FRAMES = 1_000_000
VALUES = [b"value %d" % index for index in range(2_000)]


def attack(broker, *arguments):
    command = [CLIENT, "--address", broker.kafka, "--corpus", ROOT / "fuzz/seeds/request", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def create(broker, topic):
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": broker.kafka})
    admin.create_topics([confluent_kafka.admin.NewTopic(topic, 1, 1)])[topic].result(30)


def produce_all(broker, topic):
    """Produces all values in order; returns the errors."""
    failures = []
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.kafka, "linger.ms": 1, "acks": "all"})
    for value in VALUES:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _: failures.append(error) if error else None)
        producer.poll(0.001)
    assert producer.flush(60) == 0
    return failures


def consume_all(broker, topic):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": broker.kafka, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    values = []
    while len(values) < len(VALUES):
        messages = consumer.consume(1000, timeout=30)
        assert messages, f"only {len(values)} of {len(VALUES)} records came"
        assert [message.error() for message in messages if message.error()] == []
        values += [message.value() for message in messages]
    consumer.close()
    return values


def test_damaged_frames_and_silent_connections_harm_nobody(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=["--partitions-max", "2000"])
    create(broker, "bystander")
    print(f"seed {SEED}")
    hostile = attack(broker, "--seed", SEED, "--frames", FRAMES)
    assert produce_all(broker, "bystander") == []
    assert consume_all(broker, "bystander") == VALUES
    told, _ = hostile.communicate(timeout=240)
    assert hostile.returncode == 0
    report = json.loads(told)
    assert report["frames"] == FRAMES and report["closed_by_broker"] > FRAMES / 200, report
    metrics = broker.metrics()
    assert metrics['lakebed_kafka_connections_closed_total{cause="malformed"}'] > report["connections"] / 20, report
    assert broker.process.poll() is None
    assert "panicked" not in Path(broker.log).read_text(errors="replace")
    # The bound on memory is asserted when a broker of a test ends.


def test_one_address_cannot_take_all_connections(start_broker, tmp_bucket):
    limits = ["--connections-max", "40", "--connections-per-address-max", "10"]
    broker = start_broker(tmp_bucket, arguments=limits)
    address = ("127.0.0.1", int(broker.kafka.rsplit(":", 1)[1]))
    flood = [socket.create_connection(address, source_address=("127.0.0.9", 0)) for _ in range(100)]
    closed = [connection for connection in flood if is_closed(connection)]
    assert len(closed) == 90
    create(broker, "bystander")
    assert produce_all(broker, "bystander") == [] and consume_all(broker, "bystander") == VALUES
    refused = broker.metrics()['lakebed_kafka_connections_closed_total{cause="too_many_connections_of_address"}']
    assert refused == 90
    for connection in flood:
        connection.close()


def is_closed(connection):
    """Whether the broker has closed the connection; one that it keeps answers a request."""
    try:
        # ApiVersions v0 with a null client id.
        connection.sendall(bytes([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF]))
        connection.settimeout(30)
        return connection.recv(4) == b""
    except ConnectionError:
        return True
