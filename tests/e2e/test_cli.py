"""The command line as a user meets it: what each verb prints, and one clear line when it can't."""

import json
import os
import pty
import subprocess
from unittest.mock import ANY

import pytest
from conftest import BINARY


def told(result, code):
    """The lines of stderr of a verb that ended with `code`."""
    assert result.returncode == code, result.stderr
    return result.stderr.splitlines()


def columns(result):
    """The words of each line that a verb printed."""
    assert result.returncode == 0, result.stderr
    return [line.split() for line in result.stdout.splitlines()]


def test_a_topic_is_made_written_read_shown_and_deleted(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    at = ["--server", broker.http]
    assert told(lakebed("topic", *at, "create", "orders", "--partitions", "2"), 0) == ["created topic orders with 2 partitions"]
    assert columns(lakebed("topic", *at, "list")) == [["NAME", "PARTITIONS", "ID"], ["orders", "2", ANY]]
    lines = "a\n\nlast"
    assert told(lakebed("produce", "orders", "--partition", "1", *at, input=lines), 0) == ["produced 3 records to orders"]
    assert lakebed("consume", "orders", "--count", "3", *at).stdout == "a\n\nlast\n"
    described = columns(lakebed("topic", *at, "describe", "orders"))
    assert described[:3] == [["name", "orders"], ["id", ANY], ["partitions", "2"]]
    assert described[-2:] == [["0", "0", "0"], ["1", "0", "3"]]
    told(lakebed("topic", *at, "delete", "orders"), 0)
    assert lakebed("topic", *at, "list").stdout == ""


def test_what_is_not_there_is_told_with_a_code_of_its_own(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    for verb in (["consume", "nobody", "--count", "1"], ["produce", "nobody"]):
        lines = told(lakebed(*verb, "--server", broker.http, input="x\n"), 3)
        assert lines[0].startswith("error: topic nobody can't be ")
    busy = lakebed("serve", "--store", "memory://", "--kafka-listen", broker.kafka, "--listen", "127.0.0.1:0")
    assert any(line.startswith("error: the broker can't start") for line in told(busy, 1))
    assert "another process has that port" in busy.stderr
    broker.stop()
    assert told(lakebed("topic", "--server", broker.http, "list"), 5)[0].startswith("error: the broker can't be reached")


def test_a_port_that_is_taken_is_told_with_the_flag_that_chose_it(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    free = "127.0.0.1:0"
    for flag, kafka, http in [("--kafka-listen", broker.kafka, free), ("--listen", free, broker.http)]:
        busy = lakebed("serve", "--store", "memory://", "--kafka-listen", kafka, "--listen", http)
        assert told(busy, 1)[0] == "error: the broker can't start" and busy.stdout == ""
        assert f"choose another with {flag} ADDR" in busy.stderr, busy.stderr


def test_a_topic_is_not_made_twice(start_broker, tmp_bucket, lakebed):
    at = ["--server", start_broker(tmp_bucket).http]
    told(lakebed("topic", *at, "create", "orders", "--partitions", "2"), 0)
    again = lakebed("topic", *at, "create", "orders", "--partitions", "3")
    assert again.returncode != 0 and "orders" in again.stderr and "exists" in again.stderr
    assert columns(lakebed("topic", *at, "list"))[1][:2] == ["orders", "2"], "it is as it was"


def test_consuming_begins_where_it_is_told_and_keys_are_shown(start_broker, tmp_bucket, lakebed):
    at = ["--server", start_broker(tmp_bucket).http]
    told(lakebed("topic", *at, "create", "keyed", "--partitions", "1"), 0)
    told(lakebed("produce", "keyed", "--key-separator", "=>", *at, input="a=>1\nno key\nb=>2=>3\n=>empty\n"), 0)

    def consumed(*arguments):
        result = lakebed("consume", "keyed", *at, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()

    assert consumed("--from", "start", "--count", "4") == ["1", "no key", "2=>3", "empty"]
    assert consumed("--count", "1") == ["1"], "start is the default"
    assert consumed("--from", "2", "--count", "2") == ["2=>3", "empty"]
    assert consumed("--from", "0", "--count", "4", "--key-separator", "|")[::2] == ["a|1", "b|2=>3"]
    assert lakebed("consume", "keyed", *at, "--from", "middle", "--count", "1").returncode == 2
    beyond = lakebed("consume", "keyed", *at, "--from", "99", "--count", "1")
    assert beyond.returncode != 0 and "99" in beyond.stderr and beyond.stdout == ""


def test_consuming_from_the_end_shows_only_what_comes_after(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    at = ["--server", broker.http]
    told(lakebed("topic", *at, "create", "tail", "--partitions", "1"), 0)
    told(lakebed("produce", "tail", *at, input="before\n"), 0)
    command = [BINARY, "consume", "tail", *at, "--from", "end", "--count", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        try:
            # Where the end is, is asked once: each of these comes after it or before it, but "before" does not.
            while following.poll() is None:
                told(lakebed("produce", "tail", *at, input="after\n"), 0)
            assert following.stdout.read() == "after\n" and following.returncode == 0
        finally:
            following.kill()


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_dev_says_where_it_serves(tmp_path, terminal):
    ours, theirs = pty.openpty() if terminal else os.pipe()
    command = [BINARY, "dev", "--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, cwd=tmp_path)
    os.close(theirs)
    end, text = ("read_parquet" if terminal else "}\n"), ""
    try:
        while end not in text:
            text += os.read(ours, 4096).decode()
        if terminal:
            assert f"file://{tmp_path}/lakebed-data" in text and "survives restart" in text
            assert all(command in text for command in ("kcat -P -b 127.0.0.1:", "lakebed consume greetings --from start", "duckdb -c"))
        else:
            ready = json.loads(text)
            assert set(ready) == {"event", "kafka", "http", "store", "version"} and ready["event"] == "ready"
            assert ready["store"] == f"file://{tmp_path}/lakebed-data"
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        os.close(ours)


def test_dev_makes_a_topic_on_first_use_over_grpc_too(lakebed, tmp_path):
    command = [BINARY, "dev", "--store", "memory://", "--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "LAKEBED_PROFILE_DIR": str(tmp_path)}) as process:
        try:
            at = ["--server", json.loads(process.stdout.readline())["http"]]
            produced = lakebed("produce", "greetings", *at, input="hello\nworld\n")
            assert produced.returncode == 0, produced.stderr
            consumed = lakebed("consume", "greetings", "--from", "start", "--until", "end", *at)
            assert consumed.stdout == "hello\nworld\n", consumed.stderr
            # What only reads makes nothing.
            assert lakebed("consume", "nobody", "--from", "start", "--until", "end", *at).returncode == 3
            refused = lakebed("produce", "no such name", *at, input="x\n")
            assert refused.returncode != 0 and "no such name" in refused.stderr
        finally:
            process.kill()


def test_a_store_that_does_not_exist_is_refused(lakebed):
    refused = lakebed("serve", "--store", "s4://x", "--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
    assert told(refused, 1)[0] == "error: the broker can't start"
    assert "unknown scheme" in refused.stderr
