#!/usr/bin/env python3
"""An explicit-state check of Lakebed's commit log: takeover, append, replay, checkpoint, reclaim, flushes of other brokers, merge, bootstrap.

Every state that a small world can reach is visited, breadth first, so a trace that is found is a shortest one. Each rule of the protocol is a
switch: with all of them on no state may break an invariant; with any one of them off some state must. README.md says what is and is not modelled.

What the world does by itself, at any time: a PUT that was ever issued lands (late, and again after the object was deleted), its answer comes or
is lost; a message that was ever sent arrives (late, again, out of order, at any sequencer, or never); a broker crashes; a LIST fails; a checkpoint
becomes unreadable.

Invariants, checked in every state against the log of a fresh reader (newest readable checkpoint, then replay):
  1. the log is one: every kept checkpoint leads a fresh reader to the same log, and every replica and checkpoint is a prefix of it;
  2. what was acknowledged is in it; what was reported as failed is not;
  3. a flush is in it at most once, its rows under no other id, and the flushes of one broker stand in flush order;
  4. every object that its state names exists and is the object that was named, and the rows of every acknowledged flush have exactly one home.

usage: commit_log_model.py [--quick | --all | --deep STATES] [--rule NAME] [--traces]
"""
import argparse
import gc
import sys
import time
from functools import lru_cache
from typing import NamedTuple

# --- what is stored -------------------------------------------------------------------------------------------------------------------------

ROOT, TAKEOVER, INLINE, FLUSH, MERGE, BOUNDARY, SEGMENT = range(7)
KIND = ("Root", "Takeover", "Inline flush", "Flush", "Merge", "Boundary", "Segment")


class Entry(NamedTuple):
    """The content of one object. Integers only, so that hashes, and with them the order of a search, are the same in every run."""
    kind: int
    number: int         # Root, Takeover: the directory that it names; flushes, Segment, Merge: the id; Boundary: the ids below it are reclaimable
    sources: tuple = () # Merge: the objects whose rows it re-homes
    rows: tuple = ()    # the flushes whose rows this brings


class Key(NamedTuple):
    """The name of one object: a place in a directory of the log, a segment, or `lakebed.json`."""
    kind: int           # ROOT, TAKEOVER (any place of a log directory) or SEGMENT
    number: int         # the directory, or the segment's id
    place: int = 0


ROOT_KEY = Key(ROOT, 0)


def place_key(directory, place):
    return Key(TAKEOVER, directory, place)


def segment_key(number):
    return Key(SEGMENT, number)


class Checkpoint(NamedTuple):
    """A snapshot of the state; the model keeps the log that leads to it. `len(log)` is its number."""
    log: tuple
    readable: bool


FOLLOWER, CREATING, SEQUENCER = range(3)  # CREATING: a takeover, or lakebed.json, is on its way


class Broker(NamedTuple):
    role: int
    log: tuple          # the durable prefix that it has seen, from lakebed.json on
    pending: tuple      # of (entry, known to be durable): its PUTs at the places after `log`


class World(NamedTuple):
    store: frozenset        # of (key, entry)
    checkpoints: tuple      # at most two, the older first
    brokers: tuple          # sorted: brokers differ in nothing but what they know
    puts: frozenset         # of (key, entry): issued, may land at any time and again
    sent: frozenset         # flush ids whose coordinates were sent: may arrive at any sequencer at any time and again
    merges: tuple           # Merge entries that were proposed: likewise
    begun: frozenset        # flush ids that exist
    acknowledged: frozenset
    failed: frozenset       # flush ids whose producer was told "not written"
    directories: int        # the next directory name (stands for epoch and nonce)


class Scenario(NamedTuple):
    """What there is to do in a world, and how much of it: each is small enough to be visited whole."""
    name: str
    own: tuple = ()             # flushes that a sequencer commits inline itself; sent to others only when it resubmits them
    inline: tuple = ()          # small flushes of other brokers, sent whole
    segments: tuple = ()        # large flushes of other brokers: uploaded, then their coordinates are sent
    predecessor: tuple = ()     # pairs (flush, the same broker's flush before it)
    alias: tuple = ()           # pairs (flush, the flush whose rows it would carry again under another id)
    merges: tuple = ()          # ids of merged segments
    boundaries: int = 0         # commits that move the reclaim boundary
    takeovers: int = 1          # takeovers that are tried
    in_flight: int = 2          # commits that a sequencer has in flight
    checkpoints: tuple = ()     # numbers at which a checkpoint may be written; empty for none
    damage: bool = False        # the newest checkpoint may become unreadable
    empty: bool = False         # start from an empty bucket


