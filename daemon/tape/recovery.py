"""What a client that comes back with a position (`since`) has missed, and what of it can be given to it.

Judged topic by topic, and told channel by channel. A slow channel is recovered although the position is long before the
tape's tail, if nothing of it has left the tape since; a channel is not, if a single message of one topic is missing.

* A topic is *whole* after a position if nothing of it that followed has left the tape: then exactly the missed
  messages follow. Else its newest message follows, and if it is known how many there were, `missed` says so.
* After an unclean stop nobody knows what was sent and not stored (see `daemon.tape.archive`). Whoever had not come
  beyond
  that break is told `recovered: false`, also where everything that *was* stored can be given, and is.

Sync and pure.
"""

from __future__ import annotations

import msgspec

from daemon.tape.tape import Entry, Tape, Topic
from protocol.messages import Position
from protocol.session import Selection


class Recovery(msgspec.Struct, frozen=True):
    """The answer to a `since`.

    Attributes:
        recovered: per channel, whether exactly what was missed follows.
        missed: per channel that is not recovered, how many messages will not come, where that is known.
        reason: why some channel is not recovered; "" where all are.
        replayed: the topics of which all that is kept follows, in order.
        shown: those of which the newest message follows.
    """

    recovered: dict[str, bool]
    missed: dict[str, int]
    reason: str
    replayed: frozenset[Topic]
    shown: frozenset[Topic]


def judge(tape: Tape, channels: tuple[str, ...], selection: Selection, since: Position) -> Recovery:
    """What follows for a client that had everything of these topics up to that position."""
    newest = tape.latest(selection)
    stranger = _stranger(tape, since)
    if stranger:
        everything = frozenset(entry.topic for entry in newest)
        return Recovery(dict.fromkeys(channels, False), {}, stranger, frozenset(), everything)
    broken = since.seq < tape.broken_at
    recovered = dict.fromkeys(channels, not broken)
    missed: dict[str, int | None] = dict.fromkeys(channels, None if broken else 0)
    replayed: set[Topic] = set()
    shown: set[Topic] = set()
    for entry in newest:
        if tape.whole(entry.topic, since.seq):
            if entry.seq > since.seq:
                replayed.add(entry.topic)
        elif (count := _missed(tape, entry, since.seq)) == 0:
            shown.add(entry.topic)  # its only message since then, which has outlived its place in the ring
        else:
            channel = entry.topic[0]
            recovered[channel] = False
            missed[channel] = _sum(missed[channel], count)
    shown |= {entry.topic for entry in newest if not recovered[entry.topic[0]]} - replayed
    return Recovery(
        recovered,
        {channel: count for channel, count in missed.items() if count is not None and not recovered[channel]},
        "" if all(recovered.values()) else _reason(tape, since.seq),
        frozenset(replayed),
        frozenset(shown),
    )


def _missed(tape: Tape, newest: Entry, after: int) -> int | None:
    """How many messages of the topic followed that position, but for the newest, which will come."""
    had = tape.count_at(newest.topic, after)
    return None if had is None else newest.ordinal - had - 1


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _stranger(tape: Tape, since: Position) -> str:
    """Why the position says nothing about this tape, or "" where it does."""
    if since.epoch != tape.epoch:
        return f"epoch {since.epoch[:40]!r} is not this tape's ({tape.epoch!r})"
    if since.seq > tape.head:
        return f"seq {since.seq} is beyond this tape's head ({tape.head})"
    return ""


def _reason(tape: Tape, after: int) -> str:
    if after >= tape.broken_at:
        return f"seq {after} is before this tape's tail: messages from {tape.tail} on are kept"
    if after >= tape.gone and not tape.holds(after):
        what = f"seq {after} lies in what was sent but not stored before an unclean stop"
    else:
        what = f"what was sent between seq {after} and {tape.broken_at} was not all stored before an unclean stop"
    return f"{what}; what is kept follows"
