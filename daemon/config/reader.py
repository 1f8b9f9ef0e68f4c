"""Turns a tree of untyped values (TOML, environment) into Structs, and collects every mistake.

It does not know the daemon's settings: the annotations of the Structs in `daemon.config.settings` define them. A
refused value is replaced by its default, so that reading goes on and all mistakes show at once. A table is a Struct, or
a `dict` from names to Structs; everything else is a value.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard, TypeVar, cast, get_args, get_origin

import msgspec
from msgspec import inspect

Table = TypeVar("Table", bound=msgspec.Struct)

ENVIRONMENT_PREFIX: Final = "TICKERD_"
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_CHARACTERS: Final = 120


class Problems:
    """The mistakes found so far: at most one line per key, since a second one would only follow from the first."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._variables: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each key, in the order in which they were found."""
        return tuple(f"{key}{self._variables.get(key, '')}: {line}" for key, line in self._lines.items())

    def came_from(self, key: str, variable: str) -> None:
        """Remember that the environment set this key, so that the line names where to fix it."""
        self._variables[key] = f" (from {dotted((variable,))})"

    def value(self, key: str, seen: str, allowed: str) -> None:
        """Note a value that is not allowed; `seen` is its text, made by `shown`."""
        self._lines.setdefault(key, f"got {seen}; allowed: {allowed}")

    def plain(self, key: str, line: str) -> None:
        """Note any other mistake about a key."""
        self._lines.setdefault(key, line)

    def unknown(self, key: str, siblings: Iterable[str], everywhere: Iterable[str]) -> None:
        """Note a key that does not exist; name the nearest in its table, else in any table, else all in its table."""
        near = _nearest(key, siblings) or _nearest(key, everywhere)
        hint = f"nearest is {near}" if near else f"allowed: {', '.join(siblings)}"
        self._lines.setdefault(key, f"unknown key; {hint}")

    def concern(self, table: str) -> bool:
        """Whether anything is wrong below a table."""
        return any(key.startswith(f"{table}.") for key in self._lines)


def _nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key whose last part is most like this one's."""
    by_name: dict[str, str] = {}
    for other in known:
        by_name.setdefault(other.rpartition(".")[2], other)
    names = difflib.get_close_matches(key.rpartition(".")[2], by_name, n=1, cutoff=0.6)
    return by_name[names[0]] if names else None


def dotted(path: Sequence[str]) -> str:
    """The path as TOML writes it: `server.port`; a part that is no bare key is quoted."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else json.dumps(part) for part in path)


def shown(value: object) -> str:
    """A value on one line, as the configuration would write it, shortened if it is long. Tables are not shown."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(shown, value))}]"
    elif isinstance(value, bool | str):
        text = json.dumps(value)
    elif isinstance(value, int) and value.bit_length() > 128:
        text = f"a number of {value.bit_length()} bits"
    else:
        text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: One line that says what is wrong and, if the parser knows it, at which line.
    """
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"not TOML: {error}") from None
    except RecursionError:
        raise ValueError("not TOML that can be read: nested too deeply") from None


def allowed(type_: object) -> str:
    """The values that an annotation allows, in words; the `description` in its `Meta` if there is one."""
    return _allowed(inspect.type_info(type_))


def _allowed(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata(extra_json_schema={"description": str(description)}):
            return description
        case inspect.Metadata(type=inner):
            return _allowed(inner)
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return ", ".join(map(shown, values))
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(gt=None, ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.FloatType(gt=low, le=high):
            return f"a number over {low}, up to {high}"
        case inspect.UnionType(types=types):
            return " or ".join(_allowed(one) for one in types if type(one) is not inspect.NoneType)
        case inspect.VarTupleType(item_type=item):
            return f"a list, each {_allowed(item)}"
        case _:
            return "text"


def _is_secret(type_: object) -> bool:
    info = inspect.type_info(type_)
    return isinstance(info, inspect.Metadata) and bool(info.extra and info.extra.get("secret"))


def _holds_secret(struct: type[msgspec.Struct]) -> bool:
    types = [field.type for field in msgspec.structs.fields(struct)]
    inner = [table for type_ in types if (table := _inner_table(type_)) is not None]
    return any(map(_is_secret, types)) or any(map(_holds_secret, inner))


def keys(struct: type[msgspec.Struct], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every key below a table, dotted; `NAME` stands for a table that may have any name."""
    for field in msgspec.structs.fields(struct):
        here = (*path, field.encode_name)
        inner = _inner_table(field.type)
        if inner is None:
            yield ".".join(here)
        else:
            yield from keys(inner, (*here, "NAME") if is_named(field.type) else here)


def is_table(type_: object) -> TypeGuard[type[msgspec.Struct]]:
    """Whether an annotation is that of a table."""
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def is_named(type_: object) -> bool:
    """Whether an annotation is that of tables that may have any name."""
    return get_origin(type_) is dict


def _inner_table(type_: object) -> type[msgspec.Struct] | None:
    inner = get_args(type_)[1] if is_named(type_) else type_
    return inner if is_table(inner) else None


