"""A cluster of three brokers on one bucket before real clients: each is as good as the others, and it goes on whoever of them is lost.

What is claimed: whatever was acknowledged is there (of an idempotent producer once, and in order), a group goes on where it has committed, and
one broker leads. How long writers waited is printed, and bounded widely.
"""

import asyncio
import json
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from cluster import (
    ByGrpc, Cluster, Group, Idempotent, answer, asked, fetch_request, fetched, latest, latest_fields, leads, metadata, node_id, odd, on_server,
    produce_request, together, wait_until,
)
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, OffsetSpec, ResourceType
from conftest import BINARY
from kafka import KafkaProducer
from kafka.protocol.consumer import ListOffsetsRequest
from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest
from test_watching import page
from kafka_clients import SECONDS_MAX, admin, create_topic, kcat, read
from wire_kafka import Closed, Wire, built

TOPIC = "shared"
SEED = 20261124
ROUNDS = 8
# Wide: builds without optimization on machines that do other things, too.
GAP_MAX = 20


@pytest.fixture
def make_cluster(s3_server, start_broker, tmp_path):
    """Makes clusters on an S3 server of the test's own; what their brokers log is shown where a test fails."""
    yield lambda count=3, arguments=(): Cluster(start_broker, [on_server(s3_server)] * count, arguments)
    for log in sorted(tmp_path.glob("broker-*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')}")


@pytest.fixture
def cluster(make_cluster):
    return make_cluster()


def of_all(cluster):
    return [f"{broker.kafka} ({'leads' if leads(broker) else 'follows'})" for broker in cluster.running()]


# Clients of any broker.

def test_every_broker_names_all_and_one_leads_everything(cluster):
    leader = cluster.agreed()
    create_topic(cluster.brokers[1], TOPIC, partitions=5)
    told = [metadata(broker, [TOPIC]) for broker in cluster.brokers]
    assert told[0] == told[1] == told[2]
    assert sorted(told[0]["brokers"]) == [1, 2, 3] and set(told[0]["brokers"].values()) == {broker.kafka for broker in cluster.brokers}
    assert told[0]["leaders"] == {told[0]["controller"]} == {node_id(leader)}
    for broker in cluster.brokers:
        # The client must outlive its answers.
        client = admin(broker)
        seen = client.describe_cluster(request_timeout=SECONDS_MAX).result(SECONDS_MAX)
        assert (seen.cluster_id, seen.controller.id, sorted(node.id for node in seen.nodes)) == (told[0]["cluster"], node_id(leader), [1, 2, 3])
        (found,) = asked(broker, FindCoordinatorRequest, 4, key_type=0, coordinator_keys=["g"])["coordinators"]
        assert (found["error_code"], found["node_id"]) == (0, node_id(leader)), "the sequencer coordinates every group"


def by_confluent(broker, topic, values, **settings):
    told = []
    producer = Producer({"bootstrap.servers": broker.kafka, **settings})
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, message: told.append((error, message.value())))
    assert producer.flush(SECONDS_MAX) == 0 and told == [(None, value) for value in values]


def by_idempotent_confluent(broker, topic, values):
    by_confluent(broker, topic, values, **{"enable.idempotence": True})


def by_kafka_python(broker, topic, values):
    producer = KafkaProducer(bootstrap_servers=broker.kafka, acks="all", enable_idempotence=True)
    try:
        futures = [producer.send(topic, partition=0, value=value) for value in values]
        producer.flush(SECONDS_MAX)
        assert all(future.succeeded() for future in futures)
    finally:
        producer.close(SECONDS_MAX)


def by_aiokafka(broker, topic, values):
    async def produce():
        async with AIOKafkaProducer(bootstrap_servers=broker.kafka, acks="all", enable_idempotence=True) as producer:
            for value in values:
                await producer.send(topic, value, partition=0)

    asyncio.run(asyncio.wait_for(produce(), SECONDS_MAX))


def by_kcat(broker, topic, values):
    kcat(broker, "-P", "-t", topic, "-p", "0", stdin=b"".join(value + b"\n" for value in values))


