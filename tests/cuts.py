"""A TCP proxy of the tests' own: what passes through it can be cut, swallowed, or led elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio


class Cuts:
    """A way to a port of loopback.

    Attributes:
        port: where it listens.
        target: where connections that come from now on lead.
        bytes_per_s: so much goes through each connection in a second, each way; 0 for as much as there is.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.target = target
        self.bytes_per_s = 0
        self._flows = trio.Event()
        self._flows.set()
        self._open: set[trio.SocketStream] = set()

    @property
    def url(self) -> str:
        """As `[cluster] url` has it."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def swallows(self) -> bool:
        """Whether what comes is taken and goes nowhere, as behind a cable that was pulled."""
        return not self._flows.is_set()

    @swallows.setter
    def swallows(self, swallows: bool) -> None:
        if swallows:
            self._flows = trio.Event()
        else:
            self._flows.set()

    def cut(self) -> None:
        """Close all connections that are open."""
        for stream in tuple(self._open):
            stream.socket.close()

    def lead_to(self, target: int) -> None:
        """Close all connections; those that come lead to another port."""
        self.target = target
        self.cut()

    async def _serve(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            await trio.aclose_forcefully(near)
            return
        ends = {near, far}
        self._open |= ends
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, near, far, nursery.cancel_scope)
                nursery.start_soon(self._pass_on, far, near, nursery.cancel_scope)
        finally:
            self._open -= ends
            for each in ends:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(each)

    async def _pass_on(self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await self._flows.wait()
                if self.bytes_per_s:
                    await trio.sleep(len(data) / self.bytes_per_s)
                await target.send_all(data)
        both.cancel()


@asynccontextmanager
async def open_cuts(target: int) -> AsyncIterator[Cuts]:
    """A proxy to that port; it ends with this context."""
    cuts = Cuts(target)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    cuts.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, cuts._serve, listeners)
        yield cuts
        nursery.cancel_scope.cancel(reason="the test is over")
