"""The sequencer: gives every event its place in the one order of all messages.

One *pass* takes what the connectors have sent, gives each event the next `seq`, encodes it once, appends it to the tape
and hands the new entries to the bus. The sequencer knows no clients. A pass has no checkpoint: nothing else can run in
the middle of it.

Between two passes it *rests* in proportion to the time that the last pass took, the fan-out included. The first message
after a pause leaves at once. Under load the batches grow by themselves, so the cost per delivery falls as the load
rises, and the other tasks (new clients, commands, health checks) keep their share of the event loop under any load.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
import trio
from msgspec import UNSET, Meta, Raw

from connectors.base import Event, StateChange
from connectors.metric import Histogram, Samples
from daemon.health.board import Board, Condition, TopicVerdict, Verdict, status
from daemon.host.clock import WallClock
from daemon.ingest.inbox import Item, TopicNotes, Turn
from daemon.publish.bus import Appended, Bus
from daemon.publish.consolidated import Consolidated, Derived
from daemon.publish.keyframes import Keyframes
from daemon.tape.entry import keyframe_topic, subject
from daemon.tape.ledger import Ledger
from daemon.tape.tape import NOTICE, STATUS, Entry, Tape, Topic
from protocol.channels import WHOLE_MARKET, Catalogue, Channel
from protocol.fields import SnapshotFields
from protocol.kinds import TopicState
from protocol.messages import Test, encode, number

_HAND_OVER_BYTES: Final = 64 * 1024
"""A long pass is handed over in parts of this size: about what a socket takes at once, so that a burst alone does not
make a fast client fall behind."""

_PASS_S: Final = 0.02
"""A pass that has lasted this long takes no further items: they go into the next pass, after a rest."""

_BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Bounds for how many events a pass takes."""