def by_cli(broker, topic, values):
    done = subprocess.run([BINARY, "produce", topic, "--partition", "0", "--server", broker.http],
                          input=b"".join(value + b"\n" for value in values), capture_output=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stderr.decode()


CLIENTS = [by_confluent, by_idempotent_confluent, by_kafka_python, by_aiokafka, *([by_kcat] if shutil.which("kcat") else []), by_cli]


def consumed(lakebed, broker, topic, count):
    """What `lakebed consume` reads at this broker itself."""
    told = lakebed("consume", topic, "--count", str(count), "--server", broker.http)
    assert told.returncode == 0, told.stderr
    return [line.encode() for line in told.stdout.splitlines()]


def test_what_any_client_writes_by_way_of_any_broker_each_of_them_serves(cluster, lakebed):
    cluster.agreed()
    for client in CLIENTS:
        topic, written = f"of-{client.__name__}", []
        create_topic(cluster.brokers[0], topic)
        for number, broker in enumerate(cluster.brokers):
            values = [b"%d of broker %d" % (value, number) for value in range(20)]
            client(broker, topic, values)
            written += values
            # Each at once, whoever was written to.
            for other in cluster.brokers:
                assert latest(other, topic) == (0, len(written)), client.__name__
        for broker in cluster.brokers:
            assert fetched(broker, topic) == written, (client.__name__, of_all(cluster))
            assert [message.value() for message in read(broker, topic)] == written
            assert consumed(lakebed, broker, topic, len(written)) == written


def test_a_follower_serves_who_waits_for_what_is_written_next(cluster):
    leader = cluster.agreed()
    create_topic(leader, TOPIC)
    waiting = [(wire, wire.send(fetch_request(TOPIC, 0, 0, wait_ms=30_000), 11)) for wire in [Wire(broker.kafka) for broker in cluster.brokers]]
    by_confluent(leader, TOPIC, [b"x"])
    begun = time.monotonic()
    for wire, sent in waiting:
        (got,) = wire.receive(sent)["responses"][0]["partitions"]
        assert (got["error_code"], got["high_watermark"]) == (0, 1) and got["records"]
        wire.close()
    assert time.monotonic() - begun < 20, "it is woken, and does not wait its time out"


def test_every_broker_administers(cluster):
    cluster.agreed()
    for number, broker in enumerate(cluster.brokers):
        topic, client = f"administered-{number}", admin(broker)
        create_topic(broker, topic, partitions=2, config={"retention.ms": "3600000"})
        by_confluent(broker, topic, [b"1", b"2", b"3"])
        client.create_partitions([NewPartitions(topic, 4)])[topic].result(SECONDS_MAX)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
            ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)])
        client.incremental_alter_configs([resource])[resource].result(SECONDS_MAX)
        for other in cluster.brokers:
            asking = admin(other)
            described = asking.list_topics(topic, timeout=SECONDS_MAX).topics[topic]
            assert described.error is None and sorted(described.partitions) == [0, 1, 2, 3]
            config = asking.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
            assert next(iter(config.values())).result(SECONDS_MAX)["retention.ms"].value == "7200000"
            for spec, expected in ((OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 3)):
                told = asking.list_offsets({TopicPartition(topic, 0): spec})
                assert next(iter(told.values())).result(SECONDS_MAX).offset == expected
    for number, broker in enumerate(cluster.brokers):
        # By another one than it was made by.
        topic = f"administered-{(number + 1) % 3}"
        client = admin(broker)
        client.delete_topics([topic])[topic].result(SECONDS_MAX)
        for other in cluster.brokers:
            error, _ = latest(other, topic)
            assert error == 3, "it is gone for everybody at once"


def test_every_broker_gives_producers_ids_of_their_own(cluster):
    cluster.agreed()
    told = [gives_an_id(broker) for _ in range(5) for broker in cluster.brokers]
    assert len(set(told)) == len(told) and None not in told


