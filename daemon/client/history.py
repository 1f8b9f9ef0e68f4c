"""What there still is of a channel's messages: one plain request, on a connection of its own.

found = await client.history("okx_candles", instrument="BTC/USDT", limit=500)
older = await client.history("okx_candles", instrument="BTC/USDT", before_ms=found.before_ms)
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from urllib.parse import quote, urlencode

import h11
import msgspec
import trio
from msgspec import UnsetType

from connectors.base import VenueUnavailable
from connectors.push.dial import dial
from daemon.client.events import CommandRefused, NotUnderstood, ServerUnavailable
from daemon.client.link import Endpoint, wait_s
from protocol.answers import History as Answer
from protocol.messages import Data, DataMessage, Error, Format, Message, MessageError, decode_message

_MOST_BYTES: Final = 16 * 1024 * 1024
_RECEIVE_BYTES: Final = 65_536
_LATER: Final = frozenset({408, 425, 429})
"""HTTP statuses of 400 to 499 after which another try may succeed."""

_OK: Final = 200
_answer: Final = msgspec.json.Decoder(Answer)


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of a channel, oldest first.

    Attributes:
        messages: the messages. Candles of the venue's own history have `seq` 0 and `cached` true.
        epoch, seq: the tape, and its newest position then: what `subscribe(since=Position(epoch, seq))` goes on from.
        complete_from: from this `seq` on, none is missing on the tape.
        more: whether there is more, further back.
        before, before_ms: what to pass to go on there; None where it is the other one, or there is no more.
        reason: why something may be missing, such as a venue that does not answer; "" if nothing is.
    """

    messages: tuple[DataMessage, ...]
    epoch: str
    seq: int
    complete_from: int
    more: bool
    before: int | None
    before_ms: int | None
    reason: str


async def fetch(
    endpoint: Endpoint,
    channel: str,
    *,
    instrument: str | None = None,
    limit: int | None = None,
    before: int | None = None,
    before_ms: int | None = None,
    wait_at_most_s: float,
) -> History:
    """See `Client.history`. If cancelled, the connection is closed."""
    asked = {"instrument": instrument, "limit": limit, "before": before, "before_ms": before_ms}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    # Beside `/ws`, whatever stands before that.
    base = endpoint.address.resource.partition("?")[0].rpartition("/")[0]
    target = f"{base}/history/{quote(channel, safe='')}" + (f"?{query}" if query else "")
    status, headers, body = await _get(endpoint, target, wait_at_most_s)
    said = f"{endpoint.address.host_header}{target.partition('?')[0]} answered with HTTP {status}"
    if status == _OK:
        return _read(body, said)
    error: Message | None = None
    with suppress(MessageError):
        error = decode_message(body, Format.JSON)
    if isinstance(error, Error) and 400 <= status < 500 and status not in _LATER:
        raise CommandRefused(error.code, error.message, error.channels)
    why = f"{said}: {error.message}" if isinstance(error, Error) else said
    raise ServerUnavailable(why, wait_s(headers.get(b"retry-after", b"").decode("latin-1").strip()))


async def _get(endpoint: Endpoint, target: str, wait_at_most_s: float) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer. Raises: ServerUnavailable, NotUnderstood."""
    where = endpoint.address.host_header
    try:
        stream = await dial(endpoint.address, ssl_context=endpoint.ssl_context, timeout_s=endpoint.timeout_s)
    except VenueUnavailable as error:
        raise ServerUnavailable(f"{where}: {error}") from None
    try:
        with trio.move_on_after(wait_at_most_s):
            return await _exchange(stream, endpoint, target)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise ServerUnavailable(f"{where}: the connection was lost") from None
    except h11.RemoteProtocolError as error:
        raise NotUnderstood(f"{where} does not speak HTTP: {error}") from None
    finally:
        await trio.aclose_forcefully(stream)
    raise ServerUnavailable(f"{where} did not answer in {wait_at_most_s:g} s")


async def _exchange(stream: trio.abc.Stream, endpoint: Endpoint, target: str) -> tuple[int, dict[bytes, bytes], bytes]:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", endpoint.address.host_header), ("Accept", "application/json"), ("Connection", "close")]
    if endpoint.token:
        headers.append(("Authorization", f"Bearer {endpoint.token}"))
    request = h11.Request(method="GET", target=target, headers=headers)
    await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
    status, found, body = 0, dict[bytes, bytes](), bytearray()
    ended = False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            if ended:
                raise trio.BrokenResourceError from None  # it hung up before it was done
            raise
        match event:
            case h11.NEED_DATA:
                received = bytes(await stream.receive_some(_RECEIVE_BYTES))
                ended = not received
                connection.receive_data(received)
            case h11.Response():
                status, found = event.status_code, dict(event.headers)
            case h11.Data():
                body += event.data
                if len(body) > _MOST_BYTES:
                    raise NotUnderstood(f"the answer to {target} has more than {_MOST_BYTES} bytes")
            case h11.EndOfMessage():
                return status, found, bytes(body)
            case h11.ConnectionClosed():
                raise trio.BrokenResourceError


def _read(body: bytes, said: str) -> History:
    """Raises: NotUnderstood."""
    try:
        answer = _answer.decode(body)
        messages = [decode_message(bytes(raw), Format.JSON) for raw in answer.messages]
    except (msgspec.DecodeError, MessageError, UnicodeError, RecursionError) as error:
        raise NotUnderstood(f"{said}, which is no history: {error}") from None
    return History(
        messages=tuple(each for each in messages if isinstance(each, Data)),
        epoch=answer.epoch,
        seq=answer.seq,
        complete_from=answer.complete_from,
        more=answer.more,
        before=None if isinstance(answer.before, UnsetType) else answer.before,
        before_ms=None if isinstance(answer.before_ms, UnsetType) else answer.before_ms,
        reason=answer.reason,
    )
