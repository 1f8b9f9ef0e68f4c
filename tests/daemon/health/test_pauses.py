"""What follows from a pause of the daemon's own, and from a step of its clock."""

import logging

import pytest
import trio
import trio.testing

from daemon.health.pauses import ANEW_S, Pauses
from daemon.host.clock import WallClock
from daemon.host.loop_clock import Pause
from daemon.tape.ledger import Ledger, LedgerGap

NOW_MS = 1_765_211_445_000


class Noted:
    """Pauses, and whom they told what."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.anew: list[str] = []
        self.aged: list[float] = []
        self.set_back: list[int] = []
        self.hurried = 0
        self.pauses = Pauses(
            self.ledger,
            WallClock(lambda: NOW_MS * 1_000_000),
            anew=self.anew.append,
            aged=self.aged.append,
            set_back=self.set_back.append,
            hurry=self._hurry,
        )

    def _hurry(self) -> None:
        self.hurried += 1

    def gaps(self) -> list[LedgerGap]:
        return self.ledger.gaps(NOW_MS)


def test_a_long_pause_is_in_the_ledger_once_in_the_log_and_connectors_begin_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noted = Noted()
    with caplog.at_level(logging.INFO):
        noted.pauses.stood(Pause(45.0))
        assert noted.aged == [45.0], "before anything else runs"
        assert noted.anew == ["the daemon itself did not run for 45.0 s: it or its machine was stopped, or starved"]
        noted.pauses.settle()
        noted.pauses.settle()
    [gap] = noted.gaps()
    assert (gap.cause, gap.channel, gap.start_ms, gap.end_ms) == ("pause", "", NOW_MS - 45_000, NOW_MS)
    assert len(caplog.records) == 1
    assert noted.hurried >= 1
    assert noted.set_back == []


def test_a_short_pause_ends_no_connection() -> None:
    noted = Noted()
    noted.pauses.stood(Pause(ANEW_S - 0.1))
    noted.pauses.settle()
    assert noted.anew == []
    assert [gap.cause for gap in noted.gaps()] == ["pause"]


def test_a_clock_set_back_ages_nothing_and_moves_what_lasts(caplog: pytest.LogCaptureFixture) -> None:
    noted = Noted()
    noted.pauses.stepped(-3600.0)
    noted.pauses.settle()
    assert (noted.anew, noted.aged, noted.set_back) == ([], [], [3_600_000])
    [gap] = noted.gaps()
    assert (gap.cause, gap.reason.partition(";")[0]) == ("clock", "the machine's clock was set back by 3600 s")


def test_a_clock_that_went_forward_may_have_been_a_frozen_machine() -> None:
    noted = Noted()
    noted.pauses.stepped(3600.0)
    noted.pauses.settle()
    assert len(noted.anew) == 1
    assert (noted.aged, noted.set_back) == ([3600.0], [])
    assert [gap.cause for gap in noted.gaps()] == ["clock"]


async def test_it_is_settled_by_a_task_as_soon_as_it_is_known(autojump_clock: trio.testing.MockClock) -> None:
    noted = Noted()
    async with trio.open_nursery() as nursery:
        await nursery.start(noted.pauses.run)
        for seconds in (3.0, 4.0):
            noted.pauses.stood(Pause(seconds))
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="enough is known")
    assert len(noted.gaps()) == 2
