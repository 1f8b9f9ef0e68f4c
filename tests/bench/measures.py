"""What is measured. Each measure runs the daemon and what it is compared with one after the other, several times."""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from tests.bench.processes import Cores, Served, daemon, head, load, rss_kib, write_loop
from tests.bench.report import AT_LEAST, AT_MOST, Row
from tests.bench.window import Window, cpu_ns, waited_ns
from tests.daemon.serving import certificate

FULL_SHARE: Final = 0.95
"""A core of which a process uses this much is full."""

SAMPLE: Final = ("--sample", 25)
"""So many clients are parsed; see `tests.bench.load`."""
FLAT_OUT: Final = ("--sample", 2, "--others-ms", 1)
"""Where the load must be as cheap as can be, and no socket may fill up because it is slow."""

DISTURBED_SHARE: Final = 0.02
"""Of a window; where the server waited longer for its core, the report says so."""


class Plan(msgspec.Struct, frozen=True):
    """How long and how often.

    Attributes:
        cores: who runs where.
        repeats: of each measure.
        seconds: of each window.
        settle_s: between the last subscription and the window.
        rates: messages a second that are tried, rising, until the server's core is full.
        say: called with a line of progress.
    """

    cores: Cores
    repeats: int
    seconds: float
    settle_s: float
    rates: tuple[int, ...]
    say: Callable[[str], None]


def measure_pair(plan: Plan, rate: float, clients: int, *, flat_out: bool = False) -> tuple[Window, Window]:
    """The daemon, and then the write loop with the daemon's own message, at the same rate or as fast as it goes."""
    how = FLAT_OUT if flat_out else SAMPLE
    # A whole number of messages.
    seconds = max(1, round(plan.seconds * rate)) / rate
    with daemon(plan.cores, rate) as server:
        ours = measure_window(plan, server, clients, seconds, *how)
    if not ours.frame:
        raise RuntimeError("not one message was received from the daemon")
    with write_loop(plan.cores, 0 if flat_out else rate, clients, _payload(ours.frame)) as server:
        floor = measure_window(plan, server, clients, seconds, "--raw", *how)
    return ours, floor


def measure_window(plan: Plan, server: Served, clients: int, seconds: float, *options: object) -> Window:
    with load(plan.cores, server, clients, *options) as subscribers:
        subscribers.connect()
        subscribers.subscribe()
        time.sleep(plan.settle_s)
        window = subscribers.measure(seconds)
    if window.closed:
        raise RuntimeError(f"{window.closed} connections were lost while measuring")
    _check_disturbed(plan, window.server_waited_s / window.seconds)
    return window


def _check_disturbed(plan: Plan, share: float) -> None:
    if share > DISTURBED_SHARE:
        plan.say(f"  something else used the server's core for {share:.0%} of the time: trust no delay of this run")


def _payload(frame: str) -> bytes:
    """The message inside a frame (RFC 6455 section 5.2)."""
    data = base64.b64decode(frame)
    return data[{126: 4, 127: 10}.get(data[1], 2) :]


def _cost_us(window: Window) -> float:
    return window.server_cpu_s / window.deliveries * 1e6


def one_at_a_time(plan: Plan) -> Iterator[Row]:
    """One message every 50 ms to 500 clients: each finds a daemon that rests, and is written by itself."""
    # Not a whole number of milliseconds apart: see `Window.inside`.
    rate, clients = 19.7, 500
    cost = Row(f"CPU per delivery, one message at a time ({rate}/s) to {clients} clients", "µs", AT_MOST, 1.3)
    inside = Row(f"delay of a single message after a pause, hub to the last of {clients} sockets", "ms", AT_MOST, 1.3)
    last = Row("the same, from the venue's stamp on", "ms")
    spread = Row("the same, from the first of the sockets on", "ms")
    for _ in range(plan.repeats):
        ours, floor = measure_pair(plan, rate, clients)
        cost.add(_cost_us(ours), _cost_us(floor))
        inside.add(ours.inside.p50 / 1e3, floor.last.p50 / 1e3)
        last.add(ours.last.p50 / 1e3, floor.last.p50 / 1e3)
        spread.add(ours.spread.p50 / 1e3, floor.spread.p50 / 1e3)
        plan.say(f"  {ours.frame_bytes:.0f} bytes a frame, {ours.last.count} messages")
    yield from (cost, inside, last, spread)
    idle = Row("CPU of the daemon without clients, nothing happening", "% of a core")
    ingest = Row(f"the same, {rate} messages/s", "% of a core")
    for row, feed in ((idle, 0.1), (ingest, rate)):
        with daemon(plan.cores, feed) as server:
            time.sleep(plan.settle_s)
            row.add(_busy(server.pid, plan.seconds) * 100)
    yield idle
    yield ingest


