"""The history of candles before the simulated venues: the whole daemon, their REST interfaces, and their faults."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import open_websocket_url

from connectors.poll import past_candles
from connectors.poll.past_candles import WAIT_S, PastCandles, among
from connectors.simulator.faults.faults import STREAMED
from connectors.simulator.faults.faults import PastCandles as Faulty
from connectors.simulator.faults.orders import Clear
from connectors.simulator.simulator import Simulator
from daemon.app import Daemon
from daemon.commands.demo import simulator_config
from daemon.config.load import parse

SOON_S = 20.0
CHANNELS = "".join(
    f'[channels.{venue}_candles]\nconnector = "{venue}"\nkind = "candles"\ninstruments = ["BTC/USDT", "ETH/USDT"]\n'
    f'interval = "{"5m" if venue == "coinbase" else "1m"}"\n'
    for venue in STREAMED
)


class Running:
    """A daemon with nothing but candles, and its venues."""

    def __init__(self, simulator: Simulator, daemon: Daemon, port: int) -> None:
        self.simulator = simulator
        self.daemon = daemon
        self.port = port

    async def get(self, venue: str, **query: object) -> dict[str, Any]:
        asked = {"instrument": "BTC/USDT", **query}
        async with httpx.AsyncClient(trust_env=False, timeout=SOON_S) as http:
            answer = await http.get(
                f"http://127.0.0.1:{self.port}/history/{venue}_candles",
                params={name: str(value) for name, value in asked.items()},
            )
        assert answer.status_code == 200, answer.content
        found: dict[str, Any] = answer.json()
        return found

    def past(self, venue: str) -> PastCandles:
        found = among(self.daemon.ingesting.fleet.of(venue))
        assert found is not None
        return found


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    simulator = Simulator()
    [venues] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    text = simulator_config("127.0.0.1", venues.socket.getsockname()[1], presets=[]).replace(
        "[catalogue]\n", "[catalogue]\npresets = []\n"
    )
    config = parse(f"{text}\n{CHANNELS}", {}, "the test")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(simulator.run, [venues])
        daemon = Daemon(config)
        await daemon.start(nursery, listeners)
        with trio.fail_after(3 * SOON_S):
            yield Running(simulator, daemon, listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel(reason="the test is over")


def starts(found: dict[str, Any]) -> list[int]:
    return [message["start_ms"] for message in found["messages"]]


async def test_every_venue_has_candles_from_before_the_daemon_began_and_is_asked_once() -> None:
    async with running() as one:
        for venue in STREAMED:
            length = 300_000 if venue == "coinbase" else 60_000
            found = await one.get(venue, limit=200)
            assert "reason" not in found
            assert len(found["messages"]) >= 198
            assert {later - before for before, later in zip(starts(found), starts(found)[1:], strict=False)} == {length}
            older = await one.get(venue, limit=50, before_ms=found["before_ms"])
            assert starts(older)[-1] == found["before_ms"] - length
            assert all(message["closed"] and message["cached"] for message in older["messages"])
            asked = one.past(venue).asked
            assert starts(await one.get(venue, limit=100, before_ms=starts(found)[-1])) == starts(found)[-101:-1]
            assert one.past(venue).asked == asked
            assert one.past(venue).kept >= 1


async def test_what_was_asked_is_measured() -> None:
    async with running() as one:
        await one.get("okx", limit=50)
        async with httpx.AsyncClient(trust_env=False, timeout=SOON_S) as http:
            text = (await http.get(f"http://127.0.0.1:{one.port}/metrics")).text
        for venue in STREAMED:
            for name in ("requests_total", "kept_total", "refused_total", "failures_total", "candles"):
                assert f'tickerd_history_{name}{{connector="{venue}-history"}} ' in text
        assert 'tickerd_history_requests_total{connector="okx-history"} 0.0' not in text


async def test_what_the_websocket_tells_and_what_the_history_has_make_one_chart() -> None:
    async with running() as one, open_websocket_url(f"ws://127.0.0.1:{one.port}/ws") as client:
        await client.send_message(
            '{"type":"subscribe","channels":["okx_candles"],"instruments":["BTC/USDT"],"snapshot":true}'
        )
        while (message := json.loads(await client.get_message()))["type"] != "candle_update":
            pass
        found = await one.get("okx", limit=10)
        chart = {each["start_ms"]: each for each in found["messages"]}
        assert message["start_ms"] in chart
        assert len(chart) == len(found["messages"]) == 10
        assert chart[message["start_ms"]]["seq"] >= message["seq"]
        assert set(chart[message["start_ms"]]) == set(message)
        assert set(found["messages"][0]) - {"cached"} == set(message)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("throttled", "asked for a pause|did not show its candles"),
        ("trouble", "HTTP 503"),
        ("odd_rows", "cannot be read"),
        ("not_json", "not the body that is documented"),
    ],
)
async def test_a_venue_in_trouble_costs_a_reason_and_no_channel(what: Any, reason: str) -> None:

    async with running() as one:
        for venue in STREAMED:
            one.simulator.order(Faulty(venue=venue, what=what, retry_after_s=30))
            found = await one.get(venue, limit=20)
            assert re.search(reason, found["reason"]), venue
            again = await one.get(venue, limit=20)
            assert again["reason"] == found["reason"]
            one.simulator.order(Clear())
            asked = one.past(venue).asked
            # The other instrument is not the one that failed; but a pause that is asked for is the whole venue's.
            if what in ("odd_rows", "not_json"):
                assert "reason" not in await one.get(venue, instrument="ETH/USDT", limit=20)
            elif what == "throttled":
                assert "reason" in await one.get(venue, instrument="ETH/USDT", limit=20)
                assert one.past(venue).asked == asked
        # Binance's says nothing before something is traded.
        assert {state.state for state in one.daemon.board.states().values()} <= {"connecting", "live"}


async def test_a_mute_venue_holds_up_its_own_clients_for_a_while_and_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(past_candles, "WAIT_S", 3.0)
    async with running() as one:
        one.simulator.order(Faulty(venue="okx", what="mute"))
        answers: list[dict[str, Any]] = []

        async def ask() -> None:
            answers.append(await one.get("okx", limit=20))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            await trio.sleep(0.2)
            assert len((await one.get("bybit", limit=20))["messages"]) >= 19
            assert not answers
        assert {answer["reason"] for answer in answers} == {"OKX has not answered within 3 s"}
        assert len(answers) == 20


async def test_a_stop_waits_for_no_venue() -> None:
    async with running() as one:
        one.simulator.order(Faulty(venue="okx", what="mute"))
        answers: list[dict[str, Any]] = []

        async def ask() -> None:
            answers.append(await one.get("okx", limit=20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.3)
            began_s = trio.current_time()
            await one.daemon.stop(trio.CancelScope())
            assert trio.current_time() - began_s < WAIT_S / 2
        assert [answer["reason"] for answer in answers] == ["OKX is not asked just now"]
