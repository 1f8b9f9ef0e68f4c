"""A worker's way up to its parent: what it says, and what it asks and waits for."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import trio

from connectors.poll.past_candles import WAIT_S, Past
from daemon.front.request import Refused, Response
from daemon.workers.messages import AskPast, PastFound, Scraped, Up, framed
from protocol.codes import ErrorCode

_MOST_WAITING: Final = 4096
"""So many messages may wait for the parent to take them; beyond that clients cannot have it told or asked anything."""

_ANSWER_S: Final = 5.0
"""How long the parent may take for an answer of its own."""


class AwayError(Exception):
    """The parent does not answer; `str()` says more."""


class Uplink:
    """What goes up, in order."""

    def __init__(self, stream: trio.abc.SendStream) -> None:
        """`run` sends by `stream`."""
        self._stream = stream
        self._outbox: deque[bytes] = deque()
        self._more = trio.Event()
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Question] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._outbox

    def say(self, message: Up) -> None:
        """Send it as soon as possible. For what the parent wants to know, or what comes once a second at most."""
        self._outbox.append(framed(message))
        self._more.set()

    def pass_on(self, message: Up) -> None:
        """The same, for what a client causes. Raises: AwayError, if too much waits already."""
        if len(self._outbox) >= _MOST_WAITING:
            raise AwayError(f"{_MOST_WAITING} messages wait for it")
        self.say(message)

    async def ask(self, make: Callable[[int], Up], within_s: float = _ANSWER_S) -> Scraped | PastFound:
        """Ask, and wait for the answer. `make` makes the question of its number.

        Raises:
            AwayError: there is no answer within that time, or too much waits already.
        """
        number = next(self._numbers)
        question = self._asked[number] = _Question()
        try:
            self.pass_on(make(number))
            with trio.move_on_after(within_s):
                await question.answered.wait()
        finally:
            del self._asked[number]
        if question.answer is None:
            raise AwayError(f"no answer within {within_s:g} s")
        return question.answer

    def take(self, answer: Scraped | PastFound) -> None:
        """An answer has come. Whoever has given up waiting does not want it."""
        question = self._asked.get(answer.number)
        if question is not None:
            question.answer = answer
            question.answered.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what is said, until cancelled, or until the parent is gone."""
        task_status.started()
        try:
            while True:
                while self._outbox:
                    await self._stream.send_all(self._outbox[0])
                    self._outbox.popleft()
                self._more = trio.Event()
                await self._more.wait()
        except trio.BrokenResourceError:
            return  # whoever reads finds out, too


class _Question:
    """One question that waits for its answer."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Scraped | PastFound | None = None


class FromParent:
    """The answer of a route that only the parent can give; a `Later`."""

    def __init__(self, uplink: Uplink, make: Callable[[int], Up]) -> None:
        self._uplink = uplink
        self._make = make
        self._answer: Scraped | None = None

    async def wait(self) -> None:
        """Ask the parent."""
        try:
            answer = await self._uplink.ask(self._make)
        except AwayError as away:
            said = f"the process that knows does not answer: {away}"
            raise Refused(503, ErrorCode.UNAVAILABLE, said, (("Retry-After", "5"),)) from None
        self._answer = answer if isinstance(answer, Scraped) else None

    def answer(self) -> Response:
        """The response."""
        if self._answer is None:
            raise AssertionError("not waited for, or the answer to another question")
        return Response(self._answer.status, self._answer.body, self._answer.content_type, self._answer.headers)


class PastFromParent:
    """One venue's past candles, which the parent asks for."""

    def __init__(self, uplink: Uplink, venue: str) -> None:
        self._uplink = uplink
        self._venue = venue

    async def get(self, instrument: str, interval: str, spans: Sequence[tuple[int, int]]) -> Past:
        """As `PastCandles.get`. If cancelled, the parent's request goes on."""

        def question(number: int) -> AskPast:
            return AskPast(number, self._venue, instrument, interval, tuple(spans))

        try:
            answer = await self._uplink.ask(question, WAIT_S + _ANSWER_S)
        except AwayError as away:
            return Past([], f"the process that asks {self._venue} does not answer: {away}")
        if not isinstance(answer, PastFound):
            raise AssertionError("the answer to another question")
        return answer.past
