"""Joining and leaving channels: from what a command asked for to a client's place on the tape.

Both are sync, and so exact: what a client is told (`subscribed`, with the tape's position) and what it is then sent fit
together, whether it is caught up or behind. A topic that the client takes already keeps its place; a topic that is new
to it starts at the head, behind its snapshot; with `since` it starts where the client says that it stopped.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from daemon.cursor import Cursor, had_now
from daemon.hub import Hub, status
from daemon.subscriber import NOTHING, Subscriber
from daemon.tape import STATUS, Entry, Tape, Topic, selects
from protocol.messages import Position, Subscribed, Unsubscribed
from protocol.session import EVERY_MESSAGE, Join, Leave, Session


def join(hub: Hub, subscriber: Subscriber, session: Session, command: Join, timestamp: str) -> None:
    """Carry out a `subscribe`: the answer, each channel's status, and then the snapshot or what was missed.

    `session` is as the command left it; the subscriber is still as it was before, and is changed to fit.
    """
    tape = hub.tape
    refusal = None if command.since is None else _cannot_resume(tape, command.since)
    recovered: dict[str, bool] | UnsetType = UNSET
    if command.since is not None:
        recovered = dict.fromkeys(command.channels, refusal is None)
    added = [entry for entry in tape.latest(command.selection) if not subscriber.takes(entry.topic)]
    subscriber.say(
        Subscribed(
            timestamp=timestamp,
            channels=command.channels,
            id=command.id,
            epoch=tape.epoch,
            seq=tape.head,
            recovered=recovered,
            reason=UNSET if refusal is None else refusal,
        )
    )
    states = hub.board.states()
    for channel in command.channels:
        if channel in states:
            subscriber.say(status(channel, states[channel], hub.clock, timestamp))
    follow = _rearrange(hub, subscriber, session)
    if command.since is not None and refusal is None:
        if command.interval_ms == EVERY_MESSAGE:
            _resume(hub, subscriber, added, command.since.seq)
        else:  # at an interval it is the newest that counts, also of what was missed
            follow += [entry for entry in added if entry.seq > command.since.seq]
    elif command.snapshot or refusal is not None:
        follow += added
    for entry in sorted(follow, key=_seq):
        subscriber.stream.post(entry.frame(subscriber.format))


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
            subscriber.cursor = Cursor(live, subscriber.cursor.position, had)
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


def _resume(hub: Hub, subscriber: Subscriber, added: list[Entry], after: int) -> None:
    """Put the client back to where it was on these topics: its catch-up task does the rest."""
    missed = frozenset(entry.topic for entry in added if entry.seq > after)
    if not missed:
        return
    hub.blocked(subscriber)
    if subscriber.cursor is not None:
        subscriber.cursor.resume(hub.tape, missed, after)


def _cannot_resume(tape: Tape, since: Position) -> str | None:
    """Why a client cannot go on from that position, or None where it can."""
    if since.epoch != tape.epoch:
        return f"epoch {since.epoch[:40]!r} is not this tape's ({tape.epoch!r})"
    if since.seq > tape.head:
        return f"seq {since.seq} is beyond this tape's head ({tape.head})"
    if not tape.holds(since.seq):
        return f"seq {since.seq} is before this tape's tail: messages from {tape.tail} on are kept"
    return None


def _seq(entry: Entry) -> int:
    return entry.seq
