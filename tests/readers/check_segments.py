"""Shows files of crate `segment` to readers that are not ours: pyarrow, DuckDB and polars must see the same rows in all of them.

Usage: check_segments.py DIRECTORY, as `cargo run -p lakebed-segment --example write_objects -- DIRECTORY` fills it.
It also runs the query of docs/format.md that computes offsets by hand, word by word as it stands there.
"""

import json
import pathlib
import re
import shutil
import sys
import tempfile

import duckdb
import polars
import pyarrow.parquet

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOPIC_1 = "a0000000-0000-4000-8000-000000000001"
MASK = 2**64 - 1
PRIME = 2**61 - 1
SEED = 0x243F6A8885A308D3
COLUMNS = [
    "_lakebed_topic", "_kafka_partition", "_kafka_timestamp", "_kafka_timestamp_type", "_kafka_ingest_timestamp",
    "_kafka_headers", "key", "value",
]


def micros(moment):
    return moment if moment is None or isinstance(moment, int) else round(moment.timestamp() * 1_000_000)


def headers(value):
    return None if value is None else [(header["key"], header["value"]) for header in value]


def row(values):
    topic = values["_lakebed_topic"]
    return (
        topic.hex() if isinstance(topic, bytes) else str(topic).replace("-", ""),
        values["_kafka_partition"],
        micros(values["_kafka_timestamp"]),
        values["_kafka_timestamp_type"],
        micros(values["_kafka_ingest_timestamp"]),
        headers(values["_kafka_headers"]),
        values["key"],
        values["value"],
    )


def with_pyarrow(path):
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == COLUMNS, table.column_names
    return [row(values) for values in table.to_pylist()]


def with_duckdb(path):
    times = ("_kafka_timestamp", "_kafka_ingest_timestamp")
    # As numbers: DuckDB wants another package to hand out a time with a zone.
    as_numbers = ", ".join(f"epoch_us({name}) AS {name}" for name in times)
    cursor = duckdb.execute(f"SELECT * REPLACE ({as_numbers}) FROM read_parquet(?)", [str(path)])
    names = [column[0] for column in cursor.description]
    assert names == COLUMNS, names
    return [row(dict(zip(names, values))) for values in cursor.fetchall()]


def with_polars(path):
    frame = polars.read_parquet(path)
    assert frame.columns == COLUMNS, frame.columns
    return [row(values) for values in frame.to_dicts()]


READERS = {"pyarrow": with_pyarrow, "duckdb": with_duckdb, "polars": with_polars}


def check_readers(directory):
    """Every reader sees the same rows, and those that the samples are made of."""
    for name, count in {"commit": 26, "segment": 26, "takeover": 0}.items():
        path = directory / f"{name}.parquet"
        seen = {reader: read(path) for reader, read in READERS.items()}
        for reader, rows in seen.items():
            assert len(rows) == count, f"{reader} sees {len(rows)} rows in {name}, not {count}"
            assert rows == seen["pyarrow"], f"{reader} sees other rows in {name} than pyarrow: {rows} {seen['pyarrow']}"
    first, empty, blank, null_header, binary = seen_records(directory)
    assert first[5] == [("trace", b"first"), ("trace", b"second"), ("empty", b""), ("null", None), ("", b"\xff\x00")]
    assert (empty[2], empty[5], empty[6], empty[7]) == (None, None, None, None), empty
    assert (blank[2], blank[6], blank[7]) == (0, b"", b""), blank
    assert null_header[5] == [("only", None)], null_header
    assert (binary[6], binary[7]) == (b"\x00\x9f\x92\x96", "grüße".encode()), binary


def seen_records(directory):
    return with_duckdb(directory / "commit.parquet")[:5]


def check_commit_words(directory):
    """The commit stands in the footer, in words that need none of our code."""
    words = pyarrow.parquet.read_metadata(directory / "commit.parquet").metadata
    commit = json.loads(words[b"lakebed.commit"])
    assert commit["number"] == 12 and commit["entries"][0]["create_topic"]["name"] == "orders", commit
    takeover = json.loads(pyarrow.parquet.read_metadata(directory / "takeover.parquet").metadata[b"lakebed.commit"])
    assert takeover["entries"][0]["takeover"]["next"] == "0000000001-000000000000feed", takeover


