"""What an operator sees: the metrics page as Prometheus reads it, readiness with reasons, logs line by line, traces."""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from collector import Collector, attributes
from confluent_kafka import KafkaException, Producer, TopicPartition
from conftest import Bucket
from kafka_clients import SECONDS_MAX, consumer, create_topic, read
from prometheus import Prometheus
from reflected import Refused, Server
from test_disk import DISK_BYTES, VALUE_BYTES, in_namespace, needs_root
from test_disk import produce as produce_large

TOPIC = "watched"
RECORDS = 1000
GRPC_RECORDS = 7


def page(broker, path):
    """The status and the body of a page of the broker."""
    try:
        with urllib.request.urlopen(f"http://{broker.http}{path}", timeout=SECONDS_MAX) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def produce(broker, count, **settings):
    """Sends records and waits for their acknowledgements."""
    producer = Producer({"bootstrap.servers": broker.kafka, **settings})
    errors = []
    for number in range(count):
        producer.produce(TOPIC, b"record %d" % number, partition=0, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(SECONDS_MAX) == 0 and errors == [None] * count


def test_prometheus_reads_what_was_done(start_broker, tmp_bucket, tmp_path):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, partitions=3)
    with Prometheus(broker.http, tmp_path / "prometheus") as prometheus:
        produce(broker, RECORDS)
        assert len(read(broker, TOPIC)) == RECORDS
        with Server(broker) as server:
            records = {"records": [{"value": b"x"} for _ in range(GRPC_RECORDS)]}
            server.call("ProduceService/Produce", topic=TOPIC, partition=1, records=records)
            fetched = server.call("ConsumeService/Fetch", topic=TOPIC, partition=1, offset=0)
            assert len(fetched.records.records) == GRPC_RECORDS
            with pytest.raises(Refused):
                server.call("ConsumeService/Fetch", topic=TOPIC, partition=99, offset=0)

        prometheus.wait_for("up", 1)
        prometheus.wait_for("lakebed_kafka_records_produced_total", RECORDS)
        prometheus.wait_for("lakebed_kafka_records_fetched_total", RECORDS)
        prometheus.wait_for("lakebed_grpc_records_produced_total", GRPC_RECORDS)
        prometheus.wait_for("lakebed_grpc_records_fetched_total", GRPC_RECORDS)
        prometheus.wait_for("lakebed_produce_records_appended_total", RECORDS + GRPC_RECORDS)
        prometheus.wait_for("lakebed_cluster_topics", 1)
        prometheus.wait_for("lakebed_cluster_partitions", 3)
        prometheus.wait_for("lakebed_ready", 1)
        prometheus.wait_for("sum(lakebed_not_ready)", 0)
        prometheus.wait_for('lakebed_grpc_requests_total{method="lakebed.v1.ConsumeService/Fetch"}', {
            (("code", code), ("method", "lakebed.v1.ConsumeService/Fetch")): 1 for code in ("OK", "NOT_FOUND")})
        # What is committed is put, flush by flush, and each flush was one PUT.
        flushes = prometheus.query("lakebed_flush_size_bytes_count")[()]
        assert flushes >= 2
        prometheus.wait_for("lakebed_log_commit_latency_seconds_count", flushes + 1)
        assert prometheus.query("lakebed_log_commit_number")[()] == flushes + 2, "with the takeover and the topic"
        # lakebed.json, and the commits: nothing else was put.
        prometheus.wait_for('lakebed_store_requests_total{op="put",outcome="succeeded"}',
                            {(("op", "put"), ("outcome", "succeeded")): flushes + 3})
        prometheus.wait_for('sum(lakebed_store_requests_total{outcome!~"succeeded|declined|cancelled"})', 0)
        puts = "lakebed_store_request_latency_seconds_count"
        prometheus.wait_for(f'{puts}{{op="put"}}', {(("op", "put"),): flushes + 3})
        prometheus.wait_for("sum(lakebed_store_cost_dollars_total)", 0)
        prometheus.wait_for("lakebed_produce_buffer_bytes", 0)
        prometheus.wait_for('sum(lakebed_kafka_request_latency_seconds_count{request="Produce"})'
                            ' - sum(lakebed_kafka_requests_total{request="Produce"})', 0)
        # Every line of the page was taken in, with its help and its type.
        names = {line.split("{")[0].split(" ")[0] for line in page(broker, "/metrics")[1].splitlines() if not line.startswith("#")}
        known = set(prometheus.get("label/__name__/values"))
        assert names - known == set() and len(names) > 60
        metadata = prometheus.get("metadata")
        assert metadata["lakebed_kafka_records_produced"][0]["type"] == "counter"
        assert metadata["lakebed_flush_age_seconds"][0]["type"] == "histogram"


