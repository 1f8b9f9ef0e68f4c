"""Standard output and standard error that are closed, full, or not read: a line or silence, and the daemon goes on."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

COMMANDS = [
    "--help",
    "--version",
    "check systemd/tickerd.toml",
    "check /nonexistent",
    "token partner",
    "ping --url ws://127.0.0.1:1",
    "channels --url ws://127.0.0.1:1",
    "watch --json --url ws://127.0.0.1:1 | head -0",
    "nosuch",
]

ROOT = Path(__file__).resolve().parents[2]


def shell(line: str) -> list[str]:
    return ["/bin/sh", "-c", line]


@pytest.mark.parametrize(
    "redirection", [">/dev/full", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_takes_nothing_gives_one_line_or_none(command: str, redirection: str) -> None:
    line = f"{shlex.quote(sys.executable)} -m daemon {command}"
    before, pipe, behind = line.partition(" | ")
    line = f"{before} {redirection}{pipe}{behind}"
    timeout = ["timeout", "20"]
    ended = subprocess.run([*timeout, *shell(line)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr
    assert ended.returncode in (0, 1, 2, 78)
    if redirection == ">/dev/full" and command == "check systemd/tickerd.toml":
        assert ended.stderr == "tickerd: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("redirection", [">/dev/full 2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_the_daemon_serves_without_outputs_and_nothing_else_gets_their_numbers(
    tmp_path: Path, redirection: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nowhere = "http://127.0.0.1:1"
    (tmp_path / "tickerd.toml").write_text(
        f"server.host = '127.0.0.1'\nserver.port = {port}\ntape.path = '{tmp_path / 'tape'}'\n"
        f"connectors.okx.enabled = false\nconnectors.binance.base_url = '{nowhere}'\n"
        f"connectors.coingecko.base_url = '{nowhere}'\n"
    )
    line = f"exec {shlex.quote(sys.executable)} -m daemon run --config {tmp_path / 'tickerd.toml'} {redirection}"
    daemon = subprocess.Popen(shell(line), cwd=ROOT)
    try:
        deadline_s = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert daemon.poll() is None, "it ended"
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        # Once the daemon has said where it listens, and found that nobody takes it, a full output is given up, too.
        numbers = [f"/proc/{daemon.pid}/fd/{number}" for number in (1, 2)]
        while [os.readlink(number) for number in numbers] != ["/dev/null", "/dev/null"]:
            seen = {os.readlink(number) for number in numbers}
            assert seen <= {"/dev/null", "/dev/full" if "full" in redirection else "/dev/null"}
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) == 0
    finally:
        daemon.kill()
        daemon.wait()
