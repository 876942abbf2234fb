"""gRPC by reflection: produce, fetch, consume with credits, topics, refusals with reasons, health; the same log as Kafka's."""

import queue

import grpc
import pytest
from confluent_kafka import Producer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kafka_clients import SECONDS_MAX, create_topic, read
from reflected import Refused, Server

TOPIC = "grpc"
MANY = 1 << 40


class Requests:
    """The requests of a stream, as the test sends them; `end()` closes this side."""

    def __init__(self, *first):
        self.waiting = queue.SimpleQueue()
        for message in first:
            self.send(message)

    def send(self, message):
        self.waiting.put(message)

    def end(self):
        self.waiting.put(None)

    def __iter__(self):
        return self

    def __next__(self):
        message = self.waiting.get()
        if message is None:
            raise StopIteration
        return message


def produce(server, *values, **fields):
    records = {"records": [value if isinstance(value, dict) else {"value": value} for value in values]}
    return server.call("ProduceService/Produce", **{"topic": TOPIC, "partition": 0, "records": records, **fields})


def fetch(server, offset=0, **fields):
    return server.call("ConsumeService/Fetch", **{"topic": TOPIC, "partition": 0, "offset": offset, **fields})


def consume(server, requests, count):
    """Reads batches until `count` records have come. Returns them with their partitions, as (partition, record)."""
    answers = server.stream("ConsumeService/Consume", requests)
    records = []
    for answer in answers:
        records += [(answer.batch.partition, record) for record in answer.batch.records.records]
        if len(records) >= count:
            break
    answers.cancel()
    requests.end()
    return records


def opening(server, credit=True, **init):
    """The requests that open a stream, with or without credit."""
    first = [server.message("ConsumeRequest", init={"topic": TOPIC, **init})]
    if credit:
        first.append(server.message("ConsumeRequest", credit={"bytes": MANY, "records": MANY}))
    return Requests(*first)


def record_of(record):
    """What a record holds, with absent fields as None."""
    def optional(message, field):
        return getattr(message, field) if message.HasField(field) else None

    headers = [(header.key, optional(header, "value")) for header in record.headers]
    return optional(record, "key"), optional(record, "value"), headers, optional(record, "timestamp")


ALIKE = [
    {"key": b"k", "value": b"v", "headers": [{"key": "b", "value": b"1"}, {"key": "a"}, {"key": "b", "value": b""}],
     "timestamp": 1_700_000_000_000},
    {"value": b"", "timestamp": 1_700_000_000_001},
    {"key": b"", "timestamp": 1_700_000_000_002},
]
AS_TUPLES = [
    (b"k", b"v", [("b", b"1"), ("a", None), ("b", b"")], 1_700_000_000_000),
    (None, b"", [], 1_700_000_000_001),
    (b"", None, [], 1_700_000_000_002),
]


def test_what_grpc_produces_kafka_reads_and_the_other_way_round(client_broker):
    create_topic(client_broker, TOPIC)
    with Server(client_broker) as server:
        answer = produce(server, *ALIKE)
        assert (answer.partition, answer.base_offset, answer.last_offset, answer.duplicate) == (0, 0, 2, False)
    producer = Producer({"bootstrap.servers": client_broker.kafka})
    offsets = []
    for key, value, headers, timestamp in AS_TUPLES:
        producer.produce(TOPIC, partition=0, key=key, value=value, headers=headers, timestamp=timestamp,
                         on_delivery=lambda error, message: offsets.append((error, message.offset())))
    assert producer.flush(SECONDS_MAX) == 0
    assert offsets == [(None, 3), (None, 4), (None, 5)]
    client_broker.before_reading()
    by_kafka = [(m.offset(), (m.key(), m.value(), m.headers() or [], m.timestamp()[1])) for m in read(client_broker, TOPIC)]
    assert by_kafka == list(enumerate(AS_TUPLES + AS_TUPLES))
    with Server(client_broker) as server:
        fetched = fetch(server)
        assert [(r.offset, record_of(r)) for r in fetched.records.records] == by_kafka
        assert (fetched.next_offset, fetched.high_watermark, fetched.log_start_offset) == (6, 6, 0)
        streamed = consume(server, opening(server, start={"earliest": {}}), 6)
        assert [(r.offset, record_of(r)) for _, r in streamed] == by_kafka


