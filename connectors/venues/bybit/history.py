"""Bybit's own history of candles: `GET /v5/market/kline?category=spot`. No I/O.

Source: the v5 API's documentation, "Get Kline": at most 1 000 rows, the newest first; `start` and `end` are times of
opening in milliseconds, both included; a row is seven texts, the last two the volume in base and in quote units.
"Integration Guidance": success is `retCode` 0; 10006 is "too many visits". "Rate Limit": 600 requests in 5 s of one
address, beyond that HTTP 403 for ten minutes.

    {"retCode":0,"retMsg":"OK","result":{"category":"spot","symbol":"BTCUSDT","list":[
     ["1670608800000","17071","17073","17027","17055.5","268.611","15.74462667"]]},"retExtInfo":{},"time":1672025956592}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from connectors.base import Connector, ConnectorError, VenueRefused, VenueSettings, VenueThrottled, VenueUnavailable
from connectors.limits.payload import brief, read, spliced
from connectors.limits.rows import Odd, quoted, shown
from connectors.poll.candles import Row, Stretch, cells
from connectors.poll.host import Host
from connectors.poll.listing import beside, explained, query
from connectors.poll.past_candles import past_candles
from connectors.poll.venue import Answer, Pause
from connectors.venues.bybit.listing import TOO_MANY_S, BybitListing
from connectors.venues.bybit.topics import INTERVALS
from protocol.channels import Channel

PATH: Final = "/v5/market/kline"
_TITLE: Final = "Bybit"

_MOST_DIGITS: Final = 15
_TOO_MANY: Final = 10006
_VISITS_S: Final = 5.0
_OF_THE_REQUEST: Final = 10001


class _Kline(msgspec.Struct, array_like=True, gc=False):
    start_ms: str
    open: str
    high: str
    low: str
    close: str
    volume: str


class _Result(msgspec.Struct, frozen=True):
    rows: list[Raw] = msgspec.field(default_factory=list, name="list")


class _Body(msgspec.Struct, rename="camel"):
    ret_code: int
    ret_msg: str = ""
    result: _Result = _Result()


class BybitHistory:
    """A `CandleHistory`. Fewer rows than there may be: reading more at once would hold others up."""

    title = _TITLE
    intervals = tuple(INTERVALS)
    rows = 300
    reach = None
    per_minute = 120

    def path(self, stretch: Stretch, now_ms: int) -> str:
        """See `CandleHistory`."""
        asked = query(
            category="spot",
            symbol=stretch.instrument.replace("/", ""),
            interval=INTERVALS[stretch.interval],
            start=str(stretch.from_ms),
            end=str(stretch.until_ms - 1),
            limit=str(self.rows),
        )
        return f"{PATH}?{asked}"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """By the status alone; the body says the rest."""
        if answer.status == 403:
            return VenueThrottled(f"{_TITLE} refused the request (HTTP 403)", retry_after_s=TOO_MANY_S)
        return explained(_TITLE, answer, what="its candles")

    def pause(self, answer: Answer) -> Pause | None:
        """Never."""
        return None

    def read(self, body: bytes) -> list[Raw]:
        """Raises: PayloadError; ConnectorError, where Bybit says that it has failed."""
        said = read(body, _Body)
        if said.ret_code == 0:
            return said.result.rows
        words = f"{_TITLE} did not show its candles ({said.ret_code} {brief(said.ret_msg)})"
        if said.ret_code == _TOO_MANY:
            raise VenueThrottled(words, retry_after_s=_VISITS_S)
        raise (VenueRefused if said.ret_code == _OF_THE_REQUEST else VenueUnavailable)(words)

    def row(self, raw: bytes, stretch: Stretch) -> Row:
        """Raises: Odd."""
        kline = cells(raw, _Kline)
        start = kline.start_ms
        if not (start.isdigit() and start.isascii() and len(start) <= _MOST_DIGITS):
            raise Odd(f"{quoted('startTime')} is {shown(start)}, not in milliseconds since 1970")
        data = b'{"symbol":"%s","kline":%s}' % (stretch.instrument.replace("/", "").encode(), spliced(raw))
        return Row(int(start), kline.open, kline.high, kline.low, kline.close, kline.volume, data)


def build(channels: Sequence[Channel], settings: VenueSettings, user_agent: str, timeout_s: float) -> list[Connector]:
    """What asks for the past candles of these channels, if there are any of candles. Raises: ValueError."""

    def host() -> Host:
        url = beside(settings.address, BybitListing.hosts)
        return Host(_TITLE, url, timeout_s=timeout_s, user_agent=user_agent, proxy=settings.proxy)

    return past_candles("bybit", channels, BybitHistory(), host)
