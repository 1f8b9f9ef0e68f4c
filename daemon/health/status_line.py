"""The line that `systemctl status` shows: how many clients there are, and the channels' states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import trio

from connectors.base import State
from daemon.health.board import ChannelState
from daemon.host.systemd import Notifier

_STATUS_EVERY_S: Final = 1.0

_STATUS_BYTES: Final = 500
"""The longest status, so that it stays one line of `systemctl status`."""

_NAMES: Final = 6
"""How many channels are named per state."""

_TOLD: Final[tuple[State, ...]] = ("stale", "reconnecting", "connecting", "down")
"""The states whose channels are named; live channels are only counted."""


class StatusLine:
    """The status in words, and the time until the next attempt of each channel that waits for one."""

    def __init__(self) -> None:
        self._attempts: dict[str, tuple[ChannelState, float]] = {}

    def words(self, clients: int, channels: Mapping[str, ChannelState], now_s: float) -> str:
        """For example `serving 12 clients; 7 channels live; down: bitcoinprice, ethprice (next attempt in 12 s)`.

        Call this regularly: a wait is counted from the first call in which the channel had its state.
        """
        self._note(channels, now_s)
        live = sum(state.state == "live" for state in channels.values())
        parts = [f"serving {_count(clients, 'client')}", f"{_count(live, 'channel')} live"]
        for told in _TOLD:
            names = [name for name, state in channels.items() if state.state == told]
            if names:
                parts.append(f"{told}: {_listed(names)}{self._next_attempt(names, now_s)}")
        without = [
            f"{instrument} of {name}"
            for name, state in channels.items()
            for instrument, topic in state.topics.items()
            if instrument and topic.condition.state != "live"
        ]
        if without:
            parts.append(f"without {_listed(without)}")
        return _cut("; ".join(parts))

    def _note(self, channels: Mapping[str, ChannelState], now_s: float) -> None:
        noted, self._attempts = self._attempts, {}
        for name, state in channels.items():
            if state.retry_in_s is not None:
                told = msgspec.structs.replace(state, last_event_ms=None, stale_after_s=None)
                before = noted.get(name)
                same = before is not None and before[0] == told
                self._attempts[name] = before if before and same else (told, now_s + state.retry_in_s)

    def _next_attempt(self, names: list[str], now_s: float) -> str:
        waits = [self._attempts[name][1] - now_s for name in names if name in self._attempts]
        wait_s = round(min(waits, default=0.0))
        if wait_s < 1:
            return ""
        return f" (next attempt in {f'{wait_s} s' if wait_s < 120 else f'{wait_s // 60} min'})"


async def publish_status(
    notifier: Notifier,
    clients: Callable[[], int],
    channels: Callable[[], Mapping[str, ChannelState]],
    remark: Callable[[], str] = lambda: "",
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep systemd's status line up to date, until cancelled: sent when it changes, once a second at most.

    `remark` is what else the operator has to know, such as a reload that failed; it comes first.

    Returns at once if there is no link to systemd.
    """
    line = StatusLine()
    task_status.started()
    while notifier.is_heard:
        words = line.words(clients(), channels(), trio.current_time())
        notifier.status(_cut("; ".join(filter(None, [remark(), words]))))
        await trio.sleep(_STATUS_EVERY_S)


def _cut(line: str) -> str:
    return line if len(line) <= _STATUS_BYTES else f"{line[: _STATUS_BYTES - 3]}..."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
