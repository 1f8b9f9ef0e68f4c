"""A replica that is fed with an outlet's parts is the tape, for everybody who asks it.

The users of tests/daemon/fanout/test_books.py are served from a replica here: they come, stall, lag and resume as
there, the daemon whose tape is followed is stopped and killed, and a new replica begins at any moment.
"""

import json
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from connectors.base import Event, StateChange
from daemon.fanout.hub import Hub
from daemon.fanout.joining import Joining
from daemon.health.board import Board
from daemon.publish import keyframes, parts
from daemon.publish.bus import Appended
from daemon.publish.outlet import Outlet, OvertakenError
from daemon.publish.parts import Beginning, Part
from daemon.publish.replica import Noted, NotNextError, Replica
from daemon.tape.copying import Row
from daemon.tape.ledger import Ledger
from daemon.tape.recovery import plan_recovery
from daemon.tape.tape import Tape
from protocol.channels import Catalogue
from protocol.messages import Position
from protocol.session import ALL
from tests.daemon.fanout import test_books
from tests.daemon.fanout.sink import CATALOGUE, START_MS, Fan
from tests.daemon.fanout.test_books import Books


class FollowedFan(Fan):
    """A sequencer whose tape is followed by a replica, and clients of that."""

    def __init__(self, tape: Tape | None = None, catalogue: Catalogue = CATALOGUE) -> None:
        super().__init__(tape=tape, catalogue=catalogue)
        self.outlet = Outlet(self.tape, self.board, self.ledger)
        self.number = 0
        self.bus.add(self.outlet)
        self.bus.add(self)
        self.begin()

    def begin(self) -> None:
        """A new replica, as of now."""
        beginning, standing = self.outlet.begin()
        travelled = parts.decode_beginning(parts.encode(beginning))
        self.replica = Replica(travelled, self.tape.max_entries, self.tape.max_bytes, self.clock)
        for part in standing:
            self.replica.fill(parts.decode_part(parts.encode(part)).rows)
        self.replica.ready()
        self.number = self.outlet.next
        self.hub = Hub(self.replica.tape, self.replica.ledger, self.clock, self._write)
        self.joining = Joining(self.replica.tape, self.hub, self.replica.board, self.replica.ledger, self.clock)
        self.replica.bus.add(self.hub)

    def follow(self, appended: Appended) -> None:
        """As soon as something is published, the replica has it."""
        self.pump()

    def pump(self) -> None:
        """Take all parts that there are."""
        found = self.outlet.kept(self.number, 10**9)
        self.number += len(found)
        self.replica.take(map(parts.decode_part, found))


def test_everybody_ends_with_the_book_of_who_was_there_from_the_start_at_a_replica_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyframes, "UPDATES", 4)

    class Machine(Books):
        def __init__(self) -> None:
            super().__init__(Path(tempfile.mkdtemp(dir=tmp_path)))

        def fan_of(self, tape: Tape) -> Fan:
            return FollowedFan(tape, test_books.CATALOGUE)

        def _check_snapshots(self) -> None:
            assert isinstance(self.fan, FollowedFan)
            replica = self.fan.replica
            for topic in self.known:
                assert replica.tape.payloads(*topic), topic
            # Whoever begins to follow now has the same.
            beginning, standing = self.fan.outlet.begin()
            late = Replica(beginning, self.max_entries, self.max_bytes, self.fan.clock)
            for part in standing:
                late.fill(part.rows)
            late.ready()
            for topic in self.known:
                seen = test_books.Seen()
                for payload in late.tape.payloads(*topic):
                    seen.take(json.loads(payload))
                published = self.after[self.fan.tape.epoch, topic]
                assert (seen.last, seen.sides) == (max(published), published[max(published)])

    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=6))


def event(channel: str, received_ms: int = START_MS) -> Event:
    return Event(channel, "X/U", data=b'{"n":1}', received_ms=received_ms, price="1.50")


def test_states_and_gaps_are_told_in_the_part_of_the_status_that_tells_them() -> None:
    fan = FollowedFan()
    told: list[tuple[str, str]] = []

    class Judge:
        def follow(self, appended: Appended) -> None:
            told.append((fan.replica.board.state("a").state, fan.replica.board.state("a").reason))

    fan.replica.bus.add(Judge())
    fan.sequencer.publish([[event("a")], StateChange("a", "live"), [event("a")]])
    fan.sequencer.publish([StateChange("a", "down", "refused", 2.5)])
    assert told == [("live", ""), ("down", "refused")]
    assert fan.replica.board.states() == fan.board.states()
    assert fan.replica.ledger.gaps(START_MS) == fan.ledger.gaps(START_MS)
    fan.now_ms += 1000
    fan.sequencer.publish([StateChange("a", "live")])
    assert fan.replica.ledger.gaps(fan.now_ms) == fan.ledger.gaps(fan.now_ms)


