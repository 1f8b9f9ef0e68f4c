"""What is known of every channel right now: its connector's state, since when, why, and when data last came.

The hub writes it, in the same step in which it tells the clients; everyone else only reads. So `/channels`, `/readyz`
and the `status` messages can never disagree.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from connectors.base import State, StateChange
from protocol.channels import Catalogue


class ChannelState(msgspec.Struct, frozen=True):
    """One channel's state. Times are ms since 1970; `last_event_ms` is None until data has come for the first time."""

    state: State
    since_ms: int
    reason: str = ""
    retry_in_s: float | None = None
    last_event_ms: int | None = None


class Board:
    """The state of every channel of the catalogue."""

    def __init__(self, catalogue: Catalogue, now_ms: int) -> None:
        self._states = {name: ChannelState("connecting", now_ms) for name in catalogue.names}
        self._last_event_ms: dict[str, int] = {}

    def apply(self, change: StateChange, now_ms: int) -> ChannelState | None:
        """Note a change. None where nothing a client can see has changed, or the channel is not (or no longer) known.

        `since_ms` moves only with the state itself: another reason for the same state does not make it younger.
        """
        old = self._states.get(change.channel)
        if old is None:
            return None
        if (old.state, old.reason, old.retry_in_s) == (change.state, change.reason, change.retry_in_s):
            return None
        since_ms = old.since_ms if old.state == change.state else now_ms
        new = ChannelState(change.state, since_ms, change.reason, change.retry_in_s)
        self._states[change.channel] = new
        return new

    def saw(self, channel: str, received_ms: int) -> None:
        """Data of that channel came."""
        self._last_event_ms[channel] = received_ms

    def state(self, channel: str) -> ChannelState:
        """One channel's state. Raises: KeyError."""
        state = self._states[channel]
        last_event_ms = self._last_event_ms.get(channel)
        return state if last_event_ms is None else msgspec.structs.replace(state, last_event_ms=last_event_ms)

    def states(self) -> Mapping[str, ChannelState]:
        """Every channel's state, in the catalogue's order."""
        return {name: self.state(name) for name in self._states}
