"""The ticker tape: the last messages of all channels, in memory, within bounds.

Every published message gets the next `seq` and becomes an *entry* on the tape (`daemon.tape.entry`), framed once for
all clients. Clients have no queues: each has a position on the tape (see `daemon.tape.cursor`). The tape's size bounds
the memory of the daemon, however many clients there are and however slow they are.

**No channel pushes another channel's history off the tape.** When a bound is exceeded, the channel that holds the most
loses its oldest message (`daemon.tape.shares`). So what has left the tape is known per channel and per topic
(`daemon.tape.positions`), and the positions on the tape have holes (`daemon.tape.order`).

Sync and pure: no trio, no clock, no I/O.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from connectors.base import Bytes, Count
from connectors.metric import Samples
from daemon.tape.delta import Delta
from daemon.tape.entry import CANARY as CANARY
from daemon.tape.entry import NOTICE as NOTICE
from daemon.tape.entry import STATUS as STATUS
from daemon.tape.entry import Entry as Entry
from daemon.tape.entry import Topic as Topic
from daemon.tape.entry import is_data, subject
from daemon.tape.entry import selects as selects
from daemon.tape.order import Order
from daemon.tape.positions import Past
from daemon.tape.positions import Positions as Positions
from daemon.tape.shares import Share, Shares
from protocol.frames import text_frame
from protocol.session import ALL, Selection

LAST_POSITION: Final = 2**53 - 1
"""The largest integer that JavaScript holds exactly."""

_SKIPS_KEPT: Final = 256
"""Who comes back after more changes of the leader than these lies before the tape's tail."""


class TapeSettings(msgspec.Struct, frozen=True):
    """`[tape]`: how much history is kept (the bound reached first counts), and where; `path` "": only in memory.

    Attributes:
        entries: how many messages.
        bytes: how many bytes they may have together.
    """

    entries: Count = 100_000
    bytes: Bytes = 67_108_864
    path: str = ""


class OutOfPositions(RuntimeError):
    """The next position is not reserved: another run of the daemon might use it again."""


