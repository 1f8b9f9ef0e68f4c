"""What one subscription has had: each message at most once, holes named, and where to resume. Sync and pure.

Per channel it keeps a *place*: the tape's epoch, the position at which the subscription began there (`floor`), and
`seq` of the last message of each instrument. A channel's messages come in the order of `seq`, over all its topics, so
the newest of them is where the channel can be resumed (`Position`); `prev_seq` shows what is missing.
"""

from __future__ import annotations

import msgspec
from msgspec import UnsetType

from daemon.client.events import Gap, Lost
from protocol.channels import WHOLE_MARKET
from protocol.messages import DataMessage, Lagged, Position, Subscribed


class _Place(msgspec.Struct):
    """Where one channel is.

    Attributes:
        epoch: of the tape that the numbers are about.
        floor: everything of the channel up to here is either had or not wanted.
        owed: whether the snapshot may not have come yet, so that `floor` is a promise only.
        newest: `seq` of the last message, 0 for none.
        last: the same for each instrument.
        announced: up to here `lagged` or `recovered: false` has told what is missing.
    """

    epoch: str
    floor: int
    owed: bool
    newest: int = 0
    last: dict[str, int] = {}
    announced: int = 0


class Track:
    """The places of one subscription's channels.

    Args:
        snapshot: whether the subscription asks for the newest message of each topic to begin with.
        sampled: whether it has an interval, so that `prev_seq` shows what it asked not to get.
        since: where it begins, if it resumes what an earlier process had.
    """

    def __init__(self, *, snapshot: bool, sampled: bool, since: Position | None = None) -> None:
        self._snapshot = snapshot
        self._sampled = sampled
        self._since = since
        self._places: dict[str, _Place] = {}

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that the daemon has confirmed."""
        return tuple(self._places)

    def position(self, channel: str) -> Position | None:
        """Where the channel can be resumed; None where it has to begin afresh."""
        place = self._places.get(channel)
        if place is None or (place.owed and not place.newest):
            return self._since if place is None else None
        return Position(place.epoch, place.newest if place.owed else max(place.newest, place.floor))

    def answered(self, answer: Subscribed) -> Lost | None:
        """`subscribed` has come. Returns what is lost, if anything is."""
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
                self._places[channel] = _Place(answer.epoch, since.seq, owed=False, announced=announced)
            elif another or (place is not None and place.owed and not place.newest):
                self._places[channel] = _Place(answer.epoch, answer.seq, owed=self._snapshot or channel in lost)
            elif place is not None and channel in lost:
                place.announced = answer.seq
        if not lost:
            return None
        missed = {} if isinstance(answer.missed, UnsetType) else answer.missed
        reason = "" if isinstance(answer.reason, UnsetType) else answer.reason
        return Lost(tuple(lost), missed, reason)

    def settled(self) -> None:
        """What answers to commands bring along, snapshots too, has come: an answer to a later command is here."""
        for place in self._places.values():
            place.owed = False

    def lagged(self, told: Lagged) -> None:
        """`lagged` has told what is missing."""
        for place in self._places.values():
            place.announced = max(place.announced, told.to_seq)

    def take(self, message: DataMessage) -> bool | Gap:
        """Whether a data message that has come is to be handed over.

        Or the gap before it: once that is told, the same message is to be given again.
        """
        place = self._places.get(message.connector_id)
        if place is None:
            return False
        instrument = WHOLE_MARKET if isinstance(message.instrument, UnsetType) else message.instrument
        after = place.last.get(instrument)
        if after is None and message.seq > place.floor:
            after = place.floor
        elif after is None:
            if not self._snapshot and not place.owed:
                return False
        elif message.seq <= after:
            return False
        if not self._sampled and after is not None and message.prev_seq > max(after, place.announced):
            place.announced = message.prev_seq
            return Gap(message.connector_id, instrument, after, message.seq)
        place.last[instrument] = message.seq
        place.newest = max(place.newest, message.seq)
        return True

    def leave(self, channel: str) -> None:
        """Nothing of it is wanted any more."""
        self._places.pop(channel, None)
