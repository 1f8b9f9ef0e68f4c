"""Resuming against a model that is a plain list: over eviction, filters, both formats, and restarts of any kind.

The tape, its file, the hub and `daemon.fanout.joining` are the real ones. A restart after kill -9 is a copy of the file
and its log as they are at that moment, between any two transactions. The disk may be full at any time, a start and a
stop included. The model knows all that was ever sent, by epoch, also what was lost; what clients are told and given is
judged by that alone.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from connectors.base import Event
from daemon.host.clock import WallClock
from daemon.tape import archive as archives
from daemon.tape.archive import Archive
from daemon.tape.tape import NOTICE, Entry, Tape, Topic
from daemon.tape.tape_file import Batch, TapeFile
from protocol.channels import Catalogue
from protocol.messages import Data, Format, Position, PriceUpdate, Status, Subscribed
from tests.daemon.fanout.sink import CATALOGUE, START_MS, Client, Fan
from tests.daemon.tape.listed import ListedTape

TOPICS: tuple[Topic, ...] = (("a", "X/U"), ("a", "Y/U"), ("b", "X/U"))


@dataclass
class User:
    """Somebody who comes and goes, and knows what it had."""

    format: Format
    channels: tuple[str, ...]
    instruments: list[str] | None
    position: Position
    client: Client | None = None

    def takes(self, topic: Topic) -> bool:
        return topic[0] in self.channels and (self.instruments is None or topic[1] in self.instruments)


@dataclass
class Era:
    """All that was ever sent in one epoch.

    Attributes:
        sent: by position, the topic and the number of each message.
        listed: what the tape keeps, by the rule.
        in_file: what of it the file knows to stand on the tape.
        lost: positions of which the file knows nothing.
        stored: up to where the file goes.
        break_at: where the tape went on after the last unclean stop.
        restarted: whether it is no longer known where each of those stood that had left the tape before.
    """

    sent: dict[int, tuple[Topic, int]] = field(default_factory=dict)
    listed: ListedTape = field(default_factory=lambda: ListedTape(1, 1))
    in_file: list[Entry] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    stored: int = 0
    break_at: int = 0
    restarted: bool = False


class Disk:
    """Whether files can be written."""

    full = False


users = st.tuples(
    st.sampled_from((Format.JSON, Format.MSGPACK)),
    st.sampled_from(
        (
            (("a",), None),
            (("b",), None),
            (("a", "b"), None),
            (("a", "b"), ["X/U"]),
            (("a",), ["Y/U"]),
            (("b",), ["X/U"]),
        )
    ),
)


class Resume(RuleBasedStateMachine):
    """Users that resume, and a daemon that is restarted."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.runs = 0
        self.number = 0
        self.eras: dict[str, Era] = {}
        Disk.full = False
        self.users: list[User] = []

    @initialize(
        max_entries=st.integers(1, 12),
        max_bytes=st.sampled_from((600, 10**6)),
        block=st.integers(400, 500),
        several=st.lists(users, min_size=1, max_size=3),
    )
    def start(
        self,
        max_entries: int,
        max_bytes: int,
        block: int,
        several: list[tuple[Format, tuple[tuple[str, ...], list[str] | None]]],
    ) -> None:
        self.max_entries, self.max_bytes, self.block = max_entries, max_bytes, block
        self.path = self.folder / "tape"
        self._open()
        self.users = [User(format, *wanted, Position(self.tape.epoch, 0)) for format, wanted in several]

    def _open(self) -> None:
        clock = WallClock(lambda: START_MS * 1_000_000)
        self.archive = Archive.open(self.path, self.max_entries, self.max_bytes, clock, self.block)
        self.tape = self.archive.tape
        if Disk.full:
            assert self.tape.epoch not in self.eras, "positions that nobody can reserve"
        else:
            self.in_file = self.tape.epoch
        self.era = self.eras.setdefault(self.tape.epoch, Era(listed=ListedTape(self.max_entries, self.max_bytes)))
        self.fan = Fan(tape=self.tape)
        self.runs += 1

    # ---- the daemon's life ----------------------------------------------------------------------------------------

    @rule(topics=st.lists(st.sampled_from((*TOPICS, NOTICE)), min_size=1, max_size=8))
    def publish(self, topics: list[Topic]) -> None:
        for topic in topics:
            number = self.number = self.number + 1
            if topic == NOTICE:
                self.fan.sequencer.broadcast_test(str(number))
            else:
                body = f'{{"n":{number}}}'.encode()
                self.fan.sequencer.publish([[Event(*topic, data=body, received_ms=START_MS, price=f"{number}.5")]])
            assert self.tape.head not in self.era.sent, "a position twice"
            assert self.tape.head > max(self.era.sent, default=0), "a position twice"
            self.era.sent[self.tape.head] = (topic, number)
            newest = self.tape.newest(topic)
            assert newest is not None
            self.era.listed.add(newest)
            assert _seqs(self.tape.between(0, self.tape.head)) == _seqs(self.era.listed.kept)
        self._read_all()

    @rule()
    def store(self) -> None:
        """One transaction, which need not be all."""
        anew = self.in_file != self.tape.epoch
        newest = {topic: seq for seq, (topic, _) in sorted(self.era.sent.items()) if seq not in self.era.lost}
        here = {*newest.values(), *(entry.seq for entry in self.era.listed.kept)}
        upto = sorted(seq for seq in here if anew or seq > self.era.stored)[: archives._ENTRIES]
        if Disk.full:
            with suppress(sqlite3.OperationalError):
                assert not self.archive.store()
        elif self.archive.store():
            self.in_file = self.tape.epoch
            self.era.stored = upto[-1] if upto else self.era.stored
            self._in_file()

    def _in_file(self) -> None:
        self.era.in_file = [entry for entry in self.era.listed.kept if entry.seq <= self.era.stored]

    @rule(full=st.sampled_from((True, False, False)))
    def fill_the_disk(self, full: bool) -> None:
        Disk.full = full

    @rule()
    def start_with_a_full_disk(self) -> None:
        """Kill -9, and a start that can reserve nothing, though soon the disk takes what is sent."""
        Disk.full = True
        self.kill()
        Disk.full = False

    @rule()
    def stop_and_start(self) -> None:
        """A clean stop: afterwards it is as if nothing had been. With a full disk it is an unclean one."""
        self._part()
        before = (self.tape.head, self.tape.tail, list(self.tape.between(0, self.tape.head)))
        self.archive.finish()
        if Disk.full:
            return self._start_after_a_kill()
        self.in_file = self.tape.epoch
        self.era.stored = self.tape.head
        self._in_file()
        self.era.restarted = True
        self._open()
        after = (self.tape.head, self.tape.tail, list(self.tape.between(0, self.tape.head)))
        assert before[:2] == after[:2]
        assert [each.text for each in before[2]] == [each.text for each in after[2]]

    @rule()
    def kill(self) -> None:
        """Kill -9 at this very moment."""
        self._part()
        copy = self.folder / f"tape{self.runs}"
        for ending in ("", "-wal"):
            if Path(f"{self.path}{ending}").exists():
                shutil.copy(f"{self.path}{ending}", f"{copy}{ending}")
        self.archive._let_go()
        self.path = copy
        self._start_after_a_kill()

    def _start_after_a_kill(self) -> None:
        """What the file knows is what it knew last; if the disk never took this tape, it is another one's."""
        if (era := self.eras.get(self.in_file)) is not None:
            era.lost |= {seq for seq in era.sent if seq > era.stored}
            era.listed.kept = list(era.in_file)
            era.restarted = True
        self._open()
        if not Disk.full and era is not None:
            assert self.era is era
            assert self.tape.head > max(era.sent, default=0)
            era.break_at = self.tape.head

    @rule()
    def lose_the_file(self) -> None:
        """A new file, and so a new epoch."""
        self._part()
        self.archive.finish()
        self.path = self.folder / f"new{self.runs}"
        self.in_file = ""
        epoch = self.tape.epoch
        self._open()
        assert self.tape.epoch != epoch

    # ---- the users ------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 2))
    def go(self, which: int) -> None:
        user = self.users[which % len(self.users)]
        if user.client is not None:
            self._leave(user)

    def _part(self) -> None:
        for user in self.users:
            if user.client is not None:
                self._leave(user)

    def _leave(self, user: User) -> None:
        assert user.client is not None
        self.fan.hub.detach(user.client.subscriber)
        user.client = None

    @rule(
        which=st.integers(0, 2),
        back=st.sampled_from((0, 0, 0, 0, 1, 2, 3, 5, 8, 13, 30)),
        forward=st.sampled_from((0, 0, 0, 0, 100)),
    )
    def come(self, which: int, back: int, forward: int) -> None:
        """Come back with the position one had, or an older one, or one that never was."""
        user = self.users[which % len(self.users)]
        if user.client is not None:
            self._leave(user)
        since = Position(user.position.epoch, max(0, user.position.seq - back) + forward)
        user.client = self.fan.connect(user.format)
        user.client.subscribe(*user.channels, instruments=user.instruments, since=since)
        user.client.catch_up()
        told, *others = [each for each in user.client.messages() if isinstance(each, Subscribed | Data)]
        assert isinstance(told, Subscribed)
        self._judge(user, since, told, [each for each in others if isinstance(each, Data)])
        user.position = Position(told.epoch, max([told.seq, *(each.seq for each in others)]))

    def _judge(self, user: User, since: Position, told: Subscribed, got: list[Data]) -> None:
        recovered = told.recovered
        assert isinstance(recovered, dict)
        assert recovered.keys() == set(user.channels)
        assert bool(told.reason) == (not all(recovered.values()))
        assert [each.seq for each in got] == sorted(each.seq for each in got), "no position to resume from"
        for message in got:
            assert self.era.sent[message.seq] == (
                (message.connector_id, str(message.instrument)),
                _number(message, user),
            )
            assert message.seq not in self.era.lost, "what was not stored"
        for channel in user.channels:
            topics = [topic for topic in TOPICS if topic[0] == channel and user.takes(topic)]
            unsent = kept = 0
            for topic in topics:
                later = [seq for seq, (of, _) in self.era.sent.items() if of == topic and seq > since.seq]
                here = [seq for seq in later if seq not in self.era.lost]
                came = [each.seq for each in got if (each.connector_id, each.instrument) == topic]
                newest = max(
                    (seq for seq, (of, _) in self.era.sent.items() if of == topic and seq not in self.era.lost),
                    default=0,
                )
                assert came == sorted(set(came)), "twice, or out of order"
                assert not came or came[-1] == newest, "not up to the newest"
                if recovered[channel]:
                    assert (told.epoch, came) == (since.epoch, later), "told that it was recovered, and it is not"
                else:
                    assert bool(came) == bool(newest), "no snapshot"
                stands = set(here) <= {entry.seq for entry in self.era.listed.kept}
                if since.epoch == told.epoch and stands:
                    assert came == here or (not here and came == [newest]), "not all that is stored"
                whole = len(here) < 2 or stands
                kept += whole
                unsent += len(set(here) - set(came))
            if since.epoch == told.epoch and self.era.break_at <= since.seq <= told.seq:
                assert recovered[channel] == (kept == len(topics)), "judged too strictly, or not strictly enough"
                missed = told.missed if isinstance(told.missed, dict) else {}
                if not recovered[channel] and (channel in missed or not self.era.restarted):
                    assert missed[channel] == unsent > 0
                else:
                    assert channel not in missed
            else:
                assert not recovered[channel]
                assert not isinstance(told.missed, dict)

    def _read_all(self) -> None:
        """Who is here gets everything at once, and sees each topic's chain unbroken or broken as it is."""
        for user in self.users:
            if user.client is None:
                continue
            for message in user.client.messages():
                if isinstance(message, Data):
                    topic = (message.connector_id, str(message.instrument))
                    before = [seq for seq, (of, _) in self.era.sent.items() if of == topic and seq < message.seq]
                    truth = max(before, default=0)
                    if truth >= self.era.break_at:
                        assert message.prev_seq == truth
                    else:
                        assert message.prev_seq == self.era.break_at, "it pretends that the chain is unbroken"
                        assert message.prev_seq not in self.era.sent
                    user.position = Position(self.tape.epoch, message.seq)

    def teardown(self) -> None:
        if hasattr(self, "archive"):
            self.archive._let_go()


