"""One channel floods the tape, over real sockets: nobody loses anything of the quiet one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from connectors.base import Event
from tests.daemon.serving import Gateway, HandMade, open_gateway

BUSY, QUIET = ("bitcoinprice", "BTC/USDT"), ("ethprice", "ETH/USDT")
FLOOD, EVERY = 100_000, 1000
"""So many small messages, and one of the quiet channel in so many of them: the tape holds a tenth of it all."""


def small(channel: str, instrument: str, number: int) -> Event:
    return Event(channel, instrument, data=b"%d" % number, received_ms=number, price=str(number))


async def flood(gateway: Gateway) -> int:
    """What a venue sends that has gone mad, and what comes of the other one meanwhile. Returns the last position."""
    for number in range(0, FLOOD, EVERY):
        gateway.sequencer.publish([[small(*BUSY, number + each) for each in range(EVERY)]])
        gateway.publish(small(*QUIET, number))
        await trio.lowlevel.checkpoint()
    assert len(gateway.tape) == gateway.tape.max_entries == FLOOD // 10
    return gateway.tape.head


@asynccontextmanager
async def flooded() -> AsyncIterator[tuple[Gateway, dict[str, Any]]]:
    """A gateway after a flood, and the position that somebody had before it."""
    async with open_gateway() as gateway:
        gateway.publish(small(*BUSY, 1), small(*QUIET, 1))
        since = {"epoch": gateway.tape.epoch, "seq": gateway.tape.head}
        await flood(gateway)
        yield gateway, since


async def numbers(client: HandMade, count: int) -> list[int]:
    """The next messages of the quiet channel, whose chain must be whole."""
    found: list[int] = []
    last = 0
    while len(found) < count:
        message = await client.message()
        if message["type"] == "price_update" and message["connector_id"] == QUIET[0]:
            assert not last or message["prev_seq"] == last
            last = message["seq"]
            found.append(message["data"])
    return found


async def test_who_resumes_from_before_the_flood_gets_every_message_of_the_quiet_channel() -> None:
    async with flooded() as (gateway, since), await gateway.client() as client:
        await client.say(type="subscribe", channels=["ethprice", "bitcoinprice"], since=since)
        told = await client.until("subscribed")
        assert told["recovered"] == {"ethprice": True, "bitcoinprice": False}
        assert told["reason"].startswith("seq 2 is before this tape's tail: messages from ")
        assert await numbers(client, FLOOD // EVERY) == list(range(0, FLOOD, EVERY))
        gateway.publish(small(*QUIET, 7))
        assert await numbers(client, 1) == [7]


async def test_who_is_behind_during_the_flood_is_told_what_it_missed_and_loses_nothing_of_the_quiet_channel() -> None:
    async with open_gateway() as gateway, await gateway.client(receive_buffer=4096) as slow:
        await slow.subscribe("ethprice", "bitcoinprice")
        await flood(gateway)
        gateway.publish(small(*QUIET, FLOOD))
        quiet: list[int] = []
        busy = missed = last = 0
        while not quiet or quiet[-1] < FLOOD:
            message = await slow.message()
            if message["type"] == "lagged":
                assert message["by_channel"] == {"bitcoinprice": message["missed"]}
                missed += message["missed"]
            elif message["type"] == "price_update" and message["connector_id"] == "bitcoinprice":
                busy += 1
            elif message["type"] == "price_update":
                assert message["prev_seq"] == last
                last = message["seq"]
                quiet.append(message["data"])
        assert quiet == [*range(0, FLOOD, EVERY), FLOOD]
        assert missed > FLOOD / 2
        assert busy + missed == FLOOD
