"""The simulator as its clients see it: over real sockets, with its pace, its faults, its routes."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import trio
import trio.testing
import trio_websocket
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response
from connectors.simulator.http.server import UpgradedStream, serve_connection
from connectors.simulator.simulator import PushSchedule, Simulator
from connectors.simulator.venues.market import BINANCE, OKX, Market, padded, unpadded
from connectors.simulator.venues.okx import OkxSubscriptions
from connectors.simulator.venues.okx_streams import RULES, OkxSession
from connectors.simulator.venues.stream import MarketStream
from connectors.simulator.venues.websocket import PENDING_BYTES, VenueConnection


@asynccontextmanager
async def running(simulator: Simulator) -> AsyncIterator[int]:
    """The simulator on a free port of the loopback."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(simulator.run, listeners)
        with trio.fail_after(60):
            yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def okx(port: int) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    # Not `open_websocket_url`: it leaves its socket open when the server closes first.
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        client = await trio_websocket.wrap_client_stream(
            nursery, stream, f"127.0.0.1:{port}", "/ws/v5/public", message_queue_size=10_000
        )
        yield client
        with trio.move_on_after(1):
            await client.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def http(port: int) -> AsyncIterator[httpx.AsyncClient]:
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, headers={"user-agent": "a test"}) as client:
        yield client


def request_of(op: str, *instruments: str, **more: object) -> str:
    args = [{"channel": "tickers", "instId": instrument} for instrument in instruments]
    return json.dumps({**more, "op": op, "args": args})


