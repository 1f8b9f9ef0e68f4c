"""One websocket client, from its handshake to its end (RFC 6455).

One client is one `serve` call, with a nursery of its own and these tasks:

* trio-websocket's reader, which answers pings and closes, and hands over commands;
* the session itself: it passes each command to the sans-IO `protocol.session`, and carries out the returned effects;
* while the client is behind, a task that catches it up. It ends when the client has caught up; an idle client has none.

This file avoids these traps of trio-websocket (0.12.2). Its `aclose` waits for the peer without a limit, so it is
always called under a deadline and followed by a forceful close. Its reader task can raise when a ping crosses our
close, so each session ends in a barrier. It leaves the stream open after a refused message, and closes it without a
close frame after a protocol violation, so it gets a stream that it cannot close, and we always close it.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Final, assert_never

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from daemon.fanout.subscriber import State
from daemon.front.arrivals import Upgrade
from daemon.front.http import ALWAYS
from daemon.front.limits import Limits
from daemon.sessions.client import ConnectedClient
from daemon.sessions.sessions import Sessions
from daemon.sessions.stream import ClientStream
from protocol.channels import Catalogue
from protocol.codes import CloseCode
from protocol.frame_meter import FrameMeter
from protocol.frames import close_frame, ping_frame
from protocol.session import Close, Effect, Join, Leave, Reply, Session

_HEADERS: Final = [(name.encode(), value.encode()) for name, value in ALWAYS]

_CLOSE_FRAME: Final = b"\x88"
"""How a close frame begins (RFC 6455 section 5.2). No data may follow it (section 5.5.1)."""

_LINGER_S: Final = 2.0

_VIOLATIONS: Final = (1002, 1007, 1009)
"""The codes after which trio-websocket stops reading: broken framing, not UTF-8, a message over the limit."""

_PENDING_BYTES: Final = 256 * 1024
"""So many bytes of replies are kept for a client that does not read; beyond this its commands wait."""

_log: Final = logging.getLogger(__name__)


class UnclosedStream(trio.abc.Stream):
    """A client's stream for trio-websocket, which can do everything with it but close it.

    trio-websocket (0.12.2) closes in two unsuitable ways: after a protocol violation at once, without the close frame
    that RFC 6455 section 7.1.7 asks for; and without telling us, while the hub may still write to the file descriptor,
    whose number the next client may have by then. So `WebSocketClient` closes the stream.
    """

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `ClientStream.send_all`. trio-websocket sends one frame at a time, so a close frame can be told apart."""
        await self._check()
        if data[:1] == _CLOSE_FRAME:
            await self._stream.send_close(bytes(data))
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As `ClientStream.wait_send_all_might_not_block`."""
        await self._check()
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `ClientStream.receive_some`."""
        await self._check()
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """End trio-websocket's use of the stream; nothing is closed."""
        self._closed = True
        await trio.lowlevel.checkpoint()

    async def _check(self) -> None:
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError


