"""The Java client of Kafka, the one that all others are measured by: every codec, keys, headers, nulls; assigned partitions."""

import os
import subprocess

import pytest
from conftest import ROOT
from kafka_clients import codec_on_the_wire, create_topic, line

JARS = ROOT / "tests/.tools/java"
TOPIC = "java"
TIME_MS = 1_700_000_000_000


def java(*arguments, stdin=""):
    """Runs java/Client.java to its end. Returns the lines that it printed."""
    assert list(JARS.glob("kafka-clients-*.jar")), f"{JARS} is empty: tests/run e2e fills it"
    command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*", str(ROOT / "tests/e2e/java/Client.java")]
    result = subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_what_java_sends_comes_back_to_java(client_broker, earthquakes, codec):
    create_topic(client_broker, TOPIC)
    headers = [(b"b", b"1"), (b"a", None), (b"b", b""), ("ключ".encode(), bytes(range(256)))]
    sent = [line(TIME_MS, None, b""), line(TIME_MS + 1, b"", None), line(TIME_MS + 2, b"k", b"v", headers)]
    sent += [line(TIME_MS + 3 + number, b"%d" % number, value) for number, value in enumerate(earthquakes[:2000])]
    offsets = java("produce", client_broker.kafka, TOPIC, codec, stdin="\n".join(sent) + "\n")
    assert offsets == [str(offset) for offset in range(len(sent))]
    assert codec_on_the_wire(client_broker, TOPIC) == codec
    client_broker.before_reading()
    assert java("consume", client_broker.kafka, TOPIC) == [f"{offset} {record}" for offset, record in enumerate(sent)]