HANDSHAKE = (
    b"GET /ws/v5/public HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(text: bytes) -> bytes:
    """A client's text frame. A mask of zeros leaves the payload as it is (RFC 6455 section 5.3)."""
    size = len(text)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text


async def receive(client: trio_websocket.WebSocketConnection, count: int = 1) -> list[Any]:
    return [json.loads(await client.get_message()) for _ in range(count)]


async def closed(client: trio_websocket.WebSocketConnection) -> tuple[int, str | None]:
    """Read on until the connection is closed; its code and reason."""
    with suppress(trio_websocket.ConnectionClosed):
        while True:
            await client.get_message()
    assert client.closed is not None
    return client.closed.code, client.closed.reason


# OKX's websocket


async def test_every_argument_is_acknowledged_then_tickers_flow() -> None:
    async with running(Simulator(okx_rate=50)) as port, okx(port) as client:
        await client.send_message(request_of("subscribe", "BTC-USDT", "ETH-USDT", id="7a"))
        acks = await receive(client, 2)
        pushes = await receive(client, 20)

    assert [ack["arg"]["instId"] for ack in acks] == ["BTC-USDT", "ETH-USDT"]
    assert {(ack["event"], ack["id"], ack["arg"]["channel"]) for ack in acks} == {("subscribe", "7a", "tickers")}
    assert len({ack["connId"] for ack in acks}) == 1
    assert len(acks[0]["connId"]) == 8
    for push in pushes:
        assert push["arg"]["channel"] == "tickers"
        (ticker,) = push["data"]
        assert ticker["instId"] == push["arg"]["instId"]
        assert all(isinstance(value, str) for value in ticker.values())
        assert abs(int(ticker["ts"]) / 1000 - time.time()) < 5
    assert list(pushes[0]["data"][0]) == [
        *("instType", "instId", "last", "lastSz", "askPx", "askSz", "bidPx", "bidSz"),
        *("open24h", "high24h", "low24h", "volCcy24h", "vol24h", "sodUtc0", "sodUtc8", "ts"),
    ]


async def test_two_runs_with_one_seed_push_the_same_values() -> None:
    async def lasts(pause_s: float) -> list[str]:
        simulator = Simulator(seed=5, okx_rate=200)
        async with running(simulator) as port, okx(port) as client:
            await trio.sleep(pause_s)
            await client.send_message(request_of("subscribe", "SOL-USDT"))
            pushes = (await receive(client, 31))[1:]
            return [push["data"][0]["last"] for push in pushes]

    first = await lasts(0)
    assert first == await lasts(0.1)
    listing = OKX["SOL-USDT"]
    quotes = [Market(5).quote(listing, step) for step in range(30)]
    assert first == [unpadded(quote.last, listing.price_digits) for quote in quotes]


async def test_a_later_subscriber_gets_the_present_ticker_at_once() -> None:
    async with running(Simulator(okx_rate=0.1)) as port, okx(port) as first:
        await first.send_message(request_of("subscribe", "BTC-USDT"))
        _, one = await receive(first, 2)
        async with okx(port) as second:
            await second.send_message(request_of("subscribe", "BTC-USDT"))
            _, other = await receive(second, 2)

    assert one["data"][0]["last"] == other["data"][0]["last"]


async def test_ticks_without_a_subscriber_are_missed_not_saved_up() -> None:
    simulator = Simulator(okx_rate=1_000)
    async with running(simulator) as port:
        for _ in range(2):
            async with okx(port) as client:
                await client.send_message(request_of("subscribe", "BTC-USDT"))
                await receive(client, 3)
            sent = simulator.okx_frames_sent
            await trio.sleep(0.3)

    assert sent < 200


async def test_unsubscribing_ends_the_pushes() -> None:
    async with running(Simulator(okx_rate=100)) as port, okx(port) as client:
        await client.send_message(request_of("subscribe", "BTC-USDT"))
        await receive(client, 5)
        await client.send_message(request_of("unsubscribe", "BTC-USDT", id="u1"))
        while "event" not in (frame := (await receive(client))[0]):
            pass
        with trio.move_on_after(0.1) as silence:
            await client.get_message()

    assert (frame["event"], frame["id"]) == ("unsubscribe", "u1")
    assert silence.cancelled_caught


async def test_errors_name_the_request_and_leave_the_connection_open() -> None:
    async with running(Simulator()) as port, okx(port) as client:
        await client.send_message(request_of("subscribe", "NOPE-USDT", id="ob1"))
        await client.send_message("{nonsense")
        await client.send_message("ping")
        unknown, malformed = await receive(client, 2)
        pong = await client.get_message()

    text = "Subscribe failed, wrong URL or channel:tickers,instId:NOPE-USDT doesn't exist."
    conn_id = unknown.pop("connId")
    assert unknown == {"id": "ob1", "event": "error", "code": "60018", "msg": text}
    assert malformed == {
        "event": "error",
        "code": "60012",
        "connId": conn_id,
        "msg": "Invalid request: {nonsense",
    }
    assert pong == "pong"


async def test_stamped_tickers_begin_with_the_monotonic_time() -> None:
    before = time.monotonic_ns()
    async with running(Simulator(stamp=True, okx_rate=100)) as port, okx(port) as client:
        await client.send_message(request_of("subscribe", "BTC-USDT"))
        pushes = (await receive(client, 6))[1:]

    stamps = [push["data"][0]["mono"] for push in pushes]
    assert [next(iter(push["data"][0])) for push in pushes] == ["mono"] * 5
    assert before <= stamps[0] < stamps[-1] <= time.monotonic_ns()
    assert all(isinstance(stamp, int) for stamp in stamps)


async def test_a_silent_connection_is_closed_after_30_s_and_a_ping_puts_it_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = trio.testing.memory_stream_pair()
    session = OkxSession(OkxSubscriptions("0badcafe", {"BTC-USDT"}), MarketStream(Market(1)))
    connection = VenueConnection(session, RULES)

    async def serve(request: VenueRequest, stream: UpgradedStream) -> None:
        await connection.run(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, "-", lambda request: None, serve)
        await client.send_all(HANDSHAKE)
        assert b" 101 " in await client.receive_some()
        await trio.sleep(20)
        await client.send_all(masked(b"ping"))
        assert await client.receive_some() == b"\x81\x04pong"
        begun = trio.current_time()
        close = await client.receive_some()
        assert trio.current_time() - begun == pytest.approx(30)

    reason = b"No data received in 30s"
    assert close == b"\x88" + bytes([len(reason) + 2]) + (4004).to_bytes(2, "big") + reason


async def test_a_request_over_64_kib_closes_with_1009() -> None:
    async with running(Simulator()) as port, okx(port) as client:
        await client.send_message("x" * 65_537)
        code, _ = await closed(client)

    assert code == 1009


async def test_a_slow_subscriber_misses_frames_and_the_others_do_not() -> None:
    simulator = Simulator(okx_rate=4_000)
    async with running(simulator) as port, okx(port) as client:
        slow = await trio.open_tcp_stream("127.0.0.1", port)
        await slow.send_all(HANDSHAKE)
        await slow.send_all(masked(request_of("subscribe", *OKX).encode()))
        for _ in range(200):
            await trio.sleep(0.05)
            if simulator.okx_frames_missed:
                break
        await client.send_message(request_of("subscribe", "DOT-USDT"))
        pushes = (await receive(client, 1_001))[1:]
        (slow_session,) = [s for s in simulator._sessions if len(simulator._tickers[s]) > 1]
        assert slow_session._pending_bytes <= PENDING_BYTES
        await slow.aclose()

    lasts = [push["data"][0]["last"] for push in pushes]
    listing, market = OKX["DOT-USDT"], Market(1)
    assert_consecutive(lasts, [unpadded(market.quote(listing, n).last, 3) for n in range(60_000)])


def assert_consecutive(part: list[str], whole: list[str]) -> None:
    """`part` is an unbroken stretch of `whole`."""
    assert f" {' '.join(part)} " in f" {' '.join(whole)} "


async def test_high_rates_are_kept() -> None:
    simulator = Simulator(okx_rate=1_000)
    async with running(simulator) as port, okx(port) as client:
        await client.send_message(request_of("subscribe", "BTC-USDT", "ETH-USDT"))
        await receive(client, 2)
        begun = trio.current_time()
        await receive(client, 2_000)
        took = trio.current_time() - begun

    assert simulator.okx_frames_missed == 0
    assert took == pytest.approx(1.0, abs=0.5)


# The schedule


@given(
    st.floats(0.1, 50_000),
    st.lists(st.floats(0, 5), min_size=1, max_size=50),
    st.floats(0, 10**6),
)
def test_a_schedule_yields_each_number_once_and_never_drifts(rate: float, waits: list[float], start: float) -> None:
    schedule = PushSchedule(start, rate)
    taken: list[int] = []
    now = start
    for wait in waits:
        now += wait
        taken += schedule.take(now, most=10**9)

    assert taken == list(range(len(taken)))
    assert len(taken) == pytest.approx((now - start) * rate + 1, abs=1.1)
    assert schedule.next_due > now - 1e-3


def test_a_schedule_that_is_late_catches_up_in_portions() -> None:
    schedule = PushSchedule(0.0, 10.0)

    assert schedule.take(1.0, most=8) == range(8)
    assert schedule.take(1.0, most=8) == range(8, 11)
    assert schedule.take(1.0, most=8) == range(11, 11)
    assert schedule.next_due == pytest.approx(1.1)
    assert schedule.take(schedule.next_due) == range(11, 12)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="okx_rate"):
        Simulator(okx_rate=rate)


