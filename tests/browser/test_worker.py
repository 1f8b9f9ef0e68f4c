"""`/client.js` in a web worker, which has neither a window nor a document: against the demo."""

from typing import Any

from playwright.sync_api import Browser

WORKER = """
import {connect} from 'BASE/client.js';
const tell = (kind) => (what) => postMessage([kind, what]);
const options = {channels: ['bitcoinprice'], onMessage: tell('message'), onState: tell('state')};
const client = connect('BASE/ws', options);
self.onmessage = () => client.close();
"""

PAGE = """(source) => new Promise((done) => {
  const told = [];
  const worker = new Worker(URL.createObjectURL(new Blob([source], {type: 'text/javascript'})), {type: 'module'});
  setTimeout(() => done([...told, ['error', 'too late']]), 15_000);
  worker.onerror = ({message}) => done([...told, ['error', message]]);
  worker.onmessage = ({data}) => {
    told.push(data);
    if (told.filter(([kind]) => kind === 'message').length === 2) worker.postMessage('close');
    if (data[1].state === 'closed') done(told);
  };
})"""


def test_it_runs_in_a_worker(browser: Browser, demo_url: str) -> None:
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    # A page of the daemon's own: what an intercepted one may reach on loopback is another matter.
    page.goto(f"{demo_url}/healthz")
    told: list[list[Any]] = page.evaluate(PAGE, WORKER.replace("BASE", demo_url))
    context.close()
    assert [what for kind, what in told if kind == "error"] == []
    assert [what["state"] for kind, what in told if kind == "state"] == ["connecting", "open", "closed"]
    seqs = [what["seq"] for kind, what in told if kind == "message"]
    assert len(seqs) >= 2
    assert seqs == sorted(set(seqs))
