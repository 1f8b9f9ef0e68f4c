"""Coinbase's answers, which name no request: what is acknowledged, what has ended, whom an error means."""

from connectors.push.venue import Ignored, Several, SubscribeAck, SubscribeEnded, SubscribeRefused
from connectors.venues.coinbase.answers import HEARTBEATS, Answers
from connectors.venues.coinbase.plan import Subscription

BOOK_BTC = Subscription("level2", "BTC/USD", ())
BOOK_ETH = Subscription("level2", "ETH/USD", ())
TRADES_BTC = Subscription("market_trades", "BTC/USD", ())
TRADES_ALIAS = Subscription("market_trades", "BTC/USDC", ())
BEATS = {"heartbeats": ["heartbeats"]}


def test_what_the_list_has_is_acknowledged_once() -> None:
    answers = Answers([BOOK_BTC, BOOK_ETH])
    assert answers.listed(BEATS) == SubscribeAck(HEARTBEATS)
    held = BEATS | {"level2": ["BTC-USD", "ETH-USD"]}
    assert answers.listed(held) == Several((SubscribeAck(BOOK_BTC.id), SubscribeAck(BOOK_ETH.id)))
    assert answers.listed(held) == Ignored("a list of subscriptions")


def test_a_list_without_heartbeats_or_with_null_says_nothing_of_them() -> None:
    answers = Answers([BOOK_BTC])
    assert answers.listed({"level2": None}) == Ignored("a list of subscriptions")
    assert answers.listed({"heartbeats": None}) == SubscribeAck(HEARTBEATS)


def test_two_instruments_that_are_one_product_are_acknowledged_together() -> None:
    said = Answers([TRADES_BTC, TRADES_ALIAS]).listed({"market_trades": ["BTC-USD"]})
    assert said == Several((SubscribeAck(TRADES_BTC.id), SubscribeAck(TRADES_ALIAS.id)))


def test_what_was_to_end_has_ended_when_the_list_lacks_it_and_is_acknowledged_anew() -> None:
    answers = Answers([BOOK_BTC, BOOK_ETH])
    held = {"heartbeats": [], "level2": ["BTC-USD", "ETH-USD"]}
    answers.listed(held)
    answers.leave(BOOK_BTC.id)
    assert answers.listed(held) == Ignored("a list of subscriptions")
    assert answers.listed({"heartbeats": [], "level2": ["ETH-USD"]}) == SubscribeEnded(BOOK_BTC.id)
    assert answers.listed(held) == SubscribeAck(BOOK_BTC.id)


def test_an_error_that_names_a_product_means_its_request() -> None:
    answers = Answers([TRADES_BTC, BOOK_BTC, BOOK_ETH])
    answers.listed(BEATS)
    said = answers.error("ETH-USD is not a valid product")
    reason = "refused by Coinbase: ETH/USD (level2): ETH-USD is not a valid product"
    assert said == SubscribeRefused(BOOK_ETH.id, reason, retry=False)


def test_an_error_that_names_a_channel_means_the_first_of_its_requests_without_an_answer() -> None:
    answers = Answers([TRADES_BTC, BOOK_BTC, BOOK_ETH])
    answers.listed(BEATS | {"level2": ["BTC-USD"]})
    said = answers.error("too many L2 streams requested in a single session")
    reason = (
        "refused by Coinbase: ETH/USD (level2): too many L2 streams requested in a single session"
        "; which one it means it does not say"
    )
    assert said == SubscribeRefused(BOOK_ETH.id, reason, retry=False)


def test_errors_that_name_nothing_mean_one_request_after_the_other_in_the_order_of_asking() -> None:
    answers = Answers([TRADES_BTC, BOOK_BTC, BOOK_ETH])
    answers.listed(BEATS)
    blamed = [answers.error("no").id for _ in range(5)]
    assert blamed == [TRADES_BTC.id, BOOK_BTC.id, BOOK_ETH.id, TRADES_BTC.id, BOOK_BTC.id]


def test_what_was_blamed_wrongly_is_acknowledged_by_the_next_list() -> None:
    answers = Answers([TRADES_BTC, BOOK_BTC])
    answers.listed(BEATS)
    assert answers.error("no").id == TRADES_BTC.id
    assert answers.listed(BEATS | {"market_trades": ["BTC-USD"]}) == SubscribeAck(TRADES_BTC.id)
    assert answers.error("no").id == BOOK_BTC.id


def test_an_error_that_may_pass_is_asked_about_again_soon() -> None:
    answers = Answers([BOOK_BTC])
    answers.listed(BEATS)
    said = answers.error("rate limit exceeded for BTC-USD")
    reason = "Coinbase cannot serve BTC/USD (level2) now: rate limit exceeded for BTC-USD"
    assert said == SubscribeRefused(BOOK_BTC.id, reason, retry=True)


def test_an_error_when_all_is_answered_means_nobody() -> None:
    answers = Answers([])
    answers.listed(BEATS)
    assert answers.error("") == SubscribeRefused("", "Coinbase says: an error without a text", retry=True)


def test_heartbeats_may_be_refused_too() -> None:
    said = Answers([]).error("no")
    reason = "refused by Coinbase: heartbeats: no; which one it means it does not say"
    assert said == SubscribeRefused(HEARTBEATS, reason, retry=False)
