"""What `GET /history/{channel}` answers: from the tape, and for candles from the venue's own history, too."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from trio.testing import MockClock

from connectors.base import Event
from connectors.poll.past_candles import PastCandles
from daemon.client import Book
from daemon.front.request import Headers, Refused, Request
from daemon.host.clock import WallClock
from daemon.publish.keyframes import UPDATES
from daemon.routes import history as module
from daemon.routes.history import DEFAULT_LIMIT, MOST, Histories
from daemon.tape.entry import keyframe_topic
from daemon.tape.tape import Tape
from protocol.channels import Channel
from protocol.codes import ErrorCode
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import KINDS
from protocol.messages import CandleUpdate, DepthSnapshot, DepthUpdate, Format, decode_message
from protocol.session import ALL
from tests.connectors.poll.test_past_candles import MINUTE, Exchange, kline, now_ms, running
from tests.connectors.poll.test_poller import START_MS
from tests.daemon.serving import Gateway

BTC, ETH = "BTC/USDT", "ETH/USDT"
PRESENT = START_MS // MINUTE * MINUTE
CLOCK = WallClock(lambda: now_ms() * 1_000_000)


def channel(kind: str, *instruments: str, interval: str = "1m") -> Channel:
    return Channel(name=kind, exchange="acme", kind=KINDS[kind], instruments=instruments, interval=interval)


TRADES = channel("trades", BTC, ETH)
DEPTH = channel("depth", BTC)
CANDLES = channel("candles", BTC)
MARKET = channel("global")


class World:
    """A tape, and who asks the venue, if anybody does."""

    def __init__(self, past: PastCandles | None = None, *, entries: int = 1000) -> None:
        self.tape = Tape(entries, 10_000_000, "k3v")
        self.histories = Histories(self.tape, CLOCK, {"acme": past}.get)

    def send(self, channel: Channel, instrument: str, **fields: object) -> int:
        body = {"type": channel.kind.tag, "connector_id": channel.name, "seq": self.tape.head + 1, **fields}
        return self.tape.append((channel.name, instrument), json.dumps(body).encode()).seq

    def candle(self, start_ms: int, close: float = 1.0, *, closed: bool = True, instrument: str = BTC) -> int:
        return self.send(
            channel("candles"), instrument, interval="1m", start_ms=start_ms, closed=closed, close=close, data={}
        )

    async def get(self, channel: Channel, instrument: str = ALL, **query: object) -> dict[str, Any]:
        fields: Headers = tuple((name, str(value)) for name, value in query.items())
        request = Request(method="GET", path=f"/history/{channel.name}", query=fields, peer="192.0.2.1")
        found = json.loads(await self.body(request, channel, instrument))
        assert found["type"] == "history"
        assert isinstance(found, dict)
        return found

    async def body(self, request: Request, channel: Channel, instrument: str) -> bytes:
        later = self.histories.answer(request, channel, instrument)
        await later.wait()
        answer = later.answer()
        assert answer.status == 200
        return answer.body

    async def refusal(self, channel: Channel, *query: tuple[str, str]) -> str:
        request = Request(method="GET", path=f"/history/{channel.name}", query=query, peer="192.0.2.1")
        with pytest.raises(Refused) as caught:
            self.histories.answer(request, channel, ALL)
        assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FIELD)
        return str(caught.value)


@asynccontextmanager
async def asking() -> AsyncIterator[tuple[World, Exchange]]:
    """With a venue that has a candle of every minute."""
    venue = Exchange()
    async with running(venue) as past:
        yield World(past), venue


def seqs(found: dict[str, Any]) -> list[int]:
    return [message["seq"] for message in found["messages"]]


def starts(found: dict[str, Any]) -> list[int]:
    return [message["start_ms"] for message in found["messages"]]


# ---- of the tape -------------------------------------------------------------------------------------------------


async def test_what_was_sent_comes_oldest_first_and_byte_for_byte() -> None:
    world = World()
    for number in range(6):
        world.send(TRADES, BTC if number % 2 else ETH, price=42150)
    found = await world.get(TRADES, BTC, limit=2)
    assert seqs(found) == [4, 6]
    assert found | {"timestamp": "", "messages": []} == {
        "type": "history",
        "timestamp": "",
        "channel": "trades",
        "instrument": BTC,
        "epoch": "k3v",
        "seq": 6,
        "complete_from": 1,
        "more": True,
        "before": 4,
        "messages": [],
    }
    body = await world.body(Request(method="GET", path="/", peer="::1"), TRADES, BTC)
    for entry in world.tape.known("trades")[1::2]:
        assert entry.payload in body


async def test_before_goes_on_until_there_is_no_more() -> None:
    world = World(entries=20)
    for _ in range(50):
        world.send(TRADES, BTC)
    seen: list[int] = []
    query: dict[str, object] = {"limit": 7}
    while True:
        found = await world.get(TRADES, BTC, **query)
        seen = seqs(found) + seen
        assert found["complete_from"] == 31
        if not found["more"]:
            assert "before" not in found
            break
        query["before"] = found["before"]
    assert seen == list(range(31, 51))


async def test_without_an_instrument_all_come_in_one_order() -> None:
    world = World()
    for instrument in (BTC, ETH, ETH, BTC):
        world.send(TRADES, instrument)
    found = await world.get(TRADES)
    assert seqs(found) == [1, 2, 3, 4]
    assert "instrument" not in found


async def test_a_channel_about_a_whole_market_has_one_topic() -> None:
    world = World()
    world.send(MARKET, "")
    assert seqs(await world.get(MARKET)) == [1]


async def test_a_books_keyframes_are_among_its_changes() -> None:
    world = World()
    for topic in (("depth", BTC), keyframe_topic(("depth", BTC)), ("depth", BTC)):
        world.tape.append(topic, b'{"seq":%d}' % (world.tape.head + 1))
    assert seqs(await world.get(DEPTH, BTC)) == [1, 2, 3]


async def test_an_answer_is_bounded_in_bytes() -> None:
    world = World()
    for _ in range(5):
        world.send(TRADES, BTC, pad="x" * (module.MOST_BYTES // 3))
    found = await world.get(TRADES, BTC)
    assert (seqs(found), found["more"], found["before"]) == ([4, 5], True, 4)


async def test_nothing_is_nothing() -> None:
    found = await World().get(TRADES, BTC)
    assert (found["messages"], found["more"], found["seq"], found["complete_from"]) == ([], False, 0, 1)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ((("limit", "0"),), f"limit is '0'; allowed: a whole number from 1 to {MOST}"),
        ((("limit", "2001"),), f"limit is '2001'; allowed: a whole number from 1 to {MOST}"),
        ((("limit", "many"),), f"limit is 'many'; allowed: a whole number from 1 to {MOST}"),
        ((("limit", ""),), f"limit is ''; allowed: a whole number from 1 to {MOST}"),
        ((("limit", "9" * 5000),), f"limit is '{'9' * 100}'; allowed: a whole number from 1 to {MOST}"),
        ((("before", "0"),), f"before is '0'; allowed: a whole number from 1 to {2**53}"),
        ((("before", "-1"),), f"before is '-1'; allowed: a whole number from 1 to {2**53}"),
        ((("before", "1"), ("before", "2")), "before is given more than once"),
        ((("before_ms", "1"),), "before_ms is '1'; it is for candles, and trades is of trades: send before, a seq"),
    ],
)
async def test_a_wrong_number_is_refused_with_what_is_allowed(query: Headers, told: str) -> None:
    assert await World().refusal(TRADES, *query) == told


async def test_of_candles_wrong_numbers_are_refused_too() -> None:
    assert "before_ms is 'now'; allowed" in await World().refusal(CANDLES, ("before_ms", "now"))
    assert "limit is '0'; allowed" in await World().refusal(CANDLES, ("limit", "0"))


async def test_what_is_sent_meanwhile_is_beyond_the_position_that_is_named(autojump_clock: MockClock) -> None:
    world = World()
    world.send(TRADES, BTC)
    world.candle(PRESENT)
    for channel in (TRADES, CANDLES):
        later = world.histories.answer(Request(method="GET", path="/", peer="::1"), channel, BTC)
        head = world.tape.head
        world.send(TRADES, BTC)
        world.candle(PRESENT)
        await later.wait()
        found = json.loads(later.answer().body)
        assert found["seq"] == head
        assert max(seqs(found)) <= head


# ---- candles -----------------------------------------------------------------------------------------------------


async def test_candles_go_further_back_than_the_tape_and_each_comes_once(autojump_clock: MockClock) -> None:
    async with asking() as (world, venue):
        for start_ms in (PRESENT - 2 * MINUTE, PRESENT - MINUTE):
            world.candle(start_ms, 7.0, closed=False)
            world.candle(start_ms, 8.0)
        newest = world.candle(PRESENT, 9.0, closed=False)
        found = await world.get(CANDLES, BTC)
        assert starts(found) == [PRESENT - back * MINUTE for back in range(DEFAULT_LIMIT - 1, -1, -1)]
        assert seqs(found)[-4:] == [0, 2, 4, newest]
        assert (found["interval"], found["instrument"], found["seq"]) == ("1m", BTC, 5)
        assert (found["more"], found["before_ms"]) == (True, PRESENT - (DEFAULT_LIMIT - 1) * MINUTE)
        assert "reason" not in found
        asked = len(venue.asked)
        assert starts(await world.get(CANDLES, BTC)) == starts(found)
        assert len(venue.asked) == asked


async def test_one_of_the_venues_own_is_a_message_as_those_that_are_sent(autojump_clock: MockClock) -> None:
    async with asking() as (world, _):
        [message, *_] = (await world.get(CANDLES, BTC, limit=3))["messages"]
        assert message == {
            "type": "candle_update",
            "connector_id": "candles",
            "exchange": "acme",
            "instrument": BTC,
            "price": 1,
            "timestamp": CLOCK.iso(START_MS),
            "seq": 0,
            "prev_seq": 0,
            "received_ms": START_MS,
            "cached": True,
            "interval": "1m",
            "start_ms": PRESENT - 2 * MINUTE,
            "closed": True,
            "open": 1,
            "high": 2.5,
            "low": 0.5,
            "close": 1,
            "volume": 7.0,
            "data": {"symbol": "BTCUSDT", "kline": kline(PRESENT - 2 * MINUTE)},
        }
        decoded = decode_message(json.dumps(message), Format.JSON)
        assert isinstance(decoded, CandleUpdate)


async def test_digits_stay_as_the_venue_sent_them(autojump_clock: MockClock) -> None:
    async with asking() as (world, _):
        request = Request(method="GET", path="/", query=(("limit", "2"),), peer="::1")
        assert b'"high":2.50,' in await world.body(request, CANDLES, BTC)


async def test_before_ms_goes_on_further_and_further_back_without_a_hole(autojump_clock: MockClock) -> None:
    async with asking() as (world, venue):
        venue.begins_ms = PRESENT - 1_000 * MINUTE
        world.candle(PRESENT, closed=False)
        seen: list[int] = []
        query: dict[str, object] = {"limit": 400}
        for _ in range(10):
            found = await world.get(CANDLES, BTC, **query)
            seen = starts(found) + seen
            if not found["more"]:
                break
            query["before_ms"] = found["before_ms"]
        assert seen == [PRESENT - back * MINUTE for back in range(1_000, -1, -1)]
        assert "before_ms" not in found


async def test_what_was_missed_meanwhile_comes_from_the_venue(autojump_clock: MockClock) -> None:
    """The daemon was away for two candles, and went in the middle of the one before."""
    async with asking() as (world, _):
        world.candle(PRESENT - 5 * MINUTE)
        world.candle(PRESENT - 4 * MINUTE, 5.5, closed=False)
        world.candle(PRESENT - MINUTE)
        world.candle(PRESENT, closed=False)
        found = await world.get(CANDLES, BTC, limit=6)
        assert starts(found) == [PRESENT - back * MINUTE for back in range(5, -1, -1)]
        assert seqs(found) == [1, 0, 0, 0, 3, 4]


async def test_where_nothing_is_missing_nobody_is_asked(autojump_clock: MockClock) -> None:
    async with asking() as (world, venue):
        for back in range(9, -1, -1):
            world.candle(PRESENT - back * MINUTE, closed=back > 0)
        assert seqs(await world.get(CANDLES, BTC, limit=10)) == list(range(1, 11))
        assert venue.asked == []


async def test_before_is_a_position_of_the_tape_for_candles_too(autojump_clock: MockClock) -> None:
    async with asking() as (world, _):
        for back in (3, 2, 1, 0):
            world.candle(PRESENT - back * MINUTE, 1.0, closed=False)
            world.candle(PRESENT - back * MINUTE, 2.0)
        found = await world.get(CANDLES, BTC, limit=3, before=5)
        assert starts(found) == [PRESENT - back * MINUTE for back in (4, 3, 2)]
        assert seqs(found) == [0, 2, 4]
        found = await world.get(CANDLES, BTC, limit=2, before=1)
        assert starts(found) == [PRESENT - 5 * MINUTE, PRESENT - 4 * MINUTE]


async def test_a_sick_venue_gives_the_tapes_part_and_says_why(autojump_clock: MockClock) -> None:
    async with asking() as (world, venue):

        async def fail(_: httpx.Request) -> httpx.Response | None:
            return httpx.Response(503)

        venue.spoil = fail
        world.candle(PRESENT - MINUTE)
        found = await world.get(CANDLES, BTC)
        assert (seqs(found), found["more"]) == ([1], True)
        assert found["reason"] == "Binance is in trouble (HTTP 503)"


async def test_a_mute_venue_is_waited_for_as_long_as_is_bearable(autojump_clock: MockClock) -> None:
    async with asking() as (world, venue):

        async def never(_: httpx.Request) -> httpx.Response | None:
            await trio.sleep(1_000)
            return None

        venue.spoil = never
        found = await world.get(CANDLES, BTC)
        assert "answer" in found["reason"]
        assert "within 8 s" in found["reason"]
        assert trio.current_time() < 10


async def test_who_has_nobody_to_ask_has_the_tape(autojump_clock: MockClock) -> None:
    world = World()
    for back in (2, 1):
        world.candle(PRESENT - back * MINUTE)
    found = await world.get(CANDLES, BTC, limit=2)
    assert (seqs(found), found["more"]) == ([2], True)
    assert found["reason"] == "there is no history of acme but the tape"
    assert seqs(await world.get(CANDLES, BTC, before_ms=found["before_ms"])) == [1]


async def test_of_several_instruments_the_tape_has_all_and_the_venue_is_asked_for_one(
    autojump_clock: MockClock,
) -> None:
    async with asking() as (world, venue):
        both = channel("candles", BTC, ETH)
        for instrument in (BTC, ETH):
            for back in (1, 0):
                world.candle(PRESENT - back * MINUTE, instrument=instrument)
        found = await world.get(both)
        assert seqs(found) == [1, 3, 2, 4]
        assert found["reason"] == "the venue's own history is of one instrument: name one"
        assert "instrument" not in found
        assert venue.asked == []
        assert len((await world.get(both, ETH, limit=50))["messages"]) == 50


async def test_candles_are_bounded_in_bytes_and_go_on_where_they_end(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2_000)
    async with asking() as (world, _):
        found = await world.get(CANDLES, BTC, limit=20)
        assert 3 < len(found["messages"]) < 10
        assert (found["more"], found["before_ms"]) == (True, starts(found)[0])
        older = await world.get(CANDLES, BTC, limit=20, before_ms=found["before_ms"])
        assert starts(older)[-1] == starts(found)[0] - MINUTE


async def test_before_all_time_there_is_nothing_and_no_more(autojump_clock: MockClock) -> None:
    async with asking() as (world, venue):
        for before_ms in (0, 1, 1_000_000):
            found = await world.get(CANDLES, BTC, before_ms=before_ms)
            assert (found["messages"], found["more"]) == ([], False)
        assert venue.asked == []


async def test_a_venue_whose_clock_is_ahead_of_ours_has_its_newest_candle_shown(autojump_clock: MockClock) -> None:
    async with asking() as (world, _):
        world.candle(PRESENT + 3 * MINUTE, closed=False)
        assert starts(await world.get(CANDLES, BTC, limit=2))[-1] == PRESENT + 3 * MINUTE


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "so far", "closed"]), min_size=1, max_size=40), st.integers(1, 50))
def test_whatever_the_tape_has_of_them_every_candle_is_there_once_and_as_it_closed(told: list[str], limit: int) -> None:
    async def check() -> None:
        async with asking() as (world, _):
            sent: dict[int, int] = {}
            for back, what in zip(range(len(told), 0, -1), told, strict=True):
                start_ms = PRESENT - back * MINUTE
                if what:
                    world.candle(start_ms, 5.0, closed=False)
                if what == "closed":
                    sent[start_ms] = world.candle(start_ms, 6.0)
            found = await world.get(CANDLES, BTC, limit=limit, before_ms=PRESENT)
            assert starts(found) == [PRESENT - back * MINUTE for back in range(limit, 0, -1)]
            assert all(message["closed"] for message in found["messages"])
            assert seqs(found) == [sent.get(start_ms, 0) for start_ms in starts(found)]

    trio.run(check, clock=MockClock(autojump_threshold=0))


async def test_a_book_can_be_rebuilt_from_the_first_snapshot_in_its_history_on() -> None:
    gateway = Gateway(channels=[msgspec.structs.replace(DEPTH, name="depth")])
    levels = {str(price): "1" for price in range(100, 90, -1)}

    def publish(fields: SnapshotFields | DepthFields) -> None:
        gateway.publish(Event("depth", BTC, b'{"symbol":"BTCUSDT"}', 1, "100", fields=fields))

    def raw(bids: list[list[str]]) -> Raw:
        return Raw(json.dumps(bids).encode())

    publish(SnapshotFields(raw([[price, size] for price, size in levels.items()]), raw([["101", "1"]])))
    for number in range(UPDATES + 100):
        price = str(100 - number % 10)
        levels[price] = str(number + 2)
        publish(DepthFields(raw([[price, levels[price]]]), raw([])))
    histories = Histories(gateway.tape, CLOCK, lambda _: None)
    request = Request(method="GET", path="/", query=(("limit", "200"),), peer="::1")
    later = histories.answer(request, gateway.board.catalogue["depth"], BTC)
    await later.wait()
    book = Book()
    for message in json.loads(later.answer().body)["messages"]:
        decoded = decode_message(json.dumps(message), Format.JSON)
        assert isinstance(decoded, DepthSnapshot | DepthUpdate)
        book.take(decoded)
    bids, _ = book.top(10)
    assert [[str(price), str(size)] for price, size in bids] == [list(level) for level in levels.items()]
