"""The processes of the benchmark: starting them, each on its core, looking at them, and ending them."""

from __future__ import annotations

import http.client
import os
import queue
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from tests.bench.client import request
from tests.bench.window import Arrived, Drained, Flooded, Noticed, Ready, Window

ROOT: Final = Path(__file__).resolve().parents[2]
START_WITHIN_S: Final = 30.0
STOP_WITHIN_S: Final = 15.0

SETTINGS: Final[Mapping[str, str]] = {
    "TICKERD_SERVER__HOST": "127.0.0.1",
    "TICKERD_SERVER__PORT": "0",
    # One channel, so that the rate of the feed is the rate of the messages, and nothing else happens meanwhile.
    "TICKERD_CONNECTORS__BINANCE__ENABLED": "false",
    "TICKERD_CONNECTORS__COINGECKO__ENABLED": "false",
    "TICKERD_CHANNELS__ETHPRICE__ENABLED": "false",
}
"""All that is not the daemon's default; the rest of its configuration is what `simulate --config-out` writes."""

_T = TypeVar("_T")


class Cores(msgspec.Struct, frozen=True):
    """Which core the server has to itself, and which everything else."""

    server: int
    others: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first two that this process may use; where there is one, both are that."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[min(1, len(usable) - 1)])


def rss_kib(pid: int) -> int:
    """Resident memory of a process (VmRSS, proc(5)); the kernel's socket buffers are not in it."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"process {pid} has ended")
    return int(found[1])


class Process:
    """One process; what it prints on standard error is kept for the case that it fails."""

    def __init__(
        self, module: str, *arguments: object, core: int, environ: Mapping[str, str] | None = None, nice: int = 0
    ) -> None:
        """`nice`: so many steps behind others that want the same core."""
        self.name = f"{module} {arguments[0]}" if module == "daemon" else module
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop(); it lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environ or {})},
        )
        os.sched_setaffinity(self.process.pid, {core})
        os.setpriority(os.PRIO_PROCESS, self.process.pid, nice)
        self._lines = queue.Queue[bytes]()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def line(self, within_s: float = START_WITHIN_S) -> bytes:
        """The next line that it prints.

        Raises:
            RuntimeError: it has ended, or says nothing; with what it printed as an error.
        """
        try:
            line = self._lines.get(timeout=within_s)
        except queue.Empty:
            raise self.failure(f"said nothing for {within_s:g} s") from None
        if not line:
            raise self.failure("ended")
        return line

    def failure(self, what: str) -> RuntimeError:
        """An error about it, with the last it had to say."""
        self._errors.seek(0)
        said = b"\n".join(self._errors.read().splitlines()[-20:]).decode(errors="replace")
        return RuntimeError(f"{self.name} {what}\n{said}")

    def port(self) -> int:
        """The port after `listening on http://127.0.0.1:`, or alone on a line."""
        while True:
            found = re.fullmatch(rb"(?:listening on https?://127\.0\.0\.1:)?(\d+)\n", self.line())
            if found is not None:
                return int(found[1])

    def ask(self, command: str, kind: type[_T], within_s: float = 90.0) -> _T:
        """Send one command line and read the answer.

        Raises:
            RuntimeError: it has ended, or gives no answer.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(command.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.failure("ended") from None
        return msgspec.json.decode(self.line(within_s), type=kind)

    def stop(self) -> None:
        """End it, whatever it takes."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                pipe.close()


@contextmanager
def running(
    module: str, *arguments: object, core: int, environ: Mapping[str, str] | None = None, nice: int = 0
) -> Iterator[Process]:
    """A process that is certainly gone afterwards."""
    process = Process(module, *arguments, core=core, environ=environ, nice=nice)
    try:
        yield process
    finally:
        process.stop()


class Served(msgspec.Struct, frozen=True):
    """A server to connect to. `feed_pid` is what feeds it, 0 where nothing does; `workers`: those that it started."""

    pid: int
    port: int
    feed_pid: int = 0
    workers: tuple[int, ...] = ()


@contextmanager
def daemon(
    cores: Cores,
    rate: float,
    environ: Mapping[str, str] | None = None,
    steps: Path | None = None,
    more: str = "",
) -> Iterator[Served]:
    """`tickerd run` against `tickerd simulate` at so many messages a second; on leaving, both are gone.

    Args:
        cores: who runs where.
        rate: messages a second.
        environ: settings beside `SETTINGS`.
        steps: where the steps of the daemon's tasks are to be timed (`tests.observed`).
        more: what the daemon's configuration has beside where the venues are.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "venues.toml")
        simulate = ("simulate", "--okx-rate", rate, "--stamp", "--config-out", config)
        with running("daemon", *simulate, core=cores.others) as venues:
            venues.port()
            config.write_text(config.read_text() + more)
            run: tuple[object, ...] = ("run", "--config", config)
            module, arguments = ("daemon", run) if steps is None else ("tests.observed", ("steps", steps, *run))
            settings = {**SETTINGS, **(environ or {})}
            with running(module, *arguments, core=cores.server, environ=settings) as server:
                served = Served(server.pid, server.port(), venues.pid, _children(server.pid))
                _wait_live(served.port, settings.get("TICKERD_SERVER__CERTIFICATE", ""))
                yield served


def _children(pid: int) -> tuple[int, ...]:
    return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@contextmanager
def write_loop(cores: Cores, rate: float, clients: int, payload: bytes) -> Iterator[Served]:
    """The bare write loop; rate 0 is as fast as it goes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "message.json")
        path.write_bytes(payload)
        arguments = ("--clients", clients, "--rate", rate, "--payload", path)
        with running("tests.bench.write_loop", *arguments, core=cores.server) as server:
            yield Served(server.pid, server.port())


class Clients:
    """The load generator's process, as the measures speak to it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def connect(self) -> float:
        """Open all connections; how many seconds until each had its welcome."""
        return self._process.ask("connect", Ready).seconds

    def subscribe(self) -> float:
        """Subscribe all; how many seconds until each had its answer."""
        return self._process.ask("subscribe", Ready).seconds

    def measure(self, seconds: float) -> Window:
        """Count for so long."""
        return self._process.ask(f"measure {seconds}", Window, seconds + 30)


@contextmanager
def load(cores: Cores, server: Served, clients: int, *options: object) -> Iterator[Clients]:
    """The load generator, not yet connected. `options` as on its command line."""
    pids = [option for pid in (server.pid, *server.workers) for option in ("--pid", pid)]
    arguments = ("--port", server.port, *pids, "--clients", clients, *options)
    with running("tests.bench.load", *arguments, core=cores.others) as process:
        yield Clients(process)


class Crowd:
    """A process of clients that come all at once (`tests.bench.newcomers`), as the measures speak to it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def arrive(self, count: int) -> Arrived:
        """So many come, and are served."""
        return self._process.ask(f"arrive {count}", Arrived)

    def resume(self, count: int, since: int, upto: int = 0) -> Arrived:
        """So many come, resume from that position, and are served; up to that other position, if there is one."""
        return self._process.ask(f"resume {count} {since} {upto}", Arrived)

    def drain(self, seconds: float) -> Drained:
        """All of them read for so long."""
        return self._process.ask(f"drain {seconds}", Drained, seconds + 30)


@contextmanager
def crowd(cores: Cores, server: Served, *options: object) -> Iterator[Crowd]:
    """Clients that are yet to come. `options` as on its command line."""
    with running("tests.bench.newcomers", "--port", server.port, *options, core=cores.others) as process:
        yield Crowd(process)


@contextmanager
def flood(cores: Cores, server: Served, path: str, *options: object) -> Iterator[Callable[[float], Flooded]]:
    """A flood of requests for that path, for so many seconds when it is called. `options` as on its command line."""
    arguments = ("--port", server.port, "--path", path, *options)
    # It takes what is left of its core: who measures beside it must not wait for it.
    with running("tests.bench.flood", *arguments, core=cores.others, nice=10) as process:
        yield lambda seconds: process.ask(f"flood {seconds}", Flooded, seconds + 30)


class Bystanders:
    """A process that looks what others notice (`tests.bench.bystander`), as the measures speak to it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def look(self) -> None:
        """Begin anew."""
        self._process.ask("look", Ready)

    def tell(self) -> Noticed:
        """What was noticed since then."""
        return self._process.ask("tell", Noticed)


@contextmanager
def bystanders(cores: Cores, server: Served, *options: object) -> Iterator[Bystanders]:
    """A few clients that are there already, and a health check. `options` as on its command line."""
    with running("tests.bench.bystander", "--port", server.port, *options, core=cores.others) as process:
        watching = Bystanders(process)
        watching.look()
        yield watching


def head(port: int) -> int:
    """The `seq` that the daemon's tape is at: from the welcome of a session that is opened for it."""
    with socket.create_connection(("127.0.0.1", port), timeout=START_WITHIN_S) as connection:
        connection.sendall(request(port))
        stream = connection.makefile("rb")
        while stream.readline().strip():
            pass
        length = stream.read(2)[1]
        if length == 126:
            (length,) = struct.unpack("!H", stream.read(2))
        return msgspec.json.decode(stream.read(length), type=_Welcome).seq


class _Welcome(msgspec.Struct):
    seq: int


def counted(port: int) -> dict[str, float]:
    """How many events each channel has had, by its name (`GET /metrics`)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_WITHIN_S)
    connection.request("GET", "/metrics")
    body = connection.getresponse().read().decode()
    connection.close()
    found = re.finditer(r'^tickerd_channel_events_total\{channel="(\w+)"\} (\S+)$', body, re.MULTILINE)
    return {each[1]: float(each[2]) for each in found}


def newest(port: int, channel: str) -> int:
    """The `seq` of the channel's newest message."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_WITHIN_S)
    connection.request("GET", f"/snapshot/{channel}")
    body = connection.getresponse().read()
    connection.close()
    return max(int(found[1]) for found in re.finditer(rb'"seq":(\d+),"prev_seq"', body))


class _Channel(msgspec.Struct):
    state: str


class _Channels(msgspec.Struct):
    channels: list[_Channel]


def _wait_live(port: int, trusting: str = "") -> None:
    """Until the feed delivers."""
    deadline_s = time.monotonic() + START_WITHIN_S
    context = ssl.create_default_context(cafile=trusting) if trusting else None
    while time.monotonic() < deadline_s:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_WITHIN_S)
        if context is not None:
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=START_WITHIN_S, context=context)
        connection.request("GET", "/channels")
        answer = msgspec.json.decode(connection.getresponse().read(), type=_Channels)
        connection.close()
        if all(channel.state == "live" for channel in answer.channels):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the feed delivered nothing within {START_WITHIN_S:g} s")
