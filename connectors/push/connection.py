"""One websocket to a venue: opened, run until it breaks, closed. It has no second try of its own.

trio-websocket's reader   reads through the `Inlet`, answers pings and closes
_pass_on                  brings the few messages that trio-websocket assembles to the others
_speak                    has the `FeedSession` send all that is sent, and notice silence
attend                    of the `FeedSession`: fetches, and says what is due
_serve                    has it read what comes; says why the connection ended
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from functools import partial
from math import inf
from traceback import clear_frames
from typing import Final, NoReturn, cast

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

from connectors.backoff import retry_after_s
from connectors.base import ConnectorError, VenueClosed, VenueRefused, VenueTimeout, VenueUnavailable, leaves
from connectors.network.tunnel import Tunnel
from connectors.push.address import Address
from connectors.push.dial import dial
from connectors.push.inlet import Inlet
from connectors.push.session import FeedSession
from connectors.push.venue import FeedVenue

_log: Final = logging.getLogger(__name__)

_BROKEN: Final = (wsproto.utilities.ProtocolError, h11.ProtocolError)
"""What trio-websocket's reader lets through when a venue breaks the protocol at an awkward moment: in the opening
handshake, or with a ping while we are closing."""

_CLOSE_S: Final = 0.2
"""How long a venue may take over the closing handshake: we are leaving anyway."""

CLOSED_HERE: Final = "closed by the daemon"
"""What a recording says of the end of a connection that neither failed nor was closed by the venue."""


class Spacing:
    """Keeps attempts to connect to one venue apart, of as many feeds as have it."""

    def __init__(self, spacing_s: float) -> None:
        self._spacing_s = spacing_s
        self._next_s = -inf

    async def wait(self) -> None:
        """Wait until the venue allows another attempt to connect; it counts as made."""
        connect_s = max(self._next_s, trio.current_time())
        self._next_s = connect_s + self._spacing_s
        await trio.sleep_until(connect_s)


class Target(msgspec.Struct, frozen=True):
    """Where and how to connect. `timeout_s` is for connecting, and again for the opening handshake.

    `tunnel` leads there through a proxy; None goes straight.
    """

    address: Address
    ssl_context: ssl.SSLContext | None
    user_agent: str
    timeout_s: float
    tunnel: Tunnel | None = None


class VenueConnection:
    """One connection to the venue: a `handover.Connection`."""

    def __init__(
        self,
        venue: FeedVenue,
        target: Target,
        spacing: Spacing,
        session: FeedSession,
        now_ms: Callable[[], int],
    ) -> None:
        """`now_ms` stamps what comes, ms since 1970."""
        self.opened_s = inf
        self._name = venue.name
        self._title = venue.title
        self._fatal_close_codes = venue.rules.fatal_close_codes
        self._max_message_bytes = venue.rules.message_bytes
        self._target = target
        self._spacing = spacing
        self._session = session
        self._now_ms = now_ms

    @property
    def is_settled(self) -> bool:
        """Whether every subscription is acknowledged or set aside."""
        return self._session.is_settled

    async def run(self) -> ConnectorError:
        """Connect, and work until it breaks. Returns why."""
        reason = CLOSED_HERE
        try:
            error = await self._run()
            reason = str(error)
        finally:
            self._session.closed(reason)
        return error

    async def _run(self) -> ConnectorError:
        target = self._target
        causes: list[BaseException] = []
        try:
            await self._connect_and_work()
        except* (ConnectorError, HandshakeError, ConnectionClosed, *_BROKEN) as group:
            causes = list(leaves(group))
        self._session.end()
        error = self._explain(causes)
        # What raised them holds what was read, megabytes sometimes, and they hold what raised them, until the collector
        # comes to it.
        for cause in causes:
            clear_frames(cause.__traceback__)
        causes.clear()
        return error if target.tunnel is None else target.tunnel.told(error)

    async def _connect_and_work(self) -> None:
        await self._spacing.wait()
        await self._session.prepare()
        stream = await self._dial()
        inlet = Inlet(stream, now_ms=self._now_ms, max_message_bytes=self._max_message_bytes, title=self._title)
        try:
            async with trio.open_nursery() as reader:
                await self._serve(reader, inlet)
        finally:
            # At once, also when cancelled: a courteous end was tried in `_serve`.
            await trio.aclose_forcefully(inlet)

    async def _dial(self) -> trio.abc.Stream:
        """A stream to the venue, straight or through the proxy. Raises: ConnectorError."""
        target, address = self._target, self._target.address
        if target.tunnel is None:
            return await dial(address, ssl_context=target.ssl_context, timeout_s=target.timeout_s)
        return await target.tunnel.dial(
            address.host, address.port, ssl_context=target.ssl_context, timeout_s=target.timeout_s
        )

    async def _serve(self, reader: trio.Nursery, inlet: Inlet) -> NoReturn:
        """Open the websocket (its reader task lives in `reader`) and talk until something raises."""
        websocket = await self._shake_hands(reader, inlet)
        self.opened_s = trio.current_time()
        self._session.begin(f"{self._target.address.host_header}{self._target.address.resource}")
        _log.info("%s: connected to %s", self._name, self._target.address.host)
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._pass_on, websocket, inlet)
                tasks.start_soon(self._speak, websocket)
                tasks.start_soon(self._session.attend)
                await self._session.listen(inlet.batches)
                raise self._why_closed(websocket)
        finally:
            # trio-websocket waits without a limit for the venue's answer.
            with trio.move_on_after(_CLOSE_S, shield=True):
                await websocket.aclose()

    async def _shake_hands(self, reader: trio.Nursery, inlet: Inlet) -> WebSocketConnection:
        address, timeout_s = self._target.address, self._target.timeout_s
        with trio.move_on_after(timeout_s):
            async with trio.open_nursery() as race:
                # trio-websocket does not see a stream end before the handshake is done.
                race.start_soon(self._hung_up, inlet)
                websocket = await wrap_client_stream(
                    reader,
                    # Annotated more narrowly than documented: it takes any `trio.abc.Stream`.
                    cast("trio.SocketStream", inlet),
                    address.host_header,
                    address.resource,
                    extra_headers=[(b"User-Agent", self._target.user_agent.encode())],
                    max_message_size=self._max_message_bytes,
                    receive_buffer_size=None,
                )
                race.cancel_scope.cancel()
            return websocket
        raise VenueTimeout(f"{self._title} did not answer the opening handshake in {timeout_s:g} s")

    async def _hung_up(self, inlet: Inlet) -> NoReturn:
        await inlet.ended.wait()
        raise VenueClosed(f"{self._title} hung up during the opening handshake")

    async def _pass_on(self, websocket: WebSocketConnection, inlet: Inlet) -> None:
        """What trio-websocket assembled goes to its place among the rest; at the close, the end."""
        try:
            while True:
                await inlet.deliver(await websocket.get_message())
        except ConnectionClosed:
            inlet.finish()

    async def _speak(self, websocket: WebSocketConnection) -> None:
        try:
            await self._session.speak(partial(self._send, websocket))
        except ConnectionClosed:
            # `listen` ends too, once it has dealt with what came before the close, and `_serve`
            # says why.
            return

    async def _send(self, websocket: WebSocketConnection, text: str) -> None:
        """A text frame. One that cannot be sent ends the connection, because half of it may be gone.

        Raises:
            ConnectionClosed: the websocket is closing.
            VenueUnavailable: the venue does not read.
        """
        with trio.move_on_after(self._target.timeout_s) as scope:
            await websocket.send_message(text)
        if scope.cancelled_caught:
            raise VenueTimeout(f"{self._title} does not read what is sent to it")

    def _why_closed(self, websocket: WebSocketConnection) -> ConnectorError:
        """The close code in words. Coming back is right after all but the venue's fatal ones."""
        reason = websocket.closed
        if reason is None or reason.code == 1006:
            return VenueClosed(f"{self._title} dropped the connection")
        text = "".join(c if c.isprintable() else " " for c in reason.reason or "")
        said = f"the connection to {self._title} closed: {reason.code} {text}".rstrip()
        if reason.code in self._fatal_close_codes:
            return VenueRefused(said)
        return VenueClosed(said)

    def _explain(self, causes: list[BaseException]) -> ConnectorError:
        """The one error that clients are told of: ours, which know most, before trio-websocket's."""
        cause = min(causes, key=lambda cause: not isinstance(cause, ConnectorError))
        if isinstance(cause, ConnectorError):
            return cause
        if isinstance(cause, ConnectionRejected):
            return self._rejected(cause)
        return VenueUnavailable(f"{self._title} does not speak the websocket protocol")

    def _rejected(self, answer: ConnectionRejected) -> ConnectorError:
        """An HTTP status instead of an upgrade. 403 and 451: the venue does not serve this region."""
        status = answer.status_code
        if status in (403, 451):
            return VenueRefused(f"{self._title} refuses to serve this address: HTTP {status}")
        said = {name.lower(): value.decode("latin-1") for name, value in reversed(answer.headers)}
        wait, date = said.get(b"retry-after", ""), said.get(b"date", "")
        return VenueUnavailable(
            f"{self._title} answered the opening handshake with HTTP {status}",
            retry_after_s=retry_after_s(wait, self._now_ms(), date=date),
        )
