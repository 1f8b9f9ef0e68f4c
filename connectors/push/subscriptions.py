"""What was asked of a venue on one connection, what came of it, and what is due next.

Pure: no I/O, and no clock, every method is told the time (monotonic seconds). `Feed` calls `due`
whenever `next_due_s` has come, sends what it returns and reports what has changed.

A subscription ends in one of four ways: its data comes; it is refused and *set aside* (kept in the
`SetAside` that the caller owns, so that it outlives the connection) until it is asked for again; it
is refused for now, or not answered, and asked again later; or it is acknowledged and stays mute.
Only data makes a channel live: the others are told to its clients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from math import inf
from typing import Final, NamedTuple, TypeAlias

import msgspec

from connectors.base import StateChange, TopicNote, VenueTimeout
from connectors.push.venue import SubscribeRefused, SubscribeRequest
from connectors.set_aside import SetAside, in_words

ANSWER_S: Final = 10.0
"""How long a venue may take to acknowledge or refuse."""

RETRY_S: Final = 15.0
"""The first pause before a request that may succeed later; it doubles each time."""

LONGEST_RETRY_S: Final = 600.0

RENEWED_S: Final = 120.0
"""A subscription that has lasted so long since it was renewed is renewed at once the next time."""

LONGEST_RENEWAL_S: Final = 60.0
"""The longest pause before a subscription is renewed."""
_HOUR_S: Final = 3600.0


_Change: TypeAlias = StateChange | TopicNote
"""Of a channel that has lost all that feeds it; of one instrument of a channel whose others go on."""


class _Asked(msgspec.Struct):
    """One subscription: when to ask, since and until when an answer is awaited, how often it failed, when data came.

    `leave_s`, `left_by_s`: when to end it to ask for it anew, and until when the venue may take for that; `renewals`,
    `renewed_s`: how often that was done in a row, and when last.
    """

    request: SubscribeRequest
    ask_s: float
    asked_s: float = inf
    answer_by_s: float = inf
    failures: int = 0
    heard_s: float = -inf
    leave_s: float = inf
    left_by_s: float = inf
    renewals: int = 0
    renewed_s: float = -inf


class Due(NamedTuple):
    """What is to be done now."""

    requests: list[SubscribeRequest]
    changes: list[_Change]


class Subscriptions:
    """The subscriptions of one connection."""

    def __init__(
        self,
        requests: Sequence[SubscribeRequest],
        set_aside: SetAside,
        *,
        title: str,
        data_s: float,
        requests_per_hour: int,
        now_s: float,
        spacing_s: float = 0.0,
        shared: Collection[str] = (),
    ) -> None:
        """The connection opens at `now_s`; two requests are at least `spacing_s` apart.

        `shared` are channels that other connections feed too: what happens to all requests here is not the channel's.

        `set_aside` (by request id) is read and written. A channel without data for `data_s` is
        reported stale.
        """
        self._title = title
        self._data_s = data_s
        self._set_aside = set_aside
        self._spacing_s = spacing_s
        self._shared = frozenset(shared)
        self._sent_s: deque[float] = deque(maxlen=requests_per_hour)
        self._asked = {request.id: _Asked(request, now_s) for request in requests}
        for asked in self._asked.values():
            aside = set_aside.get(asked.request.id)
            if aside is not None and aside.until_s > now_s:
                asked.ask_s = aside.until_s
            else:
                set_aside.asked(asked.request.id)
        self._heard_s = {name: now_s for request in requests for name in request.channels}
        self._topics = {
            (name, asked.request.subject): asked for asked in self._asked.values() for name in asked.request.channels
        }
        self._awaited: set[str] = set()
        """The ids of those that the venue owes an answer."""
        self._mute: set[str] = set()
        """The channels whose silence has been reported."""

    @property
    def are_settled(self) -> bool:
        """Whether each is acknowledged or set aside, so that nothing is awaited but data."""
        return all(
            (asked.ask_s == inf and asked.answer_by_s == inf) or asked.request.id in self._set_aside
            for asked in self._asked.values()
        )

    @property
    def are_awaited(self) -> bool:
        """Whether the venue owes an answer to any, for which its data would do."""
        return bool(self._awaited)

    def opening(self, now_s: float) -> list[_Change]:
        """What is set aside: channels of which all that feeds them is, and instruments of others."""
        changes: list[_Change] = []
        for name in self._heard_s:
            if whole := self._refusal(name, now_s):
                changes.append(whole)
                continue
            changes += [
                _note(name, request, _told(aside.reason, aside.until_s - now_s))
                for request in self._of(name)
                if (aside := self._set_aside.get(request.id))
            ]
        return changes

    def next_due_s(self) -> float:
        """When to call `due` next."""
        budget_s = self._budget_s()
        dues = [min(max(min(a.ask_s, a.leave_s), budget_s), a.answer_by_s, a.left_by_s) for a in self._asked.values()]
        dues += [self._heard_s[name] + self._data_s for name in self._waiting()]
        return min(dues, default=inf)

    def due(self, now_s: float) -> Due:
        """What to ask for now (it counts as asked), and which channels have gone mute."""
        due = Due([], [])
        for asked in self._asked.values():
            if asked.answer_by_s <= now_s:
                due.changes.extend(self._unanswered(asked, now_s))
            if asked.ask_s <= now_s and self._budget_s() <= now_s:
                if asked.request.id in self._set_aside:
                    # Nothing could come until now.
                    self._heard_s |= {name: max(self._heard_s[name], now_s) for name in asked.request.channels}
                self._set_aside.asked(asked.request.id)
                self._sent_s.append(now_s)
                asked.ask_s, asked.asked_s, asked.answer_by_s = inf, now_s, now_s + ANSWER_S
                self._awaited.add(asked.request.id)
                due.requests.append(asked.request)
        for name in self._waiting():
            if self._heard_s[name] + self._data_s <= now_s:
                self._mute.add(name)
                reason = f"no data from {self._title} for {self._data_s:g} s: {self._about(name)}"
                due.changes.append(StateChange(name, "stale", reason))
        return due

    def leaving(self, now_s: float) -> list[SubscribeRequest]:
        """Which subscriptions to end now, to ask for them anew; they count as asked for that.

        Raises:
            VenueTimeout: the venue did not end one in time.
        """
        leaving: list[SubscribeRequest] = []
        for asked in self._asked.values():
            if asked.left_by_s <= now_s:
                raise VenueTimeout(f"{self._title} did not end the subscription of {asked.request.subject}")
            if asked.leave_s <= now_s and self._budget_s() <= now_s:
                self._sent_s.append(now_s)
                asked.leave_s, asked.left_by_s = inf, now_s + ANSWER_S
                leaving.append(asked.request)
        return leaving

    def renew(self, id_: str, now_s: float) -> bool:
        """End this subscription, and ask for it anew once the venue has ended it. Returns whether that is begun.

        At once, and then after 1, 2, 4 ... 60 s each, until it has lasted for `RENEWED_S`. One that is being renewed,
        or is not there, is left alone.
        """
        asked = self._asked.get(id_)
        if asked is None or asked.leave_s < inf or asked.left_by_s < inf or asked.ask_s < inf:
            return False
        asked.renewals = asked.renewals + 1 if now_s - asked.renewed_s < RENEWED_S else 0
        wait_s = 0.0 if asked.renewals == 0 else min(2.0 ** (asked.renewals - 1), LONGEST_RENEWAL_S)
        asked.leave_s = now_s + wait_s
        asked.renewed_s = asked.leave_s
        return True

    def ended(self, id_: str, now_s: float) -> None:
        """The venue has ended this one, as it was asked to: it is asked for anew."""
        asked = self._asked.get(id_)
        if asked is not None and asked.left_by_s < inf:
            asked.left_by_s = inf
            asked.ask_s = now_s

    def acknowledged(self, id_: str) -> None:
        """The venue took this one; unknown ids are nothing to us."""
        if asked := self._asked.get(id_):
            asked.answer_by_s = inf
            self._awaited.discard(id_)
            self._set_aside.served(id_)

    def refused(self, refusal: SubscribeRefused, now_s: float) -> list[_Change]:
        """The venue will not have this one, now or at all."""
        asked = self._asked.get(refusal.id)
        if asked is None:
            return []
        asked.answer_by_s = asked.leave_s = asked.left_by_s = inf
        self._awaited.discard(refusal.id)
        if refusal.retry:
            return self._ask_later(asked, refusal.reason, now_s)
        aside = self._set_aside.refused(refusal.id, refusal.reason, now_s)
        asked.ask_s = aside.until_s
        # Where the channel's other instruments go on, it is not down.
        told = _told(refusal.reason, aside.wait_s)
        return [self._refusal(name, now_s) or _note(name, asked.request, told) for name in asked.request.channels]

    def heard(self, channels: Iterable[str], now_s: float, topics: Iterable[tuple[str, str]] = ()) -> None:
        """Data came for these channels; `topics` says of which instruments, where that is known."""
        for name in channels:
            self._heard_s[name] = now_s
        for topic in topics:
            if asked := self._topics.get(topic):
                asked.heard_s = now_s
        self._mute.difference_update(channels)

    def excuse(self, spell_s: float) -> None:
        """Nothing was read for so long: that was not the venue's silence, so it has that much more time."""
        for asked in self._asked.values():
            asked.answer_by_s += spell_s
            asked.left_by_s += spell_s
        for name in self._heard_s:
            self._heard_s[name] += spell_s

    def retry_after_s(self, now_s: float) -> float | None:
        """Seconds until one may be asked for again, if all that feed a channel are set aside; else None."""
        ids = [id_ for id_, asked in self._asked.items() if asked.request.channels]
        asides = [aside for id_ in ids if (aside := self._set_aside.get(id_))]
        if not ids or len(asides) < len(ids):
            return None
        return max(0.0, min(aside.until_s for aside in asides) - now_s)

    def _waiting(self) -> list[str]:
        """The channels whose data is awaited and whose silence is not yet reported."""
        return [
            name
            for name in self._heard_s
            if name not in self._mute and any(request.id not in self._set_aside for request in self._of(name))
        ]

    def _of(self, name: str) -> list[SubscribeRequest]:
        return [a.request for a in self._asked.values() if name in a.request.channels]

    def _is_lost(self, request: SubscribeRequest) -> bool:
        """Whether nothing can come of it before it is asked for again."""
        asked = self._asked[request.id]
        return request.id in self._set_aside or (asked.asked_s < inf and asked.ask_s < inf)

    def _about(self, name: str) -> str:
        return ", ".join(request.subject for request in self._of(name))

    def _refusal(self, name: str, now_s: float) -> StateChange | None:
        """The channel's state if all that feeds it is set aside."""
        asides = [self._set_aside.get(request.id) for request in self._of(name)]
        known = [aside for aside in asides if aside is not None]
        if len(known) < len(asides) or name in self._shared:
            return None
        wait_s = max(0.0, min(aside.until_s for aside in known) - now_s)
        reasons = ", ".join(dict.fromkeys(aside.reason for aside in known))
        return StateChange(name, "down", _told(reasons, wait_s), wait_s)

    def _unanswered(self, asked: _Asked, now_s: float) -> list[_Change]:
        """Neither yes nor no: asked again later, unless its data comes all the same."""
        asked.answer_by_s = inf
        self._awaited.discard(asked.request.id)
        names = asked.request.channels
        alone = all(self._heard_s[name] > asked.asked_s and len(self._of(name)) == 1 for name in names)
        if (names and alone) or asked.heard_s > asked.asked_s:
            return []
        subject = asked.request.subject
        reason = f"{self._title} did not answer the subscription of {subject} in {ANSWER_S:g} s"
        return self._ask_later(asked, reason, now_s)

    def _ask_later(self, asked: _Asked, reason: str, now_s: float) -> list[_Change]:
        pause_s = min(RETRY_S * 2.0**asked.failures, LONGEST_RETRY_S)
        asked.failures = min(asked.failures + 1, 30)
        asked.ask_s = now_s + pause_s
        changes: list[_Change] = []
        for name in asked.request.channels:
            if name in self._shared or not all(map(self._is_lost, self._of(name))):
                changes.append(_note(name, asked.request, reason))
            elif self._heard_s[name] <= asked.asked_s:
                self._mute.add(name)
                changes.append(StateChange(name, "stale", reason, pause_s))
        return changes

    def _budget_s(self) -> float:
        """From when on the venue's hourly allowance has room for one more request."""
        full = len(self._sent_s) == self._sent_s.maxlen
        spaced_s = self._sent_s[-1] + self._spacing_s if self._sent_s else -inf
        return max(spaced_s, self._sent_s[0] + _HOUR_S if full else -inf)


def _note(channel: str, request: SubscribeRequest, reason: str) -> TopicNote:
    return TopicNote(channel, request.subject, "refused", reason)


def _told(reason: str, wait_s: float) -> str:
    """A refusal with what follows from it."""
    return f"{reason} (set aside, asked again in {in_words(wait_s)})"
