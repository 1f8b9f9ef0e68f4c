"""Recordings made by hand: a file of lines for each connection, as a recorder would have written them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from connectors.base import Event, StateChange
from connectors.capture.described import described
from connectors.capture.journal import Chunk, Journal
from connectors.capture.lines import FORMAT, Header, Line, seconds, written
from connectors.replay.items import Item, Missing, Notes, Played
from connectors.replay.playback import Playback, Source
from connectors.venues.registry import VENUES
from protocol.channels import Channel
from protocol.kinds import KINDS

BEGAN_MS = 1_765_211_400_000


def channel(name: str, venue: str, kind: str, *instruments: str, **more: Any) -> Channel:
    return Channel(name=name, exchange=venue, kind=KINDS[kind], instruments=instruments or ("BTC/USDT",), **more)


def header(connector: str, channels: Sequence[Channel], run: int = 1) -> Header:
    venue = channels[0].exchange
    return Header(
        format=FORMAT,
        venue=venue,
        connector=connector,
        carries=tuple(one.name for one in channels),
        run=run,
        channels=[described(one) for one in channels],
        settings=VENUES[venue].settings().public(),
        daemon="test",
    )


def line(after_ms: int, **said: Any) -> Line:
    """What was said so long after the beginning."""
    return Line(seconds(BEGAN_MS + after_ms), **said)


def record(folder: Path, head: Header, lines: Sequence[Line], *, killed: bool = False) -> None:
    """Write these, as the recorder does: each hour into a file of its own."""
    journal = Journal(folder, head)
    for one in lines:
        journal.write(
            Chunk(
                written(one),
                one.at_ms,
                one.at_ms,
                frames=int(one.frame is not None),
                opened=int(one.opened is not None),
                closed=int(one.closed is not None),
                lost=0 if one.lost is None else one.lost.frames,
            )
        )
    if killed:
        return
    journal.close("the daemon is stopping", lines[-1].at_ms)


def played(folder: Path, from_ms: int | None = None, to_ms: int | None = None) -> list[Played]:
    return list(Playback(Source(folder), from_ms, to_ms))


def told(items: Sequence[Played]) -> list[tuple[int, str]]:
    """In short: when, after the beginning, and what."""
    return [(at_ms - BEGAN_MS, _short(item)) for at_ms, item in items]


def _short(item: Item) -> str:
    match item:
        case StateChange():
            return f"{item.channel} {item.state}" + (f": {item.reason}" if item.reason else "")
        case Notes():
            return "; ".join(f"{note.channel} {note.instrument} {note.cause}: {note.reason}" for note in item.notes)
        case Missing():
            return f"missing {item.frames} of {', '.join(item.channels)}: {item.reason}"
        case _:
            return " ".join(f"{event.channel}={event.price}" for event in item)


def events(items: Sequence[Played], name: str = "") -> list[Event]:
    """All events, or those of one channel."""
    return [event for _, item in items if isinstance(item, list) for event in item if name in ("", event.channel)]


def ticker(last: str, after_ms: int) -> str:
    return (
        '{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instType":"SPOT","instId":"BTC-USDT",'
        f'"last":"{last}","ts":"{BEGAN_MS + after_ms}"}}]}}'
    )
