"""The way from the daemon to one client, as far as the kernel has it: what it still holds, and what it says about it.

The daemon has done its part once the kernel has the bytes. What keeps them there is the kernel's business: a window
probe or a retransmission comes when its timer says so (RFC 9293 section 3.8.6.1, RFC 6298 section 5), however long a
client has been reading again by then. So nobody is blamed for what the kernel holds while its timer runs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import trio

_RUNNING: Final = ("01", "04")
"""The timers that make a socket send: retransmission, window probe (proc_net_tcp: `tr`)."""

_COUNTERS: Final = ("TCPRcvQDrop", "TCPZeroWindowDrop", "RcvPruned", "TCPTimeouts", "TCPBacklogDrop")
_SS_S: Final = 5.0


class Held(msgspec.Struct, frozen=True):
    """What the daemon's socket for a client holds: bytes that the client's kernel has not acknowledged.

    Attributes:
        waiting_bytes: How many.
        due_s: When the kernel tries again; None while no timer runs.
    """

    waiting_bytes: int
    due_s: float | None


def parsed(table: str, daemon_port: int, client_port: int) -> Held | None:
    """The daemon's socket for that client in `/proc/net/tcp`; None where there is none."""
    ends = f":{daemon_port:04X}", f":{client_port:04X}"
    for line in table.splitlines()[1:]:
        _, local, remote, _, queues, timer, *_ = line.split()
        if local.endswith(ends[0]) and remote.endswith(ends[1]):
            kind, _, due = timer.partition(":")
            due_s = int(due, 16) / os.sysconf("SC_CLK_TCK") if kind in _RUNNING else None
            return Held(int(queues.partition(":")[0], 16), due_s)
    return None


class Way:
    """From one daemon to its clients.

    Attributes:
        port: Where the daemon listens.
    """

    def __init__(self, port: int, opinion: Callable[[int], str]) -> None:
        """`opinion`: what the daemon thinks of the client with that port."""
        self.port = port
        self._opinion = opinion

    def held(self, client_port: int) -> Held | None:
        """What the kernel holds for that client at this moment; None where the daemon's socket is gone."""
        return parsed(Path("/proc/net/tcp").read_text(encoding="ascii"), self.port, client_port)

    async def opinion(self, client_port: int) -> str:
        """What the daemon thinks of that client."""
        return f"the daemon: {await trio.to_thread.run_sync(self._opinion, client_port)}"

    async def evidence(self, client_port: int) -> str:
        """All that can be said: what the daemon thinks, TCP_INFO of both ends, what the kernel threw away so far."""
        lines = [await self.opinion(client_port)]
        ends = f"( sport = :{client_port} or dport = :{client_port} )"
        try:
            with trio.fail_after(_SS_S):
                said = await trio.run_process(["ss", "-tinmoOH", ends], capture_stdout=True)
            lines += ["the kernel: " + " ".join(line.split()) for line in said.stdout.decode().splitlines()]
        except (OSError, subprocess.CalledProcessError, trio.TooSlowError) as error:
            lines.append(f"the kernel: {self.held(client_port)} (no ss: {error})")
        names, values = (line.split() for line in _tcp_ext())
        counted = dict(zip(names, values, strict=True))
        lines.append("so far on this machine: " + ", ".join(f"{name} {counted.get(name)}" for name in _COUNTERS))
        return "\n".join(lines)


def _tcp_ext() -> list[str]:
    lines = Path("/proc/net/netstat").read_text(encoding="ascii").splitlines()
    return [line for line in lines if line.startswith("TcpExt:")]
