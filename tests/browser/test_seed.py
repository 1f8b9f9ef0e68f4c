"""The user's JavaScript runs unchanged in a page, whatever the daemon sends: nothing trips it, and it gets its data."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser

from tests.browser.looking import WITHIN_MS
from tests.seed.examples import CHANNELS, COMMANDS, HERE, SENT, Scripted, javascript, judge, posting, types

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>%(heading)s</title>
<script type="importmap">
{"imports": {"chart.js/auto": "data:text/javascript,export default globalThis.Chart;"}}
</script>
<canvas id="priceChart"></canvas>
<div id="price-BTC/USDT"></div>
<script>%(host)s</script>
<script>
const report = seed.prepare(window, {Socket: WebSocket, port: %(port)d, commands: %(commands)s});
addEventListener('error', ({error, message}) => report.errors.push(`uncaught ${error?.stack ?? message}`));
addEventListener('unhandledrejection', ({reason}) => report.errors.push(`unhandled ${reason?.stack ?? reason}`));
seed.begin(window, %(quoted)s);
</script>
<script %(kind)s>
%(code)s
</script>
<script>
seed.call(window, document.title, (text) => (0, eval)(text));
</script>
"""


def written(heading: str, code: str, port: int) -> str:
    """A page with that example in it, word for word."""
    return PAGE % {
        "heading": heading,
        "host": (HERE / "host.js").read_text(),
        "port": port,
        "commands": json.dumps(COMMANDS),
        "kind": 'type="module"' if code.startswith("import ") else "",
        "code": code,
        "quoted": json.dumps(code),
    }


def run(browser: Browser, pages: Path, port: int, wanted: Sequence[str], named: Sequence[str]) -> dict[str, Any]:
    """Run each example in a page of its own, opened from a file, until it has met these types and channels."""
    reports = {}
    for number, (heading, code) in enumerate(javascript().items()):
        context = browser.new_context()
        page = context.new_page()
        file = pages / f"example-{number}.html"
        file.write_text(written(heading, code, port))
        page.goto(file.as_uri())
        deadline = time.monotonic() + WITHIN_MS / 1000
        while True:
            report = page.evaluate("report")
            if set(wanted) <= set(report["types"]) and set(named) <= set(report["channels"]):
                break
            assert time.monotonic() < deadline, (heading, report)
            page.wait_for_timeout(20)
        if heading == "1. Connection Management":
            page.evaluate("disconnect()")
        page.wait_for_timeout(100)
        reports[heading] = page.evaluate("report")
        context.close()
    return {"reports": reports, "stray": []}


def test_the_javascript_runs_unchanged_against_the_daemon(browser: Browser, demo_url: str, tmp_path: Path) -> None:
    port = urlsplit(demo_url).port
    assert port is not None
    with posting(port):
        found = run(browser, tmp_path, port, SENT, CHANNELS)
    judge(found, SENT, CHANNELS)


def test_no_message_of_any_type_trips_the_javascript(browser: Browser, tmp_path: Path) -> None:
    wanted = sorted(types())
    with Scripted() as daemon:
        found = run(browser, tmp_path, daemon.port, wanted, ())
    judge(found, wanted, ())
