"""What recording costs the hot path and the disk, and how fast a recording is played."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Final

import httpx
import msgspec
import trio

from connectors.capture.described import described
from connectors.capture.journal import Chunk, Journal
from connectors.capture.lines import FORMAT, Header, Line, seconds, written, written_frames
from daemon.app import Daemon
from daemon.commands.replay import replay
from protocol.channels import Channel
from protocol.kinds import KINDS
from tests.bench.measures import Plan
from tests.bench.processes import daemon, head
from tests.bench.report import AT_LEAST, AT_MOST, Row
from tests.bench.window import cpu_ns
from tests.daemon.routes.scraping import Scrape

RATE: Final = 20_000
"""Frames a second while what recording costs is measured."""

MOST_MORE: Final = 1.05
LEAST_PER_S: Final = 50_000
"""The goals: what the event loop may need, compared with no recording; frames a second that are played."""

PLAYED: Final = 300_000
PER_MS: Final = 5
BEGAN_MS: Final = 1_765_211_445_000
TICKER: Final = (
    b'{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instType":"SPOT","instId":"BTC-USDT","last":"%d.%d",'
    b'"lastSz":"0.01","askPx":"42150.6","askSz":"1.2","bidPx":"42150.4","bidSz":"2.1","open24h":"41150.5",'
    b'"high24h":"43150.5","low24h":"40150.5","sodUtc0":"42000","sodUtc8":"42010","volCcy24h":"123456789.12",'
    b'"vol24h":"2929.2","ts":"%d"}]}'
)


def record(plan: Plan) -> Iterator[Row]:
    """OKX's tickers, recorded and not."""
    loop = Row(f"CPU of the event loop per frame while recording, {RATE} frames/s", "µs", AT_MOST, MOST_MORE)
    loop.note = "compared with no recording"
    whole = Row("the same of the whole process, with the thread that writes", "µs")
    whole.note = "compared with no recording"
    disk = Row("a million frames on the disk", "MB")
    raw = Row("the same before they are compressed", "MB")
    for _ in range(plan.repeats):
        with tempfile.TemporaryDirectory() as folder:
            ours = _measure(plan, {"TICKERD_RECORD__PATH": folder})
        plain = _measure(plan, {})
        loop.add(ours.loop_us, plain.loop_us)
        whole.add(ours.process_us, plain.process_us)
        disk.add(ours.written_bytes / ours.frames)
        raw.add(ours.raw_bytes / ours.frames)
        if ours.dropped:
            plan.say(f"  {ours.dropped:.0f} frames were not recorded: the disk is too slow")
    yield from (loop, whole, disk, raw)


class _Cost(msgspec.Struct):
    """Of one window; bytes and frames are those since the start."""

    loop_us: float
    process_us: float
    frames: float
    raw_bytes: float
    written_bytes: float
    dropped: float


def _measure(plan: Plan, environ: dict[str, str]) -> _Cost:
    with daemon(plan.cores, RATE, environ) as server:
        time.sleep(plan.settle_s + 1)
        before, loop_ns, process_ns = head(server.port), _loop_ns(server.pid), cpu_ns(server.pid)
        time.sleep(max(plan.seconds, 4))
        got = head(server.port) - before
        loop_ns, process_ns = _loop_ns(server.pid) - loop_ns, cpu_ns(server.pid) - process_ns
        scrape = Scrape.of(httpx.get(f"http://127.0.0.1:{server.port}/metrics").text)
        said = [
            scrape.value(f"tickerd_record_{name}_total") if environ else 0.0
            for name in ("frames", "raw_bytes", "written_bytes", "dropped")
        ]
    return _Cost(loop_ns / got / 1000, process_ns / got / 1000, *said)


def _loop_ns(pid: int) -> int:
    """What the process's first thread, which runs the event loop, has used of a core."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


def played(plan: Plan) -> Iterator[Row]:
    """A recording of small frames, from the file to the tape, as fast as it goes, in this process."""
    row = Row("frames of a recording, from the file to the tape, at --speed max", "1/s", AT_LEAST, LEAST_PER_S)
    row.of_value = True
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        for _ in range(plan.repeats):
            per_cpu_s, per_s = trio.run(_play, Path(folder))
            row.add(per_cpu_s)
            row.note = f"a second of CPU, both threads together; by the clock {per_s:,.0f}"
    yield row


def _write(folder: Path) -> None:
    channel = Channel(name="bitcoinprice", exchange="okx", kind=KINDS["ticker"], instruments=("BTC/USDT",))
    header = Header(format=FORMAT, venue="okx", connector="okx", carries=(channel.name,), channels=[described(channel)])
    journal = Journal(folder, header)
    journal.write(Chunk(written(Line(seconds(BEGAN_MS), opened="")), BEGAN_MS, BEGAN_MS, opened=1))
    for at in range(0, PLAYED, 1000):
        text = b""
        for number in range(at, at + 1000):
            # Each by itself: what comes together costs less.
            now_ms = BEGAN_MS + number // PER_MS
            text += written_frames([TICKER % (42_150 + number % 97, number % 10, now_ms)], now_ms, 1)
        journal.write(Chunk(text, BEGAN_MS + at // PER_MS, BEGAN_MS + (at + 999) // PER_MS, frames=1000))
    journal.close("", BEGAN_MS + PLAYED // PER_MS)


async def _play(folder: Path) -> tuple[float, float]:
    """Frames for a second of CPU time, and for a second of the clock: other work on the machine costs that alone."""
    config, player = replay(folder, {}, port=0, speed=inf, from_ms=None, to_ms=None)
    server = Daemon(config, player=player)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        began_s, cpu_s = time.perf_counter(), time.process_time()
        await server.start(nursery, listeners)
        await player.has_ended.wait()
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        nursery.cancel_scope.cancel(reason="all has been played")
    return server.ingesting.sequencer.events / cpu_s, server.ingesting.sequencer.events / took_s
