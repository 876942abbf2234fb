"""Kafka clients of other languages: franz-go (Go) and kafkajs (Node), every codec, keys, headers, nulls, idempotent producers, groups."""

import os
import subprocess

import pytest
from conftest import ROOT
from kafka_clients import CODECS, codec_on_the_wire, create_topic, line, read

TOOLS = ROOT / "tests/.tools"
TIME_MS = 1_700_000_000_000
# What every client can say: names of headers are strings, each is there once.
PLAIN = [line(TIME_MS, None, b""), line(TIME_MS + 1, b"", None), line(TIME_MS + 2, b"k", b"v", [(b"b", b"1"), (b"a", b"")])]


def run(command, stdin="", **environment):
    """Runs a client to its end. Returns the lines that it printed."""
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, env=os.environ | environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def go(*arguments, stdin=""):
    return run([TOOLS / "go-client", *map(str, arguments)], stdin)


def node(*arguments, stdin=""):
    program = ROOT / "tests/e2e/node/client.js"
    return run(["node", program, *map(str, arguments)], stdin, NODE_PATH=str(TOOLS / "node/node_modules"))


def records(values):
    return [*PLAIN, *(line(TIME_MS + 3 + number, b"%d" % number, value) for number, value in enumerate(values[:2000]))]


@pytest.mark.parametrize("codec", CODECS)
def test_what_franz_go_sends_comes_back_to_it(client_broker, earthquakes, codec):
    create_topic(client_broker, "go")
    # Go says more than others: names that come twice, values that are null, bytes that are no text.
    headers = [(b"b", b"1"), (b"a", None), (b"b", b""), ("ключ".encode(), bytes(range(256)))]
    sent = [*records(earthquakes), line(TIME_MS + 5000, b"h", b"", headers)]
    offsets = go("produce", client_broker.kafka, "go", codec, stdin="\n".join(sent) + "\n")
    assert offsets == [str(offset) for offset in range(len(sent))]
    assert codec_on_the_wire(client_broker, "go") == codec
    client_broker.before_reading()
    assert go("consume", client_broker.kafka, "go", len(sent)) == [f"0 {offset} {record}" for offset, record in enumerate(sent)]


@pytest.mark.parametrize("codec", CODECS)
def test_what_kafkajs_sends_comes_back_to_others(client_broker, earthquakes, codec):
    create_topic(client_broker, "node")
    sent = records(earthquakes)
    firsts = node("produce", client_broker.kafka, "node", codec, stdin="\n".join(sent) + "\n")
    assert firsts == [str(first) for first in range(0, len(sent), 1000)]
    assert codec_on_the_wire(client_broker, "node") == codec
    client_broker.before_reading()
    messages = read(client_broker, "node")
    got = [line(message.timestamp()[1], message.key(), message.value(), [(name.encode(), value) for name, value in message.headers() or []])
           for message in messages]
    assert got == sent


def in_group(member, broker, topic, values):
    """Reads half of a topic as a member of a group, then, after a restart of the broker, the other half as another member."""
    count = len(values)
    halves = []
    for part in range(2):
        lines = member("group", broker.kafka, topic, "readers", count // 2)
        halves.append([tuple(map(int, record.split(" ")[:2])) for record in lines])
        if part == 0:
            broker.restart(kill=True)
    return halves


@pytest.mark.parametrize("member", [go, node], ids=["franz-go", "kafkajs"])
def test_a_member_goes_on_where_another_has_committed(start_broker, tmp_bucket, earthquakes, member):
    broker = start_broker(tmp_bucket)
    create_topic(broker, "grouped", partitions=1)
    go("produce", broker.kafka, "grouped", "none", stdin="\n".join(records(earthquakes[:997])) + "\n")
    first, second = in_group(member, broker, "grouped", range(1000))
    assert first == [(0, offset) for offset in range(500)]
    assert second == [(0, offset) for offset in range(500, 1000)]
