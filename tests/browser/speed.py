"""How much of a core the page takes, and how often it paints: `python -m tests.browser.speed` prints a table."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from playwright.sync_api import Browser, CDPSession, sync_playwright

from tests.browser.conftest import launch
from tests.browser.looking import Look, looking
from tests.browser.outages import behind_venues
from tests.process.running import tickerd, wait_ready

TABLES: Final = ("#price-rows", "#venue-rows", "#compare-rows", "#chart-text")

_WATCH: Final = """([tables, ms]) => new Promise((done) => {
  const [changed, gaps] = [Object.fromEntries(tables.map((table) => [table, 0])), []];
  for (const table of tables) {
    new MutationObserver(() => { changed[table] += 1; })
      .observe(document.querySelector(table), {subtree: true, childList: true, characterData: true});
  }
  const began = performance.now();
  let before = began;
  requestAnimationFrame(function next(now) {
    gaps.push(now - before);
    before = now;
    if (now - began < ms) requestAnimationFrame(next); else done({changed, gaps, s: (now - began) / 1000});
  });
})"""


class Speed(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        messages_per_s: messages that the page folded in.
        busy: the main thread's own time per second, all of it: scripts, layout, painting. 0.5 is half a core.
        changes_per_s: how often each of `TABLES` was changed.
        frame_ms: the median time between two frames.
        longest_ms: the longest.
    """

    messages_per_s: float
    busy: float
    changes_per_s: dict[str, float]
    frame_ms: float
    longest_ms: float


def measure(look: Look, seconds: float) -> Speed:
    """Watch the page for so long."""
    tools = look.page.context.new_cdp_session(look.page)
    # In the thread's own time: it is the same on a machine that others use.
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})
    before, count, at_ms = _metrics(tools), *_received(look)
    seen: dict[str, Any] = look.page.evaluate(_WATCH, [TABLES, seconds * 1000])
    after, count_after, after_ms = _metrics(tools), *_received(look)
    tools.detach()
    gaps = sorted(seen["gaps"])
    return Speed(
        messages_per_s=(count_after - count) / (after_ms - at_ms) * 1000,
        busy=(after["TaskDuration"] - before["TaskDuration"]) / (after["Timestamp"] - before["Timestamp"]),
        changes_per_s={table: changes / seen["s"] for table, changes in seen["changed"].items()},
        frame_ms=gaps[len(gaps) // 2],
        longest_ms=gaps[-1],
    )


def _metrics(tools: CDPSession) -> dict[str, float]:
    """How long the main thread has run (`TaskDuration`), and when that was read (`Timestamp`), both in seconds."""
    return {each["name"]: float(each["value"]) for each in tools.send("Performance.getMetrics")["metrics"]}


def _received(look: Look) -> tuple[int, float]:
    """How many messages have come, and when that was counted, in ms."""
    count, at_ms = look.market("[market.counts.messages, performance.now()]")
    return count, at_ms


@contextmanager
def _prices(rate: int) -> Iterator[str]:
    """Two instruments of OKX at so many ticks a second each, beside the polled ones."""
    with tempfile.TemporaryDirectory() as folder, behind_venues(Path(folder), "--okx-rate", str(rate)) as (_, daemon):
        yield f"http://127.0.0.1:{daemon.port}/"


@contextmanager
def _demo() -> Iterator[str]:
    with tickerd("demo", "--port", "0") as process:
        wait_ready(process.port)
        yield f"http://127.0.0.1:{process.port}/"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _row(browser: Browser, name: str, url: str, *, everything: bool = False) -> None:
    with looking(browser, url, width=1440, height=900) as look:
        look.wait("document.querySelector('#price-rows tr') && document.querySelector('#bids tr')")
        if everything:
            look.page.get_by_role("combobox", name="Channels").fill("*")
            look.page.get_by_role("button", name="Subscribe", exact=True).click()
        look.page.wait_for_timeout(3000)
        found = measure(look, 10)
        most = max(found.changes_per_s.values())
        frames = f"{found.frame_ms:.1f}, {found.longest_ms:.1f} ms"
        _say(f"| {name} | {found.messages_per_s:.0f} | {found.busy:.2f} | {most:.1f} | {frames} |")


def main() -> None:
    """Measure every case once; each takes some twenty seconds."""
    _say("| shown | messages/s | main thread, of a core | most changes/s of a table | frames: median, longest |")
    _say("|---|---|---|---|---|")
    with sync_playwright() as playwright:
        browser = launch(playwright)
        assert browser is not None, "no chromium here"
        with _prices(1) as url:
            _row(browser, "two prices a second, and the polled ones", url)
        with _prices(500) as url:
            _row(browser, "1 000 prices a second", url)
        with _demo() as url:
            _row(browser, "the demo: 22 prices, a book, trades, a line", url)
            _row(browser, "the same, candles of a day", f"{url}?venue=okx&range=1d&style=candles")
            _row(browser, "the same, subscribed to all 39 channels", url, everything=True)
        browser.close()


if __name__ == "__main__":
    main()
