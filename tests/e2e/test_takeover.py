"""Two brokers on one root: a directory belongs to one process; on a bucket the second joins, and who has lost the log acknowledges nothing more."""

import signal

import pytest
from cluster import answer, fetched, latest, leads, produce_request, wait_until
from confluent_kafka import Producer
from conftest import Bucket
from kafka_clients import SECONDS_MAX, create_topic, read
from wire_kafka import Wire

TOPIC = "owned"


def produce(broker, values):
    """Sends values. Returns for each whether it was acknowledged, and the offset."""
    producer = Producer({"bootstrap.servers": broker.kafka, "retries": 0, "message.timeout.ms": 3000})
    told = {}
    for value in values:
        producer.produce(TOPIC, value, partition=0,
                         on_delivery=lambda error, message: told.update({message.value(): None if error else message.offset()}))
    producer.flush(SECONDS_MAX)
    return [told[value] for value in values]


@pytest.fixture
def s3_bucket(s3):
    return Bucket.on_s3(s3)


def values_at(broker):
    return [message.value() for message in read(broker, TOPIC)]


def test_the_second_broker_on_a_bucket_joins_and_goes_on_when_the_first_stops(start_broker, s3_bucket):
    first = start_broker(s3_bucket)
    create_topic(first, TOPIC)
    assert produce(first, [b"of the first"]) == [0]
    second = start_broker(s3_bucket)
    assert produce(first, [b"still of the first"]) == [1], "the first broker has not lost the log"
    assert produce(second, [b"by way of the second"]) == [2]
    expected = [b"of the first", b"still of the first", b"by way of the second"]
    assert leads(first) and values_at(first) == values_at(second) == expected
    first.stop()
    wait_until(lambda: leads(second), "the second takes over")
    assert produce(second, [b"of the second"]) == [3]
    assert values_at(second) == [*expected, b"of the second"]
    second.restart()
    assert values_at(second) == [*expected, b"of the second"]


def serves(broker):
    """Whether this broker says where the partition ends; not while its part changes."""
    try:
        return latest(broker, TOPIC)[0] == 0
    except ConnectionError:
        return False


@pytest.fixture
def lost(start_broker, s3_bucket):
    """Two brokers: the first hangs, so that the second has taken the log over, and the first does not know yet. It goes on with `go_on`."""
    first = start_broker(s3_bucket)
    create_topic(first, TOPIC)
    assert produce(first, [b"of the first"]) == [0]
    second = start_broker(s3_bucket)
    early = Wire(first.kafka)
    first.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: leads(second), "the second takes over")
        yield first, second, early
    finally:
        first.process.send_signal(signal.SIGCONT)
        early.close()


def test_a_broker_that_has_lost_the_log_acknowledges_nothing_and_follows(lost):
    first, second, early = lost
    assert produce(second, [b"of the second"]) == [1]
    sent = early.send(produce_request(TOPIC, [b"late"]), 8)
    first.process.send_signal(signal.SIGCONT)
    told = answer(early, sent)
    assert told is None or told["responses"][0]["partition_responses"][0]["error_code"] != 0, "the first broker has lost the log"
    wait_until(lambda: serves(first), "it serves again")
    assert fetched(first, TOPIC) == fetched(second, TOPIC) == [b"of the first", b"of the second"]
    assert first.process.poll() is None and produce(first, [b"by way of the first"]) == [2], "it is a broker as before"


def test_a_first_broker_that_nobody_writes_to_answers_with_what_the_second_has_done(lost, lakebed):
    first, second, _ = lost
    create_topic(second, "since")
    first.process.send_signal(signal.SIGCONT)
    asked = lakebed("topic", "--server", first.http, "list")
    # 5: it can't say just now.
    assert asked.returncode == 5 or "since" in asked.stdout, f"a broker that has lost the log answered: {asked.stdout}"
    wait_until(lambda: "since" in lakebed("topic", "--server", first.http, "list").stdout, "it follows")


def test_a_directory_in_use_is_refused_and_its_owner_goes_on(start_broker, tmp_bucket, lakebed):
    first = start_broker(tmp_bucket)
    create_topic(first, TOPIC)
    second = lakebed("serve", "--store", tmp_bucket.url, "--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
    assert second.returncode == 1
    assert "in use" in second.stderr or "another" in second.stderr, second.stderr
    assert second.stdout == ""
    assert produce(first, [b"x"]) == [0]
