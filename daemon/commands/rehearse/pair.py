"""One daemon and its venues, as processes of their own: `tickerd simulate`, and `tickerd run` before it.

All limits are short, so that a fault is noticed and overcome within seconds.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import trio

from connectors.simulator.simulator import SOCKET_VENUES
from connectors.venues.registry import VENUES
from daemon.commands.rehearse.client import Notebook, Pushes, listen, watch_ourselves
from daemon.commands.rehearse.records import LogLine
from daemon.commands.rehearse.set_clock import set_clock
from daemon.host.program import DAEMON, HOME, command
from protocol.kinds import KINDS, View

START_S: Final = 30.0
"""How long a process may take to listen, and a daemon to be live, on a machine that is busy."""

STOP_S: Final = 5.0

CHANNELS: Final[dict[str, tuple[str, ...]]] = {
    "binance": ("binance_prices", "binance_orderbook", "binance_24hr"),
    "coingecko": ("coingecko_global", "coingecko_top", "coingecko_trending"),
    "okx": ("bitcoinprice", "ethprice"),
}
"""By venue; one client listens to each venue's."""

ALL: Final = tuple(channel for group in CHANNELS.values() for channel in group)

_HEAD: Final = """\
[server]
host = "127.0.0.1"
port = 0

[supervisor]
backoff_base_s = 0.2
backoff_cap_s = 0.4
stable_after_s = 2.0
breaker_after = 10000
breaker_s = 0.5
restarts = 10000

[log]
format = "json"

"""
"""What every daemon of a rehearsal has."""

_CONFIG: Final = """\
[connectors.binance]
base_url = "http://127.0.0.1:{venues}"
timeout_s = 1.5

[connectors.okx]
url = "ws://127.0.0.1:{venues}/ws/v5/public"
silence_s = 2.0
timeout_s = 1.5

[connectors.coingecko]
base_url = "http://127.0.0.1:{venues}/api/v3"
plan = "unlimited"
timeout_s = 1.5

[channels.bitcoinprice]
stale_after_s = 2.5
[channels.ethprice]
stale_after_s = 2.5
[channels.binance_prices]
cadence_s = 1.0
[channels.binance_orderbook]
cadence_s = 1.0
[channels.binance_24hr]
cadence_s = 1.0
[channels.coingecko_global]
cadence_s = 1.0
[channels.coingecko_top]
cadence_s = 1.0
[channels.coingecko_trending]
cadence_s = 1.0

[tape]
path = "{tape}"
"""

_OWN: Final = """\

[limits]
ping_every_s = 1.0
silent_after_s = 8.0
write_deadline_s = 8.0
"""
"""What is added for the parts that are about the daemon's own time."""

STREAMED: Final[tuple[str, ...]] = tuple(
    name
    for name in SOCKET_VENUES
    if name in VENUES and {View.DEPTH, View.TRADE} <= {KINDS[kind].view for kind in VENUES[name].kinds}
)
"""The venues whose streams are rehearsed."""


class _Line(msgspec.Struct):
    message: str
    timestamp: datetime
    level: str = "info"
    exception: str = ""


class ProcessError(Exception):
    """A process that did not start."""


