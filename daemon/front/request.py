"""A request and its answer, as everything behind HTTP's wire (`daemon.front.http`) sees them.

What is secret in a request is taken out of its headers and its query before it becomes a `Request`: whoever shows,
logs or hands on one cannot give a token away.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

import msgspec

from daemon.front.tokens import Presented, redacted
from protocol.codes import ErrorCode
from protocol.grant import ANYONE, Grant
from protocol.messages import Error, encode

Headers: TypeAlias = tuple[tuple[str, str], ...]

JSON: Final = "application/json"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, complete.

    Attributes:
        method: as sent; methods are case-sensitive (RFC 9110 section 9.1).
        path: percent-decoded, without the query; once `daemon.front.paths` has seen it, one of our own.
        query: its fields in order, percent-decoded; without `token`.
        headers: names in lower case; without `authorization`.
        version: `1.0` or `1.1`.
        peer: the IP address of the remote end.
        local: the IP address that it came to, as far as it is known.
        secure: whether it came by TLS.
        vouched: whether a trusted proxy said so of `peer`.
        port: the one that a trusted proxy was reached at, as it says; "" where none does.
        prefix: what stands before our own paths in the client's URLs, as `/feed`; "" for nothing.
        presented: the tokens it brings.
        grant: what it may have, once `daemon.front.access` has judged that.
    """

    method: str
    path: str
    query: Headers = ()
    headers: Headers = ()
    body: bytes = b""
    version: str = "1.1"
    peer: str
    local: str = ""
    secure: bool = False
    vouched: bool = False
    port: str = ""
    prefix: str = ""
    presented: Presented = Presented()
    grant: Grant = ANYONE

    def __repr__(self) -> str:
        return f"Request({self.method} {redacted(self.path)} from {self.peer})"

    def values(self, name: str) -> list[str]:
        """Every value of the header; `name` in lower case."""
        return [value for known, value in self.headers if known == name]

    def tokens(self, name: str) -> list[str]:
        """The items of a header that is a list separated by commas (RFC 9110 section 5.6.1), over all its lines."""
        items = (item.strip() for value in self.values(name) for item in value.split(","))
        return [item for item in items if item]


class Response(msgspec.Struct, frozen=True):
    """One answer. `headers` beside the ones every answer has; length, date and connection are not its business.

    A 204 has no body, and so no type.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: Headers = ()


class Later(Protocol):
    """An answer that cannot be given before something else is here."""

    async def wait(self) -> None:
        """Wait for it, for a bounded time, and work in small steps. If cancelled, there is no answer."""
        ...

    def answer(self) -> Response:
        """The response, once `wait` has returned. Raises: Refused."""
        ...


class Refused(Exception):
    """A request that is not carried out, and the response that says why. A token that it quotes is made unreadable.

    Attributes:
        status: HTTP's status code.
        code: ours.
        headers: what belongs to that status, such as `Allow`.
        note: what the log says beside the code, for whoever can do something about it; "" for nothing.
    """

    def __init__(self, status: int, code: ErrorCode, message: str, headers: Headers = (), *, note: str = "") -> None:
        super().__init__(redacted(message))
        self.status = status
        self.code = code
        self.headers = headers
        self.note = redacted(note)

    def response(self, timestamp: str) -> Response:
        """The response: the same error object that websocket clients get."""
        error = Error(timestamp=timestamp, code=self.code, message=str(self))
        return Response(self.status, encode(error), headers=self.headers)
