"""What somebody sets up for themselves: search, favourites, the theme, a pause; and what the page says of itself."""

import re
from typing import Any

from playwright.sync_api import Browser, expect

from tests.browser.looking import Look, looking, row
from tests.browser.test_hostile import tampered

KEYS = "[...document.querySelectorAll('#price-rows tr')].map((row) => row.dataset.key)"
GROUND = "getComputedStyle(document.body).backgroundColor"


def wait_prices(look: Look) -> None:
    look.wait("document.querySelectorAll('#price-rows tr').length > 20")


def test_search_and_favourites_are_there_again_after_a_reload(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        wait_prices(look)
        page = look.page
        for name in ("SOL/USDT at binance", "ETH/USDT at kraken"):
            page.get_by_role("button", name=f"Favourite: {name}").click()
        look.wait(f"{KEYS}.slice(0, 2).join() === 'ETH/USDT kraken,SOL/USDT binance'")
        page.get_by_role("searchbox").fill("usdt KRAK")
        look.wait(f"{KEYS}.join() === 'ETH/USDT kraken,BTC/USDT kraken'")
        page.reload()
        look.wait(f"{KEYS}.join() === 'ETH/USDT kraken,BTC/USDT kraken'")
        expect(page.get_by_role("button", name="Favourite: ETH/USDT at kraken")).to_have_attribute(
            "aria-pressed", "true"
        )
        page.get_by_label("Favourites only").check()
        look.wait(f"{KEYS}.join() === 'ETH/USDT kraken'")
        page.get_by_role("searchbox").fill("nothing like it")
        look.wait_text("#prices-none", "Nothing here is what you search for.")
        assert look.problems == []


def test_what_the_browser_kept_may_be_anything(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        look.page.evaluate(
            "['favourites', 'search', 'theme', 'favourites-only'].forEach((name, at) =>"
            " localStorage.setItem(`tickerd.${name}`, ['{', 'null', '[1]', '7'][at]))"
        )
        look.page.reload()
        wait_prices(look)
        assert look.problems == []


def test_the_theme_that_is_chosen_goes_before_the_systems_and_is_kept(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url, color_scheme="light") as look:
        wait_prices(look)
        light = look.page.evaluate(GROUND)
        look.page.get_by_label("Theme").select_option("dark")
        look.wait(f"(before) => {GROUND} !== before", light)
        # A line on a canvas has the colours of the theme too.
        stroke = "import('./colours.js').then(({colour}) => colour('accent'))"
        assert look.page.evaluate(stroke) == "rgb(134, 165, 255)"
        look.page.reload(wait_until="commit")
        look.wait("document.body !== null")
        assert look.page.evaluate(GROUND) != light
        wait_prices(look)
        look.page.get_by_label("Theme").select_option("auto")
        look.wait(f"(light) => {GROUND} === light", light)
        assert look.problems == []


def test_a_pause_stops_the_page_and_not_what_it_is_sent(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        wait_prices(look)
        look.page.get_by_role("button", name="Pause").click()
        look.wait_text("#paused", "Paused")
        look.wait("document.title.startsWith('paused')")
        parts = (
            "['#price-rows', '#bids', '#trade-rows', '#venue-rows'].map((at) => document.querySelector(at).innerText)"
        )
        before, count = look.page.evaluate(parts), look.market("market.counts.messages")
        look.wait("(n) => import('./market.js').then((market) => market.counts.messages > n + 100)", count)
        assert look.page.evaluate(parts) == before
        look.page.get_by_role("button", name="Go on").click()
        look.wait(f"(before) => JSON.stringify({parts}) !== JSON.stringify(before)", before)
        expect(look.page.locator("#paused")).to_be_hidden()
        assert look.problems == []


def test_no_number_ends_in_zeros_that_say_nothing(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        wait_prices(look)
        look.wait("document.querySelector('#trade-rows tr') && document.querySelector('#best-rows tr')")
        # What is drawn is told too: rulers, labels, and what the crosshair says of candles and of the depth.
        look.page.evaluate(
            "(() => { const real = CanvasRenderingContext2D.prototype.fillText; window.drawn = new Set();"
            " CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {"
            "   drawn.add(text); return real.call(this, text, ...where); }; })()"
        )
        read = []
        for style, of in (("line", "5m"), ("candles", "1h"), ("candles", "1d"), ("line", "1d")):
            look.page.locator(f"[name=range][value='{of}']").check()
            look.page.locator(f"[name=style][value={style}]").check()
            for canvas, said in (("#chart-canvas", "#chart-read"), ("#depth-canvas", "#depth-read")):
                for x in (20, 60, 100):
                    look.page.locator(canvas).hover(position={"x": x, "y": 60})
                    look.wait("(at) => document.querySelector(at).textContent", said)
                    read.append(look.text(said))
        look.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        look.wait("document.querySelectorAll('#chart-rows tr').length > 0 && document.querySelector('#top-rows tr')")
        # The raw text and the console say what was sent, word for word; the header says the version.
        text: str = look.page.evaluate(
            "[...document.querySelectorAll('main > :not(#raw, #console)')].map((each) => each.innerText).join('\\n')"
        )
        drawn: list[str] = look.page.evaluate("[...drawn]")
        assert len(re.findall(r"\d\.\d", text)) > 300
        assert len(drawn) > 10
        shown = "\n".join([text, look.page.title(), look.text("#rate"), *read, *drawn])
        assert re.findall(r"[\d,]*\.\d*0(?![\d.])", shown) == []


def test_every_channel_has_a_word_of_help(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        look.page.evaluate("document.querySelector('#channels').open = true")
        look.wait("document.querySelectorAll('#channel-list li').length > 30")
        chip = look.page.locator("#channel-list li:has(.name:text-is('okx_trades')) .help")
        expect(chip).to_have_text("each trade, once: BTC/USDT, ETH/USDT; from okx, as it comes")
        unknown = "a kind that this page does not know"
        words = look.page.locator("#channel-list .help").all_text_contents()
        assert not [each for each in words if not each or unknown in each]


def test_simulated_and_replayed_data_is_said_to_be_that(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        look.wait_text("#unreal", "The venues are simulated: no price here is a real one.")
        expect(look.page.locator("#unreal")).to_be_visible()
    context = browser.new_context()
    page = context.new_page()

    def change(message: Any) -> None:
        if message["type"] == "welcome":
            del message["simulated"]
            message["replay"] = {"from": "2025-12-08T16:00:00Z", "to": "2025-12-08T17:00:00Z", "speed": 10}

    tampered(page, change)
    look = Look(page, market_url)
    page.goto(market_url)
    look.wait_text("#unreal", "This is a replay of what was recorded from 08/12/2025")
    look.wait_text("#unreal", "at 10 times the speed")
    assert "simulated" not in look.text("#unreal")
    context.close()


def test_a_view_that_throws_leaves_the_others_and_is_named(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        wait_prices(look)
        look.page.evaluate(
            "(() => { const real = HTMLCanvasElement.prototype.getContext;"
            " HTMLCanvasElement.prototype.getContext = function (...how) {"
            "   if (this.id === 'chart-canvas' && !window.mended) throw new Error('no such pen');"
            "   return real.apply(this, how); }; })()"
        )
        look.wait_text("#failed", "“chart” (Error: no such pen)")
        at = f"{row('BTC/USDT', 'binance')} .digits"
        before = look.text(at)
        look.wait("([at, old]) => document.querySelector(at).textContent !== old", [at, before])
        assert look.problems == ["no such pen"], "told once, however often it is tried"
        look.page.evaluate("window.mended = true")
        expect(look.page.locator("#failed")).to_be_hidden()
