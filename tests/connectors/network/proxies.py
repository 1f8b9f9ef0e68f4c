"""Real proxies on loopback, as a test wants them: for HTTP's CONNECT and for SOCKS5, with a password and with faults.

Both lead to one place whatever they are asked for, so that a test can ask for any name: `asked` has what that was.
"""

import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

Answer = Callable[[trio.abc.Stream], Awaitable[None]]

SHUT = (trio.BrokenResourceError, trio.ClosedResourceError)


class ProxyServer:
    """What the tests set of a proxy, and what it saw.

    Attributes:
        target: the port of this machine to which every tunnel leads.
        user, password: who is let through; everybody where there is no user.
        fault: speaks to the client in the proxy's stead; None where it works.
        asked: host and port of every tunnel, as they were asked for.
        heads: every CONNECT request as it came, in capitals and small letters.
        streams: both ends of every tunnel that is open.
    """

    def __init__(self, target: int, *, user: str = "", password: str = "", fault: Answer | None = None) -> None:
        self.target = target
        self.user, self.password = user, password
        self.fault = fault
        self.asked: list[tuple[str, int]] = []
        self.heads: list[str] = []
        self.streams: list[trio.abc.Stream] = []
        self.port = 0

    async def cut(self) -> None:
        """Break all tunnels off."""
        while self.streams:
            await trio.aclose_forcefully(self.streams.pop())

    async def serve_connect(self, stream: trio.abc.Stream) -> None:
        """One client of an HTTP proxy."""
        with suppress(*SHUT):
            if self.fault is not None:
                await self.fault(stream)
                return
            head = b""
            while b"\r\n\r\n" not in head:
                more = await stream.receive_some(4096)
                if not more:
                    return
                head += more
            self.heads.append(head.decode())
            method, authority, _ = head.split(b"\r\n")[0].decode().split(" ")
            assert method == "CONNECT"
            login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            if self.user and f"Proxy-Authorization: Basic {login}\r\n" not in head.decode():
                await stream.send_all(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"
                )
                return
            host, _, port = authority.rpartition(":")
            self.asked.append((host, int(port)))
            # In two pieces, as some proxies do.
            await stream.send_all(b"HTTP/1.1 200 Connection established\r\nVia: a test\r\n")
            await trio.lowlevel.checkpoint()
            await stream.send_all(b"\r\n")
            await self.join(stream)

    async def serve_socks(self, stream: trio.abc.Stream) -> None:
        """One client of a SOCKS5 proxy (RFC 1928, RFC 1929)."""
        with suppress(*SHUT):
            if self.fault is not None:
                await self.fault(stream)
                return
            _, count = await exactly(stream, 2)
            methods = await exactly(stream, count)
            wanted = 2 if self.user else 0
            if wanted not in methods:
                await stream.send_all(b"\x05\xff")
                return
            await stream.send_all(bytes([5, wanted]))
            if self.user:
                _, length = await exactly(stream, 2)
                user = await exactly(stream, length)
                password = await exactly(stream, (await exactly(stream, 1))[0])
                good = (user.decode(), password.decode()) == (self.user, self.password)
                await stream.send_all(b"\x01\x00" if good else b"\x01\x01")
                if not good:
                    return
            _, command, _, kind = await exactly(stream, 4)
            assert command == 1
            if kind == 3:
                host = (await exactly(stream, (await exactly(stream, 1))[0])).decode()
            else:
                host = ".".join(map(str, await exactly(stream, 4))) if kind == 1 else (await exactly(stream, 16)).hex()
            self.asked.append((host, int.from_bytes(await exactly(stream, 2))))
            await stream.send_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            await self.join(stream)

    async def join(self, client: trio.abc.Stream) -> None:
        """Lead the client to the target until one of both ends."""
        server = await trio.open_tcp_stream("127.0.0.1", self.target)
        self.streams += [client, server]
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, client, server, nursery.cancel_scope)
            nursery.start_soon(_pump, server, client, nursery.cancel_scope)


async def exactly(stream: trio.abc.Stream, count: int) -> bytes:
    """So many bytes, one by one: the client must not count on more at once either."""
    taken = b""
    while len(taken) < count:
        more = await stream.receive_some(count - len(taken))
        if not more:
            raise trio.BrokenResourceError
        taken += more
    return taken


async def _pump(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
    with suppress(*SHUT):
        while data := await source.receive_some(65_536):
            await sink.send_all(data)
    scope.cancel()


def says(*data: bytes) -> Answer:
    """A fault: whatever is asked, it says this, and hangs up."""

    async def answer(stream: trio.abc.Stream) -> None:
        for part in data:
            await stream.receive_some(65_536)
            await stream.send_all(part)
        await stream.aclose()

    return answer


async def says_nothing(stream: trio.abc.Stream) -> None:
    """A fault: it takes everything and answers nothing."""
    while await stream.receive_some(65_536):
        continue


async def hangs_up(stream: trio.abc.Stream) -> None:
    """A fault: it is gone as soon as it was asked."""
    await stream.receive_some(65_536)


@asynccontextmanager
async def running(proxy: ProxyServer, *, socks: bool = False, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The proxy at work; its host and port."""

    async def serve(stream: trio.SocketStream) -> None:
        handle = proxy.serve_socks if socks else proxy.serve_connect
        await handle(stream if tls is None else trio.SSLStream(stream, tls, server_side=True))

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        proxy.port = listener.socket.getsockname()[1]
        yield f"127.0.0.1:{proxy.port}"
        nursery.cancel_scope.cancel()
