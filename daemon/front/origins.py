"""Whose pages may read here, and who may act. Pure.

A browser lets any page send requests to any address; `Origin` says whose page it is (RFC 6454), and what the answer's
`Access-Control-Allow-Origin` says decides whether the page may read it (Fetch standard, section 3.2). A websocket is
open to every page that the server does not refuse (RFC 6455 section 10.2).

* *Reading* (`GET`, `HEAD`, the websocket, event streams) is open to any page where `[server] origins` has `*`, as by
  default: data needs no token then, and where it does a page has to be given one, for none is sent by itself. Otherwise
  it is open to our own pages and to those in the list.
* *Acting* (every other method) is never open to any page. It wants an `Origin` of our own, or one that the list has by
  name, if there is one at all; and a `Host` that is a name of this daemon's. Without the latter a page could give its
  own name our address (DNS rebinding), so that its `Origin` and our `Host` agree.

Ours is scheme, host and port as the client addressed us.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from daemon.front import addresses
from daemon.front.request import Headers, Refused, Request, Response
from protocol.codes import ErrorCode

ANY: Final = "*"
"""In the list: pages of any origin may read, those without one (`null`: opened from a file) too."""

SAFE: Final = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110 section 9.2.1)."""

_ORIGIN: Final = re.compile(r"(?P<scheme>https?)://(?P<host>.*?)(?::(?P<port>\d+))?")
_HOST: Final = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d*)?|(?P<name>[^:\[\]]*)(?::\d*)?")
_PORTLESS: Final = re.compile(r"\[[^\]]*\]|[^:\[\]]+")
_PORTS: Final = {"http": "80", "https": "443"}

_ASKS_METHOD: Final = "access-control-request-method"
_ASKS_PRIVATE: Final = "access-control-request-private-network"
_LEARNS: Final = ("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
_ALLOWS: Final[Headers] = (
    # The asterisk does not stand for Authorization (Fetch standard, section 4.8.1).
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID, Cache-Control, *"),
    ("Access-Control-Max-Age", "600"),
)

_LONGEST_SHOWN: Final = 200


def check_reading(request: Request, origins: AbstractSet[str]) -> None:
    """Let in who has no `Origin` (no browser), and pages that may read. Raises: Refused, 403."""
    if not may_read(request, origins):
        seen = shown(request)
        told = f"pages of the origin {seen!r} are not let in: it is not in the daemon's list (server.origins)"
        raise Refused(403, ErrorCode.FORBIDDEN, told, note=f"the origin {seen!r} is not in server.origins")


def may_read(request: Request, origins: AbstractSet[str]) -> bool:
    """Whether the request comes from no page, or from one that may read."""
    return ANY in origins or _is_trusted(request, origins)


def check_acting(request: Request, origins: AbstractSet[str], names: AbstractSet[str]) -> None:
    """Let in who has no `Origin`, ours or one that is listed by name, and addressed us by a name of ours.

    Args:
        request: by a method that may change something.
        origins: `[server] origins`.
        names: `[server] names`, as `spelled`, beside the loopback's names and the address that the request came to.

    Raises:
        Refused: 403.
    """
    hosts = request.values("host")
    if len(hosts) != 1 or not _is_ours(hosts[0], {*names, request.local} - {""}):
        seen = ", ".join(hosts)[:_LONGEST_SHOWN]
        told = f"{request.method[:20]} to the host {seen!r}: it is no name of this daemon's (server.names)"
        raise Refused(403, ErrorCode.FORBIDDEN, told, note=f"the host {seen!r} is not in server.names")
    if not _is_trusted(request, origins):
        seen = shown(request)
        told = (
            f"pages of the origin {seen!r} may only read here: it is not in the daemon's list by name (server.origins)"
        )
        raise Refused(403, ErrorCode.FORBIDDEN, told, note=f"the origin {seen!r} is not in server.origins by name")


def sharing(seen: Sequence[str], origins: AbstractSet[str]) -> Headers:
    """The headers of an answer that let a page read it; `seen`: the request's `Origin`, as far as one is known."""
    if ANY in origins:
        return (("Access-Control-Allow-Origin", ANY), _LEARNS)
    if not origins:
        return ()
    if len(seen) == 1 and _without_default_port(seen[0]) in _listed(origins):
        return (("Vary", "Origin"), ("Access-Control-Allow-Origin", seen[0]), _LEARNS)
    return (("Vary", "Origin"),)


def spelled(name: str) -> str:
    """A name of a host, or its address, as it can be compared."""
    try:
        return addresses.plain(name)
    except ValueError:
        return name.lower().removesuffix(".")


def is_preflight(request: Request) -> bool:
    """Whether a browser asks if its page may send a request (Fetch standard, section 3.2.2)."""
    return request.method == "OPTIONS" and bool(request.values("origin") and request.values(_ASKS_METHOD))


def preflight(request: Request, origins: AbstractSet[str], names: AbstractSet[str]) -> Response:
    """What a page may send: what reads, whatever it asks for; and what acts, where it may act. No token is needed.

    Raises:
        Refused: 403, for a page that may not do what it asks for.
    """
    check_reading(request, origins)
    [asked, *_] = request.values(_ASKS_METHOD)
    allowed = ["GET", "HEAD"]
    if asked not in SAFE:
        check_acting(request, origins, names)
        allowed.append("POST")
    private = "true" in request.values(_ASKS_PRIVATE)
    return Response(
        204,
        b"",
        content_type="",
        headers=(
            ("Access-Control-Allow-Methods", ", ".join(allowed)),
            *_ALLOWS,
            *([("Access-Control-Allow-Private-Network", "true")] if private else []),
        ),
    )


def shown(request: Request) -> str:
    """The origin that the request names, as a text may show it."""
    return ", ".join(request.values("origin"))[:_LONGEST_SHOWN]


def _is_trusted(request: Request, origins: AbstractSet[str]) -> bool:
    """Whether it has no `Origin`, or the one that it has is ours or listed by name."""
    seen = request.values("origin")
    if len(seen) != 1:
        return not seen
    origin = _without_default_port(seen[0])
    scheme = "https" if request.secure else "http"
    hosts = request.values("host")
    if request.port:
        # A proxy that writes `Host` anew may leave the port out of it; one in a container may have another one itself.
        hosts += [f"{host}:{request.port}" for host in hosts if _PORTLESS.fullmatch(host)]
    ours = {_without_default_port(f"{scheme}://{host}") for host in hosts}
    return origin in ours or origin in _listed(origins)


def _listed(origins: AbstractSet[str]) -> set[str]:
    return {_without_default_port(each) for each in origins if each != ANY}


def _is_ours(host: str, names: AbstractSet[str]) -> bool:
    """Whether `Host` names this daemon: as the loopback, or as one of these; the port is not looked at."""
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return False
    name = spelled(found["v6"] if found["name"] is None else found["name"])
    # RFC 6761 section 6.3: no resolver gives these names to somebody else.
    if name in names or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _without_default_port(origin: str) -> str:
    """An origin as it can be compared: lower case, and no port where it is the scheme's own (RFC 6454 section 6.2)."""
    origin = origin.strip().lower()
    found = _ORIGIN.fullmatch(origin)
    if found is not None and found["port"] == _PORTS[found["scheme"]]:
        return f"{found['scheme']}://{found['host']}"
    return origin
