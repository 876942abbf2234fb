"""Each refusal of produce and consume as a grpcio client sees it: its code, its reason, where the request is wrong, and when to come back."""

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from kafka_clients import create_topic
from reflected import Refused, Server
from test_grpc import Requests

TOPIC = "wrong"
X = {"records": [{"value": b"x"}]}
TWO_KEYS = {"records": [{"key": b"%d" % n} for n in range(20)]}
FUTURE = 7_258_118_400_000

# The fields of a batch beside its topic: the reason, and where it is wrong.
BATCHES = [
    ({"partition": 0}, "INVALID_REQUEST", "records"),
    ({"partition": 0, "records": {}}, "INVALID_REQUEST", "records"),
    ({"records": TWO_KEYS}, "INVALID_REQUEST", "records.records[1].key"),
    ({"records": {"records": [{"value": b"x"}, {"value": b"x", "offset": 3}]}}, "INVALID_REQUEST", "records.records[1].offset"),
    ({"records": {"records": [{"timestamp": -5}]}}, "INVALID_TIMESTAMP", "records.records[0].timestamp"),
    ({"records": {"records": [{"timestamp": FUTURE}]}}, "INVALID_TIMESTAMP", "records"),
    ({"partition": 0, "records": {"records": [{"value": bytes(2000)}]}}, "MESSAGE_TOO_LARGE", "records"),
    ({"kafka_batch": b"a batch of no partition"}, "INVALID_REQUEST", "partition"),
    ({"partition": 0, "kafka_batch": b"not a batch"}, "CORRUPT_BATCH", "kafka_batch"),
    ({"records": X, "expected_next_offset": 0}, "INVALID_REQUEST", "partition"),
    ({"partition": 0, "records": X, "expected_next_offset": -1}, "INVALID_REQUEST", "expected_next_offset"),
]
FETCHES = [
    ({"offset": -1}, "offset"),
    ({"max_wait": {"seconds": -1}}, "max_wait"),
    ({"format": 99}, "format"),
    ({"fields": ["RECORD_FIELD_KEY", 99]}, "fields[1]"),
    ({"format": "FORMAT_KAFKA_BATCHES", "fields": ["RECORD_FIELD_KEY"]}, "fields"),
]
# What is said on a Consume stream; the last is wrong.
INIT = {"init": {"topic": TOPIC}}
CONSUMES = [
    ([{"credit": {"bytes": 1}}], "INVALID_REQUEST", "init"),
    ([{"init": {"topic": TOPIC, "format": 99}}], "INVALID_REQUEST", "init.format"),
    ([{"init": {"topic": TOPIC, "fields": [99]}}], "INVALID_REQUEST", "init.fields[0]"),
    ([{"init": {"topic": TOPIC, "start": {"offset": -1}}}], "INVALID_REQUEST", "init.start.offset"),
    ([{"init": {"topic": TOPIC, "start": {"timestamp": -1}}}], "INVALID_REQUEST", "init.start.timestamp"),
    ([{"init": {"topic": TOPIC, "partitions": [{"partition": 1}, {"partition": 0, "start": {"offset": -7}}]}}],
     "INVALID_REQUEST", "init.partitions[1].start.offset"),
    ([{"init": {"topic": TOPIC, "partitions": [{"partition": 1}, {"partition": 1}]}}], "INVALID_REQUEST", "init.partitions"),
    ([{"init": {"topic": TOPIC, "stop": {"offset": -1}}}], "INVALID_REQUEST", "init.stop.offset"),
    ([{"init": {"topic": TOPIC, "stop": {"timestamp": -1}}}], "INVALID_REQUEST", "init.stop.timestamp"),
    ([{"init": {"topic": TOPIC, "resume_token": b"x"}}], "INVALID_RESUME_TOKEN", "init.resume_token"),
    ([{"init": {"topic": TOPIC, "resume_token": b"x", "start": {"latest": {}}}}], "INVALID_REQUEST", "init.start"),
    ([INIT, INIT], "INVALID_REQUEST", "init"),
    ([INIT, {}], "INVALID_REQUEST", ""),
    ([INIT, {"seek": {"partition": 7, "start": {"latest": {}}}}], "INVALID_REQUEST", "seek.partition"),
    ([INIT, {"seek": {"partition": 0}}], "INVALID_REQUEST", "seek.start"),
    ([INIT, {"seek": {"partition": 0, "start": {"offset": -2}}}], "INVALID_REQUEST", "seek.start.offset"),
    ([INIT, {"pause": {"partitions": [0, 7], "paused": True}}], "INVALID_REQUEST", "pause.partitions[1]"),
]


@pytest.fixture
def server(start_broker, tmp_bucket):
    """A connection to a broker with a topic of two partitions and small messages."""
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, partitions=2, config={"max.message.bytes": "1000"})
    with Server(broker) as server:
        yield server


def refused(server, path, **fields):
    """What a unary call is refused with."""
    with pytest.raises(Refused) as told:
        server.call(path, **fields)
    return told.value


def ended(answers):
    """Reads a stream to its end, which is an error."""
    with pytest.raises(grpc.RpcError) as error:
        list(answers)
    return Refused(error.value)


def of_batch(status):
    """Code, reason and fields of a google.rpc.Status in an answer."""
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert [any_pb2.Any(type_url=detail.type_url, value=detail.value).Unpack(into)
            for detail, into in zip(status.details, (info, wrong), strict=True)] == [True, True]
    return status.code, info.reason, [violation.field for violation in wrong.field_violations]


def test_a_wrong_batch_is_told_where_it_is_wrong_by_both_calls(server):
    for fields, reason, where in BATCHES:
        told = refused(server, "ProduceService/Produce", topic=TOPIC, **fields)
        assert (told.code.name, told.reason, told.fields, told.retry) == ("INVALID_ARGUMENT", reason, [where], False), fields
    batches = [server.message("ProduceStreamRequest", batch={"correlation_id": n, **fields}) for n, (fields, _, _) in enumerate(BATCHES)]
    requests = Requests(server.message("ProduceStreamRequest", init={"topic": TOPIC}), *batches)
    requests.end()
    _, *told = server.stream("ProduceService/ProduceStream", requests)
    assert [of_batch(answer.error.status) for answer in told] == [(3, reason, [where]) for _, reason, where in BATCHES]


def test_a_wrong_init_of_a_produce_stream_is_told_as_such(server):
    batch, init = {"batch": {"partition": 0, "records": X}}, {"init": {"topic": TOPIC}}
    for said, where in [([batch], "init"), ([{}], "init"), ([init, init], "init"), ([init, {}], "batch")]:
        requests = Requests(*(server.message("ProduceStreamRequest", **one) for one in said))
        told = ended(server.stream("ProduceService/ProduceStream", requests))
        requests.end()
        assert (told.code.name, told.reason, told.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", [where]), said


def test_a_wrong_read_is_told_where_it_is_wrong(server):
    for fields, where in FETCHES:
        told = refused(server, "ConsumeService/Fetch", topic=TOPIC, **fields)
        assert (told.code.name, told.reason, told.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", [where]), fields
    for said, reason, where in CONSUMES:
        requests = Requests(*(server.message("ConsumeRequest", **one) for one in said))
        told = ended(server.stream("ConsumeService/Consume", requests))
        requests.end()
        assert (told.code.name, told.reason, told.fields) == ("INVALID_ARGUMENT", reason, [where]), said
