"""What `tickerd run` has recorded (`[record] path`), served by the simulator as captures are.

Of each websocket the frames of the first run are taken, up to `MOST_FRAMES` of a venue; of what was asked over HTTP the
newest body of each path. What was not recorded does not exist there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from connectors.capture import reading
from connectors.capture.lines import Line, written_frames
from connectors.capture.reading import Series
from connectors.simulator.venues.captures import Capture
from connectors.simulator.venues.recording import (
    SHORTEST_LOOP_S,
    Recording,
    RecordingError,
    TickerFrame,
    capture,
    parse_capture,
)

MOST_FRAMES: Final = 200_000
"""Of a venue: they are kept in memory."""

_DEPTH: Final = "/api/v3/depth"
_DAY: Final = "/ticker/24hr"
_BODIES: Final = {
    "/api/v3/exchangeInfo": "exchangeInfo",
    "/api/v5/public/instruments": "instruments",
    "/global": "global",
    "/search/trending": "trending",
    "/coins/markets": "markets",
}
"""What else is served, by the end of its path."""


def load(folder: Path) -> Recording:
    """A folder that `tickerd run` has written, or one of payloads (`Recording.load`).

    Raises:
        RecordingError: it is neither.
    """
    try:
        series = reading.load(folder)
    except reading.RecordingError:
        return Recording.load(folder)
    try:
        return _recording(series)
    except reading.RecordingError as error:
        raise RecordingError(str(error)) from None


def _recording(series: Sequence[Series]) -> Recording:
    captures: dict[str, Capture] = {}
    tickers: list[TickerFrame] = []
    loop_s = SHORTEST_LOOP_S
    days: list[bytes] = []
    depths: dict[str, bytes] = {}
    bodies: dict[str, bytes] = {}
    for venue in dict.fromkeys(one.venue for one in series):
        frames: list[Line] = []
        path = Path(venue)
        for one in (each for each in series if each.venue == venue):
            path = one.files[0].path
            first = [file for file in one.files if file.header.run == one.files[0].header.run]
            for line in (line for file in first for part in file.lines() for line in part):
                if line.payload is not None and len(frames) < MOST_FRAMES:
                    frames.append(line)
                elif line.fetched is not None and line.fetched.body is not None:
                    _file_away(line.fetched.path, line.fetched.body.encode(), days, depths, bodies)
                elif line.http is not None and line.http.status == 200 and line.http.body is not None:
                    _file_away(line.http.url, line.http.body.encode(), days, depths, bodies)
        frames.sort(key=lambda line: line.recv_ts)
        text = b"".join(written_frames([line.payload or b""], line.at_ms, 1) for line in frames)
        if frames:
            captures[venue] = capture(venue, path, text)
        if venue == "okx" and b'\\"channel\\":\\"tickers\\"' in text:
            tickers, loop_s = parse_capture(path, text)
    return Recording(tickers, loop_s, days, depths, bodies, captures)


def _file_away(url: str, body: bytes, days: list[bytes], depths: dict[str, bytes], bodies: dict[str, bytes]) -> None:
    """Put the answer to a request where it is looked for."""
    parts = urlsplit(url)
    asked: Mapping[str, list[str]] = parse_qs(parts.query)
    if parts.path.endswith(_DAY):
        days.append(body)
    elif parts.path.endswith(_DEPTH) and "symbol" in asked:
        depths[asked["symbol"][0]] = body
    else:
        for path, name in _BODIES.items():
            if parts.path.endswith(path):
                bodies[name] = body