class Rules(NamedTuple):
    keep_takeovers: bool = True
    list_after_takeover: bool = True
    failed_list_is_no_ownership: bool = True
    list_before_following: bool = True
    list_when_fenced: bool = True
    only_below_takeover_happened: bool = True
    acknowledge_in_order: bool = True
    nothing_in_flight_in_checkpoint: bool = True
    answer_after_durable: bool = True
    read_back: bool = True
    flush_once: bool = True
    flush_order: bool = True
    boundary_check: bool = True
    no_second_id: bool = True
    upload_before_commit: bool = True
    merge_checked: bool = True
    reclaim_unnamed_only: bool = True
    reclaim_below_older: bool = True
    reclaim_below_boundary: bool = True
    reclaim_beyond_takeovers_only: bool = True


# --- the state: fold of the log -------------------------------------------------------------------------------------------------------------

class State(NamedTuple):
    next: Key               # the place after the last commit
    homes: tuple            # sorted pairs (object, rows in it): the objects that the state names
    flushes: frozenset      # committed flush ids that are remembered
    boundary: int
    highest: int            # the highest committed id


@lru_cache(maxsize=None)
def fold(log):
    """The state after `log`. Called with one entry more each time, so the recursion finds its prefix in the cache."""
    if not log:
        return State(ROOT_KEY, (), frozenset(), 0, 0)
    before, entry = fold(log[:-1]), log[-1]
    if entry.kind in (ROOT, TAKEOVER):
        return before._replace(next=place_key(entry.number, 0))
    after = before._replace(next=before.next._replace(place=before.next.place + 1))
    if entry.kind == BOUNDARY:
        kept = frozenset(f for f in before.flushes if f >= entry.number)
        return after._replace(boundary=entry.number, flushes=kept)
    after = after._replace(highest=max(before.highest, entry.number))
    home = before.next if entry.kind == INLINE else segment_key(entry.number)
    homes = [h for h in before.homes if h[0] not in entry.sources] + [(home, entry.rows)]
    flushes = before.flushes if entry.kind == MERGE else before.flushes | {entry.number}
    return after._replace(homes=tuple(sorted(homes)), flushes=flushes)


def names(state):
    return {home for home, _ in state.homes}


@lru_cache(maxsize=None)
def flushes_of(log):
    """Every flush id in `log`, in log order, whether the state remembers it or not."""
    return tuple(e.number for e in log if e.kind in (INLINE, FLUSH))


@lru_cache(maxsize=None)
def covered_by(log):
    """The objects that `log` consists of, each with its entry."""
    return tuple((fold(log[:n]).next, log[n]) for n in range(len(log)))


@lru_cache(maxsize=None)
def closed_by(log):
    """The directories that `log` has closed, each with the place of its takeover."""
    return {key.number: key.place for key, entry in covered_by(log) if entry.kind == TAKEOVER and key != ROOT_KEY}


# --- small helpers --------------------------------------------------------------------------------------------------------------------------

def beyond(world, number):
    """LIST: the kept checkpoints that cover the place with this number, readable or not."""
    return [c for c in world.checkpoints if len(c.log) > number]


def reload_log(world):
    """What a broker that starts again reads first: the newest readable checkpoint, else lakebed.json, which may not be there yet."""
    for checkpoint in reversed(world.checkpoints):
        if checkpoint.readable:
            return checkpoint.log
    return tuple(entry for key, entry in world.store if key == ROOT_KEY)


def load_beyond(world, number):
    """The newest readable checkpoint beyond `number`, if LIST shows one."""
    found = [c for c in beyond(world, number) if c.readable]
    return found[-1].log if found else None


def with_broker(world, old, new, **others):
    brokers = list(world.brokers)
    brokers[brokers.index(old)] = new
    return world._replace(brokers=tuple(sorted(brokers)), **others)


