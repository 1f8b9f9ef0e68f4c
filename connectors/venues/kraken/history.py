"""Kraken's own history of candles: `GET /0/public/OHLC`. No I/O.

Source: Kraken's API documentation, "Get OHLC Data" (November 2026): at most the 720 most recent ones; "older data
cannot be retrieved, regardless of the value of since". The oldest comes first; the last is the present one, which is
not committed yet. Pairs have names of their own here, in which bitcoin is XBT and dogecoin XDG. "Spot REST rate
limits": calls of OHLC are counted per address and pair. Failures come with HTTP 200, in `error`. A row is a list:

    {"error":[],"result":{"XXBTZUSD":[[1688671200,"30306.1","30306.2","30305.7","30305.7","30306.1","3.39243896",23]],
     "last":1688672160}}
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Raw

from connectors.base import (
    Connector,
    ConnectorError,
    PayloadError,
    VenueRefused,
    VenueSettings,
    VenueThrottled,
    VenueUnavailable,
)
from connectors.limits.payload import brief, read, spliced
from connectors.poll.candles import Row, Stretch, cells
from connectors.poll.host import Host
from connectors.poll.listing import beside, explained, query
from connectors.poll.past_candles import past_candles
from connectors.poll.venue import Answer, Pause
from connectors.venues.kraken.plan import INTERVALS
from protocol.channels import Channel

HOSTS: Final = MappingProxyType({"ws.kraken.com": "api.kraken.com"})
"""The host of the REST interface by that of the websocket."""

PATH: Final = "/0/public/OHLC"
_TITLE: Final = "Kraken"
_NAMES: Final = {"BTC": "XBT", "DOGE": "XDG"}
_LAST: Final = "last"
_MOST_ROWS: Final = 720
_TOO_MANY: Final = ("EGeneral:Too many requests", "EAPI:Rate limit exceeded", "EGeneral:Temporary lockout")
_TOO_MANY_S: Final = 15.0
_OF_THE_REQUEST: Final = ("EQuery:", "EGeneral:Invalid arguments")


class _Candle(msgspec.Struct, array_like=True, gc=False):
    """A row: `start_s` is in seconds since 1970, `vwap` the mean price by volume."""

    start_s: int
    open: str
    high: str
    low: str
    close: str
    vwap: str
    volume: str


class _Body(msgspec.Struct):
    error: list[str]
    result: dict[str, Raw] = {}


_rows: Final = msgspec.json.Decoder(list[Raw])


class KrakenHistory:
    """A `CandleHistory` that goes back 720 candles, and no further."""

    title = _TITLE
    intervals = tuple(INTERVALS)
    rows = _MOST_ROWS
    reach = _MOST_ROWS
    per_minute = 30

    def path(self, stretch: Stretch, now_ms: int) -> str:
        """All that began later than `since`: a second before, so that it does not matter whether it is included."""
        asked = query(
            pair=pair_of(stretch.instrument),
            interval=str(INTERVALS[stretch.interval]),
            since=str(stretch.from_ms // 1000 - 1),
        )
        return f"{PATH}?{asked}"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """By the status alone; the body says the rest."""
        return explained(_TITLE, answer, what="its candles")

    def pause(self, answer: Answer) -> Pause | None:
        """Never."""
        return None

    def read(self, body: bytes) -> list[Raw]:
        """Raises: PayloadError; ConnectorError, where Kraken says that it has failed."""
        said = read(body, _Body)
        if said.error:
            words = f"{_TITLE} did not show its candles ({brief(', '.join(said.error))})"
            if said.error[0].startswith(_TOO_MANY):
                raise VenueThrottled(words, retry_after_s=_TOO_MANY_S)
            raise (VenueRefused if said.error[0].startswith(_OF_THE_REQUEST) else VenueUnavailable)(words)
        found = [raw for name, raw in said.result.items() if name != _LAST]
        if len(found) != 1:
            raise PayloadError(f"{_TITLE} sent candles of {len(found)} pairs, not of one")
        try:
            return _rows.decode(found[0])
        except msgspec.DecodeError as error:
            raise PayloadError(f"{_TITLE}'s candles are no list: {brief(str(error))}") from None

    def row(self, raw: bytes, stretch: Stretch) -> Row:
        """Raises: Odd."""
        candle = cells(raw, _Candle)
        data = b'{"symbol":"%s","ohlc":%s}' % (stretch.instrument.encode(), spliced(raw))
        return Row(candle.start_s * 1000, candle.open, candle.high, candle.low, candle.close, candle.volume, data)


def pair_of(instrument: str) -> str:
    """The REST interface's name: `XBTUSDT` for `BTC/USDT`."""
    return "".join(_NAMES.get(name, name) for name in instrument.split("/"))


def build(channels: Sequence[Channel], settings: VenueSettings, user_agent: str, timeout_s: float) -> list[Connector]:
    """What asks for the past candles of these channels, if there are any of candles. Raises: ValueError."""

    def host() -> Host:
        url = beside(settings.address, HOSTS)
        return Host(_TITLE, url, timeout_s=timeout_s, user_agent=user_agent, proxy=settings.proxy)

    return past_candles("kraken", channels, KrakenHistory(), host)
