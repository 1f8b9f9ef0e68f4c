"""Runs one schedule of HTTP polls: the loop, the deadlines, the gate.

What to ask, and what an answer means, is the venue's part (`Poll`); this file carries it out. One
`Host` per venue is shared by that venue's pollers, one `Poller` serves one channel:

    supervisor -> Poller.run -> wait for the tick -> Poll.tick   -> publish, requests
                                                     ask the host -> Poll.answer -> publish, requests

What runs out at the venue (a body's lifetime, a budget's minute, a pause that it asked for, the time until the next
tick) is reckoned in the time that has passed (`Elapsed`, `passed_s`), also while the daemon or its machine stood still.
Limits on how long the venue may take are in trio's time.

Every failure ends `run`, and the supervisor calls it again on the same object, so schedule, gate and
the venue's memory go on where they were; the connection is new with each run.
"""

from __future__ import annotations

from typing import Final, NoReturn

import httpx
import msgspec
import trio

from connectors.base import (
    ConnectorError,
    Context,
    StateChange,
    VenueRefused,
)
from connectors.capture.tap import NO_TAP, Tap
from connectors.limits.notes import NoteLimit
from connectors.metric import Samples
from connectors.poll.asking import ask
from connectors.poll.elapsed import Elapsed
from connectors.poll.host import Host
from connectors.poll.schedule import Schedule
from connectors.poll.ticks import REPEATED_BYTES_PER_S, Ticks
from connectors.poll.venue import Poll, PollStatistics
from daemon.host.loop_clock import passed_s
from protocol.channels import Channel

_LOOK_S: Final = 1.0
"""How often a poller that waits looks whether more time has passed than it has waited."""


