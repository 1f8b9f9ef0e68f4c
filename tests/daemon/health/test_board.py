"""What is known of each channel, and what of it clients are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Event, State, StateChange, TopicNote
from daemon.health.board import (
    MOST_TOPICS,
    Board,
    ChannelState,
    Condition,
    Source,
    TopicState,
    TopicVerdict,
    Verdict,
    status,
)
from daemon.host.clock import WallClock
from protocol.channels import Catalogue, Channel
from protocol.kinds import KINDS
from protocol.messages import Format, TopicStatus, decode_message, encode, to_msgpack
from tests.daemon.fanout.sink import CATALOGUE


@pytest.fixture
def board() -> Board:
    return Board(CATALOGUE, 1000)


def test_every_channel_begins_connecting_in_the_catalogues_order(board: Board) -> None:
    assert list(board.states().items()) == [(name, ChannelState("connecting", 1000)) for name in ("a", "b")]


def test_a_state_is_as_old_as_the_state_and_not_as_its_reason(board: Board) -> None:
    assert board.apply(StateChange("a", "down", "refused", 5.0), 2000) == ChannelState("down", 2000, "refused", 5.0)
    assert board.apply(StateChange("a", "down", "no route", 5.0), 3000) == ChannelState("down", 2000, "no route", 5.0)
    assert board.apply(StateChange("a", "down", "no route", 9.0), 3500) == ChannelState("down", 2000, "no route", 9.0)
    assert board.apply(StateChange("a", "live"), 4000) == ChannelState("live", 4000)
    assert board.state("b") == ChannelState("connecting", 1000)


def test_the_log_tells_when_data_begins_and_ends_and_not_each_attempt_in_between(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    states: tuple[State, ...] = ("reconnecting", "connecting", "down", "connecting", "live", "stale", "reconnecting")
    for state in states:
        board.apply(StateChange("a", state), 2000)
    assert [record.getMessage() for record in caplog.records] == [
        "channel a is live, was connecting",
        "channel a is stale, was live",
        "channel a is reconnecting, was stale",
    ]


def test_what_changes_nothing_is_not_told(board: Board) -> None:
    assert board.apply(StateChange("a", "connecting"), 2000) is None
    assert board.apply(StateChange("gone", "live"), 2000) is None
    assert board.states()["a"].since_ms == 1000
    assert "gone" not in board.states()


def test_the_last_events_time_is_kept_beside_the_state(board: Board) -> None:
    assert board.state("a").last_event_ms is None
    board.saw(Event("a", "X/U", b"{}", 1500))
    board.apply(StateChange("a", "live"), 1600)
    assert board.state("a") == ChannelState("live", 1600, last_event_ms=1500)
    assert board.states()["b"].last_event_ms is None


def test_what_was_stamped_before_the_clock_was_set_back_is_as_old_as_it_was(board: Board) -> None:
    board.apply(StateChange("a", "live"), 9_000)
    board.saw(Event("a", "X/U", b"{}", 10_000))
    board.clock_was_set_back(4_000)
    board.clock_was_set_back(500)
    assert board.state("a").last_event_ms == 5_500
    assert board.state("a").since_ms == 4_500
    assert board.state("b").last_event_ms is None
    board.saw(Event("a", "X/U", b"{}", 10_000, cached=True))
    assert board.state("a").last_event_ms == 5_500, "a repeat is no younger"
    board.saw(Event("a", "X/U", b"{}", 6_000))
    assert board.state("a").last_event_ms == 6_000


def test_an_unknown_channel_has_no_state(board: Board) -> None:
    with pytest.raises(KeyError):
        board.state("gone")


# Several who know something about a channel.


def stale(channel: str = "a", reason: str = "no message for 2.0 s") -> Verdict:
    return Verdict(channel, "freshness", "stale", reason)


def remark(reason: str = "X/U: apart") -> Verdict:
    return Verdict("a", "crosscheck", "live", reason)


def well(source: Source) -> Verdict:
    return Verdict("a", source, "live")


def told(state: ChannelState | None) -> tuple[str, str] | None:
    return None if state is None else (state.state, state.reason)


def test_the_worst_is_told_with_all_reasons_and_healing_one_does_not_wipe_out_the_other(board: Board) -> None:
    assert told(board.apply(StateChange("a", "live", "asking every 60 s"), 2000)) == ("live", "asking every 60 s")
    assert told(board.apply(remark(), 3000)) == ("live", "asking every 60 s; X/U: apart")
    assert told(board.apply(stale(), 4000)) == ("stale", "asking every 60 s; no message for 2.0 s; X/U: apart")
    assert told(board.apply(well("crosscheck"), 5000)) == ("stale", "asking every 60 s; no message for 2.0 s")
    assert board.state("a").since_ms == 4000
    assert told(board.apply(remark(), 6000)) == ("stale", "asking every 60 s; no message for 2.0 s; X/U: apart")
    assert told(board.apply(well("freshness"), 7000)) == ("live", "asking every 60 s; X/U: apart")
    assert told(board.apply(well("crosscheck"), 8000)) == ("live", "asking every 60 s")
    assert board.state("a").since_ms == 7000


def test_a_connector_that_is_not_connected_speaks_for_itself_and_begins_anew(board: Board) -> None:
    board.apply(StateChange("a", "live"), 2000)
    board.apply(stale(), 3000)
    board.apply(remark(), 3000)
    assert told(board.apply(StateChange("a", "reconnecting", "no route", 4.0), 4000)) == ("reconnecting", "no route")
    assert board.apply(stale(), 4500) is None, "no news where there is no link"
    board.apply(well("freshness"), 4600)
    assert told(board.apply(StateChange("a", "connecting"), 5000)) == ("connecting", "")
    assert told(board.apply(stale(reason="no data"), 6000)) == ("stale", "no data")
    assert told(board.apply(StateChange("a", "stale", "refused: Y/U"), 7000)) == ("stale", "refused: Y/U")
    assert board.verdict("a", "freshness") is None
    assert told(board.apply(StateChange("a", "live"), 8000)) == ("live", "")


def test_a_verdict_that_changes_nothing_is_not_told(board: Board) -> None:
    board.apply(StateChange("a", "live"), 2000)
    assert board.apply(well("freshness"), 2500) is None
    board.apply(stale(), 3000)
    assert board.apply(stale(), 3500) is None
    assert board.apply(stale("gone"), 3500) is None
    assert board.verdict("a", "freshness") == stale()
    assert board.verdict("a", "crosscheck") is None


def test_repeats_are_told_from_what_is_fresh(board: Board) -> None:
    def saw(received_ms: int, *, cached: bool, lifetime_s: float = 0.0) -> None:
        board.saw(Event("a", "X/U", b"{}", received_ms, cached=cached, lifetime_s=lifetime_s))

    saw(1000, cached=False, lifetime_s=60)
    saw(1000, cached=True)
    seen = board.seen("a")
    assert (seen.events, seen.fresh) == (2, 1)
    assert seen.newest is not None
    assert seen.newest.lifetime_s == 60
    saw(1000, cached=True, lifetime_s=30)
    assert (seen.events, seen.fresh, seen.newest.lifetime_s) == (3, 2, 30)
    board.saw(Event("gone", "X/U", b"{}", 1000))
    assert "gone" not in board.states()


def test_how_long_a_channel_may_be_silent_is_part_of_its_state(board: Board) -> None:
    assert board.state("a").stale_after_s is None
    board.expect("a", 25.0)
    assert [state.stale_after_s for state in board.states().values()] == [25.0, None]


STATES: tuple[State, ...] = ("connecting", "live", "stale", "reconnecting", "down")
changes = st.one_of(
    st.builds(StateChange, st.just("a"), st.sampled_from(STATES), st.sampled_from(["", "why", "else"])),
    st.builds(stale, st.just("a"), st.sampled_from(["silence", "repeats"])),
    st.builds(remark, st.sampled_from(["apart", "frozen"])),
    st.builds(well, st.sampled_from(["freshness", "crosscheck"])),
)


@given(st.lists(changes, max_size=30))
def test_something_is_told_exactly_when_what_a_client_sees_changes(steps: list[StateChange | Verdict]) -> None:
    board, seen = Board(CATALOGUE, 0), ("connecting", "")
    connector, held = StateChange("a", "connecting"), dict[str, Verdict]()
    for now_ms, change in enumerate(steps, 1):
        news = board.apply(change, now_ms)
        assert (news is not None) == (told(board.state("a")) != seen)
        seen = told(board.state("a")) or seen
        if isinstance(change, StateChange):
            connector = change
            held = held if change.state in ("live", "connecting") else {}
        elif change.reason:
            held[change.source] = change
        else:
            held.pop(change.source, None)
        counts = held if connector.state in ("live", "connecting") else {}
        assert seen[0] == ("stale" if "freshness" in counts else connector.state)
        assert all(verdict.reason in seen[1] for verdict in counts.values())
        assert connector.reason in seen[1]


# Single instruments.

HALTED = Condition("down", "halted", "not trading: its book is empty")
REMARK = Condition("live", "unreadable", "`lastPrice` is null")
MUTE = Condition("stale", "silent", "no message for 25.0 s")


def test_one_instruments_trouble_is_told_by_name_and_is_the_channels_only_if_it_is_that_of_all(board: Board) -> None:
    board.apply(StateChange("a", "live"), 1500)
    one = board.apply(TopicVerdict("a", {"Y/U": HALTED}), 2000)
    assert told(one) == ("live", "Y/U: not trading: its book is empty")
    assert one is not None
    assert one.topics == {"Y/U": TopicState(HALTED, 2000)}
    assert told(board.apply(TopicVerdict("a", {"X/U": REMARK, "Y/U": HALTED}), 2500)) == (
        *("live", "X/U: `lastPrice` is null; Y/U: not trading: its book is empty"),
    )
    both = board.apply(TopicVerdict("a", {"X/U": MUTE, "Y/U": HALTED}), 3000)
    assert told(both) == ("stale", "X/U: no message for 25.0 s; Y/U: not trading: its book is empty")
    assert both is not None
    assert both.topics["Y/U"].since_ms == 2000, "another instrument's trouble does not make it younger"
    assert board.apply(TopicVerdict("a", {"X/U": MUTE, "Y/U": HALTED}), 3500) is None
    assert board.lacking("a") == {"X/U": (None, MUTE.reason), "Y/U": (None, HALTED.reason)}
    assert told(board.apply(StateChange("a", "reconnecting", "no route"), 4000)) == ("reconnecting", "no route")
    assert board.state("a").topics == {}
    assert board.lacking("a") == {}


def test_a_status_describes_the_topics_and_is_bounded_whatever_their_number() -> None:
    names = tuple(f"C{number}/U" for number in range(200))
    board = Board(Catalogue([Channel(name="a", exchange="okx", kind=KINDS["ticker"], instruments=names)]), 0)
    board.apply(StateChange("a", "live"), 0)
    state = board.apply(TopicVerdict("a", dict.fromkeys(names[:-1], HALTED)), 1_765_211_445_123)
    assert state is not None
    message = status("a", state, WallClock(), "2025-12-08T16:30:45.123Z")
    assert isinstance(message.topics, dict)
    assert (len(message.topics), message.topics_left_out) == (MOST_TOPICS, 199 - MOST_TOPICS)
    assert message.topics["C0/U"] == TopicStatus(
        state="down", cause="halted", since="2025-12-08T16:30:45.123Z", reason=HALTED.reason
    )
    assert message.reason.endswith("; and 196 more instruments")
    assert len(encode(message)) < 16_384
    assert decode_message(to_msgpack(encode(message)), Format.MSGPACK) == message


def test_what_is_noted_of_what_is_not_there_is_nothing(board: Board) -> None:
    board.note(TopicNote("gone", "X/U", "halted", "why"))
    board.withdraw("gone", "X/U", "halted")
    board.withdraw("a", "X/U", "halted")
    board.apply(TopicVerdict("gone", {"X/U": HALTED}), 1)
    assert "gone" not in board.states()
