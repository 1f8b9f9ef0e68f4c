"""One OKX websocket session of the simulator: the I/O around `OkxSubscriptions`.

A session has three tasks: one reads the client's requests, one writes what is pending, one watches
the 30 s of silence after which OKX hangs up and waits for an order to close. Frames of pushed data
are made by the simulator, once for all sessions, and handed over by `offer`, which never waits.

trio-websocket does the handshake, pings and closing; data frames do not go through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
import trio_websocket

from connectors.simulator.http.server import UpgradedStream
from connectors.simulator.http.wire import Wire
from connectors.simulator.venues.okx import IDLE_CODE, IDLE_REASON, IDLE_S, MAX_REQUEST_BYTES, OkxSubscriptions
from protocol.frames import text_frame

PENDING_BYTES: Final = 1 << 20
"""Most that waits for a slow subscriber; pushes beyond it are left out."""
HANDSHAKE_S = 10.0
CLOSE_S = 1.0
"""How long a client has to answer a close frame."""


class OkxSession:
    """One subscriber.

    Args:
        subscriptions: This connection's requests and replies.
        subscribed: Called after the acknowledgements of instruments that are new to this session
            are on their way; what it offers follows them.
        number: Of the connection, counted from 0.
        wire: What `run`'s stream lies on, for faults.
        reply: Takes a client's message and says what to reply; by default the subscriptions do.

    Attributes:
        patient: Whether the 30 s of silence are let pass: of a venue that is dead, nobody hangs up.
        opened_s: When the session began.
    """

    def __init__(
        self,
        subscriptions: OkxSubscriptions,
        subscribed: Callable[[OkxSession, list[str]], None],
        *,
        number: int = 0,
        wire: Wire | None = None,
        reply: Callable[[OkxSession, str | bytes], list[bytes]] | None = None,
    ) -> None:
        self.subscriptions = subscriptions
        self.number = number
        self.wire = wire
        self.patient = False
        self.opened_s = trio.current_time()
        self._subscribed = subscribed
        self._reply = reply or _replies
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
        """Send OKX's notice 64008: the connection will be closed for an upgrade."""
        self.tell(self.subscriptions.notice())

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
        """Serve the session until either side closes; the stream is closed then.

        A cancelled session is cut off without a close frame.

        Raises:
            ExceptionGroup: trio-websocket's own, when the client breaks the protocol while we
                close; the session is over all the same.
        """
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(HANDSHAKE_S):
                    request = await trio_websocket.wrap_server_stream(
                        nursery, stream, max_message_size=MAX_REQUEST_BYTES
                    )
                    connection = await request.accept()
                stream.release()
                nursery.start_soon(self._read, connection, nursery.cancel_scope)
                nursery.start_soon(self._write, connection, stream)
                code, reason = await self._wait_to_close()
                if code is not None:
                    with trio.move_on_after(CLOSE_S):
                        await connection.aclose(code, reason)
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    async def _read(self, connection: trio_websocket.WebSocketConnection, scope: trio.CancelScope) -> None:
        """Take the client's requests until the connection is closed, then end the session."""
        try:
            while True:
                message = await connection.get_message()
                held = set(self.subscriptions.instruments)
                for reply in self._reply(self, message):
                    self._queue(text_frame(reply))
                new = self.subscriptions.instruments - held
                if new:
                    self._subscribed(self, sorted(new))
                # A client that asks without reading its answers is not read any further.
                while self._pending_bytes > PENDING_BYTES:
                    await self._emptied.wait()
        except trio_websocket.ConnectionClosed:
            if self._drop is None:
                scope.cancel()

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
        """Wait for an order to close, or for OKX's idle time to be over; how to close."""
        while self._drop is None:
            with trio.move_on_at(self._last_push + IDLE_S):
                await self._dropped.wait()
            if self.patient:
                self._last_push = trio.current_time()
            elif trio.current_time() >= self._last_push + IDLE_S:
                self.drop(IDLE_CODE, IDLE_REASON)
        return self._drop

    def _queue(self, frames: bytes) -> None:
        self._pending.append(frames)
        self._pending_bytes += len(frames)
        self._filled.set()
        self._last_push = trio.current_time()


def _replies(session: OkxSession, message: str | bytes) -> list[bytes]:
    return session.subscriptions.receive(message)
