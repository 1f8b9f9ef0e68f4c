"""The worked example of CONTRIBUTING.md: added to a copy of the project it passes the checks, and brings its prices."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.process.fenced import ROOT, blocks, only, replaced, section
from tests.process.running import tickerd

HEADING = "## Add a venue"
COPIED = ("daemon", "connectors", "protocol", "systemd")

TICKER = '{"symbol":"BTC_USDT","last":"42150.50","change":"2.45","time":1765211445101}'
"""The frame in the example's own description; a price with a digit that a float would lose."""


def applied(diff: str, text: str) -> str:
    """The text with one change made: lines with ` ` and `-`, there exactly once, give way to those with ` ` and `+`."""
    lines = diff.splitlines(keepends=True)
    assert {line[0] for line in lines} <= {" ", "+", "-"}, diff
    old = "".join(line[1:] for line in lines if line[0] != "+")
    new = "".join(line[1:] for line in lines if line[0] != "-")
    return replaced(text, (old, new))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is checked and run, with every block of the section in its place."""
    copy = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for info, body in blocks(section("CONTRIBUTING.md", HEADING)):
        kind, _, name = info.partition(" ")
        if not name:
            continue
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "diff":
            path.write_text(applied(body, path.read_text()))
        else:
            assert not path.exists(), f"{name} is no new file"
            path.write_text(body)
    return copy


def run(project: Path, *arguments: str) -> str:
    """What a tool says in the copy; the test fails where the tool does."""
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_it_passes_the_checks(project: Path) -> None:
    new = ["connectors/venues/example/tickers.py", "tests/connectors/venues/example/test_tickers.py"]
    changed = ["connectors/venues/registry.py", "protocol/payloads.py"]
    run(project, "ruff", "format", "--no-cache", "--check", "--diff", *new, *changed)
    run(project, "ruff", "check", "--no-cache", *new, *changed)
    assert "no issues" in run(project, "mypy", *new, *changed)


def test_its_section_in_the_example_of_a_configuration_is_one_that_can_be_set(project: Path) -> None:
    example = (project / "systemd" / "tickerd.toml").read_text()
    switched_off = example.partition("#[connectors.example]\n")[2].partition("\n\n")[0]
    keys = "".join(line.removeprefix("#") for line in switched_off.splitlines(keepends=True))
    (project / "section.toml").write_text(f"[connectors.example]\n{keys}")
    run(project, "daemon", "check", "section.toml")
    assert keys.count(" = ") == 3


def test_its_own_tests_pass(project: Path) -> None:
    assert " passed" in run(
        project, "pytest", "-q", "-p", "no:cacheprovider", "tests/connectors/venues/example/test_tickers.py"
    )


def answer(websocket: ServerConnection) -> None:
    """Example Exchange: it knows one symbol, and pushes its ticker once it is asked for."""
    try:
        for text in websocket:
            asked = json.loads(text)
            if "ping" in asked:
                websocket.send('{"pong":1}')
            elif asked["subscribe"] == "BTC_USDT":
                websocket.send(json.dumps({"id": asked["id"], "ok": True}))
                websocket.send(TICKER)
            else:
                websocket.send(json.dumps({"id": asked["id"], "ok": False, "error": "no such symbol"}))
    except ConnectionClosed:
        pass


@pytest.fixture
def venue() -> Iterator[str]:
    """Its URL."""
    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def test_the_daemon_brings_its_prices_with_the_venues_digits(project: Path, venue: str) -> None:
    config = project / "example.toml"
    others = "".join(f"[connectors.{name}]\nenabled = false\n" for name in ("binance", "okx", "coingecko"))
    channel = only("CONTRIBUTING.md", HEADING, "toml")
    config.write_text(f'[server]\nport = 0\n[connectors.example]\nurl = "{venue}"\n{others}{channel}')
    # The copy is found before the checkout, whose path an editable install has added.
    code = f"import sys; sys.path.insert(0, {str(project)!r}); from daemon.__main__ import main; sys.exit(main())"
    command = (sys.executable, "-P", "-c", code)
    with tickerd("run", "--config", str(config), command=command) as process:
        with connect(f"ws://localhost:{process.port}/ws") as websocket:
            websocket.send('{"type":"subscribe","channels":["examplebtc"]}')
            seen: dict[str, str] = {}
            while "price_update" not in seen or "no such symbol" not in seen.get("status", ""):
                text = websocket.recv(timeout=10)
                assert isinstance(text, str)
                seen[json.loads(text)["type"]] = text
        assert process.stop() == 0, process.lines
    update = json.loads(seen["price_update"])
    assert '"price":42150.50,' in seen["price_update"]
    assert f'"data":{TICKER}' in seen["price_update"]
    assert (update["connector_id"], update["exchange"], update["instrument"]) == ("examplebtc", "example", "BTC/USDT")
    assert update["exchange_ms"] == 1765211445101
    assert "ETH/USDT" in json.loads(seen["status"])["reason"]
