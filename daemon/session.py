"""The I/O shell of one websocket client, and all of them together.

One client is one `serve` call, with a nursery of its own and these tasks:

* trio-websocket's reader, which answers pings and closes, and hands commands over;
* the session itself: it takes each command, asks the sans-IO `protocol.session` what is to be done, and does it;
* while the client is behind, its catch-up task. It ends when the client has caught up; an idle client has none.

Nobody is pinged, timed or closed by a task of its own: one *sweeper* looks after all sessions, once a second.

trio-websocket's traps that this file keeps clear of (0.12.2): its `aclose` waits for the peer without a limit, so it is
always called under a deadline and followed by a forceful close; it can raise out of its reader task when a ping crosses
our close, so each session ends in a barrier; a refused message leaves the stream open, and a violation of the protocol
closes it without a word, so it has the stream only on loan, and we always close it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Final, assert_never

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from daemon import subscription
from daemon.client_stream import ClientStream, Loan
from daemon.front_door import Upgrade
from daemon.hub import Hub
from daemon.subscriber import Subscriber
from protocol.codes import CloseCode
from protocol.frames import close_frame, ping_frame
from protocol.messages import Goodbye, ServerInfo, Welcome
from protocol.session import Close, Effect, Join, Leave, Limits, Reply, Session

_CLOSE_S: Final = 5.0
"""How long a peer may take over the closing handshake (RFC 6455 section 7.1.1 leaves it to us)."""

_LINGER_S: Final = 2.0

_VIOLATIONS: Final = (1002, 1007, 1009)
"""The codes for which trio-websocket leaves off reading: broken framing, not UTF-8, a message over the limit."""

_SWEEP_S: Final = 1.0

_PENDING_BYTES: Final = 256 * 1024
"""Replies kept for a client that does not read them; beyond this its commands wait."""

_log: Final = logging.getLogger(__name__)


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a session may take and cost; see `daemon.config` for the defaults.

    Attributes:
        message_bytes: the longest client message.
        handshake_s: until the opening handshake must be done.
        ping_every_s: how often the server pings.
        silent_after_s: after how long without a single byte from the client it counts as dead.
        write_deadline_s: how long a client's socket may take nothing at all.
        commands: what one client may ask for.
    """

    message_bytes: int
    handshake_s: float
    ping_every_s: float
    silent_after_s: float
    write_deadline_s: float
    commands: Limits


