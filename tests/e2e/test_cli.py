"""The command line as a user meets it: what each verb prints, and one clear line when it can't."""


def told(result, code):
    """The lines of stderr of a verb that ended with `code`."""
    assert result.returncode == code, result.stderr
    return result.stderr.splitlines()


def test_a_topic_is_made_written_read_shown_and_deleted(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    at = ["--server", broker.http]
    assert told(lakebed("topic", *at, "create", "orders", "--partitions", "2"), 0) == ["created topic orders with 2 partitions"]
    assert lakebed("topic", *at, "list").stdout == "orders\t2\n"
    lines = "a\n\nlast"
    assert told(lakebed("produce", "orders", "--partition", "1", *at, input=lines), 0) == ["produced 3 records to orders"]
    assert lakebed("consume", "orders", "--count", "3", *at).stdout == "a\n\nlast\n"
    assert lakebed("topic", *at, "describe", "orders").stdout == "partition\tearliest\tlatest\n0\t0\t0\n1\t0\t3\n"
    told(lakebed("topic", *at, "delete", "orders"), 0)
    assert lakebed("topic", *at, "list").stdout == ""


def test_what_is_not_there_is_told_with_a_code_of_its_own(start_broker, tmp_bucket, lakebed):
    broker = start_broker(tmp_bucket)
    for verb in (["consume", "nobody", "--count", "1"], ["produce", "nobody"]):
        lines = told(lakebed(*verb, "--server", broker.http, input="x\n"), 3)
        assert lines[0].startswith("error: topic nobody can't be ")
    busy = lakebed("serve", "--store", "memory://", "--kafka-listen", broker.kafka, "--listen", "127.0.0.1:0")
    assert any(line.startswith("error: the broker can't start") for line in told(busy, 1))
    assert "another process has that port" in busy.stderr
    broker.stop()
    assert told(lakebed("topic", "--server", broker.http, "list"), 5)[0].startswith("error: the broker can't be reached")


def test_a_store_that_does_not_exist_is_refused(lakebed):
    refused = lakebed("serve", "--store", "s4://x", "--kafka-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
    assert told(refused, 1)[0] == "error: the broker can't start"
    assert "unknown scheme" in refused.stderr
