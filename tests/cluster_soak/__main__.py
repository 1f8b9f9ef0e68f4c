"""A soak of a cluster: an engine, two nodes that take data in, two that serve, and 100 clients that hop between them.

    python -m tests.cluster_soak [--minutes 3] [--clients 100] [--seed 1]

One node of each sort has two workers.

Everything is killed, stopped, paused and cut off at random, drawn from the seed; every message that a client is given
is judged (`tests/cluster_soak/client.py`). At the end everything is let be, and then one node leads, all have the same
tape, and every client has the newest of it. Exit code 0 where nothing is wrong.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import trio

from tests.cluster_soak.client import HoppingClient, Judge
from tests.cluster_soak.nodes import NodeProcess, Venues
from tests.cuts import Cuts, open_cuts
from tests.engine import RedisServer

_BETWEEN_S: Final = (4.0, 9.0)
_QUIET_S: Final = 25.0

_RESTS_S: Final = 5.0
"""In this time every client is at a node, and what was sent last has come to it."""

_FAULTS: Final = {
    "kill the leader": 3,
    "stop the leader": 2,
    "pause the leader": 2,
    "cut off the leader": 2,
    "kill a serving node": 2,
    "kill a worker": 2,
    "stop a worker": 1,
    "pause a serving node": 1,
    "cut off a serving node": 2,
    "reset connections": 1,
    "pause the engine": 2,
    "kill the engine": 2,
}

MORE: Final = """
[limits]
grace_s = 3
clients_per_address = 1000

