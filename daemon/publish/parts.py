"""What travels from where the tape is made to where it is followed: a `Beginning`, and then one `Part` after the other.

A part is what one pass of the sequencer appended, and what clients may ask for beside the tape as it was by then: the
states of channels, the gaps of the ledger, and the catalogue where a reload changed it. Whoever takes a part as a whole
therefore never shows a channel's status and its state in `/channels` that disagree.

Sync and pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from daemon.health.board import ChannelState
from daemon.tape.copying import Origin, Row
from daemon.tape.ledger import LedgerGap
from protocol.channels import Catalogue, Channel
from protocol.kinds import KINDS


class Listed(msgspec.Struct, array_like=True, frozen=True):
    """A channel of the catalogue as it travels: `protocol.channels.Channel`, its kind by name."""

    name: str
    exchange: str
    kind: str
    instruments: tuple[str, ...]
    cadence_s: float | None
    stale_after_s: float | None
    levels: int
    every_ms: int
    interval: str

    @classmethod
    def of(cls, channel: Channel) -> Listed:
        """The channel, ready to travel."""
        fields = {name: getattr(channel, name) for name in cls.__struct_fields__}
        return cls(**fields | {"kind": channel.kind.name})

    def channel(self) -> Channel:
        """The channel. Raises: ValueError, if its kind is unknown here: another version of tickerd made it."""
        kind = KINDS.get(self.kind)
        if kind is None:
            raise ValueError(f"channel {self.name}: kind {self.kind!r} is not one of {', '.join(KINDS)}")
        return Channel(**msgspec.structs.asdict(self) | {"kind": kind})


class Part(msgspec.Struct, array_like=True, gc=False):
    """A stretch of the tape, and what else changed.

    Attributes:
        before: the tape's head before the first of the rows.
        rows: new entries, in order; none where only something else changed.
        states: the channels whose state is another one now.
        gaps: the gaps of the ledger that are new or have changed.
        channels: the whole catalogue, where it is another one now; it holds before the first of the rows.
        skip: where not 0, the tape goes on after this position instead of `before` (`daemon.tape.tape`, skips).
    """

    before: int
    rows: list[Row]
    states: dict[str, ChannelState] = {}
    gaps: list[LedgerGap] = []
    channels: list[Listed] | None = None
    skip: int = 0

    @property
    def end(self) -> int:
        """The tape's head after it."""
        return self.rows[-1].seq if self.rows else self.skip or self.before


class Beginning(msgspec.Struct, array_like=True, gc=False):
    """Where following begins. The rows of what is on the tape already come next, as parts.

    Attributes:
        origin: where the copy of the tape begins.
        channels: the catalogue.
        states: of all channels.
        gaps: of the ledger, all.
    """

    origin: Origin
    channels: list[Listed]
    states: dict[str, ChannelState]
    gaps: list[LedgerGap]


_encoder: Final = msgspec.msgpack.Encoder()
_part: Final = msgspec.msgpack.Decoder(Part)
_beginning: Final = msgspec.msgpack.Decoder(Beginning)


def encode(message: Part | Beginning) -> bytes:
    """As MessagePack."""
    return _encoder.encode(message)


def decode_part(data: bytes | memoryview) -> Part:
    """Raises: msgspec.DecodeError, msgspec.ValidationError."""
    return _part.decode(data)


def decode_beginning(data: bytes | memoryview) -> Beginning:
    """Raises: msgspec.DecodeError, msgspec.ValidationError."""
    return _beginning.decode(data)


def listed(catalogue: Iterable[Channel]) -> list[Listed]:
    """The catalogue, ready to travel."""
    return [Listed.of(channel) for channel in catalogue]


def catalogue(channels: Iterable[Listed]) -> Catalogue:
    """The catalogue. Raises: ValueError, see `Listed.channel`."""
    return Catalogue(each.channel() for each in channels)


def changed(told: Mapping[str, ChannelState], states: Mapping[str, ChannelState]) -> dict[str, ChannelState]:
    """The states that differ from what was told."""
    return {name: state for name, state in states.items() if told.get(name) != state}
