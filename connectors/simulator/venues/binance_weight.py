"""Binance's limits on calls: the weight of each, the count per address, and the refusals.

Source: `binance-spot-api-docs` (rest-api.md on IP limits and per-endpoint weights, errors.md on
-1003), state of July 2026. Not published is how many refused calls it takes until an address is
banned; here it is `REFUSALS_BEFORE_BAN`.
"""

from __future__ import annotations

from collections.abc import Callable

from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response

WEIGHT_LIMIT = 6_000
"""REQUEST_WEIGHT per minute and address, since 2023-08-25."""
REFUSALS_BEFORE_BAN = 10
KLINES = "/api/v3/klines"
"""Its candles, which are answered elsewhere (`past_candles.py`)."""
BAN_S = 120
"""Binance's bans scale from 2 minutes to 3 days; the simulated ones stay at the shortest."""


def error(code: int, message: str, status: int = 400) -> VenueResponse:
    """Binance's error body: `{"code":-1121,"msg":"Invalid symbol."}`."""
    return json_response({"code": code, "msg": message}, status)


def weight(request: VenueRequest) -> int:
    """What a call costs, by path and parameters, whether or not it succeeds."""
    query = request.query
    named = 1 if "symbol" in query else request.query.get("symbols", [""])[0].count(",") + 1
    everything = "symbol" not in query and "symbols" not in query
    match request.path.removeprefix("/api/v3/"):
        case "ticker/24hr":
            return 80 if everything or named > 100 else 2 if named <= 20 else 40
        case "ticker/price" | "ticker/bookTicker":
            return 2 if "symbol" in query else 4
        case "depth":
            limit = request.parameter("limit") or "100"
            levels = int(limit) if limit.isdecimal() and len(limit) < 20 else 100
            return 5 if levels <= 100 else 25 if levels <= 500 else 50 if levels <= 1000 else 250
        case "exchangeInfo":
            return 20
        case "klines":
            return 2
        case _:
            return 1


class RequestWeight:
    """Counts weight per address and minute, and refuses as Binance does.

    429 over the limit, 418 for going on all the same.
    """

    def __init__(self, clock: Callable[[], float], limit: int = WEIGHT_LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._minute = 0
        self._used: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._banned_until_s: dict[str, float] = {}

    def guard(self, request: VenueRequest, serve: Callable[[VenueRequest], VenueResponse]) -> VenueResponse:
        """Charge the request, then let `serve` answer it, or refuse it.

        Every answer says how much weight is used.
        """
        now = self._clock()
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._used.clear()
            self._refusals.clear()
        peer = request.peer
        used = self._used[peer] = self._used.get(peer, 0) + weight(request)
        if self._banned_until_s.get(peer, 0.0) > now:
            response = self._ban(peer, now)
        elif used > self._limit:
            refusals = self._refusals[peer] = self._refusals.get(peer, 0) + 1
            if refusals > REFUSALS_BEFORE_BAN:
                self._banned_until_s[peer] = now + BAN_S
                response = self._ban(peer, now)
            else:
                text = (
                    f"Too much request weight used; current limit is {self._limit} request weight "
                    "per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
                )
                wait = str(60 - int(now % 60))
                response = error(-1003, text, 429).with_headers(("retry-after", wait))
        else:
            response = serve(request)
        return response.with_headers(("x-mbx-used-weight", str(used)), ("x-mbx-used-weight-1m", str(used)))

    def _ban(self, peer: str, now: float) -> VenueResponse:
        until = self._banned_until_s[peer]
        text = (
            f"Way too much request weight used; IP banned until {int(until * 1000)}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
        return error(-1003, text, 418).with_headers(("retry-after", str(int(until - now) + 1)))