class WebSocketClient(ConnectedClient):
    """One websocket client, with its subscriptions."""

    def __init__(self, sessions: Sessions, upgrade: Upgrade, nursery: trio.Nursery) -> None:
        super().__init__(
            sessions.hub,
            ClientStream(upgrade.stream, head=upgrade.head, trailing=upgrade.trailing),
            format=upgrade.format,
            peer=upgrade.peer,
            grant=upgrade.grant,
            nursery=nursery,
            ping_every_s=sessions.limits.ping_every_s,
        )
        commands, now_s = sessions.limits, trio.current_time()
        self.state = Session(sessions.catalogue.granted(upgrade.grant), upgrade.format, commands, now_s)
        self._joining = sessions.joining
        self._clock = sessions.clock
        self._counts = sessions.counts
        self._turns = sessions.turns
        self.meter = self.stream.meter = FrameMeter(commands.commands_per_s, commands.commands_burst, now_s)

    async def open(self, upgrade: Upgrade, limits: Limits) -> WebSocketConnection:
        """Complete the handshake. Raises: trio.TooSlowError, ConnectionClosed, trio.BrokenResourceError."""
        with trio.fail_after(limits.handshake_s):
            stream = UnclosedStream(self.stream)
            request = await wrap_server_stream(self._nursery, stream, max_message_size=limits.message_bytes)
            return await request.accept(subprotocol=upgrade.subprotocol, extra_headers=_HEADERS)

    async def converse(self, websocket: WebSocketConnection) -> None:
        """Take commands until the connection must be closed (`ask_to_close`); then give the peer time to answer.

        Raises:
            ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError: the peer ended it.
        """
        with self._conversation:
            while self.closing is None:
                raw = await websocket.get_message()
                if self._turns.are_due:
                    await self._turns.wait()
                began_s = time.perf_counter()
                self._counts.commands += 1
                for effect in self.state.receive(raw, trio.current_time(), self._clock.timestamp()):
                    if isinstance(effect, Join) and effect.since is not None and self._joining.patience_s:
                        await self._joining.wait_for(effect.since)
                    self._carry_out(effect)
                self._turns.took(time.perf_counter() - began_s)
                while sum(map(len, self.stream.pending)) > _PENDING_BYTES:
                    await self.stream.flush()
        if self.closing is not None:
            code, reason, within_s = self.closing
            self.ended = code, reason
            with trio.move_on_after(within_s):
                await websocket.aclose(code, reason)

    def _carry_out(self, effect: Effect) -> None:
        self._counts.effect(effect)
        match effect:
            case Reply(message):
                self.subscriber.say(message)
            case Join():
                self._joining.join(self.subscriber, self.state, effect)
            case Leave():
                self._joining.leave(self.subscriber, self.state, effect)
            case Close(code, reason):
                self.ask_to_close(code, reason)
            case _:
                assert_never(effect)

    async def part(self, why: ConnectionClosed) -> None:
        """Note why the websocket closed. Tell a client that broke the rules so, and give it time to read that."""
        code, reason = (1006, "") if why.reason is None else (why.reason.code, why.reason.reason or "")
        if self.stream.flooded:
            code, reason = CloseCode.POLICY, self.stream.flooded
        self.ended = self.ended or (code, reason)
        if self.stream.flooded or code in _VIOLATIONS:
            with trio.move_on_after(_LINGER_S):
                await self.stream.refuse(close_frame(code, reason))

    async def fail(self) -> None:
        """Tell the client, if possible, that the session ended by a bug of ours (RFC 6455 section 7.4.1)."""
        self.ended = CloseCode.INTERNAL_ERROR, "the daemon failed; its log says why"
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(_LINGER_S):
            await self.stream.refuse(close_frame(*self.ended))

    def ping(self) -> bytes:
        """A ping frame: the peer must answer it (RFC 6455 section 5.5.2), so the meter does not count its pong."""
        self.meter.pinged()
        return ping_frame()

    def verdict(self, now_s: float, limits: Limits) -> tuple[CloseCode, str] | None:
        """Drops it if nothing could be written, or nothing was received, for too long."""
        stream = self.stream
        # Bytes that its socket takes are proof of life, too: a slow client reads our ping only after what came before.
        behind = self.subscriber.state is State.BEHIND
        alive_s = max(stream.last_received_s, stream.last_progress_s) if behind else stream.last_received_s
        slow = self._slow(now_s, limits)
        if slow is None and now_s - alive_s > limits.silent_after_s:
            return CloseCode.NO_PONG, f"nothing was received for {limits.silent_after_s:g} s, no pong either"
        return slow

    def last_words(self, code: CloseCode, reason: str) -> bytes:
        """A close frame."""
        return close_frame(code, reason)

    def adopt(self, catalogue: Catalogue) -> None:
        """Apply this catalogue to later commands. Existing subscriptions stay."""
        self.state.catalogue = catalogue.granted(self.grant)


class WebSockets:
    """Serves websocket clients: the front door hands over the clients that it lets in."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def serve(self, upgrade: Upgrade) -> None:
        """Serve one client until its connection ends. This is the barrier: its errors do not affect others.

        If cancelled, the connection is closed without the closing handshake; `Sessions.say_goodbye` is the polite way.
        """
        session: WebSocketClient | None = None
        failed = False
        try:
            try:
                async with trio.open_nursery() as nursery:
                    session = WebSocketClient(self._sessions, upgrade, nursery)
                    try:
                        await self._serve(session, upgrade)
                    finally:
                        session.detach()
                    nursery.cancel_scope.cancel(reason="the session is over")
            except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                _log.debug("%s left without a closing handshake", upgrade.peer)
            except* Exception:  # the barrier: one client's failure is logged once and is nobody else's
                failed = session is None or session.closing is None
                if failed:
                    _log.exception("the session of %s failed", upgrade.peer)
                else:  # usually a ping that crossed our close
                    _log.debug("the session of %s failed while it was closing", upgrade.peer, exc_info=True)
            if failed and session is not None:
                await session.fail()
        finally:
            if session is not None:
                await self._sessions.leave(session)

    async def _serve(self, session: WebSocketClient, upgrade: Upgrade) -> None:
        try:
            with self._sessions.opening():
                websocket = await session.open(upgrade, self._sessions.limits)
                self._sessions.enter(session, upgrade.format.value)
            await session.converse(websocket)
        except ConnectionClosed as closed:
            await session.part(closed)
