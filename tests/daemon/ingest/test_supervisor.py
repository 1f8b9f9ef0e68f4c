"""The supervisor: whatever a connector does, at whatever point, it runs again, and nothing else notices."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from connectors.backoff import Backoff
from connectors.base import ConnectorError, Context, Event, StateChange, VenueRefused, VenueUnavailable
from daemon.host.clock import WallClock
from daemon.ingest.inbox import Item
from daemon.ingest.supervisor import Intensity, Link, Rouser, supervise
from tests.daemon.ingest.uncounted import Uncounted

CALM = Intensity(restarts=1000, within_s=1.0)


def event(channel: str = "prices") -> Event:
    return Event(channel=channel, instrument="BTC/USDT", data=b"{}", received_ms=1)


class Connector(Uncounted):
    """Does in each run what its script says, and then works until it is cancelled."""

    def __init__(self, *script: Callable[[Context], Awaitable[None]], channels: Sequence[str] = ("prices",)) -> None:
        self.name = "scripted"
        self.channels = tuple(channels)
        self.runs_s: list[float] = []
        self._script = script

    async def run(self, context: Context) -> None:
        self.runs_s.append(trio.current_time())
        if len(self.runs_s) <= len(self._script):
            await self._script[len(self.runs_s) - 1](context)
            return
        await context.publish([event(self.channels[0])])
        await trio.sleep_forever()


def raising(error: BaseException) -> Callable[[Context], Awaitable[None]]:
    """Before anything is awaited."""

    async def run(context: Context) -> None:
        raise error

    return run


def raising_late(error: BaseException) -> Callable[[Context], Awaitable[None]]:
    """After data has come."""

    async def run(context: Context) -> None:
        await context.publish([event()])
        await trio.sleep(1)
        raise error

    return run


class Supervised:
    """Connectors under supervision, and everything they have handed on."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.items: list[Item] = []
        self._nursery = nursery
        self._inbox, self._outbox = trio.open_memory_channel[Item](100)

    def start(
        self,
        connector: Connector,
        *,
        backoff: Backoff | None = None,
        intensity: Intensity = CALM,
        rouser: Rouser | None = None,
    ) -> None:
        link = Link(self._inbox, WallClock(lambda: 5_000_000))
        self._nursery.start_soon(supervise, connector, link, backoff or waits(), intensity, "", None, rouser)

    def seen(self, channel: str = "prices") -> list[str]:
        """Its states and, as `data`, its events, in order."""
        while True:
            try:
                self.items.append(self._outbox.receive_nowait())
            except trio.WouldBlock:
                break
        said: list[str] = []
        for item in self.items:
            if isinstance(item, StateChange):
                said += [item.state] if item.channel == channel else []
            elif isinstance(item, Sequence):
                said += ["data" for each in item if each.channel == channel]
        return said

    def changes(self, state: str) -> list[StateChange]:
        self.seen()
        return [item for item in self.items if isinstance(item, StateChange) and item.state == state]


def waits(*, breaker_after: int = 100, base_s: float = 1.0, stable_after_s: float = 60.0) -> Backoff:
    """Waits of exactly the limits: 1, 2, 4 s ..., and 100 s once the breaker is open."""
    return Backoff(base_s, 60.0, stable_after_s, breaker_after, 100.0, random=lambda: 1.0)


@asynccontextmanager
async def supervision() -> AsyncIterator[Supervised]:
    async with trio.open_nursery() as nursery:
        yield Supervised(nursery)
        nursery.cancel_scope.cancel(reason="the test is over")


class Unheard(BaseException):
    """As asyncio.CancelledError is, for one: no Exception."""


class Unreadable(ConnectorError):
    """It forgot to call the constructor of its base, and cannot be printed."""

    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        raise RuntimeError("no words")


