"""Candles from before the daemon's time: a venue's own history, asked once for each stretch of time, and kept.

Time is cut into stretches of fixed places, each as long as one request may be about. So whoever asks for about the same
time, asks for the same stretches: they share one request, and what has come is kept, within bounds. Only closed candles
are kept, which do not change any more. A stretch that the present is in is asked for again when later candles of it are
wanted, and not sooner than `AGAIN_S` after the last time.

All requests of a venue go through its one gate, one after the other. After a failure the same instrument is left alone
for a while, which doubles; whoever asks meanwhile is told at once why there is nothing.

It is a connector beside those that bring live data: no channel falls silent with it, and that a request fails does not
end it. If it is cancelled, whoever waits is told that the request was broken off.
"""

from __future__ import annotations

import logging
import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import trio

from connectors.base import Connector, ConnectorError, Context, PayloadError, VenueThrottled
from connectors.limits.rows import FIRST_MS, Odd
from connectors.metric import Samples
from connectors.poll.asking import HostFetcher
from connectors.poll.candles import CandleHistory, PastCandle, Stretch, end_ms, length_ms
from connectors.poll.host import Host
from daemon.host.clock import WallClock
from daemon.host.loop_clock import passed_s
from protocol.channels import Channel
from protocol.kinds import View

WAIT_S: Final = 8.0
"""The longest time that anybody waits for an answer; the request itself goes on, for whoever asks next."""

AGAIN_S: Final = 10.0
"""The least time between two requests for a stretch that is not over."""

SETTLE_MS: Final = 2_000
"""So long after its end a candle may still be missing in a venue's history."""

LEAST_REST_S: Final = 5.0
MOST_REST_S: Final = 300.0
"""How long an instrument is left alone after a failure: twice as long each time, from the one to the other."""

MOST_KEPT: Final = 10_000
"""Candles that are kept of one venue, some 900 bytes each."""

MOST_WAITING: Final = 64
"""Requests to one venue that may wait for their turn."""

_AT_ONCE: Final = 64
"""After so many rows others have their turn."""

_MOST_BYTES: Final = 1024 * 1024

_log: Final = logging.getLogger(__name__)


class Past(msgspec.Struct, frozen=True):
    """What there is of the candles that were asked for.

    Attributes:
        candles: in order.
        reason: why some may be missing, in words; "" if none is.
        begins: whether the venue has none before the first stretch.
    """

    candles: list[PastCandle]
    reason: str = ""
    begins: bool = False


class _Page(msgspec.Struct, frozen=True):
    """What came for a stretch: its closed candles, until when it is known, when it was asked for, what was left out."""

    candles: tuple[PastCandle, ...]
    known_until_ms: int
    asked_s: float
    odd: str = ""


class _Rest(msgspec.Struct, frozen=True):
    """An instrument is left alone after a failure."""

    reason: str
    until_s: float
    rest_s: float


