"""Whether Kraken trades, and which pairs it trades: what its channels `status` and `instrument` say. Pure.

Source: Kraken's API documentation, "Spot WebSocket v2: status, instrument", November 2026. `status` comes by itself, on
each connection and at each change, and is about the whole exchange: in `maintenance` nothing can be done; in
`cancel_only` and `post_only` no orders are matched, but in the latter the book lives. `instrument` has the list of all
pairs, then each that changes. A pair that is not on the list does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from connectors.limits.payload import brief
from protocol.messages import TopicCause

_ONLINE: Final = "online"
_HALTED: Final = frozenset({"maintenance", "cancel_only", "delisted", "work_in_progress", "hidden"})
"""What of a pair, or of the exchange, says that it is not traded. Other states (`post_only`, `limit_only`,
`reduce_only`) are remarks: what is said of the pair is true."""


class Trouble(NamedTuple):
    """Why a pair is not as it should be; `partial` where its data holds all the same."""

    cause: TopicCause
    reason: str
    partial: bool


class Markets:
    """What is known of the pairs of one connection."""

    def __init__(self) -> None:
        self._system = _ONLINE
        self._pairs: dict[str, str] = {}
        self._is_listed = False

    def system(self, status: str) -> None:
        """What `status` says of the exchange."""
        self._system = status

    def pairs(self, statuses: Iterable[tuple[str, str]], *, all_of_them: bool) -> None:
        """What `instrument` says: each symbol and its status; in a snapshot `all_of_them`."""
        if all_of_them:
            self._pairs.clear()
            self._is_listed = True
        self._pairs.update(statuses)

    def trouble(self, symbol: str) -> Trouble | None:
        """What is wrong with a pair, if anything."""
        if self._system != _ONLINE:
            halted = self._system in _HALTED
            return Trouble("halted", f"not trading: Kraken's status is {brief(self._system)}", not halted)
        status = self._pairs.get(symbol, _ONLINE)
        if status != _ONLINE:
            halted = status in _HALTED
            what = "not trading: " if halted else ""
            return Trouble("halted", f"{what}its status at Kraken is {brief(status)}", not halted)
        if self._is_listed and symbol not in self._pairs:
            return Trouble("refused", "not on Kraken's list of pairs", partial=False)
        return None
