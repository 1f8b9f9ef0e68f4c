"""What the parent does for its workers, without their processes."""

import pytest

from daemon.app import Daemon
from daemon.config.load import parse
from daemon.front.request import Response
from daemon.host.clock import WallClock
from daemon.publish.outlet import Outlet
from daemon.workers.answers import Answers
from daemon.workers.messages import AskCluster, AskPast, Down, PastFound, Scrape, Scraped, Up
from daemon.workers.worker import Worker
from daemon.workers.workers import Workers, rest_s
from protocol.answers import ClusterReport


class Asking(Worker):
    """A worker whose process is only a number, and what it was told."""

    def __init__(self, daemon: Daemon, pid: int) -> None:
        super().__init__(1, Outlet(daemon.tape, daemon.board, daemon.ledger), daemon.clock, self)
        self.pid = pid
        self.told: list[Down] = []

    def say(self, message: Down) -> None:
        self.told.append(message)

    def heard(self, worker: Worker, message: Up) -> None:
        raise AssertionError

    def came(self, worker: Worker) -> None:
        raise AssertionError

    def went(self, worker: Worker, why: str) -> None:
        raise AssertionError


async def test_an_answer_is_for_the_process_that_asked_and_not_for_the_next_one() -> None:
    def report() -> ClusterReport:
        raise AssertionError

    async def scrape(_: bool) -> Response:
        raise AssertionError

    worker = Asking(Daemon(parse("", {}, "a test")), pid=11)
    answers = Answers(scrape, report, lambda _: None, WallClock())
    question = AskPast(1, "nobody", "BTC/USDT", "1m", ((0, 60_000),))
    await answers.answer(worker, 11, question)
    [answer] = worker.told
    assert isinstance(answer, PastFound)
    assert answer.past.reason == "there is no history of nobody but the tape"
    await answers.answer(worker, 10, question)
    assert worker.told == [answer]


async def test_a_bug_in_an_answer_is_a_500_for_who_asked_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def report() -> ClusterReport:
        raise RuntimeError("a bug")

    async def scrape(openmetrics: bool) -> Response:
        raise RuntimeError(f"a bug, openmetrics {openmetrics}")

    worker = Asking(Daemon(parse("", {}, "a test")), pid=11)
    answers = Answers(scrape, report, lambda _: None, WallClock())
    await answers.answer(worker, 11, Scrape(1, True))
    await answers.answer(worker, 11, AskCluster(2))
    assert [(each.number, each.status) for each in worker.told if isinstance(each, Scraped)] == [(1, 500), (2, 500)]
    assert [record.getMessage() for record in caplog.records] == [
        "Scrape of worker 1 failed",
        "AskCluster of worker 1 failed",
    ]


def test_the_sequencer_rests_the_longer_the_further_all_workers_are_behind() -> None:
    """Not at all for a burst, and never so long that nothing goes on."""
    mib = 1024 * 1024
    assert rest_s(0) == rest_s(mib) == 0.002
    rests = [rest_s(mib + 1), rest_s(2 * mib), rest_s(4 * mib), rest_s(64 * mib)]
    assert rests == sorted(rests)
    assert rests[0] == pytest.approx(0.025, rel=0.01)
    assert rests[1] == pytest.approx(0.1)
    assert rests[-1] == 0.5


class Behind(Asking):
    """One that has so many bytes to take yet."""

    def __init__(self, daemon: Daemon, lag_bytes: int, *, is_ready: bool = True) -> None:
        super().__init__(daemon, pid=1)
        self._lag_bytes, self.is_ready = lag_bytes, is_ready

    @property
    def lag_bytes(self) -> int:
        return self._lag_bytes


@pytest.mark.parametrize(
    ("behind", "rests_s"),
    [([64, 64], 0.5), ([64, 0], 0.002), ([64, None], 0.5), ([None, None], 0.002)],
    ids=["all", "one is not", "one is not there", "nobody is there"],
)
async def test_one_worker_that_is_behind_holds_up_nobody(behind: list[int | None], rests_s: float) -> None:
    daemon = Daemon(parse("[server]\nworkers = 2\n", {}, "a test"))
    assert isinstance(daemon.server, Workers)
    daemon.server._workers[:] = [
        Behind(daemon, 0 if each is None else each * 1024 * 1024, is_ready=each is not None) for each in behind
    ]
    assert daemon.ingesting.sequencer.held_s() == rests_s
