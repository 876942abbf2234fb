"""The same requests to Lakebed and to Apache Kafka 4.1, and what clients see of the answers: error codes, offsets, states, defaults.

Each scenario is a function that asks one broker and returns what it was told, step by step. Where the two differ on purpose, the step is
named in DIFFERENCES with its reason, and docs/kafka-compatibility.md tells it; a difference that is no longer one fails, too.
"""

import os
import signal
import socket
import struct
import subprocess
import time

import assigned_scenarios
import pytest
from conftest import ROOT
from kafka.protocol.admin import (
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest, ListGroupsRequest)
from kafka.protocol.consumer import (
    FetchRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListOffsetsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, SyncGroupRequest)
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest
from wire_kafka import Wire, batch, built

JARS = ROOT / "tests/.tools/kafka"
READY_SECONDS = 90

# What belongs to one broker alone, or to the moment: places, ids, times, and the words of messages.
OWN = {"throttle_time_ms", "host", "port", "node_id", "leader_id", "controller_id", "cluster_id", "topic_id", "error_message",
       "log_append_time_ms", "authorized_operations", "topic_authorized_operations", "cluster_authorized_operations", "rack",
       "replica_nodes", "isr_nodes", "offline_replicas", "endpoints", "client_host", "node_endpoints", "configs", "record_errors",
       "last_stable_offset", "finalized_features_epoch", "supported_features", "finalized_features", "preferred_read_replica", "session_id"}

