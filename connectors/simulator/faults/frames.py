"""What faults make of the tickers that one simulated OKX connection is sent. Pure: payloads in, frames out.

Faults work in the order of a real path: first the text of a ticker is changed, then the sequence of tickers, then how
a text is framed. Source of what a frame may be: RFC 6455, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec

from connectors.simulator.faults.active import ActiveFault, FaultBoard
from connectors.simulator.faults.altered_json import (
    empty_strings,
    huge_numbers,
    missing_fields,
    odd_row,
    shifted_times,
    wrong_types,
)
from connectors.simulator.faults.faults import (
    BadRow,
    ClockSkew,
    Duplicates,
    EmptyStrings,
    Flood,
    Fragmented,
    Garbage,
    Halted,
    HugeNumbers,
    MissingFields,
    Mute,
    MuteInstrument,
    OutOfOrder,
    Silence,
    TornFrame,
    WrongTypes,
)
from protocol.frames import ping_frame, text_frame

_TEXT: Final = 0x01
_CONTINUATION: Final = 0x00
_FIN: Final = 0x80
_NOT_A_FRAME: Final = bytes([_FIN | 0x0B, 0x00])
"""A reserved opcode (section 5.2): the receiver must fail the connection."""


_EMPTY_PONG: Final = bytes([_FIN | 0x0A, 0x00])
_EMPTY_START: Final = bytes([_TEXT, 0x00])
_EMPTY_MIDDLE: Final = bytes([_CONTINUATION, 0x00])
_EMPTY_END: Final = bytes([_FIN | _CONTINUATION, 0x00])

HALTED_MS: Final = 23 * 86_400_000
"""How long ago a halted pair was traded last."""

HUGE: Final = {"digits": "7" * 5_000, "exponent": "1e400"}
"""By a fault's `kind`: a number that no reader of JSON can take."""


class Written(NamedTuple):
    """What becomes of one ticker.

    Attributes:
        frames: The bytes to write; may be none.
        tickers: How many whole tickers are in them.
        torn: Whether the connection is to end behind them.
    """

    frames: bytes
    tickers: int
    torn: bool


