"""A real redis-server on loopback, for tests: on a free port and in a folder of its own, killed and started at will."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

PASSWORD = "engines-own-password"

PROGRAM = os.environ.get("ENGINE_PROGRAM", "redis-server")
"""What the tests run; `valkey-server` takes the same options."""


def tool(name: str) -> str:
    """Where it is; `TICKERD_REQUIRE_REDIS=1` makes its absence an error, as it is for the checks."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("TICKERD_REQUIRE_REDIS"):
            pytest.fail(f"{name} is not here, and TICKERD_REQUIRE_REDIS asks for it")
        pytest.skip(f"{name} is not here")
    return found


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class RedisServer:
    """One server. It keeps nothing on disk unless told to."""

    def __init__(self, folder: Path, *options: str, port: int = 0, program: str = PROGRAM) -> None:
        self.program = tool(program)
        self.folder = folder
        self.port = port or free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """As `[cluster] url` has it."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> RedisServer:
        """Start it, empty or with what it kept; returns when it answers."""
        common = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        kept = ["--save", "", "--appendonly", "no"]
        return self.start_with(*common, *kept, *self.options)

    def start_with(self, *arguments: str) -> RedisServer:
        """Start it with these arguments only; returns when it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen([self.program, *arguments], stdout=log, stderr=log)
        give_up_s = time.monotonic() + 20
        while True:
            try:
                if self.ask("PING"):
                    return self
            except OSError:
                if time.monotonic() > give_up_s or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def ask(self, *words: str) -> bytes:
        """Say one command, and take what comes at once: enough for what tests set and ask."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            said = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
            link.sendall(b"*%d\r\n%s" % (len(words), said))
            return link.recv(65_536)

    def kill(self) -> None:
        """End it as the power would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        """It answers nothing until `resume`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """After `pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
