"""HTTP/1.1 on one connection: requests in, responses out, by h11, under deadlines and limits.

This is the whole of the daemon's knowledge of HTTP's wire: what is asked and what is answered is decided elsewhere
(`daemon.front.front_door`, `daemon.front.handshake`, `daemon.routes.routes`). A `Conversation` reads one request after
the other; one that cannot be accepted is raised as `Refused`, which knows the response it deserves:

    Refused     a 4xx or 5xx with `{"type":"error","code":...,"message":...,"timestamp":...}`

Everything a peer can make us wait for has one absolute deadline, however slowly its bytes trickle in: the head, the
body, the response it has to take, and the pause between two requests.
"""

from __future__ import annotations

import email.utils
import re
import urllib.parse
from collections.abc import Iterable
from typing import Final

import h11
import trio

from daemon.front.limits import Limits
from daemon.front.openings import SHOWN_BYTES, explained
from daemon.front.request import Headers as Headers
from daemon.front.request import Later as Later
from daemon.front.request import Refused as Refused
from daemon.front.request import Request as Request
from daemon.front.request import Response as Response
from daemon.front.tokens import taken_out
from daemon.host.clock import WallClock
from protocol.codes import ErrorCode

_RECEIVE_BYTES: Final = 4096
_LINGER_S: Final = 2.0
_FIRST_WORDS_S: Final = 0.5
_MOST_QUERY_FIELDS: Final = 32
_MOST_CODED: Final = 8
"""So many times a body's own bytes may be received for it: chunks have sizes, comments and fields of their own."""
_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304
_QUOTED_LINE: Final = re.compile(r": (bytearray\(|b['\"]).*", re.DOTALL)
_ABSOLUTE: Final = re.compile(rb"https?://(?:[^/?#@]*@)?(?P<host>[^/?#]*)", re.IGNORECASE)

