"""The daemon's own pauses, and steps of its clock: what follows from them, once for each.

`daemon.host.loop_clock` notices them, and sees to it that nobody else is blamed. What is left to do on waking:

* connectors begin anew after a long pause: what waits in their sockets is as old as the pause is long, and a venue may
  have given up the connection in silence. They ask at once, and are not counted as failed;
* what a channel has delivered is older than it seems (`aged`): it is stale at once, until something newer comes;
* the ledger has an entry (`pause`, `clock`), and the log a line;
* systemd's watchdog is fed as soon as all is known to be well.

A step of the wall clock forward may be a correction, or the end of a pause in which all of the machine's clocks stood
still. Nobody can tell, so it is taken for a pause. A step back changes no age: what was stamped before is
reckoned by the clock as it is now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import trio

from daemon.host.clock import WallClock
from daemon.host.loop_clock import LoopClock, Pause
from protocol.answers import Cause

ANEW_S: Final = 10.0
"""After a pause of this length connectors begin anew. It is shorter than what venues allow between two pings."""

_log: Final = logging.getLogger(__name__)


class Record(Protocol):
    """The gap ledger, as far as it is needed here."""

    def record(self, cause: Cause, channel: str, start_ms: int, end_ms: int, *, reason: str) -> None:
        """Record a gap that is over."""
        ...


class Pauses:
    """Does what follows from a pause."""

    def __init__(
        self,
        ledger: Record,
        clock: WallClock,
        *,
        anew: Callable[[str], None],
        aged: Callable[[float], None],
        set_back: Callable[[int], None],
        hurry: Callable[[], None],
    ) -> None:
        """Set up.

        Args:
            ledger: records it.
            clock: the wall clock.
            anew: has all connectors begin anew, for the reason that clients are told.
            aged: called with the seconds by which all data is older than the daemon's own time says; only notes that.
            set_back: called with the milliseconds by which the wall clock was set back.
            hurry: has the watchdog fed as soon as possible.
        """
        self._ledger = ledger
        self._clock = clock
        self._anew = anew
        self._aged = aged
        self._set_back = set_back
        self._hurry = hurry
        self._unseen: list[tuple[float, str]] = []
        self._steps: list[float] = []
        self._rung = trio.Event()

    def stood(self, pause: Pause) -> None:
        """The daemon did not run. May be called between any two statements."""
        self._unseen.append((pause.seconds, pause.reason))
        self._aged(pause.seconds)
        if pause.seconds >= ANEW_S:
            self._anew(pause.reason)
        self._rung.set()

    def stepped(self, step_s: float) -> None:
        """The wall clock was set. May be called between any two statements."""
        self._steps.append(step_s)
        if step_s > 0:
            self._aged(step_s)
        if step_s >= ANEW_S:
            self._anew(_step_reason(step_s))
        self._rung.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do it, until cancelled."""
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, LoopClock):
            clock.on_pause, clock.on_step = self.stood, self.stepped
        task_status.started()
        while True:
            await self._rung.wait()
            self._rung = trio.Event()
            self.settle()

    def settle(self) -> None:
        """Do what is to be done for the pauses and steps that were noticed."""
        unseen, self._unseen = self._unseen, []
        steps, self._steps = self._steps, []
        for seconds, reason in unseen:
            now_ms = self._clock.now_ms()
            _log.warning("%s; clients and venues have got their time anew", reason, extra={"event": "pause"})
            self._ledger.record("pause", "", now_ms - round(seconds * 1000), now_ms, reason=reason)
        for step_s in steps:
            reason, now_ms = _step_reason(step_s), self._clock.now_ms()
            _log.warning("%s", reason, extra={"event": "clock"})
            if step_s < 0:
                self._set_back(round(-step_s * 1000))
            self._ledger.record("clock", "", now_ms, now_ms, reason=reason)
        self._hurry()


def _step_reason(step_s: float) -> str:
    if step_s < 0:
        return f"the machine's clock was set back by {-step_s:.0f} s; times before are by the clock as it was"
    return f"the machine's clock went on by {step_s:.0f} s at once: it was set, or the machine was frozen"
