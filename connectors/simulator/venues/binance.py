"""Binance Spot's public REST interface, simulated: `VenueRequest` in, `VenueResponse` out.

Source of every rule: Binance's `binance-spot-api-docs` (rest-api.md, errors.md, CHANGELOG.md),
state of July 2026. The legal form of `symbols` and the text of its refusal are as observed by
client projects. Limits on calls are a layer of their own, see `connectors.simulator.venues.binance_weight`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response
from connectors.simulator.venues.binance_weight import WEIGHT_LIMIT, error
from connectors.simulator.venues.market import BINANCE, Listing, Market, Quote, padded
from connectors.simulator.venues.stream import update_id

DEPTH_LIMIT = 5_000
DAY_MS = 86_400_000

_ONE = r"(?:[^\Wa-z]|[-.]){1,50}"
_SYMBOL = re.compile(_ONE)
_SYMBOLS = re.compile(rf'\[("{_ONE}"(,"{_ONE}")*)?\]')
_LEGAL_ONE = r"[\w\-._&&[^a-z]]{1,50}"
_LEGAL = {
    "symbol": rf"^{_LEGAL_ONE}$",
    "symbols": rf'^\[("{_LEGAL_ONE}"(,"{_LEGAL_ONE}"){{0,}}){{0,1}}\]$',
    "limit": r"^[0-9]{1,20}$",
}

PATHS = frozenset(
    f"/api/v3/{name}"
    for name in (
        "ticker/24hr",
        "ticker/price",
        "ticker/bookTicker",
        "depth",
        "exchangeInfo",
        "time",
    )
)
"""Paths that are Binance's alone. `/api/v3/ping` is CoinGecko's too."""


class _Mini(msgspec.Struct, rename="camel"):
    """`ticker/24hr?type=MINI`: `{"symbol":"BNBBTC","openPrice":"99.00000000",...,"count":76}`."""

    symbol: str
    open_price: str
    high_price: str
    low_price: str
    last_price: str
    volume: str
    quote_volume: str
    open_time: int
    close_time: int
    first_id: int
    last_id: int
    count: int


class _Full(msgspec.Struct, rename="camel"):
    """`ticker/24hr`: `{"symbol":"BNBBTC","priceChange":"-94.99999800",...,"count":76}`."""

    symbol: str
    price_change: str
    price_change_percent: str
    weighted_avg_price: str
    prev_close_price: str
    last_price: str
    last_qty: str
    bid_price: str
    bid_qty: str
    ask_price: str
    ask_qty: str
    open_price: str
    high_price: str
    low_price: str
    volume: str
    quote_volume: str
    open_time: int
    close_time: int
    first_id: int
    last_id: int
    count: int


class BadParameters(Exception):
    """A request that Binance answers with HTTP 400 and an error body."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.response = error(code, message)


def requested_symbols(request: VenueRequest) -> list[str] | None:
    """The symbols that `symbol` or `symbols` name, or `None` where neither was sent.

    Raises:
        BadParameters: The parameters are malformed (-1100), contradict each other (-1128) or repeat a
            symbol (-1151).
    """
    query = request.query
    single, several = request.parameter("symbol"), request.parameter("symbols")
    if "symbol" in query and "symbols" in query:
        raise BadParameters(-1128, "Combination of optional parameters invalid.")
    if "symbols" in query:
        if len(query["symbols"]) > 1 or not _SYMBOLS.fullmatch(several or ""):
            raise _illegal("symbols")
        symbols = msgspec.json.decode(several or "[]", type=list[str])
        if len(set(symbols)) < len(symbols):
            raise BadParameters(-1151, "Symbol is present multiple times in the list.")
        return symbols or None
    if single is None:
        return None
    if not _SYMBOL.fullmatch(single):
        raise _illegal("symbol")
    return [single]


