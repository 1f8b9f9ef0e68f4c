"""What `GET /gaps` answers."""

import json
from typing import Any

import pytest

from connectors.base import State
from daemon.front.http import Headers, Refused, Request
from daemon.health.board import ChannelState
from daemon.host.clock import WallClock
from daemon.routes.gaps import gap_list
from daemon.tape.ledger import Ledger
from protocol.messages import encode
from tests.daemon.fanout.sink import CATALOGUE

NOW_MS = 1_765_211_445_123


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.record("restart", "", NOW_MS - 90_000, NOW_MS - 80_000, reason="the daemon was stopped")
    down: State = "reconnecting"
    ledger.channel("a", ChannelState(down, 0, "no route", last_event_ms=NOW_MS - 30_000), NOW_MS - 29_000)
    ledger.channel("b", ChannelState(down, 0, "hung up", last_event_ms=NOW_MS - 20_000), NOW_MS - 19_000)
    ledger.channel("b", ChannelState("live", 0), NOW_MS - 10_000)
    return ledger


def answer(ledger: Ledger, *query: tuple[str, str]) -> dict[str, Any]:
    request = Request(method="GET", path="/gaps", query=query, peer="192.0.2.1")
    body = gap_list(request, ledger, CATALOGUE, WallClock(lambda: NOW_MS * 1_000_000))
    answered: dict[str, Any] = json.loads(encode(body))
    return answered


def test_the_newest_comes_first_and_what_lasts_has_no_end(ledger: Ledger) -> None:
    body = answer(ledger)
    assert (body["type"], body["timestamp"], body["more"], body["forgotten"]) == (
        *("gaps", "2025-12-08T16:30:45.123Z"),
        *(0, 0),
    )
    assert [(gap["cause"], gap["channel"], gap["end"]) for gap in body["gaps"]] == [
        ("outage", "b", "2025-12-08T16:30:35.123Z"),
        ("outage", "a", None),
        ("restart", None, "2025-12-08T16:29:25.123Z"),
    ]
    assert body["gaps"][1] == {
        "id": 2,
        "cause": "outage",
        "channel": "a",
        "start": "2025-12-08T16:30:15.123Z",
        "end": None,
        "duration_s": 30.0,
        "count": 1,
        "messages": 0,
        "reason": "no route",
    }


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ((("channel", "a"),), [2, 1]),
        ((("channel", "b"),), [3, 1]),
        ((("since_ms", str(NOW_MS - 15_000)),), [3, 2]),
        ((("since_ms", str(NOW_MS)),), [2]),
        ((("limit", "1"),), [3]),
        ((("limit", "1"), ("channel", "a"), ("what", "ever")), [2]),
    ],
)
def test_it_can_be_narrowed_down(ledger: Ledger, query: Headers, ids: list[int]) -> None:
    assert [gap["id"] for gap in answer(ledger, *query)["gaps"]] == ids


def test_what_a_limit_leaves_out_is_counted(ledger: Ledger) -> None:
    assert answer(ledger, ("limit", "2"))["more"] == 1


def test_a_channel_that_is_no_longer_served_still_has_its_gaps(ledger: Ledger) -> None:
    ledger.note("refused", "gone", NOW_MS)
    assert [gap["channel"] for gap in answer(ledger, ("channel", "gone"))["gaps"]] == ["gone", None]


@pytest.mark.parametrize(
    ("query", "status", "seen"),
    [
        ((("channel", "aa"),), 404, "no channel 'aa'; nearest: a"),
        ((("limit", "0"),), 400, "limit is '0'; allowed: a whole number from 1 to 1000"),
        ((("limit", "1001"),), 400, "limit is '1001'"),
        ((("limit", "9" * 5000),), 400, "limit is '999"),
        ((("limit", "\u0665"),), 400, "allowed"),
        ((("since_ms", "-1"),), 400, "since_ms is '-1'"),
        ((("since_ms", "2025-12-08"),), 400, "since_ms is '2025-12-08'"),
        ((("limit", "1"), ("limit", "2")), 400, "limit is given more than once"),
    ],
)
def test_what_cannot_be_answered_is_told(ledger: Ledger, query: Headers, status: int, seen: str) -> None:
    with pytest.raises(Refused) as refused:
        answer(ledger, *query)
    assert refused.value.status == status
    assert seen in str(refused.value)
