"""`value.format`: what a topic says that its values are, readers of its table see; what is no such thing takes nothing from anybody.

Producers send good and bad values; DuckDB and pyiceberg query them, and consumers get every byte as it was sent, from table files too.
"""

import json
import re
from datetime import timedelta
from pathlib import Path

import datafusion
import duckdb
import polars
import pyarrow.parquet
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, ResourceType
from kafka_clients import SECONDS_MAX, admin, create_topic
from pyiceberg.catalog.rest import RestCatalog
from reflected import Refused, Server
from test_tables import consumed, duck, storage

ROOT = Path(__file__).resolve().parent.parent.parent
# What some parser of JSON takes and another does not: annotated as JSON, one of them would fail the queries of a whole file.
DUBIOUS = [
    b"", b" ", b"plain text", b"{", b'{"user_id": 1,}', b"{'user_id': 1}", b'{"user_id": NaN}', b'{"user_id": Infinity}', b'{"user_id": 01}', b'{"user_id": 1e999}',
    b'{"user_id": ' + b"9" * 400 + b"}", b'{"user_id": 1} {"user_id": 2}', b'{"user_id": 1}\x00', b'{"user_id": "\\ud800"}', b'{"user_id": "\\udc00\\ud800"}',
    b'{"\\ud800": 1}', b'{"user_id": "\x01"}', b"\xef\xbb\xbf{}", b'{"user_id": "\xff"}', b'{"user_id": "\xed\xa0\x80"}', b"[" * 128 + b"]" * 128,
    b"[" * 100_000 + b"]" * 100_000, b"[" * 100_000, b"\x00\xff\xfe",
]
# What every one of them takes.
SOUND = [
    b'{"user_id": 1}', b' \r\n\t{"user_id": "\\ud83d\\ude00"}\n', b'{"user_id": 1, "user_id": 2}', b"null", b"12", b'"text"', b"[1, {}]", b'{"user_id": "\\u0000"}',
    b'{"user_id": ' + b"9" * 300 + b"}", b"[" * 127 + b"]" * 127, b'{"a":' * 127 + b"1" + b"}" * 127, '{"user_id": "Grüße \U0001f980"}'.encode(),
    b'{"user_id": "' + b"x" * 300_000 + b'"}', b'{"": {"user_id": null}}', b"-0", b'{"user_id": 1E-999}',
]


def is_text(value):
    try:
        value.decode()
        return True
    except UnicodeDecodeError:
        return False


FITS = {"binary": lambda _: True, "string": is_text, "json": lambda value: value not in DUBIOUS}


def produce(broker, topic, values):
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 20})
    failures = []
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(SECONDS_MAX) == 0 and failures == []


@pytest.fixture
def tmp(start_broker, tmp_bucket):
    """A broker on a directory, and its root. It has no tail: consumers are served from objects."""
    return start_broker(tmp_bucket, arguments=["--no-tail"]), tmp_bucket


def lake(broker, bucket, topic):
    return RestCatalog("lakebed", uri=f"http://{broker.http}/iceberg", **storage(bucket)).load_table(f"default.{topic}")


