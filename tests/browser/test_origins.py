"""Pages that are not the daemon's own, in a browser: what they may read, and that they cannot act."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from daemon.config.tokens import written_hash
from daemon.front.tokens import new_token
from tests.process.running import tickerd, wait_ready

PAGE = "<!doctype html><title>somebody else's page</title>"

READ = """async (base) => {
  const got = {};
  const paths = ['/channels', '/snapshot/bitcoinprice', '/gaps', '/metrics', '/healthz', '/nothing', '/gaps?limit=0'];
  for (const path of paths) {
    const answer = await fetch(base + path);
    got[path] = [answer.status, (await answer.text()).length > 0];
  }
  const client = await import(`${base}/client.js`);
  got.client = typeof client.connect;
  got.events = await new Promise((done) => {
    const source = new EventSource(`${base}/events?channels=bitcoinprice`);
    source.onmessage = ({data}) => { source.close(); done(JSON.parse(data).type); };
    source.onerror = () => done('refused');
  });
  got.websocket = await new Promise((done) => {
    const socket = new WebSocket(`${base}/ws`.replace('http', 'ws'));
    socket.onmessage = ({data}) => { socket.close(); done(JSON.parse(data).type); };
    socket.onerror = () => done('refused');
  });
  return got;
}"""

ACT = """async (base) => {
  const send = async (headers, body) => {
    try {
      const answer = await fetch(`${base}/ws/test`, {method: 'POST', headers, body});
      return answer.status;
    } catch {
      return 'kept';
    }
  };
  const text = '{"message":"from a page"}';
  return [
    await send({'Content-Type': 'application/json'}, text),
    await send({'Content-Type': 'text/plain'}, text),
    await send({}, new Blob([text])),
    await send({}, new URLSearchParams(text)),
  ];
}"""


@contextmanager
def elsewhere(folder: Path) -> Iterator[str]:
    """A server of somebody else's on this machine."""
    (folder / "index.html").write_text(PAGE)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(5)


@pytest.fixture(params=["a file", "another port"])
def page(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page that is not the daemon's."""
    context = browser.new_context()
    page = context.new_page()
    with elsewhere(tmp_path) as url:
        page.goto((tmp_path / "index.html").as_uri() if request.param == "a file" else url)
        yield page
    context.close()


def test_a_page_of_any_origin_reads_everything_and_sends_nothing(page: Page, demo_url: str) -> None:
    got: dict[str, Any] = page.evaluate(READ, demo_url)
    assert got.pop("client") == "function"
    assert (got.pop("events"), got.pop("websocket")) == ("welcome", "welcome")
    assert {path: status for path, (status, _) in got.items()} == {
        **dict.fromkeys(("/channels", "/snapshot/bitcoinprice", "/gaps", "/metrics", "/healthz"), 200),
        "/nothing": 404,
        "/gaps?limit=0": 400,
    }
    assert all(read for _, read in got.values())
    # The first is not even sent: its preflight is refused. Of the others the page is told why.
    assert page.evaluate(ACT, demo_url) == ["kept", 403, 403, 403]


def test_a_page_of_any_origin_reads_with_a_token_in_a_header(page: Page) -> None:
    token = new_token()
    tokens = {"TICKERD_TOKENS__ANY__HASH": written_hash(token)}
    with tickerd("demo", "--port", "0", environ=tokens) as process:
        wait_ready(process.port)
        base = f"http://127.0.0.1:{process.port}"
        ask = "async ([url, headers]) => (await fetch(url, {headers})).status"
        url = f"{base}/snapshot/bitcoinprice"
        assert page.evaluate(ask, [url, {"Authorization": f"Bearer {token}"}]) == 200
        assert page.evaluate(ask, [url, {"Authorization": "Bearer wrong", "X-Any": "header"}]) == 401


def test_a_list_keeps_other_pages_out_and_the_log_says_which_key_it_is(page: Page) -> None:
    narrow = {"TICKERD_SERVER__ORIGINS": '["https://listed.example"]'}
    with tickerd("demo", "--port", "0", environ=narrow) as process:
        wait_ready(process.port)
        base = f"http://127.0.0.1:{process.port}"
        ask = "async (url) => { try { return (await fetch(url)).status; } catch { return 'kept'; } }"
        assert page.evaluate(ask, f"{base}/channels") == "kept"
        opened = """(url) => new Promise((done) => {
          const socket = new WebSocket(url);
          socket.onopen = () => done('open');
          socket.onerror = () => done('refused');
        })"""
        assert page.evaluate(opened, f"{base}/ws".replace("http", "ws")) == "refused"
        process.stop()
    origin = page.evaluate("location.protocol === 'file:' ? 'null' : location.origin")
    said = [line for line in process.lines if "server.origins" in line]
    assert any(f"403 forbidden: the origin '{origin}' is not in server.origins" in line for line in said)
    assert any(f"a page of the origin '{origin}' cannot read its answer" in line for line in said)
