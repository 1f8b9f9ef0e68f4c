"""A real process with `tape.path` is killed and stopped under load, and real clients come back to it."""

import contextlib
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from daemon.tape.tape import TapeSettings
from tests.process.running import Process, tickerd, wait_ready

Message = dict[str, Any]
CLIENTS = 6
RATE = 60
"""Pushes a second for each OKX instrument."""


class Client(threading.Thread):
    """Takes everything of one daemon, from a position on if it has one, until that daemon is gone or `leave` is set."""

    def __init__(self, port: int, since: tuple[str, int] | None = None) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.since = since
        self.subscribed: Message = {}
        self.data: list[Message] = []
        self.leave = threading.Event()
        self.here = threading.Event()

    @property
    def position(self) -> tuple[str, int]:
        """Where it goes on: behind the last message it had."""
        return self.subscribed["epoch"], self.data[-1]["seq"] if self.data else self.subscribed["seq"]

    def run(self) -> None:
        command: Message = {"type": "subscribe", "channels": ["*"]}
        if self.since is not None:
            command["since"] = {"epoch": self.since[0], "seq": self.since[1]}
        with (
            contextlib.suppress(ConnectionClosed),
            connect(f"ws://127.0.0.1:{self.port}/ws", max_size=None) as websocket,
        ):
            websocket.send(json.dumps(command))
            while not self.leave.is_set():
                with contextlib.suppress(TimeoutError):
                    message = json.loads(websocket.recv(timeout=0.1))
                    if message["type"] == "subscribed":
                        self.subscribed = message
                        self.here.set()
                    elif "prev_seq" in message:
                        self.data.append(message)


