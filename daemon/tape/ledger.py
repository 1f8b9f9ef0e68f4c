"""The gap ledger: records all data that clients got late or not at all, and why.

`prev_seq` shows a client *that* something is missing on a topic; `lagged` and `recovered` say so when it happens. The
ledger answers later questions: when, for how long, why, and how many. One *gap* is one entry:

* for a channel, from the last data before it to the first after it (`outage`, `stale`): open while it lasts; so for an
  instrument whose channel goes on without it (`stale`, the reason names it);
* for single incidents (`lagged`, `refused`, `unreadable`, `resync`): one entry per cause and channel counts them, and
  stays open until none has come for `WINDOW_MS`. Ten thousand clients that lag at once are one entry;
* for the tape (`restart`, `unstored`), and for the recording (`unrecorded`);
* for the daemon itself (`pause`, `clock`): it did not run, or its clock was set.

Bounded: each cause keeps its `PER_CAUSE` newest gaps, so a flood of one cause cannot push out the others.

Pure: no clock, every method is given the time (ms since 1970). Even if the clock is set back, no gap ends before it
began. To keep the ledger over a restart, `changes` returns the gaps that changed since its last call, and `load` reads
them back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Protocol, get_args

import msgspec

from connectors.base import State
from connectors.metric import Samples
from protocol.answers import Cause as Cause

CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

PER_CAUSE: Final = 200
"""How many gaps of each cause are kept."""

WINDOW_MS: Final = 60_000
"""Incidents of one cause and channel that are closer together than this form one gap."""


class LedgerGap(msgspec.Struct):
    """One gap of the ledger. Times are ms since 1970.

    Attributes:
        id: grows with each new gap, also over restarts.
        channel: "" if it concerns all channels.
        end_ms: None while it lasts.
        last_ms: when it was last updated.
        count: how often it happened: clients, frames, or attempts to end an outage.
        messages: how many messages clients did not get, if known.
        reason: the newest reason, in words.
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
    """A channel's state, as clients are told it."""

    @property
    def state(self) -> State:
        """The state."""
        ...

    @property
    def reason(self) -> str:
        """Why; "" if there is nothing to say."""
        ...

    @property
    def last_event_ms(self) -> int | None:
        """When its last data came, ms since 1970; None before the first."""
        ...


