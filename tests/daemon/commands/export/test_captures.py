"""What was really captured at OKX and Binance, as a recording: exported, digit for digit, and replayed by a daemon."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from connectors.capture.lines import Fetched, Header, Line, written
from daemon.app import Daemon
from daemon.commands.export.export import export
from daemon.commands.replay import replay
from tests.connectors.replay.made import channel, header

NKN, BLZ = "NKN/USDT", "BLZ/ETH"
SYMBOLS = {"NKNUSDT": NKN, "BLZETH": BLZ}


def frames(path: Path) -> Iterator[tuple[float, Any]]:
    """What a capture has, decoded; prices with the digits that they came with."""
    for row in map(json.loads, path.read_text().splitlines()):
        frame = json.loads(row["frame"], parse_float=str)
        yield row["recv_ts"], frame


def first(head: Header, recv_ts: float) -> bytes:
    return written(Line(recv_ts, record=head))


@pytest.fixture
def okx(recorded: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The folder of a recording, and the capture that it is made of: a header, and the capture as it is."""
    capture = recorded / "okx_ws_btcusdt_2022-05-13.jsonl"
    kinds = ("ticker", "trades", "depth", "book")
    head = header("okx", [channel(f"okx_{kind}", "okx", kind) for kind in kinds])
    folder = tmp_path / "recording"
    folder.mkdir()
    begun = next(frames(capture))[0]
    (folder / "okx.jsonl").write_bytes(first(head, begun) + capture.read_bytes())
    return folder, capture


@pytest.fixture
def binance(recorded: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same of Binance; the snapshots of its books stand where they came."""
    capture = recorded / "binance_ws_combined_2021-10-12.jsonl"
    kinds = ("trades", "quotes", "depth", "candles")
    head = header("binance-streams", [channel(f"binance_{kind}", "binance", kind, NKN, BLZ) for kind in kinds])
    snapshots = []
    for row in map(json.loads, (recorded / "binance_rest_depth1000_2021-10-12.jsonl").read_text().splitlines()):
        symbol = next(symbol for symbol in SYMBOLS if f"symbol={symbol}&" in row["url"])
        line = Line(row["recv_ts"], fetched=Fetched(symbol, "/api/v3/depth", row["body"]))
        snapshots.append((row["recv_ts"], written(line)))
    rows = [(json.loads(text)["recv_ts"], text.encode() + b"\n") for text in capture.read_text().splitlines()]
    folder = tmp_path / "recording"
    folder.mkdir()
    # A snapshot can be asked for once the first change has come.
    lines = sorted([*rows, *snapshots], key=lambda one: one[0])
    text = first(head, lines[0][0]) + b"".join(line for _, line in lines)
    (folder / "binance.jsonl").write_bytes(text)
    return folder, capture


def table(folder: Path, kind: str, tmp_path: Path) -> list[dict[str, str]]:
    out = tmp_path / f"{kind}.csv"
    export(folder, out, kind=kind, from_ms=None, to_ms=None, instruments=(), force=False)
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def standing(side: dict[str, str]) -> dict[str, str]:
    """The levels that are there."""
    return {price: size for price, size in side.items() if size != "0"}


def test_okx_trades_are_those_of_the_capture(okx: tuple[Path, Path], tmp_path: Path) -> None:
    folder, capture = okx
    expected = [
        (row["px"], row["sz"], row["side"], row["tradeId"], row["ts"], str(round(recv_ts * 1000)))
        for recv_ts, frame in frames(capture)
        if frame.get("arg", {}).get("channel") == "trades"
        for row in frame.get("data", ())
    ]
    once = list({row[3]: row for row in reversed(expected)}.values())[::-1]
    names = ("price", "size", "side", "trade_id", "exchange_ms", "received_ms")
    assert len(once) > 50
    assert [tuple(row[name] for name in names) for row in table(folder, "trades", tmp_path)] == once


def test_okx_book_rebuilt_from_the_table_is_that_of_the_capture(okx: tuple[Path, Path], tmp_path: Path) -> None:
    folder, capture = okx
    expected: dict[str, dict[str, str]] = {"bid": {}, "ask": {}}
    for _, frame in frames(capture):
        if frame.get("arg", {}).get("channel") == "books" and "data" in frame:
            for name, key in (("bid", "bids"), ("ask", "asks")):
                for price, size, *_ in frame["data"][0][key]:
                    expected[name][price] = size
    rebuilt: dict[str, dict[str, str]] = {"bid": {}, "ask": {}}
    rows = table(folder, "depth", tmp_path)
    assert {row["reset"] for row in rows if row["update"] == "1"} == {"true"}
    for row in rows:
        rebuilt[row["side"]][row["price"]] = row["size"]
    for name in ("bid", "ask"):
        assert standing(rebuilt[name]) == standing(expected[name])


def test_binance_quotes_are_those_of_the_capture(binance: tuple[Path, Path], tmp_path: Path) -> None:
    folder, capture = binance
    expected = [
        (SYMBOLS[frame["data"]["s"]], *(frame["data"][key] for key in ("b", "B", "a", "A")))
        for _, frame in frames(capture)
        if frame.get("stream", "").endswith("@bookTicker")
    ]
    assert len(expected) == 75
    names = ("instrument", "bid", "bid_size", "ask", "ask_size")
    assert [tuple(row[name] for name in names) for row in table(folder, "quotes", tmp_path)] == expected


def test_binance_books_begin_with_the_snapshots_that_were_fetched(binance: tuple[Path, Path], tmp_path: Path) -> None:
    rows = table(binance[0], "depth", tmp_path)
    assert {row["instrument"] for row in rows} == {NKN, BLZ}
    for instrument in (NKN, BLZ):
        own = [row for row in rows if row["instrument"] == instrument]
        assert {row["reset"] for row in own if row["update"] == "1"} == {"true"}
        assert {row["reset"] for row in own if row["update"] != "1"} == {"false"}


async def test_a_daemon_replays_it_to_its_tape(okx: tuple[Path, Path]) -> None:
    folder, capture = okx
    config, player = await trio.to_thread.run_sync(
        lambda: replay(folder, {}, port=0, speed=float("inf"), from_ms=None, to_ms=None)
    )
    daemon = Daemon(config, player=player)
    async with trio.open_nursery() as nursery:
        await daemon.start(nursery, await trio.open_tcp_listeners(0, host="127.0.0.1"))
        with trio.fail_after(30):
            await player.has_ended.wait()
        nursery.cancel_scope.cancel(reason="all has been played")
    pushed = [frame for _, frame in frames(capture) if "data" in frame and frame["arg"]["channel"] == "tickers"]
    last = pushed[-1]["data"][0]
    payload = daemon.tape.payload("okx_ticker", "BTC/USDT")
    assert payload is not None
    assert msgspec.json.decode(payload)["data"] == last
    assert msgspec.json.decode(payload)["exchange_ms"] == int(last["ts"])
    state = daemon.board.state("okx_ticker")
    assert (state.state, state.reason) == ("down", "the recording ended")
