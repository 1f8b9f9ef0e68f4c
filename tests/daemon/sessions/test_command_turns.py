"""Commands of many clients share a part of each turn of the event loop, however many clients send them."""

from contextlib import AsyncExitStack
from itertools import count
from types import SimpleNamespace

import pytest
import trio

from daemon.sessions import websocket
from tests.daemon.serving import Gateway, HandMade, open_gateway

CLIENTS = 60
EACH = 10
COMMAND_S = 0.001
SHARE_S = 0.01


class Turns(trio.abc.Instrument):
    """The most commands that were carried out in one turn of the event loop."""

    def __init__(self, gateway: Gateway) -> None:
        self._counts = gateway.sessions.counts
        self._before = self._counts.commands
        self.most = 0

    def before_io_wait(self, timeout: float) -> None:
        self.most = max(self.most, self._counts.commands - self._before)
        self._before = self._counts.commands


@pytest.mark.parametrize("share_s", [SHARE_S, 10.0])
async def test_the_commands_of_a_crowd_leave_the_turn_to_others(
    monkeypatch: pytest.MonkeyPatch, share_s: float
) -> None:
    ticks = count()
    monkeypatch.setattr(websocket, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * COMMAND_S))
    async with open_gateway() as gateway, AsyncExitStack() as stack:
        monkeypatch.setattr(gateway.sessions.turns, "_share_s", share_s)
        monkeypatch.setattr(gateway.sessions.turns, "_left_s", share_s)
        clients = [await stack.enter_async_context(await gateway.client()) for _ in range(CLIENTS)]
        turns = Turns(gateway)
        trio.lowlevel.add_instrument(turns)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(ask_and_hear, client)
        trio.lowlevel.remove_instrument(turns)
    # Two shares may meet in one turn, since trio shuffles its tasks, and what was left of the share before.
    fits = turns.most <= 3 * (SHARE_S / COMMAND_S + 1)
    assert fits == (share_s == SHARE_S), f"{turns.most} commands in one turn"


async def ask_and_hear(client: HandMade) -> None:
    """Each of its commands is answered, in order."""
    for number in range(EACH):
        await client.say(type="ping", id=number)
    for number in range(EACH):
        message = await client.message()
        assert (message["type"], message["id"]) == ("pong", number)
