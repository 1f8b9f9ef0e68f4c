"""The reference of the tape: every message of every topic, as the witnesses got it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, Final

import msgspec

from tests.soak.record import Format, Topic


class _Price(msgspec.Struct):
    price: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_price: Final = msgspec.json.Decoder(_Price)


def packed(payload: bytes) -> bytes:
    """A message's MessagePack form by the contract: the same members, `price` as a string of its digits."""
    message: dict[str, Any] = msgspec.json.decode(payload)
    price = _price.decode(payload).price
    if not isinstance(price, msgspec.UnsetType):
        message["price"] = bytes(price).decode()
    return msgspec.msgpack.encode(message)


class Reference:
    """Chains of `seq` by topic, and the digest of each message in both formats.

    Digests are Python's own hashes of bytes, which are worth something within this process only.

    Attributes:
        head: The newest position seen.
        broken: Where a witness's own chain was broken; such a reference is worth nothing.
    """

    def __init__(self) -> None:
        self.head = 0
        self.broken: list[str] = []
        self._chains: dict[Topic, list[int]] = {}
        self._before: dict[Topic, int] = {}
        self._digests: dict[int, dict[Format, int]] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, topic: Topic, seq: int, prev_seq: int, payload: bytes) -> None:
        """The next message of a topic, as JSON."""
        chain = self._chains.setdefault(topic, [])
        if not chain:
            self._before[topic] = prev_seq
        elif prev_seq != chain[-1] or seq <= prev_seq:
            self.broken.append(f"{topic}: {seq} with prev_seq {prev_seq} came behind {chain[-1]}")
        chain.append(seq)
        self._digests[seq] = {"json": hash(payload), "msgpack": hash(packed(payload))}
        self.head = max(self.head, seq)

    def topics(self, channel: str, instruments: tuple[str, ...] | None) -> list[Topic]:
        """The topics of a channel that a filter lets through; a whole market's is not filtered."""
        return [
            topic
            for topic in self._chains
            if topic[0] == channel and (instruments is None or topic[1] in ("", *instruments))
        ]

    def channels(self) -> dict[str, int]:
        """How many messages of each channel there were."""
        counts: dict[str, int] = {}
        for (channel, _), chain in self._chains.items():
            counts[channel] = counts.get(channel, 0) + len(chain)
        return counts

    def digest(self, seq: int, format: Format) -> int | None:
        """Of the message at that position; None where there is none."""
        digests = self._digests.get(seq)
        return None if digests is None else digests[format]

    def covers(self, topic: Topic, seq: int) -> bool:
        """Whether a message at that position would be here: what is older than our first one of the topic need not."""
        chain = self._chains.get(topic)
        return chain is None or seq >= chain[0]

    def newest(self, topic: Topic, upto: int) -> int | None:
        """The topic's newest `seq` up to a position, 0 where there was none yet; None: before our time."""
        chain = self._chains[topic]
        place = bisect_right(chain, upto)
        if place:
            return chain[place - 1]
        before = self._before[topic]
        return before if before <= upto else None

    def previous(self, topic: Topic, seq: int) -> int:
        """The `prev_seq` of a message that is here (or of our first one, where it is older than that)."""
        chain = self._chains[topic]
        place = bisect_left(chain, seq)
        return chain[place - 1] if place else self._before[topic]

    def between(self, topic: Topic, after: int, before: int) -> list[int]:
        """The topic's messages strictly between two positions."""
        chain = self._chains[topic]
        return chain[bisect_right(chain, after) : bisect_left(chain, before)]
