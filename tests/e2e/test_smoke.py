"""The whole way of real records: kcat in, kcat out, the same bytes as Parquet for three readers, and again after a restart."""

import subprocess

import duckdb
import polars
import pyarrow.parquet

TOPIC = "earthquakes"


def kcat(broker, *arguments, stdin=None):
    result = subprocess.run(["kcat", "-b", broker.kafka, *arguments], input=stdin, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def create_topic(lakebed, broker):
    result = lakebed("topic", "--server", broker.http, "create", TOPIC, "--partitions", "1")
    assert result.returncode == 0, result.stderr


def consume(broker):
    return kcat(broker, "-C", "-t", TOPIC, "-p", "0", "-o", "beginning", "-e", "-q").splitlines()


def values(bucket, directory):
    """The values that stand in the objects of the log, by each reader."""
    files = [str(path) for key, path in bucket.objects(directory).items() if key.endswith(".parquet") and "checkpoints" not in key]
    assert files, "the records are in Parquet objects"
    with_rows = [file for file in files if pyarrow.parquet.read_metadata(file).num_rows > 0]
    column = "value"
    by_pyarrow = [row.as_py() for file in with_rows for row in pyarrow.parquet.read_table(file, columns=[column])[column]]
    by_polars = [row for file in with_rows for row in polars.read_parquet(file, columns=[column])[column].to_list()]
    by_duckdb = [row for file in with_rows for (row,) in duckdb.sql(f"SELECT {column} FROM read_parquet('{file}')").fetchall()]
    return by_pyarrow, by_polars, by_duckdb


def test_real_records_come_back_byte_for_byte_and_are_parquet(broker, bucket, lakebed, earthquakes, tmp_path):
    create_topic(lakebed, broker)
    kcat(broker, "-P", "-t", TOPIC, "-p", "0", stdin=b"\n".join(earthquakes) + b"\n")
    assert consume(broker) == earthquakes

    for read in values(bucket, tmp_path / "objects"):
        assert sorted(read) == sorted(earthquakes)

    broker.restart()
    assert consume(broker) == earthquakes, "after a restart"
    broker.restart(kill=True)
    assert consume(broker) == earthquakes, "after kill -9"


def test_records_produced_after_a_restart_follow_the_earlier_ones(broker, lakebed, earthquakes):
    create_topic(lakebed, broker)
    half = len(earthquakes) // 2
    kcat(broker, "-P", "-t", TOPIC, "-p", "0", stdin=b"\n".join(earthquakes[:half]) + b"\n")
    broker.restart(kill=True)
    kcat(broker, "-P", "-t", TOPIC, "-p", "0", stdin=b"\n".join(earthquakes[half:]) + b"\n")
    assert consume(broker) == earthquakes
