"""An idle broker costs nothing: little memory, and no request to the store."""

import time

from kafka_clients import create_topic, kcat

RESIDENT_MIB_MAX = 40
# The claim is about time that passes, so it does.
LOOKS = 20
PAUSE_SECONDS = 0.1


def store_requests(broker):
    counted = {name: number for name, number in broker.metrics().items() if name.startswith("lakebed_store_requests_total")}
    assert counted, "requests to the store are counted"
    return counted


def test_an_idle_broker_asks_the_store_for_nothing_and_is_small(broker, earthquakes):
    create_topic(broker, "quiet")
    kcat(broker, "-P", "-t", "quiet", "-p", "0", stdin=b"\n".join(earthquakes) + b"\n")
    broker.restart()
    # Whatever opening the log has begun ends first.
    before = None
    while before != (before := store_requests(broker)):
        time.sleep(PAUSE_SECONDS)
    for _ in range(LOOKS):
        time.sleep(PAUSE_SECONDS)
        assert store_requests(broker) == before
    assert broker.resident_mib() <= RESIDENT_MIB_MAX
