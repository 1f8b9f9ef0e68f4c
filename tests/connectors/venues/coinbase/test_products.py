"""Coinbase's names: what is against USDC is asked for as what it is the same as."""

import pytest

from connectors.venues.coinbase.products import product_of


@pytest.mark.parametrize(
    ("instrument", "product"),
    [
        ("BTC/USD", "BTC-USD"),
        ("BTC/USDT", "BTC-USDT"),
        ("BTC/USDC", "BTC-USD"),
        ("USDT/USDC", "USDT-USDC"),
        ("EURC/USDC", "EURC-USDC"),
        ("USDC/EUR", "USDC-EUR"),
    ],
)
def test_an_instrument_has_a_product(instrument: str, product: str) -> None:
    assert product_of(instrument) == product
