"""The seam between a venue's rules and the loop that polls it: what to ask, what was answered.

A venue's part implements `Poll` without I/O and without a clock; the `Poller` carries out what it says. Each turn ends
in an `Outcome`:

    tick   ->  Outcome(events to publish, requests to make)
    answer ->  Outcome(events to publish, requests that follow from this answer, a pause)

so a repeat from a cache (events at once, no request) and the search for one bad instrument in a
batch (an answer that makes two smaller requests) need nothing special from the loop.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import urlencode

import msgspec

from connectors.backoff import LONGEST_ASKED_S, retry_after_s, server_ms
from connectors.base import Event, TopicNote
from connectors.metric import Histogram

MAX_BODY_BYTES: Final = 1024 * 1024
"""The largest body that is taken, unpacked. To look one of this size over takes some 10 ms."""

LONGEST_LIFETIME_S: Final = 3_600.0
"""Longest time that a body is repeated on a venue's word: a mistaken `max-age` ends sometime."""

_SECONDS = re.compile(r"[0-9]{1,9}")
_MAX_AGE = re.compile(r"max-age=\"?([0-9]{1,9})\"?")


class PollRequest(msgspec.Struct, frozen=True):
    """One GET of the venue's host.

    Attributes:
        path: below the host's base URL, with a leading slash.
        params: the query, not yet percent-encoded.
        headers: what this request adds to the host's own headers.
        instruments: what is asked about; for the venue's part, not sent.
        most_bytes: how large the answer's body may be: some times what the venue sends to this, for reading a body
            takes time, and what is made of it takes room on the tape.
    """

    path: str
    params: dict[str, str] = {}
    headers: dict[str, str] = {}
    instruments: tuple[str, ...] = ()
    most_bytes: int = MAX_BODY_BYTES

    @property
    def url(self) -> str:
        """Path and query, percent-encoded: nothing that is secret stands there (keys are sent in headers)."""
        query = urlencode(self.params)
        return f"{self.path}{'&' if '?' in self.path else '?'}{query}" if query else self.path


class Answer(msgspec.Struct, frozen=True):
    """What came back.

    Attributes:
        status: the HTTP status.
        headers: by lower-case name.
        body: decoded from its transfer and content coding.
        received_ms: when its last byte was here, ms since 1970.
        at_s: the same moment on the clock that `Poll.tick` is told.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_ms: int
    at_s: float

    @property
    def retry_after_s(self) -> float | None:
        """`Retry-After` as seconds from now, an hour at most; None if absent or nonsense."""
        return self.retry_after_up_to_s(LONGEST_ASKED_S)

    def retry_after_up_to_s(self, longest_s: float) -> float | None:
        """The same, where the venue documents that it may ask for so long."""
        return retry_after_s(
            self.headers.get("retry-after", ""), self.received_ms, longest_s, self.headers.get("date", "")
        )

    @property
    def server_ms(self) -> int:
        """What time it is at the venue, as far as it says so: our clock may be wrong. Ms since 1970."""
        return server_ms(self.headers.get("date", ""), self.received_ms)

    @property
    def lifetime_s(self) -> float | None:
        """How much longer the body is fresh (RFC 9111 section 4.2); None if the venue did not say."""
        directives = [part.strip() for part in self.headers.get("cache-control", "").lower().split(",")]
        if "no-store" in directives or "no-cache" in directives:
            return 0.0
        for directive in directives:
            if found := _MAX_AGE.fullmatch(directive):
                age = self.headers.get("age", "").strip()
                age_s = float(age) if _SECONDS.fullmatch(age) else 0.0
                return min(max(0.0, float(found[1]) - age_s), LONGEST_LIFETIME_S)
        return None


class Pause(msgspec.Struct, frozen=True):
    """The host is to be left alone: for how long, and why in one sentence for clients."""

    seconds: float
    reason: str


class Budget(msgspec.Struct, frozen=True):
    """What the venue says that we have used up of its present limit, in the venue's own unit."""

    used: int
    limit: int


class Outcome(msgspec.Struct, frozen=True):
    """What follows from a tick or an answer. The requests are made in order, before any earlier ones.

    `notes` say what is wrong with single instruments, at each tick for as long as it is so.
    """

    events: list[Event] = []
    requests: list[PollRequest] = []
    pause: Pause | None = None
    budget: Budget | None = None
    notes: list[TopicNote] = []


class PollStatistics(msgspec.Struct):
    """Counts since the start, and what holds now.

    Attributes:
        requests: asked of the venue.
        repeats: ticks at which nothing was asked: the last body was good for once more.
        answers_s: from the request to its answer's last byte, of whatever status.
        budget: what the venue said last; None where it says nothing.
        closed_s: how much longer the venue's host must be left alone; 0 where it may be called.
    """

    requests: int = 0
    repeats: int = 0
    answers_s: Histogram = msgspec.field(default_factory=Histogram)
    budget: Budget | None = None
    closed_s: float = 0.0


class Poll(Protocol):
    """One channel's questions to its venue. Keeps what must outlive a failed run; does no I/O."""

    @property
    def retry_s(self) -> float:
        """The least number of seconds between a poll that failed and the next."""
        ...

    @property
    def notice(self) -> str:
        """What is worth telling about a channel that is live, or ""."""
        ...

    def tick(self, now_s: float) -> Outcome:
        """A poll is due.

        Raises:
            VenueRefused: there is nothing that the venue would answer.
        """
        ...

    def answer(self, request: PollRequest, answer: Answer) -> Outcome:
        """The venue answered.

        Raises:
            VenueUnavailable: try again; with `retry_after_s` where the whole host must be left alone.
            VenueRefused: the venue will not serve us as we are.
            PayloadError: the body is not what the venue documents. The loop makes the tick's other
                requests; where these bring something, only the request's instruments suffer.
        """
        ...