# HTTP


async def test_one_port_serves_the_three_venues_and_keeps_connections() -> None:
    async with running(Simulator()) as port, http(port) as client:
        paths = {
            "/api/v3/ticker/price?symbol=BTCUSDT": dict,
            "/api/v3/global": dict,
            "/api/v3/coins/markets?vs_currency=usd": list,
            "/api/v3/search/trending": dict,
            "/api/v5/public/time": dict,
            "/api/v3/ping": dict,
            "/api/v3/brokerage/market/products": dict,
        }
        for path, kind in paths.items():
            response = await client.get(path)
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("application/json")
            assert isinstance(response.json(), kind)
        for path, status in {"/api/v3/uiKlines": 404, "/nothing": 404, "/": 400, "/ws/v5/public": 400}.items():
            response = await client.get(path)
            assert response.status_code == status
            assert "error" in response.json()
        refused = await client.post("/api/v3/time", content=b"x" * 100)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
        used = [(await client.get("/api/v3/time")).headers["X-MBX-USED-WEIGHT-1M"] for _ in range(2)]
        assert int(used[1]) == int(used[0]) + 1


async def test_rest_values_follow_the_clock_alone() -> None:
    now = 1_800_000_000.0
    simulator = Simulator(seed=3, okx_rate=5, clock=lambda: now)
    target = "/api/v3/ticker/price?symbol=BTCUSDT"
    async with running(simulator) as port, http(port) as client:
        first = (await client.get(target)).json()
        again = (await client.get(target)).json()
        now += 7
        later = (await client.get(target)).json()

    listing, market = BINANCE["BTCUSDT"], Market(3)
    assert first == again == {"symbol": "BTCUSDT", "price": padded(market.quote(listing, 0).last, 2)}
    assert later["price"] == padded(market.quote(listing, 35).last, 2)


