import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.channels import Catalogue, Channel, nearest
from protocol.grant import ANYONE, Grant
from protocol.kinds import KINDS

PRICES = Channel(name="binance_prices", exchange="binance", kind=KINDS["prices"], instruments=("BTC/USDT", "ETH/USDT"))
BOOK = Channel(name="binance_orderbook", exchange="binance", kind=KINDS["orderbook"])
GLOBAL = Channel(name="coingecko_global", exchange="coingecko", kind=KINDS["global"], cadence_s=10)


def test_catalogue_keeps_the_order_of_the_configuration() -> None:
    catalogue = Catalogue([GLOBAL, PRICES, BOOK])
    assert list(catalogue) == [GLOBAL, PRICES, BOOK]
    assert catalogue.names == ("coingecko_global", "binance_prices", "binance_orderbook")
    assert len(catalogue) == 3


def test_catalogue_finds_a_channel_by_its_name() -> None:
    catalogue = Catalogue([GLOBAL, PRICES])
    assert catalogue["binance_prices"] is PRICES
    assert catalogue.get("coingecko_global") is GLOBAL
    assert catalogue.get("nope") is None
    assert "binance_prices" in catalogue
    assert "nope" not in catalogue
    with pytest.raises(KeyError):
        catalogue["nope"]


def test_two_channels_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two channels are named 'binance_prices'"):
        Catalogue([PRICES, GLOBAL, PRICES])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("binance_price", "binance_prices"),
        ("BINANCE_PRICES", "binance_prices"),
        ("coingeko_global", "coingecko_global"),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(typed: str, meant: str) -> None:
    assert Catalogue([PRICES, BOOK, GLOBAL]).nearest(typed)[0] == meant


def test_nothing_is_near_a_wholly_different_name() -> None:
    assert Catalogue([PRICES, BOOK]).nearest("x") == ()
    assert Catalogue([]).nearest("binance_prices") == ()


def test_names_that_differ_in_case_only_are_both_near() -> None:
    assert nearest("abc", ["ABC", "Abc", "xyz"]) == ("ABC", "Abc")
    assert nearest("abc", ["ABC", "Abc", "xyz"], 1) == ("ABC",)


@given(st.text(), st.lists(st.text(max_size=20), unique=True), st.integers(1, 4))
def test_nearest_gives_at_most_so_many_valid_names(name: str, valid: list[str], count: int) -> None:
    found = nearest(name, valid, count)
    assert len(found) == len(set(found)) <= count
    assert set(found) <= set(valid)
    assert name not in valid or name in nearest(name, valid, len(valid))


def test_a_grant_leaves_what_it_covers_and_names_what_it_withholds() -> None:
    catalogue = Catalogue([GLOBAL, PRICES, BOOK])
    granted = catalogue.granted(Grant("bot", ("binance_*",)))
    assert list(granted) == [PRICES, BOOK]
    assert granted.withheld == {"coingecko_global"}
    assert granted.granted(Grant("bot", ("*_prices",))).withheld == {"coingecko_global", "binance_orderbook"}


def test_a_grant_for_everything_is_the_catalogue_itself() -> None:
    catalogue = Catalogue([GLOBAL, PRICES])
    assert catalogue.granted(ANYONE) is catalogue
    assert catalogue.withheld == frozenset()
