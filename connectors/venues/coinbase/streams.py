"""Coinbase's public streams (Advanced Trade): what to ask for, and what each frame means. Pure, apart from `build`.

Source of every rule: Coinbase's documentation of Advanced Trade ("WebSocket overview", "WebSocket channels", "WebSocket
rate limits", `advanced-trade-asyncapi.json`), state of November 2026. What is asked for is `plan.py`'s, how products
are named `products.py`'s, what frames look like `frames.py`'s, what answers mean `answers.py`'s, whether anything is
missing `continuity.py`'s, when a book is right `sync.py`'s, what
trades, tickers, quotes and candles become `rows.py`'s.

* No key is needed. A connection that asks for nothing in its first 5 s is closed, and so is one without data for 60 to
  90 s, unless it is subscribed to `heartbeats`, which come each second: each connection is, before all else.
* 8 connections and 8 messages of a client in a second are allowed for each address.
* A frame may hold many events, and an event many rows, of any product.
* `market_trades` begins with trades of before: history, which fills the hole after a break. Rows were seen newest
  first; they are put in the order of their ids. That these rise by one is not promised, so a step is not called a loss.
* The `side` of a trade is the maker's: nautilus_trader's adapter and c9s/bbgo#2509 turn it round to have the taker's,
  and so does this. Coinbase's documentation does not say whose it is.
* `ticker` has the best bid and ask with their quantities, and comes with each match: quotes are made of it.
* `level2` arrives as `l2_data`. A snapshot of a large book has megabytes.

A row that cannot be read is left out, and noted of its instrument; the others of the frame go on. Of a book, where
something would be missing then, it ends the book, whose product is subscribed to anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, UnsetType

from connectors.base import Connector, Event, PayloadError, Rows, Seconds, TopicNote, VenueSettings, WebsocketUrl
from connectors.books.book import Level
from connectors.books.topic import BookTopic
from connectors.limits.payload import beginning, brief
from connectors.limits.rows import Odd, member
from connectors.push.connection import Spacing
from connectors.push.feed import Feed
from connectors.push.venue import (
    Control,
    Conversation,
    FeedRules,
    Heartbeat,
    Ignored,
    Need,
    Reconnect,
    Renew,
    Said,
    Several,
    SubscribeRequest,
)
from connectors.venues.coinbase import history
from connectors.venues.coinbase.answers import HEARTBEATS, Answers
from connectors.venues.coinbase.continuity import SPAN_MS, Numbers, Trust
from connectors.venues.coinbase.frames import (
    UNREADABLE,
    BookEvent,
    BookFrame,
    Frame,
    SubscriptionsEvent,
)
from connectors.venues.coinbase.plan import Connection, Subscription, plan
from connectors.venues.coinbase.rows import CoinbaseRows
from connectors.venues.coinbase.sync import CROSSED_MS, CoinbaseBook
from connectors.venues.coinbase.times import since_1970_ms
from protocol.channels import Channel

SPACING_S: Final = 0.15
"""A little more than the 8 in a second that are allowed, of connections and of messages alike."""

RULES: Final = FeedRules(
    # There is none: heartbeats come by themselves, and a connection without one for so long is dead.
    ping="",
    ping_after_s=10.0,
    pong_s=5.0,
    requests_per_hour=24_000,
    request_spacing_s=SPACING_S,
    connect_spacing_s=SPACING_S,
    fatal_close_codes=frozenset(),
    # A client with a limit of a few megabytes was cut off by the snapshot of BTC-USD (ccxt/ccxt#23597).
    message_bytes=32 * 1024 * 1024,
)

RENEW_MS: Final = 6_000
"""How often a break that is noted only is noted again; a moment more than the 5 s in which no more than one goes
through."""

QUIET_MS: Final = 10_000
"""So long after the last break that was noted only each book is asked for anew, since it may be wrong. The next time on
the same connection after twice as long: where the rule itself is wrong, books are not to be lost for it for ever."""

_BOOK: Final = b'{"channel":"l2_data"'

_frame: Final = msgspec.json.Decoder(Frame)
_book_frame: Final = msgspec.json.Decoder(BookFrame)
_book_event: Final = msgspec.json.Decoder(BookEvent)
_events: Final = msgspec.json.Decoder(list[Raw])
_lists: Final = msgspec.json.Decoder(list[SubscriptionsEvent])


class Coinbase(VenueSettings, frozen=True):
    """`[connectors.coinbase]`."""

    url: WebsocketUrl = "wss://advanced-trade-ws.coinbase.com"
    silence_s: Seconds = 60.0
    timeout_s: Seconds = 10.0


class CoinbaseStreams:
    """The venue, for what one connection is for: a `FeedVenue`."""

    title: Final = "Coinbase"

    def __init__(self, connection: Connection, connections: int = 1) -> None:
        """`connections`: how many there are, which share the messages that are allowed in a second."""
        self.name = connection.name
        self.parts: Mapping[str, tuple[str, ...]] = connection.parts
        self.subscriptions = connection.subscriptions
        self.channels = connection.channels
        self.rules = msgspec.structs.replace(RULES, request_spacing_s=SPACING_S * connections)
        self.trust = Trust()
        heartbeats = SubscribeRequest(HEARTBEATS, _command("subscribe", HEARTBEATS), (), HEARTBEATS)
        self._requests = [heartbeats, *map(_request, self.subscriptions)]

    def subscribe_requests(self) -> list[SubscribeRequest]:
        """Heartbeats, then one request for each subscription."""
        return self._requests

    def converse(self) -> CoinbaseTalk:
        """The beginning of a connection."""
        return CoinbaseTalk(self.subscriptions, self.trust)


class CoinbaseTalk(Conversation):
    """One connection: its numbers, its books, its candles, the best bids and asks that were told."""

    def __init__(self, subscriptions: Sequence[Subscription], trust: Trust) -> None:
        self._answers = Answers(subscriptions)
        self._numbers = Numbers()
        self._trust = trust
        self._is_over = False
        """Whether there was a break that is acted on: what comes now is of no use."""
        self._doubt = ""
        """Why the books may be wrong, after a break that was noted only."""
        self._doubted_ms = self._renew_at_ms = 0
        """When the last of these breaks was; when it is to be noted again."""
        self._quiet_ms = QUIET_MS
        self._values = CoinbaseRows(subscriptions)
        self._books: dict[str, list[CoinbaseBook]] = {}
        self._owing: dict[str, CoinbaseBook] = {}
        """The books that are perhaps to be looked at soon, by subscription."""
        for each in subscriptions:
            if each.stream == "level2":
                book = CoinbaseBook(BookTopic(each.instrument, each.product, each.channels), each.id)
                self._books.setdefault(each.product, []).append(book)

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """One text frame: its events, what is wrong with a part of it, what is needed, or what else it says.

        Raises:
            PayloadError: it is not what Coinbase documents, and no instrument is to blame.
        """
        if payload.startswith(_BOOK):
            # The most frequent by far: decoded at once, and the long way only where something is odd.
            try:
                book_frame = _book_frame.decode(payload)
            except UNREADABLE:
                pass
            else:
                before = self._counted(book_frame.sequence_num, received_ms)
                if before is None:
                    return self._book_events(book_frame.events, received_ms)
                if type(before) is Rows:
                    return _joined(before, self._book_events(book_frame.events, received_ms))
                return before
        try:
            payload.decode()
            frame = _frame.decode(payload)
            if not frame.channel:
                return self._unnumbered(frame)
            if frame.sequence_num is None:
                raise msgspec.ValidationError("it has no `sequence_num`")
            before = self._counted(frame.sequence_num, received_ms)
            if before is None:
                return self._said(frame, payload, received_ms)
            if type(before) is Rows:
                return _joined(before, self._said(frame, payload, received_ms))
        except UNREADABLE as error:
            raise PayloadError(f"Coinbase sent {beginning(payload)}: {error}"[:300]) from None
        return before

    def waits_ms(self, now_ms: int) -> float | None:
        """Until best levels are due, a book has been crossed for too long, or a doubt is to be told or mended."""
        waits: list[float] = []
        for id_ in list(self._owing):
            wait_ms = self._owing[id_].waits_ms(now_ms)
            if wait_ms is None:
                del self._owing[id_]
            else:
                waits.append(wait_ms)
        if self._doubt and not self._is_over:
            ends_at_ms = self._doubted_ms + self._quiet_ms
            waits.append(max(0, min(ends_at_ms - now_ms, self._renew_at_ms - now_ms, RENEW_MS)))
        return min(waits, default=None)

    def tick(self, now_ms: int) -> list[Event] | Rows:
        """What of that is due."""
        said = Said([], [], [])
        needs: list[Need] = []
        for book in list(self._owing.values()):
            crossed_ms = book.crossed_for_ms(now_ms)
            if crossed_ms is not None and crossed_ms >= CROSSED_MS:
                self._lose(book, f"the book has been crossed for {CROSSED_MS / 1000:g} s", said, needs)
            else:
                said.events += book.tick(now_ms)
        if self._doubt and not self._is_over:
            if not 0 <= now_ms - self._doubted_ms < self._quiet_ms:
                reason, self._doubt = self._doubt, ""
                self._quiet_ms = min(2 * self._quiet_ms, SPAN_MS)
                for book in [book for same in self._books.values() for book in same]:
                    self._lose(book, reason, said, needs)
            elif not 0 < self._renew_at_ms - now_ms <= RENEW_MS:
                said.notes += self._doubts(now_ms)
        said.needs = needs
        return said if said.notes or needs else said.events

    def restate(self, now_ms: int) -> list[Event]:
        """Each book that is right."""
        books = [book for same in self._books.values() for book in same if book.is_published]
        return [event for book in books for event in book.topic.restate(now_ms)]

    # Is anything missing?

    def _counted(self, number_: int, received_ms: int) -> Rows | Control | None:
        """Take a frame's number. None where it is the next, else what there is to say.

        If that is no more than `Rows`, the frame itself is good.
        """
        if self._is_over:
            return Ignored("a frame after a break")
        step = self._numbers.take(number_)
        if step == "next":
            return None
        if step == "repeated":
            return Ignored("a frame that came before")
        return self._broke(f"Coinbase's frame {number_} came where {self._numbers.due} was due", received_ms)

    def _broke(self, reason: str, received_ms: int) -> Rows:
        """Something is lost, and nobody knows what: the books are, unless the rule is distrusted."""
        if self._trust.broke(received_ms):
            self._is_over = True
            lost = [note for same in self._books.values() for book in same for note in book.lost(reason)]
            return Said([], lost, [Reconnect(reason)])
        self._doubt, self._doubted_ms = reason, received_ms
        return Rows([], self._doubts(received_ms))

    def _doubts(self, now_ms: int) -> list[TopicNote]:
        """That something may be missing of whatever is made of every frame."""
        self._renew_at_ms = now_ms + RENEW_MS
        reason = f"{self._doubt}; that comes too often to be acted on"
        topics = list(self._values.trades())
        for same in self._books.values():
            topics += [(name, book.topic.instrument) for book in same for name in book.topic.channels]
        return [TopicNote(name, instrument, "gap", reason, partial=True) for name, instrument in topics]

    # What is no data.

    def _unnumbered(self, frame: Frame) -> Control:
        """Raises: msgspec.ValidationError, where it is nothing that is known."""
        if frame.type == "error":
            return self._answers.error(" ".join(filter(None, (frame.message, frame.reason))))
        if frame.type:
            return Ignored(f"a frame of the type {brief(frame.type)}")
        raise msgspec.ValidationError("neither `channel` nor `type`")

    def _said(self, frame: Frame, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """Raises: msgspec.DecodeError, where `events` is not what its channel has."""
        if frame.channel == HEARTBEATS:
            return Heartbeat()
        if frame.channel == "l2_data":
            return self._book_rows(frame.events, received_ms)
        if isinstance(frame.events, UnsetType):
            raise msgspec.ValidationError("it has no `events`")
        match frame.channel:
            case "subscriptions":
                held = {name: ids for event in _lists.decode(frame.events) for name, ids in event.subscriptions.items()}
                return self._answers.listed(held)
            case "market_trades":
                return self._values.trade_rows(frame.events, payload, received_ms)
            case "ticker":
                return self._values.ticker_rows(frame, frame.events, payload, received_ms)
            case "candles":
                return self._values.candle_rows(frame, frame.events, payload, received_ms)
            case _:
                return Ignored(f"a frame of the channel {brief(frame.channel)}")

    # Books.

    def _book_events(self, events: Sequence[BookEvent], received_ms: int) -> list[Event] | Rows:
        needs: list[Need] = []
        said = Said([], [], needs)
        for event in events:
            self._book_event(event, received_ms, said, needs)
            if self._is_over:
                break
        return said if needs or said.notes else said.events

    def _book_event(self, event: BookEvent, received_ms: int, said: Said, needs: list[Need]) -> None:
        books = self._books.get(event.product_id)
        if books is None:
            return
        updates = event.updates or ()
        bids: list[Level] = []
        asks: list[Level] = []
        for each in updates:
            if each.side == "bid":
                bids.append((each.price_level, each.new_quantity))
            else:
                asks.append((each.price_level, each.new_quantity))
        try:
            exchange_ms = since_1970_ms(updates[-1].event_time, "event_time") if updates else None
        except Odd:
            exchange_ms = None  # the levels are what counts
        is_snapshot = event.type == "snapshot"
        for book in books:
            try:
                if is_snapshot:
                    began = book.snapshot(bids, asks, received_ms, exchange_ms)
                    if began is None:
                        self._lose(book, "the snapshot is crossed", said, needs)
                        continue
                    said.events += began
                elif book.topic.is_whole:
                    said.events += book.update(bids, asks, received_ms, exchange_ms)
                elif reason := book.in_vain(received_ms):
                    self._lose(book, reason, said, needs)
                    continue
                else:
                    continue
            except ValueError as error:
                self._lose(book, f"a level that cannot be read: {brief(str(error))}", said, needs)
                continue
            self._owing[book.id] = book

    def _book_rows(self, events: Raw | UnsetType, received_ms: int) -> Rows:
        """The long way, event by event: something in it cannot be read."""
        said = Said([], [], [])
        needs: list[Need] = []
        try:
            raws = [] if isinstance(events, UnsetType) else _events.decode(events)
        except UNREADABLE:
            raws = []
        if not raws:
            self._add_break("Coinbase sent a frame of books that cannot be read", received_ms, said, needs)
        for raw in raws:
            try:
                self._book_event(_book_event.decode(raw), received_ms, said, needs)
            except UNREADABLE as error:
                product = member(bytes(raw), "product_id")
                books = self._books.get(product) if isinstance(product, str) else None
                if books is None and not self._is_over:
                    self._add_break("Coinbase sent a book that cannot be read", received_ms, said, needs)
                for book in books or ():
                    self._lose(book, f"an update that cannot be read: {brief(str(error))}", said, needs)
            if self._is_over:
                break
        said.needs = needs
        return said

    def _lose(self, book: CoinbaseBook, reason: str, said: Said, needs: list[Need]) -> None:
        """This book alone is lost: it is asked for anew. What the frame had said of it is not published any more."""
        topic = book.topic
        gone = {(name, topic.instrument) for name in topic.channels}
        said.events = [event for event in said.events if (event.channel, event.instrument) not in gone]
        if topic.is_whole or not book.is_renewed:
            said.notes += book.lost(reason)
        needs.append(Renew(book.id, f"{topic.instrument}: {reason}"))
        self._answers.leave(book.id)
        self._owing.pop(book.id, None)

    def _add_break(self, reason: str, received_ms: int, said: Said, needs: list[Need]) -> None:
        broke = self._broke(reason, received_ms)
        if isinstance(broke, Said):
            said.events = []
            needs[:] = broke.needs
        said.notes += broke.notes


def build(channels: Sequence[Channel], settings: Coinbase, user_agent: str) -> list[Connector]:
    """As many connectors as the channels need connections, and one for past candles; none without channels.

    Raises:
        ValueError: the URL is none of a websocket, or candles of a length that Coinbase does not push.
    """
    connections = plan(channels)
    spacing = Spacing(SPACING_S)
    feeds: list[Connector] = [
        Feed(
            CoinbaseStreams(connection, len(connections)),
            settings.url,
            user_agent=user_agent,
            silence_s=settings.silence_s,
            spacing=spacing,
            timeout_s=settings.timeout_s,
            proxy=settings.proxy,
        )
        for connection in connections
    ]
    return [*feeds, *history.build(channels, settings, user_agent, settings.timeout_s)]


def _request(each: Subscription) -> SubscribeRequest:
    leave = _command("unsubscribe", each.stream, each.product) if each.stream == "level2" else ""
    names = tuple(channel.name for channel in each.channels)
    return SubscribeRequest(
        each.id, _command("subscribe", each.stream, each.product), names, each.instrument, leave=leave
    )


def _command(type_: str, channel: str, *products: str) -> str:
    command: dict[str, object] = {"type": type_, "channel": channel}
    if products:
        command["product_ids"] = products
    return msgspec.json.encode(command).decode()


def _joined(before: Rows, said: list[Event] | Rows | Control) -> Rows:
    """Notes, then what the frame itself says."""
    if isinstance(said, Said):
        return Said(said.events, [*before.notes, *said.notes], said.needs, said.controls)
    if isinstance(said, Rows):
        return Rows(said.events, [*before.notes, *said.notes])
    if isinstance(said, list):
        return Rows(said, before.notes)
    return Said([], before.notes, controls=said.controls if isinstance(said, Several) else (said,))
