"""What a cluster costs: the way through an engine, how fast a node can follow, and a crowd whose node is killed.

The engine is a redis-server of its own, on the core of the load.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish.cluster.address import parse
from daemon.publish.cluster.engine import Engine
from daemon.publish.cluster.entry import EntryId, fields
from daemon.publish.cluster.reader import Reader
from daemon.publish.cluster.settings import Keys
from daemon.publish.parts import Beginning, Part, listed
from daemon.publish.replica import Replica
from daemon.tape import copying
from daemon.tape.copying import Row
from daemon.tape.tape import Tape
from protocol.channels import Catalogue, Channel
from protocol.kinds import KINDS
from tests.bench.measures import SAMPLE, Plan, measure_window
from tests.bench.processes import Cores, Served, crowd, daemon, head
from tests.bench.report import AT_MOST
from tests.bench.report import Row as Figure
from tests.engine import RedisServer

RATE: Final = 200.0
CLIENTS: Final = 100
MOVERS: Final = 5000
ENTRIES: Final = 5000
MESSAGES: Final = 10
PAYLOAD: Final = b'{"type":"price_update","data":"' + b"x" * 540 + b'"}'


@contextmanager
def engine(cores: Cores) -> Iterator[RedisServer]:
    """An engine that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder)).start()
        assert server.process is not None
        os.sched_setaffinity(server.process.pid, {cores.others})
        try:
            yield server
        finally:
            server.kill()


def joined(url: str, node: str, role: str = "both") -> dict[str, str]:
    """The settings of a node."""
    return {
        "TICKERD_CLUSTER__URL": url,
        "TICKERD_CLUSTER__NODE": node,
        "TICKERD_CLUSTER__ROLE": role,
    }


def through(plan: Plan) -> Iterator[Figure]:
    """A message from the venue's stamp to the last socket, by way of the engine and without."""
    row = Figure(f"median delay to the last of {CLIENTS} sockets at {RATE:g} passes/s, through an engine", "ms")
    more = Figure("of this, more than without one", "ms", AT_MOST, 5.0, of_value=True)
    cost = Figure("CPU of the node for it", "% of a core")
    for _ in range(plan.repeats):
        with daemon(plan.cores, RATE) as server:
            local = measure_window(plan, server, CLIENTS, plan.seconds, *SAMPLE)
        with engine(plan.cores) as carrier, daemon(plan.cores, RATE, joined(carrier.url, "one")) as server:
            ours = measure_window(plan, server, CLIENTS, plan.seconds, *SAMPLE)
        row.add(ours.last.p50 / 1e3, local.last.p50 / 1e3)
        more.add((ours.last.p50 - local.last.p50) / 1e3)
        cost.add(ours.server_cpu_s / ours.seconds * 100, local.server_cpu_s / local.seconds * 100)
    yield from (row, more, cost)


def followed(plan: Plan) -> Iterator[Figure]:
    """How many entries a second a node that serves can follow, without clients."""
    for messages in (1, MESSAGES):
        row = Figure(f"entries of {messages} messages that a node can follow", "/s")
        for _ in range(plan.repeats):
            with engine(plan.cores) as carrier:
                row.add(trio.run(_follow, carrier.url, messages))
        yield row


async def _follow(url: str, messages: int) -> float:
    clock, keys = WallClock(), Keys("main")
    catalogue = Catalogue([Channel(name="a", exchange="acme", kind=KINDS["ticker"], instruments=("X/U",))])
    states = dict(Board(catalogue, 0).states())
    tape = Tape(1, 1)
    replica = Replica(Beginning(copying.origin(tape), listed(catalogue), states, []), 100_000, 2**30, clock)
    replica.ready()
    link = Engine(parse(url), keys)
    reader = Reader(link, replica, clock, _nobody, 2**30)
    reader.last = EntryId()
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        token = "bench x"
        await link.hold(token, 300)
        last: EntryId | None = None
        for number in range(ENTRIES):
            before = number * messages
            rows = [Row(before + n, before + n, "a", "X/U", PAYLOAD) for n in range(1, messages + 1)]
            part = Part(before, rows)
            id_ = EntryId(part.end)
            await link.append(token, last, id_, fields(part, tape.epoch, "bench"))
            last = id_
        began_s = time.perf_counter()
        while reader.last != last:
            await reader.follow_once()
        took_s = time.perf_counter() - began_s
        nursery.cancel_scope.cancel()
    return ENTRIES / took_s


async def _nobody(_: str) -> None:
    """There is no client to be sent away."""


def moved(plan: Plan) -> Iterator[Figure]:
    """A node with clients is killed, and all of them come to another one at once with the positions that they had.

    The clock runs from the first that knocks: that the load's own process begins anew is none of the daemon's time.
    """
    last = Figure(f"{MOVERS} clients come to another node when theirs is killed, until the last is served", "s")
    worst = Figure("the longest that one of them waits, from its connection on", "s")
    for _ in range(plan.repeats):
        with engine(plan.cores) as carrier, daemon(plan.cores, 20, joined(carrier.url, "one")) as leader:
            with (
                daemon(plan.cores, 0.1, joined(carrier.url, "two", "serve")) as theirs,
                crowd(plan.cores, theirs) as here,
            ):
                here.arrive(MOVERS)
                since = head(theirs.port)
                os.kill(theirs.pid, signal.SIGKILL)
            with crowd(plan.cores, Served(leader.pid, leader.port)) as there:
                came = there.resume(MOVERS, since)
                last.add(came.there_s)
                worst.add(came.worst_s)
    yield from (last, worst)


CLUSTER: Final = {"engine": through, "follow": followed, "move": moved}
