"""Disaster after disaster: the log is lost, and some of the tables' files can't be read either. What is told of them is exact, nothing is done without
being asked for, and then everything else comes back.
"""

import json
import shutil
from pathlib import Path

import pytest
from kafka_clients import create_topic
from schema import check_json
from test_key_compaction import EAGER, TOPIC, compacted, drawn, wait_until
from test_key_compaction import consumed as keyed_consumed
from test_key_compaction import produce as keyed
from test_recover import alter, lose, lose_all_but_tables, newest_metadata, plainly_consumed, produce_to, recover, root_of, told
from test_tables import catalog, duck, rows_of

PARTITIONS = 2


def refused(lakebed, bucket, *arguments):
    """What a recovery says that writes nothing."""
    before = contents(bucket)
    result = lakebed("recover", bucket.url, "-o", "json", *arguments)
    assert result.returncode == 1, result
    error = check_json(result.stderr, "error")["error"]
    shown = check_json(result.stdout, "recovered")
    assert error["code"] == "DAMAGE_FOUND" and "--set-aside" in error["hint"] and not shown["written"]
    assert contents(bucket) == before, "nothing was changed"
    return shown


def contents(bucket):
    root = root_of(bucket)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != "lock"}


def files_of(bucket, table):
    return sorted((root_of(bucket) / f"tables/default/{table}/data").glob("*.parquet"))