class FaultyFrames:
    """The tickers of one connection.

    Args:
        board: Which faults are on.
        connection: The connection's number.
    """

    def __init__(self, board: FaultBoard, connection: int) -> None:
        self._board = board
        self._connection = connection
        self._number = 0
        self._held: dict[tuple[int, str], bytes] = {}
        """Tickers that wait for their successor, and times that stand still: by fault and instrument."""

    def write(self, instrument: str, payload: bytes) -> Written:
        """The frames of one ticker, and of those that go along with it."""
        self._number += 1
        active = self._board.of("okx")
        if self._kept_back(active, instrument):
            return Written(b"", 0, torn=False)
        texts = [payload]
        for one in active:
            texts = [self._changed(one, text) for text in texts]
        for one in active:
            texts = self._rearranged(one, instrument, texts)
        frames: list[bytes] = []
        for place, text in enumerate(texts):
            framed, torn = self._framed(active, text)
            frames.append(framed)
            if torn:
                return Written(b"".join(frames), place, torn=True)
        return Written(b"".join(frames), len(texts), torn=False)

    def release(self, fault: int) -> bytes:
        """The fault of that number is over: the frames of the tickers that waited for their successor."""
        texts = [self._held.pop(key) for key in [key for key in self._held if key[0] == fault and key[1] != "ts"]]
        return b"".join(map(text_frame, texts))

    def _kept_back(self, active: Sequence[ActiveFault], instrument: str) -> bool:
        for one in active:
            mute = isinstance(one.fault, Mute) and self._connection >= one.first_connection
            if isinstance(one.fault, MuteInstrument):
                mute = one.fault.instrument.replace("/", "-") == instrument
            if (mute or isinstance(one.fault, Silence)) and one.chooses():
                one.count()
                return True
        return False

    def _changed(self, one: ActiveFault, text: bytes) -> bytes:
        """The text with other members or times."""
        fault = one.fault
        if isinstance(fault, BadRow | Halted):
            return self._with_another_row(one, fault, text)
        if not isinstance(fault, ClockSkew | WrongTypes | MissingFields | EmptyStrings | HugeNumbers):
            return text
        about = (self._connection, self._number)
        if not one.chooses(*about):
            return text
        tree: Any = msgspec.json.decode(text)
        random = one.random(*about)
        match fault:
            case ClockSkew(offset_s=offset_s):
                changed = shifted_times(tree, offset_s)
            case WrongTypes(field=field):
                changed = wrong_types(tree, field, random)
            case MissingFields(field=field):
                changed = missing_fields(tree, field, random)
            case EmptyStrings(field=field):
                changed = empty_strings(tree, field, random)
            case HugeNumbers(kind=kind, field=field):
                changed = huge_numbers(tree, HUGE[kind], field, random)
        if not changed:
            return text
        one.count()
        return msgspec.json.encode(tree)

    def _with_another_row(self, one: ActiveFault, fault: BadRow | Halted, text: bytes) -> bytes:
        """The text with another ticker, where it is of that instrument."""
        tree: Any = msgspec.json.decode(text)
        if tree["arg"]["instId"] != fault.instrument.replace("/", "-"):
            return text
        if not one.chooses(self._connection, self._number):
            return text
        one.count()
        if isinstance(fault, BadRow):
            tree["data"] = [odd_row(row, fault.what, "last", "ts") for row in tree["data"]]
        else:
            for row in tree["data"]:
                row |= dict.fromkeys(("bidPx", "bidSz", "askPx", "askSz"), "")
                # Its last trade's, three weeks before the fault was switched on: it stays that.
                row["ts"] = self._held.setdefault((one.number, "ts"), str(int(row["ts"]) - HALTED_MS).encode()).decode()
        return msgspec.json.encode(tree)

    def _rearranged(self, one: ActiveFault, instrument: str, texts: list[bytes]) -> list[bytes]:
        """The texts to send instead of these; maybe none, where one waits for its successor."""
        key = (one.number, instrument)
        match one.fault:
            case Duplicates(copies=copies) if one.chooses(self._connection, self._number):
                one.count()
                return [text for text in texts for _ in range(copies + 1)]
            case OutOfOrder(how="repeat") if one.chooses():
                one.count()
                return [self._with_kept_time(key, text) for text in texts]
            case OutOfOrder(how="swap"):
                result: list[bytes] = []
                for text in texts:
                    if (held := self._held.pop(key, None)) is not None:
                        one.count()
                        result += [text, held]
                    elif one.chooses():
                        self._held[key] = text
                    else:
                        result.append(text)
                return result
            case _:
                return texts

    def _with_kept_time(self, key: tuple[int, str], text: bytes) -> bytes:
        """The text with the time of the first one."""
        tree: Any = msgspec.json.decode(text)
        for ticker in tree.get("data", []):
            if "ts" in ticker:
                ticker["ts"] = self._held.setdefault(key, str(ticker["ts"]).encode()).decode()
        return msgspec.json.encode(tree)

    def _framed(self, active: Sequence[ActiveFault], text: bytes) -> tuple[bytes, bool]:
        """The text's frame or frames, with what goes before; and whether it was cut."""
        before, frame = b"", text_frame(text)
        for one in active:
            about = (self._connection, self._number)
            fault = one.fault
            if not isinstance(fault, Garbage | Flood | Fragmented | TornFrame) or not one.chooses(*about):
                continue
            one.count()
            random = one.random(*about)
            match fault:
                case Garbage(kind="not_json"):
                    before += text_frame(text[: random.randrange(1, len(text))])
                case Garbage(kind="not_utf8"):
                    at = random.randrange(1, len(text))
                    before += text_frame(text[:at] + b"\xff\xfe" + text[at:])
                case Garbage(kind="unknown"):
                    before += text_frame(msgspec.json.encode({"nonsense": random.randrange(1_000_000)}))
                case Garbage(kind="not_a_frame"):
                    before += _NOT_A_FRAME
                case Flood(what="pongs", frames=frames):
                    before += _EMPTY_PONG * frames
                case Flood(what="pings", frames=frames):
                    before += ping_frame() * frames
                case Flood(what="fragments", frames=frames):
                    before += _EMPTY_START + _EMPTY_MIDDLE * (frames - 2) + _EMPTY_END
                case Flood(frames=frames):
                    before += text_frame(b"pong") * frames
                case Fragmented(pieces=pieces):
                    count = min(pieces, len(text)) - 1
                    frame = fragments(text, sorted(random.sample(range(1, len(text)), count)))
                case TornFrame():
                    return before + frame[: random.randrange(1, len(frame))], True
        return before + frame, False


def fragments(payload: bytes, cuts: Sequence[int]) -> bytes:
    """One text message as fragments that end at these places (RFC 6455 section 5.4)."""
    edges = [0, *cuts, len(payload)]
    frames = []
    for number, (start, end) in enumerate(pairwise(edges)):
        whole = bytearray(text_frame(payload[start:end]))
        whole[0] = (_CONTINUATION if number else _TEXT) | (_FIN if end == len(payload) else 0)
        frames.append(bytes(whole))
    return b"".join(frames)
