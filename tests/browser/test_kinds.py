"""The live page of a daemon with all presets: every channel is listed, and the best bid and ask over all venues."""

from typing import Any

import httpx
from playwright.sync_api import Browser

from tests.browser.looking import Look, looking


def channels(url: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = httpx.get(f"{url}channels", trust_env=False).json()["channels"]
    return listed


def wait_listed(look: Look, count: int) -> None:
    look.page.evaluate("document.querySelector('#channels').open = true")
    look.wait("(count) => document.querySelectorAll('#channel-list [data-state=live]').length === count", count)


def test_every_channel_is_listed_and_none_breaks_the_page(browser: Browser, market_url: str) -> None:
    listed = channels(market_url)
    assert {"okx_trades", "okx_depth", "okx_candles", "market_quotes"} <= {each["name"] for each in listed}
    with looking(browser, market_url) as look:
        wait_listed(look, len(listed))
        look.wait("document.querySelector('#bids tr')")
        # Of a venue that is not looked at only prices are sent; what is typed into the console is, and harms nothing.
        look.wait_from("binance_book", "binance_trades", "binance_candles", "okx_ticker")
        followed = {message.get("connector_id") for message in look.messages()}
        assert followed.isdisjoint({"okx_trades", "okx_depth", "okx_quotes", "okx_candles", "okx_book"})
        look.page.locator("#command-channels").fill("okx_trades, okx_depth, okx_quotes, okx_candles")
        look.page.get_by_role("button", name="Subscribe", exact=True).click()
        for name in ("okx_trades", "okx_depth", "okx_quotes", "okx_candles"):
            look.page.locator("#raw-channel").select_option(name)
            look.wait_text("#raw-text", f'"connector_id":"{name}"')
        assert look.problems == []


def test_the_best_bid_and_ask_of_all_venues_are_shown_with_whose_they_are(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        look.wait("document.querySelectorAll('#best-rows tr').length >= 2")
        look.page.wait_for_timeout(300)
        rows: list[list[str]] = look.page.evaluate(
            "[...document.querySelectorAll('#best-rows tr')].map((row) => [row.cells[0].textContent,"
            " ...[1, 2].flatMap((at) => [...row.cells[at].children].map((each) => each.textContent))])"
        )
        said = [message for message in look.messages() if message["type"] == "consolidated_quote"]
        for instrument, bid, of_bid, ask, of_ask in rows:
            of_it = [message for message in said if message["instrument"] == instrument]
            assert float(bid.replace(",", "")) in {message["bid"] for message in of_it}
            assert float(ask.replace(",", "")) in {message["ask"] for message in of_it}
            assert of_bid.split(",")[0] in {message["bid_exchange"] for message in of_it}
            assert of_ask.split(",")[0] in {message["ask_exchange"] for message in of_it}
        assert look.problems == []


def test_the_order_book_is_one_venues_at_a_time(browser: Browser, market_url: str) -> None:
    with looking(browser, market_url) as look:
        look.wait("document.querySelector('#bids tr')")
        of: set[str] = set()
        for _ in range(10):
            of |= set(look.market("[...market.books.values()].map((book) => book.channel)"))
            look.page.wait_for_timeout(250)
        assert len(of) == 1
