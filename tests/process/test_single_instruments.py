"""The whole daemon before the simulated venues, of which one instrument is in trouble while the others go on."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from connectors.simulator.faults.orders import Clear, read_order
from connectors.simulator.simulator import Simulator
from daemon.app import Daemon
from daemon.commands.demo import simulator_config
from daemon.config.load import parse

SOON_S = 20.0
CHANNELS = """
[channels.binance_prices]
cadence_s = 0.5
[channels.binance_orderbook]
cadence_s = 0.5
[channels.majors]
connector = "okx"
instruments = ["BTC/USDT", "ETH/USDT", "XRP/USDT"]
stale_after_s = 1.5
"""


@asynccontextmanager
async def running(simulator: Simulator, more: str = "") -> AsyncIterator[int]:
    """The port of a daemon whose venues that simulator is."""
    [venues] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    text = simulator_config("127.0.0.1", venues.socket.getsockname()[1]) + CHANNELS + more
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(simulator.run, [venues])
        await Daemon(parse(text, {}, "the test")).start(nursery, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel(reason="the test is over")


async def until(
    client: WebSocketConnection, channel: str, topics: Mapping[str, str]
) -> tuple[dict[str, Any], set[str]]:
    """The `status` in which these instruments, and no others, have these causes; which had data until then."""
    heard: set[str] = set()
    with trio.fail_after(SOON_S):
        while True:
            message: dict[str, Any] = json.loads(await client.get_message())
            if message.get("connector_id") == channel:
                heard.add(message["instrument"])
            if message["type"] == "status" and message["channel"] == channel and message["state"] == "live":
                told = {name: how["cause"] for name, how in message.get("topics", {}).items()}
                if told == topics:
                    return message, heard


async def data_of(client: WebSocketConnection, channel: str, instruments: set[str]) -> None:
    """Returns when each of these has had a message."""
    heard: set[str] = set()
    with trio.fail_after(SOON_S):
        while not heard >= instruments:
            message = json.loads(await client.get_message())
            if message.get("connector_id") == channel:
                heard.add(message["instrument"])


@pytest.mark.parametrize(
    ("channel", "cause", "order"),
    [
        ("majors", "unreadable", {"fault": "bad_row", "venue": "okx", "instrument": "ETH/USDT", "what": "null"}),
        ("majors", "halted", {"fault": "halted", "venue": "okx", "instrument": "ETH/USDT"}),
        ("majors", "refused", {"fault": "delisted", "venue": "okx", "instrument": "ETH/USDT"}),
        ("majors", "silent", {"fault": "mute_instrument", "venue": "okx", "instrument": "ETH/USDT"}),
        ("binance_prices", "unreadable", {"fault": "bad_row", "venue": "binance", "instrument": "ETH/USDT"}),
        ("binance_prices", "silent", {"fault": "missing_row", "venue": "binance", "instrument": "ETH/USDT"}),
        ("binance_prices", "refused", {"fault": "delisted", "venue": "binance", "instrument": "ETH/USDT"}),
        ("binance_orderbook", "halted", {"fault": "halted", "venue": "binance", "instrument": "ETH/USDT"}),
    ],
)
async def test_one_instrument_in_trouble_is_told_by_name_while_the_others_of_its_channel_go_on(
    channel: str, cause: str, order: dict[str, str]
) -> None:
    simulator = Simulator(okx_rate=10.0)
    async with running(simulator) as port, open_websocket_url(f"ws://127.0.0.1:{port}/ws") as client:
        await client.send_message(msgspec.json.encode({"type": "subscribe", "channels": [channel]}).decode())
        await data_of(client, channel, {"BTC/USDT", "ETH/USDT"})
        simulator.order(read_order(order))
        told, _ = await until(client, channel, {"ETH/USDT": cause})
        assert told["reason"] == f"ETH/USDT: {told['topics']['ETH/USDT']['reason']}"
        async with httpx.AsyncClient(trust_env=False) as http:
            listed = (await http.get(f"http://127.0.0.1:{port}/channels")).json()["channels"]
            text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        [report] = [each for each in listed if each["name"] == channel]
        assert report["topics"]["ETH/USDT"]["cause"] == cause
        assert f'tickerd_topic_trouble{{cause="{cause}",channel="{channel}",instrument="ETH/USDT"' in text
        await data_of(client, channel, {"BTC/USDT"})
        if cause != "refused":
            # What is refused is asked for again after a minute.
            simulator.order(Clear())
            await data_of(client, channel, {"BTC/USDT", "ETH/USDT"})


async def test_an_instrument_that_a_venue_does_not_list_is_named_and_is_not_live() -> None:
    wrong = """
[channels.odd]
connector = "okx"
instruments = ["BTC/USDT", "币安人生/USDT"]
"""
    simulator = Simulator(seed=1)
    async with running(simulator, wrong) as port:
        async with open_websocket_url(f"ws://127.0.0.1:{port}/ws") as client:
            await client.send_message('{"type":"subscribe","channels":["odd"]}')
            status, _ = await until(client, "odd", {"币安人生/USDT": "refused"})
        told = status["topics"]["币安人生/USDT"]
        assert told["state"] == "down"
        async with httpx.AsyncClient() as http:
            with trio.fail_after(SOON_S):
                while True:
                    listing = (await http.get(f"http://127.0.0.1:{port}/channels")).json()["channels"]
                    [odd] = [one for one in listing if one["name"] == "odd"]
                    if odd["topics"]["币安人生/USDT"]["reason"] == "OKX does not list it":
                        break
                    await trio.sleep(0.1)
            metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
            assert 'tickerd_instruments_wrong{connector="okx-instruments"} 1.0' in metrics
            assert 'tickerd_instruments_wrong{connector="binance-instruments"} 0.0' in metrics
