"""The bus: hands the entries that the sequencer appended to the tape to all followers of the tape.

In one process this is a synchronous call. Nothing can happen between the moment an entry is appended and the moment the
fan-out has it. That makes joining, resuming and catching up exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daemon.tape.tape import Entry


class Appended:
    """Entries that the sequencer appended together: a whole pass, or a part of a long one.

    Attributes:
        before: the tape's head before the first of the entries.
        entries: in order; there is at least one.
        received_ms: for each entry, when the venue's bytes arrived here, ms since 1970; 0 for an entry without new
            bytes: a repeated body, a status, a notice.
    """

    __slots__ = ("before", "entries", "received_ms")

    def __init__(self, before: int, entries: Sequence[Entry], received_ms: Sequence[int]) -> None:
        self.before = before
        self.entries = entries
        self.received_ms = received_ms


class Follower(Protocol):
    """A component that gets every entry of the tape once, in order."""

    def follow(self, appended: Appended) -> None:
        """Take these entries. Sync; must not append to the tape, and must not raise."""
        ...


class Bus:
    """The followers of one tape."""

    def __init__(self) -> None:
        self._followers: list[Follower] = []

    def add(self, follower: Follower) -> None:
        """Hand all entries appended from now on to this follower, too."""
        self._followers.append(follower)

    def hand_over(self, appended: Appended) -> None:
        """Hand the entries to each follower. No checkpoint."""
        for follower in self._followers:
            follower.follow(appended)
