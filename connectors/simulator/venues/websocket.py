"""One websocket of a simulated venue: the I/O around a `SocketSession`, for all venues.

A connection has a task that reads the client's messages, one that writes what is pending, one that sends pings where
the venue does, and one that watches the venue's idle time and waits for an order to close. What is pushed is handed
over by `offer`, which never waits.

trio-websocket does the handshake, pings and closing; data frames do not go through it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import trio
import trio_websocket

from connectors.simulator.http.server import UpgradedStream
from connectors.simulator.http.wire import Wire
from connectors.simulator.venues.sockets import Close, SocketRules, SocketSession
from protocol.frames import text_frame

PENDING_BYTES: Final = 1 << 20
"""Most that waits for a slow subscriber; pushes beyond it are left out."""
HANDSHAKE_S = 10.0
CLOSE_S = 1.0
"""How long a client has to answer a close frame."""


class VenueConnection:
    """One client of a venue.

    Args:
        conversation: What is said.
        rules: The venue's.
        number: Of the connection, counted from 0.
        wire: What `run`'s stream lies on, for faults.
        reply: Takes a client's message and says what to reply; by default the conversation does.
        replied: Called after the replies to a message are on their way; what it offers follows them.

    Attributes:
        patient: Whether the venue's idle time is let pass: of a venue that is dead, nobody hangs up.
        opened_s: When the connection began.
    """

    def __init__(
        self,
        conversation: SocketSession,
        rules: SocketRules,
        *,
        number: int = 0,
        wire: Wire | None = None,
        reply: Callable[[str | bytes], Sequence[bytes | Close]] | None = None,
        replied: Callable[[], None] = lambda: None,
    ) -> None:
        self.conversation = conversation
        self.number = number
        self.wire = wire
        self.patient = False
        self.opened_s = trio.current_time()
        self._rules = rules
        self._reply = reply or conversation.receive
        self._replied = replied
        self._asked: deque[float] = deque(maxlen=rules.requests)
        self._has_asked = False
        self._torn = False
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._filled = trio.Event()
        self._emptied = trio.Event()
        self._last_push = trio.current_time()
        self._drop: tuple[int | None, str] | None = None
        self._dropped = trio.Event()

    def offer(self, frames: bytes) -> bool:
        """Queue whole frames for writing. False, and nothing queued, where too much is pending."""
        if self._torn or self._pending_bytes + len(frames) > PENDING_BYTES:
            return False
        self._queue(frames)
        return True

    def tear(self, frames: bytes) -> None:
        """Write what is pending and then these bytes, of which the last frame may be cut; then end the connection."""
        if not self._torn:
            self._queue(frames)
            self._torn = True

    def tell(self, text: bytes) -> None:
        """Send a text of its own, such as an error that no request has caused."""
        self._queue(text_frame(text))

    def notice(self) -> None:
        """Say what the venue says before it closes connections for an upgrade."""
        for text in self.conversation.notice():
            self.tell(text)

    def drop(self, code: int | None, reason: str = "") -> None:
        """Close with `code`, or without a close frame where it is `None`. Returns at once."""
        if self._drop is None:
            self._drop = (code, reason)
            self._dropped.set()

    @property
    def closing(self) -> bool:
        """Whether it is about to end."""
        return self._drop is not None

    async def run(self, stream: UpgradedStream) -> None:
        """Serve the connection until either side closes; the stream is closed then.

        A cancelled one is cut off without a close frame.

        Raises:
            ExceptionGroup: trio-websocket's own, when the client breaks the protocol while we
                close; it is over all the same.
        """
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(HANDSHAKE_S):
                    request = await trio_websocket.wrap_server_stream(
                        nursery, stream, max_message_size=self._rules.message_bytes
                    )
                    connection = await request.accept()
                stream.release()
                nursery.start_soon(self._read, connection, nursery.cancel_scope)
                nursery.start_soon(self._write, connection, stream)
                if self._rules.ping_every_s is not None:
                    nursery.start_soon(self._ping, connection, self._rules.ping_every_s)
                code, reason = await self._wait_to_close()
                if code is not None:
                    with trio.move_on_after(CLOSE_S):
                        # What was said before goes before.
                        while self._pending:
                            await self._emptied.wait()
                        await connection.aclose(code, reason)
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    async def _read(self, connection: trio_websocket.WebSocketConnection, scope: trio.CancelScope) -> None:
        """Take the client's messages until the connection is closed, then end it."""
        try:
            while True:
                message = await connection.get_message()
                self._has_asked = True
                if self._drop is not None:
                    continue  # Until the close handshake is over.
                if self._asks_too_much():
                    self.drop(self._rules.too_many.code, self._rules.too_many.reason)
                    continue
                for reply in self._reply(message):
                    if isinstance(reply, Close):
                        self.drop(reply.code, reply.reason)
                        break
                    self._queue(text_frame(reply))
                else:
                    self._replied()
                # A client that asks without reading its answers is not read any further.
                while self._pending_bytes > PENDING_BYTES:
                    await self._emptied.wait()
        except trio_websocket.ConnectionClosed:
            if self._drop is None:
                scope.cancel()

    def _asks_too_much(self) -> bool:
        """Whether one message more, now, is over the venue's rate."""
        if self._rules.requests is None:
            return False
        now_s = trio.current_time()
        full = len(self._asked) == self._rules.requests and self._asked[0] > now_s - self._rules.requests_s
        self._asked.append(now_s)
        return full

    async def _ping(self, connection: trio_websocket.WebSocketConnection, every_s: float) -> None:
        """Send pings, and cut off whoever does not answer them."""
        try:
            while True:
                await trio.sleep(every_s)
                with trio.move_on_after(self._rules.pong_within_s) as waiting:
                    await connection.ping()
                if waiting.cancelled_caught and not self.patient:
                    self.drop(self._rules.unanswered.code, self._rules.unanswered.reason)
        except trio_websocket.ConnectionClosed:
            pass  # The reader sees it too.

    async def _write(self, connection: trio_websocket.WebSocketConnection, stream: UpgradedStream) -> None:
        """Write what is pending, all of it in one write, until a close is under way."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            batch, torn = b"".join(self._pending), self._torn
            self._pending.clear()
            self._pending_bytes = 0
            self._emptied.set()
            self._emptied = trio.Event()
            # No data frame may follow a close frame (RFC 6455 section 5.5.1).
            if connection.closed is not None:
                return
            try:
                await stream.send_all(batch)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # The reader sees it too, and ends the session.
            if torn:
                self.drop(None)
                return

    async def _wait_to_close(self) -> tuple[int | None, str]:
        """Wait for an order to close, or for the venue's idle time to be over; how to close."""
        idle_s = float("inf") if self._rules.idle_s is None else self._rules.idle_s
        first_s = float("inf") if self._rules.first_s is None else trio.current_time() + self._rules.first_s
        while self._drop is None:
            with trio.move_on_at(min(self._last_push + idle_s, first_s)):
                await self._dropped.wait()
            is_late = trio.current_time() >= first_s and not self._has_asked
            if trio.current_time() >= first_s:
                first_s = float("inf")
            if self.patient:
                self._last_push = trio.current_time()
            elif is_late or trio.current_time() >= self._last_push + idle_s:
                self.drop(self._rules.idle.code, self._rules.idle.reason)
        return self._drop

    def _queue(self, frames: bytes) -> None:
        self._pending.append(frames)
        self._pending_bytes += len(frames)
        self._filled.set()
        self._last_push = trio.current_time()
