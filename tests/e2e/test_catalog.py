"""The Iceberg REST catalog of a running broker, asked by clients that are not ours: pyiceberg's RestCatalog and DuckDB's ATTACH.

test_tables.py compares what they read with what consumers get; here it is how they are answered.
"""

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import duckdb
import pytest
from confluent_kafka import Producer
from conftest import BINARY, READY_SECONDS
from kafka_clients import create_topic
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, RESTError


@pytest.fixture
def told(broker):
    """Topics with records, and what their tables show: `rows` are partitions and offsets."""
    told = {}
    for topic, partitions, count in [("plain", 2, 100), ("Other.Topic", 1, 7), ("emptied", 3, 0)]:
        create_topic(broker, topic, partitions)
        producer = Producer({"bootstrap.servers": broker.kafka})
        for number in range(count):
            producer.produce(topic, b"%d" % number, partition=number % partitions)
        assert producer.flush(READY_SECONDS) == 0
        name = topic.lower().replace(".", "_")
        table = json.loads(ask(broker, f"namespaces/default/tables/{name}")[2])
        rows = [(number % partitions, number // partitions) for number in range(count)]
        told[name] = {"rows": rows, "snapshot_id": str(table["metadata"]["current-snapshot-id"]), "metadata": table["metadata-location"]}
    return told


@pytest.fixture
def catalog(told, broker, bucket):
    """pyiceberg's client of the broker's catalog."""
    properties = {"uri": f"http://{broker.http}/iceberg", "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
    if bucket.endpoint:
        properties |= {
            "s3.endpoint": f"http://{bucket.endpoint}", "s3.access-key-id": "test", "s3.secret-access-key": "test", "s3.region": "us-east-1",
        }
    return RestCatalog("lakebed", **properties)


def offsets(version):
    return sorted((row[0], row[1]) for row in version["rows"])


def test_pyiceberg_finds_every_table_and_reads_it(catalog, told):
    assert catalog.list_namespaces() == [("default",)]
    assert {name for _, name in catalog.list_tables("default")} == set(told)
    assert catalog.namespace_exists("default") and not catalog.namespace_exists("nothing")
    for name, version in told.items():
        assert catalog.table_exists(("default", name))
        table = catalog.load_table(("default", name))
        assert str(table.current_snapshot().snapshot_id) == version["snapshot_id"]
        rows = table.scan(selected_fields=("_kafka_partition", "_kafka_offset")).to_arrow()
        assert sorted(zip(*(column.to_pylist() for column in rows.columns))) == offsets(version)
    assert not catalog.table_exists(("default", "nothing"))
    with pytest.raises(NoSuchTableError):
        catalog.load_table(("default", "nothing"))
    with pytest.raises(NoSuchNamespaceError):
        catalog.list_tables("nothing")


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_what_would_change_a_table_is_refused_with_the_reason(catalog, told):
    table = catalog.load_table(("default", "plain"))
    for change in (
        lambda: catalog.create_namespace("mine"),
        lambda: catalog.drop_table(("default", "plain")),
        lambda: catalog.create_table(("default", "mine"), table.schema()),
        lambda: catalog.rename_table(("default", "plain"), ("default", "mine")),
        lambda: table.transaction().set_properties(a="b").commit_transaction(),
        lambda: table.delete(),
    ):
        with pytest.raises((RESTError, NotImplementedError, NoSuchNamespaceError)) as refused:
            change()
        # pyiceberg looks at the list of endpoints before it asks for some calls.
        assert "read-only" in str(refused.value) or "not support" in str(refused.value), refused.value
    assert str(catalog.load_table(("default", "plain")).current_snapshot().snapshot_id) == told["plain"]["snapshot_id"]


def test_duckdb_attaches_the_catalog(told, broker, bucket):
    connection = duckdb.connect()
    for name in ("httpfs", "avro", "iceberg"):
        module = __import__(f"duckdb_extension_{name}")
        [extension] = Path(module.__file__).parent.glob(f"extensions/*/{name}.duckdb_extension")
        connection.execute(f"LOAD '{extension}'")
    if bucket.endpoint:
        connection.execute(f"CREATE SECRET (TYPE s3, KEY_ID 'test', SECRET 'test', REGION 'us-east-1', ENDPOINT '{bucket.endpoint}', "
                           "USE_SSL false, URL_STYLE 'path')")
    connection.execute(f"ATTACH 'lakebed' AS lake (TYPE iceberg, ENDPOINT 'http://{broker.http}/iceberg', AUTHORIZATION_TYPE 'none', "
                       "ACCESS_DELEGATION_MODE 'none')")
    names = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'").fetchall()}
    assert names == set(told)
    for name, version in told.items():
        rows = connection.execute(f'SELECT _kafka_partition, _kafka_offset FROM lake."default"."{name}"').fetchall()
        assert sorted(rows) == offsets(version), name
    with pytest.raises(duckdb.Error):
        connection.execute('INSERT INTO lake."default"."emptied" SELECT * FROM lake."default"."plain"')


def ask(broker, path, method="GET", headers=None):
    """Status, headers and body of an answer of the catalog."""
    request = urllib.request.Request(f"http://{broker.http}/iceberg/v1/{path}", method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=READY_SECONDS) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_the_catalog_answers_over_http_as_the_specification_says(told, broker):
    status, headers, body = ask(broker, "config")
    assert (status, headers["content-type"]) == (200, "application/json") and json.loads(body)["endpoints"]
    status, headers, body = ask(broker, "namespaces/default/tables/plain")
    assert (status, json.loads(body)["metadata-location"]) == (200, told["plain"]["metadata"])
    assert ask(broker, "namespaces/default/tables/plain", headers={"If-None-Match": headers["etag"]})[0] == 304
    assert ask(broker, "namespaces/default/tables/plain", "HEAD")[0] == 204
    pages, token = [], ""
    while token is not None:
        page = json.loads(ask(broker, f"namespaces/default/tables?pageSize=2&pageToken={token}")[2])
        pages.append([table["name"] for table in page["identifiers"]])
        token = page["next-page-token"]
    assert [name for page in pages for name in page] == sorted(told) and max(map(len, pages)) == 2
    for method, path, status, kind in [
        ("GET", "namespaces/default/tables/nothing", 404, "NoSuchTableException"),
        ("GET", "namespaces/a%1Fb/tables", 404, "NoSuchNamespaceException"),
        ("GET", "namespaces/default/tables?pageSize=x", 400, "BadRequestException"),
        ("POST", "namespaces/default/tables/plain", 406, "UnsupportedOperationException"),
        ("DELETE", "namespaces/default", 406, "UnsupportedOperationException"),
    ]:
        answered, _, body = ask(broker, path, method)
        error = json.loads(body)["error"]
        assert (answered, error["code"], error["type"]) == (status, status, kind), error


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_broker_without_tables_has_a_catalog(broker):
    assert json.loads(ask(broker, "namespaces")[2])["namespaces"] == [["default"]]
    assert json.loads(ask(broker, "namespaces/default/tables")[2])["identifiers"] == []


def test_what_the_settings_hand_out_goes_to_those_who_load_a_table_and_nowhere_else(start_broker, tmp_bucket):
    told = {"s3.endpoint": "http://minio.example:9000", "s3.access-key-id": "reader", "s3.secret-access-key": "hush=hush"}
    properties = ",".join(f"{name}={value}" for name, value in told.items())
    broker = start_broker(tmp_bucket, arguments=["--catalog-properties", properties, "--catalog-refresh=false"])
    create_topic(broker, "orders", 1)
    loaded = json.loads(ask(broker, "namespaces/default/tables/orders")[2])
    assert told.items() <= loaded["config"].items()
    # Without refresh a load shows what was published, unless its client asks for more.
    producer = Producer({"bootstrap.servers": broker.kafka})
    producer.produce("orders", b"1")
    assert producer.flush(READY_SECONDS) == 0
    location = lambda headers=None: json.loads(ask(broker, "namespaces/default/tables/orders", headers=headers)[2])["metadata-location"]
    assert location() == loaded["metadata-location"] != location({"X-Lakebed-Refresh": "true"})
    for path in ("config", "namespaces/default/tables"):
        assert b"hush" not in ask(broker, path)[2]
    assert "hush" not in Path(broker.log).read_text()
    for arguments in (["config", "show"], ["config", "show", "--output", "json"]):
        shown = subprocess.run([BINARY, *arguments, "--store", tmp_bucket.url, "--catalog-properties", properties], capture_output=True, text=True, timeout=READY_SECONDS)
        assert "hush" not in shown.stdout + shown.stderr and "minio.example" in shown.stdout, shown
    refused = subprocess.run([BINARY, "serve", "--store", tmp_bucket.url, "--catalog-properties", "s3.secret-access-key=hush,hush"],
                             capture_output=True, text=True, timeout=READY_SECONDS)
    assert refused.returncode != 0 and "NAME=VALUE" in refused.stderr and "hush" not in refused.stdout + refused.stderr, refused
