"""Joins and leaves channels: turns a client's command into its place on the tape.

Both are sync and therefore exact: the answer (`subscribed`, with the tape's position) always fits the messages that
follow it, whether the client is caught up or behind. A topic that the client already takes keeps its place. A topic
that is new to it starts at the head, after its snapshot; with `since` it starts at the position that the client names.
"""

from __future__ import annotations

from typing import Final

import trio
from msgspec import UNSET

from daemon.fanout.hub import Hub
from daemon.fanout.subscriber import NOTHING, Subscriber
from daemon.health.board import Board, status
from daemon.host.clock import WallClock
from daemon.tape.entry import subject
from daemon.tape.ledger import Ledger
from daemon.tape.recovery import plan_recovery
from daemon.tape.tape import STATUS, Entry, Tape, Topic, selects
from protocol.messages import Position, Subscribed, Unsubscribed
from protocol.session import EVERY_MESSAGE, Join, Leave, Session

PATIENCE_S: Final = 2.0
"""`Joining.patience_s` where the tape is followed: who hops between processes may be ahead of one by a moment."""

_LOOK_S: Final = 0.01
"""How often is looked whether a position has come that a client has had elsewhere."""

_RESYNC = "clients that could not resume where they had been: each was told so, and went on with the newest state"


class Joining:
    """Carries out the `subscribe` and `unsubscribe` commands.

    Attributes:
        patience_s: how long a client that is ahead of this tape is kept waiting for it. 0 where the tape is made here:
            then nobody can be.
    """

    def __init__(self, tape: Tape, hub: Hub, board: Board, ledger: Ledger, clock: WallClock) -> None:
        self._tape = tape
        self._hub = hub
        self._board = board
        self._ledger = ledger
        self._clock = clock
        self.patience_s = 0.0

    async def wait_for(self, since: Position) -> None:
        """Wait for this position, up to `patience_s`: where the tape is followed, another process may have shown it."""
        tape = self._tape
        for _ in range(round(self.patience_s / _LOOK_S)):
            if since.epoch != tape.epoch or since.seq <= tape.head:
                break
            await trio.sleep(_LOOK_S)

    def join(self, subscriber: Subscriber, session: Session, command: Join) -> None:
        """Carry out a `subscribe`: send the answer, each channel's status, then the snapshot or the missed messages.

        `session` already includes the command; this changes the subscriber to match it.
        """
        tape, since, timestamp = self._tape, command.since, self._clock.timestamp()
        tape.renew(command.selection)
        recovery = None
        if since is not None:
            self._hub.tell_lagged(subscriber)  # later, `lagged` would also count what is promised here
            recovery = plan_recovery(tape, command.channels, command.selection, since)
            if recovery.reason:
                missed = sum(recovery.missed.values())
                self._ledger.note("resync", "", self._clock.now_ms(), messages=missed, reason=_RESYNC)
        at_interval = command.interval_ms != EVERY_MESSAGE
        if recovery is None:
            coming = tape.present(command.selection)
        elif at_interval:  # only the newest message counts, also after a gap
            shown_too = recovery.replayed | {entry.topic for entry in recovery.shown}
            coming = [entry for entry in tape.latest(command.selection) if entry.topic in shown_too]
        else:
            coming = recovery.shown
        new = [entry for entry in coming if not subscriber.takes(subject(entry.topic))]
        resumed: frozenset[Topic] = frozenset()
        if recovery is not None and not at_interval:
            resumed = frozenset(topic for topic in recovery.replayed if not subscriber.takes(topic))
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
        after = tape.head
        if since is None or at_interval:
            shown += new if since is not None or command.snapshot else []
        else:
            # Send everything in `seq` order: a client that is cut off midway resumes from the last message that it had.
            # States of several messages come first.
            after = tape.before_first(resumed, since.seq, {})
            later = [
                each
                for each in new
                if each.seq > after and tape.stands(each) and subject(each.topic) not in tape.deltas
            ]
            now = [entry for entry in new if entry not in later]
            shown += now
            if resumed:
                early = tape.shows_changes(now) or any(entry.seq > after for entry in now)
                self._hub.resume(subscriber, resumed, after, later, early=early)
        last = since.seq if since is not None and since.epoch == tape.epoch else tape.head
        # Who is cut off in the midst of a state of several messages has not had it: it has no position within.
        subscriber.show(sorted(shown, key=_seq), beyond=last, upto=0 if tape.shows_changes(shown) else after)
        if not resumed:
            subscriber.mark(tape)

    def leave(self, subscriber: Subscriber, session: Session, command: Leave) -> None:
        """Carry out an `unsubscribe`: no message of these channels follows the answer."""
        self._select(subscriber, session)
        timestamp, tape = self._clock.timestamp(), self._tape
        subscriber.say(
            Unsubscribed(timestamp=timestamp, channels=command.channels, id=command.id, epoch=tape.epoch, seq=tape.head)
        )

    def _select(self, subscriber: Subscriber, session: Session) -> list[Entry]:
        """Make the subscriber take the topics that its session is now subscribed to.

        Messages of topics that it already takes still come. New topics count as had up to the head.

        Returns:
            For topics that it took at an interval and now takes message by message: the newest messages that it has not
            had. The caller must send them at once.
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
