"""ProduceService by a grpcio client from reflection: the stream with its window, answers in order, every reason of a refusal, the end."""

import itertools
import signal

import grpc
import pytest
from confluent_kafka import Producer
from google.rpc import error_details_pb2
from kafka_clients import SECONDS_MAX, create_topic, read
from reflected import Refused, Server
from test_grpc import Requests

TOPIC = "streamed"
METHOD = "ProduceService/ProduceStream"


class Stream:
    """An open ProduceStream; correlation ids count from 0."""

    def __init__(self, server, **init):
        self.server = server
        self.requests = Requests(server.message("ProduceStreamRequest", init={"topic": TOPIC, **init}))
        self.answers = server.stream(METHOD, self.requests)
        self.ids = itertools.count()
        first = next(self.answers)
        assert first.WhichOneof("response") == "init_ack"
        self.window = first.init_ack

    def send(self, *values, **fields):
        """Sends a batch of values (or of records as dicts) and returns its correlation id."""
        correlation_id = next(self.ids)
        records = {"records": [value if isinstance(value, dict) else {"value": value} for value in values]}
        batch = {"correlation_id": correlation_id, **({} if "kafka_batch" in fields else {"records": records}), **fields}
        self.requests.send(self.server.message("ProduceStreamRequest", batch=batch))
        return correlation_id

    def hear(self):
        """The next answer: correlation id, and (partition, base, last) or (code, reason)."""
        answer = next(self.answers)
        if answer.WhichOneof("response") == "ack":
            ack = answer.ack
            assert not ack.duplicate
            return ack.correlation_id, (ack.partition, ack.base_offset, ack.last_offset)
        assert answer.WhichOneof("response") == "error"
        return answer.error.correlation_id, refusal(answer.error.status)

    def end(self):
        """Closes this side, and takes the answers that are left."""
        self.requests.end()
        told = []
        while True:
            try:
                told.append(self.hear())
            except StopIteration:
                return told


