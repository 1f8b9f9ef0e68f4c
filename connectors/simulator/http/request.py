"""One HTTP request to a simulated venue, and its answer, as plain values.

A simulated venue is a function from `VenueRequest` to `VenueResponse`. Nothing here reads or writes a socket,
so an answer can be looked at, changed or replaced before it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

import msgspec

JSON = ("content-type", "application/json;charset=UTF-8")


class VenueRequest(msgspec.Struct, frozen=True):
    """A request's head.

    Attributes:
        target: Path and query as sent, still percent-encoded.
        headers: By lower-case name; of a repeated header the last one.
        peer: The client's address, without the port: what venues count limits by.
        body: Where the path is one that takes a body.
    """

    method: str
    target: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    peer: str = "127.0.0.1"
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's parameters, percent-decoded, each with all its values, empty ones too."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter, or `None` where it is absent or empty."""
        values = self.query.get(name)
        return values[0] or None if values else None


class Delivery(msgspec.Struct, frozen=True):
    """How an answer gets to the client; by default at once and whole.

    Attributes:
        delay_s: Before the first byte.
        bytes_per_s: The pace of the body; None is as fast as it goes.
        missing_bytes: What `Content-Length` announces beyond the body; the connection ends behind the body.
        endless: The body never ends.
        reset_after: The connection is reset (TCP RST) after so many bytes of head and body.
        raw: Bytes that are sent instead of the answer; the connection ends behind them.
    """

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    missing_bytes: int = 0
    endless: bool = False
    reset_after: int | None = None
    raw: bytes | None = None


class VenueResponse(msgspec.Struct, frozen=True):
    """An answer. `Content-Length` and `Connection` are the server's and not in `headers`."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (JSON,)
    delivery: Delivery = Delivery()

    def with_headers(self, *headers: tuple[str, str]) -> VenueResponse:
        """The same answer with more headers."""
        return msgspec.structs.replace(self, headers=(*self.headers, *headers))


def json_response(value: object, status: int = 200) -> VenueResponse:
    """`value` as a JSON body."""
    return VenueResponse(status, msgspec.json.encode(value))
