"""What protocol/STREAM.md shows, as it stands there: a program that follows the tape in the engine, and redis-cli."""

import json
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.cluster_soak.nodes import NodeProcess, Venues
from tests.engine import RedisServer, tool
from tests.process.fenced import ROOT, blocks, only, section

pytest.importorskip("redis")

FILE = "protocol/STREAM.md"
SOON_S = 30.0


class Follower:
    """`follow.py`, as often as it is started in its folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.lines: list[str] = []
        self.said: list[str] = []
        (folder / "follow.py").write_text(only(FILE, "## In Python", "python"))

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "follow.py", self.url],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._threads = [
            threading.Thread(target=self._take, args=(stream, into), daemon=True)
            for stream, into in ((self.process.stdout, self.lines), (self.process.stderr, self.said))
        ]
        for thread in self._threads:
            thread.start()

    def _take(self, stream: IO[str], into: list[str]) -> None:
        with stream:
            into.extend(stream)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines)]

    def wait(self, trades: int) -> None:
        until_s = time.monotonic() + SOON_S
        while sum(message["type"] == "trade" for message in self.messages) < trades:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < until_s, f"{len(self.lines)} lines; {self.said}"
            time.sleep(0.1)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "engine").start()
    yield server
    server.kill()


def trades(follower: Follower) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for message in follower.messages:
        if message["type"] == "trade":
            found.setdefault(message["instrument"], []).append(int(message["trade_id"]))
    return found


def test_the_program_takes_each_message_once_over_its_own_restart_and_the_engines(
    tmp_path: Path, engine: RedisServer
) -> None:
    venues = Venues(tmp_path, "--okx-rate", "20")
    venues.start()
    node = NodeProcess(tmp_path, "one", venues, engine.url)
    follower = Follower(tmp_path, engine.url)
    try:
        node.start()
        node.wait("leads")
        follower.start()
        follower.wait(60)
        follower.stop()
        had = len(follower.messages)
        time.sleep(1)
        follower.start()
        follower.wait(120)
        assert follower.said == []
        # It comes back empty, and the node gives it the tape again.
        engine.kill()
        time.sleep(1)
        engine.start()
        follower.wait(240)
        assert {line.partition(":")[0] for line in follower.said} == {"the engine is away"}
        at_this = f"{tool('redis-cli')} -p {engine.port}"
        for line in only(FILE, "## With redis-cli", "sh").splitlines():
            shell = ["sh", "-c", line.replace("redis-cli", at_this)]
            shown = subprocess.run(shell, capture_output=True, text=True, check=True, timeout=20).stdout
            assert "messages" in shown or '"connector_id":"okx_trades"' in shown, line
    finally:
        follower.stop()
        node.kill()
        venues.kill()
    topics = {(message["connector_id"], message.get("instrument", "")) for message in follower.messages}
    assert {("okx_trades", "BTC/USDT"), ("okx_depth", "ETH/USDT"), ("coingecko_global", "")} <= topics
    seqs = [message["seq"] for message in follower.messages]
    for run in (seqs[:had], seqs[had:]):
        assert run == sorted(set(run))
    # Whoever is killed has perhaps not noted the last that it printed.
    assert sum(seq <= seqs[had - 1] for seq in seqs[had:]) < had
    for instrument, ids in trades(follower).items():
        once = sorted(set(ids))
        assert once == list(range(once[0], once[0] + len(once))), f"{instrument}: none left out"


def test_what_a_reader_may_do_is_enough(tmp_path: Path) -> None:
    [acl] = [body for info, body in blocks((ROOT / FILE).read_text()) if info == "acl"]
    server = RedisServer(tmp_path / "engine").start()
    try:
        cli = [tool("redis-cli"), "-p", str(server.port), "--no-auth-warning"]
        subprocess.run([*cli, *acl.replace(">PASSWORD", ">secret").split()], check=True, capture_output=True)
        subprocess.run([*cli, "XADD", "tickerd:{main}:tape", "1-0", "v", "1"], check=True, capture_output=True)
        reader = [*cli, "--user", "reader", "--pass", "secret"]

        def said(*command: str) -> str:
            return subprocess.run([*reader, *command], capture_output=True, text=True, check=True).stdout

        assert "1-0" in said("XREAD", "STREAMS", "tickerd:{main}:tape", "0-0")
        assert "1-0" in said("XREVRANGE", "tickerd:{main}:tape", "+", "-", "COUNT", "1")
        assert "NOPERM" in said("DEL", "tickerd:{main}:tape")
        assert "NOPERM" in said("XADD", "tickerd:{main}:tape", "2-0", "v", "1")
        assert "NOPERM" in said("GET", "other")
    finally:
        server.kill()


def test_the_other_examples_can_be_read() -> None:
    shown = dict(blocks(section(FILE, "## Elsewhere")))
    assert tomllib.loads(shown["toml"])["sources"]["tickerd"]["type"] == "exec"
    keys = [line.partition("=")[0].strip() for line in shown["properties"].splitlines()]
    assert keys == ["connector.class", "redis.uri", "redis.stream.name", "topic"]