def gives_an_id(broker):
    """An id for an idempotent producer; `None` if the broker has none to give just now."""
    told = asked(broker, InitProducerIdRequest, 4, transactional_id=None, transaction_timeout_ms=0, producer_id=-1, producer_epoch=-1)
    return told["producer_id"] if told["error_code"] == 0 else None


def test_a_follower_has_topics_made_on_first_use(make_cluster):
    cluster = make_cluster(arguments=["--auto-create-topics"])
    leader = cluster.agreed()
    followers = [broker for broker in cluster.brokers if broker is not leader]
    told = asked(followers[0], MetadataRequest, 8, topics=[{"name": "asked-for"}], allow_auto_topic_creation=True)
    (topic,) = told["topics"]
    assert topic["error_code"] == 0 and [part["leader_id"] for part in topic["partitions"]] == [node_id(leader)]
    by_confluent(followers[0], "by-kafka", [b"x"], **{"allow.auto.create.topics": True})
    by_cli(followers[1], "by-grpc", [b"x"])
    for broker in cluster.brokers:
        assert [fetched(broker, topic) for topic in ("asked-for", "by-kafka", "by-grpc")] == [[], [b"x"], [b"x"]]


# What brokers tell of themselves.

def info(lakebed, broker):
    told = lakebed("cluster", "info", "-o", "json", "--server", broker.http)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def test_every_broker_is_ready_and_tells_of_all(cluster, lakebed):
    leader = cluster.agreed()
    version = lakebed("--version").stdout.split()[1]
    expected = {broker.kafka: {"id": node_id(broker), "kafka_address": broker.kafka, "http_address": broker.http, "zone": f"zone-{number}",
                               "version": version, "leader": broker is leader} for number, broker in enumerate(cluster.brokers)}
    for broker in cluster.brokers:
        assert page(broker, "/readyz") == (200, '{"ready":true}')
        health = lakebed("cluster", "health", "--exit-code", "--server", broker.http)
        assert health.returncode == 0, health.stdout + health.stderr
        told = {one["kafka_address"]: one for one in info(lakebed, broker)["brokers"]}
        for address, one in told.items():
            assert one.get("self", False) == (address == broker.kafka)
        assert {address: {name: one.get(name) for name in expected[address]} for address, one in told.items()} == expected


def test_the_cluster_is_one_to_all_of_its_brokers(cluster, lakebed):
    cluster.agreed()
    told = [info(lakebed, broker) for broker in cluster.brokers]
    assert told[0]["cluster_id"] == told[1]["cluster_id"] == told[2]["cluster_id"] == metadata(cluster.brokers[0])["cluster"]
    assert [one["cells"] for one in told] == [told[0]["cells"]] * 3


# The sequencer is lost.

