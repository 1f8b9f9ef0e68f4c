"""A poller's recording: the same ticks at the same times, and to each request the answer that was recorded."""

from __future__ import annotations

from math import inf

from connectors.base import ConnectorError, StateChange
from connectors.capture.lines import Exchange, Line
from connectors.limits.notes import NoteLimit
from connectors.poll.poller import Poller
from connectors.poll.ticks import Tick
from connectors.poll.venue import Answer, PollRequest
from connectors.replay.items import Item, Missing, Notes, States


class PolledStage:
    """One poller of a recording: a `Stage`. `due_ms` is never: what is due is recorded."""

    def __init__(self, poller: Poller) -> None:
        """`poller` is made, and never run."""
        self.due_ms: float = inf
        self._ticks = poller.ticks
        self._carried = poller.carried
        self._states = States(poller.channels)
        self._notes = NoteLimit()
        self._tick: Tick | None = None
        self._request: PollRequest | None = None
        self._told = ""
        self._began = False

    def frames(self, connection: int, payloads: list[bytes], at_ms: int) -> list[Item]:
        """None: it has no websocket."""
        return []

    def take(self, line: Line, at_ms: int) -> list[Item]:
        """See `Stage`."""
        found: list[Item] = []
        if line.tick:
            if not self._began:
                self._began = True
                found += self._states.told("connecting")
            try:
                self._tick = self._ticks.begin(at_ms / 1000, at_ms / 1000)
            except ConnectorError as error:
                return [*found, *self._failed(error)]
            return [*found, *self._next(at_ms)]
        if line.http is not None:
            return self._answered(line.http, at_ms)
        if line.lost is not None:
            lost = line.lost
            return [Missing(self._carried, lost.from_ms, lost.to_ms, lost.frames, lost.why)]
        return found

    def tick(self, at_ms: int) -> list[Item]:
        """Nothing: ticks are recorded."""
        return []

    def gone(self, reason: str) -> list[Item]:
        """See `Stage`."""
        self._tick = self._request = None
        return self._states.told("down", reason)

    def restated(self, at_ms: int) -> list[Item]:
        """See `Stage`."""
        return self._states.restated()

    def _next(self, at_ms: int) -> list[Item]:
        """Publish what the tick has, and take its next request, or come to its end."""
        tick = self._tick
        if tick is None:
            return []
        found = self._states.live(tick.events) if tick.events else []
        self._request = tick.next()
        if self._request is not None:
            return found
        self._tick = None
        try:
            notes = self._notes.due(tick.end(), at_ms / 1000)
        except ConnectorError as error:
            return [*found, *self._failed(error)]
        if notes:
            found.append(Notes(tuple(notes)))
        notice = self._ticks.poll.notice
        if tick.published and notice != self._told:
            self._told = notice
            found += [item for name in self._carried for item in self._states.one(StateChange(name, "live", notice))]
        return found

    def _answered(self, exchange: Exchange, at_ms: int) -> list[Item]:
        request, tick = self._request, self._tick
        if request is None or tick is None or request.url != exchange.url:
            # What it answers was not recorded.
            return []
        if exchange.body is None:
            self._tick = self._request = None
            return self._states.told("reconnecting", exchange.reason)
        headers = exchange.headers
        answer = Answer(exchange.status, headers, exchange.body.encode(), at_ms, at_ms / 1000)
        try:
            tick.answer(request, answer, at_ms / 1000)
        except ConnectorError as error:
            return self._failed(error)
        return self._next(at_ms)

    def _failed(self, error: ConnectorError) -> list[Item]:
        self._tick = self._request = None
        self._told = ""
        self._notes.clear()
        return self._states.told("reconnecting", str(error))
