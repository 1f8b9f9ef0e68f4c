"""OKX's public tickers (v5 websocket): what to ask for, and what each frame means. Pure, apart from `build`.

Source of every rule: OKX's v5 API documentation (overview: connect, subscribe, notification; order
book trading: tickers channel; error codes), state of July 2026. A ticker frame, at most one per 100
ms and instrument:

    {"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instType":"SPOT","instId":"BTC-USDT","last":"9999.99",
     "lastSz":"0.1","askPx":"9999.99", ... ,"ts":"1597026383085"}]}

Every value is a string, and an empty one on pairs that have not traded yet. `vol24h` is in base
units, `volCcy24h` in quote units. A ticker is pushed on a trade or a change of the best bid or ask, else
nothing is: its `ts` is the moment of that change, and after a subscription the present one comes at once.

A row that cannot be read, or that is no price, is left out, and noted of its instrument; the others of
the frame go on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from connectors.base import Connector, Event, PayloadError, Rows, Seconds, VenueSettings, WebsocketUrl
from connectors.limits.payload import look_over
from connectors.limits.rows import (
    ANY_AGE_S,
    LAST_MS,
    OLD_S,
    Ages,
    Odd,
    check_price,
    check_time,
    notes,
    quoted,
    read_row,
    shown,
)
from connectors.push.feed import Feed
from connectors.push.venue import (
    ClosingNotice,
    Control,
    Conversation,
    FeedRules,
    Heartbeat,
    Ignored,
    SubscribeAck,
    SubscribeRefused,
    SubscribeRequest,
)
from protocol.channels import Channel
from protocol.kinds import KINDS
from protocol.messages import is_number

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

_TICKERS: Final = "tickers"
_UNKNOWN: Final = "60018"
_CLOSING: Final = "64008"
_RETRY: Final = frozenset({"60014", "63999", "64007", "50001", "50004", "50005", "50011", "50013", "50026"})
"""Requests too frequent (60014, 50011); an internal error, try later (63999, 64007); unavailable, timeout, offline,
busy, system error (50001, 50004, 50005, 50013, 50026: REST's codes, seen in answer to subscriptions too). All of these
OKX may take back within seconds. Other codes mean that the request is wrong, as far as OKX knows just now."""

_INST_ID: Final = re.compile(r"instId:([^\s,]+)")
"""In the text of an error that came without its `id`, as OKX's used to."""

_NOT_TEXT: Final = re.compile(rb':[^"]')
"""In a ticker: a value that is no text, or a text with a colon. OKX sends neither; both are looked over by the byte."""

_MOST_DIGITS_OF_TIME: Final = 15
"""In milliseconds since 1970, until the year 33658."""

_FRESH_MS: Final = 60_000
"""A ticker of the last minute is looked at no further; `halted_after_s` may be as short."""

_CLOSED_PORT: Final = re.compile(r"wss?://([^/]*\.)?okx\.com:0*8443(/|\Z)", re.IGNORECASE)
"""Which old examples show. OKX announced on 2026-09-30 that it stops accepting websockets on 2026-10-31."""


class Okx(VenueSettings, frozen=True):
    """`[connectors.okx]`. OKX sets no limit to the age of a connection, so none is replaced for its age by default.

    A pair whose `ts` stands still for `halted_after_s` is not trading.
    """

    url: WebsocketUrl = "wss://ws.okx.com/ws/v5/public"
    silence_s: Seconds = 30.0
    timeout_s: Seconds = 10.0
    rotate_after_s: Annotated[float, Meta(ge=0, le=604_800)] = 0.0
    halted_after_s: Annotated[float, Meta(ge=60, le=ANY_AGE_S)] = OLD_S

    def refused(self) -> Iterator[tuple[str, str]]:
        """The port that is closed."""
        if _CLOSED_PORT.match(self.url):
            yield "url", "OKX's address without a port; it closed port 8443 on 2026-10-31"


class _Ticker(msgspec.Struct, gc=False):
    """What is read of a ticker; all of it is passed on as it came."""

    last: str
    ts: str
    instId: str = ""


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
    data: Raw | UnsetType = UNSET


_frame: Final = msgspec.json.Decoder(_Frame)
_ticker: Final = msgspec.json.Decoder(_Ticker)
_tickers: Final = msgspec.json.Decoder(list[Raw])


class _Topic(NamedTuple):
    """One instrument, the channels that carry it, the id of its subscription, OKX's name of it."""

    instrument: str
    channels: tuple[str, ...]
    id: str
    inst_id: str


class OkxTickers(Conversation):
    """The venue, for all of its channels on one connection: a `FeedVenue`, and its `Conversation`."""

    name: Final = "okx"
    title: Final = "OKX"
    rules: Final = RULES
    parts: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})

    def __init__(self, channels: Sequence[Channel], halted_after_s: float = OLD_S) -> None:
        """Several channels may carry one instrument; it is asked for once."""
        self._ages = Ages(halted_after_s)
        self.channels = tuple(channel.name for channel in channels)
        carriers: dict[str, list[str]] = {}
        for channel in channels:
            for instrument in channel.instruments:
                carriers.setdefault(instrument, []).append(channel.name)
        self._topics = {
            (inst_id := instrument.replace("/", "-")): _Topic(instrument, tuple(names), f"tickers{index}", inst_id)
            for index, (instrument, names) in enumerate(carriers.items())
        }
        self._subjects = {topic.id: topic.instrument for topic in self._topics.values()}
        self._by_opening = {
            b'{"arg":' + msgspec.json.encode(_arg(inst_id)): topic for inst_id, topic in self._topics.items()
        }

    def subscribe_requests(self) -> list[SubscribeRequest]:
        """One per instrument, for an error names its request by `id` alone (32 letters and digits)."""
        return [
            SubscribeRequest(
                topic.id,
                msgspec.json.encode({"id": topic.id, "op": "subscribe", "args": [_arg(inst_id)]}).decode(),
                topic.channels,
                topic.instrument,
            )
            for inst_id, topic in self._topics.items()
        ]

    def converse(self) -> OkxTickers:
        """It remembers nothing from one frame to the next."""
        return self

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        """One text frame: the events of its tickers, and what is wrong with some of them, or what else it says.

        Raises:
            PayloadError: it is not what OKX documents.
        """
        # A ticker as OKX writes it: one opening per instrument, then one object. The object alone
        # is decoded, which proves that it is one; whatever looks different takes the long way
        # below.
        opening, _, rest = payload.partition(b',"data":[')
        topic = self._by_opening.get(opening)
        if topic is not None and rest.endswith(b"]}"):
            body = rest[:-2]
            try:
                return self._events(topic, body, _ticker.decode(body), received_ms)
            except (msgspec.DecodeError, UnicodeError, RecursionError, Odd):
                # Two tickers in one frame, say; or it is odd, and the long way says how.
                pass
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
            raise PayloadError(f"OKX sent {_shown(payload)}: {error}") from None

    def _data(self, frame: _Frame, received_ms: int) -> list[Event] | Rows | Control:
        """Raises: msgspec.DecodeError, where `data` is no list."""
        if frame.arg is None or isinstance(frame.data, UnsetType):
            raise msgspec.ValidationError("neither `event` nor `arg` and `data`")
        if frame.arg.channel != _TICKERS:
            return Ignored(f"a frame of the channel {_clean(frame.arg.channel)}")
        topic = self._topics.get(frame.arg.instId)
        if topic is None:
            return Ignored(f"a ticker of {_clean(frame.arg.instId)}")
        made = Rows([], [])
        for raw in _tickers.decode(frame.data):
            body = bytes(raw)
            try:
                made.events += self._events(topic, body, read_row(body, _Ticker), received_ms)
            except Odd as odd:
                made.notes += notes(topic.channels, topic.instrument, odd)
        if not made.events and not made.notes:
            return Ignored(f"a push without a ticker of {topic.inst_id}")
        return made if made.notes else made.events

    def _events(self, topic: _Topic, body: bytes, ticker: _Ticker, received_ms: int) -> list[Event]:
        """One event per channel.

        Raises:
            Odd: it is no price.
            UnicodeDecodeError: `body` is not UTF-8, which msgspec does not look at in fields that it skips.
        """
        if not body.isascii():
            body.decode()
        if _NOT_TEXT.search(body):
            try:
                look_over(body)
            except PayloadError as error:
                raise Odd(str(error)) from None
        instrument, names, _, inst_id = topic
        last, ts = ticker.last, ticker.ts
        if ticker.instId != inst_id and ticker.instId:
            raise Odd(f"{quoted('instId')} is {shown(ticker.instId)}, in a push about {inst_id}")
        if not last:
            raise Odd("not trading: it has no last price yet", "halted")
        # What is right is told apart here, without a call; what is wrong with the others, by these.
        if is_number(last) is None or not float(last) > 0.0:
            check_price(last, "last")
        if ts.isdigit() and ts.isascii() and len(ts) <= _MOST_DIGITS_OF_TIME:
            exchange_ms = int(ts)
            if not received_ms - _FRESH_MS <= exchange_ms <= LAST_MS:
                check_time(exchange_ms, "ts")
                self._ages.check(inst_id, "ts", exchange_ms, received_ms)
        elif ts:
            raise Odd(f"{quoted('ts')} is {shown(ts)}, not in milliseconds since 1970")
        else:
            exchange_ms = None
        # A push has the same bytes, and so the same `ts`, on every connection.
        return [Event(name, instrument, body, received_ms, last, exchange_ms, order=exchange_ms) for name in names]

    def _control(self, frame: _Frame) -> Control:
        topic = self._topics.get(frame.arg.instId) if frame.arg else None
        if frame.event == "subscribe":
            return SubscribeAck(frame.id or (topic.id if topic else ""))
        code = str(frame.code)
        if frame.event == "notice" and code == _CLOSING:
            return ClosingNotice("OKX is about to close the connection for a service upgrade")
        if frame.event == "error":
            return self._error(frame, code)
        return Ignored(f"the event {_clean(frame.event)} {_clean(code)}".rstrip())

    def _error(self, frame: _Frame, code: str) -> SubscribeRefused:
        id_ = frame.id or ""
        found = _INST_ID.search(frame.msg)
        if not id_ and found and found[1] in self._topics:
            id_ = self._topics[found[1]].id
        subject = self._subjects.get(id_, "a request")
        if code == _UNKNOWN:
            return SubscribeRefused(id_, f"unknown to OKX: {subject}", retry=False)
        why = f"{_clean(code)} {_clean(frame.msg)}".strip()
        if code in _RETRY:
            return SubscribeRefused(id_, f"OKX cannot serve {subject} now: {why}", retry=True)
        return SubscribeRefused(id_, f"refused by OKX: {subject}: {why}", retry=False)


def build(channels: Sequence[Channel], settings: Okx, user_agent: str) -> list[Connector]:
    """One connector for all of OKX's channels, on one connection; none without channels.

    Raises:
        ValueError: the URL is none of a websocket.
    """
    if not channels:
        return []
    return [
        Feed(
            OkxTickers(channels, settings.halted_after_s),
            settings.url,
            user_agent=user_agent,
            silence_s=settings.silence_s,
            # One instrument's silence is judged by those who know what is usual of it (daemon/health/freshness.py).
            data_s=math.inf,
            timeout_s=settings.timeout_s,
            rotate_after_s=settings.rotate_after_s,
            proxy=settings.proxy,
        )
    ]


def _arg(inst_id: str) -> dict[str, str]:
    """A subscription's `arg`."""
    return {"channel": _TICKERS, "instId": inst_id}


def _clean(text: str) -> str:
    """The venue's words, short and printable."""
    return "".join(c if c.isprintable() else " " for c in text[:120])


def _shown(payload: bytes) -> str:
    """The first of what was sent."""
    return repr(_clean(payload[:60].decode(errors="replace")))
