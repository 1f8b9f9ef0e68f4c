"""`tickerd ping`: the round trip to a daemon, and the offset between the two clocks."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Final

import trio

from daemon.client import RoundTrip, connect
from daemon.commands.terminal.peer import Peer, clean

_PING_EVERY_S: Final = 1.0


async def ping(peer: Peer, pings: int, say: Callable[[str], None]) -> None:
    """Print round trip and clock offset of each ping, and a summary, also when stopped before the last.

    Raises:
        ClientError: see `connect` and `Client.ping`.
    """
    found: list[RoundTrip] = []
    try:
        async with connect(peer.url, token=peer.token) as client:
            server = client.welcome.server
            say(f"{clean(peer.url)} is {clean(server.name)} {clean(server.version)}")
            for number in range(pings):
                if number:
                    await trio.sleep(_PING_EVERY_S)
                found.append(await client.ping())
                say(f"round trip {found[-1].round_trip_s * 1e3:.2f} ms, {_offset(found[-1])}")
    finally:
        if found:
            trips_ms = [each.round_trip_s * 1e3 for each in found]
            least, most = min(trips_ms), max(trips_ms)
            say(
                f"{len(found)} answered; round trip: least {least:.2f}, median {statistics.median(trips_ms):.2f}, "
                f"most {most:.2f} ms; by the quickest {_offset(min(found, key=lambda each: each.round_trip_s))}"
            )


def _offset(found: RoundTrip) -> str:
    side = "ahead" if found.clock_offset_s >= 0 else "behind"
    return f"its clock is {abs(found.clock_offset_s) * 1e3:.1f} ms {side}"
