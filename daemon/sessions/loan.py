"""What trio-websocket is handed of a client's stream: everything but closing it.

trio-websocket closes in two ways that will not do (0.12.2): over a violation of the protocol at once, without the close
frame that RFC 6455 section 7.1.7 asks for; and before the session knows of it, while the hub may still write to the
file descriptor, whose number the next client may have by then. So it has the stream on loan.
"""

from __future__ import annotations

from typing import Final

import trio

from daemon.sessions.stream import ClientStream

_CLOSE_FRAME: Final = b"\x88"
"""How a close frame begins (RFC 6455 section 5.2). No data may follow it (section 5.5.1)."""


class Loan(trio.abc.Stream):
    """A client's stream as trio-websocket has it: closing is the session's business."""

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream
        self._returned = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `ClientStream.send_all`; trio-websocket hands over one frame at a time, a close frame as it should be."""
        await self._check()
        if data[:1] == _CLOSE_FRAME:
            await self._stream.send_close(bytes(data))
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As `ClientStream.wait_send_all_might_not_block`."""
        await self._check()
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `ClientStream.receive_some`."""
        await self._check()
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Give it back. Nothing is closed."""
        self._returned = True
        await trio.lowlevel.checkpoint()

    async def _check(self) -> None:
        if self._returned:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
