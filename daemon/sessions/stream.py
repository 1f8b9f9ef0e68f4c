"""The stream between one client's socket and trio-websocket: the one place that keeps frames whole.

trio-websocket is handed this stream through its public `wrap_server_stream`. It first *replays* the request head that
the front door has read already; from then on it reads from the socket. Everything that is written to the client goes
through here: trio-websocket's handshake answer, pongs and close frames (`send_all`), and our own frames (`post`, and
the hub's direct writes to `fd`). What a socket does not take at once is kept in `pending`, in order, and nothing may be
written past it: so no two frames are ever mixed, and a cancelled write tears nothing, because what is left of its frame
stays pending and goes out first.

A TLS client has no `fd` that others could write to. Its bytes are encrypted here, a record at a time, and written in
the same way. A record that the socket did not take whole is pending like any other rest, and goes out first: no record
is ever dropped or put behind another one.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from daemon.front.tls import RECORD_BYTES, TlsStream
from protocol.frame_meter import FrameMeter

_SEND_BUFFER_BYTES: Final = 512 * 1024
"""The kernel's send buffer (SO_SNDBUF), bounded: waiting bytes belong on the tape, where newer ones replace them."""

_NOTSENT_BYTES: Final = 16 * 1024
"""TCP_NOTSENT_LOWAT, as trio itself sets it: a socket is writable only while less than this is waiting to be sent."""

_TCP_RTO_MAX_MS: Final = 44
"""The option that bounds the wait between two attempts to get bytes through (linux/tcp.h, since Linux 6.15); Python
3.11 has no name for it."""

_RTO_MAX_MS: Final = (1_000, 120_000)
"""What may be asked for; the second is the kernel's own bound (`net.ipv4.tcp_rto_max_ms`)."""

_WRITE_BYTES: Final = 64 * 1024

_RECEIVE_BYTES: Final = 4096


class _Record(bytes):
    """The rest of a TLS record: pending bytes that are encrypted already."""


