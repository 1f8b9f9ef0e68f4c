"""Accepting connections, many in one turn of the event loop.

`trio.serve_listeners` accepts one connection of a listener in each turn. While the fan-out is busy a turn lasts tens of
milliseconds, and a crowd that comes at once would wait for as many turns as it has heads.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

AT_ONCE: Final = 32
"""Connections of one listener accepted in one turn: a few milliseconds."""

_SEGMENT_BYTES: Final = 1460
"""The largest TCP segment sent to a client (TCP_MAXSEG, tcp(7)): what Ethernet carries.

On loopback, where a reverse proxy stands, Linux makes segments of up to 64 KiB. A client that stalled and then reads
bit by bit may open its window to less than that, and need not open it further (RFC 9293 section 3.8.6.2.2). The kernel
then sends nothing until its next window probe (section 3.8.6.1), and those come at doubling intervals: after a stall of
15 s there may be 12 s of silence, with the messages ready. Small segments fit into any window.
"""

_AGAIN_S: Final = 0.1
"""After a shortage of descriptors or memory."""

_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_FAILED_ALREADY: Final = frozenset(
    {
        *(errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN),
        *(errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET),
    }
)
"""What accept(2) says of a connection that failed before it was taken ("Error handling"); the next one may be well."""

_log: Final = logging.getLogger(__name__)


async def serve_connections(
    serve: Callable[[trio.SocketStream], Awaitable[None]],
    listeners: list[trio.SocketListener],
    connections: trio.Nursery,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept until cancelled; then the listeners are closed, and the connections go on.

    Args:
        serve: called in `connections` for each connection; when it returns, the connection is closed.
        listeners: owned from here on.
        connections: where the connections are served.
        task_status: started, with the listeners, when connections are accepted.

    Raises:
        OSError: a listener failed for good. A shortage of descriptors or memory is no such failure: it is logged once,
            and accepting goes on a moment later.
    """
    for listener in listeners:
        listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_accept, listener, serve, connections)
        task_status.started(listeners)


async def _accept(
    listener: trio.SocketListener, serve: Callable[[trio.SocketStream], Awaitable[None]], connections: trio.Nursery
) -> None:
    plain = _plain(listener)
    short = False
    try:
        async with listener:
            while True:
                await trio.lowlevel.wait_readable(plain)
                for _ in range(AT_ONCE):
                    try:
                        accepted, _ = plain.accept()
                    except BlockingIOError:
                        break
                    except OSError as error:
                        if error.errno in _FAILED_ALREADY:
                            continue
                        if error.errno not in _SHORTAGES:
                            raise
                        if not short:
                            _log.error("no connection can be accepted for the moment: %s", os.strerror(error.errno))
                        short = True
                        await trio.sleep(_AGAIN_S)
                        break
                    short = False
                    connections.start_soon(
                        serve_one, serve, trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
                    )
    finally:
        plain.detach()


async def serve_one(serve: Callable[[trio.SocketStream], Awaitable[None]], stream: trio.SocketStream) -> None:
    """Serve a connection, and close it."""
    try:
        await serve(stream)
    finally:
        await trio.aclose_forcefully(stream)


def _plain(listener: trio.SocketListener) -> socket.socket:
    """The same descriptor as a plain socket, because trio's own `accept` is a checkpoint each time; to be detached."""
    plain = socket.socket(fileno=listener.socket.fileno())
    plain.setblocking(False)
    return plain