def check_pages(directory):
    """Parquet's offset index is there, and names the pages that our own index names."""
    metadata = pyarrow.parquet.read_metadata(directory / "commit.parquet")
    pages = json.loads(metadata.metadata[b"lakebed.pages"])
    start = 4
    for index, column in enumerate(pages):
        chunk = metadata.row_group(0).column(index)
        assert chunk.has_offset_index and chunk.path_in_schema == column["column"]
        assert chunk.data_page_offset == start, column
        start += sum(page[0] for page in column["pages"])


def check_offsets_by_hand(directory):
    """The query of docs/format.md gives exactly the appended rows, with their offsets."""
    text = (ROOT / "docs/format.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```", text, re.S)
    assert len(queries) == 2, len(queries)
    with tempfile.TemporaryDirectory() as bucket:
        log = pathlib.Path(bucket, "cells/0/log/0000000003-000000000000feed")
        log.mkdir(parents=True)
        shutil.copy(directory / "commit.parquet", log / "000000000004.parquet")
        checkpoint = pathlib.Path(bucket, "cells/0/checkpoints/00000000000000000007")
        checkpoint.mkdir(parents=True)
        for part in directory.glob("bucket-*.json"):
            shutil.copy(part, checkpoint / part.name)
        connection = duckdb.connect()
        offsets, runs = (query.replace("'cells/", f"'{bucket}/cells/") for query in queries)
        wrapped = f"SELECT * EXCLUDE (_kafka_timestamp) FROM ({offsets.rstrip().rstrip(';')})"
        rows = connection.execute(wrapped).fetchall()
        connection.execute(runs)
        spans = connection.execute("SELECT base::BIGINT, rows::BIGINT FROM runs WHERE topic = ? AND partition = 0 ORDER BY 1", [TOPIC_1])
        # Keys were compacted in the first: one of its eight rows is left.
        assert spans.fetchall() == [(0, 1), *((base, 8) for base in range(8, 48, 8))]
    assert [(str(topic), partition, offset) for topic, partition, offset, *_ in rows] == [
        *((TOPIC_1, 0, offset) for offset in range(100, 105)), *((TOPIC_1, 2, offset) for offset in range(100, 103))
    ], rows
    assert [value for *_, value in rows[5:]] == [b"value 0", b"value 1", b"value 2"], rows


def fold(state, word):
    product = (state ^ word) * 0x13198A2E03707345
    return (product ^ product >> 64) & MASK ^ (state << 32 | state >> 32) & MASK


def fold_bytes(state, value):
    if value is None:
        return fold(state, MASK)
    state = fold(state, len(value))
    words = [int.from_bytes(value[at:at + 8], "little") for at in range(0, len(value), 8)]
    whole = len(value) // 32 * 4
    if whole:
        lanes = [SEED + lane for lane in range(4)]
        for index, word in enumerate(words[:whole]):
            lanes[index % 4] = fold(lanes[index % 4], word)
        for lane in lanes:
            state = fold(state, lane)
    for word in words[whole:]:
        state = fold(state, word)
    return state


def hash_rows(rows):
    """The hash of docs/format.md, from what another reader sees."""
    total = 0
    for _, _, timestamp, timestamp_type, ingest, pairs, key, value in rows:
        state = SEED
        for word in (-1 if timestamp is None else timestamp // 1000, timestamp_type, ingest // 1000):
            state = fold(state, word & MASK)
        state = fold_bytes(fold_bytes(state, key), value)
        state = fold(state, len(pairs or []))
        for name, content in pairs or []:
            state = fold_bytes(fold_bytes(state, name.encode()), content)
        total = (total * (0x1E3779B97F4A7C15 % PRIME) + state) % PRIME
    return total


def check_hashes(directory):
    """The hashes that the commit states are those of the rows that DuckDB sees."""
    words = pyarrow.parquet.read_metadata(directory / "commit.parquet").metadata
    rows = with_duckdb(directory / "commit.parquet")
    checked = 0
    for entry in json.loads(words[b"lakebed.commit"])["entries"]:
        for topic in entry.get("flush", {"topics": []})["topics"]:
            for run in topic["runs"]:
                first = run["first_row"]
                for count, _, _, _, expected, *_ in run["batches"]:
                    assert f"{hash_rows(rows[first:first + count]):016x}" == expected, run
                    first += count
                    checked += count
    assert checked == len(rows), checked


def main():
    directory = pathlib.Path(sys.argv[1])
    for check in (check_readers, check_commit_words, check_pages, check_hashes, check_offsets_by_hand):
        check(directory)
        print(f"ok: {check.__doc__.strip()}")


if __name__ == "__main__":
    main()
