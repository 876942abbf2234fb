"""A member of a group over gRPC, as the tests drive it; run as a program it is one in a process of its own, which can be killed."""

import contextlib
import queue
import sys
import threading

import grpc
from reflected import Refused, Server
from test_grpc import Requests

SECONDS_MAX = 60
BEAT_SECONDS = 0.3


def spread(topics):
    """Topics with their partitions as a set of (topic, partition)."""
    return {(one.topic, partition) for one in topics for partition in one.partitions}


class Member:
    """A member that reads in a thread and acknowledges what it is assigned, if `acknowledges`. `held` is what it may read."""

    def __init__(self, server, group, acknowledges=True, beats=True, seconds=2, **init):
        self.server, self.acknowledges, self.held, self.seen = server, acknowledges, set(), queue.SimpleQueue()
        self.requests, self.stopped, self.correlation = Requests(), threading.Event(), 0
        self.ended = self.started = self.last = None
        self.say(init={"group": group, "session_timeout": {"seconds": seconds}, **init})
        self.answers = server.stream("GroupService/Join", self.requests)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.beater = threading.Thread(target=self.beat, daemon=True)
        self.reader.start()
        if beats:
            self.beater.start()

    def say(self, **fields):
        self.requests.send(self.server.message("JoinRequest", **fields))

    def read(self):
        try:
            for answer in self.answers:
                self.seen.put(answer)
            self.seen.put("OK")
        except grpc.RpcError as error:
            self.seen.put(Refused(error))
        self.stopped.set()

    def beat(self):
        while not self.stopped.wait(BEAT_SECONDS):
            self.say(heartbeat={})

    def next(self):
        """The next message, or how the stream ended; what it says is noted."""
        answer = self.seen.get(timeout=SECONDS_MAX)
        if isinstance(answer, (str, Refused)):
            self.ended = answer
        elif answer.HasField("started"):
            self.started = answer.started
        elif answer.HasField("assignment"):
            self.last = answer.assignment
            assert spread(self.last.taken) == spread(self.last.partitions) - self.held
            assert spread(self.last.given_up) == self.held - spread(self.last.partitions)
            if self.acknowledges:
                self.acknowledge()
        return answer

    def acknowledge(self):
        self.held = spread(self.last.partitions)
        self.say(acknowledge={"assignment_id": self.last.assignment_id})

    def until(self, is_so):
        """Goes on until something is so; fails if the stream ends before."""
        while not is_so(self):
            self.next()
            assert self.ended is None or is_so(self), self.ended
        return self

    def until_held(self, count):
        return self.until(lambda member: len(member.held) == count)

    def until_ended(self):
        """How the stream ended: "OK" or what it was refused with."""
        return self.until(lambda member: member.ended is not None).ended

    def commit(self, *offsets):
        """Commits (topic, partition, offset); the answer's error, or None when it is durable."""
        self.correlation += 1
        number = self.correlation
        offsets = [{"topic": topic, "partition": partition, "offset": offset} for topic, partition, offset in offsets]
        self.say(commit={"correlation_id": number, "offsets": offsets})
        while True:
            answer = self.next()
            assert self.ended is None, self.ended
            if answer.HasField("commit_result"):
                assert answer.commit_result.correlation_id == number
                return answer.commit_result.error if answer.commit_result.HasField("error") else None

    def leave(self):
        """Closes its side. Returns how the stream ended."""
        self.stopped.set()
        self.requests.end()
        return self.until_ended()

    def cut(self):
        """Breaks the stream, as a lost connection does."""
        self.stopped.set()
        self.answers.cancel()
        self.requests.end()
        self.reader.join(SECONDS_MAX)


@contextlib.contextmanager
def joined(server, group, **init):
    """A member that is cut off in the end, if the test has not ended it."""
    member = Member(server, group, **init)
    try:
        yield member
    finally:
        member.cut()


def main(address, group, topic):
    """Joins, and prints how many partitions it has whenever that changes."""

    class Broker:
        http = address

    with Server(Broker) as server:
        member = Member(server, group, topics=[topic])
        while member.ended is None:
            before = len(member.held)
            member.next()
            if len(member.held) != before:
                print(len(member.held), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
