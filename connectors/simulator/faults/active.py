"""Which faults are on in the simulator, what they choose by chance, and how often each has acted. No I/O.

Chance is a function of the simulator's seed, the number of the order and what the choice is about (the third ticker of
the second connection, say), and of nothing else: so the same orders in the same order choose the same frames, whatever
else happens meanwhile.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

import msgspec

from connectors.simulator.faults.faults import VENUES, Fault, Lasting, Notice, Sampled, Venue


class Listed(msgspec.Struct, frozen=True):
    """A fault that is on, as `GET /control` shows it.

    Attributes:
        on_s: Seconds since it was switched on.
        left_s: Seconds until it ends; None where no end is known.
        acted: How often it has acted: on frames, answers or connections.
    """

    fault: Fault
    on_s: float
    left_s: float | None
    acted: int


class ActiveFault:
    """A fault that is on.

    Args:
        number: Of the order, from 0.
        fault: What was ordered.
        seed: The simulator's.
        now_s: When it was switched on.
        first_connection: The number that the next OKX connection gets; those below are open already.
        totals: Counts by venue and name, also of faults that have ended.
        exhausted: Called when it has acted as often as was ordered.

    Attributes:
        acted: How often it has acted.
        until_s: When it ends by itself.
    """

    def __init__(
        self,
        number: int,
        fault: Fault,
        *,
        seed: int,
        now_s: float,
        first_connection: int,
        totals: Counter[tuple[Venue, str]],
        exhausted: Callable[[], None],
    ) -> None:
        self.number = number
        self.fault = fault
        self.since_s = now_s
        self.first_connection = first_connection
        self.acted = 0
        self.until_s = math.inf
        if isinstance(fault, Lasting) and fault.for_s is not None:
            self.until_s = now_s + fault.for_s
        elif isinstance(fault, Notice):
            self.until_s = now_s + fault.close_after_s
        self._seed = seed
        self._totals = totals
        self._exhausted = exhausted

    @property
    def exhausted(self) -> bool:
        """Whether it has acted as often as was ordered."""
        return isinstance(self.fault, Lasting) and self.fault.times is not None and self.acted >= self.fault.times

    def random(self, *about: object) -> Random:
        """Chance, the same one each time for the same thing."""
        return Random(f"{self._seed} {self.number} {about}")

    def chooses(self, *about: object) -> bool:
        """Whether it acts on this. Who goes by it calls `count` once it has."""
        if self.exhausted:
            return False
        if isinstance(self.fault, Sampled) and self.fault.share < 1:
            return self.random("share", *about).random() < self.fault.share
        return True

    def count(self) -> None:
        """Note that it acted."""
        self.acted += 1
        self._totals[self.fault.venue, self.fault.name] += 1
        if self.exhausted:
            self._exhausted()


class FaultBoard:
    """All faults that are on.

    Args:
        seed: The simulator's.

    Attributes:
        exhausted: Called when a fault has acted as often as was ordered, so that somebody switches it off.
    """

    def __init__(self, seed: int) -> None:
        self.exhausted: Callable[[], None] = lambda: None
        self._seed = seed
        self._ordered = 0
        self._totals: Counter[tuple[Venue, str]] = Counter()
        self._active: dict[Venue, tuple[ActiveFault, ...]] = dict.fromkeys(VENUES, ())

    def of(self, venue: Venue) -> tuple[ActiveFault, ...]:
        """A venue's faults, the first ordered first."""
        return self._active[venue]

    def all(self) -> list[ActiveFault]:
        """Every venue's."""
        return [active for venue in VENUES for active in self._active[venue]]

    def switch_on(self, fault: Fault, now_s: float, first_connection: int) -> ActiveFault:
        """One more fault, on from now."""
        active = ActiveFault(
            self._ordered,
            fault,
            seed=self._seed,
            now_s=now_s,
            first_connection=first_connection,
            totals=self._totals,
            exhausted=lambda: self.exhausted(),
        )
        self._ordered += 1
        self._active[fault.venue] += (active,)
        return active

    def switch_off(self, ended: Iterable[ActiveFault]) -> None:
        """These faults are off from now."""
        gone = set(ended)
        for venue, active in self._active.items():
            self._active[venue] = tuple(one for one in active if one not in gone)

    def over(self, now_s: float) -> list[ActiveFault]:
        """Those whose time has passed, and those that have acted as often as they should."""
        return [active for active in self.all() if active.exhausted or active.until_s <= now_s]

    def next_end_s(self) -> float:
        """When the next one ends by its time."""
        return min((active.until_s for active in self.all()), default=math.inf)

    def listed(self, now_s: float) -> list[Listed]:
        """What is on."""
        return [
            Listed(
                active.fault,
                round(now_s - active.since_s, 3),
                None if active.until_s == math.inf else round(max(0.0, active.until_s - now_s), 3),
                active.acted,
            )
            for active in self.all()
        ]

    def totals(self) -> dict[str, dict[str, int]]:
        """By venue and fault: how often each has acted since the simulator was started."""
        counts: dict[str, dict[str, int]] = {}
        for (venue, name), count in sorted(self._totals.items()):
            counts.setdefault(venue, {})[name] = count
        return counts
