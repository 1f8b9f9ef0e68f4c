"""Coinbase's REST interface, simulated without I/O: its public list of products.

Source: Coinbase's documentation of Advanced Trade, "List Public Products", state of November 2026; the members of a row
are those of nautilus_trader's fixture `http_products.json`.
"""

from __future__ import annotations

from collections.abc import Container

from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response
from connectors.simulator.venues.market import COINBASE, Listing, unpadded

PATHS = frozenset({"/api/v3/brokerage/market/products"})


class SimulatedCoinbase:
    """Its answers.

    Args:
        known: The symbols that are listed at present; others are on the list as `delisted`.
    """

    def __init__(self, known: Container[str] = COINBASE) -> None:
        self._known = known

    def answer(self, request: VenueRequest) -> VenueResponse:
        """Answer one GET of a path in `PATHS`."""
        if request.parameter("product_type") not in (None, "SPOT"):
            return json_response({"products": [], "num_products": 0})
        asked = request.query.get("product_ids")
        rows = [row for listing in COINBASE.values() for row in self._rows(listing)]
        rows = [row for row in rows if asked is None or row["product_id"] in asked]
        return json_response({"products": rows, "num_products": len(rows), "pagination": None})

    def _rows(self, listing: Listing) -> list[dict[str, object]]:
        """A product, and the one against USDC that is the same as one against USD."""
        alias = f"{listing.base}-USDC" if listing.quote == "USD" else ""
        rows = [self._row(listing, listing.symbol, listing.quote) | {"alias_to": [alias] if alias else []}]
        if alias:
            rows.append(self._row(listing, alias, "USDC") | {"alias": listing.symbol})
        return rows

    def _row(self, listing: Listing, product: str, quote: str) -> dict[str, object]:
        is_listed = listing.symbol in self._known
        return {
            "product_id": product,
            "base_increment": unpadded(1, listing.size_digits),
            "quote_increment": unpadded(1, listing.price_digits),
            "base_min_size": unpadded(1, listing.size_digits),
            "base_max_size": "3400",
            "base_name": listing.base,
            "quote_name": quote,
            "is_disabled": False,
            "new": False,
            "status": "online" if is_listed else "delisted",
            "cancel_only": False,
            "limit_only": False,
            "post_only": False,
            "trading_disabled": not is_listed,
            "auction_mode": False,
            "product_type": "SPOT",
            "base_currency_id": listing.base,
            "quote_currency_id": quote,
            "alias": "",
            "alias_to": [],
            "view_only": False,
            "price_increment": unpadded(1, listing.price_digits),
            "product_venue": "CBE",
        }
