"""Several brokers on one bucket: started together, asked one by one who they are, and writers that outlive each of them.

What one broker says is asked by single requests to its own address: clients go to whom Metadata names.
"""

import os
import signal
import threading
import time

import grpc
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from conftest import Bucket
from kafka.protocol.consumer import FetchRequest, ListOffsetsRequest
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import ProduceRequest
from kafka.record import MemoryRecords
from reflected import Refused, Server
from wire_kafka import Closed, Wire, batch, built

SECONDS_MAX = 60
LATEST = -1
# Flushes often, so that what happens to brokers happens between commits; and a group begins at once.
ARGUMENTS = ["--flush-interval", "10ms", "--group-initial-rebalance-delay", "0s"]
# Records of one writer that are under way at once.
WINDOW = 200


def wait_until(condition, what, seconds=SECONDS_MAX):
    """Waits until something is so. Returns what the condition did."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def on_server(s3_server, root="root", access_key="test"):
    """A root on an S3 server of our own, for who has that access key."""
    environment = os.environ | {"AWS_ENDPOINT_URL_S3": s3_server.ready["endpoint"], "AWS_REGION": "us-east-1",
                                "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": "test"}
    environment.pop("AWS_PROFILE", None)
    return Bucket(f"s3://test/{root}", environment, s3_server.endpoint)


class Cluster:
    """Brokers on one root, which each reaches in its own way. `start_broker` is the fixture, which stops them in the end."""

    def __init__(self, start_broker, buckets, arguments=()):
        self.brokers = [start_broker(bucket, arguments=[*ARGUMENTS, "--zone", f"zone-{number}", *arguments])
                        for number, bucket in enumerate(buckets)]

    @property
    def bootstrap(self):
        return ",".join(broker.kafka for broker in self.brokers)

    def running(self):
        return [broker for broker in self.brokers if broker.process is not None]

    def agreed(self, brokers=None):
        """Waits until these brokers (all that run) all name each other, nobody else, and the same one of them as the leader; that one."""
        brokers = brokers or self.running()

        def look():
            try:
                told = [metadata(broker) for broker in brokers]
            except Closed:
                # The part of a broker changes, and its connections end with it.
                return None
            leads = told[0]["brokers"].get(told[0]["controller"])
            same = all(one == told[0] for one in told) and set(told[0]["brokers"].values()) == {broker.kafka for broker in brokers}
            return same and next((broker for broker in brokers if broker.kafka == leads), None)

        return wait_until(look, f"{len(brokers)} brokers agree on who they are")

    def led(self, but=None):
        """Waits until a broker that runs and is not `but` says of itself that it leads; that one."""
        brokers = [broker for broker in self.running() if broker is not but]
        return wait_until(lambda: next((broker for broker in brokers if leads(broker)), None), "one of them leads")

    def kill(self):
        """kill -9 of all of them, at once as far as that can be."""
        for broker in self.running():
            os.kill(broker.process.pid, signal.SIGSTOP)
        for broker in self.running():
            broker.kill()

    def start(self, same_ports):
        """Starts all of them at the same moment."""
        together(*(lambda broker=broker: broker.start(same_ports=same_ports) for broker in self.brokers))


def together(*calls):
    """Calls all of these at the same moment, and waits for them. Returns what they did; raises what they raised."""
    gate, done, failed = threading.Barrier(len(calls)), {}, []

    def run(number, call):
        gate.wait()
        try:
            done[number] = call()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [done[number] for number in range(len(calls))]


def asked(broker, kind, version, **fields):
    """What this broker itself answers to a request."""
    wire = Wire(broker.kafka)
    try:
        return wire.call(kind, version, **fields)
    finally:
        wire.close()


def answer(wire, sent):
    """The answer, or `None` if the connection was closed in its place."""
    try:
        return wire.receive(sent)
    except ConnectionError:
        return None
    finally:
        wire.close()


def produce_request(topic, values, partition=0):
    part = {"index": partition, "records": batch(values)}
    return built(ProduceRequest, {"transactional_id": None, "acks": -1, "timeout_ms": 30_000,
                                  "topic_data": [{"name": topic, "partition_data": [part]}]})


def metadata(broker, topics=None):
    """Who this broker says serves the cluster: brokers as {id: host:port}, the controller, and the leaders of all partitions."""
    wanted = None if topics is None else [{"name": topic} for topic in topics]
    told = asked(broker, MetadataRequest, 8, topics=wanted, allow_auto_topic_creation=False)
    return {"cluster": told["cluster_id"], "controller": told["controller_id"],
            "brokers": {one["node_id"]: f"{one['host']}:{one['port']}" for one in told["brokers"]},
            "leaders": {part["leader_id"] for topic in told["topics"] for part in topic["partitions"]}}


def node_id(broker):
    """The number under which this broker stands in its own Metadata."""
    return next((number for number, address in metadata(broker)["brokers"].items() if address == broker.kafka), None)


def leads(broker):
    try:
        told = metadata(broker)
    except Closed:
        return False
    return told["brokers"].get(told["controller"]) == broker.kafka


def latest(broker, topic, partition=0):
    """Where a partition ends, as this broker itself says. Returns (error code, offset)."""
    (one,), = ([part for part in of["partitions"]] for of in asked(broker, ListOffsetsRequest, 5, **latest_fields(topic, partition))["topics"])
    return one["error_code"], one["offset"]


def latest_fields(topic, partition=0):
    part = {"partition_index": partition, "current_leader_epoch": -1, "timestamp": LATEST}
    return {"replica_id": -1, "isolation_level": 0, "topics": [{"name": topic, "partitions": [part]}]}


def fetched(broker, topic, partition=0):
    """The values of a partition from its beginning to where it ends now, as this broker itself serves them."""
    error, end = latest(broker, topic, partition)
    assert error == 0, error
    deadline, values = time.monotonic() + SECONDS_MAX, []
    wire = Wire(broker.kafka)
    try:
        while len(values) < end:
            assert time.monotonic() < deadline, f"{len(values)} of {end} within {SECONDS_MAX} s"
            sent = wire.send(fetch_request(topic, partition, len(values), wait_ms=500), 11)
            (got,) = wire.answer(sent).responses[0].partitions
            assert got.error_code == 0, got
            for offset, value in records(got.records):
                if offset >= len(values):
                    assert offset == len(values), f"offset {offset} follows {len(values)}"
                    values.append(value)
        return values
    finally:
        wire.close()


def fetch_request(topic, partition, offset, wait_ms):
    part = {"partition": partition, "current_leader_epoch": -1, "fetch_offset": offset, "log_start_offset": -1, "partition_max_bytes": 1 << 20}
    return built(FetchRequest, {"replica_id": -1, "max_wait_ms": wait_ms, "min_bytes": 1, "max_bytes": 1 << 20, "isolation_level": 0, "session_id": 0,
                                "session_epoch": -1, "topics": [{"topic": topic, "partitions": [part]}], "forgotten_topics_data": [], "rack_id": ""})


def records(data):
    """Offsets and values of record batches."""
    batches = MemoryRecords(bytes(data or b""))
    while (batch := batches.next_batch()) is not None:
        for record in batch:
            yield record.offset, record.value


def gap(times, since):
    """The longest time between two of these times, and up to now, that was under way at `since` or came later."""
    begin = max((told for told in times if told <= since), default=since)
    later = [begin, *(told for told in times if told > since), time.monotonic()]
    return max(b - a for a, b in zip(later, later[1:]))


class Writer(threading.Thread):
    """Writes 0, 1, 2 … to a partition until it is told to end. `acknowledged` holds (time, offset, number)."""

    def __init__(self, topic, partition):
        super().__init__(name=f"{type(self).__name__} of partition {partition}", daemon=True)
        self.topic, self.partition, self.ending, self.error = topic, partition, threading.Event(), None
        self.acknowledged = []

    def run(self):
        try:
            self.write()
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def more(self, count=1):
        """Waits until so many more are acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal or self.error, f"{count} more acknowledgements of {self.name}")
        if self.error:
            raise self.error

    def finish(self):
        """Ends it, with everything answered. Returns how many it has sent."""
        self.ending.set()
        self.join(SECONDS_MAX)
        assert not self.is_alive(), f"{self.name} has not ended"
        if self.error:
            raise self.error
        return self.sent

    def gap_after(self, since):
        """The longest time without an acknowledgement that was under way at `since` or came later."""
        return gap([told for told, _, _ in list(self.acknowledged)], since)