def acknowledge(world, entries):
    return world.acknowledged.union(e.number for e in entries if e.kind in (INLINE, FLUSH))


# --- the steps: each yields (next world, words and facts of a sentence) -----------------------------------------------------------------------

def steps(world, scenario, rules):
    store = dict(world.store)
    yield from land(world, store, rules)
    seen = None
    for broker in world.brokers:
        if broker == seen:
            continue  # the other broker is the same: symmetry
        seen = broker
        restarted = Broker(FOLLOWER, reload_log(world), ())
        if broker != restarted:
            yield with_broker(world, broker, restarted), ("crashes and starts again", broker)
        if broker.role == SEQUENCER:
            yield from append(world, broker, scenario, rules)
        if broker.role == FOLLOWER:
            yield from follow(world, store, broker, rules)
            yield from take_over(world, broker, scenario)
        yield from write_checkpoint(world, broker, scenario, rules)
        yield from propose_merge(world, broker, scenario)
        if scenario.boundaries:
            yield from reclaim_segments(world, broker, rules)
    yield from upload(world, store, scenario, rules)
    if scenario.checkpoints:
        yield from reclaim_commits(world, store, rules)
    if scenario.damage and world.checkpoints and all(c.readable for c in world.checkpoints):
        damaged = world.checkpoints[:-1] + (world.checkpoints[-1]._replace(readable=False),)
        yield world._replace(checkpoints=damaged), ("the newest checkpoint becomes unreadable",)


def land(world, store, rules):
    """A PUT-if-absent takes effect. Its answer is lost, or reaches the broker that waits for it."""
    for key, entry in sorted(world.puts):
        there = store.get(key)
        landed = world if there else world._replace(store=world.store | {(key, entry)})
        if not there:
            yield landed, ("PUT lands, its answer is lost:", entry, "at", key)
        for broker in world.brokers:
            for index, (wanted, known) in enumerate(broker.pending):
                if wanted == entry and not known and pending_key(broker, index) == key:
                    mine = there in (None, entry) or not rules.read_back
                    word = answer_word(there, entry, mine)
                    for after, sentence in answered(landed, broker, index, mine, rules):
                        yield after, ("PUT", entry, "at", key, "is answered (" + word + "):") + sentence


def answer_word(there, entry, mine):
    if there is None:
        return "created"
    if there == entry:
        return "exists, is mine"
    return "exists, taken for its own" if mine else "exists, other"


def pending_key(broker, index):
    start = fold(broker.log).next
    return start._replace(place=start.place + index)


def answered(world, broker, index, mine, rules):
    """The broker learns what became of the PUT at its place `index`, and acts on it at once (acting later is the answer coming later)."""
    if broker.role == CREATING:
        yield from created(world, broker, mine, rules)
    elif not mine:
        yield from fenced(world, broker, index, rules)
    elif index > 0:
        pending = broker.pending[:index] + ((broker.pending[index][0], True),) + broker.pending[index + 1:]
        early = world.acknowledged if rules.acknowledge_in_order else acknowledge(world, [broker.pending[index][0]])
        sentence = "durable once those below are" if rules.acknowledge_in_order else "acknowledged out of order"
        yield with_broker(world, broker, broker._replace(pending=pending), acknowledged=early), (sentence,)
    else:
        count = 1
        while count < len(broker.pending) and broker.pending[count][1]:
            count += 1
        entries = tuple(entry for entry, _ in broker.pending[:count])
        after = Broker(SEQUENCER, broker.log + entries, broker.pending[count:])
        yield with_broker(world, broker, after, acknowledged=acknowledge(world, entries)), ("durable, acknowledged",)


