"""What faults make of the texts that one connection of a simulated venue is sent. Pure: pushes in, texts out.

The same for all venues: what a text is of, and how to make another one of a changed book, its `Push` says
(`connectors.simulator.venues.sockets`). A snapshot is a change of a book as any other, but it is never lost, doubled,
late, swapped or torn: without it there would be nothing to go wrong. OKX's tickers go another way (`frames`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from connectors.simulator.faults.active import ActiveFault, FaultBoard
from connectors.simulator.faults.faults import (
    CrossedBook,
    DelayedUpdates,
    DoubledUpdates,
    LostTrades,
    LostUpdates,
    Mute,
    MuteInstrument,
    RepeatedTrades,
    Silence,
    SwappedUpdates,
    TornUpdates,
    UpdateChange,
    Venue,
    WrongChecksum,
)
from connectors.simulator.venues.market import Listing
from connectors.simulator.venues.sockets import Push
from connectors.simulator.venues.stream import BookChange, MarketStream

PAST: Final = 50
"""Trades of an instrument that are remembered, to be repeated."""


class PastTrades:
    """The newest trades of one venue as it said them, by symbol."""

    def __init__(self) -> None:
        self._texts: dict[str, deque[bytes]] = {}

    def note(self, push: Push) -> None:
        """One more; what another connection was told already is known."""
        if push.listing is not None:
            texts = self._texts.setdefault(push.listing.symbol, deque(maxlen=PAST))
            if push.text not in texts:
                texts.append(push.text)

    def before(self, push: Push, count: int) -> list[bytes]:
        """The newest `count` that came before this one."""
        texts = list(self._texts.get(push.listing.symbol, ())) if push.listing is not None else []
        if push.text in texts:
            texts = texts[: texts.index(push.text)]
        return texts[-count:]


class FaultyStream:
    """The texts of one connection.

    Args:
        board: Which faults are on.
        venue: Whose connection.
        connection: Its number.
        stream: The market's.
        listings: The venue's, by the daemon's names.
        past: The venue's trades so far; those of this connection are added.
    """

    def __init__(
        self,
        board: FaultBoard,
        venue: Venue,
        connection: int,
        stream: MarketStream,
        listings: Mapping[str, Listing],
        past: PastTrades,
    ) -> None:
        self._board = board
        self._venue = venue
        self._connection = connection
        self._stream = stream
        self._listings = listings
        self._past = past
        self._number = 0
        self._held: dict[str, tuple[ActiveFault, bytes]] = {}
        """Changes that wait for their successor, by symbol."""
        self._late: deque[tuple[float, str, bytes]] = deque()
        """Changes that are late: when they are due, of which symbol."""
        self._told: set[str] = set()
        """The symbols whose trades have begun."""

    def texts(self, pushes: Sequence[Push], now_s: float) -> list[bytes]:
        """What is sent now; `pushes` is what would be sent without faults."""
        active = self._board.of(self._venue)
        texts = self._released(active, now_s)
        for push in pushes:
            self._number += 1
            if push.kind == "trade" and not push.history:
                self._past.note(push)
            if self._is_silenced(active, push):
                continue
            if push.change is not None:
                texts += self._changed(active, push, push.change, now_s)
            elif push.kind == "trade":
                texts += self._trade(active, push)
            else:
                texts.append(push.text)
        return texts

    def _released(self, active: Sequence[ActiveFault], now_s: float) -> list[bytes]:
        """What was kept, and goes now: its time has come, or the fault is over."""
        texts = []
        while self._late and self._late[0][0] <= now_s:
            texts.append(self._late.popleft()[2])
        over = [symbol for symbol, (fault, _) in self._held.items() if fault not in active]
        return texts + [self._held.pop(symbol)[1] for symbol in over]

    def _is_silenced(self, active: Sequence[ActiveFault], push: Push) -> bool:
        for one in active:
            match one.fault:
                case Silence():
                    silenced = True
                case Mute():
                    silenced = self._connection >= one.first_connection
                case MuteInstrument(instrument=instrument):
                    silenced = push.listing is not None and push.listing.instrument == instrument
                case _:
                    silenced = False
            if silenced and one.chooses():
                one.count()
                return True
        return False

    def _trade(self, active: Sequence[ActiveFault], push: Push) -> list[bytes]:
        symbol = "" if push.listing is None else push.listing.symbol
        begins = symbol not in self._told
        self._told.add(symbol)
        repeated: list[bytes] = []
        for one in active:
            match one.fault:
                case LostTrades(instrument=instrument) if self._acts(one, instrument, push):
                    one.count()
                    return repeated
                case RepeatedTrades(trades=count) if begins and self._connection >= one.first_connection:
                    before = self._past.before(push, count)
                    if before and one.chooses():
                        one.count()
                        repeated += before
        return [*repeated, push.text]

    def _changed(self, active: Sequence[ActiveFault], push: Push, change: BookChange, now_s: float) -> list[bytes]:
        """What becomes of a book's frame."""
        symbol = "" if push.listing is None else push.listing.symbol
        text, spoiled, copies, held_by, delay_s = push.text, False, 1, None, 0.0
        for one in active:
            fault = one.fault
            if not isinstance(fault, UpdateChange) or not self._acts(one, fault.instrument, push):
                continue
            if push.whole and not isinstance(fault, WrongChecksum):
                continue
            match fault:
                case LostUpdates():
                    one.count()
                    return []
                case DoubledUpdates():
                    copies += 1
                case DelayedUpdates():
                    delay_s += fault.delay_s
                case SwappedUpdates():
                    # The successor lets it go, whatever else becomes of that.
                    held_by = one
                    continue
                case TornUpdates() if len(change.bids) + len(change.asks) > 1:
                    change = msgspec.structs.replace(
                        change, bids=change.bids[::2], asks=change.asks[len(change.bids) % 2 :: 2]
                    )
                case CrossedBook() if push.listing is not None:
                    change = self._crossed(push.listing, change)
                case WrongChecksum():
                    spoiled = True
                case _:
                    continue
            one.count()
        if push.remake is not None and (spoiled or change is not push.change):
            text = push.remake(change, spoiled)
        texts = [text] * copies
        if (waiting := self._held.pop(symbol, None)) is not None:
            waiting[0].count()
            texts.append(waiting[1])
        elif held_by is not None:
            self._held[symbol] = (held_by, text)
            return []
        waits = [due_s for due_s, of, _ in self._late if of == symbol]
        if delay_s or waits:
            # Never before those of the same book that are late already.
            due_s = max(now_s + delay_s, *waits) if waits else now_s + delay_s
            self._late.extend((due_s, symbol, one) for one in texts)
            self._late = deque(sorted(self._late, key=lambda late: late[0]))
            return []
        return texts

    def _crossed(self, listing: Listing, change: BookChange) -> BookChange:
        """With one bid more, above the best ask, and so far that the market never gets there."""
        quote = self._stream.quote(listing, change.step)
        bid = (quote.ask + quote.ask // 20, quote.ask_size)
        return msgspec.structs.replace(change, bids=(bid, *(level for level in change.bids if level[0] != bid[0])))

    def _acts(self, one: ActiveFault, instrument: str | None, push: Push) -> bool:
        if instrument is not None and (push.listing is None or push.listing.instrument != instrument):
            return False
        return one.chooses(self._connection, self._number)
