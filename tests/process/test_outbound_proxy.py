"""A daemon in a network that lets nobody out but through a proxy: as it comes, told only where the proxy is.

The venues' own names and TLS are asked of a proxy on loopback; whatever it is asked for, it leads to the simulated
venues, behind TLS with a certificate of an authority that only `SSL_CERT_FILE` knows.
"""

import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.connectors.network.proxies import SHUT, ProxyServer, hangs_up, running
from tests.process.running import Process, tickerd, wait_ready

HOSTS = ("data-api.binance.vision", "ws.okx.com", "openapi.okx.com", "api.coingecko.com")
SECRET = "hush-hush"
WITHIN_S = 60.0


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for all of the venues, which is its own authority, and its key."""
    pem, key = tmp_path / "venues.pem", tmp_path / "venues.key"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=venues -nodes"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    command = ["openssl", *made.split(), "-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
    return pem, key


@asynccontextmanager
async def venues(certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """The simulated venues behind TLS; the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with tickerd("simulate", "--port", "0") as simulator:
        port = await trio.to_thread.run_sync(lambda: simulator.port)

        async def serve(stream: trio.SocketStream) -> None:
            inner = ProxyServer(port)
            with suppress(*SHUT):
                await inner.join(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def asked(port: int, path: str) -> str:
    return (await trio.to_thread.run_sync(partial(httpx.get, f"http://127.0.0.1:{port}{path}", trust_env=False))).text


async def until(port: int, holds: Callable[[dict[str, dict[str, Any]]], bool]) -> None:
    """Until it holds of the channels, by name."""
    channels: list[dict[str, Any]] = []
    with trio.move_on_after(WITHIN_S):
        while True:
            channels = httpx.Response(200, text=await asked(port, "/channels")).json()["channels"]
            if holds({channel["name"]: channel for channel in channels}):
                return
            await trio.sleep(0.1)
    raise AssertionError(channels)


def daemon(proxy: str, certificate: tuple[Path, Path], **more: str) -> Any:
    environ = {
        "TICKERD_SERVER__PORT": "0",
        "TICKERD_LOG__LEVEL": "debug",
        "SSL_CERT_FILE": str(certificate[0]),
        "HTTPS_PROXY": proxy,
        **{name: "" for name in ("https_proxy", "all_proxy", "no_proxy") if name in os.environ},
        **{f"TICKERD_CHANNELS__BINANCE_{kind}__CADENCE_S": "1" for kind in ("PRICES", "ORDERBOOK", "24HR")},
        **more,
    }
    return tickerd("run", environ=environ)


async def ready(process: Process) -> int:
    port = await trio.to_thread.run_sync(lambda: process.port)
    await trio.to_thread.run_sync(partial(wait_ready, port, WITHIN_S))
    return port


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_every_venue_is_reached_by_the_proxy_of_the_environment(
    certificate: tuple[Path, Path], scheme: str
) -> None:
    async with venues(certificate) as target:
        proxy = ProxyServer(target, user="user", password=SECRET)
        async with running(proxy, socks=scheme != "http") as where:
            shown = f"{scheme}://{where}"
            with daemon(f"{scheme}://user:{SECRET}@{where}", certificate) as process:
                port = await ready(process)
                assert set(proxy.asked) == {(host, 443) for host in HOSTS}
                proxy.fault = hangs_up
                await proxy.cut()
                await until(
                    port,
                    lambda channels: all(
                        str(channels[name].get("reason", "")).startswith(f"the proxy {shown} hung up")
                        for name in ("bitcoinprice", "binance_prices")
                    ),
                )
                metrics = await asked(port, "/metrics")
                for name in ("okx", "binance_prices"):
                    assert f'tickerd_connector_failures_total{{cause="proxy",connector="{name}"}} 0.0' not in metrics
                    assert f'tickerd_connector_failures_total{{cause="proxy",connector="{name}"}} ' in metrics
                answers = "".join([metrics, *[await asked(port, path) for path in ("/channels", "/gaps", "/readyz")]])
                proxy.fault = None
                await until(
                    port,
                    lambda channels: all(channels[name]["state"] == "live" for name in ("ethprice", "binance_24hr")),
                )
                assert await trio.to_thread.run_sync(process.stop) == 0
            for title in ("Binance", "OKX", "CoinGecko"):
                assert any(
                    line.endswith(f"{title} is reached through the proxy {shown} (HTTPS_PROXY)")
                    for line in process.lines
                )
            assert SECRET not in "\n".join([answers, *process.lines])


async def test_a_wrong_password_is_told_of_the_proxy_and_a_venue_without_one_goes_straight(
    certificate: tuple[Path, Path],
) -> None:
    async with venues(certificate) as target:
        proxy = ProxyServer(target, user="user", password="right")
        async with running(proxy) as where:
            url = f"http://user:{SECRET}@{where}"
            straight = {"TICKERD_CONNECTORS__COINGECKO__ENABLED": "false", "TICKERD_CONNECTORS__BINANCE__PROXY": ""}
            away = {"TICKERD_CONNECTORS__BINANCE__BASE_URL": "https://127.0.0.1:1"}
            with daemon(url, certificate, **straight, **away) as process:
                port = await trio.to_thread.run_sync(lambda: process.port)
                reason = f"the proxy http://{where} does not accept our user and password: HTTP 407"
                await until(
                    port,
                    lambda channels: (
                        str(channels["ethprice"].get("reason", "")).startswith(reason)
                        and str(channels["binance_prices"].get("reason", "")).startswith("Binance cannot be reached")
                    ),
                )
                assert await trio.to_thread.run_sync(process.stop) == 0
            assert proxy.asked == []
            assert SECRET not in "\n".join(process.lines)
