"""The course of a soak: processes, witnesses, a first wave of clients, a measure, clients and faults, a measure.

The first wave is there so that what is allocated once for good (allocator arenas, caches, the tape at its full length)
counts as *before*. Then what the daemon takes must come back to that, with all clients gone and all faults over:

* tasks and open files: not one more than the most that was seen before;
* memory: at most `SLACK_KIB` more. With the thousands of sessions of a soak, that is a few hundred bytes for each; what
  an allocator keeps for fragmentation lies well within.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import msgspec
import trio

from tests.soak.checker import Checker, Offence
from tests.soak.client import Client, Tally
from tests.soak.disk_faults import DiskFaults
from tests.soak.listener import Asked, Witness
from tests.soak.market_books import MarketBooks
from tests.soak.processes import Cost, Daemon, running
from tests.soak.record import Session
from tests.soak.reference import Reference
from tests.soak.venue_faults import VenueFaults
from tests.soak.way import Way
from tests.soak.wire import Connection, EndedError

OKX_RATE: Final = 3.0
"""Tickers a second of each instrument, which is also how many steps the simulated market makes: books, trades."""

SLACK_KIB: Final = 12 * 1024
LIVE_WITHIN_S: Final = 40.0

AGAIN_WITHIN_S: Final = 60.0
"""A venue that refused something is asked again within this time, since it refuses no longer than faults last here."""

BACK_WITHIN_S: Final = 30.0

PAUSE_S: Final = 18.0
"""For so long the daemon is stopped once: longer than the silence for which it drops a client. The witnesses must not
be dropped for it, and must miss nothing."""

CLOCK_BACK_S: Final = 3600.0
"""Then its wall clock is set back by so much, for good: channels go on, live."""
_BASELINE_S: Final = 3.0


class Plan(msgspec.Struct, frozen=True):
    """How long, how many, which draws, and what is to be wrong with the daemon (`tests.soak.inside`).

    `workers`: how many processes serve clients; what is measured is the daemon's first process.
    """

    seconds: float
    clients: int
    seed: int
    fault: str = "none"
    workers: int = 1

    @property
    def first_wave_s(self) -> float:
        """How long the first wave takes."""
        return min(20.0, self.seconds / 4)


class Result(msgspec.Struct, kw_only=True):
    """What came of it.

    Attributes:
        wrong: What is wrong beside clients' records, a line each.
        offences: What is wrong in clients' records.
        whole: The channels of which every message counts.
        books: How many books that clients were given or had rebuilt were compared with the witnesses'.
        market_books: How many of the witnesses' books were those of the simulated market when all faults were over.
    """

    wrong: list[str] = []
    offences: list[Offence] = []
    clients: int = 0
    sessions: int = 0
    messages: int = 0
    witnessed: dict[str, int] = {}
    explained: dict[str, int] = {}
    books: int = 0
    market_books: int = 0
    whole: tuple[str, ...] = ()
    faults: dict[str, int] = {}
    deeds: dict[str, int] = {}
    closes: dict[str, int] = {}
    said: dict[str, int] = {}
    before: Cost | None = None
    after: Cost | None = None
    exit_code: int | None = None


def soak(plan: Plan, folder: Path) -> Result:
    """Run it all; logs and configuration are left in the folder."""
    result, market = Result(), MarketBooks(plan.seed, OKX_RATE)
    with running(folder, plan.seed, OKX_RATE, plan.fault, plan.workers) as (venues_port, daemon):
        reference, clients, tally = Reference(), list[Client](), Tally()
        faults, disk = VenueFaults(venues_port, plan.seed), DiskFaults(daemon, plan.seed)
        port = daemon.port()
        try:
            way = Way(port, daemon.opinion)
            trio.run(partial(_course, plan, way, faults, disk, daemon, reference, market, clients, tally, result))
        except* (RuntimeError, httpx.HTTPError, OSError) as errors:
            result.wrong += [f"it ended too soon: {error!r}" for error in errors.exceptions]
        if not daemon.alive:
            result.wrong.append("the daemon ended by itself")
        result.exit_code = daemon.stop()
        if result.exit_code != 0:
            result.wrong.append(f"the daemon's exit code on SIGTERM is {result.exit_code}")
        result.wrong += daemon.tracebacks()
    result.wrong += reference.broken
    checker = Checker(reference, result.whole)
    for client in clients:
        checker.client(client.sessions)
    offenders = {(offence.client, offence.session) for offence in checker.offences}
    for session in (session for client in clients for session in client.sessions):
        if (session.client, session.number) in offenders:
            record = "\n".join(map(repr, [*session.deeds, *session.entries(), session.complete_to]))
            record = f"{session.evidence}\n{record}"
            (folder / f"client-{session.client}-{session.number}.txt").write_text(record, encoding="utf-8")
    result.clients, result.sessions, result.messages = len(clients), checker.sessions, checker.messages
    result.offences, result.explained, result.books = checker.offences, dict(checker.explained), checker.books
    result.witnessed, result.faults = reference.channels(), {**faults.played, "full_disk": disk.played}
    result.deeds, result.closes, result.said = dict(tally.deeds), dict(tally.closes), dict(tally.said)
    return result


async def _course(
    plan: Plan,
    way: Way,
    faults: VenueFaults,
    disk: DiskFaults,
    daemon: Daemon,
    reference: Reference,
    market: MarketBooks,
    clients: list[Client],
    tally: Tally,
    result: Result,
) -> None:
    port = way.port
    channels = await _wait_live(port)
    kinds = await _channels(port)
    result.whole = tuple(channel.name for channel in kinds if channel.kind in ("trades", "depth"))
    async with trio.open_nursery() as nursery:
        for channel in channels:
            await nursery.start(_witness, port, channel, reference, result)
        await _wave(plan, way, channels, reference, tally, clients, plan.first_wave_s, 0)
        await _wait_live(port)
        result.before = await _baseline(daemon)
        if plan.fault == "none":
            await _disturb(daemon, port)
        async with trio.open_nursery() as both:
            both.start_soon(faults.run, trio.current_time() + plan.seconds)
            both.start_soon(disk.run, trio.current_time() + plan.seconds)
            both.start_soon(_wave, plan, way, channels, reference, tally, clients, plan.seconds, plan.clients)
        await _wait_live(port)
        await _wait_stored(port)
        books = {channel.name: channel.source for channel in kinds if channel.kind == "depth"}
        result.wrong += await market.check(reference, books)
        result.market_books = market.compared
        result.after = await _back(daemon, result)
        nursery.cancel_scope.cancel()


async def _disturb(daemon: Daemon, port: int) -> None:
    """Stop it for a while, and set its clock back. Raises: RuntimeError, where its channels are not live after that."""
    await trio.to_thread.run_sync(daemon.pause, PAUSE_S)
    await _wait_live(port)
    await trio.to_thread.run_sync(daemon.set_clock, -CLOCK_BACK_S)
    await trio.sleep(_BASELINE_S)
    await _wait_live(port)


async def _wave(
    plan: Plan,
    way: Way,
    channels: tuple[str, ...],
    reference: Reference,
    tally: Tally,
    clients: list[Client],
    seconds: float,
    first: int,
) -> None:
    """All clients come and go for so long, and have left at the end."""
    until_s = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for number in range(first, first + plan.clients):
            client = Client(number, plan.seed, channels, reference, tally, way)
            clients.append(client)
            nursery.start_soon(client.run, until_s, min(25.0, seconds / 3))


async def _witness(
    port: int,
    channel: str,
    reference: Reference,
    result: Result,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Take one channel without a break until cancelled. Whatever ends it makes the soak worthless, and is said."""
    dice = random.Random(channel)
    session = Session(-1, 0, "json")
    try:
        connection = await Connection.open(port, dice, "json", tiny=False)
        listener = Witness(connection, session, dice, reference.add, reference.begin)
        await listener.wait_welcome(LIVE_WITHIN_S)
        await listener.subscribe(Asked(channels=(channel,)))
        task_status.started()
        while True:
            await listener.listen(60.0)
            if listener.counts.get("lagged"):
                result.wrong.append(f"the witness of {channel} lagged: this machine is too slow for this soak")
                return
    except EndedError as end:
        result.wrong.append(f"the witness of {channel} lost its connection: {end}")


