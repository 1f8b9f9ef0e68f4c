"""One supervised task per connector: it runs, fails, waits and runs again, and never takes anything else down.

This is one of the daemon's two barriers (the other is a client's session): every error that a connector raises ends
here. It is logged once with its cause and becomes the state of the connector's channels; after a delay the same
connector runs again. Only cancellation, by which the daemon stops, passes through.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec
import trio

from connectors.backoff import Backoff
from connectors.base import (
    FAILURE_CAUSES,
    Connector,
    ConnectorError,
    Event,
    FailureCause,
    ProxyRefused,
    State,
    StateChange,
    TopicNote,
    VenueRefused,
)
from daemon.host.clock import WallClock
from daemon.host.loop_clock import passed_s, sleep_until_passed
from daemon.ingest.inbox import Item, TopicNotes
from daemon.ingest.outage import Outage

_log: Final = logging.getLogger(__name__)


class Intensity(msgspec.Struct, frozen=True):
    """Restarting no longer helps a connector that failed more than `restarts` times within `within_s` seconds."""

    restarts: int
    within_s: float


class Link:
    """What a connector may do (`connectors.base.Context`): publish events, report states.

    Only an event makes a channel `live`.
    """

    def __init__(self, inbox: trio.MemorySendChannel[Item], clock: WallClock, outage: Outage | None = None) -> None:
        """`outage` is told of data; all links of a daemon share it."""
        self._inbox = inbox
        self._clock = clock
        self._outage = Outage() if outage is None else outage
        self._states: dict[str, State] = {}

    async def publish(self, events: Sequence[Event]) -> None:
        """Hand events to the sequencer; waits while it is busy. If cancelled, none of them is published."""
        if not events:
            await trio.lowlevel.checkpoint()
            return
        is_new = not events[0].cached
        self._outage.heard += is_new
        for channel in {event.channel for event in events}:
            if self._states.get(channel) != "live":
                await self.report(StateChange(channel, "live"))
                if is_new:
                    self._outage.reached()
        await self._inbox.send(events)

    async def report(self, change: StateChange) -> None:
        """Hand a state to the sequencer, in order with the events. If cancelled, it is not reported."""
        await self._inbox.send(change)
        self._states[change.channel] = change.state

    async def note(self, notes: Sequence[TopicNote]) -> None:
        """Hand notes to the sequencer, in order with the events. If cancelled, they are not handed over."""
        if notes:
            await self._inbox.send(TopicNotes(tuple(notes)))

    def now_ms(self) -> int:
        """Wall-clock time, ms since 1970."""
        return self._clock.now_ms()


class Rouser:
    """Has a connector begin anew that has not failed."""

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None
        self.why = ""

    def rouse(self, why: str) -> None:
        """Break off what the connector is at, and run it again at once; clients are told `why`.

        One that waits for its next attempt goes on waiting: a venue may have asked for that.
        """
        if self._scope is not None:
            self.why = why
            self._scope.cancel(reason="begins anew")

    async def run_once(self, name: str, connector: Connector, link: Link) -> _Failure | None:
        """Run it once. Returns how it ended; None where it was roused."""
        failure: _Failure | None = None
        try:
            with trio.CancelScope() as self._scope:
                failure = await _run_once(name, connector, link)
        finally:
            self._scope = None
        return failure


class _Failure(msgspec.Struct, frozen=True):
    """How an attempt ended, as plain values: reading them runs none of the connector's own code."""

    reason: str
    retry_after_s: float | None = None
    cause: FailureCause = "internal"
    refused: bool = False
    unreached: str = ""


Tell: TypeAlias = Callable[[str, str, str, float, FailureCause], None]
"""Logs a failure; see `Outage.failed`, without the venue."""


def _tell(name: str, unreached: str, line: str, delay_s: float, cause: FailureCause) -> None:
    _log.warning("%s: %s", name, line, extra={"connector": name})