def test_what_changes_without_a_message_is_told_at_the_next_look_and_only_once() -> None:
    fan = FollowedFan()
    fan.sequencer.publish([StateChange("a", "live"), [event("a", START_MS + 7)]])
    assert fan.replica.board.state("a").last_event_ms == START_MS + 7
    fan.sequencer.publish([[event("a", START_MS + 9)]])
    fan.ledger.note("lagged", "b", START_MS, count=3, reason="slow")
    fan.outlet.tell()
    before = fan.outlet.next
    fan.pump()
    assert fan.replica.board.state("a").last_event_ms == START_MS + 9
    assert fan.replica.ledger.gaps(START_MS) == fan.ledger.gaps(START_MS)
    fan.outlet.tell()
    assert fan.outlet.next == before


def test_a_reload_reaches_the_replica_before_the_messages_of_its_channels() -> None:
    fan, adopted = FollowedFan(), list[Catalogue]()
    fan.sequencer.publish([[event("b")]])
    fan.replica.adopted = adopted.append
    fewer = Catalogue([channel for channel in CATALOGUE if channel.name != "b"])
    fan.sequencer.adopt(fewer)
    fan.sequencer.publish([StateChange("a", "live"), [event("a")]])
    [catalogue] = adopted
    assert tuple(catalogue) == tuple(fewer)
    assert fan.replica.board.states() == fan.board.states()
    assert fan.replica.tape.payloads("b") == fan.tape.payloads("b") == []


def test_who_takes_nothing_is_overtaken_and_nobody_waits_for_it() -> None:
    tape, ledger = Tape(1000, 10**6), Ledger()
    fan = Fan(tape=tape)
    outlet = Outlet(fan.tape, fan.board, ledger, kept_bytes=1000)
    fan.bus.add(outlet)
    for _ in range(100):
        fan.sequencer.publish([[event("a")]])
    with pytest.raises(OvertakenError, match="part 3 is not kept"):
        outlet.kept(3, 100)
    assert len(outlet.kept(outlet.next - 1, 1)) == 1, "one is handed out, however large"
    assert outlet.kept(outlet.next, 100) == []


def test_what_all_followers_have_is_not_kept() -> None:
    tape, ledger = Tape(1000, 10**6), Ledger()
    fan = Fan(tape=tape)
    outlet = Outlet(fan.tape, fan.board, ledger)
    fan.bus.add(outlet)
    for _ in range(10):
        fan.sequencer.publish([[event("a")]])
    kept = outlet.kept(7, 10**6)
    outlet.forget(7)
    assert outlet.kept(7, 10**6) == kept
    with pytest.raises(OvertakenError, match="part 6 is not kept any longer; the first that is, is 7"):
        outlet.kept(6, 100)
    outlet.forget(3)
    outlet.forget(outlet.next)
    assert outlet.kept(outlet.next, 100) == []
    fan.sequencer.publish([[event("a")]])
    assert len(outlet.kept(10, 100)) == 1


def test_a_part_that_does_not_follow_is_refused_and_those_before_it_are_taken() -> None:
    fan = FollowedFan()
    fan.sequencer.publish([[event("a")]])
    seen: list[list[int]] = []

    class Follower:
        def follow(self, appended: Appended) -> None:
            seen.append([entry.seq for entry in appended.entries])

    fan.replica.bus.add(Follower())
    head = fan.replica.tape.head
    row = Row(head + 1, 2, "a", "X/U", b"{}")
    with pytest.raises(NotNextError, match=f"follows position {head + 5}, and the tape ends at {head + 1}"):
        fan.replica.take([Part(head, [row]), Part(head + 5, [])])
    assert seen == [[head + 1]]


def test_a_kind_that_is_unknown_here_is_named() -> None:
    fan = FollowedFan()
    beginning, _ = fan.outlet.begin()
    listed = msgspec.structs.replace(beginning.channels[0], kind="odds")
    strange = Beginning(beginning.origin, [listed], {}, [])
    with pytest.raises(ValueError, match=r"channel \w+: kind 'odds' is not one of prices, ticker"):
        Replica(strange, 10, 1000, fan.clock)


def test_who_leads_goes_on_from_the_states_that_were_told() -> None:
    fan = FollowedFan()
    fan.sequencer.publish([StateChange("a", "live"), [event("a")], StateChange("b", "down", "refused")])
    board, ledger = fan.replica.board, fan.replica.ledger
    board.lead(START_MS + 5)
    ledger.lead()
    assert isinstance(board, Board)
    assert board.state("b").state == "down"
    told = board.apply(StateChange("a", "connecting"), START_MS + 5)
    assert told is not None
    assert told.state == "connecting"
    assert not ledger.open(START_MS + 5)


