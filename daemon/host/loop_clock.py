"""The event loop's clock: it stands still while the daemon itself does.

A daemon that was stopped (SIGSTOP, a debugger, a frozen container), whose machine was suspended or frozen, or that
was kept busy by one long step, finds on waking that all of its deadlines have passed. By trio's own clock it would
blame everybody else for that: close clients that had no chance to send their pong, give up venues whose answers lie
unread in the socket. So time in which the event loop did not get to run is not counted here, and everything that is
reckoned in trio's time (deadlines, pings, limits on silence, windows) goes on where it was.

What became *old* meanwhile is old all the same. So there are three clocks, each for other things:

    trio.current_time()   time in which this process ran      what others owe us: deadlines, silence, windows
    passed_s()            all the time that has passed        what runs out elsewhere: lifetimes, Retry-After, schedules
    WallClock             what a calendar says                stamps

And whoever must know is told (`on_pause`), also of a step of the wall clock (`on_step`): a machine that was frozen as a
whole, with all of its other clocks, notices that by the wall clock alone, once somebody has set it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec
import trio

LATE_S: Final = 1.0
"""If the event loop gets to run later than it wanted by this, the time does not count."""

PAUSE_S: Final = 2.0
"""From here on it is a pause that is told: `on_pause`."""

STEP_S: Final = 5.0
"""The wall clock was set if it went on by this much more, or less, than the time that passed."""

_LOOK_S: Final = 0.05
"""How often the clocks are compared, at the most: reading all of them takes a microsecond."""

_BUSY: Final = 0.5
"""A pause in which the process used this part of a core was hard work rather than a stop."""


class Clocks:
    """The machine's clocks, in seconds. Tests replace them."""

    def monotonic(self) -> float:
        """Stands still while the machine is suspended; that of trio's own clock."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def boottime(self) -> float:
        """Goes on while the machine is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Since 1970, as it is set."""
        return time.time()

    def work(self) -> float:
        """What this thread has used of a core."""
        return time.thread_time()


class Pause(msgspec.Struct, frozen=True):
    """The daemon did not run for so many seconds, of which it spent `busy_s` working on one thing."""

    seconds: float
    busy_s: float = 0.0

    @property
    def reason(self) -> str:
        """In one sentence."""
        if self.busy_s >= _BUSY * self.seconds:
            return f"the daemon itself was too busy for {self.seconds:.1f} s to do anything else"
        return f"the daemon itself did not run for {self.seconds:.1f} s: it or its machine was stopped, or starved"


class LoopClock(trio.abc.Clock):
    """For `trio.run(..., clock=LoopClock())`.

    Attributes:
        on_pause: called after a pause of `PAUSE_S` or more, by whoever first asks for the time: the event loop itself
            or any task. It must be quick, must not raise, and may do no more than wake and cancel.
        on_step: the same where the wall clock was set by more than `STEP_S`, with the seconds, below 0 where back.
    """

    def __init__(self, clocks: Clocks | None = None) -> None:
        self.on_pause: Callable[[Pause], None] = _nothing
        self.on_step: Callable[[float], None] = _nothing
        self._clocks = Clocks() if clocks is None else clocks
        self._monotonic = self._clocks.monotonic
        self._stood_s = 0.0
        self._told = 0
        self._asleep_until_s: float | None = None
        self._note(self._monotonic())

    def _note(self, now_s: float) -> None:
        """The clocks were compared now, and all is well up to now."""
        clocks = self._clocks
        self._awake_s = now_s
        self._look_s = now_s + _LOOK_S
        self._passed_s, self._wall_s, self._work_s = clocks.boottime(), clocks.wall(), clocks.work()
        self._looked_s = now_s

    def start_clock(self) -> None:
        """Begin to run: what was before is no pause."""
        self._note(self._monotonic())

    def current_time(self) -> float:
        """Seconds in which the event loop ran, from any beginning."""
        now_s = self._monotonic()
        if self._asleep_until_s is not None:
            # The event loop has waited for its deadline or an event, and the first of both woke it.
            self._awake_s = min(max(self._asleep_until_s, self._awake_s), now_s)
            self._asleep_until_s = None
        if now_s >= self._look_s:
            self._look(now_s)
        return now_s - self._stood_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """How long the event loop may wait for events. It does so next."""
        told = self._told
        sleep_s = deadline - self.current_time()
        if self._told != told:
            return 0.0  # who was told has woken tasks
        self._asleep_until_s = deadline + self._stood_s
        return sleep_s

    def passed_s(self) -> float:
        """Seconds that have passed, from any beginning, whether the process and its machine ran or not."""
        return self._clocks.boottime()

    def _look(self, now_s: float) -> None:
        late_s = now_s - self._awake_s
        ran_s, passed_s, work_s = now_s - self._looked_s, self._passed_s, self._work_s
        wall_s = self._wall_s
        self._note(now_s)
        passed_s = self._passed_s - passed_s
        step_s = self._wall_s - wall_s - passed_s
        pause_s = 0.0
        if late_s >= LATE_S:
            self._stood_s += late_s
            pause_s = late_s
        pause_s += max(0.0, passed_s - ran_s)
        self._told += pause_s >= PAUSE_S or abs(step_s) >= STEP_S
        if pause_s >= PAUSE_S:
            self.on_pause(Pause(pause_s, min(self._work_s - work_s, pause_s)))
        if abs(step_s) >= STEP_S:
            self.on_step(step_s)


def _nothing(_: object) -> None:
    """Nobody wants to know."""


def passed_s() -> float:
    """Seconds that have passed, from any beginning; under another clock than `LoopClock`, trio's time."""
    clock = trio.lowlevel.current_clock()
    return clock.passed_s() if isinstance(clock, LoopClock) else clock.current_time()


async def sleep_until_passed(until_s: float) -> None:
    """Sleep until `passed_s` says so: after a pause of the daemon's, a moment longer at the most."""
    while (left_s := until_s - passed_s()) > 0:  # noqa: ASYNC110 - a clock that runs ahead tells no event
        await trio.sleep(min(left_s, LATE_S))
    await trio.lowlevel.checkpoint()
