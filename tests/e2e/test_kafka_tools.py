"""The command line tools that come with Apache Kafka, against a broker of ours: what an operator of Kafka types."""

import json
import os
import subprocess

from conftest import ROOT

JARS = ROOT / "tests/.tools/kafka"
TOOLS = "org.apache.kafka.tools"
CONFIGS = "kafka.admin.ConfigCommand"


def tool(name, broker, *arguments, stdin=""):
    """Runs a tool to its end. Returns the lines that it printed."""
    assert list(JARS.glob("kafka-tools-*.jar")), f"{JARS} is empty: tests/run e2e fills it"
    command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*", name if "kafka" in name else f"{TOOLS}.{name}", "--bootstrap-server", broker.kafka]
    result = subprocess.run([*command, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result.stdout.splitlines()


def test_topics_are_made_listed_and_deleted(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    made = tool("TopicCommand", broker, "--create", "--topic", "orders", "--partitions", 2, "--config", "retention.ms=86400000")
    assert made == ["Created topic orders."]
    tool("TopicCommand", broker, "--alter", "--topic", "orders", "--partitions", 3)
    assert tool("TopicCommand", broker, "--list") == ["orders"]
    described = tool("TopicCommand", broker, "--describe", "--topic", "orders")
    assert "PartitionCount: 3" in described[0] and "retention.ms=86400000" in described[0], described
    assert len(described) == 4
    changed = tool(CONFIGS, broker, "--alter", "--entity-type", "topics", "--entity-name", "orders", "--add-config", "retention.ms=5000")
    assert changed == ["Completed updating config for topic orders."]
    settings = tool(CONFIGS, broker, "--describe", "--entity-type", "topics", "--entity-name", "orders")
    assert any("retention.ms=5000" in setting for setting in settings), settings
    tool("TopicCommand", broker, "--delete", "--topic", "orders")
    assert tool("TopicCommand", broker, "--list") == [""]


def test_what_the_console_sends_the_console_shows(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    tool("TopicCommand", broker, "--create", "--topic", "lines", "--partitions", 1)
    lines = [f"key {number}\tvalue {number}" for number in range(100)]
    tool("ConsoleProducer", broker, "--topic", "lines", "--property", "parse.key=true", stdin="\n".join(lines) + "\n")
    assert tool("GetOffsetShell", broker, "--topic", "lines") == ["lines:0:100"]
    shown = tool("consumer.ConsoleConsumer", broker, "--topic", "lines", "--from-beginning", "--max-messages", 60, "--group", "shown",
                 "--property", "print.key=true", "--consumer-property", "max.poll.records=60")
    assert shown == lines[:60]
    rest = tool("consumer.ConsoleConsumer", broker, "--topic", "lines", "--max-messages", 40, "--group", "shown",
                "--property", "print.key=true")
    assert rest == lines[60:]
    group = tool("consumer.group.ConsumerGroupCommand", broker, "--describe", "--group", "shown")
    row = dict(zip(group[1].split(), group[2].split(), strict=False))
    assert (row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"]) == ("100", "100", "0"), group
    assert tool("consumer.group.ConsumerGroupCommand", broker, "--list") == ["shown"]
    reset = tool("consumer.group.ConsumerGroupCommand", broker, "--reset-offsets", "--group", "shown", "--topic", "lines", "--to-offset", 7, "--execute")
    assert reset[-1].split()[-1] == "7", reset
    assert "Deletion of requested consumer groups ('shown') was successful." in tool(
        "consumer.group.ConsumerGroupCommand", broker, "--delete", "--group", "shown")


def test_the_verifiable_clients_agree(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket)
    tool("TopicCommand", broker, "--create", "--topic", "verified", "--partitions", 3)
    told = [json.loads(line) for line in tool("VerifiableProducer", broker, "--topic", "verified", "--max-messages", 3000)]
    sent = {(event["partition"], event["offset"]): event["value"] for event in told if event["name"] == "producer_send_success"}
    assert len(sent) == 3000 and [event for event in told if event["name"] == "producer_send_error"] == []
    told = [json.loads(line) for line in tool(
        "VerifiableConsumer", broker, "--topic", "verified", "--group-id", "verified", "--max-messages", 3000, "--verbose")]
    seen = {(event["partition"], event["offset"]): event["value"] for event in told if event["name"] == "record_data"}
    assert seen == sent
    assert any(event["name"] == "offsets_committed" and event["success"] for event in told)
