"""`GET /gaps`: the gap ledger, newest gaps first.

`channel` selects one channel's gaps, and those that concern all channels (a restart, lagging clients); `since_ms`
selects gaps that lasted beyond that moment, or are still open; `limit` is their largest number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daemon.front.http import Refused, Request
from daemon.host.clock import WallClock
from daemon.tape.ledger import Ledger, LedgerGap
from protocol.answers import GapList, GapReport
from protocol.channels import Catalogue
from protocol.codes import ErrorCode

DEFAULT_LIMIT: Final = 100
MOST: Final = 1000

_LONGEST_SHOWN: Final = 100
_LATEST_MS: Final = 2**53
"""Beyond this a browser's numbers are no longer exact."""


def gap_list(request: Request, ledger: Ledger, catalogue: Catalogue, clock: WallClock) -> GapList:
    """Answer the request.

    Raises:
        Refused: 404 for a channel that does not exist and never did, 400 for an invalid number.
    """
    asked = _asked(request)
    channel = asked.get("channel")
    since_ms = _number(asked, "since_ms", 0, _LATEST_MS, 0)
    limit = _number(asked, "limit", 1, MOST, DEFAULT_LIMIT)
    now_ms = clock.now_ms()
    gaps = ledger.gaps(now_ms)
    if channel is not None:
        if channel not in catalogue and not any(gap.channel == channel for gap in gaps):
            nearest = ", ".join(catalogue.nearest(channel[:_LONGEST_SHOWN])) or "see GET /channels"
            seen = f"no channel {channel[:_LONGEST_SHOWN]!r}; nearest: {nearest}"
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


def _asked(request: Request) -> dict[str, str]:
    """The query, each name once; unknown names are ignored, as everywhere."""
    asked: dict[str, str] = {}
    for name, value in request.query:
        if name in asked and name in ("channel", "since_ms", "limit"):
            raise Refused(400, ErrorCode.INVALID_FIELD, f"{name} is given more than once")
        asked[name] = value
    return asked


def _number(asked: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    text = asked.get(name)
    if text is None:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(most)) else -1
    if not least <= value <= most:
        seen = f"{name} is {text[:_LONGEST_SHOWN]!r}; allowed: a whole number from {least} to {most}"
        raise Refused(400, ErrorCode.INVALID_FIELD, seen)
    return value
