"""The pieces of a recording's file, so that a reader finds its way without unpacking everything.

A file is a row of zstd frames (RFC 8878), each with the lines of up to a minute or a megabyte, and behind each a small
frame that zstd skips (section 3.1.2), with an `Index` of what the one before holds. Where a frame ends is found by
stepping from block to block: three bytes of each are read. The last frame may be unfinished, because it is being
written or its writer was killed; what of it is there can be read up to its last block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec

from connectors.capture.zstd import zstd

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_INDEX_MAGIC: Final = b"\x5e\x2a\x4d\x18"
"""One of the sixteen magic numbers of frames that are skipped."""
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)
_SIZE_BYTES: Final = (0, 2, 4, 8)
_RLE: Final = 1
_CHUNK_BYTES: Final = 256 * 1024
"""So much is unpacked at once."""


class Index(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a zstd frame holds: from when to when (ms since 1970), and how much.

    `opened` and `closed` count connections, `lost` frames that could not be recorded, `raw_bytes` what the lines are
    unpacked.
    """

    from_ms: int
    to_ms: int
    frames: int = 0
    opened: int = 0
    closed: int = 0
    lost: int = 0
    raw_bytes: int = 0


class Piece(msgspec.Struct, frozen=True):
    """A zstd frame in a file: from which byte to which; None for an index where it is the unfinished last one."""

    begin: int
    end: int
    index: Index | None


class Damaged(Exception):
    """The bytes are not those of a recording's file. `str()` says what was seen, and where."""


def packed(index: Index) -> bytes:
    """The index as a frame that zstd skips."""
    text = msgspec.json.encode(index)
    return _INDEX_MAGIC + struct.pack("<I", len(text)) + text


def pieces(file: BinaryIO) -> Iterator[Piece]:
    """All pieces of a file, from the first on.

    Raises:
        Damaged: it is no such file, or is damaged; the pieces before that have been handed out.
        OSError: it cannot be read.
    """
    at = 0
    while True:
        end = _frame_end(file, at)
        if end is None:
            if file.seek(0, 2) > at:
                yield Piece(at, file.tell(), None)
            return
        index, behind = _index(file, end)
        yield Piece(at, end, index)
        if behind == end:
            return
        at = behind


def _frame_end(file: BinaryIO, at: int) -> int | None:
    """Where the zstd frame that begins there ends; None where it is not all there.

    Raises:
        Damaged: none begins there.
    """
    head = _read(file, at, 6)
    if head[:4] != _MAGIC[: len(head[:4])]:
        raise Damaged(f"no zstd frame begins at byte {at}, but {head[:4].hex(' ')}")
    if len(head) < 6:
        return None
    flags = head[4]
    is_single = bool(flags & 0x20)
    size = _SIZE_BYTES[flags >> 6] or int(is_single)
    at += 5 + (not is_single) + _DICTIONARY_BYTES[flags & 3] + size
    while True:
        block = _read(file, at, 3)
        if len(block) < 3:
            return None
        head_bits = int.from_bytes(block, "little")
        at += 3 + (1 if (head_bits >> 1) & 3 == _RLE else head_bits >> 3)
        if head_bits & 1:
            at += 4 if flags & 4 else 0
            return at if file.seek(0, 2) >= at else None


def _index(file: BinaryIO, at: int) -> tuple[Index | None, int]:
    """The index behind a frame, and where the next frame begins; where there is none, at the same place."""
    head = _read(file, at, 8)
    if head[:4] != _INDEX_MAGIC or len(head) < 8:
        return None, at
    (size,) = struct.unpack("<I", head[4:])
    text = _read(file, at + 8, size)
    if len(text) < size:
        return None, at
    try:
        return msgspec.json.decode(text, type=Index), at + 8 + size
    except msgspec.DecodeError as error:
        raise Damaged(f"the index at byte {at} cannot be read: {error}") from None


def unpacked(file: BinaryIO, piece: Piece) -> Iterator[bytes]:
    """The lines of a piece, some at a time; each part ends with a line. The end of an unfinished one is left out.

    Raises:
        Damaged: it cannot be unpacked.
        OSError: it cannot be read.
    """
    unpacker = zstd.ZstdDecompressor()
    at, rest = piece.begin, b""
    while at < piece.end and not unpacker.eof:
        chunk = _read(file, at, min(_CHUNK_BYTES, piece.end - at))
        if not chunk:
            break
        at += len(chunk)
        try:
            text = unpacker.decompress(chunk)
        except zstd.ZstdError as error:
            raise Damaged(f"the zstd frame at byte {piece.begin}: {error}") from None
        text = rest + text
        cut = text.rfind(b"\n") + 1
        rest = text[cut:]
        if cut:
            yield text[:cut]


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
