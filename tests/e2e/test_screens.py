"""What each verb prints, whole: as people see it, compared with `screens/`, and as programs do, checked against `docs/cli.schema.json`.

A screen that is meant to change: `LAKEBED_TEST_BLESS=1` writes it anew; look at the difference before it is committed.
"""

import json
import os
import pty
import re
import signal
import subprocess

import pytest
from conftest import BINARY, ROOT, read_line
from schema import check_json

SCREENS = ROOT / "tests/e2e/screens"


def plain(text, *places):
    """The text without what differs from run to run: ids, ports, paths and what was measured; columns that they make wider are narrowed."""
    for place in places:
        text = text.replace(str(place), "DIR")
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"127\.0\.0\.1:[0-9]{4,5}\b(?<!:7070)(?<!:9092)", "127.0.0.1:PORT", text)
    text = re.sub(r"\(process [0-9]+\)", "(process N)", text)
    text = re.sub(r"[0-9]{10}-[0-9a-z]+/[0-9]{12}\.parquet", "OBJECT", text)
    text = re.sub(r"[0-9]+ +file://", "BYTES  file://", text)
    text = re.sub(r"\b[0-9]+ s$", "N s", text, flags=re.M)
    text = re.sub(r"\b[0-9]+\.[0-9] s ", "N s ", text)
    text = re.sub(r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z", "TIME", text)
    text = re.sub(r"lakebed [0-9.]+ \([0-9a-f]{12}|lakebed [0-9.]+ \(unknown", "lakebed VERSION (COMMIT", text)
    return re.sub(r"  +", "  ", text)


def check_screen(name, result, *places):
    """Compares what a verb printed, and how it ended, with the screen of that name."""
    parts = [f"[exit {result.returncode}]\n"]
    parts += [f"--- stdout\n{result.stdout}"] if result.stdout else []
    parts += [f"--- stderr\n{result.stderr}"] if result.stderr else []
    seen, path = plain("".join(parts), *places), SCREENS / f"{name}.txt"
    if os.environ.get("LAKEBED_TEST_BLESS"):
        path.write_text(seen)
    assert path.exists(), f"{path} is missing: {seen}"
    assert seen == path.read_text()


@pytest.fixture
def cluster(start_broker, tmp_bucket, lakebed):
    """A broker with one topic of two records; answers a function that runs a verb on it."""
    broker = start_broker(tmp_bucket)

    def run(*arguments, **options):
        return lakebed(*arguments, "--server", broker.http, **options)

    assert run("topic", "create", "orders", "--partitions", "2", "--config", "retention.ms=86400000").returncode == 0
    assert run("produce", "orders", "--partition", "1", input="a\nb\n").returncode == 0
    # A group that has read one of the records.
    assert run("group", "reset", "billing", "--to", "1", "--topic", "orders:1").returncode == 0
    run.broker = broker
    return run


VERBS = {
    "topic-create": ("topic", "create", "returns", "--partitions", "1"),
    "topic-create-validate-only": ("topic", "create", "returns", "--partitions", "3", "--validate-only"),
    "topic-list": ("topic", "list"),
    "topic-describe": ("topic", "describe", "orders"),
    "topic-alter": ("topic", "alter", "orders", "--partitions", "3", "--config", "max.message.bytes=2000", "--unset", "retention.ms"),
    "topic-alter-validate-only": ("topic", "alter", "orders", "--partitions", "3", "--validate-only"),
    "topic-segments": ("topic", "segments", "orders"),
    "topic-delete": ("topic", "delete", "orders"),
    "group-list": ("group", "list"),
    "group-describe": ("group", "describe", "billing"),
    "group-offsets": ("group", "offsets", "billing"),
    "group-reset": ("group", "reset", "billing", "--to", "end"),
    "group-reset-validate-only": ("group", "reset", "billing", "--shift-by", "-5", "--validate-only"),
    "group-delete": ("group", "delete", "billing"),
    "group-delete-validate-only": ("group", "delete", "billing", "--validate-only"),
    "group-delete-topic": ("group", "delete", "billing", "--topic", "orders"),
    "cluster-info": ("cluster", "info"),
    "cluster-health": ("cluster", "health", "--exit-code"),
}
# The definition that one line of `-o jsonl` keeps to, and the whole of `-o json`.
DOCUMENTS = {
    "topic-create": ("topic", "topic"),
    "topic-create-validate-only": ("topic", "topic"),
    "topic-list": ("topic", "topics"),
    "topic-describe": ("described_topic", "described_topic"),
    "topic-alter": ("topic", "topic"),
    "topic-alter-validate-only": ("topic", "topic"),
    "topic-segments": ("segment", "segments"),
    "topic-delete": ("deleted_topic", "deleted_topic"),
    "group-list": ("group", "groups"),
    "group-describe": ("described_group", "described_group"),
    "group-offsets": ("committed_offset", "committed_offsets"),
    "group-reset": ("moved_offset", "moved_offsets"),
    "group-reset-validate-only": ("moved_offset", "moved_offsets"),
    "group-delete": ("deleted_group", "deleted_group"),
    "group-delete-validate-only": ("deleted_group", "deleted_group"),
    "group-delete-topic": ("deleted_group", "deleted_group"),
    "cluster-info": ("cluster", "cluster"),
    "cluster-health": ("health", "health"),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_prints_for_people(cluster, tmp_path, name):
    check_screen(name, cluster(*VERBS[name]), tmp_path)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_prints_json_as_the_schema_says(cluster, name):
    line, document = DOCUMENTS[name]
    for format, definition in (("json", document), ("jsonl", line)):
        result = cluster(*VERBS[name], "-o", format)
        if result.returncode == 0:
            assert result.stderr == "", "notices are for people"
            texts = [result.stdout] if format == "json" else result.stdout.splitlines()
            assert texts and all(check_json(text, definition) for text in texts)
        else:
            # It was done by the first of the two.
            assert format == "jsonl" and name in ("topic-create", "topic-delete", "topic-alter", "group-delete"), result.stderr
            assert check_json(result.stderr, "error")["error"]["code"] in (
                "TOPIC_ALREADY_EXISTS", "TOPIC_NOT_FOUND", "INVALID_PARTITION_COUNT", "GROUP_NOT_FOUND")


def test_a_change_of_a_topic_is_seen_and_one_that_is_only_checked_is_not(cluster):
    def described():
        return json.loads(cluster("topic", "describe", "orders", "-o", "json").stdout)

    before = described()
    assert cluster(*VERBS["topic-alter-validate-only"]).returncode == 0 and cluster("topic", "delete", "orders", "--validate-only").returncode == 0
    assert cluster(*VERBS["topic-create-validate-only"]).returncode == 0 and described() == before
    assert len(json.loads(cluster("topic", "list", "-o", "json").stdout)["topics"]) == 1
    assert cluster(*VERBS["topic-alter"]).returncode == 0
    after = described()
    assert (after["partition_count"], after["config"]) == (3, {"max.message.bytes": "2000"})
    assert after["partitions"][1]["latest_offset"] == 2 and after["id"] == before["id"]


def test_segments_name_the_objects_that_hold_the_records(cluster, tmp_path):
    listed = json.loads(cluster("topic", "segments", "orders", "-o", "json").stdout)["segments"]
    assert sum(segment["row_count"] for segment in listed) == 2
    for segment in listed:
        path = segment["uri"].removeprefix("file://")
        assert os.path.getsize(path) == segment["object_bytes"], segment


def test_records_and_measurements_are_json_as_the_schema_says(cluster):
    assert check_json(cluster("produce", "orders", "-o", "json", input="c\n").stdout, "produced") == {"topic": "orders", "records": 1}
    consumed = cluster("consume", "orders", "--partition", "1", "--count", "2", "-o", "jsonl")
    assert [check_json(line, "record")["value"] for line in consumed.stdout.splitlines()] == ["a", "b"]
    measured = cluster("bench", "grpc", "--volume", "64KiB", "-o", "json")
    assert check_json(measured.stdout, "bench")["bytes"] > 0, measured.stderr


FAILURES = {
    "failure-no-topic": (("topic", "describe", "nobody"), 3),
    "failure-topic-exists": (("topic", "create", "orders"), 4),
    "failure-topic-name": (("topic", "create", "a/b"), 2),
    "failure-setting": (("topic", "create", "returns", "--config", "retention=1"), 2),
    "failure-alter-nothing": (("topic", "alter", "orders"), 2),
    "failure-fewer-partitions": (("topic", "alter", "orders", "--partitions", "1"), 2),
    "failure-set-and-unset": (("topic", "alter", "orders", "--config", "retention.ms=1", "--unset", "retention.ms"), 2),
    "failure-no-group": (("group", "describe", "nobody"), 3),
    "failure-reset-nowhere": (("group", "reset", "billing"), 2),
    "failure-reset-outside": (("group", "reset", "billing", "--to", "9"), 4),
    "failure-reset-file": (("group", "reset", "billing", "--file", "/dev/null"), 2),
    "failure-verb": (("topic", "lst"), 2),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_to_people_and_to_programs(cluster, tmp_path, name):
    arguments, code = FAILURES[name]
    result = cluster(*arguments)
    assert result.returncode == code and result.stdout == "", result.stderr
    check_screen(name, result, tmp_path)
    told = cluster(*arguments, "-o", "json")
    assert told.returncode == code and told.stdout == ""
    assert check_json(told.stderr, "error")["error"]["code"].isupper()


def test_a_broker_that_is_not_there_is_told_with_who_named_it(lakebed, tmp_path):
    environment = {**os.environ, "LAKEBED_PROFILE_DIR": str(tmp_path)}
    check_screen("failure-not-there-flag", lakebed("topic", "list", "--server", "127.0.0.1:1", env=environment))
    check_screen("failure-not-there-variable", lakebed("cluster", "info", env={**environment, "LAKEBED_SERVER": "127.0.0.1:1"}))
    (tmp_path / "away.toml").write_text('server = "127.0.0.1:1"\n')
    check_screen("profile-use", lakebed("profile", "use", "away", env=environment), tmp_path)
    check_screen("failure-not-there-profile", lakebed("cluster", "health", env=environment), tmp_path)
    told = lakebed("cluster", "health", "-o", "jsonl", env=environment)
    assert told.returncode == 5 and check_json(told.stderr, "error")["error"]["code"] == "NOT_CONNECTED"


MISTAKES = """# five mistakes
memry = "1GiB"
flush_interval = 250
default_partitions = 0
  auto_create_topics = "yes"
flush_bytes = "8MBs"
"""


def test_a_configuration_with_five_mistakes_is_told_whole(lakebed, tmp_path):
    path = tmp_path / "lakebed.toml"
    path.write_text(MISTAKES)
    arguments = ("serve", "--store", "memory://", "--config", path)
    result = lakebed(*arguments)
    check_screen("failure-five-mistakes", result, tmp_path)
    lines = [f"{path}:{line}" for line in (2, 3, 4, 5, 6)]
    assert result.returncode == 2 and all(line in result.stderr for line in lines)
    told = check_json(lakebed(*arguments, "-o", "json").stderr, "error")["error"]
    assert [problem["origin"]["line"] for problem in told["problems"]] == [2, 3, 4, 5, 6]


def test_all_sources_of_settings_are_told_with_their_problems(lakebed, tmp_path):
    path = tmp_path / "lakebed.toml"
    path.write_text('memory = true\n')
    environment = {**os.environ, "LAKEBED_CONFIG": str(path), "LAKEBED_MEMROY": "1GiB", "LAKEBED_CONNECTIONS_MAX": "many"}
    check_screen("failure-all-sources", lakebed("serve", "--flush-interval", "10y", env=environment), tmp_path)


def test_settings_are_shown_with_their_origins(lakebed, tmp_path):
    path = tmp_path / "lakebed.toml"
    path.write_text('memory = "200MiB"\nstore = "s3://id:hush@bucket/prefix"\n')
    environment = {**os.environ, "LAKEBED_FLUSH_INTERVAL": "20ms"}
    arguments = ("config", "show", "--origin", "--config", path, "--no-tail", "--advertise", "kafka.example:9092")
    result = lakebed(*arguments, env=environment)
    assert "hush" not in result.stdout and re.search("^listen +127.0.0.1:7070 +default$", result.stdout, flags=re.M)
    # A setting that is added later changes nothing here.
    result.stdout = "".join(line for line in result.stdout.splitlines(keepends=True) if not line.endswith("default\n"))
    check_screen("config-show-origin", result, tmp_path)
    shown = {setting["name"]: setting for setting in check_json(lakebed(*arguments, "-o", "json", env=environment).stdout, "settings")["settings"]}
    assert shown["memory"] == {"name": "memory", "value": "200MiB", "origin": {"kind": "file", "file": str(path), "line": 1, "column": 10}}
    assert shown["flush_interval"]["origin"] == {"kind": "variable", "name": "LAKEBED_FLUSH_INTERVAL"}
    assert shown["advertise"]["origin"] == {"kind": "flag", "name": "--advertise"}
    assert shown["listen"]["origin"] == {"kind": "default"}


def test_the_template_starts_a_broker(start_broker, tmp_bucket, lakebed, tmp_path):
    template = lakebed("config", "template").stdout
    path = tmp_path / "lakebed.toml"
    path.write_text(template.replace("#default_partitions = 1", "default_partitions = 6"))
    broker = start_broker(tmp_bucket, arguments=["--config", str(path)])
    made = lakebed("topic", "create", "six", "--server", broker.http, "-o", "json")
    assert json.loads(made.stdout)["partition_count"] == 6


FREE = ("--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
STARTS = {
    "failure-port": (("serve", "--store", "memory://", "--kafka-listen", "127.0.0.1:0", "--listen", "BROKER"), "ADDRESS_IN_USE"),
    "failure-foreign-address": (("serve", "--store", "memory://", "--kafka-listen", "203.0.113.1:0", "--listen", "127.0.0.1:0"), "NOT_LISTENING"),
    "failure-file-as-store": (("serve", "--store", "DIR/file", *FREE), "STORE_NOT_OPENED"),
    "failure-directory": (("serve", "--store", "/proc/lakebed", *FREE), "STORE_NOT_OPENED"),
    "failure-store-scheme": (("serve", "--store", "s4://id:hush@bucket", *FREE), "STORE_NOT_OPENED"),
    "failure-secret-in-store": (("serve", "--store", "s3://id:hush@bucket", *FREE), "STORE_NOT_OPENED"),
    "failure-no-store": (("serve",), "CONFIG_INVALID"),
    "failure-same-ports": (("serve", "--store", "memory://", "--listen", "127.0.0.1:9092"), "CONFIG_INVALID"),
    "failure-flag": (("serve", "--flush-intervall", "2ms"), "USAGE"),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_broker_that_can_not_start_says_why_and_who_said_so(start_broker, tmp_bucket, lakebed, tmp_path, name):
    arguments, code = STARTS[name]
    (tmp_path / "file").write_text("no directory")
    broker = start_broker(tmp_bucket) if "BROKER" in arguments else None
    arguments = [argument.replace("BROKER", broker.http if broker else "").replace("DIR", str(tmp_path)) for argument in arguments]
    result = lakebed(*arguments)
    assert result.returncode in (1, 2) and result.stdout == "" and "hush" not in result.stderr
    check_screen(name, result, tmp_path)
    told = lakebed(*arguments, "-o", "json").stderr
    assert check_json(told, "error")["error"]["code"] == code and "hush" not in told


def test_client_verbs_find_the_broker_that_dev_started_last(lakebed, tmp_path):
    environment = {**os.environ, "LAKEBED_PROFILE_DIR": str(tmp_path / "profiles")}

    def dev(name):
        command = [BINARY, "dev", "--store", tmp_path / name, *FREE]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=environment)
        running.append(process)
        return process, json.loads(read_line(process, 30))

    def current():
        shown = lakebed("profile", "show", "-o", "json", env=environment)
        return check_json(shown.stdout, "profile")["server"] if shown.returncode == 0 else shown.returncode

    def stop(process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0

    running = []
    try:
        first, first_ready = dev("first")
        assert lakebed("topic", "create", "here", env=environment).returncode == 0 and current() == first_ready["http"]
        check_screen("profile-show", lakebed("profile", "show", env=environment), tmp_path)
        check_screen("profile-list", lakebed("profile", "list", env=environment), tmp_path)
        check_json(lakebed("profile", "list", "-o", "json", env=environment).stdout, "profiles")
        second, second_ready = dev("second")
        assert current() == second_ready["http"]
        assert lakebed("topic", "list", "-o", "json", env=environment).stdout.count("here") == 0, "it is the second that is asked"
        stop(first)
        assert current() == second_ready["http"], "the profile of the second stays"
        stop(second)
        assert current() == 3
        check_screen("failure-no-profile", lakebed("profile", "show", env=environment), tmp_path)
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdout.close()


def test_dev_serves_where_no_profile_can_be_written(lakebed, tmp_path):
    (tmp_path / "file").write_text("no directory")
    environment = {**os.environ, "LAKEBED_PROFILE_DIR": str(tmp_path / "file")}
    command = [BINARY, "dev", "--store", "memory://", *FREE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=environment) as process:
        try:
            ready = json.loads(read_line(process, 30))
            assert lakebed("topic", "list", "--server", ready["http"], env=environment).returncode == 0
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=30)
            assert process.returncode == 0 and b"the profile can't be written" in log
        finally:
            process.kill()


def on_terminal(*arguments, **environment):
    """What the binary prints when its output is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([BINARY, *arguments], stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", **environment})
    os.close(theirs)
    text = b""
    try:
        # Linux answers EIO when the last of the other side has gone.
        while piece := os.read(ours, 4096):
            text += piece
    except OSError:
        pass
    finally:
        os.close(ours)
        process.wait(timeout=30)
    return text.decode()


def test_colours_are_for_terminals_that_want_them(lakebed):
    arguments = ("topic", "list", "--server", "127.0.0.1:1")
    assert "\x1b[" in on_terminal(*arguments)
    assert "\x1b[" not in on_terminal(*arguments, NO_COLOR="1")
    assert "\x1b[" not in lakebed(*arguments).stderr
    assert "\x1b[" in lakebed(*arguments, env={**os.environ, "CLICOLOR_FORCE": "1"}).stderr


def test_the_version_is_told_with_its_commit(lakebed):
    check_screen("version", lakebed("--version"))
    version = check_json(lakebed("version", "-o", "json").stdout, "version")
    assert lakebed("--version").stdout == f"lakebed {version['version']} ({version['commit']})\n"


def test_a_reader_that_has_gone_is_no_failure(cluster):
    for arguments in (("topic", "list"), ("config", "template")):
        server = ["--server", cluster.broker.http] if arguments[0] == "topic" else []
        ours, theirs = os.pipe()
        os.close(ours)
        result = subprocess.run([BINARY, *arguments, *server], stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(theirs)
        assert (result.returncode, result.stderr) == (0, "")
