"""A websocket client made by hand over a trio socket: cheap, and able to do what a client library would not do."""

from __future__ import annotations

import base64
import random
import socket
import struct
from typing import Final

import trio

from tests.soak.record import Format

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

TINY_BYTES: Final = 16_384
"""A receive buffer that makes its client slow. With much less the kernel throws away what it had room for a moment ago
(TCPRcvQDrop in /proc/net/netstat), so that all of it would be about retransmissions."""

_WIDE_BYTES: Final = 262_144
_RECEIVE_BYTES: Final = 65_536
_SEND_S: Final = 5.0


class EndedError(Exception):
    """The connection has ended: `code` is that of the peer's close frame, 0 without one."""

    def __init__(self, code: int = 0, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def frame(opcode: int, payload: bytes, mask: bytes, first: int = 0x80) -> bytes:
    """One client frame (RFC 6455 section 5.2). `first` are the bits beside the opcode: FIN, and reserved ones."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first | opcode, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first | opcode, 0x80 | 127, size)
    key = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


class Connection:
    """One connection, from the handshake on.

    Raises:
        EndedError: By every method but `close`, once the connection has ended.
    """

    def __init__(self, raw: trio.socket.SocketType, dice: random.Random, format: Format) -> None:
        self.format = format
        self.local_port: int = raw.getsockname()[1]
        self._raw = raw
        self._dice = dice
        self._have = b""
        self._pings = 0

    @classmethod
    async def open(cls, port: int, dice: random.Random, format: Format, *, tiny: bool) -> Connection:
        """Connect and shake hands. Raises: EndedError, OSError."""
        raw = trio.socket.socket()
        try:
            if tiny:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_BYTES)
            await raw.connect(("127.0.0.1", port))
            connection = cls(raw, dice, format)
            await connection.send(request(port, dice, format))
            while b"\r\n\r\n" not in connection._have:
                connection._have += await connection._receive()
            head, _, connection._have = connection._have.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                raise EndedError(0, head.partition(b"\r\n")[0].decode(errors="replace"))
        except BaseException:
            raw.close()
            raise
        return connection

    async def _receive(self) -> bytes:
        try:
            data = await self._raw.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise EndedError(0, str(error)) from None
        if not data:
            raise EndedError
        return data

    async def receive(self) -> list[bytes]:
        """The messages that have come; pings are answered. If cancelled, nothing is lost."""
        while True:
            while self._pings:
                self._pings -= 1
                await self.send_frame(PONG, b"")
            messages, end = self._take()
            if messages:
                return messages
            if end is not None:
                await self.send_frame(CLOSE, struct.pack("!H", end.code) if end.code != 1005 else b"")
                raise end
            if not self._pings:
                self._have += await self._receive()

    def _take(self) -> tuple[list[bytes], EndedError | None]:
        """The payloads of whole messages out of what has come; and the close, which stays where it is."""
        have, at, found = self._have, 0, list[bytes]()
        end: EndedError | None = None
        while len(have) - at >= 2:
            opcode, size, start = have[at] & 0x0F, have[at + 1], at + 2
            if size == 126:
                start += 2
                size = int.from_bytes(have[at + 2 : start]) if len(have) >= start else len(have)
            elif size == 127:
                start += 8
                size = int.from_bytes(have[at + 2 : start]) if len(have) >= start else len(have)
            if len(have) < start + size:
                break
            payload = have[start : start + size]
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2]) if size >= 2 else 1005
                end = EndedError(code, payload[2:].decode(errors="replace"))
                break
            if opcode in (TEXT, BINARY):
                found.append(payload)
            elif opcode == PING:
                self._pings += 1
            at = start + size
        self._have = have[at:]
        return found, end

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        with trio.move_on_after(_SEND_S):
            view = memoryview(data)
            try:
                while view:
                    view = view[await self._raw.send(view) :]
            except OSError as error:
                raise EndedError(0, str(error)) from None
            return
        raise EndedError(0, f"the daemon took nothing for {_SEND_S:g} s")

    async def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send one frame."""
        await self.send(frame(opcode, payload, self._dice.randbytes(4)))

    async def send_message(self, payload: bytes) -> None:
        """Send one message as this connection's format wants it."""
        await self.send_frame(TEXT if self.format == "json" else BINARY, payload)

    def widen(self) -> None:
        """Take more at once from now on."""
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WIDE_BYTES)

    def half_close(self) -> None:
        """Say that nothing more will be sent, and nothing else."""
        try:
            self._raw.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise EndedError(0, str(error)) from None

    def reset(self) -> None:
        """Have the close tear the connection down (RST) rather than end it."""
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Close it at once."""
        self._raw.close()


def request(port: int, dice: random.Random, format: Format) -> bytes:
    """The opening handshake."""
    key = base64.b64encode(dice.randbytes(16)).decode()
    return (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: tickerd.v1.{format}\r\n\r\n"
    ).encode()
