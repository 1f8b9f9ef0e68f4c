"""OKX's public websockets (v5): what to ask for, and what each frame means. Pure, apart from `build`.

Source of every rule: OKX's v5 API documentation (overview: connect, subscribe, notification; error codes), state of
July 2026; what the data means stands in `topics.py`.

    we ask      {"id":"books0","op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}
    it answers  {"id":"books0","event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}
    or          {"id":"books0","event":"error","code":"60018","msg":"Wrong URL or channel:books,instId:... doesn't ..."}
    it pushes   {"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{...}]}
    and         {"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{...}]}
    heartbeat   the text `ping`, answered by the text `pong`

* Tickers, trades, quotes and books are on `/ws/v5/public`, candles on `/ws/v5/business` alone: two addresses, so two
  kinds of connection.
* 3 connections a second for one address; 480 requests an hour on one connection; fewer than 30 books of 400 levels on
  one connection.
* An error has no `arg`, so each subscription is a request with an `id` of its own (letters and digits, 32 at most).
* A connection is closed after 30 s in which nothing was pushed (4004).
* To renew a book: unsubscribe, await the answer, subscribe; a snapshot follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from connectors.base import Connector, Event, PayloadError, Rows, Seconds, VenueSettings, WebsocketUrl
from connectors.limits.payload import beginning, brief
from connectors.limits.rows import ANY_AGE_S, OLD_S, Ages, Odd
from connectors.push.connection import Spacing
from connectors.push.feed import Feed
from connectors.push.parcels import Parcel, parcels
from connectors.push.venue import (
    ClosingNotice,
    Control,
    Conversation,
    FeedRules,
    Heartbeat,
    Ignored,
    Said,
    SubscribeAck,
    SubscribeEnded,
    SubscribeRefused,
    SubscribeRequest,
)
from connectors.venues.okx import history
from connectors.venues.okx.topics import (
    BOOKS,
    CANDLES,
    INTERVALS,
    QUOTES,
    TICKERS,
    TRADES,
    Books,
    Candles,
    Quotes,
    Tickers,
    Topic,
    Trades,
)
from protocol.channels import Channel
from protocol.kinds import KINDS

RULES: Final = FeedRules(
    ping="ping",
    # The connection is closed after 30 s in which nothing was pushed; recommended are 15 to 20.
    ping_after_s=20.0,
    pong_s=10.0,
    requests_per_hour=480,
    connect_spacing_s=1 / 3,
    # 4002 is "invalid request": the same request would be as invalid again.
    fatal_close_codes=frozenset({4002}),
    # A ticker has some 400.
    message_bytes=KINDS["ticker"].most_bytes,
)

DEEP_BYTES: Final = 1024 * 1024
"""For a message where there are books: 400 levels of both sides have some 25 000."""

MOST_COST: Final = 200
BOOK_COST: Final = 7
"""What one connection carries, in subscriptions: so that each can be renewed once an hour. A book counts for so many,
which makes 28 of them at most."""

_CHANNELS: Final = {"ticker": TICKERS, "trades": TRADES, "quotes": QUOTES, "book": BOOKS, "depth": BOOKS}
"""OKX's channel for a kind of ours; candles have one for each length."""

_TOPICS: Final[dict[str, type[Topic]]] = {TRADES: Trades, QUOTES: Quotes, BOOKS: Books}

_UNKNOWN: Final = "60018"
_CLOSING: Final = "64008"
_RETRY: Final = frozenset({"60014", "63999", "64007", "50001", "50004", "50005", "50011", "50013", "50026"})
"""Requests too frequent (60014, 50011); an internal error, try later (63999, 64007); unavailable, timeout, offline,
busy, system error (50001, 50004, 50005, 50013, 50026: REST's codes, seen in answer to subscriptions too). All of these
OKX may take back within seconds. Other codes mean that the request is wrong, as far as OKX knows just now."""

_NAMED: Final = re.compile(r"(?:channel:([^\s,]+),)?instId:([^\s,]+)")
"""In the text of an error that came without its `id`, as OKX's used to."""

