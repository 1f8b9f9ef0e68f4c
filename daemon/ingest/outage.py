"""No exchange can be reached: told once, in words, instead of once for each connector at each attempt.

A failure by which nothing was heard of a venue at all (`ConnectorError.unreached`) is first held back: if it turns out
that no connector hears of its venue any more, one line says so for all of them, and their own lines go to debug. If
others go on, or something else fails, what was held back is told. It ends by itself, with the next data of anybody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from connectors.base import FailureCause

_log: Final = logging.getLogger(__name__)

_PATIENCE_S: Final = 15.0
"""For so long nobody must hear of a venue, before connectors that have not failed yet are not believed to be well."""

_SILENT: Final = frozenset({"timeout", "closed"})
"""How connections end that were open when the network went away: that is no sign of it."""

_ADVICE: Final = "check DNS, firewall, proxy"


class Outage:
    """What all connectors of a daemon together know of the way to their venues.

    Attributes:
        heard: how often data came that is more than a body's repeat; their links count it.
    """

    def __init__(self, venues: Callable[[], int] = lambda: 1) -> None:
        """`venues`: how many are called."""
        self.heard = 0
        self._venues = venues
        self._mark = 0
        self._began_s: float | None = None
        self._held: dict[str, str] = {}
        self._why: dict[str, tuple[str, str]] = {}
        self._is_told = False

    @property
    def words(self) -> str:
        """That no exchange can be reached, why, and what to do; "" while one can be, as far as anybody knows."""
        if not self._is_told or self.heard != self._mark:
            return ""
        why = ", ".join(dict.fromkeys(why for _, why in self._why.values()))
        return f"no exchange can be reached: {why}; {_ADVICE}"

    def failed(
        self, venue: str, connector: str, why: str, line: str, delay_s: float, cause: FailureCause = "unavailable"
    ) -> None:
        """A connector has failed: log its line, or let one line stand for all.

        Args:
            venue: whose connector it is.
            connector: its name.
            why: why nothing was heard of the venue at all; "" if something was.
            line: what the log says of the failure.
            delay_s: how long until it tries again: what is held back is not held for longer.
            cause: the failure in one word.
        """
        before, self._mark = self._mark, self.heard
        others_are_well = self._mark != before
        if others_are_well or not (why or cause in _SILENT):
            self._end()
        if why:
            self._why[connector] = venue, why
        if others_are_well or not why:
            _tell(connector, line)
            return
        now_s = trio.current_time()
        self._began_s = now_s if self._began_s is None else self._began_s
        if not self._is_told and self._is_everywhere(now_s - self._began_s):
            self._is_told = True
            words = f"{self.words}; each connector tries again by itself, and says no more of this"
            _log.warning("%s (%s: %s)", words, connector, line)
            self._held.clear()
        if self._is_told:
            _tell(connector, line, logging.DEBUG)
            return
        self._held[connector] = line
        if delay_s > _PATIENCE_S or now_s - self._began_s >= _PATIENCE_S:
            self._release()

    def reached(self) -> None:
        """A connector has data again."""
        if self._why:
            self._end()

    def forget(self, venue: str) -> None:
        """The connectors of that venue are ended."""
        for connector in [name for name, (whose, _) in self._why.items() if whose == venue]:
            del self._why[connector]
            self._held.pop(connector, None)
        if not self._why:
            self._end()

    def _is_everywhere(self, lasted_s: float) -> bool:
        """Whether nobody hears of any venue: each has failed so, or two have and all are silent for long."""
        failed = len({venue for venue, _ in self._why.values()})
        return failed >= self._venues() or (failed > 1 and lasted_s >= _PATIENCE_S)

    def _end(self) -> None:
        if self._is_told:
            _log.info("exchanges can be reached again")
        self._is_told, self._began_s = False, None
        self._release()
        self._why.clear()

    def _release(self) -> None:
        for connector, line in self._held.items():
            _tell(connector, line)
        self._held.clear()


def _tell(connector: str, line: str, level: int = logging.WARNING) -> None:
    _log.log(level, "%s: %s", connector, line, extra={"connector": connector})
