"""`GET /gaps`: the gap ledger, newest gaps first.

`channel` selects one channel's gaps, and those that concern all channels (a restart, lagging clients); `since_ms`
selects gaps that lasted beyond that moment, or are still open; `limit` is their largest number.
"""

from __future__ import annotations

from typing import Final

from daemon.front.http import Refused, Request
from daemon.host.clock import WallClock
from daemon.routes.query import LAST, LONGEST_SHOWN, fields, number
from daemon.tape.ledger import Ledger, LedgerGap
from protocol.answers import GapList, GapReport
from protocol.channels import Catalogue
from protocol.codes import ErrorCode

DEFAULT_LIMIT: Final = 100
MOST: Final = 1000


def gap_list(request: Request, ledger: Ledger, catalogue: Catalogue, clock: WallClock) -> GapList:
    """Answer the request.

    Raises:
        Refused: 404 for a channel that does not exist and never did, 400 for an invalid number.
    """
    asked = fields(request, ("channel", "since_ms", "limit"))
    channel = asked.get("channel")
    since_ms = number(asked, "since_ms", 0, LAST, 0)
    limit = number(asked, "limit", 1, MOST, DEFAULT_LIMIT)
    now_ms = clock.now_ms()
    gaps = ledger.gaps(now_ms)
    if channel is not None:
        if channel not in catalogue and not any(gap.channel == channel for gap in gaps):
            nearest = ", ".join(catalogue.nearest(channel[:LONGEST_SHOWN])) or "see GET /channels"
            seen = f"no channel {channel[:LONGEST_SHOWN]!r}; nearest: {nearest}"
            raise Refused(404, ErrorCode.UNKNOWN_CHANNEL, seen)
        gaps = [gap for gap in gaps if gap.channel in (channel, "")]
    gaps = [gap for gap in gaps if gap.end_ms is None or gap.end_ms >= since_ms]
    return GapList(
        timestamp=clock.timestamp(),
        gaps=tuple(_report(gap, clock, now_ms) for gap in gaps[:limit]),
        more=max(0, len(gaps) - limit),
        forgotten=ledger.forgotten,
    )


def _report(gap: LedgerGap, clock: WallClock, now_ms: int) -> GapReport:
    end_ms = now_ms if gap.end_ms is None else gap.end_ms
    return GapReport(
        id=gap.id,
        cause=gap.cause,
        channel=gap.channel or None,
        start=clock.iso(gap.start_ms),
        end=None if gap.end_ms is None else clock.iso(gap.end_ms),
        # The wall clock may have been set back in between.
        duration_s=max(0, end_ms - gap.start_ms) / 1000,
        count=gap.count,
        messages=gap.messages,
        reason=gap.reason,
    )
