"""What a history costs the event loop: the longest step of one answer, from a tape of 100 000 messages.

In this process, without sockets. A step is what runs between two waits, in the thread's own CPU time. Of candles, one
message is told every second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import trio

from daemon.front.request import Request
from daemon.host.clock import WallClock
from daemon.routes.history import MOST, Histories
from daemon.tape.tape import Tape
from protocol.channels import Channel
from protocol.kinds import KINDS
from protocol.session import ALL
from tests.bench.measures import Plan
from tests.bench.report import AT_MOST, Row

ENTRIES: Final = 100_000
BYTES: Final = 2**40
BEGAN_MS: Final = 1_765_211_400_000
MINUTE_MS: Final = 60_000
PAYLOAD: Final = b'{"type":"price_update","data":"' + b"x" * 480 + b'"}'
GOAL_MS: Final = 5.0
INSTRUMENTS: Final = 200
ONCE: Final = ("BTC/USDT",)


def histories(plan: Plan) -> Iterator[Row]:
    """The longest step, by how many messages are asked for, and of what."""
    prices, instruments = KINDS["ticker"], tuple(f"A{number}/USDT" for number in range(INSTRUMENTS))
    many = Channel(name="many", exchange="acme", kind=prices, instruments=instruments)
    one = Channel(name="one", exchange="acme", kind=prices, instruments=ONCE)
    candles = Channel(name="candles", exchange="acme", kind=KINDS["candles"], instruments=ONCE)
    for channel, what in ((many, f"{INSTRUMENTS} instruments"), (one, "one instrument"), (candles, "candles")):
        tape = _tape(channel)
        for limit in (500, MOST):
            step = f"a history of {limit} messages of {what}: the longest step"
            row = Row(step, "ms", AT_MOST, GOAL_MS, of_value=True)
            for _ in range(plan.repeats):
                row.add(trio.run(_longest_ms, tape, channel, limit))
            yield row


def _tape(channel: Channel) -> Tape:
    tape = Tape(ENTRIES, BYTES)
    for number in range(ENTRIES):
        payload = PAYLOAD
        if channel.name == "candles":
            start_ms = BEGAN_MS + number // 60 * MINUTE_MS
            told = b'{"type":"candle_update","data":"%s","interval":"1m","start_ms":%d,"closed":%s}'
            payload = told % (b"x" * 400, start_ms, b"true" if number % 60 == 59 else b"false")
        tape.append((channel.name, channel.instruments[number % len(channel.instruments)]), payload)
    return tape


class _Steps(trio.abc.Instrument):
    """The longest step that a task has taken, in seconds."""

    def __init__(self) -> None:
        self.longest_s = self._began_s = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began_s = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest_s = max(self.longest_s, time.thread_time() - self._began_s)


async def _longest_ms(tape: Tape, channel: Channel, limit: int) -> float:
    clock = WallClock(lambda: (BEGAN_MS + ENTRIES // 60 * MINUTE_MS) * 1_000_000)
    histories = Histories(tape, clock, lambda _: None)
    request = Request(method="GET", path="/", query=(("limit", str(limit)),), peer="127.0.0.1")
    steps = _Steps()
    for _ in range(3):  # the first one is not yet warm
        steps.longest_s = 0.0
        await trio.lowlevel.checkpoint()
        trio.lowlevel.add_instrument(steps)
        await trio.lowlevel.checkpoint()
        answer = histories.answer(request, channel, ALL)
        await answer.wait()
        await trio.lowlevel.checkpoint()
        answer.answer()
        await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(steps)
    return steps.longest_s * 1000
