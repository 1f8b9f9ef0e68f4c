"""Who may have data: bearer tokens, and what each of them covers. Pure.

A daemon whose configuration never spoke of tokens lets everybody have everything. One that has tokens, or had some,
wants one on these paths: `/ws`, `/ws/test`, `/events`, `/snapshot/...`, `/history/...` and `/cluster`. To revoke the
last one closes the door; only the operator's word (`[server] open`) opens it. The other paths stay open: the page and
`/client.js`, since a browser cannot send a token for them and they hold no data; `/healthz`, `/readyz` and `/metrics`,
since who watches over the daemon is no client of it; `/channels` and `/gaps`, which say what there is and how it does,
and no price.

A token is sent as `Authorization: Bearer TOKEN` (RFC 6750 section 2.1), or, by browsers, which cannot set a header on a
websocket or an EventSource, as `?token=TOKEN`. It is compared as a digest, with every token of the configuration, in a
time that does not depend on where the digests differ or whether there is such a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from daemon.front.request import Headers, Refused
from daemon.front.tokens import Presented, digest_of
from protocol.codes import CloseCode, ErrorCode
from protocol.grant import ANYONE, Grant

_PATHS: Final = frozenset({"/ws", "/ws/test", "/events", "/cluster"})
_BELOW: Final = ("/snapshot/", "/history/")

_BEARER: Final = re.compile(r"(?i:bearer)(?: +(?P<token>.*))?", re.DOTALL)
_TOKEN: Final = re.compile(r"[!-~]{1,512}")

_CHALLENGE: Final = 'Bearer realm="tickerd"'
_HOW: Final = "send it as Authorization: Bearer TOKEN, or from a browser as ?token=TOKEN"


def is_guarded(path: str) -> bool:
    """Whether a token is needed there, where there are any."""
    return path in _PATHS or path.startswith(_BELOW)


Tokens: TypeAlias = Sequence[Grant] | None
"""What is in force: the tokens that let somebody in, none of them for nobody; None where no token is needed."""

CLOSED: Final = (
    "nobody is let in: no token is in force. Make one with `tickerd token`, or let everybody have all data with "
    "[server] open = true"
)
"""What the operator is told where no token is in force, and one is needed."""


def in_force(tokens: Sequence[Grant], *, opened: bool, declared: bool, before: bool) -> Tokens:
    """What follows from a configuration.

    Args:
        tokens: those that it has.
        opened: whether it says `[server] open`: nobody needs a token where there is none.
        declared: whether it speaks of tokens at all, as by an empty `[tokens]` table.
        before: whether a token was needed until now.
    """
    if tokens:
        return tokens
    return None if opened or not (declared or before) else ()


def granted(presented: Presented, tokens: Tokens) -> Grant:
    """What a request may have that brings these tokens, where these are in force.

    A token in the header counts, whatever is in the query. Another scheme's header (a proxy may have asked for a
    password) is passed over where the query has a token.

    Raises:
        Refused: 401 where there is no token or none of those in force, 400 where it is not sent as it must be. The
            answer never repeats what was sent.
    """
    if tokens is None:
        return ANYONE
    if not tokens:
        raise _unauthorized("nobody is let in: no token is in force, and the operator has not opened the daemon")
    digest = digest_of(_sent(presented))
    found: Grant | None = None
    for grant in tokens:  # every one of them: how long it takes is not to tell which
        if hmac.compare_digest(grant.mark, digest):
            found = grant
    if found is None:
        raise _unauthorized("the token that was sent is none of those in force", "invalid_token")
    return found


def _sent(presented: Presented) -> str:
    """The one token of the request. Raises: Refused."""
    if len(presented.headers) > 1:
        raise _malformed(f"{len(presented.headers)} Authorization headers; one is allowed")
    for value in presented.headers:
        found = _BEARER.fullmatch(value)
        if found is not None:
            token = (found["token"] or "").strip()
            if not _TOKEN.fullmatch(token):
                raise _malformed("Authorization: Bearer, and then no token; a token is printable and has no spaces")
            return token
    if len(presented.queries) > 1:
        raise _malformed(f"{len(presented.queries)} times token= in the query; once is allowed")
    for value in presented.queries:
        if not _TOKEN.fullmatch(value):
            raise _malformed("token= in the query, and then no token; a token is printable and has no spaces")
        return value
    if presented.headers:
        raise _unauthorized(f"Authorization of another kind than Bearer; a token is needed here: {_HOW}")
    raise _unauthorized(f"a token is needed here: {_HOW}")


def ending(tokens: Tokens, grant: Grant) -> tuple[CloseCode, str] | None:
    """Why a client with that grant is to be closed, where these tokens are in force now; None where it may stay."""
    tokens = (ANYONE,) if tokens is None else tokens
    if grant in tokens:
        return None
    if grant == ANYONE:
        return CloseCode.POLICY, "a token is needed from now on"
    if any(hmac.compare_digest(each.mark, grant.mark) for each in tokens):
        return CloseCode.TRY_AGAIN_LATER, f"token {grant.name} was changed: connect again"
    return CloseCode.POLICY, f"token {grant.name} was revoked"


def exposure(hosts: Iterable[str], *, tokens: bool, encrypted: bool) -> list[str]:
    """What to warn of where the daemon listens on other addresses than loopback: one line each, with what to do.

    Args:
        hosts: the addresses it listens on.
        tokens: whether there are any.
        encrypted: whether TLS is spoken, here or by a proxy that stands in front.
    """
    public = ", ".join(dict.fromkeys(host for host in hosts if not ipaddress.ip_address(host).is_loopback))
    if not public:
        return []
    lines = []
    if not tokens:
        lines.append(
            f"listening on {public} without tokens: whoever can reach it gets all data; "
            "make one with `tickerd token`, or set [server] host to localhost"
        )
    if not encrypted:
        lines.append(
            f"listening on {public} without TLS: whoever is on the way can read tokens and data; set [server] "
            "certificate and key, or let a proxy speak TLS and name it in [server] trusted_proxies"
        )
    return lines


def _unauthorized(message: str, error: str = "") -> Refused:
    """401. A request without any token is told of no error, only of what is wanted (RFC 6750 section 3.1)."""
    return Refused(401, ErrorCode.UNAUTHORIZED, message, _challenge(error))


def _malformed(message: str) -> Refused:
    return Refused(400, ErrorCode.INVALID_FIELD, message, _challenge("invalid_request"))


def _challenge(error: str) -> Headers:
    return (("WWW-Authenticate", f'{_CHALLENGE}, error="{error}"' if error else _CHALLENGE),)
