"""Whatever the file and the environment hold, reading them makes a configuration or says what is wrong."""

import datetime
import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daemon.config import reader
from daemon.config.load import Config, ConfigError, parse
from daemon.config.presets import DEFAULT_CHANNELS
from daemon.config.settings import File


def outcome(text: str, environ: dict[str, str] | None = None) -> Config | tuple[str, ...]:
    try:
        return parse(text, environ or {}, "any")
    except ConfigError as refused:
        return refused.errors


SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.sampled_from(["BTC/USDT", "okx", "localhost", datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)])
)
NAMES = st.sampled_from(
    [part for key in reader.keys(File) for part in key.split(".")] + list(DEFAULT_CHANNELS)
) | st.text(max_size=10)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.dictionaries(st.text(max_size=10), st.text(max_size=20)))
def test_any_tree_makes_a_configuration_or_one_line_for_each_mistake(
    tree: dict[str, Any], variables: dict[str, str]
) -> None:
    result = outcome(to_toml(tree), {f"TICKERD_{name}": value for name, value in variables.items()})
    if isinstance(result, Config):
        assert result.channels
    else:
        assert result
        assert all(len(line.splitlines()) == 1 for line in result)


@given(st.text(max_size=200))
def test_any_text_makes_a_configuration_or_an_error(text: str) -> None:
    assert outcome(text, {"TICKERD_SERVER__HOST": text, "TICKERD_LIMITS__GRACE_S": text})


@given(st.sampled_from([key for key in reader.keys(File) if "NAME" not in key]), VALUES)
def test_any_value_of_any_key_is_taken_or_refused_by_name(key: str, value: object) -> None:
    section, _, name = key.rpartition(".")
    result = outcome(f"[{section}]\n{name} = {inline(value)}")
    assert isinstance(result, Config) or any(line.startswith(section) for line in result)


def to_toml(tree: dict[str, Any]) -> str:
    return "\n".join(f"{quoted(key)} = {inline(value)}" for key, value in tree.items())


def quoted(text: str) -> str:
    plain = string.ascii_letters + string.digits + " _-/.:"
    escaped = (c if c in plain else f"\\U{ord(c):08x}" for c in text if not 0xD800 <= ord(c) <= 0xDFFF)
    return f'"{"".join(escaped)}"'


def inline(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case list():
            return f"[{', '.join(map(inline, value))}]"
        case dict():
            pairs = (f"{quoted(str(key))} = {inline(item)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}"
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case float():
            return repr(value) if "e" not in repr(value) else f"{value:e}"
        case _:
            return str(value)
