"""One connection of a client to the daemon: opened, greeted, read message by message, closed.

A link has one task, in the client's nursery, that owns the socket and trio-websocket's reader; other tasks call
`receive` and `send`. Only a bounded number of messages is read ahead: if no task receives, the socket fills up, and the
daemon sees a slow consumer.
"""

from __future__ import annotations

import time
from typing import Final, NoReturn, cast

import h11
import trio
import wsproto.utilities
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from connectors.base import VenueUnavailable, leaves
from connectors.push.dial import dial
from daemon.client.core import verdicts
from daemon.client.core.endpoint import CLOSE_S, MESSAGE_BYTES, READ_AHEAD, Endpoint
from daemon.client.core.events import ClientError, ServerRefused, ServerUnavailable
from daemon.client.core.liveness import Liveness
from daemon.client.core.verdicts import Disconnected
from protocol.messages import Command, Format, Message, Welcome, encode

_BROKEN: Final = (wsproto.utilities.ProtocolError, h11.ProtocolError)
"""Exceptions that escape trio-websocket's reader if the protocol is violated at certain moments."""


class _Watched(trio.abc.Stream):
    """The socket, which tells when bytes come.

    Attributes:
        liveness: is told, once there is one.
        ended: set when nothing more will come.
        rejected: whether this side closed it before it ended, because it did not understand the bytes.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.liveness: Liveness | None = None
        self.rejected = False
        self.ended = trio.Event()
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        if self.liveness is not None:
            self.liveness.heard_s = trio.current_time()
        if not data:
            self.ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self.rejected = not self.ended.is_set()
        await self._stream.aclose()


class Link:
    """One connection.

    Attributes:
        welcome: the daemon's first message.
    """

    welcome: Welcome

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._over = trio.Event()
        self._stream: _Watched
        self._liveness: Liveness
        self._websocket: WebSocketConnection

    @classmethod
    async def open(cls, nursery: trio.Nursery, endpoint: Endpoint) -> Link:
        """Connect and wait for the welcome; the connection then lives in `nursery` until `close`.

        If cancelled, nothing is left behind.

        Raises:
            ServerUnavailable, ServerRefused, NotUnderstood: see `daemon.client.core.events`.
        """
        link = cls(endpoint)
        await nursery.start(link._run)
        return link

    @property
    def is_over(self) -> bool:
        """Whether this side has closed it."""
        return self._over.is_set()

    @property
    def is_alive(self) -> bool:
        """Whether it can be used: it is not closed, and something was received recently."""
        is_open = not self.is_over and self._websocket.closed is None
        return is_open and self._liveness.is_alive(trio.current_time())

    def close(self) -> None:
        """Close it, with a close frame, which the daemon has a moment to answer. May be called repeatedly."""
        self._over.set()

    async def send(self, command: Command) -> None:
        """Send a command. If it cannot be sent whole, also because of cancellation, the link is closed.

        Raises:
            Disconnected: the connection is closed, or the daemon does not read.
        """
        sent = False
        try:
            with trio.move_on_after(self._endpoint.timeout_s):
                await self._websocket.send_message(encode(command).decode())
                sent = True
        except (ConnectionClosed, *_BROKEN):
            raise self._ended() from None
        finally:
            if not sent:
                self.close()
        if not sent:
            raise verdicts.unsent(self._endpoint)

    async def receive(self) -> tuple[Message, str]:
        """The next message, and its text as received. Message types of later versions are skipped.

        If cancelled, no message is lost.

        Raises:
            Disconnected: the connection has ended, or nothing was heard for two heartbeats, while this process ran.
            ServerRefused: it was closed with a code that says not to come back.
            NotUnderstood: the data received is not a message.
        """
        until_s = self._liveness.begin(trio.current_time())
        while True:
            raw: str | bytes | None = None
            with trio.move_on_at(until_s):
                try:
                    raw = await self._websocket.get_message()
                except ConnectionClosed:
                    raise self._ended() from None
            if raw is None:
                until_s = self._liveness.again_until_s(trio.current_time())
            elif (message := verdicts.decode(raw)) is not None:
                return message, cast("str", raw)

    def _ended(self) -> Disconnected | ServerRefused:
        """Why the connection is closed."""
        why = self._websocket.closed
        return verdicts.ended(None, None) if why is None else verdicts.ended(why.code, why.reason)

    # ---- the task -----------------------------------------------------------------------------------------------

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Raises: ClientError, only before it has started."""
        started, causes = False, list[BaseException]()
        try:
            endpoint = self._endpoint
            self._stream = _Watched(
                await dial(endpoint.address, ssl_context=endpoint.ssl_context, timeout_s=endpoint.timeout_s)
            )
            try:
                async with trio.open_nursery() as reader:
                    await self._greet(reader)
                    try:
                        task_status.started()
                        started = True
                        await self._over.wait()
                    finally:
                        # trio-websocket waits without a limit for the answer.
                        with trio.move_on_after(CLOSE_S, shield=True):
                            await self._websocket.aclose()
                    reader.cancel_scope.cancel(reason="the link is closed")
            finally:
                # At once: a close frame has been tried before.
                await trio.aclose_forcefully(self._stream)
        except* (ClientError, VenueUnavailable, Disconnected, HandshakeError, ConnectionClosed, *_BROKEN) as group:
            causes = list(leaves(group))
        if not started:
            raise self._explained(causes)
        self._over.set()

    async def _greet(self, reader: trio.Nursery) -> None:
        """The opening handshake, and the welcome that follows."""
        endpoint = self._endpoint
        with trio.move_on_after(endpoint.timeout_s):
            async with trio.open_nursery() as race:
                # trio-websocket does not see a stream end before the handshake is done.
                race.start_soon(self._hung_up)
                self._websocket = await wrap_client_stream(
                    reader,
                    # Annotated more narrowly than documented: it takes any `trio.abc.Stream`.
                    cast("trio.SocketStream", self._stream),
                    endpoint.address.host_header,
                    endpoint.address.resource,
                    subprotocols=[Format.JSON.value],
                    extra_headers=[(b"Authorization", f"Bearer {endpoint.token}".encode())] if endpoint.token else [],
                    message_queue_size=READ_AHEAD,
                    max_message_size=MESSAGE_BYTES,
                    receive_buffer_size=None,
                )
                race.cancel_scope.cancel(reason="the handshake is done")
            try:
                self.welcome = verdicts.greeted(endpoint, await self._websocket.get_message())
            except ConnectionClosed:
                raise self._ended() from None
            self._liveness = self._stream.liveness = Liveness(self.welcome.heartbeat_s, trio.current_time())
            return
        raise verdicts.unanswered(endpoint)

    async def _hung_up(self) -> NoReturn:
        await self._stream.ended.wait()
        raise verdicts.no_websocket(self._endpoint) if self._stream.rejected else verdicts.hung_up(self._endpoint)

    def _explained(self, causes: list[BaseException]) -> ClientError:
        """The one error to raise: an explicit answer rather than its consequences."""
        cause = min(causes, key=_weight)
        match cause:
            case ConnectionRejected():
                wait = next((value for name, value in cause.headers if name.lower() == b"retry-after"), b"")
                said = (cause.status_code, wait.decode("latin-1"), cause.body or b"", int(time.time() * 1000))
                return verdicts.rejected(self._endpoint, *said)
            case ClientError():
                return cause
            case VenueUnavailable() | Disconnected():
                return ServerUnavailable(f"{self._endpoint.where}: {cause}")
            case _:
                return verdicts.no_websocket(self._endpoint)


def _weight(cause: BaseException) -> int:
    """Lower is more informative: a protocol violation, say, rather than the hang-up that follows it."""
    if isinstance(cause, ConnectionRejected):
        return 0
    if isinstance(cause, _BROKEN):
        return 1
    return 2 if isinstance(cause, ClientError | VenueUnavailable | Disconnected) else 3
