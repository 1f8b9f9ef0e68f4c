"""Coinbase's names of instruments. Pure.

Source: Coinbase's documentation of Advanced Trade, "WebSocket channels" (November 2026): on the public channels a
product against USDC "will return the same data as the corresponding -USD based products", except USDT-USDC and
EURC-USDC. What comes is named `BTC-USD` then, whichever of the two was asked for. So `BTC/USDC` is asked for as
`BTC-USD`, and both instruments are fed by it.
"""

from __future__ import annotations

from typing import Final

_THEMSELVES: Final = frozenset({"USDT-USDC", "EURC-USDC"})


def product_of(instrument: str) -> str:
    """The product whose data an instrument's is: `BTC-USD` for `BTC/USD` and `BTC/USDC`."""
    product = instrument.replace("/", "-")
    if product in _THEMSELVES or not product.endswith("-USDC"):
        return product
    return product.removesuffix("C")