async def supervise(
    connector: Connector,
    link: Link,
    backoff: Backoff,
    intensity: Intensity,
    why: str = "",
    failures: Counter[FailureCause] | None = None,
    rouser: Rouser | None = None,
    tell: Tell = _tell,
) -> None:
    """Run a connector for ever. Never returns; ends only when cancelled.

    Args:
        connector: the connector to run.
        link: what it may do.
        backoff: how long to wait after a failure.
        intensity: how many failures are too many.
        why: the reason that the first attempt reports.
        failures: counts every failure, by its cause.
        rouser: has it begin anew, which is no failure.
        tell: logs every failure, or lets one line stand for many.
    """
    rouser = Rouser() if rouser is None else rouser
    name, channels = _identity(connector)
    restarts: deque[float] = deque(maxlen=intensity.restarts + 1)
    while True:
        await _report(channels, link, "connecting", why)
        why = ""
        backoff.started(trio.current_time())
        failure = await rouser.run_once(name, connector, link)
        if failure is None:
            why = rouser.why
            continue
        if failures is not None:
            failures[failure.cause] += 1
        now_s = trio.current_time()
        restarts.append(now_s)
        hopeless = len(restarts) > intensity.restarts and now_s - restarts[0] <= intensity.within_s
        delay_s = backoff.next_delay_s(now_s, failure.retry_after_s, refused=hopeless or failure.refused)
        line = f"{failure.reason}; next attempt in {delay_s:.1f} s"
        tell(name, failure.unreached, line, delay_s, failure.cause)
        state: State = "down" if backoff.open else "reconnecting"
        asleep_s = passed_s()
        await _report(channels, link, state, failure.reason, delay_s)
        await sleep_until_passed(asleep_s + delay_s)


def _identity(connector: Connector) -> tuple[str, tuple[str, ...]]:
    """A connector's name and channels. They are read only here, once, because even a property may raise."""
    try:
        return connector.name, tuple(connector.channels)
    except Exception:
        name = type(connector).__name__
        _log.exception("%s cannot say which channels it serves: only events will change their state", name)
        return name, ()


async def _run_once(name: str, connector: Connector, link: Link) -> _Failure:
    """Run once; returns how it ended. This is the barrier: only cancellation and Ctrl-C pass through."""
    try:
        await connector.run(link)
    except ConnectorError as failure:
        return _described(name, failure)
    except BaseException as error:
        group = error if isinstance(error, BaseExceptionGroup) else BaseExceptionGroup("", [error])
        passing, rest = group.split(_passes)
        known, bugs = rest.split(ConnectorError) if rest is not None else (None, None)
        if bugs is not None:
            cause = bugs if isinstance(error, BaseExceptionGroup) else error
            _log.error("%s failed", name, exc_info=(type(cause), cause, cause.__traceback__))
        if passing is not None:
            if passing is group or not isinstance(error, BaseExceptionGroup):
                raise
            raise passing from None
        return _Failure(f"internal error in connector {name}") if known is None else _described(name, _one_of(known))
    return _Failure(f"connector {name} ended without a reason")


def _passes(error: BaseException) -> bool:
    """Whether the caller must see this error. A `Cancelled` that outlived its scope is a bug like any other."""
    if isinstance(error, trio.Cancelled):
        return trio.current_effective_deadline() == -math.inf
    return isinstance(error, KeyboardInterrupt)


def _one_of(group: BaseExceptionGroup[ConnectorError]) -> ConnectorError:
    """The failure to report to clients, if several occurred together."""
    first = group.exceptions[0]
    return _one_of(first) if isinstance(first, BaseExceptionGroup) else first


def _described(name: str, failure: ConnectorError) -> _Failure:
    try:
        retry_after_s = None if failure.retry_after_s is None else float(failure.retry_after_s)
        refused, unreached = isinstance(failure, VenueRefused), str(failure.unreached)
        return _Failure(str(failure), retry_after_s, _cause_of(failure), refused, unreached)
    except Exception:
        _log.exception("%s failed, and its error cannot be read", name)
        return _Failure(f"internal error in connector {name}")


def _cause_of(failure: ConnectorError) -> FailureCause:
    """The cause in one of our own words, whatever a connector's error says: it becomes a label of metrics."""
    if isinstance(failure, VenueRefused):
        return "proxy" if isinstance(failure, ProxyRefused) else "refused"
    return failure.cause if failure.cause in FAILURE_CAUSES else "other"


async def _report(channels: Sequence[str], link: Link, state: State, reason: str, retry_s: float | None = None) -> None:
    for channel in channels:
        await link.report(StateChange(channel, state, reason, retry_s))
