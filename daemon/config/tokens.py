"""`[tokens.NAME]`: the keys of a section. It holds only the token's digest, never the token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from daemon.config.reader import dotted, shown
from daemon.front.tokens import PREFIX, digest_of, redacted
from protocol.grant import ALL_CHANNELS, Grant

_HASH: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_NAME: Final = re.compile(rf"(?!{PREFIX})[A-Za-z0-9_-]{{1,64}}")
_PATTERN: Final = re.compile(r"[a-z0-9_*?]{1,64}")
ALLOWED_NAME: Final = f"1 to 64 letters, digits, _ and -, not beginning with {PREFIX}, as tokens do"
_HASH_ALLOWED: Final = "sha256: and 64 hexadecimal digits, as `tickerd token` prints it"


class TokenSection(msgspec.Struct, frozen=True):
    """One section as it is written. `hash` is not shown, either, because a weak token could be guessed from it.

    Attributes:
        hash: the token's digest, as `tickerd token` prints it.
        channels: which channels it covers; `*` and `?` are wildcards.
        test: whether its bearer may send test messages to everybody.
    """

    hash: Annotated[str, Meta(description=_HASH_ALLOWED, extra={"secret": True})] = ""
    channels: Annotated[tuple[str, ...], Meta(description='a list of channels and patterns, as ["binance_*"]')] = (
        ALL_CHANNELS
    )
    test: bool = False

    def __repr__(self) -> str:
        shown = "***" if self.hash else repr("")
        return f"TokenSection(hash={shown}, channels={self.channels!r}, test={self.test!r})"


def is_name(text: str) -> bool:
    """Whether a token may have that name, which appears in the log and in messages to clients."""
    return _NAME.fullmatch(text) is not None


def written_hash(token: str) -> str:
    """A token's digest in the form of the configuration."""
    return f"sha256:{digest_of(token).hex()}"


def grants(sections: Mapping[str, TokenSection]) -> tuple[Grant, ...]:
    """The grant of each token, in order. The sections must have passed `refused`."""
    return tuple(
        Grant(name, section.channels, bytes.fromhex(section.hash.removeprefix("sha256:")), section.test)
        for name, section in sections.items()
    )


def refused(sections: Mapping[str, TokenSection]) -> Iterator[tuple[str, str, str]]:
    """Key, value seen and what is allowed, for rules beyond types and ranges."""
    seen: dict[str, str] = {}
    for name, section in sections.items():
        key = redacted(dotted(("tokens", name)))
        if not is_name(name):
            yield key, redacted(f"the name {shown(name)}"), ALLOWED_NAME
            continue
        digest = section.hash.lower()
        if not _HASH.fullmatch(section.hash):
            yield f"{key}.hash", _described(section.hash), _HASH_ALLOWED
        elif digest in seen:
            yield f"{key}.hash", f"the hash of {seen[digest]}", "a hash of its own: each token has one name"
        seen.setdefault(digest, dotted(("tokens", name)))
        if not section.channels or not all(map(_PATTERN.fullmatch, section.channels)):
            allowed = "at least one channel or pattern, of a to z, 0 to 9, _, * and ?"
            yield f"{key}.channels", redacted(shown(section.channels)), allowed


def _described(given: str) -> str:
    if not given:
        return '""'
    if given.startswith(PREFIX):
        return "a token, which is not shown: make another, this one has been written down"
    return "a value that is not shown"
