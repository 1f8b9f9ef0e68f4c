"""A client's end that takes as many bytes as a test lets it, and a hub to go with it."""

import math
from collections.abc import Sequence

import msgspec
import trio

from connectors.base import Event
from daemon.fanout.hub import Hub
from daemon.fanout.joining import Joining
from daemon.fanout.subscriber import State, Subscriber
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish.bus import Bus
from daemon.publish.sequencer import Passes, Sequencer
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.channels import Catalogue, Channel
from protocol.kinds import KINDS
from protocol.messages import Data, Format, Message, Position, Subscribe, Unsubscribe, decode_message
from protocol.session import CommandLimits, Join, Leave, Session

START_MS = 1_765_211_445_123
CATALOGUE = Catalogue(
    [
        Channel(name="a", exchange="binance", kind=KINDS["prices"], instruments=("X/U", "Y/U")),
        Channel(name="b", exchange="okx", kind=KINDS["ticker"], instruments=("X/U",)),
    ]
)


RECORD_BYTES = 60
"""Less than any message, so that one always needs several records."""


class FakeSink:
    """What `Subscriber` asks of a `Sink`, with room for so many bytes; `taken` is what the client has got.

    Over TLS a record that the socket does not take whole is taken all the same, and its rest is pending.
    """

    def __init__(self, fd: int, room: float = math.inf, *, tls: bool = False) -> None:
        self.fd = fd
        self.tls = tls
        self.room = room
        self.pending: list[bytes | memoryview] = []
        self.taken = b""
        self.stalls = 0
        self.full = False
        self.subscriber: Subscriber | None = None
        self.hub: Hub | None = None

    def post(self, data: bytes) -> None:
        if self.pending:
            self.pending.append(data)
            return
        written = self.write_now(data)
        if written < len(data):
            self.pending.append(data[written:])
        if self.pending and self.hub is not None and self.subscriber is not None:
            self.hub.blocked(self.subscriber)

    def write_now(self, data: bytes) -> int:
        if not self.tls:
            return self._take(data) if not self.pending else 0
        done = 0
        while done < len(data) and not self.pending:
            record = data[done : done + RECORD_BYTES]
            if (taken := self._take(record)) < len(record):
                self.pending.append(record[taken:])
            done += len(record)
        return done

    def _take(self, data: bytes) -> int:
        taken = int(min(self.room, len(data)))
        self.room -= taken
        self.taken += data[:taken]
        return taken

    def settle(self, frames: Sequence[bytes], written: int) -> int:
        for done, frame in enumerate(frames):
            if written < len(frame):
                if written:
                    self.pending.append(frame[written:])
                return done + bool(written)
            written -= len(frame)
        return len(frames)

    def stalled(self) -> None:
        self.stalls += 1

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()
        self.flush_now()

    def flush_now(self) -> None:
        while self.pending:
            self.taken += bytes(self.pending.pop(0))


class Client:
    """One client of a `Fan`."""

    def __init__(self, fan: "Fan", sink: FakeSink, format: Format) -> None:
        self.fan = fan
        self.sink = sink
        self.woken = 0
        self.subscriber = Subscriber(format, sink, self._wake)
        self.session = Session(
            fan.board.catalogue,
            format,
            CommandLimits(commands_per_s=1000, commands_burst=1000, channels_per_command=64, errors_in_a_row=20),
            0.0,
        )
        sink.subscriber, sink.hub = self.subscriber, fan.hub

    def _wake(self) -> None:
        self.woken += 1

    def subscribe(
        self,
        *channels: str,
        instruments: list[str] | None = None,
        interval_ms: int | None = None,
        snapshot: bool = True,
        since: Position | None = None,
    ) -> None:
        self._command(Subscribe(list(channels), instruments, interval_ms, snapshot, since, 1))

    def unsubscribe(self, *channels: str) -> None:
        self._command(Unsubscribe(list(channels), 1))

    def _command(self, command: Subscribe | Unsubscribe) -> None:
        packs = self.subscriber.format is Format.MSGPACK
        raw = msgspec.msgpack.encode(command) if packs else msgspec.json.encode(command).decode()
        for effect in self.session.receive(raw, 0.0, "2025-12-08T16:30:45.123Z"):
            if isinstance(effect, Join):
                self.fan.joining.join(self.subscriber, self.session, effect)
            elif isinstance(effect, Leave):
                self.fan.joining.leave(self.subscriber, self.session, effect)

    def catch_up(self) -> None:
        """Its socket takes everything again."""
        self.sink.room = math.inf
        self.sink.flush_now()
        while self.subscriber.state is State.BEHIND:
            self.fan.hub.advance(self.subscriber)
            self.sink.flush_now()

    def messages(self) -> list[Message]:
        """What has come since the last call."""
        found, data = [], self.sink.taken
        while data:
            start = {126: 4, 127: 10}.get(data[1], 2)
            size = data[1] if start == 2 else int.from_bytes(data[2:start], "big")
            found.append(decode_message(data[start : start + size], self.subscriber.format))
            data = data[start + size :]
        self.sink.taken = b""
        return found

    def seqs(self) -> list[int]:
        """The positions of the data messages that have come since the last call."""
        return [message.seq for message in self.messages() if isinstance(message, Data)]


class Fan:
    """A hub over a tape of that size, and clients on demand."""

    def __init__(
        self,
        max_entries: int = 100,
        max_bytes: int = 10**6,
        tape: Tape | None = None,
        catalogue: Catalogue = CATALOGUE,
    ) -> None:
        self.tape = Tape(max_entries, max_bytes, epoch="k3v") if tape is None else tape
        self.now_ms = START_MS
        self.clock = wall = WallClock(lambda: self.now_ms * 1_000_000)
        self.board = Board(catalogue, START_MS)
        self.ledger = Ledger()
        self.bus = bus = Bus()
        self.sequencer = Sequencer(self.tape, self.board, self.ledger, wall, bus, Passes(batch_events=256))
        self.hub = Hub(self.tape, self.ledger, wall, self._write)
        bus.add(self.hub)
        self.joining = Joining(self.tape, self.hub, self.board, self.ledger, wall)
        self.writes: list[int] = []
        self._sinks: dict[int, FakeSink] = {}

    def _write(self, fd: int, data: bytes) -> int:
        self.writes.append(fd)
        assert not self._sinks[fd].pending
        written = self._sinks[fd].write_now(data)
        if not written:
            raise BlockingIOError
        return written

    def connect(self, format: Format = Format.JSON, *, room: float = math.inf, tls: bool = False) -> Client:
        sink = FakeSink(-1 if tls else len(self._sinks) + 10, room, tls=tls)
        if not tls:
            self._sinks[sink.fd] = sink
        client = Client(self, sink, format)
        self.hub.attach(client.subscriber)
        return client

    def publish(self, *topics: tuple[str, str]) -> None:
        """One message on each of these topics, in one pass."""
        self.sequencer.publish(
            [[Event(*topic, data=b'{"n":1}', received_ms=START_MS, price="1.50") for topic in topics]]
        )
