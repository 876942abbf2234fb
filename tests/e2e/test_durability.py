"""kill -9, again and again, under writers that wait for every acknowledgement.

Every value is sent once: a client's own retries are off, so that what is found twice was stored twice.
"""

import random
import threading

from confluent_kafka import Producer
from kafka.protocol.consumer import FetchRequest
from kafka.protocol.producer import ProduceRequest
from kafka_clients import SECONDS_MAX, create_topic, read
from wire_kafka import Wire, batch

TOPIC = "kept"
PARTITIONS = 4
ROUNDS = 10
SEED = 20260101
# Enough that a kill always finds some of them on their way.
IN_FLIGHT_MAX = 64


class Writer(threading.Thread):
    """Writes 0, 1, 2 … to one partition and keeps what became of each; goes on through all kills of the broker."""

    def __init__(self, address, partition, progress):
        super().__init__(name=f"writer-{partition}", daemon=True)
        self.partition, self.progress = partition, progress
        self.acknowledged, self.failed, self.sent, self.ended = {}, 0, 0, False
        self.repeated, self.error = [], None
        self.producer = Producer({
            "bootstrap.servers": address, "acks": "all", "retries": 0, "linger.ms": 1, "enable.idempotence": False,
            "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100, "topic.metadata.refresh.interval.ms": 1000,
        })

    def answered(self, error, message):
        with self.progress:
            if error:
                self.failed += 1
            elif message.offset() in self.acknowledged:
                self.repeated.append((message.offset(), self.acknowledged[message.offset()], int(message.value())))
            else:
                self.acknowledged[message.offset()] = int(message.value())
            self.progress.notify_all()

    def run(self):
        try:
            self.write()
        except BaseException as error:
            self.error = error

    def write(self):
        while not self.ended:
            if self.sent - self.failed - len(self.acknowledged) < IN_FLIGHT_MAX:
                self.producer.produce(TOPIC, b"%d" % self.sent, partition=self.partition, on_delivery=self.answered)
                self.sent += 1
                self.producer.poll(0)
            else:
                self.producer.poll(0.1)
        assert self.producer.flush(SECONDS_MAX) == 0

    def finish(self):
        self.ended = True
        self.join(SECONDS_MAX)
        assert not self.is_alive()
        if self.error:
            raise self.error


def check(broker, writers, progress):
    """Everything acknowledged so far is there, at its offset; nothing is there twice or out of order."""
    for writer in writers:
        with progress:
            acknowledged, repeated = dict(writer.acknowledged), list(writer.repeated)
        assert not repeated, f"two records were acknowledged with one offset, in partition {writer.partition}: {repeated}"
        messages = read(broker, TOPIC, writer.partition)
        assert [message.offset() for message in messages] == list(range(len(messages))), "offsets are dense"
        values = [int(message.value()) for message in messages]
        lost = {offset: value for offset, value in acknowledged.items() if values[offset:offset + 1] != [value]}
        assert not lost, f"acknowledged but not there, in partition {writer.partition}: {lost}"
        # A writer sends ascending numbers once: strictly ascending means in order, and none twice.
        assert all(a < b for a, b in zip(values, values[1:])), f"out of order or twice, in partition {writer.partition}"


def acknowledgements(writers):
    return sum(len(writer.acknowledged) for writer in writers)


def test_no_kill_loses_or_repeats_what_was_acknowledged(broker):
    choose = random.Random(SEED)
    create_topic(broker, TOPIC, partitions=PARTITIONS)
    progress = threading.Condition()
    writers = [Writer(broker.kafka, partition, progress) for partition in range(PARTITIONS)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(ROUNDS):
            with progress:
                goal = acknowledgements(writers) + choose.randrange(1, 600)
                assert progress.wait_for(lambda: acknowledgements(writers) >= goal, SECONDS_MAX), "no progress"
            broker.kill()
            broker.start(same_ports=True)
            check(broker, writers, progress)
    finally:
        for writer in writers:
            writer.finish()
    check(broker, writers, progress)
    broker.arguments.append("--no-tail")
    broker.restart()
    check(broker, writers, progress)
    assert all(writer.failed for writer in writers), "no kill found a record on its way"


def test_who_was_answered_can_read_it_at_once(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    writer, reader = Wire(broker.kafka), Wire(broker.kafka)
    for count in range(1, 1001):
        part = {"index": 0, "records": batch([b"%d" % count])}
        writer.call(ProduceRequest, 9, acks=-1, timeout_ms=30_000, topic_data=[{"name": TOPIC, "partition_data": [part]}])
        # It waits for nothing, and asks for what was there before besides, so that only the last one can be missing.
        part = {"partition": 0, "fetch_offset": max(count - 2, 0), "partition_max_bytes": 1 << 20}
        told = reader.call(FetchRequest, 11, max_wait_ms=0, min_bytes=0, max_bytes=1 << 20, session_epoch=-1,
                           topics=[{"topic": TOPIC, "partitions": [part]}], forgotten_topics_data=[])
        assert told["responses"][0]["partitions"][0]["high_watermark"] == count
    writer.close()
    reader.close()
