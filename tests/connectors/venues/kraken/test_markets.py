"""Which pairs Kraken trades."""

import pytest

from connectors.venues.kraken.markets import Markets, Trouble


def test_nothing_is_wrong_until_something_is_said() -> None:
    assert Markets().trouble("BTC/USD") is None


@pytest.mark.parametrize(
    ("status", "partial"),
    [("maintenance", False), ("cancel_only", False), ("post_only", True), ("another", True)],
)
def test_the_exchange_itself_does_not_trade(status: str, partial: bool) -> None:
    markets = Markets()
    markets.system(status)
    assert markets.trouble("BTC/USD") == Trouble("halted", f"not trading: Kraken's status is {status}", partial)
    markets.system("online")
    assert markets.trouble("BTC/USD") is None


@pytest.mark.parametrize(
    ("status", "partial"),
    [("delisted", False), ("work_in_progress", False), ("limit_only", True), ("reduce_only", True), ("new", True)],
)
def test_a_pair_is_not_as_it_should_be(status: str, partial: bool) -> None:
    markets = Markets()
    markets.pairs([("BTC/USD", "online"), ("XRP/USD", status)], all_of_them=True)
    what = "" if partial else "not trading: "
    assert markets.trouble("XRP/USD") == Trouble("halted", f"{what}its status at Kraken is {status}", partial)
    assert markets.trouble("BTC/USD") is None
    markets.pairs([("XRP/USD", "online")], all_of_them=False)
    assert markets.trouble("XRP/USD") is None


def test_a_pair_that_is_not_on_the_list_does_not_exist() -> None:
    markets = Markets()
    markets.pairs([("BTC/USD", "online")], all_of_them=False)
    assert markets.trouble("XXX/USD") is None, "not all of the list has come"
    markets.pairs([("BTC/USD", "online")], all_of_them=True)
    assert markets.trouble("XXX/USD") == Trouble("refused", "not on Kraken's list of pairs", partial=False)
