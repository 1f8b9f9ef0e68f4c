"""Captures of venues' websockets, played to whoever subscribes. Pure.

A capture is a file of lines `{"recv_ts": seconds, "frame": text}`, as one connection received them. Every subscription
is played its part of the capture from the beginning, at the capture's pace and byte for byte, and again when that is
over: so a book begins with its snapshot, also for who comes later or asks for it anew. Of Coinbase, whose frames are
numbered by connection, a connection is played everything from its first subscription on. What belongs to no
subscription (heartbeats, Kraken's `status`) is played from then on, too.

Requests are answered as the venue does, as far as whoever plays a capture needs: everything is acknowledged, and what
the capture does not have stays silent. Only OKX refuses what was not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.okx import OkxSubscriptions
from connectors.simulator.venues.okx_streams import OkxSession
from connectors.simulator.venues.sockets import Push, SocketSession, SocketVenue
from connectors.simulator.venues.stream import MarketStream

EVERYBODYS: Final = ""
"""The key of what belongs to no subscription."""

_MOST: Final = 1_000
"""Frames of one subscription that are sent at once; a player that was held up stays responsive."""


class Captured(msgspec.Struct, frozen=True, gc=False):
    """One frame: when (ms after the first of data), of which subscription, its text; and its place in the capture."""

    offset_ms: float
    key: str
    text: bytes
    place: int = 0


class Capture:
    """What one connection received.

    Args:
        frames: In order.
        loop_ms: After so long it begins again.
    """

    def __init__(self, frames: Sequence[Captured], loop_ms: float) -> None:
        self.loop_ms = loop_ms
        self.by_key: dict[str, list[Captured]] = {}
        for frame in frames:
            self.by_key.setdefault(frame.key, []).append(frame)


class Player:
    """Plays a capture to one connection."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._began: dict[str, tuple[int, int]] = {}
        """By key: when it began (ms), and how many frames were played."""

    def due(self, keys: Sequence[str], now_ms: int) -> list[bytes]:
        """What is to be sent by now to who has subscribed these, in the capture's order."""
        wanted = [*keys, EVERYBODYS] if keys else []
        for gone in self._began.keys() - set(wanted):
            del self._began[gone]
        found: list[tuple[float, int, int, bytes]] = []
        for key in wanted:
            frames = self._capture.by_key.get(key, ())
            began_ms, played = self._began.setdefault(key, (now_ms, 0))
            for number in range(played, played + _MOST if frames else played):
                lap, place = divmod(number, len(frames))
                due_ms = began_ms + lap * self._capture.loop_ms + frames[place].offset_ms
                if due_ms > now_ms:
                    break
                found.append((due_ms, lap, frames[place].place, frames[place].text))
                played = number + 1
            self._began[key] = (began_ms, played)
        return [text for *_, text in sorted(found, key=lambda one: one[:3])]


class RecordedVenue:
    """A venue's websocket that plays a capture, at the paths and by the rules of the simulated one."""

    def __init__(self, venue: SocketVenue, capture: Capture, stream: MarketStream, known: Container[str]) -> None:
        self._venue = venue
        self._capture = capture
        self._stream = stream
        self._known = known
        self.name = venue.name
        self.rules = venue.rules

    def serves(self, path: str) -> bool:
        """As the simulated one."""
        return self._venue.serves(path)

    def open(self, request: VenueRequest, number: int) -> SocketSession:
        """A connection."""
        player = Player(self._capture)
        match self.name:
            case "okx":
                subscriptions = OkxSubscriptions(format(number, "08x"), self._known, request.path)
                return _Okx(subscriptions, self._stream, player)
            case name:
                # Binance's streams may be named in the address.
                named = (request.parameter("streams") or request.path.removeprefix("/ws/")).split("/")
                return _Others(_ANSWERS[name], player, [stream for stream in named if "@" in stream])


class _Okx(OkxSession):
    """Its tickers are pushed by the simulator, as ever."""

    def __init__(self, subscriptions: OkxSubscriptions, stream: MarketStream, player: Player) -> None:
        super().__init__(subscriptions, stream)
        self._player = player

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        keys = [f"{channel} {symbol}" for channel, symbol in self.subscriptions.held if channel != "tickers"]
        return [Push(text) for text in self._player.due(keys, now_ms)]


class _Others(SocketSession):
    """A venue of which every request is acknowledged."""

    def __init__(self, answer: _Answer, player: Player, held: Sequence[str]) -> None:
        self._answer = answer
        self._player = player
        self._held: dict[str, None] = dict.fromkeys(held)

    def receive(self, text: str | bytes) -> Sequence[bytes]:
        try:
            request = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            return []
        if not isinstance(request, dict):
            return []
        try:
            keys, replies = self._answer(request)
        except (LookupError, TypeError, AttributeError):
            return []  # Not a request of that venue's.
        if "unsubscribe" in (str(request.get(name)).lower() for name in ("op", "method", "type")):
            for key in keys:
                self._held.pop(key, None)
        else:
            self._held |= dict.fromkeys(keys)
        return [msgspec.json.encode(reply) for reply in replies]

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        return [Push(text) for text in self._player.due(list(self._held), now_ms)]


_Answer = Callable[[dict[str, Any]], tuple[list[str], list[dict[str, Any]]]]
"""What a request subscribes or unsubscribes, and what is said to it. Raises whatever it meets."""


def _binance(request: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    names = request["params"] if request["method"] in ("SUBSCRIBE", "UNSUBSCRIBE") else []
    return list(map(str, names)), [{"result": None, "id": request.get("id")}]


def _bybit(request: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    op = request["op"]
    said = {"success": True, "ret_msg": "pong" if op == "ping" else op, "conn_id": "0-0"}
    echo = {"req_id": request["req_id"]} if "req_id" in request else {}
    return list(map(str, request.get("args", ()))), [{**said, **echo, "op": op}]


def _kraken(request: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    method, echo = request["method"], {key: request[key] for key in ("req_id",) if key in request}
    if method == "ping":
        return [], [{"method": "pong", **echo}]
    params = request["params"]
    channel, symbols = str(params["channel"]), params.get("symbol") or [None]
    stamp = "2026-01-01T00:00:00.000000Z"
    replies = [
        {
            "method": method,
            **echo,
            "result": {**params, "symbol": symbol} if symbol else params,
            "success": True,
            "time_in": stamp,
            "time_out": stamp,
        }
        for symbol in symbols
    ]
    return [f"{channel} {symbol}" if symbol else channel for symbol in symbols], replies


def _coinbase(request: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Everything is of one key, as all frames of a connection are in one chain, its acknowledgements too."""
    return ["all"] if request["type"] == "subscribe" else [], []


_ANSWERS: Final[Mapping[str, _Answer]] = MappingProxyType(
    {"binance": _binance, "bybit": _bybit, "kraken": _kraken, "coinbase": _coinbase}
)


def key_of(venue: str, frame: bytes) -> str | None:
    """Which subscription a frame belongs to; None for answers to requests, which are not played.

    Raises:
        msgspec.DecodeError: It is not JSON.
    """
    tree = msgspec.json.decode(frame)
    if not isinstance(tree, dict):
        return None
    match venue, tree:
        case "okx", {"arg": {"channel": channel, "instId": symbol}, "data": _}:
            return f"{channel} {symbol}"
        case "binance", {"stream": str(stream), "data": _}:
            return stream
        case "bybit", {"topic": str(topic)}:
            return topic
        case "kraken", {"channel": "status" | "heartbeat"}:
            return EVERYBODYS
        case "kraken", {"channel": str(channel), "data": [{"symbol": str(symbol)}, *_]}:
            return f"{channel} {symbol}"
        case "kraken", {"channel": str(channel), "data": _}:
            return channel
        case "coinbase", {"channel": str(_)}:
            return "all"
        case _:
            return None
