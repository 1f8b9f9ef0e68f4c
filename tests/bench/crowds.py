"""What crowds cost those who did no harm: newcomers beside a busy fan-out, clients that resume, floods of requests.

There is nothing to compare these with: the goals are about what clients and the operator notice.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.measures import DISTURBED_SHARE, FLAT_OUT, Plan
from tests.bench.processes import Served, bystanders, crowd, daemon, flood, head, load, newest
from tests.bench.report import AT_MOST, Row
from tests.bench.watchdog import watchdog
from tests.bench.window import Noticed, cpu_ns, waited_ns
from tests.observed import LONG_S, forget_steps, steps

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


def _gap_row() -> Row:
    what = f"the longest time between two feedings of a watchdog of {WATCHDOG_S:g} s"
    return Row(what, "s", AT_MOST, WATCHDOG_S, of_value=True)


def _said(noticed: Noticed) -> str:
    health, pings = noticed.health, noticed.pings
    return (
        f"{health.count} health checks, median {health.median_s * 1e3:.1f} ms; {pings.count} pings, "
        f"median {pings.median_s * 1e3:.1f} ms; {health.failures + pings.failures} failed"
    )


class _Core:
    """What the server's core is used for, since the last question."""

    def __init__(self, server: Served) -> None:
        self._pid = server.pid
        self._seen = self._look()

    def _look(self) -> tuple[float, int, int]:
        return time.monotonic(), cpu_ns(self._pid), waited_ns(self._pid)

    def told(self) -> str:
        """The server's share of it, and whether something else wanted it too: then the figures say little."""
        (began_s, began_ns, waiting_ns), self._seen = self._seen, self._look()
        took_ns = (self._seen[0] - began_s) * 1e9
        share, waited = (self._seen[1] - began_ns) / took_ns, (self._seen[2] - waiting_ns) / took_ns
        disturbed = f"; it WAITED for its core for {waited:.0%} of the time" if waited > DISTURBED_SHARE else ""
        return f"server {share:.0%} of its core{disturbed}"


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
    gap = _gap_row()
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
            noticed, used = near.tell(), core.told()
            gap.add(watching.gap_s(began_s))
        served.add(came.served_s)
        half.add(came.median_s)
        health.add(noticed.health.worst_s)
        pings.add(noticed.pings.worst_s)
        plan.say(f"  {used}; {_said(noticed)}")
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
            meanwhile, used = near.tell(), core.told()
            time.sleep(plan.settle_s)
            near.look()
            core.told()
            time.sleep(plan.seconds)
            later, later_used = near.tell(), core.told()
        one.add(came.worst_s)
        last.add(came.served_s)
        health.add(meanwhile.health.worst_s)
        pings.add(meanwhile.pings.worst_s)
        later_health.add(later.health.worst_s)
        later_pings.add(later.pings.worst_s)
        plan.say(f"  meanwhile {used}; {_said(meanwhile)}")
        plan.say(f"  once all are there {later_used}; {_said(later)}")
    yield from (one, last, health, pings, later_health, later_pings)


TAPE_ENTRIES: Final = 100_000
FILL_RATE: Final = 20_000
FILL_WITHIN_S: Final = 60.0
FAR_BACK: Final = 95_000
"""How far from the tape's head clients resume: at its far end, less what arrives while they do."""

SLOW_CHANNEL: Final = {
    "TICKERD_CONNECTORS__BINANCE__ENABLED": "true",
    "TICKERD_CHANNELS__BINANCE_ORDERBOOK__ENABLED": "false",
    "TICKERD_CHANNELS__BINANCE_24HR__ENABLED": "false",
    "TICKERD_CHANNELS__BINANCE_PRICES__CADENCE_S": "1",
}
"""A second channel, of which one message in thousands on the tape is."""


def resume(plan: Plan) -> Iterator[Row]:
    """A load balancer's restart: all clients of a daemon come back at once, and resume from the tape's far end."""
    yield from _resume(plan, 1000, "bitcoinprice", whole=False)
    yield from _resume(plan, 1000, "binance_prices", whole=True)