class Ledger:
    """All gaps of this process, and those loaded from earlier ones."""

    def __init__(self) -> None:
        self._gaps: dict[Cause, dict[int, LedgerGap]] = {cause: {} for cause in CAUSES}
        self._next_id = 1
        self._outages: dict[str, LedgerGap] = {}
        self._lacking: dict[tuple[str, str], LedgerGap] = {}
        """By channel and instrument."""
        self._counting: dict[tuple[Cause, str], LedgerGap] = {}
        self._changed: dict[int, LedgerGap] = {}
        self._marked: dict[int, tuple[int, LedgerGap]] = {}
        """By id, in the order of their last changes: the number of that change."""
        self.revision = 0
        """How many changes there were; see `since`."""
        self.forgotten = 0
        """How many gaps were dropped to make room for newer ones."""
        self.begun: Counter[Cause] = Counter()
        """How many gaps have begun since the start of this process."""

    def channel(self, name: str, state: Told, now_ms: int) -> None:
        """A channel's state, as clients see it, has changed.

        Any state but `live` is a gap that begins with the channel's last data. Only the first `connecting` is not:
        nothing can be missing yet.
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
            # The silence turned out to be an outage: count it as one.
            self._gaps["stale"].pop(gap.id, None)
            gap.cause = "outage"
            self.begun["outage"] += 1
            self._keep(gap)
        elif state.state in ("reconnecting", "down"):
            gap.count += 1
        gap.reason = state.reason or gap.reason
        self._touch(gap, now_ms)

    def topics(self, name: str, lacking: Mapping[str, tuple[int | None, str]], now_ms: int) -> None:
        """The instruments that a channel lacks while it goes on, all of them: their last data, and why."""
        for key in [key for key in self._lacking if key[0] == name and key[1] not in lacking]:
            self._end(self._lacking.pop(key), now_ms)
        for instrument, (last_ms, reason) in lacking.items():
            told = f"{instrument}: {reason}"
            gap = self._lacking.get((name, instrument))
            if gap is None:
                start_ms = now_ms if last_ms is None else min(last_ms, now_ms)
                self._lacking[name, instrument] = self._begin("stale", name, start_ms, now_ms, 1, 0, told)
            elif gap.reason != told:
                gap.reason = told
                self._touch(gap, now_ms)

    def close(self, name: str, now_ms: int) -> None:
        """The channel was removed: its open gaps end now."""
        self.topics(name, {}, now_ms)
        gap = self._outages.pop(name, None)
        if gap is not None:
            self._end(gap, now_ms)

    def note(
        self, cause: Cause, channel: str, now_ms: int, *, count: int = 1, messages: int = 0, reason: str = ""
    ) -> None:
        """Record `count` incidents now; they join the open gap of their cause and channel, if there is one."""
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
        """A repeated incident has stopped: its gap, if one is open, ends now."""
        gap = self._counting.pop((cause, channel), None)
        if gap is not None:
            self._end(gap, now_ms)

    def record(self, cause: Cause, channel: str, start_ms: int, end_ms: int, *, messages: int = 0, reason: str) -> None:
        """Record a gap that is already over, such as the time between two runs of the daemon."""
        gap = self._begin(cause, channel, min(start_ms, end_ms), end_ms, 1, messages, reason)
        self._end(gap, end_ms)

    def open(self, now_ms: int) -> Counter[Cause]:
        """How many gaps are open now, by cause."""
        self.settle(now_ms)
        return Counter(
            gap.cause for gap in (*self._outages.values(), *self._lacking.values(), *self._counting.values())
        )

    def gaps(self, now_ms: int) -> list[LedgerGap]:
        """All gaps; the ones that began last come first."""
        self.settle(now_ms)
        found = [gap for kept in self._gaps.values() for gap in kept.values()]
        return sorted(found, key=lambda gap: (gap.start_ms, gap.id), reverse=True)

    def settle(self, now_ms: int) -> None:
        """End the counting gaps that have had no incident for `WINDOW_MS`."""
        over = [key for key, gap in self._counting.items() if abs(now_ms - gap.last_ms) > WINDOW_MS]
        for key in over:
            gap = self._counting.pop(key)
            self._end(gap, gap.last_ms)

    def changes(self, now_ms: int) -> list[LedgerGap]:
        """Copies of the gaps that are new or changed since the last call, by id: these must be stored now."""
        self.settle(now_ms)
        changed, self._changed = self._changed, {}
        return [msgspec.structs.replace(changed[id_]) for id_ in sorted(changed)]

    def since(self, revision: int) -> list[LedgerGap]:
        """Copies of the gaps that are new or changed since that `revision`, by id: others that follow need these."""
        found: list[LedgerGap] = []
        for number, gap in reversed(self._marked.values()):
            if number <= revision:
                break
            found.append(msgspec.structs.replace(gap))
        return sorted(found, key=lambda gap: gap.id)

    def follow(self, gaps: Iterable[LedgerGap], *, anew: bool = False) -> None:
        """Have these gaps of the ledger that is followed, in place of what was known of each.

        `anew`: they are all that it has; nothing else is kept.
        """
        if anew:
            self._gaps, self._changed, self._marked = {cause: {} for cause in CAUSES}, {}, {}
            self._next_id, self.revision = 1, self.revision + 1
        for told in gaps:
            for kept in self._gaps.values():
                kept.pop(told.id, None)
            gap = msgspec.structs.replace(told)
            self._next_id = max(self._next_id, gap.id + 1)
            self._keep(gap)
            self._mark(gap)

    def lead(self) -> None:
        """Go on by oneself. A gap that was open ends when it was last updated: what comes after is noted anew."""
        for gap in [gap for kept in self._gaps.values() for gap in kept.values() if gap.end_ms is None]:
            self._end(gap, gap.last_ms)

    def clock_was_set_back(self, by_ms: int) -> None:
        """The clock was set back: by the clock as it is now, the gaps that last began so much earlier."""
        for gap in (*self._outages.values(), *self._counting.values()):
            gap.start_ms -= by_ms
            gap.last_ms -= by_ms
            self._mark(gap)

    def dump(self) -> list[LedgerGap]:
        """Copies of all gaps, by id."""
        found = [gap for kept in self._gaps.values() for gap in kept.values()]
        return [msgspec.structs.replace(gap) for gap in sorted(found, key=lambda gap: gap.id)]

    def load(self, gaps: Iterable[LedgerGap]) -> None:
        """Read back the gaps of earlier runs. Gaps that this run has already recorded come after them.

        A gap that was still open ends when it was last updated; the time after that is the gap of the restart.
        """
        own = sorted((gap for kept in self._gaps.values() for gap in kept.values()), key=lambda gap: gap.id)
        self._gaps, self._changed, self._marked = {cause: {} for cause in CAUSES}, {}, {}
        for stored in sorted(gaps, key=lambda gap: gap.id):
            gap = msgspec.structs.replace(stored)
            self._next_id = max(self._next_id, gap.id + 1)
            self._keep(gap)
            self._mark(gap)
            self._changed.pop(gap.id)  # it is stored already
            if gap.end_ms is None:
                self._end(gap, gap.last_ms)
        for gap in own:
            gap.id = self._next_id
            self._next_id += 1
            self._keep(gap)
            self._mark(gap)

    def _begin(
        self, cause: Cause, channel: str, start_ms: int, now_ms: int, count: int, messages: int, reason: str
    ) -> LedgerGap:
        gap = LedgerGap(self._next_id, cause, channel, start_ms, None, now_ms, count, messages, reason)
        self._next_id += 1
        self.begun[cause] += 1
        self._keep(gap)
        self._mark(gap)
        return gap

    def _keep(self, gap: LedgerGap) -> None:
        """Keep it with its cause's others. The oldest that has ended makes room; an open one only if all are open."""
        kept = self._gaps[gap.cause]
        if len(kept) >= PER_CAUSE:
            oldest = next((old for old in kept.values() if old.end_ms is not None), next(iter(kept.values())))
            del kept[oldest.id]
            self._changed.pop(oldest.id, None)
            self._marked.pop(oldest.id, None)
            self.forgotten += 1
            self._lacking = {key: old for key, old in self._lacking.items() if old is not oldest}
            self._outages = {key: old for key, old in self._outages.items() if old is not oldest}
            self._counting = {key: old for key, old in self._counting.items() if old is not oldest}
        kept[gap.id] = gap

    def _mark(self, gap: LedgerGap) -> None:
        """The gap is new, or has changed."""
        self.revision += 1
        self._changed[gap.id] = gap
        self._marked.pop(gap.id, None)
        self._marked[gap.id] = self.revision, gap

    def _touch(self, gap: LedgerGap, now_ms: int) -> None:
        gap.last_ms = max(gap.last_ms, now_ms)
        self._mark(gap)

    def _end(self, gap: LedgerGap, end_ms: int) -> None:
        gap.end_ms = max(gap.start_ms, end_ms)
        self._touch(gap, gap.end_ms)

    def measure(self, samples: Samples, now_ms: int) -> None:
        """Add how many gaps there were, and how many are open."""
        begun = {cause: self.begun[cause] for cause in CAUSES}
        samples.counts("tickerd_gaps", "Gaps that the ledger has noted.", "cause", begun)
        lasting = samples.gauge("tickerd_gaps_open", "Gaps that last.", "cause")
        lasts = self.open(now_ms)
        for cause in CAUSES:
            lasting.add_metric([cause], lasts[cause])
