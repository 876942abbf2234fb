"""What brings a topic's table before people: the demo, the lines for other programs, and the files of a topic.

What is printed to be pasted is run as it is printed; what the demo computes is compared with what DuckDB answers on the same files.
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import duckdb
import pytest
from conftest import BINARY, read_line
from kafka_clients import create_topic
from schema import check_json
from test_tables import consumed, produce

SECONDS_MAX = 60


def extensions(directory):
    """A directory of extensions for DuckDB, so that INSTALL finds what it asks for without a network."""
    place = Path(directory) / f"v{duckdb.__version__}" / duckdb.sql("PRAGMA platform").fetchone()[0]
    place.mkdir(parents=True, exist_ok=True)
    for name in ("httpfs", "avro", "iceberg"):
        [extension] = Path(__import__(f"duckdb_extension_{name}").__file__).parent.glob(f"extensions/*/{name}.duckdb_extension")
        shutil.copy(extension, place)
    return str(directory)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    return extensions(tmp_path_factory.mktemp("extensions"))


def answer(installed, text):
    """What DuckDB answers to statements, the last of which is a query."""
    connection = duckdb.connect(config={"extension_directory": installed})
    connection.execute("SET TimeZone = 'UTC'")
    # By Arrow, which has times with a zone without a library more.
    return [tuple(row.values()) for row in connection.execute(text).to_arrow_table().to_pylist()]


class Demo:
    """A running `lakebed demo`."""

    def __init__(self, *arguments, **options):
        self.began = time.monotonic()
        self.process = subprocess.Popen([BINARY, "demo", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **options)

    def end(self, code=0):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=SECONDS_MAX) == code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def test_the_demo_shows_what_duckdb_answers_on_the_same_files(installed, tmp_path, lakebed):
    with Demo("--store", tmp_path / "store", "-o", "jsonl") as demo:
        shown = check_json(read_line(demo.process, SECONDS_MAX), "demo")
        assert {topic["name"]: topic["records"] for topic in shown["topics"]} == {"earthquakes": 1707, "birdstrikes": 10000}
        assert len(shown["results"]) == 2
        for result in shown["results"]:
            assert [tuple(row) for row in result["rows"]] == answer(installed, f"INSTALL iceberg; LOAD iceberg; {result['sql']}")
            assert len(result["rows"]) >= 3 and all(len(row) == len(result["columns"]) for row in result["rows"])
        # It goes on serving, with the files that it told of.
        for topic in shown["topics"]:
            [(rows,)] = answer(installed, f"SELECT count(*) FROM read_parquet('{topic['location']}/data/*.parquet')")
            assert rows == topic["records"]
            listed = json.loads(lakebed("topic", "files", topic["name"], "--server", shown["http"], "-o", "json").stdout)["files"]
            assert [file["kind"] for file in listed] == ["table"] * topic["files"]
        demo.end()
    # Once more on the same store: the records are there already.
    again = lakebed("demo", "--store", tmp_path / "store", "--exit", "-o", "json")
    assert again.returncode == 0, again.stderr
    assert check_json(again.stdout, "demo")["results"] == shown["results"]


def test_the_demo_needs_nothing_and_leaves_nothing(tmp_path):
    environment = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    shown = subprocess.run([BINARY, "demo", "--exit"], capture_output=True, text=True, timeout=SECONDS_MAX, env=environment, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "Try:" not in shown.stdout, "nothing is left to try it on"
    assert "│ earthquake" in shown.stdout and "┌" in shown.stdout and "1707 records" in shown.stdout, shown.stdout
    assert list(tmp_path.iterdir()) == [], "its directory is deleted"


def test_a_demo_says_what_to_try_and_ends_well_when_it_is_interrupted(tmp_path):
    with Demo(env={**os.environ, "TMPDIR": str(tmp_path)}) as demo:
        text = ""
        while "duckdb -c" not in text:
            text += read_line(demo.process, SECONDS_MAX)
        assert "lakebed sql earthquakes --server 127.0.0.1:" in text and "kcat -C -b 127.0.0.1:" in text
        demo.end()
    assert list(tmp_path.iterdir()) == []


def test_a_demo_on_a_port_that_is_taken_says_so(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    told = lakebed("demo", "--exit", "--listen", broker.http, "-o", "json")
    error = check_json(told.stderr, "error")["error"]
    assert told.returncode == 1 and error["code"] == "ADDRESS_IN_USE" and told.stdout == ""


@pytest.fixture
def sql(broker, lakebed):
    """What `lakebed sql` prints of a topic, as {(engine, way): text}."""

    def run(topic, *arguments):
        result = lakebed("sql", topic, "--server", broker.http, "-o", "json", *arguments)
        assert result.returncode == 0, result.stderr
        statements = check_json(result.stdout, "sql")["statements"]
        assert "hush" not in result.stdout and "test-secret" not in result.stdout
        return {(statement["engine"], statement["way"]): statement["text"] for statement in statements}

    return run


def test_the_lines_for_duckdb_and_pyiceberg_read_the_table_as_they_are_printed(broker, bucket, sql, installed, monkeypatch):
    # Credentials come from the environment, as the broker's do.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, bucket.environment.get(name, "unused"))
    create_topic(broker, "Odd.Orders", 3)
    produce(broker, "Odd.Orders", 0, 300)
    lines = sql("Odd.Orders")
    expected = {(row[0], row[1]): (row[4], row[5]) for row in consumed(broker, "Odd.Orders")}
    for way in ("catalog", "iceberg", "files"):
        whole = lines["duckdb", way].replace("SELECT *", "SELECT _kafka_partition, _kafka_offset, key, value").replace("LIMIT 10", "LIMIT 1000")
        rows = answer(installed, whole)
        assert {row[:2]: row[2:] for row in rows} == expected, way
        assert len(answer(installed, lines["duckdb", way])) == 10
    for way in ("catalog", "iceberg"):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            scope = {}
            exec(lines["pyiceberg", way], scope)  # noqa: S102
        assert "_kafka_offset" in printed.getvalue()
        assert scope["table"].scan().to_arrow().num_rows == 300
    assert ("duckdb", "state") not in lines
    for engine in ("spark", "trino"):
        assert "odd_orders" in lines[engine, "catalog"] and f"http://{broker.http}/iceberg" in lines[engine, "settings"]
        if bucket.endpoint:
            assert bucket.endpoint in lines[engine, "settings"] and "us-east-1" in lines[engine, "settings"]
    assert set(sql("Odd.Orders", "--engine", "trino")) == {("trino", "settings"), ("trino", "catalog")}


def test_sql_of_what_can_not_be_read_by_others_says_so(lakebed, tmp_path):
    command = [BINARY, "dev", "--store", "memory://", "--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                          env={**os.environ, "LAKEBED_PROFILE_DIR": str(tmp_path)}) as process:
        try:
            at = ["--server", json.loads(read_line(process, SECONDS_MAX))["http"]]
            assert lakebed("topic", "create", "orders", *at).returncode == 0
            told = lakebed("sql", "orders", *at, "-o", "json")
            assert told.returncode == 4 and check_json(told.stderr, "error")["error"]["code"] == "STORE_IN_MEMORY"
            assert lakebed("sql", "nobody", *at).returncode == 3
        finally:
            process.kill()


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_files_are_told_with_what_waits(broker, bucket, lakebed, sql, installed):
    create_topic(broker, "orders", 3)

    def files():
        result = lakebed("topic", "files", "orders", "--server", broker.http, "-o", "json")
        assert result.returncode == 0, result.stderr
        return check_json(result.stdout, "files")["files"]

    assert files() == []
    produce(broker, "orders", 0, 300)
    waiting = files()
    assert {file["kind"] for file in waiting} == {"segment"} and sum(file["row_count"] for file in waiting) == 300
    # Reading it through the catalog makes it a table.
    answer(installed, sql("orders")["duckdb", "catalog"])
    [file] = files()
    path = Path(file["uri"].removeprefix("file://"))
    assert (file["kind"], file["row_count"], file["object_bytes"]) == ("table", 300, path.stat().st_size)
    assert file["ranges"] == [{"partition": partition, "base_offset": 0, "last_offset": 99} for partition in range(3)]
    assert (file["min_timestamp"], file["max_timestamp"]) == (1_700_000_000_000, 1_700_000_000_299)
    produce(broker, "orders", 300, 3)
    assert [file["kind"] for file in files()][0] == "table" and sum(file["row_count"] for file in files()) == 303
    told = lakebed("topic", "files", "orders", "--server", broker.http)
    assert "300 rows in 1 files; 3 rows wait" in told.stderr
    assert re.search(r"^table +300 +[0-9]+ +0:0-99 1:0-99 2:0-99 +2023-11-14T22:13:20Z", told.stdout, flags=re.M), told.stdout
    assert lakebed("topic", "files", "nobody", "--server", broker.http).returncode == 3
