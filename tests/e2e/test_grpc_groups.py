"""Groups over gRPC: members that share partitions, come, go and are lost; offsets that are one thing with those of Kafka's clients; and every refusal."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
from confluent_kafka import Consumer, TopicPartition
from conftest import BINARY, ROOT, read_line
from group_member import SECONDS_MAX, joined, spread
from kafka.protocol.consumer import (HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest)
from kafka_clients import create_topic
from reflected import Refused, Server
from test_grpc import Requests
from wire_kafka import Wire

TOPIC, GROUP = "orders", "billing"
SHORT = ["--group-session-timeout-min", "500ms", "--group-initial-rebalance-delay", "0s"]
HOUR_MS = 3_600_000


@pytest.fixture
def broker(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=SHORT)
    create_topic(broker, TOPIC, partitions=4)
    return broker


@pytest.fixture
def server(broker):
    with Server(broker) as server:
        yield server


def call(server, method, /, **fields):
    return server.call(f"GroupService/{method}", **fields)


def refused(server, method, /, **fields):
    """What a call is refused with, as (code, reason, fields)."""
    with pytest.raises(Refused) as told:
        call(server, method, **fields)
    return told.value.code.name, told.value.reason, told.value.fields


def commit(server, *offsets, group=GROUP, **fields):
    offsets = [{"topic": topic, "partition": partition, "offset": offset} for topic, partition, offset in offsets]
    call(server, "CommitOffsets", group=group, offsets=offsets, **fields)


def committed(server, group=GROUP, **fields):
    """What a group has committed, as {(topic, partition): offset}."""
    found, token = {}, ""
    while True:
        page = call(server, "FetchOffsets", group=group, page_token=token, **fields)
        found |= {(one.topic, one.partition): one.offset for one in page.offsets}
        token = page.next_page_token
        if not token:
            return found


def describe(server, group=GROUP, **fields):
    return call(server, "DescribeGroup", group=group, **fields)


def produce(server, *values, partition=0, topic=TOPIC, timestamp=None):
    records = [{"value": value} if timestamp is None else {"value": value, "timestamp": timestamp} for value in values]
    return server.call("ProduceService/Produce", topic=topic, partition=partition, records={"records": records}).base_offset


@contextlib.contextmanager
def two(server, **init):
    """Two members with two partitions each; `init` is that of the first."""
    with joined(server, GROUP, topics=[TOPIC], **init) as first:
        first.until_held(4)
        with joined(server, GROUP, topics=[TOPIC]) as second:
            first.until_held(2)
            second.until_held(2)
            yield first, second


def test_two_members_share_and_a_partition_moves_only_when_its_holder_has_let_go(server):
    with joined(server, GROUP, topics=[TOPIC], acknowledges=False, client_id="first") as first:
        first.until(lambda member: member.last and len(spread(member.last.partitions)) == 4).acknowledge()
        assert not first.started.resumed and first.started.heartbeat_interval.ToMilliseconds() == 666
        with joined(server, GROUP, topics=[TOPIC], client_id="second") as second:
            second.until(lambda member: member.last is not None)
            first.until(lambda member: len(spread(member.last.given_up)) == 2)
            group = describe(server)
            members = {member.client_id: spread(member.assignment) for member in group.members}
            assert len(members["second"]) == 0 and second.held == set(), "the first has not let go yet"
            assert group.group.state == 4 and group.group.kind == 3, "reconciling, gRPC"
            assert first.commit(*((TOPIC, partition, 1) for _, partition in spread(first.last.given_up))) is None
            given = spread(first.last.given_up)
            first.acknowledge()
            second.until_held(2)
            assert second.held == given and first.held | second.held == {(TOPIC, partition) for partition in range(4)}
            late = first.commit((TOPIC, next(iter(given))[1], 2))
            assert (late.code, late.message) == (9, f"partition {next(iter(given))[1]} of topic {TOPIC} is not the member's")
            group = describe(server)
            hosts = [(member.client_id, member.client_host, len(spread(member.assignment))) for member in group.members]
            assert sorted(hosts) == [("first", "127.0.0.1", 2), ("second", "127.0.0.1", 2)]
            assert group.group.state == 2 and group.assignor == "uniform" and group.group.member_count == 2
            readers = {(one.topic, one.partition): one.member_id for one in group.partitions}
            assert {key for key, reader in readers.items() if reader == second.started.member_id} == second.held
            assert second.leave() == "OK"
            first.acknowledges = True
            first.until_held(4)
            assert committed(server) == {key: 1 for key in given}


def test_a_member_whose_process_is_killed_is_waited_for_as_long_as_its_session(broker, server):
    command = [sys.executable, ROOT / "tests/e2e/group_member.py", broker.http, GROUP, TOPIC]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            assert read_line(process, SECONDS_MAX) == "4\n"
            with joined(server, GROUP, topics=[TOPIC]) as survivor:
                survivor.until_held(2)
                process.kill()
                killed = time.monotonic()
                survivor.until_held(4)
                # Its session is 2 s, and it may have been heard of just before.
                assert time.monotonic() - killed > 1.0
                assert [member.member_id for member in describe(server).members] == [survivor.started.member_id]
        finally:
            process.kill()


def test_a_broken_stream_is_resumed_and_the_others_do_not_notice(server):
    with two(server) as (first, second):
        generation, held = describe(server).group.generation, set(second.held)
        second.cut()
        with joined(server, GROUP, topics=[TOPIC], member_id=second.started.member_id) as resumed:
            resumed.until_held(2)
            assert resumed.started.resumed and resumed.held == held and resumed.started.member_id == second.started.member_id
            assert describe(server).group.generation == generation
            assert resumed.commit(*((topic, partition, 3) for topic, partition in held)) is None
            with joined(server, GROUP, topics=[TOPIC], member_id=second.started.member_id) as third:
                fenced = resumed.until_ended()
                assert (fenced.code.name, fenced.reason) == ("ABORTED", "MEMBER_FENCED"), "another stream is in its place"
                assert third.until_held(2).held == held


def test_a_static_member_comes_back_to_its_partitions_and_fences_who_was_there(server):
    with two(server, instance_id="one", seconds=5) as (one, other):
        held = set(one.held)
        with joined(server, GROUP, topics=[TOPIC], instance_id="one", seconds=5) as again:
            fenced = one.until_ended()
            assert (fenced.code.name, fenced.reason) == ("FAILED_PRECONDITION", "INSTANCE_FENCED")
            assert again.until_held(2).held == held
            assert again.leave() == "OK"
        assert len(describe(server).members) == 2, "it is expected back"
        with joined(server, GROUP, topics=[TOPIC], instance_id="one", seconds=5) as back:
            assert back.until_held(2).held == held
            assert other.commit(*((topic, partition, 1) for topic, partition in other.held)) is None, "it has its own"


def test_topics_that_come_later_are_shared_too(broker, server):
    with joined(server, GROUP, topic_regex="ord.*|late", topics=["named"]) as member:
        member.until_held(4)
        create_topic(broker, "late", partitions=2)
        member.until_held(6)
        create_topic(broker, "named")
        member.until_held(7)
        server.call("AdminService/AlterTopic", name="late", partition_count=3, update_mask={"paths": ["partition_count"]})
        member.until_held(8)
        server.call("AdminService/DeleteTopic", name=TOPIC)
        member.until_held(4)
        assert member.held == {("late", 0), ("late", 1), ("late", 2), ("named", 0)}


def test_what_is_answered_is_durable(broker, server):
    with joined(server, GROUP, topics=[TOPIC]) as member:
        member.until_held(4)
        assert member.commit((TOPIC, 0, 7), (TOPIC, 3, 8)) is None
        commit(server, (TOPIC, 0, 5), group="tool")
        broker.kill()
    broker.start(same_ports=True)
    with Server(broker) as again:
        assert committed(again) == {(TOPIC, 0): 7, (TOPIC, 3): 8} and committed(again, group="tool") == {(TOPIC, 0): 5}
        generation = describe(again).group.generation
        with joined(again, GROUP, topics=[TOPIC], member_id=member.started.member_id) as back:
            back.until_held(4)
            assert not back.started.resumed, "members of before a restart are not known"
            assert back.last.member_epoch > generation


def lines(process, found, done):
    """Reads what a process prints into `found`, until it ends."""
    for line in process.stdout:
        found.append(line.strip())
    done.set()


def test_members_of_the_client_go_on_without_loss_when_their_broker_is_killed(broker, server):
    command = [BINARY, "consume", TOPIC, "--group", GROUP, "--server", broker.http]
    found, ended = [[], []], [threading.Event(), threading.Event()]
    members = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for member, into, done in zip(members, found, ended, strict=True):
            threading.Thread(target=lines, args=(member, into, done), daemon=True).start()

        def all_seen(values):
            deadline = time.monotonic() + SECONDS_MAX
            while not values <= {value for into in found for value in into}:
                assert time.monotonic() < deadline, values - {value for into in found for value in into}
                time.sleep(0.02)

        def both_share():
            deadline = time.monotonic() + SECONDS_MAX
            with Server(broker) as fresh:
                while [len(spread(member.assignment)) for member in describe(fresh).members] != [2, 2]:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)

        both_share()
        sent = set()
        for round in range(3):
            for partition in range(4):
                values = [f"{round}-{partition}-{number}" for number in range(50)]
                # A connection of its own: the one of before does not know yet that the broker is back.
                with Server(broker) as fresh:
                    produce(fresh, *(value.encode() for value in values), partition=partition)
                sent |= set(values)
            all_seen(sent)
            if round < 2:
                broker.kill()
                broker.start(same_ports=True)
        assert all(found), "both took part"
        # One that has not come back yet could not leave well.
        both_share()
        for member, done in zip(members, ended, strict=True):
            member.send_signal(signal.SIGINT)
            assert done.wait(SECONDS_MAX) and member.wait(SECONDS_MAX) == 0, member.stderr.read()
        with Server(broker) as fresh:
            assert committed(fresh) == {(TOPIC, partition): 150 for partition in range(4)}, "what was printed is committed"
            assert describe(fresh).group.state == 1 and not describe(fresh).members, "both have left"
    finally:
        for member in members:
            member.kill()
            member.wait()
            member.stdout.close()
            member.stderr.close()


def test_kafkas_clients_and_ours_read_each_others_offsets(broker, server):
    with joined(server, GROUP, topics=[TOPIC]) as member:
        member.until_held(4)
        assert member.commit((TOPIC, 1, 11)) is None
        consumer = Consumer({"bootstrap.servers": broker.kafka, "group.id": GROUP, "enable.auto.commit": False})
        try:
            read = consumer.committed([TopicPartition(TOPIC, partition) for partition in range(2)], timeout=SECONDS_MAX)
            assert [one.offset for one in read] == [-1001, 11]
            assert member.leave() == "OK"
            consumer.commit(offsets=[TopicPartition(TOPIC, 0, 5, "noted")], asynchronous=False)
            assert committed(server) == {(TOPIC, 0): 5, (TOPIC, 1): 11}
            noted = call(server, "FetchOffsets", group=GROUP, partitions=[{"topic": TOPIC, "partitions": [0]}]).offsets
            # That client sends the zero behind its text as well.
            assert [(one.metadata.rstrip("\0"), one.offset) for one in noted] == [("noted", 5)] and noted[0].commit_time > 0
            commit(server, (TOPIC, 0, 6))
            assert consumer.committed([TopicPartition(TOPIC, 0)], timeout=SECONDS_MAX)[0].offset == 6
        finally:
            consumer.close()


CLASSIC = {"group_id": GROUP, "session_timeout_ms": 10_000, "rebalance_timeout_ms": 10_000, "member_id": "", "group_instance_id": None,
           "protocol_type": "consumer"}
SUBSCRIPTION = b"\0\0\0\0\0\1\0\6orders\xff\xff\xff\xff"


def join_classic(wire):
    """The answer to a JoinGroup of version 3, which needs no second round."""
    return wire.call(JoinGroupRequest, 3, **CLASSIC, protocols=[{"name": "range", "metadata": SUBSCRIPTION}])


def test_members_of_two_protocols_are_not_in_one_group(broker, server):
    wire = Wire(broker.kafka)
    with joined(server, GROUP, topics=[TOPIC]) as member:
        member.until_held(4)
        assert join_classic(wire)["error_code"] == 23, "INCONSISTENT_GROUP_PROTOCOL"
        assert member.leave() == "OK"
    answer = join_classic(wire)
    assert answer["error_code"] == 0, "nobody is there any more"
    with joined(server, GROUP, topics=[TOPIC]) as member:
        told = member.until_ended()
        assert (told.code.name, told.reason, told.metadata["kind"]) == ("FAILED_PRECONDITION", "GROUP_KIND_MISMATCH", "classic")
    assert refused(server, "DeleteGroup", group=GROUP)[:2] == ("FAILED_PRECONDITION", "GROUP_NOT_EMPTY")
    # A member that has not asked for its assignment yet can't commit.
    with pytest.raises(Refused) as early:
        commit(server, (TOPIC, 0, 1), member_id=answer["member_id"], generation=answer["generation_id"])
    assert (early.value.code.name, early.value.reason) == ("ABORTED", "REBALANCING")
    of_member = {"group_id": GROUP, "generation_id": answer["generation_id"], "member_id": answer["member_id"], "group_instance_id": None}
    assigned = b"\0\0\0\0\0\1\0\6orders\0\0\0\2\0\0\0\0\0\0\0\2\xff\xff\xff\xff"
    synced = wire.call(SyncGroupRequest, 3, **of_member, assignments=[{"member_id": answer["member_id"], "assignment": assigned}])
    assert synced["error_code"] == 0 and wire.call(HeartbeatRequest, 3, **of_member)["error_code"] == 0
    commit(server, (TOPIC, 0, 1), member_id=answer["member_id"], generation=answer["generation_id"])
    group = describe(server)
    assert (group.group.kind, group.group.state, group.assignor) == (1, 2, "range")
    assert [spread(one.assignment) for one in group.members] == [{(TOPIC, 0), (TOPIC, 2)}]
    assert {(one.partition, one.member_id) for one in group.partitions} == {(0, answer["member_id"]), (2, answer["member_id"])}
    listed = call(server, "ListGroups", kinds=["GROUP_KIND_CLASSIC"], states=["GROUP_STATE_STABLE"]).groups
    assert [(one.name, one.member_count, one.generation) for one in listed] == [(GROUP, 1, answer["generation_id"])]
    assert refused(server, "DeleteOffsets", group=GROUP, partitions=[{"topic": TOPIC}])[:2] == ("FAILED_PRECONDITION", "GROUP_SUBSCRIBED")
    assert committed(server) == {(TOPIC, 0): 1}
    assert wire.call(LeaveGroupRequest, 2, group_id=GROUP, member_id=answer["member_id"])["error_code"] == 0
    wire.close()


def reset(server, validate_only=False, **fields):
    """What a reset moved, as {(topic, partition): (old, new)}."""
    moved = call(server, "ResetOffsets", group=GROUP, validate_only=validate_only, **fields).offsets
    return {(one.topic, one.partition): (one.old_offset if one.HasField("old_offset") else None, one.new_offset) for one in moved}


def test_offsets_are_moved_everywhere_and_a_look_moves_nothing(server):
    produce(server, *(b"%d" % number for number in range(10)), timestamp=1000)
    produce(server, *(b"%d" % number for number in range(10)), timestamp=2000)
    produce(server, b"x", partition=2)
    commit(server, (TOPIC, 0, 5))
    zero, one = (TOPIC, 0), (TOPIC, 2)
    moves = [({"earliest": {}}, {zero: (5, 0)}), ({"latest": {}}, {zero: (5, 20)}), ({"offset": 13}, {zero: (5, 13)}),
             ({"timestamp": 1500}, {zero: (5, 10)}), ({"timestamp": 9000}, {zero: (5, 20)}), ({"shift_by": 3}, {zero: (5, 8)}),
             ({"shift_by": -30}, {zero: (5, 0)}), ({"shift_by": 1 << 62}, {zero: (5, 20)}),
             ({"earliest": {}, "partitions": [{"topic": TOPIC, "partitions": [2, 0]}]}, {zero: (5, 0), one: (None, 0)}),
             ({"offsets": {"offsets": [{"topic": TOPIC, "partition": 2, "offset": 1}]}}, {one: (None, 1)})]
    for fields, expected in moves:
        assert reset(server, validate_only=True, **fields) == expected, fields
        assert committed(server) == {zero: 5}, "it was only a look"
        assert reset(server, **fields) == expected
        assert committed(server) == {zero: 5} | {key: new for key, (_, new) in expected.items()}
        call(server, "DeleteOffsets", group=GROUP, partitions=[{"topic": TOPIC}])
        commit(server, (TOPIC, 0, 5))
    assert len(reset(server, latest={}, partitions=[{"topic": TOPIC}])) == 4, "no partitions of a topic are all of it"


def test_what_can_not_be_moved_or_forgotten_is_refused_and_stays(server):
    produce(server, b"x")
    commit(server, (TOPIC, 0, 1))
    wrong = [({}, "INVALID_REQUEST", ["to"]), ({"offset": -1}, "INVALID_REQUEST", ["offset"]), ({"timestamp": -1}, "INVALID_REQUEST", ["timestamp"]),
             ({"shift_by": 1, "partitions": [{"topic": TOPIC, "partitions": [1]}]}, "INVALID_REQUEST", ["partitions"]),
             ({"latest": {}, "partitions": [{"topic": TOPIC, "partitions": [1, 1]}]}, "INVALID_REQUEST", ["partitions[0].partitions"]),
             ({"latest": {}, "partitions": [{"topic": TOPIC}, {"topic": TOPIC}]}, "INVALID_REQUEST", ["partitions[1].topic"]),
             ({"offsets": {"offsets": []}}, "INVALID_REQUEST", ["offsets.offsets"]),
             ({"offsets": {"offsets": [{"topic": TOPIC, "offset": 1}] * 2}}, "INVALID_REQUEST", ["offsets.offsets"]),
             ({"offsets": {"offsets": [{"topic": TOPIC, "offset": 1}]}, "partitions": [{"topic": TOPIC}]}, "INVALID_REQUEST", ["partitions"]),
             ({"latest": {}, "partitions": [{"topic": "nothing"}]}, "TOPIC_NOT_FOUND", []),
             ({"latest": {}, "partitions": [{"topic": TOPIC, "partitions": [9]}]}, "PARTITION_NOT_FOUND", []),
             ({"offset": 2}, "OFFSET_OUT_OF_RANGE", []), ({"offsets": {"offsets": [{"topic": TOPIC, "offset": 2}]}}, "OFFSET_OUT_OF_RANGE", [])]
    for fields, reason, where in wrong:
        assert refused(server, "ResetOffsets", group=GROUP, **fields)[1:] == (reason, where), fields
    assert refused(server, "ResetOffsets", group="nobody", latest={}) == ("NOT_FOUND", "GROUP_NOT_FOUND", [])
    with joined(server, GROUP, topics=[TOPIC]) as member:
        member.until_held(4)
        for fields in ({"earliest": {}}, {"earliest": {}, "validate_only": True}):
            assert refused(server, "ResetOffsets", group=GROUP, **fields)[:2] == ("FAILED_PRECONDITION", "GROUP_NOT_EMPTY")
            assert refused(server, "DeleteGroup", group=GROUP, validate_only="validate_only" in fields)[1] == "GROUP_NOT_EMPTY"
        forget = {"group": GROUP, "partitions": [{"topic": TOPIC}]}
        assert refused(server, "DeleteOffsets", **forget)[1] == "GROUP_SUBSCRIBED"
        with pytest.raises(Refused) as stranger:
            commit(server, (TOPIC, 0, 0))
        assert stranger.value.reason == "MEMBER_FENCED"
        assert committed(server) == {(TOPIC, 0): 1} and member.leave() == "OK"
    assert spread(call(server, "DeleteOffsets", **forget, validate_only=True).partitions) == {(TOPIC, 0)} and committed(server)
    assert spread(call(server, "DeleteOffsets", **forget).partitions) == {(TOPIC, 0)} and committed(server) == {}
    call(server, "DeleteGroup", group=GROUP, validate_only=True)
    call(server, "DeleteGroup", group=GROUP)
    assert refused(server, "DescribeGroup", group=GROUP) == refused(server, "DeleteGroup", group=GROUP) == ("NOT_FOUND", "GROUP_NOT_FOUND", [])


def test_a_wrong_request_is_told_where_it_is_wrong(server):
    of = {"group": GROUP, "offsets": [{"topic": TOPIC, "offset": 1}]}
    calls = [("CommitOffsets", {"group": ""}, "INVALID_GROUP_ID", ["group"]), ("CommitOffsets", {"group": "g" * 1025}, "INVALID_GROUP_ID", ["group"]),
             ("CommitOffsets", {"group": GROUP}, "INVALID_REQUEST", ["offsets"]),
             ("CommitOffsets", {**of, "offsets": [{"topic": TOPIC, "offset": -1}]}, "INVALID_REQUEST", ["offsets[0].offset"]),
             ("CommitOffsets", {**of, "offsets": [{"topic": TOPIC, "metadata": "m" * 4097}]}, "INVALID_REQUEST", ["offsets[0].metadata"]),
             ("CommitOffsets", {**of, "generation": -1}, "INVALID_REQUEST", ["generation"]),
             ("CommitOffsets", {**of, "generation": 1}, "INVALID_REQUEST", ["member_id"]),
             ("CommitOffsets", {**of, "offsets": [{"topic": "nothing"}]}, "TOPIC_NOT_FOUND", []),
             ("CommitOffsets", {**of, "offsets": [{"topic": TOPIC, "partition": 4}]}, "PARTITION_NOT_FOUND", []),
             ("FetchOffsets", {"group": GROUP, "page_size": -1}, "INVALID_REQUEST", ["page_size"]),
             ("FetchOffsets", {"group": GROUP, "page_token": "x"}, "INVALID_REQUEST", ["page_token"]),
             ("DescribeGroup", {"group": GROUP, "page_token": "x"}, "INVALID_REQUEST", ["page_token"]),
             ("ListGroups", {"states": [77]}, "INVALID_REQUEST", ["states[0]"]), ("ListGroups", {"kinds": [77]}, "INVALID_REQUEST", ["kinds[0]"]),
             ("DeleteOffsets", {"group": GROUP}, "INVALID_REQUEST", ["partitions"]), ("DeleteGroup", {"group": ""}, "INVALID_GROUP_ID", ["group"])]
    for method, fields, reason, where in calls:
        assert refused(server, method, **fields)[1:] == (reason, where), (method, fields)
    init = {"topics": [TOPIC]}
    joins = [({"topics": []}, "init.topics"), ({"topics": [""]}, "init.topics[0]"), ({"topics": ["t"] * 1001}, "init.topics"),
             ({**init, "topic_regex": "("}, "init.topic_regex"), ({**init, "assignor": "sticky"}, "init.assignor"),
             ({**init, "member_id": "m" * 257}, "init.member_id"), ({**init, "session_timeout": {"nanos": 1}}, "init.session_timeout"),
             ({**init, "rebalance_timeout": {"seconds": 4000}}, "init.rebalance_timeout")]
    for fields, where in joins:
        with joined(server, "refused", **fields) as member:
            told = member.until_ended()
            assert (told.code.name, told.reason, told.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", [where]), fields
    for said, where in [({"init": {"group": GROUP}}, "init"), ({}, ""), ({"acknowledge": {"assignment_id": 99}}, "acknowledge.assignment_id")]:
        # A group of its own: the member before is waited for.
        with joined(server, f"wrong-{where}", **init) as member:
            member.until_held(4).say(**said)
            told = member.until_ended()
            assert (told.reason, told.fields) == ("INVALID_REQUEST", [where])
    with joined(server, "", **init) as member:
        assert member.until_ended().reason == "INVALID_GROUP_ID"
    with joined(server, GROUP, beats=False, **init) as member:
        member.until_held(4)
        assert member.commit((TOPIC, 9, 1)).code == 5, "the stream goes on"
        assert member.commit((TOPIC, 0, 1)) is None


def test_generations_and_members_that_are_not_there_commit_nothing(server):
    with joined(server, GROUP, topics=[TOPIC]) as member:
        member.until_held(4)
        commit(server, (TOPIC, 0, 3), member_id=member.started.member_id, generation=member.last.member_epoch)
        for fields, reason in [({"member_id": member.started.member_id, "generation": member.last.member_epoch + 1}, "STALE_GENERATION"),
                               ({"member_id": "stranger", "generation": 1}, "MEMBER_FENCED"), ({}, "MEMBER_FENCED")]:
            with pytest.raises(Refused) as told:
                commit(server, (TOPIC, 0, 9), **fields)
            assert (told.value.code.name, told.value.reason) == ("ABORTED", reason)
        assert committed(server) == {(TOPIC, 0): 3}


def test_a_group_has_only_so_many_members(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=[*SHORT, "--group-members-max", "1"])
    create_topic(broker, TOPIC)
    with Server(broker) as server, joined(server, GROUP, topics=[TOPIC]) as member:
        member.until_held(1)
        with joined(server, GROUP, topics=[TOPIC]) as more:
            told = more.until_ended()
            assert (told.code.name, told.reason) == ("FAILED_PRECONDITION", "GROUP_FULL")


def test_committed_offsets_have_only_so_much_room(broker, server):
    create_topic(broker, "wide", partitions=300)
    text = "☃" * 4096
    offsets = [{"topic": "wide", "partition": partition, "offset": 1, "metadata": text} for partition in range(300)]
    with pytest.raises(Refused) as told:
        for number in range(20):
            call(server, "CommitOffsets", group=f"g{number}", offsets=offsets)
    assert (told.value.code.name, told.value.reason) == ("FAILED_PRECONDITION", "OFFSETS_FULL")
    assert number == 17 and committed(server, group="g17") == {}
    call(server, "DeleteGroup", group="g0")
    call(server, "CommitOffsets", group="g17", offsets=offsets)
    # A page is no larger than clients take.
    assert len(committed(server, group="g17")) == 300
    pages, token = [], ""
    while not pages or token:
        page = describe(server, group="g17", page_token=token, page_size=1000)
        pages.append([one.partition for one in page.partitions])
        token = page.next_page_token
    assert sum(pages, []) == list(range(300)) and len(pages) > 1


def test_the_lag_is_told_in_records_and_in_seconds(server):
    now = int(time.time() * 1000)
    produce(server, b"old", timestamp=now - 2 * HOUR_MS)
    produce(server, b"older than the first that is left", timestamp=now - HOUR_MS)
    produce(server, b"new", timestamp=now)
    produce(server, b"x", partition=1)
    commit(server, (TOPIC, 0, 1), (TOPIC, 1, 1), (TOPIC, 2, 5))
    lag = {one.partition: (one.committed_offset, one.lag_records, one.lag_seconds) for one in describe(server).partitions}
    assert lag[0][:2] == (1, 2) and 3600 <= lag[0][2] < 3600 + SECONDS_MAX
    assert lag[1] == (1, 0, 0.0), "it has caught up"
    assert lag[2] == (5, 0, 0.0), "there is nothing yet"
    assert 3 not in lag, "nothing is committed, and nobody reads it"
    with joined(server, GROUP, topics=[TOPIC]) as member:
        member.until_held(4)
        assigned = next(one for one in describe(server).partitions if one.partition == 3)
        assert not assigned.HasField("committed_offset") and not assigned.HasField("lag_seconds") and assigned.member_id
        pages, token = [], ""
        while not pages or token:
            pages.append(describe(server, page_size=2, page_token=token))
            token = pages[-1].next_page_token
        assert [(len(page.members), [one.partition for one in page.partitions]) for page in pages] == [(1, [0]), (0, [1, 2]), (0, [3])]


def test_groups_are_listed_by_state_and_kind_and_in_pages(server):
    for name in ("a", "b", "c"):
        commit(server, (TOPIC, 0, 1), group=name)
    with joined(server, "b", topics=[TOPIC]) as member:
        member.until_held(4)

        def names(**fields):
            return [(one.name, one.kind, one.state) for one in call(server, "ListGroups", **fields).groups]

        assert names() == [("a", 0, 1), ("b", 3, 2), ("c", 0, 1)]
        assert names(kinds=["GROUP_KIND_GRPC"]) == names(states=["GROUP_STATE_STABLE"]) == [("b", 3, 2)]
        assert names(states=["GROUP_STATE_EMPTY"]) == names(kinds=["GROUP_KIND_UNSPECIFIED"]) == [("a", 0, 1), ("c", 0, 1)]
        first = call(server, "ListGroups", page_size=2)
        second = call(server, "ListGroups", page_size=2, page_token=first.next_page_token)
        assert [one.name for page in (first, second) for one in page.groups] == ["a", "b", "c"] and second.next_page_token == ""


def test_a_member_that_does_not_read_is_heard_no_more_and_put_out(broker, server):
    # Their answers are long, and of these messages no connection takes so many small ones that it is taken for an attack.
    said, wrong = 3000, [{"topic": "t" * 249, "metadata": "m" * 1500}]
    commits = ({"commit": {"correlation_id": number, "offsets": wrong}} for number in range(said))
    init = {"init": {"group": GROUP, "topics": [TOPIC], "session_timeout": {"seconds": 1}}}
    requests = Requests(*(server.message("JoinRequest", **one) for one in (init, *commits)))
    with Server(broker) as slow:
        slow.channel.close()
        # It takes no more than the window that a stream begins with.
        slow.channel = grpc.insecure_channel(broker.http, options=[("grpc.http2.bdp_probe", 0)])
        slow.pool = server.pool
        answers = slow.stream("GroupService/Join", requests)
        deadline = time.monotonic() + SECONDS_MAX
        while not call(server, "ListGroups").groups:
            assert time.monotonic() < deadline
        with joined(server, GROUP, topics=[TOPIC], seconds=10) as other:
            other.until_held(4)
            assert [member.member_id for member in describe(server).members] == [other.started.member_id]
        heard = 0
        with pytest.raises(grpc.RpcError) as ended:
            for _ in answers:
                heard += 1
        requests.end()
        assert Refused(ended.value).reason == "MEMBER_FENCED" and heard < said, heard


def test_streams_are_told_when_the_broker_stops_or_the_connection_is_old(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=[*SHORT, "--connection-age-max", "1s", "--connection-age-grace", "1s"])
    create_topic(broker, TOPIC)
    with Server(broker) as server, joined(server, GROUP, topics=[TOPIC], seconds=10) as member:
        member.until_held(1)
        told = member.until_ended()
        assert (told.code.name, told.reason, told.retry) == ("UNAVAILABLE", "CONNECTION_AGED", True)
        with Server(broker) as another, joined(another, GROUP, topics=[TOPIC], member_id=member.started.member_id) as resumed:
            assert resumed.until_held(1).started.resumed
            broker.process.send_signal(signal.SIGTERM)
            told = resumed.until_ended()
            assert (told.code.name, told.reason, told.retry) == ("UNAVAILABLE", "SHUTTING_DOWN", True)
            assert broker.wait_for_end()[0] == 0


def test_calls_of_groups_are_counted(broker, server):
    commit(server, (TOPIC, 0, 1))
    with joined(server, GROUP, topics=[TOPIC]) as member:
        member.until_held(4)
        counted = broker.metrics()
        assert member.leave() == "OK"
    text = {name: number for name, number in counted.items() if "GroupService" in name}
    assert any("CommitOffsets" in name and number == 1 for name, number in text.items()), text
    assert any("GroupService/Join" in name for name in text), text


def test_the_commands_of_the_page_about_groups_do_what_it_says(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=SHORT)
    page = (ROOT / "docs/groups.md").read_text()
    commands = page.split("```sh\n")[1].split("```")[0].splitlines()
    printed = {}
    for command in commands:
        said = command.replace("lakebed ", f"{BINARY} ", 1)
        done = subprocess.run(["bash", "-c", said], env={**os.environ, "LAKEBED_SERVER": broker.http}, capture_output=True, text=True, timeout=SECONDS_MAX)
        assert done.returncode == 0, (command, done.stderr)
        printed[command] = done.stdout
    assert sorted(printed["lakebed consume orders --group billing --count 3"].split()) == ["a", "b", "c"]
    assert "billing" in printed["lakebed group list"] and "grpc" in printed["lakebed group list"]
    with Server(broker) as server:
        assert call(server, "ListGroups").groups == []
