"""The processes of a cluster: simulated venues, nodes, an engine; they are started, killed, paused and cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import httpx

from tests.engine import free_port

ROOT: Final = Path(__file__).resolve().parents[2]

START_S: Final = 40.0


class Program:
    """One process of ours, that is started as often as it is ended."""

    def __init__(self, folder: Path, name: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [sys.executable, "-m", "daemon", *arguments]
        own = {key: value for key, value in os.environ.items() if not key.startswith("TICKERD_")}
        self._environment = own | (environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.is_paused = False

    def start(self) -> None:
        """Start it; `log` has what it says, of all its lives."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.is_paused = False

    @property
    def runs(self) -> bool:
        """Whether it does."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.process is not None and self.runs:
            self.process.send_signal(number)
            self.is_paused = number == signal.SIGSTOP or (self.is_paused and number != signal.SIGCONT)

    def kill(self) -> None:
        """End it as the power would."""
        if self.process is not None:
            self.send(signal.SIGKILL)
            self.process.wait()

    def stop(self, within_s: float = 30.0) -> int:
        """End it in order; returns its exit code."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(within_s)


class Venues(Program):
    """The simulated venues."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.config = folder / "venues.toml"
        super().__init__(folder, "venues", "simulate", "--port", "0", "--config-out", str(self.config), *options)

    def start(self) -> None:
        """Start them; returns when they serve."""
        super().start()
        give_up_s = time.monotonic() + START_S
        while not self.config.exists():
            assert self.runs, self.log.read_text()
            assert time.monotonic() < give_up_s, "the venues did not start"
            time.sleep(0.05)


class NodeProcess(Program):
    """One node."""

    def __init__(self, folder: Path, name: str, venues: Venues, url: str, more: str = "", **cluster: object) -> None:
        self.port = free_port()
        self.config = folder / f"{name}.toml"
        keys = {"url": url, "node": name, "lease_s": 2.0, **cluster}
        lines = "\n".join(
            f"{key} = {str(value) if not isinstance(value, str) else repr(value)}" for key, value in keys.items()
        )
        presets = '[catalogue]\npresets = ["seed", "okx"]\n'
        at_venues = venues.config.read_text().replace("[catalogue]\n", presets)
        assert presets in at_venues
        self.config.write_text(f"{at_venues}\n{more}\n[cluster]\n{lines}\n".replace("'", '"'))
        environment = {"TICKERD_SERVER__PORT": str(self.port), "TICKERD_SERVER__HOST": "127.0.0.1"}
        super().__init__(folder, name, "run", "--config", str(self.config), environment=environment)

    def get(self, path: str, timeout_s: float = 2.0) -> httpx.Response:
        """Ask it. Raises: httpx.HTTPError."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s)

    def cluster(self) -> dict[str, object]:
        """What it says of the cluster; nothing if it does not answer."""
        try:
            told: dict[str, object] = self.get("/cluster").json()
        except httpx.HTTPError:
            return {}
        return told

    def workers(self) -> list[int]:
        """The processes that serve its clients, where it has several and answers."""
        nodes = self.cluster().get("nodes")
        assert nodes is None or isinstance(nodes, list)
        own = [each for each in nodes or () if each["node"] == self.name] if self.runs and not self.is_paused else []
        return [each["pid"] for node in own for each in node["workers"] if each["pid"]]

    @property
    def state(self) -> str:
        """What it says that it does; "" if it says nothing."""
        told = self.cluster()
        nodes = told.get("nodes")
        assert nodes is None or isinstance(nodes, list)
        return next((str(each["state"]) for each in nodes or () if each["node"] == self.name), "")

    def wait(self, *states: str, within_s: float = START_S) -> str:
        """Wait until it is in one of these states; returns it."""
        give_up_s = time.monotonic() + within_s
        while (state := self.state) not in states:
            assert time.monotonic() < give_up_s, f"{self.name} is {state or 'silent'}, and not {' or '.join(states)}"
            time.sleep(0.05)
        return state
