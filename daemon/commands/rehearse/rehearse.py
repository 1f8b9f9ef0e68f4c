"""`tickerd rehearse`: every fault that the simulated venues can have, played to a real daemon with real clients.

Some pairs of a simulator and a daemon (`daemon.commands.rehearse.pair`) run side by side, and each takes the next case
as soon as it is done with one:

    all is live ─► switch the fault on ─► wait until clients are told (or, where they are not to be, for a while)
        ▲                                                                                  │
        └── until each topic has data again ◄── switch it off ◄── let it last a little ◄───┘

Some parts are about no venue. For a while the disk takes nothing of the daemon's tape: clients are to notice nothing.
The daemon itself is stopped for a while, or its clock is set back: `daemon.commands.rehearse.own`. Streams have pairs
of their own, one for each venue: `daemon.commands.rehearse.streams`.

What the clients noted meanwhile is then judged (`daemon.commands.rehearse.judge`). A pair is given up for a new one if
something is broken, and after a case whose venue asked for a pause that is longer than the user's patience.
"""

from __future__ import annotations

import resource
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, TypeAlias

import msgspec
import trio

from connectors.simulator.faults.faults import Delisted, ErrorBody, HttpStatus, Lasting, Notice
from connectors.simulator.faults.table import FAULTS, Case
from daemon.commands.rehearse import crowd, streams
from daemon.commands.rehearse.client import Pushes, order, readiness, wait_until
from daemon.commands.rehearse.crowd import Crowd
from daemon.commands.rehearse.judge import FULL_DISK, TROUBLE, Verdict, is_expected, judge, judge_disk, meets_s
from daemon.commands.rehearse.own import TITLES, Own, play
from daemon.commands.rehearse.pair import ALL, CHANNELS, START_S, STREAMED, Pair, ProcessError, running, streaming
from daemon.commands.rehearse.records import DiskRecord, Record, Told
from daemon.commands.rehearse.streams import StreamNotes, Streams

NOTICE_S: Final = 8.0
"""All limits of a rehearsal's daemon together are shorter: a fault not noticed by then is never noticed."""

LASTS_S: Final = 3.0
"""How long a fault lasts that clients must not notice: longer than any limit, or it would prove nothing."""

AFTER_S: Final = 0.8
"""How long a fault goes on after clients were told of it."""

SETTLE_S: Final = 0.4
"""The wait after recovery, in which late or doubled messages may still come."""

OTHERS_S: Final = 2.0
"""The other venues' channels have data at least this often."""

_LOOK_S: Final = 0.2

_FULL_DISK: Final = FULL_DISK.rpartition(" ")[2]
"""As `--only` names it."""


class FullDisk(msgspec.Struct, frozen=True):
    """The part in which the daemon's disk takes nothing. There the limit on the size of its files is set to nothing."""

    title: str = FULL_DISK
    possible: ClassVar[bool] = hasattr(resource, "prlimit")
    """Whether this system can do that to another process; Linux can."""


Part: TypeAlias = Case | FullDisk | Own | Crowd | Streams
"""What one pair plays at a time."""


class Terms(msgspec.Struct, frozen=True):
    """How to rehearse.

    Attributes:
        seed: Decides all prices and whatever faults leave to chance.
        jobs: Pairs side by side.
        patience_s: How long to wait for recovery. Where clients are told of a pause that is longer, that is taken
            for an end that is well.
    """

    seed: int = 1
    jobs: int = 12
    patience_s: float = 15.0


def chosen(names: Sequence[str]) -> tuple[Part, ...]:
    """The cases of these kinds of faults, or all. Whatever may make a venue ask for a long pause comes first.

    Raises:
        ValueError: there is no such fault; says which there are.
    """
    known = {kind.name: kind for kind in FAULTS}
    own = (*((_FULL_DISK,) if FullDisk.possible else ()), *TITLES, *crowd.TITLES)
    strange = [name for name in names if name not in known and name not in own]
    if strange:
        raise ValueError(f"--only: got {', '.join(strange)}; allowed: {', '.join((*known, *own))}")
    cases = [case for name, kind in known.items() if not names or name in names for case in kind.cases]
    asked = [name for name in own if not names or name in names]
    disk = [FullDisk() for name in asked if name == _FULL_DISK]
    ours = [Own(name) for name in TITLES if name in asked]
    crowds = [Crowd(name) for name in crowd.TITLES if name in asked]
    flows = [
        Streams(case)
        for name, kind in known.items()
        if not names or name in names
        for case in kind.streams
        if case.faults[0].venue in STREAMED
    ]
    return (*ours, *disk, *crowds, *flows, *sorted(cases, key=_pause_s, reverse=True))


