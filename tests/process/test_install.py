"""`systemd/install`, by which `make install-service` and the Containerfile install, without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.test_wheel import ROOT

INSTALL = ROOT / "systemd" / "install"


def _install(prefix: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ |= {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    command = ["sh", str(INSTALL), prefix]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_without_a_network_what_was_installed_before_stays(tmp_path: Path) -> None:
    old = tmp_path / "prefix" / ".venv" / "bin" / "tickerd"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    done = _install(str(tmp_path / "prefix"))
    assert done.returncode != 0
    assert done.stdout.startswith("1/4 the packages that tickerd needs\n")
    assert "No matching distribution found" in done.stderr
    assert old.read_text() == "old"


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("opt", "tickerd: got PREFIX opt; allowed: an absolute path, as /opt/tickerd\n"),
        ("/proc/tickerd", "tickerd: /proc/tickerd cannot be written; use sudo, or another PREFIX\n"),
    ],
)
def test_a_place_that_is_none_is_told_in_one_line(prefix: str, said: str) -> None:
    done = _install(prefix)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_elsewhere_it_says_where_it_belongs(tmp_path: Path) -> None:
    assert _install(str(tmp_path), cwd=tmp_path).stderr == "tickerd: run this in the project's folder\n"


def test_the_unit_looks_for_the_command_where_it_is_installed() -> None:
    unit = (ROOT / "systemd" / "tickerd.service").read_text()
    assert "ExecStart=/opt/tickerd/.venv/bin/tickerd run " in unit
    assert "prefix=${1:-/opt/tickerd}" in INSTALL.read_text()
    assert "PREFIX ?= /opt/tickerd" in (ROOT / "Makefile").read_text()
