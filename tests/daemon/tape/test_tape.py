"""The tape against a plain list, and an entry's bytes in each format."""

import gc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.tape.tape import NOTICE, STATUS, Entry, OutOfPositions, Positions, Tape, Topic, selects
from protocol.frames import text_frame
from protocol.messages import DataMessage, Error, Format, PriceUpdate, decode_message, encode
from protocol.session import ALL
from tests.daemon.tape.listed import ListedTape

TOPICS = (("a", "X/U"), ("a", "Y/U"), ("a", STATUS), ("b", ""), NOTICE)
messages = st.lists(st.tuples(st.sampled_from(TOPICS), st.integers(0, 300)), max_size=40)


def update(data: bytes) -> bytes:
    return encode(
        PriceUpdate(
            connector_id="a", exchange="okx", timestamp="T", seq=1, prev_seq=0, received_ms=1, data=msgspec.Raw(data)
        )
    )


def unframed(frame: bytes, format: Format) -> DataMessage | object:
    return decode_message(frame[2 if frame[1] < 126 else 4 :], format)


@given(messages, st.integers(1, 10), st.integers(1, 800))
def test_the_tape_is_what_the_rule_leaves_of_the_list_of_all_messages(
    published: list[tuple[tuple[str, str], int]], max_entries: int, max_bytes: int
) -> None:
    tape, listed = Tape(max_entries, max_bytes), ListedTape(max_entries, max_bytes)
    everything: list[Entry] = []
    for topic, size in published:
        before = [each for each in everything if each.topic == topic]
        assert tape.last_seq(topic) == (before[-1].seq if before else 0)
        entry = tape.append(topic, b"." * size)
        everything.append(entry)
        size_before, listed_before = listed.size_bytes, len(listed.kept)
        listed.add(entry)
        assert (entry.seq, entry.ordinal, entry.payload) == (len(everything), len(before) + 1, b"." * size)
        assert tape.head == entry.seq
        assert tape.newest(topic) is entry
        kept = listed.kept
        assert tape.tail == (kept[0].seq if kept else tape.head + 1)
        assert list(tape.between(tape.tail - 1, tape.head)) == kept
        assert len(tape) == len(kept) == tape.count_beyond(0)
        assert tape.size_bytes == sum(len(each.text) for each in kept)
        assert 1 <= len(kept) <= max_entries
        assert tape.size_bytes <= max_bytes or len(kept) == 1
        assert {share.channel: share.gone for share in tape.shares() if share.gone} == listed.gone
        if len(kept) <= listed_before:  # nothing was given up without need
            assert listed_before == max_entries or size_before + len(entry.text) > max_bytes
        assert tape.gone == max(listed.gone.values(), default=0)
    for after in range(-1, tape.head + 2):
        assert tape.holds(after) == (tape.gone <= after <= tape.head)
        assert list(tape.between(after, tape.head)) == [each for each in listed.kept if each.seq > after]
        assert tape.count_beyond(after) == sum(each.seq > after for each in listed.kept)
        if tape.holds(after):
            assert [each.seq for each in tape.between(after, tape.head)] == list(range(after + 1, tape.head + 1))


@given(messages, st.integers(0, 40), st.sets(st.sampled_from((*TOPICS, ("a", ALL), ("b", ALL)))))
def test_the_newest_of_each_selected_topic_outlives_the_ring(
    published: list[tuple[tuple[str, str], int]], after: int, selected: set[tuple[str, str]]
) -> None:
    tape = Tape(2, 10**6)
    newest = {topic: tape.append(topic, b"").seq for topic, _ in published}
    selection = frozenset(selected)
    expected = sorted(seq for topic, seq in newest.items() if seq > after and selects(selection, topic))
    assert [entry.seq for entry in tape.latest(selection, after)] == expected


steps = st.lists(
    st.one_of(st.tuples(st.sampled_from(TOPICS), st.integers(0, 300)), st.integers(1, 9)), min_size=1, max_size=30
)
"""Messages, and breaks that leave out so many positions."""


@given(steps, st.integers(1, 10), st.integers(1, 2000))
def test_positions_with_holes_are_found_as_in_a_plain_list(
    published: list[tuple[tuple[str, str], int] | int], max_entries: int, max_bytes: int
) -> None:
    tape, listed = Tape(max_entries, max_bytes), ListedTape(max_entries, max_bytes)
    everything: list[Entry] = []
    broken_at = 0
    for step in published:
        if isinstance(step, int):
            broken_at = tape.head + step
            tape.break_at(broken_at)
        else:
            topic, size = step
            entry = tape.append(topic, b"." * size)
            assert tape.last_seq(topic) == entry.seq
            everything.append(entry)
            listed.add(entry)
        assert tape.broken_at == broken_at
        kept = listed.kept
        gone = [each for each in everything if each not in kept]
        assert tape.tail == (kept[0].seq if kept else tape.head + 1)
        assert tape.size_bytes == sum(len(each.text) for each in kept)
        places = {each.seq for each in everything} | {each.seq - 1 for each in everything} | {tape.head}
        for after in range(-1, tape.head + 2):
            here = [each for each in kept if each.seq > after]
            assert list(tape.between(after, tape.head)) == here
            assert list(tape.between(after, after + 3)) == [each for each in here if each.seq <= after + 3]
            if any(each.seq > after for each in gone) or after < 0:
                assert not tape.holds(after)
            elif kept and after >= kept[0].seq - 1:
                assert tape.holds(after) == (after in places)
    for topic in TOPICS:
        assert tape.last_seq(topic) == max([broken_at, *(each.seq for each in everything if each.topic == topic)])