def created(world, broker, mine, rules):
    """The answer to a takeover, or to the creation of lakebed.json."""
    entry = broker.pending[0][0]
    if not mine:
        yield with_broker(world, broker, Broker(FOLLOWER, broker.log, ())), ("lost the race, goes on replaying",)
        return
    if entry.kind == ROOT:
        yield with_broker(world, broker, Broker(FOLLOWER, (entry,), ())), ("directory 0 is named",)
        return
    owner = Broker(SEQUENCER, broker.log + (entry,), ())
    # An owner answers a flush that is sent to it again from its replica, so all that it has replayed counts as acknowledged.
    own = with_broker(world, broker, owner, acknowledged=acknowledge(world, owner.log))
    covered = beyond(world, len(broker.log))
    if covered and rules.list_after_takeover:
        void = with_broker(world, broker, Broker(FOLLOWER, reload_log(world), ()))
        yield void, ("LIST shows a checkpoint that covers the place: void, replays again",)
        if not rules.failed_list_is_no_ownership:
            yield own, ("LIST fails; owns the next directory all the same",)
    else:
        yield own, ("owns the next directory",)
        yield with_broker(world, broker, Broker(FOLLOWER, broker.log, ())), ("LIST fails: not the owner",)


def fenced(world, broker, index, rules):
    """Something else stands at the place `index`: the places below are durable, and what stood at it and above did not happen."""
    below = tuple(entry for entry, _ in broker.pending[:index])
    log = broker.log + below
    world = world._replace(acknowledged=acknowledge(world, below))
    lost = frozenset(e.number for e, _ in broker.pending[index:] if e.kind == INLINE) - world.sent
    if rules.list_when_fenced and beyond(world, len(log)):
        # The place was covered, so it may have held this broker's commit before it was reclaimed: only the log tells.
        unknown = with_broker(world, broker, Broker(FOLLOWER, reload_log(world), ()))
        yield unknown, ("LIST shows a checkpoint that covers the place: fate unknown, replays again",)
        newer = load_beyond(world, len(log))
        place = None if newer is None else closed_by(replay(dict(world.store), newer)).get(pending_key(broker, 0).number)
        if place is not None:
            happened = [e for i, (e, _) in enumerate(broker.pending) if pending_key(broker, i).place < place or not rules.only_below_takeover_happened]
            failed = lost - {e.number for e in happened}
            told = unknown._replace(acknowledged=acknowledge(unknown, happened), failed=unknown.failed | failed)
            yield told, ("LIST shows a checkpoint that covers the place, and the log where its directory was closed: acknowledges", tuple(happened), "and fails the rest")
        return
    after = with_broker(world, broker, Broker(FOLLOWER, log, ()))
    yield after._replace(failed=world.failed | lost), ("fenced, fails what was in flight",)
    if lost:
        yield after._replace(sent=world.sent | lost), ("fenced, resubmits what was in flight to the next sequencer",)


def append(world, broker, scenario, rules):
    """The sequencer decides by the state that includes what it has in flight, and issues a PUT at the next place."""
    state = fold(broker.log + tuple(entry for entry, _ in broker.pending))

    def issue(entry, **others):
        after = broker._replace(pending=broker.pending + ((entry, False),))
        puts = world.puts | {(state.next, entry)}
        return with_broker(world, broker, after, puts=puts, **others), ("issues", entry, "at", state.next, "as", broker)

    own = next((f for f in scenario.own if f not in world.begun), None)
    arrived = sorted(world.sent) + ([own] if own else [])
    for flush in arrived:
        again = flush in state.flushes
        if again and not rules.answer_after_durable and flush not in world.acknowledged:
            early = world._replace(acknowledged=world.acknowledged | {flush})
            yield early, ("answers flush", flush, "that is sent again with the outcome of a commit in flight, as", broker)
        if not rules.no_second_id and flush < fold(broker.log).boundary:
            for other, first in scenario.alias:
                if first == flush and other not in world.sent:
                    again_as = world._replace(sent=world.sent | {other})
                    yield again_as, ("refuses flush", flush, "as below the boundary; its broker flushes the rows again as", other)
        if len(broker.pending) < scenario.in_flight and admits(state, flush, scenario, rules):
            first = dict(scenario.alias).get(flush, flush)
            entry = Entry(FLUSH if flush in scenario.segments else INLINE, flush, (), (first,))
            yield issue(entry, begun=world.begun | {flush})
    if len(broker.pending) == scenario.in_flight:
        return
    for merge in world.merges:
        stale = rules.merge_checked and not set(merge.sources) <= names(state)
        unseen = rules.boundary_check and merge.number < state.boundary
        if not stale and not unseen and (segment_key(merge.number), merge.rows) not in state.homes:
            yield issue(merge)
    moved = sum(e.kind == BOUNDARY for e in broker.log) + sum(e.kind == BOUNDARY for e, _ in broker.pending)
    if moved < scenario.boundaries:
        for boundary in range(state.boundary + 1, state.highest + 1):
            yield issue(Entry(BOUNDARY, boundary))


