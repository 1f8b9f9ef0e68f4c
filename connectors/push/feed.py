"""A connector for one venue's websocket: connect, subscribe, hand on what comes, until it breaks.

`Feed` outlives connections and remembers what the venue refused. What comes takes one way, and each file on it knows
only those behind it:

    inlet        bytes to payloads, in batches             one connection's
    intake       payloads to events, by the venue's rules
    session      events are published, the rest is heeded
    merge        two connections' events as one sequence   the feed's
    `Context`    the daemon's memory channel

`connection` opens the websocket and runs the tasks, `handover` runs two connections side by side where the end of one
is known beforehand. Neither tries again after a failure: the supervisor does.
"""

from __future__ import annotations

import ssl
from math import inf
from typing import Final, NoReturn

import msgspec

from connectors.base import Context, TopicNote
from connectors.capture.tap import NO_TAP, Tap
from connectors.metric import Samples
from connectors.network.trust import client_context
from connectors.network.tunnel import tunnel_through
from connectors.push.address import parse_address
from connectors.push.connection import Spacing, Target, VenueConnection
from connectors.push.handover import Handover
from connectors.push.intake import FeedStatistics
from connectors.push.merge import Merge, Side
from connectors.push.once import Once
from connectors.push.pulse import Patience
from connectors.push.session import FeedSession
from connectors.push.venue import FeedVenue, Fetcher
from connectors.set_aside import SetAside

_COUNTED: Final = {
    "connections": "Opening handshakes with the venue that succeeded.",
    "frames": "Messages of any kind that the venue sent.",
    "events": "Events that were made of them.",
    "empty": "Data frames without an event, such as the ticker of a pair that has not traded yet.",
    "ignored": "Well-formed frames that are of no interest.",
    "unreadable": "Frames that are not what the venue documents; they are left out.",
    "switches": "Connections that took over from one that was still there.",
    "duplicates": "Events that another connection had delivered already.",
    "repeats": "Trades that had been published before, or that are history.",
    "fetches": "Answers of the venue's HTTP interface that a feed needed.",
    "renewals": "Subscriptions that were ended and asked for anew, because something was missing.",
}


class Feed:
    """A connector for one venue's push interface."""

    def __init__(
        self,
        venue: FeedVenue,
        url: str,
        *,
        user_agent: str,
        silence_s: float = 30.0,
        data_s: float = inf,
        timeout_s: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        rotate_after_s: float = 0.0,
        proxy: str = "",
        fetcher: Fetcher | None = None,
        spacing: Spacing | None = None,
    ) -> None:
        """One venue at one address.

        Args:
            venue: all that is the venue's own.
            url: `ws://` or `wss://`.
            user_agent: who we say we are.
            silence_s: a connection without any data for so long is given up; see `Patience` for rare instruments.
            data_s: a channel without data for so long is reported stale, while others talk. Not by default: what is
                usual of an instrument is known to those who judge it (daemon/health/freshness.py).
            timeout_s: for connecting, and again for the opening handshake.
            ssl_context: for a `wss` URL, instead of the system's trust.
            rotate_after_s: a connection of this age is replaced by another before it is closed; 0: none is.
            proxy: the venue's `proxy` setting.
            fetcher: the venue's HTTP interface, for what its conversations need of it.
            spacing: keeps the connects of all feeds apart that share a limit; by default a feed keeps its own apart.

        Raises:
            ValueError: no such URL, of the venue or of the proxy.
        """
        address = parse_address(url)
        if not address.tls:
            ssl_context = None
        elif ssl_context is None:
            # Reads files, so it is done here and not on the loop.
            ssl_context = client_context()
        self.venue = venue
        self.target = Target(address, ssl_context, user_agent, timeout_s, tunnel_through(proxy))
        self.set_aside = SetAside()
        self.counts = FeedStatistics()
        self.patience = Patience(len(venue.subscribe_requests()))
        self.silence_s = silence_s
        self.data_s = data_s
        self.rotate_after_s = rotate_after_s
        self._fetcher = fetcher
        self._parts = venue.parts
        self._once = Once(consecutive=venue.rules.consecutive_trades)
        self._tap = NO_TAP
        self.spacing = Spacing(venue.rules.connect_spacing_s) if spacing is None else spacing

    @property
    def name(self) -> str:
        """The venue's."""
        return self.venue.name

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that are fed by this one alone."""
        return tuple(name for name in self.venue.channels if name not in self._parts)

    @property
    def carried(self) -> tuple[str, ...]:
        """Those that are fed by this one, if only in part."""
        return tuple(self.venue.channels)

    def record(self, tap: Tap) -> None:
        """Tell this tap what is said on all further connections."""
        self._tap = tap

    def statistics(self) -> FeedStatistics:
        """A copy of the counts."""
        return msgspec.structs.replace(self.counts)

    @property
    def unreadable(self) -> int:
        """Frames that are not what the venue documents."""
        return self.counts.unreadable

    def measure(self, samples: Samples) -> None:
        """Add the counts."""
        for field, text in _COUNTED.items():
            family = samples.counter(f"tickerd_feed_{field}", text, "connector")
            family.add_metric([self.name], getattr(self.counts, field))

    async def run(self, context: Context) -> NoReturn:
        """Connections that take over from one another, until one fails. If cancelled, all is closed within a moment.

        Raises:
            ConnectorError: why the last one ended.
        """
        error = await Handover(
            self.venue,
            Merge(context, self.counts, self._once),
            self.counts,
            self._connect,
            rotate_after_s=self.rotate_after_s,
            set_aside=self._partly_set_aside,
        ).run()
        await context.note(
            [
                TopicNote(name, each, "gap", str(error))
                for name, instruments in self._parts.items()
                for each in instruments
            ]
        )
        raise error

    def _connect(self, side: Side) -> VenueConnection:
        """One more connection, whose events go to this side."""
        session = FeedSession(
            self.venue,
            side,
            self.counts,
            self.set_aside,
            self.patience,
            silence_s=self.silence_s,
            data_s=self.data_s,
            fetcher=self._fetcher,
            tap=self._tap,
        )
        return VenueConnection(self.venue, self.target, self.spacing, session, side.now_ms)

    def _partly_set_aside(self) -> set[str]:
        """The channels of which the venue refuses at least a part."""
        requests = self.venue.subscribe_requests()
        return {name for request in requests if request.id in self.set_aside for name in request.channels}
