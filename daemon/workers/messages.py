"""What the parent and a worker tell each other: one union of Structs down, one up; and how they travel.

A frame is its length (4 bytes, big-endian, of what follows), one byte that says what it is, and that:

    P   a part of the tape (`daemon.publish.parts`), as the outlet encoded it once for all workers
    M   a message of one of the unions, as MessagePack

Down, messages come in order with the parts. Both ends are of the same program and the same start, so nothing here has
to be read by another version.

Sync and pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from connectors.poll.past_candles import Past
from daemon.config.load import ServingConfig
from daemon.front.certificate import Pair
from daemon.publish.parts import Beginning
from daemon.publish.replica import Noted
from protocol.messages import ServerInfo

_HEAD: Final = struct.Struct("!IB")
PART: Final = ord("P")
MESSAGE: Final = ord("M")

MOST_BYTES: Final = 2**30
"""A longer frame is none of ours."""


# ---- down ----


class Told(msgspec.Struct, frozen=True, tag="told"):
    """What a worker has to know of its parent, from now on.

    Attributes:
        unstored, unrecorded, not_reloaded, unreached: what there is to say in `/readyz`
            (`daemon.composition.serving.Remarks`).
        past: the venues that can be asked for past candles.
        cut_off: why the parent does not hear how the channels are; "" if it does.
    """

    unstored: str = ""
    unrecorded: str = ""
    not_reloaded: str = ""
    unreached: str = ""
    past: tuple[str, ...] = ()
    cut_off: str = ""


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first message: who the worker is, and what it has inherited.

    Attributes:
        worker: its number, from 1.
        server: who we are, as clients are told it.
        config: the configuration, as far as it concerns a worker.
        pair: the certificate and key, as the parent has read them.
        guarded: whether a token was needed before.
        listeners: descriptors of listening sockets.
        lifeline: the descriptor of a pipe that ends with the parent.
        counts: the descriptor of the memory in which clients are counted.
        processes, rows: how large that is (`daemon.front.shared_counts`).
        is_shared: whether the tape is that of a cluster: then no canary comes with it.
        told: what there is to know of the parent at first.
    """

    worker: int
    server: ServerInfo
    config: ServingConfig
    pair: Pair | None
    guarded: bool
    listeners: tuple[int, ...]
    lifeline: int
    counts: int
    processes: int
    rows: int
    is_shared: bool
    told: Told


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Where the tape begins. The parts up to `Filled` are what stands on it already; then come new ones."""

    beginning: Beginning


class Filled(msgspec.Struct, frozen=True, tag="filled"):
    """All of that was sent: let clients in."""


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """A new configuration; `pair`: its certificate and key. Its catalogue has come with a part."""

    config: ServingConfig
    pair: Pair | None


class Look(msgspec.Struct, frozen=True, tag="look"):
    """A canary of that number was put on the tape, or is to be made now: say `Seen` when it came through."""

    number: int


class CloseDoor(msgspec.Struct, frozen=True, tag="close_door"):
    """Let nobody in any more."""


class SayGoodbye(msgspec.Struct, frozen=True, tag="say_goodbye"):
    """Say goodbye to all clients within `grace_s`, and `Gone` then. `clients`: how many there are at all workers."""

    reason: str
    grace_s: float
    clients: int


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Send `Measured`, with that number."""

    number: int


class Scraped(msgspec.Struct, frozen=True, tag="scraped"):
    """The answer to `Scrape` or `AskCluster` of that number: a response."""

    number: int
    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...]


class PastFound(msgspec.Struct, frozen=True, tag="past_found"):
    """The answer to `AskPast` of that number.

    `found`: a `Past` as JSON, because its numbers are the venue's own digits, as JSON has them.
    """

    number: int
    found: bytes

    @classmethod
    def of(cls, number: int, past: Past) -> PastFound:
        """That answer."""
        return cls(number, msgspec.json.encode(past))

    @property
    def past(self) -> Past:
        """What was found."""
        return _past.decode(self.found)


Down: TypeAlias = Setup | Begin | Filled | Reload | Look | Told | CloseDoor | SayGoodbye | Measure | Scraped | PastFound


# ---- up ----


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Clients are let in."""


class Seen(msgspec.Struct, frozen=True, tag="seen"):
    """The canary of that number came through the fan-out, and a connection through the front door."""

    number: int


class Stood(msgspec.Struct, frozen=True):
    """A pause of the worker, or a step of its clock: from when to when (ms since 1970), and the reason in words."""

    start_ms: int
    end_ms: int
    reason: str


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Once a second: where on the tape the worker is, and what happened among its clients since the last time."""

    at: int
    noted: list[Noted] = []
    stood: list[Stood] = []


class Broadcast(msgspec.Struct, frozen=True, tag="broadcast"):
    """Send that `test` message to every client."""

    message: str


class Family(msgspec.Struct, array_like=True, frozen=True):
    """One family of metrics, and its samples: the name, labels and value of each."""

    kind: str
    name: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """The worker's metrics; `number` is that of `Measure`."""

    number: int
    families: list[Family]


class Scrape(msgspec.Struct, frozen=True, tag="scrape"):
    """Answer `GET /metrics`."""

    number: int
    openmetrics: bool


class AskCluster(msgspec.Struct, frozen=True, tag="ask_cluster"):
    """Answer `GET /cluster`."""

    number: int


class AskPast(msgspec.Struct, frozen=True, tag="ask_past"):
    """Ask a venue for past candles (`PastCandles.get`)."""

    number: int
    venue: str
    instrument: str
    interval: str
    spans: tuple[tuple[int, int], ...]


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """All clients had their goodbye."""


Up: TypeAlias = Ready | Seen | Progress | Broadcast | Measured | Scrape | AskCluster | AskPast | Gone


# ---- frames ----


class LinkError(Exception):
    """What came is no frame of ours."""


_past: Final = msgspec.json.Decoder(Past)
_encoder: Final = msgspec.msgpack.Encoder()
_down: Final = msgspec.msgpack.Decoder(Down)
_up: Final = msgspec.msgpack.Decoder(Up)


def framed(message: Down | Up) -> bytes:
    """A message as a frame."""
    return _frame(MESSAGE, _encoder.encode(message))


def framed_part(data: bytes) -> bytes:
    """An encoded part as a frame."""
    return _frame(PART, data)


def _frame(kind: int, body: bytes) -> bytes:
    return _HEAD.pack(len(body) + 1, kind) + body


def read_down(body: bytes) -> Down:
    """Raises: LinkError."""
    try:
        message: Down = _down.decode(body)
    except msgspec.DecodeError as error:
        raise LinkError(f"a message from the parent cannot be read: {error}") from error
    return message


def read_up(body: bytes) -> Up:
    """Raises: LinkError."""
    try:
        message: Up = _up.decode(body)
    except msgspec.DecodeError as error:
        raise LinkError(f"a message from a worker cannot be read: {error}") from error
    return message


class Frames:
    """Takes frames out of a stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take these bytes; yields what each frame is, and its body. To be exhausted before the next call.

        Raises:
            LinkError: a frame is none of ours.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= _HEAD.size:
                size, kind = _HEAD.unpack_from(buffer, at)
                if not 0 < size <= MOST_BYTES or kind not in (PART, MESSAGE):
                    raise LinkError(f"a frame of {size} bytes and kind {kind}")
                end = at + 4 + size
                if len(buffer) < end:
                    break
                body = bytes(buffer[at + _HEAD.size : end])
                at = end
                yield kind, body
        finally:
            del buffer[:at]
