"""The whole daemon before several simulated venues: all their channels, and the best bid and ask over all of them."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from connectors.simulator.faults.orders import read_order
from connectors.simulator.simulator import Simulator
from daemon.app import Daemon
from daemon.commands.demo import presets, simulator_config
from daemon.config.load import parse
from daemon.config.presets import preset_channels

SOON_S = 30.0
BTC = "BTC/USDT"


@asynccontextmanager
async def running(simulator: Simulator) -> AsyncIterator[int]:
    """The port of a daemon with all presets, whose venues that simulator is."""
    [venues] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    text = simulator_config("127.0.0.1", venues.socket.getsockname()[1], presets=presets())
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(simulator.run, [venues])
        await Daemon(parse(text, {}, "the test")).start(nursery, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel(reason="the test is over")


async def until(client: WebSocketConnection, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first message of which this holds."""
    with trio.fail_after(SOON_S):
        while True:
            message: dict[str, Any] = json.loads(await client.get_message())
            if holds(message):
                return message


def counting(message: dict[str, Any]) -> dict[str, bool]:
    """By venue whether it counts; nothing of another message."""
    if message["type"] != "consolidated_quote" or message["instrument"] != BTC:
        return {}
    return {each["exchange"]: each["counts"] for each in message["data"]["venues"]}


async def test_every_channel_of_every_preset_is_live() -> None:
    names = set(preset_channels(presets()))
    async with running(Simulator(seed=1)) as port, httpx.AsyncClient(trust_env=False) as http:
        with trio.fail_after(SOON_S):
            while True:
                listed = (await http.get(f"http://127.0.0.1:{port}/channels")).json()["channels"]
                if all(each["state"] == "live" for each in listed):
                    break
                await trio.sleep(0.1)
        assert {each["name"] for each in listed} == names
        assert {"okx_trades", "kraken_depth", "market_quotes"} <= names
        snapshot = (await http.get(f"http://127.0.0.1:{port}/snapshot/market_quotes?instrument={BTC}")).json()
        [message] = snapshot["messages"]
        assert len(message["data"]["venues"]) >= 3
        metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        assert 'tickerd_channel_state{channel="market_quotes",state="live"} 1.0' in metrics


async def test_a_venue_whose_link_is_lost_does_not_count_until_it_speaks_again() -> None:
    simulator = Simulator(seed=1)
    async with running(simulator) as port, open_websocket_url(f"ws://127.0.0.1:{port}/ws") as client:
        await client.send_message(
            json.dumps({"type": "subscribe", "channels": ["market_quotes"], "instruments": [BTC]})
        )
        await until(client, lambda message: counting(message) != {} and all(counting(message).values()))
        simulator.order(read_order({"fault": "disconnect", "venue": "okx"}))
        without = await until(client, lambda message: counting(message).get("okx") is False)
        assert "okx" not in (without["bid_exchange"], without["ask_exchange"])
        [okx] = [each for each in without["data"]["venues"] if each["exchange"] == "okx"]
        assert okx["reason"]
        assert sum(counting(without).values()) == len(counting(without)) - 1
        await until(client, lambda message: counting(message).get("okx") is True)
