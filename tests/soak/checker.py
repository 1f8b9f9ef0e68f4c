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

Where messages are changes of a book, it begins anew where the newest message alone follows elsewhere: after
`subscribed`, after `recovered: false`, and after `lagged` if the channel is named and something of the topic is missed.

    a message with `reset`  is one of the topic's like any other; it is what a book may begin with
    a keyframe              the same for those who need one, and for nobody else. The place becomes its `through`. No
                            witness has it, so it is judged by what is in it: the witness's book at `through`
    a book that is held     by a client that has applied all of that: the witness's at that position

An interval takes effect for no channel of which every message counts: `interval_refused` names those, and only those.

Whatever does not fit is an *offence*: a `hole`, a `double`, `disorder`, a message that is `altered`, `unknown`
to the witnesses or `unasked`, a wrong count (`miscounted`), something that `never came`, a command `unanswered`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final, TypeAlias, assert_never

import msgspec

from tests.soak.record import Got, Held, Joined, Keyframe, Lagged, Left, Refused, Session, Topic
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
    """An answer about one channel whose count is still to be compared with what comes."""

    def __init__(self, what: str, claimed: int, topics: set[Topic]) -> None:
        self.what = what
        self.claimed = claimed
        self.waiting = topics
        self.found = 0


class _Place:
    """`begins`: the topic's book begins anew with the next message, which must be so where `must_begin`."""

    __slots__ = ("begins", "debt", "interval_ms", "last", "must_begin", "or_newest")

    def __init__(
        self, last: int | None, interval_ms: int, or_newest: int | None = None, *, must_begin: bool = False
    ) -> None:
        self.last = last
        self.begins = "recovered:false" if must_begin else ""
        self.must_begin = must_begin
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
        books: How many books of clients and keyframes were compared.
    """

    def __init__(self, reference: Reference, whole: Collection[str] = ()) -> None:
        """`whole`: the channels of which every message counts."""
        self.offences: list[Offence] = []
        self.explained: Counter[str] = Counter()
        self.messages = 0
        self.sessions = 0
        self.books = 0
        self.whole = frozenset(whole)
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
        self._promised: dict[int, set[str]] = {}

    def run(self) -> _Ends:
        """Judge the session; returns the places of what it took one by one, for those who resume from there."""
        for entry in self._session.entries():
            match entry:
                case Got():
                    self._got(entry)
                case Joined():
                    self._took_effect(entry)
                    self._joined(entry)
                case Refused():
                    self._refused(entry)
                case Keyframe():
                    self._keyframe(entry)
                case Held(topic, seq, digest):
                    self._compare(topic, seq, digest, "the book that the client has")
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
            if not place.interval_ms and place.last is not None and not place.begins:
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
        begins, place.begins = place.begins, ""
        must_begin, place.must_begin = place.must_begin, False
        if begins and self._reference.begins(message.topic, message.seq):
            before = 0 if last is None else len(self._reference.between(message.topic, last, message.seq))
            self._begin(place, message.topic, message.seq, message.seq, before, begins, debt)
            return
        if must_begin:
            said = "changes of a book that the client has not been given"
            self._offend("no book", message.topic, message.seq, said)
            return
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
            self._pay(debt, message.topic, message.seq, missing)

    def _pay(self, debt: _Debt, topic: Topic, seq: int, missing: int) -> None:
        debt.found += missing
        debt.waiting.discard(topic)
        if not debt.waiting and debt.found != debt.claimed:
            said = f"{debt.what} with missed {debt.claimed}, but it is {debt.found}"
            self._offend("miscounted", (topic[0], ""), seq, said)

    # ---- books ------------------------------------------------------------------------------------------------------

    def _keyframe(self, keyframe: Keyframe) -> None:
        topic, through = keyframe.topic, keyframe.through
        place = self._places.get(topic)
        if keyframe.prev_seq != through or not through < keyframe.seq:
            said = f"prev_seq is {keyframe.prev_seq} of a keyframe that goes through {through}"
            self._offend("hole", topic, keyframe.seq, said)
        self._compare(topic, through, keyframe.digest, f"the keyframe {keyframe.seq}")
        if place is None:
            self._offend("unasked", topic, keyframe.seq, "the client does not take this topic")
            return
        begins, debt = place.begins, place.debt
        if not begins:
            self._offend("double", topic, keyframe.seq, "a keyframe for a client that has the book")
        last, place.last = place.last, through
        place.begins, place.must_begin, place.debt = "", False, None
        missing = 0 if last is None else len(self._reference.between(topic, last, through + 1))
        self._begin(place, topic, keyframe.seq, through, missing, begins, debt)

    def _begin(
        self, place: _Place, topic: Topic, seq: int, through: int, missing: int, why: str, debt: _Debt | None
    ) -> None:
        """The book begins with a message that has everything up to a position."""
        place.last = through
        if why and missing:
            self._checker.explained[why] += missing
        if (reset := self._reference.begun(topic, seq)) > through:
            self._offend("hole", topic, seq, f"begins with the book of {through}, though it began anew at {reset}")
        if debt is not None:
            self._pay(debt, topic, seq, missing)

    def _compare(self, topic: Topic, seq: int, digest: int, what: str) -> None:
        witnessed = self._reference.book(topic, seq) if self._reference.is_depth(topic) else None
        self._checker.books += witnessed is not None
        if witnessed is None and self._reference.covers(topic, seq):
            self._offend("unknown", topic, seq, f"{what} is of no message that a witness had")
        elif witnessed is not None and witnessed != digest:
            self._offend("wrong book", topic, seq, f"{what} is not the witness's")

    # ---- answers ----------------------------------------------------------------------------------------------------

    def _refused(self, refused: Refused) -> None:
        """Of these channels an interval would leave out what counts; the others of the command take effect."""
        named = set(refused.channels)
        wrong = named - (self._checker.whole & set(refused.asked))
        if wrong or not refused.interval_ms:
            said = f"an interval of {refused.interval_ms} ms is refused for {sorted(wrong or named)}"
            self._offend("refused", ("interval", ""), 0, said)
        others = set(refused.asked) - named
        self._promised[refused.id] = {name for name in others if self._reference.topics(name, refused.instruments)}

    def _took_effect(self, join: Joined) -> None:
        """Whether the command did for just those channels for which it may."""
        owed = self._promised.pop(join.id, set()) - set(join.channels)
        if owed:
            self._offend("unanswered", ("interval", ""), join.seq, f"also for {sorted(owed)} an interval was asked for")
        if join.interval_ms and (wrong := self._checker.whole & set(join.channels)):
            self._offend("interval", ("interval", ""), join.seq, f"an interval took effect for {sorted(wrong)}")

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
                debt = _Debt("recovered:false", claimed, set(topics))
                if all(self._places[topic].last is not NOWHERE for topic in topics):
                    for topic in topics:
                        self._places[topic].debt = debt

    def _start(self, topic: Topic, join: Joined) -> _Place:
        """Where a topic begins that was not taken before."""
        newest = self._reference.newest(topic, join.seq)
        is_depth = self._reference.is_depth(topic)
        if join.since is None:
            if is_depth and join.snapshot and newest != 0:
                return _Place(NOWHERE, join.interval_ms, must_begin=True)
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
        if is_depth:
            return _Place(since, join.interval_ms, must_begin=newest != 0)
        return _Place(since, join.interval_ms, newest)

    def _keep(self, topic: Topic, place: _Place, join: Joined) -> None:
        """A topic that was taken already keeps its place; but from an interval it goes on with the newest message."""
        was_at_interval, place.interval_ms = place.interval_ms, join.interval_ms
        newest = self._reference.newest(topic, join.seq)
        if was_at_interval and not join.interval_ms and place.last is not None and newest and place.last < newest:
            self._checker.explained["interval"] += len(self._reference.between(topic, place.last, newest))
            place.last = self._reference.previous(topic, newest)

    def _lagged(self, lagged: Lagged) -> None:
        exact = not self._lagged_books(lagged)
        of_books = {topic[0] for topic in self._places if self._reference.is_depth(topic)}
        claimed = lagged.missed - sum(missed for name, missed in lagged.by_channel.items() if name in of_books)
        least = most = 0
        for topic, place in self._places.items():
            if topic[0] in of_books:
                continue
            newest = self._reference.newest(topic, lagged.to_seq)
            if place.interval_ms or not newest or (lagged.by_channel and topic[0] not in lagged.by_channel):
                continue
            if place.last is NOWHERE:
                exact = False
            elif place.last < newest:
                exact = exact and self._reference.counts(topic, place.last)
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
        if exact and not least <= claimed <= most:
            said = f"lagged said that {claimed} are missed, but it is {least}" + (f" to {most}" * (least < most))
            self._offend("miscounted", ("lagged", ""), lagged.to_seq, said)

    def _lagged_books(self, lagged: Lagged) -> bool:
        """Books may begin anew from here; whether the total says nothing of other channels, since they are in it."""
        waiting: dict[str, set[Topic]] = {}
        unknown: set[str] = set()
        for topic, place in self._places.items():
            if not self._reference.is_depth(topic) or (lagged.by_channel and topic[0] not in lagged.by_channel):
                continue
            newest = self._reference.newest(topic, lagged.to_seq)
            topics = waiting.setdefault(topic[0], set())
            last = place.last
            if last is NOWHERE or not self._reference.counts(topic, last) or place.begins or newest is None:
                # What it owed before is still owed, or has been counted now, or no witness was there: nobody can tell.
                unknown.add(topic[0])
                place.debt = None
                place.begins = place.begins or "lagged"
            elif last < newest:
                place.begins, place.debt = "lagged", None
                topics.add(topic)
        for channel, topics in waiting.items():
            if not lagged.by_channel or channel in unknown:
                continue
            claimed = lagged.by_channel[channel]
            if not topics:
                self._offend("miscounted", (channel, ""), lagged.to_seq, f"lagged with missed {claimed}, but it is 0")
            debt = _Debt("lagged", claimed, set(topics))
            for topic in topics:
                self._places[topic].debt = debt
        return bool(waiting) and not lagged.by_channel

    def _end(self) -> None:
        session = self._session
        for command in session.unanswered:
            self._offend("unanswered", ("command", ""), 0, command)
        for remark in session.remarks:
            self._offend("remark", ("", ""), 0, remark)
        if session.complete_to is None:
            return
        for names in self._promised.values():
            if names:
                self._offend("unanswered", ("interval", ""), 0, f"also for {sorted(names)} an interval was asked for")
        evidence = session.evidence
        for topic, place in self._places.items():
            if place.interval_ms > session.longest_ms:
                continue
            newest = self._reference.newest(topic, session.complete_to)
            if place.must_begin and place.last is NOWHERE:
                self._offend("never came", topic, newest or 0, f"no book, though the client waited for it\n{evidence}")
                continue
            if place.last is not NOWHERE and newest is not None and place.last < newest:
                missing = self._reference.between(topic, place.last, newest + 1)
                said = f"{len(missing)} messages, from {missing[0]} on, though the client waited for them"
                said, evidence = (f"{said}\n{evidence}" if evidence else said), ""
                self._offend("never came", topic, newest, said)
