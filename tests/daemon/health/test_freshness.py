"""The freshness contract of one channel: when it is broken, by what, and when it is whole again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Event, State, StateChange
from daemon.health.board import Seen
from daemon.health.freshness import FIRST_S, LONGEST_S, ORDINARY_S, SHORTEST_S, UNKNOWN_S, WAKING_S, Freshness, Pauses
from daemon.health.watch import LOOK_S
from protocol.channels import Channel
from protocol.kinds import KINDS

PUSHED = Channel(name="x", exchange="okx", kind=KINDS["ticker"], instruments=("X/U",))
SCHEDULED = Channel(name="x", exchange="coingecko", kind=KINDS["global"], instruments=("X/U",), cadence_s=10.0)
CONFIGURED = Channel(name="x", exchange="okx", kind=KINDS["ticker"], instruments=("X/U",), stale_after_s=100.0)


class Watched:
    """A contract, looked at as often as in the daemon, and what happened at which look."""

    def __init__(self, channel: Channel = PUSHED, state: State = "live") -> None:
        self.now_s = 1000.0
        self.contract = Freshness(channel, self.now_s)
        self.seen = Seen()
        self.connector = StateChange("x", state)
        self.told: list[tuple[float, str]] = []
        self._reason = ""

    def message(self, *, cached: bool = False, lifetime_s: float = 0.0) -> None:
        event = Event("x", "X/U", b"{}", 1, cached=cached, lifetime_s=lifetime_s)
        self.seen.events += 1
        self.seen.last = event
        if not cached or lifetime_s:
            self.seen.fresh += 1
            self.seen.newest = event

    def becomes(self, state: State) -> None:
        self.connector = StateChange("x", state)

    def look(self) -> str:
        reason = self.contract.look(self.connector, self.seen, self.now_s)
        if reason != self._reason:
            self.told.append((self.now_s - 1000.0, reason))
            self._reason = reason
        return reason

    def wait(self, seconds: float, every_s: float = 0.0, **message: bool) -> None:
        """So much time passes; a message comes `every_s`, if that is given."""
        end_s, next_s = self.now_s + seconds, self.now_s + every_s
        while self.now_s < end_s - 1e-9:
            self.now_s += LOOK_S
            while every_s and next_s <= self.now_s + 1e-9:
                self.message(**message)
                next_s += every_s
            self.look()


def test_a_schedule_may_lose_one_message_and_not_two() -> None:
    watched = Watched(SCHEDULED)
    watched.wait(60, every_s=10)
    watched.wait(24.75)
    assert watched.told == []
    watched.wait(1)
    assert watched.told == [(85.0, "no message for 25.0 s, where one is due every 10 s")]


def test_it_is_whole_again_with_the_first_message_and_is_told_once() -> None:
    watched = Watched(SCHEDULED)
    watched.message()
    watched.wait(300)
    watched.message()
    watched.wait(20, every_s=10)
    assert [reason != "" for _, reason in watched.told] == [True, False]


def test_a_market_that_moves_all_the_time_is_missed_within_seconds() -> None:
    watched = Watched()
    watched.wait(240, every_s=0.2)
    assert watched.contract.stale_after_s == SHORTEST_S
    watched.wait(3)
    [(at_s, reason)] = watched.told
    assert at_s == 240 + SHORTEST_S
    assert reason == "no message for 2.0 s, where the longest pause of a minute is usually 0.2 s"


def test_nothing_is_called_late_that_fast_before_the_pauses_are_known() -> None:
    watched = Watched()
    watched.wait(100, every_s=0.25)
    watched.wait(UNKNOWN_S - LOOK_S)
    assert watched.told == []
    watched.wait(1)
    assert len(watched.told) == 1


def test_a_market_that_trades_once_an_hour_is_learned_and_then_left_alone() -> None:
    watched = Watched()
    watched.message()
    watched.wait(4 * 3600, every_s=3600)
    before = len(watched.told)
    watched.wait(12 * 3600, every_s=3600)
    assert len(watched.told) == before
    watched.wait(3 * 3600)
    assert len(watched.told) == before + 1, "and yet it is missed when it stays away for good"


def test_single_outages_do_not_teach_it_to_be_patient() -> None:
    watched = Watched()
    for _ in range(10):
        watched.wait(120, every_s=0.5)
        watched.wait(29)
    assert watched.contract.stale_after_s < 3


def test_what_is_configured_wins() -> None:
    watched = Watched(CONFIGURED)
    watched.wait(240, every_s=0.5)
    watched.wait(99)
    assert watched.told == []
    watched.wait(2)
    assert watched.told == [(340.0, "no message for 100.0 s, over the limit of 100 s")]


def test_a_connection_that_is_mute_from_the_start_is_told() -> None:
    watched = Watched(state="connecting")
    watched.wait(FIRST_S + 10)
    [(at_s, reason)] = watched.told
    assert FIRST_S <= at_s <= FIRST_S + 2 * LOOK_S
    assert reason == f"no data for {FIRST_S:.1f} s since the attempt to connect"


@pytest.mark.parametrize("state", ["reconnecting", "down", "stale"])
def test_while_the_connector_says_so_itself_nothing_is_added(state: State) -> None:
    watched = Watched()
    watched.wait(240, every_s=0.5)
    watched.wait(10)
    assert len(watched.told) == 1
    watched.becomes(state)
    watched.wait(600)
    assert watched.told[1:] == [(250.25, "")]


def test_each_attempt_has_its_time_and_teaches_nothing() -> None:
    watched = Watched()
    watched.wait(240, every_s=0.5)
    for _ in range(5):
        watched.becomes("reconnecting")
        watched.wait(50)
        watched.becomes("connecting")
        watched.wait(FIRST_S - 1)
    watched.becomes("live")
    watched.wait(240, every_s=0.5)
    assert watched.told == []
    assert watched.contract.stale_after_s < 3


def test_a_daemon_that_was_busy_does_not_blame_the_venue() -> None:
    watched = Watched()
    watched.wait(240, every_s=0.5)
    watched.now_s += 60
    assert watched.look() == ""
    watched.wait(1)
    assert watched.told == []
    watched.wait(3)
    assert len(watched.told) == 1


def test_what_grew_old_while_the_daemon_stood_still_is_stale_at_once_until_something_newer_comes() -> None:
    watched = Watched(SCHEDULED)
    watched.message(lifetime_s=20)
    watched.wait(10, every_s=5)
    watched.contract.aged(45.0, watched.now_s)
    watched.wait(WAKING_S)
    [(at_s, reason)] = watched.told
    assert at_s <= 10 + WAKING_S + LOOK_S
    assert reason.startswith("no message for 45."), "it is as old as it is"
    watched.message()
    assert watched.look() == ""


def test_what_lies_unread_on_waking_is_waited_for_a_moment() -> None:
    watched = Watched()
    watched.wait(240, every_s=0.5)
    watched.contract.aged(6.0, watched.now_s)
    assert watched.look() == ""
    watched.message()
    watched.wait(1)
    assert watched.told == []
    assert watched.contract.stale_after_s < 3, "and the pause is nothing that is learned"


def test_a_pause_that_a_channel_may_make_in_any_case_is_no_silence() -> None:
    watched = Watched(CONFIGURED)
    watched.message()
    watched.wait(1)
    watched.contract.aged(60.0, watched.now_s)
    watched.wait(38)
    assert watched.told == []
    watched.wait(2)
    assert len(watched.told) == 1


def test_an_attempt_to_connect_has_its_time_anew() -> None:
    watched = Watched(state="connecting")
    watched.wait(5)
    watched.contract.aged(3600.0, watched.now_s)
    watched.wait(FIRST_S - 6)
    assert watched.told == []


def test_repeats_that_grew_old_meanwhile_keep_nothing_alive() -> None:
    watched = Watched(SCHEDULED)
    watched.message(lifetime_s=600)
    watched.wait(20, every_s=10, cached=True)
    watched.contract.aged(3600.0, watched.now_s)
    watched.message(cached=True)
    watched.wait(WAKING_S + LOOK_S)
    assert [reason.partition(":")[0] for _, reason in watched.told] == ["only repeats"]


def test_repeats_count_for_as_long_as_the_source_explains_them() -> None:
    watched = Watched(SCHEDULED)
    watched.message(lifetime_s=60)
    watched.look()
    watched.wait(84, every_s=10, cached=True)
    assert watched.told == []
    watched.wait(30, every_s=10, cached=True)
    [(at_s, reason)] = watched.told
    assert at_s == 60 + 25, "what explains it, and then the grace of a late message"
    assert reason.startswith("only repeats: coingecko")
    watched.message()
    assert watched.look() == ""


def test_a_body_that_the_venue_confirms_is_fresh() -> None:
    watched = Watched(SCHEDULED)
    watched.message(lifetime_s=60)
    for _ in range(10):
        watched.wait(60, every_s=10, cached=True)
        watched.message(cached=True, lifetime_s=60)
        watched.wait(10)
    assert watched.told == []


def test_a_restart_of_the_connector_does_not_make_repeats_good_forever() -> None:
    watched = Watched(SCHEDULED)
    watched.message(lifetime_s=10)
    watched.wait(20, every_s=10, cached=True)
    watched.becomes("reconnecting")
    watched.wait(40)
    watched.becomes("connecting")
    watched.wait(5)
    watched.becomes("live")
    watched.wait(40, every_s=10, cached=True)
    assert len(watched.told) == 1


@given(st.lists(st.floats(0.0, 1e6), max_size=200))
def test_a_limit_is_never_out_of_bounds(pauses_s: list[float]) -> None:
    pauses = Pauses()
    for pause_s in pauses_s:
        pauses.add(pause_s)
        assert SHORTEST_S <= pauses.limit_s <= LONGEST_S
        assert pauses.limit_s <= max(ORDINARY_S, 2 * pauses.usual_s)


@given(st.lists(st.tuples(st.floats(0.25, 50.0), st.booleans()), max_size=60))
def test_it_is_stale_exactly_when_the_limit_has_passed(steps: list[tuple[float, bool]]) -> None:
    watched = Watched(SCHEDULED)
    watched.message()
    watched.look()
    heard_s = watched.now_s
    for seconds, message in steps:
        watched.wait(seconds)
        assert (watched.look() != "") == (watched.now_s - heard_s >= 25.0)
        if message:
            watched.message()
            assert watched.look() == ""
            heard_s = watched.now_s
