"""What a venue's simulated websocket is made of, so that each is one pure file `venues/NAME_streams.py`. No I/O.

How to write one: see `okx_streams.py`, the model.

* A `SocketVenue` is the venue: which paths it answers, its rules, and `open()`, which makes a `SocketSession` for each
  connection. It gets the `MarketStream` when it is made, and is named once, in `SOCKET_VENUES` of `simulator.py`.
* A `SocketSession` is one connection. `receive(text)` takes each message of the client and returns what to send at
  once: acknowledgements, errors, pongs in the venue's own words, or a `Close`. It also notes what is subscribed now.
* `pushes(step, now_ms)` is called right after `receive`, and whenever the market has made a step (several at once, if
  the simulator is late), and at least once a second. It returns everything that is due since its last call, in the
  order in which the venue sends it: first the snapshots of what is new since then, then changes of what was there
  (`stream.change(listing, step, since)` and `stream.trades_between(listing, since, step)`, with the step at which this
  subscription was served last), then heartbeats. It keeps time by `now_ms` (milliseconds since 1970) alone.
* Every text is a `Push`, which says what it is of. For a frame of a book, `change` is what the text was made of and
  `remake` makes a text of another change instead: so the faults of streams (`connectors.simulator.faults.streams`:
  lost, doubled, late, torn, crossed, with a wrong checksum) are the same few lines for all venues. A session's own
  counters (OKX's chain, Coinbase's `sequence_num`) go on as if the frame had been sent.
* `SocketRules` are what the one file of I/O (`connectors.simulator.venues.websocket`) keeps for every venue: silence
  after which it hangs up, pings that must be answered, how much a client may ask, how many connections there may be.
  A connection or request beyond them is refused as the rules say.

Numbers of the market are integers in smallest steps: `market.padded` and `market.unpadded` write them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.market import Listing
from connectors.simulator.venues.stream import BookChange

PushKind: TypeAlias = Literal["ticker", "trade", "quote", "book", "candle", "other"]


class Close(msgspec.Struct, frozen=True):
    """The venue ends the connection; without a close frame where there is no code."""

    code: int | None
    reason: str = ""


class Push(msgspec.Struct, frozen=True):
    """One text that nobody asked for just now.

    Attributes:
        text: As sent.
        kind: What it tells; `other` is a heartbeat or the like.
        listing: Of which instrument; None where it is of none, or of several.
        change: What a frame of a book was made of.
        whole: Whether it is a book's snapshot; `change` then has all levels.
        remake: The text for another change of the same book. With `spoiled`, the checksum (where the venue has one)
            is wrong.
        history: Whether it repeats what happened before the subscription.
    """

    text: bytes
    kind: PushKind = "other"
    listing: Listing | None = None
    change: BookChange | None = None
    whole: bool = False
    remake: Callable[[BookChange, bool], bytes] | None = None
    history: bool = False


class SocketRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a venue treats connections.

    Attributes:
        first_s: Who has asked for nothing so long after the connection opened is cut off, with `idle`; None is never.
        idle_s: So long after it last sent something the venue hangs up, with `idle`; None is never.
        ping_every_s: The venue sends a ping frame so often; None is never.
        pong_within_s: Who answers no ping for so long is cut off, with `unanswered`.
        message_bytes: A longer message of a client closes with 1009.
        requests: A client may send so many messages in `requests_s` seconds; the next one closes with `too_many`.
        slow: How a client is cut off that does not read what it is sent.
        connections: So many may be open at once; None is any number.
        connects: So many may be opened in `connects_s` seconds; None is any number.
        refused_status: What a handshake beyond these is answered, with `refused_body`.
    """

    first_s: float | None = None
    idle_s: float | None = None
    idle: Close = Close(1006)
    ping_every_s: float | None = None
    pong_within_s: float = 60.0
    unanswered: Close = Close(1008, "Pong timeout")
    message_bytes: int = 64 * 1024
    requests: int | None = None
    requests_s: float = 1.0
    too_many: Close = Close(1008, "Too many requests")
    slow: Close = Close(1008, "Slow consumer")
    connections: int | None = None
    connects: int | None = None
    connects_s: float = 300.0
    refused_status: int = 429
    refused_body: bytes = b""


class SocketSession(Protocol):
    """One connection of a client, without its I/O (see the module). To be derived from.

    Only the first two methods must be there; the others are what faults ask for, and do nothing unless overridden.
    """

    @abstractmethod
    def receive(self, text: str | bytes) -> Sequence[bytes | Close]:
        """Take a client's message; what to send at once."""

    @abstractmethod
    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        """What is due by now and was not returned yet."""

    def refuse(self, text: str | bytes, listing: Listing, code: str) -> Sequence[bytes]:
        """The venue's error for a message that subscribes this listing and no other; none for any other message.

        `code` is one of the venue's own, or empty: the usual one.
        """
        return ()

    def forget(self, listing: Listing) -> Sequence[bytes]:
        """The listing is not known any more: end its subscriptions; what the venue says of it, if anything."""
        return ()

    def restart(self, listing: Listing) -> None:
        """The venue's numbers of this book begin anew (its engine was restarted): `pushes` tells it as the venue does.

        Nothing happens where the venue does not number a book by itself.
        """
        return

    def notice(self) -> Sequence[bytes]:
        """What the venue says before it closes connections for an upgrade, if anything."""
        return ()


class SocketVenue(Protocol):
    """A venue's websockets (see the module)."""

    @property
    def name(self) -> str:
        """As in orders for faults: `okx`."""

    @property
    def rules(self) -> SocketRules:
        """For all its connections."""

    def serves(self, path: str) -> bool:
        """Whether a handshake for this path (without its query) is for it."""

    def open(self, request: VenueRequest, number: int) -> SocketSession:
        """A new connection, by its handshake; `number` counts the simulator's connections from 0."""
