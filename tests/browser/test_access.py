"""Who can read the page: axe-core finds nothing, in both themes, on a phone and on a desk."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.axe import axe
from tests.browser.looking import looking

# Everything is opened and unrolled, so that all of it is judged; and stands still meanwhile.
READY = """(() => {
  document.querySelectorAll('details').forEach((each) => { each.open = true; });
  document.querySelectorAll('.scroll').forEach((each) => Object.assign(each.style, {maxHeight: 'none', flex: 'none'}));
})()"""

FOUND = """axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations.map(
  ({id, help, nodes}) => [id, help, ...nodes.slice(0, 5).map((node) => `${node.target} ${node.failureSummary}`)],
))"""

WRONG = """(() => {
  const real = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (...how) {
    if (this.id === 'chart-canvas') throw new Error('no such pen');
    return real.apply(this, how);
  };
  const replay = {from: '2025-12-08T16:00:00Z', to: '2025-12-08T17:00:00Z', speed: 'max'};
  return Promise.all([
    import('./notices.js').then(({greet}) => greet({simulated: true, replay})),
    import('./link.js').then(({state}) => state({state: 'closed', reason: 'no valid token'})),
  ]);
})()"""

COLOURS = """['text', 'up', 'down', 'warn', 'surface', 'up-wash', 'down-wash', 'warn-wash'].map(
  (name) => import('./colours.js').then(({colour}) => [name, colour(name)]))"""


@pytest.mark.parametrize("width", [1440, 768, 390])
def test_axe_finds_nothing_in_either_theme(browser: Browser, market_url: str, width: int) -> None:
    script = axe()
    with looking(browser, market_url, width=width, height=900, bypass_csp=True) as look:
        look.wait("document.querySelectorAll('#trade-rows tr').length > 5 && document.querySelector('#top-rows tr')")
        look.wait("document.querySelectorAll('#venue-rows tr').length === 5")
        look.page.evaluate(READY)
        look.wait("document.querySelector('#channel-list li') && document.querySelector('#chart-rows tr')")
        look.page.get_by_role("button", name="Pause").click()
        look.wait_text("#paused", "Paused")
        look.page.evaluate(f"{script};0")
        for theme in ("light", "dark"):
            look.page.get_by_label("Theme").select_option(theme)
            assert look.page.evaluate(FOUND) == [], theme
        assert look.page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_nothing_where_something_is_missing_or_wrong(browser: Browser, market_url: str) -> None:
    """No book, trades and candles; nothing found; a part that cannot be drawn; a replay; and no connection any more."""
    with looking(browser, f"{market_url}?instrument=XRP/USDT", height=900, bypass_csp=True) as look:
        look.wait_text("#trades-note", "No channel here has trades of XRP/USDT.")
        look.page.evaluate(READY)
        look.wait("document.querySelector('#channel-list li') && document.querySelector('#top-rows tr')")
        look.page.get_by_role("searchbox").fill("nothing like it")
        look.wait_text("#prices-none", "Nothing here is what you search for.")
        look.page.get_by_role("button", name="Ping").click()
        look.page.evaluate(WRONG)
        look.wait_text("#failed", "“chart”")
        expect(look.page.get_by_role("button", name="Connect again")).to_be_visible()
        expect(look.page.locator("#unreal")).to_contain_text("This is a replay")
        look.page.evaluate(f"{axe()};0")
        for width in (1440, 390):
            look.page.set_viewport_size({"width": width, "height": 900})
            for theme in ("light", "dark"):
                look.page.get_by_label("Theme").select_option(theme)
                assert look.page.evaluate(FOUND) == [], (width, theme)
            assert look.page.evaluate("document.documentElement.scrollWidth") <= width


def _channels(colour: str) -> list[float]:
    """Red, green, blue and opacity of a computed colour."""
    red, green, blue, *opacity = map(float, re.findall(r"[\d.]+", colour))
    return [red, green, blue, *(opacity or [1.0])]


def _over(wash: str, ground: str) -> list[float]:
    *top, opacity = _channels(wash)
    return [a * opacity + b * (1 - opacity) for a, b in zip(top, _channels(ground)[:3], strict=True)]


def _luminance(rgb: list[float]) -> float:
    """WCAG 2.2, relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: list[float], other: list[float]) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_a_wash_has_contrast_which_axe_does_not_judge(browser: Browser, demo_url: str, theme: str) -> None:
    with looking(browser, demo_url) as look:
        look.wait_text("#link", "Connected")
        look.page.get_by_label("Theme").select_option(theme)
        colours: dict[str, Any] = dict(look.page.evaluate(f"Promise.all({COLOURS})"))
        washed = [
            ("text", "up-wash"),
            ("up", "up-wash"),
            ("text", "down-wash"),
            ("down", "down-wash"),
            ("warn", "warn-wash"),
        ]
        for text, wash in washed:
            found = _contrast(_channels(colours[text])[:3], _over(colours[wash], colours["surface"]))
            assert found >= 4.5, (theme, text, wash, found)
