"""`daemon.commands.terminal.keys`: what terminals send, whole or in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.commands.terminal.keys import Key, Keyboard


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"\x1b[A\x1bOA\x1b[1;2Ak", [Key.UP] * 4),
        (b"\x1b[B\x1bOBj\r", [Key.DOWN] * 4),
        (b"\x1b[5~b\x1b[5;5~", [Key.PAGE_UP] * 3),
        (b"\x1b[6~ ", [Key.PAGE_DOWN] * 2),
        (b"\x1b[H\x1bOH\x1b[1~\x1b[7~g", [Key.HOME] * 5),
        (b"\x1b[F\x1bOF\x1b[4~\x1b[8~G", [Key.END] * 5),
        (b"\x1bq", [Key.QUIT]),  # Escape, then q
        (b"x\xff\x1b[200~\x1b[Z\x0c", [Key.REDRAW]),
        (b"\x1b[" + b"1" * 64 + b"q", []),
    ],
)
def test_a_key_is_known_however_it_comes(sent: bytes, keys: list[Key]) -> None:
    assert Keyboard().take(sent) == keys


@pytest.mark.parametrize("sent", [b"\x1b[A", b"\x1bOA", b"\x1b[1;2A"])
def test_a_sequence_may_come_in_two_reads(sent: bytes) -> None:
    for cut in range(2, len(sent)):  # Escape alone is a key of its own
        keyboard = Keyboard()
        assert keyboard.take(sent[:cut]) == []
        assert keyboard.take(sent[cut:] + b"q") == [Key.UP, Key.QUIT]


@given(st.lists(st.binary(max_size=20)))
def test_nothing_that_is_typed_can_hurt(pieces: list[bytes]) -> None:
    keyboard = Keyboard()
    for piece in pieces:
        keyboard.take(piece)
    assert keyboard.take(b"\x18q")[-1] is Key.QUIT