def admits(state, flush, scenario, rules):
    """The state's rules for a flush: its id is above the boundary, it is new, and its broker's flush before it is decided."""
    if rules.boundary_check and flush < state.boundary:
        return False
    if rules.flush_once and flush in state.flushes:
        return False
    before = dict(scenario.predecessor).get(flush)
    return not rules.flush_order or before is None or before in state.flushes or before < state.boundary


def follow(world, store, broker, rules):
    """A replica reads the next place. Nothing there: the end, or reclaimed: LIST tells."""
    key = fold(broker.log).next
    entry = store.get(key)
    newer = load_beyond(world, len(broker.log))
    if entry is None:
        if newer is not None:
            yield with_broker(world, broker, Broker(FOLLOWER, newer, ())), ("finds nothing, LIST shows a checkpoint beyond: loads it,", broker)
    elif entry.kind == TAKEOVER and newer is not None and rules.list_before_following:
        yield with_broker(world, broker, Broker(FOLLOWER, newer, ())), ("reads", entry, "but LIST shows a checkpoint beyond: loads it,", broker)
    else:
        yield with_broker(world, broker, Broker(FOLLOWER, broker.log + (entry,), ())), ("reads", entry, "as", broker)


def take_over(world, broker, scenario):
    """Any replica may believe, rightly or from an old GET, that its next place is free."""
    if world.directories > scenario.takeovers + (3 if scenario.empty else 1):
        return
    entry = Entry(TAKEOVER if broker.log else ROOT, world.directories)
    key = fold(broker.log).next
    after = with_broker(world, broker, Broker(CREATING, broker.log, ((entry, False),)), puts=world.puts | {(key, entry)})
    yield after._replace(directories=world.directories + 1), ("issues", entry, "at", key, "as", broker)


def write_checkpoint(world, broker, scenario, rules):
    """A snapshot of the durable prefix; the two newest are kept, so one that comes late never takes the place of a newer."""
    log = broker.log
    if not rules.nothing_in_flight_in_checkpoint:
        log += tuple(entry for entry, _ in broker.pending if broker.role == SEQUENCER)
    numbers = [len(c.log) for c in world.checkpoints]
    if len(log) not in scenario.checkpoints or len(log) in numbers or (len(numbers) == 2 and len(log) < numbers[0]):
        return
    kept = sorted(world.checkpoints + (Checkpoint(log, True),), key=lambda c: len(c.log))[-2:]
    yield world._replace(checkpoints=tuple(kept)), ("writes checkpoint", len(log), "as", broker)


def propose_merge(world, broker, scenario):
    """Any broker merges what its replica names into a new segment, uploads that, and sends the swap to the sequencer."""
    state = fold(broker.log)
    if len(world.merges) < len(scenario.merges) and state.homes:
        number = scenario.merges[len(world.merges)]
        rows = tuple(sorted(row for _, rows in state.homes for row in rows))
        merge = Entry(MERGE, number, tuple(home for home, _ in state.homes), rows)
        stored = world.store | {(segment_key(number), Entry(SEGMENT, number))}
        after = world._replace(merges=world.merges + (merge,), store=stored)
        yield after, ("uploads segment", number, "merged of rows", rows, "and proposes the swap, as", broker)


def upload(world, store, scenario, rules):
    """A broker that is not the sequencer uploads a segment, then sends its coordinates."""
    for number in scenario.segments:
        stored = world.store | {(segment_key(number), Entry(SEGMENT, number))}
        if number not in world.begun:
            begun = world.begun | {number}
            yield world._replace(store=stored, begun=begun, sent=world.sent | {number}), ("uploads segment", number, "and sends its coordinates")
            if not rules.upload_before_commit:
                early = world._replace(begun=begun, sent=world.sent | {number})
                yield early, ("sends the coordinates of segment", number, "whose upload is still on its way")
        elif segment_key(number) not in store:
            yield world._replace(store=stored), ("a late PUT of segment", number, "lands")


