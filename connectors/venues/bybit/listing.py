"""Bybit's list of spot instruments: `GET /v5/market/instruments-info?category=spot`. No I/O.

Source: the v5 API's documentation, "Get Instruments Info": spot comes on one page; a row has `symbol` and `status`, of
which only `Trading` is traded; "Integration Guidance": success is `retCode` 0. "Rate Limit": who asks more than 600
times in 5 s is answered with HTTP 403, "access too frequent", and has to wait ten minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from connectors.base import ConnectorError, PayloadError, VenueThrottled, VenueUnavailable
from connectors.limits.payload import brief, read
from connectors.poll.listing import Wrong, explained
from connectors.poll.venue import Answer, Pause

_TITLE: Final = "Bybit"

TOO_MANY_S: Final = 600.0
"""How long to wait after HTTP 403."""

_REGIONS: Final = ("bybit.com", "bybit.eu", "bybit.nl", "bybit.kz", "bybit.ae", "bybit-tr.com", "bybitgeorgia.ge")


class _Row(msgspec.Struct):
    symbol: str
    status: str


class _Result(msgspec.Struct, frozen=True):
    rows: tuple[_Row, ...] = msgspec.field(default=(), name="list")


class _List(msgspec.Struct, rename="camel"):
    ret_code: int
    ret_msg: str = ""
    result: _Result = _Result()


class BybitListing:
    """The whole list at once: some 600 rows."""

    hosts: Final = MappingProxyType({f"stream.{region}": f"api.{region}" for region in _REGIONS})
    """The host of the REST interface by that of the websocket ("Integration Guidance", "Connect")."""

    title = _TITLE
    most = 100_000

    def symbol(self, instrument: str) -> str:
        """`BTC/USDT` is `BTCUSDT`."""
        return instrument.replace("/", "")

    def path(self, symbols: Sequence[str]) -> str:
        """The same for all."""
        return "/v5/market/instruments-info?category=spot"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """By the status alone; the body says the rest."""
        if answer.status == 403:
            return VenueThrottled(f"{_TITLE} refused the request (HTTP 403)", retry_after_s=TOO_MANY_S)
        return explained(_TITLE, answer)

    def pause(self, answer: Answer) -> Pause | None:
        """Never: one request a day."""
        return None

    def read(self, body: bytes) -> Mapping[str, Wrong | None]:
        """Raises: PayloadError; VenueUnavailable, where Bybit says that it has failed."""
        listed = read(body, _List)
        if listed.ret_code != 0:
            raise VenueUnavailable(f"{_TITLE} did not show its instruments ({listed.ret_code} {brief(listed.ret_msg)})")
        if not listed.result.rows:
            raise PayloadError(f"{_TITLE}'s list of instruments is empty")
        return {
            row.symbol: None if row.status == "Trading" else Wrong("halted", f"{_TITLE} has it as {brief(row.status)}")
            for row in listed.result.rows
        }
