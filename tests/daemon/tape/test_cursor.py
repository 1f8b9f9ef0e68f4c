"""A client's place on the tape: what comes next, what was missed, what is resumed."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.tape.cursor import SCAN_AT_MOST, Cursor, had_now
from daemon.tape.tape import Tape, Topic
from protocol.messages import Format
from protocol.session import ALL

A, B = ("a", "X/U"), ("b", "X/U")
BOTH = frozenset({("a", ALL), B})


def tape_of(*topics: Topic, max_entries: int = 100) -> Tape:
    tape = Tape(max_entries, 10**6)
    for topic in topics:
        tape.append(topic, b"1234567890")
    return tape


def rest(cursor: Cursor, tape: Tape, max_bytes: int = 10**6) -> list[int]:
    """Everything that the cursor still has for its client."""
    seqs: list[int] = []
    while cursor.position < tape.head:
        chunk = cursor.peek(tape, Format.JSON, max_bytes)
        seqs += [entry.seq for entry in chunk.entries]
        cursor.advance(chunk, len(chunk.entries))
    return seqs


@given(
    st.lists(st.sampled_from((A, B, ("c", ""))), max_size=30),
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5)), max_size=20),
)
def test_any_way_of_writing_gives_each_selected_message_once_and_in_order(
    topics: list[Topic], writes: list[tuple[int, int]]
) -> None:
    tape = tape_of(*topics)
    cursor = Cursor(BOTH, 0, {})
    written: list[int] = []
    for max_bytes, most in writes:
        chunk = cursor.peek(tape, Format.JSON, max_bytes)
        count = min(most, len(chunk.entries))
        written += [entry.seq for entry in chunk.entries[:count]]
        cursor.advance(chunk, count)
    written += rest(cursor, tape)
    assert written == [seq for seq, topic in enumerate(topics, 1) if topic in (A, B)]
    assert cursor.had == had_now(tape, BOTH)


def test_a_chunk_is_as_long_as_allowed_but_never_empty_for_that() -> None:
    tape = tape_of(A, A, A)
    cursor = Cursor(BOTH, 0, {})
    assert [entry.seq for entry in cursor.peek(tape, Format.JSON, 24).entries] == [1, 2]
    assert cursor.peek(tape, Format.JSON, 24).reaches == 2
    assert [entry.seq for entry in cursor.peek(tape, Format.JSON, 23).entries] == [1]
    assert [entry.seq for entry in cursor.peek(tape, Format.JSON, 1).entries] == [1]


def test_a_long_stretch_of_other_topics_is_walked_in_parts() -> None:
    tape = tape_of(*[B] * (SCAN_AT_MOST + 1), A, max_entries=2 * SCAN_AT_MOST)
    cursor = Cursor(frozenset({A}), 0, {})
    chunk = cursor.peek(tape, Format.JSON, 100)
    assert (chunk.entries, chunk.reaches) == ([], SCAN_AT_MOST)
    cursor.advance(chunk, 0)
    assert cursor.position == SCAN_AT_MOST
    assert rest(cursor, tape) == [SCAN_AT_MOST + 2]


def test_it_is_overtaken_when_the_next_entry_has_left_the_tape_and_not_before() -> None:
    tape = tape_of(A, A, A, max_entries=3)
    cursor = Cursor(BOTH, 0, {})
    assert not cursor.overtaken(tape)
    tape.append(A, b"")
    assert cursor.overtaken(tape)
    cursor.position = 1
    assert not cursor.overtaken(tape)


def test_giving_up_counts_exactly_what_will_not_come() -> None:
    tape = tape_of(A, A, B, A, B, ("c", ""), A, max_entries=2)
    cursor = Cursor(BOTH, 1, {A: 1})
    missed, latest = cursor.skip(tape)
    assert missed == 3  # 2 and 4 of A, 3 of B
    assert [entry.seq for entry in latest] == [5, 7]
    assert rest(cursor, tape) == []
    assert cursor.skip(tape) == (0, [])


def test_giving_up_when_nothing_of_its_own_was_lost_counts_nothing() -> None:
    tape = tape_of(A, *[("c", "")] * 5, A, max_entries=2)
    missed, latest = Cursor(BOTH, 1, {A: 1}).skip(tape)
    assert (missed, [entry.seq for entry in latest]) == (0, [7])


def test_resuming_moves_back_for_its_topics_only() -> None:
    tape = tape_of(A, B, A, B, A)
    cursor = Cursor(BOTH, 5, had_now(tape, BOTH))
    cursor.resume(tape, frozenset({B}), 1)
    assert rest(cursor, tape) == [2, 4]


def test_resuming_a_client_that_is_further_back_leaves_its_other_topics_where_they_are() -> None:
    tape = tape_of(A, B, A, B, A)
    cursor = Cursor(BOTH, 1, {A: 1, B: 2})
    cursor.resume(tape, frozenset({B}), 3)
    assert cursor.position == 1
    assert rest(cursor, tape) == [3, 4, 5]
