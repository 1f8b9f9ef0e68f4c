"""What a person may order of the simulator, and the scenario file that orders it by the clock. Pure, but for `load`.

An order is a table: a fault with its fields (`connectors.simulator.faults.faults`), or a `clear`:

    {"fault": "http_status", "venue": "binance", "status": 429, "retry_after_s": 2, "for_s": 5}
    {"clear": true}                                all faults
    {"clear": "silence", "venue": "okx"}           these alone; `venue` may be left out, or `clear` be true

A scenario is a TOML file of such tables, each with the time at which it happens, in seconds from the start:

    [[step]]
    at_s = 2.0
    fault = "silence"
    venue = "okx"
    for_s = 5
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, inspect

from connectors.simulator.faults import faults
from connectors.simulator.faults.faults import VENUES, Fault, Venue
from connectors.simulator.venues.binance import PATHS as BINANCE_PATHS
from connectors.simulator.venues.binance_weight import KLINES
from connectors.simulator.venues.coingecko import PATHS as COINGECKO_PATHS
from connectors.simulator.venues.market import LISTINGS

MAX_STEPS: Final = 10_000
_SHOWN_CHARACTERS: Final = 80

FAULT_TYPES: Final[dict[str, type[Fault]]] = {
    faults.fault_name(name): type_
    for name, type_ in vars(faults).items()
    if isinstance(type_, type)
    and issubclass(type_, Fault)
    and type_ not in (Fault, faults.Lasting, faults.Opening, faults.Sampled, faults.Answered, faults.Streamed)
}
"""All faults by name, in the order of `connectors.simulator.faults.faults`."""

PATHS: Final[dict[Venue, frozenset[str]]] = {
    **dict.fromkeys(VENUES, frozenset[str]()),
    "binance": BINANCE_PATHS | {KLINES},
    "coingecko": COINGECKO_PATHS,
}
"""What a fault's `path` may be."""

INSTRUMENTS: Final[dict[Venue, frozenset[str]]] = {
    name: frozenset(listing.instrument for listing in LISTINGS.get(name, {}).values()) for name in VENUES
}
"""What a fault's `instrument` may be."""


class OrderError(ValueError):
    """An order that cannot be carried out.

    Attributes:
        errors: One line for each mistake: the key, the value seen and what is allowed.
    """

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(self.errors))


class ScenarioError(OrderError):
    """A scenario that cannot be read; each line begins with its step and key."""


class Clear(msgspec.Struct, frozen=True):
    """End faults: of this name, of this venue; None is any."""

    name: str | None = None
    venue: Venue | None = None

    def covers(self, fault: Fault) -> bool:
        """Whether this fault is to end."""
        return self.name in (None, fault.name) and self.venue in (None, fault.venue)


class Step(msgspec.Struct, frozen=True):
    """An order and its time, in seconds from the start."""

    at_s: float
    order: Fault | Clear


class Scenario(msgspec.Struct, frozen=True):
    """Steps by time; those of one time in the file's order."""

    steps: tuple[Step, ...] = ()


def read_order(table: object) -> Fault | Clear:
    """An order from untyped values (JSON, TOML).

    Raises:
        OrderError: All that is wrong with it.
    """
    if not isinstance(table, Mapping) or not all(isinstance(key, str) for key in table):
        raise OrderError([f'got {shown(table)}; allowed: a table such as {{"fault": "silence", "venue": "okx"}}'])
    if "clear" in table:
        return _read_clear(table)
    name = table.get("fault")
    if name is None:
        raise OrderError([f"one of fault, clear is needed; allowed as fault: {', '.join(FAULT_TYPES)}"])
    type_ = FAULT_TYPES.get(name) if isinstance(name, str) else None
    if type_ is None:
        raise OrderError([f"fault: got {shown(name)}; {_choice(name, FAULT_TYPES)}"])
    return _read_fault(type_, {key: value for key, value in table.items() if key != "fault"})


def read_scenario(tree: object) -> Scenario:
    """A scenario from the values of a TOML file.

    Raises:
        ScenarioError: All that is wrong with it.
    """
    if not isinstance(tree, Mapping):
        raise ScenarioError([f"got {shown(tree)}; allowed: a table with [[step]] tables"])
    errors = [f"{shown_key(key)}: unknown key; allowed: step" for key in tree if key != "step"]
    tables = tree.get("step", [])
    if not isinstance(tables, list) or not 1 <= len(tables) <= MAX_STEPS:
        many = f"{len(tables)} of them" if isinstance(tables, list) else shown(tables)
        raise ScenarioError([*errors, f"step: got {many}; allowed: 1 to {MAX_STEPS} [[step]] tables"])
    steps: list[Step] = []
    for number, table in enumerate(tables, 1):
        try:
            steps.append(_read_step(table))
        except OrderError as error:
            errors += [f"step {number}: {line}" for line in error.errors]
    if errors:
        raise ScenarioError(errors)
    return Scenario(tuple(sorted(steps, key=lambda step: step.at_s)))


