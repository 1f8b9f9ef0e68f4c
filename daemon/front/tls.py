"""TLS on one accepted connection, in a form that can be written to without waiting.

trio's own `SSLStream` can only be written to by a task that waits, so the fan-out would have to wake a task for every
client and message. This stream does the same with the same means, an `ssl.SSLObject` between two `ssl.MemoryBIO`s, and
shows the step in the middle: `encrypt` makes records of bytes, at once, and whoever calls it writes them to the socket.

Records must reach the socket whole and in the order in which they were made. Before the stream is handed to a client's
session `send_all` sees to that; from then on `daemon.sessions.stream` does, and nothing else writes.
"""

from __future__ import annotations

import math
import os
import ssl
from contextlib import suppress
from typing import Final

import trio

from daemon.front.openings import SHOWN_BYTES

RECORD_BYTES: Final = 16 * 1024
"""The most plaintext that one record holds (RFC 8446 section 5.1)."""

_RECEIVE_BYTES: Final = 16 * 1024

_WORDLESS_BYTES: Final = 64 * 1024
"""So much may come in a row without a byte of data: a whole record at most, where nobody plays tricks.

New keys (RFC 8446 section 4.6.3) cost whoever receives them more than the peer, who may announce them without end.
"""

_ANSWERS_BYTES: Final = 16 * 1024
"""So much of what TLS has to answer is kept until something is sent: refused renegotiations, 31 bytes each."""


class TlsStream(trio.abc.HalfCloseableStream):
    """The server's side of a TLS connection.

    As browsers do, it takes the end of the connection for the end of the stream, whether the peer has signed it with
    `close_notify` or not: what it carries has lengths of its own. Its own end it signs, as it has to (RFC 8446 section
    6.1): an event stream has no length.

    Attributes:
        transport_stream: what it runs over.
        opening: the peer's first bytes, until the handshake is done: what it speaks instead.
    """

    def __init__(self, transport: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.transport_stream = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = self._early = self.opening = b""
        self._sending = self._receiving = self._closed = self._ended = False

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
                if not await self._fill(opening=True):
                    raise trio.BrokenResourceError("the peer went during the TLS handshake") from None
            except ssl.SSLError as error:
                with suppress(OSError):
                    _write(self.transport_stream, self._outgoing.read())  # the alert; a full socket does without
                raise trio.BrokenResourceError(f"the TLS handshake failed: {error}") from error
            else:
                self.opening = b""
                await self._send_made()
                return

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`. If cancelled, what could not be written goes out before anything else does."""
        if self._closed or self._ended:
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
        """See `trio.abc.ReceiveStream`. What TLS has to answer to what came goes out before the next bytes do.

        If cancelled, nothing is lost. A peer that sends only what is no data, or makes TLS answer more than is sent, is
        a broken connection.
        """
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
            wordless = 0
            while (data := self._decrypted(max_bytes or _RECEIVE_BYTES)) is None:
                more = await self._fill()
                if not more:
                    return b""
                wordless += more
                if wordless > _WORDLESS_BYTES:
                    raise trio.BrokenResourceError(f"{wordless} bytes came without data in them")
            return data
        finally:
            self._receiving = False

    def _decrypted(self, size: int) -> bytes | None:
        """What has come; b"" is the end that the peer has signed; None where more has to come first.

        Raises: trio.BrokenResourceError.
        """
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        try:
            return self._tls.read(size)
        except ssl.SSLWantReadError:
            answers = self._outgoing.pending
            if answers > _ANSWERS_BYTES:
                raise trio.BrokenResourceError(f"{answers} bytes wait that the peer made TLS answer") from None
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(f"what came is no TLS: {error}") from error

    def end(self) -> bytes:
        """The record that signs the end of what is sent (`close_notify`, RFC 8446 section 6.1), to be written last.

        Nothing can be encrypted behind it; receiving goes on. Asked for again, or where the connection is in no state
        for it, it is empty.
        """
        if self._ended:
            return b""
        self._ended = True
        with suppress(ssl.SSLError):
            # `unwrap` looks for the peer's end as well, and fails over data: those are kept for whoever receives.
            with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while data := self._tls.read(_RECEIVE_BYTES):
                    self._early += data
            self._tls.unwrap()  # a first call signs, and then finds that the peer has not done so yet
        return self._outgoing.read()

    async def send_eof(self) -> None:
        """Sign the end of what is sent. Raises: as `send_all`."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._unsent += self.end()
        await self._send_made()
        await self.transport_stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection. The end is signed, where the socket takes that at once, unless this is cancelled."""
        if not self._closed and not self._unsent and trio.current_effective_deadline() > -math.inf:
            with suppress(OSError):
                _write(self.transport_stream, self.end())
        self._closed = True
        await self.transport_stream.aclose()

    async def _fill(self, *, opening: bool = False) -> int:
        """Take what the socket has. Returns how much that is: nothing at its end.

        OpenSSL is not told of the end: it would not write any more either, and the peer may still read.
        """
        data = await self.transport_stream.receive_some(_RECEIVE_BYTES)
        if opening:
            self.opening = self.opening or bytes(data[:SHOWN_BYTES])
        self._incoming.write(data)
        return len(data)

    async def _send_made(self) -> None:
        """Write everything that TLS has made. If cancelled, the rest stays for the next call."""
        self._sending = True
        left = memoryview(self._unsent + self._outgoing.read())
        try:
            if not left:
                await trio.lowlevel.checkpoint()
            while left:
                await self.transport_stream.wait_send_all_might_not_block()
                try:
                    left = left[_write(self.transport_stream, left) :]
                except OSError as error:
                    raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._unsent = bytes(left)
            self._sending = False


def _write(stream: trio.SocketStream, data: bytes | memoryview) -> int:
    """What the socket takes now. Raises: OSError, where it is broken."""
    try:
        return os.write(stream.socket.fileno(), data)
    except BlockingIOError:
        return 0
