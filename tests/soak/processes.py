"""The two processes of a soak: the simulated venues, and the daemon; and what the daemon costs."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tests.observed import COUNT

ROOT: Final = Path(__file__).resolve().parents[2]
START_S: Final = 30.0
STOP_S: Final = 20.0

_OPINION_S: Final = 5.0

CONFIG: Final = """\
[server]
host = "127.0.0.1"
port = 0
workers = {workers}

[limits]          # short, so that all of them are met within minutes
ping_every_s = 4
silent_after_s = 16
write_deadline_s = 14
grace_s = 5

[tape]            # some eight seconds of what is busy, so that clients fall out of it, and so few bytes that it is full
entries = 900     # when the first wave ends, with long messages of slow channels too; on a disk that fails now and then
bytes = 1_048_576
path = "{tape}"

[supervisor]      # venues come back soon, and are given up never
backoff_base_s = 0.2
backoff_cap_s = 1.0
stable_after_s = 3.0
breaker_after = 1000
breaker_s = 2.0
restarts = 100000

[connectors.binance]
base_url = "http://127.0.0.1:{venues}"
stream_url = "ws://127.0.0.1:{venues}"
silence_s = 2.0
timeout_s = 2.0

[connectors.bybit]
url = "ws://127.0.0.1:{venues}/v5/public/spot"
silence_s = 2.0
timeout_s = 2.0

[connectors.coinbase]
url = "ws://127.0.0.1:{venues}"
silence_s = 2.0
timeout_s = 2.0

[connectors.kraken]
url = "ws://127.0.0.1:{venues}/v2"
silence_s = 2.0
timeout_s = 2.0

[connectors.okx]
url = "ws://127.0.0.1:{venues}/ws/v5/public"
business_url = "ws://127.0.0.1:{venues}/ws/v5/business"
silence_s = 2.0
timeout_s = 2.0

[connectors.coingecko]
base_url = "http://127.0.0.1:{venues}/api/v3"
plan = "unlimited"
timeout_s = 2.0

[catalogue]
presets = ["seed", "binance", "okx", "coinbase", "kraken", "bybit", "market"]

[channels.binance_prices]
cadence_s = 1.0
[channels.binance_orderbook]
cadence_s = 1.0
[channels.binance_24hr]
cadence_s = 1.0
[channels.coingecko_global]
cadence_s = 2.0
[channels.coingecko_top]
cadence_s = 2.0
[channels.coingecko_trending]
cadence_s = 2.0

# Streams, but no more of them than a small machine tells to two hundred clients.
[channels.binance_ticker]
enabled = false
[channels.binance_trades]
instruments = ["BTC/USDT"]
[channels.binance_quotes]
instruments = ["BTC/USDT"]
[channels.binance_book]
enabled = false
[channels.binance_depth]
instruments = ["BTC/USDT"]
[channels.binance_candles]
enabled = false
[channels.bybit_ticker]
enabled = false
[channels.bybit_trades]
instruments = ["ETH/USDT"]
[channels.bybit_quotes]
instruments = ["BTC/USDT"]
[channels.bybit_book]
enabled = false
[channels.bybit_depth]
instruments = ["BTC/USDT", "ETH/USDT"]
[channels.bybit_candles]
instruments = ["ETH/USDT"]
[channels.coinbase_ticker]
enabled = false
[channels.coinbase_trades]
instruments = ["BTC/USDT"]
[channels.coinbase_quotes]
instruments = ["ETH/USDT"]
[channels.coinbase_book]
enabled = false
[channels.coinbase_depth]
instruments = ["BTC/USDT", "ETH/USDT"]
[channels.coinbase_candles]
instruments = ["BTC/USDT"]
[channels.okx_ticker]
enabled = false
[channels.okx_book]
instruments = ["BTC/USDT"]
[channels.okx_candles]
instruments = ["BTC/USDT"]
[channels.kraken_ticker]
enabled = false
[channels.kraken_trades]
instruments = ["ETH/USDT"]
[channels.kraken_quotes]
instruments = ["BTC/USDT", "ETH/USDT"]
[channels.kraken_book]
instruments = ["ETH/USDT"]
[channels.kraken_depth]
instruments = ["BTC/USDT", "ETH/USDT"]
[channels.kraken_candles]
instruments = ["ETH/USDT"]
"""
"""The daemon's configuration; `{venues}` is the simulator's port, `{tape}` the tape's file."""


