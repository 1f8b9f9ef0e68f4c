"""One instrument's book at Binance: a snapshot of REST, and the changes of its stream, spliced by update ids.

Source: `binance/binance-spot-api-docs`, web-socket-streams.md, "How to manage a local order book correctly" (text of
2025-11-12), with one difference. Each change says which update ids it covers, `U` to `u`, all of them; `U` is the last
`u` and 1. The rule, for a book of the id `last`:

    no book       changes are kept, in a buffer that is bounded and has no hole; after the first one a snapshot is
                  asked for
    snapshot S    too old if what is kept begins beyond S + 1: another one is asked for, and the buffer stays; else the
                  book is the snapshot, `last` is S, and what is kept beyond S is applied
    change        u <= last: known, left out. U == last + 1: applied, `last` is u. The first one beyond a snapshot may
                  cover ids before it: U <= last + 1 <= u. All else is a gap: there is no book until the next snapshot.

The document says of the first change that the snapshot's id lies within U and u. In traffic recorded on 2021-10-12 that
is false of 4 of 4 instruments, and U <= S + 1 <= u is true of all.

A snapshot has the best levels only. What is worse than the worst of a full side is unknown until it changes, and is
never served. The market may move there: while enough levels are known the book goes on, and another snapshot replaces
it; where fewer are known than are served, it is lost.

Pure: no I/O and no clock.
"""

from __future__ import annotations

from math import inf
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from connectors.books.book import Book, Changes, Ladder, Level

UpdateId: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]

MOST_KEPT: Final = 100_000
"""Levels in a buffer, and one for each change: minutes of a busy instrument, some 20 MB."""

ANEW_MS: Final = 5_000
"""Ids that are below the last one, in a change so much later than all before, have begun anew: what is repeated, or
comes late, is no later than what was there before it."""


class Diff(msgspec.Struct, gc=False):
    """Some changes; quantities are absolute, and 0 removes a level, known or not.

    `{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[["0.0026","100"]]}`
    """

    E: int
    s: str
    U: UpdateId
    u: UpdateId
    b: list[Level]
    a: list[Level]


class Snapshot(msgspec.Struct, rename="camel", gc=False):
    """The best levels of REST: `{"lastUpdateId":1027024,"bids":[["4.0","431.0"]],"asks":[["4.2","12.0"]]}`."""

    last_update_id: UpdateId
    bids: list[Level]
    asks: list[Level]


class Lost(msgspec.Struct, frozen=True):
    """There is no book any more: why, in words."""

    reason: str


class Unusable(ValueError):
    """A snapshot that there is no way to use: why, in words. Nothing has changed, and another one is needed."""