def _busy(pid: int, seconds: float) -> float:
    """Which share of a core a process uses."""
    began_s, began_ns = time.monotonic(), cpu_ns(pid)
    time.sleep(seconds)
    return (cpu_ns(pid) - began_ns) / 1e9 / (time.monotonic() - began_s)


def saturation(plan: Plan) -> Iterator[Row]:
    """The feed as fast as the daemon can take it, to 100 clients."""
    clients = 100
    cost = Row(f"CPU per delivery at saturation, {clients} clients", "µs", AT_MOST, 0.1)
    delivered = Row("deliveries/s at saturation", "million/s")
    messages = Row("messages/s at saturation", "1/s")
    delay = Row("median delay at saturation", "ms")
    rate, most = 0, 0.0
    for tried in plan.rates:
        with daemon(plan.cores, tried) as server:
            feed_ns, began_s = cpu_ns(server.feed_pid), time.monotonic()
            found = measure_window(plan, server, clients, plan.seconds, *FLAT_OUT)
            feed = (cpu_ns(server.feed_pid) - feed_ns) / 1e9 / (time.monotonic() - began_s)
        got = found.deliveries / clients / found.seconds
        said = (
            f"feed of {tried}/s, server {found.server_cpu_s / found.seconds:.0%} of its core; on the other one "
            f"load {found.load_cpu_s / found.seconds:.0%}, venues {feed:.0%}"
        )
        plan.say(f"  {said}: {got:.0f} messages/s arrive")
        # A fuller core makes larger batches: it is as fast as it goes only when more does not bring more.
        if got < 1.03 * most:
            break
        rate, most, cost.note = tried, got, said
    for _ in range(plan.repeats):
        ours, floor = measure_pair(plan, rate, clients, flat_out=True)
        cost.add(_cost_us(ours), _cost_us(floor))
        delivered.add(ours.deliveries / ours.seconds / 1e6, floor.deliveries / floor.seconds / 1e6)
        messages.add(ours.deliveries / clients / ours.seconds, floor.deliveries / clients / floor.seconds)
        delay.add(ours.delays.p50 / 1e3, floor.delays.p50 / 1e3)
    yield from (cost, delivered, messages, delay)


def thousand(plan: Plan) -> Iterator[Row]:
    """1 000 messages/s to 100 clients."""
    rate, clients = 1000, 100
    cost = Row(f"CPU per delivery, {rate} messages/s to {clients} clients", "µs", AT_MOST, 0.6)
    delay = Row("median delay of these", "ms", AT_MOST, 3.0, of_value=True)
    tail = Row("p99 delay of these", "ms")
    for _ in range(plan.repeats):
        ours, floor = measure_pair(plan, rate, clients)
        cost.add(_cost_us(ours), _cost_us(floor))
        delay.add(ours.delays.p50 / 1e3, floor.delays.p50 / 1e3)
        tail.add(ours.delays.p99 / 1e3, floor.delays.p99 / 1e3)
    yield from (cost, delay, tail)


def latency(plan: Plan) -> Iterator[Row]:
    """100 messages/s to 500 clients."""
    rate, clients = 100, 500
    cost = Row(f"CPU per delivery, {rate} messages/s to {clients} clients", "µs")
    rows = [Row(f"delay of these, {name}", "ms") for name in ("p50", "p99", "p99.9")]
    for _ in range(plan.repeats):
        ours, floor = measure_pair(plan, rate, clients)
        cost.add(_cost_us(ours), _cost_us(floor))
        for row, name in zip(rows, ("p50", "p99", "p999"), strict=True):
            row.add(getattr(ours.delays, name) / 1e3, getattr(floor.delays, name) / 1e3)
    yield from (cost, *rows)


