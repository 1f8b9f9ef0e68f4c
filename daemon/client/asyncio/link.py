"""One connection of a client to the daemon: opened, greeted, read message by message, closed. On asyncio.

The library `websockets` owns the socket. Only a bounded number of frames is read ahead: if nobody receives, the socket
fills up, and the daemon sees a slow consumer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from daemon.client.asyncio.reaching import unreachable
from daemon.client.core import verdicts
from daemon.client.core.endpoint import CLOSE_S, MESSAGE_BYTES, READ_AHEAD, Endpoint
from daemon.client.core.events import ClientError, ServerRefused, ServerUnavailable
from daemon.client.core.liveness import Liveness
from daemon.client.core.verdicts import Disconnected
from protocol.messages import Command, Format, Message, Welcome, encode

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
    from websockets.typing import Subprotocol
except ImportError as error:
    raise ImportError("tickerd's client for asyncio needs `websockets`: pip install 'tickerd[asyncio]'") from error


class _Connection(ClientConnection):
    """A connection that tells when bytes come; `liveness` is told, once there is one."""

    liveness: Liveness | None = None

    def data_received(self, data: bytes) -> None:
        if self.liveness is not None:
            self.liveness.heard_s = self.loop.time()
        super().data_received(data)


class _Connect(connect):
    """An attempt that follows no redirect: whoever answers with one is not the daemon."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class Link:
    """One connection.

    Attributes:
        welcome: the daemon's first message.
    """

    def __init__(self, endpoint: Endpoint, websocket: _Connection, welcome: Welcome) -> None:
        self.welcome = welcome
        self._endpoint = endpoint
        self._websocket = websocket
        self._loop = asyncio.get_running_loop()
        self._liveness = Liveness(welcome.heartbeat_s, self._loop.time())
        self._closing: asyncio.Task[None] | None = None
        websocket.liveness = self._liveness

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Link:
        """Connect and wait for the welcome. If cancelled, nothing is left behind.

        Raises:
            ServerUnavailable, ServerRefused, NotUnderstood: see `daemon.client.core.events`.
        """
        try:
            async with asyncio.timeout(endpoint.timeout_s):
                websocket = await _dial(endpoint)
        except TimeoutError:
            raise verdicts.unanswered(endpoint) from None
        greeted = False
        try:
            async with asyncio.timeout(endpoint.timeout_s):
                link = cls(endpoint, websocket, verdicts.greeted(endpoint, await websocket.recv()))
            greeted = True
            return link
        except TimeoutError:
            raise verdicts.unanswered(endpoint) from None
        except ConnectionClosed as closed:
            end = _ended(closed)
            raise end if isinstance(end, ClientError) else ServerUnavailable(f"{endpoint.where}: {end}") from None
        finally:
            if not greeted:
                websocket.transport.abort()

    @property
    def is_over(self) -> bool:
        """Whether this side has closed it."""
        return self._closing is not None

    @property
    def is_closed(self) -> bool:
        """Whether nothing is left of it."""
        return self._closing is not None and self._closing.done()

    @property
    def is_alive(self) -> bool:
        """Whether it can be used: it is not closed, and something was received recently."""
        is_open = not self.is_over and self._websocket.close_code is None
        return is_open and self._liveness.is_alive(self._loop.time())

    def close(self) -> None:
        """Close it, with a close frame, which the daemon has a moment to answer. May be called repeatedly."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())

    async def wait_closed(self) -> None:
        """Until `close` is done. If cancelled, the connection is closed at once."""
        self.close()
        try:
            await asyncio.shield(cast("asyncio.Task[None]", self._closing))
        except asyncio.CancelledError:
            self._websocket.transport.abort()
            raise

    async def send(self, command: Command) -> None:
        """Send a command. If it cannot be sent whole, also because of cancellation, the link is closed.

        Raises:
            Disconnected: the connection is closed, or the daemon does not read.
            ServerRefused: it was closed with a code that says not to come back.
        """
        sent = False
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):
                await self._websocket.send(encode(command).decode())
            sent = True
        except TimeoutError:
            raise verdicts.unsent(self._endpoint) from None
        except ConnectionClosed as closed:
            raise _ended(closed) from None
        finally:
            if not sent:
                self.close()

    async def receive(self) -> tuple[Message, str]:
        """The next message, and its text as received. Message types of later versions are skipped.

        If cancelled, no message is lost.

        Raises:
            Disconnected: the connection has ended, or nothing was heard for two heartbeats, while this process ran.
            ServerRefused: it was closed with a code that says not to come back.
            NotUnderstood: the data received is not a message.
        """
        until_s = self._liveness.begin(self._loop.time())
        while True:
            try:
                async with asyncio.timeout_at(until_s):
                    raw = await self._websocket.recv()
            except TimeoutError:
                until_s = self._liveness.again_until_s(self._loop.time())
                continue
            except ConnectionClosed as closed:
                raise _ended(closed) from None
            if (message := verdicts.decode(raw)) is not None:
                return message, cast("str", raw)

    async def _close(self) -> None:
        """The closing handshake; the library ends the connection when its time is up."""
        await self._websocket.close()


async def _dial(endpoint: Endpoint) -> _Connection:
    """Open the connection, up to the end of the handshake. Raises: ClientError."""
    address = endpoint.address
    tls: dict[str, Any] = {} if endpoint.ssl_context is None else {"ssl": endpoint.ssl_context}
    attempt = _Connect(
        f"{'wss' if address.tls else 'ws'}://{address.host_header}{address.resource}",
        subprotocols=[Subprotocol(Format.JSON.value)],
        compression=None,
        additional_headers={"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else None,
        user_agent_header=None,
        proxy=None,
        # Ours are of one connection and its welcome together, and silence is judged by `Liveness`.
        open_timeout=None,
        ping_interval=None,
        close_timeout=CLOSE_S,
        max_size=MESSAGE_BYTES,
        max_queue=READ_AHEAD,
        create_connection=_Connection,
        **tls,
    )
    try:
        return cast("_Connection", await attempt)
    except InvalidStatus as answer:
        response = answer.response
        said = (response.status_code, response.headers.get("Retry-After", ""), bytes(response.body or b""))
        raise verdicts.rejected(endpoint, *said, int(time.time() * 1000)) from None
    except InvalidMessage as nonsense:
        # The library has one exception for both; the cause tells them apart.
        if isinstance(nonsense.__cause__, EOFError):
            raise verdicts.hung_up(endpoint) from None
        raise verdicts.no_websocket(endpoint) from None
    except InvalidHandshake:
        raise verdicts.no_websocket(endpoint) from None
    except OSError as error:
        raise unreachable(endpoint, error) from None


def _ended(closed: ConnectionClosed) -> Disconnected | ServerRefused:
    """Why the connection is closed: by the daemon's close frame, if one came."""
    return verdicts.ended(None, None) if closed.rcvd is None else verdicts.ended(closed.rcvd.code, closed.rcvd.reason)