class Load:
    """Writers of several kinds and a group that reads all they write, for the time of a `with`."""

    def __init__(self, cluster, away):
        self.near = [broker for broker in cluster.brokers if broker is not away]
        create_topic(self.near[0], TOPIC, partitions=2 + len(self.near))
        self.cluster = cluster
        self.idempotent = Idempotent(TOPIC, 0, cluster.bootstrap)
        self.by_grpc = ByGrpc(TOPIC, 1, cluster.brokers)
        self.group = Group(TOPIC, cluster.bootstrap)
        # Each at a broker that stays.
        self.by_cli = [Cli(TOPIC, 2 + number, broker) for number, broker in enumerate(self.near)]

    def __enter__(self):
        for one in (self.idempotent, self.by_grpc, self.group, *self.by_cli):
            one.start()
        self.go_on()
        wait_until(lambda: self.group.committed or self.group.error, "the group commits")
        return self

    def __exit__(self, kind, *_):
        if kind:
            # Whatever fails in them now is no news.
            for one in (self.idempotent, self.by_grpc, *self.by_cli):
                one.ending.set()
            self.group.stopping.set()
            for one in self.by_cli:
                one.process.kill()

    def go_on(self, nearby=True):
        """Waits until every writer has been answered some more; those that know one broker only if they are `nearby` one that runs."""
        self.idempotent.more(50)
        self.by_grpc.more(5)
        for one in self.by_cli if nearby else ():
            one.more(5)

    def group_goes_on(self):
        """Waits until the group has read and committed what was written since."""
        _, end, _ = self.idempotent.acknowledged[-1]
        wait_until(lambda: self.group.committed.get(0, 0) > end or self.group.error, "the group goes on")

    def tell(self, what, since):
        """Prints how long each was without an answer after `since`."""
        gaps = {"Kafka": self.idempotent.gap_after(since), "gRPC": self.by_grpc.gap_after(since), "group": self.group.gap_after(since)}
        print(f"{what}: longest without an answer: " + ", ".join(f"{name} {gap:.2f} s" for name, gap in gaps.items()),
              f"; refused: gRPC {[why for _, why in self.by_grpc.refused]}, group {self.group.refused}")
        assert max(gaps["Kafka"], gaps["gRPC"]) < GAP_MAX, gaps

    def check(self):
        """Ends the writers, and looks at what is there, at each broker."""
        for writer in (self.idempotent, self.by_grpc):
            writer.finish()
        lines = [one.finish() for one in self.by_cli]
        first, partitions = self.cluster.running()[0], range(2 + len(lines))
        values = [[int(value) for value in fetched(first, TOPIC, partition)] for partition in partitions]
        self.idempotent.check(values[0])
        self.by_grpc.check(values[1])
        assert [sorted(set(of)) for of in values[2:]] == [list(range(count)) for count in lines], "what `lakebed produce` has acknowledged is there"
        for broker in self.cluster.running()[1:]:
            assert [[int(value) for value in fetched(broker, TOPIC, partition)] for partition in partitions] == values
        total = sum(len(of) for of in values)
        wait_until(lambda: sum(len(seen) for seen in list(self.group.seen.values())) == total or self.group.error, "the group has read everything")
        self.group.finish()
        assert {at: [seen[offset] for offset in sorted(seen)] for at, seen in self.group.seen.items()} == dict(enumerate(values))
        assert self.group.committed == {at: len(of) for at, of in enumerate(values)}


class Cli(threading.Thread):
    """`lakebed produce` at one broker, which is fed lines until it is told to end."""

    def __init__(self, topic, partition, broker):
        super().__init__(daemon=True, name=f"`lakebed produce` at {broker.http} to partition {partition}")
        self.topic, self.partition, self.broker, self.ending, self.lines = topic, partition, broker, threading.Event(), 0
        self.process = subprocess.Popen([BINARY, "produce", topic, "--partition", str(partition), "--at-least-once", "--server", broker.http],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self):
        try:
            while not self.ending.wait(0.01):
                self.process.stdin.write(b"%d\n" % self.lines)
                self.process.stdin.flush()
                self.lines += 1
        except BrokenPipeError:
            # It has ended; `finish` tells why.
            pass

    def more(self, count):
        """Waits until so many more of its lines are there."""
        begin = self.end()
        wait_until(lambda: self.end() >= begin + count or self.process.poll() is not None, f"{count} more lines of {self.name}")
        assert self.process.poll() is None, f"{self.name} has ended: {self.process.stderr.read().decode()}"

    def end(self):
        try:
            error, offset = latest(self.broker, self.topic, self.partition)
        except Closed:
            return 0
        return 0 if error else offset

    def finish(self):
        """How many lines it was fed; all of them are acknowledged."""
        self.ending.set()
        self.join(SECONDS_MAX)
        out, err = self.process.communicate(timeout=SECONDS_MAX)
        assert self.process.returncode == 0, (out + err).decode()
        assert f"produced {self.lines} records" in err.decode(), err
        return self.lines


def test_when_the_sequencer_is_killed_another_goes_on(cluster):
    leader = cluster.agreed()
    with Load(cluster, away=leader) as load:
        since = time.monotonic()
        leader.kill()
        load.go_on()
        load.group_goes_on()
        successor = cluster.led()
        load.tell("kill -9 of the sequencer", since)
        leader.start(same_ports=True)
        assert cluster.agreed() is successor
        assert node_id(leader) == 1, "who comes back at once is the same node"
        load.go_on()
        load.check()