def tls(plan: Plan) -> Iterator[Row]:
    """The same clients over TLS and without: 100 messages/s, and as many as are tried at most."""
    rate, clients = 100, 100
    cost = Row(f"CPU per delivery over TLS, {rate} messages/s to {clients} clients", "µs", AT_MOST, 2.0)
    delay = Row("median delay of these", "ms")
    cost.note = delay.note = "compared with plain"
    # A load that decrypts may be full before the server is: the note says how full that is.
    full = Row(f"CPU per delivery over TLS, a feed of {plan.rates[-1]}/s to {clients} clients", "µs")
    delivered = Row("deliveries/s of these", "million/s", note="compared with plain")
    with tempfile.TemporaryDirectory() as folder:
        pem, key = certificate(Path(folder))
        secure = {"TICKERD_SERVER__CERTIFICATE": str(pem), "TICKERD_SERVER__KEY": str(key)}

        def pair(rate: float, *how: object) -> tuple[Window, Window]:
            trusting = ("--trusting", pem)
            return _alone(plan, rate, clients, secure, *how, *trusting), _alone(plan, rate, clients, {}, *how)

        for _ in range(plan.repeats):
            ours, plain = pair(rate, *SAMPLE)
            cost.add(_cost_us(ours), _cost_us(plain))
            delay.add(ours.delays.p50 / 1e3, plain.delays.p50 / 1e3)
        for _ in range(plan.repeats):
            ours, plain = pair(plan.rates[-1], *FLAT_OUT)
            full.add(_cost_us(ours), _cost_us(plain))
            delivered.add(ours.deliveries / ours.seconds / 1e6, plain.deliveries / plain.seconds / 1e6)
            busy, read = ours.server_cpu_s / ours.seconds, ours.load_cpu_s / ours.seconds
            full.note = f"compared with plain; over TLS server {busy:.0%} of its core, load {read:.0%} of the other"
    yield from (cost, delay, full, delivered)


def _alone(plan: Plan, rate: float, clients: int, environ: Mapping[str, str], *how: object) -> Window:
    with daemon(plan.cores, rate, environ) as server:
        return measure_window(plan, server, clients, plan.seconds, *how)


def workers(plan: Plan) -> Iterator[Row]:
    """Two workers beside one process, all on one core: what it costs to have the tape in several processes.

    Each pass, and each message, costs a worker something, however many clients it has: with few clients that counts.
    """
    two = {"TICKERD_SERVER__WORKERS": "2"}
    for rate, clients, target in ((100, 500, 1.15), (50, 2000, 1.15), (1000, 500, 1.15), (1000, 100, None)):
        what = f"CPU per delivery with 2 workers, all processes, {rate} messages/s to {clients} clients"
        cost = Row(what, "µs") if target is None else Row(what, "µs", AT_MOST, target)
        delay = Row("median delay of these", "ms")
        cost.note = delay.note = "compared with one process"
        for _ in range(plan.repeats):
            several, one = _alone(plan, rate, clients, two, *SAMPLE), _alone(plan, rate, clients, {}, *SAMPLE)
            cost.add(_cost_us(several), _cost_us(one))
            delay.add(several.delays.p50 / 1e3, one.delays.p50 / 1e3)
        yield from (cost, delay)


