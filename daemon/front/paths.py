"""The paths that clients use, and the one that is meant. Pure.

A websocket cannot be redirected, so whatever is meant without doubt is served: `/ws/` and `//ws` are `/ws`, and below a
prefix (`[server] prefix`, or what a trusted proxy says) `/feed/ws` is `/ws` too. A proxy may take the prefix away or
leave it there, and who asks the daemon itself needs none. Everything behind this, the guards too, sees one spelling.

The page's own links are relative, so below a prefix it has to be opened with a slash at the end: without one a browser
is sent there.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

import msgspec

from daemon.front.request import Request, Response

PATTERN: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?")
"""What `[server] prefix` may be, if it is anything."""

_NAMELESS: Final = ("/snapshot/", "/history/")
"""What follows is a channel's name, and here an empty one."""

_SLASHES: Final = re.compile(r"/{2,}")


def meant(request: Request, prefix: str) -> Request:
    """The request by our own path, and with the prefix that stands before it in the client's URLs.

    `prefix` is `[server] prefix`; the request has that of a trusted proxy.
    """
    path, seen = _spelled(request.path), request.prefix.rstrip("/")
    for each in (urllib.parse.unquote(seen), prefix.rstrip("/")):
        if each and (path == each or path.startswith(f"{each}/")):
            seen = seen or urllib.parse.quote(each)
            path = path.removeprefix(each) or "/"
            break
    if path == request.path and seen == request.prefix:
        return request
    return msgspec.structs.replace(request, path=path, prefix=seen)


def to_the_slash(asked: Request, meant: Request) -> Response | None:
    """Where a browser has to go for the page's links to work; None for all other requests.

    Args:
        asked: the request with the path as it came.
        meant: the same behind `meant`.
    """
    if meant.path != "/" or asked.path.endswith("/") or asked.method not in ("GET", "HEAD") or asked.path in ("", "*"):
        return None
    last = urllib.parse.quote(asked.path.rpartition("/")[2])
    query = urllib.parse.urlencode(asked.query)
    # Relative: another proxy may have taken another prefix away.
    return Response(308, b"", content_type="", headers=(("Location", f"{last}/{'?' if query else ''}{query}"),))


def _spelled(path: str) -> str:
    """One slash for several, none at the end, and one where there is nothing."""
    path = _SLASHES.sub("/", path)
    return path if path.endswith(_NAMELESS) else path.rstrip("/") or "/"
