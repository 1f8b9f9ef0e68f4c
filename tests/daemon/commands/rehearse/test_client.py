"""The clients of a rehearsal notice that they themselves did not get to run."""

import time

import trio

from daemon.commands.rehearse.client import Notebook, Pushes, watch_ourselves


async def test_a_standstill_of_the_clients_own_process_is_noted() -> None:
    book = Notebook(Pushes(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_ourselves, book)
        await trio.sleep(0.1)
        began_s = time.monotonic()
        time.sleep(0.6)  # noqa: ASYNC251  the event loop is to stand still
        ended_s = time.monotonic()
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel(reason="the test is over")
    (noted,) = [one for one in book.standstills if one.ended_s > began_s]
    assert noted.began_s <= began_s + 0.3
    assert noted.ended_s >= ended_s
    book.turn_over()
    assert book.standstills == []
