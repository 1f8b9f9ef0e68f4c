"""What faults make of the simulated venues' HTTP answers. Pure: the answer says in its `delivery` how it gets there.

Sources of the refusals: Binance's rest-api.md ("HTTP Return Codes") and errors.md; CoinGecko's page on errors and rate
limits; the body of Binance's 451 as client projects have recorded it.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, assert_never

import msgspec

from connectors.simulator.faults.active import ActiveFault, FaultBoard
from connectors.simulator.faults.altered_json import (
    empty_strings,
    huge_numbers,
    missing_fields,
    odd_book,
    odd_row,
    shifted_times,
    wrong_types,
)
from connectors.simulator.faults.faults import (
    Answered,
    BadRow,
    BodyChange,
    Bomb,
    ClockSkew,
    ContentType,
    Delisted,
    DeliveryChange,
    EmptyList,
    EmptyStrings,
    EndlessBody,
    ErrorBody,
    Fault,
    GarbageBody,
    Halted,
    HttpStatus,
    HugeBody,
    HugeNumbers,
    Instead,
    MissingFields,
    MissingRow,
    NotModified,
    OldSnapshot,
    Refuse,
    Reset,
    SlowBody,
    SlowHeaders,
    StaleAge,
    TlsFailure,
    TruncatedBody,
    Venue,
    WrongTypes,
)
from connectors.simulator.faults.frames import HALTED_MS, HUGE
from connectors.simulator.http.request import Delivery, VenueRequest, VenueResponse, json_response
from connectors.simulator.venues.binance import BadParameters, requested_symbols
from connectors.simulator.venues.binance_weight import BAN_S, error

TLS_ALERT: Final = bytes([21, 3, 3, 0, 2, 2, 40])
"""A TLS 1.2 record: fatal alert, handshake_failure (RFC 5246 section 7.2)."""

HTML: Final = b"<!DOCTYPE html><html><head><title>Error</title></head><body>The request is blocked.</body></html>"
_RATE_LIMIT: Final = (
    "You've exceeded the Rate Limit. Please visit https://www.coingecko.com/en/api/pricing to subscribe to our API "
    "plans for higher rate limits."
)
_RESTRICTED: Final = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in https://www.binance.com/en/terms."
)


class FaultyAnswers:
    """The answers of all venues.

    Args:
        board: Which faults are on.
        clock: Epoch seconds.
    """

    def __init__(self, board: FaultBoard, clock: Callable[[], float]) -> None:
        self._board = board
        self._clock = clock
        self._asked: Counter[str] = Counter()

    def answer(
        self, venue: Venue, request: VenueRequest, serve: Callable[[VenueRequest], VenueResponse]
    ) -> VenueResponse:
        """A venue's answer, with its faults. `serve` is the venue without any."""
        acting = self._acting(venue, request)
        for one in acting:
            if isinstance(one.fault, Instead):
                instead = self._instead(one.fault, request, serve)
                if instead is not None:
                    one.count()
                    return instead
        if any(isinstance(one.fault, BodyChange | DeliveryChange) for one in acting):
            # There has to be a body, and the client must not keep it under the right one's tag.
            request = _without_condition(request)
        response = serve(request)
        if response.status != 200:
            return response
        for one in acting:
            if isinstance(one.fault, BodyChange):
                response = self._changed(one, one.fault, request, response)
        for one in acting:
            if isinstance(one.fault, DeliveryChange):
                one.count()
                response = _delivered(one.fault, response)
        return response

    def handshake(self, venue: Venue, request: VenueRequest) -> VenueResponse | None:
        """What answers an opening of a venue's websocket; None lets it open."""
        for one in self._acting(venue, request):
            if isinstance(one.fault, Refuse | HttpStatus | TlsFailure):
                one.count()
                return self._refusal(one.fault)
        return None

    def handshake_delay_s(self, venue: Venue) -> float:
        """How long an opening of a venue's websocket waits for its answer."""
        delay_s = 0.0
        for one in self._board.of(venue):
            if isinstance(one.fault, SlowHeaders) and one.chooses():
                one.count()
                delay_s += one.fault.delay_s
        return delay_s

    def snapshot_age_s(self, venue: Venue) -> float:
        """How old the book is that the venue answers with just now."""
        age_s = 0.0
        for one in self._board.of(venue):
            if isinstance(one.fault, OldSnapshot) and one.chooses():
                one.count()
                age_s += one.fault.age_s
        return age_s

    def _acting(self, venue: Venue, request: VenueRequest) -> list[ActiveFault]:
        """The faults that act on this request."""
        active = self._board.of(venue)
        if not active:
            return []
        self._asked[request.path] += 1
        about = (request.path, self._asked[request.path])
        return [one for one in active if _path(one.fault) in (None, request.path) and one.chooses(*about)]

    def _instead(
        self, fault: Instead, request: VenueRequest, serve: Callable[[VenueRequest], VenueResponse]
    ) -> VenueResponse | None:
        """What is sent in an answer's place; None where the fault has nothing to say to this request."""
        match fault:
            case Refuse() | HttpStatus() | TlsFailure():
                return self._refusal(fault)
            case ErrorBody(venue="binance"):
                return error(-1003, "Too many requests queued.", 200)
            case ErrorBody():
                return json_response({"status": {"error_code": 429, "error_message": _RATE_LIMIT}})
            case NotModified():
                return VenueResponse(304, b"", (("etag", request.headers.get("if-none-match", 'W/"0"')),))
            case Delisted(instrument=instrument):
                return _without_instrument(instrument.replace("/", ""), request, serve)
            case _:
                assert_never(fault)

    def _refusal(self, fault: Refuse | HttpStatus | TlsFailure) -> VenueResponse:
        match fault:
            case Refuse():
                return VenueResponse(200, delivery=Delivery(reset_after=0))
            case TlsFailure():
                return VenueResponse(200, delivery=Delivery(raw=TLS_ALERT))
            case HttpStatus(venue=venue, status=status, retry_after_s=retry_after_s):
                response = _refused(venue, status, int((self._clock() + (retry_after_s or BAN_S)) * 1000))
                if retry_after_s is None:
                    return response
                return response.with_headers(("retry-after", str(retry_after_s)))
            case _:
                assert_never(fault)

    def _changed(
        self, one: ActiveFault, fault: BodyChange, request: VenueRequest, response: VenueResponse
    ) -> VenueResponse:
        """The answer with another body, and without the right one's tag."""
        body = response.body
        random = one.random(request.path, self._asked[request.path])
        match fault:
            case GarbageBody(kind="not_json"):
                body = body[: random.randrange(1, len(body))]
            case GarbageBody(kind="not_utf8"):
                at = random.randrange(1, len(body))
                body = body[:at] + b"\xff\xfe" + body[at:]
            case GarbageBody(kind="html"):
                body = HTML
            case GarbageBody():
                body = b""
            case HugeBody(size=size):
                body = _padded(body, size)
            case Bomb(packed=packed):
                body = bomb(1 if packed == "once" else 2)
                coding = ("content-encoding", "gzip" if packed == "once" else "gzip, gzip")
                response = response.with_headers(coding)
            case BadRow() | Halted() | MissingRow() | EmptyList():
                altered = _with_other_rows(fault, request, body, int(self._clock() * 1000))
                if altered is None:
                    return response
                body = altered
            case WrongTypes() | MissingFields() | EmptyStrings() | HugeNumbers() | ClockSkew():
                tree: Any = msgspec.json.decode(body)
                match fault:
                    case WrongTypes(field=field):
                        changed = wrong_types(tree, field, random)
                    case MissingFields(field=field):
                        changed = missing_fields(tree, field, random)
                    case EmptyStrings(field=field):
                        changed = empty_strings(tree, field, random)
                    case HugeNumbers(kind=kind, field=field):
                        changed = huge_numbers(tree, HUGE[kind], field, random)
                    case ClockSkew(offset_s=offset_s):
                        changed = shifted_times(tree, offset_s)
                if not changed:
                    return response
                body = msgspec.json.encode(tree)
            case _:
                assert_never(fault)
        one.count()
        headers = tuple(header for header in response.headers if header[0] != "etag")
        return msgspec.structs.replace(response, body=body, headers=headers)


