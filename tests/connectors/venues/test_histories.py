"""The venues' histories, by their rows of the registry: which channels have one, and where it is asked for."""

from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from connectors.poll.past_candles import PastCandles, among
from connectors.venues.registry import VENUES, Venue
from protocol.channels import Channel
from protocol.kinds import KINDS
from tests.connectors.poll.test_poller import World

CANDLES = [name for name, venue in VENUES.items() if "candles" in venue.kinds]
HOSTS = {
    "binance": "data-api.binance.vision",
    "okx": "openapi.okx.com",
    "coinbase": "api.coinbase.com",
    "kraken": "api.kraken.com",
    "bybit": "api.bybit.com",
}


def history(venue: Venue[Any], *kinds: str, **settings: object) -> PastCandles | None:
    channels = [
        Channel(
            name=f"c_{kind}",
            exchange=venue.name,
            kind=KINDS[kind],
            instruments=("BTC/USDT",),
            interval=venue.usual_interval,
        )
        for kind in kinds
    ]
    return among(venue.build(channels, venue.settings(**{"proxy": "", **settings}), "tickerd/test"))


@pytest.mark.parametrize("name", CANDLES)
def test_whoever_has_candles_has_a_history_and_else_there_is_none(name: str) -> None:
    assert isinstance(history(VENUES[name], "candles"), PastCandles)
    assert history(VENUES[name], "trades") is None
    assert history(VENUES[name]) is None


@pytest.mark.parametrize("name", CANDLES)
async def test_it_is_asked_at_the_venues_own_rest_interface(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[httpx.Request] = []

    async def answer(_: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        asked.append(request)
        return httpx.Response(500, stream=httpx.ByteStream(b""))

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    past = history(VENUES[name], "candles")
    assert past is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(past.run, World())
        await trio.testing.wait_all_tasks_blocked()
        found = await past.get("BTC/USDT", VENUES[name].usual_interval, [(1_765_211_400_000, 1_765_211_700_000)])
        nursery.cancel_scope.cancel()
    assert found.reason
    if name != "kraken":  # that goes back 720 candles and no further
        assert [(each.url.scheme, each.url.host) for each in asked] == [("https", HOSTS[name])]


@pytest.mark.parametrize("name", CANDLES)
def test_it_goes_by_the_venues_proxy(name: str) -> None:
    past = history(VENUES[name], "candles", proxy="http://127.0.0.1:3128")
    assert past is not None
    assert past._fetcher._host.tunnel is not None
    direct = history(VENUES[name], "candles")
    assert direct is not None
    assert direct._fetcher._host.tunnel is None


def test_binances_shares_the_gate_with_all_that_ask_its_rest_interface() -> None:
    channels = [
        Channel(
            name=kind,
            exchange="binance",
            kind=KINDS[kind],
            instruments=("BTC/USDT",),
            cadence_s=10.0 if kind == "prices" else None,
        )
        for kind in ("prices", "candles")
    ]
    made = VENUES["binance"].build(channels, VENUES["binance"].settings(proxy=""), "tickerd/test")
    past = among(made)
    assert past is not None
    assert past._gate is made[0]._host.gate  # type: ignore[attr-defined]