def _seqs(entries: Iterable[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


def _number(message: Data, user: User) -> int:
    unpack = msgspec.msgpack.decode if user.format is Format.MSGPACK else msgspec.json.decode
    return int(unpack(bytes(message.data))["n"])


def test_resuming_is_exact_or_says_that_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_ENTRIES", 3)
    write = TapeFile.write

    def or_full(file: TapeFile, batch: Batch) -> None:
        if Disk.full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        write(file, batch)

    monkeypatch.setattr(TapeFile, "write", or_full)

    class Machine(Resume):
        def __init__(self) -> None:
            super().__init__(Path(tempfile.mkdtemp(dir=tmp_path)))

    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=30))


A, A2, B = TOPICS


def answer(client: Client) -> tuple[Subscribed, list[int]]:
    """The answer to a `subscribe`, and the positions of what follows."""
    client.catch_up()
    told, *others = [each for each in client.messages() if isinstance(each, Subscribed | Data)]
    assert isinstance(told, Subscribed)
    return told, [each.seq for each in others if isinstance(each, Data)]


@pytest.mark.parametrize("format", [Format.JSON, Format.MSGPACK])
def test_a_slow_channel_is_recovered_though_the_position_is_long_before_the_tail(format: Format) -> None:
    fan = Fan(max_entries=4)
    fan.publish(B, A, A2, A, A, A, B, A, B)
    client = fan.connect(format)
    client.subscribe("a", "b", since=Position("k3v", 1))
    told, seqs = answer(client)
    assert told.recovered == {"a": False, "b": True}
    assert told.missed == {"a": 4}  # 2, 4, 5 and 6: the newest of each topic follows
    assert told.reason == "seq 1 is before this tape's tail: messages from 6 on are kept"
    assert seqs == [3, 7, 8, 9]


