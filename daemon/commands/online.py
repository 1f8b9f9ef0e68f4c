"""`tickerd check --online`: what can be asked before the daemon runs.

The venues' own lists of instruments are asked about those that are configured; and in a cluster the engine, who it is
and what it has of the tape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import trio

from connectors.base import ConnectorError
from connectors.poll.listing import InstrumentCheck
from daemon.host.clock import WallClock
from daemon.publish.cluster.address import parse
from daemon.publish.cluster.engine import Engine
from daemon.publish.cluster.reports import node_of
from daemon.publish.cluster.settings import Cluster, Keys
from daemon.publish.cluster.trouble import EngineError

_ENGINE_S: Final = 5.0
"""How long the engine may take, connecting included."""


async def ask(checks: Mapping[str, InstrumentCheck | None]) -> tuple[list[str], list[str]]:
    """Ask all venues at once.

    Args:
        checks: by a venue's title what asks its list; None where it has none that can be asked.

    Returns:
        A line for each instrument of a channel that is wrong, and a sentence for each venue that could not be asked.
    """
    wrong: dict[str, list[str]] = {title: [] for title in checks}
    warnings: dict[str, str] = {}

    async def one(title: str, check: InstrumentCheck | None) -> None:
        if check is None:
            warnings[title] = f"{title} has no list that can be asked for: its instruments were not checked"
            return
        try:
            check.wrong = await check.look(WallClock().now_ms)
        except ConnectorError as error:
            warnings[title] = f"{title}'s instruments were not checked: {error}"
        wrong[title] = [f"channels.{channel}: {name}: {found.reason}" for channel, name, found in check.named()]

    async with trio.open_nursery() as nursery:
        for title, check in checks.items():
            nursery.start_soon(one, title, check)
    lines = [line for of_it in wrong.values() for line in of_it]
    return lines, [warnings[title] for title in checks if title in warnings]


async def ask_engine(settings: Cluster) -> str:
    """Ask the engine of a cluster. Returns what it is and has, or why it could not be asked: a sentence."""
    address = parse(settings.url)
    link = Engine(address, Keys(settings.name), password=settings.password, ca=settings.ca)
    told = f"the engine at {address.words} does not answer"
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        with trio.move_on_after(_ENGINE_S):
            while True:
                try:
                    version = await link.identify()
                    overview = await link.report("", b"")
                except EngineError as error:
                    told = f"the engine at {address.words} {error}"
                    if error.cause in ("password", "permission", "tls"):
                        break
                    await trio.sleep(0.2)
                    continue
                told = f"the engine at {address.words} is {version}"
                if (found := re.fullmatch(r"Redis (\d+)\..*", version)) and int(found[1]) < 7:
                    told = f"{told}, which is too old: Redis 7 or Valkey is needed"
                elif overview.last is None:
                    told = f"{told}; there is no tape of cluster {settings.name} yet"
                else:
                    leader = node_of(overview.leader) or "nobody"
                    told = f"{told}; cluster {settings.name} has {overview.entries} entries of the tape, {leader} leads"
                break
        nursery.cancel_scope.cancel(reason="the engine was asked")
    return told