def samples(parts: Sequence[Part]) -> tuple[Part, ...]:
    """One case of each kind of fault among these, all venues as often as possible."""
    by_name: dict[str, list[Case]] = {}
    own: list[Part] = [part for part in parts if isinstance(part, FullDisk | Own | Crowd)]
    flows = {part.case.faults[0].name: part for part in reversed(parts) if isinstance(part, Streams)}
    own += flows.values()
    for case in parts:
        if isinstance(case, FullDisk | Own | Crowd | Streams):
            continue
        by_name.setdefault(case.fault.name, []).append(case)
    picked = dict.fromkeys(CHANNELS, 0)
    found = []
    for of_kind in sorted(by_name.values(), key=lambda cases: len({case.fault.venue for case in cases})):
        case = min(of_kind, key=lambda case: picked[case.fault.venue])
        picked[case.fault.venue] += 1
        found.append(case)
    return (*own, *sorted(found, key=_pause_s, reverse=True))


def _pause_s(case: Case) -> float:
    """Roughly how long the venue asks clients to wait."""
    match case.fault:
        case HttpStatus(status=418 | 429 as status, retry_after_s=None):
            return 120.0 if status == 418 else 60.0
        case ErrorBody():
            return 60.0
        case _:
            return 0.0


async def rehearse(parts: Iterable[Part], terms: Terms, *, ended: Callable[[Verdict], None]) -> bool:
    """Play all cases, or until SIGINT or SIGTERM; `ended` is called after each. No process is left behind.

    Returns:
        Whether all were played.

    Raises:
        ExceptionGroup: of a ProcessError, where a process cannot be started.
    """
    pushes = Pushes(terms.seed)
    # Crowds play last and by themselves: they take the machine's time from everybody, and the others are judged by it.
    parts = list(parts)
    crowds = [part for part in parts if isinstance(part, Crowd)]
    flows = [part for part in parts if isinstance(part, Streams)]
    venues = iter([[part for part in flows if part.venue == venue] for venue in dict.fromkeys(p.venue for p in flows)])
    groups = (([part for part in parts if not isinstance(part, Crowd | Streams)], terms.jobs), (crowds, 1))
    played = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at_once, signals, nursery.cancel_scope)
            for group, count in groups:
                left = iter(group)
                async with trio.open_nursery() as jobs:
                    for _ in range(count):
                        jobs.start_soon(_work, venues, left, terms, pushes, ended)
            played = True
            nursery.cancel_scope.cancel()
    return played