class ClientStream(trio.abc.Stream):
    """One client's byte stream.

    Attributes:
        fd: the socket's file descriptor for others' direct writes, or -1 (TLS, or closed).
        pending: bytes that must be written before any others; empty means that a direct write may be tried.
        full: whether the socket did not take all of the last write, or there is no direct way.
        on_blocked: called when the socket did not take all of what was posted.
        on_closing: called before a close frame is written.
        meter: limits what the client sends beside whole messages; None for no limit.
        flooded: "", or the limit that the client has exceeded; then nothing more is read from it.
        last_received_s: `trio.current_time()` of the last bytes from the client.
        last_progress_s: `trio.current_time()` of the last bytes the socket took, or of the moment it stopped taking
        them.
    """

    def __init__(
        self,
        transport: trio.SocketStream | TlsStream,
        *,
        head: bytes = b"",
        trailing: bytes = b"",
    ) -> None:
        """`head`: the bytes that trio-websocket reads first; `trailing`: the bytes that came after them.

        `trailing` is held back until trio-websocket has answered: wsproto would drop bytes that reach it sooner.
        """
        self._transport = transport
        self._tls = transport if isinstance(transport, TlsStream) else None
        self._socket = (transport.transport_stream if isinstance(transport, TlsStream) else transport).socket
        self._head = head
        self._trailing = trailing
        self._answered = trio.Event() if trailing else None
        self._lock: trio.Lock | None = None  # made on first use: most clients never need it
        self._receiving = False
        self._received: trio.Event | None = None
        self._closed = self._broken = self._said_close = self._refusing = False
        self.full = True
        self.fd = self._socket.fileno() if self._tls is None else -1
        self.pending: list[bytes | memoryview] = []
        self.on_blocked: Callable[[], None] = nothing
        self.on_closing: Callable[[], None] = nothing
        self.meter: FrameMeter | None = None
        self.flooded = ""
        self.last_received_s = self.last_progress_s = trio.current_time()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def retry_within(self, wait_s: float) -> None:
        """Let the kernel wait so long at most before it sends again what was lost, or asks whether there is room.

        By itself it doubles each wait up to two minutes (RFC 6298 section 5.5), so that a client which was out of reach
        for half a minute would hear nothing for half a minute more. An older kernel goes on like that.
        """
        least, most = _RTO_MAX_MS
        self._set_retry(round(max(least, min(most, wait_s * 1000))))

    def _set_retry(self, wait_ms: int) -> None:
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, wait_ms)

    # ---- writing ----------------------------------------------------------------------------------------------------

    def post(self, data: bytes) -> None:
        """Send whole frames: at once where the socket takes them, else as soon as it does, in order. Never waits.

        The owner of the stream must flush what stays pending: `on_blocked` is called when that begins.
        """
        if self._closed or self._said_close:
            return
        if self.pending:
            self.pending.append(data)
            return
        if (written := self.write_now(data)) < len(data):
            self.pending.append(memoryview(data)[written:] if written else data)
        if self.pending:
            self.on_blocked()

    def write_now(self, data: bytes | memoryview) -> int:
        """Write without waiting. Returns how many bytes the socket took: none while older bytes are pending.

        A broken connection takes nothing; the next `flush` raises.
        """
        if self._closed or self._broken or self.pending:
            self.full = True
            return 0
        return self._write(data) if self._tls is None else self._write_records(self._tls, data)

    def _write(self, data: bytes | memoryview) -> int:
        """One system call."""
        try:
            written = os.write(self.fd if self.fd >= 0 else self._socket.fileno(), data)
        except BlockingIOError:
            written = 0
        except OSError:
            self.full = self._broken = True
            return 0
        if written:
            self.last_progress_s = trio.current_time()
        self.full = written < len(data)
        return written

    def _write_records(self, tls: TlsStream, data: bytes | memoryview) -> int:
        """Encrypt and write record by record, until the socket does not take one whole: its rest becomes pending.

        So a client that takes nothing holds at most one record; bytes that are not encrypted yet do not count as taken.
        """
        plain, taken = memoryview(data), 0
        while taken < len(plain) and not self.pending:
            part = plain[taken : taken + RECORD_BYTES]
            record = self._encrypted(tls, part)
            written = self._write(record)
            if self._broken:
                return 0
            if written < len(record):
                self.pending.append(_Record(record[written:]))
            taken += len(part)
        return taken

    def _encrypted(self, tls: TlsStream, data: bytes | memoryview) -> bytes:
        try:
            return tls.encrypt(data)
        except ssl.SSLError:
            self._broken = True
            return b""

    def _sign_end(self, tls: TlsStream) -> None:
        """Write the end of what is sent, with nothing pending; what the socket does not take of it is pending then."""
        record = tls.end()
        if record and (written := self._write(record)) < len(record):
            self.pending.append(_Record(record[written:]))

    def settle(self, frames: Sequence[bytes], written: int) -> int:
        """The socket took `written` bytes of the joined frames. Returns how many of the frames are on their way.

        A torn frame is: its rest is pending now. The frames after it are not; they stay on the tape, so that a client
        which takes nothing holds no memory but that rest.
        """
        done = 0
        for frame in frames:
            if written < len(frame):
                break
            written -= len(frame)
            done += 1
        if written:
            self.pending.append(memoryview(frames[done])[written:])
            done += 1
        return done

    def stalled(self) -> None:
        """The socket has just stopped taking bytes: the write deadline starts now."""
        self.full = True
        self.last_progress_s = trio.current_time()

    async def flush(self) -> None:
        """Wait until the socket takes bytes, and until nothing is pending.

        If cancelled, what could not be written is still pending.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            trio.ClosedResourceError: it was closed here.
        """
        self._lock = self._lock or trio.Lock()
        async with self._lock:
            while True:
                if self._closed:
                    await trio.lowlevel.checkpoint()
                    raise trio.ClosedResourceError
                if self._broken:
                    await trio.lowlevel.checkpoint()
                    raise trio.BrokenResourceError("the client is gone")
                await trio.lowlevel.wait_writable(self._socket)
                if not self.pending:
                    return
                self._write_pending()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send whole frames for trio-websocket; returns when the socket has taken them.

        If cancelled, the frame still goes out whole before anything else does.

        Raises: as `flush`.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        await trio.lowlevel.checkpoint_if_cancelled()
        if data:
            self.post(bytes(data))
        self._may_read_on()
        if self.pending:
            await self.flush()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def send_close(self, frame: bytes) -> None:
        """Send a close frame. From here on nothing else is sent: what is posted later is lost. Raises: as `flush`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._say_close(frame)
        await self.send_all(b"")

    def _say_close(self, frame: bytes) -> None:
        self.on_closing()
        self.post(frame)
        self._said_close = True

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket might take bytes. Raises: as `flush`."""
        await self.flush()

    def last_words(self, frame: bytes) -> None:
        """Before closing a client that takes nothing, send the rest of a torn frame, and then `frame`.

        The kernel's buffer is made larger for this once, so that a client which reads again later finds out why it was
        closed, instead of a torn frame.
        """
        if self._closed or self._said_close:
            return
        record = self.pending.pop(0) if self.pending and isinstance(self.pending[0], _Record) else b""
        torn = self.pending[0] if self.pending and isinstance(self.pending[0], memoryview) else b""
        self.pending.clear()
        words = bytes(torn) + frame
        data = bytes(record) + (words if self._tls is None else self._encrypted(self._tls, words) + self._tls.end())
        # Of a socket that is closed the kernel thinks no more once it waits for as long as it may (tcp_orphan_retries).
        self._set_retry(_RTO_MAX_MS[1])
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _SEND_BUFFER_BYTES + len(data))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0x7FFF_FFFF)
            if self._write(data):
                self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the peer is gone: nobody is left to be told
            return

    def _write_pending(self) -> None:
        """Write as many pending frames as the socket takes now, in one call.

        Raises: trio.BrokenResourceError.
        """
        data = self._take_pending()
        written = self._write(data)
        if self._broken:
            raise trio.BrokenResourceError("the client is gone")
        if written < len(data):
            rest = memoryview(data)[written:]
            self.pending.insert(0, rest if self._tls is None else _Record(rest))

    def _take_pending(self) -> bytes:
        """Take the first pending frames, joined for one write: about 64 KiB; over TLS one record.

        So a client that takes little costs little.
        """
        first = self.pending.pop(0)
        if isinstance(first, _Record):
            return first
        most = _WRITE_BYTES if self._tls is None else RECORD_BYTES
        parts, size = [first], len(first)
        while self.pending and size < most:
            size += len(self.pending[0])
            parts.append(self.pending.pop(0))
        data = b"".join(parts)
        if self._tls is None:
            return data
        if size > RECORD_BYTES:
            self.pending.insert(0, memoryview(data)[RECORD_BYTES:])
        return self._encrypted(self._tls, data[:RECORD_BYTES])

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def _take(self, max_bytes: int) -> bytes:
        """What the transport has, without the circle of references that its error would leave.

        From Python 3.12 on, the frame of contextlib through which trio passes a socket's error on refers to that error,
        and the error by its traceback to the frame: the whole client would wait for a garbage collection.
        """
        try:
            return bytes(await self._transport.receive_some(max_bytes))
        except trio.BrokenResourceError as broken:
            if broken.__cause__ is not None:
                broken.__cause__.__traceback__ = None
            raise

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """First the replayed head, then the bytes that came after it, then the socket's bytes.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            trio.ClosedResourceError: it was closed here, or the client has sent too much (`flooded`).
            trio.BusyResourceError: another task is receiving.
        """
        if max_bytes is not None and max_bytes < 1:
            await trio.lowlevel.checkpoint()
            raise ValueError(f"max_bytes is {max_bytes}; at least 1 is allowed")
        if self._closed or self._refusing or self.flooded:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this client")
        self._receiving = True
        try:
            if self._head:
                return await self._replay_head(max_bytes)
            if self._trailing:
                return self._measured(await self._replay_trailing(max_bytes))
            data = await self._take(max_bytes or _RECEIVE_BYTES)
        finally:
            self._receiving = False
            if self._received is not None:
                self._received.set()
        self.last_received_s = trio.current_time()
        return self._measured(data)

    def _measured(self, data: bytes) -> bytes:
        """What the client sent. If that is too much, the reader gets an error as if the stream were closed.

        Raises: trio.ClosedResourceError.
        """
        if self.meter is not None and not self.meter.feed(data, trio.current_time()):
            self.flooded = f"more than {self.meter.limit}"
            raise trio.ClosedResourceError
        return data

    async def _replay_head(self, max_bytes: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        size = max_bytes or len(self._head)
        data, self._head = self._head[:size], self._head[size:]
        return data

    async def _replay_trailing(self, max_bytes: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._answered is not None:
            await self._answered.wait()
        if self._closed:
            raise trio.ClosedResourceError
        size = max_bytes or len(self._trailing)
        data, self._trailing = self._trailing[:size], self._trailing[size:]
        return data

    # ---- closing ----------------------------------------------------------------------------------------------------

    async def refuse(self, frame: bytes) -> None:
        """Tell the peer by this close frame what it did wrong (unless it was told), and make sure that it arrives.

        A socket that is closed with unread bytes in it is reset, and a reset makes the peer's kernel throw away the
        frame that explains it. So all further bytes are read and dropped until the peer closes. Call under a deadline.

        Raises: as `flush` and `receive_some`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._said_close:
            self._say_close(frame)
        if self._tls is not None and not self._closed:
            # Nothing can be encrypted behind the end. Where nothing is pending the end goes at once: to a client that
            # closes as soon as it has the frame, an end that comes later would be an error.
            if self.pending:
                await self.flush()
            self._sign_end(self._tls)
        await self.send_all(b"")
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        self._refusing = True  # trio-websocket (0.12.2) reads once more behind a message over the limit, or is about to
        if self._receiving:
            self._received = trio.Event()
            await self._received.wait()
        while await self._take(_RECEIVE_BYTES):
            pass

    async def finish(self) -> None:
        """End the sending side after all posted bytes, so that the peer can tell this from a broken connection.

        Then wait for the peer's own end: call under a deadline. Over TLS the end is signed (RFC 8446 section
        6.1).

        Raises: as `flush` and `receive_some`.
        """
        await self.refuse(b"")

    async def aclose(self) -> None:
        """Close the connection. Pending bytes are lost; flush first if that matters."""
        self.close_writing()
        await self._transport.aclose()

    def close_writing(self) -> None:
        """From now on nothing is written any more, and `fd` is not used: another connection may get that number.

        Over TLS the end is signed, if all was said and written: a client that is cut off is to notice it.
        """
        if self._tls is not None and not self._closed:
            end = self._tls.end()  # made in any case, so that nobody signs an end behind what is lost now
            if self._said_close and not self.pending and end:
                self._write(end)
        self._closed = True
        self.fd = -1
        self.pending.clear()
        self._may_read_on()

    def _may_read_on(self) -> None:
        if self._answered is not None:
            self._answered.set()


def nothing() -> None:
    """The default callback, which does nothing."""
