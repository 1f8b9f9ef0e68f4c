"""What a `GET /events` asks for: its query becomes a `subscribe` command, judged as one that came by websocket.

Pure: one request in, an `EventRequest` or a `Refused` out. A mistake in the query is refused with a word (a browser's
EventSource does not show it, every other client does), but a `Last-Event-ID` that is no position is not: a browser
would send it again for ever.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from daemon.front.http import Headers, Refused, Request
from protocol.channels import Catalogue
from protocol.codes import ErrorCode
from protocol.commands import Format, Position, Subscribe, cut
from protocol.grant import Grant
from protocol.messages import Error
from protocol.session import ALL, CommandLimits, Effect, Join, Reply, Session

PATH: Final = "/events"

METHODS: Final = ("GET", "HEAD")

CONTENT_TYPE: Final = Format.SSE.value

HEADERS: Final[Headers] = (
    ("Cache-Control", "no-cache, no-transform, no-store"),
    # Caddy 2.6 compresses all the same, and sends nothing on before a block is full, unless there is a coding already.
    ("Content-Encoding", "identity"),
    ("X-Accel-Buffering", "no"),
)
"""For proxies, which would keep events back until a buffer of theirs is full: to compress it, or (nginx) to have it."""

_MISTAKEN: Final = {"channel": "channels", "instrument": "instruments", "interval": "interval_ms"}
"""Fields that do not exist, and which one is meant: to pass them over would give more than was asked for."""

_ID: Final = re.compile(r"(?P<epoch>[A-Za-z0-9_-]+)-(?P<seq>[0-9]{1,16})")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_NOWHERE: Final = Position("", 0)
"""A position on no tape: the newest messages follow."""

_STATUS: Final = {ErrorCode.UNKNOWN_CHANNEL: 404, ErrorCode.UNKNOWN_INSTRUMENT: 404, ErrorCode.FORBIDDEN: 403}


class EventRequest(msgspec.Struct, frozen=True):
    """An event stream that may be opened.

    Attributes:
        state: the client's subscriptions, as they are from now on.
        effects: what it is told first: what was wrong with a part of what it asked, and then the one `Join`.
        grant: what the client may have.
    """

    state: Session
    effects: tuple[Effect, ...]
    grant: Grant


def check_method(request: Request) -> None:
    """Whether it is one of `METHODS`. Raises: Refused, 405."""
    if request.method not in METHODS:
        allowed = ", ".join(METHODS)
        seen = f"{request.method[:20]} {PATH}; allowed: {allowed}"
        raise Refused(405, ErrorCode.METHOD_NOT_ALLOWED, seen, (("Allow", allowed),))


def judge(request: Request, catalogue: Catalogue, limits: CommandLimits, now_s: float, timestamp: str) -> EventRequest:
    """What the client asks for.

    Args:
        request: its query has `channels`, and may have `instruments` (both separated by commas, or repeated),
            `interval_ms`, `snapshot` and `last_event_id`, for clients that cannot set the header of that name; in any
            spelling, because polyfills of EventSource have one each.
        catalogue: the channels that there are; the request says which of them this client may subscribe to.
        limits: as for commands by websocket.
        now_s: the present, on a monotonic clock.
        timestamp: the present, as the wire has it.

    Raises:
        Refused: 404 where there is nothing of what it names, 403 where it may have nothing of it, 400 for any other
            mistake.
    """
    catalogue = catalogue.granted(request.grant)
    for name in _MISTAKEN.keys() & {name for name, _ in request.query}:
        raise _bad(f"{name}: no field of {PATH}; it is {_MISTAKEN[name]}")
    channels = _names(request, "channels")
    if not channels:
        raise _bad(f'channels: name at least one, or "{ALL}" for all; there are: {", ".join(catalogue.names)}')
    since, mistake = _since(request, timestamp)
    command = Subscribe(channels, _names(request, "instruments"), _interval_ms(request), _snapshot(request), since)
    state = Session(catalogue, Format.SSE, limits, now_s)
    effects = state.receive(msgspec.json.encode(command).decode(), now_s, timestamp)
    if not any(isinstance(effect, Join) for effect in effects):
        told = (effect.message for effect in effects if isinstance(effect, Reply))
        error = next(message for message in told if isinstance(message, Error))
        raise Refused(_STATUS.get(error.code, 400), error.code, error.message)
    return EventRequest(state, (*mistake, *effects), request.grant)


def _names(request: Request, field: str) -> list[str] | None:
    """The items of a field that may be repeated; None where it is not there at all."""
    given = [value for name, value in request.query if name == field]
    return [item.strip() for value in given for item in value.split(",") if item.strip()] if given else None


def _single(request: Request, field: str) -> str | None:
    given = [value for name, value in request.query if name == field]
    if len(given) > 1:
        raise _bad(f"{field}: given {len(given)} times; once is allowed")
    return given[0] if given else None


def _interval_ms(request: Request) -> int | None:
    given = _single(request, "interval_ms")
    if given is not None and _NUMBER.fullmatch(given) is None:
        raise _bad(f"interval_ms: {cut(given, 40)!r}; a number of milliseconds is allowed")
    return None if given is None else int(given)


def _snapshot(request: Request) -> bool:
    given = _single(request, "snapshot")
    if given is not None and given not in _BOOLEANS:
        raise _bad(f"snapshot: {cut(given, 40)!r}; allowed: {', '.join(_BOOLEANS)}")
    return True if given is None else _BOOLEANS[given]


def _since(request: Request, timestamp: str) -> tuple[Position | None, tuple[Effect, ...]]:
    """Where the client stopped; and what it is told where that is no position. The header is newer than the query."""
    given = [*request.values("last-event-id"), *(value for name, value in request.query if _is_last_id(name))]
    last = next((each for each in given if each), "")
    if not last:
        return None, ()
    found = _ID.fullmatch(last)
    if found is not None:
        return Position(found["epoch"], int(found["seq"])), ()
    reason = f"Last-Event-ID: {cut(last, 60)!r} is no position (EPOCH-SEQ); the newest messages follow instead"
    return _NOWHERE, (Reply(Error(timestamp=timestamp, code=ErrorCode.INVALID_FIELD, message=reason)),)


def _is_last_id(field: str) -> bool:
    """Whether it is `last_event_id`, `lastEventId`, `Last-Event-ID`..."""
    return field.lower().replace("_", "").replace("-", "") == "lasteventid"


def _bad(message: str) -> Refused:
    return Refused(400, ErrorCode.INVALID_FIELD, message)
