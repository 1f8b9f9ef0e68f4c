"""Counting who is here, by several processes: the same as one would count, and nothing left by one that dies."""

import hashlib
import ipaddress
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.front import shared_counts
from daemon.front.address_counts import AddressCounts, NoRoomError, Place
from daemon.front.shared_counts import CountsMemory, SharedCounts

PEERS = (
    *("192.0.2.1", "192.0.2.2", "198.51.100.7", "127.0.0.1", "::1"),
    *("2001:db8:2:3::1", "2001:db8:2:3:ffff::9", "2001:db8:2:4::1", "::2", "::ffff:192.0.2.1", "10.1.2.3"),
)
EXEMPT = (ipaddress.ip_network("10.0.0.0/8"),)


@contextmanager
def shared(processes: int = 3, most: int = 10) -> Iterator[tuple[CountsMemory, list[SharedCounts]]]:
    """The memory as one process has it; here it stands for all of them."""
    memory = CountsMemory.create(processes, most, tables=2)
    columns = [SharedCounts(memory, 1, process) for process in range(processes)]
    for column in columns:
        column.exempt = EXEMPT
    try:
        yield memory, columns
    finally:
        memory.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(0, 2), st.sampled_from(PEERS)),
        st.tuples(st.just("go"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("die"), st.integers(0, 2), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 12), st.integers(1, 4))
def test_several_processes_count_as_one_would(
    steps: list[tuple[str, int, str | int]], most: int, most_of_address: int
) -> None:
    one = AddressCounts(EXEMPT)
    with shared() as (_, columns):
        here: list[list[tuple[Place, Place]]] = [[], [], []]
        for what, process, which in steps:
            if what == "come":
                peer = str(which)
                try:
                    expected: Place | str = one.take(peer, most, most_of_address)
                except NoRoomError as none:
                    expected = none.of
                try:
                    got: Place | str = columns[process].take(peer, most, most_of_address)
                except NoRoomError as none:
                    got = none.of
                if isinstance(expected, Place):
                    assert isinstance(got, Place)
                    here[process].append((expected, got))
                else:
                    assert got == expected
            elif what == "go" and here[process]:
                for place in here[process].pop(int(which) % len(here[process])):
                    place.leave()
            elif what == "die":
                for expected_place, _ in here[process]:
                    expected_place.leave()
                here[process].clear()
                columns[0].clear(process)
            for column in columns:
                assert column.total == one.total
                assert [column.of(peer) for peer in PEERS] == [one.of(peer) for peer in PEERS]
            assert [column.here for column in columns] == [len(places) for places in here]
            assert [columns[0].of_process(number) for number in range(3)] == [len(places) for places in here]


def test_two_tables_of_one_memory_are_apart() -> None:
    with shared() as (memory, columns):
        other = SharedCounts(memory, 0, 0)
        with columns[0].counting("192.0.2.1"):
            assert (other.total, other.of("192.0.2.1")) == (0, 0)


def test_addresses_that_meet_at_one_row_are_told_apart_and_leave_no_row_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Same:
        def digest(self) -> bytes:
            return b"\xff" * 8  # the last row: the next one is the first

    monkeypatch.setattr(hashlib, "blake2b", lambda *_, **__: Same())
    with shared() as (memory, [one, other, _]):
        empty = bytes(memory.map)
        places = [one.take(f"192.0.2.{number}", 100, 100) for number in range(1, 9)]
        twice = other.take("192.0.2.3", 100, 100)
        assert [other.of(f"192.0.2.{number}") for number in range(1, 9)] == [1, 1, 2, 1, 1, 1, 1, 1]
        for place in (places[2], places[0], places[4]):
            place.leave()
        assert other.of("192.0.2.3") == 1, "a row in the midst of others stays as long as somebody is counted there"
        assert other.of("192.0.2.8") == 1, "who stands behind rows that are free is still found"
        new = one.take("198.51.100.1", 100, 100)
        assert (other.of("198.51.100.1"), other.of("192.0.2.1")) == (1, 0)
        for place in (*places, twice, new):
            place.leave()
        assert bytes(memory.map) == empty, "rows are left behind, and every search gets longer"


def test_a_full_table_counts_in_all_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_counts, "_LEAST_ROWS", 4)
    with shared(processes=1, most=1) as (_, [counts]):
        places = [counts.take(f"192.0.2.{number}", 100, 100) for number in range(20)]
        assert counts.total == 20
        for place in places:
            place.leave()
        assert counts.total == 0
        assert all(counts.of(f"192.0.2.{number}") == 0 for number in range(20))


CHILD = """
import sys
from daemon.front.shared_counts import CountsMemory, SharedCounts
fd, process, rounds = map(int, sys.argv[1:4])
memory = CountsMemory(fd, 3, 16384, tables=2)
counts = SharedCounts(memory, 1, process)
kept = [counts.take(f"192.0.2.{number}", 10**6, 10**6) for number in range(5)]
print("in", flush=True)
number = 0
while number < rounds or rounds < 0:
    counts.take(f"198.51.100.{number % 7}", 10**6, 10**6).leave()
    number += 1
print("done", flush=True)
sys.stdin.read()
"""


def child(memory: CountsMemory, process: int, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(memory.fd), str(process), str(rounds)],
        pass_fds=(memory.fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_count_at_the_same_time_lose_nothing_and_a_dead_one_leaves_nothing() -> None:
    with shared() as (memory, columns):
        assert memory.rows == 16384
        endless, counted = child(memory, 1, -1), child(memory, 2, 2000)
        with endless, counted:
            assert endless.stdout is not None
            assert counted.stdout is not None
            assert endless.stdout.readline() == "in\n"
            assert counted.stdout.readline() == "in\n"
            for _ in range(2000):
                columns[0].take("198.51.100.3", 10**6, 10**6).leave()
            assert counted.stdout.readline() == "done\n"
            endless.send_signal(signal.SIGKILL)
            endless.wait()
            columns[0].clear(1)
            assert [columns[0].of_process(process) for process in range(3)] == [0, 0, 5]
            assert [columns[0].of(f"192.0.2.{number}") for number in range(6)] == [1] * 5 + [0]
            assert [columns[0].of(f"198.51.100.{number}") for number in range(7)] == [0] * 7
            counted.kill()


def test_a_process_that_was_stopped_with_the_lock_holds_nobody_up_for_long() -> None:
    with shared() as (memory, [counts, *_]):
        script = (
            "import fcntl, sys, os; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX); print('locked', flush=True); "
            "sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", script, str(memory.fd)],
            pass_fds=(memory.fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            os.kill(holder.pid, signal.SIGSTOP)
            began_s = time.monotonic()
            with counts.counting("192.0.2.1"), counts.counting("192.0.2.2"):
                assert (counts.total, counts.of("192.0.2.1")) == (2, 1)
            assert time.monotonic() - began_s < 5.0
            holder.kill()
