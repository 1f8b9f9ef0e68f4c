"""Values that no exchange should send: the page stays alive, and shows what it can."""

import json
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute

from tests.browser.looking import Look, row
from tests.browser.test_page import OKX_BTC

SOON_MS = 5_000

LARGE = ["12345678901234568", "12345678901234570"]
"""Two neighbours: between them there is no other number of 64 bits."""


def tampered(page: Page, change: Callable[[Any], None]) -> None:
    """Have the messages of the daemon pass through a function on their way to the page."""

    def accept(line: WebSocketRoute) -> None:
        daemon = line.connect_to_server()

        def pass_on(text: str | bytes) -> None:
            message = json.loads(text)
            change(message)
            line.send(json.dumps(message))

        daemon.on_message(pass_on)

    page.route_web_socket(re.compile(r"/ws(\?|$)"), accept)


class Change:
    """Gives the prices of BTC/USDT these digits, one after the other, whoever says them."""

    def __init__(self, digits: list[str]) -> None:
        self._digits = digits
        self._turn = count()
        self.made = 0

    def __call__(self, message: Any) -> None:
        if message["type"] in ("price_update", "ticker_update") and message["instrument"] == "BTC/USDT":
            digits = self._digits[next(self._turn) % len(self._digits)]
            for name in ("last", "open24h", "price", "lastPrice"):
                if name in message["data"]:
                    message["data"][name] = digits
            self.made += 1


@pytest.mark.parametrize(
    "digits",
    [
        LARGE,
        ["99999999999999999999999999999", "99999999999999999999999999998"],
        ["0.000000000000000000000000000001", "0.000000000000000000000000000002"],
        ["1e-99", "2e-99"],
        ["1e99", "2e99"],
        ["1e400", "1"],
        ["-1e400", "1e400"],
        ["9" * 5_000, "8" * 5_000],
        ["NaN", "", "1"],
        ["0", "0"],
        ["-5", "5"],
    ],
    ids=lambda digits: digits[0][:12],
)
def test_the_page_lives_whatever_a_price_is(browser: Browser, demo_url: str, digits: list[str]) -> None:
    context = browser.new_context()
    page = context.new_page()
    change = Change(digits)
    tampered(page, change)
    look = Look(page, demo_url)
    page.set_default_timeout(SOON_MS)
    page.goto(demo_url)
    look.wait("(selector) => document.querySelector(selector)", OKX_BTC)
    page.evaluate("import('/choice.js').then((choice) => choice.choose({instrument: 'BTC/USDT'}))")
    while change.made < 6:
        page.wait_for_timeout(100)
    # A tab that hangs answers nothing.
    turns = page.evaluate(
        "() => new Promise((done) => { let turns = 0; const next = () => (++turns < 10 ? requestAnimationFrame(next)"
        " : done(turns)); next(); })"
    )
    assert turns == 10
    before = look.text(row("ETH/USDT", "okx"))
    look.wait("([at, old]) => document.querySelector(at).textContent !== old", [row("ETH/USDT", "okx"), before])
    assert look.problems == []
    context.close()


def test_a_list_without_end_is_cut(browser: Browser, demo_url: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    coins = [{"id": f"c{number}", "symbol": "x", "name": "X"} for number in range(8_000)]

    def change(message: Any) -> None:
        if message["type"] == "top_update":
            message["data"]["coins"] = coins

    tampered(page, change)
    look = Look(page, demo_url)
    page.goto(demo_url)
    look.wait("document.querySelectorAll('#top-rows tr').length === 250")
    assert look.problems == []
    context.close()
