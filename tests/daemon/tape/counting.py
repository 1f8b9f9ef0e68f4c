"""A tape that counts the entries that are looked at."""

from collections.abc import Iterator

from daemon.tape.tape import Entry, Tape


class CountingTape(Tape):
    """`looked`: how many entries have been looked at, by whoever it was."""

    looked = 0

    def between(self, after: int, upto: int) -> Iterator[Entry]:
        for entry in super().between(after, upto):
            self.looked += 1
            yield entry
