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

import math
from typing import Final, NoReturn

import httpx
import msgspec
import trio

from connectors.base import (
    ConnectorError,
    Context,
    Event,
    PayloadError,
    StateChange,
    TopicNote,
    VenueRefused,
)
from connectors.limits.allowance import Allowance
from connectors.limits.notes import NoteLimit
from connectors.metric import Samples
from connectors.poll.asking import ask
from connectors.poll.elapsed import Elapsed
from connectors.poll.host import Host
from connectors.poll.schedule import Schedule
from connectors.poll.venue import Outcome, Poll, PollRequest, PollStatistics
from daemon.host.loop_clock import passed_s
from protocol.channels import Channel

REPEATED_BYTES_PER_S: Final = 64 * 1024
REPEATED_BYTES_AT_ONCE: Final = 512 * 1024
"""What a channel's repeats of an unchanged body may add to the tape. A body of 256 KiB may be repeated every 4 s."""

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
        self._kind = channel.kind
        self._cadence_s = channel.cadence_s
        self._poll = poll
        self._host = host
        self._delay_s = delay_s
        self._schedule: Schedule | None = None
        self._elapsed = Elapsed()
        self._broken_off = False
        self._counts = PollStatistics()
        self._repeatable = Allowance(REPEATED_BYTES_PER_S, REPEATED_BYTES_AT_ONCE, -math.inf)
        self._notes = NoteLimit()
        self._left_out = False

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._channel

    @property
    def channels(self) -> tuple[str, ...]:
        """The one channel."""
        return (self._channel,)

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
        outcome = self._poll.tick(self._now_s(context))
        self._counts.repeats += not outcome.requests
        pending: list[PollRequest] = []
        published = False
        malformed: PayloadError | None = None
        nobodys = False
        notes: list[TopicNote] = []
        while True:
            if outcome.pause is not None:
                pause = outcome.pause
                self._host.gate.close(passed_s(), pause.seconds, pause.reason)
            self._counts.budget = outcome.budget or self._counts.budget
            events, too_large = self._accepted(outcome.events)
            notes += outcome.notes
            for name, error in too_large.items():
                malformed = malformed or error
                notes.append(self._odd(name, error))
            if events:
                await context.publish(events)
                published = True
            pending.extend(reversed(outcome.requests))
            if not pending:
                break
            request = pending.pop()
            self._counts.requests += 1
            began_s = trio.current_time()
            answer = await ask(self._host, client, request, context.now_ms)
            self._counts.answers_s.add(trio.current_time() - began_s)
            answer = msgspec.structs.replace(answer, at_s=self._now_s(context))
            try:
                outcome = self._poll.answer(request, answer)
            except PayloadError as error:
                # What one answer lacks is no reason to leave the other instruments without theirs.
                malformed = malformed or error
                nobodys = nobodys or not request.instruments
                outcome = Outcome(notes=[self._odd(name, error) for name in request.instruments])
        if malformed is not None and (nobodys or not published):
            # Not one instrument's trouble, but the channel's.
            raise malformed
        await context.note(self._notes.due(notes, trio.current_time()))
        return published

    def _odd(self, instrument: str, error: PayloadError) -> TopicNote:
        return TopicNote(self._channel, instrument, "unreadable", str(error))

    def _accepted(self, events: list[Event]) -> tuple[list[Event], dict[str, PayloadError]]:
        """Those that may go onto the tape, and what is wrong with the others, by instrument.

        One that is larger than its kind ever is would push the history of other channels off the tape. So would repeats
        without an end: they are left out where they cost more than `REPEATED_BYTES_PER_S`, which is no error.
        """
        most_bytes, now_s = self._kind.most_bytes, trio.current_time()
        accepted: list[Event] = []
        refused: dict[str, PayloadError] = {}
        for event in events:
            size = len(event.data)
            if size > most_bytes:
                what = event.instrument or event.channel
                text = f"{self._host.venue} sent {size} bytes for {what}, of which at most {most_bytes} are taken"
                refused[event.instrument] = PayloadError(text)
            elif event.cached and not self._repeatable.take(size, now_s):
                self._left_out = True
            else:
                self._left_out = self._left_out and event.cached
                accepted.append(event)
        return accepted, refused

    def _notice(self) -> str:
        """What is worth telling of a channel that is live."""
        left_out = f"repeats of more than {REPEATED_BYTES_PER_S} bytes/s are left out" if self._left_out else ""
        return "; ".join(filter(None, [self._poll.notice, left_out]))
