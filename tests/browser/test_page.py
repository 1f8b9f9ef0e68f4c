"""The live page, read as a person would: with the eyes, the keyboard, a phone, and reduced motion."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.looking import Look, looking, row
from tests.browser.outages import behind_venues
from tests.browser.speed import measure

OKX_BTC = row("BTC/USDT", "okx")
LAST = f"{OKX_BTC} .price > :last-child"


def _wait_filled(look: Look) -> None:
    look.wait("document.querySelectorAll('#channel-list [data-state=live]').length === 8")
    look.wait("document.querySelectorAll('#top-rows tr').length === 100 && document.querySelector('#bids tr')")
    look.wait("document.querySelectorAll('#price-rows tr').length === 12")


def _number(shown: str) -> Decimal:
    return Decimal(shown.strip().replace(",", ""))


def test_prices_move_and_have_the_venues_value(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as look:
        _wait_filled(look)
        before = look.text(LAST)
        look.wait("([at, old]) => document.querySelector(at).textContent !== old", [LAST, before])
        shown: dict[str, str] = look.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('#price-rows tr')].map("
            "(row) => [row.dataset.key, row.querySelector('.price > :last-child').textContent]))"
        )
        coins: list[list[str]] = look.page.evaluate(
            "[...document.querySelectorAll('#top-rows tr')].map((row) => [...row.cells].map((c) => c.textContent))"
        )
        said: dict[str, set[str]] = {}
        lists: list[str] = []
        for text, message in zip(look.said, look.messages(), strict=True):
            if message["type"] in ("price_update", "ticker_update"):
                data = message["data"]
                digits = data.get("price") or data.get("last") or data["lastPrice"]
                said.setdefault(f"{message['instrument']} {message['exchange']}", set()).add(digits)
            elif message["type"] == "top_update":
                lists.append(text)
        assert shown.keys() == said.keys()
        for key, digits in shown.items():
            assert _number(digits) in {Decimal(each) for each in said[key]}
            assert not re.search(r"\.\d*0$", digits.strip()), "no zeros at the end, whatever the venue says"
        exact = {Decimal(found) for text in lists for found in re.findall(r'"current_price":([^,]+),', text)}
        for cells in coins:
            assert _number(cells[2]) in exact, cells
        price = look.page.locator(f"{row('ADA/USDT', 'binance')} .digits")
        price.hover()
        expect(price).to_have_attribute("title", re.compile(r"^0\.\d{8}$"))
        assert look.problems == []


def test_everything_is_there(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as look:
        _wait_filled(look)
        page = look.page
        assert "Connected" in look.text("#link")
        book: list[list[str]] = page.evaluate(
            "['bids', 'asks'].map((id) => [...document.querySelectorAll(`#${id} .price`)].map((c) => c.textContent))"
        )
        bids, asks = ([_number(price) for price in side] for side in book)
        assert len(bids) == len(asks) == 12
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert bids[0] < asks[0]
        compared = page.locator("#compare-rows tr")
        expect(compared).to_have_count(2)
        low, high, spread = compared.first.evaluate(
            "(row) => [...row.querySelectorAll('.digits, td > span:first-child')].map((c) => c.textContent)"
            ".concat(row.lastChild.textContent)"
        )
        lowest, highest = (_number(digits) for digits in (low, high))
        assert _number(spread.removesuffix("%")) == round((highest / lowest - 1) * 100, 3)
        expect(page.locator("#trending-rows tr")).to_have_count(15)
        # No cents of a trillion; but exact for whoever points at it.
        capitalisation = page.locator("#figures dd").first
        expect(capitalisation).to_have_text(re.compile(r"^\d{1,3}(,\d{3}){4}$"))
        capitalisation.hover()
        expect(capitalisation).to_have_attribute("title", re.compile(r"^\d{13}(\.\d+)?$"))
        drawn = page.evaluate(
            "(() => { const c = document.querySelector('#chart-canvas');"
            " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); })()"
        )
        assert drawn
        page.locator("#raw-channel").select_option("ethprice")
        look.wait_text("#raw-text", '"connector_id":"ethprice"')
        page.locator("#raw-hold").check()
        held = look.text("#raw-text")
        assert held in look.said
        page.wait_for_timeout(700)
        assert look.text("#raw-text") == held
        page.locator(row("SOL/USDT", "binance")).locator(".choose").click()
        expect(page.locator("#instrument")).to_have_value("SOL/USDT")
        look.wait_text("#chart-text", "SOL/USDT, last 5 min.")
        assert look.problems == []


def test_a_screen_reader_finds_its_way(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as look:
        _wait_filled(look)
        page = look.page
        for landmark in ("banner", "main", "contentinfo"):
            expect(page.get_by_role(landmark)).to_have_count(1)
        for name in (
            "Channels",
            "Prices",
            "Chart",
            "Order book",
            "Trades",
            "All venues of BTC/USDT",
            "Across exchanges",
        ):
            expect(page.get_by_role("heading", name=name, exact=True)).to_have_count(1)
        for name in ("Global market", "Top 100", "Trending", "Raw", "Console"):
            expect(page.get_by_role("heading", name=name, exact=True)).to_have_count(1)
        expect(
            page.get_by_role("img", name=re.compile("^BTC.USDT, last 5 min.*okx: low .*, high .*, last"))
        ).to_be_visible()
        expect(page.get_by_role("status")).to_have_text("Connected")
        assert page.evaluate("document.querySelectorAll('[aria-live]').length") == 1
        assert page.evaluate("[...document.querySelectorAll('th')].every((th) => th.scope)")
        assert page.evaluate("[...document.querySelectorAll('input, select')].every((field) => field.labels.length)")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the prices")).to_be_focused()
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "focus can be seen"


def test_the_top_table_is_sorted_from_the_keyboard(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as look:
        _wait_filled(look)
        head = look.page.locator("#top-head th").nth(3)
        head.get_by_role("button").focus()
        for order in ("descending", "ascending"):
            look.page.keyboard.press("Enter")
            expect(head).to_have_attribute("aria-sort", order)
            changes: list[float] = look.page.evaluate(
                "[...document.querySelectorAll('#top-rows tr')].map((row) => Number(row.cells[3].digits))"
            )
            assert changes == sorted(changes, reverse=order == "descending")
            assert len(set(changes)) > 10
        expect(head.get_by_role("button")).to_be_focused()
        expect(look.page.locator("#top-head [aria-sort]")).to_have_count(1)


def test_the_console_round_trips(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as look:
        _wait_filled(look)
        page = look.page

        def order(button: str, channels: str) -> None:
            page.get_by_role("combobox", name="Channels").fill(channels)
            page.get_by_role("button", name=button, exact=True).click()

        order("Ping", "*")
        look.wait_text("#log", '{"type":"pong"')
        assert re.search(r"\u2190 \d+\.\d\u2009ms \{\"type\":\"pong\"", look.text("#log"))
        order("Unsubscribe", "bitcoinprice")
        look.wait_text("#log", '{"type":"unsubscribed","channels":["bitcoinprice"]')
        count = look.market("market.channel('bitcoinprice').count")
        page.wait_for_timeout(900)
        assert look.market("market.channel('bitcoinprice').count") == count
        order("Subscribe", "bitcoinprise")
        look.wait_text("#log .error", "bitcoinprice")
        order("Subscribe", "bitcoinprice, ethprice")
        look.wait("(n) => import('/market.js').then((market) => market.channel('bitcoinprice').count > n + 2)", count)
        assert look.problems == []


def test_what_others_say_is_text_and_never_html(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as look:
        look.wait_text("#link", "Connected")
        spiteful = "<img src=x onerror=document.title='caught'>"
        httpx.post(f"{demo_url}/ws/test", json={"message": spiteful}).raise_for_status()
        look.wait_text("#log", spiteful)
        assert look.page.locator("#log img").count() == 0
        assert "caught" not in look.page.title()
        refused = look.page.evaluate("try { document.body.innerHTML = '<b>'; 'let in' } catch (e) { e.name }")
        assert refused == "TypeError"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_fits_a_phone_and_a_desk(
    browser: Browser, demo_url: str, width: int, scheme: Literal["dark", "light"]
) -> None:
    with looking(browser, demo_url, width=width, height=844, color_scheme=scheme) as look:
        _wait_filled(look)
        assert look.page.evaluate("document.documentElement.scrollWidth") <= width
        ground = look.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")


def test_nothing_moves_where_motion_is_not_wanted(browser: Browser, demo_url: str) -> None:
    flashes = "document.querySelectorAll('[data-flash]').length"

    def most(**context: Any) -> int:
        with looking(browser, demo_url, **context) as look:
            _wait_filled(look)
            counts: list[int] = []
            for _ in range(12):
                counts.append(look.page.evaluate(flashes))
                look.page.wait_for_timeout(100)
            assert look.page.evaluate("document.getAnimations().length") == 0
            return max(counts)

    assert most() > 0
    assert most(reduced_motion="reduce") == 0


def test_a_thousand_messages_a_second_take_less_than_half_a_core(browser: Browser, tmp_path: Path) -> None:
    with (
        behind_venues(tmp_path, "--okx-rate", "500") as (_, daemon),
        looking(browser, f"http://127.0.0.1:{daemon.port}") as look,
    ):
        look.wait_text("#link", "Connected")
        look.page.wait_for_load_state("networkidle")
        found = measure(look, 4)
        behind_ms = look.market("market.now() - market.channel('bitcoinprice').last.received_ms")
        assert found.messages_per_s > 500, found
        assert 0 < found.busy < 0.5, found
        assert all(2 < each <= 11 for each in found.changes_per_s.values()), found
        assert found.longest_ms < 1000, found
        assert behind_ms < 2000, behind_ms
        assert look.problems == []
