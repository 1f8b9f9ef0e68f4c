"""Where a venue's bytes come in: whole data frames go straight to their reader, all else to trio-websocket.

trio-websocket and wsproto spend some thirty microseconds on a frame, most of it on states that an
unfragmented, unmasked data frame does not have. So the stream that trio-websocket reads from is
ours: an `Inlet`, which reads large chunks off the socket, takes the plain data frames out and hands
their payloads on in batches. The handshake, pings, pongs, closes, fragmented messages and whatever
breaks RFC 6455 reach trio-websocket byte for byte, so there is still one judge of the protocol. No
private attribute of trio-websocket is touched: it is given a `trio.abc.Stream`.

A frame costs time however small it is, and what trio-websocket is given costs most: it looks at all of it in one step.
So frames are handed on a few at a time, with a turn for others in between, and control frames and fragments are
counted: a venue that floods us with them is left.

`Splitter` is the pure half: bytes in, payloads and the bytes for trio-websocket out.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import trio

from connectors.base import VenueUnavailable
from connectors.limits.allowance import Allowance

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
REST_S: Final = 0.0035
"""The rest after a read that hardly waited: a busy venue's frames are taken several at a time, since a turn of the
event loop costs more than a frame. A frame after a pause is taken at once; a full chunk means that there is more."""

HEAD_CHUNK_BYTES: Final = 4 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024
"""How much is read at once, and in all, until the opening handshake is answered by an upgrade."""

PAYLOADS_AT_ONCE: Final = 512
PASSED_AT_ONCE: Final = 64
"""How many messages, and how many control frames and fragments, are handed on in one step, at most."""

PASSED_PER_S: Final = 1_000
PASSED_BURST: Final = 4_000
"""How many control frames and fragments a venue may send: in a second for long, and at once."""

BATCHES: Final = 8
"""How many batches may wait for the reader: with `CHUNK_BYTES` the bound of what is held of one connection."""

_HEAD_END: Final = re.compile(rb"\n\r?\n")
"""Where a response head ends; h11, which parses it behind us, takes a lone LF as a line end too."""

_SWITCHED: Final = re.compile(rb"HTTP/1\.[01] 101[ \r\n]")
_MAX_HEAD_BYTES: Final = 64 * 1024

# RFC 6455 section 5.2, first byte of a frame.
_FIN: Final = 0x80
_RESERVED_BITS: Final = 0x70
_OPCODE: Final = 0x0F
_WHOLE_TEXT: Final = 0x81
_WHOLE_BINARY: Final = 0x82
_CONTINUATION: Final = 0x0
_DATA: Final = (0x1, 0x2)
_CLOSE: Final = 0x8
_CONTROL: Final = (0x8, 0x9, 0xA)
_MAX_CONTROL_BYTES: Final = 125


class Split(NamedTuple):
    """What one call of `Splitter.split` found.

    Attributes:
        payloads: of the whole data frames, in order. Text is not yet known to be UTF-8.
        passed: the bytes for trio-websocket, in order.
        message: whether `passed` ends with the last fragment of a message. Payloads behind it are held back until the
            next call, so that the caller can see to the order.
    """

    payloads: list[bytes]
    passed: bytes
    message: bool


class Splitter:
    """Takes a server's plain data frames out of its bytes, from the response head on.

    Any cut of the same bytes into chunks gives the same payloads and the same passed bytes. Once
    something is met that only trio-websocket may judge (a response that is no upgrade, a close, a
    frame that breaks the RFC or the limit), all that follows is passed.

    Attributes:
        is_open: whether the response was the upgrade.
        passed_frames: how many control frames and fragments were passed.
    """

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.is_open = False
        self.passed_frames = 0
        self._max_message_bytes = max_message_bytes
        self._head: bytearray | None = bytearray()
        self._held = bytearray()
        self._needed = 2
        self._fragmented = False
        self._passes_all = False

    @property
    def holds_more(self) -> bool:
        """Whether `split(b"")` can find something: there are bytes behind where it stopped."""
        return len(self._held) >= self._needed

    def split(self, data: bytes) -> Split:
        """The next bytes of the server, and what can be told from all bytes so far.

        It stops behind the end of a fragmented message, and where there is enough for one step.
        """
        passed: list[bytes] = []
        if self._head is not None:
            head, data = self._take_head(self._head, data)
            passed.append(head)
        if self._passes_all:
            return Split([], b"".join((*passed, data)), message=False)
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return Split([], b"".join(passed), message=False)
            data = bytes(self._held)
            self._held.clear()
        payloads: list[bytes] = []
        at, end, message = 0, len(data), False
        enough = self.passed_frames + PASSED_AT_ONCE
        self._needed = 2
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            start = at + 2
            lawful = size < 128  # the eighth bit says "masked", which a server's frames never are (section 5.1)
            if 126 <= size < 128:
                width = 2 if size == 126 else 8
                start += width
                if start > end:
                    self._needed = start - at
                    break
                size = int.from_bytes(data[at + 2 : start], "big")
                lawful = size > (125 if width == 2 else 65535)
            stop = start + size
            plain = first in (_WHOLE_TEXT, _WHOLE_BINARY) and not self._fragmented
            if not (lawful and size <= self._max_message_bytes and (plain or self._may_pass(first, size))):
                self._passes_all = True
                break
            if stop > end:
                self._needed = stop - at
                break
            if plain:
                payloads.append(data[start:stop])
                at = stop
                if len(payloads) == PAYLOADS_AT_ONCE:
                    break
                continue
            passed.append(data[at:stop])
            at = stop
            self.passed_frames += 1
            opcode = first & _OPCODE
            if opcode == _CLOSE:
                self._passes_all = True
                break
            if opcode not in _CONTROL:
                self._fragmented = not first & _FIN
                if first & _FIN:
                    message = True
                    break
            if self.passed_frames == enough:
                break
        if self._passes_all:
            passed.append(data[at:])
        else:
            self._held += data[at:]
        return Split(payloads, b"".join(passed), message)

    def _may_pass(self, first: int, size: int) -> bool:
        """Whether the frame is a lawful control frame or fragment at this place (sections 5.4 and 5.5)."""
        opcode = first & _OPCODE
        if first & _RESERVED_BITS:
            return False
        if opcode in _CONTROL:
            return bool(first & _FIN) and size <= _MAX_CONTROL_BYTES
        if opcode == _CONTINUATION:
            return self._fragmented
        return opcode in _DATA and not first & _FIN and not self._fragmented

    def _take_head(self, head: bytearray, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` still belongs to the response head, and what follows it."""
        before = len(head)
        head += data
        # The blank line may have begun in the chunk before.
        found = _HEAD_END.search(head, max(0, before - 2))
        if found is None:
            self._passes_all = len(head) > _MAX_HEAD_BYTES
            return data, b""
        self.is_open = _SWITCHED.match(head) is not None
        self._passes_all = not self.is_open
        self._head = None
        return data[: found.end() - before], data[found.end() - before :]


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Payloads that arrived together, and when (ms since 1970)."""

    payloads: list[bytes]
    received_ms: int


class Inlet(trio.abc.Stream):
    """A stream for `wrap_client_stream` that keeps the plain data frames for `batches`.

    Its only reader is trio-websocket's reader task. While `batches` is full that task waits here
    and nothing is read off the socket: that is the back-pressure that slows the venue.

    Attributes:
        batches: the messages, in order; ends after `finish` or `aclose`.
        ended: set once the peer's bytes are at their end, politely or not.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        now_ms: Callable[[], int],
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        title: str = "the venue",
    ) -> None:
        """`now_ms` stamps the batches; `title` is the venue's in errors; for the bounds see the module."""
        self._stream = stream
        self._title = title
        self._now_ms = now_ms
        self._splitter = Splitter(max_message_bytes)
        self._allowance = Allowance(PASSED_PER_S, PASSED_BURST, -math.inf)
        self._passing = b""
        self._max_answer_bytes = max_answer_bytes
        self._answer_bytes = 0
        self._received_ms = 0
        self._torn = False
        self._read_s = -math.inf
        self._message_due: trio.Event | None = None
        self._into_batches, self.batches = trio.open_memory_channel[Batch](BATCHES)
        self.ended = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes that are for trio-websocket; b"" at the end.

        Payloads met on the way go to `batches` first. If cancelled, payloads may be lost: the
        connection must not be used further.

        Raises:
            BrokenResourceError: the connection broke.
            ClosedResourceError: it was closed here, or `finish` was called.
            VenueUnavailable: the venue floods us: the connection is not worth keeping.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._passing:
            await trio.lowlevel.checkpoint()
        while not self._passing:
            if self._message_due is not None:
                await self._message_due.wait()
                self._message_due = None
            splitter = self._splitter
            chunk = b""
            if splitter.holds_more:
                await trio.lowlevel.checkpoint()
            else:
                chunk = await self._read()
                if not chunk:
                    return b""
            frames = splitter.passed_frames
            payloads, self._passing, message = splitter.split(chunk)
            self._judge(len(chunk), splitter.passed_frames - frames)
            if message:
                self._message_due = trio.Event()
            if payloads:
                await self._into_batches.send(Batch(payloads, self._received_ms))
                is_all = 0 < len(chunk) < CHUNK_BYTES and not splitter.holds_more
                if is_all and trio.current_time() - self._read_s < 2 * REST_S:
                    await trio.sleep(REST_S)
        if max_bytes is None or max_bytes >= len(self._passing):
            passing, self._passing = self._passing, b""
        else:
            passing, self._passing = self._passing[:max_bytes], self._passing[max_bytes:]
        return passing

    async def deliver(self, message: str | bytes) -> None:
        """Put a message that trio-websocket assembled into its place among the others.

        Raises:
            ClosedResourceError: `finish` or `aclose` came first.
            BrokenResourceError: nobody reads `batches` any more.
        """
        payload = message.encode() if isinstance(message, str) else message
        await self._into_batches.send(Batch([payload], self._now_ms()))
        if self._message_due is not None:
            self._message_due.set()

    def finish(self) -> None:
        """No more messages will come: whoever reads `batches` gets what is in it, then its end."""
        self._into_batches.close()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """To the peer, unchanged. If cancelled, nothing more can be sent: half a frame may be out.

        Raises:
            BrokenResourceError: the connection broke, or an earlier call was cancelled.
        """
        if self._torn:
            raise trio.BrokenResourceError("the frame before this one was cut off")
        try:
            await self._stream.send_all(data)
        except trio.Cancelled:
            self._torn = True
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection. If cancelled, it is closed all the same."""
        self._passing = b""
        self._into_batches.close()
        await self._stream.aclose()

    def _judge(self, chunk_bytes: int, frames: int) -> None:
        """Raises: VenueUnavailable, where the venue sends more than anybody would."""
        if not self._splitter.is_open:
            self._answer_bytes += chunk_bytes
            if self._answer_bytes > self._max_answer_bytes:
                what = f"more than {self._max_answer_bytes} bytes in answer to the opening handshake"
                raise VenueUnavailable(f"{self._title} sent {what}")
        elif frames and not self._allowance.take(frames, trio.current_time()):
            what = f"more than {PASSED_PER_S} control frames and fragments a second"
            raise VenueUnavailable(f"{self._title} sent {what}")

    async def _read(self) -> bytes:
        """A chunk off the socket, stamped."""
        self._read_s = trio.current_time()
        try:
            chunk = await self._stream.receive_some(CHUNK_BYTES if self._splitter.is_open else HEAD_CHUNK_BYTES)
        except trio.BrokenResourceError:
            self.ended.set()
            raise
        if not chunk:
            self.ended.set()
        self._received_ms = self._now_ms()
        return bytes(chunk)
