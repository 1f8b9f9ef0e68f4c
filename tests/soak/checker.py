"""Whether a client got what the wire contract promises it, judged by its record and the witnesses'. Pure.

Per topic that the client takes there is one *place*: the `seq` of its newest message that it has had, or has been told
that it will not have. Everything follows from how the place may move:

    a message               taken one by one: its `prev_seq` is the place. At an interval: it is beyond the place
    `subscribed`            a topic that was not taken yet starts at the tape's head (before the newest message, if a
                            snapshot was asked for), or where `since` said; one that was taken keeps its place, but that
                            whoever leaves an interval goes on with the newest message
    `recovered: false`      the next message goes on from `since`, or is the newest one
    `lagged`                every topic's place moves to just before its newest message, and `missed` is the sum of it;
                            where `by_channel` names channels, only theirs: all others go on where they were
    `unsubscribed`          the topic has no place: nothing of it may come

Whatever does not fit is an *offence*: a `hole`, a `double`, `disorder`, a message that is `altered`, `unknown`
to the witnesses or `unasked`, a wrong count (`miscounted`), something that `never came`, a command `unanswered`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeAlias, assert_never

import msgspec

from tests.soak.record import Got, Joined, Lagged, Left, Session, Topic
from tests.soak.reference import Reference

NOWHERE: Final = None
"""A place that nobody knows, since it lies before the witnesses' time: whatever comes next is right."""


class Offence(msgspec.Struct, frozen=True):
    """Something that the contract does not allow."""

    kind: str
    client: int
    session: int
    topic: Topic
    seq: int
    detail: str

    def __str__(self) -> str:
        where = " ".join(part for part in self.topic if part)
        return f"client {self.client}, session {self.session}: {self.kind}: {where} seq {self.seq}: {self.detail}"


class _Debt:
    """An answer `recovered: false` of one channel whose count is still to be compared with what comes."""

    def __init__(self, claimed: int, topics: set[Topic]) -> None:
        self.claimed = claimed
        self.waiting = topics
        self.found = 0


class _Place:
    __slots__ = ("debt", "interval_ms", "last", "or_newest")

    def __init__(self, last: int | None, interval_ms: int, or_newest: int | None = None) -> None:
        self.last = last
        self.interval_ms = interval_ms
        self.or_newest = or_newest
        self.debt: _Debt | None = None


_Ends: TypeAlias = dict[Topic, int]


class Checker:
    """Judges clients one after the other.

    Attributes:
        offences: In the order in which they were found.
        explained: How many messages did not come, by what explains it.
        messages: How many were looked at.
        sessions: How many sessions were.
    """

    def __init__(self, reference: Reference) -> None:
        self.offences: list[Offence] = []
        self.explained: Counter[str] = Counter()
        self.messages = 0
        self.sessions = 0
        self._reference = reference

    def client(self, sessions: Sequence[Session]) -> None:
        """All sessions of one client, in order."""
        ends: _Ends = {}
        for session in sessions:
            ends = _SessionCheck(self, self._reference, session, ends).run()
            self.sessions += 1
            self.messages += len(session)