FAILURES = [
    VenueUnavailable("503"),
    VenueRefused("451"),
    ValueError("a bug"),
    KeyError("import"),
    SystemExit(3),
    GeneratorExit(),
    Unheard(),
    Unreadable(),
    StopAsyncIteration(),
    ExceptionGroup("two", [ValueError("a bug"), VenueUnavailable("503")]),
    BaseExceptionGroup("deep", [ExceptionGroup("", [VenueUnavailable("503")]), SystemExit(1)]),
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("when", [raising, raising_late])
async def test_whatever_a_connector_raises_it_runs_again_and_its_sibling_notices_nothing(
    when: Callable[[BaseException], Callable[[Context], Awaitable[None]]],
    failure: BaseException,
    autojump_clock: trio.testing.MockClock,
) -> None:
    failing, sibling = Connector(when(failure)), Connector(channels=["other"])
    async with supervision() as supervised:
        supervised.start(failing)
        supervised.start(sibling)
        await trio.sleep(300)
        assert len(failing.runs_s) == 2
        assert len(sibling.runs_s) == 1
        assert supervised.seen()[-3:] == ["connecting", "live", "data"]
        assert supervised.seen("other") == ["connecting", "live", "data"]


async def test_a_connector_that_returns_is_run_again(autojump_clock: trio.testing.MockClock) -> None:
    async def nothing(context: Context) -> None:
        return

    connector = Connector(nothing, nothing)
    async with supervision() as supervised:
        supervised.start(connector)
        await trio.sleep(30)
        assert connector.runs_s == [0.0, 1.0, 3.0]
        assert [each.reason for each in supervised.changes("reconnecting")] == [
            "connector scripted ended without a reason"
        ] * 2


async def test_states_come_in_order_and_live_is_data_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    async def acknowledged(context: Context) -> None:
        await trio.sleep(5)  # connected and subscribed, and no data
        raise VenueUnavailable("silence")

    async def two_batches(context: Context) -> None:
        await context.publish([event(), event()])
        await context.publish([event()])
        raise VenueUnavailable("503", retry_after_s=7)

    async def stale_and_back(context: Context) -> None:
        await context.publish([])
        await context.report(StateChange("prices", "stale", "no frame for 30 s"))
        await context.publish([event()])
        await trio.sleep_forever()

    async with supervision() as supervised:
        supervised.start(Connector(acknowledged, two_batches, stale_and_back))
        await trio.sleep(60)
        # fmt: off
        assert supervised.seen() == [
            "connecting", "reconnecting",
            "connecting", "live", "data", "data", "data", "reconnecting",
            "connecting", "stale", "live", "data",
        ]
        # fmt: on
        assert [(each.reason, each.retry_in_s) for each in supervised.changes("reconnecting")] == [
            ("silence", 1.0),
            ("503", 7.0),
        ]


async def test_every_channel_of_a_connector_is_told_and_only_the_one_with_data_is_live(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with supervision() as supervised:
        supervised.start(Connector(raising(VenueUnavailable("503")), channels=["prices", "book"]))
        await trio.sleep(60)
        assert supervised.seen("prices") == ["connecting", "reconnecting", "connecting", "live", "data"]
        assert supervised.seen("book") == ["connecting", "reconnecting", "connecting"]


async def test_an_open_breaker_is_down_and_waits_long(autojump_clock: trio.testing.MockClock) -> None:
    connector = Connector(*[raising(VenueUnavailable("503"))] * 4)
    async with supervision() as supervised:
        supervised.start(connector, backoff=waits(breaker_after=3))
        await trio.sleep(1000)
        # fmt: off
        assert supervised.seen() == [
            "connecting", "reconnecting", "connecting", "reconnecting", "connecting", "down", "connecting", "down",
            "connecting", "live", "data",
        ]
        # fmt: on
        assert connector.runs_s == [0.0, 1.0, 3.0, 103.0, 203.0]
        assert [each.retry_in_s for each in supervised.changes("down")] == [100.0, 100.0]


async def test_a_refusal_is_down_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with supervision() as supervised:
        supervised.start(Connector(raising(VenueRefused("region"))))
        await trio.sleep(50)
        assert supervised.seen() == ["connecting", "down"]


async def test_too_many_restarts_in_a_short_time_are_hopeless(autojump_clock: trio.testing.MockClock) -> None:
    """Each attempt holds for long enough to end the row of failures; only the count of restarts gives it away."""

    async def holds(context: Context) -> None:
        await trio.sleep(2)
        raise VenueUnavailable("gone")

    connector = Connector(*[holds] * 5)
    async with supervision() as supervised:
        intensity = Intensity(restarts=3, within_s=60.0)
        supervised.start(connector, backoff=waits(stable_after_s=1.0), intensity=intensity)
        await trio.sleep(12)
        assert supervised.seen() == ["connecting", "reconnecting"] * 3 + ["connecting", "down"]
        assert connector.runs_s == [0.0, 3.0, 6.0, 9.0]


async def test_as_many_restarts_over_a_long_time_are_not(autojump_clock: trio.testing.MockClock) -> None:
    async def holds(context: Context) -> None:
        await trio.sleep(20)
        raise VenueUnavailable("gone")

    async with supervision() as supervised:
        intensity = Intensity(restarts=3, within_s=60.0)
        supervised.start(Connector(*[holds] * 9), backoff=waits(stable_after_s=1.0), intensity=intensity)
        await trio.sleep(180)
        assert "down" not in supervised.seen()
        assert supervised.seen().count("reconnecting") == 8


class Mute(Connector):
    """Everything that can be asked of it raises, but for `run`."""

    def __getattribute__(self, name: str) -> object:
        if name in ("name", "channels"):
            raise ValueError(f"no {name}")
        return super().__getattribute__(name)

    async def run(self, context: Context) -> None:
        self.runs_s.append(trio.current_time())
        raise ValueError("nor can it run")


async def test_a_connector_whose_properties_raise_harms_nobody(autojump_clock: trio.testing.MockClock) -> None:
    mute, sibling = Mute(), Connector(channels=["other"])
    async with supervision() as supervised:
        supervised.start(mute)
        supervised.start(sibling)
        await trio.sleep(10)
        assert mute.runs_s == [0.0, 1.0, 3.0, 7.0]
        assert supervised.seen("other") == ["connecting", "live", "data"]


async def test_a_bug_is_logged_once_with_its_cause_and_clients_are_told_no_details(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(context: Context) -> None:
        try:
            raise KeyError("secret")
        except KeyError as cause:
            raise ValueError("in between") from cause

    async with supervision() as supervised:
        supervised.start(Connector(bug))
        await trio.sleep(10)
        [told] = supervised.changes("reconnecting")
        assert told.reason == "internal error in connector scripted"
    [failed] = [record for record in caplog.records if record.exc_info]
    assert failed.levelno == logging.ERROR
    assert failed.exc_info is not None
    assert isinstance(failed.exc_info[1], ValueError)
    assert isinstance(failed.exc_info[1].__cause__, KeyError)
    [again] = [record for record in caplog.records if not record.exc_info]
    assert "next attempt in 1.0 s" in again.getMessage()


async def test_a_venues_failure_is_one_line_without_a_traceback(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with supervision() as supervised:
        supervised.start(Connector(raising(ExceptionGroup("", [VenueUnavailable("503 from the venue")]))))
        await trio.sleep(10)
        [told] = supervised.changes("reconnecting")
        assert told.reason == "503 from the venue"
    assert [record.getMessage() for record in caplog.records] == ["scripted: 503 from the venue; next attempt in 1.0 s"]
    assert caplog.records[0].exc_info is None


async def test_cancellation_passes_through_at_every_point(autojump_clock: trio.testing.MockClock) -> None:
    async def fails(context: Context) -> None:
        raise VenueUnavailable("503")

    for connector in (Connector(), Connector(fails)):  # while it runs, and while its supervisor waits
        with trio.CancelScope() as scope:
            async with supervision() as supervised:
                supervised.start(connector)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert len(connector.runs_s) == 1


async def test_a_bug_while_it_is_cancelled_is_logged_and_does_not_hold_up_the_stop(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def untidy(context: Context) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while tidying up")

    connector = Connector(untidy)
    with trio.CancelScope() as scope:
        async with supervision() as supervised:
            supervised.start(connector)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert len(connector.runs_s) == 1
    assert [record.getMessage() for record in caplog.records] == ["scripted failed"]


async def test_a_cancelled_that_outlived_its_scope_is_a_bug_like_any_other(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Raised again, it would end all connectors, and with them the daemon."""
    kept: list[BaseException] = []

    async def keeps(context: Context) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                kept.append(cancelled)
                raise
        raise VenueUnavailable("once")

    async def raises_it_again(context: Context) -> None:
        raise kept[0]

    async def raises_it_in_a_group(context: Context) -> None:
        raise BaseExceptionGroup("", [kept[0], ValueError("a bug")])

    connector = Connector(keeps, raises_it_again, raises_it_in_a_group)
    async with supervision() as supervised:
        supervised.start(connector)
        await trio.sleep(60)
        assert len(connector.runs_s) == 4
        assert supervised.seen()[-2:] == ["live", "data"]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["scripted failed"] * 2


async def test_ctrl_c_is_not_for_the_supervisor() -> None:
    with pytest.RaisesGroup(KeyboardInterrupt):
        async with supervision() as supervised:
            supervised.start(Connector(raising(KeyboardInterrupt())))
            await trio.sleep_forever()


async def test_a_full_inbox_holds_the_connector_and_a_cancelled_publish_publishes_nothing() -> None:
    send, receive = trio.open_memory_channel[Item](0)
    link = Link(send, WallClock(lambda: 5_000_000))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.publish, [event()])
            await trio.testing.wait_all_tasks_blocked()
            assert (await receive.receive()) == StateChange("prices", "live")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    with pytest.raises(trio.WouldBlock):
        receive.receive_nowait()
    assert link.now_ms() == 5


async def test_one_that_is_roused_begins_anew_at_once_and_has_not_failed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rouser = Rouser()
    connector = Connector()
    async with supervision() as supervised:
        supervised.start(connector, rouser=rouser, backoff=waits(breaker_after=1))
        await trio.sleep(10)
        rouser.rouse("the daemon itself did not run for 45.0 s")
        await trio.sleep(5)
        assert connector.runs_s == [pytest.approx(connector.runs_s[0]), pytest.approx(connector.runs_s[0] + 10)]
        assert supervised.seen() == ["connecting", "live", "data", "connecting", "live", "data"]
        told = [item for item in supervised.items if isinstance(item, StateChange)]
        assert [change.reason for change in told] == ["", "", "the daemon itself did not run for 45.0 s", ""]


async def test_one_that_waits_for_its_next_attempt_is_not_hurried(autojump_clock: trio.testing.MockClock) -> None:
    rouser = Rouser()
    asked = VenueUnavailable("asked for a pause", retry_after_s=60.0)
    connector = Connector(raising(asked))
    async with supervision() as supervised:
        supervised.start(connector, rouser=rouser)
        await trio.sleep(10)
        rouser.rouse("a pause")
        await trio.sleep(40)
        assert len(connector.runs_s) == 1
        await trio.sleep(20)
        assert len(connector.runs_s) == 2