_PASS_BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds for how long a pass lasts, in seconds."""

_KEYFRAMES_S: Final = 0.002
"""So long a pass may make keyframes when all messages are on their way."""

_REFUSED: Final = "messages of an unknown channel, or with a price that is no number"

_REMOVED: Final = "taken out of the configuration"


class Passes(msgspec.Struct, frozen=True):
    """`[hub]`: how passes are sized and spaced.

    Attributes:
        batch_events: a pass that has this many events takes no more (one send of a connector is never split).
        rest_ratio: the rest after a pass, as a fraction of the pass's duration; in a worker twice that.
        rest_max_ms: the longest rest.
        inbox_batches: sends of connectors that may wait for the sequencer; beyond this the connectors wait.
    """

    batch_events: Annotated[int, Meta(ge=1, le=65_536)] = 512
    rest_ratio: Annotated[float, Meta(ge=0, le=10)] = 0.5
    rest_max_ms: Annotated[float, Meta(ge=0, le=1000)] = 100.0
    inbox_batches: Annotated[int, Meta(ge=1, le=65_536)] = 64

    def rest_s(self, took_s: float) -> float:
        """The rest after a pass that took so long."""
        return min(took_s * self.rest_ratio, self.rest_max_ms / 1000)


class Sequencer:
    """The only component that appends to the tape. Owned by one task (`run`).

    Attributes:
        passes: how passes are spaced; a reload sets it.
        held_s: how long a rest has to be at least, because all who follow the tape elsewhere are behind.
        events: events that went onto the tape.
        refused: events of an unknown channel, or with a price that is no number.
        batches: how many events and changes of state each pass took.
        passes_s: how long each pass lasted.
    """

    def __init__(self, tape: Tape, board: Board, ledger: Ledger, clock: WallClock, bus: Bus, passes: Passes) -> None:
        self.passes = passes
        self.held_s: Callable[[], float] = lambda: 0.0
        self.events = self.refused = 0
        self.batches = Histogram(_BATCH_BOUNDS)
        self.passes_s = Histogram(_PASS_BOUNDS_S)
        self._tape = tape
        self._board = board
        self._ledger = ledger
        self._clock = clock
        self._bus = bus
        self._consolidated = Consolidated(board)
        self._keyframes = Keyframes(tape, self._keyframe)
        self._keyframes.adopt(board.catalogue)
        self._before = 0
        self._entries: list[Entry] = []
        self._received_ms: list[int] = []
        self._bytes = 0

    async def run(
        self, inbox: trio.MemoryReceiveChannel[Item], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Publish what the connectors send, until the memory channel ends or this is cancelled.

        If cancelled, every item taken out of the memory channel is on the tape and handed over.
        """
        self._begin()
        task_status.started()
        rested_s = -math.inf
        async for item in inbox:
            try:
                if trio.current_time() < rested_s:
                    await trio.sleep_until(rested_s)
            except trio.Cancelled:
                self.publish([item])
                raise
            began_s = time.perf_counter()
            events = self._pass(item, inbox, began_s + _PASS_S)
            took_s = time.perf_counter() - began_s
            self.batches.add(events)
            self.passes_s.add(took_s)
            rested_s = trio.current_time() + max(self.passes.rest_s(took_s), self.held_s())

    def _pass(self, item: Item, inbox: trio.MemoryReceiveChannel[Item], until_s: float) -> int:
        """Publish this item and others that are ready, up to the bounds. Returns the number of events.

        The clock is read only after a hand-over, because the fan-out takes most of the time.
        """
        now_ms = self._clock.now_ms()
        timestamp = self._clock.stamp(now_ms)
        events = 0
        while True:
            handed_over = self._publish(item, now_ms, timestamp)
            events += len(item) if isinstance(item, Sequence) else 1
            if events >= self.passes.batch_events or (handed_over and time.perf_counter() >= until_s):
                break
            try:
                item = inbox.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        self._hand_over()
        if self._keyframes.due:
            self._make_keyframes(now_ms)
        return events

    def publish(self, batch: Sequence[Item | Verdict | TopicVerdict]) -> None:
        """One pass: put the whole batch on the tape, and hand it to the followers."""
        now_ms = self._clock.now_ms()
        timestamp = self._clock.stamp(now_ms)
        for item in batch:
            self._publish(item, now_ms, timestamp)
        self._hand_over()
        if self._keyframes.due:
            self._make_keyframes(now_ms)

    def play(self, moments: Sequence[tuple[int, Item]]) -> None:
        """One pass over what was recorded: each item is taken at its own moment, ms since 1970.

        So what is made of it does not depend on which items are in one pass.
        """
        stamp, timestamp = self._clock.stamp, ""
        for now_ms, item in moments:
            timestamp = timestamp or stamp(now_ms)
            if type(item) is list:
                for event in item:
                    self._take(event, now_ms, timestamp)
                if self._bytes >= _HAND_OVER_BYTES:
                    self._hand_over()
                    timestamp = ""
            elif self._publish(item, now_ms, timestamp):
                timestamp = ""
        self._hand_over()
        if moments and self._keyframes.due:
            self._make_keyframes(moments[-1][0])

    def _publish(self, item: Item | Verdict | TopicVerdict, now_ms: int, timestamp: str) -> bool:
        """Append an item. Returns whether a part was handed over already; the caller hands over the rest."""
        handed_over = False
        if isinstance(item, StateChange | Verdict | TopicVerdict):
            if (state := self._board.apply(item, now_ms)) is not None:
                self._ledger.channel(item.channel, self._board.state(item.channel), now_ms)
                payload = encode(status(item.channel, state, self._clock, timestamp))
                self._append((item.channel, STATUS), payload, 0)
                self._ledger.topics(item.channel, self._board.lacking(item.channel), now_ms)
                self._derive(self._consolidated.changed(item.channel, now_ms), now_ms, timestamp)
        elif isinstance(item, TopicNotes):
            for note in item.notes:
                verdict = self._board.note(note)
                if note.cause in ("unreadable", "gap"):
                    named = f"{note.instrument}: {note.reason}" if note.instrument else note.reason
                    self._ledger.note(note.cause, note.channel, now_ms, count=note.count, reason=named)
                if verdict is not None:
                    self._publish(verdict, now_ms, timestamp)
        elif isinstance(item, Turn):
            self._hand_over()
            item.act()
        else:
            for event in item:
                self._take(event, now_ms, timestamp)
                if self._bytes >= _HAND_OVER_BYTES:
                    self._hand_over()
                    handed_over = True
        return handed_over

    def _derive(self, derived: Sequence[Derived], now_ms: int, timestamp: str) -> None:
        """Publish what follows from something else that was published."""
        for item in derived:
            if isinstance(item, Event):
                self._take(item, now_ms, timestamp)
            else:
                self._publish(item, now_ms, timestamp)

    def tell(self, topic: Topic, payload: bytes) -> None:
        """Put a message that is not data on the tape, and hand it over at once."""
        self._append(topic, payload, 0)
        self._hand_over()

    def broadcast_test(self, message: str) -> None:
        """Send a `test` message to every client."""
        self.tell(NOTICE, encode(Test(timestamp=self._clock.timestamp(), message=message)))

    def adopt(self, catalogue: Catalogue) -> None:
        """Replace the catalogue, the board's channels, and the topics that the tape shows. Sync.

        A removed channel is reported `down` once, and is silent from then on; so is an instrument that is taken out of
        a channel, by name. Call this when the connectors of all changed channels have ended and all that they sent is
        published.
        """
        now_ms = self._clock.now_ms()
        before = self._board.catalogue
        removed = [channel.name for channel in before if channel.name not in catalogue]
        self._consolidated.leave(removed)
        self.publish([StateChange(name, "down", _REMOVED) for name in removed])
        for name in removed:
            self._ledger.close(name, now_ms)
        self.publish(
            [verdict for channel in catalogue if (verdict := self._taken_out(before.get(channel.name), channel))]
        )
        changed = {channel.name for channel in catalogue if before.get(channel.name) != channel}
        self._board.adopt(catalogue, changed, now_ms)
        self._tape.forget(known_topics(catalogue))
        self._keyframes.adopt(catalogue)
        self._begin()

    def _taken_out(self, before: Channel | None, channel: Channel) -> TopicVerdict | None:
        """What is told of the instruments that the channel has no more; None where there are none."""
        gone = [] if before is None else [name for name in before.instruments if name not in channel.instruments]
        if not gone:
            return None
        told = Condition("down", "refused", _REMOVED)
        return TopicVerdict(channel.name, self._board.conditions(channel.name) | dict.fromkeys(gone, told))

    def _begin(self) -> None:
        """Say at once what the catalogue's channels make of each other."""
        now_ms = self._clock.now_ms()
        self._derive(self._consolidated.begin(now_ms), now_ms, self._clock.stamp(now_ms))
        self._hand_over()

    def _take(self, event: Event, now_ms: int, timestamp: str) -> None:
        """Make a message of an event, and put it on the tape.

        An event of an unknown channel, or with a price that is no number, is refused and counted: one connector's fault
        must not end the fan-out for all.
        """
        topic, channel = (event.channel, event.instrument), self._board.catalogue.get(event.channel)
        try:
            place = self._tape.head + 1, self._tape.last_seq(topic)
            payload = b"" if channel is None else message(event, channel, timestamp, *place)
        except ValueError:
            payload = b""
        if not payload:
            self.refused += 1
            self._ledger.note("refused", event.channel, self._clock.now_ms(), reason=_REFUSED)
            return
        self.events += 1
        self._board.saw(event)
        # What is made of others may be about something older.
        late = event.cached or (channel is not None and channel.kind.made_of)
        entry = self._append(topic, payload, 0 if late else event.received_ms)
        if channel is not None and channel.kind.state is TopicState.DELTA:
            self._keyframes.took(topic, event, entry, now_ms)
        if self._board.gaps and topic in self._board.gaps:
            self._publish(self._board.whole(*topic), now_ms, timestamp)
        if derived := self._consolidated.took(event, now_ms):
            self._derive(derived, now_ms, timestamp)

    def _append(self, topic: Topic, payload: bytes, received_ms: int) -> Entry:
        if not self._entries:
            self._before = self._tape.head
        entry = self._tape.append(topic, payload)
        self._entries.append(entry)
        self._received_ms.append(received_ms)
        self._bytes += len(payload)
        return entry

    def _make_keyframes(self, now_ms: int) -> None:
        """Make some of the keyframes that are due, or parts of them: one, and more while there is time."""
        due, until_s = self._keyframes.due, time.perf_counter() + _KEYFRAMES_S
        for topic in tuple(due):
            if self._keyframes.prepare(topic):
                self._keyframes.make(topic, now_ms)
            if time.perf_counter() >= until_s:
                break

    def _keyframe(self, event: Event, after: int) -> Entry:
        """Put a keyframe on the tape, at the end of a pass or while somebody waits for it."""
        topic, timestamp = (event.channel, event.instrument), self._clock.timestamp()
        payload = message(event, self._board.catalogue[event.channel], timestamp, self._tape.head + 1, after)
        entry = self._append(keyframe_topic(topic), payload, 0)
        self._hand_over()
        return entry

    def _hand_over(self) -> None:
        """Hand the entries appended since the last hand-over to the bus."""
        if self._entries:
            appended = Appended(self._before, self._entries, self._received_ms)
            self._entries, self._received_ms, self._bytes = [], [], 0
            self._bus.hand_over(appended)

    def measure(self, samples: Samples) -> None:
        """Add how many events the passes took, and how long they lasted."""
        samples.count("tickerd_events", "Events that went onto the tape.", self.events)
        refused = "Events of no channel, or with a price that is no number."
        samples.count("tickerd_events_refused", refused, self.refused)
        samples.count("tickerd_keyframes", "Whole books put on the tape for late comers.", self._keyframes.made)
        samples.histogram("tickerd_batch_events", "Events that the hub took in one turn.", self.batches)
        samples.histogram("tickerd_turn_seconds", "How long such a turn was at work.", self.passes_s)