_CLOSED_PORT: Final = re.compile(r"wss?://([^/]*\.)?okx\.com:0*8443(/|\Z)", re.IGNORECASE)
"""Which old examples show. OKX announced on 2026-09-30 that it stops accepting websockets on 2026-10-31."""


class Okx(VenueSettings, frozen=True):
    """`[connectors.okx]`. OKX sets no limit to the age of a connection, so none is replaced for its age by default.

    `url` is for all but candles, which are at `business_url`. A pair whose `ts` stands still for `halted_after_s` is
    not trading.
    """

    url: WebsocketUrl = "wss://ws.okx.com/ws/v5/public"
    business_url: WebsocketUrl = "wss://ws.okx.com/ws/v5/business"
    silence_s: Seconds = 30.0
    timeout_s: Seconds = 10.0
    rotate_after_s: Annotated[float, Meta(ge=0, le=604_800)] = 0.0
    halted_after_s: Annotated[float, Meta(ge=60, le=ANY_AGE_S)] = OLD_S

    def refused(self) -> Iterator[tuple[str, str]]:
        """The port that is closed."""
        for key in ("url", "business_url"):
            if _CLOSED_PORT.match(getattr(self, key)):
                yield key, "OKX's address without a port; it closed port 8443 on 2026-10-31"


class _Arg(msgspec.Struct, gc=False):
    channel: str = ""
    instId: str = ""


class _Frame(msgspec.Struct, gc=False):
    """Any JSON frame: with `event` it is a control message, with `arg` and `data` it is data."""

    event: str = ""
    id: str | None = None
    code: str | int = ""
    msg: str = ""
    arg: _Arg | None = None
    action: str = ""
    data: Raw | UnsetType = UNSET


_frame: Final = msgspec.json.Decoder(_Frame)
_rows: Final = msgspec.json.Decoder(list[Raw])


class _Plan(NamedTuple):
    """A topic: OKX's channel, the instrument in its words and in ours, the channels that it feeds, its request's id."""

    channel: str
    inst_id: str
    instrument: str
    channels: tuple[Channel, ...]
    id: str


