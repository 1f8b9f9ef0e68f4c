"""What is asked of Coinbase: one request for each instrument and channel of Coinbase's, within its limits."""

import pytest

from connectors.venues.coinbase.plan import MOST_BOOKS, MOST_SUBSCRIPTIONS, plan
from protocol.channels import Channel
from protocol.kinds import KINDS


def channel(kind: str, *instruments: str, name: str = "", interval: str = "5m") -> Channel:
    """One of Coinbase's."""
    kind_ = KINDS[kind]
    return Channel(name=name or f"x{kind}", exchange="coinbase", kind=kind_, instruments=instruments, interval=interval)


def names(count: int) -> tuple[str, ...]:
    """So many instruments."""
    return tuple(f"A{number}/USD" for number in range(count))


def test_kinds_that_need_the_same_share_it() -> None:
    (connection,) = plan([channel(kind, "BTC/USD") for kind in ("ticker", "quotes", "trades", "book", "depth")])
    assert [(each.id, [fed.name for fed in each.channels]) for each in connection.subscriptions] == [
        ("ticker BTC/USD", ["xticker", "xquotes"]),
        ("market_trades BTC/USD", ["xtrades"]),
        ("level2 BTC/USD", ["xbook", "xdepth"]),
    ]
    assert connection.name == "coinbase"
    assert connection.parts == {}


def test_an_alias_is_asked_for_by_the_product_that_it_is() -> None:
    (connection,) = plan([channel("trades", "BTC/USD", "BTC/USDC")])
    assert [(each.id, each.product) for each in connection.subscriptions] == [
        ("market_trades BTC/USD", "BTC-USD"),
        ("market_trades BTC/USDC", "BTC-USD"),
    ]


@pytest.mark.parametrize("kind", ["depth", "book"])
def test_no_connection_has_more_books_than_were_seen_to_work(kind: str) -> None:
    connections = plan([channel(kind, *names(25)), channel("trades", *names(25))])
    books = [[each for each in one.subscriptions if each.stream == "level2"] for one in connections]
    assert [len(each) for each in books] == [MOST_BOOKS, MOST_BOOKS, 5]
    assert [one.name for one in connections] == ["coinbase", "coinbase-2", "coinbase-3"]
    parts = [one.parts[f"x{kind}"] for one in connections]
    assert [instrument for part in parts for instrument in part] == list(names(25))
    assert all("xtrades" not in one.parts for one in connections)


def test_no_connection_has_so_many_subscriptions_that_it_takes_long_to_be_complete() -> None:
    connections = plan([channel("ticker", *names(450)), channel("candles", *names(30))])
    assert all(len(one.subscriptions) <= MOST_SUBSCRIPTIONS for one in connections)
    asked = [each.id for one in connections for each in one.subscriptions]
    assert len(asked) == len(set(asked)) == 480


def test_candles_of_another_length_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"xcandles: Coinbase has no candles of '1m'; allowed: '5m'"):
        plan([channel("candles", "BTC/USD", interval="1m")])


def test_nothing_is_planned_for_nothing() -> None:
    assert plan([]) == []
