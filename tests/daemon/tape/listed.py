"""The tape's rule on a plain list: who holds the most gives way. Slow, and simple enough to be believed."""

from collections import Counter
from collections.abc import Iterable, Sequence

from daemon.tape.tape import Entry


class ListedTape:
    """What a tape of that size keeps.

    Attributes:
        kept: the entries, in order.
        gone: per channel, the position of the newest message that has left.
    """

    def __init__(self, max_entries: int, max_bytes: int, entries: Iterable[Entry] = ()) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.kept: list[Entry] = []
        self.gone: Counter[str] = Counter()
        for entry in entries:
            self.add(entry)

    @property
    def size_bytes(self) -> int:
        return sum(len(entry.text) for entry in self.kept)

    def add(self, entry: Entry, retired: Sequence[str] = ()) -> None:
        """One more entry; the channels in `retired` give way before all others, in this order."""
        self.kept.append(entry)
        while len(self.kept) > self.max_entries:
            self._let_go(Counter(each.topic[0] for each in self.kept), retired)
        while self.size_bytes > self.max_bytes and len(self.kept) > 1:
            held: Counter[str] = Counter()
            for each in self.kept:
                held[each.topic[0]] += len(each.text)
            self._let_go(held, retired)

    def _let_go(self, held: Counter[str], retired: Sequence[str]) -> None:
        oldest: dict[str, Entry] = {}
        for entry in self.kept:
            oldest.setdefault(entry.topic[0], entry)
        first = next((channel for channel in retired if channel in oldest), None)
        channel = first or max(oldest, key=lambda name: (held[name], -oldest[name].seq))
        self.kept.remove(oldest[channel])
        self.gone[channel] = oldest[channel].seq
