"""kafka-python at work for test_members.py, which says what the verbs read and print."""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource
from kafka.errors import CommitFailedError, KafkaError
from words import PARTITIONS, SECONDS_MAX, line, main, numbers, records, until_end


def producer(broker, codec="none"):
    return KafkaProducer(bootstrap_servers=broker, acks="all", enable_idempotence=True, compression_type=None if codec == "none" else codec,
                         linger_ms=5, max_request_size=10_000_000, reconnect_backoff_max_ms=200)


def produce(broker, topic, codec):
    made = producer(broker, codec)
    futures = [made.send(topic, partition=0, key=key, value=value, timestamp_ms=time_ms, headers=headers) for time_ms, key, value, headers in records()]
    made.flush(SECONDS_MAX)
    for future in futures:
        print(future.get(SECONDS_MAX).offset)
    made.close(SECONDS_MAX)


def feed(broker, topic):
    made, waiting = producer(broker), numbers()
    while (number := waiting.get()) is not None:
        told = made.send(topic, partition=number % PARTITIONS, value=b"%d" % number)
        told.add_callback(lambda answer, number=number: print(number, answer.offset, flush=True))
    made.flush(SECONDS_MAX)
    made.close(SECONDS_MAX)


def consumer(broker, topic, group):
    return KafkaConsumer(topic, bootstrap_servers=broker, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                         session_timeout_ms=3000, heartbeat_interval_ms=300, reconnect_backoff_max_ms=200, max_partition_fetch_bytes=10_000_000)


def group(broker, topic, name, count):
    reader, printed = consumer(broker, topic, name), []
    while len(printed) < int(count):
        for found in reader.poll(timeout_ms=SECONDS_MAX * 1000, max_records=int(count) - len(printed)).values():
            printed += found
    reader.commit()
    reader.close()
    for record in printed:
        print(line(record.partition, record.offset, record.timestamp, record.key, record.value, record.headers))


def member(broker, topic, name):
    reader, ended = consumer(broker, topic, name), until_end()
    while not ended.is_set():
        found = reader.poll(timeout_ms=100)
        for record in (record for records in found.values() for record in records):
            print(record.partition, record.offset, int(record.value), flush=True)
        if found:
            commit(reader)
    commit(reader)
    reader.close()


def commit(reader):
    try:
        reader.commit(timeout_ms=2000)
    except (CommitFailedError, KafkaError):
        # A rebalance came between, or the broker is gone: then it is seen again.
        pass


def admin(broker, topic):
    client = KafkaAdminClient(bootstrap_servers=broker)
    client.create_topics({topic: {"num_partitions": 3, "replication_factor": 1, "configs": {"retention.ms": "1234"}}})
    client.create_partitions({topic: 4})
    print("partitions=%d" % len(client.describe_topics([topic])[0]["partitions"]))

    def config(name):
        return client.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")["topic"][topic][name]["value"]

    print("retention.ms=" + config("retention.ms"))
    client.alter_configs([ConfigResource("TOPIC", topic, {"max.message.bytes": "5000"})])
    print("max.message.bytes=" + config("max.message.bytes"))
    print("groups=" + ",".join(f"{found['group_id']} {found['group_state']}" for found in client.list_groups()))
    (committed,) = client.list_group_offsets(topic)[topic].values()
    print(f"committed={committed.offset} {committed.metadata}")
    client.delete_groups([topic])
    print("groups left=%s" % ",".join(found["group_id"] for found in client.list_groups()))
    print("log dirs=%s" % ",".join(found["log_dir"].split(":")[0] for place in client.describe_log_dirs() for found in place["log_dirs"]))
    client.delete_topics([topic])
    print("topics left=" + ",".join(client.list_topics()))
    client.close()


main(produce=produce, feed=feed, group=group, member=member, admin=admin)
