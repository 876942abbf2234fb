"""aiokafka at work for test_members.py, which says what the verbs read and print."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from words import PARTITIONS, SECONDS_MAX, line, main, numbers, records, until_end


def producer(broker, codec="none"):
    return AIOKafkaProducer(bootstrap_servers=broker, enable_idempotence=True, compression_type=None if codec == "none" else codec,
                            linger_ms=5, max_request_size=10_000_000)


async def produce(broker, topic, codec):
    async with producer(broker, codec) as made:
        futures = [await made.send(topic, partition=0, key=key, value=value, timestamp_ms=time_ms, headers=headers)
                   for time_ms, key, value, headers in records()]
        for future in futures:
            print((await future).offset)


async def feed(broker, topic):
    waiting, sent = numbers(), []
    async with producer(broker) as made:
        while (number := await asyncio.to_thread(waiting.get)) is not None:
            future = await made.send(topic, b"%d" % number, partition=number % PARTITIONS)
            future.add_done_callback(lambda future, number=number: print(number, future.result().offset, flush=True))
            sent.append(future)
        await asyncio.gather(*sent)


def consumer(broker, topic, group):
    return AIOKafkaConsumer(topic, bootstrap_servers=broker, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                            session_timeout_ms=3000, heartbeat_interval_ms=300, max_partition_fetch_bytes=10_000_000)


async def group(broker, topic, name, count):
    async with consumer(broker, topic, name) as reader:
        printed = [await asyncio.wait_for(reader.getone(), SECONDS_MAX) for _ in range(int(count))]
        await reader.commit()
    for record in printed:
        print(line(record.partition, record.offset, record.timestamp, record.key, record.value, record.headers))


async def member(broker, topic, name):
    ended = until_end()
    async with consumer(broker, topic, name) as reader:
        while not ended.is_set():
            found = await reader.getmany(timeout_ms=100)
            for record in (record for records in found.values() for record in records):
                print(record.partition, record.offset, int(record.value), flush=True)
            if found:
                try:
                    await reader.commit()
                except KafkaError:
                    # A rebalance came between, or the broker is gone: then it is seen again.
                    pass


async def admin(broker, topic):
    client = AIOKafkaAdminClient(bootstrap_servers=broker)
    await client.start()
    await client.create_topics([NewTopic(topic, 3, 1, topic_configs={"retention.ms": "1234"})])
    await client.create_partitions({topic: NewPartitions(4)})
    print("partitions=%d" % len((await client.describe_topics([topic]))[0]["partitions"]))

    async def config(name):
        (told,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return next(entry[1] for entry in told.resources[0][4] if entry[0] == name)

    print("retention.ms=" + await config("retention.ms"))
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "5000"})])
    print("max.message.bytes=" + await config("max.message.bytes"))
    (described,) = await client.describe_consumer_groups([topic])
    print("groups=" + ",".join(f"{found[0]} {described.groups[0][2]}" for found in await client.list_consumer_groups()))
    (committed,) = (await client.list_consumer_group_offsets(topic)).values()
    print(f"committed={committed.offset} {committed.metadata}")
    await client.delete_topics([topic])
    print("topics left=" + ",".join(await client.list_topics()))
    await client.close()


def run(verb):
    return lambda *arguments: asyncio.run(verb(*arguments))


main(produce=run(produce), feed=run(feed), group=run(group), member=run(member), admin=run(admin))
