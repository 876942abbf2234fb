"""Spark with Iceberg's runtime over a broker's tables, for test_spark.py: reads questions, a JSON object a line, and answers each with a line.

A question is {"table": a name in catalog `lake` (REST) or `files` (the directory, without a broker), "version": a snapshot's id or null}, or {"sql": …}.
An answer is {"rows": …}, with bytes as hexadecimal digits, or {"refused": the first line of the error}.
"""

import json
import sys
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

jars, uri, warehouse, endpoint = sys.argv[1:5]
settings = {
    "spark.jars": ",".join(str(jar) for jar in Path(jars).glob("*.jar")),
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
    "spark.sql.catalog.lake.type": "rest",
    "spark.sql.catalog.lake.uri": uri,
}
if warehouse:
    settings |= {
        "spark.sql.catalog.files": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.files.type": "hadoop",
        "spark.sql.catalog.files.warehouse": warehouse,
    }
if endpoint:
    settings |= {
        "spark.sql.catalog.lake.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "spark.sql.catalog.lake.s3.endpoint": endpoint,
        "spark.sql.catalog.lake.s3.path-style-access": "true",
        "spark.sql.catalog.lake.s3.access-key-id": "test",
        "spark.sql.catalog.lake.s3.secret-access-key": "test",
        "spark.sql.catalog.lake.client.region": "us-east-1",
    }
builder = SparkSession.builder.master("local[1]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")


def digits(value):
    if value is None:
        return None
    return (value.encode() if isinstance(value, str) else bytes(value)).hex()


def rows(frame):
    columns = ["_kafka_partition", "_kafka_offset", "unix_millis(_kafka_timestamp) AS time", "_kafka_headers AS headers", "key", "value"]
    answer = []
    for row in frame.selectExpr(*columns).collect():
        headers = [[header["key"], digits(header["value"])] for header in row["headers"]] if row["headers"] else None
        time = -1 if row["time"] is None else row["time"]
        answer.append([row["_kafka_partition"], row["_kafka_offset"], time, headers, digits(row["key"]), digits(row["value"])])
    return sorted(answer, key=lambda row: row[:2])


for line in sys.stdin:
    question = json.loads(line)
    try:
        if "sql" in question:
            answer = {"rows": [list(row.asDict().values()) for row in spark.sql(question["sql"]).collect()]}
        else:
            reader = spark.read.option("versionAsOf", question["version"]) if question.get("version") else spark.read
            answer = {"rows": rows(reader.table(question["table"]))}
    except PySparkException as error:
        answer = {"refused": str(error).splitlines()[0]}
    except Exception as error:  # What Java throws comes as it is.
        answer = {"refused": str(error).split("\n\tat ")[0][:500]}
    print(json.dumps(answer, default=str), flush=True)