class OkxStreams:
    """What one connection carries: a `FeedVenue`."""

    title: Final = "OKX"

    def __init__(
        self,
        channels: Sequence[Channel],
        halted_after_s: float = OLD_S,
        *,
        name: str = "okx",
        parts: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        """Several channels may carry one topic; it is asked for once."""
        self.name = name
        self.parts = parts
        self.channels = tuple(channel.name for channel in channels)
        self._ages = Ages(halted_after_s)
        carriers: dict[tuple[str, str], list[Channel]] = {}
        for channel in channels:
            for instrument in channel.instruments:
                carriers.setdefault((_channel(channel), instrument), []).append(channel)
        self._plans = tuple(
            _Plan(name, instrument.replace("/", "-"), instrument, tuple(fed), f"{name.replace('-', '')}{number}")
            for number, ((name, instrument), fed) in enumerate(carriers.items())
        )
        has_books = any(plan.channel == BOOKS for plan in self._plans)
        self.rules = msgspec.structs.replace(RULES, message_bytes=DEEP_BYTES) if has_books else RULES

    def subscribe_requests(self) -> list[SubscribeRequest]:
        """One per topic, for an error names its request by `id` alone."""
        return [
            SubscribeRequest(
                plan.id,
                _request(plan, "subscribe"),
                tuple(channel.name for channel in plan.channels),
                plan.instrument,
                leave=_request(plan, "unsubscribe") if plan.channel == BOOKS else "",
            )
            for plan in self._plans
        ]

    def converse(self) -> OkxConversation:
        """The topics as they are at the beginning."""
        return OkxConversation([self._topic(plan) for plan in self._plans])

    def _topic(self, plan: _Plan) -> Topic:
        if plan.channel == TICKERS:
            return Tickers(*plan, self._ages)
        return _TOPICS.get(plan.channel, Candles)(*plan)


class OkxConversation(Conversation):
    """What one connection says."""

    def __init__(self, topics: Sequence[Topic]) -> None:
        """It has just been opened."""
        self._topics = {(topic.channel, topic.inst_id): topic for topic in topics}
        self._by_id = {topic.id: topic for topic in topics}
        self._books = [topic for topic in topics if isinstance(topic, Books)]
        self._waiting: dict[str, Books] = {}
        """The books that have best levels to tell, by id."""
        self._by_opening: dict[bytes, tuple[Topic, str]] = {}
        for topic in topics:
            opening = b'{"arg":' + msgspec.json.encode(_arg(topic.channel, topic.inst_id))
            for action in ("snapshot", "update") if isinstance(topic, Books) else ("",):
                said = b',"action":"%b"' % action.encode() if action else b""
                self._by_opening[opening + said] = topic, action

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """One text frame: the events of its rows, and what is wrong with some of them, or what else it says.

        Raises:
            PayloadError: it is not what OKX documents.
        """
        # A push as OKX writes it: one opening per topic, then one row. The row alone is decoded, which proves that it
        # is one; whatever looks different takes the long way below.
        opening, _, rest = payload.partition(b',"data":[')
        found = self._by_opening.get(opening)
        if found is not None and rest.endswith(b"]}"):
            topic, action = found
            try:
                said = topic.quick(rest[:-2], action, received_ms)
            except (msgspec.DecodeError, UnicodeError, RecursionError, Odd):
                # Two rows in one frame, say; or it is odd, and the long way says how.
                pass
            else:
                if isinstance(topic, Books):
                    self._note_waiting(topic, received_ms)
                return said
        if payload == b"pong":
            return Heartbeat()
        if payload == b"ping":
            return Heartbeat(answer="pong")
        try:
            payload.decode()
            frame = _frame.decode(payload)
            if frame.event:
                return self._control(frame)
            return self._data(frame, received_ms)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            if found is not None and isinstance(found[0], Books):
                # What it would have changed is not known.
                return found[0].left_out(Odd(f"a frame cannot be read: {brief(str(error))}"))
            raise PayloadError(f"OKX sent {beginning(payload)}: {error}") from None

    def waits_ms(self, now_ms: int) -> float | None:
        """The soonest of the books that have best levels to tell."""
        if not self._waiting:
            return None
        waits = [wait for book in self._waiting.values() if (wait := book.published.waits_ms(now_ms)) is not None]
        return min(waits, default=None)

    def tick(self, now_ms: int) -> list[Event]:
        """Best levels that are due."""
        events: list[Event] = []
        for book in list(self._waiting.values()):
            events += book.published.tick(now_ms)
            self._note_waiting(book, now_ms)
        return events

    def restate(self, now_ms: int) -> list[Event]:
        """The books."""
        return [event for book in self._books for event in book.published.restate(now_ms)]

    def _note_waiting(self, book: Books, now_ms: int) -> None:
        if book.published.waits_ms(now_ms) is None:
            self._waiting.pop(book.id, None)
        else:
            self._waiting[book.id] = book

    def _data(self, frame: _Frame, received_ms: int) -> list[Event] | Rows | Control:
        """Raises: msgspec.DecodeError, where `data` is no list."""
        if frame.arg is None or isinstance(frame.data, UnsetType):
            raise msgspec.ValidationError("neither `event` nor `arg` and `data`")
        channel, inst_id = frame.arg.channel, frame.arg.instId
        topic = self._topics.get((channel, inst_id))
        if topic is None:
            return Ignored(f"a frame of the channel {brief(channel)}, of {brief(inst_id) or 'no instrument'}")
        made = Said([], [], [])
        for raw in _rows.decode(frame.data):
            try:
                said = topic.row(bytes(raw), frame.action, received_ms)
            except Odd as odd:
                said = topic.left_out(odd)
            if isinstance(said, Rows):
                made.notes += said.notes
                made.needs = [*made.needs, *(said.needs if isinstance(said, Said) else ())]
                said = said.events
            made.events += said
        if isinstance(topic, Books):
            self._note_waiting(topic, received_ms)
        elif not made.events and not made.notes:
            return Ignored(f"a push without a row, of {topic.channel} and {topic.inst_id}")
        if made.needs:
            return made
        return Rows(made.events, made.notes) if made.notes else made.events

    def _control(self, frame: _Frame) -> Control:
        topic = self._topics.get((frame.arg.channel, frame.arg.instId)) if frame.arg else None
        if frame.event == "subscribe":
            taken = self._by_id.get(frame.id or "") or topic
            if isinstance(taken, Books):
                taken.acknowledged()
            return SubscribeAck(frame.id or (topic.id if topic else ""))
        if frame.event == "unsubscribe":
            return SubscribeEnded(frame.id or (topic.id if topic else ""))
        code = str(frame.code)
        if frame.event == "notice" and code == _CLOSING:
            return ClosingNotice("OKX is about to close the connection for a service upgrade")
        if frame.event == "error":
            return self._error(frame, code)
        return Ignored(f"the event {brief(frame.event)} {brief(code)}".rstrip())

    def _error(self, frame: _Frame, code: str) -> SubscribeRefused:
        topic = self._by_id.get(frame.id or "") or self._named(frame.msg)
        id_ = frame.id or (topic.id if topic else "")
        subject = topic.instrument if topic else "a request"
        if code == _UNKNOWN:
            return SubscribeRefused(id_, f"unknown to OKX: {subject}", retry=False)
        why = f"{brief(code)} {brief(frame.msg)}".strip()
        if code in _RETRY:
            return SubscribeRefused(id_, f"OKX cannot serve {subject} now: {why}", retry=True)
        return SubscribeRefused(id_, f"refused by OKX: {subject}: {why}", retry=False)

    def _named(self, text: str) -> Topic | None:
        """The topic that the text of an error names; of several of an instrument the first, if it names no channel."""
        found = _NAMED.search(text)
        if found is None:
            return None
        channel, inst_id = found.groups()
        of_it = (topic for (name, known), topic in self._topics.items() if known == inst_id and channel in (name, None))
        return next(of_it, None)


def build(channels: Sequence[Channel], settings: Okx, user_agent: str) -> list[Connector]:
    """A connector for each connection that these channels take, and one for past candles; none without channels.

    Raises:
        ValueError: a URL is none of a websocket, or OKX has no candles of that length.
    """
    for channel in channels:
        _channel(channel)
    candles = [channel for channel in channels if _channel(channel).startswith(CANDLES)]
    public = [channel for channel in channels if channel not in candles]

    def cost(channel: Channel, _instrument: str) -> int:
        return BOOK_COST if _channel(channel) == BOOKS else 1

    # The limit is that of our address, whatever is connected to.
    spacing = Spacing(RULES.connect_spacing_s)
    feeds: list[Connector] = []
    for url, group in (
        (settings.url, parcels("okx", public, MOST_COST, cost)),
        (settings.business_url, parcels("okx-candles", candles, MOST_COST)),
    ):
        feeds += [_feed(parcel, url, settings, user_agent, spacing) for parcel in group]
    return [*feeds, *history.build(channels, settings, user_agent, settings.timeout_s)]


def _feed(parcel: Parcel, url: str, settings: Okx, user_agent: str, spacing: Spacing) -> Feed:
    return Feed(
        OkxStreams(parcel.channels, settings.halted_after_s, name=parcel.name, parts=parcel.parts),
        url,
        user_agent=user_agent,
        silence_s=settings.silence_s,
        timeout_s=settings.timeout_s,
        rotate_after_s=settings.rotate_after_s,
        proxy=settings.proxy,
        spacing=spacing,
    )


def _channel(channel: Channel) -> str:
    """OKX's channel for one of ours. Raises: ValueError, where it has no candles of that length."""
    known = _CHANNELS.get(channel.kind.name)
    if known is not None:
        return known
    word = INTERVALS.get(channel.interval)
    if word is None:
        raise ValueError(f"{channel.name}: OKX has no candles of {channel.interval!r}, but {', '.join(INTERVALS)}")
    return CANDLES + word


def _arg(channel: str, inst_id: str) -> dict[str, str]:
    """A subscription's `arg`."""
    return {"channel": channel, "instId": inst_id}


def _request(plan: _Plan, op: str) -> str:
    return msgspec.json.encode({"id": plan.id, "op": op, "args": [_arg(plan.channel, plan.inst_id)]}).decode()
