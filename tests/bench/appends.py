"""What appending to a full tape costs: with the channels' shares, beside a plain ring that drops the oldest of all.

In this process, without sockets. Each figure is the lower quartile of chunks of appends, in the thread's own CPU time,
so that what else runs on the machine counts little.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from statistics import quantiles
from typing import Final

from daemon.tape.entry import Entry, Topic
from daemon.tape.tape import Tape
from tests.bench.measures import Plan
from tests.bench.report import Row

ENTRIES: Final = 100_000
MUCH_BYTES: Final = 2**40
PAYLOAD: Final = b'{"data":"' + b"x" * 480 + b'"}'
"""About as long as a price's message."""

CHUNK: Final = 200
CHUNKS: Final = 150

FLOOD_SHARE: Final = 0.99
"""Of the messages are the flooding channel's."""


def appends(plan: Plan) -> Iterator[Row]:
    """Appends to a full tape, by how many channels there are, who sends, and which bound counts."""
    for channels, floods, by_bytes in ((8, True, False), (8, False, False), (200, False, False), (8, False, True)):
        who = "one floods" if floods else "all send"
        bound = "bytes are the bound" if by_bytes else "messages are the bound"
        row = Row(f"appending to a full tape, {channels} channels, {who}, {bound}", "µs")
        row.note = "compared with a ring"
        for repetition in range(plan.repeats):
            topics = _topics(channels, floods, repetition)
            row.add(_chunks_us(_tape(by_bytes), topics), _chunks_us(_ring(), topics))
        yield row


def _topics(channels: int, floods: bool, seed: int) -> list[Topic]:
    """Whose message comes next, again and again."""
    draw = random.Random(seed)
    names = [(f"channel{number}", "BTC/USDT") for number in range(channels)]
    return [names[0] if floods and draw.random() < FLOOD_SHARE else draw.choice(names) for _ in range(10_000)]


def _tape(by_bytes: bool) -> Callable[[Topic], object]:
    entries, size = (2 * ENTRIES, ENTRIES * len(PAYLOAD)) if by_bytes else (ENTRIES, MUCH_BYTES)
    tape = Tape(entries, size)
    return lambda topic: tape.append(topic, PAYLOAD)


def _ring() -> Callable[[Topic], object]:
    """What an append cannot do without: the entry, its number on its topic, and the newest of each."""
    ring: deque[Entry] = deque(maxlen=ENTRIES)
    newest: dict[Topic, Entry] = {}
    seqs = itertools.count(1)

    def append(topic: Topic) -> None:
        before = newest.get(topic)
        entry = Entry.of(next(seqs), 1 if before is None else before.ordinal + 1, topic, PAYLOAD, "epoch")
        newest[topic] = entry
        ring.append(entry)

    return append


def _chunks_us(append: Callable[[Topic], object], topics: list[Topic]) -> float:
    """µs for one append to what is full."""
    coming = itertools.cycle(topics)
    for topic in itertools.islice(coming, ENTRIES + ENTRIES // 10):
        append(topic)
    took_ns = []
    for _ in range(CHUNKS):
        chunk = list(itertools.islice(coming, CHUNK))
        began_ns = time.thread_time_ns()
        for topic in chunk:
            append(topic)
        took_ns.append(time.thread_time_ns() - began_ns)
    return quantiles(took_ns, n=4)[0] / CHUNK / 1000
