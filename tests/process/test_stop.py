"""Stopping a real process: everybody is told, nothing is lost, and it is over within the grace period."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.process.running import mute_client, tickerd, wait_ready

CLIENTS = 100


class Client(threading.Thread):
    """Subscribes to everything and writes down what it gets, and how it ended."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.messages: list[dict[str, Any]] = []
        self.closed: tuple[int, str] = (0, "")
        self.subscribed = threading.Event()

    def run(self) -> None:
        with connect(f"ws://127.0.0.1:{self.port}/ws", max_size=None) as websocket:
            websocket.send('{"type":"subscribe","channels":["*"]}')
            try:
                for text in websocket:
                    message = json.loads(text)
                    self.messages.append(message)
                    if message["type"] == "subscribed":
                        self.subscribed.set()
            except ConnectionClosed:
                pass
            finally:
                self.closed = (websocket.close_code or 0, websocket.close_reason or "")


def _chain_is_unbroken(messages: list[dict[str, Any]]) -> bool:
    last: dict[tuple[str, str], int] = {}
    for message in messages:
        if "seq" not in message or "prev_seq" not in message:
            continue
        topic = (message["connector_id"], message.get("instrument", ""))
        if topic in last and message["prev_seq"] != last[topic]:
            return False
        last[topic] = message.get("through", message["seq"])  # a keyframe stands for what it goes up to
    return bool(last)


def test_sigterm_says_goodbye_to_a_hundred_clients_and_exits_0_in_time() -> None:
    # A hundred threads of this process could not read all streams in time, and who does not read is cut off.
    with tickerd("demo", "--port", "0", environ={"TICKERD_CATALOGUE__PRESETS": '["seed"]'}) as process:
        clients = [Client(process.port) for _ in range(CLIENTS)]
        wait_ready(process.port)
        for client in clients:
            client.start()
        for client in clients:
            assert client.subscribed.wait(20)
        began_s = time.monotonic()
        assert process.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began_s < 10
        for client in clients:
            client.join(5)
    assert [client.closed[0] for client in clients] == [1001] * CLIENTS
    goodbyes = [client.messages[-1] for client in clients]
    assert {goodbye["type"] for goodbye in goodbyes} == {"goodbye"}
    assert {goodbye["code"] for goodbye in goodbyes} == {1001}
    waits = [goodbye["retry_after_s"] for goodbye in goodbyes]
    assert all(wait > 0 for wait in waits)
    assert len(set(waits)) > CLIENTS / 4, "they would all come back at once"
    assert all(_chain_is_unbroken(client.messages) for client in clients)
    assert not any("Traceback" in line for line in process.lines), process.lines


def test_ctrl_c_is_an_orderly_stop_too() -> None:
    with tickerd("demo", "--port", "0") as process:
        assert process.port
        assert process.stop(signal.SIGINT) == 0
    assert not any("Traceback" in line for line in process.lines), process.lines


def test_a_client_that_reads_nothing_holds_the_stop_no_longer_than_the_grace_period() -> None:
    with tickerd("demo", "--port", "0", environ={"TICKERD_LIMITS__GRACE_S": "2"}) as process, mute_client(process.port):
        began_s = time.monotonic()
        assert process.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began_s < 4


def test_a_second_signal_ends_it_at_once() -> None:
    with tickerd("demo", "--port", "0") as process, mute_client(process.port):
        process.process.send_signal(signal.SIGTERM)
        _wait_for_line(process.lines, "stopping")
        began_s = time.monotonic()
        assert process.stop(signal.SIGTERM) == 1
        assert time.monotonic() - began_s < 3
    assert not any("Traceback" in line for line in process.lines), process.lines


def test_after_the_signal_nobody_new_is_let_in() -> None:
    with tickerd("demo", "--port", "0", environ={"TICKERD_LIMITS__GRACE_S": "3"}) as process:
        port = process.port
        with mute_client(port):
            process.process.send_signal(signal.SIGTERM)
            _wait_for_line(process.lines, "stopping")
            time.sleep(0.2)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            assert process.wait() == 0


def _wait_for_line(lines: list[str], text: str, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not any(text in line for line in lines):
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with tickerd("demo", "--port", str(port)) as process:
            assert process.wait() == 1
    complaint = [line for line in process.lines if line.startswith("tickerd: ")]
    assert len(complaint) == 1, process.lines
    assert str(port) in complaint[0]
    assert "in use" in complaint[0]
    assert not any("Traceback" in line for line in process.lines)


def test_the_venues_run_as_a_process_of_their_own(tmp_path: Path) -> None:
    config = tmp_path / "venues.toml"
    with tickerd("simulate", "--port", "0", "--okx-rate", "50", "--config-out", str(config)) as venues:
        assert venues.port
        environ = {"TICKERD_SERVER__PORT": "0", "TICKERD_CONNECTORS__COINGECKO__PLAN": '"unlimited"'}
        with tickerd("run", "--config", str(config), environ=environ) as daemon:
            wait_ready(daemon.port)
            assert os.path.exists(config)
            assert daemon.stop() == 0
        assert venues.stop() == 0