@pytest.mark.parametrize("format", FITS)
def test_every_value_comes_back_and_those_that_fit_are_typed(tmp, format):
    broker, bucket = tmp
    create_topic(broker, "events", 1, {} if format == "binary" else {"value.format": format})
    # In several table files, then rewritten into one.
    values = []
    for number in range(9):
        more = (DUBIOUS + SOUND)[number::9] + [None, b'{"user_id": "u%d", "n": %d}' % (number, number)]
        produce(broker, "events", more)
        values += more
        table = lake(broker, bucket, "events")
    fits = [value is not None and FITS[format](value) for value in values]
    misfits = sum(value is not None and not fit for value, fit in zip(values, fits))
    assert broker.metrics()["lakebed_compaction_misfits_total"] == misfits
    assert (misfits > 0) == (format != "binary")
    rows = table.scan(selected_fields=("_kafka_offset", "value", "_kafka_value_raw")).to_arrow().to_pylist()
    rows.sort(key=lambda row: row["_kafka_offset"])
    to_bytes = lambda value: value.encode() if isinstance(value, str) else value
    assert [to_bytes(row["value"]) for row in rows] == [value if fit else None for value, fit in zip(values, fits)]
    assert [row["_kafka_value_raw"] for row in rows] == [None if fit else value for value, fit in zip(values, fits)]
    check_duckdb(duck(broker, bucket), table, format, values, fits)
    check_other_readers(table, format, values, fits)
    # Consumers get the producer's bytes: from table files, after a restart too.
    expected = [(0, offset, value) for offset, value in enumerate(values)]
    for restarted in (False, True):
        if restarted:
            broker.restart(kill=True)
        assert [(row[0], row[1], row[5]) for row in consumed(broker, "events", 1)] == expected
    assert broker.metrics()["lakebed_log_live_objects"] < 9 and broker.metrics()["lakebed_compaction_failures_total"] == 0


def check_duckdb(connection, table, format, values, fits):
    location = table.metadata.location.removeprefix("file://")
    # Those that the table names: what was rewritten stands beside them for a while.
    files = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    files = f"read_parquet({files})"
    counted = "SELECT count(*), count(value) FROM "
    for source in (files, "lake.default.events", f"iceberg_scan('{location}')"):
        assert connection.execute(counted + source).fetchone() == (len(values), sum(fits)), source
    if format != "json":
        return
    ids = "SELECT count(*), count(user_id), max(user_id) FROM (SELECT {} AS user_id FROM {})"
    has_id = [json.loads(value) for value, fit in zip(values, fits) if fit]
    has_id = [parsed["user_id"] for parsed in has_id if isinstance(parsed, dict) and parsed.get("user_id") is not None]
    answer = (len(values), len(has_id), "\U0001f600")
    for source, user_id in [(files, "value.user_id->>'$'"), ("lake.default.events", "json_extract_string(value, '$.user_id')"),
                            (f"iceberg_scan('{location}')", "json_extract_string(value, '$.user_id')")]:
        assert connection.execute(ids.format(user_id, source)).fetchone() == answer, source
    typed = connection.execute(f"SELECT value.user_id->>'$', (value.n)::INT FROM {files} WHERE value.n IS NOT NULL ORDER BY 2").fetchall()
    assert typed == [(f"u{number}", number) for number in range(9)]


def check_other_readers(table, format, values, fits):
    """pyarrow, Polars and DataFusion, on the files."""
    files = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    columns = ["_kafka_offset", "value"] + ([] if format == "binary" else ["_kafka_value_raw"])
    context = datafusion.SessionContext()
    by_datafusion = []
    for number, file in enumerate(files):
        context.register_parquet(f"part{number}", file)
        by_datafusion += context.sql(f"SELECT {', '.join(columns)} FROM part{number}").to_arrow_table().to_pylist()
    seen = {
        "pyarrow": [row for file in files for row in pyarrow.parquet.read_table(file, columns=columns).to_pylist()],
        "polars": polars.concat([polars.read_parquet(file, columns=columns) for file in files]).to_dicts(),
        "datafusion": by_datafusion,
    }
    to_bytes = lambda value: value.encode() if isinstance(value, str) else value
    for reader, rows in seen.items():
        rows.sort(key=lambda row: row["_kafka_offset"])
        assert [to_bytes(row["value"]) for row in rows] == [value if fit else None for value, fit in zip(values, fits)], reader
        if format != "binary":
            assert [row["_kafka_value_raw"] for row in rows] == [None if fit else value for value, fit in zip(values, fits)], reader


