"""The running connectors: one supervised task each, started and ended venue by venue.

A reload ends the connectors of the venues that it changes and starts new ones in their place. All other connectors run
on undisturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import msgspec
import trio

from connectors.backoff import Backoff
from connectors.base import FAILURE_CAUSES, Connector, Count, FailureCause, Seconds
from connectors.metric import Samples
from daemon.host.clock import WallClock
from daemon.ingest.inbox import Item
from daemon.ingest.outage import Outage
from daemon.ingest.supervisor import Intensity, Link, Rouser, supervise


class RestartSettings(msgspec.Struct, frozen=True):
    """`[supervisor]`: how a failed connector is restarted.

    Attributes:
        backoff_base_s: the most that the first wait after a failure takes.
        backoff_cap_s: the most that any wait takes, until there are too many failures.
        stable_after_s: a connector that has run for so long begins again with the first wait.
        breaker_after: failures in a row until it is left alone.
        breaker_s: for how long it is left alone then, at least.
        restarts: how many failures are too many, whether in a row or not.
        restarts_per_s: in what time.
    """

    backoff_base_s: Seconds = 1.0
    backoff_cap_s: Seconds = 60.0
    stable_after_s: Seconds = 60.0
    breaker_after: Count = 10
    breaker_s: Seconds = 120.0
    restarts: Count = 60
    restarts_per_s: Seconds = 300.0


class _Crew:
    """The connectors of one venue, and their cancel scope."""

    def __init__(self, connectors: tuple[Connector, ...]) -> None:
        self.connectors = connectors
        self.rousers = tuple(Rouser() for _ in connectors)
        self.scope = trio.CancelScope()
        self.gone = trio.Event()


class Fleet:
    """All connectors, by venue.

    Attributes:
        outage: whether any exchange can be reached.
    """

    def __init__(self, inbox: trio.MemorySendChannel[Item], clock: WallClock) -> None:
        """`inbox` leads to the sequencer; it is closed when `run` ends."""
        self._inbox = inbox
        self._clock = clock
        self._crews: dict[str, _Crew] = {}
        self._failures: dict[str, Counter[FailureCause]] = {}
        self._all = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self.outage = Outage(lambda: len(self._crews))

    @property
    def connectors(self) -> Sequence[Connector]:
        """The running connectors, venue by venue."""
        return tuple(connector for crew in self._crews.values() for connector in crew.connectors)

    def of(self, venue: str) -> Sequence[Connector]:
        """The running connectors of that venue."""
        crew = self._crews.get(venue)
        return () if crew is None else crew.connectors

    def failures(self, name: str) -> Counter[FailureCause]:
        """How often the connector of that name has failed since the start, by cause. A reload does not reset it."""
        return self._failures.setdefault(name, Counter())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the connectors that are started, until `stop` or cancelled. Their supervisors handle their failures."""
        with self._all, self._inbox:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()

    def start(self, venue: str, connectors: Iterable[Connector], settings: RestartSettings, *, why: str = "") -> None:
        """Start a venue's connectors; none of them may run yet. Clients are told `why` first.

        Raises:
            RuntimeError: `run` has not begun, or the venue's connectors run already.
        """
        if self._nursery is None or venue in self._crews:
            raise RuntimeError(f"the connectors of {venue} cannot be started now")
        crew = _Crew(tuple(connectors))
        if crew.connectors:
            self._crews[venue] = crew
            self._nursery.start_soon(self._serve, venue, crew, settings, why, name=venue)

    async def end(self, venue: str) -> None:
        """End a venue's connectors, if there are any; returns when they have released everything."""
        crew = self._crews.pop(venue, None)
        if crew is not None:
            crew.scope.cancel(reason="the configuration was read again")
            await crew.gone.wait()
            self.outage.forget(venue)

    def anew(self, why: str) -> None:
        """Have every connector begin anew, though none has failed; clients are told `why`."""
        for crew in self._crews.values():
            for rouser in crew.rousers:
                rouser.rouse(why)

    def stop(self) -> None:
        """Begin to end all of them; nothing can be started afterwards."""
        self._all.cancel(reason="the daemon is stopping")

    async def _serve(self, venue: str, crew: _Crew, settings: RestartSettings, why: str) -> None:
        intensity = Intensity(settings.restarts, settings.restarts_per_s)
        try:
            with crew.scope:
                async with trio.open_nursery() as nursery:
                    for connector, rouser in zip(crew.connectors, crew.rousers, strict=True):
                        backoff = Backoff(
                            settings.backoff_base_s,
                            settings.backoff_cap_s,
                            settings.stable_after_s,
                            settings.breaker_after,
                            settings.breaker_s,
                        )
                        link = Link(self._inbox, self._clock, self.outage)
                        start = partial(
                            supervise,
                            failures=self.failures(connector.name),
                            rouser=rouser,
                            tell=partial(self.outage.failed, venue),
                        )
                        nursery.start_soon(start, connector, link, backoff, intensity, why, name=connector.name)
        finally:
            crew.gone.set()

    def measure(self, samples: Samples) -> None:
        """Add how often connectors failed, and what each of them has counted."""
        failures = samples.counter(
            "tickerd_connector_failures", "How often a connector had to begin anew.", "connector", "cause"
        )
        for connector in self.connectors:
            counted = self.failures(connector.name)
            for cause in FAILURE_CAUSES:
                failures.add_metric([connector.name, cause], counted[cause])
            connector.measure(samples)
        inbox = self._inbox.statistics()
        waiting = "Sends of connectors that wait for the hub."
        samples.value("tickerd_inbox_batches", waiting, inbox.current_buffer_used)
        samples.value("tickerd_inbox_batches_max", "How many may wait.", inbox.max_buffer_size)

    def unreadable(self) -> dict[str, int]:
        """How many of the venue's frames could not be read, by connector."""
        return {connector.name: connector.unreadable for connector in self.connectors}
