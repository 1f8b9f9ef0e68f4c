"""Coinbase's list of products: `GET /api/v3/brokerage/market/products`, which needs no key. No I/O.

Source: Coinbase's documentation of Advanced Trade, "List Public Products" (November 2026): a row has `product_id`,
`status` and flags; `product_type` `SPOT` leaves futures out. A row is traded if it is `online` and neither
`trading_disabled`, `is_disabled`, `view_only` nor `cancel_only`. What is only an alias of another product
(`BTC-USDC`, see `products.py`) stands on the list by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from connectors.base import ConnectorError, PayloadError
from connectors.limits.payload import brief, read
from connectors.poll.listing import Wrong, explained
from connectors.poll.venue import Answer, Pause

PATH: Final = "/api/v3/brokerage/market/products"
_TITLE: Final = "Coinbase"


class _Row(msgspec.Struct):
    """`{"product_id":"BTC-USD","status":"online","trading_disabled":false,...}`."""

    product_id: str
    status: str = ""
    trading_disabled: bool = False
    is_disabled: bool = False
    view_only: bool = False
    cancel_only: bool = False

    def wrong(self) -> Wrong | None:
        """What is wrong with it."""
        if self.status not in ("", "online"):
            return Wrong("halted", f"{_TITLE} has it as {brief(self.status)}")
        for flag in ("trading_disabled", "is_disabled", "view_only", "cancel_only"):
            if getattr(self, flag):
                return Wrong("halted", f"{_TITLE} has it as {flag}")
        return None


class _List(msgspec.Struct):
    products: list[_Row]


class CoinbaseListing:
    """The whole list at once: some 800 rows."""

    hosts: Final = MappingProxyType({"advanced-trade-ws.coinbase.com": "api.coinbase.com"})
    """The host of the REST interface by that of the websocket ("Advanced Trade API endpoints")."""

    title = _TITLE
    most = 100_000

    def symbol(self, instrument: str) -> str:
        """`BTC/USD` is `BTC-USD`."""
        return instrument.replace("/", "-")

    def path(self, symbols: Sequence[str]) -> str:
        """The same for all."""
        return f"{PATH}?product_type=SPOT"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """By the status alone."""
        return explained(_TITLE, answer)

    def pause(self, answer: Answer) -> Pause | None:
        """Never: one request a day."""
        return None

    def read(self, body: bytes) -> Mapping[str, Wrong | None]:
        """Raises: PayloadError."""
        rows = read(body, _List).products
        if not rows:
            raise PayloadError(f"{_TITLE}'s list of instruments is empty")
        return {row.product_id: row.wrong() for row in rows}
