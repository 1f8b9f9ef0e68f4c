"""What somebody sees who just keeps the page open while venues, the daemon and the line between them fail."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, expect

from tests.browser.looking import Look, looking, row
from tests.browser.outages import QUICK, behind_venues, line_to
from tests.process.running import tickerd, wait_ready

OKX_BTC = row("BTC/USDT", "okx")
CHIP = "#channel-list li:has(.name:text-is('bitcoinprice'))"
ONLINE = "dispatchEvent(new Event('online'))"
SERIES = "market.prices.get('BTC/USDT okx').series"


def _wait_moving(look: Look) -> None:
    """Until the OKX price comes in, and the page has all that it loads at first: a load cut short makes a line."""
    look.page.wait_for_load_state("networkidle")
    count = look.market("market.channel('bitcoinprice').count")
    look.wait("(n) => import('/market.js').then((market) => market.channel('bitcoinprice').count > n + 1)", count)


def _unexpected(look: Look) -> list[str]:
    """Problems beside the browser's own word on a websocket that could not be opened."""
    return [problem for problem in look.problems if not problem.startswith("WebSocket connection to ")]


def test_a_killed_venue_is_shown_within_seconds_and_heals(browser: Browser, tmp_path: Path) -> None:
    with (
        behind_venues(tmp_path) as (venues, daemon),
        looking(browser, f"http://127.0.0.1:{daemon.port}") as look,
    ):
        chip = look.page.locator(CHIP)
        expect(chip.locator(".state")).to_have_text("live")
        _wait_moving(look)
        port = venues.port
        venues.end()
        expect(chip.locator(".state")).not_to_have_text("live", timeout=5000)
        expect(chip.locator(".reason")).not_to_be_empty()
        # It is not said in green that all is well, but what does not come, and why.
        expect(look.page.locator("#link")).to_have_attribute("data-state", "partly")
        look.wait_text("#link", "Connected, but")
        look.wait_text("#link-more", "bitcoinprice is ")
        on_hover, as_text = chip.evaluate("(chip) => [chip.title, chip.querySelector('.reason').textContent]")
        assert on_hover == as_text
        expect(look.page.locator(f"{OKX_BTC} .wrong")).not_to_be_empty()
        expect(look.page.locator(OKX_BTC)).to_have_attribute("data-old", "")
        expect(look.page.locator(f"{OKX_BTC} .age")).to_have_text("2\u2009s", timeout=10_000)
        with tickerd("simulate", "--port", str(port)):
            expect(chip.locator(".state")).to_have_text("live", timeout=20_000)
            _wait_moving(look)
            expect(look.page.locator("#link")).to_have_attribute("data-state", "open", timeout=20_000)
            expect(look.page.locator(f"{OKX_BTC} .wrong")).to_be_empty()
        assert look.problems == []


def test_a_restarted_daemon_is_found_again_and_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    with behind_venues(tmp_path) as (_, daemon):
        port = daemon.port
        with looking(browser, f"http://127.0.0.1:{port}") as look:
            look.wait_text("#link", "Connected")
            _wait_moving(look)
            first = look.market(f"{SERIES}[0].from")
            assert daemon.stop() == 0
            look.wait_text("#link", "Connection lost")
            look.wait_text("#link-more", "the daemon is stopping; again in")
            look.wait_text(f"{OKX_BTC} .wrong", "offline")
            config = str(tmp_path / "venues.toml")
            with tickerd("run", "--config", config, environ={**QUICK, "TICKERD_SERVER__PORT": str(port)}) as again:
                wait_ready(again.port)
                look.wait_text("#link", "The daemon was restarted")
                _wait_moving(look)
                expect(look.page.locator(f"{OKX_BTC} .wrong")).to_be_empty()
                series = look.market(SERIES)
                assert series[0]["from"] == first, "the chart goes on"
                assert sum(bucket["broken"] for bucket in series) == 1, "and shows where nothing is known"
            assert _unexpected(look) == []


