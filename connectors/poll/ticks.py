"""The ticks of one poll, without I/O and without a clock: what to ask, what to publish, and what is wrong.

    tick = ticks.begin(now_s, ran_s)
    while (request := tick.next()) is not None:
        publish tick.events, ask, tick.answer(request, answer, ran_s)
    publish tick.events, note tick.end()

`Poller` carries that out with the venue itself, a replay (`connectors.replay.polled`) with what was recorded.
"""

from __future__ import annotations

import math
from typing import Final

from connectors.base import Event, PayloadError, TopicNote
from connectors.limits.allowance import Allowance
from connectors.poll.venue import Answer, Outcome, Poll, PollRequest
from protocol.channels import Channel

REPEATED_BYTES_PER_S: Final = 64 * 1024
REPEATED_BYTES_AT_ONCE: Final = 512 * 1024
"""What a channel's repeats of an unchanged body may add to the tape. A body of 256 KiB may be repeated every 4 s."""


class Ticks:
    """What outlives a tick.

    Attributes:
        poll: the venue's part.
        left_out: whether repeats are left out, because they are too large.
    """

    def __init__(self, channel: Channel, poll: Poll, title: str) -> None:
        """`title` is the venue as people write it."""
        self.poll = poll
        self.left_out = False
        self.channel = channel.name
        self._title = title
        self._most_bytes = channel.kind.most_bytes
        self._repeatable = Allowance(REPEATED_BYTES_PER_S, REPEATED_BYTES_AT_ONCE, -math.inf)

    def begin(self, now_s: float, ran_s: float) -> Tick:
        """A poll is due. `now_s` is on the clock of `Poll`, `ran_s` on that of limits.

        Raises:
            VenueRefused: there is nothing that the venue would answer.
        """
        return Tick(self, self.poll.tick(now_s), ran_s)

    def accepted(self, events: list[Event], ran_s: float) -> tuple[list[Event], dict[str, PayloadError]]:
        """Those that may go onto the tape, and what is wrong with the others, by instrument.

        One that is larger than its kind ever is would push the history of other channels off the tape. So would repeats
        without an end: they are left out where they cost more than `REPEATED_BYTES_PER_S`, which is no error.
        """
        accepted: list[Event] = []
        refused: dict[str, PayloadError] = {}
        for event in events:
            size = len(event.data)
            if size > self._most_bytes:
                what = event.instrument or event.channel
                text = f"{self._title} sent {size} bytes for {what}, of which at most {self._most_bytes} are taken"
                refused[event.instrument] = PayloadError(text)
            elif event.cached and not self._repeatable.take(size, ran_s):
                self.left_out = True
            else:
                self.left_out = self.left_out and event.cached
                accepted.append(event)
        return accepted, refused

    def odd(self, instrument: str, error: PayloadError) -> TopicNote:
        """What is noted of an instrument whose part of an answer cannot be used."""
        return TopicNote(self.channel, instrument, "unreadable", str(error))


class Tick:
    """One tick: every request of it, and those that follow from answers, one by one.

    Attributes:
        outcome: what the last step came to.
        events: what is to be published now.
        asks: whether there is anything to ask.
    """

    def __init__(self, ticks: Ticks, outcome: Outcome, ran_s: float) -> None:
        """Use `Ticks.begin`."""
        self.asks = bool(outcome.requests)
        self.events: list[Event] = []
        self.outcome = outcome
        self._ticks = ticks
        self._pending: list[PollRequest] = []
        self._published = False
        self._malformed = ""
        """What the first such error said. The error itself holds the answer, and would be held by this."""
        self._nobodys = False
        self._notes: list[TopicNote] = []
        self._take(outcome, ran_s)

    def next(self) -> PollRequest | None:
        """What is to be asked next; None where the tick has come to its end."""
        return self._pending.pop() if self._pending else None

    def answer(self, request: PollRequest, answer: Answer, ran_s: float) -> None:
        """The venue has answered.

        Raises:
            ConnectorError: the tick is over; see `Poll.answer`.
        """
        try:
            outcome = self._ticks.poll.answer(request, answer)
        except PayloadError as error:
            # What one answer lacks is no reason to leave the other instruments without theirs.
            self._malformed = self._malformed or str(error)
            self._nobodys = self._nobodys or not request.instruments
            outcome = Outcome(notes=[self._ticks.odd(name, error) for name in request.instruments])
        self._take(outcome, ran_s)

    def end(self) -> list[TopicNote]:
        """That was all: what is wrong with single instruments.

        Raises:
            PayloadError: it is not one instrument's trouble, but the channel's.
        """
        if self._malformed and (self._nobodys or not self._published):
            raise PayloadError(self._malformed)
        return self._notes

    @property
    def published(self) -> bool:
        """Whether anything was to be published."""
        return self._published

    def _take(self, outcome: Outcome, ran_s: float) -> None:
        self.outcome = outcome
        self.events, too_large = self._ticks.accepted(outcome.events, ran_s)
        self._notes += outcome.notes
        for name, error in too_large.items():
            self._malformed = self._malformed or str(error)
            self._notes.append(self._ticks.odd(name, error))
        self._published = self._published or bool(self.events)
        self._pending.extend(reversed(outcome.requests))
