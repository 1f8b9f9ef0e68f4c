"""How bytes of the simulated venues get onto the wire when that is to go wrong: late, slowly, in part, or never."""

from __future__ import annotations

import socket
import struct
from typing import Final

import trio

from connectors.simulator.http.request import Delivery

BLOCK_BYTES: Final = 64 * 1024
SLICE_S: Final = 0.05
"""A slow body comes in so many slices a second."""


class Wire(trio.abc.Stream):
    """A websocket's connection, which a fault can freeze or slow down.

    Attributes:
        frozen: Whether nothing is read or written any more.
        pause_s: If over 0, what is sent goes byte by byte with this pause in between.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.frozen = False
        self.pause_s = 0.0

    def freeze(self) -> None:
        """From now on nothing is read or written; calls wait until they are cancelled. There is no way back."""
        self.frozen = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As the stream below."""
        await self._wait_for_ever_if_frozen()
        data = bytes(await self._stream.receive_some(max_bytes))
        await self._wait_for_ever_if_frozen()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As the stream below, but slowly where `pause_s` says so, also where it changes half-way."""
        sent = 0
        while self.pause_s > 0 and sent < len(data):
            await self._wait_for_ever_if_frozen()
            await self._stream.send_all(data[sent : sent + 1])
            sent += 1
            await trio.sleep(self.pause_s)
        await self._wait_for_ever_if_frozen()
        await self._stream.send_all(data[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._wait_for_ever_if_frozen()
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below, frozen or not."""
        await self._stream.aclose()

    async def _wait_for_ever_if_frozen(self) -> None:
        if self.frozen:
            await trio.sleep_forever()


async def deliver(stream: trio.abc.Stream, head: bytes, body: bytes, how: Delivery) -> bool:
    """Write an answer as `how` says. Whether it went out whole, so that the connection can go on.

    Where it did not, the caller closes the connection; after a reset it is closed already.

    Raises:
        BrokenResourceError: The client has gone.
    """
    await trio.sleep(how.delay_s)
    if how.raw is not None:
        await stream.send_all(how.raw)
        return False
    if how.reset_after is not None:
        await stream.send_all((head + body)[: how.reset_after])
        await reset(stream)
        return False
    await stream.send_all(head)
    if how.endless:
        await _send_endlessly(stream, body, how.bytes_per_s)
    await _send_paced(stream, body, how.bytes_per_s)
    return how.missing_bytes == 0


async def reset(stream: trio.abc.Stream) -> None:
    """End a connection with a TCP RST; a stream that is no TCP socket is closed."""
    if isinstance(stream, trio.SocketStream):
        # Lingering for no time at all makes close() drop what is unsent and send RST (tcp(7), SO_LINGER).
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


async def _send_paced(stream: trio.abc.Stream, data: bytes, bytes_per_s: float | None) -> None:
    if bytes_per_s is None:
        await stream.send_all(data)
        return
    size = max(1, int(bytes_per_s * SLICE_S))
    for start in range(0, len(data), size):
        part = data[start : start + size]
        await stream.send_all(part)
        await trio.sleep(len(part) / bytes_per_s)


async def _send_endlessly(stream: trio.abc.Stream, body: bytes, bytes_per_s: float | None) -> None:
    """Chunks (RFC 9112 section 7.1) without end: the body but for its last byte, then blanks. Ends by an exception."""
    await stream.send_all(b"%x\r\n%b\r\n" % (len(body) - 1, body[:-1]))
    block = b"%x\r\n%b\r\n" % (BLOCK_BYTES, b" " * BLOCK_BYTES)
    while True:
        await _send_paced(stream, block, bytes_per_s)
