"""How each topic of a channel does: is its own data fresh, and what did the connector note of it?

A channel is alive as long as any of its instruments is, and that says nothing of the others: one may never have come,
be missing from each answer, be unreadable, or not be traded any more. So each topic has a contract of its own:

* Its first message must come in the time that the channel's may take, from when the channel is live on: a venue that
  pushes starts with the present data of every instrument, and one that is polled answers for all at once.
* In a *scheduled* channel each instrument is due in each round, so it may be silent for as long as the channel may.
* A *pushed* one's usual pauses are learned, instrument by instrument, as the channel's are (`freshness.Pauses`). Until
  they are known it may rest for `QUIET_S`: a rare pair's best bid may stand still for minutes while others move.
* `stale_after_s` in the configuration overrides both.

What a venue's list of instruments says (`TopicNote.listed`) holds whatever data comes, as long as it is noted.
What else a connector noted (`connectors.base.TopicNote`) holds until the topic's data comes again, and is then a remark
until it has not been noted for `HOLD_S`: what comes and goes several times a second is told once. A gap is told at
once, before the next look, and is over as soon as the data comes (`Board.note`, `Board.whole`): a book is not right
meanwhile. If only part of a topic is missing, as a trade, the gap is a remark.

Pure: every method is given the time (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from connectors.base import Event, StateChange
from daemon.health.board import Condition, Noted, Seen
from daemon.health.freshness import BUSY_S, FIRST_S, SCHEDULED, SHORTEST_S, Pauses, too_quiet
from protocol.channels import WHOLE_MARKET, Channel
from protocol.messages import TopicCause

QUIET_S: Final = 300.0
"""How long a pushed instrument may be silent until its usual pauses are known, while others of its channel move."""

HOLD_S: Final = 30.0
"""For how long a note about a topic whose data comes remains a remark; or some rounds of a schedule, if longer."""

LISTED_S: Final = 90.0
"""The same of what a venue's list says, which is read again after failures: longer than the waits between attempts."""

_CAUSES: Final[tuple[TopicCause, ...]] = ("refused", "halted", "gap", "unreadable", "silent")
"""Which of several causes is told."""

Withdraw = Callable[[str, TopicCause], None]
"""Takes a note about an instrument off the board."""


class _Topic:
    """One topic: when it was heard, until when it must be again, and how often each cause was noted when."""

    __slots__ = ("due_s", "heard", "heard_s", "noted", "pauses", "told")

    def __init__(self, now_s: float) -> None:
        self.heard: Event | None = None
        self.heard_s = self.due_s = now_s
        self.pauses = Pauses(QUIET_S)
        self.noted: dict[TopicCause, tuple[int, float]] = {}
        self.told: Condition | None = None