[server]
open = true
"""

WORKERS: Final = "workers = 2\n"
"""Of the nodes `two` and `four`."""


class Soak:
    """One soak."""

    def __init__(self, folder: Path, seconds: float, clients: int, seed: int) -> None:
        self.folder = folder
        self.judge = Judge()
        self.played: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._seconds = seconds
        self._dice = random.Random(f"{seed}/faults")
        self._seed = seed
        self._clients = clients
        self._nodes: list[NodeProcess] = []
        self._ways: dict[str, Cuts] = {}

    async def run(self) -> None:
        """Play it."""
        engine = RedisServer(self.folder / "engine").start()
        venues = Venues(self.folder)
        try:
            venues.start()
            async with trio.open_nursery() as nursery:
                for name, role in (("one", "both"), ("two", "both"), ("three", "serve"), ("four", "serve")):
                    way = await nursery.start(_way, engine.port)
                    self._ways[name] = way
                    standby = "warm" if name == "two" else "cold"
                    more = MORE + WORKERS if name in ("two", "four") else MORE
                    node = NodeProcess(self.folder, name, venues, way.url, more, role=role, standby=standby)
                    node.start()
                    self._nodes.append(node)
                for node in self._nodes:
                    await trio.to_thread.run_sync(node.wait, "leads", "follows", "stands by")
                await self._with_clients(engine, venues)
                nursery.cancel_scope.cancel()
            for node in self._nodes:
                code = await trio.to_thread.run_sync(node.stop)
                if code:
                    self.wrong.append(f"{node.name} ended with {code} on SIGTERM")
        finally:
            for node in self._nodes:
                node.kill()
            venues.kill()
            engine.kill()
        for node in self._nodes:
            text = node.log.read_text(errors="replace")
            if "Traceback" in text:
                self.wrong.append(f"{node.name} logged a traceback: see {node.log}")

    async def _with_clients(self, engine: RedisServer, venues: Venues) -> None:
        clients = [HoppingClient(number, self._seed, self.judge, self._ports) for number in range(self._clients)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.run)
            end_s = trio.current_time() + self._seconds
            while trio.current_time() < end_s:
                await trio.sleep(self._dice.uniform(*_BETWEEN_S))
                await self._fault(engine, self._dice.choices(list(_FAULTS), list(_FAULTS.values()))[0])
            # Nothing is done to anybody any more.
            await trio.sleep(_QUIET_S)
            self._check_the_end()
            for client in clients:
                client.rest()
            await trio.sleep(_RESTS_S)
            venues.kill()
            await trio.sleep(_RESTS_S)
            for client in clients:
                client.settle()
            nursery.cancel_scope.cancel()

    def _ports(self) -> list[int]:
        return [node.port for node in self._nodes if node.runs and not node.is_paused]

    async def _fault(self, engine: RedisServer, fault: str) -> None:
        leader = await trio.to_thread.run_sync(self._leader)
        serving = self._dice.choice([node for node in self._nodes if node is not leader])
        node = leader if "leader" in fault else serving
        if node is None:
            return
        self.played[fault] += 1
        lasts_s, way = self._dice.uniform(0.5, 8), self._ways[node.name]
        match fault.partition(" ")[0]:
            case "kill" | "stop" if "worker" in fault:
                number = signal.SIGKILL if "kill" in fault else signal.SIGSTOP
                workers = [pid for each in self._nodes for pid in each.workers()]
                if workers:
                    os.kill(self._dice.choice(workers), number)
                await trio.sleep(lasts_s)
            case "kill" if "engine" not in fault:
                node.kill()
                await trio.sleep(lasts_s)
                node.start()
            case "stop":
                code = await trio.to_thread.run_sync(node.stop)
                if code:
                    self.wrong.append(f"{node.name} ended with {code} on SIGTERM")
                await trio.sleep(lasts_s)
                node.start()
            case "pause" if "engine" not in fault:
                node.send(signal.SIGSTOP)
                await trio.sleep(lasts_s)
                node.send(signal.SIGCONT)
            case "cut":
                way.swallows = True
                await trio.sleep(lasts_s)
                way.swallows = False
                way.cut()
            case "reset":
                for each in self._ways.values():
                    each.cut()
            case "pause":
                engine.pause()
                await trio.sleep(lasts_s)
                engine.resume()
            case _:
                engine.kill()
                await trio.sleep(lasts_s / 4)
                await trio.to_thread.run_sync(engine.start)
        # One after the other: what two of them do to each other may lose what nobody else had.
        await self._until_led()

    def _leader(self) -> NodeProcess | None:
        return next((node for node in self._nodes if node.runs and not node.is_paused and node.state == "leads"), None)

    async def _until_led(self) -> None:
        for _ in range(100):
            if await trio.to_thread.run_sync(self._leader) is not None:
                return
            await trio.sleep(0.3)
        self.wrong.append(f"after {sum(self.played.values())} faults no node led for 30 s")

    def _check_the_end(self) -> None:
        states = {node.name: node.state for node in self._nodes}
        if Counter(states.values())["leads"] != 1 or not set(states.values()) <= {"leads", "follows", "stands by"}:
            self.wrong.append(f"at the end the nodes were {states}")
        told = [node.cluster() for node in self._nodes]
        if len({each.get("epoch") for each in told}) != 1:
            self.wrong.append(f"at the end there were several tapes: {[each.get('epoch') for each in told]}")
        heads = [int(str(each.get("seq", 0))) for each in told]
        if max(heads) - min(heads) > 200:
            self.wrong.append(f"at the end the nodes were apart: {heads}")

    def report(self) -> str:
        """In a few lines, what was done and found."""
        counts = self.judge.counts
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.played.items()))
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        return f"faults      {sum(self.played.values())} played: {faults}\nclients     {self._clients}: {told}"


async def _way(port: int, *, task_status: trio.TaskStatus[Cuts]) -> None:
    async with open_cuts(port) as way:
        task_status.started(way)
        await trio.sleep(math.inf)


def main() -> int:
    """Run a soak, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster_soak", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tickerd-cluster-soak-"))
    sys.stdout.write(
        f"{arguments.clients} clients for {arguments.minutes:g} minutes, seed {arguments.seed}; logs in {folder}\n"
    )
    sys.stdout.flush()
    soak = Soak(folder, arguments.minutes * 60, arguments.clients, arguments.seed)
    trio.run(soak.run)
    sys.stdout.write(f"{soak.report()}\n")
    wrong = [*soak.wrong, *soak.judge.offences]
    if not wrong:
        shutil.rmtree(folder)
        sys.stdout.write("nothing is wrong\n")
        return 0
    (folder / "offences.txt").write_text("\n".join(wrong), encoding="utf-8")
    sys.stdout.write("\n".join([f"WRONG, {len(wrong)}:", *wrong[:20], f"in {folder}\n"]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
