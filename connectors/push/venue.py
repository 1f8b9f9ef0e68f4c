"""What a venue must say about itself so that `Feed` can run its websocket: data and pure functions, no I/O.

A venue's side of a conversation is one of two things: data (a list of events, maybe empty; `Rows` where
something is wrong with a part of it), or one of the control messages below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec

from connectors.base import Event, Rows


class SubscribeRequest(msgspec.Struct, frozen=True):
    """One subscription, as it is asked for.

    Attributes:
        id: what the venue's answer repeats; one per subscription, because a refusal may say nothing else.
        text: the text frame to send.
        channels: the channels that are fed by it.
        subject: the instrument that it is about, `BTC/USDT`.
    """

    id: str
    text: str
    channels: tuple[str, ...]
    subject: str


class SubscribeAck(msgspec.Struct, frozen=True):
    """The venue took a subscription. No sign of life: acknowledged subscriptions have stayed mute."""

    id: str


class SubscribeRefused(msgspec.Struct, frozen=True):
    """The venue will not serve a subscription.

    Attributes:
        id: whose, or "" where the venue did not say.
        reason: in words, for clients.
        retry: whether asking again soon may help.
    """

    id: str
    reason: str
    retry: bool


class ClosingNotice(msgspec.Struct, frozen=True):
    """The venue is about to close this connection: another one is to take over before."""

    reason: str


class Heartbeat(msgspec.Struct, frozen=True):
    """The venue's application-level ping or pong; `answer` is the text to send back, if any."""

    answer: str = ""


class Ignored(msgspec.Struct, frozen=True):
    """A frame that is well-formed and of no interest, by name."""

    what: str


Control: TypeAlias = SubscribeAck | SubscribeRefused | ClosingNotice | Heartbeat | Ignored


class FeedRules(msgspec.Struct, frozen=True, kw_only=True):
    """A venue's rules for one connection.

    Attributes:
        ping: the text that the venue answers as a heartbeat.
        ping_after_s: send it after so long without a frame.
        pong_s: how long the answer may take.
        requests_per_hour: most subscription requests on one connection.
        connect_spacing_s: least time between two attempts to connect.
        fatal_close_codes: close codes after which coming back soon is pointless.
        message_bytes: how large one message may be: some times what the venue sends. A larger one ends the connection,
            for what is made of it takes room on the tape.
    """

    ping: str
    ping_after_s: float
    pong_s: float
    requests_per_hour: int
    connect_spacing_s: float
    fatal_close_codes: frozenset[int]
    message_bytes: int = 4 * 1024 * 1024


class FeedVenue(Protocol):
    """One venue's public push interface."""

    @property
    def name(self) -> str:
        """For logs and metrics: `okx`."""
        ...

    @property
    def title(self) -> str:
        """For people: `OKX`."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels it feeds."""
        ...

    @property
    def rules(self) -> FeedRules:
        """Its rules for one connection."""
        ...

    def subscribe_requests(self) -> Sequence[SubscribeRequest]:
        """All there is to ask for; the same ids each time."""
        ...

    def order_key(self, event: Event) -> int | None:
        """What tells where an event stands among those of its channel and instrument.

        It never falls from one event to the next and is the same on every connection; events with the same key differ
        in their data. None where the venue gives nothing of the kind.
        """
        ...

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """What one message means; `Rows` only where there is something to note.

        Raises:
            PayloadError: it is not what the venue documents, and no instrument is to blame; nothing else comes out,
                whatever the bytes.
        """
        ...