def test_when_the_sequencer_stops_in_order_nobody_is_told_of_an_error(cluster):
    leader = cluster.agreed()
    with Load(cluster, away=leader) as load:
        since = time.monotonic()
        # Asserts that its exit code is 0.
        leader.stop()
        assert "handed over" in Path(leader.log).read_text(), "before it ends, and not because it is gone"
        load.go_on()
        load.group_goes_on()
        successor = cluster.led()
        load.tell("SIGTERM of the sequencer", since)
        assert cluster.agreed() is successor, "who has left is named no more"
        leader.start(same_ports=True)
        assert cluster.agreed() is successor
        load.go_on()
        load.check()


def test_a_sequencer_that_hangs_is_succeeded_and_follows_when_it_goes_on(cluster):
    leader = cluster.agreed()
    with Load(cluster, away=leader) as load:
        early = [Wire(leader.kafka) for _ in range(3)]
        since = time.monotonic()
        leader.process.send_signal(signal.SIGSTOP)
        try:
            load.go_on()
            load.group_goes_on()
            others = [broker for broker in cluster.brokers if broker is not leader]
            successor = cluster.led(but=leader)
            for broker in others:
                wait_until(lambda broker=broker: gives_an_id(broker), "what only the sequencer can answer is answered by its successor")
            # What it reads when it goes on was asked when another one had taken over.
            acknowledged = len(load.idempotent.acknowledged)
            sent = [early[0].send(produce_request(TOPIC, [b"late"]), 8), early[1].send(built(ListOffsetsRequest, latest_fields(TOPIC)), 5),
                    early[2].send(built(MetadataRequest, {"topics": [{"name": TOPIC}], "allow_auto_topic_creation": False}), 8)]
            load.tell("SIGSTOP of the sequencer", since)
        finally:
            leader.process.send_signal(signal.SIGCONT)
        answers = [answer(wire, request) for wire, request in zip(early, sent)]
        if answers[0] is not None:
            assert answers[0]["responses"][0]["partition_responses"][0]["error_code"] != 0, "nothing is acknowledged by who has lost the log"
        if answers[1] is not None:
            (told,) = answers[1]["topics"][0]["partitions"]
            assert told["error_code"] != 0 or told["offset"] >= acknowledged, "the end of a partition does not go back"
        assert cluster.agreed() is successor
        assert len(fetched(leader, TOPIC)) >= acknowledged, "it serves reads again"
        load.go_on()
        load.check()


def test_brokers_are_restarted_one_after_another_and_lost_in_any_order(cluster):
    choose = random.Random(SEED)
    cluster.agreed()
    with Load(cluster, away=None) as load:
        for broker in cluster.brokers:
            broker.stop()
            load.go_on(nearby=False)
            broker.start(same_ports=True)
            cluster.agreed()
        load.go_on()
        for _ in range(ROUNDS):
            broker, how = choose.choice(cluster.brokers), choose.choice(["kill", "hang", "stop"])
            since = time.monotonic()
            led = leads(broker)
            if how == "hang":
                broker.process.send_signal(signal.SIGSTOP)
                cluster.led(but=broker)
                broker.process.send_signal(signal.SIGCONT)
            else:
                broker.kill() if how == "kill" else broker.stop()
                cluster.led()
                broker.start(same_ports=True)
            load.go_on()
            load.tell(f"{how} of {'the sequencer' if led else 'a follower'}", since)
        cluster.agreed()
        load.check()


# Others are lost, or all, or the bucket.

