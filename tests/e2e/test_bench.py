"""`lakebed bench`: it measures, and it compares what it reads back."""

import json

import pytest

VOLUME = 4 << 20
# Whole batches are written.
BATCH = 64 << 10


@pytest.mark.parametrize("what", ["kafka", "grpc"])
def test_a_bench_tells_its_rate_and_what_it_verified(start_broker, tmp_bucket, lakebed, what):
    broker = start_broker(tmp_bucket)
    arguments = ["bench", what, "--kafka", broker.kafka, "--server", broker.http, "--volume", "4MiB", "--topic", f"of-{what}"]
    result = lakebed(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["what"] == what
    assert VOLUME - BATCH <= told["bytes"] <= VOLUME + BATCH and told["verified_bytes"] == told["bytes"], "one consumer reads all of it"
    assert told["records_per_s"] > 0 and told["megabytes_per_s"] > 0
    assert 0 < told["p50_ms"] <= told["p99_ms"] <= told["max_ms"]
    described = json.loads(lakebed("topic", "--server", broker.http, "describe", f"of-{what}", "-o", "json").stdout)
    assert described["partitions"][0]["latest_offset"] == told["records"], "what it counts is in the log"

    table = lakebed(*arguments[:-1], f"table-{what}")
    assert table.returncode == 0, table.stderr
    lines = dict(line.split(maxsplit=1) for line in table.stdout.splitlines())
    assert lines["rate"].endswith(" records/s") and lines["throughput"].endswith(" MB/s")
    assert lines["verified"].endswith(" bytes read back and compared")


def test_a_bench_without_a_broker_says_so(lakebed):
    result = lakebed("bench", "kafka", "--kafka", "127.0.0.1:1", "--server", "127.0.0.1:1", "--volume", "1MiB")
    assert result.returncode != 0 and result.stdout == ""
    assert result.stderr.startswith("error: ")