def message(event: Event, channel: Channel, timestamp: str, seq: int, prev_seq: int) -> bytes:
    """An event as the JSON message that clients get. `prev_seq` is the `seq` of the topic's previous message.

    Raises:
        ValueError: its price is no number; it has not what messages of its channel have.
    """
    kind, fields = channel.kind, event.fields
    struct = kind.snapshot if kind.snapshot is not None and isinstance(fields, SnapshotFields) else kind.message
    own: dict[str, Any] = {} if fields is None else msgspec.structs.asdict(fields)
    try:
        return encode(
            struct(
                connector_id=event.channel,
                exchange=channel.exchange,
                instrument=event.instrument or UNSET,
                price=number(event.price) if event.price else UNSET,
                timestamp=timestamp,
                seq=seq,
                prev_seq=prev_seq,
                exchange_ms=UNSET if event.exchange_ms is None else event.exchange_ms,
                received_ms=event.received_ms,
                cached=event.cached,
                data=Raw(event.data),
                **own,
            )
        )
    except TypeError as error:
        raise ValueError(f"not a message of {channel.name}: {error}") from None


def known_topics(catalogue: Catalogue) -> Callable[[Topic], bool]:
    """A function that says whether a topic exists under this catalogue."""

    def known(topic: Topic) -> bool:
        channel = catalogue.get(topic[0])
        if channel is not None and channel.kind.state is TopicState.DELTA:
            topic = subject(topic)
        return topic == NOTICE or (channel is not None and topic[1] in (*channel.instruments, WHOLE_MARKET, STATUS))

    return known
