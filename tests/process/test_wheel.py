"""What `make dist` builds: a wheel that has all it needs, and runs where no checkout is and another `daemon` may be."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.process.running import tickerd

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("daemon", "connectors", "protocol")
EPOCH = "1765211445"
"""The time that the builds are stamped with: what does not follow from it must not get into them."""


def build(source: Path, target: Path, *options: str) -> None:
    """Build as `make dist` does, elsewhere."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target), *options]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    subprocess.run(command, cwd=source, env=environ, check=True, capture_output=True)


def only(folder: Path, pattern: str) -> Path:
    [path] = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which sees the dependencies of this one, and no index."""
    prefix = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(prefix, symlinks=True)
    python = prefix / "bin" / "python"
    wheel = str(only(built, "*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, cwd=prefix, check=True, capture_output=True)
    # A path in a .pth file is searched last, and .pth files of that path (our editable install) are not read.
    (only(prefix, "lib/python*/site-packages") / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return prefix


@pytest.fixture
def beside_python_daemon(installed: Path) -> Iterator[Path]:
    """The same, with a package `daemon` as `pip install python-daemon` puts it there."""
    package = only(installed, "lib/python*/site-packages") / "daemon"
    package.mkdir()
    (package / "__init__.py").write_text("from daemon.daemon import DaemonContext as DaemonContext\n")
    (package / "daemon.py").write_text("class DaemonContext:\n    pass\n")
    yield installed
    shutil.rmtree(package)


def sources() -> set[str]:
    """Every file of the packages, as git would have it, and where it is in the wheel."""
    return {
        f"tickerd/{path.relative_to(ROOT).as_posix()}".replace("tickerd/daemon/public/", "")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }


def test_the_wheel_has_every_source_and_the_operators_files_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    data = {f"{folder}/{name}" for name in names for folder, mark, name in [name.partition(".data/data/")] if mark}
    shared = {name.partition("/share/tickerd/")[2] for name in data}
    there = {path.relative_to(ROOT / "systemd").as_posix() for path in (ROOT / "systemd").rglob("*") if path.is_file()}
    assert shared == there | {""}
    assert {mark + man for name in data for _, mark, man in [name.partition("share/man/")] if mark} == {
        "share/man/man1/tickerd.1"
    }
    assert {"tickerd.service", "tickerd.toml"} <= shared
    packed = {name for name in names if ".data/" not in name}
    assert packed == sources()
    assert {"daemon/routes/web/index.html", "daemon/routes/web/client.js", "py.typed"} <= {
        name.removeprefix("tickerd/") for name in packed
    }
    assert len(names) == len(packed) + len(data)


def test_the_metadata_describe_it(built: Path) -> None:
    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        by_name = {name.rpartition(".dist-info/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
        metadata = wheel.read(by_name["METADATA"])
        described = email.message_from_bytes(metadata)
        assert wheel.read(by_name["licenses/LICENSE"]) == (ROOT / "LICENSE").read_bytes()
        assert b"tickerd = tickerd.__main__:main" in wheel.read(by_name["entry_points.txt"])
    assert described["Description-Content-Type"] == "text/markdown"
    text = metadata.partition(b"\n\n")[2].decode()
    assert text.strip() == (ROOT / "README.md").read_text().strip()
    assert "MIT" in described["License-Expression"]


def test_the_same_sources_make_the_same_bytes_and_the_source_archive_makes_the_same_wheel(
    built: Path, tmp_path: Path
) -> None:
    build(ROOT, tmp_path / "again")
    for pattern in ("*.whl", "*.tar.gz"):
        assert only(tmp_path / "again", pattern).read_bytes() == only(built, pattern).read_bytes()
    with tarfile.open(only(built, "*.tar.gz")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    unpacked = only(tmp_path / "unpacked", "tickerd-*")
    assert (unpacked / "tests" / "process" / "test_wheel.py").is_file()
    assert (unpacked / "requirements.lock").is_file()
    build(unpacked, tmp_path / "third", "--target", "wheel")
    assert only(tmp_path / "third", "*.whl").read_bytes() == only(built, "*.whl").read_bytes()


def test_installed_away_from_the_checkout_it_runs_and_stops(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "bin" / "tickerd")]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    version = subprocess.run([*command, "--version"], cwd=tmp_path, env=environ, check=True, capture_output=True)
    assert version.stdout.startswith(b"tickerd 0.")
    which = [str(installed / "bin" / "python"), "-c", "import tickerd.daemon.app as app; print(app.__file__)"]
    where = subprocess.run(which, cwd=tmp_path, env=environ, check=True, capture_output=True, text=True)
    assert Path(where.stdout.strip()).is_relative_to(installed)
    # The example of a configuration that came along is one that it takes.
    example = str(installed / "share" / "tickerd" / "tickerd.toml")
    subprocess.run([*command, "check", example], cwd=tmp_path, env=environ, check=True, capture_output=True)
    with tickerd("demo", "--port", "0", command=command) as process:
        base = f"http://127.0.0.1:{process.port}"
        assert "<title>tickerd" in httpx.get(f"{base}/").text
        assert "export function connect" in httpx.get(f"{base}/client.js").text
        assert httpx.get(f"{base}/healthz").status_code == 200
        with connect(f"ws://127.0.0.1:{process.port}/ws") as websocket:
            assert json.loads(websocket.recv(timeout=5))["type"] == "welcome"
        assert process.stop() == 0, process.lines


@pytest.mark.parametrize("module", [("-m", "tickerd"), ("-m", "tickerd.daemon")])
def test_it_is_a_module_to_run_too(installed: Path, tmp_path: Path, module: tuple[str, str]) -> None:
    command = [str(installed / "bin" / "python"), *module, "--version"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert said.stdout.startswith(b"tickerd 0.")


CLIENTS = """
import sys
import daemon
print(daemon.DaemonContext.__module__)