def test_a_stream_sends_nothing_without_credit_and_no_more_than_it_has(client_broker):
    create_topic(client_broker, TOPIC)
    with Server(client_broker) as server:
        for n in range(20):
            produce(server, b"%d" % n)
    client_broker.before_reading()
    with Server(client_broker) as server:
        requests = opening(server, credit=False, start={"earliest": {}})
        answers = server.stream("ConsumeService/Consume", requests)
        first = next(answers)
        assert first.WhichOneof("response") == "heartbeat", "the stream has started, and there is no credit yet"
        assert [(tail.partition, tail.next_offset, tail.high_watermark) for tail in first.heartbeat.tails] == [(0, 0, 20)]
        got, granted = [], 0
        while len(got) < 20:
            if len(got) >= granted:
                requests.send(server.message("ConsumeRequest", credit={"bytes": MANY if granted == 0 else 0, "records": 1}))
                granted = len(got) + 1
            batch = next(answers).batch
            got += [(record.offset, record.value) for record in batch.records.records]
            assert batch.next_offset == len(got)
        assert got == [(n, b"%d" % n) for n in range(20)]
        answers.cancel()
        requests.end()


def test_a_stream_follows_all_partitions_from_where_each_begins(client_broker):
    create_topic(client_broker, TOPIC, partitions=3)
    with Server(client_broker) as server:
        for partition in range(3):
            produce(server, *[b"%d" % n for n in range(5)], partition=partition)
    client_broker.before_reading()
    with Server(client_broker) as server:
        starts = [{"partition": 0, "start": {"offset": 3}}, {"partition": 1, "start": {"latest": {}}}, {"partition": 2}]
        requests = opening(server, partitions=starts, start={"earliest": {}})
        answers = server.stream("ConsumeService/Consume", requests)
        got = {0: [], 1: [], 2: []}

        def take(count):
            while sum(map(len, got.values())) < count:
                batch = next(answers).batch
                got[batch.partition] += [(record.offset, record.value) for record in batch.records.records]

        take(7)
        assert got == {0: [(3, b"3"), (4, b"4")], 1: [], 2: [(n, b"%d" % n) for n in range(5)]}
        produce(server, b"new", partition=1)
        take(8)
        assert got[1] == [(5, b"new")]
        answers.cancel()
        requests.end()


def test_a_fetch_waits_for_what_arrives_and_a_batch_of_kafka_is_taken_as_it_is(client_broker):
    create_topic(client_broker, TOPIC)
    with Server(client_broker) as server:
        produce(server, b"one", b"two")
        batch = fetch(server, format="FORMAT_KAFKA_BATCHES").kafka_batches.data
        waiting_request = {"min_bytes": 1, "max_wait": {"seconds": 30}}
        import concurrent.futures

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(fetch, server, 2, **waiting_request)
            answer = server.call("ProduceService/Produce", topic=TOPIC, partition=0, kafka_batch=batch)
            assert (answer.base_offset, answer.last_offset) == (2, 3)
            assert [record.value for record in waiting.result(SECONDS_MAX).records.records] == [b"one", b"two"]
    client_broker.before_reading()
    assert [m.value() for m in read(client_broker, TOPIC)] == [b"one", b"two", b"one", b"two"]


def test_a_key_chooses_the_partition_that_kafka_clients_choose(client_broker):
    create_topic(client_broker, TOPIC, partitions=7)
    keys = [b"", b"a", b"customer-17", bytes(range(256)), "ключ".encode()]
    told = []
    producer = Producer({"bootstrap.servers": client_broker.kafka, "partitioner": "murmur2"})
    for key in keys:
        producer.produce(TOPIC, key=key, value=b"x", on_delivery=lambda error, message: told.append((message.key(), message.partition())))
        assert producer.flush(SECONDS_MAX) == 0
    with Server(client_broker) as server:
        records = [{"records": [{"key": key, "value": b"x"}]} for key in keys]
        chosen = [server.call("ProduceService/Produce", topic=TOPIC, records=record).partition for record in records]
    assert list(zip(keys, chosen)) == told


