"""One connection of a client to the daemon: opened, greeted, read message by message, closed.

A link has one task, in the client's nursery, that owns the socket and trio-websocket's reader; other tasks call
`receive` and `send`. Only a bounded number of messages is read ahead: if no task receives, the socket fills up, and the
daemon sees a slow consumer.
"""

from __future__ import annotations

import math
import re
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Final, NoReturn, cast, get_args

import h11
import msgspec
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
from connectors.push.dial import Address, dial
from daemon.client.events import ClientError, NotUnderstood, ServerRefused, ServerUnavailable
from protocol.codes import CloseCode
from protocol.messages import Command, Error, Format, Message, MessageError, Welcome, decode_message, encode

ABNORMAL: Final = 1006
"""The code of a connection that ended without a close frame (RFC 6455 section 7.1.5)."""

_READ_AHEAD: Final = 64
"""How many messages are read ahead. Without any, trio-websocket would not answer a ping while a message waits."""

_MESSAGE_BYTES: Final = 16 * 1024 * 1024
_CLOSE_S: Final = 0.5
"""How long the daemon may take over the closing handshake."""

_MISSED: Final = 2.5
"""In heartbeats: the daemon pings at each, so after two of them something must have been received."""

_LATE_S: Final = 1.0
"""A deadline that is noticed so late was slept through."""

_FINAL: Final = frozenset(code for code in CloseCode if not code.may_reconnect) - {CloseCode.NORMAL}
_LATER: Final = frozenset({408, 425, 429})
"""HTTP statuses of 400 to 499 whose cause is not this client, so that another try may succeed."""

_LONGEST_WAIT_S: Final = 3600.0
"""The most that a `Retry-After` is followed for."""

_BROKEN: Final = (wsproto.utilities.ProtocolError, h11.ProtocolError)
"""Exceptions that escape trio-websocket's reader if the protocol is violated at certain moments."""

_TAGS: Final = frozenset(each.__struct_config__.tag for each in get_args(Message))


