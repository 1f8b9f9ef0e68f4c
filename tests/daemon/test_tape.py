"""The ring against a plain list, and an entry's bytes in each format."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.tape import NOTICE, STATUS, Entry, Tape, selects
from protocol.frames import text_frame
from protocol.messages import DataMessage, Error, Format, PriceUpdate, decode_message, encode
from protocol.session import ALL

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
def test_the_tape_is_the_end_of_the_list_of_all_messages(
    published: list[tuple[tuple[str, str], int]], max_entries: int, max_bytes: int
) -> None:
    tape = Tape(max_entries, max_bytes)
    everything: list[Entry] = []
    for topic, size in published:
        before = [each for each in everything if each.topic == topic]
        assert tape.last_seq(topic) == (before[-1].seq if before else 0)
        entry = tape.append(topic, b"." * size)
        everything.append(entry)
        assert (entry.seq, entry.ordinal, entry.payload) == (len(everything), len(before) + 1, b"." * size)
        assert tape.head == entry.seq
        assert tape.newest(topic) is entry
        kept = everything[tape.tail - 1 :]
        assert list(tape.between(tape.tail - 1, tape.head)) == kept
        assert tape.size_bytes == sum(len(each.text) for each in kept)
        assert 1 <= len(kept) <= max_entries
        assert tape.size_bytes <= max_bytes or len(kept) == 1
        if tape.tail > 1:  # nothing was given up without need
            more = tape.size_bytes + len(everything[tape.tail - 2].text)
            assert len(kept) == max_entries or more > max_bytes
    for after in range(-1, tape.head + 2):
        assert tape.holds(after) == (tape.tail - 1 <= after <= tape.head)
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


def test_all_of_a_channel_is_its_data_and_not_its_status() -> None:
    everything = frozenset({("a", ALL)})
    assert selects(everything, ("a", "X/U"))
    assert selects(everything, ("a", ""))
    assert not selects(everything, ("a", STATUS))
    assert not selects(everything, ("b", "X/U"))
    assert selects(frozenset({("a", STATUS)}), ("a", STATUS))


def test_snapshots_and_counts_are_about_data_only() -> None:
    assert [Entry(1, 1, topic, b"", "e").data for topic in TOPICS] == [True, True, False, True, False]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_the_payload_is_what_was_framed_whatever_its_length(size: int) -> None:
    payload = b"x" * size
    entry = Entry(1, 1, ("a", ""), payload, "e")
    assert entry.frame(Format.JSON) == text_frame(payload)
    assert entry.payload == payload


def test_the_other_formats_are_made_once_and_from_the_same_message() -> None:
    entry = Entry(7, 1, ("a", ""), update(b'{"n":1}'), "k3v")
    packed = entry.frame(Format.MSGPACK)
    message = unframed(packed, Format.MSGPACK)
    assert isinstance(message, PriceUpdate)
    assert msgspec.msgpack.decode(bytes(message.data)) == {"n": 1}
    assert entry.frame(Format.MSGPACK) is packed
    assert entry.frame(Format.SSE) == b"id: k3v-7\ndata: " + entry.payload + b"\n\n"


@pytest.mark.parametrize("body", [b'{"n":1e999}', b'{"s":"\xff"}', b"{"])
def test_what_messagepack_cannot_say_is_announced_in_its_place(body: bytes) -> None:
    payload = update(b"0").replace(b'"data":0', b'"data":' + body)
    message = unframed(Entry(7, 1, ("a", ""), payload, "k3v").frame(Format.MSGPACK), Format.MSGPACK)
    assert isinstance(message, Error)
    assert "7" in message.message
    assert message.timestamp == "T"


def test_two_tapes_are_told_apart_by_their_epochs() -> None:
    assert Tape(1, 1).epoch != Tape(1, 1).epoch