def test_topics_are_created_listed_described_and_deleted(client_broker):
    with Server(client_broker) as server:
        asked = {"name": TOPIC, "partition_count": 2, "config": {"retention.ms": "1000000"}}
        assert server.call("AdminService/CreateTopic", **asked, validate_only=True).topic.id == ""
        topic = server.call("AdminService/CreateTopic", **asked).topic
        assert (topic.name, topic.partition_count, dict(topic.config)) == (TOPIC, 2, {"retention.ms": "1000000"})
        server.call("AdminService/CreateTopic", name="another")
        produce(server, b"x", b"y", partition=1)
    client_broker.before_reading()
    with Server(client_broker) as server:
        first = server.call("AdminService/ListTopics", page_size=1)
        rest = server.call("AdminService/ListTopics", page_token=first.next_page_token)
        assert [t.name for t in first.topics] == ["another"] and [t.name for t in rest.topics] == [TOPIC]
        assert rest.next_page_token == ""
        described = server.call("AdminService/DescribeTopic", name=TOPIC)
        assert described.topic.SerializeToString(deterministic=True) == topic.SerializeToString(deterministic=True)
        assert [(p.partition, p.earliest_offset, p.latest_offset) for p in described.partitions] == [(0, 0, 0), (1, 0, 2)]
        assert server.call("AdminService/DeleteTopic", name=TOPIC, id=topic.id).id == topic.id
        assert [t.name for t in server.call("AdminService/ListTopics").topics] == ["another"]


REFUSED = [
    ("ProduceService/Produce", {"topic": "nobody", "partition": 0, "records": {"records": [{"value": b"x"}]}}, "NOT_FOUND", "TOPIC_NOT_FOUND"),
    ("ProduceService/Produce", {"topic": TOPIC, "partition": 9, "records": {"records": [{"value": b"x"}]}}, "NOT_FOUND", "PARTITION_NOT_FOUND"),
    ("ProduceService/Produce", {"topic": TOPIC, "partition": 0}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ("ProduceService/Produce", {"topic": TOPIC, "partition": 0, "records": {}}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ("ProduceService/Produce", {"topic": TOPIC, "partition": 0, "records": {"records": [{"value": bytes(2000)}]}},
     "INVALID_ARGUMENT", "MESSAGE_TOO_LARGE"),
    ("ProduceService/Produce", {"topic": TOPIC, "partition": 0, "kafka_batch": b"not a batch"}, "INVALID_ARGUMENT", "CORRUPT_BATCH"),
    ("ConsumeService/Fetch", {"topic": "nobody"}, "NOT_FOUND", "TOPIC_NOT_FOUND"),
    ("ConsumeService/Fetch", {"topic": TOPIC, "partition": 1}, "NOT_FOUND", "PARTITION_NOT_FOUND"),
    ("ConsumeService/Fetch", {"topic": TOPIC, "offset": 1}, "OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE"),
    ("AdminService/CreateTopic", {"name": TOPIC}, "ALREADY_EXISTS", "TOPIC_ALREADY_EXISTS"),
    ("AdminService/CreateTopic", {"name": "not a name"}, "INVALID_ARGUMENT", "INVALID_TOPIC_NAME"),
    ("AdminService/CreateTopic", {"name": "t", "partition_count": 0}, "INVALID_ARGUMENT", "INVALID_PARTITION_COUNT"),
    ("AdminService/CreateTopic", {"name": "t", "config": {"retention.sm": "1"}}, "INVALID_ARGUMENT", "INVALID_CONFIG"),
    ("AdminService/DescribeTopic", {"name": "nobody"}, "NOT_FOUND", "TOPIC_NOT_FOUND"),
    ("AdminService/DeleteTopic", {"name": "nobody"}, "NOT_FOUND", "TOPIC_NOT_FOUND"),
    ("AdminService/DeleteTopic", {"name": TOPIC, "id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, "NOT_FOUND", "TOPIC_NOT_FOUND"),
]


def test_a_refusal_names_its_reason_and_changes_nothing(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, config={"max.message.bytes": "1000"})
    with Server(broker) as server:
        told = []
        for path, fields, _, _ in REFUSED:
            try:
                pytest.fail(f"taken: {path} {fields}: {server.call(path, **fields)}")
            except Refused as error:
                refused = error
            told.append((path, fields, refused.code.name, refused.reason))
            assert refused.domain == "lakebed"
        assert told == REFUSED
        answer = produce(server, b"x")
        assert answer.base_offset == 0, "nothing of what was refused is there"


def test_an_offset_out_of_range_tells_the_range(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    with Server(broker) as server:
        produce(server, b"x", b"y")
        with pytest.raises(Refused) as refused:
            fetch(server, 3)
        assert (refused.value.metadata["earliest"], refused.value.metadata["latest"]) == ("0", "2")
        stream = server.stream("ConsumeService/Consume", opening(server, start={"offset": 3}))
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert Refused(ended.value).reason == "OFFSET_OUT_OF_RANGE"


def test_health_and_reflection_name_the_services(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    services = [f"lakebed.v1.{name}Service" for name in ("Produce", "Consume", "Admin")]
    with Server(broker) as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        for service in ["", *services]:
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS_MAX)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
        assert set(services) <= set(server.reflection.get_services())
