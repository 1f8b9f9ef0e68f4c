"""Batches in, events out: in order, in bounded pieces, and what becomes of the unreadable."""

import logging

import pytest

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.push.inlet import Batch
from connectors.push.intake import BAD_IN_A_ROW, EVENTS_AT_ONCE, FeedStatistics, Intake
from connectors.push.venue import Control, Conversation, FeedRules, SubscribeAck, SubscribeRequest
from protocol.messages import TopicCause

NOW = 1_765_211_445_122


class Letters(Conversation):
    """A venue whose payloads say what they are: `d1` data, `e` data without an event, `a` an acknowledgement."""

    name = title = "letters"
    channels = ("letters",)
    rules = FeedRules(
        ping="",
        ping_after_s=1,
        pong_s=1,
        requests_per_hour=1,
        connect_spacing_s=0,
        fatal_close_codes=frozenset(),
    )

    def subscribe_requests(self) -> list[SubscribeRequest]:
        return []

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        if payload.startswith(b"d"):
            return [Event("letters", "A/B", payload, received_ms)]
        if payload == b"e":
            return []
        if payload == b"a":
            return SubscribeAck("")
        raise PayloadError(f"not a letter: {payload!r}")


@pytest.fixture
def counts() -> FeedStatistics:
    return FeedStatistics()


@pytest.fixture
def intake(counts: FeedStatistics) -> Intake:
    return Intake("letters", Letters(), counts)


def read(intake: Intake, *payloads: bytes) -> list[list[bytes] | Rows | Control]:
    """What comes of one batch: of events their data."""
    return [
        [event.data for event in said] if isinstance(said, list) else said
        for said in intake.read(Batch(list(payloads), NOW))
    ]


def test_data_and_control_keep_their_order(intake: Intake, counts: FeedStatistics) -> None:
    assert read(intake, b"d1", b"d2", b"a", b"d3", b"e") == [[b"d1", b"d2"], SubscribeAck(""), [b"d3"]]
    assert counts == FeedStatistics(frames=5, empty=1)


def test_a_batch_without_data_is_no_sign_of_life_and_one_without_events_is(intake: Intake) -> None:
    assert read(intake, b"a", b"?") == [SubscribeAck("")]
    assert read(intake, b"e") == [[]]


def test_many_events_are_handed_on_in_bounded_pieces(intake: Intake) -> None:
    said = read(intake, *[b"d"] * (2 * EVENTS_AT_ONCE + 7))
    assert [len(events) for events in said if isinstance(events, list)] == [EVENTS_AT_ONCE, EVENTS_AT_ONCE, 7]


def test_nothing_is_read_before_it_is_asked_for(intake: Intake, caplog: pytest.LogCaptureFixture) -> None:
    pieces = intake.read(Batch([b"d", b"a", b"?"], NOW))
    with caplog.at_level(logging.WARNING):
        assert len([next(pieces), next(pieces)]) == 2
        assert caplog.messages == []
        assert list(pieces) == [[]]
        assert len(caplog.messages) == 1


def test_one_bad_frame_is_left_out_and_counted(
    intake: Intake, counts: FeedStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(intake, b"d1", b"?", b"d2") == [[b"d1", b"d2"]]
    assert counts.unreadable == 1
    assert "letters: unreadable frame (number 1): not a letter: b'?'" in caplog.messages


def test_more_than_ten_bad_frames_in_a_row_are_too_many(intake: Intake) -> None:
    for _ in range(3):
        read(intake, *[b"?"] * BAD_IN_A_ROW, b"d")
    read(intake, *[b"?"] * BAD_IN_A_ROW)
    with pytest.raises(PayloadError, match="too much cannot be read; at last: not a letter: b'!'"):
        read(intake, b"!")


def test_half_of_a_hundred_bad_frames_are_too_many_and_the_good_ones_are_handed_on(
    intake: Intake, counts: FeedStatistics
) -> None:
    said = intake.read(Batch([b"d", b"?"] * 50, NOW))
    events = next(said)
    assert isinstance(events, list)
    assert len(events) == 50
    with pytest.raises(PayloadError):
        next(said)
    assert counts == FeedStatistics(frames=100, unreadable=50)


def test_a_third_bad_frames_are_borne_and_logged_ever_less(
    intake: Intake, counts: FeedStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        read(intake, *[b"d", b"d", b"?"] * 300)
    assert counts.unreadable == 300
    assert len(caplog.messages) == 9


class _Rows(Letters):
    """Letters of which capitals are odd rows: alone, or beside a good one."""

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        if payload.isupper():
            cause: TopicCause = "halted" if payload == b"H" else "unreadable"
            good = [Event("c", "X/U", b"good", received_ms)] if payload == b"BOTH" else []
            return Rows(good, [TopicNote("c", "Y/U", cause, payload.decode())])
        return super().handle(payload, received_ms)


def test_odd_rows_are_noted_at_the_end_of_the_batch_and_are_no_reason_to_give_up(counts: FeedStatistics) -> None:
    intake = Intake("letters", _Rows(), counts)
    odd = read(intake, *[b"X"] * 100)
    assert [len(said.notes) for said in odd if isinstance(said, Rows)] == [100]
    assert len(odd) == 1, "what cannot be read is no data, by which the venue would seem to be alive"
    [events, notes] = read(intake, b"X", b"BOTH", b"X")
    assert events == [b"good"]
    assert isinstance(notes, Rows)
    assert [note.reason for note in notes.notes] == ["X", "BOTH", "X"]
    assert read(intake, b"H")[0] == [], "a pair that is not traded is data without an event"
    assert (counts.unreadable, counts.odd_rows) == (0, 104)
