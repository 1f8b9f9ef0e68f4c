"""The seam between a venue's own history of candles and whoever asks for it (`connectors.poll.past_candles`).

A venue's part says what to ask for a stretch of time, and what each row of the answer means; it is pure. Rows are read
one by one, so that a bad one is left out and the others are not, and so that others have their turn in between.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec import Raw

from connectors.base import ConnectorError
from connectors.limits.payload import brief
from connectors.limits.rows import Odd, check_price, check_time, quoted, shown
from connectors.poll.venue import Answer, Pause
from protocol.messages import is_number

T = TypeVar("T")

_UNIT_MS: Final = {
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    # Of the shortest month and quarter: there are no more candles in a stretch than this says.
    "M": 28 * 86_400_000,
}
_MONTHS_A_YEAR: Final = 12
_QUARTER: Final = 3
_QUARTER_MS: Final = 90 * 86_400_000


def length_ms(interval: str) -> int:
    """How long a candle of that interval is, in milliseconds; of months, how long it is at least.

    Raises:
        ValueError: it is no interval, such as `1m`, `4h` or `1M`.
    """
    count, unit = interval[:-1], interval[-1:]
    if not (count.isascii() and count.isdigit() and int(count)) or unit not in _UNIT_MS:
        raise ValueError(f"{interval[:20]!r} is no interval of candles, such as '1m', '4h' or '1M'")
    if unit == "M" and int(count) == _QUARTER:
        return _QUARTER_MS
    return int(count) * _UNIT_MS[unit]


def end_ms(interval: str, start_ms: int) -> int:
    """When the candle ends that began at `start_ms`; both in ms since 1970. Raises: ValueError."""
    length = length_ms(interval)
    if interval[-1] != "M":
        return start_ms + length
    began = datetime.fromtimestamp(start_ms / 1000, UTC)
    months = began.year * _MONTHS_A_YEAR + began.month - 1 + int(interval[:-1])
    until = datetime(months // _MONTHS_A_YEAR, months % _MONTHS_A_YEAR + 1, 1, tzinfo=UTC)
    return round(until.timestamp() * 1000)


class Stretch(msgspec.Struct, frozen=True):
    """The candles of one instrument that began from `from_ms` until before `until_ms`, ms since 1970."""

    instrument: str
    interval: str
    from_ms: int
    until_ms: int


class Row(msgspec.Struct, frozen=True, gc=False):
    """What one row says. `closed` is None where the venue does not say so: then time decides."""

    start_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    data: bytes
    closed: bool | None = None

    def check(self) -> None:
        """Make sure that it is a candle. Raises: Odd."""
        check_time(self.start_ms, "start")
        for field in ("open", "high", "low", "close"):
            check_price(getattr(self, field), field)
        if is_number(self.volume) is None or float(self.volume) < 0:
            raise Odd(f"{quoted('volume')} is {shown(self.volume)}, not a quantity")


class PastCandle(msgspec.Struct, frozen=True, gc=False):
    """One closed candle, with the venue's digits.

    Attributes:
        start_ms: when it began, ms since 1970.
        open, high, low, close, volume: digits as a JSON number writes them.
        data: what the venue said of it, an object of JSON.
        received_ms: when the venue's bytes were here, ms since 1970.
    """

    start_ms: int
    open: Raw
    high: Raw
    low: Raw
    close: Raw
    volume: Raw
    data: Raw
    received_ms: int

    @classmethod
    def of(cls, row: Row, received_ms: int) -> PastCandle:
        """The candle that a row tells of."""
        return cls(
            start_ms=row.start_ms,
            open=Raw(row.open.encode()),
            high=Raw(row.high.encode()),
            low=Raw(row.low.encode()),
            close=Raw(row.close.encode()),
            volume=Raw(row.volume.encode()),
            data=Raw(row.data),
            received_ms=received_ms,
        )


def cells(raw: bytes, type_: type[T]) -> T:
    """A row as `type_`; the body that it is of has been looked over.

    Raises:
        Odd: it is anything else. Nothing else is raised, whatever the bytes.
    """
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Odd(f"a candle is not what is documented: {brief(str(error))}") from None


class CandleHistory(Protocol):
    """What one venue's history of candles is asked, and says. Pure.

    Attributes:
        title: the venue as people write it.
        intervals: how long candles may be, in our words.
        rows: how many candles one request may be about.
        reach: how many candles back, from now, the venue goes; None where it says of no end.
        per_minute: how many requests may be made in any minute.
    """

    @property
    def title(self) -> str:
        """See the class."""
        ...

    @property
    def intervals(self) -> Collection[str]:
        """See the class."""
        ...

    @property
    def rows(self) -> int:
        """See the class."""
        ...

    @property
    def reach(self) -> int | None:
        """See the class."""
        ...

    @property
    def per_minute(self) -> int:
        """See the class."""
        ...

    def path(self, stretch: Stretch, now_ms: int) -> str:
        """What to ask for it, with its query, percent-encoded. The answer may hold candles beyond the stretch."""
        ...

    def explain(self, answer: Answer) -> ConnectorError | None:
        """What an answer means that is no success by its status; None where it is one."""
        ...

    def pause(self, answer: Answer) -> Pause | None:
        """Whether the host is to be left alone after an answer."""
        ...

    def read(self, body: bytes) -> list[Raw]:
        """The rows of an answer, in any order.

        Raises:
            PayloadError: it is not what the venue documents.
            ConnectorError: it says that it has failed.
        """
        ...

    def row(self, raw: bytes, stretch: Stretch) -> Row:
        """What one row says. Raises: Odd, if it is not what the venue documents."""
        ...
