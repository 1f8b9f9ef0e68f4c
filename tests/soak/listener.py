"""One session of a client, as it listens: each message is written down, and answers are matched with their commands."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
import trio

from tests.soak.book import Book
from tests.soak.record import Held, Joined, Keyframe, Lagged, Left, Refused, Session, Topic
from tests.soak.reference import shortest
from tests.soak.wire import Connection, EndedError


class Heard(msgspec.Struct):
    """What a client looks at of a server message, of whatever type."""

    type: str
    connector_id: str = ""
    instrument: str = ""
    seq: int = 0
    prev_seq: int = -1
    epoch: str = ""
    id: int | None = None
    channels: tuple[str, ...] = ()
    recovered: dict[str, bool] = {}
    missed: int | dict[str, int] = 0
    from_seq: int = 0
    to_seq: int = 0
    by_channel: dict[str, int] = {}
    code: int | str = ""
    message: str = ""
    reset: bool = False
    through: int = -1
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []

    @property
    def topic(self) -> Topic:
        """Of a data message."""
        return self.connector_id, self.instrument

    @property
    def is_keyframe(self) -> bool:
        """Whether it is a whole book for those who come late."""
        return self.type == "depth_snapshot" and not self.reset


class Asked(msgspec.Struct, kw_only=True):
    """A `subscribe` as it was sent. `since` is a position of this tape where `known`."""

    channels: tuple[str, ...]
    instruments: tuple[str, ...] | None = None
    interval_ms: int = 0
    snapshot: bool = True
    since: int | None = None
    known: bool = True
    honest: bool = False


_json: Final = msgspec.json.Decoder(Heard)
_msgpack: Final = msgspec.msgpack.Decoder(Heard)

_HARMLESS: Final = frozenset({"unknown_channel", "unknown_instrument"})
"""Errors that a well-behaved client may get: a filter that not every channel has."""

_HELD_EVERY: Final = 100
"""After so many changes of a book it is compared with the witness's, and at the end."""


