"""Daemons in this process, what they say at `GET /metrics`, and how it is read."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from prometheus_client.parser import text_string_to_metric_families

from connectors.simulator.simulator import Simulator
from daemon.app import Daemon
from daemon.commands.demo import simulator_config
from daemon.config.load import parse
from daemon.host.clock import WallClock
from daemon.routes.metrics import Metrics
from daemon.tape.archive import Archive
from daemon.workers.figures import Figures
from daemon.workers.messages import Family
from daemon.workers.workers import Workers
from tests.daemon.serving import SOON_S

Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape(dict[Series, float]):
    """The value of each series."""

    @classmethod
    def of(cls, text: str) -> "Scrape":
        scrape = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = sample.name, frozenset(sample.labels.items())
                assert series not in scrape, f"twice: {series}"
                scrape[series] = sample.value
        return scrape

    def value(self, name: str, **labels: str) -> float:
        return self[name, frozenset(labels.items())]

    def names(self) -> set[str]:
        return {name for name, _ in self}

    def labels_of(self, name: str) -> Iterator[dict[str, str]]:
        return (dict(labels) for known, labels in self if known == name)


class Running:
    """A daemon that runs."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.daemon = daemon
        self.port = port

    async def ask(self, request: str) -> tuple[str, str]:
        """Head and body of the answer to a request of several lines; the connection is closed behind it."""
        with trio.fail_after(SOON_S):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                lines = [*request.splitlines(), "Host: localhost", "Connection: close", "", ""]
                await stream.send_all("\r\n".join(lines).encode())
                received = b""
                async for part in stream:
                    received += part
        head, _, body = received.decode().partition("\r\n\r\n")
        return head, body

    async def scrape(self) -> Scrape:
        head, body = await self.ask("GET /metrics HTTP/1.1")
        assert head.startswith("HTTP/1.1 200 "), head
        return Scrape.of(body)


@asynccontextmanager
async def running(text: str = "", archive: Archive | None = None) -> AsyncIterator[Running]:
    """A daemon with this configuration. Without venues in it, those that are asked do not answer."""
    away = 'base_url = "http://127.0.0.1:1"\n'
    if "[connectors.okx]" not in text:
        text += (
            f'\n[connectors.okx]\nurl = "ws://127.0.0.1:1"\n[connectors.binance]\n{away}[connectors.coingecko]\n{away}'
        )
    daemon = Daemon(parse(text, {}, "a test"), archive)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as root:
        await daemon.start(root, listeners)
        yield Running(daemon, listeners[0].socket.getsockname()[1])
        root.cancel_scope.cancel(reason="the test is over")


async def full_scrape(folder: Path) -> Scrape:
    """That of a daemon of which every part has something to say: simulated venues, a tape on disk, and a recording.

    With what the parent of workers says beside that.
    """
    venues = await trio.open_tcp_listeners(0, host="127.0.0.1")
    config = simulator_config("127.0.0.1", venues[0].socket.getsockname()[1])
    config += f'\n[record]\npath = "{folder}"\n'
    archive = Archive.open(folder / "tape", 1000, 1_000_000, WallClock())
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(Simulator(seed=1).run, venues)
            async with running(config, archive) as daemon:
                with trio.fail_after(4 * SOON_S):
                    while True:
                        scrape = await daemon.scrape()
                        if {"tickerd_poll_budget_used", "tickerd_channel_age_seconds"} <= scrape.names():
                            break
                        await trio.sleep(0.05)
            nursery.cancel_scope.cancel(reason="enough is known")
    finally:
        await archive.close()
    return Scrape(scrape | _of_workers())


def _of_workers() -> Scrape:
    """What a parent says of its workers, none of which is there yet; and what one of them uses."""
    workers = Daemon(parse("[server]\nworkers = 2\n", {}, "a test"), None).server
    assert isinstance(workers, Workers)
    used = Family("gauge", "process_start_time_seconds", "When.", [("process_start_time_seconds", {}, 1.0)])
    figures = Figures()
    figures.measured(1, [used])
    metrics = Metrics("1")
    metrics.include(workers.measure, figures.measure)
    return Scrape.of(metrics.scrape(openmetrics=False).body.decode())
