"""`/client.js` against a scripted daemon: what it sends, what it hands over, when it comes back."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute

CHANNELS = ["bitcoinprice", "ethprice"]

CONNECT = """async (options) => {
  const {connect} = await import('/client.js');
  window.told = [];
  const tell = (kind) => (what) => told.push([kind, what]);
  window.client = connect('/ws', {
    ...options, onMessage: tell('message'), onStatus: tell('status'), onState: tell('state'), onEvent: tell('event'),
  });
}"""


class Scripted:
    """A daemon of which the test writes each word.

    Attributes:
        lines: the connections so far.
        got: what came in, with the number of the connection.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.lines: list[WebSocketRoute] = []
        self.got: list[tuple[int, Any]] = []
        self.at: dict[str, Any] = {}
        page.route_web_socket(re.compile(r"/ws(\?|$)"), self._accept)

    def _accept(self, line: WebSocketRoute) -> None:
        number = len(self.lines)
        self.lines.append(line)
        line.on_message(lambda text: self.got.append((number, json.loads(text))))

    def wait_line(self, number: int, within_s: float = 10.0) -> None:
        """Until the connection of this number is there."""
        deadline = time.monotonic() + within_s
        while len(self.lines) <= number:
            assert time.monotonic() < deadline, f"no connection {number} within {within_s} s"
            self.page.wait_for_timeout(20)

    def say(self, **message: Any) -> None:
        """Send a message over the newest connection."""
        self.lines[-1].send(json.dumps({"timestamp": "2025-12-08T16:30:45.123Z", **message}))

    def welcome(self, seq: int, epoch: str = "first", heartbeat_s: float = 60) -> None:
        """Send the first message, and wait for what it is answered with."""
        before = len(self.got)
        server = {"name": "tickerd", "version": "1"}
        self.at = {"seq": seq, "epoch": epoch}
        self.say(type="welcome", server=server, epoch=epoch, seq=seq, channels=CHANNELS, heartbeat_s=heartbeat_s)
        deadline = time.monotonic() + 5
        while len(self.got) == before and time.monotonic() < deadline:
            self.page.wait_for_timeout(10)

    def price(self, seq: int, prev_seq: int, channel: str = "bitcoinprice", kind: str = "price_update") -> None:
        """Send a data message."""
        data = {"last": "1.50"}
        self.say(
            type=kind, connector_id=channel, instrument="BTC/USDT", seq=seq, prev_seq=prev_seq, price=1.5, data=data
        )

    def subscribed(self, command: Any, **more: Any) -> None:
        """Answer a `subscribe`."""
        self.say(type="subscribed", channels=command["channels"], id=command["id"], **self.at, **more)

    def told(self, kind: str) -> list[Any]:
        """What the page has been told of this kind."""
        self.page.wait_for_timeout(60)
        told: list[list[Any]] = self.page.evaluate("told")
        return [what for of, what in told if of == kind]

    def event(self, type_: str) -> Any:
        """The one event of that type, as soon as the page has been told it."""
        deadline_s = time.monotonic() + 10
        while not (found := [event for event in self.told("event") if event["type"] == type_]):
            assert time.monotonic() < deadline_s, f"no {type_}"
        [event] = found
        return event


@pytest.fixture
def daemon(browser: Browser, demo_url: str) -> Iterator[Scripted]:
    """The scripted daemon of an empty page that may import `/client.js`."""
    context = browser.new_context()
    page = context.new_page()
    page.route("**/empty", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    scripted = Scripted(page)
    page.goto(f"{demo_url}/empty")
    yield scripted
    context.close()


def _begin(daemon: Scripted, **options: Any) -> None:
    daemon.page.evaluate(CONNECT, options)
    daemon.wait_line(0)


def test_subscriptions_are_restored_where_each_channel_stopped(daemon: Scripted) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10)
    [(_, first)] = daemon.got
    assert (first["type"], first["channels"]) == ("subscribe", CHANNELS)
    assert "since" not in first
    daemon.subscribed(first)
    daemon.price(11, 7)
    daemon.price(12, 5, "ethprice")
    daemon.price(15, 11)
    daemon.page.evaluate("client.subscribe(['ethprice'], {interval_ms: 500})")
    daemon.told("message")
    daemon.lines[0].close(code=4000, reason="slow consumer")
    daemon.wait_line(1)
    daemon.welcome(40)
    daemon.told("state")
    restored = {tuple(command["channels"]): command for number, command in daemon.got if number == 1}
    assert restored[("bitcoinprice",)]["since"] == {"epoch": "first", "seq": 15}
    assert restored[("ethprice",)]["interval_ms"] == 500
    for command in restored.values():
        daemon.subscribed(command, recovered=dict.fromkeys(command["channels"], True))
    resumed = daemon.event("resumed")
    assert (resumed["recovered"], resumed["lost"], resumed["restarted"]) == (True, [], False)
    waiting = [state for state in daemon.told("state") if state["state"] == "waiting"]
    assert [(state["code"], state["reason"]) for state in waiting] == [(4000, "slow consumer")]
    assert 0 <= waiting[0]["retry_in_s"] <= 1


