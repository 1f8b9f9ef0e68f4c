"""Asking an HTTP proxy for a tunnel: `CONNECT` (RFC 9110 section 9.3.6), on a stream that leads to it."""

from __future__ import annotations

import base64
import time
from typing import Final

import h11
import trio

from connectors.backoff import retry_after_s
from connectors.base import ConnectorError, ProxyRefused, ProxyUnavailable
from connectors.limits.payload import brief
from connectors.network.proxy import Proxy, bracketed

_MOST_BYTES: Final = 64 * 1024
"""Of all that a proxy says before the tunnel is there."""

_PASSING: Final = frozenset({408, 425, 429})
"""Client errors (RFC 9110 section 15.5) that may be gone in a moment."""


async def ask_for_tunnel(stream: trio.abc.Stream, proxy: Proxy, host: str, port: int) -> None:
    """Make the stream lead to the host. After an error, or cancelled, it is of no use any more.

    Raises:
        ProxyRefused: the proxy does not want to.
        ProxyUnavailable: it cannot, or says what it should not.
        trio.BrokenResourceError: it broke off.
    """
    ours = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_BYTES)
    authority = f"{bracketed(host)}:{port}"
    headers = [("Host", authority)]
    if proxy.user:
        # RFC 7617 section 2.1 has UTF-8 for what is not ASCII.
        secret = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {secret}"))
    request = h11.Request(method="CONNECT", target=authority, headers=headers)
    await stream.send_all((ours.send(request) or b"") + (ours.send(h11.EndOfMessage()) or b""))
    response = await _answer(stream, ours, proxy)
    if response.status_code // 100 != 2:
        raise _refusal(proxy, authority, response)
    # Whoever is behind the tunnel waits for us to begin.
    if ours.trailing_data[0]:
        raise ProxyUnavailable(f"the proxy {proxy} sent something behind its answer")


async def _answer(stream: trio.abc.Stream, ours: h11.Connection, proxy: Proxy) -> h11.Response:
    came_bytes, start = 0, b""
    while True:
        try:
            event = ours.next_event()
            while event is h11.NEED_DATA:
                data = await stream.receive_some(_MOST_BYTES)
                came_bytes += len(data)
                if not data:
                    raise ProxyUnavailable(f"the proxy {proxy} hung up before it answered")
                if came_bytes > _MOST_BYTES:
                    raise ProxyUnavailable(f"the proxy {proxy} sent more than {_MOST_BYTES} bytes before a tunnel")
                start = (start + data)[:5]
                if not b"HTTP/".startswith(start):
                    # At once: another protocol may wait for ever for what would be next in it.
                    raise ProxyUnavailable(f"the proxy {proxy} does not speak HTTP")
                ours.receive_data(bytes(data))
                event = ours.next_event()
        except h11.RemoteProtocolError as error:
            raise ProxyUnavailable(f"the proxy {proxy} does not speak HTTP") from error
        if isinstance(event, h11.Response):
            return event


def _refusal(proxy: Proxy, authority: str, response: h11.Response) -> ConnectorError:
    """The answer in words."""
    status = response.status_code
    said = f"HTTP {status} {brief(response.reason.decode('latin-1'))}".rstrip()
    # 401 is what tinyproxy 1.11 says of a wrong password.
    if status == 407 or (status == 401 and proxy.user):
        return ProxyRefused(f"{_asks_who(proxy, response)}: {said}")
    if 400 <= status < 500 and status not in _PASSING:
        return ProxyRefused(f"the proxy {proxy} does not let us through to {authority}: {said}")
    asked = next((value for name, value in response.headers if name == b"retry-after"), b"").decode("latin-1")
    wait_s = retry_after_s(asked, time.time_ns() // 1_000_000)
    return ProxyUnavailable(f"the proxy {proxy} did not get through to {authority}: {said}", retry_after_s=wait_s)


def _asks_who(proxy: Proxy, response: h11.Response) -> str:
    challenges = [value.decode("latin-1") for name, value in response.headers if name == b"proxy-authenticate"]
    schemes = [brief(challenge).partition(" ")[0].rstrip(",") for challenge in challenges]
    if schemes and not any("basic" in challenge.lower() for challenge in challenges):
        return f"the proxy {proxy} wants us to log in by {', '.join(schemes)}, of which we can only Basic"
    if not proxy.user:
        return f"the proxy {proxy} wants a user and a password"
    return f"the proxy {proxy} does not accept our user and password"
