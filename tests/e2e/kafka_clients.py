"""What the suites of Kafka clients share: confluent-kafka with plain settings, kcat, and reads that end.

A read goes to the high watermark that was there when it began, or fails at its deadline.
"""

import subprocess
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from reflected import Server

SECONDS_MAX = 60


def admin(broker):
    return AdminClient({"bootstrap.servers": broker.kafka})


def create_topic(broker, name, partitions=1, config=None):
    """Creates a topic with Kafka's protocol."""
    new = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config or {})
    # The client must outlive its answers: they fail when it is collected.
    client = admin(broker)
    client.create_topics([new], request_timeout=SECONDS_MAX)[name].result(timeout=SECONDS_MAX)


def consumer(broker, **settings):
    """A consumer for assigned partitions that commits nothing."""
    return Consumer({"bootstrap.servers": broker.kafka, "group.id": "assigned", "enable.auto.commit": False,
                     "auto.offset.reset": "error", "fetch.wait.max.ms": 5000, "check.crcs": True, **settings})


def read(broker, topic, partition=0, start=0, **settings):
    """The messages of a partition from offset `start` to the high watermark, in the order in which they came."""
    reader = consumer(broker, **settings)
    try:
        _, end = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS_MAX)
        reader.assign([TopicPartition(topic, partition, start)])
        deadline = time.monotonic() + SECONDS_MAX
        messages = []
        while start + len(messages) < end:
            assert time.monotonic() < deadline, f"{len(messages)} messages of {end - start} within {SECONDS_MAX} s"
            for message in reader.consume(10_000, timeout=0.2):
                if message.error():
                    raise KafkaException(message.error())
                messages.append(message)
        return messages
    finally:
        reader.close()


def kcat(broker, *arguments, stdin=None):
    """Runs kcat to its end. Returns its stdout."""
    result = subprocess.run(["kcat", "-b", broker.kafka, *arguments], input=stdin, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def codec_on_the_wire(broker, topic, partition=0):
    """The codec of the batch at the beginning of a partition, as its producer sent it: by a fetch of the bytes themselves."""
    with Server(broker) as server:
        batches = server.call("ConsumeService/Fetch", topic=topic, partition=partition, offset=0, format="FORMAT_KAFKA_BATCHES")
    # The attributes of a batch of magic 2 stand in its bytes 21 and 22; the lowest three bits are the codec.
    return CODECS[batches.kafka_batches.data[22] & 7]


def word(value):
    """Bytes as the clients of other languages take and give them: x and hexadecimal digits, - for null."""
    return "-" if value is None else "x" + value.hex()


def line(time_ms, key, value, headers=()):
    """A record as the clients of other languages take and give it."""
    return " ".join([str(time_ms), word(key), word(value), *(f"{word(name)}={word(content)}" for name, content in headers)])
