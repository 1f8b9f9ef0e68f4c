"""Error codes and close codes; each close code says whether the client may come back.

They are part of the wire contract: clients compare them, so codes are added but never renamed.
"""

from __future__ import annotations

import enum
from typing import Self


class ErrorCode(enum.StrEnum):
    """`code` of an `error` message, over the websocket and over HTTP.

    Attributes:
        meaning: one sentence about it.
    """

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        """A code with what it means."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """A later version's code, for those who read one: it equals its text, and is none of the members."""
        if not isinstance(value, str):
            return None
        code = str.__new__(cls, value)
        code._name_ = code._value_ = value
        code.meaning = "A code of a later version."
        return code

    @property
    def is_known(self) -> bool:
        """Whether it is of this version."""
        return self._value_ in type(self)._value2member_map_

    MALFORMED = "malformed", "Not JSON (or not MessagePack), or not an object."
    UNKNOWN_TYPE = "unknown_type", "`type` is missing or is none of the commands."
    INVALID_FIELD = "invalid_field", "A field is missing, of the wrong type or outside its limits."
    UNKNOWN_CHANNEL = "unknown_channel", "No channel has that name; the message names the nearest ones."
    UNKNOWN_INSTRUMENT = "unknown_instrument", "The channel has no such instrument."
    TOO_MANY_CHANNELS = "too_many_channels", "More channels than one command may name."
    INTERVAL_REFUSED = (
        "interval_refused",
        "`interval_ms` for a channel whose messages all count; the message names what to take instead.",
    )
    RATE_LIMITED = (
        "rate_limited",
        "More commands, or HTTP requests (429), than the allowed rate; this one was not carried out.",
    )
    NOT_FOUND = "not_found", "HTTP 404: nothing is at that path."
    METHOD_NOT_ALLOWED = "method_not_allowed", "HTTP 405: the path has other methods, which `Allow` names."
    TOO_LARGE = "too_large", "HTTP 413 or 431: the body or the head is over its limit."
    BAD_REQUEST = "bad_request", "HTTP 400, 415 or 426: not HTTP, not JSON, or not the handshake of a websocket."
    UNAUTHORIZED = "unauthorized", "HTTP 401: a token is needed, and none that is known was sent."
    FORBIDDEN = "forbidden", "The token does not cover it; over HTTP 403, also for an origin, an address or a host."
    TIMEOUT = "timeout", "HTTP 408: the request did not come to its end in time."
    FULL = "full", "HTTP 503: all places are taken; come back after `Retry-After`."
    UNAVAILABLE = "unavailable", "HTTP 503: the daemon is stopping; come back after `Retry-After`."
    INTERNAL = (
        "internal",
        "The daemon failed, or a message has no MessagePack form; over HTTP 500, and its log says why.",
    )


class CloseCode(enum.IntEnum):
    """Websocket close codes this daemon sends.

    RFC 6455 section 7.4.1, the IANA registry, and 4000 to 4999 (private use).

    Attributes:
        meaning: one sentence about it.
    """

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """A code with what it means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    NORMAL = 1000, "The client asked for it."
    GOING_AWAY = (
        1001,
        "The daemon is stopping, or its tape begins anew; `goodbye` came before and says when to come back.",
    )
    UNSUPPORTED_DATA = 1003, "A binary frame on the JSON protocol, or a text frame on the MessagePack one."
    NOT_UTF8 = 1007, "A text frame that is not UTF-8."
    POLICY = 1008, "Against policy, such as too many frames in a row of which nothing could be carried out."
    TOO_BIG = 1009, "A message over the limit."
    INTERNAL_ERROR = 1011, "The daemon failed; its log says why."
    TRY_AGAIN_LATER = 1013, "The daemon is full."
    SLOW_CONSUMER = 4000, "Nothing could be written for the write deadline; come back with `since`."
    NO_PONG = 4001, "Not a byte came for too long, no pong either; come back with `since`."

    @property
    def may_reconnect(self) -> bool:
        """Whether a client that was closed with this code should come back.

        The others say that the client itself must change first; coming back unchanged would end the same way.
        """
        return self in _COME_BACK


_COME_BACK = frozenset(
    {
        CloseCode.GOING_AWAY,
        CloseCode.INTERNAL_ERROR,
        CloseCode.TRY_AGAIN_LATER,
        CloseCode.SLOW_CONSUMER,
        CloseCode.NO_PONG,
    }
)
