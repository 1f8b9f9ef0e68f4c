"""Joining and leaving channels: from what a command asked for to a client's place on the tape.

Both are sync, and so exact: what a client is told (`subscribed`, with the tape's position) and what it is then sent fit
together, whether it is caught up or behind. A topic that the client takes already keeps its place. A topic that is new
to it starts at the head, behind its snapshot; with `since` it starts where the client says that it stopped.
"""

from __future__ import annotations

from msgspec import UNSET

from daemon.fanout.hub import Hub
from daemon.fanout.subscriber import NOTHING, Subscriber
from daemon.health.board import Board, status
from daemon.host.clock import WallClock
from daemon.tape.gaps import Ledger
from daemon.tape.recovery import judge
from daemon.tape.tape import STATUS, Entry, Tape, Topic, selects
from protocol.messages import Subscribed, Unsubscribed
from protocol.session import EVERY_MESSAGE, Join, Leave, Session

_RESYNC = "clients that could not resume where they had been: each was told so, and went on with the newest state"


class Joining:
    """Carries out what clients ask for."""

    def __init__(self, tape: Tape, hub: Hub, board: Board, ledger: Ledger, clock: WallClock) -> None:
        self._tape = tape
        self._hub = hub
        self._board = board
        self._ledger = ledger
        self._clock = clock

    def join(self, subscriber: Subscriber, session: Session, command: Join) -> None:
        """Carry out a `subscribe`: the answer, each channel's status, and then the snapshot or what was missed.

        `session` is as the command left it; the subscriber is still as it was before, and is changed to fit.
        """
        tape, since, timestamp = self._tape, command.since, self._clock.timestamp()
        recovery = None
        if since is not None:
            self._hub.tell_lagged(subscriber)  # afterwards `lagged` would be about what is promised here, too
            recovery = judge(tape, command.channels, command.selection, since)
            if recovery.reason:
                missed = sum(recovery.missed.values())
                self._ledger.note("resync", "", self._clock.now_ms(), messages=missed, reason=_RESYNC)
        new = [entry for entry in tape.latest(command.selection) if not subscriber.takes(entry.topic)]
        subscriber.say(
            Subscribed(
                timestamp=timestamp,
                channels=command.channels,
                id=command.id,
                epoch=tape.epoch,
                seq=tape.head,
                recovered=UNSET if recovery is None else recovery.recovered,
                missed=(recovery and recovery.missed) or UNSET,
                reason=(recovery and recovery.reason) or UNSET,
            )
        )
        states = self._board.states()
        for channel in command.channels:
            if channel in states:
                subscriber.say(status(channel, states[channel], self._clock, timestamp))
        shown = self._select(subscriber, session)
        resumed: frozenset[Topic] = frozenset()
        if since is None or recovery is None:
            shown += new if command.snapshot else []
        elif command.interval_ms == EVERY_MESSAGE:
            resumed = frozenset(entry.topic for entry in new if entry.topic in recovery.replayed)
            newest = [entry for entry in new if entry.topic in recovery.shown]
            # All of it in `seq` order: a client that is cut off in the middle resumes from the last one it had.
            after = max(since.seq, tape.gone) if resumed else tape.head
            shown += [entry for entry in newest if entry.seq <= after]
            if resumed:
                self._hub.resume(subscriber, resumed, after, [entry for entry in newest if entry.seq > after])
        else:  # at an interval it is the newest that counts, also of what was missed
            shown += [entry for entry in new if entry.topic in recovery.shown | recovery.replayed]
        last = since.seq if since is not None and since.epoch == tape.epoch else tape.head
        for entry in sorted(shown, key=_seq):
            subscriber.show(entry, next_in_order=entry.seq > last)
        if not resumed:
            subscriber.mark(tape)

    def leave(self, subscriber: Subscriber, session: Session, command: Leave) -> None:
        """Carry out an `unsubscribe`: nothing of these channels follows the answer."""
        self._select(subscriber, session)
        timestamp, tape = self._clock.timestamp(), self._tape
        subscriber.say(
            Unsubscribed(timestamp=timestamp, channels=command.channels, id=command.id, epoch=tape.epoch, seq=tape.head)
        )

    def _select(self, subscriber: Subscriber, session: Session) -> list[Entry]:
        """Let the subscriber take what its session is subscribed to now.

        What it takes already and has not had yet it still gets. What is new to it counts as had up to the head.

        Returns:
            The newest messages of topics that it took at an interval and takes one by one from now on, where it has not
            had them: they are to be sent at once.
        """
        tape = self._tape
        each = NOTHING | session.selection(EVERY_MESSAGE) | {(channel, STATUS) for channel in session.subscriptions}
        at_intervals = {ms: session.selection(ms) for ms in session.intervals - {EVERY_MESSAGE}}
        had: dict[Topic, int] = {}
        for selection in (each, *at_intervals.values()):
            for entry in tape.latest(selection):
                if subscriber.takes(entry.topic):
                    had[entry.topic] = subscriber.had_seq(entry.topic, tape)
        were_at_intervals = [membership.group.selection for membership in subscriber.intervals.values()]
        owed = [
            entry
            for entry in tape.latest(each)
            if any(selects(selection, entry.topic) for selection in were_at_intervals) and entry.seq > had[entry.topic]
        ]
        self._hub.select(subscriber, each)
        self._hub.intervals.select(subscriber, at_intervals, had)
        return owed


def _seq(entry: Entry) -> int:
    return entry.seq
