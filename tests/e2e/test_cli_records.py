"""`produce` and `consume` as a user meets them: every way to say what a record is, where to read, and how it is printed."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import pytest
from conftest import BINARY
from schema import check_json


class Topic:
    """A topic of one broker; `produce` and `consume` run the verbs on it."""

    def __init__(self, lakebed, server, name, partitions):
        self.lakebed, self.name, self.at = lakebed, name, ["--server", server]
        made = lakebed("topic", *self.at, "create", name, "--partitions", str(partitions))
        assert made.returncode == 0, made.stderr

    def run(self, verb, *arguments, code=0, **options):
        result = self.lakebed(verb, self.name, *self.at, *arguments, **options)
        assert result.returncode == code, result.stderr
        return result

    def produce(self, *arguments, input="", code=0):
        """The notice of `produce`, or its error."""
        return self.run("produce", *arguments, input=input, code=code).stderr

    def consume(self, *arguments, code=0):
        """What `consume` prints of all there is."""
        return self.run("consume", "--no-follow", *arguments, code=code).stdout

    def records(self, *arguments):
        """All records as their JSON, which the schema holds."""
        return [check_json(line, "record") for line in self.consume("-o", "jsonl", *arguments).splitlines()]


@pytest.fixture
def topic(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    return lambda name="t", partitions=1: Topic(lakebed, broker.http, name, partitions)


def parts(record, *names):
    return tuple(record[name] for name in names)


def test_lines_are_records_with_keys_headers_and_tombstones(topic):
    t = topic()
    assert t.produce(input="plain\n\nlast") == "produced 3 records to t\n"
    assert t.produce("--key-separator", ":", "-H", "a=1", "-H", "b=x=y", "-H", "a=2", input="k:v\nno key\n") == "produced 2 records to t\n"
    assert t.produce("--key-separator", ":", "-Z", input="gone:\nkept:x\n") == "produced 2 records to t\n"
    assert t.produce("--key-separator", ":", "--null", "NULL", input="k:NULL\nNULL:v\nk:NULLS\n") == "produced 3 records to t\n"
    assert t.produce("-k", "all", input="one\n") == "produced 1 record to t\n"
    headers = [{"key": "a", "value": "1"}, {"key": "b", "value": "x=y"}, {"key": "a", "value": "2"}]
    assert [parts(record, "offset", "key", "value", "headers") for record in t.records()] == [
        (0, None, "plain", []), (1, None, "", []), (2, None, "last", []),
        (3, "k", "v", headers), (4, None, "no key", headers),
        (5, "gone", None, []), (6, "kept", "x", []),
        (7, "k", None, []), (8, None, "v", []), (9, "k", "NULLS", []),
        (10, "all", "one", [])]


def test_json_lines_say_everything_and_what_consume_prints_can_be_produced_again(topic):
    t, again = topic("t", 3), topic("again", 3)
    lines = [{"value": "text", "key": "k", "partition": 2, "timestamp": 1700000000000, "headers": {"a": "1"}},
             {"value": {"base64": "/wA="}, "key": {"base64": "/w=="}, "partition": 1, "headers": [{"key": "h", "value": None}]},
             {"value": None, "key": "tombstone", "partition": 1},
             {"value": {"an": ["object"]}, "partition": 0}]
    assert t.produce("--input", "json", input="".join(json.dumps(line) + "\n" for line in lines)) == "produced 4 records to t\n"
    records = sorted(t.records(), key=lambda record: (record["partition"], record["offset"]))
    assert [parts(record, "partition", "offset", "key", "value", "headers") for record in records] == [
        (0, 0, None, '{"an":["object"]}', []),
        (1, 0, {"base64": "/w=="}, {"base64": "/wA="}, [{"key": "h", "value": None}]),
        (1, 1, "tombstone", None, []),
        (2, 0, "k", "text", [{"key": "a", "value": "1"}])]
    assert parts(records[-1], "timestamp", "timestamp_type") == (1700000000000, "create")
    assert again.produce("--input", "json", input=t.consume("-o", "jsonl")) == "produced 4 records to again\n"
    copied = sorted(again.records(), key=lambda record: (record["partition"], record["offset"]))
    assert [record | {"topic": "t"} for record in copied] == records
    document = json.loads(t.consume("-o", "json"))
    assert sorted(document["records"], key=lambda record: (record["partition"], record["offset"])) == records
    assert json.loads(topic("empty").consume("-o", "json")) == {"records": []}


def test_a_line_that_is_no_record_is_named_and_those_before_it_are_written(topic):
    t = topic()
    error = t.produce("--input", "json", input='{"value":"a"}\n{"value":"b"}\n{"vlaue":"c"}\n{"value":"d"}\n', code=1)
    assert error == ("produced 2 records to t\n"
                     'error: line 3 of standard input has no "value"; null makes a tombstone\n'
                     "  try: see the form with `lakebed produce --help`\n")
    assert t.consume() == "a\nb\n"
    told = t.run("produce", "--input", "json", "-o", "json", input="x\n", code=1)
    assert told.stdout == "" and "line 1 of standard input is no JSON" in json.loads(told.stderr)["error"]["message"]


def test_whole_files_are_records_byte_by_byte(topic, tmp_path):
    t = topic()
    contents = [bytes(range(256)), b"", b"two\nlines\n"]
    files = []
    for number, content in enumerate(contents):
        (tmp_path / f"{number}").write_bytes(content)
        files += ["--file", tmp_path / f"{number}"]
    told = t.run("produce", "--input", "whole", *files, "-H", "type=bytes", "-o", "json")
    produced = check_json(told.stdout, "produced")
    assert produced == {"topic": "t", "records": 3} and told.stderr == ""
    assert t.consume("--format", "%v{hex}\\n").splitlines() == [content.hex() for content in contents]
    lines = t.produce("--file", tmp_path / "2", "--file", tmp_path / "2")
    assert lines == "produced 4 records to t\n"
    missing = t.produce("--file", tmp_path / "missing", code=3)
    assert missing.startswith(f"error: {tmp_path}/missing (from --file) can't be opened\n")


def test_a_pattern_prints_each_part(topic):
    t = topic()
    line = {"key": "k", "value": {"base64": "/w=="}, "timestamp": 1767323045678, "headers": {"a": "1", "b": None}}
    t.produce("--input", "json", input=json.dumps(line) + "\n")
    for pattern, printed in [("%t/%p/%o\\n", "t/0/0\n"), ("%k %K %V", "k 1 1"), ("%v{hex}|%v{base64}|%v{json}", 'ff|/w==|{"base64":"/w=="}'),
                             ("%h %H", "a=1,b= 2"), ("%h{json}", '[{"key":"a","value":"1"},{"key":"b","value":null}]'),
                             ("%T %T{s} %T{rfc3339}", "1767323045678 1767323045 2026-01-02T03:04:05.678Z"), ("%%\\t\\x41", "%\tA")]:
        assert t.consume("--format", pattern) == printed, pattern
    wrong = t.run("consume", "--format", "%q", code=2)
    assert "%q is unknown: there are %t %p %o %k %v %K %V %h %H %T and %%" in wrong.stderr
    both = t.run("consume", "--format", "%v", "-o", "jsonl", code=2)
    assert json.loads(both.stderr)["error"]["message"] == "--format and -o json or jsonl can't both say how records are printed"


def test_reading_begins_and_ends_where_it_is_said(topic):
    t = topic()
    first_ms = 1_767_225_600_000  # 2026-01-01
    hour_ms = 3_600_000
    t.produce("--input", "json", input="".join(json.dumps({"value": str(n), "timestamp": first_ms + n * hour_ms}) + "\n" for n in range(10)))

    def read(*arguments):
        return "".join(t.consume(*arguments).split())

    assert read() == "0123456789"
    assert read("--from", "7") == "789"
    assert read("--from", "end") == ""
    assert read("--count", "3") == "012"
    assert read("--count", "0") == ""
    assert read("--from", "@2026-01-01T06:30:00Z") == "789", "the first of that time or later"
    assert read("--from", f"@{first_ms + 8 * hour_ms}") == "89"
    assert read("--from", "@-1h") == "", "all are older"
    assert read("--from", "@-1000000d") == "0123456789"

    def until(*arguments):
        result = t.run("consume", "--until", *arguments)
        return "".join(result.stdout.split())

    assert until("4") == "0123"
    assert until("end", "--from", "6") == "6789"
    assert until("@2026-01-01T03:00:00Z") == "012", "before that time"
    assert until("@2026-01-01T03:00:00Z", "--from", "1", "--count", "1") == "1"
    assert "--until start would print nothing" in t.run("consume", "--until", "start", code=2).stderr
    assert "must be start, end, an offset of 0 or more" in t.run("consume", "--from", "middle", code=2).stderr
    assert "is no time such as" in t.run("consume", "--from", "@noon", code=2).stderr
    beyond = t.run("consume", "--from", "99", "--no-follow", code=4)
    assert beyond.stdout == "" and "see the offsets with `lakebed topic describe NAME`" in beyond.stderr


def test_partitions_are_chosen_by_key_by_number_and_by_turns(topic):
    t = topic("t", 4)
    t.produce("--key-separator", ":", input="".join(f"{key}:{key}\n" for key in "abcdefgh" for _ in range(2)))
    places = {}
    for record in t.records():
        places.setdefault(record["key"], set()).add(record["partition"])
    assert all(len(place) == 1 for place in places.values()) and len({*map(frozenset, places.values())}) > 1
    t.produce("--partition", "3", input="named\n")
    assert [record["partition"] for record in t.records("--partition", "3") if record["value"] == "named"] == [3]
    two = t.records("--partition", "0", "--partition", "1")
    assert {record["partition"] for record in two} <= {0, 1}
    wrong = t.produce("--partition", "9", input="x\n", code=3)
    assert wrong.startswith("error: topic t can't be written; 0 records are acknowledged\n") and "partition 9" in wrong
    assert "partition" in t.run("consume", "--partition", "9", code=3).stderr


def test_a_token_goes_on_where_the_last_one_ended(topic, tmp_path):
    t = topic("t", 2)
    token = ["--resume", tmp_path / "token"]
    t.produce("--key-separator", ":", input="".join(f"{n}:{n}\n" for n in range(10)))
    first = t.consume(*token, "--count", "4").split()
    rest = t.consume(*token).split()
    assert len(first) == 4 and sorted(first + rest, key=int) == [str(n) for n in range(10)], "each once"
    assert t.consume(*token) == ""
    t.produce(input="new\n")
    assert t.consume(*token) == "new\n"
    (tmp_path / "token").write_text("not base64!")
    broken = t.run("consume", *token, code=2)
    assert f"{tmp_path}/token (from --resume) holds no resume token" in broken.stderr


def test_following_ends_when_it_is_interrupted_and_when_nobody_reads(topic):
    t = topic()
    t.produce(input="first\n")
    command = [BINARY, "consume", "t", *t.at]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout.readline() == "first\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=30) == 0 and following.stderr.read() == ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout.readline() == "first\n"
        # Nothing more comes: it must notice by itself.
        following.stdout.close()
        assert following.wait(timeout=30) == 0 and following.stderr.read() == ""


def test_producing_writes_what_it_was_given_when_it_is_interrupted(topic):
    t = topic()
    with subprocess.Popen([BINARY, "produce", "t", *t.at], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as producing:
        producing.stdin.write("one\ntwo\n")
        producing.stdin.flush()
        deadline = time.monotonic() + 30
        while t.consume() != "one\ntwo\n":
            assert time.monotonic() < deadline, "lines are written as they come"
        producing.send_signal(signal.SIGINT)
        assert producing.wait(timeout=30) == 1
        assert producing.stderr.read() == "produced 2 records to t\nerror: interrupted: the rest of the input is not written\n"


def test_a_producer_goes_on_when_the_broker_drains_and_comes_back(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    t = Topic(lakebed, broker.http, "t", 1)
    with subprocess.Popen([BINARY, "produce", "t", *t.at], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as producing:
        for number in range(4):
            producing.stdin.write(f"{number}\n" * 100)
            producing.stdin.flush()
            while number == 0 and not t.consume():
                assert producing.poll() is None, "it writes before the broker goes"
            broker.stop()
            broker.start(same_ports=True)
        producing.stdin.close()
        assert producing.wait(timeout=60) == 0, producing.stderr.read()
        assert producing.stderr.read() == "produced 400 records to t\n"
    assert t.consume().split() == [str(number) for number in range(4) for _ in range(100)]


def screen_of(command, **options):
    """Runs a command with a terminal for stderr; returns what it shows there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, **options)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass  # The terminal ends with the process.
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown
    return shown.decode()


def test_long_work_shows_a_bar_on_a_terminal_and_nothing_elsewhere(topic, tmp_path):
    t = topic()
    (tmp_path / "lines").write_bytes(b"x" * 99 + b"\n" + (b"y" * 99 + b"\n") * 20000)
    shown = screen_of([BINARY, "produce", "t", *t.at, "--file", tmp_path / "lines"], env=os.environ | {"TERM": "xterm", "NO_COLOR": "1"})
    assert re.search(r"of 1\.91 MiB", shown) and shown.rstrip().endswith("produced 20001 records to t"), shown
    shown = screen_of([BINARY, "consume", "t", *t.at, "--no-follow"], env=os.environ | {"TERM": "xterm"})
    assert "of 20,001 records" in shown, shown
    quiet = t.run("consume", "--no-follow")
    assert quiet.stderr == "" and len(quiet.stdout.splitlines()) == 20001
