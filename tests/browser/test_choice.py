"""What is looked at: an instrument and a venue, in book, trades and chart together, in the address and in the title."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.looking import Look, looking, row

CANDLES = "import('./candles.js').then((candles) => candles.since(0, 0))"
BOOK = "[...document.querySelectorAll('#bids .price, #asks .price')].map((cell) => cell.textContent)"
TRADES = "[...document.querySelectorAll('#trade-rows .price')].map((cell) => cell.textContent)"


def number(text: str) -> float:
    return float(text.replace(",", ""))


def wait_shown(look: Look, instrument: str, venue: str) -> None:
    """Until book, trades, chart and title are of this instrument, and book and trades of this venue."""
    look.wait_text("#book-spread", f"{venue}, Spread")
    look.wait_text("#trades-note", venue)
    look.wait_text("#chart-text", f"{instrument}, last")
    look.wait_text("#venues-title", instrument)
    look.wait("(name) => document.title.includes(name)", instrument)
    look.wait("document.querySelectorAll('#trade-rows tr').length > 5 && document.querySelector('#bids tr')")


def of(look: Look, kind: str) -> list[Any]:
    return [message for message in look.messages() if message["type"] == kind]


def test_choosing_an_instrument_changes_everything_about_it_and_a_link_brings_it_back(
    browser: Browser, market_url: str
) -> None:
    with looking(browser, f"{market_url}?instrument=ETH/USDT&venue=okx") as look:
        wait_shown(look, "ETH/USDT", "okx")
        for prices in (look.page.evaluate(BOOK), look.page.evaluate(TRADES)):
            assert all(2_000 < number(price) < 6_000 for price in prices), prices
        for kind in ("trade", "orderbook_update", "candle_update"):
            assert {(each["exchange"], each["instrument"]) for each in of(look, kind)} == {("okx", "ETH/USDT")}
        look.said.clear()
        look.page.locator(row("BTC/USD", "kraken")).locator(".choose").click()
        wait_shown(look, "BTC/USD", "kraken")
        for prices in (look.page.evaluate(BOOK), look.page.evaluate(TRADES)):
            assert all(number(price) > 20_000 for price in prices), prices
        link = look.page.url
        assert link.endswith("?instrument=BTC/USD&venue=kraken")
        assert re.match(r"^[\d,.]+ BTC/USD · tickerd$", look.page.title())
        look.page.go_back()
        wait_shown(look, "ETH/USDT", "okx")
        assert look.problems == []
    with looking(browser, link) as look:
        wait_shown(look, "BTC/USD", "kraken")
        expect(look.page.locator("#instrument")).to_have_value("BTC/USD")
        expect(look.page.locator("#venue")).to_have_value("kraken")


def test_a_closed_candle_stays_whatever_else_is_said_of_it(browser: Browser, market_url: str) -> None:
    said = """import('./candles.js').then((candles) => {
      candles.look('c', 'A/B');
      const of = {connector_id: 'c', instrument: 'A/B', interval: '1m', open: 1, high: 9, low: 1, volume: 1};
      const take = (start_ms, close, closed, seq) => candles.take({...of, start_ms, close, closed, seq});
      take(0, 2, false, 7);  // as it came
      take(0, 3, true, 0);   // the venue's own history, which is of no place on the tape
      take(0, 4, false, 8);  // late
      take(60000, 5, false, 9);
      take(60000, 6, false, 8);  // older than what is known
      return candles.since(0, 0).map(({close}) => close);
    })"""
    with looking(browser, market_url) as look:
        look.page.get_by_role("button", name="Pause").click()
        assert look.page.evaluate(said) == [3, 5]


def test_a_venue_that_has_nothing_but_a_price_is_shown_with_it(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as look:
        look.page.locator(row("BTC/USDT", "okx")).locator(".choose").click()
        look.wait("/^BTC.USDT, last 5 min.okx: /.test(document.querySelector('#chart-text').textContent)")
        look.wait_text("#book-spread", "binance, Spread")


def test_what_there_is_not_is_said(browser: Browser, market_url: str) -> None:
    with looking(browser, f"{market_url}?instrument=NOT/HERE&range=1d&style=none") as look:
        look.wait_text("#chart-note", "This daemon has no NOT/HERE.")
        wait_shown(look, "BTC/USDT", "binance")
        look.page.locator("#instrument").select_option("XRP/USDT")
        look.wait_text("#book-spread", "No channel here has an order book of XRP/USDT.")
        look.wait_text("#trades-note", "No channel here has trades of XRP/USDT.")
        look.wait_text("#chart-note", "No channel here has candles of XRP/USDT")
        expect(look.page.get_by_role("radio", name="1 day")).to_be_disabled()
        look.wait_text("#chart-text", "XRP/USDT, last 5 min.")
        assert look.page.locator("#bids tr, #trade-rows tr").count() == 0, "nothing of another one is left"


def test_the_chart_is_filled_on_load_with_what_was(browser: Browser, market_url: str) -> None:
    with looking(browser, f"{market_url}?venue=okx&range=1h&style=candles") as look:
        opened_ms = look.page.evaluate("Date.now()")
        look.wait(f"{CANDLES}.then((all) => all.length >= 60)")
        prices = "import('./market.js').then((market) => market.prices.get('BTC/USDT okx').series[0].from)"
        assert look.page.evaluate(prices) < opened_ms
        look.wait_text("#chart-text", "BTC/USDT, last hour.")
        look.wait_text("#chart-text", "volume at okx")
        look.page.get_by_role("radio", name="1 day").check()
        look.wait(f"{CANDLES}.then((all) => Date.now() - all[0]?.start >= 24 * 3600e3)")
        look.wait_text("#chart-text", "BTC/USDT, last day.")
        assert look.page.url.endswith("range=1d&style=candles")
        # The same as a table: candles of a quarter of an hour, each with its volume.
        look.page.get_by_text("The chart as a table").click()
        look.wait("document.querySelectorAll('#chart-rows tr').length === 60")
        cells = look.page.locator("#chart-rows tr").nth(1).locator("td").all_text_contents()
        low, high, last, volume = map(number, cells)
        assert low <= last <= high
        assert volume > 0
        assert look.problems == []


def test_the_crosshair_says_time_and_values_to_a_pointer_and_to_the_keyboard(browser: Browser, market_url: str) -> None:
    with looking(browser, f"{market_url}?venue=okx&range=1h&style=candles") as look:
        look.wait(f"{CANDLES}.then((all) => all.length >= 60)")
        look.wait_text("#chart-text", "BTC/USDT, last hour.")
        canvas, read = look.page.locator("#chart-canvas"), look.page.locator("#chart-read")
        values = re.compile(r"^\d\d:\d\d, open [\d,.]+, high [\d,.]+, low [\d,.]+, close [\d,.]+, volume [\d.]+$")
        canvas.hover(position={"x": 120, "y": 80})
        expect(read).to_have_text(values)
        look.page.mouse.move(0, 0)
        expect(read).to_be_empty()
        canvas.focus()
        look.page.keyboard.press("ArrowLeft")
        expect(read).to_have_text(values)
        newest = read.text_content()
        look.page.keyboard.press("ArrowLeft")
        expect(read).not_to_have_text(newest or "")
        look.page.keyboard.press("Home")
        expect(read).to_have_text(values)
        assert (read.text_content() or "")[:5] != (newest or "")[:5]
        look.page.keyboard.press("Escape")
        expect(read).to_be_empty()
        look.page.get_by_role("radio", name="5 min").check()
        look.page.get_by_role("radio", name="Line").check()
        look.wait_text("#chart-text", "BTC/USDT, last 5 min.")
        look.page.keyboard.press("Tab")
        canvas.hover(position={"x": 400, "y": 80})
        expect(read).to_have_text(re.compile(r"^\d\d:\d\d:\d\d, okx [\d,.]+(, \w+ [\d,.]+)*$"))
        assert look.problems == []


@pytest.mark.parametrize("status", [404, 500])
def test_without_a_history_the_chart_is_filled_by_what_comes(browser: Browser, market_url: str, status: int) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=status, json={"type": "error", "code": "not_found", "message": "none"})

    page.route("**/history/**", refuse)
    look = Look(page, market_url)
    page.goto(market_url)
    wait_shown(look, "BTC/USDT", "binance")
    look.wait_text("#link", "Connected")
    assert asked
    assert not [problem for problem in look.problems if "Failed to load resource" not in problem]
    context.close()


def test_all_venues_are_compared_with_the_best_of_them_marked(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        look.wait("document.querySelectorAll('#venue-rows tr').length === 5")
        look.wait("document.querySelectorAll('#venue-rows [data-best]').length === 2")
        look.page.get_by_role("button", name="Pause").click()
        look.wait_text("#paused", "Paused")
        table: list[list[str]] = look.page.evaluate(
            "[...document.querySelectorAll('#venue-rows tr')].map((row) => [...row.cells].map((c) => c.textContent))"
        )
        best: list[str] = look.page.evaluate(
            "[...document.querySelectorAll('#venue-rows [data-best]')].map((cell) => cell.textContent)"
        )
        counting = [cells for cells in table if cells[2] and cells[3]]
        assert {cells[0] for cells in counting} == {"binance", "okx", "coinbase", "kraken", "bybit"}
        assert max(number(cells[2]) for cells in counting) in map(number, best)
        assert min(number(cells[3]) for cells in counting) in map(number, best)
        assert look.problems == []


def test_the_depth_of_the_book_is_drawn_and_said(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        look.wait_text("#depth-text", "BTC up to")
        drawn = (
            "(() => { const c = document.querySelector('#depth-canvas');"
            " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); })()"
        )
        look.wait(drawn)
        said = look.text("#depth-text")
        assert re.match(r"^bids: [\d.,]+ BTC down to [\d.,]+, asks: [\d.,]+ BTC up to [\d.,]+$", said), said


def test_the_depth_chart_says_how_much_there_is_where_somebody_points(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        look.wait_text("#depth-text", "BTC up to")
        look.page.get_by_role("button", name="Pause").click()
        look.wait_text("#paused", "Paused")
        canvas, read = look.page.locator("#depth-canvas"), look.page.locator("#depth-read")
        box = canvas.bounding_box()
        assert box is not None
        expect(read).to_be_empty()
        found = re.match(r"bids: (\S+ BTC) down to (\S+), asks: (\S+ BTC) up to (\S+)$", look.text("#depth-text"))
        assert found is not None
        bids, lowest, asks, highest = found.groups()
        canvas.hover(position={"x": 1, "y": 20})
        expect(read).to_have_text(f"{lowest}: {bids}")
        canvas.hover(position={"x": box["width"] - 1, "y": 20})
        expect(read).to_have_text(f"{highest}: {asks}")
        best = look.text("#bids .price").strip()
        assert number(lowest) < number(best) < number(highest)
        look.page.mouse.move(0, 0)
        expect(read).to_be_empty()
        assert look.problems == []


def test_a_link_brings_others_to_what_is_looked_at_and_has_no_token(browser: Browser, market_url: str) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    with looking(browser, f"{market_url}#token=tkd_secret", permissions=allowed) as look:
        wait_shown(look, "BTC/USDT", "binance")
        look.page.get_by_role("radio", name="1 h").check()
        look.page.get_by_role("button", name="Copy link").click()
        expect(look.page.locator("#copy")).to_have_text("Copied")
        link: str = look.page.evaluate("navigator.clipboard.readText()")
        assert link == f"{market_url}?instrument=BTC/USDT&venue=binance&range=1h"
        expect(look.page.locator("#copy")).to_have_text("Copy link")
    with looking(browser, market_url) as look:
        wait_shown(look, "BTC/USDT", "binance")
        refused = "Promise.reject(new DOMException('', 'NotAllowedError'))"
        look.page.evaluate(f"(() => {{ navigator.clipboard.writeText = () => {refused}; }})()")
        look.page.get_by_role("button", name="Copy link").click()
        expect(look.page.locator("#copy")).to_have_text("Not allowed here")
        assert look.page.url.endswith("?instrument=BTC/USDT&venue=binance"), "it can be copied from there"
        assert look.problems == []