import tickerd
import tickerd.asyncio
assert "trio" not in sys.modules
assert {"connect", "Gap", "records"} <= set(dir(tickerd))

import asyncio

async def on_asyncio(url):
    async with tickerd.asyncio.connect(url) as client:
        async for message in client.subscribe("bitcoinprice"):
            if isinstance(message, tickerd.PriceUpdate):
                return print("asyncio", tickerd.records(message)[0]["channel"])

async def on_trio(url):
    async with tickerd.connect(url) as client:
        async for message in client.subscribe("bitcoinprice"):
            if isinstance(message, tickerd.PriceUpdate):
                return print("trio", tickerd.records(message)[0]["channel"])

asyncio.run(on_asyncio(sys.argv[1]))
import trio
trio.run(on_trio, sys.argv[1])
"""


def test_another_daemon_and_this_one_do_not_notice_each_other(beside_python_daemon: Path, tmp_path: Path) -> None:
    python = str(beside_python_daemon / "bin" / "python")
    script = tmp_path / "clients.py"
    script.write_text(CLIENTS)
    with tickerd("demo", "--port", "0", command=[str(beside_python_daemon / "bin" / "tickerd")]) as process:
        command = [python, str(script), f"ws://127.0.0.1:{process.port}/ws"]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (said.stderr, said.stdout.split()) == (
            "",
            ["daemon.daemon", *["asyncio", "bitcoinprice", "trio", "bitcoinprice"]],
        )
        assert process.stop() == 0, process.lines


def test_its_own_processes_are_started_by_its_own_name(beside_python_daemon: Path, tmp_path: Path) -> None:
    """As the rehearsal does, with the daemon on a clock that can be set."""
    program = (
        "import subprocess; from tickerd.daemon.host import program as p\n"
        "from tickerd.daemon.commands.rehearse import set_clock as s\n"
        f"from pathlib import Path; clock = Path({str(tmp_path / 'clock')!r}); s.set_clock(clock, 0.0)\n"
        "for module in [(p.DAEMON,), (s.__name__, str(clock))]:\n"
        "    subprocess.run(p.command('--version', module=module), cwd=p.HOME, check=True)\n"
    )
    python = str(beside_python_daemon / "bin" / "python")
    said = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (said.stderr, [line.split()[0] for line in said.stdout.splitlines()]) == ("", ["tickerd", "tickerd"])


def test_a_traceback_names_the_lines_of_the_source(installed: Path, tmp_path: Path) -> None:
    """What is added to imports moves no line."""
    program = "from tickerd.daemon.client.core.endpoint import check_token; check_token('two words')"
    python = str(installed / "bin" / "python")
    said = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    [line] = re.findall(r"endpoint.py\", line (\d+), in check_token", said.stderr)
    source = (ROOT / "daemon" / "client" / "core" / "endpoint.py").read_text().splitlines()
    assert 'raise ValueError("a token consists' in source[int(line) - 1]


def test_types_are_seen_by_who_installs_it(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "typed.py"
    script.write_text(
        "from tickerd import Data, Gap, connect\n"
        "from tickerd.asyncio import connect as connect_on_asyncio\n"
        "async def main() -> None:\n"
        "    async with connect('x') as client, connect_on_asyncio('x') as other:\n"
        "        reveal_type(client)\n"
        "        reveal_type(other)\n"
        "        async for message in client.subscribe('x'):\n"
        "            if isinstance(message, Gap):\n"
        "                reveal_type(message.after)\n"
        "from tickerd import conect  # type: ignore[attr-defined]\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--python-executable"]
    command += [str(installed / "bin" / "python"), str(script)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    types = re.findall(r'Revealed type is "(?:tickerd\.daemon\.)?([\w.]+)"', said.stdout)
    assert types == ["client.trio.client.Client", "client.asyncio.client.Client", "int"], said.stdout
    assert said.returncode == 0
