"""The systemd unit says what the daemon relies on, and systemd understands it."""

import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "systemd" / "tickerd.service"

GRACE_S = 10
"""How long a stop may take the daemon by default."""

Unit = dict[str, dict[str, list[str]]]


def parse(text: str) -> Unit:
    """Sections, their keys, and each key's values in order, as systemd.syntax(7) has them."""
    unit: Unit = {}
    section: dict[str, list[str]] | None = None
    for line in text.splitlines():
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            section = unit.setdefault(line.strip("[]"), {})
            continue
        assert section is not None, f"a setting before the first section: {line}"
        key, equals, value = line.partition("=")
        assert equals, f"neither a section nor a setting: {line}"
        section.setdefault(key, []).append(value)
    return unit


@pytest.fixture(scope="module")
def unit() -> Unit:
    return parse(UNIT.read_text())


def only(values: list[str]) -> str:
    [value] = values
    return value


def test_it_starts_the_installed_command_with_the_configuration_of_the_system(unit: Unit) -> None:
    command = shlex.split(only(unit["Service"]["ExecStart"]))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert command[0].startswith("/")
    assert Path(command[0]).name in scripts
    assert command[1:] == ["run", "--config", "/etc/tickerd/tickerd.toml"]
    assert unit["Install"]["WantedBy"] == ["multi-user.target"]


def test_a_crash_is_restarted_and_a_bad_command_line_or_configuration_is_not(unit: Unit) -> None:
    service = unit["Service"]
    assert service["Restart"] == ["on-failure"]
    assert set(only(service["RestartPreventExitStatus"]).split()) == {"2", "78"}
    # systemd looks at the main process's status alone: a check that failed before it would be
    # repeated for ever.
    assert "ExecStartPre" not in service


def test_the_daemon_has_its_grace_period_before_it_is_killed(unit: Unit) -> None:
    service = unit["Service"]
    assert float(only(service["TimeoutStopSec"])) > GRACE_S
    assert service.get("KillSignal", ["SIGTERM"]) == ["SIGTERM"]
    assert service.get("SendSIGKILL", ["yes"]) == ["yes"]


def test_it_runs_without_privileges(unit: Unit) -> None:
    service = unit["Service"]
    assert service["DynamicUser"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]
    families = only(service["RestrictAddressFamilies"]).split()
    assert {"AF_INET", "AF_INET6"} <= set(families)


def test_the_tape_has_a_place_where_the_daemon_may_write(unit: Unit) -> None:
    assert unit["Service"]["StateDirectory"] == ["tickerd"]
    assert '"/var/lib/tickerd/tape"' in (ROOT / "systemd" / "tickerd.toml").read_text()


def verify(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on this machine")
    path = folder / UNIT.name
    # The command need not be installed here for the settings to be right.
    path.write_text(text.replace("/opt/tickerd/.venv/bin/tickerd", "/bin/true"))
    return subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", path],
        capture_output=True,
        text=True,
        check=False,
    )


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    verdict = verify(UNIT.read_text(), tmp_path)
    assert (verdict.returncode, verdict.stdout + verdict.stderr) == (0, "")


def test_systemd_would_complain_of_a_misspelt_setting(tmp_path: Path) -> None:
    verdict = verify(UNIT.read_text().replace("Restart=", "Restrat="), tmp_path)
    assert "Restrat" in verdict.stdout + verdict.stderr
