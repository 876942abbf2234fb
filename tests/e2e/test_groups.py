"""Consumer groups by the clients that people have: members that come and go while records are produced, and a broker that is killed meanwhile.

What is asserted: every record is seen, each at its own offset, and a group goes on where it has committed. test_members.py has the same for the
clients of all languages.
"""

import threading
import time

import kafka
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Producer, TopicPartition
from kafka_clients import admin, create_topic, kcat

SECONDS_MAX = 60
PARTITIONS = 4
DELAY = ["--group-initial-rebalance-delay", "0s"]


def produce(broker, topic, first, count, more=lambda: False):
    """Sends numbers, each to the partition that it leaves when divided, and goes on for as long as `more` says so. Returns how many were sent."""
    producer = Producer({"bootstrap.servers": broker.kafka, "enable.idempotence": True, "linger.ms": 5})
    failures, number = [], first
    while number < first + count or more():
        producer.produce(topic, b"%d" % number, partition=number % PARTITIONS, on_delivery=lambda error, _: failures.append(error) if error else None)
        # Beyond what is asked for it only keeps something going on.
        producer.poll(0 if number < first + count else 0.001)
        number += 1
    assert producer.flush(SECONDS_MAX) == 0 and failures == []
    return number - first


class Member(threading.Thread):
    """A member that reads and commits until it is told to stop; it notes `(partition, offset, number)` of what it has seen."""

    def __init__(self, broker, topic, **settings):
        super().__init__(daemon=True)
        self.consumer = Consumer({"bootstrap.servers": broker.kafka, "group.id": "readers", "auto.offset.reset": "earliest",
                                  "enable.auto.commit": False, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500, **settings})
        self.topic, self.seen, self.stopping, self.assigned = topic, [], threading.Event(), 0
        self.errors = []

    def run(self):
        self.consumer.subscribe([self.topic])
        while not self.stopping.is_set():
            told = self.consumer.consume(200, timeout=0.2)
            messages = [message for message in told if not message.error()]
            self.errors += [message.error().str() for message in told if message.error()]
            self.assigned = len(self.consumer.assignment())
            if messages:
                self.seen += [(message.partition(), message.offset(), int(message.value())) for message in messages]
                self.consumer.commit(asynchronous=True)
        self.consumer.close()

    def stop(self):
        self.stopping.set()
        self.join(SECONDS_MAX)
        assert not self.is_alive()


def wait_until(condition, what):
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS_MAX} s: {what}"
        time.sleep(0.02)


def committed(broker, group):
    """What a group has committed: {partition: offset}."""
    # The client must outlive its answers.
    client = admin(broker)
    told = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(SECONDS_MAX)
    return {at.partition: at.offset for at in told.topic_partitions}


@pytest.mark.parametrize("assignor", ["range", "roundrobin", "cooperative-sticky"])
def test_members_come_and_go_while_records_are_produced(start_broker, bucket, assignor):
    broker = start_broker(bucket, arguments=DELAY)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    members = [Member(broker, "grouped", **{"partition.assignment.strategy": assignor}) for _ in range(3)]
    members[0].start()
    wait_until(lambda: members[0].assigned == PARTITIONS, "the first member has all partitions")
    enough, sent = threading.Event(), []
    producing = threading.Thread(target=lambda: sent.append(produce(broker, "grouped", 0, 2000, more=lambda: not enough.is_set())))
    producing.start()
    try:
        members[1].start()
        members[2].start()
        wait_until(lambda: sorted(member.assigned for member in members) == [1, 1, 2], "three members share four partitions")
        members[1].stop()
        wait_until(lambda: sorted(member.assigned for member in (members[0], members[2])) == [2, 2], "two members share them")
    finally:
        enough.set()
    producing.join()
    (count,) = sent
    everything = lambda: {number for member in members for _, _, number in member.seen}  # noqa: E731
    wait_until(lambda: len(everything()) == count, "every record is seen")
    members[0].stop()
    members[2].stop()
    assert everything() == set(range(count))
    for partition, offset, number in (record for member in members for record in member.seen):
        assert number == offset * PARTITIONS + partition
    assert committed(broker, "readers") == {part: len(range(part, count, PARTITIONS)) for part in range(PARTITIONS)}


