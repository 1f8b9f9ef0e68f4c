"""Binance Spot's market streams: which there are for some channels, and what each frame means. No I/O.

Source of every rule: `binance/binance-spot-api-docs`, web-socket-streams.md and faqs/market_data_only.md, state of
2026-07-21. The streams of a connection stand in its URL (`/stream?streams=btcusdt@trade/btcusdt@bookTicker`), so there
is nothing to subscribe to, and each frame names its stream:

    {"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":12345,"p":"0.001", ... }}

Limits: 1 024 streams a connection; 5 messages a second to Binance, pongs included; 300 connections in 5 minutes from
one address; 24 hours for a connection, or less where Binance says so (`serverShutdown`; no lead time is promised). URLs
beyond some 8 000 characters are refused (LUCIT-Systems-and-Development/unicorn-binance-websocket-api#38).

The stream of an unknown symbol is accepted, and stays silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET, Raw, UnsetType

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.limits.payload import beginning, brief
from connectors.limits.rows import OLD_S, Ages, Odd, check_time, notes, quoted, read_row
from connectors.push.parcels import Parcel, parcels
from connectors.push.venue import (
    ClosingNotice,
    Control,
    Conversation,
    FeedRules,
    Heartbeat,
    Ignored,
    SubscribeRefused,
    SubscribeRequest,
)
from connectors.venues.binance.books import Books
from connectors.venues.binance.polls import VENUE, venue_symbol
from connectors.venues.binance.pushes import INTERVALS, Stream, check_symbol, events
from connectors.venues.binance.sync import Diff
from protocol.channels import Channel

MOST_CHARS: Final = 7_000
"""Of the streams in a URL, far below what is refused; with 14 or more each, below 512 streams."""

PING_ID: Final = 9
PING: Final = '{"method":"LIST_SUBSCRIPTIONS","id":9}'
"""Its answer, `{"result":["btcusdt@trade"],"id":9}`, says that the other end is there and talks."""

CONNECTS_S: Final = 1.0
"""Least time between two attempts to connect: 300 in 5 minutes are allowed."""

QUIET: Final = 10.0
"""So many times longer than a connection of many streams may one be without data that has a single one."""

_SUFFIXES: Final = {
    "ticker": "ticker",
    "trades": "trade",
    "quotes": "bookTicker",
    "book": "depth@100ms",
    "depth": "depth@100ms",
}
KINDS: Final = (*_SUFFIXES, "candles")
"""The kinds that are streamed."""

_SHUTDOWN: Final = "serverShutdown"
BOOKS: Final = ("book", "depth")
"""Those that are made of one stream: what of it they show is another matter."""
_diff: Final = msgspec.json.Decoder(Diff)


class _Error(msgspec.Struct, gc=False):
    code: int | str = ""
    msg: str = ""


class _Frame(msgspec.Struct, gc=False):
    """Any frame: a push has `stream` and `data`, an answer `result` or an error, flat or within `error`."""

    stream: str | None = None
    data: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    id: int | str | None = None
    e: str = ""
    code: int | str = ""
    msg: str = ""
    error: _Error | None = None


_frame: Final = msgspec.json.Decoder(_Frame)


def stream_name(channel: Channel, instrument: str) -> str:
    """The stream of one instrument of a channel: `btcusdt@kline_1m`."""
    suffix = _SUFFIXES.get(channel.kind.name, f"kline_{channel.interval}")
    return f"{venue_symbol(instrument).lower()}@{suffix}"


def escaped(name: str) -> str:
    """A stream's name in a URL: symbols may have signs of any script."""
    return quote(name, safe="@")


def plan(channels: Sequence[Channel]) -> list[Parcel]:
    """Channels over as many connections as their URLs ask for.

    Raises:
        ValueError: Binance has no such candles, or two instruments have one symbol.
    """
    symbols: dict[str, str] = {}
    for channel in channels:
        if channel.kind.name == "candles" and channel.interval not in INTERVALS:
            allowed = ", ".join(INTERVALS)
            raise ValueError(f"channels.{channel.name}.interval is {channel.interval!r}; {VENUE} has {allowed}")
        for instrument in channel.instruments:
            other = symbols.setdefault(venue_symbol(instrument), instrument)
            if other != instrument:
                raise ValueError(f"{other} and {instrument} are one symbol at {VENUE}: {venue_symbol(instrument)}")

    def cost(channel: Channel, instrument: str) -> int:
        """Characters of a stream's name in the address, and of what parts it from the next."""
        return len(escaped(stream_name(channel, instrument))) + 1

    return parcels("binance-streams", channels, MOST_CHARS, cost)


def url(base: str, channels: Iterable[Channel]) -> str:
    """The address of a connection for these channels."""
    names = dict.fromkeys(stream_name(channel, each) for channel in channels for each in channel.instruments)
    return f"{base.rstrip('/')}/stream?streams={'/'.join(map(escaped, names))}"