# Faults


@pytest.mark.parametrize(
    "scripted",
    [
        json_response({"code": -1003, "msg": "Too many requests queued."}, 429),
        VenueResponse(418, b'{"code":-1003}', (("retry-after", "120"),)),
        VenueResponse(451, b'{"code":0,"msg":"Service unavailable from a restricted location"}'),
        VenueResponse(503, b"<html>"),
        VenueResponse(200, b"\xff\x00 garbage", ()),
    ],
)
async def test_a_fault_takes_an_answers_place(scripted: VenueResponse) -> None:
    simulator = Simulator()
    seen: list[VenueRequest] = []

    def fault(request: VenueRequest) -> VenueResponse | None:
        seen.append(request)
        return scripted if request.path == "/api/v3/depth" else None

    async with running(simulator) as port, http(port) as client:
        simulator.fault = fault
        response = await client.get("/api/v3/depth?symbol=BTCUSDT")
        other = await client.get("/api/v3/time")
        simulator.fault = None
        healed = await client.get("/api/v3/depth?symbol=BTCUSDT")

    assert (response.status_code, response.content) == (scripted.status, scripted.body)
    assert all(response.headers[name] == value for name, value in scripted.headers)
    assert (other.status_code, healed.status_code) == (200, 200)
    assert [request.path for request in seen] == ["/api/v3/depth", "/api/v3/time"]
    assert seen[0].peer == "127.0.0.1"


async def test_a_fault_refuses_a_websocket() -> None:
    simulator = Simulator()
    simulator.fault = lambda request: VenueResponse(451, b"no")
    async with running(simulator) as port, await trio.open_tcp_stream("127.0.0.1", port) as client:
        await client.send_all(HANDSHAKE)
        answer = await client.receive_some()

    assert answer.startswith(b"HTTP/1.1 451 ")


async def test_okx_sessions_are_dropped_with_a_code_or_abruptly() -> None:
    simulator = Simulator(okx_rate=500)
    async with running(simulator) as port:
        for code, seen in ((4005, 4005), (1001, 1001), (None, 1006)):
            async with okx(port) as one, okx(port) as two:
                await one.send_message(request_of("subscribe", "BTC-USDT"))
                await receive(one, 10)
                await two.send_message("ping")
                await two.get_message()
                simulator.drop_okx(code)
                assert (await closed(one))[0] == seen
                assert (await closed(two))[0] == seen


async def test_a_mute_venue_pushes_nothing_but_still_answers() -> None:
    simulator = Simulator(okx_rate=100)
    async with running(simulator) as port, okx(port) as client:
        await client.send_message(request_of("subscribe", "BTC-USDT"))
        await receive(client, 5)
        simulator.mute_okx = True
        await client.send_message("ping")
        while await client.get_message() != "pong":
            pass
        with trio.move_on_after(0.2) as silence:
            await client.get_message()
        assert silence.cancelled_caught
        await client.send_message(request_of("subscribe", "ETH-USDT"))
        assert (await receive(client))[0]["event"] == "subscribe"
        simulator.mute_okx = False
        assert (await receive(client))[0]["data"]


async def test_the_upgrade_notice_reaches_every_session() -> None:
    simulator = Simulator()
    async with running(simulator) as port, okx(port) as client:
        await client.send_message("ping")
        await client.get_message()
        simulator.notice_okx()
        (notice,) = await receive(client)

    assert (notice["event"], notice["code"]) == ("notice", "64008")
    assert notice["msg"].startswith("The connection will soon be closed for a service upgrade.")
    assert len(notice["connId"]) == 8


async def test_a_connection_that_fails_harms_no_other() -> None:
    simulator = Simulator()

    def fault(request: VenueRequest) -> VenueResponse | None:
        raise RuntimeError("a test's mistake")

    async with running(simulator) as port:
        async with okx(port) as witness:
            simulator.fault = fault
            async with http(port) as client:
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/api/v3/time")
            simulator.fault = None
            await witness.send_message("ping")
            assert await witness.get_message() == "pong"
        async with http(port) as client:
            assert (await client.get("/api/v3/time")).status_code == 200


async def test_it_starts_at_once() -> None:
    begun = time.perf_counter()
    async with running(Simulator()) as port, http(port) as client:
        assert (await client.get("/api/v3/ping")).json() == {}
        assert time.perf_counter() - begun < 1
