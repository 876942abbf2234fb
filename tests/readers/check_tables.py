"""Shows published tables to readers that are not ours: each must see, row by row, what was written, in every version that is in sight.

Usage: check_tables.py WRITE_TABLES S3_SERVER, the binaries of `cargo build --workspace --example write_tables --bin s3-server`. The tables
are written to a directory and to an S3 server, and read by DuckDB, pyiceberg, Polars, pyarrow and DataFusion.

pyiceberg shows a list that is null as an empty one; the two are compared as equal there, and nowhere else.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.parse
import warnings
from datetime import datetime, timedelta, timezone

import datafusion
import duckdb
import polars
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
from pyiceberg.table import StaticTable

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
COLUMNS = ["_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_kafka_ingest_timestamp", "_kafka_headers", "key", "value", "_kafka_value_raw"]
COLUMN_LIST = ", ".join(COLUMNS)
# DuckDB gives times with a zone only with another package.
DUCKDB_COLUMNS = COLUMN_LIST.replace("_kafka_timestamp,", "epoch_us(_kafka_timestamp),").replace("_kafka_ingest_timestamp,", "epoch_us(_kafka_ingest_timestamp),")
ACCESS = {"id": "test", "secret": "test", "region": "us-east-1"}


def micros(moment):
    return moment if moment is None or isinstance(moment, int) else (moment - EPOCH) // timedelta(microseconds=1)


def hexadecimal(value):
    return None if value is None else (value.encode() if isinstance(value, str) else bytes(value)).hex()


def headers(value):
    return None if value is None else [[header["key"], hexadecimal(header["value"])] for header in value]


def row(values):
    partition, offset, timestamp, ingest, header, key, value, raw = values
    return [partition, offset, micros(timestamp), micros(ingest), headers(header), hexadecimal(key), hexadecimal(value), hexadecimal(raw)]


def in_order(rows):
    return sorted(rows, key=lambda row: row[:2])


def rows_of_arrow(table):
    return in_order(row([record[name] for name in COLUMNS]) for record in table.to_pylist())


def without_null_lists(rows):
    return [[*row[:4], row[4] or [], *row[5:]] for row in rows]


class Readers:
    """The readers, on a directory or on an S3 server at `endpoint` (host:port)."""

    def __init__(self, endpoint=None):
        self.endpoint = endpoint
        self.compared = 0
        self.duckdb = duckdb.connect(config={"extension_directory": tempfile.mkdtemp()})
        for name in ("httpfs", "avro", "iceberg"):
            module = __import__(f"duckdb_extension_{name}")
            [extension] = pathlib.Path(module.__file__).parent.glob(f"extensions/*/{name}.duckdb_extension")
            self.duckdb.execute(f"LOAD '{extension}'")
        self.properties = {}
        self.storage_options = None
        self.filesystem = pyarrow.fs.LocalFileSystem()
        if endpoint:
            self.duckdb.execute(
                f"CREATE SECRET (TYPE s3, KEY_ID '{ACCESS['id']}', SECRET '{ACCESS['secret']}', REGION '{ACCESS['region']}', "
                f"ENDPOINT '{endpoint}', USE_SSL false, URL_STYLE 'path')")
            self.properties = {
                "s3.endpoint": f"http://{endpoint}", "s3.access-key-id": ACCESS["id"], "s3.secret-access-key": ACCESS["secret"],
                "s3.region": ACCESS["region"], "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
            }
            self.storage_options = self.properties
            self.filesystem = pyarrow.fs.S3FileSystem(
                access_key=ACCESS["id"], secret_key=ACCESS["secret"], region=ACCESS["region"], endpoint_override=f"http://{endpoint}")

    def same(self, rows, version, what):
        expected = in_order(version["rows"])
        if "pyiceberg" in what:
            rows, expected = without_null_lists(rows), without_null_lists(expected)
        different = [pair for pair in zip(rows, expected) if pair[0] != pair[1]]
        assert len(rows) == len(expected) and not different, f"{what}: {len(rows)} rows for {len(expected)}, first {different[:1]}"
        self.compared += 1

    def by_duckdb(self, source):
        return in_order(row(values) for values in self.duckdb.execute(f"SELECT {DUCKDB_COLUMNS} FROM {source}").fetchall())

    def check(self, table):
        versions, location, name = table["versions"], table["location"], table["table"]
        newest = versions[-1]
        self.same(self.by_duckdb(f"iceberg_scan('{location}')"), newest, f"duckdb by hint, {name}")
        if not self.endpoint:
            self.same(self.by_duckdb(f"iceberg_scan('{location.removeprefix('file://')}')"), newest, f"duckdb by path, {name}")
        static = StaticTable.from_metadata(newest["metadata"], self.properties)
        self.same(rows_of_arrow(static.scan().to_arrow()), newest, f"pyiceberg, {name}")
        in_sight = {str(snapshot.snapshot_id) for snapshot in static.snapshots()}
        assert in_sight == {version["snapshot_id"] for version in versions[-6:]}, f"{name}: six snapshots are kept"
        for version in versions[-6:]:
            what = f"{name} version {version['version']}"
            self.same(self.by_duckdb(f"iceberg_scan('{location}', snapshot_from_id={version['snapshot_id']})"), version, f"duckdb by snapshot, {what}")
            self.same(self.by_duckdb(f"iceberg_scan('{version['metadata']}')"), version, f"duckdb by metadata, {what}")
            self.same(rows_of_arrow(static.scan(snapshot_id=int(version["snapshot_id"])).to_arrow()), version, f"pyiceberg by snapshot, {what}")
        with warnings.catch_warnings():
            # It would rather plan by another package.
            warnings.simplefilter("ignore")
            scan = polars.scan_iceberg(newest["metadata"], storage_options=self.storage_options)
            self.same(rows_of_arrow(scan.select(COLUMNS).collect().to_arrow()), newest, f"polars, {name}")
        self.check_files(static, newest, name)
        self.check_what_is_said(static, table)

    def check_files(self, static, newest, name):
        """Readers of plain Parquet, on the files that pyiceberg finds."""
        files = [task.file.file_path for task in static.scan().plan_files()]
        assert len(files) == newest["files"], name
        if not files:
            return
        paths = [urllib.parse.urlsplit(file) for file in files]
        paths = [(path.netloc + path.path).removeprefix("/" if self.endpoint else "") for path in paths]
        table = pyarrow.dataset.dataset(paths, filesystem=self.filesystem).to_table(columns=COLUMNS)
        self.same(rows_of_arrow(table), newest, f"pyarrow, {name}")
        if self.endpoint:
            return
        context = datafusion.SessionContext()
        rows = []
        for number, path in enumerate(paths):
            context.register_parquet(f"part{number}", path)
            rows += rows_of_arrow(context.sql(f"SELECT {COLUMN_LIST} FROM part{number}").to_arrow_table())
        self.same(in_order(rows), newest, f"datafusion, {name}")

    def check_what_is_said(self, static, table):
        """What the metadata says of itself: totals, and bounds by which files are left out."""
        newest = table["versions"][-1]
        summary = static.current_snapshot().summary
        assert int(summary["total-records"]) == len(newest["rows"]) and int(summary["total-data-files"]) == newest["files"]
        assert int(summary["lakebed.commit"]) > 0
        assert static.schema().identifier_field_names() == {"_kafka_partition", "_kafka_offset"}
        assert [field.source_id for field in static.sort_order().fields] == [1, 2]
        if table["table"] == "many":
            all_files, few = (len(list(static.scan(row_filter=of).plan_files())) for of in ("_kafka_offset >= 0", "_kafka_offset > 250"))
            assert all_files == newest["files"] and few * 3 < all_files, f"{few} of {all_files} files for the last offsets"
            offsets = sum(1 for row in newest["rows"] if row[1] > 250)
            [[counted]] = self.duckdb.execute(f"SELECT count(*) FROM iceberg_scan('{table['location']}') WHERE _kafka_offset > 250").fetchall()
            assert counted == offsets
        if table["table"] in ("by_day", "by-hour"):
            assert {field.name for field in static.spec().fields} == {f"_kafka_ingest_timestamp_{'day' if table['table'] == 'by_day' else 'hour'}"}
            # The day after the first, by the time of which the table is partitioned, and by the other.
            begin = "2026-11-02T00:00:00+00:00"
            at = micros(datetime.fromisoformat(begin))
            for index, column in ((3, "_kafka_ingest_timestamp"), (2, "_kafka_timestamp")):
                rows = rows_of_arrow(static.scan(row_filter=f"{column} >= '{begin}'").to_arrow())
                expected = [row for row in newest["rows"] if row[index] is not None and row[index] >= at]
                assert len(rows) == len(expected) > 0
                [[counted]] = self.duckdb.execute(f"SELECT count(*) FROM iceberg_scan('{table['location']}') WHERE {column} >= '{begin}'").fetchall()
                assert counted == len(expected), f"{counted} rows for {len(expected)}"
            # A version whose files lie in one partition each: readers leave those of other days out.
            version = table["versions"][2]
            planned = lambda of: len(list(static.scan(row_filter=of, snapshot_id=int(version["snapshot_id"])).plan_files()))
            every, later = planned("_kafka_offset >= 0"), planned(f"_kafka_ingest_timestamp >= '{begin}'")
            assert every == version["files"] and later == 6, f"{later} of {every} files for the days after the first"


def written(binary, url, environment=None):
    told = subprocess.run([binary, url], check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(told.stdout)


def on_a_directory(write_tables):
    with tempfile.TemporaryDirectory(prefix="tables with space ") as directory:
        readers = Readers()
        for table in written(write_tables, directory):
            readers.check(table)
        return readers.compared


def on_s3(write_tables, s3_server):
    server = subprocess.Popen([s3_server], stdout=subprocess.PIPE, text=True)
    try:
        endpoint = json.loads(server.stdout.readline())["endpoint"].removeprefix("http://")
        environment = {
            "AWS_ACCESS_KEY_ID": ACCESS["id"], "AWS_SECRET_ACCESS_KEY": ACCESS["secret"], "AWS_REGION": ACCESS["region"],
            "AWS_ENDPOINT_URL_S3": f"http://{endpoint}",
        }
        readers = Readers(endpoint)
        for table in written(write_tables, "s3://test/root", environment):
            readers.check(table)
        return readers.compared
    finally:
        server.terminate()
        server.wait(timeout=10)


def main():
    write_tables, s3_server = sys.argv[1:]
    print(f"on a directory: {on_a_directory(write_tables)} scans gave what was written")
    print(f"on S3: {on_s3(write_tables, s3_server)} scans gave what was written")


main()