class _Topic(msgspec.Struct):
    state: str = ""
    reason: str = ""


class _Channel(msgspec.Struct):
    name: str
    state: str
    kind: str = ""
    source: str = ""
    retry_in_s: float | None = None
    topics: dict[str, _Topic] = {}

    @property
    def is_well(self) -> bool:
        """Whether it is live, and all of its topics are."""
        return self.state == "live" and all(topic.state == "live" for topic in self.topics.values())


class _Channels(msgspec.Struct):
    channels: list[_Channel]


class _Readiness(msgspec.Struct):
    reason: str = ""


async def _wait_live(port: int) -> tuple[str, ...]:
    """Wait until every channel is live, and return their names.

    Where the daemon says that it asks a venue again in a while, as after a refusal, the time counts from then.

    Raises:
        RuntimeError: one of them is not in time.
    """
    seen: list[_Channel] = []
    began_s = trio.current_time()
    async with httpx.AsyncClient(trust_env=False, headers={"connection": "close"}) as http:
        with trio.move_on_after(LIVE_WITHIN_S) as patience:
            while True:
                answer = await http.get(f"http://127.0.0.1:{port}/channels")
                seen = msgspec.json.decode(answer.content, type=_Channels).channels
                if all(channel.is_well for channel in seen):
                    return tuple(channel.name for channel in seen)
                again_s = trio.current_time() + max(channel.retry_in_s or 0.0 for channel in seen)
                patience.deadline = max(patience.deadline, min(again_s, began_s + AGAIN_WITHIN_S) + LIVE_WITHIN_S)
                await trio.sleep(0.2)
    unwell = [channel for channel in seen if not channel.is_well]
    raise RuntimeError(f"not all channels are live after {trio.current_time() - began_s:.0f} s: {unwell}")


