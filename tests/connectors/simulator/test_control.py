"""Orders over HTTP, and by the clock."""

from typing import Any

import pytest
import trio
import trio.testing

from connectors.simulator.faults.orders import read_scenario
from connectors.simulator.faults.table import FAULTS, Case
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.http.server import BODY_BYTES
from connectors.simulator.simulator import Simulator
from tests.connectors.push.raw_venue import HANDSHAKE, RawOkx, http, in_memory, on_a_port, order


async def test_faults_are_switched_on_listed_counted_and_cleared_over_http() -> None:
    async with on_a_port(Simulator()) as port, http(port) as client:
        assert (await client.get("/control")).json() == {"active": [], "acted": {}}
        told = {"fault": "http_status", "venue": "binance", "status": 503, "times": 2}
        (active,) = (await client.post("/control", json=told)).json()["active"]
        assert {**told, **active["fault"]} == active["fault"]
        assert (active["acted"], active["left_s"]) == (0, None)
        silence = (await client.post("/control", json={"fault": "silence", "for_s": 60})).json()["active"][1]
        assert 59 < silence["left_s"] <= 60
        statuses = [(await client.get("/api/v3/time")).status_code for _ in range(3)]
        assert statuses == [503, 503, 200]
        seen = (await client.get("/control")).json()
        assert [one["fault"]["fault"] for one in seen["active"]] == ["silence"]
        assert seen["acted"] == {"binance": {"http_status": 2}}
        cleared = (await client.post("/control", json={"clear": True})).json()
        assert cleared == {"active": [], "acted": {"binance": {"http_status": 2}}}


async def test_clear_ends_what_it_names() -> None:
    async with on_a_port(Simulator()) as port, http(port) as client:

        async def left(**clear: object) -> list[tuple[str, str]]:
            for venue in ("binance", "coingecko"):
                for name in ("refuse", "reset"):
                    await client.post("/control", json={"fault": name, "venue": venue})
            seen = (await client.post("/control", json=clear)).json()["active"]
            await client.post("/control", json={"clear": True})
            return [(one["fault"]["venue"], one["fault"]["fault"]) for one in seen]

        assert await left(clear="reset") == [("binance", "refuse"), ("coingecko", "refuse")]
        assert await left(clear=True, venue="binance") == [("coingecko", "refuse"), ("coingecko", "reset")]
        assert len(await left(clear="reset", venue="coingecko")) == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"fault":"silense"}', 'fault: got "silense"; nearest is silence'),
        (b'{"fault":"silence","pongs":3}', "pongs: got 3; allowed: true or false"),
        (b'{"fault":"refuse","venue":"kraken"}', 'venue: got "kraken"; refuse is for binance and coingecko and okx'),
        (b"[]", "got a list; allowed: a table"),
        (b"{", "the body is not JSON"),
        (b"", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 60_000, "the body is not JSON"),
    ],
)
async def test_a_wrong_order_is_answered_with_what_is_allowed_and_changes_nothing(body: bytes, words: str) -> None:
    async with on_a_port(Simulator()) as port, http(port) as client:
        refused = await client.post("/control", content=body)
        assert refused.status_code == 400
        assert refused.json()["error"].startswith(words)
        assert (await client.get("/control")).json()["active"] == []


async def test_the_catalogue_methods_and_sizes() -> None:
    async with on_a_port(Simulator()) as port, http(port) as client:
        listed = (await client.get("/control/faults")).json()["faults"]
        assert [kind["fault"] for kind in listed] == [kind.name for kind in FAULTS]
        refused = await client.delete("/control")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
        refused = await client.post("/control/faults")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
        assert (await client.post("/control", content=b" " * (BODY_BYTES + 1))).status_code == 413
        async with await trio.open_tcp_stream("127.0.0.1", port) as curl:
            head = b"POST /control HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n"
            await curl.send_all(head)
            assert (await curl.receive_some(1000)).startswith(b"HTTP/1.1 100 ")
            await curl.send_all(b'{"clear":true}')
            assert (await curl.receive_some(1000)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.0.0.1", 403), ("?", 403)]
)
async def test_only_loopback_may_order(peer: str, status: int) -> None:
    answer = Simulator().answer(VenueRequest("GET", "/control", peer=peer))

    assert answer is not None
    assert answer.status == status


