"""ConsumeService by reflection, as any gRPC client sees it: Arrow and records alike, resume after a restart, bounds, seek, pause, drain."""

import random

import grpc
import pyarrow
import pytest
from conftest import Broker, RereadBroker
from kafka_clients import create_topic
from reflected import Refused, Server
from test_grpc import MANY, Requests

TOPIC = "consume"
SEED = 20


def produce(server, records, partition=0):
    return server.call("ProduceService/Produce", topic=TOPIC, partition=partition, records={"records": records})


def consume(server, credit=True, **init):
    """A stream: what the client says, and what it hears."""
    first = [server.message("ConsumeRequest", init={"topic": TOPIC, **init})]
    if credit:
        first.append(server.message("ConsumeRequest", credit={"bytes": MANY, "records": MANY}))
    requests = Requests(*first)
    return requests, server.stream("ConsumeService/Consume", requests)


def to_the_end(server, **init):
    """All answers of a stream that ends by itself."""
    requests, answers = consume(server, **init)
    heard = list(answers)
    requests.end()
    return heard


def optional(message, field):
    return getattr(message, field) if message.HasField(field) else None


def rows_of_records(batch):
    """What RECORDS say, as tuples in the order of the tables' columns."""
    kinds = {0: 0, 1: 0, 2: 1}
    for record in batch.records.records:
        headers = [(header.key, optional(header, "value")) for header in record.headers]
        yield (batch.partition, record.offset, optional(record, "timestamp"), kinds[record.timestamp_type], headers,
               optional(record, "key"), optional(record, "value"))


def rows_of_arrow(batch):
    """What an Arrow IPC stream says, as pyarrow reads it."""
    with pyarrow.ipc.open_stream(batch.arrow_ipc.data) as reader:
        batches = list(reader)
    assert len(batches) == 1 and batches[0].num_rows == batch.arrow_ipc.records
    batches[0].validate(full=True)
    for row in batches[0].to_pylist():
        headers = [(header["key"], header["value"]) for header in row["_kafka_headers"] or []]
        time = row["_kafka_timestamp"]
        ms = None if time is None else round(time.timestamp() * 1000)
        yield (row["_kafka_partition"], row["_kafka_offset"], ms, row["_kafka_timestamp_type"], headers, row["key"], row["value"])


def odd(lines):
    """Records of real lines, with nulls, empty fields, headers in order and twice, drawn from the seed."""
    dice = random.Random(SEED)
    for n, line in enumerate(lines):
        record = {"timestamp": 1_700_000_000_000 + n}
        if dice.random() < 0.8:
            record["value"] = line if dice.random() < 0.95 else b""
        if dice.random() < 0.6:
            record["key"] = line[:dice.randrange(12)]
        if dice.random() < 0.4:
            record["headers"] = [{"key": dice.choice(["a", "b", "ключ", ""]),
                                  **({"value": line[:dice.randrange(4)]} if dice.random() < 0.7 else {})}
                                 for _ in range(dice.randrange(1, 5))]
        yield record


@pytest.fixture(params=[Broker, RereadBroker], ids=["tail", "no-tail"])
def client_broker(request, start_broker, tmp_bucket):
    """A broker as it is, and one that is read after a restart and without its tail."""
    return start_broker(tmp_bucket, kind=request.param)


