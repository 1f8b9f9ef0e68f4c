"""Bybit's public websocket (v5, spot): what to ask for, and what each frame means. Pure, apart from `build`.

The rules are those of Bybit's documentation, v5, as read in July 2026 (Connect, websocket; Orderbook, Trade, Ticker and
Kline: see `topics.py`); what it does not say is marked with where it was seen.

    we ask      {"req_id":"3","op":"subscribe","args":["publicTrade.BTCUSDT"]}
    it answers  {"success":true,"ret_msg":"subscribe","conn_id":"2324d924-...","req_id":"3","op":"subscribe"}
    or          {"success":false,"ret_msg":"Invalid symbol :[publicTrade.NOPEUSDT]",...}   (seen by clients)
    it pushes   {"topic":"publicTrade.BTCUSDT","ts":1791365009231,"type":"snapshot","data":[{...}]}
    heartbeat   {"op":"ping"}  and  {"success":true,"ret_msg":"pong","conn_id":"0970e817-...","op":"ping"}

* At most 500 connections in 5 minutes, 1 000 open ones for one address, 10 args in a request, 21 000 characters of
  args on a connection. How many topics one may have is not said; more than 100 worked (tiagosiebler/bybit-api#174).
* One answer for each request, however many args it has, so a refusal says which topic only if there is but one.
  `req_id` may be missing in a failure (seen by clients), whose text then names the topic.
* "already subscribed" is no refusal, but no snapshot follows it (seen by clients): a topic is renewed by ending it,
  awaiting the answer, and asking for it.
* A ping every 20 s is recommended; a connection without pings and data is closed after 10 minutes.
* Symbols are in capitals. `BTCUSDT` is a pair of spot, and a contract elsewhere: only the address tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from connectors.base import Connector, Event, PayloadError, Rows, Seconds, VenueSettings, WebsocketUrl
from connectors.limits.payload import beginning, brief
from connectors.limits.rows import Odd
from connectors.push.connection import Spacing
from connectors.push.feed import Feed
from connectors.push.parcels import Parcel, parcels
from connectors.push.venue import (
    Control,
    Conversation,
    FeedRules,
    Heartbeat,
    Ignored,
    Reconnect,
    Said,
    SubscribeAck,
    SubscribeEnded,
    SubscribeRefused,
    SubscribeRequest,
)
from connectors.venues.bybit import history
from connectors.venues.bybit.topics import INTERVALS, Book, Frame, Quotes, Topic, make, name_of
from protocol.channels import Channel

RULES: Final = FeedRules(
    ping='{"op":"ping"}',
    ping_after_s=20.0,
    ping_every_s=20.0,
    pong_s=10.0,
    # It sets no limit to requests; each topic takes one, and another two whenever it is renewed.
    requests_per_hour=100_000,
    connect_spacing_s=0.6,
    fatal_close_codes=frozenset(),
    # A book of 1 000 levels has some 70 000, 1 024 trades have some 160 000.
    message_bytes=1024 * 1024,
)

MOST_CHARACTERS: Final = 21_000
"""Of the args of a connection."""

SNAPSHOT_MS: Final = 5_000
"""A renewed book whose snapshot has not come so long after the answer does not come at all."""

LOOK_MS: Final = 1_000
"""How often it is looked whether quotes are silent."""

_WRONG: Final = re.compile(r"invalid|not found|not support", re.IGNORECASE)
"""In the text of a refusal: the request would be as wrong another time."""

_UNKNOWN: Final = re.compile(r"invalid symbol", re.IGNORECASE)
_TAKEN: Final = re.compile(r"already subscribed", re.IGNORECASE)
_TOPIC: Final = re.compile(r"[A-Za-z]+(?:\.\w+)+")


class Bybit(VenueSettings, frozen=True):
    """`[connectors.bybit]`. Accounts of some countries have an address of their own.

    `depth` is how many levels of each side a book has: 50 come every 20 ms, 200 every 100 ms, 1000 every 200 ms.
    `topics` is how many one connection carries at most.
    """

    url: WebsocketUrl = "wss://stream.bybit.com/v5/public/spot"
    silence_s: Seconds = 30.0
    timeout_s: Seconds = 10.0
    rotate_after_s: Annotated[float, Meta(ge=0, le=604_800)] = 0.0
    depth: Literal[50, 200, 1000] = 200
    topics: Annotated[int, Meta(ge=1, le=1000)] = 100


class _Plan(msgspec.Struct, frozen=True):
    """A topic: its name, the instrument, the channels that it feeds, and the id of its requests."""

    name: str
    instrument: str
    channels: tuple[Channel, ...]
    req_id: str


class BybitStreams:
    """What one connection carries: a `FeedVenue`."""

    title: Final = "Bybit"

    def __init__(self, parcel: Parcel, depth: int = 200) -> None:
        """Several channels may share a topic; it is asked for once."""
        self.name = parcel.name
        self.rules = RULES
        self.channels = tuple(channel.name for channel in parcel.channels)
        self.parts: Mapping[str, tuple[str, ...]] = parcel.parts
        carriers: dict[tuple[str, str], list[Channel]] = {}
        for channel in parcel.channels:
            for instrument in channel.instruments:
                carriers.setdefault((name_of(channel, instrument, depth), instrument), []).append(channel)
        self.plans = tuple(
            _Plan(name, instrument, tuple(fed), str(number))
            for number, ((name, instrument), fed) in enumerate(carriers.items(), start=1)
        )
        self.by_req_id = {plan.req_id: plan for plan in self.plans}
        self.by_name = {plan.name: plan for plan in self.plans}

    def subscribe_requests(self) -> list[SubscribeRequest]:
        """One per topic, whose name is its id."""
        return [
            SubscribeRequest(
                plan.name,
                _request("subscribe", plan),
                tuple(channel.name for channel in plan.channels),
                plan.instrument,
                _request("unsubscribe", plan),
            )
            for plan in self.plans
        ]

    def converse(self) -> BybitConversation:
        """The topics as they are at the beginning."""
        return BybitConversation(self)


class BybitConversation(Conversation):
    """What one connection says."""

    def __init__(self, venue: BybitStreams) -> None:
        """It has just been opened."""
        self._venue = venue
        self._topics: dict[str, Topic] = {
            plan.name: make(plan.name, plan.instrument, plan.channels) for plan in venue.plans
        }
        self._books = [topic for topic in self._topics.values() if isinstance(topic, Book)]
        self._quotes = [topic for topic in self._topics.values() if isinstance(topic, Quotes)]
        self._due_ms: dict[str, float] = {}
        """When the books that have best levels to tell are to tell them."""
        self._snapshot_by_ms: dict[str, int] = {}
        """Until when renewed books have to have their snapshots."""
        self._look_ms: int | None = None
        """When to look whether quotes are silent."""
        tops = (channel.every_ms for plan in venue.plans for channel in plan.channels)
        self._longest_ms = max(SNAPSHOT_MS, *tops)

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """One text frame.

        Raises:
            PayloadError: it is not what Bybit documents, and no topic is to blame.
        """
        try:
            frame = _frame.decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return self._unreadable(payload, str(error), received_ms)
        topic = self._topics.get(frame.topic)
        if topic is not None and not frame.op:
            return self._heed(topic, topic.take(frame, received_ms), received_ms)
        if frame.op or frame.success is not None:
            return self._control(frame, received_ms)
        if frame.topic:
            return Ignored(f"a frame of the topic {brief(frame.topic)!r}")
        raise PayloadError(f"Bybit sent {beginning(payload)}: neither `op` nor `topic`")

    def waits_ms(self, now_ms: int) -> float | None:
        """The soonest of what is due."""
        if self._look_ms is None:
            self._look_ms = now_ms + LOOK_MS if self._quotes else None
        dues: list[float] = [*self._due_ms.values(), *self._snapshot_by_ms.values()]
        if self._look_ms is not None:
            dues.append(self._look_ms)
        if not dues:
            return None
        wait_ms = min(dues) - now_ms
        # What is due after the longest wait was due before the clock was set back.
        return max(0, wait_ms) if wait_ms <= self._longest_ms else 0

    def tick(self, now_ms: int) -> list[Event] | Rows:
        """Best levels that are due, quotes that are silent, and snapshots that did not come."""
        said = Said([], [], [])
        for book in self._books:
            if book.name in self._due_ms:
                said.events += book.published.tick(now_ms)
                self._plan_best(book, now_ms)
        if self._look_ms is not None and not 0 < self._look_ms - now_ms <= LOOK_MS:
            self._look_ms = now_ms + LOOK_MS
            for quotes in self._quotes:
                said.notes += quotes.silence(now_ms)
        for name, by_ms in list(self._snapshot_by_ms.items()):
            if by_ms - now_ms > SNAPSHOT_MS:
                self._snapshot_by_ms[name] = now_ms + SNAPSHOT_MS
            elif by_ms <= now_ms:
                instrument = self._topics[name].instrument
                late = Reconnect(f"Bybit sent no snapshot of {instrument} in {SNAPSHOT_MS // 1000} s")
                return Said(said.events, said.notes, [late])
        return said if said.notes else said.events

    def restate(self, now_ms: int) -> list[Event]:
        """The books."""
        return [event for book in self._books for event in book.published.restate(now_ms)]

    def _heed(self, topic: Topic, said: list[Event] | Rows, received_ms: int) -> list[Event] | Rows:
        """What is due after that frame."""
        if isinstance(topic, Book):
            self._plan_best(topic, received_ms)
            # It has come; or it was of no use, and the topic is renewed once more.
            if self._snapshot_by_ms and (isinstance(said, Said) or not topic.awaits_snapshot):
                self._snapshot_by_ms.pop(topic.name, None)
        return said

    def _plan_best(self, book: Book, now_ms: int) -> None:
        wait_ms = book.published.waits_ms(now_ms)
        if wait_ms is not None:
            self._due_ms[book.name] = now_ms + wait_ms
        elif self._due_ms:
            self._due_ms.pop(book.name, None)

    def _unreadable(self, payload: bytes, error: str, received_ms: int) -> list[Event] | Rows:
        """A frame that cannot be read: its topic is to blame, if that can be.

        Raises:
            PayloadError: it cannot.
        """
        try:
            name = _named.decode(payload).topic
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            name = ""
        topic = self._topics.get(name)
        if topic is None:
            raise PayloadError(f"Bybit sent {beginning(payload)}: {brief(error)}")
        return self._heed(topic, topic.left_out(Odd(f"the frame cannot be read: {brief(error)}")), received_ms)

    def _control(self, frame: Frame, received_ms: int) -> Control:
        if frame.op in ("ping", "pong") or frame.ret_msg == "pong":
            return Heartbeat()
        if frame.op not in ("", "subscribe", "unsubscribe"):
            return Ignored(f"an answer to the op {brief(frame.op)!r}")
        plan = self._plan_of(frame)
        name = "" if plan is None else plan.name
        if frame.op == "unsubscribe":
            # Where there was nothing to end, it may be asked for as well.
            return SubscribeEnded(name)
        if frame.success or _TAKEN.search(frame.ret_msg):
            book = self._topics.get(name)
            if isinstance(book, Book) and book.awaits_snapshot:
                self._snapshot_by_ms[name] = received_ms + SNAPSHOT_MS
            return SubscribeAck(name)
        what = "a request" if plan is None else plan.instrument
        said = brief(frame.ret_msg)
        if _UNKNOWN.search(said):
            return SubscribeRefused(name, f"unknown to Bybit: {what}", retry=False)
        if _WRONG.search(said):
            return SubscribeRefused(name, f"refused by Bybit: {what}: {said}", retry=False)
        return SubscribeRefused(name, f"Bybit cannot serve {what} now: {said}", retry=True)

    def _plan_of(self, frame: Frame) -> _Plan | None:
        """Which topic an answer is about: by the id of the request, or by a name in its text."""
        plan = self._venue.by_req_id.get(frame.req_id or "")
        if plan is not None:
            return plan
        named = (self._venue.by_name.get(name) for name in _TOPIC.findall(frame.ret_msg[:1000]))
        return next((plan for plan in named if plan is not None), None)


class _Named(msgspec.Struct, gc=False):
    """Of a frame that cannot be read, what can."""

    topic: str = ""


_frame: Final = msgspec.json.Decoder(Frame)
_named: Final = msgspec.json.Decoder(_Named)


def build(channels: Sequence[Channel], settings: Bybit, user_agent: str) -> list[Connector]:
    """A connector for each connection that these channels take, and one for past candles; none without channels.

    Raises:
        ValueError: the URL is none of a websocket, or Bybit has no candles of that length.
    """
    for channel in channels:
        if channel.kind.name == "candles" and channel.interval not in INTERVALS:
            raise ValueError(
                f"{channel.name}: Bybit has no candles of {channel.interval!r}, but {', '.join(INTERVALS)}"
            )

    def cost(channel: Channel, instrument: str) -> int:
        """Characters of a topic with its quotes and comma; more where the number of topics is what binds."""
        return max(len(name_of(channel, instrument, settings.depth)) + 3, MOST_CHARACTERS // settings.topics)

    packed = parcels("bybit", channels, MOST_CHARACTERS, cost)
    # All of them connect to one address.
    spacing = Spacing(RULES.connect_spacing_s)
    feeds: list[Connector] = [
        Feed(
            BybitStreams(parcel, settings.depth),
            settings.url,
            user_agent=user_agent,
            silence_s=settings.silence_s,
            spacing=spacing,
            timeout_s=settings.timeout_s,
            rotate_after_s=settings.rotate_after_s,
            proxy=settings.proxy,
        )
        for parcel in packed
    ]
    return [*feeds, *history.build(channels, settings, user_agent, settings.timeout_s)]


def _request(op: str, plan: _Plan) -> str:
    return msgspec.json.encode({"req_id": plan.req_id, "op": op, "args": [plan.name]}).decode()
