"""The parts of a rehearsal in which clients crowd the daemon: all of them come back at once, or one floods HTTP.

The clients of the rehearsal are bystanders then: they must lose nothing and keep getting data. How long anything takes
is not judged, since that says more about a machine that is busy than about the daemon.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from functools import partial
from typing import Final, Literal, TypeAlias

import msgspec
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url

from daemon.commands.rehearse.client import wait_until
from daemon.commands.rehearse.judge import Verdict, doubled, errors, holes, missing
from daemon.commands.rehearse.pair import ALL, Pair
from daemon.commands.rehearse.records import Data, Noted, Told

Name: TypeAlias = Literal["reconnect_storm", "http_flood"]

TITLES: Final[dict[Name, str]] = {
    "reconnect_storm": "tickerd reconnect_storm",
    "http_flood": "tickerd http_flood",
}

COMERS: Final = 60
"""How many clients come back at once."""

STORMS: Final = 3
"""How often."""

AWAY_S: Final = 1.0
MESSAGES: Final = 8
"""How long they are away, and how many data messages each reads in between: they come a few times a second."""

FLOODERS: Final = 8
PIPELINED: Final = 100
FLOOD_S: Final = 3.0
"""How many connections send so many requests at once, again and again, for how long at least."""

_PAUSE_S: Final = 0.05
_ANSWER_BYTES: Final = 65_536
_CHANNEL: Final = "bitcoinprice"
_FLOOD: Final = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * PIPELINED
_PROBE: Final = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d\d\d) ")

_SETTLE_S: Final = 0.4

_STORMY: Final = 4
"""So many times the user's patience is had with clients that all come at once."""


class Crowd(msgspec.Struct, frozen=True):
    """One of these parts."""

    name: Name

    @property
    def title(self) -> str:
        """As in the table."""
        return TITLES[self.name]


class CrowdRecord(Noted, kw_only=True):
    """What was seen of one of them.

    Attributes:
        resumed: How many times a client that came back was told that all is recovered.
        lost: How many messages those who came back missed.
        doubled: How many they got again.
        unserved: Why some of those that came back were not served to the end.
        statuses: How many of the flood's requests were answered with which status.
        probed: The status of `GET /healthz` during the flood, each time.
    """

    name: Name
    resumed: int = 0
    lost: int = 0
    doubled: int = 0
    unserved: list[str] = msgspec.field(default_factory=list)
    statuses: Counter[int] = msgspec.field(default_factory=Counter)
    probed: list[int] = msgspec.field(default_factory=list)


class _Message(msgspec.Struct):
    type: str
    epoch: str = ""
    seq: int = 0
    prev_seq: int | None = None
    instrument: str = ""
    recovered: dict[str, bool] = {}


_message: Final = msgspec.json.Decoder(_Message)


class Comer:
    """A client that goes, comes back, and goes on from where it was: the places of its topics, and what was wrong.

    Attributes:
        lost: How often a message did not follow the one before it on its topic.
        doubled: How often one came again.
        resumed: How often it was told that it has all that it missed.
    """

    def __init__(self) -> None:
        self.lost = self.doubled = self.resumed = 0
        self._epoch = ""
        self._seq = 0
        self._places: dict[str, int] = {}

    @property
    def since(self) -> dict[str, object]:
        """What its `subscribe` says of the place where it was; nothing before it has been anywhere."""
        return {"since": {"epoch": self._epoch, "seq": self._seq}} if self._epoch else {}

    def note(self, text: str | bytes) -> bool:
        """One message of the daemon's. Returns whether it is data."""
        message = _message.decode(text)
        if message.type == "subscribed":
            self._seq = self._seq or message.seq
            self._epoch = message.epoch
            self.resumed += all(message.recovered.values()) and bool(message.recovered)
        if message.prev_seq is None:
            return False
        place = self._places.get(message.instrument)
        if place is not None and message.seq <= place:
            self.doubled += 1
        elif place is not None and message.prev_seq != place:
            self.lost += 1
        self._places[message.instrument] = max(place or 0, message.seq)
        self._seq = max(self._seq, message.seq)
        return True


