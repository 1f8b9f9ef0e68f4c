"""How single instruments of a channel do, by their own data and by what the connector noted of them."""

import pytest

from connectors.base import Event, State, StateChange, TopicNote
from daemon.health.board import Board, Condition
from daemon.health.freshness import FIRST_S
from daemon.health.topics import HOLD_S, LISTED_S, QUIET_S, Topics
from daemon.health.watch import LOOK_S
from protocol.channels import Catalogue, Channel
from protocol.kinds import KINDS
from protocol.messages import TopicCause

PUSHED = Channel(name="x", exchange="okx", kind=KINDS["ticker"], instruments=("A/U", "B/U"))
POLLED = Channel(name="x", exchange="binance", kind=KINDS["prices"], instruments=("A/U", "B/U"), cadence_s=10.0)
SINGLE = Channel(name="x", exchange="okx", kind=KINDS["ticker"], instruments=("A/U",))
WHOLE = Channel(name="x", exchange="coingecko", kind=KINDS["top"], cadence_s=10.0)


class Watched:
    """A channel's topics, looked at as often as in the daemon."""

    def __init__(self, channel: Channel, state: State = "live") -> None:
        self.now_s = 1000.0
        self.board = Board(Catalogue([channel]), 0)
        self.topics = Topics(channel, self.now_s)
        self.silent = False
        self.becomes(state)

    def becomes(self, state: State) -> None:
        self.connector = StateChange("x", state)
        self.board.apply(self.connector, 0)

    def message(self, *instruments: str) -> None:
        for instrument in instruments:
            self.board.saw(Event("x", instrument, b"{}", 1))

    def note(self, cause: TopicCause, instrument: str = "B/U", *, partial: bool = False, listed: bool = False) -> None:
        reason = f"the list has it as {cause}" if listed else f"it is {cause}"
        self.board.note(TopicNote("x", instrument, cause, reason, partial=partial, listed=listed))

    def look(self) -> dict[str, Condition]:
        withdraw = self.board.withdraw
        return self.topics.look(
            self.connector,
            self.board.seen("x"),
            self.now_s,
            silent=self.silent,
            withdraw=lambda instrument, cause: withdraw("x", instrument, cause),
        )

    def wait(
        self, seconds: float, *every: tuple[str, float]
    ) -> list[tuple[float, dict[str, tuple[State, TopicCause]]]]:
        """So much time passes, and messages of instruments come every so often. What was told, and when it changed."""
        told: list[tuple[float, dict[str, tuple[State, TopicCause]]]] = []
        began_s, ticks = self.now_s, round(seconds / LOOK_S)
        for tick in range(1, ticks + 1):
            self.now_s = began_s + tick * LOOK_S
            for instrument, every_s in every:
                if tick % round(every_s / LOOK_S) == 0:
                    self.message(instrument)
            found = {name: (one.state, one.cause) for name, one in self.look().items()}
            if found != (told[-1][1] if told else {}):
                told.append((self.now_s - began_s, found))
        return told


def test_an_instrument_that_never_comes_is_missed_in_the_time_of_a_first_message() -> None:
    watched = Watched(PUSHED)
    assert watched.wait(60, ("A/U", 0.5)) == [(FIRST_S + LOOK_S, {"B/U": ("stale", "silent")})]
    assert watched.look()["B/U"].reason == f"no data for {FIRST_S:.1f} s, while the channel's others came"
    watched.message("B/U")
    assert watched.look() == {}


def test_one_that_goes_mute_is_missed_by_what_is_usual_of_it() -> None:
    watched = Watched(PUSHED)
    assert watched.wait(300, ("A/U", 0.5), ("B/U", 1.0)) == []
    [(at_s, told)] = watched.wait(60, ("A/U", 0.5))
    assert told == {"B/U": ("stale", "silent")}
    assert 4.0 <= at_s <= 5.0


def test_a_quiet_but_healthy_instrument_is_not_called_stale_beside_a_busy_one() -> None:
    """Its best bid stands still for over four minutes, from the very beginning."""
    watched = Watched(PUSHED)
    watched.message("A/U", "B/U")
    assert watched.wait(3_600, ("A/U", 0.25), ("B/U", 250.0)) == []
    watched = Watched(PUSHED)
    watched.message("A/U", "B/U")
    [(at_s, _)] = watched.wait(QUIET_S + 60, ("A/U", 0.25))
    assert at_s == pytest.approx(QUIET_S, abs=1.0), "but not for ever"


def test_in_a_schedule_each_instrument_is_due_in_each_round() -> None:
    watched = Watched(POLLED)
    assert watched.wait(100, ("A/U", 10.0), ("B/U", 10.0)) == []
    assert watched.wait(60, ("A/U", 10.0)) == [(25.0, {"B/U": ("stale", "silent")})]
    assert watched.look()["B/U"].reason == "no message for 25.0 s, where one is due every 10 s"


def test_the_configured_time_holds_for_each_instrument() -> None:
    watched = Watched(
        Channel(name="x", exchange="okx", kind=KINDS["ticker"], instruments=("A/U", "B/U"), stale_after_s=7)
    )
    watched.message("A/U", "B/U")
    assert watched.wait(30, ("A/U", 0.5))[0][0] == pytest.approx(7.25)