def flip(path, at=60):
    """Flips a bit of a file: of its rows, or from its end."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def missing_of(shown):
    return {(one["topic"], one["partition"], one["base_offset"], one["last_offset"], one["sure"]) for one in shown["missing"]}


@pytest.fixture
def four_files(start_broker, tmp_bucket):
    """A root of which only tables/ is left, with a topic of four files of a hundred records of each partition, and another topic."""
    broker = start_broker(tmp_bucket)
    for topic in ("orders", "other"):
        create_topic(broker, topic, PARTITIONS, config={"retention.ms": "-1"})
        for _ in range(4):
            produce_to(broker, topic, {0: 100, 1: 100})
            catalog(broker, tmp_bucket).load_table(f"default.{topic}")
    got = {topic: plainly_consumed(broker, topic, PARTITIONS) for topic in ("orders", "other")}
    lose(broker, tmp_bucket)
    assert len(files_of(tmp_bucket, "orders")) == 4
    return got


def check_goes_on(start_broker, lakebed, bucket, got, lost, ends):
    """What a recovered root serves: all of `got` but the `lost`, and it goes on at the `ends`."""
    broker = start_broker(bucket)
    left = [row for row in got["orders"] if row[:2] not in lost]
    assert len(left) == len(got["orders"]) - len(lost)
    assert plainly_consumed(broker, "orders", PARTITIONS) == left and plainly_consumed(broker, "other", PARTITIONS) == got["other"]
    config, partitions = told(lakebed, broker, "orders")
    assert config == {"retention.ms": "-1"} and [end for _, _, end in partitions] == ends
    produce_to(broker, "orders", {0: 3, 1: 3})
    after = plainly_consumed(broker, "orders", PARTITIONS)
    assert [row[:2] for row in after] == sorted([row[:2] for row in left] + [(p, ends[p] + n) for p in range(PARTITIONS) for n in range(3)])
    table = catalog(broker, bucket).load_table("default.orders")
    assert [row[:2] for row in rows_of(table)] == [row[:2] for row in after]
    # With the table's next version nothing leads to what was lost.
    assert lakebed("storage", "scrub", bucket.url).returncode == 0
    connection = duck(broker, bucket)
    query = "SELECT count(*), count(DISTINCT (_kafka_partition, _kafka_offset)) FROM "
    assert connection.execute(query + "lake.default.orders").fetchone() == (len(after), len(after))
    assert connection.execute(query + f"iceberg_scan('{table.metadata.location}')").fetchone() == (len(after), len(after))
    broker.restart(kill=True)
    assert plainly_consumed(broker, "orders", PARTITIONS) == after
    return broker, after


@pytest.mark.parametrize("number", [0, 1, 3])
def test_of_a_damaged_file_every_offset_is_told_and_all_others_come_back(four_files, start_broker, tmp_bucket, lakebed, number):
    damaged = files_of(tmp_bucket, "orders")[number]
    flip(damaged)
    bytes_ = damaged.read_bytes()
    key = str(damaged.relative_to(root_of(tmp_bucket)))
    lost = {(p, offset) for p in range(PARTITIONS) for offset in range(number * 100, number * 100 + 100)}
    expected = {("orders", p, number * 100, number * 100 + 99, True) for p in range(PARTITIONS)}
    for arguments in ((), ("--dry-run",)):
        shown = refused(lakebed, tmp_bucket, *arguments)
        assert missing_of(shown) == expected and [one["key"] for one in shown["damaged"]] == [key] and shown["left_out"] == shown["wrong"] == []
    before = contents(tmp_bucket)
    dry = recover(lakebed, tmp_bucket, "--set-aside", "--dry-run")
    assert missing_of(dry) == expected and not dry["written"] and contents(tmp_bucket) == before
    shown = recover(lakebed, tmp_bucket, "--set-aside")
    assert shown["written"] and missing_of(shown) == expected and shown["set_aside"] == [{"key": key, "to": f"set-aside/{key}"}]
    assert (root_of(tmp_bucket) / "set-aside" / key).read_bytes() == bytes_ and not damaged.exists()
    _, after = check_goes_on(start_broker, lakebed, tmp_bucket, four_files, lost, [400, 400])
    assert len(after) == 606


def test_a_second_disaster_finds_what_the_first_recovery_has_left(four_files, start_broker, tmp_bucket, lakebed):
    flip(files_of(tmp_bucket, "orders")[2])
    assert recover(lakebed, tmp_bucket, "--set-aside")["written"]
    lost = {(p, offset) for p in range(PARTITIONS) for offset in range(200, 300)}
    broker, after = check_goes_on(start_broker, lakebed, tmp_bucket, four_files, lost, [400, 400])
    before = told(lakebed, broker, "orders")
    broker.stop()
    for metadata in (True, False):
        lose_all_but_tables(tmp_bucket)
        if not metadata:
            shutil.rmtree(root_of(tmp_bucket) / "tables/default/orders/metadata")
        shown = recover(lakebed, tmp_bucket)
        assert shown["written"] and shown["missing"] == shown["wrong"] == shown["damaged"] == []
        broker = start_broker(tmp_bucket)
        assert plainly_consumed(broker, "orders", PARTITIONS) == after and told(lakebed, broker, "orders")[1] == before[1]
        catalog(broker, tmp_bucket).load_table("default.orders")
        broker.stop()


def test_of_a_file_that_is_gone_the_metadata_tells_what_may_be_missing(four_files, start_broker, tmp_bucket, lakebed):
    files = files_of(tmp_bucket, "orders")
    files[1].unlink()
    files[3].unlink()
    shown = refused(lakebed, tmp_bucket)
    expected = {("orders", p, first, first + 99, False) for p in range(PARTITIONS) for first in (100, 300)}
    assert missing_of(shown) == expected and shown["damaged"] == [] and all("is missing" in one["why"] for one in shown["missing"])
    text = lakebed("recover", tmp_bucket.url)
    assert "missing     orders, partition 0, perhaps offsets 100 to 199: file " in text.stdout and "not everything can be recovered of orders" in text.stderr
    assert missing_of(recover(lakebed, tmp_bucket, "--set-aside")) == expected
    lost = {(p, offset) for p in range(PARTITIONS) for first in (100, 300) for offset in range(first, first + 100)}
    check_goes_on(start_broker, lakebed, tmp_bucket, four_files, lost, [400, 400])


def test_a_file_whose_footer_is_gone_too_is_found_by_the_metadata_and_without_it_nothing_can_tell(four_files, start_broker, tmp_bucket, lakebed):
    flip(files_of(tmp_bucket, "orders")[1], -20)
    assert missing_of(refused(lakebed, tmp_bucket)) == {("orders", p, 100, 199, False) for p in range(PARTITIONS)}
    shutil.rmtree(root_of(tmp_bucket) / "tables/default/orders/metadata")
    shown = refused(lakebed, tmp_bucket)
    assert missing_of(shown) == {("orders", p, 100, 199, True) for p in range(PARTITIONS)}, "those between others are missing for sure"
    [wrong] = shown["wrong"]
    assert wrong["topic"] == "orders" and "nothing tells which records it has" in wrong["what"]
    assert recover(lakebed, tmp_bucket, "--set-aside")["written"]
    broker = start_broker(tmp_bucket)
    left = [row for row in four_files["orders"] if not 100 <= row[1] < 200]
    assert plainly_consumed(broker, "orders", PARTITIONS) == left


def test_a_recovery_that_was_interrupted_before_its_end_tells_the_same_again(four_files, start_broker, tmp_bucket, lakebed):
    damaged = files_of(tmp_bucket, "orders")[1]
    flip(damaged)
    before = contents(tmp_bucket)
    first = recover(lakebed, tmp_bucket, "--set-aside")
    # As it would have left everything right before the log began to count.
    root = root_of(tmp_bucket)
    root_json = json.loads((root / "lakebed.json").read_text())
    [older] = [cell["directory"] for cell in root_json["cells"]]
    [newer] = [path.name for path in (root / "cells/0/log").iterdir() if path.name != older]
    (root / "lakebed.json").unlink()
    (root / "lakebed-recovery.json").write_text(f"{older} {newer}\n")
    damaged.write_bytes(before[str(damaged.relative_to(root))])
    written = {key for key in contents(tmp_bucket) if key.startswith("tables/")} - set(before)
    assert len(written) == 1, "the file before the hole, anew"
    shown = refused(lakebed, tmp_bucket)
    assert shown["resumed"] and missing_of(shown) == missing_of(first)
    again = recover(lakebed, tmp_bucket, "--set-aside")
    assert again["written"] and missing_of(again) == missing_of(first) and not (root / "lakebed-recovery.json").exists()
    lost = {(p, offset) for p in range(PARTITIONS) for offset in range(100, 200)}
    check_goes_on(start_broker, lakebed, tmp_bucket, four_files, lost, [400, 400])


def test_of_a_table_that_can_not_be_read_at_all_everything_is_set_aside(four_files, start_broker, tmp_bucket, lakebed):
    root = root_of(tmp_bucket)
    for path in files_of(tmp_bucket, "orders"):
        flip(path, -20)
    for path in (root / "tables/default/orders/metadata").glob("v*.json"):
        path.write_text("{")
    shown = refused(lakebed, tmp_bucket)
    assert [one["table"] for one in shown["left_out"]] == ["orders"] and [topic["name"] for topic in shown["topics"]] == ["other"]
    before = {key: content for key, content in contents(tmp_bucket).items() if key.startswith("tables/default/orders/")}
    shown = recover(lakebed, tmp_bucket, "--set-aside")
    after = contents(tmp_bucket)
    assert {one["key"] for one in shown["set_aside"]} == set(before) and len(before) > 8
    assert {f"set-aside/{key}": content for key, content in before.items()}.items() <= after.items() and not set(before) & set(after)
    broker = start_broker(tmp_bucket)
    assert plainly_consumed(broker, "other", PARTITIONS) == four_files["other"]
    # Its name is free.
    create_topic(broker, "orders", 1)
    produce_to(broker, "orders", {0: 5})
    assert len(rows_of(catalog(broker, tmp_bucket).load_table("default.orders"))) == 5


def test_of_a_compacted_topic_no_value_comes_back_that_was_superseded(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC, 2, config=EAGER)
    for round_ in range(2):
        for partition in (0, 1):
            assert keyed(broker, drawn(10 * round_ + partition, 400), partition) == []
        compacted(broker, tmp_bucket)
    # Behind what is clean.
    config = {"min.compaction.lag.ms": "3600000"}
    alter(broker, TOPIC, config)
    for partition in (0, 1):
        assert keyed(broker, drawn(90 + partition, 100, keys=9), partition) == []
    catalog(broker, tmp_bucket).load_table(f"default.{TOPIC}")
    live = [one for one in json.loads(lakebed("topic", "files", TOPIC, "--server", broker.http, "-o", "json").stdout)["files"] if one["kind"] == "table"]
    before = {partition: keyed_consumed(broker, partition=partition) for partition in (0, 1)}
    lose(broker, tmp_bucket)
    assert len(live) == 2 and len(files_of(tmp_bucket, TOPIC)) > len(live), "superseded files stand beside"
    newest = sorted(one["uri"].removeprefix("file://") for one in live)[-1]
    flip(Path(newest))
    shown = refused(lakebed, tmp_bucket)
    assert missing_of(shown) == {(TOPIC, partition, 800, 899, True) for partition in (0, 1)}
    assert recover(lakebed, tmp_bucket, "--set-aside")["written"]
    broker = start_broker(tmp_bucket)
    for partition in (0, 1):
        assert keyed_consumed(broker, partition=partition) == [row for row in before[partition] if row[0] < 800]
        assert told(lakebed, broker, TOPIC)[1][partition] == (partition, 0, 900)
    alter(broker, TOPIC, {"min.compaction.lag.ms": "0"})
    fresh = drawn(55, 200)
    assert keyed(broker, fresh, 0) == []
    compacted(broker, tmp_bucket)
    last = {key: (offset, key, value) for offset, key, value in before[0] if offset < 800}
    last |= {key: (900 + number, key, value) for number, (key, value) in enumerate(fresh)}
    wait_until(lambda: len(keyed_consumed(broker)) <= len(last), "all of it is compacted")
    assert keyed_consumed(broker) == sorted(last.values())
    rows = duck(broker, tmp_bucket).execute(
        f"SELECT _kafka_offset, key, value FROM lake.default.{TOPIC} WHERE _kafka_partition = 0 ORDER BY 1").fetchall()
    assert rows == sorted(last.values())


def test_metadata_of_another_table_is_told_and_the_files_decide(four_files, start_broker, tmp_bucket, lakebed):
    newest = newest_metadata(tmp_bucket, "orders")
    newest.write_text(newest_metadata(tmp_bucket, "other").read_text().replace("tables/default/other", "tables/default/orders"))
    shown = recover(lakebed, tmp_bucket)
    # It leads nowhere there, either.
    assert [(one["key"], one["what"]) for one in shown["damaged"]][1:] == [(str(newest.relative_to(root_of(tmp_bucket))), "it is not that of table orders")]
    [orders] = [topic for topic in shown["topics"] if topic["name"] == "orders"]
    assert "it is not that of table orders" in orders["notes"][0]
    broker = start_broker(tmp_bucket)
    assert {topic: plainly_consumed(broker, topic, PARTITIONS) for topic in four_files} == four_files