@given(messages, st.integers(1, 6))
def test_what_a_topic_had_at_a_position_is_known_though_it_has_left_the_ring(
    published: list[tuple[tuple[str, str], int]], max_entries: int
) -> None:
    tape = Tape(max_entries, 10**6)
    everything = [tape.append(topic, b"") for topic, _ in published]
    kept = ListedTape(max_entries, 10**6, everything).kept
    for topic in TOPICS:
        of_topic = [each for each in everything if each.topic == topic]
        for after in range(tape.head + 1):
            whole = all(each in kept for each in of_topic if each.seq > after)
            assert tape.whole(topic, after) == whole
            if not whole:
                assert tape.count_at(topic, after) == sum(each.seq <= after for each in of_topic)


def test_what_a_topic_had_is_not_known_further_back_than_its_known_positions() -> None:
    known = Positions()
    known.add(10, 7)
    known.add(20, 8)
    assert (known.count_at(9), known.count_at(10), known.count_at(20)) == (None, 7, 8)
    known.add(50, 12)  # 9 to 11 are not known
    assert (known.count_at(20), known.count_at(49), known.count_at(50)) == (None, None, 12)
    assert known.before_next(20) == 11, "the next one that is known is the twelfth"


def test_a_position_that_is_not_reserved_is_refused() -> None:
    tape = Tape(10, 10**6)
    tape.limit = 1
    tape.append(TOPICS[0], b"")
    with pytest.raises(OutOfPositions, match="position 2"):
        tape.append(TOPICS[0], b"")
    assert tape.head == 1


def test_topics_that_are_gone_are_not_shown_any_more() -> None:
    tape = Tape(1, 10**6)
    for topic in TOPICS:
        tape.append(topic, b"")
    assert len(tape.outliving()) == len(TOPICS) - 1
    tape.forget(lambda topic: topic[0] == "a")
    assert {entry.topic for entry in tape.outliving()} == {topic for topic in TOPICS if topic[0] == "a"}
    assert tape.newest(NOTICE) is None


def test_all_of_a_channel_is_its_data_and_not_its_status() -> None:
    everything = frozenset({("a", ALL)})
    assert selects(everything, ("a", "X/U"))
    assert selects(everything, ("a", ""))
    assert not selects(everything, ("a", STATUS))
    assert not selects(everything, ("b", "X/U"))
    assert selects(frozenset({("a", STATUS)}), ("a", STATUS))


def test_snapshots_and_counts_are_about_data_only() -> None:
    assert [Entry.of(1, 1, topic, b"", "e").data for topic in TOPICS] == [True, True, False, True, False]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_the_payload_is_what_was_framed_whatever_its_length(size: int) -> None:
    payload = b"x" * size
    entry = Entry.of(1, 1, ("a", ""), payload, "e")
    assert entry.frame(Format.JSON) == text_frame(payload)
    assert entry.payload == payload


def test_the_other_formats_are_made_once_and_from_the_same_message() -> None:
    entry = Entry.of(7, 1, ("a", ""), update(b'{"n":1}'), "k3v")
    packed = entry.frame(Format.MSGPACK)
    message = unframed(packed, Format.MSGPACK)
    assert isinstance(message, PriceUpdate)
    assert msgspec.msgpack.decode(bytes(message.data)) == {"n": 1}
    assert entry.frame(Format.MSGPACK) is packed
    assert entry.frame(Format.SSE) == b"id: k3v-7\ndata: " + entry.payload + b"\n\n"


@pytest.mark.parametrize("topic", [("a", STATUS), NOTICE])
def test_in_an_event_stream_only_data_has_a_position(topic: Topic) -> None:
    assert Entry.of(7, 1, topic, b"{}", "k3v").frame(Format.SSE) == b"data: {}\n\n"


@pytest.mark.parametrize("body", [b'{"n":1e999}', b'{"s":"\xff"}', b"{"])
def test_what_messagepack_cannot_say_is_announced_in_its_place(body: bytes) -> None:
    payload = update(b"0").replace(b'"data":0', b'"data":' + body)
    message = unframed(Entry.of(7, 1, ("a", ""), payload, "k3v").frame(Format.MSGPACK), Format.MSGPACK)
    assert isinstance(message, Error)
    assert "7" in message.message
    assert message.timestamp == "T"


def test_two_tapes_are_told_apart_by_their_epochs() -> None:
    assert Tape(1, 1).epoch != Tape(1, 1).epoch


def test_the_garbage_collector_does_not_look_at_what_is_on_the_tape() -> None:
    """A full tape has a hundred thousand entries: looking at them would hold up everybody for a tenth of a second."""
    tape = Tape(100, 100_000)
    assert not gc.is_tracked(tape.append(("a", "X/U"), b"{}"))
