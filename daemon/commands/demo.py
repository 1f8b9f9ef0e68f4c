"""The simulated venues as commands: alone (`tickerd simulate`), or with a daemon for them (`tickerd demo`)."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import trio

from connectors.limits.rows import ANY_AGE_S
from connectors.simulator.simulator import SIMULATED, Simulator
from connectors.venues.registry import VENUES
from daemon.config.load import Config, parse
from daemon.config.presets import PRESETS, SEED
from daemon.config.reader import ENVIRONMENT_PREFIX, shown
from daemon.config.venues import url_keys
from daemon.front.listening import ServerSettings, open_listeners
from daemon.host.program import DAEMON
from protocol.kinds import KINDS

HOST: Final = "127.0.0.1"
"""Other machines can never reach the simulated venues."""

CADENCE_S: Final = 2.0
"""The cadence of scheduled channels in the demo, so that a user does not wait ten seconds."""

QUIET: Final = """
[log]
level = "warning"
"""
"""Some fifty connections and channels log something at the start: the demo's own words would leave the screen."""


async def simulate(simulator: Simulator, port: int, ready: Callable[[str, str], None]) -> int:
    """Serve the venues until SIGTERM or SIGINT.

    Args:
        simulator: The venues.
        port: 0 picks a free one.
        ready: Called once with the base URL and the configuration (TOML) that points the daemon at it.

    Returns:
        The exit code.

    Raises:
        OSError: The port cannot be used; its `filename` names it.
    """
    listeners = await open_listeners(ServerSettings(host=HOST, port=port))
    chosen: int = listeners[0].socket.getsockname()[1]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(simulator.run, listeners)
            config = simulator_config(HOST, chosen, recorded=simulator.is_recorded)
            ready(f"http://{HOST}:{chosen}", config)
            await anext(signals)
            nursery.cancel_scope.cancel()
    return 0


async def demo(venues: socket.socket, seed: int, serve: Callable[[], Awaitable[int]]) -> int:
    """Serve the venues on a listening socket, and run a daemon for them, until the daemon stops.

    Args:
        venues: The socket, which already listens; it is closed at the end.
        seed: Determines all values.
        serve: Runs the daemon, configured by `demo_config`.

    Returns:
        The daemon's exit code.

    Raises:
        BaseExceptionGroup: With the exceptions of `serve`, such as an OSError if the daemon's port cannot be used.
    """
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(venues))
    async with trio.open_nursery() as nursery:
        await nursery.start(Simulator(seed=seed).run, [listener])
        status = await serve()
        nursery.cancel_scope.cancel()
    return status


def demo_config(venues_port: int, environ: Mapping[str, str], port: int | None, workers: int | None = None) -> Config:
    """The configuration of the demo.

    Args:
        venues_port: Where the simulator listens.
        environ: Overrides; those of connectors are ignored, so that no real venue is contacted.
        port: Where the daemon listens, regardless of the environment; None keeps the configured port.
        workers: How many processes serve clients; None keeps what is configured.

    Raises:
        daemon.config.ConfigError: Something in the environment is not allowed.
    """
    real = f"{ENVIRONMENT_PREFIX}CONNECTORS__"
    kept = {name: value for name, value in environ.items() if not name.upper().startswith(real)}
    config = parse(simulator_config(HOST, venues_port, presets=presets()) + QUIET, kept, "the demo")
    replace = msgspec.structs.replace
    given = {key: value for key, value in (("port", port), ("workers", workers)) if value is not None}
    told = {name: replace(config.connectors.of(VENUES[name]), **SIMULATED[name]) for name in SIMULATED}
    return replace(
        config,
        server=replace(config.server, **given),
        connectors=replace(config.connectors, **told),
        simulated=True,
        channels=tuple(
            channel if channel.cadence_s is None else replace(channel, cadence_s=CADENCE_S)
            for channel in config.channels
        ),
    )


def presets() -> tuple[str, ...]:
    """All that the simulator has something for."""
    kinds = {kind for name in SIMULATED for kind in VENUES[name].kinds}
    made = {venue.name for venue in VENUES.values() if kinds.issuperset(KINDS[kind].made_of for kind in venue.kinds)}
    return tuple(name for name in PRESETS if name in (SEED, *SIMULATED, *made))


def simulator_config(host: str, port: int, *, recorded: bool = False, presets: Sequence[str] = ()) -> str:
    """The configuration (TOML) that points the daemon at that simulator and no real venue; its clients are told so.

    `recorded`: it serves what was recorded, whose times are old. So no pair is taken for halted because of that.
    `presets`: which there are, if they are not to be the default ones.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    catalogue = ["simulated = true"]
    catalogue += [f"presets = {shown(presets)}"] if presets else []
    # What was recorded of a venue's list need not have what was recorded of its prices.
    catalogue += ["check_instruments = false"] if recorded else []
    tables = ["\n".join(["[catalogue]", *catalogue, ""])]
    for name, venue in VENUES.items():
        if venue.is_derived:
            continue
        defaults = venue.settings()
        lines = [f'{key} = "{_moved(getattr(defaults, key), where)}"' for key in url_keys(venue)]
        lines += [f"halted_after_s = {ANY_AGE_S}"] if recorded and hasattr(defaults, "halted_after_s") else []
        lines = lines if name in SIMULATED else ["enabled = false"]
        tables.append("\n".join([f"[connectors.{name}]", *lines, ""]))
    return "\n".join(tables)


def _moved(url: str, where: str) -> str:
    """The same URL at another host and without TLS."""
    parts = urlsplit(url)
    return parts._replace(scheme=parts.scheme.removesuffix("s"), netloc=where).geturl()


def introduction(server: ServerSettings, urls: Sequence[str]) -> str:
    """The text that the demo prints: where it listens, and one line to try."""
    ports = {url.rpartition(":")[2] for url in urls}
    both = server.host == "localhost" and len(ports) == 1
    base = f"{urls[0].partition(':')[0]}://localhost:{ports.pop()}" if both else urls[0]
    websocket = f"ws{base.removeprefix('http')}/ws"
    return (
        f"page       {base}/\n"
        f"websocket  {websocket}\n"
        f"try        {one_liner(websocket)}\n"
        f"or         curl -N '{base}/events?channels=bitcoinprice'\n"
        "Simulated venues, made-up prices. Ctrl-C stops it."
    )


def one_liner(websocket: str) -> str:
    """A shell command that prints five messages. It needs this program, as it was called, and nothing beside it."""
    program = Path(sys.argv[0])
    if program.name == "tickerd":
        found = shutil.which("tickerd")
        called = "tickerd" if found and os.path.samefile(found, program) else shlex.quote(sys.argv[0])
    else:
        python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
        called = f"{shlex.quote(python)} -m {DAEMON}"
    return f"{called} watch --json bitcoinprice --url {shlex.quote(websocket)} | head -5"
