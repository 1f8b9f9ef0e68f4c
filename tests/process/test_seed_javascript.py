"""The user's JavaScript runs unchanged in Node, whatever the daemon sends: nothing trips it, and it gets its data."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from protocol.kinds import MESSAGES
from tests.seed.examples import ANSWERED, COMMANDS, HERE, Scripted, javascript, types

CHANNELS = (
    "binance_prices",
    "binance_orderbook",
    "binance_24hr",
    "coingecko_global",
    "coingecko_top",
    "coingecko_trending",
    "bitcoinprice",
    "ethprice",
)
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


def judge(found: Any, examples: dict[str, str], wanted: Sequence[str], named: Sequence[str]) -> None:
    """Nothing went wrong, everything was met, and each example did what it is for."""
    assert found["stray"] == []
    assert found["reports"].keys() == examples.keys()
    for heading, report in found["reports"].items():
        assert report["errors"] == [], heading
        assert set(wanted) <= set(report["types"]), heading
        assert set(named) <= set(report["channels"]), heading
    counts = {heading: report["counts"] for heading, report in found["reports"].items()}
    assert counts["Example 1: Real-Time Price Tracking"]["element price-BTC/USDT"] >= 1
    assert counts["Example 2: Order Book Monitoring"]["table"] >= 2
    assert counts["Example 3: Live Chart Updates"]["update"] >= 1
    assert counts["Example 4: Multi-Exchange Comparison"]["table"] >= 1
    assert counts["Message Validation"]["processMessage"] >= len(wanted)
    assert counts["JavaScript Client"]["updateUI"] >= len(wanted)


@contextmanager
def posting(port: int) -> Iterator[None]:
    """Somebody sends a test message to everybody, again and again."""
    over = threading.Event()

    def post() -> None:
        while not over.wait(0.3):
            httpx.post(f"http://localhost:{port}/ws/test", json={"message": "Hello, WebSocket!"})

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_the_javascript_runs_unchanged_against_the_daemon(node: str, demo_port: int, tmp_path: Path) -> None:
    examples = javascript()
    wanted = (*ANSWERED, *(str(message.__struct_config__.tag) for message in MESSAGES))
    with posting(demo_port):
        found = run(node, tmp_path, examples, demo_port, wanted, CHANNELS)
    judge(found, examples, wanted, CHANNELS)


def test_no_message_of_any_type_trips_the_javascript(node: str, tmp_path: Path) -> None:
    examples = javascript()
    wanted = sorted(types())
    with Scripted() as daemon:
        found = run(node, tmp_path, examples, daemon.port, wanted, ())
    judge(found, examples, wanted, ())