def _with_other_rows(
    fault: BadRow | Halted | MissingRow | EmptyList, request: VenueRequest, body: bytes, now_ms: int
) -> bytes | None:
    """The body with other rows; None where the fault has nothing to say to it."""
    tree: Any = msgspec.json.decode(body)
    if isinstance(fault, EmptyList):
        if isinstance(tree, dict) and isinstance(tree.get("coins"), list):
            return msgspec.json.encode({**tree, "coins": []})
        return b"[]" if isinstance(tree, list) else None
    symbol = fault.instrument.replace("/", "")
    if isinstance(tree, dict):
        if request.parameter("symbol") != symbol or "bids" not in tree:
            return None
        if isinstance(fault, BadRow):
            return msgspec.json.encode(odd_book(tree, fault.what))
        return msgspec.json.encode({**tree, "bids": [], "asks": []}) if isinstance(fault, Halted) else None
    places = [place for place, row in enumerate(tree) if row.get("symbol") == symbol and "closeTime" in row]
    for place in places:
        match fault:
            case BadRow(what=what):
                tree[place] = odd_row(tree[place], what, "lastPrice", "closeTime")
            case Halted():
                nobody = dict.fromkeys(("bidPrice", "bidQty", "askPrice", "askQty"), "0.00000000")
                # The same for ever, to the minute.
                tree[place] |= {**nobody, "closeTime": (now_ms - HALTED_MS) // 60_000 * 60_000}
            case MissingRow():
                del tree[place]
    return msgspec.json.encode(tree) if places else None


def _padded(body: bytes, size: int) -> bytes:
    """An object, or a list of objects, whose first object has another member that makes it so long."""
    before, brace, after = body.partition(b"{")
    start = before + brace + b'"padding":"'
    return start + b"x" * (size - len(start) - len(after) - 2) + b'",' + after


@lru_cache(2)
def bomb(packed: int) -> bytes:
    """64 million zeros, packed so often by gzip."""
    content = b""
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for _ in range(64):
        content += packer.compress(bytes(1_000_000))
    content += packer.flush()
    for _ in range(packed - 1):
        content = gzip.compress(content, 9)
    return content


def _path(fault: Fault) -> str | None:
    match fault:
        case Answered(path=path) | WrongTypes(path=path) | MissingFields(path=path) | EmptyStrings(path=path):
            return path
        case HugeNumbers(path=path) | ClockSkew(path=path) | Refuse(path=path) | HttpStatus(path=path):
            return path
        case SlowHeaders(path=path) | TlsFailure(path=path):
            return path
        case _:
            return None


def _without_condition(request: VenueRequest) -> VenueRequest:
    headers = {name: value for name, value in request.headers.items() if name != "if-none-match"}
    return msgspec.structs.replace(request, headers=headers)


def _without_instrument(
    symbol: str, request: VenueRequest, serve: Callable[[VenueRequest], VenueResponse]
) -> VenueResponse | None:
    """Binance without one of its symbols: -1121 where it is asked for by name, else it is left out."""
    try:
        asked = requested_symbols(request)
    except BadParameters:
        return None
    if asked is not None:
        return error(-1121, "Invalid symbol.") if symbol in asked else None
    response = serve(request)
    rows: Any = msgspec.json.decode(response.body) if response.status == 200 else None
    whole, rows = rows, rows.get("symbols") if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        return None
    rows[:] = [row for row in rows if row.get("symbol") != symbol]
    return msgspec.structs.replace(response, body=msgspec.json.encode(whole))


def _refused(venue: Venue, status: int, until_ms: int) -> VenueResponse:
    """The venue's words for a status; `until_ms` is when a ban ends."""
    html = VenueResponse(status, HTML, (("content-type", "text/html"),))
    match venue, status:
        case _, 403:
            return html
        case "binance", 418:
            text = (
                f"Way too much request weight used; IP banned until {until_ms}. "
                "Please use WebSocket Streams for live updates to avoid bans."
            )
            return error(-1003, text, status)
        case "binance", 429:
            return error(-1003, "Too many requests queued.", status)
        case "binance", 451:
            return error(0, _RESTRICTED, status)
        case "binance", _:
            return error(-1000, "An unknown error occurred while processing the request.", status)
        case "coingecko", 401:
            said = {"error_code": 10002, "error_message": "API Key Missing."}
            return json_response({"status": said}, status)
        case "coingecko", 429:
            return json_response({"status": {"error_code": 429, "error_message": _RATE_LIMIT}}, status)
        case "coingecko", 404:
            return json_response({"error": "coin not found"}, status)
        case _:
            return html


def _delivered(fault: DeliveryChange, response: VenueResponse) -> VenueResponse:
    """The answer, to be delivered otherwise."""
    headers = dict(response.headers)
    how = response.delivery
    replace = msgspec.structs.replace
    match fault:
        case ContentType(content_type=text):
            return replace(response, headers=tuple({**headers, "content-type": text}.items()))
        case StaleAge(age_s=age_s):
            return replace(response, headers=tuple({**headers, "age": str(age_s)}.items()))
        case SlowHeaders(delay_s=delay_s):
            how = replace(how, delay_s=how.delay_s + delay_s)
        case SlowBody(bytes_per_s=bytes_per_s):
            how = replace(how, bytes_per_s=bytes_per_s)
        case EndlessBody(bytes_per_s=bytes_per_s):
            how = replace(how, bytes_per_s=bytes_per_s, endless=True)
        case TruncatedBody(missing_bytes=missing_bytes):
            how = replace(how, missing_bytes=missing_bytes)
        case Reset(after_bytes=after_bytes):
            how = replace(how, reset_after=after_bytes)
        case _:
            assert_never(fault)
    return replace(response, delivery=how)
