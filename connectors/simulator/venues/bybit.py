"""Bybit's v5 REST interface, simulated without I/O: its list of spot instruments.

Source: Bybit's v5 API documentation, "Get Instruments Info" and "Error Codes", state of July 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response
from connectors.simulator.venues.market import BYBIT, Listing, unpadded

PATHS = frozenset({"/v5/market/instruments-info"})


class SimulatedBybit:
    """Its answers.

    Args:
        clock: Epoch seconds.
        known: The symbols that are listed at present.
    """

    def __init__(self, clock: Callable[[], float], known: Container[str] = BYBIT) -> None:
        self._clock = clock
        self._known = known

    def answer(self, request: VenueRequest) -> VenueResponse:
        """Answer one GET of a path in `PATHS`. Errors come with HTTP 200; only `retCode` tells."""
        category, symbol = request.parameter("category"), request.parameter("symbol")
        if category is None:
            return self._say(10001, "params error: Category is invalid")
        listings = [each for each in BYBIT.values() if each.symbol in self._known] if category == "spot" else []
        if symbol is not None:
            listings = [listing for listing in listings if listing.symbol == symbol]
        return self._say(0, "OK", {"category": category, "list": [_row(listing) for listing in listings]})

    def _say(self, code: int, text: str, result: dict[str, object] | None = None) -> VenueResponse:
        told = {"retCode": code, "retMsg": text, "result": result or {}, "retExtInfo": {}}
        return json_response(told | {"time": int(self._clock() * 1000)})


def _row(listing: Listing) -> dict[str, object]:
    return {
        "symbol": listing.symbol,
        "baseCoin": listing.base,
        "quoteCoin": listing.quote,
        "innovation": "0",
        "status": "Trading",
        "marginTrading": "utaOnly",
        "lotSizeFilter": {
            "basePrecision": unpadded(1, listing.size_digits),
            "quotePrecision": unpadded(1, listing.price_digits + listing.size_digits),
            "minOrderQty": unpadded(1, listing.size_digits),
            "maxOrderQty": "1000000",
            "minOrderAmt": "5",
            "maxOrderAmt": "8000000",
        },
        "priceFilter": {"tickSize": unpadded(1, listing.price_digits)},
    }
