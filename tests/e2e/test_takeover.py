"""Two brokers on one root: a directory belongs to one process; on a bucket the second takes over from the first."""

import pytest
from confluent_kafka import Producer
from conftest import Bucket
from kafka_clients import SECONDS_MAX, create_topic, read

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


def test_the_second_broker_on_a_bucket_takes_over_and_the_first_acknowledges_nothing_more(start_broker, s3_bucket):
    first = start_broker(s3_bucket)
    create_topic(first, TOPIC)
    assert produce(first, [b"of the first"]) == [0]
    second = start_broker(s3_bucket)
    assert produce(first, [b"late"]) == [None], "the first broker has lost the log"
    assert produce(second, [b"of the second"]) == [1]
    code, told = first.wait_for_end()
    assert code != 0
    assert len([line for line in told.splitlines() if line.startswith("error: ")]) == 1, told
    assert "Traceback" not in told and "panicked" not in told
    assert [message.value() for message in read(second, TOPIC)] == [b"of the first", b"of the second"]
    second.restart()
    assert [message.value() for message in read(second, TOPIC)] == [b"of the first", b"of the second"]


def test_a_first_broker_that_nobody_writes_to_notices_by_a_question(start_broker, s3_bucket, lakebed):
    first = start_broker(s3_bucket)
    create_topic(first, TOPIC)
    start_broker(s3_bucket)
    asked = lakebed("topic", "--server", first.http, "list")
    assert asked.returncode != 0, f"a broker that has lost the log answered: {asked.stdout}"
    code, told = first.wait_for_end()
    assert code != 0 and len([line for line in told.splitlines() if line.startswith("error: ")]) == 1, told


def test_a_directory_in_use_is_refused_and_its_owner_goes_on(start_broker, tmp_bucket, lakebed):
    first = start_broker(tmp_bucket)
    create_topic(first, TOPIC)
    second = lakebed("serve", "--store", tmp_bucket.url, "--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
    assert second.returncode == 1
    assert "in use" in second.stderr or "another" in second.stderr, second.stderr
    assert second.stdout == ""
    assert produce(first, [b"x"]) == [0]
