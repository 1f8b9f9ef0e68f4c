"""When a book of OKX's is right: the rule of `seqId` and `prevSeqId`. Pure.

Source: OKX's v5 API documentation, order book channel, "Sequence ID", state of July 2026. Each message of `books` names
the one before it (`prevSeqId`), and that is the only test: steps between ids are of any size.

    snapshot           prevSeqId -1, seqId 10   replaces the book
    normal             prev 10, seq 15          follows
    heartbeat (60 s)   prev 15, seq 15, empty   follows, and changes nothing
    maintenance        prev 15, seq 3           follows: the ids have begun anew
    gap                prev 9, last 5           something is missing; only a new snapshot helps

The ids are an instrument's own, and the same on all connections.
"""

from __future__ import annotations


class Sequence:
    """The chain of one book on one connection.

    Attributes:
        last: the `seqId` of the message that was applied last; None while a snapshot is awaited.
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: int | None = None

    def begin(self, seq_id: int) -> None:
        """A snapshot came."""
        self.last = seq_id

    def follows(self, prev_seq_id: int, seq_id: int) -> bool:
        """Whether this update comes next; then it counts as applied. Else the book is lost."""
        if self.last is None or prev_seq_id != self.last:
            self.last = None
            return False
        self.last = seq_id
        return True

    def lose(self) -> None:
        """The book cannot be used any more: a snapshot is awaited."""
        self.last = None
