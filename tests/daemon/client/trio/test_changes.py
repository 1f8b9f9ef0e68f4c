"""The Python client against the real sessions and hub: however it is cut off, no gap is made up."""

from itertools import product
from typing import Any

import msgspec
import pytest
import trio

from connectors.base import Event
from daemon.client import Data, Gap, Lost, Received, connect
from tests.daemon.serving import CHANNELS, SOON_S, Gateway, open_gateway

BTC, ETH = "BTC/USDT", "ETH/USDT"
BOTH = (msgspec.structs.replace(CHANNELS[0], instruments=(BTC, ETH)), CHANNELS[1])

OPTIONS = [
    {"snapshot": snapshot, "interval_ms": interval_ms, "instruments": instruments}
    for snapshot, interval_ms, instruments in product((True, False), (None, 50), (None, (ETH,)))
]


class Story:
    """One subscription, what it yielded, and the numbers of what was published while it was there."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.received: list[Received] = []
        self.heard = trio.Event()

    def publish(self) -> None:
        for instrument in (BTC, ETH, BTC, BTC, ETH, BTC):
            self.gateway.publish(Event("bitcoinprice", instrument, b"{}", 1, "1.5"))

    async def cut(self) -> None:
        for session in self.gateway.sessions:
            await session.drop()

    def seqs(self, instrument: str) -> list[int]:
        return [each.seq for each in self.received if isinstance(each, Data) and each.instrument == instrument]

    async def until_newest(self, instruments: tuple[str, ...]) -> None:
        wanted = {name: self.gateway.tape.last_seq(("bitcoinprice", name)) for name in instruments}
        with trio.fail_after(2 * SOON_S):
            while any(self.seqs(name)[-1:] != [seq] for name, seq in wanted.items()):
                await self.heard.wait()

    async def listen(self, options: dict[str, Any]) -> None:
        async with (
            connect(f"ws://127.0.0.1:{self.gateway.port}/ws") as client,
            client.subscribe("bitcoinprice", **options) as subscription,
        ):
            async for received in subscription:
                self.received.append(received)
                self.heard.set()
                self.heard = trio.Event()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
async def test_cuts_and_what_an_interval_leaves_out_are_no_gaps(options: dict[str, Any]) -> None:
    instruments = options["instruments"] or (BTC, ETH)
    async with open_gateway(channels=BOTH) as gateway, trio.open_nursery() as nursery:
        story = Story(gateway)
        story.publish()
        begun = gateway.tape.head
        nursery.start_soon(story.listen, options)
        await gateway.wait(
            lambda: any(session.subscriber.takes(("bitcoinprice", instruments[0])) for session in gateway.sessions)
        )
        for cut in (False, True, True):
            story.publish()
            if cut:
                await story.cut()
                story.publish()
            await story.until_newest(instruments)
        assert [each for each in story.received if isinstance(each, Gap | Lost)] == []
        for instrument in instruments:
            seqs = story.seqs(instrument)
            assert seqs == sorted(set(seqs)), "in order, each once"
            if options["interval_ms"] is None:
                topic = ("bitcoinprice", instrument)
                due = [entry.seq for entry in gateway.tape.between(begun, gateway.tape.head) if entry.topic == topic]
                assert [seq for seq in seqs if seq > begun] == due, "all of them"
        assert BTC in instruments or story.seqs(BTC) == []
        nursery.cancel_scope.cancel(reason="the test is over")
