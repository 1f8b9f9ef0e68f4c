"""One entry of the stream that carries the tape: a `Part` as fields.

Other programs may read them too: protocol/STREAM.md is what they are promised.

    v         the version of this format, "1"
    epoch     of the tape
    node      who wrote it
    before    the tape's head before it
    messages  the new messages as the JSON that clients get, one per line
    index     JSON; for each line [seq, number among its topic's, channel, instrument, when the venue's bytes came, ms]
    beside    JSON; what changed beside the tape: states, gaps, channels, skip. `left`: the leader has stopped here.
              `seed`: the tape is written anew, and what had left it is missing between these messages

The entry's id is SEQ-N: SEQ is the tape's head after it, and N counts the entries that have the same. An instrument
that begins with `!` marks what is not data: a status, a keyframe, a message to everybody.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from daemon.health.board import ChannelState
from daemon.publish.parts import Listed, Part
from daemon.tape.copying import Row
from daemon.tape.ledger import LedgerGap

VERSION: Final = b"1"


class StrangeEntryError(ValueError):
    """An entry that is none of this format, or of another version of it."""


class EntryId(msgspec.Struct, frozen=True, order=True):
    """The id of an entry. They are in order as the entries are."""

    seq: int = 0
    count: int = 0

    @classmethod
    def read(cls, text: bytes | str) -> EntryId:
        """Raises: StrangeEntryError."""
        seq, dash, count = (text.decode() if isinstance(text, bytes) else text).partition("-")
        if not (dash and seq.isdecimal() and count.isdecimal() and (seq + count).isascii()):
            raise StrangeEntryError(f"the id {text!r} is none of a tape: SEQ-N is expected")
        return cls(int(seq), int(count))

    def __str__(self) -> str:
        return f"{self.seq}-{self.count}"

    def then(self, seq: int) -> EntryId:
        """The id of the next entry, after which the tape's head is `seq`."""
        return EntryId(seq, self.count + 1 if seq == self.seq else 0)


class Beside(msgspec.Struct, omit_defaults=True):
    """What changed beside the tape; see `daemon.publish.parts.Part`."""

    states: dict[str, ChannelState] = {}
    gaps: list[LedgerGap] = []
    channels: list[Listed] | None = None
    skip: int = 0
    left: bool = False
    seed: bool = False


class Carried(msgspec.Struct):
    """An entry that was read."""

    id: EntryId
    epoch: str
    node: str
    part: Part
    left: bool
    seed: bool
    size_bytes: int

    @property
    def unbroken(self) -> bool:
        """Whether no position is missing between its messages."""
        rows = self.part.rows
        return not rows or rows[-1].seq - self.part.before == len(rows)


_index: Final = msgspec.json.Decoder(list[tuple[int, int, str, str, int]])
_beside: Final = msgspec.json.Decoder(Beside)
_encode: Final = msgspec.json.Encoder().encode


def fields(part: Part, epoch: str, node: str, *, left: bool = False, seed: bool = False) -> list[str | bytes]:
    """The entry as the engine takes it: names and values, one after the other."""
    found: list[str | bytes] = ["v", VERSION, "epoch", epoch, "node", node, "before", str(part.before)]
    if part.rows:
        index = [(row.seq, row.ordinal, row.channel, row.instrument, row.received_ms) for row in part.rows]
        found += ["messages", b"\n".join([row.payload for row in part.rows]), "index", _encode(index)]
    beside = Beside(part.states, part.gaps, part.channels, part.skip, left, seed)
    if beside != Beside():
        found += ["beside", _encode(beside)]
    return found


def size_bytes(found: list[str | bytes]) -> int:
    """How large an entry is, about."""
    return sum(map(len, found))


def read(id_: bytes, found: Mapping[bytes, bytes]) -> Carried:
    """Read an entry. Raises: StrangeEntryError."""
    version = found.get(b"v")
    if version != VERSION:
        told = "no version" if version is None else f"version {version[:20].decode(errors='replace')}"
        raise StrangeEntryError(
            f"entry {id_[:60].decode(errors='replace')} has {told} of the format; this tickerd reads version "
            f"{VERSION.decode()}"
        )
    try:
        index = _index.decode(found.get(b"index", b"[]"))
        beside = _beside.decode(found.get(b"beside", b"{}"))
        lines = found[b"messages"].split(b"\n") if index else []
        rows = [
            Row(seq, ordinal, channel, instrument, payload, received_ms)
            for (seq, ordinal, channel, instrument, received_ms), payload in zip(index, lines, strict=True)
        ]
        before, epoch, node = int(found[b"before"]), found[b"epoch"].decode(), found[b"node"].decode()
    except (KeyError, ValueError) as error:  # msgspec.DecodeError is a ValueError
        raise StrangeEntryError(f"entry {id_[:60].decode(errors='replace')} cannot be read: {error!r}") from None
    part = Part(before, rows, beside.states, beside.gaps, beside.channels, beside.skip)
    return Carried(EntryId.read(id_), epoch, node, part, beside.left, beside.seed, sum(map(len, found.values())))


def merged(parts: Iterator[Part]) -> Iterator[tuple[int, Part]]:
    """Parts that follow each other as few parts, each with how many it is made of.

    A change of the catalogue and a skip hold before the rows of their part, so they begin a new one.
    """
    whole: Part | None = None
    count = 0
    for part in parts:
        if whole is not None and part.channels is None and not part.skip:
            whole.rows += part.rows
            whole.states = whole.states | part.states
            whole.gaps = [*{gap.id: gap for gap in (*whole.gaps, *part.gaps)}.values()]
            count += 1
            continue
        if whole is not None:
            yield count, whole
        whole, count = part, 1
    if whole is not None:
        yield count, whole


def beyond(part: Part, head: int) -> Part:
    """What of a part a tape with that head lacks. One that begins beyond the head stays as it is."""
    if part.before >= head:
        return part
    rows = [row for row in part.rows if row.seq > head]
    return Part(head, rows, part.states, part.gaps, None, part.skip if part.skip > head else 0)
