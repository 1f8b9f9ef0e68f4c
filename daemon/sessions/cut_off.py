"""Tells clients how their channels are where that has changed without a message on the tape.

A process that follows a tape may be cut off from where it is made: the engine of a cluster is away, or nobody takes
data in. Then what it shows is stale, and who is connected to it has to know. Others, elsewhere, may be well: so this
does not stand on the tape, and has no position.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from daemon.health.board import Board, ChannelState, status
from daemon.host.clock import WallClock
from daemon.sessions.sessions import Sessions
from daemon.tape.entry import STATUS

_TOLD_AT_ONCE: Final = 100
"""So many clients are told before others get their turn."""


class CutOff:
    """Whether this process is cut off, and what its clients are told of it.

    Attributes:
        why: why nobody tells this process how the channels are; "" if somebody does.
    """

    def __init__(self, board: Board, sessions: Sessions, clock: WallClock) -> None:
        self.why = ""
        self._board = board
        self._sessions = sessions
        self._clock = clock
        self._told: Mapping[str, ChannelState] = {}
        self._changed = trio.Event()

    def say(self, why: str) -> None:
        """It is, for that reason; or it is not any longer: "". The clients are told soon, those who come at once."""
        if not self.why:
            self._told = dict(self._board.states())
        self.why = why
        self._board.cut_off(why, self._clock.now_ms())
        self._changed.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell each client what has changed of its channels, until cancelled."""
        task_status.started()
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            told, self._told = self._told, dict(self._board.states())
            timestamp = self._clock.timestamp()
            statuses = [
                ((name, STATUS), status(name, state, self._clock, timestamp))
                for name, state in self._told.items()
                if (before := told.get(name)) is None or (before.state, before.reason) != (state.state, state.reason)
            ]
            for count, client in enumerate(self._sessions, 1):
                for topic, message in statuses:
                    if client.subscriber.takes(topic):
                        client.subscriber.say(message)
                if count % _TOLD_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