class ClientSession:
    """One client: its stream, its place in the hub, its subscriptions."""

    def __init__(self, sessions: Sessions, upgrade: Upgrade, nursery: trio.Nursery) -> None:
        self.peer = upgrade.peer
        self.stream = ClientStream(upgrade.stream, head=upgrade.head, trailing=upgrade.trailing)
        self.stream.on_blocked = self._blocked
        self.stream.on_closing = self._detach
        self.subscriber = Subscriber(upgrade.format, self.stream, self._wake)
        self.state = Session(sessions.hub.catalogue, upgrade.format, sessions.limits.commands, trio.current_time())
        self.closing: tuple[CloseCode, str, float] | None = None
        self.next_ping_s = trio.current_time() + sessions.limits.ping_every_s
        self._hub = sessions.hub
        self._nursery = nursery
        self._catching_up = False
        # Events are made by whoever waits: an idle client is to cost little.
        self._caught_up: trio.Event | None = None
        self._gone: trio.Event | None = None
        self._over = False
        self._conversation = trio.CancelScope()

    async def open(self, upgrade: Upgrade, limits: SessionLimits) -> WebSocketConnection:
        """Complete the handshake. Raises: trio.TooSlowError, ConnectionClosed, trio.BrokenResourceError."""
        with trio.fail_after(limits.handshake_s):
            loan = Loan(self.stream)
            request = await wrap_server_stream(self._nursery, loan, max_message_size=limits.message_bytes)
            return await request.accept(subprotocol=upgrade.subprotocol)

    async def converse(self, websocket: WebSocketConnection) -> None:
        """Take commands until the connection is to be closed (`ask_to_close`); then the peer has a while to agree.

        Raises:
            ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError: the peer ended it.
        """
        clock = self._hub.clock
        with self._conversation:
            while self.closing is None:
                raw = await websocket.get_message()
                for effect in self.state.receive(raw, trio.current_time(), clock.timestamp()):
                    self._carry_out(effect)
                while sum(map(len, self.stream.pending)) > _PENDING_BYTES:
                    await self.stream.flush()
        if self.closing is not None:
            code, reason, within_s = self.closing
            with trio.move_on_after(within_s):
                await websocket.aclose(code, reason)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Reply(message):
                self.subscriber.say(message)
            case Join():
                subscription.join(self._hub, self.subscriber, self.state, effect, self._hub.clock.timestamp())
            case Leave():
                subscription.leave(self._hub, self.subscriber, self.state, effect, self._hub.clock.timestamp())
            case Close(code, reason):
                self.ask_to_close(code, reason)
            case _:
                assert_never(effect)

    def ask_to_close(self, code: CloseCode, reason: str, within_s: float = _CLOSE_S) -> None:
        """Take no more commands, and close: with a close frame, behind what has been said already.

        After `within_s` the connection is dropped, whether the peer has answered or not.
        """
        if self.closing is None:
            self.closing = (code, reason, within_s)
            self._conversation.cancel(reason=f"closing with {code.value}")

    async def part(self, why: ConnectionClosed) -> None:
        """The websocket is closed. A client that broke the protocol is told so, and given a moment to read it."""
        if why.reason is not None and why.reason.code in _VIOLATIONS:
            with trio.move_on_after(_LINGER_S):
                await self.stream.refuse(close_frame(why.reason.code, why.reason.reason or ""))

    async def drop(self) -> None:
        """Close the connection at once, also when cancelled."""
        self._detach()
        self.stream.close_writing()
        await trio.aclose_forcefully(self.stream)

    def _blocked(self) -> None:
        self._hub.blocked(self.subscriber)

    def _detach(self) -> None:
        self._hub.detach(self.subscriber)

    def _wake(self) -> None:
        if not self._catching_up:
            self._catching_up = True
            self._nursery.start_soon(self._catch_up)

    async def _catch_up(self) -> None:
        """Bring the client to the tape's head, then end. Waits only for this client's own socket."""
        try:
            while True:
                if self.stream.full:
                    await self.stream.flush()
                else:  # it took all of the last chunk: on with the next, without asking the kernel first
                    await trio.lowlevel.checkpoint()
                if not self._hub.advance(self.subscriber) and not self.stream.pending:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # trio-websocket's reader finds out as well, and ends the session
        finally:
            self._catching_up = False
            if self._caught_up is not None:
                self._caught_up.set()

    def end(self) -> None:
        """The session is over: nothing more is said or heard."""
        self._over = True
        if self._gone is not None:
            self._gone.set()

    async def wait_gone(self) -> None:
        """Wait until the session is over."""
        if not self._over:
            self._gone = self._gone or trio.Event()
            await self._gone.wait()

    async def wait_caught_up(self) -> None:
        """Wait until the client has everything that is on the tape, or is gone."""
        while self._catching_up:
            self._caught_up = trio.Event()
            await self._caught_up.wait()