class Idempotent(Writer):
    """librdkafka with an idempotent producer; a delivery that fails is an error."""

    def __init__(self, topic, partition, bootstrap):
        super().__init__(topic, partition)
        self.sent = 0
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0, "batch.num.messages": 10, "log_level": 0,
            "retry.backoff.ms": 20, "retry.backoff.max.ms": 200, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200,
            "message.timeout.ms": 60_000, "socket.timeout.ms": 5000, "topic.metadata.refresh.interval.ms": 2000,
        })

    def answered(self, error, message):
        if error:
            raise KafkaException(error)
        self.acknowledged.append((time.monotonic(), message.offset(), int(message.value())))

    def write(self):
        while not self.ending.is_set():
            if self.sent - len(self.acknowledged) < WINDOW:
                self.producer.produce(self.topic, b"%d" % self.sent, partition=self.partition, on_delivery=self.answered)
                self.sent += 1
            self.producer.poll(0.001)
        assert self.producer.flush(SECONDS_MAX) == 0

    def check(self, values):
        """Everything acknowledged is there, once, in order, at the offset that was told."""
        assert values == list(range(self.sent)), f"{len(values)} of {self.sent}; first odd: {odd(values)}"
        assert [(offset, number) for _, offset, number in self.acknowledged] == [(number, number) for number in range(self.sent)]


