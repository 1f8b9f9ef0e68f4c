"""What a node that stands by remembers of the venues, to go on where the leader's last message was.

With `[cluster] standby = "warm"` its connections to the venues are open, and what they say is kept here instead of
being published: the trades of the last seconds, the newest of everything else, and the books. When the node takes over,
what the tape lacks of that is published first, and then what comes.

* A trade is on the tape if one with its id is; where a venue gives no ids, if one with the same data is.
* Of what only the newest counts, the newest is published if the venue made it later than the one on the tape.
* A book is published whole (`reset`), as it is after the last change that came; the next change follows it.

Sync and pure but for `run`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec
import trio

from connectors.base import Event, StateChange
from daemon.ingest.inbox import Item, TopicNotes, Turn
from daemon.publish.side import Side
from daemon.tape.tape import Tape, Topic
from protocol.channels import Catalogue
from protocol.fields import CandleFields, DepthFields, SnapshotFields, TradeFields
from protocol.kinds import TopicState

_MOST_EVENTS: Final = 100_000
"""So many trades are remembered at most, of all topics; more come in so short a time only where something is wrong."""


class _Told(msgspec.Struct):
    """What is looked at of a message on the tape."""

    seq: int = 0
    trade_id: str = ""
    exchange_ms: int | None = None
    received_ms: int = 0
    data: msgspec.Raw = msgspec.Raw(b"")


_told: Final = msgspec.json.Decoder(_Told)


class _Book:
    """A book, and the last event that changed it."""

    def __init__(self, fields: SnapshotFields, event: Event) -> None:
        """Raises: ValueError: the levels cannot be read."""
        self.bids = Side(fields.bids, best_is_highest=True)
        self.asks = Side(fields.asks, best_is_highest=False)
        self.event = event

    def whole(self) -> Event:
        """The event that begins it anew."""
        return msgspec.structs.replace(self.event, fields=SnapshotFields(self.bids.write(), self.asks.write()))


class Remembered:
    """What the connectors of a node that stands by have said."""

    def __init__(self, catalogue: Catalogue, keep_s: float) -> None:
        """`keep_s`: so long a trade is remembered; longer than a leader can be gone before this node takes over."""
        self._catalogue = catalogue
        self._keep_ms = int(keep_s * 1000)
        self._states: dict[str, StateChange] = {}
        self._every: deque[Event] = deque()
        self._newest: dict[tuple[Topic, int], Event] = {}
        self._books: dict[Topic, _Book] = {}

    async def run(self, outbox: trio.MemoryReceiveChannel[Item]) -> None:
        """Remember what comes, until cancelled; what is still in the memory channel then has not been taken."""
        async for item in outbox:
            self.take(item)

    def take(self, item: Item) -> None:
        """Remember one send of a connector."""
        if isinstance(item, StateChange):
            self._states[item.channel] = item
            if item.state not in ("live", "connecting"):
                self._forget(item.channel)
        elif isinstance(item, TopicNotes):
            for note in item.notes:
                if note.cause == "gap" and not note.partial:
                    self._books.pop((note.channel, note.instrument), None)
        elif isinstance(item, Turn):
            item.act()
        else:
            for event in item:
                self._take(event)

    def _forget(self, channel: str) -> None:
        """The channel has no link to the venue: its books are not those of the venue any more."""
        self._books = {topic: book for topic, book in self._books.items() if topic[0] != channel}

    def _take(self, event: Event) -> None:
        channel, topic = self._catalogue.get(event.channel), (event.channel, event.instrument)
        if channel is None:
            return
        if channel.kind.state is TopicState.DELTA:
            try:
                self._change(topic, event)
            except (KeyError, ValueError, OverflowError):  # changes of a book that nobody has, or that cannot be read
                self._books.pop(topic, None)
        elif channel.kind.state is TopicState.EVERY:
            if not event.past:
                self._every.append(event)
                while self._every and (
                    self._every[0].received_ms < event.received_ms - self._keep_ms or len(self._every) > _MOST_EVENTS
                ):
                    self._every.popleft()
        else:
            start_ms = event.fields.start_ms if isinstance(event.fields, CandleFields) else 0
            self._newest[topic, start_ms] = event
            if start_ms and len(self._newest) > _MOST_EVENTS:
                del self._newest[next(iter(self._newest))]

    def _change(self, topic: Topic, event: Event) -> None:
        fields = event.fields
        if isinstance(fields, SnapshotFields):
            self._books[topic] = _Book(fields, event)
        elif isinstance(fields, DepthFields):
            book = self._books[topic]
            book.bids.change(fields.bids)
            book.asks.change(fields.asks)
            book.event = event

    def rest(self, tape: Tape) -> list[Item]:
        """What is to be published first when this node takes over with that tape, in order."""
        states: list[Item] = list(self._states.values())
        events = [*self._missing_trades(tape), *self._newer(tape), *(book.whole() for book in self._books.values())]
        return [*states, *([event] for event in events)]

    def _missing_trades(self, tape: Tape) -> Iterator[Event]:
        on_tape: dict[str, set[tuple[str, str | bytes]]] = {}
        for event in self._every:
            if event.channel not in on_tape:
                on_tape[event.channel] = self._known(tape, event.channel)
            if (event.instrument, _identity(event)) not in on_tape[event.channel]:
                yield event

    def _known(self, tape: Tape, channel: str) -> set[tuple[str, str | bytes]]:
        """The trades of a channel that are on the tape, as far back as any that is remembered."""
        known: set[tuple[str, str | bytes]] = set()
        oldest_ms = self._every[0].received_ms - 2 * self._keep_ms if self._every else 0
        for entry in reversed(tape.known(channel)):
            if not entry.data:
                continue
            told = _told.decode(entry.payload)
            if told.received_ms < oldest_ms:
                break
            known.add((entry.topic[1], told.trade_id or bytes(told.data)))
        return known

    def _newer(self, tape: Tape) -> Iterator[Event]:
        newest: dict[Topic, _Told] = {}
        for (topic, _), event in sorted(self._newest.items(), key=lambda each: each[1].received_ms):
            if topic not in newest:
                payload = tape.payload(*topic)
                newest[topic] = _Told() if payload is None else _told.decode(payload)
            told = newest[topic]
            if event.exchange_ms is not None and told.exchange_ms is not None:
                if event.exchange_ms > told.exchange_ms:
                    yield event
            elif event.received_ms > told.received_ms:
                yield event


def _identity(event: Event) -> str | bytes:
    """What tells a trade from others of its topic."""
    return event.fields.trade_id or event.data if isinstance(event.fields, TradeFields) else event.data
