"""What the fan-out adds up as it goes; nothing here is done per client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from connectors.metric import Histogram, Samples


class Counts:
    """Counts since the start.

    Attributes:
        passes: how often groups were written to.
        deliveries: messages of the tape that a client's socket has taken, in a pass, from behind or at an interval. Not
            those that a `subscribed` is followed by.
        delivered_bytes: their frames.
        lagged: how often the tape's tail overtook a client.
        delays_s: from the arrival of a venue's bytes here until the sockets of all clients that are caught up have been
            written to, for each event that somebody takes. A repeat of a body (`cached`) has no such time.
    """

    __slots__ = ("delays_s", "delivered_bytes", "deliveries", "lagged", "passes")

    def __init__(self) -> None:
        self.passes = self.deliveries = self.delivered_bytes = self.lagged = 0
        self.delays_s = Histogram()

    def delivered(self, frames: Sequence[bytes]) -> None:
        """A client's socket has these of the tape's frames, or is sure to get them."""
        self.deliveries += len(frames)
        self.delivered_bytes += sum(map(len, frames))

    def written(self, received_ms: Iterable[int], now_ms: int) -> None:
        """What arrived then has been written to everybody. A clock that was set back makes no time less than none."""
        for arrived_ms, times in Counter(received_ms).items():
            self.delays_s.add(max(0, now_ms - arrived_ms) / 1000, times)

    def measure(self, samples: Samples) -> None:
        """Add all of them."""
        samples.count("tickerd_passes", "How often the hub wrote to its clients.", self.passes)
        samples.count("tickerd_deliveries", "Messages of the tape that clients' sockets took.", self.deliveries)
        samples.count("tickerd_delivered_bytes", "The frames of these deliveries.", self.delivered_bytes)
        samples.count("tickerd_lagged", "How often the tape's tail overtook a client.", self.lagged)
        delay = "From a venue's bytes to the last socket of the clients that keep up, per event; no cached ones."
        samples.histogram("tickerd_delivery_delay_seconds", delay, self.delays_s)