def test_a_skip_reaches_the_replica_with_the_next_part_and_chains_go_on_over_it() -> None:
    fan = FollowedFan()
    fan.sequencer.publish([[event("a")]])
    before = fan.tape.head
    fan.tape.skip_to(before + 1000)
    fan.outlet.tell()
    fan.pump()
    assert (fan.replica.tape.head, fan.replica.tape.skips) == (before + 1000, [(before, before + 1000)])
    fan.tape.skip_to(before + 2000)
    fan.sequencer.publish([[event("a")]])
    assert fan.replica.tape.skips == fan.tape.skips
    newest = json.loads(fan.replica.tape.payload("a", "X/U") or b"")
    assert (newest["seq"], newest["prev_seq"]) == (before + 2001, before)
    fan.tape.skip_to(before + 3000)
    fan.begin()  # a skip that nobody was told of is in the beginning
    fan.sequencer.publish([[event("a")]])
    assert fan.replica.tape.head == before + 3001


def test_whoever_resumes_from_within_a_skip_is_told_and_whoever_stands_before_it_loses_nothing() -> None:
    fan = FollowedFan()
    fan.sequencer.publish([[event("a")], [event("a")]])
    before = fan.tape.head
    fan.tape.skip_to(before + 1000)
    fan.sequencer.publish([[event("a")]])
    for tape in (fan.tape, fan.replica.tape):
        for since, recovered in ((before, True), (before + 1, False), (before + 999, False), (before + 1000, True)):
            told = plan_recovery(tape, ("a",), frozenset({("a", ALL)}), Position(epoch=tape.epoch, seq=since))
            assert told.recovered == {"a": recovered}, since
            assert bool(told.reason) == (not recovered)
            assert tape.holds(since) == recovered
    lost = f"seq {before + 7} was sent, and lost when another node took over: after seq {before} the tape goes on at"
    told = plan_recovery(fan.tape, ("a",), frozenset({("a", ALL)}), Position(epoch=fan.tape.epoch, seq=before + 7))
    assert told.reason == f"{lost} {before + 1001}"
    assert [each.seq for each in told.shown] == [before + 1001]


def test_a_replica_becomes_another_one_for_all_who_hold_it() -> None:
    fan, other = FollowedFan(), FollowedFan()
    fan.sequencer.publish([StateChange("a", "live"), [event("a")], [event("a")]])
    fan.ledger.note("lagged", "b", START_MS, count=3, reason="slow")
    fan.outlet.tell()
    fan.pump()
    other.sequencer.publish([StateChange("b", "down", "refused"), [event("b")]])
    tape, board, ledger, adopted = fan.replica.tape, fan.replica.board, fan.replica.ledger, list[Catalogue]()
    fan.replica.adopted = adopted.append
    fan.replica.become(other.replica)
    assert (tape.epoch, tape.head, tape.payload("a", "X/U")) == (other.tape.epoch, other.tape.head, None)
    assert tape.payload("b", "X/U") == other.tape.payload("b", "X/U")
    assert board.states() == other.board.states()
    assert ledger.gaps(START_MS) == other.ledger.gaps(START_MS)
    assert adopted == [board.catalogue]
    number = other.outlet.next
    other.sequencer.publish([[event("b")]])
    fan.replica.take(map(parts.decode_part, other.outlet.kept(number, 10**9)))
    assert tape.head == other.tape.head


def test_what_is_noted_at_a_replica_goes_up_in_one_sum() -> None:
    fan = FollowedFan()
    ledger = fan.replica.ledger
    ledger.note("lagged", "", START_MS, messages=5, reason="slow")
    ledger.note("lagged", "", START_MS, messages=7)
    ledger.note("resync", "", START_MS, reason="began anew")
    assert ledger.taken() == [Noted("lagged", "", 2, 12, "slow"), Noted("resync", "", 1, 0, "began anew")]
    assert ledger.taken() == []
    assert ledger.gaps(START_MS) == []


def test_who_is_cut_off_shows_what_was_fine_as_stale_until_it_hears_again() -> None:
    fan = FollowedFan()
    fan.sequencer.publish([StateChange("a", "live"), StateChange("b", "down", "refused")])
    board = fan.replica.board
    before = dict(board.states())
    board.cut_off("nobody answers", START_MS + 9)
    assert (board.state("a").state, board.state("a").reason, board.state("a").since_ms) == (
        "stale",
        "nobody answers",
        START_MS + 9,
    )
    assert board.state("b") == before["b"]
    board.cut_off("", START_MS + 20)
    assert board.states() == before
