"""A copy of a tape, made at any moment and fed with what comes after, against the tape itself."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from daemon.tape.copying import Origin, Row, begun, ended, origin, standing
from daemon.tape.recovery import plan_recovery
from daemon.tape.tape import NOTICE, STATUS, Tape
from protocol.messages import Position
from protocol.session import ALL

TOPICS = (("a", "X/U"), ("a", "Y/U"), ("a", STATUS), ("b", "Z/U"), ("c", ""), NOTICE)
SELECTION = frozenset({("a", ALL), ("b", ALL), ("c", ALL), ("a", STATUS)})

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(TOPICS), st.integers(0, 300)),
        st.integers(1, 9).map(lambda by: ("break", by)),
        st.just(("forget", 0)),
    ),
    max_size=40,
)


def travelled(rows: list[Row]) -> list[Row]:
    """The rows as they arrive in another process."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(rows), type=list[Row])


def alike(tape: Tape, copy: Tape) -> None:
    assert (copy.epoch, copy.head, copy.tail, copy.gone) == (tape.epoch, tape.head, tape.tail, tape.gone)
    assert (copy.broken_at, copy.breaks, len(copy)) == (tape.broken_at, tape.breaks, len(tape))
    assert [each.text for each in standing(copy)] == [each.text for each in standing(tape)]
    assert [each.payload for each in copy.latest(SELECTION)] == [each.payload for each in tape.latest(SELECTION)]
    assert copy.counts(SELECTION) == tape.counts(SELECTION)
    for topic in TOPICS:
        assert copy.last_seq(topic) == tape.last_seq(topic)
        assert [copy.count_at(topic, at) for at in range(tape.head + 1)] == [
            tape.count_at(topic, at) for at in range(tape.head + 1)
        ]
    for seq in range(tape.head + 2):
        since = Position(epoch=tape.epoch, seq=seq)
        assert copy.holds(seq) == tape.holds(seq)
        told, expected = (plan_recovery(each, ("a", "b", "c"), SELECTION, since) for each in (copy, tape))
        assert (told.recovered, told.missed, told.reason) == (expected.recovered, expected.missed, expected.reason)
        assert told.replayed == expected.replayed


@given(steps, steps, st.integers(2, 12), st.integers(40, 900))
def test_a_copy_made_at_any_moment_answers_as_the_tape_does(
    before: list[tuple[object, int]], after: list[tuple[object, int]], max_entries: int, max_bytes: int
) -> None:
    tape = Tape(max_entries, max_bytes)
    for what, size in before:
        _step(tape, what, size)
    start = msgspec.msgpack.decode(msgspec.msgpack.encode(origin(tape)), type=Origin)
    copy = begun(start, max_entries, max_bytes)
    for row in travelled([Row.of(entry) for entry in standing(tape)]):
        copy.place(row.entry(copy.epoch))
    ended(copy, start)
    alike(tape, copy)
    for what, size in after:
        head = tape.head
        _step(tape, what, size)
        if what == "break":
            copy.break_at(tape.head)
        elif what == "forget":
            copy.forget(lambda topic: topic[1] != "Y/U")
        else:
            [row] = travelled([Row.of(entry) for entry in tape.between(head, tape.head)] or [Row(0, 0, "", "", b"")])
            if row.seq:
                copy.place(row.entry(copy.epoch))
            else:  # it did not stay: alone larger than its share
                newest = tape.newest(what)  # type: ignore[arg-type]
                assert newest is not None
                copy.place(Row.of(newest).entry(copy.epoch))
    alike(tape, copy)


def _step(tape: Tape, what: object, size: int) -> None:
    if what == "break":
        tape.break_at(tape.head + size)
    elif what == "forget":
        tape.forget(lambda topic: topic[1] != "Y/U")
    else:
        tape.append(what, b"." * size)  # type: ignore[arg-type]
