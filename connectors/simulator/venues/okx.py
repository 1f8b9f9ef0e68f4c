"""OKX's v5 public interface, simulated without I/O: REST answers, tickers, a connection's requests.

What is pushed beside tickers is in `okx_streams.py`.

Source of every rule: OKX's v5 API documentation (overview, public data, order book trading, error
codes), state of July to September 2026. The full text of error 60018 is as captured live.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from types import MappingProxyType
from typing import Annotated

import msgspec

from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response
from connectors.simulator.venues.market import OKX, Listing, Market, Quote, unpadded

PUBLIC_PATH = "/ws/v5/public"
BUSINESS_PATH = "/ws/v5/business"
CANDLES = MappingProxyType(
    {
        "candle1m": 60_000,
        "candle3m": 180_000,
        "candle5m": 300_000,
        "candle15m": 900_000,
        "candle30m": 1_800_000,
        "candle1H": 3_600_000,
        "candle2H": 7_200_000,
        "candle4H": 14_400_000,
        "candle6Hutc": 21_600_000,
        "candle12Hutc": 43_200_000,
        "candle1Dutc": 86_400_000,
    }
)
"""The candle channels, and how many milliseconds their intervals have."""
CHANNELS = MappingProxyType(
    {
        PUBLIC_PATH: frozenset({"tickers", "trades", "bbo-tbt", "books"}),
        BUSINESS_PATH: frozenset({*CANDLES, "trades-all"}),
    }
)
"""Which channels each path has."""
PATHS = frozenset({"/api/v5/public/instruments", "/api/v5/market/ticker", "/api/v5/public/time"})
RequestId = Annotated[str, msgspec.Meta(max_length=32, pattern="^[A-Za-z0-9]*$")]


class _Arg(msgspec.Struct):
    channel: str
    instId: str


class _Command(msgspec.Struct):
    """`{"id":"1512","op":"subscribe","args":[{"channel":"tickers","instId":"BTC-USDT"}]}`."""

    op: str
    args: list[_Arg]
    id: RequestId | None = None


class _Named(msgspec.Struct):
    """The `id` alone, to echo it where the rest of a request is wrong."""

    id: RequestId | None = None


class _Control(msgspec.Struct, omit_defaults=True):
    """An acknowledgement (with `arg`), an error or a notice (with `code` and `msg`)."""

    event: str
    connId: str
    id: str | None = None
    arg: _Arg | None = None
    code: str | None = None
    msg: str | None = None


class OkxSubscriptions:
    """One OKX connection's requests and what it is subscribed to. `receive(text) -> replies`.

    Every argument of a request is acknowledged by itself; subscribing again is acknowledged again.
    An error carries no `arg`, so a client learns which argument failed only by its `id`.

    Args:
        conn_id: Eight hexadecimal digits that every control frame carries.
        instruments: The instIds that exist.
        path: Which of OKX's websockets it is: each has channels of its own.

    Attributes:
        held: The channels and instIds that are subscribed, in the order of their subscriptions.
        instruments: The instIds whose tickers are.
    """

    def __init__(self, conn_id: str, instruments: Container[str], path: str = PUBLIC_PATH) -> None:
        self._conn_id = conn_id
        self._known = instruments
        self._path = path
        self.held: dict[tuple[str, str], None] = {}
        self.instruments: set[str] = set()

    def receive(self, message: str | bytes) -> list[bytes]:
        """Take one message of the client; returns the texts to send, in order."""
        if message == "ping":
            return [b"pong"]
        try:
            command = msgspec.json.decode(message, type=_Command)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return [self._invalid(message)]
        if command.op not in ("subscribe", "unsubscribe") or not command.args:
            return [self._invalid(message)]
        return [self._apply(command, arg) for arg in command.args]

    def _apply(self, command: _Command, arg: _Arg) -> bytes:
        if arg.channel not in CHANNELS[self._path] or arg.instId not in self._known:
            if self._path == PUBLIC_PATH and arg.channel in CHANNELS[BUSINESS_PATH]:
                text = "This channel has been migrated to the '/business' URL. Please subscribe using the new URL."
                return self._error(command.id, "64001", text)
            named = f"channel:{arg.channel},instId:{arg.instId}"
            begin = "Subscribe failed, wrong" if command.op == "subscribe" else "Wrong"
            return self._error(command.id, "60018", f"{begin} URL or {named} doesn't exist.")
        if command.op == "subscribe":
            self.held.setdefault((arg.channel, arg.instId))
            if arg.channel == "tickers":
                self.instruments.add(arg.instId)
        else:
            self.drop((arg.channel, arg.instId))
        return msgspec.json.encode(_Control(command.op, self._conn_id, command.id, arg))

    def drop(self, arg: tuple[str, str]) -> None:
        """Forget a subscription without a word."""
        self.held.pop(arg, None)
        if arg[0] == "tickers":
            self.instruments.discard(arg[1])

    def refuse(self, message: str | bytes, symbol: str, code: str) -> list[bytes]:
        """The error that answers a subscription of that instrument and no other; none for any other message."""
        try:
            command = msgspec.json.decode(message, type=_Command)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        if command.op != "subscribe" or [arg.instId for arg in command.args] != [symbol]:
            return []
        if code == "60018":
            channel = command.args[0].channel
            text = f"Subscribe failed, wrong URL or channel:{channel},instId:{symbol} doesn't exist."
        else:
            text = "Service temporarily unavailable. Please try again later."
        return [self._error(command.id, code, text)]

    def _invalid(self, message: str | bytes) -> bytes:
        text = message if isinstance(message, str) else message.decode(errors="replace")
        try:
            named = msgspec.json.decode(text, type=_Named).id
        except msgspec.DecodeError:
            named = None
        return self._error(named, "60012", f"Invalid request: {text}")

    def _error(self, echo: str | None, code: str, text: str) -> bytes:
        return msgspec.json.encode(_Control("error", self._conn_id, echo, None, code, text))

    def delist(self, symbol: str) -> list[bytes]:
        """End the subscriptions of an instrument that is not known any more; the texts to send."""
        gone = [arg for arg in self.held if arg[1] == symbol]
        for arg in gone:
            self.drop(arg)
        return [
            self._error(None, "60018", f"Wrong URL or channel:{channel},instId:{symbol} doesn't exist.")
            for channel, _ in gone
        ]

    def notice(self) -> bytes:
        """The notice that the connection will be closed within 60 s for an upgrade: reconnect."""
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        return msgspec.json.encode(_Control("notice", self._conn_id, code="64008", msg=text))


class TickerText:
    """Writes one listing's tickers; what stays the same is formatted once.

    The fields are those of the `tickers` channel and of `GET /api/v5/market/ticker`: every value is
    a string, also `ts`. For SPOT `vol24h` is the base quantity and `volCcy24h` the quote quantity.
    """

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        symbol = listing.symbol
        self._names = f'"instType":"SPOT","instId":"{symbol}",'
        self._arg = f'{{"arg":{{"channel":"tickers","instId":"{symbol}"}},"data":[{{'

    def fields(self, quote: Quote, ts_ms: int) -> str:
        """The members of the ticker object, without its braces."""
        digits, size_digits = self._listing.price_digits, self._listing.size_digits
        opened = unpadded(quote.open, digits)
        both = digits + size_digits
        return (
            f'{self._names}"last":"{unpadded(quote.last, digits)}",'
            f'"lastSz":"{unpadded(quote.last_size, size_digits)}",'
            f'"askPx":"{unpadded(quote.ask, digits)}",'
            f'"askSz":"{unpadded(quote.ask_size, size_digits)}",'
            f'"bidPx":"{unpadded(quote.bid, digits)}",'
            f'"bidSz":"{unpadded(quote.bid_size, size_digits)}",'
            f'"open24h":"{opened}","high24h":"{unpadded(quote.high, digits)}",'
            f'"low24h":"{unpadded(quote.low, digits)}",'
            f'"volCcy24h":"{unpadded(quote.quote_volume, both)}",'
            f'"vol24h":"{unpadded(quote.volume, size_digits)}",'
            f'"sodUtc0":"{opened}","sodUtc8":"{opened}",'
            f'"ts":"{ts_ms}"'
        )

    def push(self, quote: Quote, ts_ms: int, mono_ns: int | None = None) -> bytes:
        """One push of `tickers`; `mono_ns`, if given, is its first field, a JSON number."""
        stamp = "" if mono_ns is None else f'"mono":{mono_ns},'
        return f"{self._arg}{stamp}{self.fields(quote, ts_ms)}}}]}}".encode()


class SimulatedOkx:
    """OKX's public REST endpoints over the simulated market.

    Every answer has the envelope `{"code":"0","msg":"","data":[...]}`.

    Args:
        market: Where the values come from.
        clock: Epoch seconds; gives `ts`, never the prices.
        step: The market's present step.
    """

    def __init__(self, market: Market, clock: Callable[[], float], step: Callable[[], int]) -> None:
        self._market = market
        self._clock = clock
        self._step = step
        self.tickers = {symbol: TickerText(listing) for symbol, listing in OKX.items()}

    def answer(self, request: VenueRequest) -> VenueResponse:
        """Answer one GET of a path in `PATHS`."""
        now_ms = int(self._clock() * 1000)
        match request.path:
            case "/api/v5/public/time":
                return _data([{"ts": str(now_ms)}])
            case "/api/v5/market/ticker":
                symbol = request.parameter("instId")
                if symbol is None:
                    return _failure("50014", "Parameter instId can not be empty.", 400)
                if symbol not in OKX:
                    return _unknown_instrument()
                quote = self._market.quote(OKX[symbol], self._step())
                ticker = f"{{{self.tickers[symbol].fields(quote, now_ms)}}}"
                return _data([msgspec.Raw(ticker.encode())])
            case _:
                return self._instruments(request)

    @staticmethod
    def _instruments(request: VenueRequest) -> VenueResponse:
        kind, symbol = request.parameter("instType"), request.parameter("instId")
        if kind is None:
            return _failure("50014", "Parameter instType can not be empty.", 400)
        if kind not in ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION"):
            return _failure("51000", "Parameter instType error", 400)
        listings = list(OKX.values()) if kind == "SPOT" else []
        if symbol is not None:
            listings = [listing for listing in listings if listing.symbol == symbol]
            if not listings:
                return _unknown_instrument()
        return _data([_instrument(listing) for listing in listings])


def _data(rows: list[object]) -> VenueResponse:
    return json_response({"code": "0", "msg": "", "data": rows})


def _failure(code: str, text: str, status: int) -> VenueResponse:
    return json_response({"code": code, "data": [], "msg": text}, status)


def _unknown_instrument() -> VenueResponse:
    """OKX says this with HTTP 200; only `code` tells."""
    text = "Instrument ID, Instrument ID code or Spread ID doesn't exist."
    return _failure("51001", text, 200)


def _instrument(listing: Listing) -> dict[str, object]:
    """One SPOT row of `GET /api/v5/public/instruments`; the empty fields belong to derivatives."""
    empty = (
        "alias auctionEndTime ctMult ctType ctVal ctValCcy expTime instFamily maxMktSz maxStopSz "
        "optType preMktSwTime settleCcy stk uly"
    )
    return {
        **dict.fromkeys(empty.split(), ""),
        "baseCcy": listing.base,
        "category": "1",
        "contTdSwTime": "1704876947000",
        "futureSettlement": False,
        "groupId": "1",
        "instId": listing.symbol,
        "instType": "SPOT",
        "lever": "10",
        "listTime": "1606468572000",
        "lotSz": unpadded(1, listing.size_digits),
        "maxIcebergSz": "9999999999.0000000000000000",
        "maxLmtAmt": "1000000",
        "maxLmtSz": "9999999999",
        "maxMktAmt": "1000000",
        "maxTriggerSz": "9999999999.0000000000000000",
        "maxTwapSz": "9999999999.0000000000000000",
        "minSz": unpadded(1, listing.size_digits),
        "openType": "call_auction",
        "quoteCcy": listing.quote,
        "ruleType": "normal",
        "state": "live",
        "tickSz": unpadded(1, listing.price_digits),
        "tradeQuoteCcyList": [listing.quote],
        "instIdCode": None,
        "instCategory": "1",
        "upcChg": [],
    }
