"""The systemd units say what the daemon relies on, and systemd understands them."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from daemon.front.limits import Limits
from daemon.front.listening import ServerSettings
from tests.process.systemd_tool import systemd_tool

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "systemd" / "tickerd.service"
SOCKET = ROOT / "systemd" / "tickerd.socket"

MOST_EXPOSURE = 1.5
"""By `systemd-analyze security`: from 0, for a service that can do nothing, to 10."""

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


@pytest.fixture(scope="module")
def port() -> Unit:
    return parse(SOCKET.read_text())


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
    assert float(only(service["TimeoutStopSec"])) > Limits().grace_s
    assert service.get("KillSignal", ["SIGTERM"]) == ["SIGTERM"]
    assert service.get("SendSIGKILL", ["yes"]) == ["yes"]


def test_the_daemon_itself_says_when_it_is_ready_and_that_it_is_alive(unit: Unit) -> None:
    service = unit["Service"]
    # 252, Debian 12's, does not know Type=notify-reload.
    assert service["Type"] == ["notify"]
    assert service["NotifyAccess"] == ["main"]
    assert float(only(service["WatchdogSec"])) > Limits().grace_s
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_the_port_of_the_socket_unit_is_that_of_the_configuration(port: Unit) -> None:
    addresses = port["Socket"]["ListenStream"]
    assert addresses == [
        f"{f'[{host}]' if ':' in host else host}:{ServerSettings().port}" for host in ServerSettings().hosts
    ]
    assert "Accept" not in port["Socket"]
    assert port["Install"]["WantedBy"] == ["sockets.target"]


def test_a_daemon_that_will_not_start_is_not_started_for_ever(unit: Unit, port: Unit) -> None:
    """The limit must lie above what a crash that is restarted comes to: that must not close the port."""
    restarts_per_s = 1 / float(only(unit["Service"]["RestartSec"]))
    triggers = float(only(port["Socket"]["TriggerLimitBurst"]))
    assert triggers >= restarts_per_s * float(only(port["Socket"]["TriggerLimitIntervalSec"]))


def test_it_runs_without_privileges(unit: Unit) -> None:
    service = unit["Service"]
    assert service["DynamicUser"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]
    families = only(service["RestrictAddressFamilies"]).split()
    assert {"AF_INET", "AF_INET6"} <= set(families)


def test_tape_and_recording_have_a_place_where_the_daemon_may_write(unit: Unit) -> None:
    assert unit["Service"]["StateDirectory"] == ["tickerd tickerd/record"]
    example = (ROOT / "systemd" / "tickerd.toml").read_text()
    assert '"/var/lib/tickerd/tape"' in example
    assert '"/var/lib/tickerd/record"' in example


def verify(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    units = [folder / UNIT.name, folder / SOCKET.name]
    # The command need not be installed here for the settings to be right.
    units[0].write_text(text.replace("/opt/tickerd/.venv/bin/tickerd", "/bin/true"))
    units[1].write_text(SOCKET.read_text())
    return subprocess.run(
        [systemd_tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", *units],
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


def exposure(text: str, folder: Path) -> float:
    """What systemd makes of the service's sandbox, in one number."""
    path = folder / UNIT.name
    path.write_text(text)
    command = [systemd_tool("systemd-analyze"), "security", "--offline=yes", "--no-pager", str(path)]
    last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    found = re.search(rf"exposure level for {re.escape(UNIT.name)}: ([0-9.]+) ", last)
    assert found is not None, last
    return float(found[1])


def test_the_service_is_hardly_exposed(tmp_path: Path) -> None:
    assert exposure(UNIT.read_text(), tmp_path) <= MOST_EXPOSURE


def test_every_lock_that_is_left_open_shows(tmp_path: Path) -> None:
    text = UNIT.read_text()
    opened = re.sub(r"^(SystemCallFilter|PrivateUsers|CapabilityBoundingSet)=.*\n", "", text, flags=re.MULTILINE)
    assert exposure(opened, tmp_path) > MOST_EXPOSURE
