"""Where a connector says what it received and sent, as it came: each call is cheap, and none waits or raises.

The recorder hands out one `Tap` for each connector. Without a recorder it is `NO_TAP`, to which everything is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

from connectors.capture.lines import Exchange, Fetched, Line, seconds

HEADERS: Final = frozenset({"retry-after", "date", "age", "cache-control", "etag", "expires", "content-type"})
_USED: Final = "x-mbx-used-weight"
"""The headers of answers that matter: when to come back, how old a body is, how much of a budget is used up."""


class Tap:
    """What one connector has to say. This one keeps nothing.

    `connection` counts the connector's connections: `number` gives each its own.
    """

    def __init__(self) -> None:
        self._connections = 0

    def number(self) -> int:
        """The number of another connection, from 1 on."""
        self._connections += 1
        return self._connections

    def frames(self, connection: int, payloads: Sequence[bytes], received_ms: int) -> None:
        """These frames came together. On the hot path: one call for all of them. They must not change afterwards."""

    def end(self, reason: str) -> None:
        """Nothing more will come of this connector."""

    def put(self, line: Line, size: int = 0) -> None:
        """Keep a line; `size` is that of a body in it, in bytes."""

    def opened(self, connection: int, address: str, now_ms: int) -> None:
        """A connection was opened. `address` is host and path, without secrets."""
        self.put(Line(seconds(now_ms), conn=connection, opened=address))

    def sent(self, connection: int, text: str, now_ms: int) -> None:
        """This text frame was sent on it."""
        self.put(Line(seconds(now_ms), conn=connection, sent=text), len(text))

    def closed(self, connection: int, reason: str, now_ms: int) -> None:
        """It is over, and why."""
        self.put(Line(seconds(now_ms), conn=connection, closed=reason))

    def fetched(self, connection: int, id: str, path: str, body: bytes, now_ms: int) -> None:
        """What a conversation needed was fetched."""
        # A body that is no text cannot be read by any venue's conversation either.
        fetched = Fetched(id, path, body.decode(errors="replace"))
        self.put(Line(seconds(now_ms), conn=connection, fetched=fetched), len(body))

    def unfetched(self, connection: int, id: str, path: str, reason: str, now_ms: int) -> None:
        """It could not be fetched, and why."""
        self.put(Line(seconds(now_ms), conn=connection, fetched=Fetched(id, path, reason=reason)))

    def ticked(self, now_ms: int) -> None:
        """A poll is due: what follows are its requests, if it makes any."""
        self.put(Line(seconds(now_ms), tick=True))

    def answered(
        self, url: str, status: int, headers: Mapping[str, str], body: bytes, received_ms: int, took_ms: int
    ) -> None:
        """A request of a poll was answered. `url` is path and query; `headers` by lower-case name."""
        kept = {name: value for name, value in headers.items() if name in HEADERS or name.startswith(_USED)}
        exchange = Exchange("GET", url, status, kept, body.decode(errors="replace"), took_ms=took_ms)
        self.put(Line(seconds(received_ms), http=exchange), len(body))

    def unanswered(self, url: str, reason: str, now_ms: int) -> None:
        """A request of a poll got no answer, and why."""
        self.put(Line(seconds(now_ms), http=Exchange("GET", url, reason=reason)))


NO_TAP: Final = Tap()
"""For connectors that nobody records."""


@runtime_checkable
class Recorded(Protocol):
    """A connector that can be recorded."""

    @property
    def carried(self) -> tuple[str, ...]:
        """The channels that it feeds, alone or together with others."""
        ...

    def record(self, tap: Tap) -> None:
        """From now on tell this tap. Before `run`."""
        ...
