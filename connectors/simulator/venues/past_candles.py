"""The venues' own histories of candles, simulated without I/O: those of the same market that their websockets tell.

Sources: the documentation of each, as their real counterparts in the daemon are asked: Binance's rest-api.md
("Kline/Candlestick data"), OKX's v5 API ("Get candlesticks", "Get candlesticks history"), Bybit's v5 API ("Get Kline"),
Coinbase's Advanced Trade ("Get Public Product Candles"), Kraken's API ("Get OHLC Data"), state of November 2026.
Which order rows have, how many there may be, and how a mistake is told, differs from venue to venue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response
from connectors.simulator.venues.binance_streams import INTERVALS as BINANCE_INTERVALS
from connectors.simulator.venues.binance_weight import KLINES, error
from connectors.simulator.venues.bybit_streams import CANDLES as BYBIT_INTERVALS
from connectors.simulator.venues.coinbase_streams import CANDLE_MS
from connectors.simulator.venues.kraken_streams import INTERVALS as KRAKEN_INTERVALS
from connectors.simulator.venues.market import BINANCE, BYBIT, COINBASE, KRAKEN, OKX, Listing, padded, unpadded
from connectors.simulator.venues.okx import CANDLES as OKX_INTERVALS
from connectors.simulator.venues.stream import Candle, MarketStream

Name: TypeAlias = Literal["binance", "bybit", "coinbase", "kraken", "okx"]
"""A venue that has a history."""

OKX_RECENT: Final = "/api/v5/market/candles"
OKX_OLDER: Final = "/api/v5/market/history-candles"
BYBIT_KLINE: Final = "/v5/market/kline"
KRAKEN_OHLC: Final = "/0/public/OHLC"
COINBASE_CANDLES: Final = "/api/v3/brokerage/market/products/{}/candles"

_OKX_RECENT_MOST: Final = 1_440
_KRAKEN_MOST: Final = 720
_COINBASE_MOST: Final = 350
_BINANCE_MOST: Final = 1_000
_BYBIT_MOST: Final = 1_000
_GRANULARITIES: Final = frozenset(
    f"{word}"
    for word in (
        *("ONE_MINUTE", "FIVE_MINUTE", "FIFTEEN_MINUTE", "THIRTY_MINUTE"),
        *("ONE_HOUR", "TWO_HOUR", "FOUR_HOUR", "SIX_HOUR", "ONE_DAY"),
    )
)
_PAIRS: Final[Mapping[str, Listing]] = MappingProxyType(
    {
        "".join({"BTC": "XBT", "DOGE": "XDG"}.get(name, name) for name in (listing.base, listing.quote)): listing
        for listing in KRAKEN.values()
    }
)
"""Kraken's pairs by the names of its REST interface."""


