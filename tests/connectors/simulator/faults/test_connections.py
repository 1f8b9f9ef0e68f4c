"""OKX's faults as they are on the wire: seen by a client that only splits bytes into frames."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import trio
import trio.testing
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from connectors.simulator.faults.faults import CloseCode
from connectors.simulator.simulator import Simulator
from tests.connectors.push.raw_venue import CLOSE, HANDSHAKE, TEXT, RawOkx, in_memory, on_a_port, order

RATE = 10.0


def clock() -> float:
    """Wall-clock time that jumps along."""
    return 1_800_000_000 + trio.current_time()


async def opened(connect: Callable[[], trio.abc.Stream], *instruments: str) -> RawOkx:
    """A client; with instruments one that has their acknowledgements, and is about to get tickers."""
    client = await RawOkx(connect()).open()
    if instruments:
        await client.subscribe(*instruments)
        for _ in instruments:
            assert (await client.json())["event"] == "subscribe"
    return client


async def assert_healthy(connect: Callable[[], trio.abc.Stream]) -> None:
    client = await opened(connect, "BTC-USDT")
    times = [int((await client.ticker())["ts"]) for _ in range(4)]
    # The present ticker comes at once, the others at their times.
    assert [later - earlier for earlier, later in pairwise(times[1:])] == pytest.approx([100, 100], abs=2)
    await client.send("ping")
    assert await client.text() == b"pong"


def acted(simulator: Simulator) -> Any:
    return simulator._board.totals()


async def test_silence_with_pongs(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="silence", for_s=40)
        assert await client.is_silent(20)
        await client.send("ping")
        assert await client.text() == b"pong"
        assert await client.is_silent(19)
        await client.ticker()
        assert trio.current_time() == pytest.approx(40, abs=0.2)
        assert acted(simulator)["okx"]["silence"] == pytest.approx(400, abs=2)
        await assert_healthy(connect)


async def test_silence_without_pongs_and_nobody_hangs_up(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="silence", pongs=False)
        await client.send("ping")
        assert await client.is_silent(100)
        order(simulator, clear="silence")
        await client.ticker()
        await assert_healthy(connect)


async def test_mute_from_the_start(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        old = await opened(connect, "BTC-USDT")
        order(simulator, fault="mute", drop=False)
        await old.ticker()
        client = await opened(connect, "BTC-USDT", "ETH-USDT")
        assert await client.is_silent(5)
        order(simulator, fault="mute", for_s=5)
        assert (await old.rest())[-1][0] == TEXT
        order(simulator, clear=True)
        await assert_healthy(connect)


@pytest.mark.parametrize("data", [True, False])
async def test_a_missing_acknowledgement(autojump_clock: trio.testing.MockClock, *, data: bool) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="ack_missing", data=data)
        client = await opened(connect)
        await client.subscribe("BTC-USDT")
        if data:
            assert (await client.json())["data"]
        else:
            assert await client.is_silent(5)
        assert acted(simulator) == {"okx": {"ack_missing": 1}}
        order(simulator, clear=True)
        await assert_healthy(connect)


@pytest.mark.parametrize("code", get_args(CloseCode))
async def test_a_disconnect_with_each_close_code(autojump_clock: trio.testing.MockClock, code: int) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        order(simulator, fault="disconnect", code=code, reason="so be it")
        frames = await client.rest()
        closes = [payload for first, payload in frames if first == CLOSE]
        assert closes == ([] if code == 1006 else [code.to_bytes(2, "big") + b"so be it"])
        assert acted(simulator) == {"okx": {"disconnect": 1}}
        await assert_healthy(connect)


async def test_hanging_up_again_and_again(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        present = await opened(connect, "BTC-USDT")
        await trio.sleep(10)
        order(simulator, fault="hang_up", code=1008, after_s=2, for_s=7)
        for client in (present, await opened(connect)):
            assert (await client.rest())[-1] == (CLOSE, b"\x03\xf0")
            assert trio.current_time() == pytest.approx(12, abs=1.1)
        begun = trio.current_time()
        assert (await (await opened(connect)).rest())[-1][0] == CLOSE
        assert trio.current_time() - begun == pytest.approx(2, abs=1.1)
        await trio.sleep(5)
        await assert_healthy(connect)


async def test_a_half_open_connection(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="half_open", for_s=300)
        await client.send("ping")
        assert await client.is_silent(299)
        await assert_healthy(connect)
        assert await client.rest() == []
        assert client.ended
        assert acted(simulator) == {"okx": {"half_open": 1}}


async def test_frames_byte_by_byte(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=1, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="slow_frames", pause_s=0.001)
        seen: list[int] = []
        while sum(seen) < 400:
            seen.append(len(await client.stream.receive_some()))
        assert set(seen) == {1}
        order(simulator, clear=True)
        assert len(await client.stream.receive_some()) > 1
    async with in_memory(Simulator(okx_rate=RATE, clock=clock)) as connect:
        await assert_healthy(connect)


async def test_a_torn_frame_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="torn_frame", times=1)
        assert await client.frame() is None
        assert client.held[0] == TEXT
        assert not client.held.endswith(b"}")
        await assert_healthy(connect)
        assert acted(simulator) == {"okx": {"torn_frame": 1}}


async def test_fragments_are_put_together_by_who_knows_the_rfc(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="fragmented", pieces=4)
        judge = Connection(ConnectionType.CLIENT)
        firsts: list[int] = []
        texts = ""
        while len(firsts) < 8:
            found = await client.frame()
            assert found is not None
            firsts.append(found[0])
            size = len(found[1])
            length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
            judge.receive_data(bytes([found[0]]) + length + found[1])
            for event in judge.events():
                assert isinstance(event, TextMessage)
                texts += event.data + ("\n" if event.message_finished else "")
        assert firsts == [0x01, 0x00, 0x00, 0x80] * 2
        assert [json.loads(line)["arg"]["instId"] for line in texts.splitlines()] == ["BTC-USDT"] * 2
        order(simulator, clear=True)
        await assert_healthy(connect)


@pytest.mark.parametrize("kind", ["not_json", "not_utf8", "unknown"])
async def test_garbage_goes_before_what_is_right(autojump_clock: trio.testing.MockClock, kind: str) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="garbage", kind=kind)
        for _ in range(5):
            nonsense, ticker = await client.text(), await client.json()
            assert ticker["data"][0]["last"]
            if kind == "not_utf8":
                with pytest.raises(UnicodeDecodeError):
                    nonsense.decode()
            elif kind == "not_json":
                with pytest.raises(json.JSONDecodeError):
                    json.loads(nonsense)
            else:
                assert not json.loads(nonsense).keys() & {"event", "arg", "data"}
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_garbage_that_is_no_frame(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="garbage", kind="not_a_frame", times=1)
        assert await client.frame() == (0x8B, b"")
        await client.ticker()
        await assert_healthy(connect)


@pytest.mark.parametrize(
    ("what", "frame"),
    [("pongs", (0x8A, b"")), ("pings", (0x89, b"")), ("heartbeats", (TEXT, b"pong"))],
)
async def test_a_flood_goes_before_a_ticker(
    autojump_clock: trio.testing.MockClock, what: str, frame: tuple[int, bytes]
) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="flood", what=what, frames=50, times=1)
        assert [await client.frame() for _ in range(50)] == [frame] * 50
        await client.ticker()
        await assert_healthy(connect)


async def test_a_flood_of_fragments_is_one_empty_message(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="flood", what="fragments", frames=5, times=1)
        assert [await client.frame() for _ in range(5)] == [(0x01, b""), *[(0x00, b"")] * 3, (0x80, b"")]
        await client.ticker()
        await assert_healthy(connect)


@pytest.mark.parametrize(
    ("fault", "holds"),
    [
        ("wrong_types", lambda ticker: isinstance(ticker["last"], int)),
        ("missing_fields", lambda ticker: "last" not in ticker and "ts" in ticker),
        ("empty_strings", lambda ticker: ticker["last"] == ""),
        ("huge_numbers", lambda ticker: ticker["last"] == "7" * 5_000),
    ],
)
async def test_tickers_that_are_not_as_documented(
    autojump_clock: trio.testing.MockClock, fault: str, holds: Callable[[Any], bool]
) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault=fault, venue="okx", field="last", times=3)
        assert [holds(await client.ticker()) for _ in range(3)] == [True] * 3
        assert isinstance((await client.ticker())["last"], str)
        await assert_healthy(connect)


async def test_the_seed_decides_which_tickers_and_which_members(autojump_clock: trio.testing.MockClock) -> None:
    async def seen(seed: int) -> list[str]:
        simulator = Simulator(seed=seed, okx_rate=RATE, clock=lambda: 1_800_000_000)
        async with in_memory(simulator) as connect:
            client = await opened(connect, "BTC-USDT", "ETH-USDT")
            order(simulator, fault="missing_fields", venue="okx", share=0.3)
            texts = [(await client.text()).decode() for _ in range(40)]
            return [",".join(message.get("data", [{}])[0]) for message in map(json.loads, texts)]

    first = await seen(1)
    assert first == await seen(1)
    assert first != await seen(2)
    right = sum(1 for names in first if names.count(",") == 15)
    assert 15 < right < 39


async def test_duplicates(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="duplicates", copies=2, for_s=1)
        for _ in range(4):
            assert len({await client.text() for _ in range(3)}) == 1
        await trio.sleep(1)
        await assert_healthy(connect)


async def test_tickers_out_of_order_and_times_that_stand_still(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT", "ETH-USDT")
        before = {(await client.ticker())["instId"] for _ in range(2)}
        order(simulator, fault="out_of_order")
        tickers = [await client.ticker() for _ in range(12)]
        for instrument in before:
            steps = [
                int(later["ts"]) - int(earlier["ts"])
                for earlier, later in pairwise(t for t in tickers if t["instId"] == instrument)
            ]
            assert [math.copysign(1, step) for step in steps] == [-1, 1, -1, 1, -1]
        order(simulator, clear=True)
        order(simulator, fault="out_of_order", how="repeat")
        tickers = [await client.ticker() for _ in range(12)][2:]
        assert len({ticker["ts"] for ticker in tickers}) <= 2
        assert len({ticker["last"] for ticker in tickers}) > 2
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_a_ticker_that_waits_for_its_successor_is_not_lost_at_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        first = int((await client.ticker())["ts"])
        order(simulator, fault="out_of_order")
        await trio.sleep(0.15)
        order(simulator, clear=True)
        times = [int((await client.ticker())["ts"]) for _ in range(3)]
        assert [later - earlier for earlier, later in pairwise([first, *times])] == pytest.approx([100] * 3, abs=2)


async def test_the_notice_and_the_close_it_announces(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        old = await opened(connect)
        order(simulator, fault="notice", close_after_s=20)
        assert (await old.json())["code"] == "64008"
        await assert_healthy(connect)
        new = await opened(connect, "BTC-USDT")
        assert (await old.rest())[-1] == (CLOSE, b"\x03\xe9service upgrade")
        assert trio.current_time() == pytest.approx(20, abs=1.1)
        await new.ticker()


async def test_a_cleared_notice_closes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect)
        order(simulator, fault="notice", close_after_s=5)
        order(simulator, clear="notice")
        assert (await client.json())["event"] == "notice"
        assert await client.is_silent(20)


async def test_an_instrument_delisted_while_running(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT", "ETH-USDT")
        order(simulator, fault="delisted", venue="okx", instrument="BTC/USDT")
        messages = [await client.json() for _ in range(20)]
        error = next(message for message in messages if message.get("event") == "error")
        assert (error["code"], "id" in error) == ("60018", False)
        assert "instId:BTC-USDT doesn't exist" in error["msg"]
        after = messages[messages.index(error) :]
        assert {message["data"][0]["instId"] for message in after if "data" in message} == {"ETH-USDT"}
        await client.subscribe("BTC-USDT")
        while "event" not in (message := await client.json()):
            assert message["data"][0]["instId"] == "ETH-USDT"
        assert (message["event"], message["code"], message["id"]) == ("error", "60018", "1")
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_a_clock_that_is_wrong(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        await client.ticker()
        order(simulator, fault="clock_skew", venue="okx", offset_s=-90)
        assert int((await client.ticker())["ts"]) / 1000 - clock() == pytest.approx(-90, abs=0.2)
        order(simulator, clear=True)
        assert int((await client.ticker())["ts"]) / 1000 - clock() == pytest.approx(0, abs=0.2)


# The opening


async def everything(client: trio.abc.Stream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in client])


@pytest.mark.parametrize("status", [451, 403, 503])
async def test_an_http_status_instead_of_an_upgrade(autojump_clock: trio.testing.MockClock, status: int) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        present = await opened(connect, "BTC-USDT")
        order(simulator, fault="http_status", venue="okx", status=status, retry_after_s=7)
        await present.rest()
        assert present.ended
        client = connect()
        await client.send_all(HANDSHAKE)
        head = (await client.receive_some(65_536)).lower()
        assert head.startswith(b"http/1.1 %d " % status)
        assert b"\r\nretry-after: 7\r\n" in head
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_a_slow_handshake(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="slow_headers", venue="okx", delay_s=30)
        await opened(connect)
        assert trio.current_time() == pytest.approx(30)
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_a_tls_alert_instead_of_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="tls_failure", venue="okx")
        client = connect()
        await client.send_all(HANDSHAKE)
        assert await everything(client) == b"\x15\x03\x03\x00\x02\x02\x28"
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_a_refused_connection_is_reset_and_others_are_let_in_after() -> None:
    simulator = Simulator(okx_rate=50)
    async with on_a_port(simulator) as port:

        async def refused() -> bool:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(HANDSHAKE)
                try:
                    answer = await stream.receive_some(100)
                except trio.BrokenResourceError as error:
                    return isinstance(error.__cause__, ConnectionResetError)
                assert answer.startswith(b"HTTP/1.1 101 ")
                return False

        order(simulator, fault="refuse", venue="okx", times=2)
        assert [await refused() for _ in range(3)] == [True, True, False]


async def test_a_half_open_connection_on_a_real_socket() -> None:
    simulator = Simulator(okx_rate=100)
    async with on_a_port(simulator) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = await RawOkx(stream).open()
        await client.subscribe("BTC-USDT")
        await client.json()
        await client.ticker()
        order(simulator, fault="half_open", for_s=0.3)
        with trio.move_on_after(0.2):
            await client.rest()
        assert not client.ended
        await client.send("ping")
        await client.rest()
        assert client.ended


@pytest.mark.parametrize("fault", ["refuse", "http_status", "tls_failure", "slow_headers", "delisted"])
async def test_another_venues_fault_leaves_okx_alone(autojump_clock: trio.testing.MockClock, fault: str) -> None:
    simulator = Simulator(okx_rate=RATE, clock=clock)
    more: dict[str, dict[str, object]] = {"http_status": {"status": 503}, "delisted": {"instrument": "BTC/USDT"}}
    async with in_memory(simulator) as connect:
        client = await opened(connect, "BTC-USDT")
        order(simulator, fault=fault, venue="binance", **more.get(fault, {}))
        for _ in range(20):
            await client.ticker()
        await assert_healthy(connect)
