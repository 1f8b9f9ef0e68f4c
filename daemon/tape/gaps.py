"""The gap ledger: everything that clients were not told when it happened, or not told at all, and why.

`prev_seq` shows a client *that* something is missing on a topic, `lagged` and `recovered` say so at the moment; the
ledger answers later questions: when, for how long, what for, how many. One *gap* is one entry:

* about a channel, from the last data before it to the first after it (`outage`, `stale`): open while it lasts;
* about single happenings (`lagged`, `refused`, `unreadable`, `resync`): they are counted into one entry per cause and
  channel, which stays open until none has come for `WINDOW_MS`. Ten thousand clients that lag at once are one entry;
* about the tape (`restart`, `unstored`).

Bounded: each cause keeps its `PER_CAUSE` newest gaps, so no flood of one kind can wash the others out.

Pure: no clock, every method is told the time (ms since 1970). A clock that is set back makes no gap end before it
began. To keep the ledger over a restart: `changes` hands out what is new since it was asked last, `load` takes all of
it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol, get_args

import msgspec

from connectors.base import State
from connectors.metric import Samples
from protocol.answers import Cause as Cause

CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

PER_CAUSE: Final = 200
"""Gaps kept of each cause."""

WINDOW_MS: Final = 60_000
"""Happenings of one cause and channel that are closer together than this are one gap."""


class Gap(msgspec.Struct):
    """One entry. Times are ms since 1970.

    Attributes:
        id: grows with each new gap, also over restarts.
        channel: "" where it concerns all of them.
        end_ms: None while it lasts.
        last_ms: when it was last heard of.
        count: how often it happened: clients, frames, or attempts to get out of an outage.
        messages: how many messages somebody did not get, where that is known.
        reason: the newest one, in words.
    """

    id: int
    cause: Cause
    channel: str
    start_ms: int
    end_ms: int | None
    last_ms: int
    count: int = 1
    messages: int = 0
    reason: str = ""


class Told(Protocol):
    """What clients are told of a channel."""

    @property
    def state(self) -> State:
        """The state."""
        ...

    @property
    def reason(self) -> str:
        """Why; "" where there is nothing to say."""
        ...

    @property
    def last_event_ms(self) -> int | None:
        """When its last data came, ms since 1970; None where none has come."""
        ...


class Ledger:
    """All gaps of this process, and of those before it whose entries were loaded."""

    def __init__(self) -> None:
        self._gaps: dict[Cause, dict[int, Gap]] = {cause: {} for cause in CAUSES}
        self._next_id = 1
        self._outages: dict[str, Gap] = {}
        self._counting: dict[tuple[Cause, str], Gap] = {}
        self._changed: dict[int, Gap] = {}
        self.forgotten = 0
        """Gaps that made room for newer ones."""
        self.begun: Counter[Cause] = Counter()
        """How many gaps there were since the start of this process."""

    def channel(self, name: str, state: Told, now_ms: int) -> None:
        """A channel's state, as clients see it, has changed.

        Whatever is not `live` is a gap, from the channel's last data on; only the first `connecting` is none, since
        there is nothing yet that could be missing.
        """
        gap = self._outages.get(name)
        if state.state == "live":
            if gap is not None:
                del self._outages[name]
                self._end(gap, now_ms)
            return
        if gap is None:
            if state.state == "connecting":
                return
            last_ms = now_ms if state.last_event_ms is None else state.last_event_ms
            cause: Cause = "stale" if state.state == "stale" else "outage"
            self._outages[name] = self._begin(cause, name, min(last_ms, now_ms), now_ms, 1, 0, state.reason)
            return
        if gap.cause == "stale" and state.state in ("reconnecting", "down"):
            # Silence that turned out to be an outage is one.
            self._gaps["stale"].pop(gap.id, None)
            gap.cause = "outage"
            self.begun["outage"] += 1
            self._keep(gap)
        elif state.state in ("reconnecting", "down"):
            gap.count += 1
        gap.reason = state.reason or gap.reason
        self._touch(gap, now_ms)

    def close(self, name: str, now_ms: int) -> None:
        """There is no such channel any more: what is open of it ends here."""
        gap = self._outages.pop(name, None)
        if gap is not None:
            self._end(gap, now_ms)

    def note(
        self, cause: Cause, channel: str, now_ms: int, *, count: int = 1, messages: int = 0, reason: str = ""
    ) -> None:
        """Something happened `count` times just now; it joins the open gap of its cause and channel, if one is open."""
        gap = self._counting.get((cause, channel))
        if gap is not None and abs(now_ms - gap.last_ms) <= WINDOW_MS:
            gap.count += count
            gap.messages += messages
            gap.reason = reason or gap.reason
            self._touch(gap, now_ms)
            return
        if gap is not None:
            self._end(gap, gap.last_ms)
        self._counting[cause, channel] = self._begin(cause, channel, now_ms, now_ms, count, messages, reason)

    def over(self, cause: Cause, channel: str, now_ms: int) -> None:
        """What happened again and again does so no more: its gap, if one is open, ends now."""
        gap = self._counting.pop((cause, channel), None)
        if gap is not None:
            self._end(gap, now_ms)

    def record(self, cause: Cause, channel: str, start_ms: int, end_ms: int, *, messages: int = 0, reason: str) -> None:
        """A gap that is over already, such as the time between two runs of the daemon."""
        gap = self._begin(cause, channel, min(start_ms, end_ms), end_ms, 1, messages, reason)
        self._end(gap, end_ms)

    def open(self, now_ms: int) -> Counter[Cause]:
        """How many gaps last just now."""
        self.settle(now_ms)
        return Counter(gap.cause for gap in (*self._outages.values(), *self._counting.values()))

    def gaps(self, now_ms: int) -> list[Gap]:
        """All of them, those that began last first."""
        self.settle(now_ms)
        found = [gap for kept in self._gaps.values() for gap in kept.values()]
        return sorted(found, key=lambda gap: (gap.start_ms, gap.id), reverse=True)

    def settle(self, now_ms: int) -> None:
        """End the counting gaps to which nothing has been added for a while."""
        over = [key for key, gap in self._counting.items() if abs(now_ms - gap.last_ms) > WINDOW_MS]
        for key in over:
            gap = self._counting.pop(key)
            self._end(gap, gap.last_ms)

    def changes(self, now_ms: int) -> list[Gap]:
        """Copies of the gaps that are new or other than at the last call, by id: what is to be stored now."""
        self.settle(now_ms)
        changed, self._changed = self._changed, {}
        return [msgspec.structs.replace(changed[id_]) for id_ in sorted(changed)]

    def dump(self) -> list[Gap]:
        """Copies of all of them, by id."""
        found = [gap for kept in self._gaps.values() for gap in kept.values()]
        return [msgspec.structs.replace(gap) for gap in sorted(found, key=lambda gap: gap.id)]

    def load(self, gaps: Iterable[Gap]) -> None:
        """Take back what an earlier run stored. Gaps of this run that there are already come behind those.

        A gap that was open then ends when it was last heard of: what came after it is the gap of the restart.
        """
        own = sorted((gap for kept in self._gaps.values() for gap in kept.values()), key=lambda gap: gap.id)
        self._gaps = {cause: {} for cause in CAUSES}
        for stored in sorted(gaps, key=lambda gap: gap.id):
            gap = msgspec.structs.replace(stored)
            self._next_id = max(self._next_id, gap.id + 1)
            self._keep(gap)
            if gap.end_ms is None:
                self._end(gap, gap.last_ms)
        for gap in own:
            self._changed.pop(gap.id, None)
            gap.id = self._next_id
            self._next_id += 1
            self._keep(gap)
            self._changed[gap.id] = gap

    def _begin(
        self, cause: Cause, channel: str, start_ms: int, now_ms: int, count: int, messages: int, reason: str
    ) -> Gap:
        gap = Gap(self._next_id, cause, channel, start_ms, None, now_ms, count, messages, reason)
        self._next_id += 1
        self.begun[cause] += 1
        self._keep(gap)
        self._changed[gap.id] = gap
        return gap

    def _keep(self, gap: Gap) -> None:
        """Put it among those of its cause. The oldest one that is over makes room; an open one only if all are open."""
        kept = self._gaps[gap.cause]
        if len(kept) >= PER_CAUSE:
            oldest = next((old for old in kept.values() if old.end_ms is not None), next(iter(kept.values())))
            del kept[oldest.id]
            self._changed.pop(oldest.id, None)
            self.forgotten += 1
            self._outages = {key: old for key, old in self._outages.items() if old is not oldest}
            self._counting = {key: old for key, old in self._counting.items() if old is not oldest}
        kept[gap.id] = gap

    def _touch(self, gap: Gap, now_ms: int) -> None:
        gap.last_ms = max(gap.last_ms, now_ms)
        self._changed[gap.id] = gap

    def _end(self, gap: Gap, end_ms: int) -> None:
        gap.end_ms = max(gap.start_ms, end_ms)
        self._touch(gap, gap.end_ms)

    def measure(self, samples: Samples, now_ms: int) -> None:
        """Add how many gaps there were, and how many last."""
        begun = {cause: self.begun[cause] for cause in CAUSES}
        samples.counts("tickerd_gaps", "Gaps that the ledger has noted.", "cause", begun)
        lasting = samples.gauge("tickerd_gaps_open", "Gaps that last.", "cause")
        lasts = self.open(now_ms)
        for cause in CAUSES:
            lasting.add_metric([cause], lasts[cause])
