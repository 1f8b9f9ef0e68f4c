"""The page where the first answers are none: errors, another's HTML, nothing at all, messages of any shape."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route

from tests.browser.looking import Look, looking, row
from tests.browser.outages import behind_venues
from tests.browser.test_hostile import tampered
from tests.browser.test_page import OKX_BTC

HTML = "<!doctype html><title>Bad gateway</title>"
TROUBLE: dict[str, Callable[[Route], None]] = {
    "HTTP 429": lambda route: route.fulfill(status=429, json={"type": "error"}, headers={"Retry-After": "1"}),
    "HTTP 500": lambda route: route.fulfill(status=500, json={"type": "error"}),
    "HTTP 502": lambda route: route.fulfill(status=502, body=HTML, content_type="text/html"),
    "not the answer": lambda route: route.fulfill(body=HTML, content_type="text/html"),
    "no channels": lambda route: route.fulfill(json={"channels": None}),
    "no object": lambda route: route.fulfill(json=None),
    "odd rows": lambda route: route.fulfill(json={"channels": [{}, None]}),
    "no network": lambda route: route.abort(),
}


@pytest.mark.parametrize("kind", TROUBLE)
@pytest.mark.parametrize("path", ["/channels", "/snapshot/binance_prices"])
def test_one_bad_answer_is_said_and_asked_for_again(browser: Browser, demo_url: str, kind: str, path: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []

    def once(route: Route) -> None:
        asked.append(route.request.url)
        TROUBLE[kind](route) if len(asked) == 1 else route.continue_()

    page.route(f"**{path}", once)
    look = Look(page, demo_url)
    page.goto(demo_url)
    if path == "/channels":
        look.wait_text("#link-more", "channels: ")
        look.wait_text("#link-more", "again in")
    look.wait_text("#link", "Connected")
    look.wait("document.querySelectorAll('#price-rows tr').length === 12")
    look.wait("document.querySelectorAll('#top-rows tr').length === 100")
    assert not [problem for problem in look.problems if "Failed to load resource" not in problem]
    context.close()


def test_a_channel_that_is_about_something_else_after_a_reload_is_shown_as_that(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        behind_venues(tmp_path) as (_, daemon),
        looking(browser, f"http://127.0.0.1:{daemon.port}") as look,
    ):
        look.wait("(selector) => document.querySelector(selector)", OKX_BTC)
        config = tmp_path / "venues.toml"
        changed = '\n[channels.bitcoinprice]\nconnector = "binance"\nkind = "orderbook"\ninstrument = "ADA/USDT"\n'
        config.write_text(config.read_text() + changed + "cadence_s = 1.0\n")
        daemon.process.send_signal(1)
        look.wait("import('/market.js').then((market) => market.books.has('bitcoinprice ADA/USDT'))")
        look.wait("(selector) => !document.querySelector(selector)", OKX_BTC)
        assert look.market("market.channel('bitcoinprice').view") == "book"
        assert look.problems == []


ODD: list[Any] = [None, True, 0, -1, 1e300, "", "x", "1e400", [], {}, [None], [[]], {"a": 1}, [["1"]], [{"item": None}]]


def _altered(value: Any, dice: random.Random) -> Any:
    """The same with something odd at one place in it."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        return {**value, key: _altered(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        at = dice.randrange(min(len(value), 3))
        return [*value[:at], _altered(value[at], dice), *value[at + 1 :]]
    return dice.choice(ODD)


def test_data_of_any_shape_trips_nothing(browser: Browser, demo_url: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    dice = random.Random(24)
    made = 0

    def change(message: Any) -> None:
        nonlocal made
        if "data" in message and message.get("instrument") != "ETH/USDT" and "seq" in message:
            message["data"] = _altered(message["data"], dice)
            made += 1

    tampered(page, change)
    look = Look(page, demo_url)
    page.goto(demo_url)
    look.wait("(selector) => document.querySelector(selector)", row("ETH/USDT", "okx"))
    while made < 250:
        page.wait_for_timeout(100)
    before = look.text(row("ETH/USDT", "okx"))
    look.wait("([at, old]) => document.querySelector(at).textContent !== old", [row("ETH/USDT", "okx"), before])
    text: str = page.evaluate(
        "[...document.querySelectorAll('main > :not(#raw, #console)')].map((each) => each.innerText).join(' ')"
    )
    # There is a coin of that name.
    assert re.findall(r"\w*(?:NaN|undefined|null|Infinity|\[object)\w*", text.replace("Axie Infinity", "")) == []
    assert look.problems == []
    context.close()


ODD_LISTS: list[Any] = [
    *({"coins": coins} for coins in ODD),
    {"coins": [None, {"item": {"id": "a", "name": 5, "symbol": None, "data": None}}, {"item": 5}, 7, {"item": {}}]},
]


def test_an_odd_row_leaves_the_others(browser: Browser, demo_url: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    good = {"id": "good", "name": "Good", "symbol": "gd", "data": {"price": 1e-8}, "current_price": 42150}
    turn = 0

    def change(message: Any) -> None:
        nonlocal turn
        if message["type"] in ("top_update", "trending_update"):
            rows = ODD_LISTS[turn % len(ODD_LISTS)]["coins"]
            turn += 1
            rows = rows if isinstance(rows, list) else [rows]
            wrapped = message["type"] == "trending_update"
            message["data"] = {"coins": [*rows, {"item": good} if wrapped else good, *rows]}

    tampered(page, change)
    look = Look(page, demo_url)
    page.goto(demo_url)
    look.wait_text("#trending-rows", "0.00000001")
    look.wait_text("#top-rows", "42,150")
    for coins in ODD_LISTS:
        message = {"connector_id": "coingecko_trending", "type": "trending_update", "seq": 10**9, "data": coins}
        page.evaluate(
            "([message, text]) => import('/market.js').then((market) => market.fold(message, text))",
            [message, json.dumps(message)],
        )
        page.wait_for_timeout(30)
    assert look.problems == []
    context.close()


FLASHES = """() => [...document.querySelectorAll('#price-rows tr')].filter((row) => {
  const {flash, move} = row.querySelector('.price').dataset;
  const arrow = row.querySelector('.move').textContent;
  return flash && (flash !== move || arrow !== {up: '▲', down: '▼'}[flash]);
}).map((row) => row.dataset.key)"""


def test_a_flash_never_has_the_colour_of_the_other_direction(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as look:
        look.wait("(selector) => document.querySelector(selector)", OKX_BTC)
        found: list[list[str]] = look.page.evaluate(
            """async (flashes) => {
              const market = await import('/market.js');
              const row = market.prices.get('BTC/USDT okx');
              const wrong = [];
              for (let turn = 0; turn < 60; turn += 1) {
                Object.assign(row, {move: turn % 2 ? 'up' : 'down', flash: true});
                await import('/paint.js').then(({touchNow}) => touchNow('prices'));
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                wrong.push(...(0, Function)(`return (${flashes})()`)());
              }
              return wrong;
            }""".replace("(0, Function)(`return (${flashes})()`)()", f"({FLASHES})()"),
        )
        assert found == []
        assert look.problems == []
