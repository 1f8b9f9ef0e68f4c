"""The three clients (trio, asyncio, JavaScript) make the same of everything in `scenarios.py`."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

import tickerd
import tickerd.asyncio
from tests.daemon.client.scenarios import SCENARIOS, Scenario
from tests.daemon.client.stage import Stage, open_stage
from tests.daemon.serving import SOON_S

HERE = Path(__file__).parent
CLIENT = HERE.parents[2] / "daemon" / "routes" / "web" / "client.js"
WITHIN_S = 2 * SOON_S
LINGER_S = 0.1
"""How long to look for what must not come."""


class Notes:
    """What a client has told, in the words that all share."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, int]] = []
        self.told: list[tuple[Any, ...]] = []
        self.waits_s: list[float] = []

    def take(self, *what: Any) -> None:
        match what:
            case ("message", channel, seq):
                self.messages.append((channel, seq))
            case ("away", wait_s):
                self.waits_s.append(wait_s)
                self.told.append(("away",))
            case ("back", restarted, lost):
                self.told.append(("back", restarted, tuple(lost)))
            case ("refused", "brand_new"):
                pass  # `client.js` hands on every error; the others pass over those of a later version
            case _:
                self.told.append(what)

    def yielded(self, received: tickerd.Received) -> None:
        match received:
            case tickerd.Data(connector_id=channel, seq=seq):
                self.take("message", channel, seq)
            case tickerd.Reconnecting(retry_in_s=wait_s):
                self.take("away", wait_s)
            case tickerd.Resumed(restarted=restarted, lost=lost):
                self.take("back", restarted, lost)
            case tickerd.Gap(channel=channel, before=before):
                self.take("gap", channel, before)
            case tickerd.Lagged(missed=missed):
                self.take("lagged", missed)
            case tickerd.Status(channel=channel, state=state):
                self.take("status", channel, state)
            case tickerd.Lost():
                pass  # `Resumed` names the same channels
            case _:
                self.take("unexpected", received)

    def has(self, scenario: Scenario) -> bool:
        """Whether so much has come as is to come."""
        return len(self.messages) >= len(scenario.messages) and len(self.told) >= len(scenario.told)


class Subscription(Protocol):
    """What the clients in Python share: one shape."""

    def __aiter__(self) -> AsyncIterator[tickerd.Received]: ...

    async def unsubscribe(self, *channels: str) -> None: ...

    async def change(
        self, *, instruments: tuple[str, ...] | list[str] | None = None, interval_ms: int | None = None
    ) -> None: ...


async def iterate(subscription: Subscription, scenario: Scenario, notes: Notes) -> None:
    changes = scenario.changes
    try:
        async for received in subscription:
            notes.yielded(received)
            if isinstance(received, tickerd.Data) and changes is not None:
                await subscription.change(**changes)
                changes = None
            if isinstance(received, tickerd.Data) and received.connector_id == scenario.leaves:
                await subscription.unsubscribe(scenario.leaves)
    except tickerd.CommandRefused as error:
        notes.take("refused", error.code)
    except tickerd.ServerRefused as error:
        notes.take("ended", error.code)
    except tickerd.NotUnderstood:
        notes.take("ended", 1003)


Run = Callable[[Stage, Scenario, Notes], Awaitable[None]]


async def on_trio(stage: Stage, scenario: Scenario, notes: Notes) -> None:
    async with tickerd.connect(stage.url, retry_base_s=0.01, retry_cap_s=0.01) as client:
        await iterate(client.subscribe(*scenario.channels, **scenario.options), scenario, notes)


async def on_asyncio(stage: Stage, scenario: Scenario, notes: Notes) -> None:
    """In a thread, which ends when this is cancelled."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def client() -> None:
        async with tickerd.asyncio.connect(stage.url, retry_base_s=0.01, retry_cap_s=0.01) as client:
            await iterate(client.subscribe(*scenario.channels, **scenario.options), scenario, notes)

    async def main() -> None:
        over = asyncio.Event()
        begun.set_result((asyncio.get_running_loop(), over))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(client())
            await over.wait()
            task.cancel()

    async def stop() -> None:
        try:
            await trio.sleep_forever()
        finally:
            loop, over = begun.result(WITHIN_S)
            loop.call_soon_threadsafe(over.set)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        await trio.to_thread.run_sync(lambda: asyncio.run(main()))


@cache
def websocket_flags(node: str) -> list[str] | None:
    """What this Node needs to have a WebSocket; None where it has none at all."""
    for flags in ([], ["--experimental-websocket"]):
        ran = subprocess.run([node, *flags, "-p", "typeof WebSocket"], capture_output=True, text=True)
        if ran.stdout.strip() == "function":
            return flags
    return None


async def in_node(stage: Stage, scenario: Scenario, notes: Notes) -> None:
    node = shutil.which("node")
    flags = node and websocket_flags(node)
    if node is None or flags is None:
        pytest.skip("no Node here that has WebSocket: it has one from 20.10 on")
    told = [",".join(scenario.channels), scenario.leaves, json.dumps(scenario.options), json.dumps(scenario.changes)]
    program = [str(HERE / "scenario_client.mjs"), str(CLIENT), stage.url, *told]
    process = await trio.lowlevel.open_process([node, *flags, *program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                notes.take(*json.loads(line))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.parametrize("run", [on_trio, on_asyncio, in_node], ids=["trio", "asyncio", "javascript"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_every_client_makes_the_same_of_it(scenario: Scenario, run: Run) -> None:
    notes = Notes()
    async with open_stage(scenario) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(run, stage, scenario, notes)
        with trio.move_on_after(WITHIN_S):
            while not notes.has(scenario):  # noqa: ASYNC110 # one of the clients is in a thread
                await trio.sleep(0.01)
        await trio.sleep(LINGER_S)
        nursery.cancel_scope.cancel(reason="it has told all")
    assert notes.messages == list(scenario.messages)
    assert notes.told == list(scenario.told)
    assert stage.resumes == list(scenario.resumes)
    assert stage.connections == len(scenario.acts)
    assert not scenario.asked or [tuple(asked) for asked in stage.asked] == list(scenario.asked)
    for wait_s, expected_s in zip(notes.waits_s, scenario.waits_s, strict=False):
        assert expected_s in (None, pytest.approx(wait_s))
