"""Runs one venue's websocket: connect, subscribe, hand on what comes, until it breaks.

`Feed` is the connector: it outlives connections and remembers what the venue refused. A `_Link` is
one connection. It has no second try of its own: the supervisor has, after a failure, and the
`Handover`, which runs two links side by side where the end of one is known beforehand. In a link:

    trio-websocket's reader   reads through the `Inlet`, answers pings and closes
    _pass_on                  brings the few messages that trio-websocket assembles to the others
    _speak                    has the `Conversation` send all that is sent, and notice silence
    _serve                    has it work off what comes; says why the connection ended
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
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

from connectors.base import ConnectorError, Context, VenueClosed, VenueRefused, VenueTimeout, VenueUnavailable
from connectors.push.conversation import Conversation
from connectors.push.dial import dial, parse_address
from connectors.push.handover import Handover
from connectors.push.inlet import MAX_MESSAGE_BYTES, Inlet
from connectors.push.intake import FeedStatistics
from connectors.push.pulse import Patience
from connectors.push.subscriptions import SetAside
from connectors.push.venue import FeedVenue

_log: Final = logging.getLogger(__name__)

_BROKEN: Final = (wsproto.utilities.ProtocolError, h11.ProtocolError)
"""What trio-websocket's reader lets through when a venue breaks the protocol at an awkward moment: in the opening
handshake, or with a ping while we are closing."""

_CLOSE_S: Final = 0.2
"""How long a venue may take over the closing handshake: we are leaving anyway."""


class Feed:
    """A connector for one venue's push interface."""

    def __init__(
        self,
        venue: FeedVenue,
        url: str,
        *,
        user_agent: str,
        silence_s: float = 30.0,
        data_s: float = 30.0,
        timeout_s: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        rotate_after_s: float = 0.0,
    ) -> None:
        """One venue at one address.

        Args:
            venue: all that is the venue's own.
            url: `ws://` or `wss://`.
            user_agent: who we say we are.
            silence_s: a connection without any data for so long is given up; see `Patience` for rare instruments.
            data_s: a channel without data for so long is reported stale, while others talk.
            timeout_s: for connecting, and again for the opening handshake.
            ssl_context: for a `wss` URL, instead of the system's trust.
            rotate_after_s: a connection of this age is replaced by another before it is closed; 0: none is.

        Raises:
            ValueError: no such URL.
        """
        self.venue = venue
        self.address = parse_address(url)
        self.user_agent = user_agent
        self.silence_s = silence_s
        self.data_s = data_s
        self.timeout_s = timeout_s
        self.rotate_after_s = rotate_after_s
        self.ssl_context: ssl.SSLContext | None = None
        if self.address.tls:
            # Reads files, so it is done here and not on the loop.
            self.ssl_context = ssl_context or ssl.create_default_context()
        self.set_aside: dict[str, SetAside] = {}
        self.counts = FeedStatistics()
        self.patience = Patience(len(venue.subscribe_requests()))
        self._connect_s = -inf

    @property
    def name(self) -> str:
        """The venue's."""
        return self.venue.name

    @property
    def channels(self) -> tuple[str, ...]:
        """The venue's."""
        return self.venue.channels

    def statistics(self) -> FeedStatistics:
        """A copy of the counts."""
        return msgspec.structs.replace(self.counts)

    async def run(self, context: Context) -> NoReturn:
        """Connections that take over from one another, until one fails. If cancelled, all is closed within a moment.

        Raises:
            ConnectorError: why the last one ended.
        """
        raise await Handover(
            self.venue,
            context,
            self.counts,
            partial(_Link, self),
            rotate_after_s=self.rotate_after_s,
            set_aside=self._partly_set_aside,
        ).run()

    async def wait_to_connect(self) -> None:
        """Wait until the venue allows another attempt to connect; it counts as made."""
        connect_s = max(self._connect_s, trio.current_time())
        self._connect_s = connect_s + self.venue.rules.connect_spacing_s
        await trio.sleep_until(connect_s)

    def conversation(self, context: Context, noticed: Callable[[str], None]) -> Conversation:
        """What there is to say on a new connection; for the arguments see there."""
        return Conversation(
            self.venue,
            context,
            self.counts,
            self.set_aside,
            silence_s=self.patience.silence_s(self.silence_s),
            data_s=self.data_s,
            noticed=noticed,
        )

    def _partly_set_aside(self) -> set[str]:
        """The channels of which the venue refuses at least a part."""
        requests = self.venue.subscribe_requests()
        return {name for request in requests if request.id in self.set_aside for name in request.channels}