class Disconnected(Exception):
    """The connection has ended, and a new one may be opened. `code` is the close code."""

    def __init__(self, reason: str, code: int = ABNORMAL) -> None:
        super().__init__(reason)
        self.code = code


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the daemon is, and how to connect to it.

    Attributes:
        address: host, port and path.
        token: for `Authorization: Bearer`; "" for none.
        ssl_context: for TLS; None without.
        timeout_s: limit for connecting, for the handshake with the welcome, and for sending a command.
    """

    address: Address
    token: str
    ssl_context: ssl.SSLContext | None
    timeout_s: float


class _Watched(trio.abc.Stream):
    """The socket, with the time at which bytes were last received.

    Attributes:
        heard_s: that time, on trio's clock.
        ended: set when nothing more will come.
        rejected: whether this side closed it before it ended, because it did not understand the bytes.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.heard_s = trio.current_time()
        self.rejected = False
        self.ended = trio.Event()
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        self.heard_s = trio.current_time()
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
        self._websocket: WebSocketConnection

    @classmethod
    async def open(cls, nursery: trio.Nursery, endpoint: Endpoint) -> Link:
        """Connect and wait for the welcome; the connection then lives in `nursery` until `close`.

        If cancelled, nothing is left behind.

        Raises:
            ServerUnavailable, ServerRefused, NotUnderstood: see `daemon.client.events`.
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
        silent_s = trio.current_time() - self._stream.heard_s
        return not self.is_over and self._websocket.closed is None and silent_s < self._patience_s

    @property
    def _patience_s(self) -> float:
        return _MISSED * self.welcome.heartbeat_s if self.welcome.heartbeat_s > 0 else math.inf

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
            raise Disconnected(f"nothing could be sent for {self._endpoint.timeout_s:g} s")

    async def receive(self) -> tuple[Message, str]:
        """The next message, and its text as received. Message types of later versions are skipped.

        If cancelled, no message is lost.

        Raises:
            Disconnected: the connection has ended, or nothing was heard for two heartbeats, while this process ran.
            ServerRefused: it was closed with a code that says not to come back.
            NotUnderstood: the data received is not a message.
        """
        began_s = trio.current_time()
        while True:
            end_s = max(began_s, self._stream.heard_s) + self._patience_s
            raw: str | bytes | None = None
            with trio.move_on_at(end_s):
                try:
                    raw = await self._websocket.get_message()
                except ConnectionClosed:
                    raise self._ended() from None
            if raw is not None:
                message = _decode(raw)
                if message is not None:
                    return message, cast("str", raw)
            elif trio.current_time() - end_s > _LATE_S:
                # This process itself was stopped, or its machine: what came meanwhile has not been read yet.
                began_s = trio.current_time()
            elif end_s >= max(began_s, self._stream.heard_s) + self._patience_s:
                raise Disconnected(f"nothing was heard for {self._patience_s:g} s, not even a ping")

    def _ended(self) -> Disconnected | ServerRefused:
        """Why the connection is closed."""
        why = self._websocket.closed
        if why is None or why.code == ABNORMAL:
            return Disconnected("the connection was lost")
        said = f"closed with {why.code} {why.reason or ''}".rstrip()
        return ServerRefused(said, why.code) if why.code in _FINAL else Disconnected(said, why.code)

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
                        with trio.move_on_after(_CLOSE_S, shield=True):
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
                    message_queue_size=_READ_AHEAD,
                    max_message_size=_MESSAGE_BYTES,
                    receive_buffer_size=None,
                )
                race.cancel_scope.cancel(reason="the handshake is done")
            try:
                first = _decode(await self._websocket.get_message())
            except ConnectionClosed:
                raise self._ended() from None
            if not isinstance(first, Welcome):
                raise NotUnderstood(f"{self._where} sent no welcome; it is not tickerd, or another version")
            self.welcome = first
            return
        raise ServerUnavailable(f"{self._where} did not answer the opening handshake in {endpoint.timeout_s:g} s")

    async def _hung_up(self) -> NoReturn:
        await self._stream.ended.wait()
        if self._stream.rejected:
            raise NotUnderstood(f"{self._where} does not speak the websocket protocol")
        raise ServerUnavailable(f"{self._where} hung up during the opening handshake")

    @property
    def _where(self) -> str:
        return self._endpoint.address.host_header

    def _explained(self, causes: list[BaseException]) -> ClientError:
        """The one error to raise: an explicit answer rather than its consequences."""
        cause = min(causes, key=_weight)
        match cause:
            case ConnectionRejected():
                return self._rejected(cause)
            case ClientError():
                return cause
            case VenueUnavailable() | Disconnected():
                return ServerUnavailable(f"{self._where}: {cause}")
            case _:
                return NotUnderstood(f"{self._where} does not speak the websocket protocol")

    def _rejected(self, answer: ConnectionRejected) -> ClientError:
        """An HTTP answer instead of an upgrade.

        Only the daemon's own word is final: it refuses by an error object and a status of 400 to 499. Whatever else
        comes is from something in between (404 or 52x while the daemon is restarted, a page that asks for patience or
        for a login, a redirect to one) and may pass.
        """
        status = answer.status_code
        said = f"{self._where}{self._endpoint.address.resource.partition('?')[0]} answered with HTTP {status}"
        try:
            body = decode_message(answer.body or b"", Format.JSON)
        except MessageError:
            body = None
        if isinstance(body, Error):
            said = f"{said}: {body.message}"
        if isinstance(body, Error) and 400 <= status < 500 and status not in _LATER:
            return ServerRefused(said, status)
        wait = next((value for name, value in answer.headers if name.lower() == b"retry-after"), b"")
        return ServerUnavailable(said, wait_s(wait.decode("latin-1").strip()))


def wait_s(retry_after: str) -> float | None:
    """What a `Retry-After` asks for: seconds, or a date (RFC 9110 section 10.2.3); None where it is neither."""
    if re.fullmatch(r"[0-9]{1,6}", retry_after):
        return min(float(retry_after), _LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(retry_after)
        return min(max(0.0, until.timestamp() - time.time()), _LONGEST_WAIT_S)
    except (ValueError, OverflowError):
        return None


def _decode(raw: str | bytes) -> Message | None:
    """A message, or None for one of an unknown type. Raises: NotUnderstood."""
    if isinstance(raw, bytes):
        raise NotUnderstood("a binary frame came on the JSON protocol")
    try:
        return decode_message(raw, Format.JSON)
    except MessageError as error:
        try:
            tag = msgspec.json.decode(raw, type=_Tagged).type
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            tag = None
        if tag is not None and tag not in _TAGS:
            return None
        raise NotUnderstood(f"the data received is not a message: {error}") from None


class _Tagged(msgspec.Struct):
    type: str


def _weight(cause: BaseException) -> int:
    """Lower is more informative: a protocol violation, say, rather than the hang-up that follows it."""
    if isinstance(cause, ConnectionRejected):
        return 0
    if isinstance(cause, _BROKEN):
        return 1
    return 2 if isinstance(cause, ClientError | VenueUnavailable | Disconnected) else 3