def test_a_table_is_partitioned_by_when_records_came_in(tmp):
    broker, bucket = tmp
    create_topic(broker, "events", 1, {"table.partition.by": "hour"})
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 20})
    # What producers say of the time puts nothing anywhere: each claims another hour of 1970.
    for number in range(500):
        producer.produce("events", b"%d" % number, timestamp=(number + 1) * 3_600_000)
    assert producer.flush(SECONDS_MAX) == 0
    table = lake(broker, bucket, "events")
    [field] = table.spec().fields
    assert (field.name, str(field.transform), table.schema().find_column_name(field.source_id)) == ("_kafka_ingest_timestamp_hour", "hour", "_kafka_ingest_timestamp")
    rows = table.scan(selected_fields=("_kafka_offset", "_kafka_ingest_timestamp")).to_arrow().to_pylist()
    assert sorted(row["_kafka_offset"] for row in rows) == list(range(500))
    hours = {row["_kafka_ingest_timestamp"].replace(minute=0, second=0, microsecond=0) for row in rows}
    tasks = list(table.scan().plan_files())
    # The run may begin in one hour and end in the next.
    assert sorted(task.file.partition[0] for task in tasks) == sorted(int(hour.timestamp()) // 3600 for hour in hours)
    first, last = min(hours), max(hours)
    planned = lambda of: len(list(table.scan(row_filter=of).plan_files()))
    assert planned(f"_kafka_ingest_timestamp >= '{first.isoformat()}'") == len(tasks)
    assert planned(f"_kafka_ingest_timestamp >= '{(last + timedelta(hours=1)).isoformat()}'") == 0
    assert planned(f"_kafka_ingest_timestamp < '{first.isoformat()}'") == 0
    connection = duck(broker, bucket)
    counted = lambda of: connection.execute(f"SELECT count(*) FROM lake.default.events WHERE {of}").fetchone()[0]
    assert counted(f"_kafka_ingest_timestamp >= '{first.isoformat()}'") == 500
    assert counted("_kafka_timestamp < '1970-01-01T10:00:00+00:00'") == 9
    assert [row[5] for row in consumed(broker, "events", 1)] == [b"%d" % number for number in range(500)]
    with pytest.raises(KafkaException):
        alter(broker, "events", AlterConfigOpType.SET, "day", "table.partition.by")


def test_the_lines_of_the_documentation_work(tmp):
    """docs/tables.md shows how JSON is queried: word by word as it stands there."""
    broker, bucket = tmp
    create_topic(broker, "orders", 1, {"value.format": "json"})
    produce(broker, "orders", [b'{"user_id": 7, "total": 12.5}', b'{"user_id": 8, "total": 1}', b"not JSON", None, b'{"user_id": 7, "total": 2}'])
    location = lake(broker, bucket, "orders").metadata.location.removeprefix("file://")
    text = (ROOT / "docs/tables.md").read_text()
    [section] = re.findall(r"## Values\n(.*?)\n## ", text, re.S)
    [queries] = re.findall(r"```sql\n(.*?)```", section, re.S)
    answers = [[(7, 14.5), (8, 1.0)], [(7, 14.5), (8, 1.0)], [(2, b"not JSON")]]
    connection = duck(broker, bucket)
    queries = [query for query in queries.split(";") if query.strip()]
    assert len(queries) == len(answers)
    for query, answer in zip(queries, answers):
        here = query.replace("lakebed-data/tables/default/orders", location)
        assert connection.execute(here).fetchall() == answer, query


def test_it_is_told_with_its_source_and_fixed_when_the_topic_is_created(tmp):
    broker, _ = tmp
    create_topic(broker, "events", 1, {"value.format": "json"})
    create_topic(broker, "plain", 1)
    told = lambda topic: describe(broker, topic)["value.format"]
    assert (told("events").value, told("events").source) == ("json", ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
    assert (told("plain").value, told("plain").source) == ("binary", ConfigSource.DEFAULT_CONFIG.value)
    for topic, operation, value in [("events", AlterConfigOpType.SET, "string"), ("events", AlterConfigOpType.DELETE, None), ("plain", AlterConfigOpType.SET, "json")]:
        with pytest.raises(KafkaException) as refused:
            alter(broker, topic, operation, value)
        assert refused.value.args[0].code() == KafkaError.INVALID_CONFIG
        assert "fixed when the topic is created" in refused.value.args[0].str()
    # What is said again is no change.
    alter(broker, "events", AlterConfigOpType.SET, "json")
    assert told("events").value == "json"
    with pytest.raises(KafkaException) as refused:
        create_topic(broker, "other", 1, {"value.format": "avro"})
    assert "binary, string, json" in refused.value.args[0].str()


def describe(broker, topic):
    resource = ConfigResource(ResourceType.TOPIC, topic)
    client = admin(broker)
    return client.describe_configs([resource])[resource].result(timeout=SECONDS_MAX)


def alter(broker, topic, operation, value, name="value.format"):
    entry = ConfigEntry(name, value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = admin(broker)
    client.incremental_alter_configs([resource])[resource].result(timeout=SECONDS_MAX)


def test_grpc_creates_it_and_refuses_to_change_it(tmp):
    broker, _ = tmp
    with Server(broker) as server:
        config = lambda: dict(server.call("AdminService/DescribeTopic", **{"name": "events"}).topic.config)
        server.call("AdminService/CreateTopic", **{"name": "events"}, config={"value.format": "string"})
        assert config() == {"value.format": "string"}
        with pytest.raises(Refused, match="fixed when the topic is created") as refused:
            server.call("AdminService/AlterTopic", **{"name": "events"}, config={"value.format": "json"}, update_mask={"paths": ["config.value.format"]})
        assert refused.value.reason == "INVALID_CONFIG"
        assert config() == {"value.format": "string"}


def test_a_bloom_filter_tells_readers_which_files_have_a_key(tmp, tmp_path):
    broker, bucket = tmp
    create_topic(broker, "events", 1, {"table.bloom.filter": "true"})
    producer = Producer({"bootstrap.servers": broker.kafka, "linger.ms": 20})
    # Keys of every file lie between those of the others: the least and the greatest tell nothing.
    for part in range(3):
        for number in range(part, 900, 3):
            producer.produce("events", b"v%d" % number, b"k%04d" % number)
        assert producer.flush(SECONDS_MAX) == 0
        table = lake(broker, bucket, "events")
    connection = duckdb.connect()
    files = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    assert len(files) == 3
    chunks = f"SELECT file_name, data_page_offset, total_compressed_size FROM parquet_metadata({files}) WHERE path_in_schema = 'key' AND bloom_filter_length > 0"
    chunks = connection.execute(chunks).fetchall()
    assert len(chunks) == 3
    # Copies whose keys can't be decoded: who asks for a key that the filter excludes never looks at them.
    for part, (file, start, length) in enumerate(sorted(chunks)):
        content = bytearray(Path(file).read_bytes())
        content[start:start + length] = b"\xff" * length
        broken = tmp_path / f"{part}.parquet"
        broken.write_bytes(content)
        looked = 0
        for number in range(3, 897, 7):
            if number % 3 == part:
                with pytest.raises(duckdb.Error):
                    connection.execute(f"SELECT value FROM read_parquet('{broken}') WHERE key = 'k{number:04d}'::BLOB").fetchall()
                continue
            try:
                assert connection.execute(f"SELECT value FROM read_parquet('{broken}') WHERE key = 'k{number:04d}'::BLOB").fetchall() == []
            except duckdb.Error:
                looked += 1
        assert looked <= 5, f"{looked} of 85 keys that are not there"
    assert connection.execute(f"SELECT value FROM read_parquet({files}) WHERE key = 'k0451'::BLOB").fetchall() == [(b"v451",)]
    assert [(row[4], row[5]) for row in consumed(broker, "events", 1)] == [(b"k%04d" % number, b"v%d" % number) for part in range(3) for number in range(part, 900, 3)]