CASES = [case for kind in FAULTS for case in kind.cases]
TARGETS = (
    *("/api/v3/ticker/24hr?symbol=BTCUSDT", "/api/v3/depth?symbol=ETHUSDT"),
    "/api/v3/ticker/24hr?symbols=%5B%22ETHUSDT%22,%22BTCUSDT%22%5D",
    *("/api/v3/global", "/api/v3/coins/markets?vs_currency=usd", "/api/v3/search/trending"),
)


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
async def test_every_case_of_the_table_acts_and_leaves_a_healthy_venue(
    autojump_clock: trio.testing.MockClock, case: Case
) -> None:
    simulator = Simulator(okx_rate=4, clock=trio.current_time)

    async def call(*sent: bytes) -> bytes:
        stream, data = connect(), b""
        with trio.move_on_after(0.2):
            for part in sent:
                await stream.send_all(part)
            # One of the bodies has no end.
            while len(data) < 1_000_000 and (chunk := await stream.receive_some()):
                data += chunk
        await stream.aclose()
        return data

    async with in_memory(simulator) as connect:
        present = await RawOkx(connect()).open()
        await present.subscribe("BTC-USDT")
        await present.ticker()
        simulator.order(case.lasting(1_000))
        for target in TARGETS:
            await call(f"GET {target} HTTP/1.1\r\nHost: x\r\nUser-Agent: a test\r\n\r\n".encode())
        with trio.move_on_after(3):
            client = RawOkx(connect())
            await client.stream.send_all(HANDSHAKE)
            await client.subscribe("BTC-USDT")
            while await client.stream.receive_some():
                pass
        assert simulator._board.totals()[case.fault.venue][case.fault.name] > 0

        order(simulator, clear=True)
        assert simulator._board.all() == []
        for target in TARGETS:
            answer = await call(f"GET {target} HTTP/1.1\r\nHost: x\r\nUser-Agent: a test\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200 ")
        healthy = await RawOkx(connect()).open()
        await healthy.subscribe("BTC-USDT")
        assert (await healthy.json())["event"] == "subscribe"
        assert (await healthy.ticker())["last"]


async def test_a_scenario_happens_at_its_times(autojump_clock: trio.testing.MockClock) -> None:
    steps = [
        {"at_s": 10.5, "fault": "silence", "for_s": 5},
        {"at_s": 30, "fault": "http_status", "venue": "binance", "status": 500},
        {"at_s": 40.5, "fault": "disconnect", "code": 4006},
        {"at_s": 50, "clear": True},
    ]
    simulator = Simulator(okx_rate=1, scenario=read_scenario({"step": steps}), clock=trio.current_time)
    timeline: list[Any] = []

    async def watch() -> None:
        client = await RawOkx(connect()).open()
        await client.subscribe("BTC-USDT")
        previous = 0.0
        while (found := await client.frame()) is not None:
            if trio.current_time() - previous > 1.5:
                timeline.append(("a gap until", round(trio.current_time())))
            previous = trio.current_time()
        timeline.append(("the end", round(previous), found))

    async with in_memory(simulator) as connect, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        for second in range(0, 60, 5):
            await trio.sleep(second + 2 - trio.current_time())
            answer = simulator.answer(VenueRequest("GET", "/api/v3/time"))
            assert answer is not None
            assert answer.status == (500 if 30 <= second < 50 else 200), second

    assert timeline == [("a gap until", 16), ("the end", 40, None)]


async def test_a_fault_that_has_acted_often_enough_ends_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=10, clock=trio.current_time)
    async with in_memory(simulator) as connect:
        client = await RawOkx(connect()).open()
        await client.subscribe("BTC-USDT")
        await client.ticker()
        order(simulator, fault="silence", times=3)
        await client.ticker()
        await trio.testing.wait_all_tasks_blocked()
        assert simulator._board.all() == []
        assert simulator._board.totals() == {"okx": {"silence": 3}}
