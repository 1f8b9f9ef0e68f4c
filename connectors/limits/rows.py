"""One row of a venue's answer, or of its push: is it what is documented, and if not, which field is wrong, and how.

A venue's trouble with one instrument must not take the others' data away. So rows are read one by one, and what is
wrong with one becomes a `TopicNote` about its instrument (`connectors.base`). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from connectors.base import PayloadError, TopicNote
from connectors.limits.payload import brief, look_over
from protocol.messages import TopicCause, is_number

T = TypeVar("T")

ANY_AGE_S: Final = 31_536_000_000.0
"""A thousand years: nothing is ever older. For recorded payloads."""

OLD_S: Final = 14_400.0
"""A price whose venue has not touched it for so long (four hours) is not passed off as one: no channel may be silent
for longer (`daemon.health.freshness`). Healthy pairs that hardly trade were seen to be minutes behind; those that are
halted or delisted keep their last row for ever (ccxt/node-binance-api#289: two months old, still answered)."""

FIRST_MS: Final = 1_230_768_000_000
LAST_MS: Final = 4_102_444_800_000
"""From 2009, before which nothing was traded, to 2100: what lies outside is seconds, microseconds or nonsense."""

_SHOWN_CHARS: Final = 40
_MISSING: Final = re.compile(r"missing required field `([^`]{1,64})`")
_PLACE: Final = re.compile(r"at `\$\.([A-Za-z0-9_]{1,64})")


class Odd(Exception):
    """What is wrong with a row; `str()` names the field and the value.

    Attributes:
        cause: `unreadable`, or `halted` where the row is right and says that nothing is traded.
    """

    def __init__(self, reason: str, cause: TopicCause = "unreadable") -> None:
        super().__init__(reason)
        self.cause: TopicCause = cause


def read_row(raw: bytes, type_: type[T]) -> T:
    """A row as `type_`. All of it has been looked over then, and is fit to be passed on.

    Raises:
        Odd: it is anything else. Nothing else is raised, whatever the bytes.
    """
    try:
        look_over(raw)
    except PayloadError as error:
        said = str(error).partition(" - at `")[0]
        raise Odd(said.replace("the body", "the row")) from None
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Odd(_explained(raw, str(error))) from None


def member(raw: bytes, name: str) -> object:
    """What a row that cannot be read has under that name; None where there is nothing of the kind."""
    try:
        # The others of its values are stepped over: one of them is what cannot be read.
        value = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get(name)
        return None if value is None else msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def check_price(digits: str, field: str) -> None:
    """Make sure that it is a price.

    Raises:
        Odd: it is not a number of JSON, or negative; as `halted` where it is 0, which venues say of what is not traded.
    """
    if is_number(digits) is None:
        raise Odd(f"{quoted(field)} is {shown(digits)}, not a number")
    value = float(digits)
    if value > 0.0:
        return
    if value == 0.0:
        raise Odd(f"not trading: {quoted(field)} is {shown(digits)}", "halted")
    raise Odd(f"{quoted(field)} is {shown(digits)}, below 0")


def quantity(digits: str, field: str, allowed: str = "a quantity", *, zero: bool = True) -> Raw:
    """A quantity as a JSON number, with the digits that it came with; `zero`: it may be none.

    Raises:
        Odd: it is not a number of JSON, or negative, or not `allowed` (in words) for being 0.
    """
    if is_number(digits) is None or digits[0] == "-" or not (zero or float(digits) > 0.0):
        raise Odd(f"{quoted(field)} is {shown(digits)}, not {allowed}")
    return Raw(digits.encode())


def check_time(since_1970_ms: int, field: str) -> None:
    """Make sure that it can be a time of our day, in milliseconds. Raises: Odd."""
    if not FIRST_MS <= since_1970_ms <= LAST_MS:
        raise Odd(f"{quoted(field)} is {shown(since_1970_ms)}, not in milliseconds since 1970")


class Ages:
    """Which of a venue's rows are too old to be passed off as prices.

    A row is too old if its time lies far behind the clock *and* has not moved since the row before: our own clock may
    be wrong by hours, and then every time seems to be old; but those of what is traded move on.
    """

    def __init__(self, old_s: float) -> None:
        """`old_s` behind the clock is too old."""
        self._old_ms = old_s * 1000
        self._last_ms: dict[str, int] = {}

    def check(self, key: str, field: str, row_ms: int, now_ms: int) -> None:
        """Judge a row's time, by any key of its instrument; `now_ms` by a clock that need not be right.

        Raises:
            Odd: it is too old (`halted`).
        """
        behind_ms = now_ms - row_ms
        if behind_ms <= self._old_ms:
            return
        last_ms, self._last_ms[key] = self._last_ms.get(key), row_ms
        if last_ms is None or row_ms <= last_ms:
            raise Odd(f"not trading: {quoted(field)} is {_long(behind_ms / 1000)} old", "halted")


def notes(channels: Iterable[str], instrument: str, odd: Odd) -> list[TopicNote]:
    """What is wrong, for each of the channels that carry the instrument."""
    return [TopicNote(channel, instrument, odd.cause, str(odd)) for channel in channels]


def shown(value: object) -> str:
    """A value as JSON writes it, short and on one line."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        text = repr(type(value).__name__)
    text = brief(text)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def quoted(field: str) -> str:
    """A field's name in a sentence."""
    return f"`{field}`"


def _explained(raw: bytes, error: str) -> str:
    """Msgspec's error, with the field's value."""
    try:
        row: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return f"the row cannot be read: {brief(error)}"
    if not isinstance(row, dict):
        return f"the row is {shown(row)}, not an object"
    if found := _MISSING.search(error):
        return f"{quoted(found[1])} is missing"
    if (found := _PLACE.search(error)) and found[1] in row:
        return f"{quoted(found[1])} is {shown(row[found[1]])}"
    return f"the row is not what is documented: {brief(error)}"


def _long(age_s: float) -> str:
    """An age in words: `26 h`, `23 days`."""
    return f"{age_s / 3600:.0f} h" if age_s < 172_800 else f"{age_s / 86_400:.0f} days"