class SimulatedHistories:
    """What all of them answer.

    Args:
        stream: What happens in the market.
        step: The market's present step.
        listed: A venue's symbols that are listed at present.

    Attributes:
        routes: By path whose it is, and who answers.
    """

    def __init__(self, stream: MarketStream, step: Callable[[], int], listed: Callable[[Name], Container[str]]) -> None:
        self._stream = stream
        self._step = step
        self._listed = listed
        self.routes: dict[str, tuple[Name, Callable[[VenueRequest], VenueResponse]]] = {
            KLINES: ("binance", self._binance),
            OKX_RECENT: ("okx", self._okx),
            OKX_OLDER: ("okx", self._okx),
            BYBIT_KLINE: ("bybit", self._bybit),
            KRAKEN_OHLC: ("kraken", self._kraken),
            **{COINBASE_CANDLES.format(product): ("coinbase", self._coinbase) for product in COINBASE},
        }

    def _between(
        self, listing: Listing, interval_ms: int, from_ms: int, until_ms: int, most: int, *, oldest: bool = False
    ) -> list[Candle]:
        """Those that began in this time, also the present one: the newest, or the `oldest`, in order."""
        step = self._step()
        present_ms = self._stream.time_ms(step) // interval_ms * interval_ms
        first_ms = -(-max(from_ms, 0) // interval_ms) * interval_ms
        starts_ms = range(first_ms, min(until_ms, present_ms + 1), interval_ms)
        starts_ms = starts_ms[:most] if oldest else starts_ms[max(0, len(starts_ms) - most) :]
        return [
            self._stream.candle(listing, interval_ms, step)
            if start_ms == present_ms
            else self._stream.closed_candle(listing, interval_ms, start_ms)
            for start_ms in starts_ms
        ]

    def _binance(self, request: VenueRequest) -> VenueResponse:
        """The oldest first; errors by code."""
        symbol, interval = request.parameter("symbol"), request.parameter("interval")
        if symbol is None or interval is None:
            name = "symbol" if symbol is None else "interval"
            return error(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        if symbol not in BINANCE or symbol not in self._listed("binance"):
            return error(-1121, "Invalid symbol.")
        if interval not in BINANCE_INTERVALS:
            return error(-1120, "Invalid interval.")
        numbers = _numbers(request, startTime=None, endTime=None, limit=500)
        if isinstance(numbers, str):
            return error(-1100, f"Illegal characters found in parameter '{numbers}'; legal range is '^[0-9]{{1,20}}$'.")
        start, end, limit = numbers
        if not limit:
            return error(-1130, "Data sent for parameter 'limit' is not valid.")
        candles = self._between(
            BINANCE[symbol],
            BINANCE_INTERVALS[interval],
            start or 0,
            _END_MS if end is None else end + 1,
            min(limit, _BINANCE_MOST),
            oldest=start is not None,
        )
        return json_response([_kline(BINANCE[symbol], candle) for candle in candles])

    def _okx(self, request: VenueRequest) -> VenueResponse:
        """The newest first."""
        symbol, bar = request.parameter("instId"), request.parameter("bar") or "1m"
        if symbol is None:
            return json_response({"code": "50014", "data": [], "msg": "Parameter instId can not be empty."}, 400)
        if symbol not in OKX or symbol not in self._listed("okx"):
            text = "Instrument ID, Instrument ID code or Spread ID doesn't exist."
            return json_response({"code": "51001", "data": [], "msg": text})
        interval_ms = OKX_INTERVALS.get(f"candle{bar}")
        numbers = _numbers(request, after=None, before=None, limit=100)
        if interval_ms is None or isinstance(numbers, str):
            wrong = "bar" if interval_ms is None else numbers
            return json_response({"code": "51000", "data": [], "msg": f"Parameter {wrong} error"}, 400)
        after, before, limit = numbers
        is_recent = request.path == OKX_RECENT
        first_ms = self._stream.time_ms(self._step()) - _OKX_RECENT_MOST * interval_ms if is_recent else 0
        candles = self._between(
            OKX[symbol],
            interval_ms,
            max(first_ms, 0 if before is None else before + 1),
            _END_MS if after is None else after,
            min(limit or 100, 300 if is_recent else 100),
        )
        return json_response({"code": "0", "msg": "", "data": [_okx_row(OKX[symbol], each) for each in candles[::-1]]})

    def _bybit(self, request: VenueRequest) -> VenueResponse:
        """The newest first; errors come with HTTP 200."""
        symbol, interval = request.parameter("symbol"), request.parameter("interval")
        numbers = _numbers(request, start=None, end=None, limit=200)
        if request.parameter("category") != "spot":
            return self._bybit_says(10001, "params error: Category is invalid")
        if symbol is None or symbol not in BYBIT or symbol not in self._listed("bybit"):
            return self._bybit_says(10001, "Not supported symbols")
        interval_ms = BYBIT_INTERVALS.get(interval or "")
        if interval_ms is None or isinstance(numbers, str):
            wrong = numbers if isinstance(numbers, str) else "interval"
            return self._bybit_says(10001, f"params error: Invalid {wrong}")
        start, end, limit = numbers
        most = min(max(limit or 1, 1), _BYBIT_MOST)
        until_ms = _END_MS if end is None else end + 1
        candles = self._between(BYBIT[symbol], interval_ms, start or 0, until_ms, most)
        rows = [_bybit_row(BYBIT[symbol], candle) for candle in candles[::-1]]
        return self._bybit_says(0, "OK", {"category": "spot", "symbol": symbol, "list": rows})

    def _bybit_says(self, code: int, text: str, result: object = None) -> VenueResponse:
        now_ms = self._stream.time_ms(self._step())
        return json_response(
            {"retCode": code, "retMsg": text, "result": result or {}, "retExtInfo": {}, "time": now_ms}
        )

    def _coinbase(self, request: VenueRequest) -> VenueResponse:
        """The newest first. Candles of other lengths than five minutes are not simulated."""
        product = request.path.split("/")[-2]
        if product not in self._listed("coinbase"):
            return _coinbase_error("NOT_FOUND", "product not found", 404)
        numbers = _numbers(request, start=None, end=None, limit=_COINBASE_MOST)
        granularity = request.parameter("granularity")
        if isinstance(numbers, str):
            return _coinbase_error("INVALID_ARGUMENT", f"invalid {numbers} time", 400)
        start, end, limit = numbers
        if start is None or end is None:
            return _coinbase_error("INVALID_ARGUMENT", "start and end are needed", 400)
        if granularity not in _GRANULARITIES:
            return _coinbase_error("INVALID_ARGUMENT", "unsupported granularity", 400)
        if granularity != "FIVE_MINUTE":
            return _coinbase_error("UNIMPLEMENTED", "only FIVE_MINUTE is simulated", 501)
        if (end - start) * 1000 // CANDLE_MS + 1 > _COINBASE_MOST:
            text = (
                f"start and end argument is invalid - number of candles requested should be less than {_COINBASE_MOST}"
            )
            return _coinbase_error("INVALID_ARGUMENT", text, 400)
        most = min(limit or _COINBASE_MOST, _COINBASE_MOST)
        candles = self._between(COINBASE[product], CANDLE_MS, start * 1000, end * 1000 + 1, most)
        return json_response({"candles": [_coinbase_row(COINBASE[product], candle) for candle in candles[::-1]]})

    def _kraken(self, request: VenueRequest) -> VenueResponse:
        """The oldest first, of the 720 newest; errors come with HTTP 200. A span without trades has no candle."""
        listing = _PAIRS.get(request.parameter("pair") or "")
        if listing is None or listing.symbol not in self._listed("kraken"):
            return json_response({"error": ["EQuery:Unknown asset pair"]})
        numbers = _numbers(request, interval=1, since=None)
        if isinstance(numbers, str) or numbers[0] not in KRAKEN_INTERVALS:
            wrong = numbers if isinstance(numbers, str) else "interval"
            return json_response({"error": [f"EGeneral:Invalid arguments:{wrong}"]})
        minutes, since = numbers
        interval_ms = (minutes or 1) * 60_000
        present_ms = self._stream.time_ms(self._step()) // interval_ms * interval_ms
        first_ms = present_ms - (_KRAKEN_MOST - 1) * interval_ms
        if since is not None:
            first_ms = min(max(first_ms, since * 1000 + 1), present_ms)
        candles = self._between(listing, interval_ms, first_ms, _END_MS, _KRAKEN_MOST)
        rows = [_kraken_row(listing, candle) for candle in candles if candle.trades]
        last = max((candle.start_ms // 1000 for candle in candles if candle.closed), default=0)
        name = f"X{request.parameter('pair')}" if listing.quote == "USD" else request.parameter("pair")
        return json_response({"error": [], "result": {name: rows, "last": last}})


_END_MS: Final = 2**53


def _numbers(request: VenueRequest, **defaults: int | None) -> list[int | None] | str:
    """These parameters as numbers; the name of the first that is none."""
    found: list[int | None] = []
    for name, default in defaults.items():
        text = request.parameter(name)
        if text is not None and not re.fullmatch(r"-?[0-9]{1,15}", text):
            return name
        found.append(default if text is None else int(text))
    return found


def _kline(listing: Listing, candle: Candle) -> list[object]:
    digits, size_digits = listing.price_digits, listing.size_digits
    both = digits + size_digits
    return [
        candle.start_ms,
        *(padded(price, digits) for price in (candle.open, candle.high, candle.low, candle.close)),
        padded(candle.volume, size_digits),
        candle.end_ms - 1,
        padded(candle.quote_volume, both),
        candle.trades,
        padded(candle.bought, size_digits),
        padded(candle.bought * candle.close, both),
        "0",
    ]


def _okx_row(listing: Listing, candle: Candle) -> list[str]:
    digits, both = listing.price_digits, listing.price_digits + listing.size_digits
    return [
        str(candle.start_ms),
        *(unpadded(price, digits) for price in (candle.open, candle.high, candle.low, candle.close)),
        unpadded(candle.volume, listing.size_digits),
        unpadded(candle.quote_volume, both),
        unpadded(candle.quote_volume, both),
        "1" if candle.closed else "0",
    ]


def _bybit_row(listing: Listing, candle: Candle) -> list[str]:
    digits, size_digits = listing.price_digits, listing.size_digits
    return [
        str(candle.start_ms),
        *(unpadded(price, digits) for price in (candle.open, candle.high, candle.low, candle.close)),
        unpadded(candle.volume, size_digits),
        unpadded(candle.quote_volume, digits + size_digits),
    ]


def _coinbase_row(listing: Listing, candle: Candle) -> dict[str, str]:
    digits = listing.price_digits
    return {
        "start": str(candle.start_ms // 1000),
        "low": unpadded(candle.low, digits),
        "high": unpadded(candle.high, digits),
        "open": unpadded(candle.open, digits),
        "close": unpadded(candle.close, digits),
        "volume": unpadded(candle.volume, listing.size_digits),
    }


def _coinbase_error(code: str, text: str, status: int) -> VenueResponse:
    return json_response({"error": code, "error_details": text, "message": text}, status)


def _kraken_row(listing: Listing, candle: Candle) -> list[object]:
    digits, size_digits = listing.price_digits, listing.size_digits
    mean = candle.quote_volume // candle.volume if candle.volume else candle.close
    return [
        candle.start_ms // 1000,
        *(_fixed(price, digits) for price in (candle.open, candle.high, candle.low, candle.close)),
        _fixed(mean, digits),
        _fixed(candle.volume, size_digits),
        candle.trades,
    ]


def _fixed(value: int, digits: int) -> str:
    """With all its decimals, as Kraken writes them: `30306.1`, `3.39243896`."""
    return padded(value, digits, digits) if digits else str(value)
