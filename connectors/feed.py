"""Runs one venue's websocket: connect, subscribe, hand on what comes, until it breaks.

`Feed` is the connector: it outlives connections and remembers what the venue refused. A `_Link` is
one connection. It has no second try of its own (the supervisor has), and nothing keeps two links
from running side by side. In a link:

    trio-websocket's reader   reads through the `Inlet`, answers pings and closes
    _pass_on                  brings the few messages that trio-websocket assembles to the others
    _speak                    sends all that is sent: subscriptions, heartbeats; and notices silence
    _listen                   has the `Intake` work off batches of payloads; says why it ended
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from math import inf
from typing import Final, NoReturn, assert_never, cast

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

from connectors.base import ConnectorError, Context, VenueRefused, VenueUnavailable
from connectors.dial import dial, parse_address
from connectors.feed_venue import Ack, Control, FeedVenue, Heartbeat, Ignored, Notice, Refused
from connectors.inlet import MAX_MESSAGE_BYTES, Inlet
from connectors.intake import FeedStatistics, Intake
from connectors.pulse import Pulse
from connectors.subscriptions import SetAside, Subscriptions

_log: Final = logging.getLogger(__name__)

_BROKEN: Final = (wsproto.utilities.ProtocolError, h11.ProtocolError)
"""What trio-websocket's reader lets through when a venue breaks the protocol at an awkward moment: in the opening
handshake, or with a ping while we are closing."""

_CLOSE_S: Final = 0.2
"""How long a venue may take over the closing handshake: we are leaving anyway."""

_LONG_S: Final = 1.0
"""A hub that is busy for so long delays what is owed to us by as much."""


class PlannedReconnect(VenueUnavailable):
    """The venue announced that it will close the connection: nothing is wrong, come back soon."""


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
    ) -> None:
        """One venue at one address.

        Args:
            venue: all that is the venue's own.
            url: `ws://` or `wss://`.
            user_agent: who we say we are.
            silence_s: a connection without any data for so long is given up.
            data_s: a channel without data for so long is reported stale, while others talk.
            timeout_s: for connecting, and again for the opening handshake.
            ssl_context: for a `wss` URL, instead of the system's trust.

        Raises:
            ValueError: no such URL.
        """
        self.venue = venue
        self.address = parse_address(url)
        self.user_agent = user_agent
        self.silence_s = silence_s
        self.data_s = data_s
        self.timeout_s = timeout_s
        self.ssl_context: ssl.SSLContext | None = None
        if self.address.tls:
            # Reads files, so it is done here and not on the loop.
            self.ssl_context = ssl_context or ssl.create_default_context()
        self.set_aside: dict[str, SetAside] = {}
        self.counts = FeedStatistics()
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
        """One connection, to its end. If cancelled, the socket is closed within a moment and nothing is left.

        Raises:
            ConnectorError: why it ended.
        """
        await trio.sleep_until(self._connect_s)
        self._connect_s = trio.current_time() + self.venue.rules.connect_spacing_s
        raise await _Link(self, context).run()


class _Link:
    """One connection to the venue."""

    def __init__(self, feed: Feed, context: Context) -> None:
        self._began_s = now_s = trio.current_time()
        self._feed = feed
        self._name = feed.venue.name
        self._title = feed.venue.title
        self._context = context
        self._subscriptions = Subscriptions(
            feed.venue.subscribe_requests(),
            feed.set_aside,
            title=self._title,
            data_s=feed.data_s,
            requests_per_hour=feed.venue.rules.requests_per_hour,
            now_s=now_s,
        )
        self._intake = Intake(feed.venue, context, feed.counts, heed=self._heed, heard=self._heard)
        self._pulse = Pulse(self._title, feed.venue.rules, silence_s=feed.silence_s, now_s=now_s)
        self._wakes, self._woken = trio.open_memory_channel[str](16)
        """Wakes `_speak`: a text to send, or "" where only the deadlines have changed."""

    async def run(self) -> ConnectorError:
        """Connect, and work until it breaks. Returns why."""
        feed = self._feed
        causes: list[BaseException] = []
        try:
            now_s = trio.current_time()
            for change in self._subscriptions.opening(now_s):
                await self._context.report(change)
            self._stop_if_all_refused(now_s)
            stream = await dial(feed.address, ssl_context=feed.ssl_context, timeout_s=feed.timeout_s)
            inlet = Inlet(stream, now_ms=self._context.now_ms)
            try:
                async with trio.open_nursery() as reader:
                    await self._serve(reader, inlet)
            finally:
                # At once, also when cancelled: a courteous end was tried in `_serve`.
                await trio.aclose_forcefully(inlet)
        except* (ConnectorError, HandshakeError, ConnectionClosed, *_BROKEN) as group:
            causes = list(_leaves(group))
        return self._explain(causes)

    async def _serve(self, reader: trio.Nursery, inlet: Inlet) -> NoReturn:
        """Open the websocket (its reader task lives in `reader`) and talk until something raises."""
        websocket = await self._shake_hands(reader, inlet)
        now_s = trio.current_time()
        self._pulse.rest(now_s, had_data=True)
        self._subscriptions.excuse(now_s - self._began_s)
        self._feed.counts.connections += 1
        _log.info("%s: connected to %s", self._name, self._feed.address.host)
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._pass_on, websocket, inlet)
                tasks.start_soon(self._speak, websocket)
                await self._listen(inlet)
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
        raise VenueUnavailable(f"{self._title} did not answer the opening handshake in {timeout_s:g} s")

    async def _hung_up(self, inlet: Inlet) -> NoReturn:
        await inlet.ended.wait()
        raise VenueUnavailable(f"{self._title} hung up during the opening handshake")

    async def _pass_on(self, websocket: WebSocketConnection, inlet: Inlet) -> None:
        """What trio-websocket assembled goes to its place among the rest; at the close, the end."""
        try:
            while True:
                await inlet.deliver(await websocket.get_message())
        except ConnectionClosed:
            inlet.finish()

    async def _speak(self, websocket: WebSocketConnection) -> None:
        """Send what is due; raise on silence."""
        pulse, subscriptions = self._pulse, self._subscriptions
        try:
            while True:
                now_s = trio.current_time()
                pulse.check(now_s)
                wake_s = pulse.next_due_s(now_s)
                if not pulse.is_busy:
                    # Else answers may lie unread, and nobody is late.
                    await self._ask(websocket, now_s)
                    if pulse.ping_due(now_s):
                        await self._send(websocket, self._feed.venue.rules.ping)
                    wake_s = min(pulse.next_due_s(now_s), subscriptions.next_due_s())
                text = ""
                with trio.move_on_at(wake_s):
                    text = await self._woken.receive()
                if text:
                    await self._send(websocket, text)
        except ConnectionClosed:
            # `_listen` ends too, once it has dealt with what came before the close, and says why.
            return

    async def _ask(self, websocket: WebSocketConnection, now_s: float) -> None:
        """Send the subscriptions that are due, and tell which are late."""
        due = self._subscriptions.due(now_s)
        for request in due.requests:
            await self._send(websocket, request.text)
        for change in due.changes:
            _log.warning("%s: %s: %s", self._name, change.channel, change.reason)
            await self._context.report(change)

    async def _send(self, websocket: WebSocketConnection, text: str) -> None:
        """A text frame. One that cannot be sent ends the link, because half of it may be gone.

        Raises:
            ConnectionClosed: the websocket is closing.
            VenueUnavailable: the venue does not read.
        """
        with trio.move_on_after(self._feed.timeout_s) as scope:
            await websocket.send_message(text)
        if scope.cancelled_caught:
            raise VenueUnavailable(f"{self._title} does not read what is sent to it")

    async def _listen(self, inlet: Inlet) -> None:
        """Work off what comes, until the websocket has closed and the last batch is done."""
        async for batch in inlet.batches:
            since_s = trio.current_time()
            self._pulse.work()
            had_data = await self._intake.take(batch)
            now_s = trio.current_time()
            self._pulse.rest(now_s, had_data=had_data)
            if now_s - since_s >= _LONG_S:
                self._subscriptions.excuse(now_s - since_s)
                self._wake("")

    def _heard(self, channels: set[str]) -> None:
        self._subscriptions.heard(channels, trio.current_time())

    async def _heed(self, control: Control) -> None:
        """Raises: PlannedReconnect on a notice; VenueRefused where nothing is left to hear."""
        match control:
            case Ack():
                self._subscriptions.acknowledged(control.id)
            case Refused():
                now_s = trio.current_time()
                _log.warning("%s: %s", self._name, control.reason)
                for change in self._subscriptions.refused(control, now_s):
                    await self._context.report(change)
                self._stop_if_all_refused(now_s)
                self._wake("")
            case Notice():
                raise PlannedReconnect(control.reason)
            case Heartbeat():
                self._pulse.answers = True
                self._wake(control.answer)
            case Ignored():
                self._feed.counts.ignored += 1
            case _:
                assert_never(control)

    def _wake(self, text: str) -> None:
        try:
            self._wakes.send_nowait(text)
        except trio.WouldBlock:
            # It is about to look at its deadlines; and who pings faster than that gets fewer
            # answers.
            return

    def _stop_if_all_refused(self, now_s: float) -> None:
        """Raises: VenueRefused, where everything is set aside."""
        retry_after_s = self._subscriptions.retry_after_s(now_s)
        if retry_after_s is not None:
            reasons = dict.fromkeys(aside.reason for aside in self._feed.set_aside.values())
            raise VenueRefused(", ".join(reasons), retry_after_s=retry_after_s)

    def _why_closed(self, websocket: WebSocketConnection) -> ConnectorError:
        """The close code in words. Coming back is right after all but the venue's fatal ones."""
        reason = websocket.closed
        if reason is None or reason.code == 1006:
            return VenueUnavailable(f"{self._title} dropped the connection")
        text = "".join(c if c.isprintable() else " " for c in reason.reason or "")
        said = f"the connection to {self._title} closed: {reason.code} {text}".rstrip()
        if reason.code in self._feed.venue.rules.fatal_close_codes:
            return VenueRefused(said)
        return VenueUnavailable(said)

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
