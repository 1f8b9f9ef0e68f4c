"""The gap ledger: what becomes one gap, when it is over, and that it is bounded whatever happens."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import State
from daemon.health.board import ChannelState
from daemon.tape.ledger import CAUSES, PER_CAUSE, WINDOW_MS, Cause, Ledger, LedgerGap

MINUTE_MS = 60_000


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def state(state: State, reason: str = "", last_event_ms: int | None = None) -> ChannelState:
    return ChannelState(state, 0, reason, last_event_ms=last_event_ms)


def test_an_outage_lasts_from_the_last_data_before_it_to_the_first_after_it(ledger: Ledger) -> None:
    ledger.channel("a", state("reconnecting", "OKX hung up", last_event_ms=900), 1000)
    [gap] = ledger.gaps(1500)
    assert (gap.cause, gap.channel, gap.start_ms, gap.end_ms, gap.count) == ("outage", "a", 900, None, 1)
    ledger.channel("a", state("connecting"), 2000)
    ledger.channel("a", state("reconnecting", "no route"), 3000)
    ledger.channel("a", state("connecting"), 4000)
    ledger.channel("a", state("live"), 5000)
    [gap] = ledger.gaps(6000)
    assert (gap.start_ms, gap.end_ms, gap.count, gap.reason) == (900, 5000, 2, "no route")


def test_a_gap_in_which_the_clock_is_set_back_lasts_as_long_as_it_lasted(ledger: Ledger) -> None:
    hour_ms = 60 * MINUTE_MS
    ledger.record("restart", "", 1, 2, reason="over")
    ledger.channel("a", state("reconnecting", "OKX hung up", last_event_ms=2 * hour_ms), 2 * hour_ms + 500)
    ledger.note("lagged", "", 2 * hour_ms + 600, messages=2)
    ledger.changes(2 * hour_ms)
    ledger.clock_was_set_back(hour_ms)
    ledger.note("lagged", "", hour_ms + 700, messages=3)
    ledger.channel("a", state("live"), hour_ms + 30_000)
    lagged, outage, restart = sorted(ledger.gaps(hour_ms + 30_000), key=lambda gap: gap.cause)
    assert (lagged.messages, lagged.start_ms) == (5, hour_ms + 600)
    assert (outage.start_ms, outage.end_ms) == (hour_ms, hour_ms + 30_000)
    assert (restart.start_ms, restart.end_ms) == (1, 2)
    assert [gap.cause for gap in ledger.changes(hour_ms + 30_000)] == ["outage", "lagged"]


def test_an_instrument_that_a_channel_lacks_is_a_gap_of_its_own_from_its_last_data_on(ledger: Ledger) -> None:
    ledger.topics("a", {"X/U": (900, "no message for 2.0 s"), "Y/U": (None, "never came")}, 3000)
    ledger.topics("a", {"X/U": (900, "no message for 2.0 s"), "Y/U": (None, "refused")}, 4000)
    ledger.topics("b", {}, 4000)
    assert ledger.open(4000)["stale"] == 2
    ledger.topics("a", {"Y/U": (None, "refused")}, 5000)
    gaps = {gap.reason: (gap.cause, gap.channel, gap.start_ms, gap.end_ms) for gap in ledger.gaps(5000)}
    assert gaps == {
        "X/U: no message for 2.0 s": ("stale", "a", 900, 5000),
        "Y/U: refused": ("stale", "a", 3000, None),
    }
    ledger.close("a", 6000)
    assert ledger.open(6000)["stale"] == 0, "a channel that is removed lacks nothing"
    for number in range(3 * PER_CAUSE):
        ledger.topics("a", {f"{number}/U": (None, "x")}, 7000)
    assert ledger.open(7000)["stale"] == 1


def test_silence_that_turns_out_to_be_an_outage_is_one_gap_and_an_outage(ledger: Ledger) -> None:
    ledger.channel("a", state("stale", "no message for 2.0 s", last_event_ms=900), 3000)
    assert [gap.cause for gap in ledger.gaps(3000)] == ["stale"]
    ledger.channel("a", state("reconnecting", "no data"), 4000)
    assert [(gap.cause, gap.start_ms, gap.count) for gap in ledger.gaps(4000)] == [("outage", 900, 1)]


def test_the_first_attempt_to_connect_is_no_gap_and_what_comes_of_it_may_be(ledger: Ledger) -> None:
    ledger.channel("a", state("connecting"), 1000)
    ledger.channel("b", state("live"), 1000)
    assert ledger.gaps(1000) == []
    ledger.channel("a", state("down", "refused"), 2000)
    assert [(gap.start_ms, gap.end_ms) for gap in ledger.gaps(2000)] == [(2000, None)]


def test_ten_thousand_lagged_clients_are_one_gap(ledger: Ledger) -> None:
    ledger.channel("a", state("down", "refused"), 500)
    for n in range(10_000):
        ledger.note("lagged", "", 1000 + n, messages=3, reason="slow")
    lagged, outage = ledger.gaps(11_000)
    assert (lagged.count, lagged.messages, lagged.start_ms, lagged.end_ms) == (10_000, 30_000, 1000, None)
    assert outage.cause == "outage"
    assert len(ledger.changes(11_000)) == 2


def test_what_is_counted_ends_when_nothing_has_come_for_a_while(ledger: Ledger) -> None:
    ledger.note("refused", "a", 1000)
    ledger.note("refused", "a", 1000 + WINDOW_MS)
    ledger.note("refused", "b", 1000)
    ledger.note("refused", "a", 1000 + 3 * WINDOW_MS)
    now_ms = 1000 + 3 * WINDOW_MS
    assert [(gap.channel, gap.start_ms, gap.end_ms, gap.count) for gap in ledger.gaps(now_ms)] == [
        ("a", now_ms, None, 1),
        ("b", 1000, 1000, 1),
        ("a", 1000, 1000 + WINDOW_MS, 2),
    ]


def test_a_flood_of_one_cause_does_not_wash_the_others_out(ledger: Ledger) -> None:
    ledger.record("restart", "", 0, 10, reason="the daemon started")
    ledger.channel("a", state("down"), 100)
    for n in range(3 * PER_CAUSE):
        ledger.note("lagged", "", n * 2 * WINDOW_MS)
        ledger.channel("b", state("down"), n)
        ledger.channel("b", state("live"), n)
    causes = [gap.cause for gap in ledger.gaps(10**9)]
    assert {cause: causes.count(cause) for cause in set(causes)} == {
        "restart": 1,
        "lagged": PER_CAUSE,
        "outage": PER_CAUSE,
    }
    [open_gap] = [gap for gap in ledger.gaps(10**9) if gap.end_ms is None]
    assert open_gap.channel == "a", "what still lasts stays"
    assert ledger.forgotten == 2 * PER_CAUSE + (2 * PER_CAUSE + 1)


def test_it_survives_a_restart(ledger: Ledger) -> None:
    ledger.note("lagged", "", 1000, messages=5)
    ledger.channel("a", state("stale", "silence", last_event_ms=900), 2000)
    ledger.channel("b", state("down"), 2000)
    ledger.channel("b", state("live"), 2500)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(ledger.dump()), type=list[LedgerGap])

    after = Ledger()
    after.load(stored)
    after.record("restart", "", 2500, 9000, reason="not stopped cleanly")
    assert [(gap.cause, gap.start_ms, gap.end_ms) for gap in after.gaps(9000)] == [
        ("restart", 2500, 9000),
        ("outage", 2000, 2500),
        ("lagged", 1000, 1000),
        ("stale", 900, 2000),
    ]
    assert len({gap.id for gap in after.gaps(9000)}) == 4
    after.channel("a", state("live"), 9500)
    assert all(gap.end_ms is not None for gap in after.gaps(9500))


def test_gaps_of_this_run_that_there_are_already_come_behind_those_of_an_earlier_one(ledger: Ledger) -> None:
    ledger.record("restart", "", 5000, 6000, reason="the disk took nothing")
    ledger.load([LedgerGap(1, "lagged", "", 1000, None, 2000, reason="slow")])
    assert [(gap.id, gap.cause) for gap in ledger.dump()] == [(1, "lagged"), (2, "restart")]
    changed = [(gap.id, gap.cause, gap.end_ms) for gap in ledger.changes(7000)]
    assert changed == [(1, "lagged", 2000), (2, "restart", 6000)], "that the first has ended is to be stored, too"


def test_the_changes_are_handed_out_once_and_are_enough(ledger: Ledger) -> None:
    ledger.note("lagged", "", 1000)
    assert [gap.count for gap in ledger.changes(1000)] == [1]
    assert ledger.changes(1000) == []
    ledger.note("lagged", "", 1001)
    [changed] = ledger.changes(1001)
    ledger.note("lagged", "", 1002)
    assert changed.count == 2, "a copy"
    ledger.changes(1002)
    [ended] = ledger.changes(1002 + 2 * WINDOW_MS)
    assert ended.end_ms == 1002


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", ""]),
            st.sampled_from(["live", "stale", "reconnecting", "down", "connecting", *CAUSES]),
            st.integers(-10 * MINUTE_MS, 10 * MINUTE_MS),
        ),
        max_size=80,
    )
)
def test_whatever_the_clock_does_gaps_are_in_order_and_what_was_stored_is_what_there_is(
    happenings: list[tuple[str, str, int]],
) -> None:
    ledger, now_ms = Ledger(), 10**12
    stored: dict[int, LedgerGap] = {}
    for channel, what, step_ms in happenings:
        now_ms += step_ms
        if what in CAUSES:
            cause: Cause = msgspec.convert(what, Cause)
            ledger.note(cause, channel, now_ms)
        else:
            ledger.channel(channel, state(msgspec.convert(what, State), last_event_ms=10**12), now_ms)
        stored.update({gap.id: gap for gap in ledger.changes(now_ms)})
        gaps = ledger.gaps(now_ms)
        assert all(gap.end_ms is None or gap.start_ms <= gap.end_ms for gap in gaps)
        assert [gap.start_ms for gap in gaps] == sorted((gap.start_ms for gap in gaps), reverse=True)
        assert sorted(stored.values(), key=lambda gap: gap.id) == ledger.dump()
    ledger.settle(now_ms + 10**9)
    open_gaps = [gap for gap in ledger.dump() if gap.end_ms is None]
    assert len({gap.channel for gap in open_gaps}) == len(open_gaps)
    assert all(gap.cause in ("outage", "stale") for gap in open_gaps)