class Listener:
    """Reads one connection and keeps its `Session`.

    Attributes:
        positions: Per channel that can be resumed soundly, the position up to which everything came.
        taken: The channels that are subscribed now, each with its `interval_ms`.
        touched: Those that were at any time of this session.
        epoch: Of the tape, as the daemon said it.
        naughty: Whether the client did something that may be held against it.
        closed_by_daemon: The close code, 0 without one; None while it is open, or the client ended it.
        newest: `seq` of the newest message that came in its turn: whatever is older has come, or never will.
        heard_s: When a message or an answer came last.
        counts: How many of each type of control message came.
    """

    def __init__(self, connection: Connection, session: Session, dice: random.Random) -> None:
        self.connection = connection
        self.session = session
        self.positions: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.touched: set[str] = set()
        self.epoch = ""
        self.naughty = False
        self.closed_by_daemon: int | None = None
        self.counts: dict[str, int] = {}
        self.newest = 0
        self.heard_s = trio.current_time()
        self._dice = dice
        self._sound: set[str] = set()
        self._channels: tuple[str, ...] = ()
        self._books: dict[Topic, Book] = {}
        self._changes = 0
        self._shown_to = 0
        self._whole_from: dict[str, int] = {}
        self._asked: dict[int, tuple[str, Asked | None]] = {}
        self._answered: set[int] = set()
        self._next_id = 1
        self._decode = (_json if connection.format == "json" else _msgpack).decode
        self._encode = (msgspec.json if connection.format == "json" else msgspec.msgpack).encode

    # ---- speaking ---------------------------------------------------------------------------------------------------

    async def subscribe(self, asked: Asked) -> None:
        """Send a `subscribe`. Raises: EndedError."""
        command: dict[str, Any] = {"channels": asked.channels}
        if asked.instruments is not None:
            command["instruments"] = asked.instruments
        if asked.interval_ms:
            command["interval_ms"] = asked.interval_ms
        if not asked.snapshot:
            command["snapshot"] = False
        if asked.since is not None:
            command["since"] = {"epoch": self.epoch if asked.known else "another", "seq": asked.since}
        await self._command("subscribe", command, asked)

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Send an `unsubscribe`. Raises: EndedError."""
        await self._command("unsubscribe", {"channels": channels}, None)

    async def ping(self) -> None:
        """Send a `ping` command. Raises: EndedError."""
        await self._command("ping", {"data": self._dice.random()}, None)

    async def _command(self, type_: str, fields: dict[str, Any], asked: Asked | None) -> None:
        number, self._next_id = self._next_id, self._next_id + 1
        self._asked[number] = (f"{type_} {fields}", asked)
        await self.connection.send_message(self._encode({"type": type_, **fields, "id": number}))

    # ---- listening --------------------------------------------------------------------------------------------------

    async def listen(self, for_s: float) -> None:
        """Read and write down for so long. Raises: EndedError."""
        with trio.move_on_after(for_s):
            await self._listen()

    async def listen_to_the_end(self, within_s: float) -> None:
        """Read until the connection ends, for so long at most."""
        with trio.move_on_after(within_s):
            try:
                await self._listen()
            except EndedError:
                return

    async def _listen(self) -> None:
        while True:
            try:
                payloads = await self.connection.receive()
            except EndedError as end:
                self.closed_by_daemon = end.code
                raise
            for payload in payloads:
                self._hear(payload)

    async def wait_welcome(self, within_s: float) -> None:
        """Read until the first message has come. Raises: EndedError."""
        with trio.move_on_after(within_s):
            while not self.counts:
                for payload in await self.connection.receive():
                    self._hear(payload)
            return
        raise EndedError(0, "no welcome")

    def unanswered(self) -> tuple[str, ...]:
        """The commands that have had no answer yet."""
        return tuple(text for number, (text, _) in self._asked.items() if number not in self._answered)

    def _hear(self, payload: bytes) -> None:
        try:
            heard = self._decode(payload)
        except msgspec.DecodeError as error:
            self.session.remarks.append(f"{len(payload)} bytes that are no message: {error}")
            raise EndedError(0, "what came cannot be read") from None
        if heard.prev_seq >= 0:
            self.data(heard, payload)
            return
        if heard.connector_id:
            # Whoever looks for it takes `data` apart.
            self.session.remarks.append(f"{heard.type} has a connector_id and is no data")
        self.counts[heard.type] = self.counts.get(heard.type, 0) + 1
        if heard.id is not None:
            self.heard_s = trio.current_time()
        match heard.type:
            case "welcome":
                self.epoch, self._channels = heard.epoch, heard.channels
            case "subscribed":
                self._joined(heard)
            case "unsubscribed":
                self._asked.pop(heard.id or 0, None)
                self.session.mark(Left(heard.channels))
                for channel in heard.channels:
                    self._forget(channel)
                    self._forget_books(channel)
                    self.taken.pop(channel, None)
            case "lagged":
                assert isinstance(heard.missed, int)
                self.session.mark(Lagged(heard.missed, heard.from_seq, heard.to_seq, heard.by_channel))
                self._shown_to = max(self._shown_to, heard.to_seq)
                for channel in heard.by_channel or self.taken:
                    self._whole_from[channel] = heard.to_seq
            case "pong":
                self._asked.pop(heard.id or 0, None)
            case "error":
                self._refused(heard)
            case _:
                pass

    def data(self, heard: Heard, payload: bytes) -> None:
        """A data message."""
        channel, topic = heard.connector_id, heard.topic
        self.heard_s = trio.current_time()
        if heard.seq > self._shown_to:
            # What is older may have been sent before its turn.
            self.newest = heard.seq
        if heard.type in ("depth_snapshot", "depth_update"):
            self._rebuild(topic, heard)
        if heard.is_keyframe:
            book = self._books[topic]
            self.session.mark(Keyframe(topic, heard.seq, heard.prev_seq, heard.through, book.digest))
            return
        if self.connection.format == "msgpack":
            payload = shortest(payload)
        self.session.got(topic, heard.seq, heard.prev_seq, hash(payload))
        if channel in self._sound:
            if topic not in self._books or heard.seq > self._whole_from.get(channel, 0):
                self.positions[channel] = heard.seq
            else:
                # Whoever leaves in the midst of what a book begins with has not had it.
                self.positions.pop(channel, None)

    def _rebuild(self, topic: Topic, heard: Heard) -> None:
        """Apply a message to the topic's book."""
        book = self._books.setdefault(topic, Book())
        if heard.type == "depth_snapshot":
            book.begin(heard.through if heard.is_keyframe else heard.seq, heard.bids, heard.asks)
        elif book.change(heard.seq, heard.prev_seq, heard.bids, heard.asks):
            self._changes += 1
            if self._changes % _HELD_EVERY == 0:
                self._hold(topic, book)

    def hold(self) -> None:
        """Write down all books as they are now."""
        for topic, book in self._books.items():
            self._hold(topic, book)

    def _hold(self, topic: Topic, book: Book) -> None:
        if book.seq is not None:
            self.session.mark(Held(topic, book.seq, book.digest))

    def _forget_books(self, channel: str) -> None:
        for topic in [topic for topic in self._books if topic[0] == channel]:
            del self._books[topic]

    def _joined(self, heard: Heard) -> None:
        _, asked = self._asked.pop(heard.id or 0, ("", None))
        if asked is None:
            self.session.remarks.append(f"subscribed to {heard.channels} without having asked")
            return
        missed = heard.missed if isinstance(heard.missed, dict) else {}
        self.session.mark(
            Joined(
                channels=heard.channels,
                seq=heard.seq,
                instruments=asked.instruments,
                interval_ms=asked.interval_ms,
                snapshot=asked.snapshot,
                since=asked.since,
                known=asked.known,
                honest=asked.honest,
                recovered=heard.recovered,
                missed=missed,
                asked=self._named(asked),
                id=heard.id or 0,
            )
        )
        if asked.since is not None:
            self._shown_to = max(self._shown_to, heard.seq)
        for channel in heard.channels:
            resumed = asked.since is None or (asked.honest and heard.recovered.get(channel, False))
            sound = channel not in self.taken and not asked.interval_ms and resumed
            self._forget(channel)
            # Up to here a book that begins is not whole yet. Where it goes on, all comes in the order of `seq`.
            self._whole_from[channel] = heard.seq if asked.since is None else asked.since
            self.taken[channel] = asked.interval_ms
            self.touched.add(channel)
            if sound:
                # From here on its messages come in the order of `seq`, over all its topics.
                self._sound.add(channel)
                if asked.since is not None:
                    self.positions[channel] = asked.since

    def _named(self, asked: Asked) -> tuple[str, ...]:
        return self._channels if "*" in asked.channels else asked.channels

    def _forget(self, channel: str) -> None:
        self._sound.discard(channel)
        self.positions.pop(channel, None)

    def _refused(self, heard: Heard) -> None:
        if heard.id is not None:
            # Where a part of the command took effect, `subscribed` follows.
            self._answered.add(heard.id)
        if heard.code in _HARMLESS:
            return
        _, asked = self._asked.get(heard.id or 0, ("", None))
        if heard.code == "interval_refused" and asked is not None:
            # Whether that is right the judge says.
            self.session.mark(
                Refused(
                    channels=heard.channels,
                    asked=self._named(asked),
                    instruments=asked.instruments,
                    interval_ms=asked.interval_ms,
                    id=heard.id or 0,
                )
            )
            return
        if heard.code == "internal" or not self.naughty:
            self.session.remarks.append(f"error {heard.code}: {heard.message[:200]}")


Add: TypeAlias = Callable[[Topic, int, int, bytes], None]
"""Takes a message: topic, `seq`, `prev_seq`, payload."""

Begin: TypeAlias = Callable[[Topic, int, bytes], None]
"""Takes a keyframe: topic, `through`, payload."""


class Witness(Listener):
    """Listens to one whole channel, and hands what it hears to the reference."""

    def __init__(self, connection: Connection, session: Session, dice: random.Random, add: Add, begin: Begin) -> None:
        super().__init__(connection, session, dice)
        self._add = add
        self._begin = begin

    def data(self, heard: Heard, payload: bytes) -> None:
        """A data message."""
        if heard.is_keyframe:
            self._begin(heard.topic, heard.through, payload)
        else:
            self._add(heard.topic, heard.seq, heard.prev_seq, payload)
        super().data(heard, payload)