async def play(pair: Pair, part: Crowd, patience_s: float) -> Verdict:
    """Play it, from all being live to all being live."""
    logged = len(pair.daemon.log)
    record = CrowdRecord(name=part.name, before=pair.book.turn_over())
    record.began_s, record.began_ms = time.monotonic(), time.time() * 1000
    if part.name == "reconnect_storm":
        comers = [Comer() for _ in range(COMERS)]
        for _ in range(1 + STORMS):
            await _come_and_go(pair.daemon.port, comers, record, _STORMY * patience_s)
            await trio.sleep(AWAY_S)
        record.resumed = sum(comer.resumed for comer in comers)
        record.lost, record.doubled = sum(comer.lost for comer in comers), sum(comer.doubled for comer in comers)
    else:
        async with trio.open_nursery() as nursery:
            for _ in range(FLOODERS):
                nursery.start_soon(_flood, pair.daemon.port, record.statuses)
            # A slow machine takes longer to answer what may be asked at once.
            while (passed_s := time.monotonic() - record.began_s) < patience_s:
                await _probe(pair.daemon.port, record.probed, patience_s)
                await trio.sleep(_PAUSE_S)
                if passed_s >= FLOOD_S and record.statuses[429]:
                    break
            nursery.cancel_scope.cancel()
        await _probe(pair.daemon.port, record.probed, patience_s)
    record.cleared_s = time.monotonic()
    fresh = partial(pair.is_fresh, record.cleared_s)
    if await wait_until(pair.book, fresh, lambda: bool(pair.failure), patience_s):
        record.recovered_s = time.monotonic()
    await trio.sleep(_SETTLE_S)
    record.entries, record.log = pair.book.entries, pair.daemon.log[logged:]
    record.failure = pair.failure or record.failure
    return judge_crowd(record)


async def _come_and_go(port: int, comers: list[Comer], record: CrowdRecord, most_s: float) -> None:
    """All connect at once, read a little, and are gone at once when each has had enough."""
    over = trio.Event()
    left = len(comers)

    async def come(comer: Comer) -> None:
        nonlocal left
        try:
            with trio.fail_after(most_s):
                async with open_websocket_url(f"ws://127.0.0.1:{port}/ws") as websocket:
                    await _read(websocket, comer)
                    left -= 1
                    if not left:
                        over.set()
                    await over.wait()
                    await trio.aclose_forcefully(websocket)
        except* (OSError, HandshakeError, ConnectionClosed, trio.TooSlowError) as group:
            record.unserved.append(repr(group.exceptions[0]))
            over.set()

    async with trio.open_nursery() as nursery:
        for comer in comers:
            nursery.start_soon(come, comer)


async def _read(websocket: WebSocketConnection, comer: Comer) -> None:
    """Subscribe from where it was, and read some data."""
    order = {"type": "subscribe", "channels": [_CHANNEL], **comer.since}
    await websocket.send_message(msgspec.json.encode(order).decode())
    count = 0
    while count < MESSAGES:
        count += comer.note(await websocket.get_message())


async def _flood(port: int, statuses: Counter[int]) -> None:
    """Send many requests at once, read what comes until the connection ends, and come back."""
    while True:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(_FLOOD)
                received = b""
                async for chunk in stream:
                    received += chunk
                    found = _STATUS.findall(received)
                    statuses.update(map(int, found))
                    received = b"" if found else received[-_ANSWER_BYTES:]
        except (OSError, trio.BrokenResourceError):
            pass
        await trio.sleep(_PAUSE_S)


async def _probe(port: int, probed: list[int], most_s: float) -> None:
    """Ask for `/healthz`; 0 stands for no answer."""
    received = b""
    try:
        with trio.fail_after(most_s):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(_PROBE)
                async for chunk in stream:
                    received += chunk
    except (OSError, trio.BrokenResourceError, trio.TooSlowError):
        pass
    found = _STATUS.match(received)
    probed.append(int(found[1]) if found else 0)


def judge_crowd(record: CrowdRecord) -> Verdict:
    """Whether it ended well. Pure.

    Nobody loses a message or gets one again, neither who comes back nor a bystander; everybody who comes back is
    recovered; a flood is limited, and `/healthz` is answered all the while.
    """
    during = [entry for entry in record.entries if entry.at_s >= record.began_s]
    heard = {entry.channel for entry in during if isinstance(entry, Data)}
    told = [entry for entry in during if isinstance(entry, Told)]
    lost = record.lost + holes(record) + missing(record)
    again = record.doubled + doubled(record)
    disturbed = sorted(set(ALL) - heard)
    storm = record.name == "reconnect_storm"
    resumes = COMERS * STORMS
    reason = (
        f"{record.resumed} of {resumes} resumed"
        if storm
        else ", ".join(f"{count} times {status}" for status, count in sorted(record.statuses.items()))
    )
    unwell = [status for status in record.probed if status != 200]
    return Verdict(
        fault=TITLES[record.name],
        told=tuple(dict.fromkeys(one.state for one in told)),
        reason=reason,
        recover_s=None if record.recovered_s is None else record.recovered_s - record.cleared_s,
        lost=lost,
        doubled=again,
        disturbed=tuple(disturbed),
        up=not record.failure,
        problems=(
            *([record.failure] if record.failure else []),
            *errors(record),
            *(f"a client that came was not served: {why}" for why in record.unserved[:1]),
            *([f"only {reason}"] if storm and record.resumed != resumes else []),
            *(["the flood was not limited"] if not storm and not record.statuses[429] else []),
            *([f"/healthz was answered {unwell[0]}"] if unwell else []),
            *([f"{lost} messages lost"] if lost else []),
            *([f"{again} messages doubled"] if again else []),
            *([f"disturbed: {', '.join(disturbed)}"] if disturbed else []),
            *(["not recovered"] if record.recovered_s is None else []),
        ),
    )