class PastCandles:
    """One venue's history of candles.

    Attributes:
        name: for logs and metrics.
        channels: none falls silent with it.
        unreadable: rows that were left out, because they are not what the venue documents.
        asked, kept, refused, failed: stretches that the venue was asked for, that were here already, that it was not
            asked for because it has to be left alone, and for which it had no answer.
    """

    def __init__(
        self, venue: str, history: CandleHistory, host: Host, *, now_ms: Callable[[], int] | None = None
    ) -> None:
        """`now_ms`: wall-clock time, ms since 1970."""
        self.name = f"{venue}-history"
        self.channels: tuple[str, ...] = ()
        self.unreadable = self.asked = self.kept = self.refused = self.failed = 0
        self._history = history
        self._gate = host.gate
        self._now_ms = WallClock().now_ms if now_ms is None else now_ms
        self._fetcher = HostFetcher(
            host,
            explain=history.explain,
            pause=history.pause,
            now_ms=self._now_ms,
            most_bytes=_MOST_BYTES,
            per_minute=history.per_minute,
        )
        self._turn = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self._pages: OrderedDict[Stretch, _Page] = OrderedDict()
        self._pages_hold = 0
        self._pending: dict[Stretch, trio.Event] = {}
        self._rests: dict[tuple[str, str], _Rest] = {}

    async def run(self, context: Context) -> None:
        """Carry out the requests until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                # Before whoever waits for a request wakes up, and asks why there is nothing.
                self._nursery = None

    async def get(self, instrument: str, interval: str, spans: Sequence[tuple[int, int]]) -> Past:
        """The closed candles that began within these spans, each from its first ms until before its second.

        The spans are in order, and do not overlap.

        It waits for the venue for `WAIT_S` at most. If cancelled, the requests go on, and what comes is kept.

        Raises:
            ValueError: there is no such interval.
        """
        length, now_ms = length_ms(interval), self._now_ms()
        over_ms = self._over_ms(now_ms, length)
        first_ms = self._first_ms(now_ms, length)
        reasons: dict[str, None] = {}
        wanted: dict[Stretch, int] = {}
        for from_ms, until_ms in spans:
            if from_ms < min(first_ms, until_ms):
                if self._history.reach is not None:
                    reasons[f"{self._history.title} has no more than the last {self._history.reach} candles"] = None
                from_ms = first_ms
            until_ms = min(until_ms, over_ms)
            for stretch in self._stretches(instrument, interval, from_ms, until_ms) if from_ms < until_ms else ():
                wanted[stretch] = max(wanted.get(stretch, 0), min(until_ms, stretch.until_ms))
        pending = [self._event(stretch, wanted[stretch]) for stretch in sorted(wanted, key=_newest)]
        with trio.move_on_after(WAIT_S):
            for event in pending:
                if event is not None:
                    await event.wait()
        candles: list[PastCandle] = []
        for stretch in sorted(wanted, key=_oldest):
            page = self._pages.get(stretch)
            why = "" if page is not None and page.known_until_ms >= wanted[stretch] else self._missing(stretch)
            if page is None:
                why = why or f"the request to {self._history.title} was broken off"
            if why:
                reasons[why] = None
            if page is not None:
                candles += page.candles
                if page.odd:
                    reasons[page.odd] = None
        begins = bool(spans) and spans[0][0] < first_ms
        if wanted and not begins:
            stretch = min(wanted, key=_oldest)
            page = self._pages.get(stretch)
            begins = page is not None and not page.candles and page.known_until_ms == stretch.until_ms
        return Past([each for each in candles if _is_within(spans, each)], "; ".join(reasons), begins)

    def measure(self, samples: Samples) -> None:
        """Add how much was asked, and how much did not have to be."""
        for what, text, value in (
            ("requests", "Stretches of candles that a venue was asked for.", self.asked),
            ("kept", "Stretches of candles that were wanted, and were here already.", self.kept),
            ("refused", "Stretches of candles that a venue was not asked for, to leave it alone.", self.refused),
            ("failures", "Stretches of candles for which a venue had no answer.", self.failed),
        ):
            samples.counter(f"tickerd_history_{what}", text, "connector").add_metric([self.name], value)
        here = samples.gauge("tickerd_history_candles", "Candles of venues' histories that are kept.", "connector")
        here.add_metric([self.name], sum(len(page.candles) for page in self._pages.values()))

    def _stretches(self, instrument: str, interval: str, from_ms: int, until_ms: int) -> Iterable[Stretch]:
        """Those of the fixed places that have a part in this time."""
        size = length_ms(interval) * self._history.rows
        for place in range(from_ms // size, -(-until_ms // size)):
            yield Stretch(instrument, interval, place * size, (place + 1) * size)

    def _over_ms(self, now_ms: int, length: int) -> int:
        """Candles that began before this are closed, and in the venue's history."""
        return now_ms - length - SETTLE_MS + 1

    def _first_ms(self, now_ms: int, length: int) -> int:
        """There are no candles that began before this."""
        reach = self._history.reach
        return FIRST_MS if reach is None else max(FIRST_MS, now_ms - reach * length)

    def _event(self, stretch: Stretch, until_ms: int) -> trio.Event | None:
        """What to wait for until the stretch is known up to there; None where there is nothing to wait for."""
        page = self._pages.get(stretch)
        if page is not None and (page.known_until_ms >= until_ms or passed_s() - page.asked_s < AGAIN_S):
            self.kept += 1
            self._pages.move_to_end(stretch)
            return None
        event = self._pending.get(stretch)
        if event is not None:
            return event
        if self._nursery is None or self._missing(stretch) or len(self._pending) >= MOST_WAITING:
            self.refused += 1
            return None
        event = self._pending[stretch] = trio.Event()
        self._nursery.start_soon(self._fetch, stretch)
        return event

    def _resting(self, stretch: Stretch) -> str:
        """Why the venue is not to be asked about that instrument just now; "" if it may be."""
        rest = self._rests.get((stretch.instrument, stretch.interval))
        if rest is not None and passed_s() < rest.until_s:
            return rest.reason
        try:
            self._gate.check(passed_s())
        except VenueThrottled as closed:
            return str(closed)
        return ""

    def _missing(self, stretch: Stretch) -> str:
        """Why a stretch is not known, if there is a reason beside that nobody has asked."""
        title = self._history.title
        if reason := self._resting(stretch):
            return reason
        if stretch in self._pending:
            return f"{title} has not answered within {WAIT_S:g} s"
        if self._nursery is None:
            return f"{title} is not asked just now"
        if len(self._pending) >= MOST_WAITING:
            return f"{len(self._pending)} requests wait for {title} already"
        return ""

    async def _fetch(self, stretch: Stretch) -> None:
        """Ask for one stretch, in its turn. A failure is kept as a reason, and logged."""
        series = (stretch.instrument, stretch.interval)
        try:
            async with self._turn:
                if self._resting(stretch):
                    # It has failed while this one waited for its turn.
                    self.refused += 1
                    return
                rest = self._rests.get(series)
                self.asked += 1
                try:
                    await self._read(stretch)
                    self._rests.pop(series, None)
                except ConnectorError as error:
                    self.failed += 1
                    self._fetcher.rest(error)
                    _log.warning("%s: no candles of %s: %s", self.name, stretch.instrument, error)
                    rest_s = LEAST_REST_S if rest is None else min(2 * rest.rest_s, MOST_REST_S)
                    until_s = passed_s() + max(rest_s, min(error.retry_after_s or 0.0, MOST_REST_S))
                    self._rests[series] = _Rest(str(error), until_s, rest_s)
        finally:
            self._pending.pop(stretch).set()

    async def _read(self, stretch: Stretch) -> None:
        """Raises: ConnectorError."""
        history, asked_s = self._history, passed_s()
        answer = await self._fetcher.answer(history.path(stretch, self._now_ms()))
        length = length_ms(stretch.interval)
        found: dict[int, PastCandle] = {}
        odd: Odd | None = None
        left_out = 0
        rows = history.read(answer.body)
        for number, raw in enumerate(rows, 1):
            if number % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            try:
                row = history.row(bytes(raw), stretch)
                row.check()
            except Odd as error:
                odd, left_out = odd or error, left_out + 1
                continue
            start_ms = row.start_ms
            if not stretch.from_ms <= start_ms < stretch.until_ms:
                continue
            # By the venue's clock: ours may be wrong.
            is_over = end_ms(stretch.interval, start_ms) <= answer.server_ms
            if is_over if row.closed is None else row.closed:
                found[start_ms] = PastCandle.of(row, answer.received_ms)
        said = ""
        if odd is not None:
            self.unreadable += left_out
            said = f"{history.title} sent {left_out} candles of {stretch.instrument} that cannot be read: {odd}"
            if left_out == len(rows):
                raise PayloadError(said)
            _log.warning("%s: %s", self.name, said)
        # No candle begins before the one that came last has ended.
        last_ms = end_ms(stretch.interval, max(found)) if found else 0
        known_until_ms = min(stretch.until_ms, max(last_ms, self._over_ms(answer.server_ms, length)))
        self._keep(stretch, _Page(tuple(found[at] for at in sorted(found)), known_until_ms, asked_s, said))

    def _keep(self, stretch: Stretch, page: _Page) -> None:
        before = self._pages.pop(stretch, None)
        self._pages_hold -= 0 if before is None else _held(before)
        self._pages[stretch] = page
        self._pages_hold += _held(page)
        while self._pages_hold > MOST_KEPT and len(self._pages) > 1:
            _, oldest = self._pages.popitem(last=False)
            self._pages_hold -= _held(oldest)


def past_candles(
    venue: str, channels: Iterable[Channel], history: CandleHistory, host: Callable[[], Host]
) -> list[Connector]:
    """What asks for the past candles of these channels; nothing if none of them is of candles.

    `host` makes the venue's host, or is asked for it. Raises: as `host`.
    """
    return [PastCandles(venue, history, host())] if any(each.kind.view is View.CANDLE for each in channels) else []


def among(connectors: Iterable[Connector]) -> PastCandles | None:
    """The one of a venue's connectors that asks for its past candles, if there is one."""
    return next((each for each in connectors if isinstance(each, PastCandles)), None)


def _is_within(spans: Sequence[tuple[int, int]], candle: PastCandle) -> bool:
    """Whether it began within one of the spans."""
    place = bisect_right(spans, (candle.start_ms, sys.maxsize)) - 1
    return place >= 0 and candle.start_ms < spans[place][1]


def _held(page: _Page) -> int:
    """What a page counts as: one that is empty is something, too."""
    return len(page.candles) + 1


def _oldest(stretch: Stretch) -> int:
    return stretch.from_ms


def _newest(stretch: Stretch) -> int:
    return -stretch.from_ms
