"""The I/O shell of one websocket client, and all clients together, event streams included.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias, assert_never

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from daemon.fanout import joining
from daemon.fanout.hub import Hub
from daemon.front.front_door import Upgrade
from daemon.front.http import ALWAYS
from daemon.sessions.client import ConnectedClient
from daemon.sessions.client import SessionLimits as SessionLimits
from daemon.sessions.loan import Loan
from daemon.sessions.session_counts import ClientCounts
from daemon.sessions.stream import ClientStream
from protocol.channels import Catalogue
from protocol.codes import CloseCode
from protocol.frame_meter import FrameMeter
from protocol.frames import close_frame, ping_frame
from protocol.grant import Grant
from protocol.messages import Goodbye, ServerInfo, Welcome
from protocol.session import Close, Effect, Join, Leave, Reply, Session

_HEADERS: Final = [(name.encode(), value.encode()) for name, value in ALWAYS]

_LINGER_S: Final = 2.0

_VIOLATIONS: Final = (1002, 1007, 1009)
"""The codes for which trio-websocket leaves off reading: broken framing, not UTF-8, a message over the limit."""

_SWEEP_S: Final = 1.0

_PENDING_BYTES: Final = 256 * 1024
"""Replies kept for a client that does not read them; beyond this its commands wait."""

_RETURN_S: Final = (0.5, 10.0)
"""Between these a client whose token has changed is asked to wait; each another time, so that not all come at once."""

Ending: TypeAlias = Callable[[Grant], tuple[CloseCode, str] | None]

_log: Final = logging.getLogger(__name__)


class ClientSession(ConnectedClient):
    """One websocket client: what it has in common with any other, and its subscriptions."""

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
        commands, now_s = sessions.limits.commands, trio.current_time()
        self.state = Session(sessions.hub.catalogue.granted(upgrade.grant), upgrade.format, commands, now_s)
        self._counts = sessions.counts
        self.meter = self.stream.meter = FrameMeter(commands.commands_per_s, commands.commands_burst, now_s)

    async def open(self, upgrade: Upgrade, limits: SessionLimits) -> WebSocketConnection:
        """Complete the handshake. Raises: trio.TooSlowError, ConnectionClosed, trio.BrokenResourceError."""
        with trio.fail_after(limits.handshake_s):
            loan = Loan(self.stream)
            request = await wrap_server_stream(self._nursery, loan, max_message_size=limits.message_bytes)
            return await request.accept(subprotocol=upgrade.subprotocol, extra_headers=_HEADERS)

    async def converse(self, websocket: WebSocketConnection) -> None:
        """Take commands until the connection is to be closed (`ask_to_close`); then the peer has a while to agree.

        Raises:
            ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError: the peer ended it.
        """
        clock = self._hub.clock
        with self._conversation:
            while self.closing is None:
                raw = await websocket.get_message()
                self._counts.commands += 1
                for effect in self.state.receive(raw, trio.current_time(), clock.timestamp()):
                    self._carry_out(effect)
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
                joining.join(self._hub, self.subscriber, self.state, effect, self._hub.clock.timestamp())
            case Leave():
                joining.leave(self._hub, self.subscriber, self.state, effect, self._hub.clock.timestamp())
            case Close(code, reason):
                self.ask_to_close(code, reason)
            case _:
                assert_never(effect)

    async def part(self, why: ConnectionClosed) -> None:
        """The websocket is closed. A client that broke the rules is told so, and given a moment to read it."""
        code, reason = (1006, "") if why.reason is None else (why.reason.code, why.reason.reason or "")
        if self.stream.flooded:
            code, reason = CloseCode.POLICY, self.stream.flooded
        self.ended = self.ended or (code, reason)
        if self.stream.flooded or code in _VIOLATIONS:
            with trio.move_on_after(_LINGER_S):
                await self.stream.refuse(close_frame(code, reason))

    async def fail(self) -> None:
        """The session ended by a bug of ours: say so (RFC 6455 section 7.4.1) where that can still be said."""
        self.ended = CloseCode.INTERNAL_ERROR, "the daemon failed; its log says why"
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(_LINGER_S):
            await self.stream.refuse(close_frame(*self.ended))

    def ping(self) -> bytes:
        """A ping frame: the peer has to answer it (RFC 6455 section 5.5.2), and its answer is no flood."""
        self.meter.pinged()
        return ping_frame()

    def verdict(self, now_s: float, limits: SessionLimits) -> tuple[CloseCode, str] | None:
        """Nothing could be written for too long, or nothing came, no pong either."""
        stream = self.stream
        # What its socket takes is proof of life too: the pong of a slow client waits behind what it reads.
        behind = self.subscriber.cursor is not None
        alive_s = max(stream.last_received_s, stream.last_progress_s) if behind else stream.last_received_s
        slow = self._slow(now_s, limits)
        if slow is None and now_s - alive_s > limits.silent_after_s:
            return CloseCode.NO_PONG, f"nothing was received for {limits.silent_after_s:g} s, no pong either"
        return slow

    def last_words(self, code: CloseCode, reason: str) -> bytes:
        """A close frame."""
        return close_frame(code, reason)

    def adopt(self, catalogue: Catalogue) -> None:
        """Judge its commands by this one from now on. What it is subscribed to stays."""
        self.state.catalogue = catalogue.granted(self.grant)


class Sessions:
    """All clients, whatever they speak."""

    def __init__(self, hub: Hub, limits: SessionLimits, server: ServerInfo) -> None:
        self.hub = hub
        self.limits = limits
        self.counts = ClientCounts()
        self._server = server
        self._open: set[ConnectedClient] = set()
        self._opening_count = 0
        self._opened = trio.lowlevel.ParkingLot()
        self._dismiss: Callable[[ConnectedClient], None] | None = None
        self._ending: Ending = lambda _: None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[ConnectedClient]:
        return iter(tuple(self._open))

    def change(self, limits: SessionLimits) -> None:
        """A reload: other limits for who comes from now on, and the hub's catalogue for the commands of everybody."""
        self.limits = limits
        for client in self:
            client.adopt(self.hub.catalogue)

    def revoke(self, ending: Ending) -> None:
        """Other tokens are in force: close every client whose grant does not hold any more, with a word.

        Args:
            ending: the close code and the reason for a client with that grant; None where it may stay. It is asked
                again about each client that comes, since one may have been let in under the tokens before.
        """
        self._ending = ending
        for client in self:
            self._expel(client)

    def _expel(self, client: ConnectedClient) -> None:
        ending = self._ending(client.grant)
        if ending is not None:
            code, reason = ending
            timestamp, wait_s = self.hub.clock.timestamp(), round(random.uniform(*_RETURN_S), 1)
            client.say_goodbye(Goodbye(timestamp=timestamp, code=code, reason=reason, retry_after_s=wait_s))
            client.ask_to_close(code, reason)

    async def serve(self, upgrade: Upgrade) -> None:
        """Serve one client until its connection ends. Whatever goes wrong is its own affair: this is the barrier.

        If cancelled, the connection is closed without the closing handshake; see `say_goodbye` for the polite way.
        """
        session: ClientSession | None = None
        failed = False
        try:
            try:
                async with trio.open_nursery() as nursery:
                    session = ClientSession(self, upgrade, nursery)
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
                else:  # a ping that crossed our close, as a rule
                    _log.debug("the session of %s failed while it was closing", upgrade.peer, exc_info=True)
            if failed and session is not None:
                await session.fail()
        finally:
            if session is not None:
                await self.leave(session)

    async def _serve(self, session: ClientSession, upgrade: Upgrade) -> None:
        try:
            with self._opening():
                websocket = await session.open(upgrade, self.limits)
                self.enter(session, upgrade.format.value)
            await session.converse(websocket)
        except ConnectionClosed as closed:
            await session.part(closed)

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """A client whose opening handshake is under way, as long as the block lasts: a stop waits for it."""
        self._opening_count += 1
        try:
            yield
        finally:
            self._opening_count -= 1
            self._opened.unpark_all()

    def enter(self, client: ConnectedClient, how: str) -> None:
        """It is one of the clients from now on, and is welcomed; `how` it is connected is for the log. See `leave`."""
        self._open.add(client)
        self.counts.enter(client.subscriber.format)
        self.hub.attach(client.subscriber)
        client.subscriber.say(self._welcome(client.grant))
        by = f", token {client.grant.name}" if client.grant.name else ""
        said = {"event": "connect", "peer": client.peer, "token": client.grant.name}
        _log.info("client %s connected (%s%s)", client.peer, how, by, extra=said)
        self._expel(client)
        if self._dismiss is not None:
            self._dismiss(client)

    async def leave(self, client: ConnectedClient) -> None:
        """It is none any more, and its connection is closed, also when cancelled. To be called whatever happened."""
        if client in self._open:
            self._open.discard(client)
            code, reason = client.ended or (1006, "the connection broke")
            self.counts.leave(client.subscriber.format, int(code))
            said = {"event": "close", "peer": client.peer, "code": int(code), "reason": reason}
            _log.info("client %s closed: %d %s", client.peer, code, reason or "without a reason", extra=said)
        else:
            self.counts.unopened += 1
        client.end()
        await client.drop()

    def _welcome(self, grant: Grant) -> Welcome:
        tape = self.hub.tape
        return Welcome(
            timestamp=self.hub.clock.timestamp(),
            server=self._server,
            epoch=tape.epoch,
            seq=tape.head,
            channels=self.hub.catalogue.granted(grant).names,
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
        for count, session in enumerate(self):
            verdict = session.verdict(now_s, self.limits)
            if verdict is not None:
                session.ended = verdict
                session.stream.last_words(session.last_words(*verdict))
                await session.drop()
            elif now_s >= session.next_ping_s:
                session.next_ping_s = now_s + self.limits.ping_every_s
                if not session.stream.pending:  # one that does not read must not collect pings
                    session.stream.post(session.ping())
            if count % 100 == 99:
                await trio.lowlevel.checkpoint()

    async def say_goodbye(self, reason: str, grace_s: float, retry_spread_s: float) -> None:
        """Close all sessions politely: what is on the tape, `goodbye`, 1001. Takes `grace_s` at most.

        `retry_after_s` is another one for each client, up to `retry_spread_s`, so that they do not all come back at
        once.
        """
        deadline_s = trio.current_time() + grace_s
        async with trio.open_nursery() as nursery:

            def dismiss(session: ConnectedClient) -> None:
                nursery.start_soon(self._say_goodbye, session, reason, deadline_s, retry_spread_s)

            for session in self:
                dismiss(session)
            self._dismiss = dismiss
            with trio.move_on_at(deadline_s):
                while self._opening_count:
                    await self._opened.park()
            # Nobody can come any more: the front door lets no one in.
            self._dismiss = None

    async def _say_goodbye(
        self, session: ConnectedClient, reason: str, deadline_s: float, retry_spread_s: float
    ) -> None:
        with trio.move_on_at((trio.current_time() + deadline_s) / 2):
            await session.wait_caught_up()
        session.say_goodbye(
            Goodbye(
                timestamp=self.hub.clock.timestamp(),
                code=CloseCode.GOING_AWAY,
                reason=reason,
                retry_after_s=round(random.uniform(0.5, retry_spread_s), 1),
            )
        )
        session.ask_to_close(CloseCode.GOING_AWAY, reason, max(0.0, deadline_s - trio.current_time()))
        await session.wait_gone()