def test_a_static_member_that_comes_back_goes_on_with_what_it_had(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=DELAY)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    client = admin(broker)

    def shares():
        """Who has which partitions, by instance."""
        described = client.describe_consumer_groups(["readers"])["readers"].result(SECONDS_MAX)
        return {member.group_instance_id: sorted(at.partition for at in member.assignment.topic_partitions) for member in described.members}

    first, other = (Member(broker, "grouped", **{"group.instance.id": name}) for name in ("one", "two"))
    first.start()
    other.start()
    wait_until(lambda: first.assigned == other.assigned == 2, "both have their share")
    before = shares()
    assert sorted(before) == ["one", "two"] and sorted(sum(before.values(), [])) == list(range(PARTITIONS))
    # A static member that ends does not leave, and nobody else gets what it had.
    first.stop()
    again = Member(broker, "grouped", **{"group.instance.id": "one"})
    again.start()
    wait_until(lambda: again.assigned == 2, "it has its share again")
    assert shares() == before
    # Its name is its own: who still uses it is told.
    usurper = Member(broker, "grouped", **{"group.instance.id": "two"})
    usurper.start()
    wait_until(lambda: any("fenced by other consumer" in error for error in other.errors), "the old owner of the name hears of the new one")
    wait_until(lambda: usurper.assigned == 2, "who has the name has the share")
    assert shares() == before
    for member in (other, again, usurper):
        member.stop()


def test_a_group_goes_on_after_the_broker_was_killed(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=DELAY)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    produce(broker, "grouped", 0, 4000)
    # A static member: it comes back as itself.
    first = Member(broker, "grouped", **{"group.instance.id": "one"})
    first.start()
    wait_until(lambda: len(first.seen) == 4000, "everything is seen")
    first.stop()
    broker.kill()
    broker.start(same_ports=True)
    produce(broker, "grouped", 4000, 400)
    second = Member(broker, "grouped", **{"group.instance.id": "one"})
    second.start()
    wait_until(lambda: len(second.seen) >= 400, "what is new is seen")
    second.stop()
    assert sorted(number for _, _, number in second.seen) == list(range(4000, 4400))


def test_a_member_outlives_the_broker(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=DELAY)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    member = Member(broker, "grouped")
    member.start()
    produce(broker, "grouped", 0, 400)
    wait_until(lambda: len(member.seen) == 400, "the first records are seen")
    broker.kill()
    broker.start(same_ports=True)
    produce(broker, "grouped", 400, 400)
    wait_until(lambda: {number for _, _, number in member.seen} == set(range(800)), "and those after the restart")
    member.stop()


def test_kcat_reads_in_a_group(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=DELAY)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    produce(broker, "grouped", 0, 1000)
    seen = []
    for _ in range(2):
        told = kcat(broker, "-G", "kcats", "-X", "auto.offset.reset=earliest", "-c", "500", "-f", "%s\n", "grouped")
        seen += [int(line) for line in told.splitlines()]
    # It commits what it has printed when it leaves.
    assert sorted(seen) == list(range(1000))


def test_kafka_python_commits_and_goes_on(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=DELAY)
    create_topic(broker, "grouped", partitions=PARTITIONS)
    produce(broker, "grouped", 0, 1000)
    seen = []
    for _ in range(2):
        reader = kafka.KafkaConsumer("grouped", bootstrap_servers=broker.kafka, group_id="pythons", auto_offset_reset="earliest",
                                     enable_auto_commit=False, max_poll_records=100)
        part = []
        deadline = time.monotonic() + SECONDS_MAX
        while len(part) < 500:
            assert time.monotonic() < deadline
            for records in reader.poll(timeout_ms=500, max_records=min(100, 500 - len(part))).values():
                part += [int(record.value) for record in records]
        reader.commit()
        reader.close()
        seen += part
    assert sorted(seen) == list(range(1000))


def test_offsets_are_altered_and_groups_deleted(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=DELAY)
    create_topic(broker, "grouped", partitions=1)
    at = TopicPartition("grouped", 0, 7)
    client = admin(broker)
    client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions("made", [at])])["made"].result(SECONDS_MAX)
    broker.restart(kill=True)
    assert committed(broker, "made") == {0: 7}
    client = admin(broker)
    listed = client.list_consumer_groups().result(SECONDS_MAX)
    assert [group.group_id for group in listed.valid] == ["made"] and listed.errors == []
    client.delete_consumer_groups(["made"])["made"].result(SECONDS_MAX)
    assert client.list_consumer_groups().result(SECONDS_MAX).valid == []
