"""Are the instruments that are configured on a venue's own list, and traded? Asked at the start, and once a day.

A venue says of a wrong or delisted instrument whatever it likes: it refuses a request, acknowledges it and stays
silent, or goes on with an old price. Its list is plain. So what is not on the list (`refused`) or is not traded
(`halted`) is noted as long as it is so, by a connector of its own beside those that bring the data: it makes no channel
live, and that it fails harms none. While something is wrong the list is read again every few minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

import msgspec
import trio

from connectors.base import (
    ConnectorError,
    Context,
    TopicNote,
    VenueRefused,
    VenueThrottled,
    VenueUnavailable,
)
from connectors.capture.tap import NO_TAP, Tap
from connectors.limits.notes import RENEW_S
from connectors.metric import Samples
from connectors.poll.asking import HostFetcher
from connectors.poll.host import Host
from connectors.poll.venue import Answer, Pause
from protocol.channels import Channel
from protocol.messages import TopicCause

DAY_S: Final = 86_400.0
"""The time between two looks at a list on which all is well."""

AGAIN_S: Final = 300.0
"""The time between two looks while something is wrong."""

_log: Final = logging.getLogger(__name__)


class Wrong(msgspec.Struct, frozen=True):
    """What the venue's list says of an instrument that is not traded: `refused` or `halted`, and in words."""

    cause: TopicCause
    reason: str


class UnknownInstrument(VenueRefused):
    """The venue refused the request because of an instrument in it; it may not say which."""


class Listing(Protocol):
    """What one venue's list is asked and says. Pure."""

    @property
    def title(self) -> str:
        """The venue as people write it."""
        ...

    @property
    def most(self) -> int:
        """How many instruments one request may be about."""
        ...

    def symbol(self, instrument: str) -> str:
        """The venue's spelling."""
        ...

    def path(self, symbols: Sequence[str]) -> str:
        """What to ask about them, with its query, percent-encoded."""
        ...

    def explain(self, answer: Answer) -> ConnectorError | None:
        """What an answer means that is no list: `UnknownInstrument` if one of those asked for is to blame."""
        ...

    def pause(self, answer: Answer) -> Pause | None:
        """Whether the host is to be left alone after an answer."""
        ...

    def read(self, body: bytes) -> Mapping[str, Wrong | None]:
        """All symbols on the list, and what is wrong with each.

        Raises:
            PayloadError: it is not what the venue documents.
        """
        ...


