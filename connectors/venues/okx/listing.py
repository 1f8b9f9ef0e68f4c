"""OKX's list of spot instruments: `GET /api/v5/public/instruments?instType=SPOT`. No I/O.

Source: the API guide, "Public Data", "Get instruments": every row has `instId` and `state`, which is `live`, `suspend`,
`preopen` or `test`; success is `code` "0", whatever the HTTP status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from connectors.base import ConnectorError, PayloadError, VenueUnavailable
from connectors.limits.payload import brief, read
from connectors.poll.listing import Wrong, explained
from connectors.poll.venue import Answer, Pause

_TITLE: Final = "OKX"


class _Row(msgspec.Struct):
    instId: str
    state: str


class _List(msgspec.Struct):
    code: str
    msg: str = ""
    data: list[_Row] = []


class OkxListing:
    """The whole list at once: some 700 rows."""

    hosts: Final = MappingProxyType(
        {"ws.okx.com": "openapi.okx.com", "wseea.okx.com": "eea.okx.com", "wsus.okx.com": "us.okx.com"}
    )
    """The host of the REST interface by that of the websocket ("Production Trading Services", and by region)."""

    title = _TITLE
    most = 100_000

    def symbol(self, instrument: str) -> str:
        """`BTC/USDT` is `BTC-USDT`."""
        return instrument.replace("/", "-")

    def path(self, symbols: Sequence[str]) -> str:
        """The same for all."""
        return "/api/v5/public/instruments?instType=SPOT"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """By the status alone; the body says the rest."""
        return explained(_TITLE, answer)

    def pause(self, answer: Answer) -> Pause | None:
        """Never: one request a day."""
        return None

    def read(self, body: bytes) -> Mapping[str, Wrong | None]:
        """Raises: PayloadError; VenueUnavailable, where OKX says that it has failed."""
        listed = read(body, _List)
        if listed.code != "0":
            raise VenueUnavailable(f"{_TITLE} did not show its instruments ({brief(listed.code)} {brief(listed.msg)})")
        if not listed.data:
            raise PayloadError(f"{_TITLE}'s list of instruments is empty")
        return {
            row.instId: None if row.state == "live" else Wrong("halted", f"{_TITLE} has it as {brief(row.state)}")
            for row in listed.data
        }
