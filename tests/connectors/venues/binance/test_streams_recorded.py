"""What Binance really sent, through the conversation: books, quotes, candles, against a few independent lines."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.base import Event, Rows
from connectors.push.parcels import Parcel
from connectors.push.venue import Said
from connectors.venues.binance.streams import BinanceStreams
from protocol.channels import Channel
from protocol.fields import CandleFields, DepthFields, QuoteFields, SnapshotFields
from protocol.kinds import KINDS
from tests.connectors.venues.rebuilt import Rebuilt

INSTRUMENTS = {"NKNUSDT": "NKN/USDT", "BLZETH": "BLZ/ETH"}


class Recording:
    """The capture, and what became of it."""

    def __init__(self, folder: Path) -> None:
        lines = (folder / "binance_ws_combined_2021-10-12.jsonl").read_text().splitlines()
        self.frames: list[tuple[float, str]] = [(row["recv_ts"], row["frame"]) for row in map(json.loads, lines)]
        lines = (folder / "binance_rest_depth1000_2021-10-12.jsonl").read_text().splitlines()
        self.snapshots: dict[str, tuple[float, str]] = {
            next(symbol for symbol in INSTRUMENTS if f"symbol={symbol}&" in row["url"]): (row["recv_ts"], row["body"])
            for row in map(json.loads, lines)
        }
        channels = [
            Channel(
                name=kind, exchange="binance", kind=KINDS[kind], instruments=tuple(INSTRUMENTS.values()), every_ms=10
            )
            for kind in ("quotes", "depth", "book", "candles", "trades")
        ]
        self.events: list[Event] = []
        self.needs: list[str] = []
        self.said: list[Any] = []
        talk = BinanceStreams(Parcel("binance-streams", tuple(channels), {})).converse()
        owed = dict(self.snapshots)
        for recv_s, frame in self.frames:
            for symbol, (at_s, body) in list(owed.items()):
                # As it was then: the snapshot came between two frames; and no sooner than it is asked for here.
                if at_s <= recv_s and symbol in self.needs:
                    self._take(talk.fetched(symbol, body.encode(), int(at_s * 1000)))
                    del owed[symbol]
            self._take(talk.handle(frame.encode(), int(recv_s * 1000)))
        self._take(talk.tick(int(recv_s * 1000) + 1_000))
        assert not owed

    def _take(self, said: object) -> None:
        self.said.append(said)
        if isinstance(said, Said):
            self.needs += [need.id for need in said.needs if hasattr(need, "id")]
        self.events += said.events if isinstance(said, Rows) else said if isinstance(said, list) else []

    def of(self, kind: str, symbol: str) -> list[Event]:
        return [event for event in self.events if (event.channel, event.instrument) == (kind, INSTRUMENTS[symbol])]

    def pushed(self, stream: str) -> list[dict[str, Any]]:
        return [row["data"] for row in (json.loads(frame) for _, frame in self.frames) if row["stream"] == stream]


@pytest.fixture(scope="module")
def recording(recorded: Path) -> Recording:
    return Recording(recorded)


def independent(recording: Recording, symbol: str) -> tuple[dict[str, str], dict[str, str]]:
    """The whole book at the end, by the documented rule, in the fewest lines."""
    body = json.loads(recording.snapshots[symbol][1])
    bids, asks, last = dict(body["bids"]), dict(body["asks"]), body["lastUpdateId"]
    for push in recording.pushed(f"{symbol.lower()}@depth@100ms"):
        if push["u"] <= last:
            continue
        assert push["U"] <= last + 1 <= push["u"]
        last = push["u"]
        for side, levels in ((bids, push["b"]), (asks, push["a"])):
            for price, quantity in levels:
                if float(quantity) == 0:
                    side.pop(price, None)
                else:
                    side[price] = quantity
    worst = body["asks"][-1][0]  # a thousand of them: what is beyond is not known
    assert len(body["asks"]) == 1000 > len(body["bids"])
    return bids, {price: quantity for price, quantity in asks.items() if float(price) <= float(worst)}


def test_everything_that_was_recorded_is_understood(recording: Recording) -> None:
    assert sorted(recording.needs) == sorted(INSTRUMENTS), "one snapshot each: there was no gap"
    assert [said for said in recording.said if isinstance(said, Rows) and said.notes] == []


@pytest.mark.parametrize("symbol", INSTRUMENTS)
def test_a_book_rebuilt_from_what_is_published_is_the_venues(recording: Recording, symbol: str) -> None:
    first, *updates = recording.of("depth", symbol)
    assert isinstance(first.fields, SnapshotFields)
    rebuilt = Rebuilt.of(first.fields)
    for update in updates:
        assert isinstance(update.fields, DepthFields)
        rebuilt.apply(update.fields)
    assert (rebuilt.bids, rebuilt.asks) == independent(recording, symbol)
    assert Rebuilt.top(recording.of("book", symbol)[-1].data) == rebuilt.best(20)


def test_the_best_levels_are_the_quotes_of_the_same_update(recording: Recording) -> None:
    """Binance's own stream of quotes judges the book: both count by the same ids."""
    quotes = {push["u"]: push for push in recording.pushed("nknusdt@bookTicker")}
    first, *updates = recording.of("depth", "NKNUSDT")
    assert isinstance(first.fields, SnapshotFields)
    rebuilt, judged = Rebuilt.of(first.fields), 0
    for update in updates:
        assert isinstance(update.fields, DepthFields)
        rebuilt.apply(update.fields)
        reached = msgspec.json.decode(update.data)["u"]
        known = [id_ for id_ in quotes if id_ <= reached]
        if known:
            quote = quotes[max(known)]
            assert rebuilt.best(1) == ([(quote["b"], quote["B"])], [(quote["a"], quote["A"])])
            judged += 1
    assert judged > 100


def test_quotes_and_candles_come_digit_for_digit(recording: Recording) -> None:
    for symbol in INSTRUMENTS:
        pushes = recording.pushed(f"{symbol.lower()}@bookTicker")
        quotes = recording.of("quotes", symbol)
        assert [event.order for event in quotes] == [push["u"] for push in pushes]
        for event, push in zip(quotes, pushes, strict=True):
            assert isinstance(event.fields, QuoteFields)
            fields = [event.fields.bid, event.fields.bid_size, event.fields.ask, event.fields.ask_size]
            assert [bytes(f).decode() for f in fields] == [push[name] for name in "bBaA"]  # type: ignore[arg-type] # set
            assert json.loads(event.data) == push
    [push], [event] = recording.pushed("nknusdt@kline_1m"), recording.of("candles", "NKNUSDT")
    assert isinstance(event.fields, CandleFields)
    span = push["k"]
    assert [bytes(getattr(event.fields, name)).decode() for name in ("open", "high", "low", "close", "volume")] == [
        span[name] for name in "ohlcv"
    ]
    # Its trades are numbered one by one: why a hole in the ids of trades is a loss.
    assert span["L"] - span["f"] + 1 == span["n"]


def test_ids_of_trades_rise_by_one_in_every_recorded_day(recorded: Path) -> None:
    counted: dict[str, list[bool]] = defaultdict(list)
    for path in recorded.glob("binance_rest_ticker24hr*.json"):
        body = json.loads(path.read_text())
        for row in body if isinstance(body, list) else [body]:
            counted[row["symbol"]].append(row["lastId"] - row["firstId"] + 1 == row["count"])
    assert sum(map(len, counted.values())) >= 9
    assert all(all(each) for each in counted.values())