def test_whoever_could_not_resume_is_in_the_ledger() -> None:
    fan = Fan(max_entries=4)
    fan.publish(B, A, A2, A, A, A, B, A, B)
    for epoch, seq in (("k3v", 1), ("k3v", 1), ("other", 1), ("k3v", 9)):
        fan.connect().subscribe("a", "b", since=Position(epoch, seq))
    [gap] = [gap for gap in fan.ledger.gaps(START_MS) if gap.cause == "resync"]
    assert (gap.count, gap.messages, gap.channel, gap.start_ms) == (3, 8, "", START_MS)


def test_a_channel_of_which_nothing_came_is_recovered_from_any_position() -> None:
    fan = Fan(max_entries=2)
    fan.publish(B, A, A, A, A)
    client = fan.connect()
    client.subscribe("b", since=Position("k3v", 1))
    told, seqs = answer(client)
    assert (told.recovered, told.reason, seqs) == ({"b": True}, msgspec.UNSET, [])


def test_the_only_message_since_follows_though_it_has_left_the_ring() -> None:
    fan = Fan(max_entries=2)
    fan.publish(B, A, B, A, A, A)
    client = fan.connect()
    client.subscribe("b", since=Position("k3v", 1))
    told, seqs = answer(client)
    assert (told.recovered, seqs) == ({"b": True}, [3])