class Topics:
    """The topics of one channel."""

    def __init__(self, channel: Channel, now_s: float) -> None:
        self.channel = channel
        self._instruments = channel.instruments or (WHOLE_MARKET,)
        self._topics = {name: _Topic(now_s) for name in self._instruments}
        self._look_s = now_s
        self._was_open = False

    def look(
        self, connector: StateChange, seen: Seen, now_s: float, *, silent: bool, withdraw: Withdraw
    ) -> dict[str, Condition]:
        """The topics that do not do as well as the channel, by instrument.

        Args:
            connector: what the channel's connector reported last.
            seen: what the channel has delivered, and what was noted of it.
            now_s: the time. Call this several times a second.
            silent: whether the channel itself is late: then no single topic is to blame.
            withdraw: is called with what was noted and does not hold any longer.
        """
        busy_s, self._look_s = now_s - self._look_s, now_s
        is_open = connector.state == "live" and not silent
        # A channel with one topic has its contract already.
        judged = is_open and len(self._instruments) > 1
        begins = is_open and not self._was_open
        self._was_open = is_open
        if connector.state not in ("connecting", "live"):
            return {}
        found: dict[str, Condition] = {}
        for name, topic in self._topics.items():
            if busy_s > BUSY_S:
                topic.due_s += busy_s
                topic.heard_s += busy_s
            if begins:
                topic.heard_s, topic.due_s = now_s, now_s + self._first_s
            self._hear(topic, seen.latest.get(name), now_s, anew=begins)
            notes = seen.notes.get(name)
            if notes or topic.noted or (judged and now_s >= topic.due_s):
                topic.told = self._judge(name, topic, notes or {}, now_s, judged=judged, withdraw=withdraw)
                if topic.told is not None:
                    found[name] = topic.told
            else:
                topic.told = None
        return found

    @property
    def _hold_s(self) -> float:
        return max(HOLD_S, SCHEDULED * (self.channel.cadence_s or 0.0))

    @property
    def _first_s(self) -> float:
        channel = self.channel
        if channel.stale_after_s is not None:
            return max(FIRST_S, channel.stale_after_s)
        return FIRST_S if channel.cadence_s is None else max(FIRST_S, SCHEDULED * channel.cadence_s)

    def _limit_s(self, topic: _Topic) -> float:
        channel = self.channel
        if channel.stale_after_s is not None:
            return channel.stale_after_s
        if channel.cadence_s is not None:
            return max(SCHEDULED * channel.cadence_s, SHORTEST_S)
        return topic.pauses.limit_s

    def _hear(self, topic: _Topic, event: Event | None, now_s: float, *, anew: bool) -> None:
        if event is topic.heard or event is None:
            return
        if topic.heard is not None and not anew:
            topic.pauses.add(now_s - topic.heard_s)
        topic.heard, topic.heard_s = event, now_s
        topic.due_s = now_s + self._limit_s(topic)

    def _judge(
        self,
        name: str,
        topic: _Topic,
        notes: Mapping[TopicCause, Noted],
        now_s: float,
        *,
        judged: bool,
        withdraw: Withdraw,
    ) -> Condition | None:
        """How it does; None where it does well."""
        late = judged and now_s >= topic.due_s
        noted, topic.noted = topic.noted, {}
        for cause in _CAUSES:
            held = notes.get(cause)
            if held is None:
                continue
            times, at_s = noted.get(cause, (0, now_s))
            at_s = at_s if times == held.times else now_s
            has_data = topic.heard is not held.after or held.note.partial
            # While a topic has no data, what was refused, halted or torn holds for as long as nobody says otherwise.
            lasting = cause in ("refused", "halted", "gap") and not has_data
            over = now_s - at_s >= self._hold_s and not lasting and not late
            if held.note.listed:
                has_data, over = False, now_s - at_s >= LISTED_S
            if over or (cause in ("refused", "gap") and has_data and not held.note.partial):
                withdraw(name, cause)
                continue
            topic.noted[cause] = (held.times, at_s)
        for cause in _CAUSES:
            if cause in topic.noted:
                return self._noted(topic, notes[cause], now_s, late=late)
        if not late:
            return None
        told = topic.told
        if told is not None and told.cause == "silent" and told.state == "stale":
            return told
        return Condition("stale", "silent", self._silence(topic, now_s))

    def _noted(self, topic: _Topic, held: Noted, now_s: float, *, late: bool) -> Condition:
        note, told = held.note, topic.told
        reason = note.reason
        if told is not None and told.cause == note.cause and note.cause != "refused" and _alike(told.reason, reason):
            # The value may be another one each time; one of them is told.
            reason = told.reason
        if note.listed:
            return Condition("down", note.cause, reason)
        if note.partial:
            return Condition("live", note.cause, reason)
        if note.cause in ("refused", "halted"):
            # Where good data and such rows take turns, it is the data that counts.
            fresh = topic.heard is not held.after or now_s - topic.heard_s < SHORTEST_S
            has_data = topic.heard is not None and fresh and not late
            return Condition("live" if has_data else "down", note.cause, reason)
        return Condition("stale" if late or note.cause == "gap" else "live", note.cause, reason)

    def _silence(self, topic: _Topic, now_s: float) -> str:
        quiet_s = now_s - topic.heard_s
        if topic.heard is None:
            return f"no data for {quiet_s:.1f} s, while the channel's others came"
        return too_quiet(self.channel, quiet_s, topic.pauses.usual_s)


def _alike(one: str, other: str) -> bool:
    """Whether two reasons are about the same field."""
    return one.partition(" is ")[0] == other.partition(" is ")[0]
