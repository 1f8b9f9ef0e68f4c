"""Joining and leaving channels: from what a command asked for to a client's place on the tape.

Both are sync, and so exact: what a client is told (`subscribed`, with the tape's position) and what it is then sent fit
together, whether it is caught up or behind. A topic that the client takes already keeps its place; a topic that is new
to it starts at the head, behind its snapshot; with `since` it starts where the client says that it stopped.
"""

from __future__ import annotations

from msgspec import UNSET

from daemon.fanout.hub import Hub
from daemon.fanout.subscriber import NOTHING, Subscriber
from daemon.health.board import status
from daemon.tape.cursor import Cursor, had_now
from daemon.tape.recovery import judge
from daemon.tape.tape import STATUS, Entry, Topic, selects
from protocol.messages import Subscribed, Unsubscribed
from protocol.session import EVERY_MESSAGE, Join, Leave, Selection, Session

_RESYNC = "clients that could not resume where they had been: each was told so, and went on with the newest state"


def join(hub: Hub, subscriber: Subscriber, session: Session, command: Join, timestamp: str) -> None:
    """Carry out a `subscribe`: the answer, each channel's status, and then the snapshot or what was missed.

    `session` is as the command left it; the subscriber is still as it was before, and is changed to fit.
    """
    tape, since = hub.tape, command.since
    if since is not None and subscriber.cursor is not None and subscriber.cursor.overtaken(tape):
        hub.advance(subscriber)  # `lagged` now: afterwards it would be about what is promised here, too
    recovery = None if since is None else judge(tape, command.channels, command.selection, since)
    if recovery is not None and recovery.reason:
        missed = sum(recovery.missed.values())
        hub.ledger.note("resync", "", hub.clock.now_ms(), messages=missed, reason=_RESYNC)
    added = [entry for entry in tape.latest(command.selection) if not subscriber.takes(entry.topic)]
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
    states = hub.board.states()
    for channel in command.channels:
        if channel in states:
            subscriber.say(status(channel, states[channel], hub.clock, timestamp))
    follow = _rearrange(hub, subscriber, session)
    replayed: frozenset[Topic] = frozenset()
    if since is None or recovery is None:
        follow += added if command.snapshot else []
    elif command.interval_ms == EVERY_MESSAGE:
        shown = [entry for entry in added if entry.topic in recovery.shown]
        replayed = frozenset(entry.topic for entry in added if entry.topic in recovery.replayed)
        after = max(since.seq, tape.gone) if replayed else tape.head
        # All of it in `seq` order: a client that is cut off in the middle resumes from the last one it had.
        follow += [entry for entry in shown if entry.seq <= after]
        _resume(hub, subscriber, replayed, since.seq, [entry for entry in shown if entry.seq > after])
    else:  # at an interval it is the newest that counts, also of what was missed
        follow += [entry for entry in added if entry.topic in recovery.shown | recovery.replayed]
    last = since.seq if since is not None and since.epoch == tape.epoch else tape.head
    for entry in sorted(follow, key=_seq):
        subscriber.show(entry, next_in_order=entry.seq > last)
    if not replayed:
        subscriber.mark(tape)


def leave(hub: Hub, subscriber: Subscriber, session: Session, command: Leave, timestamp: str) -> None:
    """Carry out an `unsubscribe`: nothing of these channels follows the answer."""
    _rearrange(hub, subscriber, session)
    subscriber.say(
        Unsubscribed(
            timestamp=timestamp, channels=command.channels, id=command.id, epoch=hub.tape.epoch, seq=hub.tape.head
        )
    )


def _rearrange(hub: Hub, subscriber: Subscriber, session: Session) -> list[Entry]:
    """Make the subscriber's place fit what its session is subscribed to now.

    Whatever it takes already and has not had yet it keeps; whatever is new to it counts as had up to the head.

    Returns:
        The newest messages of topics that it took at an interval and takes one by one from now on, where it has not had
        them: they are to be sent at once.
    """
    tape = hub.tape
    live = NOTHING | session.selection(EVERY_MESSAGE) | {(channel, STATUS) for channel in session.subscriptions}
    wanted = {interval_ms: session.selection(interval_ms) for interval_ms in session.intervals - {EVERY_MESSAGE}}
    at = {
        entry.topic: subscriber.had_seq(entry.topic, tape)
        for selection in (live, *wanted.values())
        for entry in tape.latest(selection)
        if subscriber.takes(entry.topic)
    }
    from_lanes = [lane.group.selection for lane in subscriber.lanes.values()]
    owed = [
        entry
        for entry in tape.latest(live)
        if any(selects(selection, entry.topic) for selection in from_lanes) and entry.seq > at[entry.topic]
    ]
    if live != subscriber.selection:
        had: dict[Topic, int] = {}
        if subscriber.cursor is not None:
            had = had_now(tape, live)
            kept = subscriber.cursor.had.items()
            had.update({t: n for t, n in kept if selects(live, t) and selects(subscriber.selection, t)})
            for topic in had.keys() - subscriber.cursor.had.keys():
                if selects(subscriber.selection, topic):  # its first message came while the client was behind
                    had[topic] = 0
            subscriber.cursor = Cursor(live, subscriber.cursor.position, had, settled=tape.head)
            subscriber.selection = live
        else:
            hub.leave_group(subscriber)
            subscriber.selection = live
            hub.enter_group(subscriber)
    for interval_ms, lane in tuple(subscriber.lanes.items()):
        if wanted.get(interval_ms) == lane.group.selection:
            del wanted[interval_ms]
        else:
            hub.intervals.leave(subscriber, lane)
            del subscriber.lanes[interval_ms]
    for interval_ms, selection in wanted.items():
        kept_at = {topic: seq for topic, seq in at.items() if selects(selection, topic)}
        hub.intervals.enter(subscriber, interval_ms, selection, kept_at)
    return owed


def _resume(hub: Hub, subscriber: Subscriber, missed: Selection, after: int, shown: list[Entry]) -> None:
    """Put the client back to where it was on these topics, and before these newest messages of others.

    Its catch-up task does the rest.
    """
    if not missed:
        return
    hub.blocked(subscriber)
    if subscriber.cursor is not None:
        subscriber.cursor.resume(hub.tape, missed, after, shown)


def _seq(entry: Entry) -> int:
    return entry.seq