def refusal(status):
    """Code and reason of a google.rpc.Status."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info) and info.domain == "lakebed" and status.message
    code = next(code.name for code in grpc.StatusCode if code.value[0] == status.code)
    return code, info.reason


def test_what_is_streamed_is_there_for_kafka_clients_in_the_order_of_the_acks(client_broker):
    create_topic(client_broker, TOPIC, partitions=2)
    with Server(client_broker) as server:
        stream = Stream(server, partition=1)
        assert stream.window.partition_count == 2 and len(stream.window.topic_id) == 36
        assert stream.window.window_bytes >= 1 << 20 and stream.window.window_batches >= 64
        for n in range(500):
            stream.send(b"%d" % n, b"")
        assert stream.end() == [(n, (1, 2 * n, 2 * n + 1)) for n in range(500)]
    client_broker.before_reading()
    assert [m.value() for m in read(client_broker, TOPIC, partition=1)] == [value for n in range(500) for value in (b"%d" % n, b"")]


def test_a_key_chooses_the_partition_that_kafka_clients_choose(client_broker):
    create_topic(client_broker, TOPIC, partitions=7)
    keys = [b"", b"a", b"customer-17", bytes(range(256)), "ключ".encode()]
    told = []
    producer = Producer({"bootstrap.servers": client_broker.kafka, "partitioner": "murmur2"})
    for key in keys:
        producer.produce(TOPIC, key=key, value=b"x", on_delivery=lambda error, message: told.append(message.partition()))
        assert producer.flush(SECONDS_MAX) == 0
    with Server(client_broker) as server:
        stream = Stream(server)
        for key in keys:
            stream.send({"value": b"no key"}, {"key": key, "value": b"x"}, {"key": key})
        assert [place[0] for _, place in stream.end()] == told


SPREAD = [{"key": b"a"}, {"key": b"b"}, {"key": b"c"}, {"key": b"d"}]
FUTURE = {"value": b"x", "timestamp": 7_258_118_400_000}
REFUSED = [
    ([b"x"], {"partition": 9}, "NOT_FOUND", "PARTITION_NOT_FOUND"),
    ([], {}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    (SPREAD, {}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ([{"value": b"x", "offset": 3}], {}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ([], {"kafka_batch": b"a batch of no partition"}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ([], {"kafka_batch": b"not a batch", "partition": 0}, "INVALID_ARGUMENT", "CORRUPT_BATCH"),
    ([bytes(2000)], {}, "INVALID_ARGUMENT", "MESSAGE_TOO_LARGE"),
    ([FUTURE], {}, "INVALID_ARGUMENT", "INVALID_TIMESTAMP"),
    ([{"value": b"x", "timestamp": -5}], {}, "INVALID_ARGUMENT", "INVALID_TIMESTAMP"),
    ([b"x"], {"expected_next_offset": 0}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ([b"x"], {"partition": 3, "expected_next_offset": 1000}, "ABORTED", "OFFSET_MISMATCH"),
]


def test_a_refusal_concerns_its_batch_alone(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, partitions=5, config={"max.message.bytes": "1000"})
    with Server(broker) as server:
        stream = Stream(server)
        expected = []
        for n, (values, fields, code, reason) in enumerate(REFUSED):
            expected.append((stream.send(*values, **fields), (code, reason)))
            expected.append((stream.send(b"good", partition=3), (3, n, n)))
        assert stream.end() == expected
    assert [m.value() for m in read(broker, TOPIC, partition=3)] == [b"good"] * len(REFUSED)


def test_an_append_that_expects_an_offset_gets_it_or_is_told_the_next(client_broker):
    create_topic(client_broker, TOPIC)
    with Server(client_broker) as server:
        def produce(expected):
            records = {"records": [{"value": b"%d" % expected}]}
            return server.call("ProduceService/Produce", topic=TOPIC, partition=0, records=records, expected_next_offset=expected)

        assert produce(0).base_offset == 0
        with pytest.raises(Refused) as refused:
            produce(0)
        assert (refused.value.code.name, refused.value.reason) == ("ABORTED", "OFFSET_MISMATCH")
        assert refused.value.metadata["next_offset"] == "1"
        stream = Stream(server, partition=0)
        for expected in (1, 1, 2, 7):
            stream.send(b"%d" % expected, expected_next_offset=expected)
        mismatch = ("ABORTED", "OFFSET_MISMATCH")
        assert stream.end() == [(0, (0, 1, 1)), (1, mismatch), (2, (0, 2, 2)), (3, mismatch)]
    client_broker.restart(kill=True)
    with Server(client_broker) as server:
        assert server.call("ProduceService/Produce", topic=TOPIC, partition=0, records={"records": [{"value": b"3"}]},
                           expected_next_offset=3).base_offset == 3
    assert [m.value() for m in read(client_broker, TOPIC)] == [b"0", b"1", b"2", b"3"]


def test_what_is_wrong_with_the_stream_ends_it_after_what_came_before_is_answered(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    openings = [
        ({"init": {"topic": "nobody"}}, "NOT_FOUND", "TOPIC_NOT_FOUND"),
        ({"init": {"topic": TOPIC, "partition": 1}}, "NOT_FOUND", "PARTITION_NOT_FOUND"),
        ({"batch": {"correlation_id": 1}}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ({}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ]
    with Server(broker) as server:
        for first, code, reason in openings:
            requests = Requests(server.message("ProduceStreamRequest", **first))
            with pytest.raises(grpc.RpcError) as ended:
                next(server.stream(METHOD, requests))
            requests.end()
            told = Refused(ended.value)
            assert (told.code.name, told.reason) == (code, reason), first
        stream = Stream(server)
        stream.send(b"x")
        stream.requests.send(server.message("ProduceStreamRequest", init={"topic": TOPIC}))
        assert stream.hear() == (0, (0, 0, 0))
        with pytest.raises(grpc.RpcError) as ended:
            next(stream.answers)
        stream.requests.end()
        assert Refused(ended.value).reason == "INVALID_REQUEST"


def test_a_broker_that_stops_ends_the_stream_and_what_has_no_answer_is_not_there(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    with Server(broker) as server:
        stream = Stream(server, partition=0)
        for n in range(2000):
            stream.send(b"%d" % n)
        told = [stream.hear() for _ in range(10)]
        broker.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as ended:
            while True:
                told.append(stream.hear())
        stream.requests.end()
        assert (Refused(ended.value).code.name, Refused(ended.value).reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert [correlation_id for correlation_id, _ in told] == list(range(len(told)))
    stored = [b"%d" % n for n, place in told if place[0] == 0]
    assert all(place == ("UNAVAILABLE", "SHUTTING_DOWN") for _, place in told if place[0] != 0)
    assert broker.process.wait(timeout=30) == 0
    broker.kill()
    broker = start_broker(tmp_bucket)
    assert [m.value() for m in read(broker, TOPIC)] == stored
