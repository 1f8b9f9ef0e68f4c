"""What each channel holds on the tape, and which of them gives way when the tape is full.

The tape is bounded in messages and in bytes. When a bound is exceeded, the channel that holds the most, by that bound,
loses its oldest message; of several that hold the same, the one whose oldest message is older. So a channel may use
what others leave free, and a channel that stays within the bound divided by the number of channels loses nothing to
others, however much they send (max-min fairness). Channels that no longer exist give way before all others.

The channel is found in O(log channels). Usually it is the one that has just sent: it is so if all others hold less,
which a comparison shows. Otherwise a heap is asked whose items are corrected late: an item may say more than its
channel holds, but never less. So only growth beyond what was said before needs a new item, and the first item that
turns out to be true is the channel sought. No more items are corrected than were added or have become untrue.

Sync and pure.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, TypeAlias

from daemon.tape.entry import Entry
from daemon.tape.positions import Positions

_SPARE: Final = 64
"""So many items beyond two per channel may be in a heap before it is built anew."""

_Item: TypeAlias = "tuple[int, int, Share | None]"
"""Minus how much a channel holds, the position of its oldest message (which no other channel has), and the channel."""

_NOTHING: Final[_Item] = (0, 0, None)


class Share:
    """What one channel holds.

    Attributes:
        channel: its name.
        topics: by instrument, where the messages of each of its topics stand.
        entries: its messages on the tape, the oldest first; its status messages are among them.
        size_bytes: the size of their frames.
        gone: the position of the newest of its messages that has left the tape; 0 if none has.
        by_messages, by_bytes: what the two heaps say of it.
    """

    __slots__ = ("by_bytes", "by_messages", "channel", "entries", "gone", "size_bytes", "topics")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.topics: dict[str, Positions] = {}
        self.entries: deque[Entry] = deque()
        self.size_bytes = 0
        self.gone = 0
        self.by_messages = self.by_bytes = _NOTHING


class Shares:
    """What all channels hold.

    Attributes:
        retired: those that do not exist any more and may still hold something, by name.
    """

    __slots__ = ("_by_bytes", "_by_messages", "_shares", "retired")

    def __init__(self) -> None:
        self._shares: dict[str, Share] = {}
        self.retired: dict[str, Share] = {}
        self._by_messages = _ByMessages()
        self._by_bytes = _ByBytes()

    def __iter__(self) -> Iterator[Share]:
        return iter(self._shares.values())

    def get(self, channel: str) -> Share | None:
        """What that channel holds; None if it has never had a message."""
        return self._shares.get(channel)

    def of(self, channel: str) -> Share:
        """What that channel holds, or will hold."""
        share = self._shares.get(channel)
        if share is None:
            share = self._shares[channel] = Share(channel)
        return share

    def most_messages(self, sender: Share) -> Share:
        """The channel that gives way if there are too many messages. `sender` has just had one more."""
        held, ranking = len(sender.entries), self._by_messages
        if (held > ranking.most or (sender is ranking.leader and held > ranking.rest)) and not self.retired:
            return sender
        return self._retired_share() or ranking.first(sender, self._shares)

    def most_bytes(self, sender: Share) -> Share:
        """The channel that gives way if there are too many bytes. `sender` has just had one more message."""
        held, ranking = sender.size_bytes, self._by_bytes
        if (held > ranking.most or (sender is ranking.leader and held > ranking.rest)) and not self.retired:
            return sender
        return self._retired_share() or ranking.first(sender, self._shares)

    def settle(self, sender: Share) -> None:
        """Note what the sender holds after its new message, and after all that has left for it.

        It must be called before another channel sends.
        """
        if len(sender.entries) > -sender.by_messages[0] and self._by_messages.in_use:
            self._by_messages.note(sender)
        if sender.size_bytes > -sender.by_bytes[0] and self._by_bytes.in_use:
            self._by_bytes.note(sender)

    def retire(self, channel: str) -> None:
        """The channel does not exist any more: it gives way before all others, until it sends again (`revive`)."""
        self.retired[channel] = self.of(channel)

    def revive(self, sender: Share) -> None:
        """The channel sends a message, so it exists."""
        self.retired.pop(sender.channel, None)

    def _retired_share(self) -> Share | None:
        """A retired channel that still holds something."""
        while self.retired:
            channel, share = next(iter(self.retired.items()))
            if share.entries:
                return share
            del self.retired[channel]
        return None


class _Ranking(ABC):
    """Finds the channel that holds the most by one bound.

    Attributes:
        most: no channel held more than this when the last sender had settled.
        leader: the channel that was found last.
        rest: no other channel than this held more than this then.
        in_use: whether it was ever asked. A bound that is never met costs nothing.
    """

    __slots__ = ("_heap", "in_use", "leader", "most", "rest")

    def __init__(self) -> None:
        self.most = self.rest = sys.maxsize
        self.leader: Share | None = None
        self.in_use = False
        self._heap: list[_Item] = []

    @abstractmethod
    def _held(self, share: Share) -> int:
        """How much the channel holds."""

    @abstractmethod
    def _said(self, share: Share) -> _Item:
        """The channel's item; other items of it in the heap are out of date."""

    @abstractmethod
    def _say(self, share: Share, item: _Item) -> None:
        """Make this the channel's item."""

    def first(self, sender: Share, shares: Mapping[str, Share]) -> Share:
        """The channel that holds the most."""
        if not self.in_use:
            self.in_use, self.most, self.rest = True, 0, 0
            for share in shares.values():
                if share.entries:
                    self.note(share)
        held, first = self._held(sender), self._top(len(shares))
        if first is None:
            return sender
        self.most, self.leader = self._held(first), first
        self.rest = max((-item[0] for item in self._heap[1:3]), default=0)  # one of these is the second
        older = sender.entries[0].seq < first.entries[0].seq if sender.entries else False
        return sender if held > self.most or (held == self.most and older) else first

    def note(self, share: Share) -> None:
        """Say how much the channel holds now."""
        held = self._held(share)
        self.most = max(self.most, held)
        if share is not self.leader:
            self.rest = max(self.rest, held)
        item = (-held, share.entries[0].seq, share)
        self._say(share, item)
        heappush(self._heap, item)

    def _top(self, channels: int) -> Share | None:
        """The channel that holds the most of those in the heap; None if it is empty."""
        heap = self._heap
        if len(heap) > 2 * channels + _SPARE:
            heap[:] = [item for item in heap if item[2] is not None and self._said(item[2]) is item]
            heapify(heap)
        while heap:
            item = heap[0]
            minus, oldest, share = item
            if share is None or self._said(share) is not item:
                heappop(heap)
            elif not share.entries:
                self._say(share, _NOTHING)
                heappop(heap)
            elif minus == -(held := self._held(share)) and oldest == share.entries[0].seq:
                return share
            else:
                item = (-held, share.entries[0].seq, share)
                self._say(share, item)
                heapreplace(heap, item)
        return None


class _ByMessages(_Ranking):
    __slots__ = ()

    def _held(self, share: Share) -> int:
        return len(share.entries)

    def _said(self, share: Share) -> _Item:
        return share.by_messages

    def _say(self, share: Share, item: _Item) -> None:
        share.by_messages = item


class _ByBytes(_Ranking):
    __slots__ = ()

    def _held(self, share: Share) -> int:
        return share.size_bytes

    def _said(self, share: Share) -> _Item:
        return share.by_bytes

    def _say(self, share: Share, item: _Item) -> None:
        share.by_bytes = item