def test_a_channel_without_a_message_resumes_where_it_was_subscribed(daemon: Scripted) -> None:
    _begin(daemon, channels=CHANNELS)
    daemon.welcome(10)
    daemon.subscribed(daemon.got[0][1])
    daemon.price(11, 7)
    daemon.told("message")
    daemon.lines[0].close(code=4000, reason="slow consumer")
    daemon.wait_line(1)
    daemon.welcome(20)
    daemon.told("state")
    restored = {tuple(each["channels"]): each["since"] for number, each in daemon.got if number == 1}
    assert restored == {
        ("bitcoinprice",): {"epoch": "first", "seq": 11},
        ("ethprice",): {"epoch": "first", "seq": 10},
    }


def test_a_restart_is_told_and_the_newest_messages_count_again(daemon: Scripted) -> None:
    _begin(daemon, channels=["bitcoinprice"])
    daemon.welcome(900)
    daemon.price(901, 900)
    daemon.told("message")
    daemon.lines[0].close(code=4001)
    daemon.wait_line(1)
    daemon.welcome(5, epoch="second")
    command = daemon.got[-1][1]
    assert command["since"] == {"epoch": "first", "seq": 901}
    daemon.subscribed(command, recovered={"bitcoinprice": False}, reason="another epoch")
    daemon.price(3, 2)
    assert [message["seq"] for message in daemon.told("message")] == [901, 3]
    resumed = daemon.event("resumed")
    assert (resumed["recovered"], resumed["lost"], resumed["restarted"]) == (False, ["bitcoinprice"], True)


def test_gaps_are_told_unless_they_were_announced_and_doubles_are_dropped(daemon: Scripted) -> None:
    _begin(daemon, channels=["bitcoinprice"])
    daemon.welcome(10)
    for seq, prev_seq in ((11, 3), (12, 11), (12, 11), (11, 3), (20, 19)):
        daemon.price(seq, prev_seq)
    daemon.say(type="lagged", missed=9, from_seq=21, to_seq=30)
    daemon.price(30, 28)
    daemon.price(31, 30)
    assert [message["seq"] for message in daemon.told("message")] == [11, 12, 20, 30, 31]
    gaps = [event for event in daemon.told("event") if event["type"] == "gap"]
    assert [(gap["channel"], gap["after"], gap["before"]) for gap in gaps] == [("bitcoinprice", 12, 20)]
    assert [event["missed"] for event in daemon.told("event") if event["type"] == "lagged"] == [9]


def test_a_change_from_an_interval_to_every_message_is_no_gap(daemon: Scripted) -> None:
    """What the interval left out was asked to be left out, up to the answer; from then on every message is due."""
    _begin(daemon, channels=["bitcoinprice"], interval_ms=500)
    daemon.welcome(10)
    daemon.subscribed(daemon.got[-1][1])
    daemon.price(11, 3)
    daemon.price(20, 17)
    daemon.page.evaluate("client.subscribe(['bitcoinprice'])")
    daemon.price(30, 28)  # was on its way
    daemon.told("message")
    daemon.at["seq"] = 40
    daemon.subscribed(daemon.got[-1][1])
    daemon.price(38, 35)  # the newest, which was not due yet
    daemon.price(41, 38)
    assert [event for event in daemon.told("event") if event["type"] == "gap"] == []
    daemon.price(50, 47)
    gaps = [event for event in daemon.told("event") if event["type"] == "gap"]
    assert [(gap["after"], gap["before"]) for gap in gaps] == [(41, 50)]


