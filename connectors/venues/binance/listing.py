"""Binance's list of symbols: `GET /api/v3/exchangeInfo`, asked about those that are configured. No I/O.

Sources, in `binance/binance-spot-api-docs`: rest-api.md "Exchange information" (weight 20; `symbols` is a JSON array;
one that is unknown fails the whole request with -1121; `showPermissionSets=false` leaves out what is long), enums.md
"Symbol status": TRADING, END_OF_DAY, HALT, BREAK, CANCEL_ONLY. The whole list is megabytes, so it is never asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from connectors.base import ConnectorError
from connectors.limits.payload import brief, read
from connectors.poll.listing import UnknownInstrument, Wrong, query
from connectors.poll.venue import Answer, Pause
from connectors.venues.binance.polls import OF_THE_REQUEST, VENUE, explain, refusal, venue_symbol, weight_pause

_MOST: Final = 50
"""Symbols in one request: some 100 kB of answer."""


class _Row(msgspec.Struct):
    symbol: str
    status: str


class _List(msgspec.Struct):
    symbols: list[_Row]


class BinanceListing:
    """In parts; one that has an unknown symbol is halved until that is found."""

    title = VENUE
    most = _MOST

    def symbol(self, instrument: str) -> str:
        """`BTC/USDT` is `BTCUSDT`."""
        return venue_symbol(instrument)

    def path(self, symbols: Sequence[str]) -> str:
        """A JSON array without a space, or Binance answers -1100."""
        asked = query(symbols=msgspec.json.encode(symbols).decode(), showPermissionSets="false")
        return f"/api/v3/exchangeInfo?{asked}"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """A refusal of the request is one of a symbol in it."""
        if 200 <= answer.status < 300:
            return None
        if answer.status < 500 and refusal(answer.body).code in OF_THE_REQUEST:
            return UnknownInstrument(f"{VENUE} knows one of the symbols not")
        return explain(answer)

    def pause(self, answer: Answer) -> Pause | None:
        """A rest until the minute turns, where the address has used most of its request weight."""
        return weight_pause(answer)

    def read(self, body: bytes) -> Mapping[str, Wrong | None]:
        """Raises: PayloadError."""
        return {
            row.symbol: None if row.status == "TRADING" else Wrong("halted", f"{VENUE} has it as {brief(row.status)}")
            for row in read(body, _List).symbols
        }
