"""Scenarios of groups whose partitions the broker assigns (KIP-848), for `test_against_kafka`: heartbeats by hand, so that nothing waits for a clock."""

from kafka.protocol.admin import (
    CreatePartitionsRequest, DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest)
from kafka.protocol.consumer import OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest
from kafka.protocol.metadata import MetadataRequest
from newer_requests import ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest

# Members hold partitions by the ids of topics, which are each broker's own: scenarios name topics, and the ids are looked up.


class Members:
    """Heartbeats of a group, with topics by name."""

    def __init__(self, wire, group, topics):
        self.wire, self.group, self.topics = wire, group, topics
        self.names = {topic_id: name for name, topic_id in topics.items()}

    def beat(self, member, epoch, held=None, names=None, version=1, **fields):
        """One heartbeat; its answer with what is assigned as {topic: partitions}."""
        held = None if held is None else [{"topic_id": self.topics[name], "partitions": parts} for name, parts in held.items()]
        joins = epoch == 0
        fields = {"rebalance_timeout_ms": 60_000 if joins else -1, **fields}
        answer = self.wire.call(
            ConsumerGroupHeartbeatRequest, version, group_id=self.group, member_id=member, member_epoch=epoch,
            subscribed_topic_names=names, topic_partitions=[] if held is None and joins else held, **fields)
        if answer["assignment"] is not None:
            answer["assignment"] = {
                self.names[topic["topic_id"]]: sorted(topic["partitions"]) for topic in answer["assignment"]["topic_partitions"]}
        return answer

    def described(self, *names):
        """The groups as tools see them, without ids of topics, members in their order."""
        answer = self.wire.call(ConsumerGroupDescribeRequest, 1, group_ids=list(names or [self.group]), include_authorized_operations=False)
        answer["groups"].sort(key=lambda group: group["group_id"])
        for group in answer["groups"]:
            group["members"].sort(key=lambda member: member["member_id"])
            for member in group["members"]:
                for kind in ("assignment", "target_assignment"):
                    member[kind] = {topic["topic_name"]: sorted(topic["partitions"]) for topic in member[kind]["topic_partitions"]}
        return answer


def ids_of(wire, *names):
    answer = wire.call(MetadataRequest, 12, topics=[{"topic_id": None, "name": name} for name in names], allow_auto_topic_creation=False)
    return {topic["name"]: topic["topic_id"] for topic in answer["topics"]}


def commit(wire, group, member, epoch, offset, topic, version=9):
    part = {"partition_index": 0, "committed_offset": offset, "committed_leader_epoch": -1, "committed_metadata": ""}
    return wire.call(OffsetCommitRequest, version, group_id=group, generation_id_or_member_epoch=epoch, member_id=member,
                     group_instance_id=None, topics=[{"name": topic, "partitions": [part]}])


def committed(wire, group, member, epoch, topic):
    return wire.call(OffsetFetchRequest, 9, require_stable=False, groups=[
        {"group_id": group, "member_id": member, "member_epoch": epoch, "topics": [{"name": topic, "partition_indexes": [0]}]}])


