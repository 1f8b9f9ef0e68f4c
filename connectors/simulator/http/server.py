"""One client connection of the simulator: HTTP/1.1 by h11, and the way into a websocket.

What to answer is decided elsewhere (`answer`, a plain function); here it is only read and written.
A connection that fails ends alone: nothing that a client does raises out of `serve_connection`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus

import h11
import trio

from connectors.simulator.http.request import Delivery, VenueRequest, VenueResponse, json_response
from connectors.simulator.http.wire import Wire, deliver

HEAD_BYTES = 16 * 1024
BODY_BYTES = 64 * 1024
"""Longest body of a request, for the paths that take one."""
HEAD_S = 10.0
"""A request head must be complete so long after its first byte, and the first one after connecting."""
KEEP_S = 75.0
"""An idle kept-alive connection is closed after this."""
_RECEIVE_BYTES = 16 * 1024

Answer = Callable[[VenueRequest], VenueResponse | None]
"""Answers a request; `None` accepts it as the opening of a websocket."""


class UpgradedStream(trio.abc.Stream):
    """The stream of a connection whose first request has been read and is to be read again.

    It gives back that request's head first, and what came behind it only after `release()`:
    trio-websocket would lose bytes that arrive before it has accepted the handshake.

    All writers of a websocket go through it: trio-websocket with its replies, and whoever writes
    frames made elsewhere. Its lock keeps every `send_all` in one piece. A cancelled write may leave
    a torn frame; the connection is of no use after that.

    Attributes:
        wire: What lies below, for faults.
    """

    def __init__(self, stream: trio.abc.Stream, head: bytes, behind: bytes) -> None:
        self._stream = self.wire = Wire(stream)
        self._head = head
        self._behind = behind
        self._released = trio.Event()
        self._lock = trio.StrictFIFOLock()

    def release(self) -> None:
        """Let what follows the head through."""
        self._released.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The head, then (once released) what came with it, then what comes from the socket."""
        if self._head:
            await trio.lowlevel.checkpoint()
            data, self._head = self._head[:max_bytes], self._head[len(self._head[:max_bytes]) :]
            return data
        await self._released.wait()
        if self._behind:
            await trio.lowlevel.checkpoint()
            data, self._behind = (
                self._behind[:max_bytes],
                self._behind[len(self._behind[:max_bytes]) :],
            )
            return data
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` with nothing in between."""
        async with self._lock:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a write might not block."""
        async with self._lock:
            await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the socket; a write under way elsewhere ends with `ClosedResourceError`."""
        await self._stream.aclose()


async def serve_connection(
    stream: trio.abc.Stream,
    peer: str,
    answer: Answer,
    serve_websocket: Callable[[VenueRequest, UpgradedStream], Awaitable[None]],
    with_body: Collection[str] = (),
) -> None:
    """Serve requests until the client leaves, breaks HTTP, or becomes a websocket; then close.

    Args:
        stream: The accepted connection; closed on return.
        peer: The client's address, for `VenueRequest.peer`.
        answer: Called for each request.
        serve_websocket: Takes over after `answer` returned `None`.
        with_body: The paths whose requests may have a body; on others none is read, and one ends the connection.
    """
    wire = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    try:
        kept = False
        while await _serve_request(wire, stream, kept, peer, answer, serve_websocket, with_body):
            kept = True
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # The client is gone; that is its right.
    finally:
        await trio.aclose_forcefully(stream)


async def _serve_request(
    wire: h11.Connection,
    stream: trio.abc.Stream,
    kept: bool,
    peer: str,
    answer: Answer,
    serve_websocket: Callable[[VenueRequest, UpgradedStream], Awaitable[None]],
    with_body: Collection[str],
) -> bool:
    """Serve one request; true if another may follow on this connection."""
    try:
        head = await _read_head(wire, stream, kept)
        if head is None:
            return False
        target = head.target.decode("ascii")
        body = b""
        if target in with_body:
            read = await _read_body(wire, stream)
            if read is None:
                return False
            body, bodyless = read, True
        else:
            bodyless = isinstance(wire.next_event(), h11.EndOfMessage)
    except h11.RemoteProtocolError as error:
        if wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = error.error_status_hint
            await _write(wire, stream, json_response({"error": str(error)}, status), close=True)
        return False
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    request = VenueRequest(head.method.decode("ascii"), target, headers, peer, body)
    response = answer(request)
    if response is None:
        upgraded = UpgradedStream(stream, _head_bytes(head), bytes(wire.trailing_data[0]))
        await serve_websocket(request, upgraded)
        return False
    await _write(wire, stream, response, close=not bodyless)
    if wire.our_state is not h11.DONE or wire.their_state is not h11.DONE:
        return False
    wire.start_next_cycle()
    return True


async def _read_head(wire: h11.Connection, stream: trio.abc.Stream, kept: bool) -> h11.Request | None:
    """The next request's head, or `None` where the client closed or let its time pass."""
    if not wire.trailing_data[0]:
        with trio.move_on_after(KEEP_S if kept else HEAD_S) as scope:
            wire.receive_data(bytes(await stream.receive_some(_RECEIVE_BYTES)))
        if scope.cancelled_caught:
            return None
    with trio.move_on_after(HEAD_S):
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(bytes(await stream.receive_some(_RECEIVE_BYTES)))
            else:
                return event if isinstance(event, h11.Request) else None
    return None


async def _read_body(wire: h11.Connection, stream: trio.abc.Stream) -> bytes | None:
    """A request's body, or `None` where it is too long (which is answered) or does not come."""
    body = bytearray()
    with trio.move_on_after(HEAD_S):
        while True:
            event = wire.next_event()
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_BYTES:
                    refusal = json_response({"error": f"the body is over {BODY_BYTES} bytes"}, 413)
                    await _write(wire, stream, refusal, close=True)
                    return None
            elif event is h11.NEED_DATA:
                if wire.they_are_waiting_for_100_continue:
                    await stream.send_all(wire.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                wire.receive_data(bytes(await stream.receive_some(_RECEIVE_BYTES)))
            else:
                return None
    return None


async def _write(wire: h11.Connection, stream: trio.abc.Stream, response: VenueResponse, *, close: bool) -> None:
    """Write an answer: head and body in one piece, or as its `delivery` says."""
    how = response.delivery
    headers = [(name, value) for name, value in response.headers]
    if how.endless:
        headers.append(("transfer-encoding", "chunked"))
    elif response.status != HTTPStatus.NOT_MODIFIED:
        headers.append(("content-length", str(len(response.body) + how.missing_bytes)))
    if close:
        headers.append(("connection", "close"))
    reason = _REASONS.get(response.status, "")
    event = h11.Response(status_code=response.status, headers=headers, reason=reason)
    head = wire.send(event) or b""
    if how != Delivery() and not await deliver(stream, head, response.body, how):
        return  # An answer that has no end: h11 has not seen one either, so the connection ends.
    parts = [wire.send(h11.Data(data=response.body)), wire.send(h11.EndOfMessage())]
    if how == Delivery():
        await stream.send_all(head + b"".join(part for part in parts if part))


_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _head_bytes(head: h11.Request) -> bytes:
    """The head again as bytes, for a second reader."""
    lines = [head.method + b" " + head.target + b" HTTP/" + head.http_version]
    lines += [name + b": " + value for name, value in head.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"