class Cost(msgspec.Struct, frozen=True):
    """What the daemon takes at one moment. `memory_kib` is resident (VmRSS, proc(5)), without the kernel's buffers."""

    memory_kib: int
    files: int
    tasks: int


class Process:
    """One process whose output goes to a file; through a pipe, so that a limit on its files is none on its output."""

    def __init__(self, log: Path, *arguments: object) -> None:
        self.log = log
        log.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._copying = threading.Thread(target=self._copy, daemon=True)
        self._copying.start()

    def _copy(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said, self.log.open("wb", buffering=0) as file:
            for line in said:
                file.write(line)

    def limit_files(self, size_bytes: int | None) -> None:
        """Let it write no file beyond that size from now on (RLIMIT_FSIZE, setrlimit(2)); None lifts that."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard if size_bytes is None else size_bytes, hard))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def port(self) -> int:
        """Where it listens, as soon as it says so. Raises: RuntimeError, where it does not."""
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self.alive:
            found = re.search(
                r"^listening on http://127\.0\.0\.1:(\d+)$", self.log.read_text(errors="replace"), re.MULTILINE
            )
            if found is not None:
                return int(found[1])
            time.sleep(0.05)
        raise RuntimeError(f"{self.log} says nothing about listening")

    def stop(self) -> int | None:
        """SIGTERM; the exit code, or None where it had to be killed."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None
        finally:
            self._copying.join(STOP_S)


class Daemon(Process):
    """`tickerd run`, with its tasks counted."""

    def __init__(self, folder: Path, venues_port: int, fault: str, workers: int = 1) -> None:
        config, self._count, self._inside = folder / "tickerd.toml", folder / "tasks", folder / "inside"
        config.write_text(CONFIG.format(venues=venues_port, tape=folder / "tape", workers=workers), encoding="utf-8")
        inside = "tests.soak.inside", self._count, self._inside, fault
        super().__init__(folder / "daemon.log", *inside, "run", "--config", config)

    def opinion(self, client_port: int) -> str:
        """What it thinks of the client with that port."""
        return self._ask(str(client_port))

    def set_clock(self, by_s: float) -> None:
        """Set its wall clock forward, or back where that is less than nothing. Raises: RuntimeError."""
        if (said := self._ask(f"clock {by_s}")) != "done":
            raise RuntimeError(said)

    def _ask(self, question: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(_OPINION_S)
                asking.connect(str(self._inside))
                asking.sendall(question.encode())
                return asking.recv(4096).decode()
        except OSError as error:
            return f"it does not say what it thinks: {error!r}"

    def pause(self, for_s: float) -> None:
        """Stop it (SIGSTOP) with its workers, as a frozen virtual machine is, and let it go on after so long."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        pids = [self.pid, *map(int, children)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(for_s)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def cost(self) -> Cost:
        """What it takes now. Raises: RuntimeError, where it has ended."""
        process = Path("/proc", str(self.pid))
        found = re.search(r"^VmRSS:\s+(\d+) kB$", process.joinpath("status").read_text(), re.MULTILINE)
        if found is None:
            raise RuntimeError("the daemon has ended")
        (tasks,) = COUNT.unpack(self._count.read_bytes())
        return Cost(int(found[1]), len(os.listdir(process / "fd")), tasks)

    def tracebacks(self) -> list[str]:
        """The lines of its log that hold a traceback (a record is one line)."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if "Traceback" in line]


@contextmanager
def running(folder: Path, seed: int, okx_rate: float, fault: str, workers: int = 1) -> Iterator[tuple[int, Daemon]]:
    """The simulator (its port) and the daemon before it; both are certainly gone afterwards."""
    simulate = ("simulate", "--port", 0, "--seed", seed, "--okx-rate", okx_rate, "--config-out", folder / "venues.toml")
    venues = Process(folder / "venues.log", "daemon", *simulate)
    try:
        port = venues.port()
        daemon = Daemon(folder, port, fault, workers)
        try:
            yield port, daemon
        finally:
            daemon.stop()
    finally:
        venues.stop()
