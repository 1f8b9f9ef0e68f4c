"""What is asked of Kraken, on which connections."""

import pytest

from connectors.venues.kraken.plan import plan
from protocol.channels import Channel
from protocol.kinds import KINDS


def channel(kind: str, *instruments: str, name: str = "", interval: str = "1m") -> Channel:
    return Channel(
        name=name or f"kraken_{kind}", exchange="kraken", kind=KINDS[kind], instruments=instruments, interval=interval
    )


def test_channels_that_need_the_same_share_a_subscription() -> None:
    [connection] = plan([channel("depth", "BTC/USD"), channel("book", "BTC/USD", "ETH/USD")])
    asked = [(each.stream, each.instrument, [fed.name for fed in each.channels]) for each in connection.subscriptions]
    assert asked == [("book", "BTC/USD", ["kraken_depth", "kraken_book"]), ("book", "ETH/USD", ["kraken_book"])]
    assert connection.parts == {}


def test_quotes_are_on_a_connection_of_their_own_since_their_frames_are_those_of_tickers() -> None:
    made = plan([channel("quotes", "BTC/USD"), channel("ticker", "BTC/USD"), channel("trades", "BTC/USD")])
    assert [connection.name for connection in made] == ["kraken", "kraken-quotes"]
    assert [each.params(10) for connection in made for each in connection.subscriptions] == [
        {"channel": "ticker", "symbol": ["BTC/USD"], "snapshot": True, "event_trigger": "trades"},
        {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": True},
        {"channel": "ticker", "symbol": ["BTC/USD"], "snapshot": True, "event_trigger": "bbo"},
    ]


def test_books_and_candles_say_how_deep_and_how_long() -> None:
    [connection] = plan([channel("depth", "BTC/USD"), channel("candles", "BTC/USD", interval="4h")])
    book, candles = connection.subscriptions
    assert book.params(25)["depth"] == 25
    assert candles.params(25)["interval"] == 240


def test_candles_of_two_lengths_are_two_subscriptions() -> None:
    [connection] = plan([channel("candles", "BTC/USD"), channel("candles", "BTC/USD", name="hours", interval="1h")])
    assert [each.minutes for each in connection.subscriptions] == [1, 60]


def test_more_than_one_connection_takes_goes_over_several_and_each_knows_its_part() -> None:
    first, second = plan([channel("trades", "A/USD", "B/USD", "C/USD"), channel("ticker", "A/USD")], most=2)
    assert (first.name, second.name) == ("kraken", "kraken-2")
    assert first.parts == {"kraken_trades": ("A/USD", "B/USD")}
    assert second.parts == {"kraken_trades": ("C/USD",)}
    assert [(each.stream, each.instrument) for each in second.subscriptions] == [
        ("trade", "C/USD"),
        ("ticker", "A/USD"),
    ]


def test_candles_that_kraken_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="kraken_candles: Kraken has no candles of '2m'; allowed: 1m, 5m"):
        plan([channel("candles", "BTC/USD", interval="2m")])