class BinanceStreams:
    """The venue on one connection: a `FeedVenue`."""

    title: Final = VENUE

    def __init__(
        self,
        parcel: Parcel,
        *,
        halted_after_s: float = OLD_S,
        settles_s: float = 0.0,
    ) -> None:
        """`settles_s` is what the snapshots of all books take."""
        self.name = parcel.name
        self.channels = tuple(channel.name for channel in parcel.channels)
        self.parts: Mapping[str, tuple[str, ...]] = parcel.parts
        self.rules = FeedRules(
            ping=PING,
            ping_after_s=10.0,
            pong_s=10.0,
            requests_per_hour=1,  # there are none
            connect_spacing_s=CONNECTS_S,
            fatal_close_codes=frozenset(),
            # A change of a book has some 100 levels; thousands after an outage.
            message_bytes=2 * 1024 * 1024,
            # In recorded 24 h tickers `lastId - firstId + 1` is `count`, 9 of 9, of up to five million trades.
            consecutive_trades=True,
            settles_s=settles_s,
        )
        self._ages = Ages(halted_after_s)
        carriers: dict[str, tuple[Channel, str, list[str]]] = {}
        books: dict[str, tuple[str, list[Channel]]] = {}
        for channel in parcel.channels:
            for instrument in channel.instruments:
                stream = carriers.setdefault(stream_name(channel, instrument), (channel, instrument, []))
                stream[2].append(channel.name)
                if channel.kind.name in BOOKS:
                    books.setdefault(venue_symbol(instrument), (instrument, []))[1].append(channel)
        self._streams = {
            stream: Stream(
                stream,
                instrument,
                venue_symbol(instrument),
                tuple(names),
                channel.kind.name,
                channel.interval if channel.kind.name == "candles" else "",
            )
            for stream, (channel, instrument, names) in carriers.items()
        }
        self._books = [(instrument, symbol, tuple(held)) for symbol, (instrument, held) in books.items()]

    @property
    def quiet(self) -> float:
        """How many times longer than others it may be without data, for no stream of it sends anything by the clock.

        Few streams may be those of rare instruments, as may be trades and candles, however many.
        """
        if all(stream.kind in ("trades", "candles") for stream in self._streams.values()):
            return QUIET
        return max(1.0, QUIET / len(self._streams))

    def subscribe_requests(self) -> list[SubscribeRequest]:
        """None: the streams stand in the URL."""
        return []

    def converse(self) -> Conversation:
        """The beginning of a connection, with books of its own."""
        return _Talk(self._streams, Books(self._books), self._ages)


class _Talk(Conversation):
    """What one connection says."""

    def __init__(self, streams: Mapping[str, Stream], books: Books, ages: Ages) -> None:
        self._streams = streams
        self._books = books
        self._ages = ages
        self._by_opening = {b'{"stream":' + msgspec.json.encode(name): stream for name, stream in self._streams.items()}

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """One text frame: what it pushes, or what else it says.

        Raises:
            PayloadError: it is not what Binance documents.
        """
        # A push as Binance writes it: the opening of its stream, then one object. The object alone is decoded, which
        # proves that it is one; whatever looks different takes the long way below.
        opening, _, rest = payload.partition(b',"data":')
        stream = self._by_opening.get(opening)
        if stream is not None and rest.endswith(b"}"):
            try:
                return self._pushed(stream, rest[:-1], received_ms)
            except Odd:
                pass
        try:
            payload.decode()
            frame = _frame.decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise PayloadError(f"{VENUE} sent {beginning(payload)}: {error}") from None
        if frame.stream is None or frame.stream == f"!{_SHUTDOWN}":
            return self._control(frame, payload)
        stream = self._streams.get(frame.stream) or self._streams.get(_plain(frame.stream))
        if stream is None:
            return Ignored(f"a frame of the stream {brief(frame.stream)}")
        body = b"" if isinstance(frame.data, UnsetType) else bytes(frame.data)
        try:
            return self._pushed(stream, body, received_ms)
        except Odd as odd:
            if stream.kind in BOOKS:
                return self._books.unreadable(stream.symbol, f"its update cannot be read: {odd}", received_ms)
            return Rows([], notes(stream.channels, stream.instrument, odd))

    def _pushed(self, stream: Stream, body: bytes, received_ms: int) -> list[Event] | Rows:
        """Raises: Odd, where it is not what is documented, or no price."""
        if stream.kind not in BOOKS:
            return events(stream, body, received_ms, self._ages)
        try:
            diff = _diff.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            diff = read_row(body, Diff)
        check_symbol(stream, diff.s)
        check_time(diff.E, "E")
        if diff.u < diff.U:
            raise Odd(f"{quoted('U')} is {diff.U}, beyond {quoted('u')}, {diff.u}")
        return self._books.change(stream.symbol, diff, received_ms)

    def _control(self, frame: _Frame, payload: bytes) -> Control:
        if frame.stream or frame.e == _SHUTDOWN:
            return ClosingNotice(f"{VENUE} is about to close the connection")
        if not isinstance(frame.result, UnsetType):
            return Heartbeat() if frame.id == PING_ID else Ignored(f"an answer to {brief(str(frame.id))}")
        error = frame.error or _Error(frame.code, frame.msg)
        if error.code != "" or error.msg:
            why = brief(f"{error.code} {error.msg}".strip())
            return SubscribeRefused("", f"{VENUE} refused a message: {why}", retry=True)
        if frame.e:
            return Ignored(f"the event {brief(frame.e)}")
        raise PayloadError(f"{VENUE} sent {beginning(payload)}: neither a push nor an answer")

    def fetched(self, id: str, body: bytes, received_ms: int) -> list[Event]:
        """A snapshot of a book. Raises: PayloadError."""
        return self._books.fetched(id, body, received_ms)

    def unfetched(self, id: str, reason: str) -> list[TopicNote]:
        """What there is to say because a snapshot could not be had."""
        return self._books.unfetched(id, reason)

    def waits_ms(self, now_ms: int) -> float | None:
        """In how many milliseconds a book has something to say."""
        return self._books.waits_ms(now_ms)

    def tick(self, now_ms: int) -> list[Event] | Rows:
        """What books have to say."""
        return self._books.tick(now_ms)

    def restate(self, now_ms: int) -> list[Event]:
        """All books."""
        return self._books.restate(now_ms)


def _plain(name: str) -> str:
    """A stream's name as it was asked for, if it came percent-encoded, or with its symbol in capitals."""
    symbol, at, suffix = unquote(name).partition("@")
    return symbol.lower() + at + suffix