class Sessions:
    """All websocket clients."""

    def __init__(self, hub: Hub, limits: SessionLimits, server: ServerInfo) -> None:
        self.hub = hub
        self.limits = limits
        self._server = server
        self._open: set[ClientSession] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[ClientSession]:
        return iter(tuple(self._open))

    async def serve(self, upgrade: Upgrade) -> None:
        """Serve one client until its connection ends. Whatever goes wrong is its own affair: this is the barrier.

        If cancelled, the connection is closed without the closing handshake; see `say_goodbye` for the polite way.
        """
        session: ClientSession | None = None
        try:
            async with trio.open_nursery() as nursery:
                session = ClientSession(self, upgrade, nursery)
                await self._serve(session, upgrade)
                nursery.cancel_scope.cancel(reason="the session is over")
        except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            _log.debug("%s left without a closing handshake", upgrade.peer)
        except* Exception:  # the barrier: one client's failure is logged once and is nobody else's
            if session is not None and session.closing is not None:  # a ping that crossed our close, as a rule
                _log.debug("the session of %s failed while it was closing", upgrade.peer, exc_info=True)
            else:
                _log.exception("the session of %s failed", upgrade.peer)

    async def _serve(self, session: ClientSession, upgrade: Upgrade) -> None:
        try:
            websocket = await session.open(upgrade, self.limits)
            self._open.add(session)
            self.hub.attach(session.subscriber)
            session.subscriber.say(self._welcome())
            _log.info("client %s connected (%s)", session.peer, upgrade.format.value)
            await session.converse(websocket)
        except ConnectionClosed as closed:
            _log.info("client %s closed: %s", session.peer, closed.reason)
            await session.part(closed)
        finally:
            self._open.discard(session)
            session.end()
            await session.drop()

    def _welcome(self) -> Welcome:
        tape = self.hub.tape
        return Welcome(
            timestamp=self.hub.clock.timestamp(),
            server=self._server,
            epoch=tape.epoch,
            seq=tape.head,
            channels=self.hub.catalogue.names,
            heartbeat_s=self.limits.ping_every_s,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The sweeper: pings, dead peers and write deadlines of all sessions, until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(_SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        """One look at every session. Closing one does not wait for its peer."""
        now_s = trio.current_time()
        ping = ping_frame()
        for count, session in enumerate(self):
            stream, behind = session.stream, session.subscriber.cursor is not None
            # What its socket takes is proof of life too: the pong of a slow client waits behind what it reads.
            alive_s = max(stream.last_received_s, stream.last_progress_s) if behind else stream.last_received_s
            if behind and now_s - stream.last_progress_s > self.limits.write_deadline_s:
                reason = f"slow consumer: nothing could be written for {self.limits.write_deadline_s:g} s"
                _log.info("client %s closed: %s", session.peer, reason)
                stream.last_words(close_frame(CloseCode.SLOW_CONSUMER, reason))
                await session.drop()
            elif now_s - alive_s > self.limits.silent_after_s:
                reason = f"nothing was received for {self.limits.silent_after_s:g} s, no pong either"
                _log.info("client %s closed: %s", session.peer, reason)
                stream.last_words(close_frame(CloseCode.NO_PONG, reason))
                await session.drop()
            elif now_s >= session.next_ping_s:
                session.next_ping_s = now_s + self.limits.ping_every_s
                if not stream.pending:  # one that does not read must not collect pings
                    stream.post(ping)
            if count % 100 == 99:
                await trio.lowlevel.checkpoint()

    async def say_goodbye(self, reason: str, grace_s: float, retry_spread_s: float) -> None:
        """Close all sessions politely: what is on the tape, `goodbye`, 1001. Takes `grace_s` at most.

        `retry_after_s` is another one for each client, up to `retry_spread_s`, so that they do not all come back at
        once.
        """
        deadline_s = trio.current_time() + grace_s
        async with trio.open_nursery() as nursery:
            for session in self:
                nursery.start_soon(self._say_goodbye, session, reason, deadline_s, retry_spread_s)

    async def _say_goodbye(self, session: ClientSession, reason: str, deadline_s: float, retry_spread_s: float) -> None:
        with trio.move_on_at((trio.current_time() + deadline_s) / 2):
            await session.wait_caught_up()
        session.subscriber.say(
            Goodbye(
                timestamp=self.hub.clock.timestamp(),
                code=CloseCode.GOING_AWAY,
                reason=reason,
                retry_after_s=round(random.uniform(0.5, retry_spread_s), 1),
            )
        )
        session.ask_to_close(CloseCode.GOING_AWAY, reason, max(0.0, deadline_s - trio.current_time()))
        await session.wait_gone()
