"""One question to a venue's host and its answer, under one deadline: what every caller of the host goes through.

`ask` passes the host's gate and gives an answer of whatever status; `HostFetcher` is for callers that want a good body
or an error, such as a feed that needs a snapshot (`connectors.push.venue.Fetcher`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import httpx
import trio

from connectors.base import (
    UNANSWERED,
    ConnectorError,
    VenueClosed,
    VenueRefused,
    VenueTimeout,
    VenueUnavailable,
    unreached,
)
from connectors.limits.payload import brief
from connectors.poll.body import Body
from connectors.poll.host import Host
from connectors.poll.venue import Answer, Pause, PollRequest
from connectors.poll.wire import seen
from daemon.host.loop_clock import passed_s

_CHUNKS_AT_ONCE: Final = 64
"""After so many pieces of a body others have their turn: reading pieces that are there already is no checkpoint."""

_ERRORS: Final = 400
"""From here on the status says enough: an error whose body is refused is an error without a body."""


async def ask(host: Host, client: httpx.AsyncClient, request: PollRequest, now_ms: Callable[[], int]) -> Answer:
    """One GET, under one deadline for all of it. `now_ms` stamps the answer; its `at_s` is the time that has passed.

    httpx's own timeouts run per read, so a body that comes byte by byte would pass them.

    Raises:
        ConnectorError: the gate is closed, or no answer came. An answer with an error status is an answer.
    """
    host.gate.check(passed_s())
    body: Body | None = None
    connected = False

    async def trace(event: str, _: object) -> None:
        nonlocal connected
        connected = connected or event.endswith(".send_request_headers.started")

    try:
        with trio.move_on_after(host.timeout_s) as scope:
            # An empty mapping of parameters would take away the query that the path has.
            params = request.params or None
            async with client.stream(
                "GET", request.path, params=params, headers=request.headers, extensions={"trace": trace}
            ) as response:
                coding = response.headers.get("content-encoding", "")
                body = Body(host.venue, coding, request.most_bytes)
                count = 0
                # Raw: httpx unpacks whatever it is told to, and a whole piece at once.
                async for chunk in response.aiter_raw():
                    seen(response.extensions)
                    count += 1
                    if count % _CHUNKS_AT_ONCE == 0:
                        # Shielded, because an exception from here, rather than from the read, would leave httpx's
                        # generators suspended, and unfinished generators wait for the garbage collector.
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    if not body.add(chunk):
                        # Not `raise`, for the same reason.
                        scope.cancel()
    except httpx.HTTPError as error:
        raise _told(host, _failed(host, error, connected=connected)) from error
    if body is None or (scope.cancelled_caught and not body.refused):
        raise _told(host, _too_slow(host, connected=connected))
    whole = body.end()
    if body.refused and response.status_code < _ERRORS:
        raise VenueUnavailable(body.refused)
    return Answer(
        status=response.status_code,
        headers={name.lower(): value for name, value in response.headers.items()},
        body=whole,
        received_ms=now_ms(),
        at_s=passed_s(),
    )


class HostFetcher:
    """Good bodies from a host, one request after the other, through its gate.

    Args:
        host: shared with all others who call it.
        explain: what an answer that is no success means; also of one whose status is good, or None.
        pause: whether the host is to be left alone after an answer.
        most_bytes: how large a body may be.
        now_ms: wall-clock time, ms since 1970.
        per_minute: how many requests may be made in any minute; further ones wait. 0: any number.
    """

    def __init__(
        self,
        host: Host,
        *,
        explain: Callable[[Answer], ConnectorError | None],
        now_ms: Callable[[], int],
        pause: Callable[[Answer], Pause | None] = lambda _: None,
        most_bytes: int = 4 * 1024 * 1024,
        per_minute: int = 0,
    ) -> None:
        self._host = host
        self._explain = explain
        self._pause = pause
        self._most_bytes = most_bytes
        self._now_ms = now_ms
        self._turn = trio.Lock()
        self._made_s: deque[float] = deque(maxlen=per_minute)

    async def get(self, path: str) -> bytes:
        """The body of a good answer. Raises: as `answer`."""
        return (await self.answer(path)).body

    async def answer(self, path: str) -> Answer:
        """A good answer.

        Raises:
            ConnectorError: the gate is closed, no answer came, or it is no success.
        """
        async with self._turn, self._host.client() as client:
            made_s = self._made_s
            if made_s and len(made_s) == made_s.maxlen:
                await trio.sleep_until(made_s[0] + 60.0)
            made_s.append(trio.current_time())
            answer = await ask(self._host, client, PollRequest(path, most_bytes=self._most_bytes), self._now_ms)
        pause = self._pause(answer)
        if pause is not None:
            self._host.gate.close(passed_s(), pause.seconds, pause.reason)
        error = self._explain(answer)
        if error is None:
            return answer
        self.rest(error)
        raise error

    def rest(self, error: ConnectorError) -> None:
        """Leave the host alone for as long as it asked for by this error, if it did; some say so in a good answer."""
        if error.retry_after_s is not None and not isinstance(error, VenueRefused):
            self._host.gate.close(passed_s(), error.retry_after_s, str(error))


def _too_slow(host: Host, *, connected: bool) -> VenueUnavailable:
    nobody = "" if connected else UNANSWERED
    return VenueTimeout(f"{host.venue} did not answer within {host.timeout_s:g} s", unreached=nobody)


def _told(host: Host, error: ConnectorError) -> ConnectorError:
    """The failure with the proxy in its words, where there is one."""
    return error if host.tunnel is None else host.tunnel.told(error)


def _failed(host: Host, error: httpx.HTTPError, *, connected: bool) -> ConnectorError:
    """Why there is no answer, in words. httpx's own help only where a connection failed."""
    venue = host.venue
    match error:
        case httpx.TimeoutException():
            return _too_slow(host, connected=connected)
        case httpx.UnsupportedProtocol():
            return VenueRefused(f"{venue}'s base URL is not an http:// or https:// address")
        case httpx.ConnectError():
            why = _words(error)
            cause = _system_error(error)
            nobody = "" if cause is None else unreached(cause)
            return VenueUnavailable(f"{venue} cannot be reached" + (why and f": {why}"), unreached=nobody)
        case _:
            return VenueClosed(f"{venue} broke off before its answer was complete")


def _system_error(error: BaseException) -> OSError | None:
    """What the system said, which httpx and httpcore have wrapped."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _words(error: BaseException) -> str:
    """The first words in a chain of errors: a failed TLS handshake has them far down."""
    cause: BaseException | None = error
    while cause is not None and not str(cause):
        cause = cause.__cause__ or cause.__context__
    return brief(str(cause or ""))