def reclaim_commits(world, store, rules):
    """DELETE of a commit below the older kept checkpoint whose rows that state does not name; never of a takeover."""
    if rules.reclaim_below_older and len(world.checkpoints) < 2 or not world.checkpoints:
        return
    limit = world.checkpoints[0 if rules.reclaim_below_older else -1].log
    named = names(fold(limit)) if rules.reclaim_unnamed_only else ()
    for key, entry in covered_by(limit):
        if entry.kind != ROOT and key in store and key not in named and not (rules.keep_takeovers and entry.kind == TAKEOVER):
            yield world._replace(store=world.store - {(key, store[key])}), ("reclaim deletes", key)
    closed, read = closed_by(limit), dict(covered_by(limit))
    for key, entry in world.store:
        late = key.place > closed.get(key.number, key.place) if rules.reclaim_beyond_takeovers_only else key not in read
        if key.kind == TAKEOVER and late:
            yield world._replace(store=world.store - {(key, entry)}), ("reclaim deletes", key, "which landed late")


def reclaim_segments(world, broker, rules):
    """DELETE of a segment below the boundary that the replica's durable state does not name."""
    state = fold(broker.log)
    named = names(state) if rules.reclaim_unnamed_only else ()
    for key, entry in world.store:
        if key.kind == SEGMENT and key not in named and (key.number < state.boundary or not rules.reclaim_below_boundary):
            yield world._replace(store=world.store - {(key, entry)}), ("reclaim deletes", key, "as", broker)


# --- the invariants -------------------------------------------------------------------------------------------------------------------------

def replay(store, log):
    while (entry := store.get(fold(log).next)) is not None:
        log += (entry,)
    return log


class Judge:
    """Checks the invariants. What depends on the bucket alone is remembered, since most states share their bucket with others."""

    def __init__(self, scenario, rules):
        self.scenario = scenario
        self.known = {}

    def broken(self, world):
        """The first broken invariant as a sentence, or None."""
        key = (world.store, world.checkpoints)
        if key not in self.known:
            self.known[key] = self.fresh_reader(world)
        log, problem = self.known[key]
        if problem:
            return problem
        present = flushes_of(log)
        for flush in sorted(world.acknowledged):
            if flush not in present:
                return f"flush {flush} was acknowledged and is not in the log"
        for flush in sorted(world.failed):
            if flush in present:
                return f"flush {flush} was reported as failed and is in the log"
        for broker in world.brokers:
            if broker.log != log[:len(broker.log)]:
                return f"the replica of a {describe(broker)} is no prefix of the log: it has {said(broker.log)}, the log is {said(log)}"
        return None

    def fresh_reader(self, world):
        store = dict(world.store)
        starts = [c.log for c in reversed(world.checkpoints)]
        if len(starts) < 2:
            starts.append(())  # one checkpoint frees nothing: the log can still be read from its beginning
        log = replay(store, starts[0])
        for start in starts[1:]:
            if (other := replay(store, start)) != log:
                return log, f"two readers disagree: from the newest checkpoint {said(log)}; the newest being unreadable, {said(other)}"
        return log, self.damaged(store, log)

    def damaged(self, store, log):
        present = flushes_of(log)
        if len(set(present)) < len(present):
            return f"a flush is in the log twice: {said(log)}"
        for flush, before in self.scenario.predecessor:
            if flush in present and before in present[present.index(flush):]:
                return f"flush {flush} stands before flush {before} of the same broker"
        state = fold(log)
        written = dict(covered_by(log))
        for home, _ in state.homes:
            if store.get(home) != written.get(home, Entry(SEGMENT, home.number)):
                return f"the state names {said(home)}, which is not there"
        rows = sorted(row for _, rows in state.homes for row in rows)
        first = dict(self.scenario.alias)
        if rows != sorted(first.get(flush, flush) for flush in present) or len(set(rows)) < len(rows):
            return f"rows have no home or two: flushes {present} are in the log, their homes hold {tuple(rows)}"
        return None


