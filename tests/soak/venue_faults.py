"""Faults of the simulated venues, at random from the fault table, a few at once, each cleared after some seconds."""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

import httpx
import msgspec
import trio

from connectors.simulator.faults.faults import Delisted, Fault, HttpStatus, Lasting, RefusedSubscription
from connectors.simulator.faults.table import FAULTS, Case

AT_ONCE: Final = 3


def _long(fault: Fault) -> bool:
    """Whether the daemon leaves the venue, or an instrument, alone for minutes afterwards, as it should.

    Nothing would come meanwhile.
    """
    if isinstance(fault, HttpStatus):
        return fault.status in (418, 429) and (fault.retry_after_s is None or fault.venue == "coingecko")
    return isinstance(fault, Delisted | RefusedSubscription)


_CASES: Final[tuple[Case, ...]] = tuple(case for kind in FAULTS for case in kind.cases if not _long(case.fault))
_PAUSE_S: Final = (0.5, 4.0)
_LASTS_S: Final = (1.0, 6.0)


class VenueFaults:
    """Orders faults from a simulator.

    Attributes:
        played: How often each kind was.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.played: Counter[str] = Counter()
        self._dice = random.Random(f"{seed}/faults")
        self._url = f"http://127.0.0.1:{port}/control"
        self._active: set[tuple[str, str]] = set()

    async def run(self, until_s: float) -> None:
        """One after the other, until that time on trio's clock; then none is on any more.

        Raises:
            httpx.HTTPError: The simulator does not answer, or refuses an order.
        """
        async with httpx.AsyncClient(trust_env=False) as http:
            async with trio.open_nursery() as nursery:
                while (left_s := until_s - trio.current_time()) > 0:
                    await trio.sleep(min(left_s, self._dice.uniform(*_PAUSE_S)))
                    fault = self._dice.choice(_CASES).fault
                    key = (fault.name, fault.venue)
                    if len(self._active) < AT_ONCE and key not in self._active:
                        self._active.add(key)
                        lasts_s = min(self._dice.uniform(*_LASTS_S), max(0.1, until_s - trio.current_time()))
                        nursery.start_soon(self._play, http, fault, lasts_s)
            await self._order(http, {"clear": True})

    async def _play(self, http: httpx.AsyncClient, fault: Fault, lasts_s: float) -> None:
        await self._order(http, msgspec.to_builtins(fault))
        self.played[fault.name] += 1
        if isinstance(fault, Lasting):
            await trio.sleep(lasts_s)
            await self._order(http, {"clear": fault.name, "venue": fault.venue})
        self._active.discard((fault.name, fault.venue))

    async def _order(self, http: httpx.AsyncClient, order: object) -> None:
        answer = await http.post(self._url, content=msgspec.json.encode(order))
        answer.raise_for_status()
