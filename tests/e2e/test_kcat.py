"""kcat: codecs, keys, headers, tombstones, places to read from."""

import json

import pytest
from kafka_clients import CODECS, codec_on_the_wire, create_topic, kcat, read

TOPIC = "kcat"


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_taken_and_gives_the_same_bytes(client_broker, earthquakes, codec):
    create_topic(client_broker, TOPIC)
    lines = earthquakes[:1000]
    kcat(client_broker, "-P", "-t", TOPIC, "-p", "0", "-z", codec, stdin=b"\n".join(lines) + b"\n")
    assert codec_on_the_wire(client_broker, TOPIC) == codec
    client_broker.before_reading()
    assert kcat(client_broker, "-C", "-t", TOPIC, "-p", "0", "-o", "beginning", "-e", "-q").splitlines() == lines


def test_keys_headers_and_tombstones_come_back(client_broker):
    create_topic(client_broker, TOPIC)
    header = ["-H", "a=1", "-H", "a=2", "-H", "empty=", "-H", "none"]
    kcat(client_broker, "-P", "-t", TOPIC, "-p", "0", "-K", ":", *header, stdin=b"first:one\n")
    kcat(client_broker, "-P", "-t", TOPIC, "-p", "0", "-K", ":", "-Z", stdin=b"first:\n:no key\n")
    client_broker.before_reading()
    pattern = "%o|%K|%k|%S|%s|%h\n"
    told = kcat(client_broker, "-C", "-t", TOPIC, "-p", "0", "-o", "beginning", "-e", "-q", "-f", pattern)
    assert told.splitlines() == [b"0|5|first|3|one|a=1,a=2,empty=,none=NULL", b"1|5|first|-1||", b"2|-1||6|no key|"]
    first = read(client_broker, TOPIC)[0]
    assert first.headers() == [("a", b"1"), ("a", b"2"), ("empty", b""), ("none", None)]


def test_a_read_begins_where_it_is_told(client_broker):
    create_topic(client_broker, TOPIC, partitions=2)
    kcat(client_broker, "-P", "-t", TOPIC, "-p", "1", stdin=b"".join(b"%d\n" % n for n in range(10)))
    client_broker.before_reading()

    def consumed(*arguments):
        return kcat(client_broker, "-C", "-t", TOPIC, "-p", "1", "-e", "-q", *arguments).split()

    assert consumed("-o", "7") == [b"7", b"8", b"9"]
    assert consumed("-o", "-2") == [b"8", b"9"]
    assert consumed("-o", "2", "-c", "3") == [b"2", b"3", b"4"]
    assert consumed("-o", "end") == []
    assert kcat(client_broker, "-C", "-t", TOPIC, "-p", "0", "-e", "-q", "-o", "beginning") == b"", "the other is empty"


def test_metadata_and_offsets_are_listed(client_broker):
    create_topic(client_broker, TOPIC, partitions=3)
    kcat(client_broker, "-P", "-t", TOPIC, "-p", "2", stdin=b"x\ny\n")
    client_broker.before_reading()
    listed = json.loads(kcat(client_broker, "-L", "-J", "-t", TOPIC))
    (topic,) = listed["topics"]
    assert [partition["partition"] for partition in topic["partitions"]] == [0, 1, 2]
    assert {broker["name"] for broker in listed["brokers"]} == {client_broker.kafka}

    def asked(partition, time):
        return kcat(client_broker, "-Q", "-t", f"{TOPIC}:{partition}:{time}").decode().strip()

    for partition, time, offset in [(0, -1, 0), (0, -2, 0), (2, -1, 2), (2, -2, 0)]:
        assert asked(partition, time) == f"{TOPIC} [{partition}] offset {offset}", "-1 is the end, -2 the beginning"


def test_real_records_of_many_sizes_go_through(client_broker, birdstrikes):
    create_topic(client_broker, TOPIC)
    kcat(client_broker, "-P", "-t", TOPIC, "-p", "0", "-z", "lz4", stdin=b"\n".join(birdstrikes) + b"\n")
    client_broker.before_reading()
    assert [message.value() for message in read(client_broker, TOPIC)] == birdstrikes
