"""What Binance answers in these tests: rows of its ticker, and bodies of them."""

import json

NOW_MS = 1_765_211_445_000
"""When it answers."""

NAMES = {"BTCUSDT": "BTC/USDT", "ETHUSDT": "ETH/USDT"}


def ticker(symbol: str = "BTCUSDT", price: str = "42150.50000000", **more: object) -> bytes:
    """A row; `more` replaces fields and adds others."""
    row = {
        "symbol": symbol,
        "priceChangePercent": "2.450",
        "lastPrice": price,
        "closeTime": NOW_MS - 40,
        "count": 76,
        **more,
    }
    return json.dumps(row).encode()


def tickers(*rows: bytes) -> bytes:
    """A body of rows."""
    return b"[" + b",".join(rows) + b"]"
