"""Kraken's public streams (v2 websocket): what to ask for, and what each frame means. Pure, apart from `build`.

Source of every rule: Kraken's API documentation, "Spot WebSocket v2" and the guides "WebSockets: introduction" and
"Spot WebSockets (v2): book", state of November 2026. What is asked for is `plan.py`'s, what frames look like
`frames.py`'s, what trades, tickers, quotes and candles become `rows.py`'s, how a book is kept right `sync.py`'s, which
pairs trade `markets.py`'s.

* Each request is answered once per symbol, with the `req_id` of the request; so is the end of a subscription.
* A heartbeat comes each second once there is a subscription. Where nothing comes for 5 s, not even an answer to a ping
  (a frame of Kraken's own, `{"method":"ping"}`), the connection is to be replaced.
* About 150 connects in ten minutes are allowed for each address; after maintenance at most one in 5 s.
* Of trades the last 50 come first: history, which fills the hole after a break. `trade_id` is a sequence for each book,
  and "sequential" in the comparison of v2 with v1 ("Spot WebSocket"): a step of more than one is told as a loss.
* The list of instruments comes on each connection, with the state of each pair, and the precision of its numbers, which
  the checksum of a book is made of.

A row that cannot be read is left out, and noted of its instrument; the others of the frame go on. Of a book, where
something would be missing then, it ends the book, which is asked for anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw, UnsetType

from connectors.base import Connector, Event, PayloadError, Rows, Seconds, TopicNote, VenueSettings, WebsocketUrl
from connectors.books.topic import BookTopic
from connectors.limits.payload import beginning, brief
from connectors.limits.rows import member
from connectors.push.connection import Spacing
from connectors.push.feed import Feed
from connectors.push.venue import (
    Control,
    Conversation,
    FeedRules,
    Heartbeat,
    Ignored,
    Need,
    Said,
    SubscribeAck,
    SubscribeEnded,
    SubscribeRefused,
    SubscribeRequest,
)
from connectors.venues.kraken import history
from connectors.venues.kraken.checksum import Precision
from connectors.venues.kraken.frames import (
    UNREADABLE,
    BookFrame,
    BookItem,
    Frame,
    Pair,
    Pairs,
    System,
)
from connectors.venues.kraken.markets import Markets
from connectors.venues.kraken.plan import INSTRUMENTS, Connection, Subscription, plan
from connectors.venues.kraken.rows import KrakenRows
from connectors.venues.kraken.sync import KrakenBook
from protocol.channels import Channel

CONNECT_SPACING_S: Final = 5.0
"""After maintenance at most one attempt in so long; that is 120 in ten minutes."""

RENEW_MS: Final = 6_000
"""How often it is said again that a pair is not traded, while that goes on; a moment more than once in 5 s, which is
all that goes through."""

RULES: Final = FeedRules(
    ping='{"method":"ping"}',
    # Together the 5 s after which a silent connection is to be replaced.
    ping_after_s=3.0,
    pong_s=2.0,
    # Ten requests in a second, which is no published limit: v1 skipped what came faster.
    requests_per_hour=36_000,
    request_spacing_s=0.1,
    connect_spacing_s=CONNECT_SPACING_S,
    fatal_close_codes=frozenset(),
    # The list of instruments has some 1 MB.
    message_bytes=16 * 1024 * 1024,
    consecutive_trades=True,
)

_BUSY: Final = (
    "msg rate",
    "rate limit",
    "too many",
    "temporar",
    "unavailable",
    "try again",
    "internal error",
    "timeout",
)
"""In the text of an error that the next request may not meet. Kraken gives no codes, so others count as lasting."""

_KNOWN: Final = "already subscribed"

_BOOK: Final = b'{"channel":"book"'
_HEARTBEAT: Final = b'{"channel":"heartbeat"}'

_frame: Final = msgspec.json.Decoder(Frame)
_book: Final = msgspec.json.Decoder(BookFrame)
_book_item: Final = msgspec.json.Decoder(BookItem)
_rows: Final = msgspec.json.Decoder(list[Raw])
_pairs: Final = msgspec.json.Decoder(Pairs)
_pair: Final = msgspec.json.Decoder(Pair)
_systems: Final = msgspec.json.Decoder(list[System])


class Kraken(VenueSettings, frozen=True):
    """`[connectors.kraken]`. `depth`: levels of each side of a book; ten are under its checksum."""

    url: WebsocketUrl = "wss://ws.kraken.com/v2"
    silence_s: Seconds = 60.0
    timeout_s: Seconds = 10.0
    depth: Literal[10, 25, 100, 500, 1000] = 10


class KrakenStreams:
    """The venue, for what one connection is for: a `FeedVenue`."""

    title: Final = "Kraken"

    def __init__(self, connection: Connection, depth: int = 10) -> None:
        """`depth`: levels of each side of a book."""
        self.rules = RULES
        self.name = connection.name
        self.parts: Mapping[str, tuple[str, ...]] = connection.parts
        self.subscriptions = connection.subscriptions
        self.depth = depth
        self.channels = tuple(dict.fromkeys(channel.name for each in self.subscriptions for channel in each.channels))
        self._requests = [_instruments_request(), *map(self._request, range(len(self.subscriptions)))]

    def subscribe_requests(self) -> list[SubscribeRequest]:
        """The list of instruments, then one request for each subscription."""
        return self._requests

    def converse(self) -> KrakenTalk:
        """The beginning of a connection."""
        return KrakenTalk(self.subscriptions, self.depth)

    def _request(self, index: int) -> SubscribeRequest:
        subscription = self.subscriptions[index]
        req_id, params = _req_id(index), subscription.params(self.depth)
        names = tuple(channel.name for channel in subscription.channels)
        leave = {name: params[name] for name in params if name != "snapshot"}
        return SubscribeRequest(
            str(req_id),
            _command("subscribe", req_id, params),
            names,
            subscription.instrument,
            leave=_command("unsubscribe", req_id, leave),
        )


class KrakenTalk(Conversation):
    """One connection: its books, its candles, and what is known of the pairs."""

    def __init__(self, subscriptions: Sequence[Subscription], depth: int) -> None:
        self._markets = Markets()
        self._values = KrakenRows(subscriptions)
        self._books: dict[str, KrakenBook] = {}
        self._owing: dict[str, KrakenBook] = {}
        """The books whose best levels are perhaps to be told soon."""
        self._carriers: dict[str, list[str]] = {}
        self._troubled = False
        self._renew_at_ms = 0
        self._subjects = {str(INSTRUMENTS): "the list of instruments"}
        for index, each in enumerate(subscriptions):
            self._subjects[str(_req_id(index))] = each.instrument
            symbol = each.instrument
            self._carriers.setdefault(symbol, []).extend(channel.name for channel in each.channels)
            if each.stream == "book":
                self._books[symbol] = KrakenBook(BookTopic(symbol, symbol, each.channels), str(_req_id(index)), depth)

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """One text frame: its events, what is wrong with a part of it, what is needed, or what else it says.

        Raises:
            PayloadError: it is not what Kraken documents, and no instrument is to blame.
        """
        if payload.startswith(_BOOK):
            # The most frequent by far: decoded at once, and the long way only where something is odd.
            try:
                frame = _book.decode(payload)
                return self._book_items(frame.data, received_ms, snapshot=frame.type == "snapshot")
            except UNREADABLE:
                pass
        elif payload == _HEARTBEAT:
            return Heartbeat()
        try:
            payload.decode()
            return self._said(_frame.decode(payload), payload, received_ms)
        except UNREADABLE as error:
            raise PayloadError(f"Kraken sent {beginning(payload)}: {error}"[:300]) from None

    def waits_ms(self, now_ms: int) -> float | None:
        """Until best levels are due, or until it is to be said again that a pair is not traded."""
        waits: list[float] = []
        for symbol in list(self._owing):
            wait_ms = self._owing[symbol].topic.waits_ms(now_ms)
            if wait_ms is None:
                del self._owing[symbol]
            else:
                waits.append(wait_ms)
        if self._troubled:
            waits.append(max(0, min(self._renew_at_ms - now_ms, RENEW_MS)))
        return min(waits, default=None)

    def tick(self, now_ms: int) -> list[Event] | Rows:
        """The best levels that are due, and that a pair is still not traded."""
        events = [event for book in self._owing.values() for event in book.topic.tick(now_ms)]
        if self._troubled and not 0 < self._renew_at_ms - now_ms <= RENEW_MS:
            return Rows(events, self._troubles(now_ms))
        return events

    def restate(self, now_ms: int) -> list[Event]:
        """Each book that is right, and is published."""
        books = (book for book in self._books.values() if not book.is_muted)
        return [event for book in books for event in book.topic.restate(now_ms)]

    def _said(self, frame: Frame, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """Raises: msgspec.DecodeError, where `data` is not what its channel has."""
        if frame.method:
            return self._answer(frame)
        if frame.channel == "heartbeat":
            return Heartbeat()
        if isinstance(frame.data, UnsetType) or not frame.channel:
            raise msgspec.ValidationError("neither `method` nor `channel` and `data`")
        is_snapshot = frame.type == "snapshot"
        match frame.channel:
            case "book":
                return self._book_rows(frame.data, received_ms, snapshot=is_snapshot)
            case "trade":
                return self._values.trade_rows(frame.data, payload, received_ms, past=is_snapshot)
            case "ticker":
                return self._values.ticker_rows(frame.data, payload, received_ms)
            case "ohlc":
                return self._values.candle_rows(frame, frame.data, payload, received_ms)
            case "instrument":
                return self._instruments(frame.data, received_ms, snapshot=is_snapshot)
            case "status":
                for system in _systems.decode(frame.data):
                    self._markets.system(system.system)
                return self._judge(received_ms)
            case _:
                return Ignored(f"a frame of the channel {brief(frame.channel)}")

    def _answer(self, frame: Frame) -> Control:
        id_ = "" if frame.req_id is None else str(frame.req_id)
        match frame.method:
            case "pong":
                return Heartbeat()
            case "ping":
                return Heartbeat(answer='{"method":"pong"}')
            case "subscribe" if frame.success or _KNOWN in frame.error.lower():
                return SubscribeAck(id_)
            case "subscribe":
                subject, why = self._subjects.get(id_, "a request"), brief(frame.error)
                if any(words in why.lower().replace(subject.lower(), "") for words in _BUSY):
                    return SubscribeRefused(id_, f"Kraken cannot serve {subject} now: {why}", retry=True)
                return SubscribeRefused(id_, f"refused by Kraken: {subject}: {why}", retry=False)
            case "unsubscribe":
                # Where it says that there is no such subscription, it is ended too.
                return SubscribeEnded(id_)
            case _:
                return Ignored(f"an answer to {brief(frame.method)}")

    # Books.

    def _book_items(self, items: Sequence[BookItem], received_ms: int, *, snapshot: bool) -> list[Event] | Rows:
        if len(items) == 1:
            return self._book_item(items[0], received_ms, snapshot=snapshot)
        return _joined([self._book_item(item, received_ms, snapshot=snapshot) for item in items])

    def _book_item(self, item: BookItem, received_ms: int, *, snapshot: bool) -> list[Event] | Said:
        book = self._books.get(item.symbol)
        if book is None:
            return []
        said = book.snapshot(item, received_ms) if snapshot else book.update(item, received_ms)
        if not book.is_muted:
            self._owing[item.symbol] = book
        return said if isinstance(said, list) or said.notes or said.needs else said.events

    def _book_rows(self, data: Raw, received_ms: int, *, snapshot: bool) -> list[Event] | Rows:
        """The long way, row by row."""
        said: list[list[Event] | Said] = []
        for raw in _rows.decode(data):
            try:
                said.append(self._book_item(_book_item.decode(raw), received_ms, snapshot=snapshot))
            except UNREADABLE as error:
                book = self._books.get(str(member(bytes(raw), "symbol")))
                if book is None:
                    raise
                said.append(book.lost(f"a row that cannot be read: {brief(str(error))}"))
        return _joined(said)

    # Which pairs trade.

    def _instruments(self, data: Raw, received_ms: int, *, snapshot: bool) -> list[Event] | Rows | Control:
        """Of the thousand pairs those that matter here."""
        statuses: list[tuple[str, str]] = []
        for raw in _pairs.decode(data).pairs:
            try:
                pair = _pair.decode(raw)
            except UNREADABLE:
                # What cannot be read of a pair says at least that it is there.
                symbol = member(bytes(raw), "symbol")
                if isinstance(symbol, str):
                    statuses.append((symbol, "online"))
                continue
            statuses.append((pair.symbol, pair.status))
            if book := self._books.get(pair.symbol):
                book.learn(Precision(pair.price_precision, pair.qty_precision))
        known = [(symbol, status) for symbol, status in statuses if symbol in self._carriers]
        self._markets.pairs(known, all_of_them=snapshot)
        return self._judge(received_ms)

    def _judge(self, now_ms: int) -> list[Event] | Rows | Control:
        """What follows from what is known of the pairs now."""
        troubles = {symbol: self._markets.trouble(symbol) for symbol in self._carriers}
        halted = frozenset(
            symbol
            for symbol, trouble in troubles.items()
            if trouble and trouble.cause == "halted" and not trouble.partial
        )
        self._values.halt(halted)
        self._troubled = any(trouble is not None for trouble in troubles.values())
        events = [
            event
            for symbol, book in self._books.items()
            for event in book.mute(is_muted=symbol in halted, now_ms=now_ms)
        ]
        for symbol in halted:
            self._owing.pop(symbol, None)
        if self._troubled:
            return Rows(events, self._troubles(now_ms))
        # No sign that data comes.
        return events or Ignored("a frame about which pairs trade")

    def _troubles(self, now_ms: int) -> list[TopicNote]:
        self._renew_at_ms = now_ms + RENEW_MS
        return [
            TopicNote(name, symbol, trouble.cause, trouble.reason, partial=trouble.partial)
            for symbol, names in self._carriers.items()
            if (trouble := self._markets.trouble(symbol))
            for name in names
        ]


def build(channels: Sequence[Channel], settings: Kraken, user_agent: str) -> list[Connector]:
    """A connector for each connection that the channels need, and one for past candles; none without channels.

    Raises:
        ValueError: the URL is none of a websocket, or candles are of a length that Kraken does not have.
    """
    # The allowance is that of our address.
    spacing = Spacing(RULES.connect_spacing_s)
    feeds: list[Connector] = [
        Feed(
            KrakenStreams(connection, settings.depth),
            settings.url,
            user_agent=user_agent,
            silence_s=settings.silence_s,
            spacing=spacing,
            timeout_s=settings.timeout_s,
            proxy=settings.proxy,
        )
        for connection in plan(channels)
    ]
    return [*feeds, *history.build(channels, settings, user_agent, settings.timeout_s)]


def _req_id(index: int) -> int:
    return INSTRUMENTS + 1 + index


def _command(method: str, req_id: int, params: Mapping[str, object]) -> str:
    return msgspec.json.encode({"method": method, "params": params, "req_id": req_id}).decode()


def _instruments_request() -> SubscribeRequest:
    text = _command("subscribe", INSTRUMENTS, {"channel": "instrument", "snapshot": True})
    return SubscribeRequest(str(INSTRUMENTS), text, (), "the list of instruments")


def _joined(parts: Sequence[list[Event] | Said]) -> list[Event] | Rows:
    """What several rows of one frame say. Of a book that is lost, events of before are not told."""
    events: list[Event] = []
    noted: list[TopicNote] = []
    needs: list[Need] = []
    for said in parts:
        if isinstance(said, list):
            events += said
            continue
        lost = {(note.channel, note.instrument) for note in said.notes if not note.partial}
        events = [event for event in events if (event.channel, event.instrument) not in lost] + said.events
        noted += said.notes
        needs += said.needs
    return Said(events, noted, needs) if noted or needs else events
