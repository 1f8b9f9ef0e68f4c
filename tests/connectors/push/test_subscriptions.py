"""What was asked, refused, left unanswered, and is mute: told by a clock that the tests hold."""

from math import inf

from connectors.base import StateChange, TopicNote
from connectors.push.subscriptions import Subscriptions
from connectors.push.venue import SubscribeRefused, SubscribeRequest
from connectors.set_aside import SetAside

BTC = SubscribeRequest("a", "subscribe BTC", ("btc", "majors"), "BTC/USDT")
ETH = SubscribeRequest("b", "subscribe ETH", ("majors",), "ETH/USDT")
NOPE = SubscribeRequest("c", "subscribe NOPE", ("nope",), "NOPE/USDT")
UNKNOWN = "unknown to Venue: NOPE/USDT"


def ledger(
    *requests: SubscribeRequest, aside: SetAside | None = None, now_s: float = 0.0, per_hour: int = 480
) -> Subscriptions:
    return Subscriptions(
        requests,
        SetAside() if aside is None else aside,
        title="Venue",
        data_s=30,
        requests_per_hour=per_hour,
        now_s=now_s,
    )


def asked(subscriptions: Subscriptions, now_s: float) -> list[str]:
    return [request.id for request in subscriptions.due(now_s).requests]


def test_everything_is_asked_for_at_once_and_once() -> None:
    subscriptions = ledger(BTC, ETH)
    assert subscriptions.opening(0) == []
    assert subscriptions.next_due_s() == 0
    assert asked(subscriptions, 0) == ["a", "b"]
    assert asked(subscriptions, 0) == []


def test_a_subscription_without_an_answer_is_reported_and_asked_for_again_later_and_later() -> None:
    subscriptions = ledger(NOPE)
    subscriptions.due(0)
    assert subscriptions.next_due_s() == 10
    assert subscriptions.due(9.9) == ([], [])
    told = StateChange("nope", "stale", "Venue did not answer the subscription of NOPE/USDT in 10 s", 15)
    assert subscriptions.due(10) == ([], [told])
    assert subscriptions.next_due_s() == 25
    assert asked(subscriptions, 25) == ["c"]
    [again] = subscriptions.due(35).changes
    assert isinstance(again, StateChange)
    assert again.retry_in_s == 30
    # Its silence has been told already.
    assert subscriptions.next_due_s() == 65


def test_they_are_settled_when_nothing_is_awaited_but_data() -> None:
    subscriptions = ledger(BTC, ETH, NOPE)
    assert not subscriptions.are_settled
    subscriptions.due(0)
    assert not subscriptions.are_settled
    subscriptions.acknowledged("a")
    subscriptions.refused(SubscribeRefused("c", UNKNOWN, retry=False), 1)
    assert not subscriptions.are_settled
    subscriptions.refused(SubscribeRefused("b", "busy", retry=True), 1)
    assert not subscriptions.are_settled
    asked(subscriptions, 16)
    subscriptions.acknowledged("b")
    assert subscriptions.are_settled


def test_an_acknowledged_channel_without_data_is_stale_and_heals_with_data() -> None:
    subscriptions = ledger(NOPE)
    subscriptions.due(0)
    subscriptions.acknowledged("c")
    subscriptions.acknowledged("never heard of")
    assert subscriptions.next_due_s() == 30
    assert subscriptions.due(30).changes == [StateChange("nope", "stale", "no data from Venue for 30 s: NOPE/USDT")]
    assert subscriptions.due(31) == ([], [])
    assert subscriptions.next_due_s() == inf
    subscriptions.heard({"nope"}, 40)
    assert subscriptions.next_due_s() == 70


def test_one_instrument_that_is_not_answered_or_not_served_now_is_noted_and_asked_again_while_others_talk() -> None:
    subscriptions = ledger(BTC, ETH)
    subscriptions.due(0)
    assert subscriptions.are_awaited
    subscriptions.acknowledged("a")
    subscriptions.heard({"btc", "majors"}, 5, [("btc", "BTC/USDT"), ("majors", "BTC/USDT")])
    unanswered = "Venue did not answer the subscription of ETH/USDT in 10 s"
    assert subscriptions.due(10).changes == [TopicNote("majors", "ETH/USDT", "refused", unanswered)]
    assert asked(subscriptions, 25) == ["b"]
    busy = SubscribeRefused("b", "busy", retry=True)
    assert subscriptions.refused(busy, 26) == [TopicNote("majors", "ETH/USDT", "refused", "busy")]
    assert asked(subscriptions, 56) == ["b"]
    subscriptions.heard({"majors"}, 57, [("majors", "ETH/USDT")])
    assert subscriptions.due(66).changes == [], "its own data answers for it"
    assert not subscriptions.are_awaited


def test_data_answers_for_a_lost_acknowledgement() -> None:
    subscriptions = ledger(NOPE)
    subscriptions.due(0)
    subscriptions.heard({"nope"}, 1)
    assert subscriptions.due(10) == ([], [])
    assert subscriptions.next_due_s() == 31


def test_only_the_silent_channel_is_stale() -> None:
    subscriptions = ledger(BTC, NOPE)
    subscriptions.due(0)
    for request in (BTC, NOPE):
        subscriptions.acknowledged(request.id)
    subscriptions.heard({"btc", "majors"}, 29)
    assert [change.channel for change in subscriptions.due(30).changes] == ["nope"]


