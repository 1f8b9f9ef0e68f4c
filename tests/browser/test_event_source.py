"""A browser's own EventSource: it comes back by itself, with nothing but the id of the last event."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from tests.browser.outages import QUICK, line_to
from tests.process.running import Process, tickerd, wait_ready

LISTEN = """([name, channel]) => {
  const got = (window[name] = []);
  const source = new EventSource(`/events?channels=${channel}`);
  source.onmessage = ({data, lastEventId}) => got.push({...JSON.parse(data), lastEventId});
}"""


@contextmanager
def _daemon(folder: Path, config: Path, port: int = 0) -> Iterator[Process]:
    environ = {**QUICK, "TICKERD_TAPE__PATH": str(folder / "tape"), "TICKERD_SERVER__PORT": str(port)}
    with tickerd("run", "--config", str(config), environ=environ) as process:
        wait_ready(process.port)
        yield process


def _subscribed(page: Page, name: str, times: int) -> list[dict[str, Any]]:
    """The answers to its subscriptions, once there are so many."""
    page.wait_for_function(
        "([name, times]) => window[name].filter(({type}) => type === 'subscribed').length === times", arg=[name, times]
    )
    got: list[dict[str, Any]] = page.evaluate(f"window.{name}")
    return [message for message in got if message["type"] == "subscribed"]


def test_an_event_source_resumes_across_a_restart_of_the_daemon(browser: Browser, tmp_path: Path) -> None:
    config = tmp_path / "venues.toml"
    with tickerd("simulate", "--port", "0", "--config-out", str(config)) as venues:
        assert venues.port
        with _daemon(tmp_path, config) as daemon, line_to(daemon.port) as line:
            port = daemon.port
            page = browser.new_page()
            page.route("**/empty", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
            page.goto(f"http://127.0.0.1:{line.port}/empty")
            page.evaluate(LISTEN, ["prices", "bitcoinprice"])
            page.evaluate(LISTEN, ["trending", "coingecko_trending"])
            page.wait_for_function("prices.filter((each) => each.prev_seq).length > 3")
            [first] = _subscribed(page, "trending", 1)
            assert "recovered" not in first
            # The line goes first, so that the browser comes back before the time that `goodbye` would have told it.
            line.closed.set()
            line.cut()
            assert daemon.stop() == 0
            with _daemon(tmp_path, config, port):
                line.closed.clear()
                assert _subscribed(page, "prices", 2)[1]["recovered"] == {"bitcoinprice": True}
                # This one had a snapshot and nothing else: it was an id without an event that it came back with.
                assert _subscribed(page, "trending", 2)[1]["recovered"] == {"coingecko_trending": True}
                page.wait_for_function(
                    "prices.findLastIndex(({type}) => type === 'subscribed') < prices.findLastIndex((m) => m.prev_seq)"
                )
                prices: list[dict[str, Any]] = page.evaluate("prices")
            page.close()
    epoch = first["epoch"]
    data = [message for message in prices if "prev_seq" in message]
    assert [message["prev_seq"] for message in data[1:]] == [message["seq"] for message in data[:-1]]
    assert [message["lastEventId"] for message in data[1:]] == [f"{epoch}-{message['seq']}" for message in data[1:]]
