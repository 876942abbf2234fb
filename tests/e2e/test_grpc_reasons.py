"""Each refusal of produce and consume as a grpcio client sees it: its code, its reason, where the request is wrong, and when to come back."""

import grpc
import pytest
from conftest import Bucket
from google.rpc import error_details_pb2
from kafka_clients import create_topic, read
from reflected import PACKAGE, SECONDS_MAX, Refused, Server
from test_failures import environment
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
    assert [detail.Unpack(into) for detail, into in zip(status.details, (info, wrong), strict=True)] == [True, True]
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


def future(server, path, /, **fields):
    """A unary call that is on its way."""
    request, answer = server.message(f"{path.split('/')[1]}Request", **fields), server.message(f"{path.split('/')[1]}Response")
    call = server.channel.unary_unary(f"/{PACKAGE}.{path}", request_serializer=lambda one: one.SerializeToString(),
                                      response_deserializer=type(answer).FromString)
    return call.future(request, timeout=SECONDS_MAX)


def told(call):
    """With what a call ended: code, reason, and whether it says when to come back."""
    refused = Refused(call.exception())
    return refused.code.name, refused.reason, refused.retry


def produced(server, value):
    """Of a batch that is on its way; to partition 0."""
    return future(server, "ProduceService/Produce", topic=TOPIC, partition=0, records={"records": [{"value": value}]})


def produce_stream(server, *values):
    """An open stream that has sent a batch of each value to partition 0."""
    batches = [{"init": {"topic": TOPIC, "partition": 0}}, *({"batch": {"records": {"records": [{"value": value}]}}} for value in values)]
    requests = Requests(*(server.message("ProduceStreamRequest", **one) for one in batches))
    return requests, server.stream("ProduceService/ProduceStream", requests)


def consume_stream(server):
    """An open stream of all partitions, whose client grants nothing."""
    requests = Requests(server.message("ConsumeRequest", **INIT))
    return requests, server.stream("ConsumeService/Consume", requests)


CHANGES = {"CreateTopic": {"name": "created"}, "DeleteTopic": {"name": TOPIC},
           "AlterTopic": {"name": TOPIC, "partition_count": 3, "update_mask": {"paths": ["partition_count"]}}}
READS = {"ListTopics": {}, "DescribeTopic": {"name": TOPIC}, "ListSegments": {"topic": TOPIC}, "GetClusterInfo": {}}


def test_on_a_connection_of_age_what_may_have_happened_says_so_and_all_else_may_go_on_elsewhere(s3_server, start_broker):
    bucket = Bucket("s3://test/root", environment(s3_server), s3_server.endpoint)
    broker = start_broker(bucket, arguments=["--connection-age-max", "1s", "--connection-age-grace", "1s"])
    create_topic(broker, TOPIC, partitions=2)
    with Server(broker) as server:
        assert produced(server, b"before").result().base_offset == 0
        s3_server.conduct(outage="refused")
        writes = [produced(server, b"perhaps"), future(server, "AdminService/CreateTopic", **CHANGES["CreateTopic"])]
        reads = [future(server, f"AdminService/{name}", **fields) for name, fields in READS.items()]
        busy, idle, reader = produce_stream(server, b"perhaps, too"), produce_stream(server), consume_stream(server)
        for expected, call in [*(("UNKNOWN", call) for call in writes), *(("UNAVAILABLE", call) for call in reads)]:
            reason = {"UNKNOWN": "OUTCOME_UNKNOWN", "UNAVAILABLE": "CONNECTION_AGED"}[expected]
            assert told(call) == (expected, reason, expected == "UNAVAILABLE")
        for (requests, answers), code, reason in [(busy, "UNKNOWN", "OUTCOME_UNKNOWN"), (idle, "UNAVAILABLE", "CONNECTION_AGED"),
                                                  (reader, "UNAVAILABLE", "CONNECTION_AGED")]:
            refused = ended(answers)
            requests.end()
            assert (refused.code.name, refused.reason, refused.retry) == (code, reason, code == "UNAVAILABLE")
        s3_server.conduct()
        # What follows is behind them: whatever came of them is known then.
        last = produced(server, b"after").result().base_offset
        there = [message.value() for message in read(broker, TOPIC)]
        assert there[0] == b"before" and there[last:] == [b"after"] and set(there[1:-1]) <= {b"perhaps", b"perhaps, too"}
        assert len(set(there)) == len(there), "none is there twice"


def test_while_the_store_is_away_what_is_unavailable_has_not_happened(s3_server, start_broker):
    bucket = Bucket("s3://test/root", environment(s3_server), s3_server.endpoint)
    broker = start_broker(bucket)
    create_topic(broker, TOPIC, partitions=2)
    with Server(broker) as server:
        assert produced(server, b"before").result().base_offset == 0
        before = server.call("AdminService/DescribeTopic", name=TOPIC)
        s3_server.conduct(outage="unavailable")
        # A topic is created without a look at what is there: its fate would be unknown.
        asked = {name: fields for name, fields in (CHANGES | READS).items() if name != "CreateTopic"}
        calls = {name: future(server, f"AdminService/{name}", **fields) for name, fields in asked.items()}
        calls["Produce"] = future(server, "ProduceService/Produce", topic="nobody", records=X)
        calls["Fetch"] = future(server, "ConsumeService/Fetch", topic="nobody")
        reader = server.stream("ConsumeService/Consume", Requests(server.message("ConsumeRequest", **INIT)))
        assert {name: told(call) for name, call in calls.items()} == dict.fromkeys(calls, ("UNAVAILABLE", "STORE_UNAVAILABLE", True))
        refused = ended(reader)
        assert (refused.code.name, refused.reason, refused.retry) == ("UNAVAILABLE", "STORE_UNAVAILABLE", True)
        s3_server.conduct()
        assert [topic.name for topic in server.call("AdminService/ListTopics").topics] == [TOPIC]
        assert server.call("AdminService/DescribeTopic", name=TOPIC) == before


def test_more_streams_than_there_is_memory_for_are_refused_until_one_ends(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, memory_mib=64)
    create_topic(broker, TOPIC)
    with Server(broker) as server:
        streams = []
        # As many calls as a connection takes; there is memory for fewer.
        while (refused := opened(server, streams)) is None:
            assert len(streams) < 256
        assert (refused.code.name, refused.reason, refused.retry) == ("RESOURCE_EXHAUSTED", "OVERLOADED", True)
        requests, answers = streams.pop()
        requests.end()
        assert list(answers) == [], "one ends as its client does"
        assert opened(server, streams) is None, "then there is room for another"
        for requests, answers in streams:
            requests.end()
            answers.cancel()


def opened(server, streams):
    """Opens one more stream. What it is refused with, if it is."""
    requests, answers = consume_stream(server)
    try:
        assert next(answers).WhichOneof("response") == "heartbeat"
    except grpc.RpcError as error:
        requests.end()
        return Refused(error)
    streams.append((requests, answers))
    return None
