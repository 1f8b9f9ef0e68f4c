"""Batches in, events out: in order, in bounded pieces, and what becomes of the unreadable."""

import logging
from collections.abc import Sequence

import pytest

from connectors.base import Event, PayloadError, StateChange
from connectors.push.inlet import Batch
from connectors.push.intake import BAD_IN_A_ROW, EVENTS_AT_ONCE, FeedStatistics, Intake
from connectors.push.venue import Ack, Control, FeedRules, Request

NOW = 1_765_211_445_122


class Letters:
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

    def subscribe_requests(self) -> list[Request]:
        return []

    def order_key(self, event: Event) -> int | None:
        raise AssertionError("the intake takes events as they come")

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Control:
        if payload.startswith(b"d"):
            return [Event("letters", "A/B", payload, received_ms)]
        if payload == b"e":
            return []
        if payload == b"a":
            return Ack("")
        raise PayloadError(f"not a letter: {payload!r}")


class Log:
    """A context, and all else that the intake talks to: everything in the order in which it happened."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.sizes: list[int] = []

    async def publish(self, events: Sequence[Event]) -> None:
        self.sizes.append(len(events))
        self.said += [event.data for event in events]

    async def report(self, change: StateChange) -> None:
        raise AssertionError(change)

    def now_ms(self) -> int:
        raise AssertionError("the batch has its own stamp")

    async def heed(self, control: Control) -> None:
        self.said.append(control)

    def heard(self, channels: set[str]) -> None:
        self.said.append(channels)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def counts() -> FeedStatistics:
    return FeedStatistics()


@pytest.fixture
def intake(log: Log, counts: FeedStatistics) -> Intake:
    return Intake(Letters(), log, counts, heed=log.heed, heard=log.heard)


async def test_data_and_control_keep_their_order(intake: Intake, log: Log, counts: FeedStatistics) -> None:
    assert await intake.take(Batch([b"d1", b"d2", b"a", b"d3", b"e"], NOW))
    one = {"letters"}
    assert log.said == [b"d1", b"d2", one, Ack(""), b"d3", one]
    assert counts == FeedStatistics(frames=5, events=3, empty=1)


async def test_a_batch_without_data_is_no_sign_of_life(intake: Intake) -> None:
    assert not await intake.take(Batch([b"a", b"?"], NOW))
    assert await intake.take(Batch([b"e"], NOW))


async def test_many_events_are_published_in_bounded_pieces(intake: Intake, log: Log) -> None:
    await intake.take(Batch([b"d"] * (2 * EVENTS_AT_ONCE + 7), NOW))
    assert log.sizes == [EVENTS_AT_ONCE, EVENTS_AT_ONCE, 7]


async def test_one_bad_frame_is_left_out_and_counted(
    intake: Intake, log: Log, counts: FeedStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await intake.take(Batch([b"d1", b"?", b"d2"], NOW))
    assert log.said == [b"d1", b"d2", {"letters"}]
    assert counts.unreadable == 1
    assert "letters: unreadable frame (number 1): not a letter: b'?'" in caplog.messages


async def test_more_than_ten_bad_frames_in_a_row_are_too_many(intake: Intake, log: Log) -> None:
    for _ in range(3):
        await intake.take(Batch([*[b"?"] * BAD_IN_A_ROW, b"d"], NOW))
    await intake.take(Batch([b"?"] * BAD_IN_A_ROW, NOW))
    with pytest.raises(PayloadError, match="too much cannot be read; at last: not a letter: b'!'"):
        await intake.take(Batch([b"!"], NOW))


async def test_half_of_a_hundred_bad_frames_are_too_many_and_the_good_ones_are_published(
    intake: Intake, log: Log, counts: FeedStatistics
) -> None:
    with pytest.raises(PayloadError):
        await intake.take(Batch([b"d", b"?"] * 50, NOW))
    assert counts == FeedStatistics(frames=100, events=50, unreadable=50)


async def test_a_third_bad_frames_are_borne_and_logged_ever_less(
    intake: Intake, counts: FeedStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await intake.take(Batch([b"d", b"d", b"?"] * 300, NOW))
    assert counts.unreadable == 300
    assert len(caplog.messages) == 9