class Poller:
    """The connector of one scheduled channel.

    Args:
        channel: what it serves; its `cadence_s` is the schedule.
        poll: the venue's part.
        host: where the requests go.
        delay_s: seconds from the first run's start to the first tick, so that the pollers of one
            venue do not call it all at once.

    Raises:
        ValueError: the channel has no cadence.
    """

    def __init__(self, channel: Channel, poll: Poll, host: Host, *, delay_s: float = 0.0) -> None:
        if channel.cadence_s is None:
            raise ValueError(f"channel {channel.name!r} has no cadence to poll at")
        self._channel = channel.name
        self._cadence_s = channel.cadence_s
        self.ticks = Ticks(channel, poll, host.venue)
        self._poll = poll
        self._host = host
        self._delay_s = delay_s
        self._schedule: Schedule | None = None
        self._elapsed = Elapsed()
        self._broken_off = False
        self._counts = PollStatistics()
        self._notes = NoteLimit()
        self._tap = NO_TAP

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._channel

    @property
    def channels(self) -> tuple[str, ...]:
        """The one channel."""
        return (self._channel,)

    @property
    def carried(self) -> tuple[str, ...]:
        """The one channel."""
        return self.channels

    def record(self, tap: Tap) -> None:
        """Tell this tap of all further polls."""
        self._tap = tap

    def statistics(self) -> PollStatistics:
        """The counts; the histogram goes on being filled."""
        return msgspec.structs.replace(self._counts, closed_s=self._host.gate.closed_s(passed_s()))

    @property
    def unreadable(self) -> int:
        """None: a body that is not what the venue documents is a failure."""
        return 0

    def measure(self, samples: Samples) -> None:
        """Add the counts, and what the venue says of its budget."""
        polled, name = self.statistics(), [self.name]
        requests = samples.counter("tickerd_poll_requests", "Requests to the venue.", "connector")
        requests.add_metric(name, polled.requests)
        repeats = samples.counter(
            "tickerd_poll_repeats", "Ticks at which the last body was good for once more.", "connector"
        )
        repeats.add_metric(name, polled.repeats)
        answered = "From a request to its answer's last byte."
        samples.histogram("tickerd_poll_answer_seconds", answered, polled.answers_s, connector=self.name)
        used = samples.gauge(
            "tickerd_poll_budget_used", "What the venue says we have used up of its limit.", "connector"
        )
        limit = samples.gauge("tickerd_poll_budget_limit", "That limit, in the venue's own unit.", "connector")
        if polled.budget is not None:
            used.add_metric(name, polled.budget.used)
            limit.add_metric(name, polled.budget.limit)
        closed = samples.gauge(
            "tickerd_poll_closed_seconds", "How much longer the venue must be left alone.", "connector"
        )
        closed.add_metric(name, polled.closed_s)

    async def run(self, context: Context) -> None:
        """Poll until cancelled, which leaves nothing behind but a connection closed half-way.

        The first run polls at once (after `delay_s`), and so does one that follows a run which was
        cancelled. Any other goes on with the schedule: it waits for a tick that is yet to come, and
        polls at once where the tick has passed.

        Raises:
            ConnectorError: a poll failed. Its `retry_after_s` reaches to the next tick at least.
        """
        try:
            await self._run(context)
        except trio.Cancelled:
            self._broken_off = True
            raise

    async def _run(self, context: Context) -> NoReturn:
        if self._schedule is None or self._broken_off:
            self._schedule = Schedule(self._now_s(context) + self._delay_s, self._cadence_s)
            self._broken_off = False
        schedule = self._schedule
        self._notes.clear()
        told = ""
        try:
            client = self._host.client()
        except httpx.InvalidURL as error:
            raise VenueRefused(f"{self._host.venue}'s base URL cannot be used: {error}") from error
        async with client:
            while True:
                tick_s = await self._wait(schedule.next_s, context)
                # Before the poll, so that whatever it ends in, the schedule has gone on.
                schedule.advance(tick_s)
                try:
                    published = await self._tick(client, context)
                except ConnectorError as error:
                    self._postpone(error, schedule, tick_s, self._now_s(context))
                    raise
                now_s = self._now_s(context)
                if schedule.next_s < now_s:
                    schedule.advance(now_s)
                notice = self._notice()
                if published and notice != told:
                    told = notice
                    await context.report(StateChange(self._channel, "live", told))

    def _now_s(self, context: Context) -> float:
        """The time, on the clock of the schedule and of `Poll`."""
        return self._elapsed.read(passed_s(), context.now_ms())

    async def _wait(self, until_s: float, context: Context) -> float:
        """Wait until the schedule's clock says so; returns what it says then."""
        while True:
            now_s, ran_s = self._now_s(context), trio.current_time()
            if now_s >= until_s:
                await trio.lowlevel.checkpoint()
                return now_s
            # On a clock that has never stood still this is the very moment: nothing is added to it, or rounded.
            due_s = until_s if now_s == ran_s else ran_s + (until_s - now_s)
            await trio.sleep_until(min(due_s, ran_s + _LOOK_S))

    def _postpone(self, error: ConnectorError, schedule: Schedule, tick_s: float, now_s: float) -> None:
        """Close the gate where the venue asked for a pause, and tell the error when the next tick is."""
        # A refusal is about what this channel asks for: the host's other channels have nothing to wait for.
        if error.retry_after_s is not None and not isinstance(error, VenueRefused):
            self._host.gate.close(passed_s(), error.retry_after_s, str(error))
        if schedule.next_s < now_s:
            schedule.advance(now_s)
        schedule.hold(tick_s + self._poll.retry_s)
        error.retry_after_s = max(error.retry_after_s or 0.0, schedule.next_s - now_s)

    async def _tick(self, client: httpx.AsyncClient, context: Context) -> bool:
        """One poll: every request of the tick, and those that follow from answers, one by one.

        Returns: whether anything was published.
        Raises: ConnectorError.
        """
        self._host.gate.check(passed_s())
        tap = self._tap
        tap.ticked(context.now_ms())
        tick = self.ticks.begin(self._now_s(context), trio.current_time())
        self._counts.repeats += not tick.asks
        while True:
            if tick.outcome.pause is not None:
                pause = tick.outcome.pause
                self._host.gate.close(passed_s(), pause.seconds, pause.reason)
            self._counts.budget = tick.outcome.budget or self._counts.budget
            if tick.events:
                await context.publish(tick.events)
            request = tick.next()
            if request is None:
                break
            self._counts.requests += 1
            began_s = trio.current_time()
            try:
                answer = await ask(self._host, client, request, context.now_ms)
            except ConnectorError as error:
                tap.unanswered(request.url, str(error), context.now_ms())
                raise
            took_s = trio.current_time() - began_s
            self._counts.answers_s.add(took_s)
            took_ms = round(took_s * 1000)
            tap.answered(request.url, answer.status, answer.headers, answer.body, answer.received_ms, took_ms)
            answer = msgspec.structs.replace(answer, at_s=self._now_s(context))
            tick.answer(request, answer, trio.current_time())
        await context.note(self._notes.due(tick.end(), trio.current_time()))
        return tick.published

    def _notice(self) -> str:
        """What is worth telling of a channel that is live."""
        left_out = f"repeats of more than {REPEATED_BYTES_PER_S} bytes/s are left out" if self.ticks.left_out else ""
        return "; ".join(filter(None, [self._poll.notice, left_out]))
