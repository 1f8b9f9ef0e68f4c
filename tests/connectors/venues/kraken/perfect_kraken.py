"""A Kraken that makes no mistakes: books of whole numbers, and the frames that tell of them. No code of ours in it.

Prices are in ticks of 0.1 and quantities in lots of 1e-8, so the digits of the checksum are those of the whole numbers.
"""

from zlib import crc32

PRICE_PLACES, QTY_PLACES = 1, 8
Side = dict[int, int]
"""Ticks to lots."""
Top = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
"""The best bids and asks, best first."""


def digits(value: int, places: int, style: str = "full") -> str:
    """A number as JSON may write it: all its digits, as few as will do, or with an exponent."""
    if style == "exponent" and value:
        return f"{value}e-{places:02d}"
    text = f"{value // 10**places}.{value % 10**places:0{places}d}"
    return text if style == "full" else text.rstrip("0").rstrip(".")


class PerfectBook:
    """One symbol's book, of which a subscriber sees the best `depth` levels of each side."""

    def __init__(self, symbol: str, depth: int = 10, style: str = "full") -> None:
        self.symbol, self.depth, self.style = symbol, depth, style
        self.bids: Side = {}
        self.asks: Side = {}
        self.seen: Top = ((), ())

    @property
    def top(self) -> Top:
        bids = sorted(self.bids.items(), reverse=True)[: self.depth]
        return tuple(bids), tuple(sorted(self.asks.items())[: self.depth])

    @property
    def checksum(self) -> int:
        bids, asks = self.top
        return crc32("".join(f"{price}{lots}" for price, lots in (*asks[:10], *bids[:10])).encode())

    def snapshot(self) -> bytes:
        self.seen = self.top
        return self._frame("snapshot", *self.seen)

    def set(self, side: str, price: int, lots: int) -> None:
        """An order book's change: what is crossed by it is traded away."""
        own, other = (self.bids, self.asks) if side == "bids" else (self.asks, self.bids)
        if lots:
            own[price] = lots
            for each in list(other):
                if each <= price if side == "bids" else each >= price:
                    del other[each]
        else:
            own.pop(price, None)

    def update(self) -> bytes:
        """What has changed of the levels that are seen; nothing is said of those that fell out at the bottom."""
        before, self.seen = self.seen, self.top
        changes = [
            self._changes(dict(old), dict(new), side) for side, old, new in zip((1, -1), before, self.seen, strict=True)
        ]
        return self._frame("update", *changes)

    def _changes(self, before: Side, after: Side, sign: int) -> list[tuple[int, int]]:
        worst = min((sign * price for price in after), default=0) if len(after) == self.depth else None
        gone = [(price, 0) for price in before if price not in after and (worst is None or sign * price > worst)]
        return gone + [(price, lots) for price, lots in after.items() if before.get(price) != lots]

    def _frame(self, type_: str, bids: object, asks: object) -> bytes:
        sides = ",".join(f'"{name}":[{self._levels(side)}]' for name, side in (("bids", bids), ("asks", asks)))
        item = (
            f'{{"symbol":"{self.symbol}",{sides},"checksum":{self.checksum},"timestamp":"2026-11-28T12:00:00.000001Z"}}'
        )
        return f'{{"channel":"book","type":"{type_}","data":[{item}]}}'.encode()

    def _levels(self, side: object) -> str:
        assert isinstance(side, list | tuple)
        return ",".join(
            f'{{"price":{digits(price, PRICE_PLACES, self.style)},"qty":{digits(lots, QTY_PLACES, self.style)}}}'
            for price, lots in side
        )


def instruments(*symbols: str, status: str = "online", price: int = PRICE_PLACES, qty: int = QTY_PLACES) -> bytes:
    """The channel `instrument`'s snapshot."""
    pairs = ",".join(
        f'{{"symbol":"{symbol}","base":"BTC","quote":"USD","status":"{status}","qty_precision":{qty},'
        f'"qty_increment":1e-08,"price_precision":{price},"price_increment":0.1}}'
        for symbol in symbols
    )
    return f'{{"channel":"instrument","type":"snapshot","data":{{"assets":[],"pairs":[{pairs}]}}}}'.encode()