def test_the_page_passes_promtool(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    produce(broker, 10)
    status, text = page(broker, "/metrics")
    assert status == 200 and text.endswith("# EOF\n")
    # It reads the older format, in which a counter is described by its whole name.
    counters = re.findall(r"^# TYPE (\S+) counter$", text, re.M)
    for name in counters:
        text = re.sub(rf"^# (HELP|TYPE) {name} ", rf"# \1 {name}_total ", text, flags=re.M)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@needs_root
def test_a_broker_whose_disk_is_full_says_so_and_lets_nobody_wait_for_ever(start_broker, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    bucket = Bucket(f"file://{disk}/root", dict(os.environ))
    broker = start_broker(bucket, within=in_namespace(f"mount -t tmpfs -o size={DISK_BYTES} lakebed {disk}"))
    create_topic(broker, "full")
    assert page(broker, "/readyz") == (200, '{"ready":true}')
    filler = f"/proc/{broker.process.pid}/root{disk}/filler"
    with open(filler, "wb") as file:
        file.write(bytes(DISK_BYTES - VALUE_BYTES))
    error, _ = produce_large(broker, 0)
    assert error is not None
    status, body = page(broker, "/readyz")
    told = json.loads(body)
    assert status == 503 and told["ready"] is False
    (reason,) = [one for one in told["reasons"] if one["reason"] == "STORE_UNAVAILABLE"]
    assert "No space left on device" in reason["message"] and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", reason["since"])
    assert page(broker, "/livez") == (200, "ok\n")
    assert broker.metrics()['lakebed_not_ready{reason="STORE_UNAVAILABLE"}'] == 1
    assert broker.metrics()['lakebed_store_requests_total{op="put",outcome="refused"}'] >= 3

    # Where the log ends can't be proven now: that is said, in place of nothing.
    reader = consumer(broker)
    with Server(broker) as server, ThreadPoolExecutor() as pool:
        listed = pool.submit(server.call, "AdminService/ListTopics")
        with pytest.raises(KafkaException):
            reader.get_watermark_offsets(TopicPartition("full", 0), timeout=20)
        with pytest.raises(Refused) as refused:
            listed.result()
    reader.close()
    assert (refused.value.code.name, refused.value.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
    stuck = [one["reason"] for one in json.loads(page(broker, "/readyz")[1])["reasons"]]
    assert stuck == ["STORE_UNAVAILABLE", "COMMIT_STUCK"]

    os.remove(filler)
    error, _ = produce_large(broker, 1)
    assert error is None
    assert page(broker, "/readyz") == (200, '{"ready":true}')


SERVER, CLIENT = 2, 3
TRACE, CALLER = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736"), bytes.fromhex("00f067aa0ba902b7")


def test_traces_come_to_a_collector_with_the_right_parents(start_broker, tmp_bucket):
    with Collector() as collector:
        broker = start_broker(tmp_bucket, arguments=["--otlp-endpoint", collector.url])
        create_topic(broker, TOPIC)
        produce(broker, 20)
        with Server(broker) as server:
            request = server.message("ProduceRequest", topic=TOPIC, partition=0, records={"records": [{"value": b"x"}]})
            call = server.channel.unary_unary("/lakebed.v1.ProduceService/Produce", request_serializer=lambda m: m.SerializeToString(),
                                              response_deserializer=bytes)
            call(request, timeout=SECONDS_MAX, metadata=[("traceparent", f"00-{TRACE.hex()}-{CALLER.hex()}-01")])
        flushes = broker.metrics()["lakebed_flush_size_bytes_count"]
        broker.stop()

    assert {resource["service.name"] for resource in collector.resources} == {"lakebed"}
    (called,) = collector.named("lakebed.v1.ProduceService/Produce")
    assert (called.trace_id, called.parent_span_id, called.kind) == (TRACE, CALLER, SERVER)
    produced = collector.named("Produce")
    assert produced and all(span.kind == SERVER and span.parent_span_id == b"" for span in produced)
    assert collector.named("CreateTopics") and collector.named("Metadata")

    flushed = collector.named("flush")
    assert len(flushed) == flushes
    requests = {span.span_id for span in [called, *produced]}
    linked = [link.span_id for span in flushed for link in span.links]
    assert set(linked) == requests, "each request is linked to by the flush that it waited for"
    puts = [span for span in collector.named("store PUT") if span.parent_span_id]
    for span in flushed:
        (put,) = [put for put in puts if put.parent_span_id == span.span_id]
        assert (put.trace_id, put.kind) == (span.trace_id, CLIENT)
        assert "/log/" in attributes(put)["key"] and attributes(put)["attempts"] == 1
        assert span.start_time_unix_nano <= put.start_time_unix_nano <= put.end_time_unix_nano <= span.end_time_unix_nano
        assert attributes(span)["bytes"] > 0
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)


def test_a_collector_that_is_away_costs_nothing_but_traces(start_broker, tmp_bucket):
    with Collector() as collector:
        url = collector.url
    # Traces are sent soon after they are made.
    bucket = Bucket(tmp_bucket.url, tmp_bucket.environment | {"OTEL_BSP_SCHEDULE_DELAY": "10"})
    broker = start_broker(bucket, arguments=["--otlp-endpoint", url])
    create_topic(broker, TOPIC)
    produce(broker, 20)
    told = until_told(broker, "traces can't be sent")
    assert told["level"] == "WARN" and "collector" in told["fields"]["message"]
    assert len(read(broker, TOPIC)) == 20
    with Collector(url.removeprefix("http://")) as collector:
        while not collector.spans:
            produce(broker, 1)
        assert until_told(broker, "traces are sent again")["level"] == "INFO"
        broker.stop()
    log = open(broker.log, encoding="utf-8").read()
    assert log.count("traces can't be sent") == log.count("traces are sent again") == 1, log


def until_told(broker, part):
    """Waits for a log line with `part` in it."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        for line in open(broker.log, encoding="utf-8"):
            if part in line:
                return json.loads(line)
        assert time.monotonic() < deadline, f"it was not told: {part}"
        time.sleep(0.05)


def test_log_lines_are_json_where_there_is_no_terminal_and_text_when_asked_for(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    produce(broker, 10)
    broker.stop()
    lines = [json.loads(line) for line in open(broker.log, encoding="utf-8")]
    assert {line["level"] for line in lines} == {"INFO"}
    assert all(line["timestamp"] and line["target"] and line["fields"]["message"] for line in lines)
    assert any(line["fields"]["message"] == "the broker serves" and line["fields"]["kafka"] == broker.kafka for line in lines)

    broker = start_broker(tmp_bucket, arguments=["--log", "warn,lakebed_log=info"])
    broker.stop()
    assert {json.loads(line)["target"] for line in open(broker.log, encoding="utf-8")} == {"lakebed_log::open"}

    broker = start_broker(tmp_bucket, arguments=["--log-format", "text", "--log", "warn"])
    broker.stop()
    assert open(broker.log, encoding="utf-8").read() == "", "nothing went wrong"

    refused = lakebed("serve", "--store", tmp_bucket.url, "--log", "no=such=filter")
    assert refused.returncode != 0 and refused.stdout == ""
    assert "no=such=filter" in refused.stderr and "--log" in refused.stderr, refused.stderr


def test_alerts_are_right_and_ask_only_for_what_a_broker_tells(broker):
    deploy = Path(__file__).parents[2] / "deploy"
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(["promtool", *arguments], cwd=deploy, capture_output=True, text=True, timeout=SECONDS_MAX)
        assert done.returncode == 0, done.stdout + done.stderr
    rules = (deploy / "alerts.yml").read_text()
    _, told = page(broker, "/metrics")
    names = set(re.findall(r"^(lakebed_\w+?)(?:\{| )", told, re.M))
    asked = set(re.findall(r"\blakebed_\w+", rules))
    assert len(asked) > 15 and asked - names == set()
    reasons = set(re.findall(r'^lakebed_not_ready\{reason="(\w+)"', told, re.M))
    assert set(re.findall(r'reason!="(\w+)"', rules)) <= reasons
    tested = (deploy / "alerts_test.yml").read_text()
    assert all(name in tested for name in re.findall(r"alert: (\w+)", rules))