class _Link:
    """One connection to the venue: a `handover.Connection`."""

    def __init__(self, feed: Feed, context: Context, noticed: Callable[[str], None]) -> None:
        self.opened_s = inf
        self._feed = feed
        self._name = feed.venue.name
        self._title = feed.venue.title
        self._context = context
        self._noticed = noticed
        self._conversation: Conversation | None = None

    @property
    def is_settled(self) -> bool:
        """Whether every subscription is acknowledged or set aside."""
        return self._conversation is not None and self._conversation.is_settled

    async def run(self) -> ConnectorError:
        """Connect, and work until it breaks. Returns why."""
        feed = self._feed
        causes: list[BaseException] = []
        try:
            await feed.wait_to_connect()
            talk = self._conversation = feed.conversation(self._context, self._noticed)
            await talk.prepare()
            stream = await dial(feed.address, ssl_context=feed.ssl_context, timeout_s=feed.timeout_s)
            inlet = Inlet(stream, now_ms=self._context.now_ms)
            try:
                async with trio.open_nursery() as reader:
                    await self._serve(reader, inlet, talk)
            finally:
                # At once, also when cancelled: a courteous end was tried in `_serve`.
                await trio.aclose_forcefully(inlet)
        except* (ConnectorError, HandshakeError, ConnectionClosed, *_BROKEN) as group:
            causes = list(_leaves(group))
        if self._conversation is not None:
            self._conversation.inform(feed.patience)
        return self._explain(causes)

    async def _serve(self, reader: trio.Nursery, inlet: Inlet, talk: Conversation) -> NoReturn:
        """Open the websocket (its reader task lives in `reader`) and talk until something raises."""
        websocket = await self._shake_hands(reader, inlet)
        self.opened_s = trio.current_time()
        talk.begin()
        self._feed.counts.connections += 1
        _log.info("%s: connected to %s", self._name, self._feed.address.host)
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._pass_on, websocket, inlet)
                tasks.start_soon(self._speak, websocket, talk)
                await talk.listen(inlet.batches)
                raise self._why_closed(websocket)
        finally:
            # trio-websocket waits without a limit for the venue's answer.
            with trio.move_on_after(_CLOSE_S, shield=True):
                await websocket.aclose()

    async def _shake_hands(self, reader: trio.Nursery, inlet: Inlet) -> WebSocketConnection:
        address, timeout_s = self._feed.address, self._feed.timeout_s
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
                    extra_headers=[(b"User-Agent", self._feed.user_agent.encode())],
                    max_message_size=MAX_MESSAGE_BYTES,
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

    async def _speak(self, websocket: WebSocketConnection, talk: Conversation) -> None:
        try:
            await talk.speak(partial(self._send, websocket))
        except ConnectionClosed:
            # `listen` ends too, once it has dealt with what came before the close, and `_serve`
            # says why.
            return

    async def _send(self, websocket: WebSocketConnection, text: str) -> None:
        """A text frame. One that cannot be sent ends the link, because half of it may be gone.

        Raises:
            ConnectionClosed: the websocket is closing.
            VenueUnavailable: the venue does not read.
        """
        with trio.move_on_after(self._feed.timeout_s) as scope:
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
        if reason.code in self._feed.venue.rules.fatal_close_codes:
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
        wait = next((v for k, v in answer.headers if k.lower() == b"retry-after"), b"")
        return VenueUnavailable(
            f"{self._title} answered the opening handshake with HTTP {status}",
            retry_after_s=float(wait) if wait.isdigit() and len(wait) < 7 else None,
        )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The single errors of a group."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error