def test_what_is_unknown_is_ignored_and_what_is_left_stays_away(daemon: Scripted) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10)
    daemon.say(type="a word of a later version", id=1)
    daemon.say(type="status", channel="ethprice", state="stale", since="", reason="silent")
    daemon.price(11, 1)
    daemon.page.evaluate("client.unsubscribe(['bitcoinprice'])")
    daemon.price(12, 11)
    assert [message["seq"] for message in daemon.told("message")] == [11]
    assert [status["state"] for status in daemon.told("status")] == ["stale"]
    assert daemon.told("event") == []
    daemon.lines[0].close(code=1013)
    daemon.wait_line(1)
    daemon.welcome(20)
    assert daemon.got[-1][1]["channels"] == ["ethprice"]


@pytest.mark.parametrize("code", [1003, 1007, 1008, 1009])
def test_codes_that_say_not_to_come_back_are_final(daemon: Scripted, code: int) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10)
    daemon.say(type="goodbye", code=code, reason="no", retry_after_s=0.05)
    daemon.lines[0].close(code=code, reason="no")
    daemon.page.wait_for_timeout(400)
    assert len(daemon.lines) == 1
    assert daemon.told("state")[-1] == {"state": "closed", "code": code, "reason": "no"}


def test_goodbye_says_when_to_come_back(daemon: Scripted) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10)
    daemon.say(type="goodbye", code=1001, reason="the daemon is stopping", retry_after_s=1.5)
    daemon.lines[0].close(code=1001)
    began = time.monotonic()
    daemon.wait_line(1)
    assert 1.2 < time.monotonic() - began < 6
    waiting = [state for state in daemon.told("state") if state["state"] == "waiting"]
    assert [(state["reason"], state["retry_in_s"]) for state in waiting] == [("the daemon is stopping", 1.5)]


def test_two_unanswered_pings_are_a_dead_connection(daemon: Scripted) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10, heartbeat_s=0.3)
    daemon.wait_line(1)
    pings = [command for number, command in daemon.got if number == 0 and command["type"] == "ping"]
    assert len(pings) == 2
    assert "2 pings were not answered" in [state.get("reason") for state in daemon.told("state")]


def test_close_is_for_good(daemon: Scripted) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10)
    daemon.say(type="goodbye", code=1001, reason="", retry_after_s=0.05)
    daemon.page.evaluate("client.close()")
    daemon.page.wait_for_timeout(400)
    assert len(daemon.lines) == 1
    assert daemon.told("state")[-1]["state"] == "closed"


def test_a_token_goes_into_the_address_of_the_socket(daemon: Scripted) -> None:
    _begin(daemon, token="tkd_a-b_c", instruments=["BTC/USDT"])
    assert daemon.lines[0].url.endswith("/ws?token=tkd_a-b_c")
    assert "tkd_" not in json.dumps(daemon.got), "it is no option of the subscription"


@pytest.mark.parametrize(
    "event",
    [
        "new Event('online')",
        "new Event('offline')",
        "new Event('visibilitychange')",
        "new PageTransitionEvent('pageshow', {persisted: true})",
    ],
)
def test_a_dead_line_is_noticed_soon_after_the_browser_says_that_something_changed(
    daemon: Scripted, event: str
) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10, heartbeat_s=60)
    daemon.page.evaluate(f"dispatchEvent({event})")
    daemon.wait_line(1, within_s=12)
    assert [command["id"] for number, command in daemon.got if number == 0 and command["type"] == "ping"] == [
        "heartbeat"
    ]
    assert "no answer" in [state.get("reason") for state in daemon.told("state")]


def test_a_line_that_answers_stays(daemon: Scripted) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10, heartbeat_s=60)
    daemon.page.evaluate("dispatchEvent(new Event('online'))")
    daemon.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: false}))")
    daemon.told("state")
    daemon.say(type="pong", id="heartbeat")
    daemon.page.wait_for_timeout(5_000)
    assert len(daemon.lines) == 1
    assert [command["type"] for _, command in daemon.got] == ["subscribe", "ping"]


def test_who_waits_comes_back_at_once_when_the_page_is_looked_at_again(daemon: Scripted) -> None:
    _begin(daemon, channels=["*"])
    daemon.welcome(10)
    daemon.say(type="goodbye", code=1001, reason="", retry_after_s=60)
    daemon.lines[0].close(code=1001)
    daemon.told("state")
    daemon.page.evaluate("dispatchEvent(new Event('visibilitychange'))")
    daemon.wait_line(1)
