"""`tickerd check --online`: the venues' own lists of instruments, asked about those that are configured."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from connectors.base import ConnectorError
from connectors.poll.listing import InstrumentCheck
from daemon.host.clock import WallClock


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
