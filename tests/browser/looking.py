"""A page as somebody looks at it, who also reads the browser's console and its network log."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, WebSocket

WITHIN_MS = 20_000
"""How long a test waits for what has to come, on a machine that is busy."""


class Look:
    """One open page.

    Attributes:
        page: Playwright's.
        said: what the page's connections were sent, in order.
        problems: errors of the console and of scripts.
        elsewhere: requests that left the page's origin.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.said: list[str] = []
        self.problems: list[str] = []
        self.elsewhere: list[str] = []
        self._host = urlsplit(origin).netloc
        page.set_default_timeout(WITHIN_MS)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._request(request.url))
        page.on("websocket", self._websocket)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _request(self, url: str) -> None:
        if urlsplit(url).netloc != self._host:
            self.elsewhere.append(url)

    def _websocket(self, websocket: WebSocket) -> None:
        self._request(websocket.url)
        websocket.on("framereceived", lambda frame: self.said.append(str(frame)))

    def messages(self) -> list[Any]:
        """What the page was sent, decoded."""
        return [json.loads(text) for text in self.said]

    def wait_from(self, *channels: str) -> None:
        """Until each of these channels has sent something."""
        deadline = time.monotonic() + WITHIN_MS / 1000
        while missing := set(channels) - {message.get("connector_id") for message in self.messages()}:
            assert time.monotonic() < deadline, f"not within {WITHIN_MS} ms: a message of {missing}"
            self.page.wait_for_timeout(100)

    def text(self, selector: str) -> str:
        """An element's text, whether it can be seen or not."""
        return self.page.locator(selector).first.text_content() or ""

    def wait(self, condition: str, argument: Any = None, within_ms: int = WITHIN_MS) -> None:
        """Until the JavaScript expression or function holds.

        Playwright's own `wait_for_function` builds code from text inside the page, which its policy forbids.
        """
        deadline = time.monotonic() + within_ms / 1000
        while not self.page.evaluate(condition, argument):
            if time.monotonic() > deadline:
                state = self.page.evaluate("document.body.innerText")
                raise AssertionError(
                    f"not within {within_ms} ms: {condition} {argument!r}; the page says: {state[:2000]}"
                )
            self.page.wait_for_timeout(40)

    def wait_text(self, selector: str, part: str, within_ms: int = WITHIN_MS) -> None:
        """Until the element's text contains this."""
        condition = "([selector, part]) => document.querySelector(selector)?.textContent.includes(part)"
        self.wait(condition, [selector, part], within_ms)

    def market(self, expression: str) -> Any:
        """A JavaScript expression over `market`, the module that holds the page's state."""
        return self.page.evaluate(f"import('./market.js').then((market) => {expression})")


@contextmanager
def looking(browser: Browser, url: str, *, width: int = 1280, height: int = 800, **context: Any) -> Iterator[Look]:
    """Open the page, in a context of its own. Leaving fails the test where a request has left the origin."""
    opened = browser.new_context(viewport=ViewportSize(width=width, height=height), **context)
    try:
        look = Look(opened.new_page(), url)
        look.page.goto(url)
        yield look
        assert look.elsewhere == []
    finally:
        opened.close()


def row(instrument: str, exchange: str) -> str:
    """The selector of one row of the prices."""
    return f'#price-rows tr[data-key="{instrument} {exchange}"]'
