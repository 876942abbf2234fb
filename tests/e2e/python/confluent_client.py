"""confluent-kafka at work for test_members.py, which says what the verbs read and print."""

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from words import PARTITIONS, SECONDS_MAX, line, main, numbers, records, until_end


def producer(broker, codec="none"):
    return Producer({"bootstrap.servers": broker, "enable.idempotence": True, "compression.type": codec, "linger.ms": 5,
                     "message.max.bytes": 10_000_000, "reconnect.backoff.max.ms": 200})


def produce(broker, topic, codec):
    made, answers = producer(broker, codec), []
    for time_ms, key, value, headers in records():
        made.produce(topic, partition=0, key=key, value=value, timestamp=time_ms, headers=headers,
                     on_delivery=lambda error, message: answers.append((error, message)))
    assert made.flush(SECONDS_MAX) == 0
    for error, message in answers:
        if error:
            raise KafkaException(error)
        print(message.offset())


def feed(broker, topic):
    made, waiting = producer(broker), numbers()

    def answered(error, message):
        if error:
            raise KafkaException(error)
        print(int(message.value()), message.offset(), flush=True)

    while (number := waiting.get()) is not None:
        made.produce(topic, b"%d" % number, partition=number % PARTITIONS, on_delivery=answered)
        made.poll(0)
        while waiting.empty() and len(made):
            made.poll(0.01)
    assert made.flush(SECONDS_MAX) == 0


def consumer(broker, topic, group):
    made = Consumer({"bootstrap.servers": broker, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "session.timeout.ms": 3000, "heartbeat.interval.ms": 300, "reconnect.backoff.max.ms": 200})
    made.subscribe([topic])
    return made


def group(broker, topic, name, count):
    reader, printed = consumer(broker, topic, name), []
    for _ in range(int(count)):
        message = reader.poll(SECONDS_MAX)
        if message is None or message.error():
            raise SystemExit(f"no record: {message and message.error()}")
        printed.append(message)
    offsets = {message.partition(): message.offset() + 1 for message in printed}
    reader.commit(offsets=[TopicPartition(topic, at, offset) for at, offset in offsets.items()], asynchronous=False)
    reader.close()
    for message in printed:
        print(line(message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(), message.headers()))


def member(broker, topic, name):
    reader, ended = consumer(broker, topic, name), until_end()
    while not ended.is_set():
        found = [message for message in reader.consume(100, timeout=0.1) if not message.error()]
        for message in found:
            print(message.partition(), message.offset(), int(message.value()), flush=True)
        if found:
            reader.commit(asynchronous=True)
    try:
        reader.commit(asynchronous=False)
    except KafkaException:
        # Nothing to commit, or another's by now.
        pass
    reader.close()


main(produce=produce, feed=feed, group=group, member=member)
