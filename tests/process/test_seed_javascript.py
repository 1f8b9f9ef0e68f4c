"""The user's JavaScript runs unchanged in Node, whatever the daemon sends: nothing trips it, and it gets its data."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.seed.examples import CHANNELS, COMMANDS, HERE, SENT, Scripted, javascript, judge, posting, types

WITHIN_MS = 20_000


@pytest.fixture(scope="module")
def node() -> str:
    """Node's path; `TICKERD_REQUIRE_NODE=1` makes its absence an error, as it is for the checks."""
    path = shutil.which("node")
    if path is None:
        absent = "no node here; Debian and Ubuntu have it: apt-get install nodejs"
        if os.environ.get("TICKERD_REQUIRE_NODE"):
            pytest.fail(absent)
        pytest.skip(absent)
    return path


def run(
    node: str, folder: Path, examples: dict[str, str], port: int, wanted: Sequence[str], named: Sequence[str]
) -> Any:
    """Run the examples against that port until each has met these types and channels; what came of it."""
    chart = folder / "node_modules" / "chart.js"
    chart.mkdir(parents=True)
    (chart / "package.json").write_text('{"name": "chart.js", "exports": {"./auto": "./auto.mjs"}}')
    (chart / "auto.mjs").write_text("export default globalThis.Chart;")
    modules = {}
    for heading, code in examples.items():
        if code.startswith("import "):
            module = folder / "example.mjs"
            module.write_text(code)
            modules[heading] = str(module)
    plan = {
        "port": port,
        "examples": examples,
        "commands": COMMANDS,
        "types": wanted,
        "channels": named,
        "modules": modules,
        "within_ms": WITHIN_MS,
    }
    written = folder / "plan.json"
    written.write_text(json.dumps(plan))
    command = [node, str(HERE / "node.mjs"), str(written)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_MS / 1000 + 20)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_javascript_runs_unchanged_against_the_daemon(node: str, demo_port: int, tmp_path: Path) -> None:
    examples = javascript()
    with posting(demo_port):
        found = run(node, tmp_path, examples, demo_port, SENT, CHANNELS)
    judge(found, SENT, CHANNELS)


def test_no_message_of_any_type_trips_the_javascript(node: str, tmp_path: Path) -> None:
    examples = javascript()
    wanted = sorted(types())
    with Scripted() as daemon:
        found = run(node, tmp_path, examples, daemon.port, wanted, ())
    judge(found, wanted, ())