def test_where_the_channel_itself_is_late_or_not_connected_no_instrument_is_to_blame() -> None:
    watched = Watched(POLLED)
    watched.wait(50, ("A/U", 10.0), ("B/U", 10.0))
    watched.silent = True
    assert watched.wait(100) == []
    watched.silent = False
    watched.message("A/U")
    assert watched.wait(20, ("A/U", 10.0)) == [], "its time begins anew"
    watched.becomes("reconnecting")
    assert watched.wait(100) == []
    watched.becomes("live")
    assert watched.wait(20, ("A/U", 10.0)) == []
    assert watched.wait(20, ("A/U", 10.0)) != []


def test_a_channel_with_one_instrument_and_one_about_a_whole_market_have_their_contract_already() -> None:
    for channel in (SINGLE, WHOLE):
        assert Watched(channel).wait(1_000) == []


def test_a_daemon_that_was_too_busy_to_look_blames_nobody() -> None:
    watched = Watched(POLLED)
    watched.wait(50, ("A/U", 10.0), ("B/U", 10.0))
    watched.now_s += 600
    assert watched.wait(20, ("A/U", 10.0)) == []


def test_a_bad_row_is_a_remark_that_stays_for_a_while_and_a_bad_row_for_long_makes_the_topic_stale() -> None:
    watched = Watched(POLLED)
    watched.wait(50, ("A/U", 10.0), ("B/U", 10.0))
    watched.note("unreadable")
    assert watched.wait(80, ("A/U", 10.0), ("B/U", 10.0)) == [
        (LOOK_S, {"B/U": ("live", "unreadable")}),
        (HOLD_S + LOOK_S, {}),
    ]
    told: list[str] = []
    for _ in range(6):
        watched.note("unreadable")
        told += [state["B/U"][0] for _, state in watched.wait(10, ("A/U", 10.0)) if "B/U" in state]
    assert "stale" in told
    assert watched.look()["B/U"] == Condition("stale", "unreadable", "it is unreadable")
    watched.message("B/U")
    assert watched.look()["B/U"].state == "live"
    assert watched.wait(60, ("A/U", 10.0), ("B/U", 10.0))[-1][1] == {}


def test_what_comes_and_goes_ten_times_a_second_is_told_once() -> None:
    watched = Watched(PUSHED)
    watched.message("A/U", "B/U")
    seen = set()
    causes: tuple[TopicCause, ...] = ("halted", "unreadable")
    for cause in causes:
        for _ in range(400):
            watched.message("A/U", "B/U")
            watched.note(cause)
            watched.now_s += LOOK_S / 2
            seen.add(tuple((one.state, one.cause) for one in watched.look().values()))
    assert seen <= {(("live", "halted"),), (("live", "unreadable"),)}


def test_what_is_halted_or_refused_is_down_for_as_long_as_nothing_else_is_heard() -> None:
    causes: tuple[TopicCause, ...] = ("halted", "refused")
    for cause in causes:
        watched = Watched(POLLED)
        watched.wait(50, ("A/U", 10.0), ("B/U", 10.0))
        watched.wait(5, ("A/U", 10.0))
        watched.note(cause)
        assert watched.wait(5_000, ("A/U", 10.0)) == [(LOOK_S, {"B/U": ("down", cause)})]
        assert watched.look()["B/U"].reason == f"it is {cause}"
        watched.message("B/U")
        assert watched.wait(60, ("A/U", 10.0), ("B/U", 10.0)) == []


def test_a_part_that_is_left_out_of_a_message_is_a_remark_for_as_long_as_it_is_noted() -> None:
    watched = Watched(WHOLE)
    told = []
    for _ in range(10):
        watched.message("")
        watched.note("unreadable", "", partial=True)
        told += watched.wait(10)
    assert [states for _, states in told] == [{"": ("live", "unreadable")}] * 10
    watched.message("")
    assert watched.wait(60)[-1][1] == {}


def test_a_connector_that_is_not_connected_has_noted_nothing() -> None:
    watched = Watched(POLLED)
    watched.note("halted")
    assert watched.look() != {}
    watched.becomes("reconnecting")
    watched.note("halted")
    assert watched.look() == {}
    watched.becomes("live")
    assert watched.look() == {}


def test_what_a_venues_list_says_holds_whatever_data_comes_and_until_it_is_noted_no_more() -> None:
    for cause in ("refused", "halted"):
        watched = Watched(PUSHED)
        for _ in range(20):
            watched.note(cause, listed=True)
            told = watched.wait(5, ("A/U", 0.5), ("B/U", 0.5))
            assert [topics for _, topics in told] == [{"B/U": ("down", cause)}]
        assert watched.look() == {"B/U": Condition("down", cause, f"the list has it as {cause}")}
        told = watched.wait(LISTED_S + 1, ("A/U", 0.5), ("B/U", 0.5))
        assert [(round(at_s), topics) for at_s, topics in told[1:]] == [(round(LISTED_S) - 5, {})]


def test_what_the_list_says_is_told_rather_than_what_the_venue_says_to_a_request() -> None:
    watched = Watched(PUSHED)
    watched.note("refused", listed=True)
    for _ in range(10):
        watched.note("refused")
        assert [topics for _, topics in watched.wait(5, ("A/U", 0.5))] == [{"B/U": ("down", "refused")}]
    assert watched.look()["B/U"].reason == "the list has it as refused"
    watched.wait(LISTED_S, ("A/U", 0.5))
    watched.note("refused")
    assert watched.look()["B/U"].reason == "it is refused"