def load_scenario(path: Path) -> Scenario:
    """A scenario file.

    Raises:
        ScenarioError: It cannot be read, is not TOML, or no scenario; each line begins with the file's name.
    """
    try:
        return read_scenario(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except ScenarioError as error:
        raise ScenarioError([f"{path}: {line}" for line in error.errors]) from None
    except OSError as error:
        raise ScenarioError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (ValueError, RecursionError) as error:
        raise ScenarioError([f"{path}: not TOML: {error}"]) from None


def allowed(type_: object) -> str:
    """What a field's annotation lets in, in words."""
    if get_origin(type_) in (Union, UnionType):
        return " or ".join(allowed(part) for part in get_args(type_) if part is not type(None))
    match inspect.type_info(type_):
        case inspect.Metadata(extra_json_schema={"description": str(description)}):
            return description
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.BoolType():
            return "true or false"
        case other:
            raise TypeError(f"no words for {other}")


def shown(value: object) -> str:
    """A value as an order would write it, shortened where it is long. What it holds is not shown."""
    match value:
        case Mapping():
            return "a table"
        case list() | tuple():
            return "a list"
        case str():
            text = json.dumps(value)
        case bool() | None:
            text = json.dumps(value)
        case int() if value.bit_length() > 128:
            text = f"a number of {value.bit_length()} bits"
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def shown_key(key: object) -> str:
    """A key, quoted where it is no plain word."""
    return key if isinstance(key, str) and key.isidentifier() and len(key) < _SHOWN_CHARACTERS else shown(key)


def _read_step(table: object) -> Step:
    if not isinstance(table, Mapping):
        raise OrderError([f"got {shown(table)}; allowed: a table"])
    errors = []
    at_s = 0.0
    if "at_s" not in table:
        errors.append(f"at_s: missing; allowed: {allowed(faults.Offset).replace('-86400', '0')}")
    else:
        seen = table["at_s"]
        if isinstance(seen, bool) or not isinstance(seen, int | float) or not 0 <= seen <= 86_400:
            errors.append(f"at_s: got {shown(seen)}; allowed: seconds, from 0 to 86400")
        else:
            at_s = float(seen)
    try:
        order = read_order({key: value for key, value in table.items() if key != "at_s"})
    except OrderError as error:
        raise OrderError([*errors, *error.errors]) from None
    if errors:
        raise OrderError(errors)
    return Step(at_s, order)


def _read_clear(table: Mapping[str, object]) -> Clear:
    errors = [
        f"{shown_key(key)}: unknown field of clear; allowed: venue" for key in table if key not in ("clear", "venue")
    ]
    name, venue = table["clear"], table.get("venue")
    if name is not True and (not isinstance(name, str) or name not in FAULT_TYPES):
        errors.append(f"clear: got {shown(name)}; true, or {_choice(name, FAULT_TYPES)}")
    known = next((known for known in VENUES if known == venue), None)
    if venue is not None and known is None:
        errors.append(f"venue: got {shown(venue)}; {_choice(venue, VENUES)}")
    if errors:
        raise OrderError(errors)
    return Clear(name if isinstance(name, str) else None, known)


def _read_fault(type_: type[Fault], table: Mapping[str, object]) -> Fault:
    name = faults.fault_name(type_.__name__)
    fields = {field.name: field for field in msgspec.structs.fields(type_)}
    errors = [
        f"{shown_key(key)}: unknown field of {name}; {_choice(key, fields)}" for key in table if key not in fields
    ]
    values: dict[str, Any] = {}
    venue = table.get("venue", type_.venues[0] if len(type_.venues) == 1 else type_.unnamed)
    known = next((known for known in type_.venues if known == venue), None)
    if known is None:
        seen = f"got {shown(venue)}" if "venue" in table else "missing"
        errors.append(f"venue: {seen}; {name} is for {' and '.join(type_.venues)}")
    values["venue"] = known
    for key, field in fields.items():
        if key == "venue":
            continue
        if key not in table:
            if field.default is NODEFAULT:
                errors.append(f"{key}: missing; allowed: {allowed(field.type)}")
            continue
        try:
            values[key] = _value(table[key], field.type)
        except (msgspec.ValidationError, OverflowError):
            errors.append(f"{key}: got {shown(table[key])}; allowed: {allowed(field.type)}")
            continue
        one_of = {"path": PATHS, "instrument": INSTRUMENTS}.get(key)
        if one_of and known and values[key] is not None and values[key] not in one_of[known]:
            there = f"one of {', '.join(sorted(one_of[known]))}" if one_of[known] else f"not with {known}"
            errors.append(f"{key}: got {shown(table[key])}; allowed: {there}")
    if errors:
        raise OrderError(errors)
    return type_(**values)


def _value(value: object, type_: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError("not a number")
    return msgspec.convert(value, type_)


def _choice(seen: object, names: Iterable[str]) -> str:
    """The nearest name, else all."""
    near = difflib.get_close_matches(seen, names, n=1) if isinstance(seen, str) and len(seen) < 100 else []
    return f"nearest is {near[0]}" if near else f"allowed: {', '.join(names)}"
