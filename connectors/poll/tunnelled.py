"""How httpcore, which httpx is made of, gets to a venue through a tunnel: a network of its own."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore
import trio

from connectors.network.tunnel import Tunnel

_CONNECTING: Final = 0.8
"""The share of an answer's time that the tunnel may take: whoever used it up is named before all of it is over."""


class TunnelBackend(httpcore.AsyncNetworkBackend):
    """Connects through the tunnel. What fails there is raised as a `ConnectorError`, and comes out as it is."""

    def __init__(self, tunnel: Tunnel, timeout_s: float) -> None:
        """`timeout_s` is for all of an answer."""
        self._tunnel = tunnel
        self._timeout_s = timeout_s * _CONNECTING

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A stream to the host."""
        deadline_s = trio.current_time() + self._timeout_s
        stream = await self._tunnel.open(host, port, timeout_s=self._timeout_s)
        return _Stream(stream, self._tunnel, deadline_s)


class _Stream(httpcore.AsyncNetworkStream):
    """A stream of trio's, as httpcore wants it. Deadlines are the poller's, which has one for all of an answer."""

    def __init__(self, stream: trio.abc.Stream, tunnel: Tunnel, deadline_s: float) -> None:
        self._stream = stream
        self._tunnel = tunnel
        self._deadline_s = deadline_s

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        if not buffer:
            return
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        left_s = max(0.0, self._deadline_s - trio.current_time())
        stream = await self._tunnel.secure(self._stream, server_hostname or "", ssl_context, timeout_s=left_s)
        return _Stream(stream, self._tunnel, self._deadline_s)

    def get_extra_info(self, info: str) -> bool | None:
        """Whether something came: on an idle connection, that it has ended. Nothing else is asked of it here."""
        if info != "is_readable":
            return None
        stream = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return isinstance(stream, trio.SocketStream) and stream.socket.is_readable()
