"""One connection of the load, and the bytes that a websocket client has to send (RFC 6455)."""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
from typing import Any, Final

import msgspec

PONG: Final = b"\x8a\x80\0\0\0\0"
"""RFC 6455 section 5.5.3: a pong may come unasked. Clients that are not parsed see no ping to answer."""


PING: Final = b"\x89\x80\0\0\0\0"

PONG_BYTE: Final = b"\x8a"
"""What a server's pong begins with (section 5.5.3)."""


class Client:
    """One connection. `have` is what is not a whole frame yet, `wire_bytes` what came, encrypted where it is."""

    __slots__ = ("bytes", "have", "sampled", "secret", "socket", "step", "wire_bytes")

    def __init__(self, connection: socket.socket, *, sampled: bool) -> None:
        self.socket = connection
        self.sampled = sampled
        self.have = b""
        self.bytes = 0
        self.wire_bytes = 0
        self.secret: Secret | None = None
        self.step = "connecting"

    def send(self, data: bytes) -> None:
        """Send a few bytes; over TLS, encrypted."""
        self.socket.send(data if self.secret is None else self.secret.encrypt(data))

    def receive(self, size: int) -> bytes | None:
        """What has come; b"" is the end. None where it says nothing yet. Raises: OSError."""
        data = self.socket.recv(size)
        self.wire_bytes += len(data)
        if self.secret is None or not data:
            return data
        return self.secret.decrypt(data) or None


class Secret:
    """TLS between two buffers in memory, so that it is known how many bytes came over the wire."""

    __slots__ = ("_incoming", "_outgoing", "_tls")

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        """Does the handshake on a connection that is open, and waits for it."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        connection.settimeout(30)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(self._outgoing.read())
                self._incoming.write(connection.recv(65536))
        connection.sendall(self._outgoing.read())
        connection.setblocking(False)

    def encrypt(self, data: bytes) -> bytes:
        """The records that carry this."""
        self._tls.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """What these bytes say, with those before."""
        self._incoming.write(data)
        parts = []
        try:
            while part := self._tls.read(65536):
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        return b"".join(parts)


def request(port: int, header: bytes = b"") -> bytes:
    """The opening handshake. `header` are more lines of it."""
    head = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
    return head.encode() + header + b"\r\n"


def subscription(channel: str, epoch: str = "", since: int = 0) -> bytes:
    """The frame that subscribes to one channel; with `epoch`, from that position of that tape on."""
    command: dict[str, Any] = {"type": "subscribe", "channels": [channel]}
    if epoch:
        command["since"] = {"epoch": epoch, "seq": since}
    body = msgspec.json.encode(command)
    # A mask of zeros leaves the payload as it is (section 5.3); lengths as of section 5.2.
    length = struct.pack("!B", 0x80 | len(body)) if len(body) < 126 else struct.pack("!BH", 0xFE, len(body))
    return b"\x81" + length + bytes(4) + body


def whole(data: bytes) -> bool:
    """Whether these bytes end where a frame ends."""
    at = 0
    while len(data) - at >= 4:
        length = data[at + 1]
        at += 4 + int.from_bytes(data[at + 2 : at + 4], "big") if length == 126 else 2 + length
    return at == len(data)


def unread(client: Client) -> int:
    """How many bytes wait in this socket's receive buffer (FIONREAD, tcp(7))."""
    answer = fcntl.ioctl(client.socket.fileno(), termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", answer)[0])
