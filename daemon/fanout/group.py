"""The clients that a pass of the hub serves alike: the same topics, the same format, all of them caught up."""

from __future__ import annotations

from daemon.fanout.subscriber import Subscriber
from daemon.tape.tape import Entry
from protocol.messages import Format
from protocol.session import Selection


class Group:
    """The caught-up clients with the same topics and the same format.

    Attributes:
        members: by file descriptor, those that are written to directly.
        parked: those that have none (TLS): they are handed to their catch-up task at each pass.
        fresh: this pass's entries for this group.
    """

    __slots__ = ("format", "fresh", "members", "parked", "selection")

    def __init__(self, format: Format, selection: Selection) -> None:
        self.format = format
        self.selection = selection
        self.members: dict[int, Subscriber] = {}
        self.parked: set[Subscriber] = set()
        self.fresh: list[Entry] = []
