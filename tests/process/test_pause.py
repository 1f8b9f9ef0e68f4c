"""A daemon that is stopped for a while, as by SIGSTOP, and goes on: nobody else is blamed for it."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.process.running import Process, tickerd, wait_ready

LIMITS = {
    "TICKERD_SERVER__PORT": "0",
    "TICKERD_LIMITS__PING_EVERY_S": "1",
    "TICKERD_LIMITS__SILENT_AFTER_S": "4",
    "TICKERD_LIMITS__WRITE_DEADLINE_S": "2",
    "TICKERD_LIMITS__HANDSHAKE_S": "3",
    "TICKERD_LIMITS__KEEP_ALIVE_S": "3",
}
STOPPED_S = 12.0
"""Longer than each of these limits, and than what makes connectors begin anew."""


@contextmanager
def daemon(folder: Path) -> Iterator[Process]:
    config = folder / "venues.toml"
    with tickerd("simulate", "--port", "0", "--config-out", str(config)) as venues:
        assert venues.port
        with tickerd("run", "--config", str(config), environ=LIMITS) as process:
            wait_ready(process.port)
            yield process


def stop(process: Process, seconds: float) -> None:
    process.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.process.send_signal(signal.SIGCONT)


def heard(client: ClientConnection, within_s: float) -> Iterator[Any]:
    """What the client gets in that time. Fails where it is closed."""
    until_s = time.monotonic() + within_s
    while (left_s := until_s - time.monotonic()) > 0:
        try:
            yield json.loads(client.recv(left_s))
        except TimeoutError:
            return


def get(port: int, path: str) -> Any:
    return json.loads(httpx.get(f"http://127.0.0.1:{port}{path}").content)


def test_clients_stay_and_are_told_and_nobody_is_blamed(tmp_path: Path) -> None:
    with (
        daemon(tmp_path) as process,
        connect(f"ws://127.0.0.1:{process.port}/ws", max_queue=None) as client,
        connect(f"ws://127.0.0.1:{process.port}/ws", ping_interval=None) as idle,
        httpx.stream("GET", f"http://127.0.0.1:{process.port}/events?channels=ethprice", timeout=60) as events,
    ):
        client.send(json.dumps({"type": "subscribe", "channels": ["*"], "id": 1}))
        assert "live" in {message.get("state") for message in heard(client, 1.5)}
        before = len(process.lines)
        stop(process, STOPPED_S)
        woke_s = time.time()
        after: list[Any] = []
        deadline = time.monotonic() + 20
        down: set[str] = set()
        while time.monotonic() < deadline:
            after += heard(client, 0.5)
            states = {message["channel"]: message["state"] for message in after if message["type"] == "status"}
            down = {name for name, state in states.items() if state != "live"}
            if len(states) == 8 and not down:
                break
        assert not down, down
        said = [message for message in after if message["type"] == "status" and message["state"] != "live"]
        assert len({message["channel"] for message in said}) == 8
        assert all("the daemon itself did not run for" in message["reason"] for message in said), said
        assert any(message.get("connector_id") == "bitcoinprice" for message in after), "prices go on"
        client.send(json.dumps({"type": "ping", "id": "after"}))
        assert any(message.get("id") == "after" for message in heard(client, 3)), "the client is served as before"
        idle.ping().wait(5)
        idle.send(json.dumps({"type": "ping", "id": "idle"}))
        assert any(message.get("id") == "idle" for message in heard(idle, 3))
        [pause] = [gap for gap in get(process.port, "/gaps")["gaps"] if gap["cause"] == "pause"]
        assert STOPPED_S - 1.5 < pause["duration_s"] < STOPPED_S + 3
        assert pause["channel"] is None
        assert "did not run" in pause["reason"]
        assert not any(gap["cause"] == "lagged" for gap in get(process.port, "/gaps")["gaps"])
        said = [line for line in process.lines[before:] if "did not run for" in line]
        assert len(said) == 1, process.lines[before:]
        assert [line for line in process.lines[before:] if "closed" in line] == []
        metrics = httpx.get(f"http://127.0.0.1:{process.port}/metrics").text
        assert 'tickerd_gaps_total{cause="pause"} 1.0' in metrics
        assert not any("next attempt in" in line for line in process.lines[before:]), "no venue has failed"
        woke = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(woke_s))
        data = (json.loads(line[5:]) for line in events.iter_lines() if line.startswith("data:"))
        assert any(message["timestamp"] > woke for message in data), "the event stream goes on"


def test_a_request_that_was_half_sent_has_its_time_anew(tmp_path: Path) -> None:
    """Connections that were half-way through something when the daemon stopped go on with it."""
    with daemon(tmp_path) as process, socket.create_connection(("127.0.0.1", process.port)) as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        time.sleep(0.3)
        stop(process, 5.0)
        time.sleep(0.5)
        half.sendall(b"\r\n")
        half.settimeout(5)
        assert half.recv(100).startswith(b"HTTP/1.1 200")
        [pause] = [gap for gap in get(process.port, "/gaps")["gaps"] if gap["cause"] == "pause"]
        assert 4 < pause["duration_s"] < 8


def test_a_client_for_python_that_was_stopped_itself_does_not_blame_the_daemon(tmp_path: Path) -> None:
    patient = {**LIMITS, "TICKERD_LIMITS__SILENT_AFTER_S": "60", "TICKERD_LIMITS__WRITE_DEADLINE_S": "60"}
    config = tmp_path / "venues.toml"
    with tickerd("simulate", "--port", "0", "--config-out", str(config)) as venues:
        assert venues.port
        with tickerd("run", "--config", str(config), environ=patient) as process:
            wait_ready(process.port)
            # A channel that is polled, so that nothing lies unread that would prove by itself that the daemon lives.
            url = f"http://127.0.0.1:{process.port}"
            with tickerd("watch", "--json", "--url", url, "coingecko_global") as watching:
                deadline = time.monotonic() + 20
                while not any("market_update" in line for line in watching.lines):
                    assert time.monotonic() < deadline, watching.lines
                    time.sleep(0.05)
                before = len(watching.lines)
                stop(watching, 6.0)
                time.sleep(3.0)
                assert [line for line in watching.lines[before:] if "reconnecting" in line] == []
                assert watching.process.poll() is None
