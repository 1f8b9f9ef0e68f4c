"""What no client should send."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

import trio

from tests.soak.record import Format
from tests.soak.wire import BINARY, CLOSE, PING, TEXT, Connection, frame, request

NORMAL: Final = struct.pack("!H", 1000)

_GARBAGE: Final[tuple[bytes, ...]] = (
    b"{",
    b"[]",
    b"null",
    b'{"type":"nope"}',
    b'{"type":"subscribe"}',
    b'{"type":"subscribe","channels":5}',
    b'{"type":"subscribe","channels":[]}',
    b'{"type":"subscribe","channels":["no_such_channel"]}',
    b'{"type":"subscribe","channels":["*"],"interval_ms":-1}',
    b'{"type":"subscribe","channels":["*"],"instruments":[]}',
    b'{"type":"subscribe","channels":["*"],"since":{"epoch":"x","seq":-1}}',
    b"[" * 2000,
    b'{"type":' + b'{"a":' * 500,
)


def garbage(format: Format, dice: random.Random) -> tuple[int, bytes]:
    """A whole frame, opcode and payload, that is no command."""
    if format == "json":
        return TEXT, dice.choice(_GARBAGE)
    return BINARY, dice.choice((dice.randbytes(dice.randint(0, 200)), b"\x81\xa4type\xa4nope", b"\x91" * 2000))


def broken(format: Format, dice: random.Random) -> bytes:
    """Bytes after which the connection cannot go on."""
    mask = dice.randbytes(4)
    opcode = TEXT if format == "json" else BINARY
    kinds: tuple[Callable[[], bytes], ...] = (
        # Not masked: RFC 6455 section 5.1.
        lambda: bytes((0x80 | opcode, 2)) + b"{}",
        # Reserved bits and opcodes: section 5.2.
        lambda: frame(opcode, b"{}", mask, 0xF0),
        lambda: frame(0xB, b"", mask),
        # A control frame that is too long, one that is fragmented: section 5.5.
        lambda: frame(PING, bytes(126), mask),
        lambda: frame(PING, b"", mask, 0x00),
        # A continuation of nothing: section 5.4.
        lambda: frame(0x0, b"{}", mask),
        # Not UTF-8: section 8.1. (On MessagePack: text at all.)
        lambda: frame(TEXT, b"\xff\xfe", mask),
        # The wrong kind of frame for the protocol.
        lambda: frame(BINARY if format == "json" else TEXT, b"{}", mask),
        # Over the limit.
        lambda: frame(opcode, bytes(70_000), mask),
        # A close frame with half a code: section 5.5.1.
        lambda: frame(CLOSE, b"\x03", mask),
        # A frame of which the rest never comes.
        lambda: frame(opcode, bytes(1000), mask)[:500],
        lambda: dice.randbytes(300),
    )
    return dice.choice(kinds)()


async def flood(connection: Connection, dice: random.Random) -> None:
    """Hundreds of commands at once. Raises: EndedError."""
    many = dice.randint(120, 600)
    if connection.format == "json":
        one = frame(TEXT, b'{"type":"ping"}', dice.randbytes(4))
    else:
        one = frame(BINARY, b"\x81\xa4type\xa4ping", dice.randbytes(4))
    await connection.send(one * many)


async def http_flood(port: int, dice: random.Random) -> None:
    """Connections that pipeline requests for what costs the daemon most, and read as they please."""
    paths = ("/metrics", "/gaps", "/asyncapi.json", "/channels", "/nothing")
    data = f"GET {dice.choice(paths)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 200

    async def pour() -> None:
        with trio.socket.socket() as raw:
            try:
                await raw.connect(("127.0.0.1", port))
                await raw.send(data)
                while await raw.recv(65536):
                    pass
            except OSError:
                return

    with trio.move_on_after(dice.uniform(0.5, 2)):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(pour)


async def stray(port: int, dice: random.Random) -> None:
    """A connection that never becomes a session."""
    whole = request(port, dice, "json")
    data = dice.choice(
        (
            b"",
            dice.randbytes(200),
            whole[: dice.randint(1, len(whole) - 1)],
            whole.replace(b"13", b"12"),
            b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        )
    )
    raw = trio.socket.socket()
    with raw, trio.move_on_after(dice.uniform(0.1, 3)):
        try:
            await raw.connect(("127.0.0.1", port))
            await raw.send(data)
            while await raw.recv(4096):
                pass
        except OSError:
            return