class Tape:
    """The messages that are kept, in order.

    Positions grow by one with each message, except at the *breaks* that an unclean stop leaves (see
    `daemon.tape.archive`): positions up to a break may have been used, and nobody knows for which messages. And except
    at *skips*, where another node of a cluster went on with the tape (`daemon.publish.cluster`): all that counts stands
    before and after it, so the chains go on; but whoever has a position within has had messages that were lost.

    Attributes:
        epoch: a random id of this tape; a position means something only together with it.
        head: the newest position, 0 if there is none. The newest entry is at the head, unless a break came after it.
        gone: no entry after this position has left the tape.
        broken_at: the position of the newest break, 0 if there is none. No message has this position, and no topic's
            chain of `prev_seq` crosses it: a client with an earlier position cannot know what it missed.
        breaks: the positions before and at each break, as far as nothing after it has left the tape.
        skips: the positions before and at the end of each skip, the newest `_SKIPS_KEPT` of them.
        limit: positions beyond this one are refused; the archive moves it.
        size_bytes: size of the frames held (JSON ones; every other format in use costs about the same again).
        deltas: the states of the topics whose messages are changes.
        freshen: makes short of a long state of one of these topics, by a new keyframe.
    """

    def __init__(self, max_entries: int, max_bytes: int, epoch: str | None = None) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.epoch = epoch if epoch is not None else secrets.token_urlsafe(9)
        self.head = 0
        self.gone = 0
        self.broken_at = 0
        self.limit = LAST_POSITION
        self.size_bytes = 0
        self.deltas: dict[Topic, Delta] = {}
        self.freshen: Callable[[Topic], None] = _as_it_is
        self._count = 0
        self._order = Order()
        self._shares = Shares()
        self.breaks: list[tuple[int, int]] = []
        self.skips: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self._count

    @property
    def tail(self) -> int:
        """`seq` of the oldest entry on the tape; `head + 1` if there is none."""
        first = self._order.first
        return self.head + 1 if first is None else first

    def newest(self, topic: Topic) -> Entry | None:
        """The topic's newest message, or None."""
        positions = self._find(topic)
        return None if positions is None or not positions.shown else positions.newest

    def last_seq(self, topic: Topic) -> int:
        """The next message's `prev_seq`: the `seq` of the topic's newest message, 0 if there is none.

        After a break it is the break's position. No message has that, so no client takes the chain for unbroken.
        """
        positions = self._find(topic)
        entry = None if positions is None else positions.newest
        return self.broken_at if entry is None else max(entry.seq, self.broken_at)

    def append(self, topic: Topic, payload: bytes) -> Entry:
        """Put a message, encoded with `seq` = `head + 1`, on the tape; whoever holds the most makes room.

        Raises:
            OutOfPositions: The position is beyond `limit`.
        """
        if self.head >= self.limit:
            raise OutOfPositions(f"position {self.head + 1} is not reserved; {self.limit} is the last one that is")
        share = self._shares.of(topic[0])
        positions = share.topics.get(topic[1]) or self._positions(topic)
        before = positions.newest
        ordinal = 1 if before is None else before.ordinal + 1
        data = is_data(topic) if before is None else before.data
        entry = Entry(self.head + 1, ordinal, topic, self.epoch, text_frame(payload), data)
        self._place(entry, share, positions)
        return entry

    def place(self, entry: Entry) -> Entry:
        """Put an entry, read from the archive, on the tape, at its position beyond the head."""
        self._place(entry, self._shares.of(entry.topic[0]), self._positions(entry.topic))
        return entry

    def _place(self, entry: Entry, share: Share, positions: Positions) -> None:
        """Put the entry on the tape.

        If its channel holds more bytes than any other by this very message, it does not stay, unless it is alone; it is
        the newest of its topic all the same.
        """
        size, shares = len(entry.text), self._shares
        self.head = entry.seq
        self._order.append(entry)
        positions.newest, positions.shown = entry, True
        positions.add(entry.seq, entry.ordinal)
        if shares.retired:
            shares.revive(share)
        share.entries.append(entry)
        share.size_bytes += size
        self.size_bytes += size
        self._count += 1
        while self._count > self.max_entries:
            self._let_go(shares.most_messages(share))
        while self.size_bytes > self.max_bytes and self._count > 1:
            self._let_go(shares.most_bytes(share))
        shares.settle(share)

    def _let_go(self, share: Share) -> None:
        """This channel's oldest entry leaves the tape."""
        entry = share.entries.popleft()
        seq, size = entry.seq, len(entry.text)
        share.gone = seq
        share.size_bytes -= size
        self.size_bytes -= size
        self._count -= 1
        self._order.remove(seq)
        share.topics[entry.topic[1]].leave(seq, entry.ordinal)
        if seq > self.gone:
            self.gone = seq
            while self.breaks and self.breaks[0][1] <= seq:
                del self.breaks[0]

    def start_at(self, tail: int, gone: Mapping[str, int] = MappingProxyType({})) -> None:
        """Restore where the tape begins, and up to where each channel's messages had left. Call this before `place`."""
        self.head = self.gone = tail - 1
        for channel, seq in gone.items():
            self._note_gone(channel, seq)

    def remember(self, topic: Topic, past: Past) -> None:
        """Restore what was known of the topic's messages that had left the tape. Call this before its `place`."""
        self._shares.of(topic[0]).topics[topic[1]] = Positions.of(past)

    def show(self, entry: Entry) -> None:
        """Restore a topic's newest message, whose place on the tape is gone; all else of it is remembered already."""
        self._positions(entry.topic).newest = entry

    def outlive(self, entry: Entry) -> None:
        """Restore a topic's newest message that had already left the tape. Call this before the topic's `place`."""
        self._positions(entry.topic).newest = entry
        self.head = max(self.head, entry.seq)
        self._note_gone(entry.topic[0], entry.seq)
        self.left(entry.topic, entry.seq, entry.ordinal)

    def left(self, topic: Topic, seq: int, ordinal: int) -> None:
        """Note that the topic's message with that ordinal, at `seq`, has left the tape."""
        positions = self._positions(topic)
        if ordinal >= positions.next_ordinal:
            positions.add(seq, ordinal)
        positions.leave(seq, ordinal)

    def _note_gone(self, channel: str, seq: int) -> None:
        share = self._shares.of(channel)
        share.gone = max(share.gone, seq)
        self.gone = max(self.gone, seq)

    def break_at(self, position: int) -> None:
        """Positions up to this one, which is beyond the head, may have been used: go on after it."""
        before = self.head
        if self.breaks and self.breaks[-1][1] == before:
            before, _ = self.breaks.pop()
        self.breaks.append((before, position))
        self.head = self.broken_at = position

    def skip_to(self, position: int) -> None:
        """Go on after this position, which is beyond the head; every message that counts is on the tape."""
        self.skips.append((self.head, position))
        del self.skips[:-_SKIPS_KEPT]
        self.head = position

    def skipped(self, position: int) -> tuple[int, int] | None:
        """The skip that this position lies within, strictly; None if it lies in none."""
        return next((skip for skip in self.skips if skip[0] < position < skip[1]), None)

    def holds(self, after: int) -> bool:
        """Whether a client can go on from `after`: every later entry that was kept is still here, or yet to come.

        It cannot go on from inside a break, or a skip: the messages there were sent, and are not known.
        """
        inside = any(first < after < last for first, last in self.breaks) or self.skipped(after) is not None
        return self.gone <= after <= self.head and not inside

    def become(self, other: Tape) -> None:
        """Be what that tape is, for all who hold this one. No client may have a place on it; drop the other one."""
        self.__dict__.update(other.__dict__)

    def stands(self, entry: Entry) -> bool:
        """Whether this entry of the tape still has its place on it, and is not only kept as the newest of its topic."""
        return entry.seq > self.gone_of(entry.topic[0])

    def between(self, after: int, upto: int) -> Iterator[Entry]:
        """The entries on the tape with `after < seq <= upto`, in order."""
        return self._order.between(after, upto)

    def count_beyond(self, position: int) -> int:
        """How many entries on the tape stand beyond that position."""
        return self._order.count_beyond(position)

    def gone_of(self, channel: str) -> int:
        """The position of the newest message of that channel that has left the tape; 0 if none has."""
        share = self._shares.get(channel)
        return 0 if share is None else share.gone

    def shares(self) -> Iterator[Share]:
        """What each channel holds, and what has left."""
        return iter(self._shares)

    def lost(self, selection: Selection, after: int, had: Mapping[Topic, int]) -> list[Topic]:
        """The topics of which a message beyond `after`, and beyond the first `had` of them, has left the tape."""
        if after >= self.gone:
            return []
        some = frozenset(each for each in selection if self.gone_of(each[0]) > after)
        return [
            topic
            for topic, positions in self._selected(some)
            if positions.newest_gone > after and positions.gone_ordinal > had.get(topic, 0)
        ]

    def before_first(self, selection: Selection, after: int, had: Mapping[Topic, int]) -> int:
        """The position before the first message of the selection beyond `after`; the head if there is none.

        The first `had` messages of each topic are skipped, and none of the others may have left the tape (see `lost`).
        This uses an index and does not walk the tape.
        """
        first = self.head + 1
        for topic, positions in self._selected(selection):
            seq = positions.first_beyond(after, had.get(topic, 0))
            if seq is not None and seq < first:
                first = seq
        return first - 1

    def counts(self, selection: Selection) -> dict[Topic, int]:
        """How many messages each topic of the selection has had so far, including topics that `forget` removed."""
        return {topic: positions.next_ordinal - 1 for topic, positions in self._selected(selection)}

    def _selected(self, selection: Selection) -> Iterator[tuple[Topic, Positions]]:
        """Every topic of the selection that has had a message, with its positions."""
        for channel, instrument in selection:
            share = self._shares.get(channel)
            topics = {} if share is None else share.topics
            for name in topics if instrument == ALL else (instrument,):
                positions = topics.get(name)
                if positions is not None and (instrument != ALL or not name.startswith("!")):
                    yield (channel, name), positions

    def whole(self, topic: Topic, after: int) -> bool:
        """Whether none of the topic's messages after that position has left the tape."""
        positions = self._find(topic)
        return positions is None or positions.newest_gone <= after

    def count_at(self, topic: Topic, position: int) -> int | None:
        """How many messages the topic had up to that position; None if that is no longer known."""
        positions = self._find(topic)
        return 0 if positions is None else positions.count_at(position)

    def before_next(self, topic: Topic, position: int) -> int:
        """The ordinal of the topic's first known message beyond that position, minus one."""
        positions = self._find(topic)
        return 0 if positions is None else positions.before_next(position)

    def standing(self, topic: Topic, before: int, most: int) -> list[int]:
        """The positions of the topic's newest messages on the tape before that position, at most so many, in order."""
        positions = self._find(topic)
        return [] if positions is None else positions.standing(before, most)

    def oldest(self, topic: Topic) -> Entry | None:
        """The topic's oldest message on the tape; None if there is none."""
        positions = self._find(topic)
        seq = None if positions is None else positions.oldest
        return None if seq is None else self._order.at(seq)

    def at(self, seq: int) -> Entry | None:
        """The entry on the tape at that position; None if there is none."""
        return self._order.at(seq)

    def newest_gone(self, topic: Topic) -> int:
        """The position of the topic's newest message that has left the tape; 0 if none has."""
        positions = self._find(topic)
        return 0 if positions is None else positions.newest_gone

    def _find(self, topic: Topic) -> Positions | None:
        share = self._shares.get(topic[0])
        return None if share is None else share.topics.get(topic[1])

    def _positions(self, topic: Topic) -> Positions:
        topics = self._shares.of(topic[0]).topics
        positions = topics.get(topic[1])
        if positions is None:
            positions = topics[topic[1]] = Positions()
        return positions

    def latest(self, selection: Selection, after: int = 0) -> list[Entry]:
        """The newest entry of each topic of the selection, if its `seq` is beyond `after`; in `seq` order.

        A topic's newest entry is kept beyond its place on the tape, so a slow channel always has something to show.
        """
        found = {
            positions.newest.seq: positions.newest
            for _, positions in self._selected(selection)
            if positions.shown and positions.newest is not None and positions.newest.seq > after
        }
        return [found[seq] for seq in sorted(found)]

    def renew(self, selection: Selection) -> None:
        """Prepare to show the present state of these topics: this may put keyframes on the tape."""
        if self.deltas:
            for topic in [topic for topic, _ in self._selected(selection) if topic in self.deltas]:
                self.freshen(topic)

    def present(self, selection: Selection) -> list[Entry]:
        """All messages that make up the present state of these topics, in `seq` order."""
        return sorted((each for topic, _ in self._selected(selection) for each in self.state(topic)), key=_seq)

    def state(self, topic: Topic) -> list[Entry]:
        """The messages that make up the present state of the topic: usually its newest one, if there is any."""
        newest = self.newest(topic)
        if newest is None:
            return []
        delta = self.deltas.get(topic)
        return [newest] if delta is None else delta.entries

    def beyond(self, topic: Topic, had: int) -> list[Entry] | None:
        """The topic's messages after its first `had`, as far as they are kept wherever they stood on the tape.

        None if they are not all. Of most topics only the newest message is kept.
        """
        newest = self.newest(topic)
        if newest is None:
            return None
        if newest.ordinal <= had + 1:
            return [newest] if newest.ordinal > had else []
        delta = self.deltas.get(topic)
        return None if delta is None else delta.beyond(had)

    def passed_over(self, topic: Topic) -> int:
        """The ordinal of the last of the topic's messages that the present state contains, and that do not come."""
        newest, delta = self.newest(topic), self.deltas.get(topic)
        if newest is None:
            return 0
        if delta is None:
            return newest.ordinal - 1
        if delta.base is None:
            return newest.ordinal
        return delta.through - is_data(delta.base.topic)

    def shows_changes(self, entries: Iterable[Entry]) -> bool:
        """Whether some of these are states that consist of several messages, or parts of such."""
        return bool(self.deltas) and any(subject(entry.topic) in self.deltas for entry in entries)

    def known(self, channel: str) -> list[Entry]:
        """The channel's messages on the tape, in order."""
        share = self._shares.get(channel)
        return [] if share is None else list(share.entries)

    def payload(self, channel: str, instrument: str) -> bytes | None:
        """The newest message of that topic, as JSON, or None."""
        entry = self.newest((channel, instrument))
        return None if entry is None else entry.payload

    def payloads(self, channel: str, instrument: str = ALL) -> list[bytes]:
        """The present state of each topic of the channel, as JSON; with `instrument`, of that topic only."""
        selection = frozenset({(channel, instrument)})
        self.renew(selection)
        return [entry.payload for entry in self.present(selection)]

    def forget(self, known: Callable[[Topic], bool]) -> None:
        """Stop showing the newest message of topics that no longer exist: it would be shown for ever.

        A topic that comes back continues its old chain and count: a new start would make it look like another topic. A
        channel without any topic that exists gives way before all others.
        """
        for share in self._shares:
            for instrument, positions in share.topics.items():
                positions.shown = positions.shown and known((share.channel, instrument))
            if not any(positions.shown for positions in share.topics.values()):
                self._shares.retire(share.channel)

    def outliving(self) -> list[Entry]:
        """The newest entries of topics that have no entry left on the tape."""
        return [
            positions.newest
            for share in self._shares
            for positions in share.topics.values()
            if positions.shown and positions.newest is not None and positions.newest.seq <= share.gone
        ]

    def measure(self, samples: Samples) -> None:
        """Add how full the tape is."""
        samples.value("tickerd_tape_entries", "Messages on the tape.", len(self))
        samples.value("tickerd_tape_entries_max", "How many it holds.", self.max_entries)
        samples.value("tickerd_tape_bytes", "The size of these messages.", self.size_bytes)
        samples.value("tickerd_tape_bytes_max", "How large they may be together.", self.max_bytes)
        samples.value("tickerd_tape_position", "seq of the newest message.", self.head)
        messages = samples.gauge("tickerd_tape_channel_entries", "Messages of each channel on the tape.", "channel")
        size = samples.gauge("tickerd_tape_channel_bytes", "The size of each channel's messages.", "channel")
        for share in self._shares:
            messages.add_metric([share.channel], len(share.entries))
            size.add_metric([share.channel], share.size_bytes)


def _as_it_is(topic: Topic) -> None:
    """Nobody makes keyframes."""


def _seq(entry: Entry) -> int:
    return entry.seq
