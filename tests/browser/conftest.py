"""A headless Chromium, and two demos for the tests that only look at them."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.process.running import tickerd, wait_ready

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

EIGHT = {"TICKERD_CATALOGUE__PRESETS": '["seed"]'}
"""Lets a demo have the eight channels of the beginning only."""


def launch(playwright: Playwright) -> Browser | None:
    """Debian's Chromium; None where it is not installed."""
    path = shutil.which("chromium")
    return None if path is None else playwright.chromium.launch(executable_path=path, args=ARGUMENTS.split())


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; `TICKERD_REQUIRE_BROWSER=1` makes its absence an error, as it is for the checks."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            absent = "no chromium here; Debian and Ubuntu have it: apt-get install chromium"
            if os.environ.get("TICKERD_REQUIRE_BROWSER"):
                pytest.fail(absent)
            pytest.skip(absent)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def demo_url(browser: Browser) -> Iterator[str]:
    """A demo of the eight channels. It depends on the browser, so that without one nothing is started."""
    with tickerd("demo", "--port", "0", environ=EIGHT) as process:
        wait_ready(process.port)
        yield f"http://127.0.0.1:{process.port}"


@pytest.fixture(scope="session")
def market_url(browser: Browser) -> Iterator[str]:
    """A demo of all channels, below a path prefix as behind a proxy."""
    with tickerd("demo", "--port", "0", environ={"TICKERD_SERVER__PREFIX": "/feed"}) as process:
        wait_ready(process.port, prefix="/feed")
        yield f"http://127.0.0.1:{process.port}/feed/"
