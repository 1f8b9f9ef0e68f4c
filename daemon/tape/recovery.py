"""Works out what a client that resumes from a position (`since`) has missed, and which messages it can still get.

This is decided topic by topic, and reported channel by channel. A channel that holds no more than its share of the tape
loses nothing to others (`daemon.tape.shares`), so a slow channel is recovered even from a position after which a busy
one has sent more than the tape can hold. A channel is not recovered if a single message of one topic is missing.

* A topic is *whole* after a position if none of its later messages has left the tape: then exactly the missed messages
  follow. Otherwise only its present state follows, usually its newest message, and `missed` gives the number of lost
  ones if it is known.
* Where messages are changes (`daemon.tape.delta`), a channel that is not recovered begins anew, with the present state
  of all of its topics.
* After an unclean stop nobody knows which messages were sent but not stored (see `daemon.tape.archive`). A client whose
  position is before that break is told `recovered: false`, even if it gets everything that *was* stored.
* So nobody knows what a client had whose position lies within a skip (see `daemon.tape.tape`). Whoever stands before
  it loses nothing by it.

Sync and pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from daemon.tape.entry import Entry, Topic
from daemon.tape.tape import Tape
from protocol.messages import Position
from protocol.session import Selection


class Recovery(msgspec.Struct, frozen=True):
    """The answer to a `since`.

    Attributes:
        recovered: per channel, whether exactly the missed messages follow.
        missed: per channel that is not recovered, how many messages will not come, if known.
        reason: why some channel is not recovered; "" if all are.
        replayed: the topics whose kept messages all follow, in order.
        shown: what follows of all other topics.
    """

    recovered: dict[str, bool]
    missed: dict[str, int]
    reason: str
    replayed: frozenset[Topic]
    shown: list[Entry]


def plan_recovery(tape: Tape, channels: tuple[str, ...], selection: Selection, since: Position) -> Recovery:
    """Plan what to send to a client that has had all messages of these topics up to that position."""
    newest = tape.latest(selection)
    stranger = _stranger(tape, since)
    if stranger:
        return Recovery(dict.fromkeys(channels, False), {}, stranger, frozenset(), tape.present(selection))
    broken = since.seq < tape.broken_at
    recovered = dict.fromkeys(channels, not broken)
    missed: dict[str, int | None] = dict.fromkeys(channels, None if broken else 0)
    replayed: set[Topic] = set()
    shown: dict[Topic, list[Entry]] = {}
    torn = {each.topic[0] for each in newest if each.topic in tape.deltas and not tape.whole(each.topic, since.seq)}
    for entry in newest:
        topic, channel = entry.topic, entry.topic[0]
        if tape.whole(topic, since.seq) and channel not in torn:
            if entry.seq > since.seq:
                replayed.add(topic)
            continue
        had = tape.count_at(topic, since.seq)
        if had is not None and (rest := tape.beyond(topic, had)) is not None:
            shown[topic] = rest  # they are kept beyond their place on the tape
        else:
            recovered[channel] = False
            if topic not in tape.deltas:
                missed[channel] = _sum(missed[channel], _missed(tape, topic, since.seq))
    for topic in [entry.topic for entry in newest if not recovered[entry.topic[0]]]:
        if topic in tape.deltas:
            replayed.discard(topic)
            missed[topic[0]] = _sum(missed[topic[0]], _missed(tape, topic, since.seq))
        if topic not in replayed:
            shown[topic] = tape.state(topic)
    return Recovery(
        recovered,
        {channel: count for channel, count in missed.items() if count is not None and not recovered[channel]},
        _reason(tape, since.seq, [channel for channel, whole in recovered.items() if not whole]),
        frozenset(replayed),
        [entry for entries in shown.values() for entry in entries],
    )


def _missed(tape: Tape, topic: Topic, after: int) -> int | None:
    """How many messages of the topic came after that position, without those that the client will get."""
    had = tape.count_at(topic, after)
    return None if had is None else max(0, tape.passed_over(topic) - had)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _stranger(tape: Tape, since: Position) -> str:
    """Why the position means nothing on this tape, or "" if it is valid."""
    if since.epoch != tape.epoch:
        return f"epoch {since.epoch[:40]!r} is not this tape's ({tape.epoch!r})"
    if since.seq > tape.head:
        return f"seq {since.seq} is beyond this tape's head ({tape.head})"
    if (skip := tape.skipped(since.seq)) is not None:
        lost = f"seq {since.seq} was sent, and lost when another node took over"
        return f"{lost}: after seq {skip[0]} the tape goes on at {skip[1] + 1}"
    return ""


def _reason(tape: Tape, after: int, lost: Sequence[str]) -> str:
    """Why these channels are not recovered; "" if there are none."""
    if not lost:
        return ""
    if after >= tape.broken_at:
        kept = max(tape.gone_of(channel) for channel in lost) + 1
        return f"seq {after} is before this tape's tail: messages from {kept} on are kept"
    if after >= tape.gone and not tape.holds(after):
        what = f"seq {after} lies in what was sent but not stored before an unclean stop"
    else:
        what = f"what was sent between seq {after} and {tape.broken_at} was not all stored before an unclean stop"
    return f"{what}; what is kept follows"
