"""Error codes and close codes, each with whether the client may come back.

They are part of the wire contract: a client may compare them, so a code is never renamed, only added.
"""

from __future__ import annotations

import enum


class ErrorCode(enum.StrEnum):
    """`code` of an `error` message, over the websocket and over HTTP."""

    MALFORMED = "malformed"
    """Not JSON (or not MessagePack), or not an object."""
    UNKNOWN_TYPE = "unknown_type"
    """`type` is missing or is none of the commands."""
    INVALID_FIELD = "invalid_field"
    """A field is missing, of the wrong type or outside its limits."""
    UNKNOWN_CHANNEL = "unknown_channel"
    UNKNOWN_INSTRUMENT = "unknown_instrument"
    TOO_MANY_CHANNELS = "too_many_channels"
    RATE_LIMITED = "rate_limited"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TOO_LARGE = "too_large"
    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    TIMEOUT = "timeout"
    FULL = "full"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class CloseCode(enum.IntEnum):
    """Websocket close codes this daemon sends.

    RFC 6455 section 7.4.1, the IANA registry, and 4000 to 4999 (private use).
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    NOT_UTF8 = 1007
    POLICY = 1008
    TOO_BIG = 1009
    TRY_AGAIN_LATER = 1013
    SLOW_CONSUMER = 4000
    NO_PONG = 4001

    @property
    def may_reconnect(self) -> bool:
        """Whether a client that was closed with this code should come back.

        The others say that the client itself must change first; coming back unchanged would end the same way.
        """
        return self in _COME_BACK


_COME_BACK = frozenset({CloseCode.GOING_AWAY, CloseCode.TRY_AGAIN_LATER, CloseCode.SLOW_CONSUMER, CloseCode.NO_PONG})
