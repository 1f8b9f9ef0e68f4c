"""`/client.js` against the real sessions and hub: whatever is changed, and whenever, it tells no gap that is none.

And it tells one that is one: a message that is lost on the way after the change.
"""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import trio

from connectors.base import Event
from protocol.channels import Channel
from tests.daemon.serving import CHANNELS, LIMITS, SOON_S, Gateway, open_gateway

HERE = Path(__file__).parent
CLIENT = Path(__file__).parents[3] / "daemon" / "routes" / "web" / "client.js"
BTC, ETH = "BTC/USDT", "ETH/USDT"
BOTH = (msgspec.structs.replace(CHANNELS[0], instruments=(BTC, ETH)), CHANNELS[1])

WISHES: dict[str, dict[str, Any] | None] = {
    "all": {},
    "interval": {"interval_ms": 50},
    "long interval": {"interval_ms": 60_000},
    "btc": {"instruments": [BTC]},
    "eth": {"instruments": [ETH]},
    "btc at an interval": {"instruments": [BTC], "interval_ms": 50},
    "nothing": None,
}
"""What of the channel is wanted; None: it is left."""

When = Literal["connected", "and cut at once", "while away", "after a cut"]


class Driven:
    """The client in its process, and what it said."""

    def __init__(self, process: trio.Process, gateway: Gateway) -> None:
        self._process = process
        self.gateway = gateway
        self._syncs = 0
        self._heard = trio.Event()
        self._number = 0
        self.said: list[dict[str, Any]] = []

    async def listen(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        async for chunk in self._process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            self.said += map(json.loads, lines)
            self._heard.set()
            self._heard = trio.Event()

    async def move(self, **move: Any) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(move).encode() + b"\n")

    async def until(self, what: str, condition: Any) -> None:
        with trio.move_on_after(2 * SOON_S):
            while not condition():
                await self._heard.wait()
            return
        raise AssertionError(f"{what}: {self.said}")

    async def sync(self) -> None:
        self._syncs += 1
        wanted = {"sync": self._syncs}
        await self.move(**wanted)
        await self.until("no pong", lambda: wanted in self.said)

    def publish(self) -> None:
        """Some of each instrument, the last of which is of BTC."""
        for instrument in (BTC, ETH, BTC, BTC, ETH, BTC):
            self._number += 1
            self.gateway.publish(Event("bitcoinprice", instrument, b'{"n":%d}' % self._number, 1, "1.5"))

    def seqs(self, instrument: str) -> list[int]:
        return [said["message"][1] for said in self.said if said.get("message", [""])[0] == instrument]

    @property
    def opened(self) -> int:
        return sum(said.get("state") == "open" for said in self.said)

    def gaps(self) -> list[Any]:
        return [said["event"] for said in self.said if said.get("event", {}).get("type") == "gap"]

    def has_newest(self, instrument: str) -> bool:
        seqs = self.seqs(instrument)
        return bool(seqs) and seqs[-1] == self.gateway.tape.last_seq(("bitcoinprice", instrument))


@asynccontextmanager
async def driven(channels: Sequence[Channel] = BOTH) -> AsyncIterator[Driven]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here; Debian and Ubuntu have it: apt-get install nodejs")
    limits = msgspec.structs.replace(LIMITS, commands_per_s=100_000.0, commands_burst=100_000)
    async with open_gateway(limits=limits, channels=channels) as gateway, trio.open_nursery() as nursery:
        command = [node, str(HERE / "client_driver.mjs"), str(CLIENT), str(gateway.port)]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            client = Driven(process, gateway)
            nursery.start_soon(client.listen)
            yield client
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        nursery.cancel_scope.cancel(reason="the test is over")


async def change(client: Driven, wish: dict[str, Any] | None, when: When) -> None:
    """Have it, with messages published before, during and after."""

    async def ask() -> None:
        if wish is None:
            await client.move(unsubscribe=["bitcoinprice"])
        else:
            await client.move(subscribe=[["bitcoinprice"], wish])

    opened = client.opened
    client.publish()
    match when:
        case "connected":
            await ask()
        case "and cut at once":
            await ask()
            await client.move(cut=False)
        case "while away":
            await client.move(cut=True)
            client.publish()
            await ask()
            client.publish()
            await client.move(online=True)
        case "after a cut":
            await client.move(cut=False)
            await ask()
    client.publish()
    if when != "connected":
        await client.until("not connected again", lambda: client.opened > opened)
    await client.sync()


def _takes(wish: dict[str, Any] | None, instrument: str) -> bool:
    """Whether every message of the instrument is to come."""
    return wish is not None and "interval_ms" not in wish and instrument in wish.get("instruments", [BTC, ETH])


@pytest.mark.parametrize("when", ["connected", "and cut at once", "while away", "after a cut"])
async def test_no_change_is_a_gap_and_every_gap_is_told(when: When) -> None:
    async with driven() as client:
        for one, other in permutations(WISHES, 2):
            story = f"from {one} to {other}, {when}"
            client.said.clear()
            wishes = WISHES[one], WISHES[other]
            await client.move(connect={"channels": ["ethprice"]})
            await client.until(story, lambda: client.opened == 1)
            if wishes[0] is not None:
                await client.move(subscribe=[["bitcoinprice"], wishes[0]])
            await client.sync()
            await change(client, wishes[1], when)
            for instrument in (BTC, ETH):
                if _takes(wishes[1], instrument):
                    await client.until(story, lambda instrument=instrument: client.has_newest(instrument))
                seqs = client.seqs(instrument)
                assert len(set(seqs)) == len(seqs) or wishes[0] is None or wishes[1] is None, story
            assert client.gaps() == [], story
            if "long interval" in other:
                continue
            await client.move(drop=BTC)
            await client.sync()
            client.publish()
            client.publish()
            if _takes(wishes[1], BTC):
                await client.until(story, lambda: client.has_newest(BTC))
                [lost] = [said["dropped"] for said in client.said if "dropped" in said]
                [gap] = client.gaps()
                assert gap["after"] < lost < gap["before"], story
            else:
                await client.sync()
                assert client.gaps() == [], story
            assert lost_twice(client) == [], story


def lost_twice(client: Driven) -> list[Any]:
    """What was told twice."""
    told = [(gap["instrument"], gap["before"]) for gap in client.gaps()]
    return [each for each in set(told) if told.count(each) > 1]
