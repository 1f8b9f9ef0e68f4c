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
        st.integers(2, 9).map(lambda by: ("skip", by)),
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
    assert copy.skips == tape.skips
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
        elif what == "skip":
            copy.skip_to(tape.head)
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
    elif what == "skip":
        tape.skip_to(tape.head + size)
    elif what == "forget":
        tape.forget(lambda topic: topic[1] != "Y/U")
    else:
        tape.append(what, b"." * size)  # type: ignore[arg-type]


@given(steps, st.integers(0, 40), st.integers(2, 12), st.integers(40, 900))
def test_a_copy_that_is_not_handed_the_oldest_rows_promises_nothing_that_stands_in_them(
    before: list[tuple[object, int]], floor: int, max_entries: int, max_bytes: int
) -> None:
    tape = Tape(max_entries, max_bytes)
    for what, size in before:
        _step(tape, what, size)
    floor = min(floor, tape.head)
    start = msgspec.msgpack.decode(msgspec.msgpack.encode(origin(tape, floor)), type=Origin)
    copy = begun(start, max_entries, max_bytes)
    for row in travelled([Row.of(entry) for entry in standing(tape) if entry.seq > floor]):
        copy.place(row.entry(copy.epoch))
    ended(copy, start)
    assert (copy.epoch, copy.head, copy.broken_at, copy.skips) == (tape.epoch, tape.head, tape.broken_at, tape.skips)
    assert [each.text for each in standing(copy)] == [each.text for each in standing(tape) if each.seq > floor]
    assert [each.payload for each in copy.latest(SELECTION)] == [each.payload for each in tape.latest(SELECTION)]
    assert copy.counts(SELECTION) == tape.counts(SELECTION)
    for topic in TOPICS:
        assert copy.last_seq(topic) == tape.last_seq(topic)
        for at in range(tape.head + 1):
            assert copy.count_at(topic, at) in (tape.count_at(topic, at), None)
    for seq in range(tape.head + 1):
        told, true = (
            plan_recovery(each, ("a", "b", "c"), SELECTION, Position(epoch=tape.epoch, seq=seq))
            for each in (copy, tape)
        )
        if seq >= floor:
            assert (told.recovered, told.missed, told.replayed) == (true.recovered, true.missed, true.replayed)
            continue
        for channel, whole in told.recovered.items():
            if whole:
                assert true.recovered[channel]
                kept, came = (
                    [each.seq for each in one.between(seq, one.head) if each.topic[0] == channel and each.data]
                    for one in (tape, copy)
                )
                shown = [each.seq for each in told.shown if each.topic[0] == channel and each.seq not in came]
                assert sorted(came + shown) == kept or not tape.holds(seq)