def _resume(plan: Plan, clients: int, channel: str, *, whole: bool) -> Iterator[Row]:
    """All that is on the tape of that channel, up to its newest message where it is `whole`."""
    what = f"{clients} clients resume {channel} from the far end of a tape of {TAPE_ENTRIES} entries"
    longest = Row(f"{what}: the longest step of the event loop, CPU time", "ms", AT_MOST, LONG_S * 1e3, of_value=True)
    clock, turn = Row("the same, by the clock", "ms"), Row("the longest turn of the event loop", "ms")
    passes = Row("the longest pass of the fan-out to those that have caught up, CPU time", "ms")
    served = Row("until the last of them has its first message", "s")
    there = Row("until the last of them has caught up", "s")
    fed = Row("what all of them are sent from then on", "MB/s")
    health, pings = _health_row("meanwhile"), _ping_row("meanwhile")
    for _ in range(plan.repeats):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = {**SLOW_CHANNEL, "TICKERD_TAPE__PATH": str(folder / "tape.sqlite")}
            _fill(plan, settings)
            file = folder / "steps"
            server = stack.enter_context(daemon(plan.cores, 100, settings, file))
            near = stack.enter_context(bystanders(plan.cores, server))
            group = stack.enter_context(
                crowd(plan.cores, server, "--channel", channel, *SMALL_BUFFERS, "--patience-s", 90)
            )
            time.sleep(plan.settle_s)
            since, upto = head(server.port) - FAR_BACK, newest(server.port, channel)
            near.look()
            forget_steps(file)
            core = _Core(server)
            came = group.resume(clients, since, upto if whole else 0)
            drained = group.drain(plan.seconds)
            seen, noticed, used = steps(file), near.tell(), core.told()
        longest.add(seen.longest_cpu_s * 1e3)
        clock.add(seen.longest_s * 1e3)
        passes.add(seen.longest_pass_s * 1e3)
        turn.add(seen.longest_turn_s * 1e3)
        served.add(came.served_s)
        there.add(came.there_s)
        fed.add(drained.bytes / drained.seconds / 1e6)
        health.add(noticed.health.worst_s)
        pings.add(noticed.pings.worst_s)
        plan.say(f"  {used}; {_said(noticed)}")
        plan.say(
            f"  {seen.count} steps, {seen.long_count} over {LONG_S * 1e3:g} ms of CPU time; the longest by CPU time of "
            f"{seen.cpu_name}, by the clock of {seen.name}; {drained.least_bytes / drained.seconds / 1e6:.2f} MB/s at "
            "the client that was sent least"
        )
    yield from (longest, clock, passes, turn, served, *([there] if whole else [fed]), health, pings)


def _fill(plan: Plan, settings: dict[str, str]) -> None:
    """A first run of the daemon leaves a full tape behind."""
    deadline_s = time.monotonic() + FILL_WITHIN_S
    with daemon(plan.cores, FILL_RATE, settings) as server:
        while head(server.port) < 1.05 * TAPE_ENTRIES:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the tape was not full after {FILL_WITHIN_S:g} s")
            time.sleep(0.2)


FLOODS: Final = ("/metrics", "/snapshot/bitcoinprice", "/gaps", "/asyncapi.json", "/nothing")
FLOOD_CONNECTIONS: Final = 200
"""What one address may have open at once."""

BEHIND_PROXY: Final = {"TICKERD_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]'}
"""Loopback has no limits per address: so a proxy names the addresses."""

FLOODER: Final = "203.0.113.66"
BYSTANDER: Final = "203.0.113.7"


def floods(plan: Plan) -> Iterator[Row]:
    """One address requests one thing over and over, on all connections that it may have."""
    for path, address in (*((path, FLOODER) for path in FLOODS), ("/metrics", "")):
        whence = "one address" if address else "this machine"
        what = f"{FLOOD_CONNECTIONS} connections from {whence} pipeline GET {path}: a bystander's wait for its pong"
        half = Row(f"{what}, median", "ms")
        pings, health = _ping_row("meanwhile"), _health_row("meanwhile")
        gap = _gap_row()
        for _ in range(plan.repeats):
            with ExitStack() as stack:
                watching = stack.enter_context(watchdog(WATCHDOG_S))
                server = stack.enter_context(daemon(plan.cores, 10, watching.environ | BEHIND_PROXY))
                near = stack.enter_context(bystanders(plan.cores, server, "--forwarded", BYSTANDER))
                pour = stack.enter_context(
                    flood(plan.cores, server, path, "--connections", FLOOD_CONNECTIONS, "--forwarded", address)
                )
                time.sleep(WATCHDOG_S / 4)
                near.look()
                core, began_s = _Core(server), time.monotonic()
                flooded = pour(max(plan.seconds, WATCHDOG_S))
                noticed, used = near.tell(), core.told()
                gap.add(watching.gap_s(began_s))
            half.add(noticed.pings.median_s * 1e3)
            pings.add(noticed.pings.worst_s)
            health.add(noticed.health.worst_s)
            rates = ", ".join(f"{count / flooded.seconds:.0f}/s {code}" for code, count in flooded.answers.items())
            closed, megabytes = flooded.closed / flooded.seconds, flooded.bytes / flooded.seconds / 1e6
            plan.say(f"  answered {rates or 'nothing'}; {megabytes:.1f} MB/s; {closed:.0f} connections/s closed")
            plan.say(f"  {used}; {_said(noticed)}")
        yield from (half, pings, health, gap)


CROWDS: Final[dict[str, Callable[[Plan], Iterator[Row]]]] = {"newcomers": newcomers, "resume": resume, "floods": floods}
