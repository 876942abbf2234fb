#!/usr/bin/env python3
"""Produces orders over gRPC, and reads them as Arrow, going on by a resume token.

It needs the stubs that grpcio-tools makes of `proto/`; README.md has the commands.
"""

import argparse
import base64
import queue
import sys
import threading
from pathlib import Path

import grpc
import polars
import pyarrow
from google.rpc import error_details_pb2, status_pb2
from lakebed.v1 import admin_service_pb2, admin_service_pb2_grpc
from lakebed.v1 import consume_service_pb2, consume_service_pb2_grpc
from lakebed.v1 import produce_service_pb2, produce_service_pb2_grpc
from lakebed.v1 import records_pb2

CUSTOMERS = ["alice", "bob", "carol", "dave"]
BATCH_RECORDS = 100
# Bytes that may be on their way to us: what we read is granted again.
CREDIT_BYTES = 4 << 20


def reason(status):
    """Lakebed's reason in a google.rpc.Status, such as TOPIC_NOT_FOUND; empty if there is none."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "lakebed":
            return info.reason
    return ""


def reason_of(error):
    """The same of a call that failed."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return reason(status_pb2.Status.FromString(value))
    return ""


def make_topic(channel, topic, partitions):
    """Makes the topic if it is not there."""
    request = admin_service_pb2.CreateTopicRequest(name=topic, partition_count=partitions)
    try:
        admin_service_pb2_grpc.AdminServiceStub(channel).CreateTopic(request)
    except grpc.RpcError as error:
        if reason_of(error) != "TOPIC_ALREADY_EXISTS":
            raise


def orders(first, count):
    """So many records, each an order of a customer."""
    for number in range(first, first + count):
        customer = CUSTOMERS[number % len(CUSTOMERS)]
        yield records_pb2.Record(key=customer.encode(), value=b"%d pies" % number)


def produce(channel, topic, partition, records):
    """Streams records to a partition in batches; returns how many are durable.

    Batches are sent without waiting for each answer, as many as the broker's window allows. An answer without an error means
    that the batch is durable; the answers come in the order of the batches.
    """
    requests = queue.SimpleQueue()
    requests.put(produce_service_pb2.ProduceStreamRequest(init=produce_service_pb2.ProduceInit(topic=topic, partition=partition)))
    answers = produce_service_pb2_grpc.ProduceServiceStub(channel).ProduceStream(iter(requests.get, None))
    window = threading.Semaphore(next(answers).init_ack.window_batches)

    def send():
        batch, number = [], 0
        for record in records:
            batch.append(record)
            if len(batch) == BATCH_RECORDS:
                put(batch, number)
                batch, number = [], number + 1
        if batch:
            put(batch, number)
        # The end of what we say; the broker answers the rest, and ends the stream.
        requests.put(None)

    def put(batch, number):
        window.acquire()
        message = produce_service_pb2.ProduceBatch(correlation_id=number, records=records_pb2.Records(records=batch))
        requests.put(produce_service_pb2.ProduceStreamRequest(batch=message))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    durable = 0
    for answer in answers:
        window.release()
        if answer.WhichOneof("response") == "error":
            raise SystemExit(f"a batch was refused: {reason(answer.error.status)}: {answer.error.status.message}")
        durable += answer.ack.last_offset - answer.ack.base_offset + 1
    sender.join()
    return durable


def consume(channel, topic, token=b""):
    """Reads all partitions to where they end now; yields (Arrow table, resume token) for each batch.

    Whoever keeps the token with what it made of the table can go on behind it: with any broker, at any time.
    """
    requests = queue.SimpleQueue()
    init = consume_service_pb2.ConsumeInit(
        topic=topic,
        format=consume_service_pb2.FORMAT_ARROW_IPC,
        fields=[consume_service_pb2.RECORD_FIELD_KEY, consume_service_pb2.RECORD_FIELD_VALUE],
        stop=consume_service_pb2.StopBounds(latest=True),
    )
    if token:
        init.resume_token = token
    else:
        init.start.earliest.SetInParent()
    requests.put(consume_service_pb2.ConsumeRequest(init=init))
    # Records are not counted: a large number once.
    credit = consume_service_pb2.ConsumeCredit(bytes=CREDIT_BYTES, records=1 << 62)
    requests.put(consume_service_pb2.ConsumeRequest(credit=credit))
    responses = consume_service_pb2_grpc.ConsumeServiceStub(channel).Consume(iter(requests.get, None))
    for response in responses:
        # Heartbeats, and the ends of partitions, say nothing that we need.
        if response.WhichOneof("response") != "batch":
            continue
        data = response.batch.arrow_ipc.data
        yield pyarrow.ipc.open_stream(data).read_all(), response.batch.resume_token
        requests.put(consume_service_pb2.ConsumeRequest(credit=consume_service_pb2.ConsumeCredit(bytes=len(data))))
    requests.put(None)


def run_produce(channel, arguments):
    make_topic(channel, arguments.topic, 2)
    half = arguments.count // 2
    durable = produce(channel, arguments.topic, 0, orders(0, half))
    durable += produce(channel, arguments.topic, 1, orders(half, arguments.count - half))
    print(f"{durable} orders are durable")


def run_consume(channel, arguments):
    token = base64.b64decode(arguments.token.read_text()) if arguments.token.exists() else b""
    tables = []
    for table, token in consume(channel, arguments.topic, token):
        tables.append(table)
    if tables:
        frame = polars.from_arrow(pyarrow.concat_tables(tables))
        by_customer = frame.group_by("key").agg(polars.len().alias("orders")).sort("key")
        for key, count in by_customer.iter_rows():
            print(f"{key.decode()}: {count} orders")
    print(f"{sum(table.num_rows for table in tables)} orders read")
    arguments.token.write_text(base64.b64encode(token).decode())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:7070", help="the broker's gRPC address")
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("produce", help="write orders")
    verb.add_argument("topic")
    verb.add_argument("--count", type=int, default=1000)
    verb.set_defaults(run=run_produce)
    verb = verbs.add_parser("consume", help="read the orders that were not read yet")
    verb.add_argument("topic")
    verb.add_argument("--token", type=Path, required=True, help="file that says where to go on; made if it does not exist")
    verb.set_defaults(run=run_consume)
    arguments = parser.parse_args()
    with grpc.insecure_channel(arguments.server) as channel:
        try:
            arguments.run(channel, arguments)
        except grpc.RpcError as error:
            sys.exit(f"{reason_of(error) or error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
