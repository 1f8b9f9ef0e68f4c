"""Crowds, as judged by what was noted; and what a client that comes back makes of what it gets."""

import json
from collections import Counter
from typing import Any

import pytest

from daemon.commands.rehearse.crowd import COMERS, STORMS, Comer, CrowdRecord, judge_crowd
from daemon.commands.rehearse.judge import Verdict
from daemon.commands.rehearse.pair import ALL
from daemon.commands.rehearse.records import Data, Entry, LogLine, Told


def fresh(prev_seq: int = 1) -> list[Entry]:
    return [Data(3.5, channel, "X/U", 9, prev_seq) for channel in ALL]


def storm(*entries: Entry, **more: Any) -> Verdict:
    return noted(CrowdRecord(**{"name": "reconnect_storm", "resumed": COMERS * STORMS, **more}), *entries)


def flood(*entries: Entry, **more: Any) -> Verdict:
    answers = {"statuses": Counter({200: 333, 429: 50}), "probed": [200, 200]}
    return noted(CrowdRecord(**{"name": "http_flood", **answers, **more}), *entries)


def noted(record: CrowdRecord, *entries: Entry) -> Verdict:
    record.before = {(channel, "X/U"): Data(1.0, channel, "X/U", 1, 0) for channel in ALL}
    record.entries = entries or fresh()
    record.began_s, record.cleared_s = 2.0, 4.0
    if "not back" not in record.failure:
        record.recovered_s = 5.0
    return judge_crowd(record)


def test_crowds_that_nobody_noticed_are_well() -> None:
    assert storm().is_well
    assert storm().reason == f"{COMERS * STORMS} of {COMERS * STORMS} resumed"
    assert flood().is_well
    assert flood().reason == "333 times 200, 50 times 429"


def test_a_busy_machine_is_no_fault() -> None:
    """A channel may be stale for a moment where venue, daemon and clients share two busy cores."""
    assert storm(Told(3.0, 3_000, "ethprice", "stale", "no message for 1.5 s"), *fresh()).is_well


@pytest.mark.parametrize(
    ("verdict", "problem"),
    [
        (storm(resumed=5), f"only 5 of {COMERS * STORMS} resumed"),
        (storm(lost=2), "2 messages lost"),
        (storm(doubled=3), "3 messages doubled"),
        (storm(unserved=["TooSlowError()"]), "a client that came was not served: TooSlowError()"),
        (storm(*fresh(4)), "8 messages lost"),
        (storm(*fresh(), *fresh()), "8 messages doubled"),
        (storm(*fresh()[1:]), f"disturbed: {ALL[0]}"),
        (storm(log=[LogLine(3_000, "error", "it broke")]), "the daemon logged an error: it broke"),
        (storm(failure="the daemon is down"), "the daemon is down"),
        (flood(statuses=Counter({200: 5_000})), "the flood was not limited"),
        (flood(probed=[200, 429]), "/healthz was answered 429"),
        (flood(probed=[0]), "/healthz was answered 0"),
        (flood(failure="not back"), "not recovered"),
    ],
)
def test_what_is_wrong_is_named(verdict: Verdict, problem: str) -> None:
    assert problem in verdict.problems


def subscribed(seq: int, **recovered: bool) -> str:
    more = {"recovered": recovered} if recovered else {}
    return json.dumps({"type": "subscribed", "epoch": "e", "seq": seq, **more})


def price(seq: int, prev_seq: int, instrument: str = "A/U") -> str:
    return json.dumps({"type": "price_update", "seq": seq, "prev_seq": prev_seq, "instrument": instrument})


def test_a_client_that_comes_back_says_where_it_was_and_counts_what_it_missed() -> None:
    comer = Comer()
    assert comer.since == {}
    assert not comer.note('{"type":"welcome","epoch":"e","seq":3}')
    assert not comer.note(subscribed(5))
    assert comer.since == {"since": {"epoch": "e", "seq": 5}}
    assert comer.note(price(7, 2))
    assert comer.note(price(8, 4, "B/U"))
    assert comer.since == {"since": {"epoch": "e", "seq": 8}}
    comer.note(subscribed(11, bitcoinprice=True))
    assert comer.since == {"since": {"epoch": "e", "seq": 8}}, "what follows is not here yet"
    comer.note(price(10, 7))
    assert (comer.resumed, comer.lost, comer.doubled) == (1, 0, 0)
    comer.note(price(14, 13))
    comer.note(price(14, 13))
    comer.note(subscribed(20, bitcoinprice=False))
    assert (comer.resumed, comer.lost, comer.doubled) == (1, 1, 1)
