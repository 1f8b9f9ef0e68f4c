"""What CoinGecko's error answers mean: one interface, several shapes. No I/O.

Sources: docs.coingecko.com/docs/errors-and-rate-limits (statuses and codes); the shapes as seen by
client projects. The status decides, the body adds the words; but the body of a refusal for too many
calls has been seen with HTTP 200, so a body that is not the expected one is looked at here too.
"""

from __future__ import annotations

from typing import Final

import msgspec

from connectors.base import ConnectorError, PayloadError, VenueRefused, VenueThrottled, VenueUnavailable
from connectors.limits.payload import brief, read
from connectors.poll.venue import Answer

VENUE: Final = "CoinGecko"

PAUSE_S: Final = 60.0
"""Rest after HTTP 429 where the answer names none: the limits are per minute."""

SHORTEST_PAUSE_S: Final = 10.0
"""Rest after HTTP 429 where the answer names less; `retry-after: 0` has been seen."""

WRONG_ROOT_CODES: Final = frozenset({10010, 10011})
"""A Pro key on the root of the others, and the other way round. Keys of both kinds look alike."""

KEY_CODES: Final = frozenset({10002, 10005})
"""No key or a wrong one; a key of too small a plan."""


class Status(msgspec.Struct):
    """`{"timestamp":"2026-05-17T01:39:44.892+00:00","error_code":10002,"error_message":"API Key Missing. ..."}`."""

    error_code: int | None = None
    error_message: str = ""


class Nested(msgspec.Struct):
    """`{"status":{"error_code":10012,"error_message":"Your request exceeds the allowed time range. ..."}}`."""

    status: Status | None = None


class ErrorBody(msgspec.Struct):
    """Any of the shapes.

    `{"error":"coin not found"}`, `{"status":{...}}`, `{"error":{"status":{...}}}`, or
    `{"timestamp":"...","error_code":10011,"status":{"error_message":"If you are using Demo ..."}}`.
    """

    error: str | Nested | None = None
    status: Status | None = None
    error_code: int | None = None


class Stated(msgspec.Struct, frozen=True):
    """The error that a body states: its code (0 if it has none) and its words."""

    code: int = 0
    words: str = ""


def stated(body: bytes) -> Stated:
    """The error in a body; an empty one where it states none (the firewall sends HTML)."""
    try:
        seen = read(body, ErrorBody)
    except PayloadError:
        return Stated()
    match seen.error:
        case str(words):
            return Stated(seen.error_code or 0, words)
        case Nested(status=Status() as status):
            pass
        case _:
            status = seen.status or Status()
    return Stated(status.error_code or seen.error_code or 0, status.error_message)


def explain(answer: Answer, secret: str = "") -> ConnectorError | None:
    """What an error answer means for the connector; None where it is no error at all.

    Args:
        answer: with an error status, or with a body that is not the expected one.
        secret: the key, which the venue may repeat and clients must not see.
    """
    said = stated(answer.body)
    status = answer.status
    if 200 <= status < 300:
        if not said.code and not said.words:
            return None
        status = said.code if 400 <= said.code < 600 else 200
    text = said.words.replace(secret, "[key]") if secret else said.words
    words = f": {brief(text)}" if text else ""
    what = f"(HTTP {answer.status}{words})"
    if status == 429:
        asked_s = answer.retry_after_s
        pause_s = PAUSE_S if asked_s is None else max(asked_s, SHORTEST_PAUSE_S)
        return VenueThrottled(f"{VENUE} asked for a pause of {pause_s:.0f} s (HTTP {status})", retry_after_s=pause_s)
    if said.code in WRONG_ROOT_CODES:
        return VenueRefused(f"{VENUE}'s key is of another plan than [connectors.coingecko] plan and base_url {what}")
    if status == 401 or said.code in KEY_CODES:
        return VenueRefused(f"{VENUE} refused the key or its plan {what}")
    if status == 403:
        return VenueRefused(f"{VENUE}'s firewall refused the request {what}")
    if status >= 500 or status == 408:
        return VenueUnavailable(f"{VENUE} is in trouble {what}", retry_after_s=answer.retry_after_s)
    if status == 200:
        return VenueUnavailable(f"{VENUE} sent an error instead of data {what}")
    if 300 <= status < 400:
        return VenueRefused(f"{VENUE} has moved to another address (HTTP {status})")
    return VenueRefused(f"{VENUE} refused the request {what}")
