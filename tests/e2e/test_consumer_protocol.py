"""Groups whose partitions the broker assigns (KIP-848), by real clients: librdkafka and Kafka's own with `group.protocol=consumer`.

What is asserted is what `test_groups` asserts of the classic protocol: every record is seen, each at its own offset, and a group goes on where it has committed.
"""

import json
import threading

from confluent_kafka import Consumer
from confluent_kafka.admin import NewPartitions
from kafka_clients import admin, create_topic
from test_groups import PARTITIONS, SECONDS_MAX, Member, committed, produce, wait_until
from test_kafka_tools import tool

QUICK = ["--group-initial-rebalance-delay", "0s", "--group-consumer-heartbeat-interval", "100ms"]


class Assigned(Member):
    """A member that is assigned its partitions by the broker."""

    def __init__(self, broker, topic, **settings):
        threading.Thread.__init__(self, daemon=True)
        self.consumer = Consumer({"bootstrap.servers": broker.kafka, "group.id": "readers", "group.protocol": "consumer", "auto.offset.reset": "earliest",
                                  "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 500, **settings})
        self.topic, self.seen, self.stopping, self.assigned = topic, [], threading.Event(), 0
        self.errors = []


def shares(*members):
    return sorted(member.assigned for member in members)


def check(members, count):
    """Every number was seen, each where it was sent to."""
    assert {number for member in members for _, _, number in member.seen} == set(range(count))
    for partition, offset, number in (record for member in members for record in member.seen):
        assert number == offset * PARTITIONS + partition


def all_seen(members, count):
    return lambda: len({number for member in members for _, _, number in member.seen}) == count


class Producing(threading.Thread):
    """Numbers, sent until this is left."""

    def __init__(self, broker, topic):
        super().__init__(daemon=True)
        self.broker, self.topic, self.enough, self.sent = broker, topic, threading.Event(), None

    def run(self):
        self.sent = produce(self.broker, self.topic, 0, 1000, more=lambda: not self.enough.is_set())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.enough.set()
        self.join()


def test_members_come_and_go_while_records_are_produced(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=QUICK)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    members = [Assigned(broker, "grouped", **settings) for settings in ({}, {"group.remote.assignor": "range"}, {})]
    members[0].start()
    wait_until(lambda: members[0].assigned == PARTITIONS, "the first member has all partitions")
    with Producing(broker, "grouped") as producing:
        members[1].start()
        members[2].start()
        wait_until(lambda: shares(*members) == [1, 1, 2], "three members share four partitions")
        members[1].stop()
        wait_until(lambda: shares(members[0], members[2]) == [2, 2], "two members share them")
    wait_until(all_seen(members, producing.sent), "every record is seen")
    # The client must outlive its answers.
    client = admin(broker)
    described = client.describe_consumer_groups(["readers"])["readers"].result(SECONDS_MAX)
    assert (described.state.name, described.type.name, len(described.members)) == ("STABLE", "CONSUMER", 2)
    members[0].stop()
    members[2].stop()
    check(members, producing.sent)
    assert committed(broker, "readers") == {part: len(range(part, producing.sent, PARTITIONS)) for part in range(PARTITIONS)}


def test_a_pattern_finds_topics_as_they_come_and_grow(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=QUICK)
    create_topic(broker, "re-1", partitions=1)
    create_topic(broker, "other", partitions=1)
    member = Assigned(broker, "^re-.*")
    member.start()
    wait_until(lambda: member.assigned == 1, "it has the one that there is")
    create_topic(broker, "re-2", partitions=2)
    wait_until(lambda: member.assigned == 3, "it has the one that came")
    client = admin(broker)
    client.create_partitions([NewPartitions("re-1", 3)])["re-1"].result(SECONDS_MAX)
    wait_until(lambda: member.assigned == 5, "it has what grew")
    client.delete_topics(["re-2"])["re-2"].result(SECONDS_MAX)
    wait_until(lambda: member.assigned == 3, "it has let go of what is gone")
    member.stop()


def test_a_static_member_that_comes_back_goes_on_with_what_it_had(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=QUICK)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    client = admin(broker)

    def held():
        """Who has which partitions, by instance."""
        described = client.describe_consumer_groups(["readers"])["readers"].result(SECONDS_MAX)
        return {member.group_instance_id: sorted(at.partition for at in member.assignment.topic_partitions) for member in described.members}

    first, other = (Assigned(broker, "grouped", **{"group.instance.id": name}) for name in ("one", "two"))
    first.start()
    other.start()
    wait_until(lambda: first.assigned == other.assigned == 2, "both have their share")
    before = held()
    assert sorted(before) == ["one", "two"] and sorted(sum(before.values(), [])) == list(range(PARTITIONS))
    first.stop()
    assert held() == before, "its place is kept"
    again = Assigned(broker, "grouped", **{"group.instance.id": "one"})
    again.start()
    wait_until(lambda: again.assigned == 2, "it has its share again")
    assert held() == before
    again.stop()
    other.stop()


def test_a_group_goes_on_after_the_broker_was_killed(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=QUICK)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    members = [Assigned(broker, "grouped") for _ in range(2)]
    for member in members:
        member.start()
    wait_until(lambda: shares(*members) == [2, 2], "two members share four partitions")
    sent = produce(broker, "grouped", 0, 1000)
    wait_until(all_seen(members, sent), "every record is seen")
    broker.kill()
    broker.start(same_ports=True)
    sent += produce(broker, "grouped", sent, 1000)
    wait_until(all_seen(members, sent), "every record is seen by the same members")
    wait_until(lambda: shares(*members) == [2, 2], "they share again")
    for member in members:
        member.stop()
    check(members, sent)
    assert committed(broker, "readers") == {part: len(range(part, sent, PARTITIONS)) for part in range(PARTITIONS)}


def test_a_group_goes_from_the_classic_protocol_to_the_new_one_and_back_while_it_reads(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=QUICK)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    client = admin(broker)
    kind = lambda: client.describe_consumer_groups(["readers"])["readers"].result(SECONDS_MAX).type.name  # noqa: E731
    cooperative = {"partition.assignment.strategy": "cooperative-sticky"}
    classic = [Member(broker, "grouped", **cooperative) for _ in range(2)]
    for member in classic:
        member.start()
    wait_until(lambda: shares(*classic) == [2, 2], "two members of the classic protocol share")
    assert kind() == "CLASSIC"
    with Producing(broker, "grouped") as producing:
        assigned = [Assigned(broker, "grouped") for _ in range(2)]
        assigned[0].start()
        wait_until(lambda: shares(*classic, assigned[0]) == [1, 1, 2], "a member of the new protocol has its share beside them")
        assert kind() == "CONSUMER"
        classic[0].stop()
        assigned[1].start()
        wait_until(lambda: shares(classic[1], *assigned) == [1, 1, 2], "the next takes the place of one")
        classic[1].stop()
        wait_until(lambda: shares(*assigned) == [2, 2], "all speak the new protocol")
        # And back.
        back = [Member(broker, "grouped", **cooperative) for _ in range(2)]
        back[0].start()
        wait_until(lambda: shares(back[0], *assigned) == [1, 1, 2], "one of the classic protocol is back")
        assert kind() == "CONSUMER"
        assigned[0].stop()
        back[1].start()
        wait_until(lambda: shares(*back, assigned[1]) == [1, 1, 2], "two are")
        assigned[1].stop()
        wait_until(lambda: shares(*back) == [2, 2], "all speak the classic protocol again")
        assert kind() == "CLASSIC"
    members = [*classic, *assigned, *back]
    wait_until(all_seen(members, producing.sent), "every record is seen")
    for member in back:
        member.stop()
    check(members, producing.sent)
    assert committed(broker, "readers") == {part: len(range(part, producing.sent, PARTITIONS)) for part in range(PARTITIONS)}


def test_kafkas_own_tools_read_and_describe(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=QUICK)
    create_topic(broker, "lines", partitions=PARTITIONS)
    protocol = ["--consumer-property", "group.protocol=consumer"]
    assert produce(broker, "lines", 0, 600) == 600
    sent = {(number % PARTITIONS, number // PARTITIONS): str(number) for number in range(600)}
    shown = tool("consumer.ConsoleConsumer", broker, "--topic", "lines", "--from-beginning", "--max-messages", 600, "--group", "shown", *protocol)
    assert sorted(shown) == sorted(sent.values())
    told = [json.loads(line) for line in tool("VerifiableConsumer", broker, "--topic", "lines", "--group-id", "verified", "--group-protocol", "consumer",
                                              "--max-messages", 600, "--verbose")]
    seen = {(event["partition"], event["offset"]): event["value"] for event in told if event["name"] == "record_data"}
    assert seen == sent
    reader = Assigned(broker, "lines", **{"group.id": "shown", "group.remote.assignor": "range"})
    reader.start()
    wait_until(lambda: reader.assigned == PARTITIONS, "it has all partitions")
    groups = "consumer.group.ConsumerGroupCommand"
    listed = tool(groups, broker, "--list", "--type", "consumer", "--state", "Stable")
    assert any(line.split() == ["shown", "Consumer", "Stable"] for line in listed), listed
    state = tool(groups, broker, "--describe", "--group", "shown", "--state", "--verbose")
    assert {"shown", "range", "Stable"} <= set(state[-1].split()), state
    described = tool(groups, broker, "--describe", "--group", "shown", "--members", "--verbose")
    assert "lines:0,1,2,3" in described[-1], described
    reader.stop()
    offsets = tool(groups, broker, "--describe", "--group", "shown")
    lags = {row.split()[2]: row.split()[3:6] for row in offsets if row.startswith("shown")}
    assert lags == {str(part): ["150", "150", "0"] for part in range(PARTITIONS)}, offsets
    reset = tool(groups, broker, "--reset-offsets", "--group", "shown", "--topic", "lines", "--to-offset", 7, "--execute")
    assert [row.split()[-1] for row in reset if row.startswith("shown")] == ["7"] * PARTITIONS, reset
    assert "Deletion of requested consumer groups ('shown') was successful." in tool(groups, broker, "--delete", "--group", "shown")
    pages = tool("TopicCommand", broker, "--describe", "--topic", "lines", "--partition-size-limit-per-response", 2)
    assert "PartitionCount: 4" in pages[0] and [line.split()[3] for line in pages[1:]] == ["0", "1", "2", "3"], pages
