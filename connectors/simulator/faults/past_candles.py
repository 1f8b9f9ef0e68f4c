"""What faults make of the simulated venues' answers about past candles. Pure.

The refusals are in the venues' own words: Binance's errors.md (-1003), OKX's error codes (50011), Bybit's (10006), and
Kraken's API errors (`EGeneral:Too many requests`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, assert_never

import msgspec

from connectors.simulator.faults.active import FaultBoard
from connectors.simulator.faults.faults import PastCandles, Venue
from connectors.simulator.http.request import Delivery, VenueRequest, VenueResponse, json_response

_FOR_EVER_S: Final = 86_400.0
_TROUBLE: Final = b"<!DOCTYPE html><html><head><title>503</title></head><body>Service unavailable</body></html>"


class FaultyHistories:
    """The answers of all venues about past candles.

    Args:
        board: Which faults are on.
    """

    def __init__(self, board: FaultBoard) -> None:
        self._board = board
        self._asked = 0

    def answer(
        self, venue: Venue, request: VenueRequest, serve: Callable[[VenueRequest], VenueResponse]
    ) -> VenueResponse:
        """A venue's answer, with its faults. `serve` is the venue without any."""
        self._asked += 1
        for one in self._board.of(venue):
            if isinstance(one.fault, PastCandles) and one.chooses(request.path, self._asked):
                one.count()
                return _spoiled(one.fault, request, serve)
        return serve(request)


def _spoiled(
    fault: PastCandles, request: VenueRequest, serve: Callable[[VenueRequest], VenueResponse]
) -> VenueResponse:
    match fault.what:
        case "throttled":
            return _asking(fault, _throttled(fault.venue))
        case "trouble":
            return _asking(fault, VenueResponse(503, _TROUBLE, (("content-type", "text/html"),)))
        case "mute":
            return VenueResponse(200, delivery=Delivery(delay_s=_FOR_EVER_S))
        case "not_json":
            response = serve(request)
            return msgspec.structs.replace(response, body=response.body[: len(response.body) // 2])
        case "odd_rows":
            response = serve(request)
            tree: Any = msgspec.json.decode(response.body)
            for row in _rows(tree)[::2]:
                row["high" if isinstance(row, dict) else 2] = "NaN"
            return msgspec.structs.replace(response, body=msgspec.json.encode(tree))
        case _:
            assert_never(fault.what)


def _asking(fault: PastCandles, response: VenueResponse) -> VenueResponse:
    if fault.retry_after_s is None:
        return response
    return response.with_headers(("retry-after", str(fault.retry_after_s)))


def _throttled(venue: Venue) -> VenueResponse:
    match venue:
        case "binance":
            return json_response({"code": -1003, "msg": "Too many requests queued."}, 429)
        case "okx":
            return json_response({"code": "50011", "data": [], "msg": "Too Many Requests"}, 429)
        case "bybit":
            return json_response({"retCode": 10006, "retMsg": "Too many visits!", "result": {}})
        case "kraken":
            return json_response({"error": ["EGeneral:Too many requests"]})
        case _:
            return json_response({"error": "rate_limit_exceeded", "message": "too many requests"}, 429)


def _rows(tree: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    """The rows of an answer, in whichever form a venue has them."""
    if isinstance(tree, list):
        return tree
    if isinstance(tree.get("result"), dict):
        return next((each for each in tree["result"].values() if isinstance(each, list)), [])
    return next((each for name, each in tree.items() if name != "error" and isinstance(each, list)), [])
