"""The fan-out's counts. Updating them takes no work per client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from connectors.metric import Histogram, Samples


class Counts:
    """Counts since the start.

    Attributes:
        passes: how often groups were written to.
        deliveries: messages of the tape that a client's socket has taken: in a pass, while catching up, or at an
            interval. The messages that follow a `subscribed` are not counted.
        delivered_bytes: the size of their frames.
        lagged: how often messages that a client was still to get had left the tape.
        delays_s: from the arrival of a venue's bytes here until the sockets of all caught-up clients have been written
            to, for each event that some client takes. A repeated body (`cached`) is not counted.
    """

    __slots__ = ("delays_s", "delivered_bytes", "deliveries", "lagged", "passes")

    def __init__(self) -> None:
        self.passes = self.deliveries = self.delivered_bytes = self.lagged = 0
        self.delays_s = Histogram()

    def delivered(self, frames: Sequence[bytes]) -> None:
        """Count frames of the tape that one client's socket has taken, or is certain to get."""
        self.deliveries += len(frames)
        self.delivered_bytes += sum(map(len, frames))

    def written(self, received_ms: Iterable[int], now_ms: int) -> None:
        """Events that arrived at these times have been written to all. After a clock set back the delay counts as 0."""
        for arrived_ms, times in Counter(received_ms).items():
            self.delays_s.add(max(0, now_ms - arrived_ms) / 1000, times)

    def measure(self, samples: Samples) -> None:
        """Add all counts."""
        samples.count("tickerd_passes", "How often the hub wrote to its clients.", self.passes)
        samples.count("tickerd_deliveries", "Messages of the tape that clients' sockets took.", self.deliveries)
        samples.count("tickerd_delivered_bytes", "The frames of these deliveries.", self.delivered_bytes)
        samples.count("tickerd_lagged", "How often the tape's tail overtook a client.", self.lagged)
        delay = "From a venue's bytes to the last socket of the clients that keep up, per event; no cached ones."
        samples.histogram("tickerd_delivery_delay_seconds", delay, self.delays_s)