class Sync:
    """The rule, for one instrument on one connection.

    Attributes:
        book: what is known; another object after each snapshot. It is that of the venue while `last` is not None.
        last: the id of the last update in the book, or None: there is no book.
        wants: whether a snapshot is needed.
    """

    __slots__ = (
        "_ahead_ms",
        "_enough",
        "_is_blind",
        "_is_first",
        "_kept",
        "_levels",
        "_needed",
        "_seen",
        "_seen_ms",
        "_size",
        "book",
        "last",
        "wants",
    )

    def __init__(self, *, levels: int, needed: int) -> None:
        """`levels` of each side are in a full snapshot; `needed` of them are served, or at least one."""
        self.book = Book()
        self.last: int | None = None
        self.wants = False
        self._levels = levels
        self._needed = max(1, needed)
        self._enough = max(2 * needed, levels // 5)
        self._is_first = False
        """Whether nothing was applied to the snapshot yet."""
        self._ahead_ms: int | None = None
        """The time of the first change that the snapshot had already."""
        self._kept: list[Diff] = []
        self._size = 0
        self._seen: int | None = None
        """The last id that the stream has had, and the time of that change."""
        self._seen_ms = 0
        self._is_blind = False
        """Whether a change of unknown ids came after that."""

    @property
    def made_ms(self) -> int | None:
        """The venue's time of the newest change, ms since 1970."""
        return self._seen_ms or None

    def change(self, diff: Diff) -> Changes | Lost | None:
        """What a change has changed in the book; None where there is no book, or where it is known already."""
        seen, last = self._seen, self.last
        if seen is not None and diff.u <= seen:
            return self._begins_anew(diff) if self._seen_ms + ANEW_MS < diff.E else None
        self._seen, self._seen_ms = diff.u, diff.E
        if self.wants or last is None:
            self._keep(diff, anew=seen is None or seen + 1 != diff.U or self._is_blind)
            if last is None:
                return None
        if diff.u <= last:
            self._ahead_ms = diff.E if self._ahead_ms is None else self._ahead_ms
            return self._begins_anew(diff) if self._ahead_ms + ANEW_MS < diff.E else None
        if last + 1 != diff.U and not (self._is_first and last >= diff.U):
            self._keep(diff, anew=True)
            return self._lost(f"its update {last} is followed by {diff.U}")
        try:
            changes = self.book.apply(diff.b, diff.a)
        except ValueError as error:
            return self._dropped(str(error))
        self.last, self._is_first = diff.u, False
        if self.book.is_crossed:
            return self._dropped("it is crossed")
        known = min(_known(self.book.bids), _known(self.book.asks))
        if known < self._enough:
            if known < self._needed:
                return self._dropped("the market has moved to where its levels are not known")
            if not self.wants:
                self.wants, self._kept, self._size = True, [], 0
        return changes

    def unreadable(self, reason: str) -> Lost | None:
        """A change has come that cannot be read. None where there was no book."""
        had_one = self.last is not None
        lost = self._dropped(reason)
        self._is_blind = True
        return lost if had_one else None

    def splice(self, snapshot: Snapshot) -> None:
        """Have the book that the snapshot and what was kept make.

        Raises:
            Unusable: they make none.
        """
        id_, kept = snapshot.last_update_id, self._kept
        if not kept and (self._seen is None or self._is_blind):
            raise Unusable("no update has come that its snapshot could be compared with")
        begins = kept[0].U if kept else (self._seen or 0) + 1
        if id_ < begins - 1:
            raise Unusable(f"its snapshot {id_} is older than its updates, which begin with {begins}")
        reached = max(id_, kept[-1].u if kept else 0)
        if self.last is not None and reached < self.last:
            raise Unusable(f"its snapshot {id_} is older than its book {self.last}")
        book = Book()
        beyond = [diff for diff in kept if diff.u > id_]
        try:
            book.bids.replace(snapshot.bids, complete=len(snapshot.bids) < self._levels)
            book.asks.replace(snapshot.asks, complete=len(snapshot.asks) < self._levels)
            for diff in beyond:
                book.apply(diff.b, diff.a)
        except ValueError as error:
            raise Unusable(str(error)) from None
        if book.is_crossed:
            raise Unusable("its snapshot is crossed")
        if min(_known(book.bids), _known(book.asks)) < self._needed:
            raise Unusable(f"its snapshot {id_} is of where the market is no more")
        self.book, self.last = book, reached
        self._is_first, self._ahead_ms = not beyond, None
        self.wants, self._kept, self._size = False, [], 0

    def _keep(self, diff: Diff, *, anew: bool) -> None:
        """Put a change into the buffer; `anew`: what was there before does not join it."""
        size = 1 + len(diff.b) + len(diff.a)
        if anew or self._size + size > MOST_KEPT:
            self._kept, self._size = [], 0
        self._kept.append(diff)
        self._size += size
        self._is_blind = False
        self.wants = True

    def _begins_anew(self, diff: Diff) -> Lost | None:
        """The venue counts from another beginning, with this change or before."""
        had_one = self.last is not None
        self._seen, self._seen_ms = diff.u, diff.E
        self._keep(diff, anew=True)
        lost = self._lost(f"its update ids begin anew at {diff.U}")
        return lost if had_one else None

    def _dropped(self, reason: str) -> Lost:
        """A change cannot be used: the next snapshot must have it."""
        self._kept, self._size = [], 0
        return self._lost(reason)

    def _lost(self, reason: str) -> Lost:
        self.last, self._is_first, self.wants = None, False, True
        return Lost(reason)


def _known(side: Ladder) -> float:
    """How many of its best levels are known; of a side that is known as a whole, all there can be."""
    return inf if side.bound is None else len(side)