# (scenario, step) -> why Lakebed answers otherwise.
DIFFERENCES = {
    ("topics", "twice"): "each topic of a request has its answer; Kafka answers a name that comes twice once",
    ("committing", "below 0"): "Kafka keeps -1, and answers it as if nothing were committed; it is no place in a log: OFFSET_OUT_OF_RANGE",
    ("producing", "transactional without a transaction"): "there are no transactions yet: UNSUPPORTED_VERSION",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    """A broker of Apache Kafka; its address."""
    assert list(JARS.glob("kafka_2.13-*.jar")), f"{JARS} is empty: tests/run e2e fills it"
    directory = tmp_path_factory.mktemp("kafka")
    port, controller = free_port(), free_port()
    settings = {
        "process.roles": "broker,controller", "node.id": 1, "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}", "controller.listener.names": "CONTROLLER",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}", "log.dirs": directory / "data", "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0, "auto.create.topics.enable": "false",
    }
    file = directory / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    java = ["java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*"]
    subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", file], check=True, capture_output=True)
    with open(directory / "kafka.log", "wb") as log:
        process = subprocess.Popen([*java, "kafka.Kafka", file], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (directory / "kafka.log").read_text()
            try:
                wire = Wire(f"127.0.0.1:{port}")
                # Its coordinator makes a topic of its own first.
                if wire.call(MetadataRequest, 12, topics=[])["brokers"] and has_coordinator(wire):
                    break
            except OSError:
                pass
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A broker of ours; its address."""
    from conftest import Broker

    directory = tmp_path_factory.mktemp("ours")
    broker = Broker(f"file://{directory}/root", dict(os.environ), directory / "broker.log",
                    arguments=["--group-initial-rebalance-delay", "0s"])
    yield broker.kafka
    broker.stop()


def has_coordinator(wire):
    found = wire.call(FindCoordinatorRequest, 3, key="ready", key_type=0)["error_code"] == 0
    return found and committed(wire, "ready", None)["error_code"] == 0


class Steps:
    """What a broker told, by the name of the step. Ids become the order in which they were first seen."""

    def __init__(self):
        self.told, self.ids = {}, {}

    def note(self, name, answer):
        assert name not in self.told, name
        self.told[name] = self.plain(answer)
        return answer

    def plain(self, value, name=None):
        if isinstance(value, dict):
            return {key: self.plain(part, key) for key, part in value.items() if key not in OWN}
        if isinstance(value, list):
            return [self.plain(part, name) for part in value]
        if name in ("member_id", "leader", "producer_id") and value not in ("", -1):
            return self.ids.setdefault(value, f"id {len(self.ids)}")
        return value


def create(wire, name, partitions=1, **config):
    configs = [{"name": key.replace("_", "."), "value": value} for key, value in config.items()]
    topic = {"name": name, "num_partitions": partitions, "replication_factor": 1, "assignments": [], "configs": configs}
    answer = wire.call(CreateTopicsRequest, 7, topics=[topic], timeout_ms=30_000, validate_only=False)
    assert answer["topics"][0]["error_code"] == 0, answer
    # Kafka answers before its brokers know: first of the topic, then of each partition.
    asked = [{"partition_index": index, "current_leader_epoch": -1, "timestamp": -1} for index in range(partitions)]
    deadline = time.monotonic() + READY_SECONDS
    while any(topic["error_code"] for topic in metadata(wire, name)["topics"]) or any(
            part["error_code"] for topic in wire.call(ListOffsetsRequest, 7, replica_id=-1, isolation_level=0, topics=[
                {"name": name, "partitions": asked}])["topics"] for part in topic["partitions"]):
        assert time.monotonic() < deadline


def metadata(wire, *names):
    return wire.call(MetadataRequest, 9, topics=[{"name": name} for name in names], allow_auto_topic_creation=False)


def produce(wire, topic, records, partition=0, acks=-1, version=9):
    data = [{"name": topic, "partition_data": [{"index": partition, "records": records}]}]
    answer = wire.call(ProduceRequest, version, transactional_id=None, acks=acks, timeout_ms=30_000, topic_data=data)
    return answer["responses"][0]["partition_responses"][0]


def producing(wire, steps):
    create(wire, "produced", max_message_bytes="1000")
    note = lambda name, *arguments, **options: steps.note(name, produce(wire, *arguments, **options))  # noqa: E731
    note("first", "produced", batch([b"a", b"b"]))
    note("second", "produced", batch([b"c"]))
    note("acks of 1", "produced", batch([b"d"]), acks=1)
    note("acks of 2", "produced", batch([b"e"]), acks=2)
    note("too large", "produced", batch([b"x" * 2000]))
    note("no such partition", "produced", batch([b"e"]), partition=1)
    note("no such topic", "nowhere", batch([b"e"]))
    damaged = bytearray(batch([b"damaged"]))
    damaged[-1] ^= 1
    note("damaged", "produced", bytes(damaged))
    old = bytearray(batch([b"old"]))
    old[16] = 1
    note("magic 1", "produced", bytes(old))
    note("transactional without a transaction", "produced", batch([b"t"], 1, 0, 0, transactional=True))
    create(wire, "timed", message_timestamp_before_max_ms="1000", message_timestamp_after_max_ms="1000")
    note("too old", "timed", batch([b"a"], timestamp=1_000_000))
    note("too new", "timed", batch([b"a"], timestamp=int(time.time() * 1000) + 10_000_000))
    create(wire, "stamped", message_timestamp_type="LogAppendTime")
    note("stamped by the log", "stamped", batch([b"a"], timestamp=5))
    for version in range(3, 13):
        note(f"version {version}", "produced", batch([b"v"]), version=version)


def compacting(wire, steps):
    create(wire, "compacted", cleanup_policy="compact")
    steps.note("without a key", produce(wire, "compacted", batch([b"a"])))
    steps.note("with a key", produce(wire, "compacted", batch([b"a", None], key=b"k")))
    steps.note("with an empty key", produce(wire, "compacted", batch([b"a"], key=b"")))
    create(wire, "both", cleanup_policy="compact,delete")
    steps.note("without a key of both", produce(wire, "both", batch([b"a"])))
    topic = {"num_partitions": 1, "replication_factor": 1, "assignments": []}
    for config, value in (("cleanup.policy", "compact,shred"), ("min.cleanable.dirty.ratio", "1.5"), ("min.cleanable.dirty.ratio", "1"),
                          ("delete.retention.ms", "-1"), ("min.compaction.lag.ms", "-1"), ("max.compaction.lag.ms", "0")):
        steps.note(f"{config}={value}", wire.call(CreateTopicsRequest, 7, timeout_ms=30_000, validate_only=True, topics=[
            {"name": "set", "configs": [{"name": config, "value": value}], **topic}]))


def idempotent(wire, steps):
    create(wire, "idempotent", 2)
    first = None
    for version in range(0, 6):
        answer = wire.call(InitProducerIdRequest, version, transactional_id=None, transaction_timeout_ms=60_000)
        deadline = time.monotonic() + READY_SECONDS
        while answer["error_code"] == 14:  # Kafka has no ids yet.
            assert time.monotonic() < deadline
            answer = wire.call(InitProducerIdRequest, version, transactional_id=None, transaction_timeout_ms=60_000)
        steps.note(f"id by version {version}", answer)
        first = first or answer["producer_id"]
    steps.note("an id that has one", wire.call(
        InitProducerIdRequest, 4, transactional_id=None, transaction_timeout_ms=60_000, producer_id=first, producer_epoch=0))
    steps.note("empty transactional id", wire.call(InitProducerIdRequest, 4, transactional_id="", transaction_timeout_ms=60_000))
    note = lambda name, *stamp, values=(b"a", b"b"), partition=0: steps.note(  # noqa: E731
        name, produce(wire, "idempotent", batch(values, first, *stamp), partition=partition))
    note("sequence 0", 0, 0)
    note("sequence 2", 0, 2)
    note("sequence 0 again", 0, 0)
    note("sequence 2 again", 0, 2)
    note("a gap", 0, 10)
    note("half of what was", 0, 3, values=(b"b",))
    note("another partition begins anywhere", 0, 7, partition=1)
    note("an epoch with a later sequence", 1, 4)
    note("an epoch from 0", 1, 0)
    note("the old epoch", 0, 4)
    for sequence in range(2, 14, 2):
        note(f"sequence {sequence} of the new epoch", 1, sequence)
    note("one of the last five", 1, 6)
    note("one that is forgotten", 1, 0)
    note("near the end of sequences", 2, 0)
    end = 2**31 - 1
    note("another id begins at the end", 5, end - 1, partition=1)
    steps.note("an unknown producer begins at the end", produce(wire, "idempotent", batch([b"a", b"b"], first + 1, 0, end), partition=1))
    steps.note("and goes round", produce(wire, "idempotent", batch([b"a"], first + 1, 0, 1), partition=1))


def offsets(wire, steps):
    create(wire, "offsets")
    create(wire, "empty")
    for index in range(5):
        produce(wire, "offsets", batch([b"a", b"b"], timestamp=1_700_000_000_000 + index * 1000))

    def listed(topic, timestamp, version=7, partition=0, epoch=-1):
        part = {"partition_index": partition, "current_leader_epoch": epoch, "timestamp": timestamp}
        return wire.call(ListOffsetsRequest, version, replica_id=-1, isolation_level=0, topics=[{"name": topic, "partitions": [part]}])

    for topic in ("offsets", "empty"):
        for timestamp in (-1, -2, -3, 0, 1_700_000_002_000, 1_700_000_002_001, 1_900_000_000_000):
            steps.note(f"{topic} at {timestamp}", listed(topic, timestamp))
    for version in range(1, 11):
        steps.note(f"version {version}", listed("offsets", -1, version))
    steps.note("no such partition", listed("offsets", -1, partition=3))
    steps.note("no such topic", listed("nowhere", -1))
    steps.note("an epoch to come", listed("offsets", -1, epoch=5))
    for epoch in (0, 7):
        part = {"partition": 0, "current_leader_epoch": -1, "leader_epoch": epoch}
        steps.note(f"end of epoch {epoch}", wire.call(
            OffsetForLeaderEpochRequest, 4, replica_id=-1, topics=[{"topic": "offsets", "partitions": [part]}]))


def fetching(wire, steps):
    create(wire, "fetched")
    produce(wire, "fetched", batch([b"a" * 500, b"b"]))
    produce(wire, "fetched", batch([b"c"]))

    def fetched(offset, topic="fetched", partition=0, bytes_max=1 << 20, partition_bytes_max=1 << 20, version=11, epoch=-1, isolation=0):
        part = {"partition": partition, "fetch_offset": offset, "partition_max_bytes": partition_bytes_max, "current_leader_epoch": epoch}
        answer = wire.call(FetchRequest, version, replica_id=-1, max_wait_ms=0, min_bytes=0, max_bytes=bytes_max, isolation_level=isolation,
                           session_id=0, session_epoch=-1, topics=[{"topic": topic, "partitions": [part]}], rack_id="")
        for topic in answer["responses"]:
            for part in topic["partitions"]:
                part["records"] = len(part["records"] or b"")
        return answer

    for offset in (0, 1, 2, 3, 4, -1):
        steps.note(f"from {offset}", fetched(offset))
    steps.note("committed alone", fetched(0, isolation=1))
    steps.note("one batch at a time", fetched(0, bytes_max=1, partition_bytes_max=1))
    steps.note("no such partition", fetched(0, partition=1))
    steps.note("no such topic", fetched(0, topic="nowhere"))
    steps.note("an epoch to come", fetched(0, epoch=3))
    for version in range(4, 13):
        steps.note(f"version {version}", fetched(0, version=version))


def topics(wire, steps):
    def created(validate_only=False, version=7, **fields):
        topic = {"num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": [], **fields}
        return wire.call(CreateTopicsRequest, version, topics=[topic], timeout_ms=30_000, validate_only=validate_only)

    steps.note("validated", created(name="made", num_partitions=3, validate_only=True))
    steps.note("made", created(name="made", num_partitions=3))
    steps.note("made again", created(name="made"))
    for name in ("", ".", "..", "with space", "x" * 250, "slash/ed"):
        steps.note(f"name {name!r:.20}", created(name=name))
    for count in (0, -2):
        steps.note(f"{count} partitions", created(name="counted", num_partitions=count))
    steps.note("0 replicas", created(name="counted", replication_factor=0))
    assigned = [{"partition_index": 0, "broker_ids": [1]}]
    steps.note("assigned and counted", created(name="assigned", assignments=assigned))
    steps.note("assigned with a gap", created(
        name="assigned", num_partitions=-1, replication_factor=-1, assignments=[{"partition_index": 1, "broker_ids": [1]}]))
    steps.note("assigned", created(name="assigned", num_partitions=-1, replication_factor=-1, assignments=assigned))
    for config, value in (("unheard.of", "1"), ("retention.ms", "soon"), ("retention.ms", "-2"), ("max.message.bytes", "-1"),
                          ("cleanup.policy", "shred"), ("compression.type", "rar"), ("message.timestamp.type", "Now")):
        steps.note(f"{config}={value}", created(name="set", configs=[{"name": config, "value": value}]))
    steps.note("twice", wire.call(CreateTopicsRequest, 7, timeout_ms=30_000, validate_only=False, topics=[
        {"name": "twice", "num_partitions": 1, "replication_factor": 1}] * 2))
    grow = lambda name, count, **fields: wire.call(CreatePartitionsRequest, 3, timeout_ms=30_000, validate_only=False, topics=[  # noqa: E731
        {"name": name, "count": count, "assignments": None, **fields}])
    steps.note("fewer", grow("made", 2))
    steps.note("as many", grow("made", 3))
    steps.note("more", grow("made", 5))
    steps.note("of nothing", grow("nowhere", 5))
    steps.note("none", grow("made", 0))
    steps.note("deleted nothing", wire.call(DeleteTopicsRequest, 5, topic_names=["nowhere"], timeout_ms=30_000))
    steps.note("deleted", wire.call(DeleteTopicsRequest, 5, topic_names=["made"], timeout_ms=30_000))


def pages(wire, steps):
    create(wire, "paged", partitions=5)
    create(wire, "paged.too", partitions=2)

    def told(*names, limit=2000, cursor=None):
        at = None if cursor is None else {"topic_name": cursor[0], "partition_index": cursor[1]}
        return wire.call(DescribeTopicPartitionsRequest, 0, topics=[{"name": name} for name in names], response_partition_limit=limit, cursor=at)

    steps.note("both", told("paged.too", "paged"))
    steps.note("twice", told("paged", "paged"))
    steps.note("wrong names", told("paged", "nowhere", "no where"))
    for limit in (-1, 0, 1, 5, 6, 7, 8):
        steps.note(f"at most {limit}", told("paged", "paged.too", limit=limit))
    for cursor in (("paged", 3), ("paged", 5), ("paged", 9), ("paged.", 1), ("paged.too", 1), ("z", 0), ("paged", -1)):
        steps.note(f"from {cursor}", told("paged", "paged.too", cursor=cursor))
    steps.note("from the middle, at most 2", told("paged", "paged.too", cursor=("paged", 3), limit=2))


def trimming(wire, steps):
    create(wire, "trimmed")
    produce(wire, "trimmed", batch([b"a", b"b", b"c", b"d"]))
    trim = lambda offset, topic="trimmed", partition=0: wire.call(DeleteRecordsRequest, 2, timeout_ms=30_000, topics=[  # noqa: E731
        {"name": topic, "partitions": [{"partition_index": partition, "offset": offset}]}])
    steps.note("to 2", trim(2))
    steps.note("to 1", trim(1))
    steps.note("beyond", trim(9))
    steps.note("below 0", trim(-2))
    steps.note("to the end", trim(-1))
    steps.note("no such partition", trim(1, partition=4))
    steps.note("no such topic", trim(1, topic="nowhere"))


def configs(wire, steps):
    create(wire, "configured", retention_ms="5000")
    topic = {"resource_type": 2, "resource_name": "configured"}

    def described(*names):
        answer = wire.call(DescribeConfigsRequest, 4, include_synonyms=False, include_documentation=False,
                           resources=[{**topic, "configuration_keys": list(names) or None}])["results"][0]
        values = {config["name"]: (config["value"], config["config_source"], config["read_only"], config["is_sensitive"],
                                   config["config_type"]) for config in answer.pop("configs")}
        return {**answer, "values": values}

    names = ["retention.ms", "retention.bytes", "cleanup.policy", "max.message.bytes", "message.timestamp.type", "compression.type",
             "message.timestamp.before.max.ms", "message.timestamp.after.max.ms", "delete.retention.ms", "min.compaction.lag.ms"]
    steps.note("some", described(*names))
    steps.note("one that is not there", described("unheard.of"))

    def changed(operation, name, value):
        return wire.call(IncrementalAlterConfigsRequest, 1, validate_only=False, resources=[
            {**topic, "configs": [{"name": name, "config_operation": operation, "value": value}]}])

    steps.note("set", changed(0, "retention.ms", "7000"))
    steps.note("set to nonsense", changed(0, "retention.ms", "soon"))
    steps.note("set what is not there", changed(0, "unheard.of", "1"))
    steps.note("append to no list", changed(2, "retention.ms", "1"))
    steps.note("deleted", changed(1, "retention.ms", None))
    # Kafka answers before its brokers know.
    deadline = time.monotonic() + READY_SECONDS
    while described("retention.ms")["values"]["retention.ms"][0] == "7000":
        assert time.monotonic() < deadline
    steps.note("then", described("retention.ms"))
    steps.note("all replaced", wire.call(AlterConfigsRequest, 2, validate_only=False, resources=[
        {**topic, "configs": [{"name": "retention.bytes", "value": "9"}]}]))
    while described("retention.bytes")["values"]["retention.bytes"][0] != "9":
        assert time.monotonic() < deadline
    steps.note("at last", described("retention.ms", "retention.bytes"))
    steps.note("of nothing", wire.call(DescribeConfigsRequest, 4, include_synonyms=False, include_documentation=False, resources=[
        {"resource_type": 2, "resource_name": "nowhere", "configuration_keys": None}]))


def coordinators(wire, steps):
    for version in (0, 1, 3):
        steps.note(f"one, version {version}", wire.call(FindCoordinatorRequest, version, key="group", key_type=0))
    steps.note("many", wire.call(FindCoordinatorRequest, 4, coordinator_keys=["a", "b"], key_type=0))
    steps.note("of no kind", wire.call(FindCoordinatorRequest, 4, coordinator_keys=["a"], key_type=9))


def join(wire, group, member="", protocols=(("range", b"\0"),), version=5, session=10_000, instance=None, kind="consumer"):
    return wire.call(JoinGroupRequest, version, group_id=group, session_timeout_ms=session, rebalance_timeout_ms=10_000, member_id=member,
                     group_instance_id=instance, protocol_type=kind,
                     protocols=[{"name": name, "metadata": metadata} for name, metadata in protocols])


def sync(wire, group, generation, member, assignments=(), version=3, instance=None):
    return wire.call(SyncGroupRequest, version, group_id=group, generation_id=generation, member_id=member, group_instance_id=instance,
                     assignments=[{"member_id": who, "assignment": what} for who, what in assignments])


def beat(wire, group, generation, member, instance=None):
    return wire.call(HeartbeatRequest, 3, group_id=group, generation_id=generation, member_id=member, group_instance_id=instance)


def commit(wire, group, offset, generation=-1, member="", topic="grouped", metadata="", partition=0, version=7, instance=None):
    part = {"partition_index": partition, "committed_offset": offset, "committed_leader_epoch": -1, "committed_metadata": metadata}
    return wire.call(OffsetCommitRequest, version, group_id=group, generation_id_or_member_epoch=generation, member_id=member,
                     group_instance_id=instance, topics=[{"name": topic, "partitions": [part]}])


def committed(wire, group, topics=(("grouped", [0, 1]),), version=7):
    topics = None if topics is None else [{"name": name, "partition_indexes": partitions} for name, partitions in topics]
    return wire.call(OffsetFetchRequest, version, group_id=group, topics=topics, require_stable=False)


def members(wire, steps):
    create(wire, "grouped", 2)
    steps.note("no name", join(wire, ""))
    steps.note("session too short", join(wire, "g", session=10))
    steps.note("session too long", join(wire, "g", session=10_000_000))
    steps.note("a member that nobody knows", join(wire, "g", member="stranger"))
    steps.note("no protocols", join(wire, "g", protocols=()))
    asked = steps.note("asked to come again", join(wire, "g"))
    member = asked["member_id"]
    joined = steps.note("joined", join(wire, "g", member=member))
    generation = joined["generation_id"]
    steps.note("beats before it is synced", beat(wire, "g", generation, member))
    steps.note("synced", sync(wire, "g", generation, member, [(member, b"mine")]))
    steps.note("synced again", sync(wire, "g", generation, member))
    steps.note("beats", beat(wire, "g", generation, member))
    steps.note("beats of another generation", beat(wire, "g", generation + 1, member))
    steps.note("beats of a stranger", beat(wire, "g", generation, "stranger"))
    steps.note("beats of another group", beat(wire, "nobody", generation, member))
    steps.note("synced of another generation", sync(wire, "g", generation + 3, member))
    steps.note("synced by a stranger", sync(wire, "g", generation, "stranger"))
    steps.note("synced in another group", sync(wire, "nobody", generation, member))
    steps.note("protocols that don't fit", join(wire, "g", protocols=(("roundrobin", b""),)))
    steps.note("another kind of group", join(wire, "g", kind="connect"))
    steps.note("commit", commit(wire, "g", 5, generation, member))
    steps.note("commit of another generation", commit(wire, "g", 6, generation + 1, member))
    steps.note("commit of a stranger", commit(wire, "g", 6, generation, "stranger"))
    steps.note("commit of nobody", commit(wire, "g", 6))
    described = wire.call(DescribeGroupsRequest, 5, groups=["g", "nobody"], include_authorized_operations=False)
    steps.note("described", described)
    steps.note("listed", sorted_groups(wire.call(ListGroupsRequest, 5, states_filter=[], types_filter=[]), ["g"]))
    steps.note("deleted while it lives", wire.call(DeleteGroupsRequest, 2, groups_names=["g"]))
    steps.note("stranger leaves", wire.call(LeaveGroupRequest, 3, group_id="g", members=[{"member_id": "stranger", "group_instance_id": None}]))
    steps.note("leaves", wire.call(LeaveGroupRequest, 3, group_id="g", members=[{"member_id": member, "group_instance_id": None}]))
    steps.note("leaves again", wire.call(LeaveGroupRequest, 2, group_id="g", member_id=member))
    steps.note("beats after leaving", beat(wire, "g", generation, member))
    steps.note("empty", wire.call(DescribeGroupsRequest, 5, groups=["g"], include_authorized_operations=False))
    again = join(wire, "g")["member_id"]
    steps.note("the next generation", join(wire, "g", member=again))


def sorted_groups(answer, names):
    answer["groups"] = sorted((group for group in answer["groups"] if group["group_id"] in names), key=lambda group: group["group_id"])
    return answer


def static_members(wire, steps):
    first = steps.note("joined", join(wire, "static", instance="i"))
    member, generation = first["member_id"], first["generation_id"]
    steps.note("synced", sync(wire, "static", generation, member, [(member, b"mine")], instance="i"))
    steps.note("beats as another member", beat(wire, "static", generation, "stranger", instance="i"))
    steps.note("beats as another instance", beat(wire, "static", generation, member, instance="j"))
    second = steps.note("came again", join(wire, "static", instance="i"))
    steps.note("the first is fenced", beat(wire, "static", second["generation_id"], member, instance="i"))
    steps.note("a fenced commit", commit(wire, "static", 1, second["generation_id"], member, instance="i"))
    steps.note("leaves by instance", wire.call(LeaveGroupRequest, 3, group_id="static", members=[{"member_id": "", "group_instance_id": "i"}]))
    steps.note("unknown instance leaves", wire.call(LeaveGroupRequest, 3, group_id="static", members=[{"member_id": "", "group_instance_id": "x"}]))


def two_members(wire, steps):
    other = Wire(":".join(map(str, wire.socket.getpeername())))
    one = join(wire, "two")["member_id"]
    first = steps.note("one", join(wire, "two", member=one))
    sync(wire, "two", first["generation_id"], one, [(one, b"all")])
    two = join(other, "two")["member_id"]
    waiting = other.send(_join_request("two", two), 5)
    deadline = time.monotonic() + READY_SECONDS
    while (told := beat(wire, "two", first["generation_id"], one))["error_code"] == 0:
        assert time.monotonic() < deadline
    steps.note("told to join again", told)
    steps.note("commit while they join", commit(wire, "two", 1, first["generation_id"], one))
    again = join(wire, "two", member=one)
    joined = other.receive(waiting)
    again["members"].sort(key=lambda member: member["member_id"] != one)
    steps.note("one again", again)
    steps.note("the other", joined)
    generation = again["generation_id"]
    steps.note("commit before they are synced", commit(wire, "two", 1, generation, one))
    waiting = other.send(_sync_request("two", generation, two), 3)
    steps.note("leader synced", sync(wire, "two", generation, one, [(one, b"half"), (two, b"rest")]))
    steps.note("follower synced", other.receive(waiting))
    steps.note("leaves", wire.call(LeaveGroupRequest, 3, group_id="two", members=[{"member_id": one, "group_instance_id": None}]))
    steps.note("the other is told", beat(other, "two", generation, two))
    other.close()


def _join_request(group, member):
    return built(JoinGroupRequest, {
        "group_id": group, "session_timeout_ms": 10_000, "rebalance_timeout_ms": 10_000, "member_id": member, "group_instance_id": None,
        "protocol_type": "consumer", "protocols": [{"name": "range", "metadata": b"\0"}]})


def _sync_request(group, generation, member):
    return built(SyncGroupRequest, {
        "group_id": group, "generation_id": generation, "member_id": member, "group_instance_id": None, "assignments": []})


def committing(wire, steps):
    create(wire, "kept", 2)
    steps.note("nobody's", committed(wire, "alone", (("kept", [0, 1]),)))
    steps.note("alone", commit(wire, "alone", 7, topic="kept", metadata="note ü"))
    steps.note("then", committed(wire, "alone", (("kept", [0, 1]),)))
    steps.note("all", committed(wire, "alone", None))
    steps.note("of no topic", commit(wire, "alone", 1, topic="nowhere"))
    steps.note("of no partition", commit(wire, "alone", 1, topic="kept", partition=5))
    steps.note("asked of no topic", committed(wire, "alone", (("nowhere", [0]),)))
    steps.note("below 0", commit(wire, "below", -1, topic="kept"))
    steps.note("metadata too large", commit(wire, "alone", 8, topic="kept", metadata="x" * 5000))
    steps.note("with a generation", commit(wire, "alone", 8, 3, "stranger", topic="kept"))
    steps.note("no group", commit(wire, "", 8, topic="kept"))
    for version in range(2, 10):
        steps.note(f"version {version}", commit(wire, "versions", version, topic="kept", version=version))
    for version in range(1, 8):
        steps.note(f"asked by version {version}", committed(wire, "versions", (("kept", [0]),), version))
    steps.note("two groups", wire.call(OffsetFetchRequest, 8, require_stable=True, groups=[
        {"group_id": "alone", "topics": [{"name": "kept", "partition_indexes": [0]}]}, {"group_id": "stranger", "topics": None}]))
    gone = lambda group, topic: wire.call(OffsetDeleteRequest, 0, group_id=group, topics=[  # noqa: E731
        {"name": topic, "partitions": [{"partition_index": 0}]}])
    steps.note("deleted", gone("alone", "kept"))
    steps.note("deleted of nothing", gone("alone", "nowhere"))
    steps.note("deleted of nobody", gone("stranger", "kept"))
    steps.note("then nothing", committed(wire, "alone", (("kept", [0]),)))
    steps.note("groups deleted", wire.call(DeleteGroupsRequest, 2, groups_names=["versions", "stranger"]))
    steps.note("and gone", committed(wire, "versions", (("kept", [0]),)))


def versions(wire, steps):
    for version, name in ((3, "x"), (3, "x y"), (4, "x")):
        wire.send(built(ApiVersionsRequest, {"client_software_name": name, "client_software_version": "1"}), version)
        # The error stands first in all versions.
        length, _, error = struct.unpack(">iih", wire.exactly(10))
        wire.exactly(length - 6)
        steps.note(f"version {version} of {name!r}", error)
    steps.note("no such topic", metadata(wire, "nowhere"))
    steps.note("a bad topic name", metadata(wire, "no/where"))


SCENARIOS = [producing, compacting, idempotent, offsets, fetching, topics, pages, trimming, configs, coordinators, members, static_members,
             two_members, committing, versions]


def of_assigned_groups(scenario):
    """A scenario of `assigned_scenarios` like those here."""
    def run(wire, steps):
        scenario(wire, steps, create)

    run.__name__ = scenario.__name__
    return run


SCENARIOS += [of_assigned_groups(scenario) for scenario in assigned_scenarios.SCENARIOS]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_clients_see_what_they_see_of_kafka(kafka, ours, scenario):
    told = []
    for address in (kafka, ours):
        wire, steps = Wire(address), Steps()
        scenario(wire, steps)
        wire.close()
        told.append(steps.told)
    theirs, own = told
    assert list(theirs) == list(own)
    differ = {step for step in theirs if theirs[step] != own[step]}
    expected = {step for of, step in DIFFERENCES if of == scenario.__name__}
    unexpected = {step: (theirs[step], own[step]) for step in theirs if step in differ - expected}
    for step, (kafkas, lakebeds) in unexpected.items():
        print(f"{step}:\n  Kafka   {kafkas}\n  Lakebed {lakebeds}")
    assert not unexpected, f"{len(unexpected)} steps differ"
    assert expected <= differ, f"no longer different: {expected - differ}"
