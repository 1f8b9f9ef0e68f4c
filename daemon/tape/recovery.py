"""Works out what a client that resumes from a position (`since`) has missed, and which messages it can still get.

This is decided topic by topic, and reported channel by channel. A channel that holds no more than its share of the tape
loses nothing to others (`daemon.tape.shares`), so a slow channel is recovered even from a position after which a busy
one has sent more than the tape can hold. A channel is not recovered if a single message of one topic is missing.

* A topic is *whole* after a position if none of its later messages has left the tape: then exactly the missed messages
  follow. Otherwise only its newest message follows, and `missed` gives the number of lost ones if it is known.
* After an unclean stop nobody knows which messages were sent but not stored (see `daemon.tape.archive`). A client whose
  position is before that break is told `recovered: false`, even if it gets everything that *was* stored.

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
        shown: the topics whose newest message follows.
    """

    recovered: dict[str, bool]
    missed: dict[str, int]
    reason: str
    replayed: frozenset[Topic]
    shown: frozenset[Topic]


def plan_recovery(tape: Tape, channels: tuple[str, ...], selection: Selection, since: Position) -> Recovery:
    """Plan what to send to a client that has had all messages of these topics up to that position."""
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
            shown.add(entry.topic)  # only one message came since, and it is kept beyond its place on the tape
        else:
            channel = entry.topic[0]
            recovered[channel] = False
            missed[channel] = _sum(missed[channel], count)
    shown |= {entry.topic for entry in newest if not recovered[entry.topic[0]]} - replayed
    return Recovery(
        recovered,
        {channel: count for channel, count in missed.items() if count is not None and not recovered[channel]},
        _reason(tape, since.seq, [channel for channel, whole in recovered.items() if not whole]),
        frozenset(replayed),
        frozenset(shown),
    )


def _missed(tape: Tape, newest: Entry, after: int) -> int | None:
    """How many messages of the topic came after that position, without the newest, which the client will get."""
    had = tape.count_at(newest.topic, after)
    return None if had is None else newest.ordinal - had - 1


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _stranger(tape: Tape, since: Position) -> str:
    """Why the position means nothing on this tape, or "" if it is valid."""
    if since.epoch != tape.epoch:
        return f"epoch {since.epoch[:40]!r} is not this tape's ({tape.epoch!r})"
    if since.seq > tape.head:
        return f"seq {since.seq} is beyond this tape's head ({tape.head})"
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
