"""Tracks the messages of one subscription: drops doubles, finds gaps, and knows where to resume. Sync and pure.

Per channel it keeps a *place*: the tape's epoch, the position at which the subscription began there (`floor`), and the
`seq` of the last message of each instrument. A channel's messages come in the order of `seq`, across all its topics, so
the channel can be resumed from the newest one (`Position`); `prev_seq` shows which messages are missing.

Of a book the present state is more than one message (`DepthSnapshot`, and the changes since). While some of them may be
still to come, the channel cannot be resumed: it begins anew. A snapshot's own `seq` is beyond all changes in it
(`through`), and before all that follow, so it serves for the chain of `prev_seq` like any other. Whoever resumes from
an earlier process's position may have no book: then the channel begins anew at the first change of one.
"""

from __future__ import annotations

import msgspec
from msgspec import UnsetType

from daemon.client.core.events import Gap, Lost
from protocol.channels import WHOLE_MARKET
from protocol.messages import DataMessage, DepthSnapshot, DepthUpdate, Lagged, Position, Subscribed


class _Place(msgspec.Struct):
    """The place of one channel.

    Attributes:
        epoch: the epoch of the tape to which the positions belong.
        floor: every message of the channel up to here has been had or is not wanted.
        owed: whether the snapshot may still be missing, so that `floor` does not hold yet.
        newest: `seq` of the last message, 0 for none.
        last: the same for each instrument.
        announced: up to here `lagged` or `recovered: false` has announced what is missing.
        has_books: whether its messages are changes of books.
        resumed: whether it goes on from an earlier process's position.
        sampled: whether it has an interval, so that `prev_seq` skips the messages it asked not to get.
    """

    epoch: str
    floor: int
    owed: bool
    newest: int = 0
    last: dict[str, int] = {}
    announced: int = 0
    has_books: bool = False
    resumed: bool = False
    sampled: bool = False


class Track:
    """The places of one subscription's channels.

    Args:
        snapshot: whether the subscription begins with the newest message of each topic.
        since: where it begins, if it resumes from an earlier process.
    """

    def __init__(self, *, snapshot: bool, since: Position | None = None) -> None:
        self._snapshot = snapshot
        self._since = since
        self._places: dict[str, _Place] = {}
        self._anew: set[str] = set()
        """The channels for which `since` is of no use."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that the daemon has confirmed."""
        return tuple(self._places)

    def position(self, channel: str) -> Position | None:
        """Where the channel can be resumed; None if it must begin anew."""
        place = self._places.get(channel)
        if place is None or (place.owed and not place.newest):
            return self._since if place is None and channel not in self._anew else None
        if place.has_books and (place.owed or place.newest <= place.announced):
            return None
        return Position(place.epoch, place.newest if place.owed else max(place.newest, place.floor))

    def answered(self, answer: Subscribed, *, sampled: bool = False, changed: bool = False) -> Lost | None:
        """Take a `subscribed`. Returns what is lost, if anything is.

        Args:
            answer: it.
            sampled: whether the channels have an interval from now on.
            changed: whether the options of a running subscription were changed by this. What the old ones left out is
                no gap, and the newest message of a topic that is new may still be missing.
        """
        recovered = {} if isinstance(answer.recovered, UnsetType) else answer.recovered
        lost: list[str] = []
        for channel in answer.channels:
            place = self._places.get(channel)
            another = place is None or place.epoch != answer.epoch or answer.seq < place.newest
            if recovered.get(channel) is False:
                lost.append(channel)
            since = self._since if place is None and channel in recovered else None
            if since is not None and since.epoch == answer.epoch and since.seq <= answer.seq:
                announced = answer.seq if channel in lost else 0
                self._places[channel] = _Place(answer.epoch, since.seq, owed=False, announced=announced, resumed=True)
            elif another or (place is not None and place.owed and not place.newest):
                self._places[channel] = _Place(answer.epoch, answer.seq, owed=self._snapshot or channel in lost)
            elif place is not None and place.has_books and not recovered.get(channel, False):
                # Whole states follow, also of topics of which nothing was lost: whoever forgets all books has them.
                place.announced, place.owed, place.last = answer.seq, True, {}
            elif place is not None and channel in lost:
                place.announced = answer.seq
            if changed and (kept := self._places[channel]) is place:
                kept.announced, kept.owed = max(kept.announced, answer.seq), True
            self._places[channel].sampled = sampled
        if not lost:
            return None
        missed = {} if isinstance(answer.missed, UnsetType) else answer.missed
        reason = "" if isinstance(answer.reason, UnsetType) else answer.reason
        return Lost(tuple(lost), missed, reason)

    def settled(self) -> None:
        """Note that all answers and their snapshots have come: the answer to a later command is here."""
        for place in self._places.values():
            place.owed = False

    def lagged(self, told: Lagged) -> None:
        """Take a `lagged`, which announces what is missing."""
        for channel, place in self._places.items():
            if isinstance(told.by_channel, UnsetType) or channel in told.by_channel:
                place.announced = max(place.announced, told.to_seq)

    def take(self, message: DataMessage) -> bool | Gap | None:
        """Take a data message. Returns whether to yield it.

        Or returns the gap before it: after reporting that, pass the same message again. Or None where it changes a book
        that has not come: then the channel has been left, and is to be subscribed to anew.
        """
        place = self._places.get(message.connector_id)
        if place is None:
            return False
        instrument = WHOLE_MARKET if isinstance(message.instrument, UnsetType) else message.instrument
        after = place.last.get(instrument)
        if after is None and place.resumed and self._snapshot and isinstance(message, DepthUpdate):
            self._anew.add(message.connector_id)
            self.leave(message.connector_id)
            return None
        if after is None and message.seq > place.floor:
            after = place.floor
        elif after is None:
            if not self._snapshot and not place.owed:
                return False
        elif message.seq <= after:
            return False
        if not place.sampled and after is not None and message.prev_seq > max(after, place.announced):
            place.announced = message.prev_seq
            return Gap(message.connector_id, instrument, after, message.seq)
        place.has_books = isinstance(message, DepthSnapshot | DepthUpdate)
        place.last[instrument] = message.seq
        place.newest = max(place.newest, message.seq)
        return True

    def leave(self, channel: str) -> None:
        """Forget the channel: none of its messages is wanted any more."""
        self._places.pop(channel, None)
