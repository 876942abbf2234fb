"""AdminService by reflection: every method, every refusal, segments that DuckDB reads, health, reflection, the age of connections."""

import concurrent.futures
import signal
import uuid

import duckdb
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from cluster import leads, wait_until
from conftest import Bucket
from reflected import SECONDS_MAX, Refused, Server

TOPIC = "orders"
OTHER_ID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"


@pytest.fixture
def server(start_broker, tmp_bucket):
    """A connection to a broker on an empty root; `server.broker` is the broker."""
    broker = start_broker(tmp_bucket)
    with Server(broker) as server:
        server.broker = broker
        yield server


def create(server, name=TOPIC, partitions=1, **config):
    fields = {"config": {key.replace("_", "."): value for key, value in config.items()}}
    return server.call("AdminService/CreateTopic", **{"name": name}, partition_count=partitions, **fields).topic


def describe(server, name=TOPIC):
    return server.call("AdminService/DescribeTopic", **{"name": name})


def alter(server, *paths, name=TOPIC, **fields):
    """What a topic is after an alteration: partitions and settings."""
    topic = server.call("AdminService/AlterTopic", **{"name": name}, update_mask={"paths": paths}, **fields).topic
    return topic.partition_count, dict(topic.config)


def produce(server, *values, partition=0, topic=TOPIC):
    records = {"records": [value if isinstance(value, dict) else {"value": value} for value in values]}
    return server.call("ProduceService/Produce", topic=topic, partition=partition, records=records)


def segments(server, **fields):
    """All pages of segments; `page_size` as asked."""
    found, token = [], ""
    while True:
        page = server.call("AdminService/ListSegments", **{"topic": TOPIC, "page_token": token, **fields})
        found += page.segments
        token = page.next_page_token
        if not token:
            return found


def refused(server, path, fields):
    with pytest.raises(Refused) as error:
        server.call(path, **fields)
    return error.value


def test_a_topic_is_altered_as_the_mask_says(server):
    create(server, partitions=2, retention_ms="1000", cleanup_policy="delete")
    assert alter(server, "config.retention.ms", config={"retention.ms": "2000"}) == (2, {"retention.ms": "2000", "cleanup.policy": "delete"})
    assert alter(server, "config.cleanup.policy") == (2, {"retention.ms": "2000"}), "what is absent has its default again"
    ignored = {"config": {"max.message.bytes": "5"}, "partition_count": 9}
    assert alter(server, "config.retention.ms", **ignored) == (2, {}), "what the mask does not name is not looked at"
    assert alter(server, "config", config={"retention.bytes": "7", "retention.ms": "1"}) == (2, {"retention.bytes": "7", "retention.ms": "1"})
    both = {"config": {"retention.ms": "3"}, "partition_count": 3}
    would = alter(server, "partition_count", "config.retention.ms", **both, validate_only=True)
    assert would == (3, {"retention.bytes": "7", "retention.ms": "3"})
    assert (describe(server).topic.partition_count, describe(server).topic.config["retention.ms"]) == (2, "1")
    assert alter(server, "partition_count", "config.retention.ms", **both) == would
    assert alter(server, "partition_count", "config.retention.ms", **both) == would, "again is the same"
    topic = describe(server).topic
    server.broker.restart(kill=True)
    with Server(server.broker) as again:
        assert describe(again).topic.SerializeToString(deterministic=True) == topic.SerializeToString(deterministic=True)
        assert [p.partition for p in describe(again).partitions] == [0, 1, 2]


def test_an_alteration_is_in_force_for_the_next_produce(server):
    create(server, max_message_bytes="200")
    with pytest.raises(Refused) as error:
        produce(server, bytes(500))
    assert error.value.reason == "MESSAGE_TOO_LARGE"
    alter(server, "config.max.message.bytes", config={"max.message.bytes": "1000"})
    assert produce(server, bytes(500)).base_offset == 0
    assert not produce(server, b"x").HasField("log_append_time")
    alter(server, "config.message.timestamp.type", config={"message.timestamp.type": "LogAppendTime"})
    assert produce(server, b"x").log_append_time > 0
    with pytest.raises(Refused) as error:
        produce(server, b"x", partition=1)
    assert error.value.reason == "PARTITION_NOT_FOUND"
    alter(server, "partition_count", partition_count=2)
    assert produce(server, b"x", partition=1).base_offset == 0


