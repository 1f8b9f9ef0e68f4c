"""OKX's own history of candles: `GET /api/v5/market/candles`, and `/history-candles` for older ones. No I/O.

Source: the v5 API's documentation, "Get candlesticks" and "Get candlesticks history": at most 300 rows of the last
1 440, 40 requests in 2 s; at most 100 of all, 20 in 2 s; the newest first; `after` gives those that began before it.
Success is `code` "0", whatever the HTTP status; 50011 is "too many requests". A row is nine texts:

    ["1597026383085","8533.02","8553.74","8527.17","8548.26","45247","529.5858061","5529.5858061","1"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from connectors.base import Connector, ConnectorError, VenueRefused, VenueSettings, VenueThrottled, VenueUnavailable
from connectors.limits.payload import brief, read, spliced
from connectors.limits.rows import Odd, quoted, shown
from connectors.poll.candles import Row, Stretch, cells, length_ms
from connectors.poll.host import Host
from connectors.poll.listing import beside, explained, query
from connectors.poll.past_candles import past_candles
from connectors.poll.venue import Answer, Pause
from connectors.venues.okx.listing import OkxListing
from connectors.venues.okx.topics import INTERVALS
from protocol.channels import Channel

RECENT: Final = "/api/v5/market/candles"
OLDER: Final = "/api/v5/market/history-candles"
_TITLE: Final = "OKX"

_RECENT: Final = 1_400
"""So many candles back are asked for at the address of the recent ones: it has a few more."""

_MOST_DIGITS: Final = 15
_TOO_MANY: Final = "50011"
_TOO_MANY_S: Final = 2.0
_OF_THE_REQUEST: Final = "51"
"""How the codes begin of what is wrong with a request, such as an instrument that does not exist (51001)."""


class _Candle(msgspec.Struct, array_like=True, gc=False):
    """A row: `volume` is in base units on spot; `confirm` is "1" once it is closed."""

    start_ms: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    volume_ccy: str
    volume_quote: str
    confirm: str


class _Body(msgspec.Struct):
    code: str
    msg: str = ""
    data: list[Raw] = []


class OkxHistory:
    """A `CandleHistory`."""

    title = _TITLE
    intervals = tuple(INTERVALS)
    rows = 100
    reach = None
    per_minute = 120

    def path(self, stretch: Stretch, now_ms: int) -> str:
        """See `CandleHistory`."""
        asked = query(
            instId=stretch.instrument.replace("/", "-"),
            bar=INTERVALS[stretch.interval],
            after=str(stretch.until_ms),
            limit=str(self.rows),
        )
        is_recent = stretch.from_ms >= now_ms - _RECENT * length_ms(stretch.interval)
        return f"{RECENT if is_recent else OLDER}?{asked}"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """By the status alone; the body says the rest."""
        return explained(_TITLE, answer, what="its candles")

    def pause(self, answer: Answer) -> Pause | None:
        """Never."""
        return None

    def read(self, body: bytes) -> list[Raw]:
        """Raises: PayloadError; ConnectorError, where OKX says that it has failed."""
        said = read(body, _Body)
        if said.code == "0":
            return said.data
        words = f"{_TITLE} did not show its candles ({brief(said.code)} {brief(said.msg)})"
        if said.code == _TOO_MANY:
            raise VenueThrottled(words, retry_after_s=_TOO_MANY_S)
        raise (VenueRefused if said.code.startswith(_OF_THE_REQUEST) else VenueUnavailable)(words)

    def row(self, raw: bytes, stretch: Stretch) -> Row:
        """Raises: Odd."""
        candle = cells(raw, _Candle)
        ts = candle.start_ms
        if not (ts.isdigit() and ts.isascii() and len(ts) <= _MOST_DIGITS):
            raise Odd(f"{quoted('ts')} is {shown(ts)}, not in milliseconds since 1970")
        if candle.confirm not in ("0", "1"):
            raise Odd(f"{quoted('confirm')} is {shown(candle.confirm)}, neither 0 nor 1")
        data = b'{"instId":"%s","candle":%s}' % (stretch.instrument.replace("/", "-").encode(), spliced(raw))
        closed = candle.confirm == "1"
        return Row(int(ts), candle.open, candle.high, candle.low, candle.close, candle.volume, data, closed)


def build(channels: Sequence[Channel], settings: VenueSettings, user_agent: str, timeout_s: float) -> list[Connector]:
    """What asks for the past candles of these channels, if there are any of candles. Raises: ValueError."""

    def host() -> Host:
        url = beside(settings.address, OkxListing.hosts)
        return Host(_TITLE, url, timeout_s=timeout_s, user_agent=user_agent, proxy=settings.proxy)

    return past_candles("okx", channels, OkxHistory(), host)
