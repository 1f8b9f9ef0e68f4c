"""Faults of the simulated venues, at random from the fault table, a few at once, each cleared after some seconds.

Half of them are of answers and tickers, half of books, trades and the connections that bring them.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

import httpx
import msgspec
import trio

from connectors.simulator.faults.faults import (
    Delisted,
    Disconnect,
    Fault,
    HalfOpen,
    HttpStatus,
    Lasting,
    Mute,
    MuteInstrument,
    RefusedSubscription,
    Silence,
    Venue,
)
from connectors.simulator.faults.table import FAULTS

AT_ONCE: Final = 3


def _long(fault: Fault) -> bool:
    """Whether the daemon leaves the venue, or an instrument, alone for minutes afterwards, as it should.

    Nothing would come meanwhile.
    """
    if isinstance(fault, HttpStatus):
        return fault.status in (418, 429) and (fault.retry_after_s is None or fault.venue == "coingecko")
    return isinstance(fault, Delisted | RefusedSubscription)


_VENUES: Final[tuple[Venue, ...]] = ("binance", "bybit", "coinbase", "coingecko", "kraken", "okx")
"""Those that the daemon has here."""

_STREAMED: Final[tuple[Venue, ...]] = ("binance", "bybit", "coinbase", "kraken")
"""Those of them whose connections fail in no case of the table."""

_OF_ANSWERS: Final[tuple[tuple[Fault, ...], ...]] = tuple(
    (case.fault,) for kind in FAULTS for case in kind.cases if not _long(case.fault)
)
_OF_STREAMS: Final[tuple[tuple[Fault, ...], ...]] = (
    *(case.faults for kind in FAULTS for case in kind.streams if case.faults[0].venue in _VENUES),
    *((Disconnect(venue=venue),) for venue in _STREAMED),
    *((Disconnect(venue=venue, code=1001),) for venue in _STREAMED),
    *((HalfOpen(venue=venue),) for venue in _STREAMED),
    *((Silence(venue=venue, pongs=False),) for venue in _STREAMED),
    *((Mute(venue=venue),) for venue in _STREAMED),
    *((MuteInstrument(venue=venue, instrument="BTC/USDT"),) for venue in _STREAMED),
)
"""Faults of books, trades and their connections; several are ordered one after the other."""

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
                    faults = self._dice.choice(self._dice.choice((_OF_ANSWERS, _OF_STREAMS)))
                    key = (faults[0].name, faults[0].venue)
                    if len(self._active) < AT_ONCE and key not in self._active:
                        self._active.add(key)
                        lasts_s = min(self._dice.uniform(*_LASTS_S), max(0.1, until_s - trio.current_time()))
                        nursery.start_soon(self._play, http, faults, lasts_s)
            await self._order(http, {"clear": True})

    async def _play(self, http: httpx.AsyncClient, faults: tuple[Fault, ...], lasts_s: float) -> None:
        for fault in faults:
            await self._order(http, msgspec.to_builtins(fault))
            self.played[fault.name] += 1
        if lasting := [fault for fault in faults if isinstance(fault, Lasting)]:
            await trio.sleep(lasts_s)
            for fault in lasting:
                await self._order(http, {"clear": fault.name, "venue": fault.venue})
        self._active.discard((faults[0].name, faults[0].venue))

    async def _order(self, http: httpx.AsyncClient, order: object) -> None:
        answer = await http.post(self._url, content=msgspec.json.encode(order))
        answer.raise_for_status()
