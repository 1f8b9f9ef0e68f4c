"""A tape that is followed elsewhere: what another process must be handed to have the same tape.

A copy begins with an `Origin`: the tape's identity, what is remembered of each topic's messages that have left it, and
the newest messages that are kept beyond their place. Then come the entries in order, as `Row`s: first those that are on
the tape already, then each new one. A copy that has all of them answers every question of a client as the original
does: positions, counts of what was missed, breaks, snapshots.

Sync and pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from daemon.tape.delta import Delta
from daemon.tape.entry import Entry, Topic
from daemon.tape.positions import Past
from daemon.tape.shares import Share
from daemon.tape.tape import Tape


class Row(msgspec.Struct, array_like=True, gc=False):
    """One entry as it travels.

    Attributes:
        seq: its position.
        ordinal: its number among the messages of its topic.
        channel: of its topic.
        instrument: of its topic.
        payload: the message as JSON.
        received_ms: when the venue's bytes arrived, ms since 1970; 0 for an entry without new bytes, or one that is
            handed over late.
    """

    seq: int
    ordinal: int
    channel: str
    instrument: str
    payload: bytes
    received_ms: int = 0

    @classmethod
    def of(cls, entry: Entry, received_ms: int = 0) -> Row:
        """The entry, ready to travel."""
        channel, instrument = entry.topic
        return cls(entry.seq, entry.ordinal, channel, instrument, entry.payload, received_ms)

    @property
    def topic(self) -> Topic:
        """Its topic."""
        return self.channel, self.instrument

    def entry(self, epoch: str) -> Entry:
        """The entry of a tape of that epoch."""
        return Entry.of(self.seq, self.ordinal, (self.channel, self.instrument), self.payload, epoch)


class Changes(msgspec.Struct, array_like=True, gc=False):
    """The state of a topic whose messages are changes (`daemon.tape.delta`). What is on the tape is named by position.

    Attributes:
        channel: of the topic.
        instrument: of the topic.
        base: the message with which the state begins; None if there is none that could be shown.
        through: the ordinal of the last message that `base` contains.
        since: every message after that.
    """

    channel: str
    instrument: str
    base: Row | int | None
    through: int
    since: list[Row | int]


class Origin(msgspec.Struct, array_like=True, gc=False):
    """Where a copy begins.

    Attributes:
        epoch: the tape's.
        head: the tape's head when the copy was asked for. Rows up to there are old, those beyond it are new.
        gone: the position of the newest entry that has left the tape.
        gone_of: by channel, the position of its newest message that has left.
        past: what is remembered of each topic.
        outliving: the newest messages of topics that have no message on the tape.
        changes: the states that consist of several messages.
        broken_at: the position of the newest break, 0 if there is none.
        breaks: the position before and at each break of which something before is still on the tape.
        skips: the position before and at the end of each skip.
    """

    epoch: str
    head: int
    gone: int
    gone_of: dict[str, int]
    past: list[tuple[str, str, Past]]
    outliving: list[Row]
    changes: list[Changes]
    broken_at: int
    breaks: list[tuple[int, int]]
    skips: list[tuple[int, int]] = []


def origin(tape: Tape, floor: int = 0, remembered: int | None = None) -> Origin:
    """Where a copy of this tape begins now. What is to follow are the rows of `standing(tape)`, and all later ones.

    With a `floor`, the rows up to this position are not to follow: to the copy they have left the tape. `remembered`:
    the positions of so many messages that have left are named of each topic; None for all that are known.
    """
    gone_of = {share.channel: _gone(share, floor) for share in tape.shares()}
    return Origin(
        epoch=tape.epoch,
        head=tape.head,
        gone=max(tape.gone, *gone_of.values()) if gone_of else tape.gone,
        gone_of={channel: gone for channel, gone in gone_of.items() if gone},
        past=[
            (share.channel, instrument, positions.past(floor, *([] if remembered is None else [remembered])))
            for share in tape.shares()
            for instrument, positions in share.topics.items()
        ],
        outliving=[
            Row.of(positions.newest)
            for share in tape.shares()
            for positions in share.topics.values()
            if positions.newest is not None and positions.newest.seq <= gone_of[share.channel]
        ],
        changes=[
            Changes(
                channel,
                instrument,
                None if delta.base is None else _named(gone_of, delta.base),
                delta.through,
                [_named(gone_of, entry) for entry in delta.since],
            )
            for (channel, instrument), delta in tape.deltas.items()
        ],
        broken_at=tape.broken_at,
        breaks=list(tape.breaks),
        skips=list(tape.skips),
    )


def standing(tape: Tape) -> list[Entry]:
    """The entries that are on the tape now, in order."""
    return list(tape.between(0, tape.head))


def begun(start: Origin, max_entries: int, max_bytes: int) -> Tape:
    """A copy that has its origin only. When all old rows are placed, `ended` makes it whole."""
    tape = Tape(max_entries, max_bytes, start.epoch)
    tape.start_at(start.gone + 1, start.gone_of)
    for channel, instrument, past in start.past:
        tape.remember((channel, instrument), past)
    for row in start.outliving:
        tape.show(row.entry(start.epoch))
    tape.breaks[:] = start.breaks
    tape.skips[:] = start.skips
    tape.broken_at = start.broken_at
    return tape


def ended(tape: Tape, start: Origin) -> None:
    """All rows up to the origin's head are on the copy: it stands where the tape stood."""
    tape.head = max(tape.head, start.head)
    hidden = {(channel, instrument) for channel, instrument, past in start.past if not past.shown}
    if hidden:
        tape.forget(lambda topic: topic not in hidden)
    for told in start.changes:
        on_tape = {entry.seq: entry for entry in tape.known(told.channel)}
        delta = tape.deltas[told.channel, told.instrument] = Delta()
        if told.base is None:
            continue
        try:
            delta.begin(_found(told.base, on_tape, tape.epoch), told.through)
            for each in told.since:
                delta.add(_found(each, on_tape, tape.epoch))
        except KeyError:  # the copy holds less than the tape: there is no state until it begins anew
            delta.end()


def _gone(share: Share, floor: int) -> int:
    """The position of the channel's newest message that has left the tape, or stands up to the floor."""
    gone = share.gone
    for entry in share.entries:
        if entry.seq > floor:
            break
        gone = entry.seq
    return gone


def _named(gone_of: Mapping[str, int], entry: Entry) -> Row | int:
    return entry.seq if entry.seq > gone_of.get(entry.topic[0], 0) else Row.of(entry)


def _found(named: Row | int, on_tape: Mapping[int, Entry], epoch: str) -> Entry:
    return on_tape[named] if isinstance(named, int) else named.entry(epoch)
