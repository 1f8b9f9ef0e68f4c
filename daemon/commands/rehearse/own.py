"""The parts of a rehearsal that are about no venue, but about the daemon's own time: a pause, and a clock set back.

Each has a pair of its own, with limits that are shorter than the pause and a wall clock that can be set
(`daemon.commands.rehearse.set_clock`). What clients noted is judged in `judge_own`.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final, Literal, TypeAlias

import msgspec
import trio

from connectors.base import State
from daemon.commands.rehearse.client import gap_causes, wait_until
from daemon.commands.rehearse.judge import Verdict, doubled, errors, holes, missing
from daemon.commands.rehearse.pair import ALL, Pair
from daemon.commands.rehearse.records import Data, Noted, Told

Name: TypeAlias = Literal["own_pause", "clock_back"]

TITLES: Final[dict[Name, str]] = {"own_pause": "tickerd own_pause", "clock_back": "tickerd clock_back"}

PAUSE_S: Final = 11.0
"""How long the daemon is stopped: longer than its limits on silent clients here, and than connectors go on after."""

BACK_S: Final = 3_600.0
"""How far the clock is set back."""

LASTS_S: Final = 5.0
"""How long what follows is looked at: longer than any limit on a channel's silence here."""

_SETTLE_S: Final = 0.4

_CAUSES: Final[dict[Name, str]] = {"own_pause": "pause", "clock_back": "clock"}
"""What the ledger calls it."""

_SAID: Final = "did not run"
"""In what clients are told after a pause."""


class Own(msgspec.Struct, frozen=True):
    """One of these parts."""

    name: Name

    @property
    def title(self) -> str:
        """As in the table."""
        return TITLES[self.name]


class OwnRecord(Noted, kw_only=True):
    """What was seen of one of them. `causes`: of the gaps that are in the ledger afterwards."""

    name: Name
    causes: tuple[str, ...] = ()


async def play(pair: Pair, part: Own, patience_s: float) -> Verdict:
    """Play it, from all being live to all being live."""
    logged = len(pair.daemon.log)
    record = OwnRecord(name=part.name, before=pair.book.turn_over())
    record.began_s, record.began_ms = time.monotonic(), time.time() * 1000
    try:
        if part.name == "own_pause":
            with pair.daemon.stopped():
                await trio.sleep(PAUSE_S)
            record.cleared_s = time.monotonic()
        else:
            pair.set_clock(-BACK_S)
            record.cleared_s = time.monotonic()
            await trio.sleep(LASTS_S)
        again_s = time.monotonic()
        if await wait_until(pair.book, partial(pair.is_fresh, again_s), lambda: bool(pair.failure), patience_s):
            record.recovered_s = time.monotonic()
        await trio.sleep(_SETTLE_S)
        record.causes = tuple(await gap_causes(pair.daemon.port))
    except (OSError, trio.TooSlowError, msgspec.DecodeError) as error:
        record.failure = f"the daemon does not answer GET /gaps: {error!r}"
    record.entries, record.log = pair.book.entries, pair.daemon.log[logged:]
    record.standstills = pair.book.standstills
    record.failure = pair.failure or record.failure
    return judge_own(record)


def judge_own(record: OwnRecord) -> Verdict:
    """Whether it ended well. Pure.

    Clients stay, and no message that was published is lost or doubled. After a pause every channel was told not to be
    live, with the reason, before it was again; a clock that was set back concerns nobody. The ledger says what it was.
    """
    cause = _CAUSES[record.name]
    told = [entry for entry in record.entries if isinstance(entry, Told)]
    heard = {entry.channel for entry in record.entries if isinstance(entry, Data) and entry.at_s >= record.cleared_s}
    warned = {one.channel for one in told if one.state != "live" and _SAID in one.reason}
    paused = record.name == "own_pause"
    # What the venues pushed meanwhile nobody could take.
    lost, again = holes(record) + (0 if paused else missing(record)), doubled(record)
    disturbed = sorted(set(ALL) - heard | (set() if paused else {one.channel for one in told if one.state != "live"}))
    silent = sorted(set(ALL) - warned) if paused else []
    states: tuple[State, ...] = tuple(dict.fromkeys(one.state for one in told))
    return Verdict(
        fault=TITLES[record.name],
        told=states,
        reason=next((one.reason for one in told if one.reason), ""),
        notice_s=min((one.at_s - record.cleared_s for one in told if one.channel in warned), default=None),
        recover_s=None if record.recovered_s is None else record.recovered_s - record.cleared_s,
        lost=lost,
        doubled=again,
        disturbed=tuple(disturbed),
        up=not record.failure,
        problems=(
            *([record.failure] if record.failure else []),
            *errors(record),
            *([f"clients were not told of {', '.join(silent)}"] if silent else []),
            *(
                []
                if record.causes.count(cause) == 1
                else [f"the ledger has {record.causes.count(cause)} gaps `{cause}`"]
            ),
            *([f"{lost} messages lost"] if lost else []),
            *([f"{again} messages doubled"] if again else []),
            *([f"disturbed: {', '.join(disturbed)}"] if disturbed else []),
            *(["not recovered"] if record.recovered_s is None else []),
        ),
    )
