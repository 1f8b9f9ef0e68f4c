"""The frames, against wsproto (which parses what we build) and a parser written from the WHATWG's text."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from protocol.frames import binary_frame, close_frame, ping_frame, sse_event, sse_position, text_frame

BORDERS = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]


def parsed(frames: bytes) -> list[Event]:
    """What a client makes of the bytes of a server."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(frames)
    return list(client.events())


@pytest.mark.parametrize("size", BORDERS)
def test_a_text_frame_of_any_size_arrives_whole(size: int) -> None:
    assert parsed(text_frame(b"x" * size)) == [TextMessage(data="x" * size, frame_finished=True, message_finished=True)]


@pytest.mark.parametrize("size", BORDERS)
def test_a_binary_frame_of_any_size_arrives_whole(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert parsed(binary_frame(data)) == [BytesMessage(data=data, frame_finished=True, message_finished=True)]


@pytest.mark.parametrize(("size", "header"), [(125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_the_length_takes_as_few_bytes_as_it_may(size: int, header: int) -> None:
    # RFC 6455 section 5.2: the minimal number of bytes MUST be used; wsproto lets a longer form pass.
    assert len(binary_frame(bytes(size))) == header + size


@given(st.lists(st.tuples(st.booleans(), st.text())))
def test_frames_can_be_joined_into_one_write(messages: list[tuple[bool, str]]) -> None:
    written = b"".join(
        text_frame(text.encode()) if is_text else binary_frame(text.encode()) for is_text, text in messages
    )
    read = [event.data for event in parsed(written) if isinstance(event, TextMessage | BytesMessage)]
    assert read == [text if is_text else text.encode() for is_text, text in messages]


def test_a_ping_carries_its_payload() -> None:
    assert parsed(ping_frame()) == [Ping(payload=b"")]
    assert parsed(ping_frame(b"x" * 125)) == [Ping(payload=b"x" * 125)]


def test_a_ping_that_no_control_frame_can_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="126 bytes; at most 125"):
        ping_frame(b"x" * 126)


@given(st.sampled_from([1000, 1001, 1003, 1008, 1013, 4000, 4001]), st.text(max_size=140))
@example(1001, "x" * 123)
@example(1001, "x" * 124)
@example(1001, "x" * 122 + "€")
@example(1001, "😀" * 31)
@example(1001, "")
def test_a_close_reason_is_cut_between_characters(code: int, reason: str) -> None:
    frame = close_frame(code, reason)
    assert len(frame) <= 2 + 125
    [event] = parsed(frame)
    assert isinstance(event, CloseConnection)
    assert event.code == code
    kept = event.reason or ""
    assert reason.startswith(kept)
    # As much as fits: one character more would not have.
    assert kept == reason or len(reason[: len(kept) + 1].encode()) > 123


def test_a_close_reason_that_is_no_text_does_not_keep_the_frame_from_being_sent() -> None:
    [event] = parsed(close_frame(1011, "seen \ud800"))
    assert isinstance(event, CloseConnection)
    assert event.reason == "seen ?"


def event_source(stream: str) -> list[tuple[str, str]]:
    """The id and data of each event, by the steps of WHATWG HTML, section 9.2.6."""
    events: list[tuple[str, str]] = []
    data, last_id = "", ""
    *lines, unfinished = stream.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert unfinished == ""
    for line in lines:
        if line == "":
            if data != "":
                events.append((last_id, data.removesuffix("\n")))
            data = ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            last_id = value
    return events


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.integers(0))))
@example([("a\nb\r\nc\rd\n", 1), (" led by a space", 2), ("", 3), (":x", 4), ("id: 9", 5)])
def test_a_browser_reads_each_event_with_its_id(messages: list[tuple[str, int]]) -> None:
    written = b"".join(sse_event(text.encode(), f"k3v:{seq}") for text, seq in messages)
    expected = [(f"k3v:{seq}", text.replace("\r\n", "\n").replace("\r", "\n")) for text, seq in messages]
    assert event_source(written.decode()) == expected


def test_an_event_without_an_id_leaves_the_last_one_and_a_position_is_no_event() -> None:
    written = sse_event(b"1", "k3v-1") + sse_event(b"2") + sse_position("k3v-9") + sse_event(b"3")
    assert event_source(written.decode()) == [("k3v-1", "1"), ("k3v-1", "2"), ("k3v-9", "3")]


@pytest.mark.parametrize("event_id", ["a\nb", "a\rb", "a\0b"])
def test_an_event_id_that_would_break_the_stream_is_refused(event_id: str) -> None:
    with pytest.raises(ValueError, match="in the event id"):
        sse_event(b"{}", event_id)
    with pytest.raises(ValueError, match="in the event id"):
        sse_position(event_id)
