"""What the load generator answers, and the clock that both sides of the benchmark read."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec


def cpu_ns(pid: int) -> int:
    """CPU time of another process, user and system, all its threads, in nanoseconds.

    Linux makes the id of another process's CPU clock from its pid (clock_getcpuclockid(3)): what
    /proc/PID/schedstat shows too, while /proc/PID/stat counts in hundredths of a second.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def waited_ns(pid: int) -> int:
    """How long a process was ready to run and had no core (/proc/PID/schedstat, sched-stats.rst), in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])


class Delays(msgspec.Struct, frozen=True):
    """Percentiles of delays, in microseconds, and how many they were taken of."""

    count: int = 0
    p50: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    most: float = 0.0


class Window(msgspec.Struct, frozen=True):
    """What happened in one measured time.

    Attributes:
        seconds: how long it was.
        server_cpu_s: CPU time of the server's process in it.
        server_waited_s: how long it had to wait for its core, because something else used it.
        load_cpu_s: the same of this one: a load that is near `seconds` is what limits the rest.
        deliveries: messages received, over all clients that read.
        frame_bytes: the mean size of the sampled clients' frames.
        delays: from a message's stamp to its receipt, at the sampled clients.
        last: from a message's stamp to its receipt by the last client.
        inside: from when the daemon had the venue's bytes to the receipt by the last client. `received_ms` is a whole
            millisecond: half of one is taken off, which is right for percentiles of messages at uneven times, not for
            one message.
        spread: from a message's receipt by the first client to that by the last one.
        unread_bytes: the most that any client that never reads has been sent; not beyond its and the server's buffers.
        read_bytes: since the connections began, at a client that reads.
        closed: connections lost.
        frame: the last sampled frame.
    """

    seconds: float
    server_cpu_s: float
    server_waited_s: float
    load_cpu_s: float
    deliveries: float
    frame_bytes: float
    delays: Delays
    last: Delays
    inside: Delays
    spread: Delays
    unread_bytes: int
    read_bytes: int
    closed: int
    frame: str


class Ready(msgspec.Struct, frozen=True):
    """All clients have got so far; in seconds since the command."""

    seconds: float


class Arrived(msgspec.Struct, frozen=True):
    """Newcomers: in seconds since the first of them began to connect, when each stage was reached by all of them.

    Attributes:
        welcomed_s: the last one had its welcome.
        subscribed_s: the last one had its `subscribed`.
        served_s: the last one had its first data message behind that.
        median_s: half of them had that.
        worst_s: the longest that one of them had to wait for that, since it began to connect.
        there_s: the last one had the message that all of them waited for; `served_s`, where there was none.
    """

    welcomed_s: float
    subscribed_s: float
    served_s: float
    median_s: float
    worst_s: float
    there_s: float


class Drained(msgspec.Struct, frozen=True):
    """What newcomers were sent in some time: bytes in all, and at the one of them that was sent least."""

    seconds: float
    bytes: int
    least_bytes: int


class Flooded(msgspec.Struct, frozen=True):
    """A flood of requests: answers by status, how many connections the server closed, and the bytes it sent."""

    seconds: float
    answers: dict[int, int]
    closed: int
    bytes: int


class Waits(msgspec.Struct, frozen=True):
    """How long answers took, in seconds, and how often there was none."""

    count: int = 0
    median_s: float = 0.0
    worst_s: float = 0.0
    failures: int = 0


class Noticed(msgspec.Struct, frozen=True):
    """What bystanders noticed: of their websocket pings, and of health checks."""

    pings: Waits
    health: Waits


def percentiles(delays_ns: list[int]) -> Delays:
    """The delays' percentiles, each the smallest delay that at least that share does not exceed."""
    if not delays_ns:
        return Delays()
    delays_ns.sort()
    last = len(delays_ns) - 1

    def at(share: float) -> float:
        return delays_ns[min(last, int(len(delays_ns) * share))] / 1000

    return Delays(len(delays_ns), at(0.5), at(0.99), at(0.999), at(1.0))
