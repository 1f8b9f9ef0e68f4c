"""The live page: the files of `daemon/routes/web/`, read once at the start and served from memory.

Only the names below are served, so no path can lead out of the folder. There is no build step: the browser gets the
files as they are. A browser asks each time whether its copy is still valid (`ETag`, 304), so that it gets a newer
daemon's page at once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from daemon.front.http import Headers, Request, Response
from daemon.routes.declarations import declarations

FOLDER: Final = Path(__file__).parent / "web"

_HTML: Final = "text/html; charset=utf-8"
_JAVASCRIPT: Final = "text/javascript; charset=utf-8"

_SCRIPTS: Final = (
    "book",
    "candles",
    "canvas",
    "channels",
    "chart",
    "choice",
    "client",
    "colours",
    "console",
    "crosshair",
    "dom",
    "link",
    "lists",
    "market",
    "notices",
    "numbers",
    "page",
    "paint",
    "prices",
    "sparks",
    "storage",
    "tape",
    "theme",
    "trace",
    "trades",
    "venues",
    "wake",
)

FILES: Final = {
    "/": ("index.html", _HTML),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
    "/client.d.ts": ("client.d.ts", "text/plain; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", _JAVASCRIPT) for name in _SCRIPTS},
}
"""By path: the file, and its content type."""

FOR_OTHERS: Final = frozenset({"/client.js", "/client.d.ts"})
"""What other sites' pages may use; whether they may connect is decided at the handshake."""

_POLICY: Final = "; ".join(
    [
        # Load everything from here and nothing inline, so text of a venue or a client can never run.
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        # In browsers that support it, text cannot be assigned as HTML at all.
        "require-trusted-types-for 'script'",
    ]
)


class _Asset(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str
    headers: Headers


class Page:
    """Answers for the page's files."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read them.

        Raises:
            OSError: one is missing; its `filename` names it.
        """
        self._assets = {
            path: _asset(path, (folder / name).read_bytes(), content_type)
            for path, (name, content_type) in FILES.items()
        }

    def answer(self, request: Request) -> Response:
        """The file at the request's path, which must be one of `FILES`; 304 if the browser already has it."""
        asset = self._assets[request.path]
        if _has(request, dict(asset.headers)["ETag"]):
            return Response(304, b"", content_type=asset.content_type, headers=asset.headers)
        return Response(200, asset.body, content_type=asset.content_type, headers=asset.headers)


def types_of_client(head: bytes) -> bytes:
    """The declarations of `/client.js`: what is written by hand, and the messages."""
    return head + b"\n" + declarations().encode()


def _asset(path: str, body: bytes, content_type: str) -> _Asset:
    if path == "/client.d.ts":
        body = types_of_client(body)
    headers = [
        ("ETag", f'"{hashlib.sha256(body).hexdigest()[:20]}"'),
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", _POLICY),
    ]
    if path in FOR_OTHERS:
        headers.append(("Access-Control-Allow-Origin", "*"))
    return _Asset(body, content_type, tuple(headers))


def _has(request: Request, etag: str) -> bool:
    """Whether the browser already has this version (RFC 9110 section 13.1.2: compared weakly)."""
    known = request.tokens("if-none-match")
    return "*" in known or etag in (each.removeprefix("W/") for each in known)
