"""The connections by which a venue is polled: httpcore's, with a bound for what is no part of a body.

httpcore (1.0) waits for the end of an answer's head, through any number of informational ones (RFC 9110 section 15.2),
and reads 64 KiB at once; h11 (0.16) then looks at all of it in one step. A deadline alone lets a venue keep the event
loop busy until then. So whatever comes before a body, between its pieces and behind it (the chunks' sizes and
extensions, trailing headers; RFC 9112 section 7.1) is counted as it is read, and each piece of a body that was seen
ends the count.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import Final

import httpcore

from connectors.base import VenueUnavailable

MOST_UNSEEN_BYTES: Final = 32 * 1024
"""So much may be read without a piece of a body among it. Venues' heads have 1 to 4 KiB."""

_HEAD_BYTES: Final = 4 * 1024
_BODY_BYTES: Final = 16 * 1024
"""How much is read at once, before the first piece of a body and later: what is looked at in one step."""


class Wire(httpcore.AsyncNetworkStream):
    """A connection that counts what is read of an answer until a piece of its body is seen."""

    def __init__(self, venue: str, stream: httpcore.AsyncNetworkStream) -> None:
        """`venue` is its name in errors."""
        self._venue = venue
        self._stream = stream
        self._unseen_bytes = 0
        self._at_once = _HEAD_BYTES

    def seen(self) -> None:
        """A piece of the body has come out of what was read."""
        self._unseen_bytes = 0
        self._at_once = _BODY_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        """The next bytes; b"" at the end. If cancelled, none is lost.

        Raises:
            VenueUnavailable: too much was read in which there is no body.
            httpcore.ReadError, httpcore.ReadTimeout: the connection broke, or nothing came.
        """
        left = MOST_UNSEEN_BYTES - self._unseen_bytes
        if left <= 0:
            raise VenueUnavailable(f"{self._venue} sent more than {MOST_UNSEEN_BYTES} bytes that are no part of a body")
        data = await self._stream.read(min(max_bytes, self._at_once, left), timeout)
        self._unseen_bytes += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        """Send a request, or a part of it: what comes now is the answer to it. Raises: as httpcore says."""
        self._unseen_bytes = 0
        self._at_once = _HEAD_BYTES
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection, also when cancelled."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        """The same connection, encrypted. Raises: as httpcore says."""
        return Wire(self._venue, await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        """As the stream below."""
        return self._stream.get_extra_info(info)


class Counted(httpcore.AsyncNetworkBackend):
    """A network whose connections are each a `Wire`."""

    def __init__(self, venue: str, network: httpcore.AsyncNetworkBackend) -> None:
        """`venue` is its name in errors; `network` opens the connections."""
        self._venue = venue
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection. Raises: as the network below."""
        stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        return Wire(self._venue, stream)


def seen(extensions: Mapping[str, object]) -> None:
    """Note that a piece of the body has come of the answer that httpx gave these extensions."""
    wire = extensions.get("network_stream")
    if isinstance(wire, Wire):
        wire.seen()