def test_arrow_says_what_records_say_for_real_records(client_broker, earthquakes, birdstrikes):
    create_topic(client_broker, TOPIC, partitions=2)
    sent = {partition: list(odd(lines[:3000])) for partition, lines in enumerate((earthquakes, birdstrikes))}
    with Server(client_broker) as server:
        for partition, records in sent.items():
            for first in range(0, len(records), 500):
                produce(server, records[first:first + 500], partition)
    client_broker.before_reading()
    init = {"start": {"earliest": {}}, "stop": {"latest": True}}
    with Server(client_broker) as server:
        heard = {form: to_the_end(server, format=form, **init) for form in ("FORMAT_RECORDS", "FORMAT_ARROW_IPC")}
        rows = sorted(row for answer in heard["FORMAT_RECORDS"] for row in rows_of_records(answer.batch))
        arrow = sorted(row for answer in heard["FORMAT_ARROW_IPC"] if answer.HasField("batch") for row in rows_of_arrow(answer.batch))
        assert arrow == rows
        expected = [(partition, offset, r["timestamp"], 0, [(h["key"], h.get("value")) for h in r.get("headers", [])], r.get("key"), r.get("value"))
                    for partition, records in sent.items() for offset, r in enumerate(records)]
        assert rows == expected
        assert max(answer.ByteSize() for answers in heard.values() for answer in answers) < 2 << 20

        fetched = server.call("ConsumeService/Fetch", topic=TOPIC, partition=1, offset=2990, format="FORMAT_ARROW_IPC",
                              fields=["RECORD_FIELD_VALUE", "RECORD_FIELD_TIMESTAMP"])
        table = pyarrow.ipc.open_stream(fetched.arrow_ipc.data).read_all()
        assert table.column_names == ["_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_kafka_timestamp_type", "value"]
        assert table["value"].to_pylist() == [r.get("value") for r in sent[1][2990:]]
        assert [str(field.type) for field in table.schema] == ["int32", "int64", "timestamp[us, tz=UTC]", "int32", "binary"]
        ids = [field.metadata[b"PARQUET:field_id"] for field in table.schema]
        assert ids == [b"1", b"2", b"3", b"4", b"8"]


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_stream_goes_on_after_a_restart_where_its_token_says(start_broker, tmp_bucket, kill):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, partitions=3)
    with Server(broker) as server:
        for n in range(30):
            produce(server, [{"value": b"%d" % n}], n % 3)
        requests, answers = consume(server, credit=False, start={"earliest": {}})
        seen, token = [], next(answers).heartbeat.resume_token
        for _ in range(10):
            requests.send(server.message("ConsumeRequest", credit={"bytes": MANY if not seen else 0, "records": 1}))
            batch = next(answers).batch
            seen += [(batch.partition, record.offset) for record in batch.records.records]
            token = batch.resume_token
        answers.cancel()
        requests.end()
    broker.restart(kill=kill)
    with Server(broker) as server:
        produce(server, [{"value": b"new"}], 0)
        heard = to_the_end(server, resume_token=token, stop={"latest": True})
        rest = [(answer.batch.partition, record.offset) for answer in heard for record in answer.batch.records.records]
        assert len(seen) == 10 and sorted(seen + rest) == sorted({(p, o) for p in range(3) for o in range(10)} | {(0, 10)})
        ends = {(a.partition_end.partition, a.partition_end.next_offset) for a in heard if a.HasField("partition_end")}
        assert ends == {(0, 11), (1, 10), (2, 10)}
        with pytest.raises(grpc.RpcError) as refused:
            to_the_end(server, resume_token=token[:-1] + bytes([token[-1] ^ 1]))
        assert Refused(refused.value).reason == "INVALID_RESUME_TOKEN"


def test_seek_pause_and_bounds_in_one_stream(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, partitions=2)
    with Server(broker) as server:
        for partition in range(2):
            produce(server, [{"value": b"%d" % n, "timestamp": 1000 + n} for n in range(10)], partition)
        requests, answers = consume(server, credit=False, stop={"timestamp": 1008})
        assert next(answers).WhichOneof("response") == "heartbeat"
        requests.send(server.message("ConsumeRequest", pause={"partitions": [1], "paused": True}))
        requests.send(server.message("ConsumeRequest", seek={"seek_id": 7, "partition": 0, "start": {"timestamp": 1005}}))
        ack = next(answers).seek_ack
        assert (ack.seek_id, ack.partition, ack.next_offset) == (7, 0, 5)
        requests.send(server.message("ConsumeRequest", credit={"bytes": MANY, "records": MANY}))
        assert [record.offset for record in next(answers).batch.records.records] == [5, 6, 7]
        assert next(answers).partition_end.next_offset == 8
        requests.send(server.message("ConsumeRequest", seek={"seek_id": 8, "partition": 1, "start": {"offset": 7}}))
        assert next(answers).seek_ack.next_offset == 7
        requests.send(server.message("ConsumeRequest", pause={"paused": False}))
        assert [record.offset for record in next(answers).batch.records.records] == [7]
        assert next(answers).partition_end.partition == 1
        assert list(answers) == [], "it has ended"
        assert answers.code() == grpc.StatusCode.OK
        requests.end()


def test_a_broker_that_is_stopped_tells_streams_and_polls_to_go(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    with Server(broker) as server:
        streams = [consume(server, credit=credit) for credit in (True, False)]
        for _, answers in streams:
            assert next(answers).WhichOneof("response") == "heartbeat"
        broker.stop()
        for requests, answers in streams:
            with pytest.raises(grpc.RpcError) as ended:
                next(answers)
            refused = Refused(ended.value)
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            requests.end()