# --- the search -----------------------------------------------------------------------------------------------------------------------------

class Result(NamedTuple):
    states: int
    seconds: float
    complete: bool          # every reachable state was visited
    problem: str
    trace: list             # sentences


def start(scenario):
    sent = frozenset(scenario.inline)
    if scenario.empty:
        brokers = (Broker(FOLLOWER, (), ()),) * 2
        return World(frozenset(), (), brokers, frozenset(), sent, (), sent, frozenset(), frozenset(), 1)
    root, first = Entry(ROOT, 0), Entry(TAKEOVER, 1)
    log = (root, first)
    brokers = (Broker(FOLLOWER, log, ()), Broker(SEQUENCER, log, ()))
    return World(frozenset({(ROOT_KEY, root), (place_key(0, 0), first)}), (), brokers, frozenset(), sent, (), sent, frozenset(), frozenset(), 2)


def search(scenario, rules, limit):
    begun = time.process_time()
    judge = Judge(scenario, rules)
    first = start(scenario)
    parent = {first: None}
    layer, count = [first], 0

    def result(complete, problem=None, trace=()):
        return Result(count, time.process_time() - begun, complete, problem, trace)

    while layer:
        following = []
        for world in layer:
            count += 1
            problem = judge.broken(world)
            if problem:
                return result(False, problem, trace_to(world, parent, scenario, rules))
            if count >= limit:
                return result(False)
            for after, _ in steps(world, scenario, rules):
                if after not in parent:
                    parent[after] = world
                    following.append(after)
        layer = following
    return result(True)


def trace_to(world, parent, scenario, rules):
    path = []
    while parent[world] is not None:
        before = parent[world]
        path.append(next(words for after, words in steps(before, scenario, rules) if after == world))
        world = before
    return [" ".join(said(word) for word in words) for words in reversed(path)]


def said(fact):
    """A fact of a sentence in words."""
    if isinstance(fact, Entry):
        if fact.kind in (ROOT, TAKEOVER):
            return f"{KIND[fact.kind]}->directory {fact.number}"
        return f"{KIND[fact.kind]} {fact.number}"
    if isinstance(fact, Key):
        return "lakebed.json" if fact.kind == ROOT else f"segment {fact.number}" if fact.kind == SEGMENT else f"{fact.number}/{fact.place}"
    if isinstance(fact, Broker):
        return "the " + describe(fact)
    if isinstance(fact, tuple):
        return "[" + ", ".join(said(part) for part in fact) + "]"
    return str(fact)


def describe(broker):
    role = ("follower", "candidate", "sequencer")[broker.role]
    return f"{role} at {said(fold(broker.log).next)}"


# --- the worlds, and those in which each rule must bite ---------------------------------------------------------------------------------------

SCENARIOS = {s.name: s for s in (
    Scenario("append and take over", own=(1, 2), takeovers=3),
    Scenario("checkpoints", own=(1, 2), takeovers=2, checkpoints=(3, 4, 5)),
    Scenario("unreadable checkpoint", own=(1,), merges=(5,), takeovers=2, in_flight=1, checkpoints=(3, 4, 5, 6), damage=True),
    Scenario("rows in commits", own=(1,), merges=(5,), takeovers=2, in_flight=1, checkpoints=(4, 5)),
    Scenario("a takeover lands late", own=(1, 2), merges=(5,), takeovers=2, in_flight=1, checkpoints=(5, 6)),
    Scenario("two merges", own=(1,), merges=(5, 6), takeovers=1),
    Scenario("bootstrap", own=(1,), takeovers=2, in_flight=1, empty=True),
    Scenario("flushes of others", inline=(1,), segments=(2, 3), predecessor=((2, 1),), takeovers=2),
    Scenario("resubmission", own=(1, 2), predecessor=((2, 1),), takeovers=2),
    Scenario("boundary", segments=(1, 2), boundaries=1, alias=((3, 1),), takeovers=1),
    Scenario("boundary and merge", own=(1,), segments=(2,), merges=(3,), boundaries=1, takeovers=1),
)}

