"""Polls through a real proxy on loopback: connections that are kept, and whose failure is told of whom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpcore
import pytest
import trio

from connectors.base import ConnectorError, ProxyUnavailable, VenueClosed, VenueTimeout, VenueUnavailable
from connectors.network.tunnel import tunnel_through
from connectors.poll.host import Host
from connectors.poll.poller import Poller
from connectors.poll.tunnelled import TunnelBackend
from tests.connectors.network.proxies import SHUT, Answer, ProxyServer, running, says_nothing
from tests.connectors.poll.test_poller import Plain, World, channel

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"


class Acme:
    """A venue over a real socket: what it answers to each request, one after another, and how often it was asked."""

    def __init__(self, *answers: bytes, then: Answer | None = None) -> None:
        self.answers = list(answers)
        self.then = then
        self.heads: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        with suppress(*SHUT):
            while True:
                head = await stream.receive_some(65_536)
                if not head:
                    return
                self.heads.append(bytes(head))
                await stream.send_all(self.answers.pop(0) if self.answers else OK)
                if not self.answers and self.then is not None:
                    await self.then(stream)
                    return


@asynccontextmanager
async def behind(acme: Acme, proxy: ProxyServer | None = None) -> AsyncIterator[tuple[ProxyServer, str]]:
    """The venue, and a proxy that leads to it; the proxy's URL."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, acme.serve, 0, host="127.0.0.1"))
        proxy = proxy or ProxyServer(listener.socket.getsockname()[1])
        async with running(proxy) as where:
            yield proxy, f"http://{where}"
        nursery.cancel_scope.cancel()


def poller(proxy: str, timeout_s: float = 20.0, cadence_s: float = 0.05) -> Poller:
    host = Host("Acme", "http://acme.test/root", timeout_s=timeout_s, user_agent="tickerd/1", proxy=proxy)
    return Poller(channel(cadence_s=cadence_s), Plain(), host)


async def failure(one: Poller) -> ConnectorError:
    with pytest.raises(ConnectorError) as raised:
        await one.run(World())
    return raised.value


async def test_many_polls_take_one_tunnel() -> None:
    acme = Acme()
    async with behind(acme) as (proxy, url), trio.open_nursery() as nursery:
        nursery.start_soon(poller(url).run, World())
        with trio.fail_after(20):
            while len(acme.heads) < 5:  # noqa: ASYNC110 - the venue of this test tells no event
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert proxy.asked == [("acme.test", 80)]
    assert acme.heads[0].startswith(b"GET /root/a HTTP/1.1\r\nHost: acme.test\r\n")


async def test_a_tunnel_that_has_ended_meanwhile_is_made_anew() -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.aclose()

    world = World()
    async with behind(Acme(OK, then=hang_up)) as (proxy, url), trio.open_nursery() as nursery:
        nursery.start_soon(poller(url, cadence_s=0.3).run, world)
        with trio.fail_after(20):
            while len(proxy.asked) < 3:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert len(world.events) >= 2


async def test_a_mute_proxy_is_named_and_not_the_venue() -> None:
    async with behind(Acme(), ProxyServer(1, fault=says_nothing)) as (_, url):
        error = await failure(poller(url, timeout_s=0.5))
    assert isinstance(error, ProxyUnavailable)
    assert str(error) == f"the proxy {url} did not open a way to acme.test within 0.4 s"


async def test_what_breaks_in_an_open_tunnel_is_told_of_both() -> None:
    async with behind(Acme(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", then=says_nothing)) as (_, url):
        error = await failure(poller(url, timeout_s=3))
    assert (type(error), str(error)) == (VenueTimeout, f"Acme did not answer within 3 s (through the proxy {url})")

    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.aclose()

    async with behind(Acme(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", then=hang_up)) as (_, url):
        error = await failure(poller(url))
    assert type(error) is VenueClosed
    assert str(error) == f"Acme broke off before its answer was complete (through the proxy {url})"


async def test_an_answer_of_the_venues_is_the_venues() -> None:
    async with behind(Acme(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")) as (_, url):
        error = await failure(poller(url))
    assert (type(error), str(error)) == (VenueUnavailable, "HTTP 502")


async def test_an_endless_body_is_cut_off_there_too() -> None:
    async def more(stream: trio.abc.Stream) -> None:
        while True:
            await stream.send_all(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with behind(Acme(head, then=more)) as (_, url):
        error = await failure(poller(url))
    assert "more than 1048576 bytes" in str(error)


async def test_a_stream_that_is_gone_is_told_in_httpcores_words() -> None:
    async with behind(Acme()) as (_, url):
        tunnel = tunnel_through(url)
        assert tunnel is not None
        stream = await TunnelBackend(tunnel, 20.0).connect_tcp("acme.test", 80)
        assert stream.get_extra_info("is_readable") is False
        assert stream.get_extra_info("ssl_object") is None
        await stream.write(b"")
        await stream.aclose()
        with pytest.raises(httpcore.ReadError):
            await stream.read(1)
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"x")
