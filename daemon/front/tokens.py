"""Bearer tokens (RFC 6750): making one, its digest, and keeping those that clients send out of every text.

A token is 256 random bits, so nobody can guess one, and a fast digest is enough: slow password hashing is for secrets
that people choose. It would be a way to keep the daemon busy, too, since whoever comes makes it work.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final, TypeAlias

import msgspec

Fields: TypeAlias = tuple[tuple[str, str], ...]
"""The headers of a request, or the fields of its query."""

PREFIX: Final = "tkd_"
"""Every token that is made here begins with it, so that scanners find one that was published by mistake."""

HEADER: Final = "authorization"
QUERY_FIELD: Final = "token"

_BYTES: Final = 32
_SECRET: Final = re.compile(rf"(?i)({PREFIX}(?=[\w-]{{8}})|token(?:=|%3d)|bearer(?:\s|%20|\+)+)(?!TOKEN\b)[^\s&'\"]+")


class Presented(msgspec.Struct, frozen=True):
    """What a request brings to show who it comes from. No `repr` shows it.

    Attributes:
        headers: the values of its `Authorization` headers.
        queries: the values of its query's `token` fields.
    """

    headers: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Presented({len(self.headers)} headers, {len(self.queries)} query fields)"


def new_token() -> str:
    """A token, as a client sends it."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def digest_of(token: str) -> bytes:
    """SHA-256 of a token's characters: what is kept in its place."""
    return hashlib.sha256(token.encode()).digest()


def taken_out(headers: Fields, query: Fields) -> tuple[Fields, Fields, Presented]:
    """Headers and query without what is secret in them, and that by itself."""
    presented = Presented(
        tuple(value for name, value in headers if name == HEADER),
        tuple(value for name, value in query if name == QUERY_FIELD),
    )
    return (
        tuple(each for each in headers if each[0] != HEADER),
        tuple(each for each in query if each[0] != QUERY_FIELD),
        presented,
    )


def redacted(text: str) -> str:
    """A text that quotes what a client sent, without what looks like a token: it may be one in the wrong place."""
    return _SECRET.sub(r"\1***", text)
