"""A client's place on the tape: what comes next, what was missed, what is resumed."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from daemon.tape import cursor as cursors
from daemon.tape.cursor import CHUNK_ENTRIES, SCAN_AT_MOST, Cursor, had_now
from daemon.tape.tape import STATUS, Entry, Tape, Topic, selects
from protocol.messages import Format
from protocol.session import ALL
from tests.daemon.tape.counting import CountingTape

A, B = ("a", "X/U"), ("b", "X/U")
BOTH = frozenset({("a", ALL), B})


def tape_of(*topics: Topic, max_entries: int = 100) -> CountingTape:
    tape = CountingTape(max_entries, 10**7)
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


def test_a_long_stretch_of_other_topics_is_not_walked() -> None:
    tape = tape_of(A, *[B] * 20_000, A, *[B] * 20_000, max_entries=50_000)
    cursor = Cursor(frozenset({A}), 0, {})
    assert rest(cursor, tape) == [1, 20_002]
    assert tape.looked <= 3 * (SCAN_AT_MOST + CHUNK_ENTRIES)


topics = st.lists(st.sampled_from((A, B, ("a", "Y/U"), ("a", STATUS), ("c", ""))), max_size=60)


@given(topics, st.sets(st.sampled_from((A, ("a", ALL), ("a", STATUS), B, ("d", "")))), st.data())
def test_what_is_next_is_found_at_any_place_without_looking_at_many(
    published: list[Topic], selected: set[Topic], data: st.DataObject
) -> None:
    """The index and the walk agree, whatever the client has had of each topic."""
    with patch.object(cursors, "SCAN_AT_MOST", 2), patch.object(cursors, "CHUNK_ENTRIES", 4):
        max_entries = data.draw(st.integers(1, 60))
        tape, everything = tape_of(max_entries=max_entries), list[Entry]()
        for topic in published:
            if data.draw(st.integers(0, 9)) == 0:
                tape.break_at(tape.head + data.draw(st.integers(1, 5)))
            everything.append(tape.append(topic, b""))
        position = data.draw(st.integers(tape.gone, tape.head))
        had = {
            topic: max(tape.before_next(topic, position), data.draw(st.integers(0, 6)))
            for topic in dict.fromkeys(published)
        }
        cursor = Cursor(frozenset(selected), position, dict(had))
        expected = [
            each.seq
            for each in everything
            if each.seq > position and each.ordinal > had[each.topic] and selects(cursor.selection, each.topic)
        ]
        tape.looked = 0
        chunk = cursor.peek(tape, Format.JSON, 10**6)
        seqs = [entry.seq for entry in chunk.entries]
        assert seqs == expected[: len(seqs)]
        assert bool(seqs) == bool(expected)
        assert tape.looked <= 2 + 4 or tape.broken_at  # a break may hide a chunk's end
        assert chunk.to_head or chunk.reaches < tape.head or chunk.reaches % 4 == 0
        cursor.advance(chunk, len(seqs))
        assert seqs + rest(cursor, tape) == expected


def test_a_chunk_says_whether_there_may_be_more_of_it_later() -> None:
    tape = tape_of(*[A] * (CHUNK_ENTRIES + 1), max_entries=1000)
    cursor = Cursor(BOTH, 0, {})
    whole, short = cursor.peek(tape, Format.JSON, 10**6), cursor.peek(tape, Format.JSON, 30)
    assert (whole.reaches, whole.to_head, short.reaches, short.to_head) == (CHUNK_ENTRIES, False, 2, False)
    cursor.advance(whole, len(whole.entries))
    last = cursor.peek(tape, Format.JSON, 10**6)
    assert (last.reaches, last.to_head) == (CHUNK_ENTRIES + 1, True)
    nothing = Cursor(frozenset({("c", "")}), 0, {}).peek(tape, Format.JSON, 10**6)
    assert (nothing.entries, nothing.reaches, nothing.to_head) == ([], tape.head, True)


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
    missed, after, latest = cursor.skip(tape)
    assert missed == {"a": 2, "b": 1}  # 2 and 4 of A, 3 of B
    assert after == 1
    assert [entry.seq for entry in latest] == [5, 7]
    assert rest(cursor, tape) == []
    assert cursor.skip(tape) == ({}, tape.head, [])


def test_a_client_that_lost_nothing_of_its_own_is_not_overtaken() -> None:
    tape = tape_of(A, *[("c", "")] * 5, A, max_entries=2)
    cursor = Cursor(BOTH, 1, {A: 1})
    assert tape.gone == 5 > cursor.position
    assert not cursor.overtaken(tape)
    assert cursor.skip(tape) == ({}, 1, [])
    assert rest(cursor, tape) == [7]


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


@given(st.lists(st.tuples(st.sampled_from((A, B)), st.booleans()), min_size=3, max_size=60), st.sampled_from((5, 60)))
def test_what_stands_before_damaged_messages_is_resumed_like_any_other(
    published: list[tuple[Topic, bool]], max_entries: int
) -> None:
    """Those that were damaged on the disk leave breaks, and gaps in their topics' ordinals."""
    with patch.object(cursors, "SCAN_AT_MOST", 2):
        tape, stored = tape_of(max_entries=max_entries), tape_of(*[topic for topic, _ in published])
        for entry, (_, damaged) in zip(stored.between(0, stored.head), published, strict=True):
            if not damaged:
                if entry.seq > tape.head + 1:
                    tape.break_at(entry.seq - 1)
                tape.place(entry)
        for after in range(tape.gone, tape.head + 1):
            cursor = Cursor(BOTH, tape.head, had_now(tape, BOTH))
            cursor.resume(tape, BOTH, after)
            assert rest(cursor, tape) == [entry.seq for entry in tape.between(after, tape.head)]


def test_clients_at_one_place_have_had_the_same_also_of_a_topic_that_is_not_shown_any_more() -> None:
    tape = tape_of(A, B, A, B)
    further = Cursor(BOTH, 4, had_now(tape, BOTH))
    further.resume(tape, frozenset({B}), 0)
    behind = Cursor(BOTH, 4, had_now(tape, BOTH))
    behind.resume(tape, BOTH, 0)
    tape.forget(lambda topic: topic != A)
    three = BOTH | {("c", ALL)}
    cursors_now = [cursor.selecting(tape, three) for cursor in (further, behind)]
    assert [rest(cursor, tape) for cursor in cursors_now] == [[2, 4], [1, 2, 3, 4]]
    assert len({cursor.selecting(tape, three).place for cursor in (further, behind)}) == 2
