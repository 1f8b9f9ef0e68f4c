"""What crowds cost those who did no harm: newcomers beside a busy fan-out, clients that resume, floods of requests.

There is nothing to compare these with: the goals are about what clients and the operator notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

from tests.bench.measures import FLAT_OUT, Plan
from tests.bench.processes import Served, bystanders, crowd, daemon, load
from tests.bench.report import AT_MOST, Row
from tests.bench.watchdog import watchdog
from tests.bench.window import Noticed, cpu_ns

WATCHDOG_S: Final = 4.0
"""systemd's unit has 30 s. With less, a look is taken once a second, and a gap shows in a short measure."""

BEYOND_S: Final = 2.0
"""Bystanders look so long before a crowd comes, and after it has been served."""

NOTICE_S: Final = 0.5
"""What a bystander's question may take whatever others do."""

SMALL_BUFFERS: Final = ("--receive-buffer", 65_536)
"""So that thousands of sockets that are full stay below what the kernel gives all of TCP (tcp_mem, tcp(7))."""


def _health_row(when: str) -> Row:
    return Row(f"the longest wait for `/healthz` {when}", "s", AT_MOST, NOTICE_S, of_value=True)


def _ping_row(when: str) -> Row:
    return Row(f"the longest wait for a websocket's pong {when}", "s", AT_MOST, NOTICE_S, of_value=True)


def _said(noticed: Noticed) -> str:
    health, pings = noticed.health, noticed.pings
    return (
        f"{health.count} health checks, median {health.median_s * 1e3:.1f} ms; {pings.count} pings, "
        f"median {pings.median_s * 1e3:.1f} ms; {health.failures + pings.failures} failed"
    )


class _Core:
    """Which share of its core the server uses, since the last question."""

    def __init__(self, server: Served) -> None:
        self._pid = server.pid
        self._began_s, self._began_ns = time.monotonic(), cpu_ns(server.pid)

    def share(self) -> float:
        began_s, began_ns = self._began_s, self._began_ns
        self._began_s, self._began_ns = time.monotonic(), cpu_ns(self._pid)
        return (self._began_ns - began_ns) / 1e9 / (self._began_s - began_s)


def newcomers(plan: Plan) -> Iterator[Row]:
    """Clients that come all at once while the fan-out is busy with others."""
    yield from _beside(plan, 4000, 1000, 200)
    yield from _beside(plan, 1000, 1000, 500)
    yield from _all_at_once(plan, 9500, 50)


def _beside(plan: Plan, clients: int, rate: int, coming: int) -> Iterator[Row]:
    """A crowd of some comes to many who take more than a core can give."""
    what = f"{coming} newcomers beside {clients} clients at {rate} messages/s: until the last has its first message"
    served = Row(what, "s", AT_MOST, 2.0, of_value=True)
    half, health, pings = Row("the same, half of them", "s"), _health_row("meanwhile"), _ping_row("meanwhile")
    fed = f"the longest time between two feedings of a watchdog of {WATCHDOG_S:g} s"
    gap = Row(fed, "s", AT_MOST, WATCHDOG_S, of_value=True)
    for _ in range(plan.repeats):
        with ExitStack() as stack:
            watching = stack.enter_context(watchdog(WATCHDOG_S))
            server = stack.enter_context(daemon(plan.cores, rate, watching.environ))
            busy = stack.enter_context(load(plan.cores, server, clients, *FLAT_OUT, *SMALL_BUFFERS))
            near = stack.enter_context(bystanders(plan.cores, server))
            group = stack.enter_context(crowd(plan.cores, server, *SMALL_BUFFERS))
            busy.connect()
            busy.subscribe()
            time.sleep(plan.settle_s)
            near.look()
            core, began_s = _Core(server), time.monotonic()
            time.sleep(BEYOND_S)
            came = group.arrive(coming)
            time.sleep(BEYOND_S)
            noticed, share = near.tell(), core.share()
            gap.add(watching.gap_s(began_s))
        served.add(came.served_s)
        half.add(came.median_s)
        health.add(noticed.health.worst_s)
        pings.add(noticed.pings.worst_s)
        plan.say(f"  server {share:.0%} of its core; {_said(noticed)}")
    yield from (served, half, health, pings, gap)


def _all_at_once(plan: Plan, coming: int, rate: int) -> Iterator[Row]:
    """A daemon that has just started, and everybody comes."""
    one = Row(f"{coming} newcomers at {rate} messages/s: the longest that one of them waits", "s", AT_MOST, 10, True)
    last = Row("the same, until the last of them has its first message", "s")
    health, pings = _health_row("meanwhile"), _ping_row("meanwhile")
    later_health, later_pings = _health_row("once all are there"), _ping_row("once all are there")
    for _ in range(plan.repeats):
        with ExitStack() as stack:
            server = stack.enter_context(daemon(plan.cores, rate))
            near = stack.enter_context(bystanders(plan.cores, server))
            group = stack.enter_context(crowd(plan.cores, server, *SMALL_BUFFERS))
            near.look()
            core = _Core(server)
            came = group.arrive(coming)
            meanwhile, share = near.tell(), core.share()
            time.sleep(plan.settle_s)
            near.look()
            core.share()
            time.sleep(plan.seconds)
            later, later_share = near.tell(), core.share()
        one.add(came.worst_s)
        last.add(came.served_s)
        health.add(meanwhile.health.worst_s)
        pings.add(meanwhile.pings.worst_s)
        later_health.add(later.health.worst_s)
        later_pings.add(later.pings.worst_s)
        plan.say(f"  meanwhile server {share:.0%} of its core; {_said(meanwhile)}")
        plan.say(f"  once all are there server {later_share:.0%} of its core; {_said(later)}")
    yield from (one, last, health, pings, later_health, later_pings)


CROWDS: Final[dict[str, Callable[[Plan], Iterator[Row]]]] = {"newcomers": newcomers}
