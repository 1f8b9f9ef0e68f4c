"""What the tape still has of some topics: the newest messages before a position, within bounds, none that has left."""

from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.tape.entry import Entry, Topic, keyframe_topic
from daemon.tape.history import Stretch, candles, complete_from, oldest_candle
from daemon.tape.tape import Tape

A, B, OTHER = ("c", "BTC/USDT"), ("c", "ETH/USDT"), ("d", "BTC/USDT")
LOTS = 1_000_000


def seqs(entries: list[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


def stretch(tape: Tape, topics: Sequence[Topic], before: int, limit: int, most_bytes: int, step: int = 1000) -> Stretch:
    found = Stretch(tape, topics, before, limit, most_bytes)
    while found.step(step):
        pass
    return found


def filled(*topics: Topic, entries: int = 1000, size: int = LOTS) -> Tape:
    tape = Tape(entries, size)
    for topic in topics:
        tape.append(topic, b'{"n":%d}' % tape.head)
    return tape


def test_the_newest_come_oldest_first_and_before_a_position_the_ones_before() -> None:
    tape = filled(*[A, B] * 5)
    newest = stretch(tape, [A], LOTS, 2, LOTS)
    assert (seqs(newest.entries), newest.more, newest.complete_from) == ([7, 9], True, 1)
    older = stretch(tape, [A], 7, 2, LOTS)
    assert (seqs(older.entries), older.more) == ([3, 5], True)
    last = stretch(tape, [A], 3, 2, LOTS)
    assert (seqs(last.entries), last.more) == ([1], False)
    assert stretch(tape, [A], 1, 2, LOTS).entries == []


def test_several_topics_come_in_one_order() -> None:
    tape = filled(A, OTHER, B, A, B)
    assert seqs(stretch(tape, [A, B], LOTS, 10, LOTS).entries) == [1, 3, 4, 5]
    assert seqs(stretch(tape, [A, B], LOTS, 2, LOTS).entries) == [4, 5]


def test_an_answer_is_bounded_in_bytes_and_never_empty_for_that() -> None:
    tape = filled(A, A, A)
    size = len(tape.known("c")[0].text)
    found = stretch(tape, [A], LOTS, 10, 2 * size)
    assert (seqs(found.entries), found.more) == ([2, 3], True)
    assert seqs(stretch(tape, [A], LOTS, 10, 1).entries) == [3]


def test_what_has_left_is_not_there_and_it_is_said_from_where_on_nothing_is_missing() -> None:
    tape = filled(*[A] * 10, entries=4)
    found = stretch(tape, [A], LOTS, 100, LOTS)
    assert (seqs(found.entries), found.more, found.complete_from) == ([7, 8, 9, 10], False, 7)
    tape.append(B, b"{}")
    assert complete_from(tape, [B]) == 1


def test_the_newest_message_of_a_topic_that_has_left_is_there_all_the_same() -> None:
    tape = filled(B, *[A] * 10, entries=4)
    found = stretch(tape, [B], LOTS, 100, LOTS)
    assert (seqs(found.entries), found.more, found.complete_from) == ([1], False, 2)
    assert stretch(tape, [B], 1, 100, LOTS).entries == []
    both = stretch(tape, [A, B], LOTS, 100, LOTS)
    assert seqs(both.entries) == [1, 8, 9, 10, 11]
    assert stretch(tape, [A, B], LOTS, 4, LOTS).more


def test_after_a_break_nobody_knows_what_was_before() -> None:
    tape = filled(A, A)
    tape.break_at(50)
    tape.append(A, b"{}")
    found = stretch(tape, [A], LOTS, 10, LOTS)
    assert (seqs(found.entries), found.complete_from) == ([1, 2, 51], 51)


def test_keyframes_are_there_if_they_are_asked_for() -> None:
    tape = filled(A, keyframe_topic(A), A)
    assert seqs(stretch(tape, [A], LOTS, 10, LOTS).entries) == [1, 3]
    assert seqs(stretch(tape, [A, keyframe_topic(A)], LOTS, 10, LOTS).entries) == [1, 2, 3]


@given(
    st.lists(st.sampled_from([A, B, OTHER]), max_size=60),
    st.integers(1, 30),
    st.sets(st.sampled_from([A, B, OTHER]), min_size=1),
    st.integers(1, 70),
    st.integers(1, 12),
    st.integers(1, 9),
)
def test_a_stretch_is_what_a_walk_over_the_tape_finds(
    sent: list[Topic], room: int, asked: set[Topic], before: int, limit: int, step: int
) -> None:
    tape = filled(*sent, entries=room)
    stands = [entry for entry in tape.between(0, tape.head) if entry.topic in asked]
    kept = [entry for topic in asked if (entry := tape.newest(topic)) is not None and entry not in stands]
    all_of_it = sorted(seqs([*kept, *stands]))
    found = stretch(tape, sorted(asked), before, limit, LOTS, step)
    expected = [seq for seq in all_of_it if seq < before]
    assert seqs(found.entries) == expected[-limit:]
    assert found.more == (len(expected) > limit)
    gone = [seq for seq, topic in enumerate(sent, 1) if topic in asked and seq not in seqs(stands)]
    assert found.complete_from == max(gone, default=0) + 1


def test_what_leaves_between_two_steps_is_not_there() -> None:
    tape = filled(*[A] * 10, entries=10)
    found = Stretch(tape, [A], LOTS, 100, LOTS)
    assert found.step(3)
    for _ in range(5):
        tape.append(A, b"{}")
    assert not found.step(100)
    assert (seqs(found.entries), found.more, found.complete_from) == ([6, 7, 8, 9, 10], False, 6)


def candle(tape: Tape, start_ms: int, interval: str = "1m", *, closed: bool = False) -> None:
    body = {"interval": interval, "start_ms": start_ms, "closed": closed, "data": {}}
    tape.append(A, msgspec.json.encode(body))


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 40), max_size=30),
    st.integers(1, 400),
    st.integers(1, 700),
    st.integers(0, 10),
)
def test_of_each_candle_the_newest_message_is_found(counts: list[int], room: int, before: int, others: int) -> None:
    tape = Tape(room, LOTS * 10)
    for place, count in enumerate(counts):
        for _ in range(count):
            candle(tape, 60_000 * place)
            for _ in range(others if place % 3 else 0):
                tape.append(OTHER, b"{}")
    newest: dict[int, int] = {}
    for entry in tape.between(0, before - 1):
        if entry.topic == A:
            newest[msgspec.json.decode(entry.payload)["start_ms"]] = entry.seq
    last = tape.newest(A)
    if not newest and last is not None and not tape.stands(last) and last.seq < before:
        newest = {msgspec.json.decode(last.payload)["start_ms"]: last.seq}
    found = [(one.start_ms, entry.seq) for one, entry in candles(tape, A, before, "1m")]
    assert found == sorted(newest.items(), reverse=True)


def test_candles_of_another_interval_are_those_of_an_earlier_configuration() -> None:
    tape = Tape(100, LOTS)
    candle(tape, 0)
    candle(tape, 60_000)
    candle(tape, 0, "5m", closed=True)
    candle(tape, 300_000, "5m")
    assert [one.start_ms for one, _ in candles(tape, A, LOTS, "5m")] == [300_000, 0]
    assert list(candles(tape, A, LOTS, "1m")) == []
    oldest = oldest_candle(tape, A)
    assert oldest is not None
    assert oldest.start_ms == 0
    assert oldest_candle(tape, B) is None


def test_what_leaves_while_candles_are_looked_through_ends_the_walk() -> None:
    tape = Tape(100, LOTS)
    for place in range(100):
        candle(tape, 60_000 * place)
    walk = candles(tape, A, LOTS, "1m")
    assert next(walk)[0].start_ms == 99 * 60_000
    for place in range(100, 195):
        candle(tape, 60_000 * place)
    rest = [one.start_ms // 60_000 for one, _ in walk]
    assert rest == [98, 97, 96, 95]