class InstrumentCheck:
    """One venue's instruments, checked as long as it runs.

    Attributes:
        name: for logs and metrics.
        channels: none falls silent with it.
        unreadable: none is counted; a list that cannot be read is a failure.
        wrong: what the last look found, by instrument; kept while another look fails.
    """

    unreadable = 0

    def __init__(self, venue: str, listing: Listing, host: Host, channels: Sequence[Channel]) -> None:
        self.name = f"{venue}-instruments"
        self.channels: tuple[str, ...] = ()
        self.wrong: dict[str, Wrong] = {}
        self._listing = listing
        self._host = host
        self._carriers: dict[str, list[str]] = {}
        for channel in channels:
            for instrument in channel.instruments:
                self._carriers.setdefault(instrument, []).append(channel.name)
        self._left: list[tuple[str, ...]] = []
        self._found: dict[str, Wrong] = {}
        self._looks = 0
        self._tap = NO_TAP

    @property
    def carried(self) -> tuple[str, ...]:
        """None: what it brings is no data."""
        return ()

    def record(self, tap: Tap) -> None:
        """Tell this tap what the venue's list is, each time that it is read."""
        self._tap = tap

    async def look(self, now_ms: Callable[[], int]) -> dict[str, Wrong]:
        """Read the list once. One that failed goes on where it was.

        Raises:
            ConnectorError: the venue did not give it.
        """
        listing = self._listing
        fetcher = HostFetcher(self._host, explain=listing.explain, now_ms=now_ms, pause=listing.pause)
        if not self._left:
            names, most = tuple(self._carriers), listing.most
            self._left, self._found = [names[at : at + most] for at in range(0, len(names), most)], {}
        while self._left:
            batch = self._left[0]
            symbols = [listing.symbol(name) for name in batch]
            try:
                path = listing.path(symbols)
                body = await fetcher.get(path)
                self._tap.answered(path, 200, {}, body, now_ms(), 0)
                listed = listing.read(body)
            except UnknownInstrument:
                half = len(batch) // 2
                self._left[:1] = [batch[:half], batch[half:]] if half else []
                if not half:
                    self._found[batch[0]] = self._unlisted
                continue
            for name, symbol in zip(batch, symbols, strict=True):
                if (wrong := listed.get(symbol, self._unlisted)) is not None:
                    self._found[name] = wrong
            del self._left[0]
        self._looks += 1
        return dict(self._found)

    @property
    def _unlisted(self) -> Wrong:
        return Wrong("refused", f"{self._listing.title} does not list it")

    def named(self) -> list[tuple[str, str, Wrong]]:
        """Channel, instrument, and what is wrong, by the last look."""
        return [(channel, name, wrong) for name, wrong in self.wrong.items() for channel in self._carriers[name]]

    async def run(self, context: Context) -> None:
        """Look, and note what is wrong, until cancelled. Raises: ConnectorError."""
        await self._note(context)
        while True:
            before, self.wrong = self.wrong, await self.look(context.now_ms)
            for name, wrong in self.wrong.items():
                if before.get(name) != wrong:
                    _log.warning("%s: %s: %s", self.name, name, wrong.reason, extra={"instrument": name})
            for name in before.keys() - self.wrong.keys():
                _log.info("%s: %s is listed and traded again", self.name, name)
            until_s = trio.current_time() + (AGAIN_S if self.wrong else DAY_S)
            while self.wrong and trio.current_time() < until_s:
                await self._note(context)
                await trio.sleep(RENEW_S)
            await trio.sleep_until(until_s)

    async def _note(self, context: Context) -> None:
        notes = [
            TopicNote(channel, name, wrong.cause, wrong.reason, listed=True) for channel, name, wrong in self.named()
        ]
        if notes:
            await context.note(notes)

    def measure(self, samples: Samples) -> None:
        """Add how often the list was read, and how many instruments are wrong by it."""
        looks = "How often a venue's list of instruments was read to its end."
        samples.counter("tickerd_instrument_checks", looks, "connector").add_metric([self.name], self._looks)
        wrong = "Configured instruments that the venue does not list, or does not trade."
        samples.gauge("tickerd_instruments_wrong", wrong, "connector").add_metric([self.name], len(self.wrong))


def explained(title: str, answer: Answer, words: str = "", what: str = "its instruments") -> ConnectorError | None:
    """What an HTTP status means for whoever asked for `what`; None where it is a success."""
    status, said = answer.status, f": {words}" if words else ""
    if 200 <= status < 300:
        return None
    if status in (418, 429):
        pause_s = answer.retry_after_s or 60.0
        return VenueThrottled(f"{title} asked for a pause of {pause_s:.0f} s (HTTP {status})", retry_after_s=pause_s)
    if status >= 500 or status == 408:
        return VenueUnavailable(f"{title} is in trouble (HTTP {status}{said})", retry_after_s=answer.retry_after_s)
    return VenueRefused(f"{title} refused to show {what} (HTTP {status}{said})")


def query(**parameters: str) -> str:
    """A query, percent-encoded."""
    return "&".join(f"{key}={quote(value, safe='')}" for key, value in parameters.items())


def beside(url: str, hosts: Mapping[str, str]) -> str:
    """The base URL of a venue's HTTP interface, by that of its websocket: at one of these hosts, else at the same.

    So whoever points the websocket at another place (a mirror, a simulator) asks for the list there too.
    """
    parts = urlsplit(url)
    scheme = "https" if parts.scheme.lower() in ("wss", "https") else "http"
    return f"{scheme}://{hosts.get((parts.hostname or '').lower(), parts.netloc)}"
