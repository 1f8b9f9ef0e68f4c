"""What a rehearsal's clients noted, and what else was seen, from the moment before a fault to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from connectors.base import State
from connectors.simulator.faults.table import Case

Topic: TypeAlias = tuple[str, str]


class Told(msgspec.Struct, frozen=True, tag=True):
    """A client was told a channel's state, at `at_s` (monotonic) and `at_ms` (since 1970)."""

    at_s: float
    at_ms: float
    channel: str
    state: State
    reason: str = ""
    retry_in_s: float | None = None


class Data(msgspec.Struct, frozen=True, tag=True):
    """A client was given a data message.

    Attributes:
        number: Of the venue's pushes for this instrument, where that is known: they count up by one.
        stamp: When the venue made the push (ns); no two pushes have the same. None where it is polled.
    """

    at_s: float
    channel: str
    instrument: str
    seq: int
    prev_seq: int
    number: int | None = None
    stamp: int | None = None

    @property
    def topic(self) -> Topic:
        """What `prev_seq` is about."""
        return self.channel, self.instrument


Entry: TypeAlias = Told | Data


class LogLine(msgspec.Struct, frozen=True):
    """What the daemon logged, and when (ms since 1970)."""

    at_ms: float
    level: str
    text: str


class Standstill(msgspec.Struct, frozen=True):
    """The clients' own process did not get to run: what came meanwhile was noted only at the end of it (monotonic)."""

    began_s: float
    ended_s: float


class Noted(msgspec.Struct, kw_only=True):
    """What was seen from before a fault to after it.

    Attributes:
        before: The last message of each topic before that.
        entries: What clients got, in order.
        log: What the daemon logged.
        standstills: Of the clients; no time of theirs is held against the daemon.
        began_s: When the fault was switched on; `began_ms` is the same moment since 1970.
        cleared_s: When it was switched off; of one that acts once, the same as `began_s`.
        recovered_s: When all was well again; None: not in time.
        failure: Why the daemon or a client's connection ended; "" if it did not.
    """

    before: Mapping[Topic, Data] = {}
    entries: Sequence[Entry] = ()
    log: Sequence[LogLine] = ()
    standstills: Sequence[Standstill] = ()
    began_s: float = 0.0
    began_ms: float = 0.0
    cleared_s: float = 0.0
    recovered_s: float | None = None
    failure: str = ""


class Record(Noted, kw_only=True):
    """What was seen of one fault of a venue; all is well again when every topic has had data and every channel is live.

    Attributes:
        case: The fault.
        channels: The venue's channels.
        others: All other channels.
        promised_s: In how many seconds at most all will be well, by what clients were told; None: nothing was told.
    """

    case: Case
    channels: tuple[str, ...]
    others: tuple[str, ...]
    promised_s: float | None = None


class DiskRecord(Noted, kw_only=True):
    """What was seen of a disk that took nothing of the daemon's tape; all is well again when that is stored again.

    Attributes:
        channels: All channels.
        noticed_s: When `/readyz` said that the tape is not stored; None: it did not.
        reason: What it said.
    """

    channels: tuple[str, ...]
    noticed_s: float | None = None
    reason: str = ""