def test_a_follower_that_is_killed_is_missed_and_comes_back(cluster):
    leader = cluster.agreed()
    lost, other = (broker for broker in cluster.brokers if broker is not leader)
    create_topic(leader, TOPIC)
    number = node_id(lost)
    with_load = Idempotent(TOPIC, 0, cluster.bootstrap)
    with_load.start()
    with_load.more(50)
    since = time.monotonic()
    lost.kill()
    with_load.more(50)
    lost.start(same_ports=True)
    assert cluster.agreed() is leader and node_id(lost) == number, "who comes back soon is the same node"
    lost.kill()
    assert cluster.agreed([leader, other]) is leader, "who does not is named no more"
    with_load.more(50)
    print(f"a follower was killed twice: {with_load.gap_after(since):.2f} s without an acknowledgement")
    assert with_load.gap_after(since) < GAP_MAX
    lost.start(same_ports=True)
    assert cluster.agreed() is leader
    with_load.finish()
    for broker in cluster.brokers:
        with_load.check([int(value) for value in fetched(broker, TOPIC)])


def test_of_brokers_that_start_at_the_same_moment_on_an_empty_bucket_one_leads(make_cluster, start_broker, s3_server):
    for number in range(3):
        cluster, bucket = make_cluster(count=0), on_server(s3_server, f"root-{number}")
        cluster.brokers = together(*[lambda: start_broker(bucket) for _ in range(2 + number % 2)])
        leader = cluster.agreed()
        create_topic(leader, TOPIC)
        for broker in cluster.brokers:
            by_confluent(broker, TOPIC, [b"x"])
        assert [fetched(broker, TOPIC) for broker in cluster.brokers] == [[b"x"] * len(cluster.brokers)] * len(cluster.brokers)


@pytest.mark.parametrize("same_ports", [True, False], ids=["same-ports", "other-ports"])
def test_all_are_killed_and_started_again_and_what_was_acknowledged_is_there(cluster, same_ports):
    leader = cluster.agreed()
    create_topic(leader, TOPIC, partitions=2)
    writer, by_grpc = Idempotent(TOPIC, 0, cluster.bootstrap), ByGrpc(TOPIC, 1, cluster.brokers)
    writer.start()
    by_grpc.start()
    writer.more(200)
    by_grpc.more(20)
    cluster.kill()
    if not same_ports:
        # It would wait for brokers that never come back.
        writer.ending.set()
    by_grpc.ending.set()
    acknowledged, (count, by_grpc_acknowledged) = list(writer.acknowledged), (len(writer.acknowledged), list(by_grpc.acknowledged))
    cluster.start(same_ports)
    cluster.agreed()
    for broker in cluster.brokers:
        values = [int(value) for value in fetched(broker, TOPIC)]
        assert all(values[offset] == number for _, offset, number in acknowledged), odd(values)
        assert values == list(range(len(values))) and len(values) >= count, odd(values)
        values = [int(value) for value in fetched(broker, TOPIC, 1)]
        assert all(values[offset] == number for _, offset, number in by_grpc_acknowledged)
    if same_ports:
        writer.more(50)
        writer.finish()
        writer.check([int(value) for value in fetched(cluster.brokers[0], TOPIC)])


@pytest.mark.parametrize("outage,seconds", [("refused", 3), ("unavailable", 8)])
def test_while_the_bucket_is_away_nothing_is_lost_and_writers_go_on_afterwards(cluster, s3_server, outage, seconds):
    leader = cluster.agreed()
    with Load(cluster, away=leader) as load:
        since = time.monotonic()
        s3_server.conduct(outage=outage)
        time.sleep(seconds)
        s3_server.conduct()
        load.go_on()
        load.tell(f"{seconds} s without the bucket ({outage})", since)
        cluster.agreed()
        load.check()


@pytest.mark.parametrize("count", [1, 3])
def test_brokers_stop_while_the_bucket_is_away(make_cluster, s3_server, count):
    cluster = make_cluster(count)
    leader = cluster.agreed()
    create_topic(leader, TOPIC)
    s3_server.conduct(outage="refused")
    # Nothing that was accepted waits for the bucket. Asserts that the exit code is 0.
    leader.stop()
    s3_server.conduct()
    leader.start()
    assert latest(leader, TOPIC) == (0, 0)
