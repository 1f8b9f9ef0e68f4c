"""`systemd/Containerfile` without an engine: what it copies is enough, and it runs as process 1, read-only."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from daemon.commands.arguments import parser
from tests.process.running import COMMAND, Process, tickerd
from tests.process.test_wheel import ROOT, build, only

FILE = ROOT / "systemd" / "Containerfile"
COMPOSE = (ROOT / "systemd" / "compose.yml").read_text()

STEPS = [
    (found[1], found[2])
    for line in FILE.read_text().splitlines()
    if (found := re.fullmatch(r"([A-Z]+) (.*)", line)) is not None
]
"""Instruction and the rest of the line, in order."""


def _said(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


def _command(text: str) -> list[str]:
    """The arguments of an instruction in exec form: a shell in between would take the signals."""
    words: list[str] = json.loads(text)
    assert words[0] == "tickerd"
    return words[1:]


def test_what_it_copies_is_all_that_the_wheel_needs(tmp_path: Path) -> None:
    source, made = tmp_path / "src", tmp_path / "made"
    for copied in _said("COPY"):
        if copied.startswith("--from"):
            continue
        *names, target = copied.split()
        for name in names:
            there = source / (name if target == "./" else target)
            there.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, there)
            else:
                shutil.copy(ROOT / name, there)
    build(source, made, "--target", "wheel")
    build(ROOT, tmp_path / "whole", "--target", "wheel")
    contents = [set(zipfile.ZipFile(only(folder, "*.whl")).namelist()) for folder in (made, tmp_path / "whole")]
    assert contents[0] == contents[1]
    [install, *_] = _said("RUN")
    program, script, prefix = shlex.split(install)
    assert (program, (source / script).is_file()) == ("sh", True)
    assert f"COPY --from=build {prefix} {prefix}" in FILE.read_text()
    assert any(entry.startswith(f"{prefix}/.venv/bin") for path in _said("ENV") for entry in path.split("="))


def test_it_is_nobody_in_particular_and_is_stopped_by_a_signal_that_the_daemon_knows() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", _said("USER")[-1])
    assert _said("STOPSIGNAL") == ["SIGTERM"]
    names = [name for name, _ in STEPS]
    assert "RUN" not in names[len(names) - 1 - names[::-1].index("FROM") :], "what runs is made in the first stage"


def test_its_commands_are_commands() -> None:
    entry = _said("ENTRYPOINT")
    assert entry == ['["tickerd"]']
    assert parser("1").parse_args(json.loads(_said("CMD")[-1])).command == "run"
    [composed] = re.findall(r"command: (\[.*\])", COMPOSE)
    arguments = parser("1").parse_args(json.loads(composed))
    assert f":{arguments.config}:ro" in COMPOSE
    for said in ("read_only: true", "cap_drop: [ALL]", "no-new-privileges:true", "dockerfile: systemd/Containerfile"):
        assert said in COMPOSE


def test_the_health_check_passes_while_the_daemon_answers(demo_port: int) -> None:
    [check] = _said("HEALTHCHECK")
    words = _command(check.partition(" CMD ")[2])

    def code(port: int) -> int:
        command = [*COMMAND, *words, "--url", f"127.0.0.1:{port}"]
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode

    assert code(demo_port) == 0
    assert code(1) == 1


UNSHARE = ("unshare", "--pid", "--fork", "--mount", "--kill-child")
READ_ONLY = 'mount -o remount,bind,ro / && ! touch "$1/x" 2>/dev/null && shift && exec "$@"'


def _own_root(folder: Path) -> list[str]:
    """A command that runs another one as process 1, in a file system that it cannot write to; or skips the test."""
    space = [*UNSHARE] if os.geteuid() == 0 else [*UNSHARE, "--user", "--map-root-user"]
    command = [*space, "sh", "-c", READ_ONLY, "sh", str(folder)]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False, timeout=30)
    if tried.returncode:
        pytest.skip(f"no namespaces of one's own, or another file system: {tried.stderr}")
    return command


def test_as_process_1_in_a_file_system_that_is_read_only_it_serves_and_stops(tmp_path: Path) -> None:
    inside = [
        *_own_root(tmp_path),
        sys.executable,
        "-c",
        "import os, sys; print(os.getpid()); os.execv(*sys.argv[1:2], sys.argv[1:])",
    ]
    command = [*inside, *COMMAND]
    with tickerd("demo", "--port", "0", command=command) as process:
        assert httpx.get(f"http://127.0.0.1:{process.port}/healthz").status_code == 200
        assert process.lines[0] == "1"
        _signal_child(process, signal.SIGTERM)
        assert process.wait() == 0, process.lines


def _signal_child(process: Process, number: int) -> None:
    """Signal what `unshare` has forked: as an engine does, from outside."""
    deadline_s = time.monotonic() + 10
    pid = process.process.pid
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline_s
    os.kill(int(children[0]), number)