class Process:
    """`tickerd` with a command, and what it says.

    Attributes:
        log: Its log so far; lines that are no log of ours have the level `plain`.
        port: Where it listens, once it does.
    """

    def __init__(self, command: str, process: trio.Process) -> None:
        self.log: list[LogLine] = []
        self.port = 0
        self._command = command
        self._process = process
        self._listening = trio.Event()

    @property
    def ended(self) -> str:
        """How it ended; "" while it runs."""
        status = self._process.poll()
        return "" if status is None else f"it ended with {status}"

    def limit_files(self, size_bytes: int | None) -> None:
        """Let it write no file beyond that size from now on (RLIMIT_FSIZE, setrlimit(2)); None lifts that.

        Its log is a pipe, and no file. Raises: OSError, where it has ended.
        """
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (hard if size_bytes is None else size_bytes, hard))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It does not run for as long as the block lasts (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def read(self) -> None:
        """Take in what it says, to the end."""
        stdout = self._process.stdout
        if stdout is None:
            return
        rest = b""
        async for chunk in stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
        self._listening.set()

    async def wait_listening(self) -> None:
        """Raises: ProcessError, where it does not."""
        with trio.move_on_after(START_S):
            await self._listening.wait()
        if not self.port:
            said = "; ".join(line.text for line in self.log[-3:])
            raise ProcessError(f"tickerd {self._command} does not listen: {said}")

    def _take(self, line: bytes) -> None:
        found = re.fullmatch(rb"listening on http://127\.0\.0\.1:([0-9]+)", line)
        if found is not None:
            self.port = int(found[1])
            self._listening.set()
            return
        try:
            said = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError:
            self.log.append(LogLine(time.time() * 1000, "plain", line.decode(errors="replace")))
            return
        text = f"{said.message} {said.exception.splitlines()[-1]}" if said.exception else said.message
        self.log.append(LogLine(said.timestamp.timestamp() * 1000, said.level, text))


@asynccontextmanager
async def _process(*arguments: str, program: Sequence[str] = (DAEMON,)) -> AsyncIterator[Process]:
    process = await trio.lowlevel.open_process(
        command(*arguments, module=program),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(os.environ),
        # The very same program, wherever the user stands.
        cwd=HOME,
        # Ctrl-C is for us, and we end it.
        start_new_session=True,
    )
    ours = Process(arguments[0], process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.read)
            await ours.wait_listening()
            try:
                yield ours
            finally:
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(STOP_S):
                await process.wait()
            if process.poll() is None:
                process.kill()
                await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of another daemon, and without systemd's."""
    ours = ("TICKERD_", "NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_", "CREDENTIALS_DIRECTORY")
    return {name: value for name, value in environ.items() if not name.upper().startswith(ours)}


class Pair:
    """Venues, a daemon before them, and its clients."""

    def __init__(self, venues: Process, daemon: Process, book: Notebook, clock: Path | None = None) -> None:
        """`clock` is the file of the daemon's clock, where that can be set."""
        self.venues = venues
        self.daemon = daemon
        self.book = book
        self._clock = clock

    @property
    def own(self) -> bool:
        """Whether it is one for the parts about the daemon's own time."""
        return self._clock is not None

    def set_clock(self, ahead_s: float) -> None:
        """Put the daemon's clock so far ahead of the real one. Raises: OSError."""
        if self._clock is not None:
            set_clock(self._clock, ahead_s)

    @property
    def failure(self) -> str:
        """What is permanently broken; "" if nothing is."""
        if self.daemon.ended:
            return f"the daemon is down: {self.daemon.ended}"
        return f"the simulator is down: {self.venues.ended}" if self.venues.ended else self.book.failure

    def is_fresh(self, since_s: float, channels: Sequence[str] = ALL, gone: str | None = None) -> bool:
        """Whether these channels are live, and each of their topics has had data since; but one that is gone."""
        states, last = self.book.states, self.book.last
        if any(channel not in states or states[channel].state != "live" for channel in channels):
            return False
        newest = [data for data in last.values() if data.channel in channels and data.instrument != gone]
        return {data.channel for data in newest} == set(channels) and all(data.at_s >= since_s for data in newest)


@asynccontextmanager
async def running(folder: Path, seed: int, pushes: Pushes, *, own: bool = False) -> AsyncIterator[Pair]:
    """A pair with its clients subscribed; all of it is gone afterwards. `own`: see `Pair.own`.

    Raises:
        ProcessError: one of them does not start.
    """
    config = folder / "tickerd.toml"
    simulate = ("simulate", "--port", "0", "--seed", str(seed), "--stamp", "--cache-s", "1")
    async with _process(*simulate, "--config-out", str(folder / "venues.toml")) as venues:
        text = _HEAD + _CONFIG.format(venues=venues.port, tape=folder / "tape")
        config.write_text(text + _OWN if own else text, encoding="utf-8")
        clock, program = folder / "clock", [DAEMON]
        if own:
            set_clock(clock, 0.0)
            program = [set_clock.__module__, str(clock)]
        async with (
            _process("run", "--config", str(config), program=program) as daemon,
            trio.open_nursery() as clients,
        ):
            book = Notebook(pushes)
            clients.start_soon(watch_ourselves, book)
            for channels in CHANNELS.values():
                await clients.start(listen, f"ws://127.0.0.1:{daemon.port}/ws", channels, book)
            yield Pair(venues, daemon, book, clock if own else None)
            clients.cancel_scope.cancel()


@asynccontextmanager
async def streaming(folder: Path, seed: int, venue: str, book: Notebook) -> AsyncIterator[Pair]:
    """A pair of which the daemon has all streams of one venue, and whose client notes them in `book`.

    Raises:
        ProcessError: one of them does not start.
    """
    config, written = folder / "tickerd.toml", folder / "venues.toml"
    async with _process("simulate", "--port", "0", "--seed", str(seed), "--config-out", str(written)) as venues:
        text = await trio.to_thread.run_sync(written.read_text)
        # Both tables are there, and a table may stand in a file once.
        for table, more in (("catalogue", f'presets = ["{venue}"]'), (f"connectors.{venue}", "timeout_s = 1.5")):
            text = text.replace(f"[{table}]\n", f"[{table}]\n{more}\n")
        text = _HEAD + text
        config.write_text(text, encoding="utf-8")
        async with _process("run", "--config", str(config)) as daemon, trio.open_nursery() as clients:
            channels = [f"{venue}_{kind}" for kind in VENUES[venue].streamed]
            clients.start_soon(watch_ourselves, book)
            await clients.start(listen, f"ws://127.0.0.1:{daemon.port}/ws", channels, book)
            yield Pair(venues, daemon, book)
            clients.cancel_scope.cancel()
