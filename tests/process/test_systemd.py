"""`tickerd run` as systemd runs it: notifications, the watchdog, passed sockets, the system calls that are allowed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.process.running import START_S, tickerd
from tests.process.systemd_tool import PASS_ON, systemd_tool

ROOT = Path(__file__).resolve().parent.parent.parent

SERVE_ONE_CHANNEL = {
    # No venue is asked: one is told to be a port that nobody listens on, the others are off.
    "TICKERD_CONNECTORS__BINANCE__ENABLED": "false",
    "TICKERD_CONNECTORS__COINGECKO__ENABLED": "false",
    "TICKERD_CONNECTORS__OKX__URL": "ws://localhost:1/",
    "TICKERD_SERVER__HOST": "127.0.0.1",
    "TICKERD_SERVER__PORT": "0",
}


class Manager:
    """Receives what systemd would receive, and when."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(START_S)
        self.received: list[tuple[float, str]] = []

    def next(self) -> str:
        """The next datagram."""
        try:
            datagram = self._socket.recv(65536).decode()
        except TimeoutError:
            raise AssertionError(f"nothing more came after {self.received}") from None
        self.received.append((time.monotonic(), datagram))
        return datagram

    def until(self, wanted: str) -> str:
        """Read on to a datagram that begins so."""
        deadline = time.monotonic() + START_S
        while not (datagram := self.next()).startswith(wanted):
            assert time.monotonic() < deadline, f"no {wanted!r} in {self.received}"
        return datagram

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_a_run_tells_systemd_from_the_start_to_the_stop(manager: Manager) -> None:
    environ = {**SERVE_ONE_CHANNEL, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
    with tickerd("run", environ=environ) as process:
        manager.until("READY=1")
        with socket.create_connection(("127.0.0.1", process.port), timeout=5):
            pass
        status = manager.until("STATUS=serving 0 clients; 0 channels live; ")
        assert "bitcoinprice, ethprice" in status
        manager.received.clear()
        for _ in range(4):
            manager.until("WATCHDOG=1")
        pings = [at for at, datagram in manager.received if datagram == "WATCHDOG=1"]
        assert max(later - earlier for earlier, later in pairwise(pings)) < 2.0
        with connect(f"ws://127.0.0.1:{process.port}/ws"):
            manager.until("STATUS=serving 1 client; ")

        process.process.send_signal(signal.SIGHUP)
        state, _, when = manager.until("RELOADING=1").partition("\n")
        assert (state, when.partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
        manager.until("READY=1")

        assert process.stop() == 0
        manager.until("STOPPING=1")
        assert not [line for line in process.lines if "watchdog" in line]


def test_a_run_without_systemd_is_told_nothing_and_feeds_nothing() -> None:
    with tickerd("run", environ={**SERVE_ONE_CHANNEL, "WATCHDOG_USEC": "100000"}) as process:
        assert httpx.get(f"http://127.0.0.1:{process.port}/healthz").status_code == 200
        assert process.stop() == 0
        assert not [line for line in process.lines if "systemd" in line or "NOTIFY" in line]


def test_a_configuration_error_ends_it_with_78_before_anything_is_told(manager: Manager) -> None:
    environ = {**SERVE_ONE_CHANNEL, "NOTIFY_SOCKET": manager.address, "TICKERD_SERVER__PORT": "many"}
    with tickerd("run", environ=environ) as process:
        assert process.wait() == 78
    manager._socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.next()


# The unit's sandbox, as far as it can be had without systemd.

CONFINED = """
import ctypes, json, os, sys
calls = json.loads(sys.argv[1])
seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
seccomp.seccomp_init.restype = ctypes.c_void_p
seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
seccomp.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
ALLOW, EPERM, UNKNOWN = 0x7FFF0000, 0x00050001, -1
rules = seccomp.seccomp_init(EPERM)
assert rules
for call in calls:
    number = seccomp.seccomp_syscall_resolve_name(call.encode())
    if number != UNKNOWN:
        assert seccomp.seccomp_rule_add(rules, ALLOW, number, 0) == 0, call
PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 38, 65
process = ctypes.CDLL(None, use_errno=True)
assert process.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
process.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # Linux 6.3 and newer
assert seccomp.seccomp_load(rules) == 0
os.execv(sys.executable, [sys.executable, "-m", "daemon", "run"])
"""
"""SystemCallFilter and MemoryDenyWriteExecute, and then the daemon."""


def allowed_calls(text: str) -> set[str]:
    """What the unit's `SystemCallFilter` lines allow: each adds to what those before it allow, or takes from it."""
    analyze, allowed = systemd_tool("systemd-analyze"), set[str]()

    def members(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        listing = subprocess.run([analyze, "syscall-filter", name], capture_output=True, text=True, check=True).stdout
        lines = [line.strip() for line in listing.splitlines()[1:]]
        return set[str]().union(*(members(line) for line in lines if line and not line.startswith("#")))

    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "SystemCallFilter":
            named = set[str]().union(*(members(name) for name in value.removeprefix("~").split()))
            allowed = allowed - named if value.startswith("~") else allowed | named
    return allowed


def test_the_daemon_runs_with_the_system_calls_that_the_unit_allows(manager: Manager, tmp_path: Path) -> None:
    calls = allowed_calls((ROOT / "systemd" / "tickerd.service").read_text())
    assert "accept4" in calls
    assert "chown" not in calls
    environ = {**SERVE_ONE_CHANNEL, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
    environ["TICKERD_TAPE__PATH"] = str(tmp_path / "tape")
    process = subprocess.Popen(
        [sys.executable, "-c", CONFINED, json.dumps(sorted(calls))],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with ended(process):
        manager.until("READY=1")
        confined = Path(f"/proc/{process.pid}/status").read_text()
        assert "Seccomp:\t2" in confined
        manager.until("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        manager.until("READY=1")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=15)
        assert process.returncode == 0, said
    # A venue's name is looked up, and its port tried: that nobody is there is all that goes wrong.
    assert "Operation not permitted" not in said
    assert "Traceback" not in said
    assert (tmp_path / "tape").stat().st_size > 0


# Sockets that are passed.


class Held:
    """A listening socket that outlives the daemons it is passed to."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._socket.getsockname()[1]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PASS_ON, str(self._socket.fileno()), "run"],
            pass_fds=[self._socket.fileno()],
            env={**os.environ, **SERVE_ONE_CHANNEL},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.close()


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=5)


class Caller(threading.Thread):
    """Connects and asks, again and again, each time by a connection of its own; notes every way it ends."""

    REQUESTS = (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.number = number
        self.outcomes: Counter[str] = Counter()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=START_S) as connection:
                    # Some have something to say at once, others only when they may have been let in already.
                    time.sleep(0.01 * (self.number % 3))
                    connection.sendall(self.REQUESTS[self.number % 2])
                    answer = connection.recv(4096)
                self.outcomes[answer[9:12].decode() or "closed without an answer"] += 1
            except OSError as error:
                self.outcomes[repr(error)] += 1


def test_a_restart_under_connecting_clients_refuses_and_resets_none(held: Held) -> None:
    callers = [Caller(held.port, number) for number in range(12)]
    for caller in callers:
        caller.start()
    for _ in range(3):
        with ended(held.start()) as process:
            assert httpx.get(f"http://127.0.0.1:{held.port}/healthz", timeout=START_S).status_code == 200
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=15)
            assert process.returncode == 0, said
    with ended(held.start()):
        for caller in callers:
            caller.over.set()
        for caller in callers:
            caller.join(START_S)
            assert not caller.is_alive()
    outcomes = sum((caller.outcomes for caller in callers), Counter[str]())
    # 503: a websocket handshake, or a question after its health, while it is stopping.
    assert set(outcomes) <= {"101", "200", "503"}
    assert min(outcomes["101"], outcomes["200"]) > 0


def test_a_daemon_that_is_passed_a_socket_leaves_the_configured_port_alone(held: Held) -> None:
    with ended(held.start()) as process:
        assert httpx.get(f"http://127.0.0.1:{held.port}/healthz", timeout=START_S).status_code == 200
        process.send_signal(signal.SIGTERM)
        lines = process.communicate(timeout=15)[0].splitlines()
    assert [line for line in lines if line.startswith("listening on")] == [f"listening on http://127.0.0.1:{held.port}"]
    assert any("[server] host, port and backlog are not used" in line for line in lines)


def test_systemds_own_activation_serves_a_client() -> None:
    activate = systemd_tool("systemd-socket-activate")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = [f"--setenv={name}={value}" for name, value in SERVE_ONE_CHANNEL.items()]
    path = f"--setenv=PATH={os.environ['PATH']}"
    command = [activate, "-l", f"127.0.0.1:{port}", "--fdname=tickerd", path, *variables]
    command += [sys.executable, "-m", "daemon", "run"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with ended(process):
        deadline = time.monotonic() + START_S
        while True:  # until the tool listens; from then on nothing is refused
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        with connect(f"ws://127.0.0.1:{port}/ws", open_timeout=START_S) as websocket:
            assert json.loads(websocket.recv())["type"] == "welcome"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=15)
        assert process.returncode == 0, said


def test_a_socket_that_is_none_to_listen_on_is_a_wrong_configuration() -> None:
    activate = systemd_tool("systemd-socket-activate")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [activate, "--datagram", "-l", f"127.0.0.1:{port}", sys.executable, "-m", "daemon", "run"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with ended(process), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        deadline = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            sender.sendto(b"wake up", ("127.0.0.1", port))
            time.sleep(0.1)
        assert process.wait(1) == 78
        assert process.stdout is not None
        said = process.stdout.read()
        assert "tickerd: LISTEN_FDS: descriptor 3" in said
        assert "is of the type SOCK_DGRAM" in said
