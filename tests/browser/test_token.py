"""The live page of a daemon that wants a token."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from daemon.config.tokens import written_hash
from daemon.front.tokens import new_token
from tests.browser.looking import Look, looking
from tests.process.running import tickerd, wait_ready

TOKEN, PARTNER = new_token(), new_token()
ENVIRON = {
    "TICKERD_CATALOGUE__PRESETS": '["seed"]',
    "TICKERD_TOKENS__ME__HASH": written_hash(TOKEN),
    "TICKERD_TOKENS__PARTNER__HASH": written_hash(PARTNER),
    "TICKERD_TOKENS__PARTNER__CHANNELS": '["binance_*"]',
}
MISSING = "no valid token: open this page as /#token=TOKEN"


@pytest.fixture(scope="module")
def url(browser: Browser) -> Iterator[str]:
    with tickerd("demo", "--port", "0", environ=ENVIRON) as process:
        wait_ready(process.port)
        yield f"http://127.0.0.1:{process.port}/"


def wait_prices(look: Look, count: int) -> None:
    look.wait("(count) => document.querySelectorAll('#price-rows tr').length === count", count)


def test_with_a_token_the_page_is_as_without_tokens(browser: Browser, url: str) -> None:
    with looking(browser, f"{url}#token={TOKEN}") as look:
        look.wait_text("#link", "Connected")
        wait_prices(look, 12)
        look.wait("document.querySelectorAll('#top-rows tr').length === 100")
        assert look.problems == []


@pytest.mark.parametrize("fragment", ["", "#token=wrong", "#prices"])
def test_without_one_it_says_what_is_missing(browser: Browser, url: str, fragment: str) -> None:
    with looking(browser, url + fragment) as look:
        look.wait_text("#link-more", MISSING)
        assert look.page.locator("#channel-list li").count() == 8, "what there is can be seen"
        assert not look.said
        # As a person does it: the address is changed, and the page is the same.
        with look.page.expect_event("load"):
            look.page.evaluate("(token) => { setTimeout(() => { location.hash = `token=${token}`; }); }", TOKEN)
        look.wait_text("#link", "Connected")
        wait_prices(look, 12)


def test_a_token_for_some_channels_shows_those(browser: Browser, url: str) -> None:
    with looking(browser, f"{url}#token={PARTNER}") as look:
        look.wait_text("#link", "Connected")
        wait_prices(look, 10)
        look.wait_text("#log", "the token does not cover")
        assert {message.get("connector_id", message.get("channel", "binance")) for message in look.messages()} == {
            "binance",
            "binance_prices",
            "binance_24hr",
            "binance_orderbook",
        }


def test_the_token_is_in_no_address_but_the_websockets(browser: Browser, url: str) -> None:
    """The fragment is sent to nobody; what is fetched has it in a header."""
    with looking(browser, "about:blank") as look:
        asked: list[str] = []
        look.page.on("request", lambda request: asked.append(request.url))
        look.page.goto(f"{url}#token={TOKEN}")
        look.wait_text("#link", "Connected")
        wait_prices(look, 12)
        look.elsewhere.clear()  # this one began at no origin
        assert any("/snapshot/" in each for each in asked)
        assert not [each for each in asked if TOKEN in each.partition("#")[0] and not each.startswith("ws")]
