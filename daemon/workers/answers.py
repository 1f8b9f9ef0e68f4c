"""What only the parent knows, and workers ask it for their clients."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, assert_never

from connectors.poll.past_candles import Past, PastCandles
from daemon.front.request import Refused, Response
from daemon.host.clock import WallClock
from daemon.workers.messages import AskCluster, AskPast, PastFound, Scrape, Scraped
from daemon.workers.worker import Worker
from protocol.answers import ClusterReport
from protocol.codes import ErrorCode
from protocol.messages import encode

_log: Final = logging.getLogger(__name__)


class Answers:
    """Answers all workers."""

    def __init__(
        self,
        scrape: Callable[[bool], Awaitable[Response]],
        cluster: Callable[[], ClusterReport],
        past: Callable[[str], PastCandles | None],
        clock: WallClock,
    ) -> None:
        """`scrape`: the metrics of all, as OpenMetrics or not; `cluster` and `past`: see `Workers`."""
        self._scrape = scrape
        self._cluster = cluster
        self._past = past
        self._clock = clock

    async def answer(self, worker: Worker, pid: int | None, asked: Scrape | AskCluster | AskPast) -> None:
        """Answer a worker. The barrier: a bug in there costs whoever asked a 500, and nobody else anything.

        `pid`: of the process that asked. One that was started meanwhile counts its questions from 1 again.
        """
        answer: Scraped | PastFound
        try:
            match asked:
                case Scrape(number, openmetrics):
                    answer = _scraped(number, await self._scrape(openmetrics))
                case AskCluster(number):
                    answer = _scraped(number, Response(200, encode(self._cluster())))
                case AskPast(number):
                    answer = PastFound.of(number, await self._ask_past(asked))
                case _:
                    assert_never(asked)
        except Exception:
            _log.exception("%s of worker %d failed", type(asked).__name__, worker.number)
            failed = Refused(500, ErrorCode.INTERNAL, "the daemon failed to answer; its log says why")
            answer = _scraped(asked.number, failed.response(self._clock.timestamp()))
        if worker.pid == pid:
            worker.say(answer)

    async def _ask_past(self, asked: AskPast) -> Past:
        past = self._past(asked.venue)
        if past is None:  # a reload has just ended it
            return Past([], f"there is no history of {asked.venue} but the tape")
        return await past.get(asked.instrument, asked.interval, asked.spans)


def _scraped(number: int, response: Response) -> Scraped:
    return Scraped(number, response.status, response.body, response.content_type, response.headers)
