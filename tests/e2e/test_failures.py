"""A bucket that fails, as a user meets it: what is told, what is lost (nothing), and when it goes on.

The S3 server of our own does what moto and LocalStack can't: it is away, slow, racing, in conflict, or has another clock.
"""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from conftest import Bucket, S3Server
from kafka_clients import SECONDS_MAX, consumer, create_topic, read

TOPIC = "stormy"
LISTEN = ["--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]


@pytest.fixture
def bucket(s3_server):
    """An empty root on the S3 server that can be told to misbehave."""
    return Bucket("s3://test/root", environment(s3_server), s3_server.endpoint)


def environment(s3_server, **other):
    """The variables that lead to the server; `None` takes one away."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables |= {"AWS_ENDPOINT_URL_S3": s3_server.ready["endpoint"], "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test",
                  "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"} | other
    return {name: value for name, value in variables.items() if value is not None}


def screen(result, code=1):
    """What a verb that failed says: one error, its cause, and what to do, and nothing on stdout."""
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert result.stdout == "" and "panicked" not in result.stderr
    # A broker names the setting, too: which store it is, and who said so.
    told = [line for line in lines if not line.strip().startswith("store = ")]
    assert [line.split(":")[0].strip() for line in told] == ["error", "cause", "try"], result.stderr
    assert "can't start" not in lines[0] or "from flag --store" in lines[1], result.stderr
    return "\n".join(lines)


# What is wrong: the environment, how the server behaves, the root; what the screen must say.
WRONG = {
    "no bucket": ({}, {}, "s3://nobody/root", ["NoSuchBucket", "create the bucket", "AWS_ENDPOINT_URL_S3", "us-east-1 of AWS_REGION"]),
    "another key": ({"AWS_ACCESS_KEY_ID": "AKIASTRANGER"}, {}, "s3://test/root",
                    ["InvalidAccessKeyId", "access key 'AKIA…' of AWS_ACCESS_KEY_ID", "AWS_PROFILE"]),
    "another secret": ({"AWS_SECRET_ACCESS_KEY": "hunter2hunter2"}, {}, "s3://test/root",
                       ["SignatureDoesNotMatch", "the secret does not fit the access key 'test…' of AWS_ACCESS_KEY_ID"]),
    "a clock that is slow": ({}, {"clock_shift_seconds": 1000}, "s3://test/root", ["RequestTimeTooSkewed", "15 minutes apart", "timedatectl"]),
    "a clock that is fast": ({}, {"clock_shift_seconds": -1000}, "s3://test/root", ["RequestTimeTooSkewed", "15 minutes apart"]),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("verb", ["serve", "check"])
def test_what_is_wrong_is_told_with_where_it_came_from_and_what_to_do(s3_server, lakebed, wrong, verb):
    other, conduct, url, expected = WRONG[wrong]
    s3_server.conduct(**conduct)
    command = ["serve", "--store", url, *LISTEN] if verb == "serve" else ["check", "storage", url]
    told = screen(lakebed(*command, env=environment(s3_server, **other)))
    for part in expected:
        assert part in told, told
    assert "hunter2" not in told and "AKIASTRANGER" not in told
    assert url in told, "which store it is"
    s3_server.conduct()
    assert s3_server.counts().get("put", {}).get("succeeded", 0) == 0, "nothing was written"


class Machine:
    """The service of a machine that gives the credentials of its role, from the request after the `refused` first on."""

    def __init__(self, refused):
        machine, self.asked = self, []

        class Answers(BaseHTTPRequestHandler):
            def answer(self):
                machine.asked.append(self.path)
                role = {"AccessKeyId": "test", "SecretAccessKey": "test", "Token": "", "Expiration": "2099-01-01T00:00:00Z"}
                body = b"writer" if self.path.endswith("/") else json.dumps(role).encode() if "iam" in self.path else b"session"
                self.send_response(404 if len(machine.asked) <= refused else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"


# A check asks for several things at once.
@pytest.mark.parametrize("verb, asked_max", [("serve", 20), ("check", 60)])
def test_without_credentials_nothing_is_waited_for(s3_server, lakebed, verb, asked_max):
    with Machine(refused=1 << 30) as machine:
        variables = environment(s3_server, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_METADATA_ENDPOINT=machine.url)
        command = ["serve", "--store", "s3://test/root", *LISTEN] if verb == "serve" else ["check", "storage", "s3://test/root"]
        told = screen(lakebed(*command, env=variables))
    assert "there are no credentials" in told and "AWS_ACCESS_KEY_ID" in told and "AWS_PROFILE" in told, told
    # It is tried at growing distances: for 60 s, as a store that is away, that would be twice as often.
    assert 1 < len(machine.asked) < asked_max, machine.asked
    assert all(kind["requests"] == 0 for kind in s3_server.counts().values()), "the store was not asked without a signature"


def test_a_machine_that_gives_the_credentials_of_its_role_late_is_waited_for(s3_server, start_broker):
    with Machine(refused=3) as machine:
        variables = environment(s3_server, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_METADATA_ENDPOINT=machine.url)
        broker = start_broker(Bucket("s3://test/root", variables, s3_server.endpoint))
        create_topic(broker, TOPIC)
        assert produce(broker, [b"x"]) == [(None, 0)]
        assert len(machine.asked) > 3


def test_a_key_of_a_profile_is_told_by_the_name_of_the_profile(s3_server, lakebed, tmp_path):
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = AKIAWORK\naws_secret_access_key = x\n")
    variables = environment(s3_server, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_PROFILE="work",
                            AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials"))
    told = screen(lakebed("serve", "--store", "s3://test/root", *LISTEN, env=variables))
    assert "access key 'AKIA…' of profile 'work'" in told, told


@pytest.mark.parametrize("weakness,expected", [("ignores_conditions", "overwrites"), ("refuses_conditions", "no conditional writes")])
def test_a_store_without_conditional_writes_is_refused(s3_server, bucket, start_broker, lakebed, weakness, expected):
    s3_server.conduct(weakness=weakness)
    told = screen(lakebed("serve", "--store", bucket.url, *LISTEN, env=bucket.environment))
    assert expected in told and "--accept-unsafe-store" in told and f"lakebed check storage {bucket.url}" in told
    checked = lakebed("check", "storage", bucket.url, env=bucket.environment)
    assert checked.returncode == 1 and "FAIL" in checked.stdout and expected in checked.stdout
    assert "does not keep what the log needs" in checked.stderr
    if weakness == "ignores_conditions":
        start_broker(bucket, arguments=["--accept-unsafe-store"])


def test_a_check_passes_what_keeps_its_promises_and_prints_what_it_needs(s3_server, bucket, lakebed):
    def check(*arguments):
        return lakebed("check", "storage", bucket.url, "--large", "4MiB", "--rounds", "6", *arguments, env=bucket.environment)

    table = check("--no-record")
    assert table.returncode == 0, table.stderr
    promises = ["create-if-absent", "read-after-write", "list-after-write", "range-reads", "large-objects", "objects-in-parts", "deletes"]
    assert [line.split()[:2] for line in table.stdout.splitlines()[1:8]] == [[promise, "pass"] for promise in promises]
    assert "p50 MS" in table.stdout.replace("P50", "p50") and "passed" in table.stdout and "not recorded" in table.stdout
    assert "arn:aws:s3:::test/root/*" in table.stderr
    first, second = (json.loads(check("-o", "json").stdout) for _ in range(2))
    assert (first["verdict"], first["recorded"], second["recorded"]) == ("passed", "now", "before")
    assert [promise["promise"] for promise in first["promises"]] == promises and all(promise["kept"] for promise in first["promises"])
    assert all(0 < latency["p50_ms"] <= latency["p99_ms"] for latency in first["latencies"])
    assert {statement["Effect"] for statement in first["policy"]["Statement"]} == {"Allow"}
    before = s3_server.counts()
    only = lakebed("check", "storage", bucket.url, "--policy", env=bucket.environment)
    assert json.loads(only.stdout) == first["policy"] and s3_server.counts() == before, "nothing is asked for a policy"


def test_a_real_store_that_races_fails_and_is_refused(tmp_path, lakebed):
    (tmp_path / "files").mkdir()
    server = S3Server(tmp_path / "racing.log", ["--filesystem", tmp_path / "files"])
    try:
        variables = environment(server)
        checked = lakebed("check", "storage", "s3://test/root", env=variables)
        assert checked.returncode == 1, checked.stdout
        assert "create-if-absent" in checked.stdout and "rivals" in checked.stdout and "FAIL" in checked.stdout
        told = screen(lakebed("serve", "--store", "s3://test/root", *LISTEN, env=variables))
        assert "create-if-absent" in told and "--accept-unsafe-store" in told
    finally:
        server.kill()


def produce(broker, values, **settings):
    """Sends values, one batch each. Returns the errors and offsets, in order."""
    settings = {"retries": 0, "request.timeout.ms": 2000, "message.timeout.ms": 30_000, "linger.ms": 0, "batch.num.messages": 1, **settings}
    producer = Producer({"bootstrap.servers": broker.kafka, **settings})
    told = {}
    for value in values:
        producer.produce(TOPIC, value, partition=0, on_delivery=lambda error, message: told.update({message.value(): (error, message.offset())}))
    assert producer.flush(SECONDS_MAX) == 0
    return [told[value] for value in values]


def first_values(broker, count):
    """The first values by their offsets: nobody can say where the log ends while the bucket is away."""
    reader = consumer(broker)
    try:
        reader.assign([TopicPartition(TOPIC, 0, 0)])
        messages = [reader.poll(SECONDS_MAX) for _ in range(count)]
        assert all(message is not None and not message.error() for message in messages), messages
        return [message.value() for message in messages]
    finally:
        reader.close()


@pytest.mark.parametrize("outage", ["refused", "reset", "unavailable"])
def test_while_the_bucket_is_away_nothing_is_lost_readers_go_on_and_it_goes_on_with_the_first_request_after(
        s3_server, bucket, start_broker, outage):
    broker = start_broker(bucket)
    create_topic(broker, TOPIC)
    before = [b"before %d" % number for number in range(20)]
    assert [error for error, _ in produce(broker, before)] == [None] * 20
    assert first_values(broker, 20) == before

    s3_server.conduct(outage=outage)
    (error, _), = produce(broker, [b"given up"])
    assert error.code() == KafkaError.REQUEST_TIMED_OUT, "Kafka has clients try that again"
    assert first_values(broker, 20) == before, "what is in the cache is read on"
    patient = Producer({"bootstrap.servers": broker.kafka, "retries": 0, "request.timeout.ms": 60_000, "message.timeout.ms": 60_000})
    told = []
    for number in range(20):
        patient.produce(TOPIC, b"patient %d" % number, partition=0, on_delivery=lambda error, message: told.append((error, message.offset())))
    patient.poll(0)

    s3_server.conduct()
    (error, offset), = produce(broker, [b"the first after"], **{"request.timeout.ms": 30_000})
    assert error is None, error
    assert patient.flush(SECONDS_MAX) == 0 and [error for error, _ in told] == [None] * 20

    for _ in range(2):
        there = [message.value() for message in read(broker, TOPIC)]
        assert there[:20] == before and there[offset] == b"the first after"
        assert [there[offset] for _, offset in told] == [b"patient %d" % number for number in range(20)]
        assert len(there) in (41, 42) and there.count(b"given up") == len(there) - 41, "it may have been stored, once"
        broker.restart()


def test_while_the_bucket_is_away_topics_are_listed_as_they_are_known_and_clients_ask_again(s3_server, bucket, start_broker):
    broker = start_broker(bucket)
    create_topic(broker, TOPIC, partitions=3)
    admin = AdminClient({"bootstrap.servers": broker.kafka})

    def listed():
        topic = admin.list_topics(timeout=SECONDS_MAX).topics[TOPIC]
        return topic.error, [partition.error.code() if partition.error else None for _, partition in sorted(topic.partitions.items())]

    assert listed() == (None, [None] * 3)
    before = broker.metrics()
    s3_server.conduct(outage="refused")
    assert listed() == (None, [KafkaError.LEADER_NOT_AVAILABLE] * 3), "nothing is gone, and nothing is certain"
    after = broker.metrics()
    closed = [name for name in after if name.startswith("lakebed_kafka_connections_closed_total") and after[name] != before.get(name, 0)]
    assert closed == [], "what else is under way on the connection goes on"
    s3_server.conduct()
    assert listed() == (None, [None] * 3)


def test_a_broker_that_starts_while_the_bucket_is_away_says_so_and_waits(s3_server, bucket, start_broker, tmp_path):
    s3_server.conduct(outage="refused")
    back = threading.Event()

    def come_back():
        # When the broker has said that it gets no answer, and not before.
        log = tmp_path / "broker-0.log"
        while not (log.exists() and "no good answer" in log.read_text()):
            if back.wait(0.05):
                return
        s3_server.conduct()

    watch = threading.Thread(target=come_back)
    watch.start()
    try:
        broker = start_broker(bucket)
    finally:
        back.set()
        watch.join()
    told = (tmp_path / "broker-0.log").read_text()
    assert "AWS_ENDPOINT_URL_S3" in told, told
    create_topic(broker, TOPIC)
    assert produce(broker, [b"x"]) == [(None, 0)]


# Each meets a third of the requests, by the server's seed.
STORMS = {
    "slow down": [{"fault": "slow_down", "probability": 0.3}],
    "slow down, but applied": [{"fault": "slow_down", "operation": "put", "applied": True, "probability": 0.3}],
    "conflicts": [{"fault": "conflict", "probability": 0.3}],
    "errors of which some are none": [{"fault": "internal_error", "probability": 0.15},
                                      {"fault": "internal_error", "applied": True, "probability": 0.15}],
    "cut connections": [{"fault": "cut_connection", "probability": 0.15}, {"fault": "cut_connection", "applied": True, "probability": 0.15}],
    "cut and slow bodies": [{"fault": {"cut_body": {"bytes": 500}}, "probability": 0.3},
                            {"fault": {"slow_body": {"bytes": 10_000, "every_ms": 1}}, "probability": 0.3}],
}


@pytest.mark.parametrize("storm", STORMS)
def test_a_storm_loses_nothing_doubles_nothing_and_is_not_seen_by_clients(s3_server, bucket, start_broker, storm):
    broker = start_broker(bucket, arguments=["--no-tail", "--flush-interval", "5ms"])
    create_topic(broker, TOPIC)
    s3_server.conduct(rules=STORMS[storm])
    values = [b"%06d" % number * 200 for number in range(60)]
    # One at a time, and many in flight; none is ever sent twice by its client.
    told = [produce(broker, [value], **{"request.timeout.ms": 60_000, "message.timeout.ms": 60_000})[0] for value in values[:20]]
    told += produce(broker, values[20:], **{"request.timeout.ms": 60_000, "message.timeout.ms": 60_000})
    assert [error for error, _ in told] == [None] * 60
    assert sorted(offset for _, offset in told) == list(range(60))
    there = [message.value() for message in read(broker, TOPIC)]
    assert [there[offset] for _, offset in told] == values
    broker.restart()
    assert [message.value() for message in read(broker, TOPIC)] == there, "it opens in the storm, too"
    assert all(count > 0 for count in s3_server.met()), "each fault has met something"
