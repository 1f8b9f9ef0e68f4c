"""What an end or an answer means: try again, give up, or something else that speaks there. Pure."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, get_args

import msgspec

from connectors.backoff import retry_after_s
from daemon.client.core.endpoint import Endpoint
from daemon.client.core.events import ClientError, NotUnderstood, ServerRefused, ServerUnavailable
from protocol.codes import CloseCode
from protocol.messages import Error, Format, Message, MessageError, Welcome, decode_message

ABNORMAL: Final = 1006
"""The code of a connection that ended without a close frame (RFC 6455 section 7.1.5)."""

LOST: Final = "the connection was lost"

_FINAL: Final = frozenset(code for code in CloseCode if not code.may_reconnect) - {CloseCode.NORMAL}
_LATER: Final = frozenset({408, 425, 429})
"""HTTP statuses of 400 to 499 whose cause is not this client, so that another try may succeed."""

_TAGS: Final = frozenset(each.__struct_config__.tag for each in get_args(Message))


class Disconnected(Exception):
    """The connection has ended, and a new one may be opened. `code` is the close code."""

    def __init__(self, reason: str, code: int = ABNORMAL) -> None:
        super().__init__(reason)
        self.code = code


class _Tagged(msgspec.Struct):
    type: str


def decode(raw: str | bytes) -> Message | None:
    """A message, or None for one of an unknown type. Raises: NotUnderstood."""
    if isinstance(raw, bytes):
        raise NotUnderstood("a binary frame came on the JSON protocol")
    try:
        return decode_message(raw, Format.JSON)
    except MessageError as error:
        try:
            tag = msgspec.json.decode(raw, type=_Tagged).type
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            tag = None
        if tag is not None and tag not in _TAGS:
            return None
        raise NotUnderstood(f"the data received is not a message: {error}") from None


def greeted(endpoint: Endpoint, raw: str | bytes) -> Welcome:
    """The first message of a connection. Raises: NotUnderstood, if it is not the welcome."""
    first = decode(raw)
    if not isinstance(first, Welcome):
        raise NotUnderstood(f"{endpoint.where} sent no welcome; it is not tickerd, or another version")
    return first


def ended(code: int | None, reason: str | None) -> Disconnected | ServerRefused:
    """What a connection's close frame means; `code` is None, or 1006, where none came."""
    if code is None or code == ABNORMAL:
        return Disconnected(LOST)
    said = f"closed with {code} {reason or ''}".rstrip()
    return ServerRefused(said, code) if code in _FINAL else Disconnected(said, code)


def rejected(endpoint: Endpoint, status: int, retry_after: str, body: bytes, now_ms: int) -> ClientError:
    """What an HTTP answer instead of an upgrade means.

    Only the daemon's own word is final: it refuses by an error object and a status of 400 to 499. Whatever else comes
    is from something in between (404 or 52x while the daemon is restarted, a page that asks for patience or for a
    login, a redirect to one) and may pass.

    Args:
        endpoint: who was asked.
        status: the HTTP status.
        retry_after: the header of that name, "" for none; it is followed for an hour at most.
        body: as far as it was read.
        now_ms: when it came, ms since 1970.
    """
    said = f"{endpoint.where}{endpoint.address.resource.partition('?')[0]} answered with HTTP {status}"
    error: Message | None = None
    with suppress(MessageError):
        error = decode_message(body, Format.JSON)
    if isinstance(error, Error):
        said = f"{said}: {error.message}"
        if not may_pass(status):
            return ServerRefused(said, status)
    return ServerUnavailable(said, retry_after_s(retry_after, now_ms))


def may_pass(status: int) -> bool:
    """Whether another try may succeed after the daemon itself has answered so; other answers always may pass."""
    return not 400 <= status < 500 or status in _LATER


def unanswered(endpoint: Endpoint) -> ServerUnavailable:
    """Nothing came of the opening handshake in time."""
    return ServerUnavailable(f"{endpoint.where} did not answer the opening handshake in {endpoint.timeout_s:g} s")


def hung_up(endpoint: Endpoint) -> ServerUnavailable:
    """The connection ended in the middle of the opening handshake."""
    return ServerUnavailable(f"{endpoint.where} hung up during the opening handshake")


def no_websocket(endpoint: Endpoint) -> NotUnderstood:
    """What came is not the protocol."""
    return NotUnderstood(f"{endpoint.where} does not speak the websocket protocol")


def unsent(endpoint: Endpoint) -> Disconnected:
    """The daemon does not read."""
    return Disconnected(f"nothing could be sent for {endpoint.timeout_s:g} s")