@pytest.fixture(scope="module")
def venues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Simulated venues under load, and the configuration that names them."""
    config = tmp_path_factory.mktemp("restart") / "tickerd.toml"
    with tickerd("simulate", "--port", "0", "--okx-rate", str(RATE), "--config-out", str(config)) as process:
        assert process.port
        yield config


@contextlib.contextmanager
def daemon(config: Path, tape: Path) -> Iterator[Process]:
    environ = {
        "TICKERD_SERVER__PORT": "0",
        "TICKERD_TAPE__PATH": str(tape),
        "TICKERD_CONNECTORS__COINGECKO__PLAN": '"unlimited"',
    }
    with tickerd("run", "--config", str(config), environ=environ) as process:
        yield process


def come(port: int, positions: list[tuple[str, int] | None]) -> list[Client]:
    clients = [Client(port, since) for since in positions]
    for client in clients:
        client.start()
    for client in clients:
        assert client.here.wait(10)
    return clients


def gone(clients: list[Client]) -> None:
    for client in clients:
        client.join(10)
        assert not client.is_alive()


def stored(tape: Path) -> list[int]:
    """The data messages in the file of a daemon that is not running; read from a copy, so that nothing is changed."""
    copy = tape.with_name("copy")
    for ending in ("", "-wal"):
        source = Path(f"{tape}{ending}")
        Path(f"{copy}{ending}").write_bytes(source.read_bytes() if source.exists() else b"")
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        rows = connection.execute("SELECT seq FROM entries WHERE instrument NOT LIKE '!%' ORDER BY seq")
        return [seq for (seq,) in rows]


def topic(message: Message) -> tuple[str, str]:
    return message["connector_id"], message.get("instrument", "")


def test_clients_resume_over_kill_9_and_over_a_clean_stop(venues: Path, tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    everything: list[Client] = []

    with daemon(venues, tape) as process:
        wait_ready(process.port)
        first = come(process.port, [None] * CLIENTS)
        time.sleep(1.0)
        process.stop(signal.SIGKILL)
        gone(first)
    everything += first
    kept = stored(tape)
    sent = max(client.position[1] for client in first)
    assert len(kept) > RATE
    assert kept[-1] >= sent - 2 * RATE  # what was sent in the last tenth of a second, and some patience

    with daemon(venues, tape) as process:
        wait_ready(process.port)
        positions: list[tuple[str, int] | None] = [client.position for client in first]
        epoch = first[0].position[0]
        positions[0] = (epoch, 0)
        positions[1] = (epoch, kept[len(kept) // 2])
        second = come(process.port, positions)
        report = httpx.get(f"http://127.0.0.1:{process.port}/gaps").text
        time.sleep(1.0)
        assert process.stop(signal.SIGTERM) == 0
        gone(second)
    everything += second
    assert "unclean stop" in report
    for client, since in zip(second, positions, strict=True):
        assert since is not None
        assert client.subscribed["epoch"] == epoch
        assert set(client.subscribed["recovered"].values()) == {False}
        assert "unclean stop" in client.subscribed["reason"]
        seqs = [message["seq"] for message in client.data]
        assert seqs == sorted(set(seqs))
        later = [seq for seq in kept if seq > since[1]]
        assert [seq for seq in seqs if since[1] < seq <= kept[-1]] == later, "what was stored is not replayed"
        new = [message for message in client.data if message["seq"] > sent]
        assert len(new) > RATE
        seen: dict[tuple[str, str], int] = {}
        for message in new:  # the first of each topic names a position that no message ever had
            if topic(message) not in seen:
                assert sent < message["prev_seq"] < new[0]["seq"]
            else:
                assert message["prev_seq"] == seen[topic(message)]
            seen[topic(message)] = message["seq"]

    kept = stored(tape)
    with daemon(venues, tape) as process:
        wait_ready(process.port)
        third = come(process.port, [client.position for client in second])
        time.sleep(0.5)
        for client in third:
            client.leave.set()
        gone(third)
        process.stop(signal.SIGKILL)
    everything += third
    for before, client in zip(second, third, strict=True):
        assert set(client.subscribed["recovered"].values()) == {True}
        chain = {topic(message): message["seq"] for message in before.data}
        assert [message["seq"] for message in client.data if message["seq"] <= kept[-1]] == [
            seq for seq in kept if seq > before.position[1]
        ]
        assert client.data
        for message in client.data:
            assert message["prev_seq"] == chain[topic(message)]
            chain[topic(message)] = message["seq"]

    by_position: dict[int, Message] = {}
    for client in everything:
        for message in client.data:
            assert by_position.setdefault(message["seq"], message) == message, "a position was used twice"


def test_a_file_that_is_no_tape_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine\n")
    with tickerd("demo", "--port", "0", environ={"TICKERD_TAPE__PATH": str(path)}) as process:
        assert process.wait() == 78
    [line] = process.lines
    assert line.startswith(f"tickerd: tape.path: {path}: ")
    assert path.read_text() == "mine\n"


def test_a_tape_that_another_daemon_has_is_one_clear_line(tmp_path: Path) -> None:
    environ = {"TICKERD_TAPE__PATH": str(tmp_path / "tape")}
    with tickerd("demo", "--port", "0", environ=environ) as first:
        assert first.port
        with tickerd("demo", "--port", "0", environ=environ) as second:
            assert second.wait() == 1
        [line] = second.lines
        assert "in use" in line


def test_five_minutes_at_the_default_rates_fit_on_the_tape(eight_port: int) -> None:
    """By arithmetic: real sizes, the demo's cadences (the default ones are five times slower), OKX's fastest pushes."""
    channels = json.loads(httpx.get(f"http://127.0.0.1:{eight_port}/channels").content)["channels"]
    count = size_bytes = 0.0
    for channel in channels:
        answer = httpx.get(f"http://127.0.0.1:{eight_port}/snapshot/{channel['name']}").content
        messages = json.loads(answer)["messages"]
        assert messages
        # OKX's ticker channel pushes every 100 ms at the fastest (its documentation, "Tickers channel").
        per_s = len(messages) / (channel["cadence_s"] or 0.1)
        count += per_s * 300
        size_bytes += len(answer) / len(messages) * per_s * 300
    assert count < TapeSettings().entries
    assert size_bytes < TapeSettings().bytes