async def _channels(port: int) -> list[_Channel]:
    async with httpx.AsyncClient(trust_env=False, headers={"connection": "close"}) as http:
        answer = await http.get(f"http://127.0.0.1:{port}/channels")
    return msgspec.json.decode(answer.content, type=_Channels).channels


async def _wait_stored(port: int) -> None:
    """Wait until the tape is stored again. Raises: RuntimeError, where it is not in time."""
    said = "nothing"
    async with httpx.AsyncClient(trust_env=False, headers={"connection": "close"}) as http:
        with trio.move_on_after(LIVE_WITHIN_S):
            while said:
                answer = await http.get(f"http://127.0.0.1:{port}/readyz")
                said = msgspec.json.decode(answer.content, type=_Readiness).reason
                await trio.sleep(0.2)
    if said:
        raise RuntimeError(f"after {LIVE_WITHIN_S:g} s /readyz still says: {said}")


async def _baseline(daemon: Daemon) -> Cost:
    """The most that the daemon takes over some seconds."""
    seen: list[Cost] = []
    end_s = trio.current_time() + _BASELINE_S
    while trio.current_time() < end_s:
        await trio.sleep(0.1)
        seen.append(daemon.cost())
    return Cost(max(c.memory_kib for c in seen), max(c.files for c in seen), max(c.tasks for c in seen))


async def _back(daemon: Daemon, result: Result) -> Cost:
    """Wait until the daemon is back to where it was; what it took last, and a word where it is not."""
    before = result.before
    assert before is not None
    after = daemon.cost()
    with trio.move_on_after(BACK_WITHIN_S):
        while not _is_back(before, after):
            await trio.sleep(0.2)
            after = daemon.cost()
    if not _is_back(before, after):
        result.wrong.append(f"the daemon is not back to where it was (rule: {SLACK_KIB} KiB more): {before}, {after}")
    return after


def _is_back(before: Cost, after: Cost) -> bool:
    return (
        after.tasks <= before.tasks
        and after.files <= before.files
        and after.memory_kib <= before.memory_kib + SLACK_KIB
    )


def counted(counts: dict[str, int]) -> str:
    """Counts in words, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in Counter(counts).most_common()) or "none"
