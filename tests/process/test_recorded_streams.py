"""Recorded streams go through the whole daemon: books and trades that a client has are those of the capture."""

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from websockets.sync.client import connect

from tests.process.running import tickerd

Json: TypeAlias = Any
"""Whatever JSON decodes to."""

Book: TypeAlias = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]

LISTENS_S = 12.0
"""Longer than OKX's capture, which begins again then."""

CHANNELS = """
[server]
host = "127.0.0.1"
port = 0

[channels.okx_depth]
connector = "okx"
kind = "depth"
instruments = ["BTC/USDT"]
[channels.okx_trades]
connector = "okx"
kind = "trades"
instruments = ["BTC/USDT"]
[channels.binance_depth]
connector = "binance"
kind = "depth"
instruments = ["NKN/USDT"]

"""


def applied(book: Book, bids: Json, asks: Json) -> Book:
    sides = []
    for side, levels in zip(book, (bids, asks), strict=True):
        after = dict(side)
        for price, size, *_ in levels:
            after[Decimal(price)] = Decimal(size)
        sides.append({price: size for price, size in after.items() if size})
    return sides[0], sides[1]


class Received(NamedTuple):
    """What a client got: by channel the messages, and the books after each of them."""

    messages: dict[str, list[Json]]
    books: dict[str, list[Book]]


@pytest.fixture(scope="module")
def received(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Received:
    config = tmp_path_factory.mktemp("recorded") / "tickerd.toml"
    messages: dict[str, list[Json]] = {"okx_depth": [], "okx_trades": [], "binance_depth": []}
    books: dict[str, list[Book]] = {"okx_depth": [], "binance_depth": []}
    with tickerd("simulate", "--port", "0", "--recorded", str(recorded), "--config-out", str(config)) as venues:
        assert venues.port
        config.write_text(CHANNELS + config.read_text())
        with (
            tickerd("run", "--config", str(config)) as daemon,
            connect(f"ws://127.0.0.1:{daemon.port}/ws", max_size=None) as websocket,
        ):
            websocket.send(json.dumps({"type": "subscribe", "channels": list(messages)}))
            until_s = time.monotonic() + LISTENS_S
            while time.monotonic() < until_s:
                message = json.loads(websocket.recv(timeout=20), parse_float=str)
                if "prev_seq" not in message:
                    continue
                channel = message["connector_id"]
                messages[channel].append(message)
                if channel in books:
                    begins = message["type"] == "depth_snapshot"
                    before = ({}, {}) if begins else books[channel][-1]
                    books[channel].append(applied(before, message["bids"], message["asks"]))
    return Received(messages, books)


def _frames(path: Path) -> Iterator[Json]:
    for line in path.read_text().splitlines():
        yield json.loads(json.loads(line)["frame"])


def _states(books: list[Book]) -> list[Book]:
    """Without those that change nothing."""
    return [book for before, book in zip([None, *books], books, strict=False) if book != before]


def assert_stretch(part: list[Book], whole: list[Book]) -> None:
    """`part` is what `whole` has from some place on."""
    starts = [place for place, book in enumerate(whole) if book == part[0]]
    assert any(whole[start : start + len(part)] == part for start in starts)


def test_okx_books_are_those_of_the_capture_at_every_change(received: Received, recorded: Path) -> None:
    books: list[Book] = []
    for frame in _frames(recorded / "okx_ws_btcusdt_2022-05-13.jsonl"):
        if frame.get("arg", {}).get("channel") == "books" and "data" in frame:
            (row,) = frame["data"]
            before = ({}, {}) if frame["action"] == "snapshot" else books[-1]
            books.append(applied(before, row["bids"], row["asks"]))
    got = _states(received.books["okx_depth"])

    assert len(got) > 60
    assert_stretch(got, _states(books * 3))


def test_binance_books_are_the_snapshot_with_the_changes_after_it(received: Received, recorded: Path) -> None:
    lines = (recorded / "binance_rest_depth1000_2021-10-12.jsonl").read_text().splitlines()
    (line,) = [json.loads(line) for line in lines if "NKNUSDT" in line]
    snapshot = json.loads(line["body"])
    books = [applied(({}, {}), snapshot["bids"], snapshot["asks"])]
    for frame in _frames(recorded / "binance_ws_combined_2021-10-12.jsonl"):
        if frame["stream"] == "nknusdt@depth@100ms" and frame["data"]["u"] > snapshot["lastUpdateId"]:
            books.append(applied(books[-1], frame["data"]["b"], frame["data"]["a"]))
    got = _states(received.books["binance_depth"])

    assert len(got) > 20
    assert_stretch(got, _states(books))


def test_okx_trades_come_once_each_with_their_digits(received: Received, recorded: Path) -> None:
    """Also when the capture has begun again: they are the same trades."""
    sent = [
        (row["tradeId"], Decimal(row["px"]), Decimal(row["sz"]), row["side"])
        for frame in _frames(recorded / "okx_ws_btcusdt_2022-05-13.jsonl")
        if frame.get("arg", {}).get("channel") == "trades" and "data" in frame
        for row in frame["data"]
    ]
    got = [
        (trade["trade_id"], Decimal(trade["price"]), Decimal(trade["size"]), trade["side"])
        for trade in received.messages["okx_trades"]
    ]

    assert len(got) > 40
    assert got == sent[sent.index(got[0]) :]