def read(struct: type[Table], tree: Mapping[str, Any], problems: Problems) -> Table:
    """Make a Struct of a tree. A refused value is noted, and the result has its default."""
    return _read(struct, tree, (), problems, tuple(keys(struct)))


def _read(
    struct: type[Table],
    tree: Mapping[str, Any],
    path: tuple[str, ...],
    problems: Problems,
    everywhere: tuple[str, ...],
) -> Table:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    siblings = [dotted((*path, sibling)) for sibling in fields]
    for name in tree:
        if name not in fields:
            problems.unknown(dotted((*path, name)), siblings, everywhere)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in tree:
            continue
        here, given = (*path, name), tree[name]
        inner = _inner_table(field.type)
        if inner is None:
            try:
                values[field.name] = msgspec.convert(given, field.type)
            except msgspec.ValidationError:
                seen = "a secret that is not shown" if _is_secret(field.type) else shown(given)
                problems.value(dotted(here), seen, allowed(field.type))
        elif not isinstance(given, dict):
            # A secret that was meant for a key of the table.
            seen = "a value that is not shown" if _holds_secret(inner) else shown(given)
            problems.value(dotted(here), seen, "a table")
        elif is_named(field.type):
            values[field.name] = {
                part: _read(inner, table, (*here, part), problems, everywhere)
                for part, table in given.items()
                if isinstance(table, dict)
            }
            for part, table in given.items():
                if not isinstance(table, dict):
                    seen = "a value that is not shown" if _holds_secret(inner) else shown(table)
                    problems.value(dotted((*here, part)), seen, "a table")
        else:
            values[field.name] = _read(inner, given, here, problems, everywhere)
    return struct(**values)


def overlay(
    struct: type[msgspec.Struct],
    tree: dict[str, Any],
    environ: Mapping[str, str],
    problems: Problems,
    ignored: frozenset[str] = frozenset(),
) -> None:
    """Write the environment's `TICKERD_SECTION__KEY` variables over a tree that came from a file.

    Upper and lower case do not matter in names. A value is read as TOML if that gives the wanted type, and is taken as
    text otherwise, so `8000`, `true`, `["a", "b"]` and plain `localhost` all work.
    """
    known = tuple(keys(struct))
    for variable in sorted(environ):
        name = variable.upper()
        if not name.startswith(ENVIRONMENT_PREFIX) or name in ignored:
            continue
        path = _path(name)
        type_ = _value_type(struct, path)
        if type_ is None:
            _unknown_variable(variable, path, known, problems)
            continue
        table: Any = tree
        for part in path[:-1]:
            table = table.setdefault(part, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            problems.came_from(dotted(path), variable)
            table[path[-1]] = _from_text(environ[variable], type_)


def overlay_options(tree: dict[str, Any], options: Mapping[str, object], problems: Problems) -> None:
    """Write what the command line gives over the tree: values by key, as `server.port` for `--port`."""
    for key, value in options.items():
        section, _, name = key.rpartition(".")
        table = tree.setdefault(section, {})
        if isinstance(table, dict):
            problems.came_from(key, f"--{name}")
            table[name] = value


def _unknown_variable(variable: str, path: Sequence[str], known: Iterable[str], problems: Problems) -> None:
    # A part that may have any name keeps the name that was written.
    name = path[1] if len(path) > 1 else "NAME"
    keys_by_variable = {ENVIRONMENT_PREFIX + key.replace("NAME", name).replace(".", "__").upper(): key for key in known}
    matches = difflib.get_close_matches(variable.upper(), keys_by_variable, n=1, cutoff=0.75)
    same = [other for other, key in keys_by_variable.items() if key.rpartition(".")[2] == path[-1]]
    near = next(iter(same + matches), None)
    hint = f"nearest is {near}" if near else f"allowed: {ENVIRONMENT_PREFIX}SECTION__KEY"
    problems.plain(dotted((variable,)), f"unknown variable; {hint}")


def is_setting(struct: type[msgspec.Struct], variable: str) -> bool:
    """Whether a variable of the environment names a key."""
    return _value_type(struct, _path(variable)) is not None


def _path(variable: str) -> list[str]:
    """The key that a variable would name."""
    return variable.upper().removeprefix(ENVIRONMENT_PREFIX).lower().split("__")


def _value_type(struct: type[msgspec.Struct], path: Sequence[str]) -> object | None:
    """The annotation at the end of a path; None if there is no such value."""
    current: object = struct
    for part in path:
        if is_named(current):
            current = get_args(current)[1]
        elif is_table(current):
            current = {field.encode_name: field.type for field in msgspec.structs.fields(current)}.get(part)
        else:
            return None
    return None if _inner_table(current) is not None else current


def _from_text(text: str, type_: object) -> object:
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    if parsed.keys() != {"value"}:
        return text
    for candidate in (parsed["value"], text):
        try:
            msgspec.convert(candidate, cast("type[object]", type_))
        except msgspec.ValidationError:
            continue
        return candidate
    return parsed["value"]
