"""Requests, and commands, share a part of each turn of the event loop: how much, in which order, nobody starves."""

from collections import Counter

import trio
from trio.testing import wait_all_tasks_blocked

from daemon.host.turns import Turns

SHARE_S = 0.01
STEP_S = 0.001


async def test_all_together_take_no_more_than_their_share_of_a_turn_and_nobody_starves(nursery: trio.Nursery) -> None:
    turns = Turns(SHARE_S)
    await nursery.start(turns.run)
    steps: Counter[int] = Counter()
    in_turn = most = 0

    async def client(number: int) -> None:
        nonlocal in_turn, most
        for _ in range(5):
            await turns.wait()
            turns.took(STEP_S)
            steps[number] += 1
            in_turn += 1
            most = max(most, in_turn)

    async def everybody_else() -> None:
        nonlocal in_turn
        while True:
            await trio.lowlevel.checkpoint()
            in_turn = 0

    with trio.fail_after(20):
        async with trio.open_nursery() as others:
            others.start_soon(everybody_else)
            async with trio.open_nursery() as clients:
                for number in range(200):
                    clients.start_soon(client, number)
            others.cancel_scope.cancel()
    assert set(steps.values()) == {5}
    # trio shuffles the tasks of a turn: a few turns may fall between two looks, and what is left of the share before.
    assert most <= 6 * (SHARE_S / STEP_S + 1)


async def test_who_is_cancelled_while_it_waits_leaves_nothing_behind(nursery: trio.Nursery) -> None:
    turns = Turns(SHARE_S)
    turns.took(1.0)  # the share is used up, and nobody hands out another yet
    scopes = [trio.CancelScope() for _ in range(3)]
    stepped: list[int] = []

    async def client(number: int) -> None:
        with scopes[number]:
            await turns.wait()
            turns.took(STEP_S)
            stepped.append(number)

    for number in range(3):
        nursery.start_soon(client, number)
    await wait_all_tasks_blocked()
    assert len(turns._waiting) == 3
    scopes[1].cancel()
    await wait_all_tasks_blocked()
    assert len(turns._waiting) == 2
    await nursery.start(turns.run)
    await wait_all_tasks_blocked()
    assert sorted(stepped) == [0, 2]
    assert len(turns._waiting) == 0


async def test_waiting_is_a_checkpoint_also_when_there_is_time_left(nursery: trio.Nursery) -> None:
    turns = Turns(SHARE_S)
    with trio.testing.assert_checkpoints():
        await turns.wait()


async def test_who_asked_first_has_its_turn_first(nursery: trio.Nursery) -> None:
    turns = Turns(SHARE_S)
    turns.took(1.0)
    answered: list[int] = []

    async def request(number: int) -> None:
        await turns.wait()
        answered.append(number)
        turns.took(SHARE_S)  # one answer is worth the whole share of a turn

    for number in range(20):
        nursery.start_soon(request, number)
        await wait_all_tasks_blocked()
    for _ in range(200):  # the mean of all answers follows
        turns.took(SHARE_S)
    await nursery.start(turns.run)
    await wait_all_tasks_blocked()
    assert answered == list(range(20))