def test_a_lost_connection_is_resumed_without_a_hole(browser: Browser, tmp_path: Path) -> None:
    with (
        behind_venues(tmp_path) as (_, daemon),
        line_to(daemon.port) as line,
        looking(browser, f"http://127.0.0.1:{line.port}") as look,
    ):
        look.wait_text("#link", "Connected")
        _wait_moving(look)
        line.closed.set()
        line.cut()
        look.wait_text("#link", "Connection lost")
        look.page.wait_for_timeout(700)
        line.closed.clear()
        look.page.evaluate(ONLINE)
        look.wait_text("#link", "resumed: nothing was missed")
        _wait_moving(look)
        line.frozen.set()
        look.wait_text("#link-more", "2 pings were not answered")
        line.cut()
        line.frozen.clear()
        look.page.evaluate(ONLINE)
        look.wait_text("#link", "Connected again")
        _wait_moving(look)
        assert "nothing was missed" in look.text("#link")
        assert not any(bucket["broken"] for bucket in look.market(SERIES))
        assert _holes(look.messages()) == []
        assert _unexpected(look) == []


AWAY = """(() => {
  // As in a tab that nobody looks at: nothing is drawn.
  const real = window.requestAnimationFrame.bind(window);
  const waiting = [];
  let hidden = true;
  Object.defineProperty(document, 'visibilityState', {get: () => (hidden ? 'hidden' : 'visible')});
  Object.defineProperty(document, 'hidden', {get: () => hidden});
  window.requestAnimationFrame = (draw) => (hidden ? waiting.push(draw) : real(draw));
  window.comeBack = () => {
    hidden = false;
    waiting.splice(0).forEach((draw) => real(draw));
    document.dispatchEvent(new Event('visibilitychange', {bubbles: true}));
  };
  document.dispatchEvent(new Event('visibilitychange', {bubbles: true}));
})()"""


def test_a_tab_in_the_background_goes_on_and_shows_everything_when_somebody_looks(
    browser: Browser, demo_url: str
) -> None:
    with looking(browser, demo_url) as look:
        look.wait_text("#link", "Connected")
        _wait_moving(look)
        look.page.evaluate(AWAY)
        at = f"{OKX_BTC} .digits"
        look.page.wait_for_timeout(200)  # what was to be drawn has been
        title, shown = look.page.title(), look.text(at)
        look.wait("(title) => document.title !== title && document.title.includes('BTC/USDT')", title)
        count = look.market("market.channel('bitcoinprice').count")
        look.wait("(n) => import('./market.js').then((market) => market.channel('bitcoinprice').count > n + 5)", count)
        assert look.text(at) == shown
        look.page.evaluate("comeBack()")
        look.wait("([at, old]) => document.querySelector(at).textContent !== old", [at, shown], within_ms=2000)
        assert look.problems == []


def test_after_a_sleep_a_dead_connection_is_found_within_5_s(browser: Browser, demo_url: str) -> None:
    port = urlsplit(demo_url).port
    assert port is not None
    with line_to(port) as line, looking(browser, f"http://127.0.0.1:{line.port}") as look:
        clock, state = look.page.clock, "document.body.dataset.link"
        clock.install()
        look.page.reload()
        look.wait_text("#link", "Connected")
        _wait_moving(look)
        # Without a look at the clock it would take two heartbeats to find out.
        assert next(each for each in look.messages() if each["type"] == "welcome")["heartbeat_s"] == 20
        line.frozen.set()
        look.page.wait_for_timeout(300)  # what has come through already is read
        clock.pause_at(look.page.evaluate("Date.now()") / 1000 + 1)
        # A machine that has slept: its clock has gone on, and no timer has run meanwhile.
        clock.fast_forward("01:00:00")
        assert look.page.evaluate(state) == "open"
        clock.run_for(5000)
        assert look.page.evaluate(state) in ("waiting", "connecting")
        assert look.text("#link") in ("Connection lost", "Connecting")
        clock.resume()
        line.cut()
        line.frozen.clear()
        look.page.evaluate(ONLINE)
        look.wait_text("#link", "Connected again")
        _wait_moving(look)


def _holes(messages: list[Any]) -> list[Any]:
    """Messages before which another one of their topic is missing; those that came twice do not count."""
    last: dict[tuple[str, str | None], int] = {}
    holes = []
    for message in messages:
        if "prev_seq" not in message:
            continue
        topic = (message["connector_id"], message.get("instrument"))
        if message["prev_seq"] > last.get(topic, message["prev_seq"]):
            holes.append(message)
        last[topic] = max(message["seq"], last.get(topic, 0))
    return holes
