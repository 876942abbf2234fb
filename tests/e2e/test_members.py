"""The same of every client: produce with each codec, groups that lose nothing whatever is killed, large records, administration.

Each client is a program (confluent-kafka, kafka-python, aiokafka, rdkafka, rskafka, Java, franz-go, kafkajs; kcat is one itself) that knows some of these verbs:

- produce BROKER TOPIC CODEC: sends the records of standard input to partition 0, as an idempotent producer if it can, and prints their offsets.
- group BROKER TOPIC GROUP COUNT: joins a group, prints the next records as "partition offset record", commits them and leaves.
- feed BROKER TOPIC: sends each number of standard input to the partition that it leaves when divided by 4; prints "number offset" when it is acknowledged.
- member BROKER TOPIC GROUP: reads in a group, with a session of 3 s, until standard input ends; prints "partition offset number" and commits what it has printed.
- admin BROKER TOPIC: makes the topic and does things to it and to the group of its name; prints "what=value".

Records are lines of words, see `line` of kafka_clients.
"""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT
from confluent_kafka import ConsumerGroupTopicPartitions
from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition
from kafka_clients import admin, codec_on_the_wire, create_topic, kcat, line, read

SECONDS_MAX = 60
PARTITIONS = 4
TOOLS = ROOT / "tests/.tools"
TIME_MS = 1_700_000_000_000
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
GROUPS = ["--group-initial-rebalance-delay", "0s", "--group-session-timeout-min", "1s"]
JAVA = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{TOOLS}/java/*"]
CLIENTS = {
    **{name: [sys.executable, ROOT / f"tests/e2e/python/{name.replace('-', '_')}_client.py"] for name in ("kafka-python", "aiokafka")},
    "confluent-kafka": [sys.executable, ROOT / "tests/e2e/python/confluent_client.py"],
    "rdkafka": [TOOLS / "rust/debug/rdkafka-client"],
    "rskafka": [TOOLS / "rust/debug/rskafka-client"],
    "java": [*JAVA, ROOT / "tests/e2e/java/Groups.java"],
    "franz-go": [TOOLS / "go-client"],
    "kafkajs": ["node", ROOT / "tests/e2e/node/client.js"],
}
ENVIRONMENT = os.environ | {"NODE_PATH": str(TOOLS / "node/node_modules")}
# How many numbers may wait for their acknowledgements.
WAITING_MAX = 300
SETTINGS_OF_KCAT = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=3000", "-X", "heartbeat.interval.ms=300",
                    "-X", "auto.commit.interval.ms=200", "-X", "reconnect.backoff.max.ms=200"]


def command(client, verb, broker, *arguments):
    if client == "kcat":
        topic, group = arguments
        return ["kcat", "-b", broker.kafka, "-E", "-u", "-q", "-G", group, *SETTINGS_OF_KCAT, "-f", "%p %o %s\n", topic]
    return [*CLIENTS[client], verb, broker.kafka, *map(str, arguments)]


def run(client, verb, broker, *arguments, stdin=""):
    """Runs a client to its end. Returns the lines that it printed."""
    result = subprocess.run(command(client, verb, broker, *arguments), input=stdin, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def wait_until(condition, what):
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS_MAX} s: {what() if callable(what) else what}"
        time.sleep(0.02)


class Client:
    """A client that runs, and what it prints, line by line."""

    def __init__(self, log, *command):
        self.log = open(log, "w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1, env=ENVIRONMENT)
        self.reader = threading.Thread(target=self.follow, daemon=True)
        self.reader.start()

    def follow(self):
        for text in self.process.stdout:
            # What was cut by a kill was never said.
            if text.endswith("\n"):
                self.take(*map(int, text.split()))

    def told(self):
        self.log.seek(0)
        return self.log.read()[-4000:]

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.wait()

    def end(self):
        """Lets it end by itself."""
        self.process.stdin.close()
        self.wait()
        assert self.process.returncode == 0, self.told()

    def wait(self):
        self.process.wait(SECONDS_MAX)
        self.reader.join(SECONDS_MAX)


class Member(Client):
    """A member; `seen` are (partition, offset, number)."""

    def __init__(self, log, client, broker, topic):
        self.seen, self.client = [], client
        super().__init__(log, *command(client, "member", broker, topic, "readers"))

    def take(self, partition, offset, number):
        self.seen.append((partition, offset, number))

    def end(self):
        if self.client == "kcat":
            self.process.send_signal(signal.SIGINT)
        super().end()

    def wait_for_news(self, what):
        """Waits until it has seen something more of every partition."""
        before = len(self.seen)
        wait_until(lambda: len({partition for partition, _, _ in self.seen[before:]}) == PARTITIONS, lambda: f"{what}\n{self.told()}")


class Feed(Client):
    """A producer of numbers; `acknowledged` has their offsets. It sends until it is ended."""

    def __init__(self, log, client, broker, topic):
        self.acknowledged, self.sent, self.enough = {}, 0, threading.Event()
        super().__init__(log, *command(client, "feed", broker, topic))
        self.sender = threading.Thread(target=self.send, daemon=True)
        self.sender.start()

    def take(self, number, offset):
        self.acknowledged[number] = offset

    def send(self):
        while not self.enough.is_set():
            if self.sent - len(self.acknowledged) < WAITING_MAX:
                self.process.stdin.write("".join(f"{number}\n" for number in range(self.sent, self.sent + 20)))
                self.sent += 20
            time.sleep(0.01)

    def wait_for_news(self, what):
        before = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) > before, lambda: f"{what}\n{self.told()}")

    def end(self):
        self.enough.set()
        self.sender.join(SECONDS_MAX)
        super().end()
        assert sorted(self.acknowledged) == list(range(self.sent)), self.told()


@pytest.fixture
def clients(tmp_path):
    """Starts clients that run: `clients(Member, …)`. Those that still run at the end are killed."""
    started = []

    def start(kind, *arguments):
        started.append(kind(tmp_path / f"client-{len(started)}.log", *arguments))
        return started[-1]

    yield start
    for client in started:
        client.kill()


def check_log(broker, topic, feed, idempotent):
    """What stands in the log, by partition and offset: all that was acknowledged, where it was said to be, in order; of an idempotent producer once."""
    log = {partition: [int(message.value()) for message in read(broker, topic, partition)] for partition in range(PARTITIONS)}
    for number, offset in feed.acknowledged.items():
        assert log[number % PARTITIONS][offset] == number
    for partition, values in log.items():
        if idempotent:
            assert values == list(range(partition, feed.sent, PARTITIONS)), "each of them once"
        else:
            assert sorted(set(values)) == list(range(partition, feed.sent, PARTITIONS))
    return log


def check_seen(log, members):
    """Everything was seen as it stands in the log; and whoever went forward by more than one place passed over what another had seen."""
    seen = {(partition, offset) for member in members for partition, offset, _ in member.seen}
    assert seen == {(partition, offset) for partition, values in log.items() for offset in range(len(values))}
    for member in members:
        place = {}
        for partition, offset, number in member.seen:
            assert log[partition][offset] == number
            passed = range(place.get(partition, offset), offset)
            others = {at for other in members if other is not member for of, at, _ in other.seen if of == partition}
            mine = {at for of, at, _ in member.seen if of == partition}
            assert all(at in others or at in mine for at in passed)
            place[partition] = offset + 1


def committed(broker, group):
    client = admin(broker)
    told = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(SECONDS_MAX)
    return {at.partition: at.offset for at in told.topic_partitions}


@pytest.mark.parametrize("client", ["kcat", *(name for name in CLIENTS if name != "rskafka")])
def test_a_group_loses_nothing_whatever_is_killed(start_broker, tmp_bucket, clients, client):
    broker = start_broker(tmp_bucket, arguments=GROUPS)
    create_topic(broker, "fed", partitions=PARTITIONS)
    # kcat can't say what was acknowledged.
    feed = clients(Feed, "confluent-kafka" if client == "kcat" else client, broker, "fed")
    first = clients(Member, client, broker, "fed")
    first.wait_for_news("one member reads everything")
    second = clients(Member, client, broker, "fed")
    wait_until(lambda: second.seen, lambda: f"a second member gets its share\n{second.told()}")
    second.kill()
    first.wait_for_news("what the killed one had is given to the first when its session ends")
    broker.kill()
    broker.start(same_ports=True)
    feed.wait_for_news("the producer goes on after the broker was killed")
    first.wait_for_news("the member goes on after the broker was killed")
    feed.end()
    log = check_log(broker, "fed", feed, idempotent=client != "kafkajs")
    ends = {partition: len(values) for partition, values in log.items()}
    wait_until(lambda: len(set(first.seen) | set(second.seen)) == sum(ends.values()), lambda: f"all is seen\n{first.told()}")
    first.end()
    check_seen(log, [first, second])
    assert committed(broker, "readers") == ends
    # Who comes next gets what is new, and nothing else.
    new = clients(Feed, "confluent-kafka", broker, "fed")
    third = clients(Member, client, broker, "fed")
    third.wait_for_news("the group goes on")
    new.end()
    wait_until(lambda: len(third.seen) >= new.sent, lambda: f"what is new is seen\n{third.told()}")
    third.end()
    assert sorted((partition, offset) for partition, offset, _ in third.seen) == sorted(
        (number % PARTITIONS, offset) for number, offset in new.acknowledged.items())


def test_rskafka_goes_on_after_its_broker_was_killed(start_broker, tmp_bucket, clients):
    broker = start_broker(tmp_bucket)
    create_topic(broker, "fed", partitions=PARTITIONS)
    feed = clients(Feed, "rskafka", broker, "fed")
    feed.wait_for_news("it produces")
    broker.kill()
    broker.start(same_ports=True)
    feed.wait_for_news("it goes on")
    feed.end()
    check_log(broker, "fed", feed, idempotent=False)


def test_kcat_goes_on_after_its_broker_was_killed(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, "fed")
    command = ["kcat", "-b", broker.kafka, "-E", "-P", "-t", "fed", "-p", "0", "-X", "enable.idempotence=true", "-X", "reconnect.backoff.max.ms=200"]
    producer = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        producer.stdin.write(b"".join(b"%d\n" % number for number in range(5000)))
        producer.stdin.flush()
        wait_until(lambda: admin(broker).list_topics("fed") and read(broker, "fed"), "it has begun")
        broker.kill()
        producer.stdin.write(b"".join(b"%d\n" % number for number in range(5000, 10_000)))
        broker.start(same_ports=True)
        _, told = producer.communicate(timeout=SECONDS_MAX)
        assert producer.returncode == 0, told
    finally:
        producer.kill()
        producer.wait()
    assert [int(message.value()) for message in read(broker, "fed")] == list(range(10_000))


# What each client can say of a header: Java, franz-go and kafkajs are in suites of their own.
HEADERS = {
    "confluent-kafka": [(b"b", b"1"), (b"a", None), (b"b", b""), (b"b", b"1"), ("ключ".encode(), bytes(range(256)))],
    # It refuses to send null.
    "kafka-python": [(b"b", b"1"), (b"b", b""), (b"b", b"1"), ("ключ".encode(), bytes(range(256)))],
    "aiokafka": [(b"b", b"1"), (b"a", None), (b"b", b""), (b"b", b"1"), ("ключ".encode(), bytes(range(256)))],
    "rdkafka": [(b"b", b"1"), (b"a", None), (b"b", b""), (b"b", b"1"), ("ключ".encode(), bytes(range(256)))],
    # A sorted map of names to values.
    "rskafka": [(b"a", b""), (b"b", b"1"), ("ключ".encode(), bytes(range(256)))],
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("client", HEADERS)
def test_what_a_client_sends_comes_back_to_it(start_broker, tmp_bucket, earthquakes, client, codec):
    broker = start_broker(tmp_bucket, arguments=GROUPS)
    create_topic(broker, "sent")
    sent = [line(TIME_MS, None, b""), line(TIME_MS + 1, b"", None), line(TIME_MS + 2, b"k", b"v", HEADERS[client])]
    sent += [line(TIME_MS + 3 + number, b"%d" % number, value) for number, value in enumerate(earthquakes[:500])]
    offsets = run(client, "produce", broker, "sent", codec, stdin="\n".join(sent) + "\n")
    assert offsets == [str(offset) for offset in range(len(sent))]
    assert codec_on_the_wire(broker, "sent") == codec
    verb, who = ("consume", []) if client == "rskafka" else ("group", ["readers"])
    expected = [f"0 {offset} {record}" for offset, record in enumerate(sent)]
    assert run(client, verb, broker, "sent", *who, len(sent)) == expected
    # Once more from the store: it serves other bytes than the producer's.
    broker.restart()
    broker.arguments = [*broker.arguments, "--no-tail"]
    broker.restart(kill=True)
    who = ["others"] if who else []
    assert run(client, verb, broker, "sent", *who, len(sent)) == expected


@pytest.mark.parametrize("client", ["kcat", *CLIENTS])
def test_a_large_record_comes_back(start_broker, tmp_bucket, tmp_path, client):
    broker = start_broker(tmp_bucket, arguments=GROUPS)
    create_topic(broker, "large", config={"max.message.bytes": "6000000"})
    value = b"".join(b"%07d\n" % number for number in range(5_000_000 // 8))
    record = line(TIME_MS, b"k", value)
    if client == "kcat":
        (tmp_path / "large").write_bytes(value)
        kcat(broker, "-P", "-t", "large", "-p", "0", "-X", "message.max.bytes=10000000", tmp_path / "large")
        assert kcat(broker, "-C", "-t", "large", "-p", "0", "-e", "-q", "-D", "") == value
        return
    program = [*JAVA, ROOT / "tests/e2e/java/Client.java"] if client == "java" else CLIENTS[client]
    made = subprocess.run([*program, "produce", broker.kafka, "large", "none"], input=record + "\n", capture_output=True, text=True,
                          timeout=SECONDS_MAX, env=ENVIRONMENT)
    assert made.stdout.split() == ["0"], made.stderr
    verb, who = ("consume", []) if client == "rskafka" else ("group", ["readers"])
    assert run(client, verb, broker, "large", *who, 1) == [f"0 0 {record}"]


TOPIC = "administered"
TOLD = {"partitions": "4", "retention.ms": "1234", "max.message.bytes": "5000", "groups": f"{TOPIC} Empty", "topics left": "other"}
COMMITTED = {"committed": "7 whence"}
ADMINISTRATION = {
    "kafka-python": TOLD | COMMITTED | {"groups left": "", "log dirs": "file"},
    # It can't delete groups.
    "aiokafka": TOLD | COMMITTED,
    "rdkafka": TOLD | {"groups left": "", "topics left": "1"},
    "rskafka": {"partitions": "3", "offsets": "3 to 10", "topics left": "1"},
    "java": TOLD | COMMITTED | {"described": "Empty 0 1", "ends": "0", "altered": "3", "offsets left": "0", "groups left": "0",
                                "log dirs": "1 with 5 replicas", "broker configs": "true"},
    "franz-go": TOLD | COMMITTED | {"ends": "4", "lag": "0", "groups left": "0"},
    "kafkajs": TOLD | COMMITTED | {"groups left": "0"},
}


@pytest.mark.parametrize("client", ADMINISTRATION)
def test_a_client_administers_topics_and_groups(start_broker, tmp_bucket, client):
    broker = start_broker(tmp_bucket)
    create_topic(broker, "other")
    by = KafkaAdminClient(bootstrap_servers=broker.kafka)
    by.alter_group_offsets(TOPIC, {TopicPartition("other", 0): OffsetAndMetadata(7, "whence", -1)})
    by.close()
    told = dict(text.split("=", 1) for text in run(client, "admin", broker, TOPIC))
    assert told == ADMINISTRATION[client]