class _SessionCheck:
    def __init__(self, checker: Checker, reference: Reference, session: Session, before: _Ends) -> None:
        self._checker = checker
        self._reference = reference
        self._session = session
        self._before = before
        self._places: dict[Topic, _Place] = {}
        self._had: set[int] = set()
        self._channels: set[str] = set()

    def run(self) -> _Ends:
        """Judge the session; returns the places of what it took one by one, for those who resume from there."""
        for entry in self._session.entries():
            match entry:
                case Got():
                    self._got(entry)
                case Joined():
                    self._joined(entry)
                case Left(channels):
                    for topic in [topic for topic in self._places if topic[0] in channels]:
                        del self._places[topic]
                case Lagged():
                    self._lagged(entry)
                case _:
                    assert_never(entry)
        self._end()
        ends = {topic: last for topic, last in self._before.items() if topic[0] not in self._channels}
        for topic, place in self._places.items():
            if not place.interval_ms and place.last is not None:
                ends[topic] = place.last
        return ends

    def _offend(self, kind: str, topic: Topic, seq: int, detail: str) -> None:
        session = self._session
        self._checker.offences.append(Offence(kind, session.client, session.number, topic, seq, detail))

    # ---- messages ---------------------------------------------------------------------------------------------------

    def _got(self, message: Got) -> None:
        topic, seq = message.topic, message.seq
        digest = self._reference.digest(seq, self._session.format)
        if digest is None and self._reference.covers(topic, seq):
            self._offend("unknown", topic, seq, "no witness had a message of that seq")
        elif digest is not None and digest != message.digest:
            self._offend(
                "altered", topic, seq, f"the witness's message of that seq is another ({self._session.format})"
            )
        place = self._places.get(topic)
        if place is None:
            self._offend("unasked", topic, seq, "the client does not take this topic")
        else:
            self._follow(place, message)
        self._had.add(seq)

    def _follow(self, place: _Place, message: Got) -> None:
        """Move the place to a message."""
        last, or_newest, debt = place.last, place.or_newest, place.debt
        place.last = message.seq if last is None else max(last, message.seq)
        place.or_newest = place.debt = None
        if last is NOWHERE:
            return
        missing = len(self._reference.between(message.topic, last, message.seq))
        if or_newest is not None and message.seq == or_newest:
            self._checker.explained["recovered:false"] += missing
            place.last = message.seq
        elif place.interval_ms and message.seq > last:
            left_out = missing
            if or_newest is not None and message.seq > or_newest:
                # An interval taken meanwhile leaves out the newest message, too, and those after it.
                missing = len(self._reference.between(message.topic, last, or_newest))
                self._checker.explained["recovered:false"] += missing
                left_out -= missing
            self._checker.explained["interval"] += left_out
        elif message.seq <= last:
            kind = "double" if message.seq in self._had else "disorder"
            self._offend(kind, message.topic, message.seq, f"the client was at {last} already")
        elif message.prev_seq != last:
            said = f"prev_seq is {message.prev_seq}, the client was at {last}, {missing} messages are missing"
            self._offend("hole", message.topic, message.seq, said)
        if debt is not None:
            self._pay(debt, message, missing)

    def _pay(self, debt: _Debt, message: Got, missing: int) -> None:
        debt.found += missing
        debt.waiting.discard(message.topic)
        if not debt.waiting and debt.found != debt.claimed:
            said = f"recovered:false with missed {debt.claimed}, but it is {debt.found}"
            self._offend("miscounted", (message.topic[0], ""), message.seq, said)

    # ---- answers ----------------------------------------------------------------------------------------------------

    def _joined(self, join: Joined) -> None:
        self._channels.update(join.channels)
        for channel in join.channels:
            topics = self._reference.topics(channel, join.instruments)
            for topic in [topic for topic in self._places if topic[0] == channel and topic not in topics]:
                del self._places[topic]
            new = [topic for topic in topics if topic not in self._places]
            for topic in topics:
                if topic in new:
                    self._places[topic] = self._start(topic, join)
                else:
                    self._keep(topic, self._places[topic], join)
            claimed = join.missed.get(channel)
            if claimed is not None and join.known and new == topics and not join.interval_ms:
                debt = _Debt(claimed, set(topics))
                if all(self._places[topic].last is not NOWHERE for topic in topics):
                    for topic in topics:
                        self._places[topic].debt = debt

    def _start(self, topic: Topic, join: Joined) -> _Place:
        """Where a topic begins that was not taken before."""
        newest = self._reference.newest(topic, join.seq)
        if join.since is None:
            if join.snapshot and newest:
                return _Place(self._reference.previous(topic, newest), join.interval_ms)
            return _Place(newest, join.interval_ms)
        since = self._reference.newest(topic, join.since) if join.known else NOWHERE
        if join.honest and since is not None and self._before.get(topic, since) < since:
            missing = self._reference.between(topic, self._before[topic], since + 1)
            said = f"resumed from {join.since}, but these had not come before: {missing[:5]}"
            self._offend("hole", topic, since, said)
        if join.recovered.get(topic[0], False):
            return _Place(since, join.interval_ms)
        return _Place(since, join.interval_ms, newest)

    def _keep(self, topic: Topic, place: _Place, join: Joined) -> None:
        """A topic that was taken already keeps its place; but from an interval it goes on with the newest message."""
        was_at_interval, place.interval_ms = place.interval_ms, join.interval_ms
        newest = self._reference.newest(topic, join.seq)
        if was_at_interval and not join.interval_ms and place.last is not None and newest and place.last < newest:
            self._checker.explained["interval"] += len(self._reference.between(topic, place.last, newest))
            place.last = self._reference.previous(topic, newest)

    def _lagged(self, lagged: Lagged) -> None:
        least = most = 0
        exact = True
        for topic, place in self._places.items():
            newest = self._reference.newest(topic, lagged.to_seq)
            if place.interval_ms or not newest or (lagged.by_channel and topic[0] not in lagged.by_channel):
                continue
            if place.last is NOWHERE:
                exact = False
            elif place.last < newest:
                missing = self._reference.between(topic, place.last, newest)
                most += len(missing)
                if place.or_newest is None:
                    least += len(missing)
                    if missing and missing[0] < lagged.from_seq:
                        said = f"lagged said that it begins with {lagged.from_seq} only"
                        self._offend("hole", topic, missing[0], said)
                else:
                    # Where the newest message was still to follow, all before it was accounted for by that answer.
                    later = [seq for seq in missing if seq >= place.or_newest]
                    least += len(later)
                    self._checker.explained["recovered:false"] += len(missing) - len(later)
                    place.or_newest = place.debt = None
                place.last = self._reference.previous(topic, newest)
        self._checker.explained["lagged"] += least
        if exact and not least <= lagged.missed <= most:
            said = f"lagged said that {lagged.missed} are missed, but it is {least}" + (f" to {most}" * (least < most))
            self._offend("miscounted", ("lagged", ""), lagged.to_seq, said)

    def _end(self) -> None:
        session = self._session
        for command in session.unanswered:
            self._offend("unanswered", ("command", ""), 0, command)
        for remark in session.remarks:
            self._offend("remark", ("", ""), 0, remark)
        if session.complete_to is None:
            return
        evidence = session.evidence
        for topic, place in self._places.items():
            newest = self._reference.newest(topic, session.complete_to)
            if place.last is not NOWHERE and newest is not None and place.last < newest:
                missing = self._reference.between(topic, place.last, newest + 1)
                said = f"{len(missing)} messages, from {missing[0]} on, though the client waited for them"
                said, evidence = (f"{said}\n{evidence}" if evidence else said), ""
                self._offend("never came", topic, newest, said)