def test_alterations_at_the_same_time_do_not_lose_one_another(server):
    create(server)
    settings = {"retention.ms": "1", "retention.bytes": "2", "max.message.bytes": "3", "segment.ms": "4", "flush.ms": "5",
                "segment.bytes": "60", "cleanup.policy": "delete", "min.insync.replicas": "8"}
    with concurrent.futures.ThreadPoolExecutor(len(settings)) as pool:
        done = [pool.submit(alter, server, f"config.{name}", config={name: value}) for name, value in settings.items()]
        done += [pool.submit(alter, server, "partition_count", partition_count=5)]
        for one in done:
            one.result(SECONDS_MAX)
    topic = describe(server).topic
    assert (topic.partition_count, dict(topic.config)) == (5, settings)


REFUSED = [
    ("CreateTopic", {"name": TOPIC}, "ALREADY_EXISTS", "TOPIC_ALREADY_EXISTS", None),
    ("CreateTopic", {"name": TOPIC, "validate_only": True}, "ALREADY_EXISTS", "TOPIC_ALREADY_EXISTS", None),
    ("CreateTopic", {"name": ""}, "INVALID_ARGUMENT", "INVALID_TOPIC_NAME", "name"),
    ("CreateTopic", {"name": "x" * 250}, "INVALID_ARGUMENT", "INVALID_TOPIC_NAME", "name"),
    ("CreateTopic", {"name": "ORDERS"}, "INVALID_ARGUMENT", "INVALID_TOPIC_NAME", "name"),
    ("CreateTopic", {"name": "t", "partition_count": -1}, "INVALID_ARGUMENT", "INVALID_PARTITION_COUNT", "partition_count"),
    ("CreateTopic", {"name": "t", "partition_count": 100_001}, "INVALID_ARGUMENT", "INVALID_PARTITION_COUNT", "partition_count"),
    ("CreateTopic", {"name": "t", "config": {"retention.ms": "soon"}}, "INVALID_ARGUMENT", "INVALID_CONFIG", "config.retention.ms"),
    ("ListTopics", {"page_size": -1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "page_size"),
    ("DescribeTopic", {"name": "nobody"}, "NOT_FOUND", "TOPIC_NOT_FOUND", None),
    ("AlterTopic", {"name": "nobody", "update_mask": {"paths": ["config"]}}, "NOT_FOUND", "TOPIC_NOT_FOUND", None),
    ("AlterTopic", {"name": TOPIC}, "INVALID_ARGUMENT", "INVALID_REQUEST", "update_mask"),
    ("AlterTopic", {"name": TOPIC, "update_mask": {"paths": ["config", "nmae"]}}, "INVALID_ARGUMENT", "INVALID_REQUEST", "update_mask"),
    ("AlterTopic", {"name": TOPIC, "update_mask": {"paths": ["partition_count"]}, "partition_count": 1},
     "INVALID_ARGUMENT", "INVALID_PARTITION_COUNT", "partition_count"),
    ("AlterTopic", {"name": TOPIC, "update_mask": {"paths": ["partition_count"]}}, "INVALID_ARGUMENT", "INVALID_PARTITION_COUNT", "partition_count"),
    # Nothing of an alteration happens if a part of it is refused.
    ("AlterTopic", {"name": TOPIC, "update_mask": {"paths": ["partition_count", "config"]}, "partition_count": 1, "config": {}},
     "INVALID_ARGUMENT", "INVALID_PARTITION_COUNT", "partition_count"),
    ("AlterTopic", {"name": TOPIC, "update_mask": {"paths": ["partition_count", "config.retention.ms"]}, "partition_count": 3,
                    "config": {"retention.ms": "-9"}}, "INVALID_ARGUMENT", "INVALID_CONFIG", "config.retention.ms"),
    ("AlterTopic", {"name": TOPIC, "update_mask": {"paths": ["config.retention.sm"]}}, "INVALID_ARGUMENT", "INVALID_CONFIG", "config.retention.sm"),
    ("AlterTopic", {"name": TOPIC, "id": OTHER_ID, "update_mask": {"paths": ["config"]}}, "NOT_FOUND", "TOPIC_NOT_FOUND", None),
    ("AlterTopic", {"name": TOPIC, "id": "7", "update_mask": {"paths": ["config"]}}, "INVALID_ARGUMENT", "INVALID_REQUEST", "id"),
    ("DeleteTopic", {"name": "nobody"}, "NOT_FOUND", "TOPIC_NOT_FOUND", None),
    ("DeleteTopic", {"name": TOPIC, "id": OTHER_ID, "validate_only": True}, "NOT_FOUND", "TOPIC_NOT_FOUND", None),
    ("DeleteTopic", {"name": TOPIC, "id": OTHER_ID}, "NOT_FOUND", "TOPIC_NOT_FOUND", None),
    ("DeleteTopic", {"name": TOPIC, "id": "x"}, "INVALID_ARGUMENT", "INVALID_REQUEST", "id"),
    ("ListSegments", {"topic": "nobody"}, "NOT_FOUND", "TOPIC_NOT_FOUND", None),
    ("ListSegments", {"topic": TOPIC, "partition": 2}, "NOT_FOUND", "PARTITION_NOT_FOUND", None),
    ("ListSegments", {"topic": TOPIC, "partition": -1}, "NOT_FOUND", "PARTITION_NOT_FOUND", None),
    ("ListSegments", {"topic": TOPIC, "from_offset": -1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "from_offset"),
    ("ListSegments", {"topic": TOPIC, "to_offset": -1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "to_offset"),
    ("ListSegments", {"topic": TOPIC, "page_size": -1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "page_size"),
    ("ListSegments", {"topic": TOPIC, "page_token": "x"}, "INVALID_ARGUMENT", "INVALID_REQUEST", "page_token"),
]


def test_a_refusal_names_its_reason_and_its_field_and_changes_nothing(server):
    create(server, partitions=2, retention_ms="5")
    before = [t.SerializeToString(deterministic=True) for t in server.call("AdminService/ListTopics").topics]
    for method, fields, code, reason, field in REFUSED:
        told = refused(server, f"AdminService/{method}", fields)
        assert (told.code.name, told.reason, told.domain) == (code, reason, "lakebed"), (method, fields, told)
        assert told.fields == ([field] if field else []), (method, fields)
    assert [t.SerializeToString(deterministic=True) for t in server.call("AdminService/ListTopics").topics] == before
    commits = server.broker.metrics()["lakebed_log_commit_number"]
    refused(server, "AdminService/AlterTopic", REFUSED[15][1])
    assert server.broker.metrics()["lakebed_log_commit_number"] == commits


def test_a_topic_that_was_created_again_is_another_one(server):
    first = create(server)
    for _ in range(3):
        produce(server, b"x")
    page = server.call("AdminService/ListSegments", topic=TOPIC, page_size=1)
    assert page.next_page_token
    asked = {"name": TOPIC, "id": first.id}
    assert server.call("AdminService/DeleteTopic", **asked, validate_only=True).id == first.id
    assert describe(server).topic.id == first.id
    assert server.call("AdminService/DeleteTopic", **asked).id == first.id
    second = create(server)
    assert second.id != first.id and uuid.UUID(second.id)
    told = refused(server, "AdminService/DeleteTopic", asked)
    assert told.reason == "TOPIC_NOT_FOUND" and "created again" in str(told)
    told = refused(server, "AdminService/ListSegments", {"topic": TOPIC, "page_token": page.next_page_token})
    assert told.fields == ["page_token"] and "another topic" in str(told)
    assert segments(server) == []


def test_pages_of_topics_hold_their_place_when_topics_come_and_go(server):
    for name in ("a", "b", "c", "d"):
        create(server, name)
    first = server.call("AdminService/ListTopics", page_size=2)
    server.call("AdminService/DeleteTopic", **{"name": "b"})
    create(server, "aa")
    rest = server.call("AdminService/ListTopics", page_size=2, page_token=first.next_page_token)
    assert [t.name for t in [*first.topics, *rest.topics]] == ["a", "b", "c", "d"] and rest.next_page_token == ""


def rows_of(found):
    """The values of a segment's rows, as DuckDB reads them from its object."""
    path = found.uri.removeprefix("file://")
    rows = duckdb.sql(f"SELECT value FROM read_parquet('{path}', file_row_number = true) WHERE file_row_number >= {found.first_row} "
                      f"AND file_row_number < {found.first_row + found.row_count} ORDER BY file_row_number").fetchall()
    return [bytes(value) for (value,) in rows]


def test_the_objects_that_are_listed_hold_exactly_the_records_of_the_topic(server):
    create(server, partitions=2)
    create(server, "noise")
    written = {0: [], 1: []}
    for n in range(12):
        partition, count = n % 2, 1 + n % 3
        values = [b"%d/%d" % (n, i) for i in range(count)]
        produce(server, *({"value": value, "timestamp": 1_700_000_000_000 + 1000 * n + i} for i, value in enumerate(values)), partition=partition)
        produce(server, *[b"noise"] * 3, topic="noise")
        written[partition] += values
    found = segments(server)
    assert sum(one.row_count for one in found) == sum(map(len, written.values()))
    read = {0: [], 1: []}
    for one in found:
        assert (one.base_offset, one.last_offset) == (len(read[one.partition]), len(read[one.partition]) + one.row_count - 1)
        assert one.object_bytes == len(open(one.uri.removeprefix("file://"), "rb").read())
        read[one.partition] += rows_of(one)
    assert read == written
    assert [one.partition for one in found] == sorted(one.partition for one in found)

    def offsets(found):
        return [(one.partition, offset) for one in found for offset in range(one.base_offset, one.last_offset + 1)]

    by_ones = segments(server, page_size=1)
    assert offsets(by_ones) == offsets(found)
    second = segments(server, partition=1, from_offset=3, to_offset=6)
    assert {offset for offset in range(3, 6)} <= {offset for partition, offset in offsets(second) if partition == 1}
    assert all(one.partition == 1 and one.last_offset >= 3 and one.base_offset < 6 for one in second)
    timed = segments(server, from_timestamp=1_700_000_004_000, to_timestamp=1_700_000_006_000)
    wanted = {b"%d/%d" % (n, i) for n in (4, 5) for i in range(1 + n % 3)}
    assert wanted <= {value for one in timed for value in rows_of(one)}
    assert all(one.max_timestamp >= 1_700_000_004_000 and one.min_timestamp < 1_700_000_006_000 for one in timed)
    assert segments(server, from_timestamp=1_800_000_000_000) == []


def test_the_cluster_says_what_it_is(server):
    info = server.call("AdminService/GetClusterInfo")
    assert uuid.UUID(info.cluster_id) and info.store == server.broker.store and info.format == 1
    create(server, partitions=3)
    create(server, "other")
    after = server.call("AdminService/GetClusterInfo")
    assert (after.topic_count, after.partition_count) == (info.topic_count + 2, info.partition_count + 4)
    (cell,), (broker,) = after.cells, after.brokers
    assert cell.commit_number >= info.cells[0].commit_number + 2 and cell.epoch >= 1 and cell.feature_level == 1
    assert (broker.kafka_address, broker.http_address, broker.self) == (server.broker.kafka, server.broker.http, True)
    assert broker.version == server.broker.ready["version"] and broker.uptime_ms >= 0
    server.broker.restart()
    with Server(server.broker) as again:
        later = again.call("AdminService/GetClusterInfo")
    assert later.cluster_id == info.cluster_id and later.cells[0].commit_number >= after.cells[0].commit_number


def test_a_broker_that_has_lost_the_log_changes_what_it_says_and_nothing_else(start_broker, s3):
    bucket = Bucket.on_s3(s3)
    first = start_broker(bucket)
    with Server(first) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        create(server)
        second = start_broker(bucket)
        first.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: leads(second), "the second takes over while the first hangs")
            altering = pool.submit(server.call, "AdminService/AlterTopic", **{"name": TOPIC}, update_mask={"paths": ["config"]},
                                   config={"retention.ms": "1"})
        finally:
            first.process.send_signal(signal.SIGCONT)
        try:
            config = dict(altering.result(SECONDS_MAX).topic.config)
        except Refused as told:
            # Its connections may end before it says more.
            assert told.code.name == "UNAVAILABLE" and (told.reason, told.retry) in ((None, False), ("FENCED", True)), told
            config = {}
    with Server(second) as other:
        assert dict(describe(other).topic.config) == config


def test_health_of_each_service_ends_with_the_broker(server):
    health = health_pb2_grpc.HealthStub(server.channel)
    services = ["", *(f"lakebed.v1.{name}Service" for name in ("Produce", "Consume", "Admin"))]
    for service in services:
        assert health.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS_MAX).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as error:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=SECONDS_MAX)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    watches = [health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS_MAX) for service in services]
    assert [next(watch).status for watch in watches] == [health_pb2.HealthCheckResponse.SERVING] * 4
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(server.broker.stop)
        for watch in watches:
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError) as error:
                next(watch)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        stopping.result(SECONDS_MAX)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_has_all_files(server, version):
    from grpc_reflection.v1alpha import reflection_pb2

    # Both versions have the same messages.
    call = server.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                                        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                                        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)

    def ask(**fields):
        (answer,) = call(iter([reflection_pb2.ServerReflectionRequest(**fields)]), timeout=SECONDS_MAX)
        return answer

    listed = {service.name for service in ask(list_services="").list_services_response.service}
    assert {f"lakebed.v1.{name}Service" for name in ("Produce", "Consume", "Admin")} | {"grpc.health.v1.Health"} <= listed
    for symbol in ("lakebed.v1.AdminService", "lakebed.v1.Reason", "lakebed.v1.Record", "google.rpc.Status", "grpc.health.v1.Health"):
        assert ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto, symbol
    for file in ("admin_service", "produce_service", "consume_service", "errors", "records"):
        assert ask(file_by_filename=f"lakebed/v1/{file}.proto").file_descriptor_response.file_descriptor_proto, file
