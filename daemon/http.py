"""HTTP/1.1 on one connection: requests in, responses out, by h11, under deadlines and limits.

This is the whole of the daemon's knowledge of HTTP's wire: what is asked and what is answered is decided elsewhere
(`daemon.front_door`, `daemon.handshake`, `daemon.routes`). A `Conversation` reads one request after the other; one that
cannot be accepted is raised as `Refused`, which knows the response it deserves:

    Refused     a 4xx or 5xx with `{"type":"error","code":...,"message":...,"timestamp":...}`

Everything a peer can make us wait for has one absolute deadline, however slowly its bytes trickle in: the head, the
body, the response it has to take, and the pause between two requests.
"""

from __future__ import annotations

import email.utils
import re
import urllib.parse
from typing import Final, TypeAlias

import h11
import msgspec
import trio

from daemon.clock import WallClock
from protocol.codes import ErrorCode
from protocol.messages import Error, encode

Headers: TypeAlias = tuple[tuple[str, str], ...]

JSON: Final = "application/json"

_RECEIVE_BYTES: Final = 4096
_LINGER_S: Final = 2.0
_MOST_QUERY_FIELDS: Final = 32
_NOT_MODIFIED: Final = 304
_ABSOLUTE: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)

_ALWAYS: Final[Headers] = (
    ("Server", "tickerd"),
    # A browser must not guess another type than the one that is named.
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
_UNLESS_SAID: Final[Headers] = (
    # Prices are stale as soon as they are stored, and nothing that is answered here may run or be framed.
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may cost.

    Attributes:
        head_bytes: request line and headers together.
        body_bytes: a request's body.
        handshake_s: from the accepted connection to the end of its first request's head, the TLS handshake included;
            for a later request from its first byte to the end of its head. The body has as long again.
        keep_alive_s: without a byte between two requests.
        write_s: until the peer has taken a response.
    """

    head_bytes: int
    body_bytes: int
    handshake_s: float
    keep_alive_s: float
    write_s: float


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, complete.

    Attributes:
        method: as sent; methods are case-sensitive (RFC 9110 section 9.1).
        path: percent-decoded, without the query.
        query: its fields in order, percent-decoded.
        headers: names in lower case.
        version: `1.0` or `1.1`.
        peer: the IP address of the remote end.
        secure: whether it came by TLS.
    """

    method: str
    path: str
    query: Headers = ()
    headers: Headers = ()
    body: bytes = b""
    version: str = "1.1"
    peer: str
    secure: bool = False

    def values(self, name: str) -> list[str]:
        """Every value of the header; `name` in lower case."""
        return [value for known, value in self.headers if known == name]

    def tokens(self, name: str) -> list[str]:
        """The items of a header that is a list separated by commas (RFC 9110 section 5.6.1), over all its lines."""
        items = (item.strip() for value in self.values(name) for item in value.split(","))
        return [item for item in items if item]


class Response(msgspec.Struct, frozen=True):
    """One answer. `headers` beside the ones every answer has; length, date and connection are not its business."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Headers = ()


class Refused(Exception):
    """A request that is not carried out, and the response that says why.

    Attributes:
        status: HTTP's status code.
        code: ours.
        headers: what belongs to that status, such as `Allow`.
    """

    def __init__(self, status: int, code: ErrorCode, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers

    def response(self, timestamp: str) -> Response:
        """The response: the same error object that websocket clients get."""
        error = Error(timestamp=timestamp, code=self.code, message=str(self))
        return Response(self.status, encode(error), headers=self.headers)


class Conversation:
    """HTTP/1.1 with one client over any stream, as its server. One task only: it reads, answers, reads."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: HttpLimits,
        clock: WallClock,
        *,
        peer: str,
        secure: bool,
        head_deadline: float,
    ) -> None:
        """`head_deadline`: when the first request's head must be here, by `trio.current_time()`."""
        self._stream = stream
        self._limits = limits
        self._clock = clock
        self._peer = peer
        self._secure = secure
        self._connection = h11.Connection(h11.SERVER, limits.head_bytes)
        self._deadline = head_deadline
        self._first = True
        self._bodiless = False
        self._closing = False
        self._pause = trio.CancelScope()

    @property
    def trailing(self) -> bytes:
        """What the client sent behind the request: after an upgrade, the first bytes of the other protocol."""
        return self._connection.trailing_data[0]

    def close_soon(self) -> None:
        """Wait for no further request. One that has begun is still answered, with `Connection: close`."""
        self._closing = True
        self._pause.cancel(reason="the front door closes")

    async def receive(self) -> Request | None:
        """The next request, or None where there is none: the client went, or paused for too long.

        If cancelled, the request cannot be taken up again: close the connection.

        Raises:
            Refused: what came cannot be accepted; hand `Refused.response` to `send`.
            trio.BrokenResourceError: the connection broke.
        """
        if not await self._begun():
            return None
        try:
            with trio.fail_at(self._deadline):
                head = await self._head()
        except trio.TooSlowError:
            raise _too_slow("head", self._limits.handshake_s) from None
        if head is None:
            return None
        try:
            with trio.fail_after(self._limits.handshake_s):
                body = await self._body(head)
        except trio.TooSlowError:
            raise _too_slow("body", self._limits.handshake_s) from None
        return self._parsed(head, body)

    async def send(self, response: Response, *, close: bool = False) -> None:
        """Answer the request; where it was not read to its end, or with `close`, the connection ends behind it.

        If cancelled, half a response may have been sent: close the connection.

        Raises:
            trio.TooSlowError: the client did not take it within `write_s`.
            trio.BrokenResourceError: the connection broke.
        """
        headers = [
            ("Date", email.utils.formatdate(self._clock.now_ms() / 1000, usegmt=True)),
            ("Content-Type", response.content_type),
            *_ALWAYS,
            *response.headers,
        ]
        if response.status != _NOT_MODIFIED:  # where it would be the length of what is not sent (RFC 9110 section 8.6)
            headers.append(("Content-Length", str(len(response.body))))
        said = {name.lower() for name, _ in headers}
        headers += [header for header in _UNLESS_SAID if header[0].lower() not in said]
        if close or self._closing or not self._request_was_read:
            headers.append(("Connection", "close"))
        raw = [(name.encode(), value.encode()) for name, value in headers]
        sent = self._connection.send(h11.Response(status_code=response.status, headers=raw))
        if not self._bodiless:
            sent += self._connection.send(h11.Data(data=response.body))
        sent += self._connection.send(h11.EndOfMessage())
        with trio.fail_after(self._limits.write_s):
            await self._stream.send_all(sent)

    def next_cycle(self) -> bool:
        """After `send`: whether another request may follow on this connection."""
        states = self._connection.states
        if states[h11.CLIENT] is not h11.DONE or states[h11.SERVER] is not h11.DONE:
            return False
        self._connection.start_next_cycle()
        self._bodiless = False
        return True

    async def close(self) -> None:
        """Close the connection so that the last response arrives.

        A socket that is closed with unread bytes in it is reset, and a reset makes the client's kernel throw away the
        response that explains it (RFC 9112 section 9.6). So what still comes is read and dropped, for a short while.

        Raises: trio.BrokenResourceError, where the client has closed it already.
        """
        with trio.move_on_after(_LINGER_S):
            left, ended = self._connection.trailing_data
            answered = self._connection.our_state is not h11.IDLE
            if answered and not ended and (left or not self._request_was_read):
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                while await self._stream.receive_some(_RECEIVE_BYTES):
                    pass
        with trio.move_on_after(_LINGER_S):
            await self._stream.aclose()

    @property
    def _request_was_read(self) -> bool:
        """Whether no byte of the request is outstanding."""
        unread = (h11.IDLE, h11.SEND_BODY, h11.ERROR)
        return self._connection.their_state not in unread

    async def _begun(self) -> bool:
        """Wait for the first byte of a request (or the end of the stream), and set the deadline of its head."""
        if self._closing:
            return False
        left, ended = self._connection.trailing_data
        if not left and not ended:
            until = self._deadline if self._first else trio.current_time() + self._limits.keep_alive_s
            with trio.CancelScope(deadline=until) as self._pause:
                await self._more()
            if self._pause.cancelled_caught:
                return False
        if not self._first:
            self._deadline = trio.current_time() + self._limits.handshake_s
        self._first = False
        return True

    async def _head(self) -> h11.Request | None:
        """Request line and headers, or None where the stream ended before them."""
        while True:
            before = len(self.trailing)
            event = self._next_event()
            match event:
                case h11.Request():
                    self._bodiless = event.method == b"HEAD"
                    # h11 measures only what is incomplete: a head that came whole in one read is measured here, so
                    # that the limit does not depend on how the network cut the bytes.
                    if before - len(self.trailing) > self._limits.head_bytes:
                        raise self._head_too_long()
                    if event.http_version not in (b"1.1", b"1.0"):
                        version = event.http_version.decode("ascii")
                        raise Refused(505, ErrorCode.BAD_REQUEST, f"HTTP/{version}; only HTTP/1.1 is spoken here")
                    return event
                case h11.ConnectionClosed():
                    return None
                case _:
                    await self._more()

    async def _body(self, head: h11.Request) -> bytes:
        """All of the body. Where the client waits to be asked for it (RFC 9110 section 10.1.1), it is asked."""
        limit = self._limits.body_bytes
        declared = next((int(value) for name, value in head.headers if name == b"content-length"), 0)
        too_large = Refused(413, ErrorCode.TOO_LARGE, f"a body of more than {limit} bytes is not accepted")
        if declared > limit:
            raise too_large
        body = bytearray()
        while True:
            event = self._next_event()
            match event:
                case h11.Data():
                    body += event.data
                    if len(body) > limit:
                        raise too_large
                case h11.EndOfMessage():
                    return bytes(body)
                case _:
                    if self._connection.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        await self._stream.send_all(self._connection.send(go_on))
                    await self._more()

    def _next_event(self) -> object:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            if status == 431:
                raise self._head_too_long() from error
            raise Refused(status, ErrorCode.BAD_REQUEST, f"not HTTP/1.1: {str(error)[:200]}") from error

    def _head_too_long(self) -> Refused:
        limit = self._limits.head_bytes
        return Refused(431, ErrorCode.TOO_LARGE, f"a request's head of more than {limit} bytes is not accepted")

    async def _more(self) -> None:
        self._connection.receive_data(bytes(await self._stream.receive_some(_RECEIVE_BYTES)))

    def _parsed(self, head: h11.Request, body: bytes) -> Request:
        """Raises: Refused, where the query has too many fields."""
        # A proxy may send the absolute form, and a server has to accept it (RFC 9112 section 3.2.2).
        target = _ABSOLUTE.sub(b"", head.target, count=1).decode("ascii")
        path, _, query = target.partition("?")
        try:
            fields = urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_QUERY_FIELDS)
        except ValueError:
            most = f"a query of more than {_MOST_QUERY_FIELDS} fields is not accepted"
            raise Refused(400, ErrorCode.BAD_REQUEST, most) from None
        return Request(
            method=head.method.decode("ascii"),
            path=urllib.parse.unquote(path),
            query=tuple(fields),
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers),
            body=body,
            version=head.http_version.decode("ascii"),
            peer=self._peer,
            secure=self._secure,
        )


def _too_slow(what: str, limit_s: float) -> Refused:
    return Refused(408, ErrorCode.TIMEOUT, f"the request's {what} was not complete after {limit_s:g} s")
