"""TLS on one accepted connection, in a form that can be written to without waiting.

trio's own `SSLStream` can only be written to by a task that waits, so the fan-out would have to wake a task for every
client and message. This stream does the same with the same means, an `ssl.SSLObject` between two `ssl.MemoryBIO`s, and
shows the step in the middle: `encrypt` makes records of bytes, at once, and whoever calls it writes them to the socket.

Records must reach the socket whole and in the order in which they were made. Before the stream is handed to a client's
session `send_all` sees to that; from then on `daemon.sessions.stream` does, and nothing else writes.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from typing import Final

import trio

RECORD_BYTES: Final = 16 * 1024
"""The most plaintext that one record holds (RFC 8446 section 5.1)."""

_RECEIVE_BYTES: Final = 16 * 1024


class TlsStream(trio.abc.Stream):
    """The server's side of a TLS connection.

    As browsers do, it takes the end of the connection for the end of the stream, whether the peer has signed it with
    `close_notify` or not: what it carries has lengths of its own.

    Attributes:
        transport_stream: what it runs over.
    """

    def __init__(self, transport: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.transport_stream = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = b""
        self._sending = self._receiving = self._closed = False

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Records that carry these bytes, behind what TLS itself has to say; they must all be written, in order.

        Raises: ssl.SSLError, where the connection is in no state for that.
        """
        left = memoryview(data)
        while left:
            left = left[self._tls.write(left) :]
        return self._outgoing.read()

    async def do_handshake(self) -> None:
        """Agree on keys. If cancelled, or where it fails, the stream is unusable.

        Raises:
            trio.BrokenResourceError: the peer went, or speaks something else; it has been sent an alert where possible.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_made()
                if not await self._fill():
                    raise trio.BrokenResourceError("the peer went during the TLS handshake") from None
            except ssl.SSLError as error:
                with suppress(OSError):
                    _write(self.transport_stream, self._outgoing.read())  # the alert; a full socket does without
                raise trio.BrokenResourceError(f"the TLS handshake failed: {error}") from error
            else:
                await self._send_made()
                return

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`. If cancelled, what could not be written goes out before anything else does."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._unsent += self.encrypt(bytes(data))
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(str(error)) from error
        await self._send_made()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await self.transport_stream.wait_send_all_might_not_block()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`. What TLS has to answer to what came goes out before the next bytes do."""
        if max_bytes is not None and max_bytes < 1:
            await trio.lowlevel.checkpoint()
            raise ValueError(f"max_bytes is {max_bytes}; at least 1 is allowed")
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                try:
                    return self._tls.read(max_bytes or _RECEIVE_BYTES)
                except ssl.SSLWantReadError:
                    await self._fill()
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
                except ssl.SSLError as error:
                    raise trio.BrokenResourceError(f"what came is no TLS: {error}") from error
        finally:
            self._receiving = False

    async def unwrap(self) -> None:
        """Sign the end of what is sent (RFC 8446 section 6.1), and wait for the peer's: under a deadline, please.

        To be called when everything has been written. Raises: as `receive_some` and `send_all`.
        """
        while True:
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                await self._send_made()
                if not await self._fill():
                    return
            except ssl.SSLError:  # the peer went on talking, or just went
                await self._send_made()
                return
            else:
                await self._send_made()
                return

    async def aclose(self) -> None:
        """Close the connection, unsigned, as trio's `SSLStream` does where it is told to be compatible with HTTPS."""
        self._closed = True
        await self.transport_stream.aclose()

    async def _fill(self) -> bool:
        """Take what the socket has. Returns False at its end."""
        data = await self.transport_stream.receive_some(_RECEIVE_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    async def _send_made(self) -> None:
        """Write everything that TLS has made. If cancelled, the rest stays for the next call."""
        self._sending = True
        try:
            self._unsent += self._outgoing.read()
            if not self._unsent:
                await trio.lowlevel.checkpoint()
            while self._unsent:
                await trio.lowlevel.wait_writable(self.transport_stream.socket)
                try:
                    written = _write(self.transport_stream, self._unsent)
                except OSError as error:
                    raise trio.BrokenResourceError(str(error)) from error
                self._unsent = self._unsent[written:]
        finally:
            self._sending = False


def _write(stream: trio.SocketStream, data: bytes) -> int:
    """What the socket takes now. Raises: OSError, where it is broken."""
    try:
        return os.write(stream.socket.fileno(), data)
    except BlockingIOError:
        return 0
