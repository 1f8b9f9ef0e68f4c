"""The rows fit the messages, and nobody but the rows and the venues knows a kind by its name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from protocol.kinds import KINDS, MESSAGES, PAYLOADS, VIEWS, Kind, TopicState, View, held
from protocol.messages import DataMessage, DepthSnapshot, DepthUpdate, OrderbookUpdate, PriceUpdate
from protocol.payloads import TICKERS, BookData, BookLevels, DepthSource, PriceData

ROOT = Path(__file__).resolve().parent.parent.parent
TAGS = {kind.tag for kind in KINDS.values()}
STRUCTS = {message.__name__ for message in MESSAGES}

AT_HOME = (
    "protocol/kinds.py",
    "protocol/messages.py",
    "protocol/fields.py",
    "connectors/venues/",
    "connectors/simulator/",
)
"""Here kinds, or the messages that they become, may be told apart by their names."""

LISTED = (
    *("protocol/channels.py", "daemon/config/presets.py", "daemon/client/__init__.py"),
    *("daemon/client/core/book.py", "daemon/client/core/track.py", "daemon/client/core/records.py"),
    *(f"daemon/commands/terminal/{name}.py" for name in ("choice", "trades", "watch")),
)
"""Here names are only listed: what venues offer, the default channels, what users of the client may import, and what
they may ask `tickerd watch --kind` for; and the client keeps books by the two messages that they are made of."""


def named(path: str, source: str) -> Iterator[str]:
    """Every place of a Python file where a kind or its message decides something, as `file:line: what`."""
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Constant) and node.value in TAGS:
            yield f"{path}:{node.lineno}: the type {node.value!r}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in STRUCTS:
                    yield f"{path}:{node.lineno}: the message {alias.name}"
        elif isinstance(node, ast.Compare | ast.MatchValue | ast.Dict | ast.Subscript):
            inside = ast.walk(node.slice) if isinstance(node, ast.Subscript) else keys(node)
            for each in inside:
                if isinstance(each, ast.Constant) and each.value in KINDS:
                    yield f"{path}:{each.lineno}: the kind {each.value!r}"


def keys(node: ast.Compare | ast.MatchValue | ast.Dict) -> Iterator[ast.AST]:
    """What is compared, matched or looked up."""
    if isinstance(node, ast.Dict):
        yield from (key for key in node.keys if key is not None)
    else:
        yield from ast.walk(node)


def test_nothing_else_switches_on_a_kind() -> None:
    found: list[str] = []
    for folder in ("protocol", "connectors", "daemon"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(AT_HOME) and name not in LISTED:
                found += named(name, path.read_text())
    for path in sorted((ROOT / "daemon").rglob("*.js")):
        # What a page may go by is the view of a channel, and one is called as its messages are.
        found += [f"{path.name}: {tag}" for tag in TAGS - set(View) if re.search(rf"\b{tag}\b", path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("if channel.type == 'price_update': pass", "x.py:1: the type 'price_update'"),
        ("TYPES = {'top_update': 1}", "x.py:1: the type 'top_update'"),
        ("\nfrom protocol.messages import Data, OrderbookUpdate", "x.py:2: the message OrderbookUpdate"),
        ("kind.name == 'orderbook'", "x.py:1: the kind 'orderbook'"),
        ("kind.name in ('24hr', 'x')", "x.py:1: the kind '24hr'"),
        ("match kind:\n    case 'prices': pass", "x.py:2: the kind 'prices'"),
        ("TERMS = {'global': 1}", "x.py:1: the kind 'global'"),
        ("KINDS['ticker']", "x.py:1: the kind 'ticker'"),
    ],
)
def test_a_switch_on_a_kind_is_found(source: str, said: str) -> None:
    assert list(named("x.py", source)) == [said]


@pytest.mark.parametrize("source", ["kind.view == 'x'", "x = 'prices'", "data['price']", "'a global thing' in text"])
def test_what_is_no_switch_is_left_alone(source: str) -> None:
    assert list(named("x.py", source)) == []


def test_every_message_belongs_to_a_kind_and_every_type_has_one_view() -> None:
    assert set(MESSAGES) == set(get_args(DataMessage))
    for kind in KINDS.values():
        assert KINDS[kind.name] is kind
        assert kind.messages[0] is kind.message
        assert VIEWS[kind.tag] is kind.view
        assert set(kind.payloads) <= set(PAYLOADS)
        assert kind.payloads


def test_the_rows_contradict_neither_themselves_nor_each_other() -> None:
    for kind in KINDS.values():
        assert (kind.snapshot is not None) == (kind.state is TopicState.DELTA)
        assert kind.thinnable == (kind.state is TopicState.NEWEST)
        assert kind.thinnable or KINDS[kind.instead].thinnable
    assert {name for name, kind in KINDS.items() if kind.whole_market} == {"global", "top", "trending"}


def test_a_message_may_hold_what_any_of_its_kinds_does() -> None:
    assert held(PriceUpdate) == (PriceData, *TICKERS)
    assert held(OrderbookUpdate) == (BookData, BookLevels)
    assert held(DepthSnapshot) == held(DepthUpdate) == (DepthSource,)
    assert held(BookData) == ()


def test_of_what_counts_message_by_message_an_interval_may_leave_none_out() -> None:
    trades = Kind(name="t", message=PriceUpdate, payloads=(), view=View.PRICE, state=TopicState.EVERY, instead="prices")
    depth = Kind(
        name="d",
        message=OrderbookUpdate,
        payloads=(BookData,),
        view=View.BOOK,
        state=TopicState.DELTA,
        snapshot=PriceUpdate,
    )
    assert not trades.thinnable
    assert not depth.thinnable
    assert (depth.tag, depth.messages) == ("orderbook_update", (OrderbookUpdate, PriceUpdate))
