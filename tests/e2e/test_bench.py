"""`lakebed bench`: it measures, and it compares what it reads back."""

import json
import os
import pty
import signal
import subprocess
import time

import pytest
from conftest import BINARY, Bucket
from schema import check_json

VOLUME = 4 << 20
# Whole batches are written.
BATCH = 64 << 10


@pytest.fixture
def bench(start_broker, tmp_bucket, lakebed):
    """Runs a bench on a broker of its own; returns its report, which the schema holds."""
    broker = start_broker(tmp_bucket)

    def run(what, topic, *arguments):
        at = ["--kafka", broker.kafka, "--server", broker.http, "--topic", topic]
        result = lakebed("bench", what, *at, *arguments, "-o", "json")
        assert result.returncode == 0, result.stderr
        return check_json(result.stdout, "bench")

    run.broker = broker
    return run


@pytest.mark.parametrize("what", ["kafka", "grpc", "grpc-unary"])
def test_a_bench_tells_its_rate_and_what_it_verified(bench, lakebed, what):
    broker = bench.broker
    told = bench(what, f"of-{what}", "--volume", "4MiB")
    assert (told["what"], told["phase"]) == (what, "end-to-end")
    assert VOLUME - BATCH <= told["bytes"] <= VOLUME + BATCH and told["verified_bytes"] == told["bytes"], "one consumer reads all of it"
    assert told["records_per_s"] > 0 and told["megabytes_per_s"] > 0
    for latency in (told, told["end_to_end"]):
        assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"] <= latency["max_ms"]
    described = json.loads(lakebed("topic", "--server", broker.http, "describe", f"of-{what}", "-o", "json").stdout)
    assert described["partitions"][0]["latest_offset"] == told["records"], "what it counts is in the log"

    arguments = ["bench", what, "--kafka", broker.kafka, "--server", broker.http, "--volume", "4MiB", "--topic"]
    old = lakebed(*arguments, f"old-{what}", "--json")
    assert old.returncode == 0 and json.loads(old.stdout)["hash"] == told["hash"], "the same is written every time"
    records = lakebed(*arguments, f"records-{what}", "--records", "--json")
    assert records.returncode == 0 and json.loads(records.stdout)["hash"] == told["hash"], "whatever its consumers get"
    table = lakebed(*arguments, f"table-{what}")
    assert table.returncode == 0 and table.stderr == "", "nothing is shown while it runs where there is no terminal"
    lines = dict(line.split(maxsplit=1) for line in table.stdout.splitlines() if not line.startswith("end to end"))
    assert lines["what"] == f"{what}, end-to-end"
    assert lines["rate"].endswith(" records/s") and lines["throughput"].endswith(" MB/s")
    assert lines["verified"].endswith(" bytes read back and compared")
    assert lines["hash"] == f"{told['hash']}, of what was written and of what was read"


@pytest.mark.parametrize("what", ["kafka", "grpc"])
def test_writing_and_reading_are_measured_by_themselves(bench, what):
    produced = bench(what, "p", "--volume", "2MiB", "--phase", "produce", "--partitions", "2")
    assert produced["phase"] == "produce" and produced["end_to_end"] is None
    assert produced["verified_bytes"] == produced["bytes"] > 0, "it is read back and compared all the same"
    consumed = bench(what, "c", "--volume", "2MiB", "--phase", "consume", "--partitions", "2", "--consumers", "3")
    assert consumed["phase"] == "consume" and consumed["hash"] == produced["hash"]
    assert consumed["bytes"] == consumed["verified_bytes"] == 3 * produced["bytes"], "each consumer reads all of it"


@pytest.mark.parametrize("what", ["kafka", "grpc", "grpc-unary"])
def test_a_rate_is_kept_and_told(bench, what):
    # 2000 batches a second of one record each: nothing here is slower.
    told = bench(what, "paced", "--rate", "2000", "--volume", "1000KiB", "--record", "1KiB", "--batch", "1KiB")
    assert told["target_records_per_s"] == 2000 and told["records"] == 1000
    assert told["seconds"] >= 999 / 2000, "no batch is sent before it is due"


def stored(broker):
    """How many requests the broker has sent to its store."""
    return sum(number for name, number in broker.metrics().items() if name.startswith("lakebed_store_requests_total"))


def test_a_broker_that_stops_is_charged_for_every_batch_that_had_to_wait(start_broker):
    # In memory: the rate is far below what it can do.
    broker = start_broker(Bucket("memory://", dict(os.environ)))
    command = [BINARY, "bench", "kafka", "--kafka", broker.kafka, "--server", broker.http, "--topic", "stalled", "--rate", "200", "--record", "1KiB",
               "--batch", "1KiB", "--volume", "400KiB", "--in-flight", "1", "--phase", "produce", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        while stored(broker) < 20:
            assert running.poll() is None, "it ended before anything was written"
        broker.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(1)  # The stall itself.
        finally:
            broker.process.send_signal(signal.SIGCONT)
        told = json.loads(running.stdout.read())
        assert running.wait(timeout=60) == 0
    # One batch was in flight for a second; two hundred others were due meanwhile.
    assert told["p90_ms"] > 100, told


def test_a_run_shows_on_a_terminal_how_it_goes(bench):
    broker = bench.broker
    ours, theirs = pty.openpty()
    command = [BINARY, "bench", "grpc", "--server", broker.http, "--topic", "shown", "--rate", "1000", "--volume", "1500KiB", "--record", "1KiB", "--batch", "1KiB"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass  # The terminal ends with the process.
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown
    assert b"MB/s, p50 " in shown and b"p90 " in shown and b"p99 " in shown and b"max " in shown, shown


def test_a_bench_without_a_broker_says_so(lakebed):
    result = lakebed("bench", "kafka", "--kafka", "127.0.0.1:1", "--server", "127.0.0.1:1", "--volume", "1MiB")
    assert result.returncode != 0 and result.stdout == ""
    assert result.stderr.startswith("error: ")