# Everything at once: too large to be visited whole, searched by --deep.
WHOLE = (
    Scenario("whole, two takeovers", own=(1,), segments=(2,), merges=(4,), boundaries=1, takeovers=2, checkpoints=(4, 5, 6, 7), damage=True),
    Scenario("whole, empty bucket", own=(1, 2), inline=(3,), takeovers=3, checkpoints=(3, 4, 5), empty=True),
)

BITES = {
    "keep_takeovers": ("checkpoints",),
    "list_after_takeover": ("rows in commits",),
    "failed_list_is_no_ownership": ("rows in commits",),
    "list_before_following": ("rows in commits",),
    "list_when_fenced": ("a takeover lands late",),
    "only_below_takeover_happened": ("checkpoints",),
    "acknowledge_in_order": ("append and take over",),
    "nothing_in_flight_in_checkpoint": ("checkpoints",),
    "answer_after_durable": ("flushes of others",),
    "read_back": ("append and take over", "bootstrap"),
    "flush_once": ("flushes of others", "append and take over"),
    "flush_order": ("flushes of others", "resubmission"),
    "boundary_check": ("boundary",),
    "no_second_id": ("boundary",),
    "upload_before_commit": ("boundary",),
    "merge_checked": ("two merges",),
    "reclaim_unnamed_only": ("rows in commits", "boundary"),
    "reclaim_below_older": ("rows in commits", "unreadable checkpoint"),
    "reclaim_below_boundary": ("boundary",),
    "reclaim_beyond_takeovers_only": ("checkpoints",),
}
assert set(BITES) == set(Rules._fields), "each rule names the worlds in which it bites"

LIMIT_BITE = 1_000_000      # far above what any rule needs (README.md), so that reaching it is a failure
LIMIT_QUICK = 25_000        # of each world with all rules on: together well under a minute
LIMIT_ALL = 1_000_000       # far above the largest world, so that each is visited whole


def line(rule, scenario, result, verdict):
    found = f"after {len(result.trace)} steps: {result.problem}" if result.problem else verdict
    print(f"{rule:32} {scenario:24} {result.states:>9,} {result.seconds:>6.1f} s  {found}", flush=True)


def print_trace(result):
    for number, sentence in enumerate(result.trace, 1):
        print(f"    {number:2}. {sentence}")


def check_whole(scenario, limit, must_end):
    """All rules on. Returns whether the invariants held, and the world was visited whole if it must be."""
    result = search(scenario, Rules(), limit)
    verdict = "holds, every state visited" if result.complete else "holds as far as searched"
    line("all rules", scenario.name, result, verdict)
    print_trace(result)
    return not result.problem and (result.complete or not must_end)


def check_bites(rule, traces):
    """One rule off. Returns whether each world named for it breaks."""
    bitten = True
    for name in BITES[rule]:
        result = search(SCENARIOS[name], Rules(**{rule: False}), LIMIT_BITE)
        line("without " + rule, name, result, "DOES NOT BITE")
        if traces:
            print_trace(result)
        bitten &= bool(result.problem)
    return bitten


def main():
    parser = argparse.ArgumentParser(description="Explicit-state check of the commit log protocol.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="each rule off, and the first states of each world with all rules on (the default)")
    mode.add_argument("--all", action="store_true", help="each rule off, and each world visited whole with all rules on")
    mode.add_argument("--deep", type=int, metavar="STATES", help="--all, then that many states of two larger worlds")
    mode.add_argument("--rule", choices=Rules._fields, help="only this rule off, with its traces")
    parser.add_argument("--traces", action="store_true", help="print the trace for each rule")
    options = parser.parse_args()
    gc.disable()  # nothing here is cyclic, and the collector would walk millions of tuples
    begun = time.process_time()
    good = all([check_bites(rule, options.traces or bool(options.rule)) for rule in ([options.rule] if options.rule else Rules._fields)])
    if not options.rule:
        whole = options.all or options.deep is not None
        good &= all([check_whole(s, LIMIT_ALL if whole else LIMIT_QUICK, whole) for s in SCENARIOS.values()])
    if options.deep is not None:
        good &= all([check_whole(s, options.deep, False) for s in WHOLE])
    print(f"{'good' if good else 'BAD'}: {time.process_time() - begun:.0f} s of CPU")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
