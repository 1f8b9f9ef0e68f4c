"""What the venues really sent goes through the whole daemon, and every digit of it arrives."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

from tests.process.described import Description
from tests.process.running import tickerd

BINANCE_ROWS = "binance_rest_ticker24hr_BTCUSDT_ETHUSDT_2024-11-01.json"


def _raw(body: str) -> Any:
    """JSON whose numbers stay as they are written."""
    return json.loads(body, parse_float=str, parse_int=str)


def _row(recorded: Path, file: str, symbol: str) -> dict[str, Any]:
    rows = _raw((recorded / file).read_text())
    row: dict[str, Any] = next(row for row in rows if row["symbol"] == symbol)
    return row


class Replayed(NamedTuple):
    """Per channel, what a client of the daemon got; numbers as text. And in what it was other than described."""

    received: dict[str, list[dict[str, Any]]]
    complaints: set[str]


@pytest.fixture(scope="module")
def received(replayed: Replayed) -> dict[str, list[dict[str, Any]]]:
    return replayed.received


@pytest.fixture(scope="module")
def replayed(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """What came while the venues replayed the recording."""
    config = tmp_path_factory.mktemp("recorded") / "tickerd.toml"
    with tickerd("simulate", "--port", "0", "--recorded", str(recorded), "--config-out", str(config)) as venues:
        assert venues.port
        table = "[connectors.coingecko]\n"
        config.write_text(config.read_text().replace(table, f'{table}plan = "unlimited"\n'))
        with config.open("a") as file:
            file.write('[channels.binance_prices]\ninstruments = ["BTC/USDT", "ETH/USDT"]\n')
            file.write('[channels.binance_24hr]\ninstruments = ["BTC/USDT", "ETH/USDT"]\n')
            file.write('[channels.binance_orderbook]\ninstruments = ["BTC/USDT"]\n')
            file.write("[channels.ethprice]\nenabled = false\n")
        seen: dict[str, list[dict[str, Any]]] = {}
        complaints: set[str] = set()
        with (
            tickerd("run", "--config", str(config), environ={"TICKERD_SERVER__PORT": "0"}) as daemon,
            connect(f"ws://127.0.0.1:{daemon.port}/ws", max_size=None) as websocket,
        ):
            description = Description(httpx.get(f"http://127.0.0.1:{daemon.port}/asyncapi.json").content)
            websocket.send('{"type":"subscribe","channels":["*"]}')
            while len(seen) < 7 or len(seen.get("bitcoinprice", ())) < 10:
                text = str(websocket.recv(timeout=20))
                message = _raw(text)
                complaints |= {
                    f"{message['type']} {each}" for each in description.complaints(json.loads(text), "websocket")
                }
                if "prev_seq" in message:
                    seen.setdefault(message["connector_id"], []).append(message)
    return Replayed(seen, complaints)


def test_what_venues_really_say_is_as_described(replayed: Replayed) -> None:
    assert replayed.complaints == set()


def test_binance_prices_keep_their_digits(received: dict[str, list[dict[str, Any]]], recorded: Path) -> None:
    for message in received["binance_prices"]:
        row = _row(recorded, BINANCE_ROWS, message["instrument"].replace("/", ""))
        assert message["price"] == row["lastPrice"]
        assert message["data"] == {
            "symbol": row["symbol"],
            "price": row["lastPrice"],
            "priceChangePercent": row["priceChangePercent"],
        }
        assert message["exchange_ms"] == row["closeTime"]
    assert {message["instrument"] for message in received["binance_prices"]} == {"BTC/USDT", "ETH/USDT"}


def test_the_24h_ticker_is_the_venues_object(received: dict[str, list[dict[str, Any]]], recorded: Path) -> None:
    for message in received["binance_24hr"]:
        row = _row(recorded, BINANCE_ROWS, message["instrument"].replace("/", ""))
        assert message["data"] == row
        assert message["price"] == row["lastPrice"]


def test_the_order_book_is_the_venues(received: dict[str, list[dict[str, Any]]], recorded: Path) -> None:
    book = _raw((recorded / "binance_rest_depth_BTCUSDT.json").read_text())
    for message in received["binance_orderbook"]:
        assert message["data"]["lastUpdateId"] == book["lastUpdateId"]
        for side in ("bids", "asks"):
            levels = message["data"][side]
            assert levels
            assert levels == book[side][: len(levels)]


@pytest.mark.parametrize(
    ("channel", "file", "inside"),
    [
        ("coingecko_global", "coingecko_global_2021-05-18.json", lambda body: body["data"]),
        ("coingecko_top", "coingecko_markets_bitcoin_2024-04-07.json", lambda body: {"coins": body}),
        ("coingecko_trending", "coingecko_trending_2021-05-18.json", lambda body: body),
    ],
)
def test_coingecko_arrives_digit_for_digit(
    received: dict[str, list[dict[str, Any]]], recorded: Path, channel: str, file: str, inside: Any
) -> None:
    said = inside(_raw((recorded / file).read_text()))
    for message in received[channel]:
        assert message["data"] == said


def test_okx_tickers_arrive_in_order_and_unchanged(received: dict[str, list[dict[str, Any]]], recorded: Path) -> None:
    lines = (recorded / "okx_ws_btcusdt_2022-05-13.jsonl").read_text().splitlines()
    frames = [_raw(json.loads(line)["frame"]) for line in lines]
    tickers = [f["data"][0] for f in frames if f.get("arg", {}).get("channel") == "tickers" and "data" in f]
    got = [message["data"] for message in received["bitcoinprice"]]
    start = tickers.index(got[0])
    looped = tickers[start:] + tickers * (1 + len(got) // len(tickers))
    assert got == looped[: len(got)]
    for message in received["bitcoinprice"]:
        assert message["price"] == message["data"]["last"]
        assert message["exchange_ms"] == message["data"]["ts"]