async def _stop_at_once(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel(reason="a signal")


async def _work(
    venues: Iterator[Sequence[Streams]],
    left: Iterator[Part],
    terms: Terms,
    pushes: Pushes,
    ended: Callable[[Verdict], None],
) -> None:
    """One job: the streams of one venue after another, then other parts, as long as there are any."""
    for flows in venues:
        await _work_streams(flows, terms, pushes, ended)
    part = next(left, None)
    while part is not None:
        with tempfile.TemporaryDirectory(prefix="tickerd-rehearsal-") as folder:
            async with running(Path(folder), terms.seed, pushes, own=isinstance(part, Own)) as pair:
                if not await _wait(pair, partial(pair.is_fresh, 0.0), START_S):
                    raise ProcessError(f"the daemon is not live after {START_S:g} s: {pair.failure}")
                sound = True
                while sound and part is not None:
                    if isinstance(part, Own):
                        if not pair.own:
                            break  # it takes a pair of its own
                        verdict, sound = await play(pair, part, terms.patience_s), False
                    elif isinstance(part, FullDisk):
                        verdict, sound = await _fill_disk(pair, terms.patience_s)
                    elif isinstance(part, Crowd):
                        verdict = await crowd.play(pair, part, terms.patience_s)
                        sound = verdict.is_well
                    elif isinstance(part, Case):
                        verdict, sound = await _play(pair, part, terms.patience_s)
                    else:
                        raise TypeError(f"{part.title} takes a pair with streams")
                    ended(verdict)
                    part = next(left, None)


async def _work_streams(
    parts: Sequence[Streams], terms: Terms, pushes: Pushes, ended: Callable[[Verdict], None]
) -> None:
    """All cases of one venue's streams."""
    venue, left = parts[0].venue, list(reversed(parts))
    while left:
        notes = StreamNotes(pushes, terms.seed, venue)
        with tempfile.TemporaryDirectory(prefix="tickerd-rehearsal-") as folder:
            async with streaming(Path(folder), terms.seed, venue, notes) as pair:
                if not await _wait(pair, partial(notes.is_well, 0.0), START_S):
                    raise ProcessError(f"the daemon is not live after {START_S:g} s: {pair.failure or notes.lacks}")
                sound = True
                while sound and left:
                    verdict = await streams.play(pair, left.pop(), terms.patience_s)
                    sound = verdict.is_well
                    ended(verdict)


async def _play(pair: Pair, case: Case, patience_s: float) -> tuple[Verdict, bool]:
    """One case, from all being live to all being live: how it went, and whether the pair is fit for another."""
    book, fault = pair.book, case.fault
    page = book.turn_over()
    logged = len(pair.daemon.log)
    channels = CHANNELS[fault.venue]
    others = tuple(name for group in CHANNELS.values() for name in group if name not in channels)
    record = Record(case=case, channels=channels, others=others, before=page)
    record.began_s, record.began_ms = time.monotonic(), time.time() * 1000
    try:
        await _endure(pair, record, patience_s)
    except (OSError, trio.TooSlowError) as error:
        record.failure = f"the simulator does not take orders: {error!r}"
    record.entries, record.log = book.entries, pair.daemon.log[logged:]
    record.standstills = book.standstills
    record.failure = pair.failure or record.failure
    # An instrument that is set aside would be missing in the next case.
    sound = record.recovered_s is not None and not record.failure and not isinstance(fault, Delisted)
    return judge(record), sound


async def _fill_disk(pair: Pair, patience_s: float) -> tuple[Verdict, bool]:
    """The disk takes nothing for a while, and then it does again."""
    logged = len(pair.daemon.log)
    record = DiskRecord(channels=ALL, before=pair.book.turn_over())
    record.began_s, record.began_ms = time.monotonic(), time.time() * 1000
    try:
        pair.daemon.limit_files(0)
        record.noticed_s = await _wait_said(pair, record, NOTICE_S, trouble=True)
        # However often the daemon tries, it logs this once, and clients keep getting data.
        await _wait(pair, lambda: False, LASTS_S)
        pair.daemon.limit_files(None)
        record.cleared_s = time.monotonic()
        record.recovered_s = await _wait_said(pair, record, patience_s, trouble=False)
        await _wait(pair, partial(pair.is_fresh, record.cleared_s), OTHERS_S)
        await _wait(pair, lambda: False, SETTLE_S)
    except (OSError, trio.TooSlowError, msgspec.DecodeError) as error:
        record.failure = f"the daemon does not answer GET /readyz: {error!r}"
    record.entries, record.log = pair.book.entries, pair.daemon.log[logged:]
    record.standstills = pair.book.standstills
    record.failure = pair.failure or record.failure
    return judge_disk(record), record.recovered_s is not None and not record.failure


async def _wait_said(pair: Pair, record: DiskRecord, most_s: float, *, trouble: bool) -> float | None:
    """Wait until `/readyz` says that the tape is not stored, or that nothing is amiss. Returns when; None: never."""
    until_s = time.monotonic() + most_s
    while time.monotonic() < until_s and not pair.failure:
        reason = await readiness(pair.daemon.port)
        record.reason = reason or record.reason
        if bool(reason) == trouble:
            return time.monotonic()
        await trio.sleep(_LOOK_S)
    return None


async def _endure(pair: Pair, record: Record, patience_s: float) -> None:
    """Switch the fault on, and off again when clients know, and wait until all is well. The times go to the record."""
    case, fault = record.case, record.case.fault
    channels, others = record.channels, record.others
    # Where others of its channel go on, nobody waits for the hour to be over after which it is asked for again.
    gone = fault.instrument if isinstance(fault, Delisted) and "live" in case.expects else None
    await order(pair.venues.port, msgspec.to_builtins(fault))
    if case.expects:
        await _wait(pair, lambda: _is_told(pair, record), NOTICE_S)
        await _wait(pair, lambda: False, AFTER_S)
    else:
        lasts_s = fault.close_after_s + 1.0 if isinstance(fault, Notice) else LASTS_S
        await _wait(pair, lambda: False, lasts_s)
    record.cleared_s = time.monotonic() if isinstance(fault, Lasting | Notice) else record.began_s
    await order(pair.venues.port, {"clear": True})
    again_s = time.monotonic()
    # What is told to come back at a time has until then, and is looked for after that.
    most_s = patience_s + min(patience_s, _promised_s(pair, record))
    await _wait(
        pair,
        lambda: pair.is_fresh(again_s, channels, gone) or _promised_s(pair, record) > patience_s,
        most_s,
    )
    if pair.is_fresh(again_s, channels, gone):
        record.recovered_s = time.monotonic()
    elif (promised_s := _promised_s(pair, record)) > patience_s:
        record.promised_s = promised_s
    await _wait(pair, lambda: pair.is_fresh(again_s, others), OTHERS_S)
    await _wait(pair, lambda: False, SETTLE_S)


def _is_told(pair: Pair, record: Record) -> bool:
    """Whether clients have been told what they must be told."""
    told = [
        entry
        for entry in pair.book.entries
        if isinstance(entry, Told) and entry.channel in record.channels and entry.at_s >= record.began_s
    ]
    met_s = meets_s(record.case.fault, told, record.began_s)
    return any(is_expected(record.case, one) and one.at_s >= met_s for one in told)


def _promised_s(pair: Pair, record: Record) -> float:
    """The seconds from now until the last of the channels in trouble is due for its next attempt."""
    states = [pair.book.states[name] for name in record.channels if name in pair.book.states]
    waits = [
        told.at_s + told.retry_in_s - time.monotonic()
        for told in states
        if told.state in TROUBLE and told.retry_in_s is not None
    ]
    return max(waits, default=0.0)


async def _wait(pair: Pair, is_so: Callable[[], bool], most_s: float) -> bool:
    """Wait until the condition holds, up to a limit and while the pair works. Returns whether it holds."""
    return await wait_until(pair.book, is_so, lambda: bool(pair.failure), most_s)
