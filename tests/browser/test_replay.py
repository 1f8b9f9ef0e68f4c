"""The live page of a daemon that plays a recording says so, and shows ages by the recording's clock."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.looking import looking
from tests.connectors.replay.made import channel, header, line, record, ticker
from tests.process.running import tickerd


@pytest.fixture
def url(browser: Browser, tmp_path: Path) -> Iterator[str]:
    frames = [line(at, frame=ticker("42150.50", at)) for at in range(100, 60_000, 100)]
    record(tmp_path, header("okx", [channel("bitcoinprice", "okx", "ticker")]), [line(0, opened="a"), *frames])
    with tickerd("replay", str(tmp_path), "--port", "0", "--speed", "2") as process:
        yield f"http://127.0.0.1:{process.port}"


def test_the_page_says_that_it_is_a_recording(browser: Browser, url: str) -> None:
    with looking(browser, url) as look:
        look.wait_text("#unreal", "This is a replay of what was recorded from ")
        look.wait_text("#unreal", ", at 2 times the speed. Nothing here is live.")
        look.wait_text("#price-rows", "42,150.5")
        assert look.page.locator("#unreal").is_visible()
        # Data is seconds old by the recording's clock, however long ago that was.
        age = look.text("#price-rows tr td:last-child")
        assert "d" not in age, age
        assert look.problems == []
