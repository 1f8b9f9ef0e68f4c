"""How the reader spaces what it takes from the engine; what it takes is tested with an engine, in `test_node.py`."""

import time
from collections.abc import Iterable
from typing import cast

import pytest
import trio
import trio.testing

from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish.cluster.engine import Engine
from daemon.publish.cluster.entry import Carried, EntryId
from daemon.publish.cluster.reader import Reader
from daemon.publish.parts import Beginning, listed
from daemon.publish.replica import Replica
from daemon.publish.sequencer import Passes
from daemon.tape import copying
from daemon.tape.tape import Tape
from protocol.channels import Catalogue

TAKES_S = 0.01


class Nothing:
    """An engine in whose stream nothing is."""

    async def tail(self, last: EntryId, count: int) -> list[Carried]:
        await trio.lowlevel.checkpoint()
        return []


class Slow(Reader):
    """Takes its time."""

    def take(self, entries: Iterable[Carried]) -> None:
        until_s = time.perf_counter() + TAKES_S
        while time.perf_counter() < until_s:
            pass


async def dismiss(_: str) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("passes", "rests_s"),
    [(Passes(), 0.005), (Passes(rest_ratio=10), 0.1), (Passes(rest_ratio=10, rest_max_ms=20), 0.02)],
)
async def test_it_rests_as_the_configuration_has_it(
    passes: Passes, rests_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    catalogue, clock = Catalogue(()), WallClock()
    nothing = Beginning(copying.origin(Tape(1, 1)), listed(catalogue), dict(Board(catalogue, 0).states()), [])
    reader = Slow(cast("Engine", Nothing()), Replica(nothing, 10, 10**6, clock), clock, dismiss, 10**6)
    reader.last, reader.passes = EntryId(1, 0), passes
    began_s = trio.current_time()
    await reader.follow_once()
    assert trio.current_time() - began_s == pytest.approx(rests_s, rel=0.5)