def _illegal(name: str) -> BadParameters:
    return BadParameters(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{_LEGAL[name]}'.")


class SimulatedBinance:
    """Binance's market-data endpoints over the simulated market.

    Args:
        market: Where the values come from.
        clock: Epoch seconds; gives the times in the answers, never the prices.
        step: The market's present step.
        book_step: That of the books in answers, if it is another one.
    """

    def __init__(
        self,
        market: Market,
        clock: Callable[[], float],
        step: Callable[[], int],
        book_step: Callable[[], int] | None = None,
    ) -> None:
        self._market = market
        self._clock = clock
        self._step = step
        self._book_step = book_step or step

    def answer(self, request: VenueRequest) -> VenueResponse:
        """Answer one GET of a path in `PATHS`."""
        try:
            return json_response(self._body(request))
        except BadParameters as refused:
            return refused.response

    def _body(self, request: VenueRequest) -> object:
        units = request.headers.get("x-mbx-time-unit", "").upper()
        now = int(self._clock() * 1000) * (1000 if units == "MICROSECOND" else 1)
        day = DAY_MS * (1000 if units == "MICROSECOND" else 1)
        match request.path.removeprefix("/api/v3/"):
            case "ticker/24hr":
                kind = request.parameter("type") or "FULL"
                if kind not in ("FULL", "MINI"):
                    raise BadParameters(-1139, "Invalid ticker type.")
                make = self._full if kind == "FULL" else self._mini
                return self._each(request, lambda listing, quote: make(listing, quote, now, day))
            case "ticker/price":
                return self._each(request, self._price)
            case "ticker/bookTicker":
                return self._each(request, self._best)
            case "depth":
                return self._depth(request)
            case "exchangeInfo":
                return self._exchange_info(request, now)
            case _:
                return {"serverTime": now}

    def _each(self, request: VenueRequest, make: Callable[[Listing, Quote], object]) -> object:
        """One object for `symbol`, a list of them for `symbols` or for everything."""
        step = self._step()
        rows = [make(listing, self._market.quote(listing, step)) for listing in self._listings(request)]
        return rows[0] if "symbol" in request.query else rows

    def _listings(self, request: VenueRequest) -> Iterable[Listing]:
        symbols = requested_symbols(request)
        if symbols is None:
            if "symbol" in request.query:
                raise _missing("symbol")
            return BINANCE.values()
        if any(symbol not in BINANCE for symbol in symbols):
            raise BadParameters(-1121, "Invalid symbol.")
        return [BINANCE[symbol] for symbol in symbols]

    def _full(self, listing: Listing, quote: Quote, now: int, day: int) -> _Full:
        digits, size_digits = listing.price_digits, listing.size_digits
        mini = self._mini(listing, quote, now, day)
        return _Full(
            symbol=listing.symbol,
            price_change=padded(quote.last - quote.open, digits),
            price_change_percent=padded((quote.last - quote.open) * 100_000 // quote.open, 3, 3),
            weighted_avg_price=padded(quote.average, digits),
            prev_close_price=mini.open_price,
            last_price=mini.last_price,
            last_qty=padded(quote.last_size, size_digits),
            bid_price=padded(quote.bid, digits),
            bid_qty=padded(quote.bid_size, size_digits),
            ask_price=padded(quote.ask, digits),
            ask_qty=padded(quote.ask_size, size_digits),
            open_price=mini.open_price,
            high_price=mini.high_price,
            low_price=mini.low_price,
            volume=mini.volume,
            quote_volume=mini.quote_volume,
            open_time=mini.open_time,
            close_time=mini.close_time,
            first_id=mini.first_id,
            last_id=mini.last_id,
            count=mini.count,
        )

    def _mini(self, listing: Listing, quote: Quote, now: int, day: int) -> _Mini:
        digits, size_digits = listing.price_digits, listing.size_digits
        count = 100_000 + listing.volume % 900_000
        first_id = 1_000_000 + 3 * quote.step
        return _Mini(
            symbol=listing.symbol,
            open_price=padded(quote.open, digits),
            high_price=padded(quote.high, digits),
            low_price=padded(quote.low, digits),
            last_price=padded(quote.last, digits),
            volume=padded(quote.volume, size_digits),
            quote_volume=padded(quote.quote_volume, digits + size_digits),
            open_time=now - day,
            close_time=now,
            first_id=first_id,
            last_id=first_id + count - 1,
            count=count,
        )

    @staticmethod
    def _price(listing: Listing, quote: Quote) -> dict[str, str]:
        return {"symbol": listing.symbol, "price": padded(quote.last, listing.price_digits)}

    @staticmethod
    def _best(listing: Listing, quote: Quote) -> dict[str, str]:
        return {
            "symbol": listing.symbol,
            "bidPrice": padded(quote.bid, listing.price_digits),
            "bidQty": padded(quote.bid_size, listing.size_digits),
            "askPrice": padded(quote.ask, listing.price_digits),
            "askQty": padded(quote.ask_size, listing.size_digits),
        }

    def _depth(self, request: VenueRequest) -> object:
        """`{"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[...]}`."""
        if requested_symbols(request) is None or "symbols" in request.query:
            raise _missing("symbol")
        (listing,) = self._listings(request)
        limit = request.parameter("limit") or "100"
        if not re.fullmatch(r"[0-9]{1,20}", limit):
            raise _illegal("limit")
        if int(limit) == 0:
            raise BadParameters(-1130, "Data sent for parameter 'limit' is not valid.")
        step = self._book_step()
        book = self._market.book(listing, step, min(int(limit), DEPTH_LIMIT))

        def texts(levels: list[tuple[int, int]]) -> list[tuple[str, str]]:
            digits, size_digits = listing.price_digits, listing.size_digits
            return [(padded(price, digits), padded(size, size_digits)) for price, size in levels]

        return {
            "lastUpdateId": update_id(step),
            "bids": texts(book.bids),
            "asks": texts(book.asks),
        }

    def _exchange_info(self, request: VenueRequest, now: int) -> object:
        return {
            "timezone": "UTC",
            "serverTime": now,
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": WEIGHT_LIMIT,
                },
                {
                    "rateLimitType": "RAW_REQUESTS",
                    "interval": "MINUTE",
                    "intervalNum": 5,
                    "limit": 300_000,
                },
            ],
            "exchangeFilters": [],
            "symbols": [_symbol_info(listing) for listing in self._listings(request)],
        }


def _missing(name: str) -> BadParameters:
    return BadParameters(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def _symbol_info(listing: Listing) -> dict[str, object]:
    """One row of `exchangeInfo`: `{"symbol":"ETHBTC","status":"TRADING","baseAsset":"ETH",...}`."""
    tick = padded(1, listing.price_digits)
    lot = padded(1, listing.size_digits)
    allowed = ("iceberg", "oco", "oto", "opo", "quoteOrderQtyMarket", "pegInstructions")
    return {
        "symbol": listing.symbol,
        "status": "TRADING",
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        **{f"{name}Allowed": True for name in allowed},
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "amendAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick,
                "maxPrice": "1000000.00000000",
                "tickSize": tick,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": lot,
                "maxQty": "92141578.00000000",
                "stepSize": lot,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }
