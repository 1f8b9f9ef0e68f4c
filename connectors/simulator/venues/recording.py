"""Recorded payloads of the venues, served instead of the simulated market.

A recording is a folder of files whose names say what they hold; each name may go on with a date,
and of several dates the last is taken:

    okx_ws_*.jsonl                   lines `{"recv_ts": seconds, "frame": text}` in order
    VENUE_ws_*.jsonl                 optional: the same of binance (combined streams), bybit, coinbase and kraken
    binance_rest_ticker24hr_*.json   one ticker object, or a list of them
    binance_rest_depth_SYMBOL*.json  one order book
    binance_rest_depth1000_*.jsonl   optional: lines `{"url": ..., "body": text}`, each an order book with its symbol
                                     in the URL: the snapshots that belong to the capture of Binance's streams
    coingecko_global_*.json
    coingecko_trending_*.json
    coingecko_markets_*.json         `..._in_CUR_...` was asked in another currency than usd
    coingecko_markets_422_*.json     optional, as are the following
    binance_rest_exchangeInfo*.json
    okx_rest_instruments*.json

Bodies are served byte for byte as the files have them, and frames as they were received: OKX's tickers one after
another to whoever is there, all other streams as `connectors.simulator.venues.captures` says. A capture of Coinbase's
*Exchange* feed (`coinbase_ws_exchange_*.jsonl`) is left out: the daemon speaks Advanced Trade, whose frames have
another form and are numbered; nothing here could read it. Pure but for `Recording.load`, which reads the folder once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response
from connectors.simulator.venues.binance import BadParameters, requested_symbols
from connectors.simulator.venues.binance_weight import error
from connectors.simulator.venues.captures import Capture, Captured, key_of
from connectors.simulator.venues.coingecko import cached

SHORTEST_LOOP_S = 1.0
"""A capture shorter than this is not repeated more often."""
# As the recorded responses' headers had them.
_MARKETS_MAX_AGE_S, _SLOW_MAX_AGE_S = 30, 60


class RecordingError(Exception):
    """A folder is no usable recording. The text names the file and what is expected of it."""


class TickerFrame(msgspec.Struct, frozen=True):
    """One recorded `tickers` push: when (seconds after the first), for which instId, and its text."""

    offset_s: float
    instrument: str
    payload: bytes


class _Line(msgspec.Struct):
    recv_ts: float
    frame: str


class _Body(msgspec.Struct):
    url: str
    body: str


_L = TypeVar("_L", _Line, _Body)


class _Arg(msgspec.Struct):
    channel: str
    instId: str


class _Frame(msgspec.Struct):
    arg: _Arg | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Ticker(msgspec.Struct):
    symbol: str
    closeTime: int = 0


class _Info(msgspec.Struct):
    symbols: list[_Ticker]


class Recording:
    """The payloads of one folder.

    Attributes:
        frames: The OKX `tickers` pushes, in order; the first at offset 0.
        loop_s: After so many seconds the pushes begin again.
        instruments: The instIds that have pushes.
        captures: By venue, what its websocket is played.
        left_out: The names of captures that nothing can play.
    """

    def __init__(
        self,
        frames: Sequence[TickerFrame],
        loop_s: float,
        tickers: Sequence[bytes],
        depths: dict[str, bytes],
        bodies: dict[str, bytes],
        captures: Mapping[str, Capture] = MappingProxyType({}),
        left_out: Sequence[str] = (),
    ) -> None:
        self.frames = tuple(frames)
        self.loop_s = loop_s
        self.captures = captures
        self.left_out = tuple(left_out)
        played = captures["okx"].by_key if "okx" in captures else ()
        self.instruments = frozenset(frame.instrument for frame in frames) | {key.split()[1] for key in played if key}
        self._objects: dict[str, bytes] = {}
        self._lists: dict[frozenset[str], bytes] = {}
        self._rows: dict[str, tuple[int, bytes]] = {}
        self._depths = depths
        self._bodies = bodies
        for body in tickers:
            self._add_tickers(body)

    def _add_tickers(self, body: bytes) -> None:
        """File one ticker body under its symbols; of two tickers of a symbol the later stays."""
        alone = body.lstrip().startswith(b"{")
        rows = [msgspec.Raw(body)] if alone else msgspec.json.decode(body, type=list[msgspec.Raw])
        symbols = []
        for row in rows:
            ticker = msgspec.json.decode(row, type=_Ticker)
            symbols.append(ticker.symbol)
            if self._rows.get(ticker.symbol, (-1, b""))[0] < ticker.closeTime:
                self._rows[ticker.symbol] = (ticker.closeTime, bytes(row))
        if alone:
            self._objects[symbols[0]] = body
        else:
            self._lists[frozenset(symbols)] = body

    @staticmethod
    def load(folder: Path) -> Recording:
        """Read a folder.

        Raises:
            RecordingError: A file is missing, cannot be read, or does not hold what its name says.
        """
        if not folder.is_dir():
            raise RecordingError(f"{folder}: not a folder; expected one with recorded payloads")
        path = _one(folder, "okx_ws_*.jsonl", "a websocket capture with OKX ticker pushes")
        frames, loop_s = parse_capture(path, _read(path))
        captures = {"okx": capture("okx", path, _read(path))}
        tickers = [
            _checked(path, list[_Ticker] | _Ticker, "a 24 h ticker or a list of them")
            for path in _all(folder, "binance_rest_ticker24hr_*.json", "a Binance 24 h ticker")
        ]
        depths = {}
        for path in _all(folder, "binance_rest_depth_*.json", "a Binance order book"):
            symbol = re.fullmatch(r"binance_rest_depth_([A-Z0-9]+)(_.*)?", path.stem)
            if symbol:
                depths[symbol[1]] = _checked(path, dict[str, msgspec.Raw], "an order book object")
        for line_path in sorted(folder.glob("binance_rest_depth1000_*.jsonl")):
            depths |= _snapshots(line_path)
        bodies = {}
        for name, pattern, kind, what in _BODIES:
            found = sorted(folder.glob(pattern))
            if not found and name in _REQUIRED:
                raise RecordingError(f"{folder / pattern}: not found; expected {what}")
            for path in found:
                currency = re.search(r"_in_([a-z]+)(_|$)", path.stem)
                key = name if currency is None else f"{name}/{currency[1]}"
                bodies[key] = _checked(path, kind, what)
        left_out = [found.name for found in sorted(folder.glob("coinbase_ws_exchange_*.jsonl"))]
        for venue in ("binance", "bybit", "coinbase", "kraken"):
            files = [found for found in sorted(folder.glob(f"{venue}_ws_*.jsonl")) if found.name not in left_out]
            if files:
                captures[venue] = capture(venue, files[-1], _read(files[-1]))
        return Recording(frames, loop_s, tickers, depths, bodies, captures, left_out)

    def binance(self, request: VenueRequest) -> VenueResponse:
        """Answer a GET of one of Binance's paths; what was not recorded does not exist there."""
        try:
            symbols = requested_symbols(request)
        except BadParameters as refused:
            return refused.response
        match request.path.removeprefix("/api/v3/"):
            case "ticker/24hr":
                body = self._tickers(symbols, alone="symbol" in request.query)
            case "depth":
                body = self._depths.get(symbols[0]) if symbols else None
            case "exchangeInfo":
                body = self._bodies.get("exchangeInfo")
                if body is not None and symbols is not None:
                    info = msgspec.json.decode(body, type=_Info)
                    known = {row.symbol for row in info.symbols}
                    body = body if known.issuperset(symbols) else None
            case _:
                return _not_recorded(request)
        return error(-1121, "Invalid symbol.") if body is None else VenueResponse(200, body)

    def _tickers(self, symbols: Sequence[str] | None, *, alone: bool) -> bytes | None:
        """The body recorded for exactly these symbols, else one joined from recorded rows."""
        if symbols is None:
            return max(self._lists.values(), key=len, default=None)
        if alone:
            row = self._rows.get(symbols[0])
            return self._objects.get(symbols[0]) or (row[1] if row else None)
        whole = self._lists.get(frozenset(symbols))
        if whole is not None:
            return whole
        rows = [self._rows[symbol][1] for symbol in symbols if symbol in self._rows]
        return b"[" + b",".join(rows) + b"]" if len(rows) == len(symbols) else None

    def coingecko(self, request: VenueRequest) -> VenueResponse:
        """Answer a GET of one of CoinGecko's paths."""
        match request.path:
            case "/api/v3/global":
                return self._cached(request, "global")
            case "/api/v3/search/trending":
                return self._cached(request, "trending")
            case _:
                currency = request.parameter("vs_currency")
                if currency is None:
                    missing = b'{"error":"Missing parameter vs_currency"}'
                    return VenueResponse(422, self._bodies.get("markets_422", missing))
                name = "markets" if currency == "usd" else f"markets/{currency}"
                if name not in self._bodies:
                    return json_response({"error": "invalid vs_currency"}, 400)
                return cached(request, self._bodies[name], _MARKETS_MAX_AGE_S, 0)

    def _cached(self, request: VenueRequest, name: str) -> VenueResponse:
        body = self._bodies.get(name)
        return _not_recorded(request) if body is None else cached(request, body, _SLOW_MAX_AGE_S, 0)

    def okx(self, request: VenueRequest) -> VenueResponse:
        """Answer a GET of one of OKX's REST paths."""
        body = self._bodies.get("instruments")
        if request.path == "/api/v5/public/instruments" and body is not None:
            return VenueResponse(200, body)
        return _not_recorded(request)


_REQUIRED = frozenset({"global", "trending", "markets"})
_BODIES: tuple[tuple[str, str, type, str], ...] = (
    ("global", "coingecko_global_*.json", dict[str, msgspec.Raw], "the body of CoinGecko's /global"),
    (
        "trending",
        "coingecko_trending_*.json",
        dict[str, msgspec.Raw],
        "the body of CoinGecko's /search/trending",
    ),
    (
        "markets",
        "coingecko_markets_[!0-9]*.json",
        list[msgspec.Raw],
        "the body of CoinGecko's /coins/markets",
    ),
    (
        "markets_422",
        "coingecko_markets_422_*.json",
        dict[str, msgspec.Raw],
        "the body of an error of CoinGecko's",
    ),
    ("exchangeInfo", "binance_rest_exchangeInfo*.json", _Info, "the body of Binance's exchangeInfo"),
    (
        "instruments",
        "okx_rest_instruments*.json",
        dict[str, msgspec.Raw],
        "the body of OKX's /public/instruments",
    ),
)


def _not_recorded(request: VenueRequest) -> VenueResponse:
    return json_response({"error": f"{request.path} is not part of the recording"}, 404)


def _all(folder: Path, pattern: str, what: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise RecordingError(f"{folder / pattern}: not found; expected {what}")
    return found


def _one(folder: Path, pattern: str, what: str) -> Path:
    return _all(folder, pattern, what)[-1]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise RecordingError(f"{path}: cannot be read: {failure.strerror}") from failure


def _checked(path: Path, kind: object, what: str) -> bytes:
    """A file's bytes, after a look whether they are what they should be."""
    body = _read(path)
    try:
        msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as failure:
        raise RecordingError(f"{path}: {failure}; expected {what}") from failure
    return body


def _lines(path: Path, text: bytes, type_: type[_L], wanted: str) -> Iterator[tuple[int, _L]]:
    for number, row in enumerate(text.splitlines(), 1):
        try:
            yield number, msgspec.json.decode(row, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError) as failure:
            raise RecordingError(f"{path}: line {number}: {failure}; expected {wanted}") from failure


def _snapshots(path: Path) -> dict[str, bytes]:
    """Order books by symbol."""
    wanted = 'a line {"url": ...symbol=..., "body": text}'
    found = {}
    for number, line in _lines(path, _read(path), _Body, wanted):
        symbol = parse_qs(urlsplit(line.url).query).get("symbol")
        if symbol is None:
            raise RecordingError(f"{path}: line {number}: no symbol in {line.url}; expected {wanted}")
        found[symbol[0]] = line.body.encode()
    return found


def capture(venue: str, path: Path, text: bytes) -> Capture:
    """What a venue's websocket said, but for answers and OKX's tickers, which are pushed another way."""
    wanted = 'a line {"recv_ts": seconds, "frame": text}'
    times: list[float] = []
    frames: list[tuple[float, str, bytes]] = []
    for number, line in _lines(path, text, _Line, wanted):
        times.append(line.recv_ts)
        if not line.frame.startswith("{"):
            continue
        try:
            key = key_of(venue, line.frame.encode())
        except msgspec.DecodeError as failure:
            raise RecordingError(f"{path}: line {number}: {failure}; expected {wanted}") from failure
        if key is not None and not (venue == "okx" and key.startswith("tickers ")):
            frames.append((line.recv_ts, key, line.frame.encode()))
    begun = frames[0][0] if frames else 0.0
    loop_s = max(times[-1] - times[0], SHORTEST_LOOP_S) if times else SHORTEST_LOOP_S
    captured = [Captured((at - begun) * 1000, key, body, place) for place, (at, key, body) in enumerate(frames)]
    return Capture(captured, loop_s * 1000)


def parse_capture(path: Path, text: bytes) -> tuple[list[TickerFrame], float]:
    """The `tickers` pushes of a capture, and how long the whole capture took."""
    lines = []
    frames = []
    for number, row in enumerate(text.splitlines(), 1):
        try:
            line = msgspec.json.decode(row, type=_Line)
            lines.append(line)
            if not line.frame.startswith("{"):
                continue
            frame = msgspec.json.decode(line.frame, type=_Frame)
        except (msgspec.DecodeError, UnicodeDecodeError) as failure:
            wanted = 'a line {"recv_ts": seconds, "frame": text}'
            raise RecordingError(f"{path}: line {number}: {failure}; expected {wanted}") from failure
        if frame.data and frame.arg is not None and frame.arg.channel == "tickers":
            frames.append(TickerFrame(line.recv_ts, frame.arg.instId, line.frame.encode()))
    if not frames:
        raise RecordingError(f"{path}: no push of the tickers channel; expected at least one")
    begun = frames[0].offset_s
    loop_s = max(lines[-1].recv_ts - lines[0].recv_ts, SHORTEST_LOOP_S)
    moved = [msgspec.structs.replace(f, offset_s=f.offset_s - begun) for f in frames]
    return moved, loop_s