def test_an_unknown_instrument_is_set_aside_for_a_minute_across_connections() -> None:
    aside = SetAside()
    subscriptions = ledger(BTC, NOPE, aside=aside)
    subscriptions.due(0)
    down = StateChange("nope", "down", f"{UNKNOWN} (set aside, asked again in 1 min)", 60)
    assert subscriptions.refused(SubscribeRefused("c", UNKNOWN, retry=False), 1) == [down]
    assert subscriptions.retry_after_s(1) is None
    assert subscriptions.refused(SubscribeRefused("x", "whose?", retry=False), 1) == []

    later = ledger(BTC, NOPE, aside=aside, now_s=31)
    told = StateChange("nope", "down", f"{UNKNOWN} (set aside, asked again in 1 min)", 30)
    assert later.opening(31) == [told]
    assert asked(later, 31) == ["a"]
    later.heard({"btc", "majors"}, 60)
    assert later.due(60) == ([], [])  # its silence is no news
    assert asked(later, 61) == ["c"]
    assert len(aside) == 0


def test_each_refusal_in_a_row_doubles_the_wait_up_to_an_hour_also_across_connections() -> None:
    aside, now_s, waits = SetAside(), 0.0, []
    for _ in range(9):
        subscriptions = ledger(BTC, NOPE, aside=aside, now_s=now_s)
        assert "c" in asked(subscriptions, now_s)
        [down] = subscriptions.refused(SubscribeRefused("c", UNKNOWN, retry=False), now_s)
        assert isinstance(down, StateChange)
        waits.append(down.retry_in_s)
        now_s += down.retry_in_s or 0.0
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert down.reason == f"{UNKNOWN} (set aside, asked again in 1 h)"

    subscriptions = ledger(NOPE, aside=aside, now_s=now_s)
    assert asked(subscriptions, now_s) == ["c"]
    subscriptions.acknowledged("c")
    [down] = subscriptions.refused(SubscribeRefused("c", UNKNOWN, retry=False), now_s + 1)
    assert isinstance(down, StateChange)
    assert down.retry_in_s == 60, "what was taken meanwhile begins with a minute again"


def test_all_set_aside_is_known_with_the_time_of_the_next_try() -> None:
    subscriptions = ledger(BTC, NOPE)
    subscriptions.due(0)
    subscriptions.refused(SubscribeRefused("a", "no", retry=False), 1)
    assert subscriptions.retry_after_s(1) is None
    subscriptions.refused(SubscribeRefused("c", UNKNOWN, retry=False), 2)
    assert subscriptions.retry_after_s(2) == 59
    assert ledger().retry_after_s(0) is None


def test_a_channel_is_down_only_when_all_of_it_is_refused() -> None:
    subscriptions = ledger(BTC, ETH)
    subscriptions.due(0)
    [partly] = subscriptions.refused(SubscribeRefused("b", "no ETH", retry=False), 1)
    assert partly == TopicNote("majors", "ETH/USDT", "refused", "no ETH (set aside, asked again in 1 min)")
    assert subscriptions.opening(1) == [partly]
    changes = subscriptions.refused(SubscribeRefused("a", "no BTC", retry=False), 2)
    states = [change for change in changes if isinstance(change, StateChange)]
    assert [(change.channel, change.state) for change in states] == [("btc", "down"), ("majors", "down")]
    assert states[1].reason == "no BTC, no ETH (set aside, asked again in 1 min)"


def test_what_may_work_later_is_asked_for_later() -> None:
    subscriptions = ledger(NOPE)
    subscriptions.due(0)
    busy = SubscribeRefused("c", "Venue cannot serve NOPE/USDT now", retry=True)
    assert subscriptions.refused(busy, 1) == [StateChange("nope", "stale", busy.reason, 15)]
    assert asked(subscriptions, 15.9) == []
    assert asked(subscriptions, 16) == ["c"]
    for _ in range(20):
        [change] = subscriptions.refused(busy, 16)
    assert isinstance(change, StateChange)
    assert change.retry_in_s == 600


def test_the_hourly_allowance_is_kept() -> None:
    subscriptions = ledger(BTC, ETH, NOPE, per_hour=2)
    assert asked(subscriptions, 0) == ["a", "b"]
    for request in (BTC, ETH):
        subscriptions.acknowledged(request.id)
    subscriptions.heard({"btc", "majors", "nope"}, 3590)
    assert subscriptions.next_due_s() == 3600
    assert asked(subscriptions, 3599) == []
    assert asked(subscriptions, 3600) == ["c"]


def test_what_was_not_read_is_not_late() -> None:
    subscriptions = ledger(NOPE)
    subscriptions.due(0)
    subscriptions.excuse(100)
    assert subscriptions.next_due_s() == 110
    subscriptions.acknowledged("c")
    assert subscriptions.next_due_s() == 130


def test_after_its_minute_it_is_asked_for_like_any_other() -> None:
    aside = SetAside()
    aside.refused("c", UNKNOWN, 0)
    subscriptions = ledger(NOPE, aside=aside, now_s=60)
    assert subscriptions.opening(60) == []
    assert subscriptions.retry_after_s(60) is None
    assert asked(subscriptions, 60) == ["c"]


LIST = SubscribeRequest("z", "subscribe the list", (), "the list of instruments")


def test_what_feeds_no_channel_is_asked_for_again_too_and_nobody_is_told() -> None:
    subscriptions = ledger(LIST, BTC)
    assert asked(subscriptions, 0) == ["z", "a"]
    subscriptions.acknowledged("a")
    assert subscriptions.due(10) == ([], [])
    assert asked(subscriptions, 25) == ["z"]


def test_all_are_set_aside_where_all_that_feed_a_channel_are() -> None:
    subscriptions = ledger(LIST, NOPE)
    subscriptions.due(0)
    subscriptions.acknowledged("z")
    subscriptions.refused(SubscribeRefused("c", UNKNOWN, retry=False), 1)
    assert subscriptions.retry_after_s(1) == 60
