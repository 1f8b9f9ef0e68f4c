"""What the parent does for its workers, without their processes."""

from daemon.app import Daemon
from daemon.config.load import parse
from daemon.publish.outlet import Outlet
from daemon.workers.messages import AskPast, Down, PastFound, Up
from daemon.workers.worker import Worker
from daemon.workers.workers import Workers


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
    daemon = Daemon(parse("[server]\nworkers = 2\n", {}, "a test"))
    assert isinstance(daemon.server, Workers)
    worker = Asking(daemon, pid=11)
    question = AskPast(1, "nobody", "BTC/USDT", "1m", ((0, 60_000),))
    await daemon.server.answer(worker, 11, question)
    [answer] = worker.told
    assert isinstance(answer, PastFound)
    assert answer.past.reason == "there is no history of nobody but the tape"
    await daemon.server.answer(worker, 10, question)
    assert worker.told == [answer]
