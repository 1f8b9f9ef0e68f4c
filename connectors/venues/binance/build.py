"""Binance's connectors: a poller for each channel that is polled, and connections for those that are streamed.

All that ask the REST interface share one `Host`, and so its gate: pollers, the snapshots of books, and past candles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from connectors.base import Connector, ConnectorError
from connectors.poll.asking import HostFetcher
from connectors.poll.host import Host
from connectors.poll.past_candles import past_candles
from connectors.poll.poller import Poller
from connectors.poll.venue import Answer
from connectors.push.connection import Spacing
from connectors.push.feed import Feed
from connectors.venues.binance.books import LEVELS, snapshot_levels
from connectors.venues.binance.history import BinanceHistory
from connectors.venues.binance.polls import VENUE, BinancePoll, explain, weight_pause
from connectors.venues.binance.settings import Binance
from connectors.venues.binance.streams import BOOKS, CONNECTS_S, KINDS, BinanceStreams, plan, url
from daemon.host.clock import WallClock
from protocol.channels import Channel

SNAPSHOTS_PER_MINUTE: Final = {True: 60, False: 12}
"""Half of the request weight: 50 or, with more than 1 000 levels, 250 each; the pollers have the rest."""


def build(channels: Sequence[Channel], settings: Binance, user_agent: str) -> list[Connector]:
    """One poller per polled channel, their first polls spread over a second; feeds for the others; past candles.

    Raises:
        ValueError: a channel has no cadence, or cannot be streamed; a URL is none.
    """
    if not channels:
        return []
    host = Host(VENUE, settings.base_url, timeout_s=settings.timeout_s, user_agent=user_agent, proxy=settings.proxy)
    streamed = [channel for channel in channels if channel.kind.name in KINDS]
    polled = [channel for channel in channels if channel not in streamed]
    pollers: list[Connector] = [
        Poller(
            channel,
            BinancePoll(channel, settings.levels, settings.halted_after_s),
            host,
            delay_s=position / len(polled),
        )
        for position, channel in enumerate(polled)
    ]
    past = past_candles("binance", channels, BinanceHistory(), lambda: host)
    return [*pollers, *_feeds(streamed, settings, user_agent, host), *past]


def _feeds(channels: Sequence[Channel], settings: Binance, user_agent: str, host: Host) -> list[Connector]:
    """Raises: ValueError."""
    plans = plan(channels)
    booked = [channel for channel in channels if channel.kind.name in BOOKS]
    per_minute = SNAPSHOTS_PER_MINUTE[all(snapshot_levels([channel]) == LEVELS for channel in booked)]
    books = len({instrument for channel in booked for instrument in channel.instruments})
    fetcher = HostFetcher(
        host,
        explain=_explain,
        pause=weight_pause,
        now_ms=WallClock().now_ms,
        per_minute=per_minute,
    )
    spacing = Spacing(CONNECTS_S)
    feeds: list[Connector] = []
    for parcel in plans:
        venue = BinanceStreams(
            parcel,
            halted_after_s=settings.halted_after_s,
            settles_s=60.0 * books / per_minute,
        )
        feeds.append(
            Feed(
                venue,
                url(settings.stream_url, parcel.channels),
                user_agent=user_agent,
                silence_s=settings.silence_s * venue.quiet,
                spacing=spacing,
                timeout_s=min(settings.timeout_s, 10.0),
                rotate_after_s=settings.rotate_after_s,
                proxy=settings.proxy,
                fetcher=fetcher,
            )
        )
    return feeds


def _explain(answer: Answer) -> ConnectorError | None:
    """What an answer means for who needs its body."""
    return None if 200 <= answer.status < 300 else explain(answer)
