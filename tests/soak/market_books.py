"""Whether the witnesses' books are those of the simulated market, once all faults are over.

The clients' books are compared with the witnesses' (`checker.py`). So a daemon that tells everybody the same wrong book
would not be found by that; by this it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import trio

from connectors.simulator.venues.market import LISTINGS, Market
from daemon.commands.rehearse.truth import Truth
from tests.soak.record import Topic
from tests.soak.reference import Reference

WITHIN_S: Final = 20.0
"""In this time each book has changed, and is one that its venue has had."""

_AHEAD: Final = 100
"""Steps of the market that are looked for beyond those that should have passed."""


class MarketBooks:
    """The market's books from step to step, since the venues began.

    Attributes:
        compared: how many of the witnesses' books were found to be right.
    """

    def __init__(self, seed: int, steps_per_s: float) -> None:
        """To be made before the venues begin."""
        self.compared = 0
        self._market = Market(seed)
        self._steps_per_s = steps_per_s
        self._began_s = time.monotonic()

    async def check(self, reference: Reference, venues: Mapping[str, str]) -> list[str]:
        """Wait until each book of these channels, given with their venues, is right. Returns what is wrong, by topic.

        Only a book that has changed meanwhile counts: one that stands still may have been right before.
        """
        truths = {
            (channel, listing.instrument): Truth(self._market, listing)
            for channel, venue in venues.items()
            for listing in LISTINGS[venue].values()
        }
        began = {topic: book.seq for topic, book in reference.books().items()}
        waiting = set(began)
        with trio.move_on_after(WITHIN_S):
            while waiting:
                await trio.sleep(0.1)
                for topic in sorted(waiting):
                    if reference.books()[topic].seq != began[topic] and self._is_right(truths[topic], reference, topic):
                        waiting.discard(topic)
        self.compared += len(began) - len(waiting)
        wrong = [f"no book of {topic} is the venue's, within {WITHIN_S:g} s after all faults" for topic in waiting]
        silent = set(venues) - {channel for channel, _ in began}
        return [*sorted(wrong), *(f"there is no book of {channel}" for channel in sorted(silent))]

    def _is_right(self, truth: Truth, reference: Reference, topic: Topic) -> bool:
        bids, asks = (
            dict(truth.level(str(price), quantity) for price, quantity in side.items())
            for side in reference.books()[topic].sides
        )
        return truth.has(bids, asks, int((time.monotonic() - self._began_s) * self._steps_per_s) + _AHEAD)
