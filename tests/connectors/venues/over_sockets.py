"""A venue's connectors against the simulated venue, over real sockets: what runs both, and what writes all down."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from connectors.base import Connector, ConnectorError, Event, StateChange, TopicNote
from connectors.push.feed import Feed
from connectors.simulator.simulator import Simulator


class Hub:
    """A context that writes everything down.

    Attributes:
        said: events and notes, in their order.
        failures: why a connector ended, each time.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.notes: list[TopicNote] = []
        self.said: list[Event | TopicNote] = []
        self.changes: list[StateChange] = []
        self.failures: list[str] = []
        self._more = trio.Event()

    async def publish(self, events: Sequence[Event]) -> None:
        await trio.lowlevel.checkpoint()
        self.events += events
        self.said += events
        self._more.set()
        self._more = trio.Event()

    async def report(self, change: StateChange) -> None:
        self.changes.append(change)

    async def note(self, notes: Sequence[TopicNote]) -> None:
        self.notes += notes
        self.said += notes

    def now_ms(self) -> int:
        return int(trio.current_time() * 1000) + 1_765_211_445_122

    def of(self, channel: str, instrument: str) -> list[Event]:
        """What was published of a topic."""
        return [event for event in self.events if (event.channel, event.instrument) == (channel, instrument)]

    async def until(self, enough: Callable[[], bool]) -> None:
        """Wait for it; asked after each publication."""
        while not enough():
            await self._more.wait()


@asynccontextmanager
async def connected(
    hub: Hub, build: Callable[[int], Sequence[Connector]], *, rate: float = 20
) -> AsyncIterator[tuple[Simulator, list[Feed]]]:
    """The simulator, and what `build` makes for its port; connectors begin anew when they fail, as supervised ones do.

    Yields the simulator, and of the connectors those that are pushed to.
    """
    simulator = Simulator(okx_rate=rate)

    async def again(connector: Connector) -> None:
        while True:
            with pytest.raises(ConnectorError) as failure:
                await connector.run(hub)
            hub.failures.append(str(failure.value))

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(simulator.run, listeners)
        connectors = build(listeners[0].socket.getsockname()[1])
        for connector in connectors:
            nursery.start_soon(again, connector)
        with trio.fail_after(30):
            yield simulator, [each for each in connectors if isinstance(each, Feed)]
        nursery.cancel_scope.cancel()
