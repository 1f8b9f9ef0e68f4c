"""All clients of both protocols: keeps track of them, pings them, and closes them.

No client has a task of its own for pings or deadlines: one *sweeper* checks all clients, once a second.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import trio
from msgspec import UNSET

from daemon.fanout.hub import Hub
from daemon.fanout.joining import Joining
from daemon.fanout.subscriber import State
from daemon.front.limits import Limits
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.host.turns import Turns
from daemon.sessions.client import ConnectedClient
from daemon.sessions.counts import ClientCounts
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.channels import Catalogue
from protocol.codes import CloseCode
from protocol.grant import Grant
from protocol.messages import Goodbye, ReplayInfo, ServerInfo, Welcome

_SWEEP_S: Final = 1.0

_RETRIES: Final = 8
"""So often at least the kernel tries to reach a client before that counts as dead. It tries fifteen times, the first
few at short intervals (`net.ipv4.tcp_retries2`), so it does not give up sooner than that."""

RETURNS_PER_S: Final = 200
"""How many clients a second are asked to come back after a stop: a sixth of what a daemon lets in on one core."""

_RETURN_S: Final = (0.5, 10.0)
"""A client whose token has changed is asked to wait a random time in this range, so that not all return at once."""

_SHARE_S: Final = 0.01
"""How long the commands of all clients may take in one turn of the event loop, together: each client has its own rate,
but nobody bounds how many clients use all of theirs."""

_DISMISSED_AT_ONCE: Final = 100

Ending: TypeAlias = Callable[[Grant], tuple[CloseCode, str] | None]

_log: Final = logging.getLogger(__name__)


class Sessions:
    """All clients of both protocols."""

    def __init__(
        self,
        *,
        tape: Tape,
        hub: Hub,
        board: Board,
        ledger: Ledger,
        clock: WallClock,
        limits: Limits,
        server: ServerInfo,
        simulated: bool = False,
        replay: ReplayInfo | None = None,
    ) -> None:
        self.tape = tape
        self.hub = hub
        self.clock = clock
        self.joining = Joining(tape, hub, board, ledger, clock)
        self.limits = limits
        self.simulated = simulated
        self.counts = ClientCounts()
        self.turns = Turns(_SHARE_S)
        self._board = board
        self._server = server
        self._replay = UNSET if replay is None else replay
        self._open: set[ConnectedClient] = set()
        self._opening_count = 0
        self._opened = trio.lowlevel.ParkingLot()
        self._dismiss: Callable[[ConnectedClient], None] | None = None
        self._ending: Ending = lambda _: None

    @property
    def catalogue(self) -> Catalogue:
        """The current catalogue; a reload replaces it."""
        return self._board.catalogue

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[ConnectedClient]:
        return iter(tuple(self._open))

    def change(self, limits: Limits) -> None:
        """After a reload: use the new limits for new clients, and the new catalogue for the commands of all clients."""
        self.limits = limits
        for client in self:
            client.adopt(self.catalogue)

    def revoke(self, ending: Ending) -> None:
        """After the tokens changed: close every client whose grant is no longer valid, after a `goodbye`.

        Args:
            ending: returns the close code and the reason for a client with that grant; None if it may stay. It is also
                called for each new client, which may have been let in under the earlier tokens.
        """
        self._ending = ending
        for client in self:
            self._expel(client)

    async def dismiss(self, reason: str, retry_spread_s: float) -> None:
        """Send every client away, after a `goodbye`; they may come back within `retry_spread_s`.

        When this returns no client has a place on the tape, and there was no checkpoint since that was so.
        """
        spread_s = min(retry_spread_s, len(self) / RETURNS_PER_S)
        while staying := [client for client in self if client.subscriber.state is not State.DETACHED]:
            for client in staying[:_DISMISSED_AT_ONCE]:
                wait_s = max(0.001, round(random.uniform(0, spread_s), 4))
                timestamp = self.clock.timestamp()
                client.say_goodbye(
                    Goodbye(timestamp=timestamp, code=CloseCode.GOING_AWAY, reason=reason, retry_after_s=wait_s)
                )
                client.detach()
                client.ask_to_close(CloseCode.GOING_AWAY, reason)
            await trio.lowlevel.checkpoint()

    def _expel(self, client: ConnectedClient) -> None:
        ending = self._ending(client.grant)
        if ending is not None:
            code, reason = ending
            timestamp, wait_s = self.clock.timestamp(), round(random.uniform(*_RETURN_S), 1)
            client.say_goodbye(Goodbye(timestamp=timestamp, code=code, reason=reason, retry_after_s=wait_s))
            client.ask_to_close(code, reason)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Marks a client in its opening handshake for as long as the block lasts: a stop waits for it."""
        self._opening_count += 1
        try:
            yield
        finally:
            self._opening_count -= 1
            self._opened.unpark_all()

    def enter(self, client: ConnectedClient, how: str) -> None:
        """Add the client, and welcome it. `how` it is connected goes to the log. See `leave`."""
        self._open.add(client)
        client.stream.retry_within(self.limits.silent_after_s / _RETRIES)
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
        """Remove the client and close its connection, also when cancelled. Must be called for every client."""
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
        tape = self.tape
        return Welcome(
            timestamp=self.clock.timestamp(),
            server=self._server,
            epoch=tape.epoch,
            seq=tape.head,
            channels=self.catalogue.granted(grant).names,
            heartbeat_s=self.limits.ping_every_s,
            simulated=self.simulated,
            replay=self._replay,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The sweeper: pings, dead peers and write deadlines of all sessions; and their turns. Until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.turns.run)
            task_status.started()
            while True:
                await trio.sleep(_SWEEP_S)
                await self.sweep()

    async def sweep(self) -> None:
        """Check every session once. Closing one does not wait for its peer."""
        now_s = trio.current_time()
        for count, session in enumerate(self):
            verdict = session.verdict(now_s, self.limits)
            if verdict is not None:
                session.ended = verdict
                session.stream.last_words(session.last_words(*verdict))
                await session.drop()
            elif now_s >= session.next_ping_s:
                session.next_ping_s = now_s + self.limits.ping_every_s
                if not session.stream.pending:  # pings must not pile up for a client that does not read
                    session.stream.post(session.ping())
            if count % 100 == 99:
                await trio.lowlevel.checkpoint()

    async def say_goodbye(self, reason: str, grace_s: float, retry_spread_s: float, clients: int | None = None) -> None:
        """Close all sessions in order: the rest of the tape, `goodbye`, 1001. Takes `grace_s` at most.

        `retry_after_s` is random for each client, up to the time that `RETURNS_PER_S` leaves for all of them, and to
        `retry_spread_s`: a crowd does not come back at once, and a lone client does. `clients`: how many they are, with
        those of other processes.
        """
        deadline_s = trio.current_time() + grace_s
        retry_spread_s = min(retry_spread_s, (len(self) if clients is None else clients) / RETURNS_PER_S)
        async with trio.open_nursery() as nursery:

            def dismiss(session: ConnectedClient) -> None:
                nursery.start_soon(self._say_goodbye, session, reason, deadline_s, retry_spread_s)

            for session in self:
                dismiss(session)
            self._dismiss = dismiss
            with trio.move_on_at(deadline_s):
                while self._opening_count:
                    await self._opened.park()
            # No client can enter any more: the front door lets none in.
            self._dismiss = None

    async def _say_goodbye(
        self, session: ConnectedClient, reason: str, deadline_s: float, retry_spread_s: float
    ) -> None:
        with trio.move_on_at((trio.current_time() + deadline_s) / 2):
            await session.subscriber.wait_caught_up()
        session.say_goodbye(
            Goodbye(
                timestamp=self.clock.timestamp(),
                code=CloseCode.GOING_AWAY,
                reason=reason,
                retry_after_s=max(0.001, round(random.uniform(0, retry_spread_s), 4)),
            )
        )
        session.ask_to_close(CloseCode.GOING_AWAY, reason, max(0.0, deadline_s - trio.current_time()))
        await session.wait_gone()
