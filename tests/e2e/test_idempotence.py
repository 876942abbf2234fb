"""Idempotent producers: whatever is lost, killed or taken over, every record is in the log once, in order, at the offset that was told.

The clients are those that people have, with their own retries on; see test_durability.py for clients without.
"""

import random
import threading
import time

import pytest
from conftest import Bucket
from confluent_kafka import KafkaException, Producer
from cutting_proxy import CuttingProxy
from kafka import KafkaProducer
from kafka_clients import SECONDS_MAX, create_topic, read
from test_java import java, line

TOPIC = "once"
SEED = 20260401
RECORDS = 600
CUTS = 12
UNANSWERED_MAX = 40
TIME_MS = 1_700_000_000_000


@pytest.fixture
def proxy():
    made = CuttingProxy(SEED, cuts_max=CUTS, chance=0.3)
    yield made
    made.close()


def confluent(address, values, progress=None):
    """Sends values by librdkafka. Returns their offsets."""
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 0, "batch.num.messages": 5,
                         "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 10, "retry.backoff.max.ms": 100})
    answers = []
    for number, value in enumerate(values):
        producer.produce(TOPIC, value, partition=0, on_delivery=lambda error, message: answers.append((error, message)))
        # Some at a time, so that there are many requests, and so that what happens meanwhile happens between them.
        producer.poll(0)
        deadline = time.monotonic() + SECONDS_MAX
        while number - len(answers) >= UNANSWERED_MAX:
            assert time.monotonic() < deadline, f"no answer to what follows {len(answers)} within {SECONDS_MAX} s"
            producer.poll(0.1)
        if progress:
            progress(len(answers))
    assert producer.flush(SECONDS_MAX) == 0
    for error, _ in answers:
        if error:
            raise KafkaException(error)
    return [message.offset() for _, message in answers]


def kafka_python(address, values):
    """Sends values by kafka-python. Returns their offsets."""
    producer = KafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True, batch_size=100, linger_ms=0,
                             retry_backoff_ms=10, reconnect_backoff_ms=10, reconnect_backoff_max_ms=100)
    try:
        futures = [producer.send(TOPIC, partition=0, value=value) for value in values]
        producer.flush(SECONDS_MAX)
        return [future.get(SECONDS_MAX).offset for future in futures]
    finally:
        producer.close(SECONDS_MAX)


def java_client(address, values):
    """Sends values by the Java client. Returns their offsets."""
    lines = [line(TIME_MS + number, None, value) for number, value in enumerate(values)]
    return [int(offset) for offset in java("produce-once", address, TOPIC, "none", stdin="\n".join(lines) + "\n")]


@pytest.mark.parametrize("client", [confluent, kafka_python, java_client])
def test_what_is_sent_again_after_a_lost_answer_is_stored_once(start_broker, tmp_bucket, proxy, client):
    broker = start_broker(tmp_bucket, arguments=["--advertise", proxy.address])
    proxy.target = broker.kafka
    create_topic(broker, TOPIC)
    values = [b"%d" % number for number in range(RECORDS)]
    assert client(proxy.address, values) == list(range(RECORDS)), "the first offset of a duplicate is told"
    assert proxy.cuts == CUTS, "too few answers were lost to show anything"
    assert [(m.offset(), m.value()) for m in read(broker, TOPIC)] == list(enumerate(values))
    broker.restart()
    proxy.target = broker.kafka
    assert [m.value() for m in read(broker, TOPIC)] == values


def test_a_producer_outlives_kills_of_its_broker(start_broker, tmp_bucket, proxy):
    broker = start_broker(tmp_bucket, arguments=["--advertise", proxy.address])
    proxy.target, proxy.cuts_max = broker.kafka, 0
    create_topic(broker, TOPIC)
    choose, kills = random.Random(SEED), []
    goals = sorted(choose.sample(range(RECORDS // 10, RECORDS), 6))
    values = [b"%d" % number for number in range(2 * RECORDS)]

    def progress(answered):
        if goals and answered >= goals[0]:
            goals.pop(0)
            kills.append(answered)
            broker.kill()
            broker.start(same_ports=True)

    offsets = confluent(proxy.address, values, progress)
    assert len(kills) == 6, kills
    assert offsets == list(range(len(values)))
    assert [(m.offset(), m.value()) for m in read(broker, TOPIC)] == list(enumerate(values))


def test_a_producer_goes_on_at_the_broker_that_takes_over_and_loses_answers_there_too(start_broker, s3):
    bucket, proxies, brokers = Bucket.on_s3(s3), [CuttingProxy(SEED + number, cuts_max=CUTS, chance=0.3) for number in range(2)], []
    for proxy in proxies:
        brokers.append(start_broker(bucket, arguments=["--advertise", proxy.address, "--flush-interval", "10ms"]))
        proxy.target = brokers[-1].kafka
    first, second = brokers
    create_topic(second, TOPIC)
    values = [b"%d" % number for number in range(RECORDS)]

    def progress(answered):
        if answered >= RECORDS // 2 and first.process:
            first.kill()

    try:
        assert confluent(",".join(proxy.address for proxy in proxies), values, progress) == list(range(RECORDS))
        assert [proxy.cuts for proxy in proxies] == [CUTS, CUTS], "too few answers were lost to show anything"
        assert [(m.offset(), m.value()) for m in read(second, TOPIC)] == list(enumerate(values))
    finally:
        for proxy in proxies:
            proxy.close()


def test_producers_at_the_same_time_get_ids_of_their_own(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, partitions=1)
    told, lock = {}, threading.Lock()

    def produce(name):
        offsets = confluent(broker.kafka, [b"%d %d" % (name, number) for number in range(50)])
        with lock:
            told[name] = offsets

    threads = [threading.Thread(target=produce, args=(name,)) for name in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS_MAX)
    messages = read(broker, TOPIC)
    assert len(messages) == 500 and sorted(sum(told.values(), [])) == list(range(500)), "one took another's sequence for its own"
    for name, offsets in told.items():
        assert [messages[offset].value() for offset in offsets] == [b"%d %d" % (name, number) for number in range(50)]
