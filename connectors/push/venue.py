"""What a venue must say about itself so that `Feed` can run its websocket: data and pure functions, no I/O.

What a venue says is one of two things: data (a list of events, maybe empty; `Rows` where something is wrong with a part
of it; `Said` where something is needed), or one of the control messages below. Each connection has a `Conversation`,
which remembers what was said on it: the books, above all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import inf
from typing import Protocol, TypeAlias

import msgspec

from connectors.base import Event, Rows, TopicNote


class SubscribeRequest(msgspec.Struct, frozen=True):
    """One subscription, as it is asked for.

    Attributes:
        id: what the venue's answer repeats; one per subscription, because a refusal may say nothing else.
        text: the text frame to send.
        channels: the channels that are fed by it; none where it is asked for the conversation's own sake.
        subject: the instrument that it is about, `BTC/USDT`.
        leave: the text frame that ends it, if it may have to be renewed (`Renew`); the venue must answer it.
    """

    id: str
    text: str
    channels: tuple[str, ...]
    subject: str
    leave: str = ""


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


class SubscribeEnded(msgspec.Struct, frozen=True):
    """The venue has ended a subscription, as it was asked to (`SubscribeRequest.leave`)."""

    id: str


class ClosingNotice(msgspec.Struct, frozen=True):
    """The venue is about to close this connection: another one is to take over before."""

    reason: str


class Heartbeat(msgspec.Struct, frozen=True):
    """The venue's application-level ping or pong; `answer` is the text to send back, if any."""

    answer: str = ""


class Ignored(msgspec.Struct, frozen=True):
    """A frame that is well-formed and of no interest, by name."""

    what: str


Single: TypeAlias = SubscribeAck | SubscribeRefused | SubscribeEnded | ClosingNotice | Heartbeat | Ignored


class Several(msgspec.Struct, frozen=True):
    """One message that says several of these, as a list of all subscriptions does."""

    controls: tuple[Single, ...]


Control: TypeAlias = Single | Several


class Renew(msgspec.Struct, frozen=True):
    """A need: a subscription is to be ended and asked for anew. `reason` is for the log."""

    id: str
    reason: str


class Fetch(msgspec.Struct, frozen=True):
    """A need: what the venue's HTTP interface answers at that path (with its query), for `Conversation.fetched`.

    `id` says what it is for. One that is asked for again while it is under way is fetched once. A failure is tried
    again after 1, 2, 4 ... 60 seconds, for as long as the connection lives.
    """

    id: str
    path: str


class Reconnect(msgspec.Struct, frozen=True):
    """A need: another connection, since this one cannot be mended. `reason` is told to clients."""

    reason: str


Need: TypeAlias = Renew | Fetch | Reconnect


class Said(Rows):
    """Data, and what is needed so that more can come.

    Attributes:
        needs: in order; what is needed of one instrument concerns no other.
        controls: what the same message says that is no data. They count after the notes.
    """

    needs: Sequence[Need] = ()
    controls: Sequence[Single] = ()


class FeedRules(msgspec.Struct, frozen=True, kw_only=True):
    """A venue's rules for one connection.

    Attributes:
        ping: the text that the venue answers as a heartbeat.
        ping_after_s: send it after so long without a frame.
        ping_every_s: send it at least so often, whatever comes.
        pong_s: how long the answer may take.
        requests_per_hour: most subscription requests on one connection.
        connect_spacing_s: least time between two attempts to connect.
        fatal_close_codes: close codes after which coming back soon is pointless.
        message_bytes: how large one message may be: some times what the venue sends. A larger one ends the connection,
            for what is made of it takes room on the tape.
        request_spacing_s: least time between two subscription requests on one connection.
        consecutive_trades: whether the ids of an instrument's trades rise by one, so that a hole is a loss.
        settles_s: how much longer than others a new connection may take until it has delivered every topic.
    """

    ping: str
    ping_after_s: float
    pong_s: float
    requests_per_hour: int
    connect_spacing_s: float
    fatal_close_codes: frozenset[int]
    message_bytes: int = 4 * 1024 * 1024
    ping_every_s: float = inf
    request_spacing_s: float = 0.0
    consecutive_trades: bool = False
    settles_s: float = 0.0


class Conversation(ABC):
    """What one connection says, from its beginning to its end.

    Only `handle` must be there. A venue that remembers nothing from one frame to the next is its own conversation.
    """

    @abstractmethod
    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """What one message means; `Rows` only where there is something to note, `Said` where something is needed.

        A note of cause `gap` goes out in its place among the events, others after them.

        Raises:
            PayloadError: it is not what the venue documents, and no instrument is to blame; nothing else comes out,
                whatever the bytes.
        """

    def fetched(self, id: str, body: bytes, received_ms: int) -> list[Event] | Rows:
        """What the answer to a `Fetch` means.

        Raises:
            PayloadError: it is not what the venue documents; it is fetched again.
        """
        return []

    def unfetched(self, id: str, reason: str) -> list[TopicNote]:
        """What is to be noted because a `Fetch` has failed; it is tried again."""
        return []

    def waits_ms(self, now_ms: int) -> float | None:
        """In how many milliseconds `tick` is due, 0 for at once; None while it is not."""
        return None

    def tick(self, now_ms: int) -> list[Event] | Rows:
        """What is due without a message of the venue: a book that changed since it was last told, say."""
        return []

    def restate(self, now_ms: int) -> list[Event]:
        """The present state of the topics that cannot be merged event by event: a snapshot of each book.

        Asked for when this connection takes over from another; what it said of these topics until now was not used.
        """
        return []


class Fetcher(Protocol):
    """The venue's HTTP interface, for what a feed needs of it."""

    async def get(self, path: str) -> bytes:
        """The body of a good answer. Waits at the venue's gate, as all do who call this host.

        Raises:
            ConnectorError: there was none.
        """
        ...


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
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """The channels of which it feeds only a part, because other connections feed the rest: its instruments there.

        Of these no state is reported, which would be that of the whole channel, but what is wrong with each instrument.
        """
        return {}

    @property
    def rules(self) -> FeedRules:
        """Its rules for one connection."""
        ...

    def subscribe_requests(self) -> Sequence[SubscribeRequest]:
        """All there is to ask for; the same ids each time."""
        ...

    def converse(self) -> Conversation:
        """The beginning of a connection."""
        ...
