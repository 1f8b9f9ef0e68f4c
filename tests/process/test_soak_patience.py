"""The soak's clients are patient with the kernel, for as long as its timers run, and not with the daemon."""

from typing import cast

import pytest
import trio
import trio.testing

from tests.soak.client import KERNEL_S, PATIENCE_S, SETTLE_S, Client, Tally
from tests.soak.listener import Listener
from tests.soak.record import Session
from tests.soak.reference import Reference
from tests.soak.way import Held, Way, parsed

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
ROW = "0: 0100007F:1F40 0100007F:{client:04X} 01 {waiting:08X}:00000000 {timer}:{due:08X} 00000000 0 0 4711 2 0 20"
"""As in `proc_net_tcp.rst` of the kernel's documentation."""

TO_WAIT_FOR = Held(16_384, 5.6)


class FakeWay:
    """A kernel that holds something until a moment."""

    port = 8000

    def __init__(self, held: Held | None, until_s: float = 0.0) -> None:
        self._held = held
        self._until_s = until_s

    def held(self, client_port: int) -> Held | None:
        return self._held if trio.current_time() < self._until_s else Held(0, None)

    async def evidence(self, client_port: int) -> str:
        return "all of it"

    async def opinion(self, client_port: int) -> str:
        return "what it thinks"


class FakeConnection:
    local_port = 5000

    def widen(self) -> None:
        pass


class FakeListener:
    """It hears something after so many seconds, is answered after so many, and nothing else."""

    def __init__(self, hears_after_s: float, interval_ms: int = 0, answered_after_s: float = 0.0) -> None:
        self.connection = FakeConnection()
        self.session = Session(1, 1, "json")
        self.taken = {"prices": interval_ms}
        self.newest = 3
        self.naughty = False
        self.heard_s = trio.current_time()
        self._hears_s = trio.current_time() + hears_after_s
        self._answered_s = trio.current_time() + answered_after_s

    def unanswered(self) -> tuple[str, ...]:
        return () if trio.current_time() >= self._answered_s else ("ping",)

    async def listen(self, for_s: float) -> None:
        await trio.sleep(for_s)
        if self.newest < 100 and trio.current_time() >= self._hears_s:
            self.newest, self.heard_s = 100, trio.current_time()


async def settled(way: FakeWay, listener: FakeListener) -> float:
    reference = Reference()
    reference.head = 10
    client = Client(1, 1, ("prices",), reference, Tally(), cast("Way", way))
    began_s = trio.current_time()
    await client._settle(cast("Listener", listener))
    assert listener.session.complete_to == 10
    return trio.current_time() - began_s


async def test_answers_are_waited_for_as_long_as_messages(autojump_clock: trio.testing.MockClock) -> None:
    """On a machine that has much to do they take some seconds when all clients come at once."""
    assert 8 <= await settled(FakeWay(None), FakeListener(SETTLE_S, answered_after_s=8.0)) < 9
    assert PATIENCE_S <= await settled(FakeWay(None), FakeListener(1.0, answered_after_s=90.0)) < PATIENCE_S + 6
    naughty = FakeListener(1.0, answered_after_s=90.0)
    naughty.naughty = True
    assert await settled(FakeWay(None), naughty) < SETTLE_S + 1


async def test_patience_with_the_daemon_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    """What comes later than that is found missing: the evidence of that moment is kept."""
    listener = FakeListener(30.0)
    assert PATIENCE_S <= await settled(FakeWay(None), listener) < PATIENCE_S + 2
    assert (listener.newest, listener.session.evidence) == (3, "all of it")


async def test_what_the_kernel_holds_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    listener = FakeListener(30.0)
    assert 30 <= await settled(FakeWay(TO_WAIT_FOR, 30.0), listener) < 32
    assert (listener.newest, listener.session.evidence) == (100, "what it thinks")


async def test_what_comes_at_intervals_has_time_until_it_is_due(autojump_clock: trio.testing.MockClock) -> None:
    assert 33 <= await settled(FakeWay(TO_WAIT_FOR, 30.0), FakeListener(30.0, interval_ms=2000)) < 35


async def test_what_has_just_come_through_is_still_read(autojump_clock: trio.testing.MockClock) -> None:
    listener = FakeListener(30.0)
    assert 30 <= await settled(FakeWay(TO_WAIT_FOR, 29.4), listener) < 32
    assert listener.newest == 100


@pytest.mark.parametrize("held", [None, Held(0, 3.0), Held(16_384, None)])
async def test_a_kernel_that_will_send_nothing_excuses_nobody(
    held: Held | None, autojump_clock: trio.testing.MockClock
) -> None:
    assert await settled(FakeWay(held, 1000.0), FakeListener(2000.0)) < PATIENCE_S + 2


async def test_patience_with_the_kernel_has_an_end_too(autojump_clock: trio.testing.MockClock) -> None:
    listener = FakeListener(2000.0)
    assert KERNEL_S <= await settled(FakeWay(TO_WAIT_FOR, 1000.0), listener) < KERNEL_S + SETTLE_S
    assert listener.session.evidence == "all of it"


def test_the_kernels_table_is_read() -> None:
    table = "\n".join(
        [
            HEAD,
            ROW.format(client=5001, waiting=7, timer="01", due=1),
            ROW.format(client=5000, waiting=16_384, timer="04", due=560),
            ROW.format(client=5002, waiting=0, timer="00", due=0),
            ROW.format(client=5003, waiting=9, timer="02", due=700),
        ]
    )
    assert parsed(table, 8000, 5000) == Held(16_384, 5.6)
    assert parsed(table, 8000, 5002) == Held(0, None)
    # A keepalive (02) brings no bytes.
    assert parsed(table, 8000, 5003) == Held(9, None)
    assert parsed(table, 8000, 5004) is None
    assert parsed(table, 5000, 8000) is None