async def test_at_an_interval_the_newest_of_what_was_missed_follows() -> None:
    fan = Fan(max_entries=3)
    fan.publish(B, A, A2, A, A, A, B)
    client = fan.connect()
    client.subscribe("a", "b", since=Position("k3v", 1), interval_ms=1000)
    told, seqs = answer(client)
    assert (told.recovered, seqs) == ({"a": False, "b": True}, [3, 6, 7])


def test_who_was_overtaken_is_told_so_before_it_resumes_something_else_and_loses_none_of_that() -> None:
    fan = Fan(max_entries=4)
    client = fan.connect()
    client.subscribe("a")
    client.messages()
    client.sink.room = 0
    fan.publish(A, A, A, A, A, B, B)  # 1 to 3 have left the tape, and the client had none of them
    client.subscribe("b", since=Position("k3v", 5))
    client.catch_up()
    messages = client.messages()
    kinds = [type(each).__name__ for each in messages]
    assert kinds.count("Lagged") == 1
    assert kinds.index("Lagged") < kinds.index("Subscribed")
    [told] = [each for each in messages if isinstance(each, Subscribed)]
    assert told.recovered == {"b": True}
    assert [each.seq for each in messages[kinds.index("Subscribed") :] if isinstance(each, Data)] == [6, 7]