class ByGrpc(Writer):
    """Unary calls of gRPC, one after another, with a deadline each; one that fails is tried at the next broker until it is acknowledged."""

    def __init__(self, topic, partition, brokers, call_seconds=2):
        super().__init__(topic, partition)
        self.brokers, self.call_seconds, self.sent, self.refused = brokers, call_seconds, 0, []
        with Server(brokers[0]) as server:
            self.request, self.response = server.message("ProduceRequest"), server.message("ProduceResponse")

    def write(self):
        channels = {broker: grpc.insecure_channel(broker.http, options=[("grpc.max_reconnect_backoff_ms", 500)]) for broker in self.brokers}
        at = 0
        while not self.ending.is_set():
            request = type(self.request)(topic=self.topic, partition=self.partition, records={"records": [{"value": b"%d" % self.sent}]})
            while True:
                call = channels[self.brokers[at % len(self.brokers)]].unary_unary(
                    "/lakebed.v1.ProduceService/Produce", request_serializer=type(request).SerializeToString,
                    response_deserializer=type(self.response).FromString)
                try:
                    answer = call(request, timeout=self.call_seconds)
                    break
                except grpc.RpcError as error:
                    refused = Refused(error)
                    again = refused.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                    assert again or refused.reason == "OUTCOME_UNKNOWN", refused
                    self.refused.append((time.monotonic(), str(refused)))
                    at += 1
                    time.sleep(0.02)
            self.acknowledged.append((time.monotonic(), answer.base_offset, self.sent))
            self.sent += 1
        for channel in channels.values():
            channel.close()

    def check(self, values):
        """Everything acknowledged is there at its offset; what was tried again may be there twice."""
        assert sorted(set(values)) == list(range(self.sent)), "at least once"
        assert all(values[offset] == number for _, offset, number in self.acknowledged)
        assert len(values) <= self.sent + len(self.refused), "each try is stored once at most"


def odd(values):
    """The first value that is not at its place."""
    return next(((offset, value) for offset, value in enumerate(values) if offset != value), None)


class Group(threading.Thread):
    """A group of one consumer that commits what it has read, and waits for the answer. `seen` holds numbers by partition, in order."""

    def __init__(self, topic, bootstrap):
        super().__init__(daemon=True)
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "readers", "auto.offset.reset": "earliest", "log_level": 0,
                                  "enable.auto.commit": False, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500,
                                  "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20,
                                  "retry.backoff.max.ms": 200, "topic.metadata.refresh.interval.ms": 2000, "socket.timeout.ms": 5000})
        self.topic, self.stopping, self.error = topic, threading.Event(), None
        self.seen, self.committed, self.refused, self.times = {}, {}, [], []

    def run(self):
        try:
            self.consumer.subscribe([self.topic])
            while not self.stopping.is_set():
                self.read(self.consumer.consume(500, timeout=0.2))
            self.consumer.close()
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def read(self, told):
        ends = {}
        for message in told:
            if message.error():
                self.refused.append(message.error())
                continue
            at, offset = message.partition(), message.offset()
            assert offset >= self.committed.get(at, 0), f"offset {offset} of partition {at} was read again, and {self.committed[at]} committed"
            known = self.seen.setdefault(at, {})
            value = int(message.value())
            assert known.setdefault(offset, value) == value, "a record has changed"
            ends[at] = offset + 1
        if not ends:
            return
        self.times.append(time.monotonic())
        try:
            self.consumer.commit(offsets=[TopicPartition(self.topic, at, end) for at, end in ends.items()], asynchronous=False)
            self.committed |= ends
        except KafkaException as error:
            self.refused.append(error.args[0])

    def gap_after(self, since):
        """As that of a writer: the longest time without a record."""
        return gap(list(self.times), since)

    def finish(self):
        self.stopping.set()
        self.join(SECONDS_MAX)
        assert not self.is_alive(), "the group has not ended"
        if self.error:
            raise self.error
