"""The whole daemon before the simulated venues, one of which goes mute while its connection stays up."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from connectors.simulator.simulator import Simulator
from daemon.app import Daemon
from daemon.commands.demo import simulator_config
from daemon.config.load import parse

STALE_AFTER_S = 1.5
SOON_S = 10.0


@asynccontextmanager
async def running(simulator: Simulator) -> AsyncIterator[int]:
    """The port of a daemon whose venues that simulator is."""
    [venues] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    text = simulator_config("127.0.0.1", venues.socket.getsockname()[1])
    config = parse(text, {"TICKERD_CHANNELS__BITCOINPRICE__STALE_AFTER_S": str(STALE_AFTER_S)}, "the test")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(simulator.run, [venues])
        await Daemon(config).start(nursery, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel(reason="the test is over")


async def status(client: WebSocketConnection, state: str) -> dict[str, Any]:
    """The next `status` that says so."""
    with trio.fail_after(SOON_S):
        while True:
            message: dict[str, Any] = json.loads(await client.get_message())
            if message["type"] == "status" and message["state"] == state:
                return message


async def get(port: int, path: str) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answered: dict[str, Any] = (await http.get(f"http://127.0.0.1:{port}{path}")).json()
        return answered


async def test_whoever_listens_to_a_venue_that_falls_silent_is_told_within_a_second_and_so_is_whoever_asks() -> None:
    simulator = Simulator(okx_rate=10.0)
    async with running(simulator) as port, open_websocket_url(f"ws://127.0.0.1:{port}/ws") as client:
        await client.send_message('{"type":"subscribe","channels":["bitcoinprice"]}')
        await status(client, "live")
        simulator.mute_okx = True
        mute_s = trio.current_time()
        told = await status(client, "stale")
        assert STALE_AFTER_S - 0.2 <= trio.current_time() - mute_s <= STALE_AFTER_S + 1.0
        assert told["reason"].startswith("no message for ")
        assert told["reason"].endswith(" s, over the limit of 1.5 s")
        assert (await get(port, "/readyz"))["stale"] == {"bitcoinprice": told["reason"]}
        states = {channel["name"]: channel["state"] for channel in (await get(port, "/channels"))["channels"]}
        assert {name for name, state in states.items() if state == "stale"} == {"bitcoinprice"}
        simulator.mute_okx = False
        talks_s = trio.current_time()
        assert "reason" not in await status(client, "live")
        assert trio.current_time() - talks_s <= 1.0
        newest, *_ = (await get(port, "/gaps?channel=bitcoinprice"))["gaps"]
        assert (newest["cause"], newest["reason"]) == ("stale", told["reason"])
        assert STALE_AFTER_S <= newest["duration_s"] <= STALE_AFTER_S + 3