def never_reading(plan: Plan) -> Iterator[Row]:
    """What 100 clients that never read cost 400 that do."""
    rate, readers, stuck = 100, 400, 100
    tail = Row(
        f"p99 delay at {readers} clients, {rate} messages/s, beside {stuck} that never read", "ms", AT_MOST, 1.2,
        note="compared with the run without those",
    )  # fmt: skip
    cost = Row("CPU per delivery of these", "µs")
    # Until the buffers of those that do not read are full, they are clients like all others.
    full_s = max(plan.settle_s, 7.0)
    plan = msgspec.structs.replace(plan, settle_s=full_s)
    for _ in range(plan.repeats):
        with daemon(plan.cores, rate) as server:
            beside = measure_window(plan, server, readers + stuck, plan.seconds, *SAMPLE, "--stuck", stuck)
        with daemon(plan.cores, rate) as server:
            alone = measure_window(plan, server, readers, plan.seconds, *SAMPLE)
        tail.add(beside.delays.p99 / 1e3, alone.delays.p99 / 1e3)
        cost.add(_cost_us(beside), _cost_us(alone))
        plan.say(
            f"  {beside.read_bytes >> 10} KiB sent to each that reads; at one that does not, "
            f"{beside.unread_bytes >> 10} KiB wait at most"
        )
    yield from (tail, cost)


def connections(plan: Plan) -> Iterator[Row]:
    """2 000 clients: their memory, and the time they take to be let in."""
    clients = 2000
    memory = Row(f"memory per idle client, {clients} clients", "KiB", AT_MOST, 25, of_value=True)
    subscribed = Row("memory per client once subscribed", "KiB")
    connect = Row(f"time until {clients} clients are connected", "s")
    subscribe = Row(f"time until {clients} connected clients are subscribed", "s")
    for _ in range(plan.repeats):
        with daemon(plan.cores, 0.1) as server:
            time.sleep(plan.settle_s)
            before = rss_kib(server.pid)
            with load(plan.cores, server, clients) as subscribers:
                connect.add(subscribers.connect())
                time.sleep(plan.settle_s)
                memory.add((rss_kib(server.pid) - before) / clients)
                subscribe.add(subscribers.subscribe())
                time.sleep(plan.settle_s)
                subscribed.add((rss_kib(server.pid) - before) / clients)
    yield from (memory, subscribed, connect, subscribe)


def ingest(plan: Plan) -> Iterator[Row]:
    """Frames from OKX's socket to the tape, without clients, as fast as it goes."""
    frames = Row("ingest: OKX frames/s from socket to tape, no clients", "1/s", AT_LEAST, 25_000, of_value=True)
    cost = Row("CPU per frame of these", "µs")
    rate = plan.rates[0]
    for rate in plan.rates:
        got, busy, feed = _ingest(plan, rate, 2.0)
        plan.say(f"  feed of {rate}/s: {got:.0f} frames/s arrive; server {busy:.0%} of its core, venues {feed:.0%}")
        if busy >= FULL_SHARE or got < 0.9 * rate:
            break
    frames.note = f"feed of {rate}/s; server {busy:.0%} of its core, venues {feed:.0%} of theirs"
    for _ in range(plan.repeats):
        got, busy, feed = _ingest(plan, rate, plan.seconds)
        frames.add(got)
        cost.add(busy / got * 1e6)
    yield from (frames, cost)


def _ingest(plan: Plan, rate: float, seconds: float) -> tuple[float, float, float]:
    """Frames a second, and the shares of their cores that the daemon and the venues use."""
    with daemon(plan.cores, rate) as server:
        time.sleep(plan.settle_s)
        began_s, began = time.monotonic(), head(server.port)
        waiting_ns = waited_ns(server.pid)
        server_ns, feed_ns = cpu_ns(server.pid), cpu_ns(server.feed_pid)
        time.sleep(seconds)
        server_ns, feed_ns = cpu_ns(server.pid) - server_ns, cpu_ns(server.feed_pid) - feed_ns
        waiting_ns = waited_ns(server.pid) - waiting_ns
        got = head(server.port) - began
        took_s = time.monotonic() - began_s
    _check_disturbed(plan, waiting_ns / 1e9 / took_s)
    return got / took_s, server_ns / 1e9 / took_s, feed_ns / 1e9 / took_s


MEASURES: Final[dict[str, Callable[[Plan], Iterator[Row]]]] = {
    "single": one_at_a_time,
    "saturation": saturation,
    "thousand": thousand,
    "latency": latency,
    "tls": tls,
    "workers": workers,
    "stuck": never_reading,
    "connections": connections,
    "ingest": ingest,
}