def broken_fan() -> Fan:
    """1 to 3 were stored; 4 and some more were sent, and nobody knows what; 11 and 12 came after the restart."""
    fan = Fan()
    fan.publish(A, B, A)
    fan.tape.break_at(10)
    fan.publish(A, B)
    return fan


@pytest.mark.parametrize("after", [1, 3])
def test_who_had_not_come_to_the_break_gets_all_that_is_stored_and_is_told_that_it_may_not_be_all(after: int) -> None:
    client = broken_fan().connect()
    client.subscribe("a", "b", since=Position("k3v", after))
    told, seqs = answer(client)
    assert told.recovered == {"a": False, "b": False}
    assert told.missed is msgspec.UNSET  # nobody knows
    assert f"between seq {after} and 10" in str(told.reason)
    assert seqs == [seq for seq in (1, 2, 3, 11, 12) if seq > after]


@pytest.mark.parametrize("after", [4, 9])
def test_who_is_inside_the_break_is_told_so(after: int) -> None:
    client = broken_fan().connect()
    client.subscribe("a", "b", since=Position("k3v", after))
    told, seqs = answer(client)
    assert told.recovered == {"a": False, "b": False}
    assert f"seq {after} lies in what was sent but not stored" in str(told.reason)
    assert seqs == [11, 12]


def test_who_came_after_the_break_resumes_as_ever() -> None:
    client = broken_fan().connect()
    client.subscribe("a", "b", since=Position("k3v", 10))
    told, seqs = answer(client)
    assert (told.recovered, seqs) == ({"a": True, "b": True}, [11, 12])
    assert isinstance(told.reason, msgspec.UnsetType)


def test_a_client_that_is_behind_walks_over_a_break() -> None:
    fan = Fan(tape=Tape(100, 10**6, epoch="k3v"))
    fan.publish(A)
    fan.tape.break_at(10**6)
    client = fan.connect()
    client.subscribe("a", since=Position("k3v", 0))
    assert answer(client)[1] == [1]
    assert client.subscriber.cursor is None  # it has caught up, though there is nothing behind the break yet
    fan.publish(A)
    assert client.seqs() == [10**6 + 1]


def test_whoever_resumes_is_not_sent_again_what_it_had_of_a_channel_that_was_removed() -> None:
    fan = Fan()
    client = fan.connect()
    client.subscribe("a")
    fan.publish(A, B, A, B)
    fan.sequencer.adopt(Catalogue([CATALOGUE["b"]]))
    assert [type(each) for each in client.messages()][-3:] == [PriceUpdate, PriceUpdate, Status]
    client.subscribe("b", since=Position("k3v", 0))
    client.catch_up()
    assert [(type(each), getattr(each, "seq", None)) for each in client.messages()] == [
        (Subscribed, 5),
        (Status, None),
        (PriceUpdate, 2),
        (PriceUpdate, 4),
    ]
