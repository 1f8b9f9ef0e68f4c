"""Wrong JSON made of right JSON: members of another type, absent or empty, times that are shifted. Pure.

Every function takes a decoded body and changes it in place; the result is how many members it changed. Which ones: all
of a given name, or else one that the given random source chooses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

TIMES: Final = frozenset({"ts", "openTime", "closeTime", "serverTime", "updated_at", "last_updated"})
"""The members in which the three venues say when something was."""

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?")
_DIGITS: Final = re.compile(r"[0-9]{9,17}")


def wrong_types(tree: object, field: str | None, random: Random) -> int:
    """Give values another JSON type: text becomes a number, a number text, a list an object, and so on."""
    return _change(tree, field, random, lambda holder, key: holder.__setitem__(key, _of_another_type(holder[key])))


def missing_fields(tree: object, field: str | None, random: Random) -> int:
    """Leave members out."""
    return _change(tree, field, random, lambda holder, key: holder.__delitem__(key))


def empty_strings(tree: object, field: str | None, random: Random) -> int:
    """Empty texts; other values stay."""

    def is_text(value: object) -> bool:
        return isinstance(value, str)

    return _change(tree, field, random, lambda holder, key: holder.__setitem__(key, ""), is_text)


def huge_numbers(tree: object, digits: str, field: str | None, random: Random) -> int:
    """Give numbers, and texts of numbers, these digits; a number stays one, a text a text."""

    def is_number(value: object) -> bool:
        return isinstance(value, int | float | str) and _NUMBER.fullmatch(str(value)) is not None

    def change(holder: dict[str, Any], key: str) -> None:
        holder[key] = digits if isinstance(holder[key], str) else msgspec.Raw(digits.encode())

    return _change(tree, field, random, change, is_number)


def shifted_times(tree: object, offset_s: float) -> int:
    """Shift all times (`TIMES`): seconds, ms or µs since 1970 as numbers or digits, or ISO 8601."""
    found = [(holder, key) for holder, key in _members(tree) if key in TIMES]
    for holder, key in found:
        holder[key] = _shifted(holder[key], offset_s)
    return len(found)


def odd_row(row: dict[str, Any], what: str, price: str, time: str) -> object:
    """A row of which the members of these names, or all of it, are odd: what is sent in its place."""
    match what:
        case "not_an_object":
            return 7
        case "missing":
            del row[price]
        case "time":
            row[time] = "soon"
        case _:
            row[price] = {"empty": "", "null": None, "type": 12_345, "nan": "NaN", "negative": "-1.5"}[what]
    return row


def odd_book(book: dict[str, Any], what: str) -> object:
    """A book of which the best bid, or all of it, is odd: what is sent in its place."""
    match what:
        case "not_an_object":
            return 7
        case "missing":
            del book["asks"]
        case "null" | "type":
            book["bids"] = None if what == "null" else {}
        case "time":
            book["lastUpdateId"] = "soon"
        case _:
            book["bids"][0] = [{"empty": "", "nan": "NaN", "negative": "-1.5"}[what], "1"]
    return book


def _change(
    tree: object,
    field: str | None,
    random: Random,
    change: Callable[[dict[str, Any], str], None],
    fits: Callable[[object], bool] = lambda value: True,
) -> int:
    found = [(holder, key) for holder, key in _members(tree) if field in (None, key) and fits(holder[key])]
    if field is None and found:
        found = [random.choice(found)]
    for holder, key in found:
        change(holder, key)
    return len(found)


def _members(tree: object) -> Iterator[tuple[dict[str, Any], str]]:
    """Every object and name in the tree, inner ones last."""
    pending = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from ((value, key) for key in value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _of_another_type(value: object) -> object:
    match value:
        case bool() | None:
            return "yes"
        case str():
            return 12_345
        case int() | float():
            return str(value)
        case list():
            return {}
        case _:
            return []


def _shifted(value: object, offset_s: float) -> object:
    match value:
        case bool():
            return value
        case int():
            return value + round(offset_s * _units_per_s(value))
        case str() if _DIGITS.fullmatch(value):
            return str(int(value) + round(offset_s * _units_per_s(int(value))))
        case str():
            try:
                moment = datetime.fromisoformat(value) + timedelta(seconds=offset_s)
            except (ValueError, OverflowError):
                return value
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case _:
            return value


def _units_per_s(since_1970: int) -> int:
    """Whether a time of our century is in seconds, milliseconds or microseconds."""
    return 1 if since_1970 < 10**11 else 1_000 if since_1970 < 10**14 else 1_000_000
