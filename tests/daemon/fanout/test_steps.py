"""Clients that are behind take their steps in turn: in which order, how many at once, and what else can happen."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from daemon.fanout import steps as module
from daemon.fanout.steps import SHARE_S, Steps


class Record:
    """What each step noted, and a clock that only steps move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.order: list[int] = []
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now_s))

    def step(self, number: int, times: int, step_s: float = 0.0) -> Callable[[], bool]:
        """A step of client `number` that lasts `step_s`; after `times` of them its socket is full."""
        left = times

        def step() -> bool:
            nonlocal left
            left -= 1
            self.now_s += step_s
            self.order.append(number)
            return left > 0

        return step


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    return Record(monkeypatch)


async def test_first_come_first_served_one_step_at_a_time(nursery: trio.Nursery, record: Record) -> None:
    steps = Steps()
    for number in range(50):
        nursery.start_soon(steps.take, record.step(number, 3))
        await wait_all_tasks_blocked()
    await nursery.start(steps.run)
    await wait_all_tasks_blocked()
    assert record.order == list(range(50)) * 3
    assert len(steps) == 0


async def test_who_comes_later_waits_behind_those_who_are_there(nursery: trio.Nursery, record: Record) -> None:
    steps = Steps()
    for number in range(3):
        nursery.start_soon(steps.take, record.step(number, 2))
        await wait_all_tasks_blocked()

    async def late() -> None:
        while len(record.order) < 3:
            await trio.lowlevel.checkpoint()
        await steps.take(record.step(9, 1))

    nursery.start_soon(late)
    await nursery.start(steps.run)
    await wait_all_tasks_blocked()
    assert record.order in ([0, 1, 2, 9, 0, 1, 2], [0, 1, 2, 0, 9, 1, 2], [0, 1, 2, 0, 1, 2, 9])
    assert record.order.index(9) >= 3


async def test_all_together_take_no_more_than_their_share_of_a_turn_and_nobody_starves(
    nursery: trio.Nursery, record: Record
) -> None:
    steps, step_s = Steps(), SHARE_S / 10
    turns: list[int] = []

    async def everybody_else() -> None:
        while True:
            turns.append(len(record.order))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(20):
        async with trio.open_nursery() as others:
            others.start_soon(everybody_else)
            async with trio.open_nursery() as clients:
                for number in range(200):
                    clients.start_soon(steps.take, record.step(number, 5, step_s))
                await nursery.start(steps.run)
            others.cancel_scope.cancel()
    assert Counter(record.order) == dict.fromkeys(range(200), 5)
    # trio shuffles the tasks of a turn, so two turns of the queue may fall between two looks.
    assert max(after - before for before, after in pairwise(turns)) <= 2 * 11


async def test_one_long_step_is_a_turn_of_its_own(nursery: trio.Nursery, record: Record) -> None:
    steps = Steps()
    nursery.start_soon(steps.take, record.step(0, 1, 10 * SHARE_S))
    await wait_all_tasks_blocked()
    nursery.start_soon(steps.take, record.step(1, 1))
    await wait_all_tasks_blocked()
    steps._turn()
    assert record.order == [0]
    steps._turn()
    assert record.order == [0, 1]


async def test_who_is_cancelled_while_it_waits_leaves_nothing_behind(nursery: trio.Nursery, record: Record) -> None:
    steps = Steps()
    scopes = [trio.CancelScope() for _ in range(3)]

    async def client(number: int) -> None:
        with scopes[number]:
            await steps.take(record.step(number, 1))

    for number in range(3):
        nursery.start_soon(client, number)
        await wait_all_tasks_blocked()
    scopes[1].cancel()
    await wait_all_tasks_blocked()
    await nursery.start(steps.run)
    await wait_all_tasks_blocked()
    assert record.order == [0, 2]
    assert len(steps) == 0


async def test_a_step_that_fails_is_its_own_clients_affair(nursery: trio.Nursery, record: Record) -> None:
    steps = Steps()
    failed: list[str] = []

    def fails() -> bool:
        raise OSError("no such client")

    async def client() -> None:
        try:
            await steps.take(fails)
        except OSError as error:
            failed.append(str(error))

    await nursery.start(steps.run)
    nursery.start_soon(client)
    nursery.start_soon(steps.take, record.step(1, 2))
    await wait_all_tasks_blocked()
    assert failed == ["no such client"]
    assert record.order == [1, 1]


async def test_taking_steps_is_a_checkpoint(nursery: trio.Nursery, record: Record) -> None:
    steps = Steps()
    await nursery.start(steps.run)
    with assert_checkpoints():
        await steps.take(record.step(0, 1))