ALWAYS: Final[Headers] = (
    ("Server", "tickerd"),
    # A browser must not guess another type than the one that is named.
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
"""Headers of every answer, the one that opens a websocket included."""
_UNLESS_SAID: Final[Headers] = (
    # Prices are stale as soon as they are stored, and nothing that is answered here may run or be framed.
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)


class Conversation:
    """HTTP/1.1 with one client over any stream, as its server. One task only: it reads, answers, reads.

    Attributes:
        client: the IP address that the last request came from, as far as it is known.
        origin: the last request's `Origin` headers, as far as its head was understood.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: Limits,
        clock: WallClock,
        *,
        peer: str,
        secure: bool,
        head_deadline: float,
        local: str = "",
    ) -> None:
        """`head_deadline`: when the first request's head must be here, by `trio.current_time()`."""
        self._stream = stream
        self._limits = limits
        self._clock = clock
        self.client = self._peer = peer
        self.origin: tuple[str, ...] = ()
        self._local = local
        self._secure = secure
        self._connection = h11.Connection(h11.SERVER, limits.head_bytes)
        self._deadline = head_deadline
        self._first = True
        self._received = 0
        self._opening = b""
        self._bodiless = False
        self._closing = False
        self._doubtful = False
        self._pause = trio.CancelScope()

    @property
    def trailing(self) -> bytes:
        """What the client sent behind the request: after an upgrade, the first bytes of the other protocol."""
        return self._connection.trailing_data[0]

    def close_soon(self) -> None:
        """Wait for no further request. One that has begun is still answered, with `Connection: close`.

        So is the first one, if it comes soon: it may be on its way, and closing now would reset the connection.
        """
        self._closing = True
        if self._first:
            self._pause.deadline = min(self._pause.deadline, trio.current_time() + _FIRST_WORDS_S)
        else:
            self._pause.cancel(reason="the front door closes")

    async def receive(self) -> Request | None:
        """The next request, or None where there is none: the client went, or paused for too long.

        If cancelled, the request cannot be taken up again: close the connection.

        Raises:
            Refused: what came cannot be accepted; hand `Refused.response` to `send`.
            trio.BrokenResourceError: the connection broke.
        """
        self.client = self._peer
        self.origin = ()
        if not await self._begun():
            return None
        try:
            with trio.fail_at(self._deadline):
                head = await self._head()
        except trio.TooSlowError:
            raise _too_slow("head", self._limits.handshake_s) from None
        if head is None:
            return None
        self.origin = tuple(value.decode("latin-1") for name, value in head.headers if name == b"origin")
        self._doubtful = _is_doubtful(head)
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
            trio.TooSlowError: the client did not take it within `write_deadline_s`.
            trio.BrokenResourceError: the connection broke.
        """
        headers = self._headers(response.content_type, response.headers)
        # Of what is not sent it would be the length (304), and what has none may not have one (RFC 9110 section 8.6).
        if response.status not in (_NO_CONTENT, _NOT_MODIFIED):
            headers.append(("Content-Length", str(len(response.body))))
        if close or self._closing or self._doubtful or not self._request_was_read:
            headers.append(("Connection", "close"))
        raw = [(name.encode(), value.encode()) for name, value in headers]
        sent = self._connection.send(h11.Response(status_code=response.status, headers=raw))
        if not self._bodiless:
            sent += self._connection.send(h11.Data(data=response.body))
        sent += self._connection.send(h11.EndOfMessage())
        with trio.fail_after(self._limits.write_deadline_s):
            await self._stream.send_all(sent)

    def endless_head(self, content_type: str, headers: Headers = ()) -> bytes:
        """The head of a 200 whose body lasts until the connection is closed (RFC 9112 section 6.3).

        h11 would announce chunks to an HTTP/1.1 client; like this the body's bytes are the same for all clients.
        """
        lines = [f"{name}: {value}" for name, value in (*self._headers(content_type, headers), ("Connection", "close"))]
        return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()

    async def send_head(self, head: bytes) -> None:
        """Answer a `HEAD` with that head alone; the connection ends behind it. Raises: as `send`."""
        with trio.fail_after(self._limits.write_deadline_s):
            await self._stream.send_all(head)

    def _headers(self, content_type: str, headers: Headers) -> list[tuple[str, str]]:
        """These, and those that every answer has."""
        date = email.utils.formatdate(self._clock.now_ms() / 1000, usegmt=True)
        kind = [("Content-Type", content_type)] if content_type else []
        every = [("Date", date), *kind, *ALWAYS, *headers]
        said = {name.lower() for name, _ in every}
        return every + [header for header in _UNLESS_SAID if header[0].lower() not in said]

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
        if self._closing and not self._first:
            return False
        left, ended = self._connection.trailing_data
        if not left and not ended:
            until = self._deadline if self._first else trio.current_time() + self._limits.keep_alive_s
            if self._closing:
                until = min(until, trio.current_time() + _FIRST_WORDS_S)
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
        most_received = self._received + self._limits.head_bytes + _MOST_CODED * limit
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
                    if self._received > most_received:
                        raise too_large
                    if self._connection.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        await self._stream.send_all(self._connection.send(go_on))
                    await self._more()

    def _next_event(self) -> object:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            if self._opening and (strange := explained(self._opening, secure=False)):
                raise Refused(400, ErrorCode.BAD_REQUEST, f"not HTTP/1.1: {strange}", note=strange) from None
            if status == 431:
                raise self._head_too_long() from error
            # h11 quotes whole lines, with whatever secret is in them.
            reason = _QUOTED_LINE.sub("", str(error))[:200]
            raise Refused(status, ErrorCode.BAD_REQUEST, f"not HTTP/1.1: {reason}") from None

    def _head_too_long(self) -> Refused:
        limit = self._limits.head_bytes
        return Refused(431, ErrorCode.TOO_LARGE, f"a request's head of more than {limit} bytes is not accepted")

    async def _more(self) -> None:
        received = bytes(await self._stream.receive_some(_RECEIVE_BYTES))
        if not self._received:
            self._opening = received[:SHOWN_BYTES]
        self._received += len(received)
        self._connection.receive_data(received)

    def _parsed(self, head: h11.Request, body: bytes) -> Request:
        """Raises: Refused, where the query has too many fields."""
        # A proxy may send the absolute form, and a server has to accept it: it says more than `Host` (RFC 9112 section
        # 3.2.2).
        absolute = _ABSOLUTE.match(head.target)
        target = head.target[absolute.end() if absolute else 0 :].decode("ascii")
        fields_sent = head.headers if absolute is None else _readdressed(head.headers, absolute["host"])
        path, _, query = target.partition("?")
        try:
            fields = urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_QUERY_FIELDS)
        except ValueError:
            most = f"a query of more than {_MOST_QUERY_FIELDS} fields is not accepted"
            raise Refused(400, ErrorCode.BAD_REQUEST, most) from None
        headers, kept, presented = taken_out(
            tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in fields_sent), tuple(fields)
        )
        return Request(
            method=head.method.decode("ascii"),
            path=urllib.parse.unquote(path),
            query=kept,
            headers=headers,
            presented=presented,
            body=body,
            version=head.http_version.decode("ascii"),
            peer=self._peer,
            local=self._local,
            secure=self._secure,
        )


def _readdressed(headers: Iterable[tuple[bytes, bytes]], host: bytes) -> list[tuple[bytes, bytes]]:
    """The headers with that `Host`."""
    return [*((name, value) for name, value in headers if name != b"host"), (b"host", host)]


def _is_doubtful(head: h11.Request) -> bool:
    """Whether a proxy in between may see the request's end elsewhere, so that nothing behind it may be read.

    It has both a length and a coding, or a coding in a version that has none (RFC 9112 section 6.1). h11 refuses all
    else that is said twice and differs.
    """
    names = {name for name, _ in head.headers}
    return b"transfer-encoding" in names and (b"content-length" in names or head.http_version == b"1.0")


def _too_slow(what: str, limit_s: float) -> Refused:
    return Refused(408, ErrorCode.TIMEOUT, f"the request's {what} was not complete after {limit_s:g} s")
