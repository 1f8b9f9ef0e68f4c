"""What Coinbase really sent, reshaped: its older feed (*Exchange*) says the same of books and trades in other words.

Of Advanced Trade, which the daemon takes, there is no recording. The levels, prices, sizes and ids are the recorded
ones, digit for digit; what stands around them is put into the present form, numbered as the present feed is.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.base import Event
from connectors.venues.coinbase.plan import plan
from connectors.venues.coinbase.streams import CoinbaseStreams
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from tests.connectors.venues.coinbase.perfect_coinbase import book, frame
from tests.connectors.venues.rebuilt import Rebuilt

PRODUCTS = {"SKL-BTC": "SKL/BTC", "NU-GBP": "NU/GBP"}
SIDES = {"buy": "bid", "sell": "offer"}


def sided(levels: list[Any]) -> list[tuple[str, str, str]]:
    return [(SIDES[side], price, quantity) for side, price, quantity in levels]


def reshaped(said: dict[str, Any], number: int) -> bytes | None:
    """The same in the present form; None for what has none, or is not asked for here."""
    product = said.get("product_id", "")
    match said["type"]:
        case "snapshot":
            levels = [("buy", *level) for level in said["bids"]] + [("sell", *level) for level in said["asks"]]
            return frame("l2_data", number, book("snapshot", product, *sided(levels), time="1970-01-01T00:00:00Z"))
        case "l2update":
            return frame("l2_data", number, book("update", product, *sided(said["changes"]), time=said["time"]))
        case "match":
            names = ("price", "size", "time", "product_id")
            trade = {"trade_id": str(said["trade_id"]), "side": said["side"].upper(), **{n: said[n] for n in names}}
            return frame("market_trades", number, {"type": "update", "trades": [trade]})
    return None


@pytest.fixture(scope="module")
def recording(recorded: Path) -> list[dict[str, Any]]:
    lines = (recorded / "coinbase_ws_exchange_2021-04-17.jsonl").read_text().splitlines()
    return [json.loads(json.loads(line)["frame"]) for line in lines]


@pytest.fixture(scope="module")
def events(recording: list[dict[str, Any]]) -> list[Event]:
    """All that became of it."""
    channels = [
        Channel(name=kind, exchange="coinbase", kind=KINDS[kind], instruments=tuple(PRODUCTS.values()), every_ms=0)
        for kind in ("depth", "book", "trades")
    ]
    talk, number, found = CoinbaseStreams(plan(channels)[0]).converse(), 0, list[Event]()
    for said in recording:
        payload = reshaped(said, number)
        if payload is not None:
            number += 1
            events = talk.handle(payload, 1_618_677_817_000 + number)
            # Nothing is wrong with any of it: then it would be more than a list.
            assert isinstance(events, list), events
            found += events
    return found


def independent(recording: list[dict[str, Any]], product: str) -> tuple[dict[str, str], dict[str, str]]:
    """The whole book at the end, by the documented rule, in the fewest lines."""
    sides: dict[str, dict[str, str]] = {}
    for said in recording:
        if said.get("product_id") == product and said["type"] == "snapshot":
            sides = {"buy": dict(said["bids"]), "sell": dict(said["asks"])}
        elif said.get("product_id") == product and said["type"] == "l2update":
            for side, price, quantity in said["changes"]:
                sides[side][price] = quantity
                if Decimal(quantity) == 0:
                    del sides[side][price]
    return sides["buy"], sides["sell"]


@pytest.mark.parametrize(("product", "least"), [("SKL-BTC", 500), ("NU-GBP", 50)])
def test_a_book_rebuilt_from_what_is_published_is_the_venues(
    recording: list[dict[str, Any]], events: list[Event], product: str, least: int
) -> None:
    first, *updates = [event for event in events if (event.channel, event.instrument) == ("depth", PRODUCTS[product])]
    assert isinstance(first.fields, SnapshotFields)
    rebuilt = Rebuilt.of(first.fields)
    for update in updates:
        assert isinstance(update.fields, DepthFields)
        rebuilt.apply(update.fields)
    assert len(updates) > least
    assert (rebuilt.bids, rebuilt.asks) == independent(recording, product)
    tops = [event for event in events if (event.channel, event.instrument) == ("book", PRODUCTS[product])]
    assert Rebuilt.top(tops[-1].data) == rebuilt.best(20)


def test_trades_are_all_there_once_and_digits_are_exact(recording: list[dict[str, Any]], events: list[Event]) -> None:
    takers = {"buy": "sell", "sell": "buy"}  # the side that is said is the maker's
    matches = [said for said in recording if said["type"] == "match"]
    told = [
        (event.instrument, event.price, bytes(event.fields.size).decode(), event.fields.side, event.fields.trade_id)
        for event in events
        if isinstance(event.fields, TradeFields)
    ]
    assert len(matches) > 5
    assert told == [
        (PRODUCTS[m["product_id"]], m["price"], m["size"], takers[m["side"]], str(m["trade_id"])) for m in matches
    ]