def heartbeats(wire, steps, create):
    create(wire, "beaten", 4)
    group = Members(wire, "beats", ids_of(wire, "beaten"))
    note = lambda name, *arguments, **fields: steps.note(name, group.beat(*arguments, **fields))  # noqa: E731
    names = ["beaten"]
    # What is refused.
    note("no member id", "", 0, names=names)
    note("no rebalance timeout", "a", 0, names=names, rebalance_timeout_ms=-1)
    note("no subscription", "a", 0)
    note("joins and holds something", "a", 0, held={"beaten": [0]}, names=names)
    note("no such assignor", "a", 0, names=names, server_assignor="best")
    note("an empty instance id", "a", 0, names=names, instance_id="")
    note("an empty rack id", "a", 0, names=names, rack_id="")
    note("an epoch below all", "a", -3, names=names)
    note("leaves for a while without a name", "a", -2)
    note("a pattern that is none", "a", 0, subscribed_topic_regex="(")
    note("of a group that is not there", "a", 5)
    note("leaves a group that is not there", "a", -1)
    empty = Members(wire, "", group.topics)
    steps.note("no group", empty.beat("a", 0, names=names))
    # One member.
    first = note("joins", "a", 0, names=names)
    note("is there", "a", first["member_epoch"])
    note("says what it holds", "a", first["member_epoch"], held={"beaten": [0, 1, 2, 3]})
    note("says everything", "a", first["member_epoch"], held={"beaten": [0, 1, 2, 3]}, names=names, rebalance_timeout_ms=60_000)
    note("a greater epoch", "a", first["member_epoch"] + 1)
    note("joins again", "a", 0, names=names)
    note("a stranger", "x", first["member_epoch"])
    steps.note("described", group.described())
    # Another.
    second = note("another joins", "b", 0, names=names)
    steps.note("described while partitions move", group.described())
    note("the first is to let go", "a", first["member_epoch"])
    note("it has not yet", "a", first["member_epoch"], held={"beaten": [0, 1, 2, 3]})
    kept = group.described()["groups"][0]["members"][0]["assignment"]["beaten"]
    let_go = note("it has", "a", first["member_epoch"], held={"beaten": kept})
    gets = note("the other gets it", "b", second["member_epoch"])
    note("an answer that was lost", "a", first["member_epoch"], held={"beaten": kept})
    note("lost, and it says nothing", "a", first["member_epoch"])
    steps.note("described at rest", group.described())
    note("commits are its own", "b", second["member_epoch"], held=gets["assignment"])
    # Commits.
    epoch = let_go["member_epoch"]
    steps.note("commit", commit(wire, "beats", "a", epoch, 3, "beaten"))
    steps.note("commit of an old epoch", commit(wire, "beats", "a", epoch - 1, 4, "beaten"))
    steps.note("commit of a stranger", commit(wire, "beats", "x", epoch, 4, "beaten"))
    steps.note("commit of nobody", commit(wire, "beats", "", -1, 4, "beaten"))
    steps.note("commit by an old request", commit(wire, "beats", "a", epoch, 4, "beaten", version=8))
    steps.note("committed", committed(wire, "beats", "a", epoch, "beaten"))
    steps.note("committed of an old epoch", committed(wire, "beats", "a", epoch - 1, "beaten"))
    steps.note("committed of a stranger", committed(wire, "beats", "x", epoch, "beaten"))
    steps.note("committed for anybody", committed(wire, "beats", None, -1, "beaten"))
    # Tools.
    steps.note("as one of the classic protocol", wire.call(DescribeGroupsRequest, 6, groups=["beats"], include_authorized_operations=False))
    steps.note("the same by an old request", wire.call(DescribeGroupsRequest, 5, groups=["beats"], include_authorized_operations=False))
    listed = wire.call(ListGroupsRequest, 5, states_filter=["stable"], types_filter=["consumer"])
    steps.note("listed", [one for one in listed["groups"] if one["group_id"] == "beats"])
    steps.note("deleted while it lives", wire.call(DeleteGroupsRequest, 2, groups_names=["beats"]))
    steps.note("offsets deleted of a topic that is read", wire.call(
        OffsetDeleteRequest, 0, group_id="beats", topics=[{"name": "beaten", "partitions": [{"partition_index": 0}]}]))
    steps.note("not there, no name", group.described("nowhere", ""))
    # They go.
    note("leaves", "a", -1)
    note("leaves again", "a", -1)
    steps.note("described when one has left", group.described())
    last = note("the other gets all", "b", second["member_epoch"])
    note("another subscription", "b", last["member_epoch"], names=["nowhere"])
    note("lets go of all", "b", last["member_epoch"], held={})
    note("the other leaves", "b", -1)
    steps.note("described when it is empty", group.described())
    steps.note("commit of nobody to an empty one", commit(wire, "beats", "", -1, 4, "beaten"))
    steps.note("deleted", wire.call(DeleteGroupsRequest, 2, groups_names=["beats"]))
    steps.note("gone", group.described())


def beats_of_static_members(wire, steps, create):
    create(wire, "kept-for", 2)
    group = Members(wire, "static-beats", ids_of(wire, "kept-for"))
    note = lambda name, *arguments, **fields: steps.note(name, group.beat(*arguments, **fields))  # noqa: E731
    names = ["kept-for"]
    first = note("joins", "a", 0, names=names, instance_id="i")
    note("another with the name", "b", 0, names=names, instance_id="i")
    note("is there without its name", "a", first["member_epoch"])
    note("a stranger with the name", "b", first["member_epoch"], instance_id="i")
    note("a name that nobody has", "a", first["member_epoch"], instance_id="j")
    note("leaves for a while", "a", -2, instance_id="i")
    steps.note("described meanwhile", group.described())
    note("is there after it has left", "a", first["member_epoch"], instance_id="i")
    again = note("another comes in its place", "b", 0, names=names, instance_id="i")
    note("the first is fenced", "a", first["member_epoch"], instance_id="i")
    note("the other is there", "b", again["member_epoch"], instance_id="i")
    note("a stranger leaves with the name", "x", -1, instance_id="i")
    note("leaves for good", "b", -1, instance_id="i")
    note("leaves again", "b", -1, instance_id="i")
    steps.note("described", group.described())


def beats_and_topics(wire, steps, create):
    create(wire, "grows", 1)
    group = Members(wire, "grown", ids_of(wire, "grows"))
    note = lambda name, *arguments, **fields: steps.note(name, group.beat(*arguments, **fields))  # noqa: E731
    first = note("joins, and wants one that is not there", "a", 0, names=["grows", "comes"])
    create(wire, "comes", 2)
    group = Members(wire, "grown", ids_of(wire, "grows", "comes"))
    second = note("it comes", "a", first["member_epoch"])
    wire.call(CreatePartitionsRequest, 3, topics=[{"name": "grows", "count": 3, "assignments": None}], timeout_ms=30_000, validate_only=False)
    for _ in range(1000):
        third = group.beat("a", second["member_epoch"])
        if third["member_epoch"] != second["member_epoch"]:
            break
    steps.note("it grows", third)
    note("by version 0", "", 0, names=["grows"], version=0)
    note("range", "c", 0, names=["grows", "comes"], server_assignor="range")
    note("nothing is wanted", "d", 0, names=[])


# The one that deletes its group comes last: here no later group begins with an epoch that one before it had.
SCENARIOS = [beats_and_topics, beats_of_static_members, heartbeats]
