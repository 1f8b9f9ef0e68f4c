"""What there still is of a channel's messages: one plain request on a connection of its own. Pure.

found = await client.history("okx_candles", instrument="BTC/USDT", limit=500)
older = await client.history("okx_candles", instrument="BTC/USDT", before_ms=found.before_ms)
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from urllib.parse import quote, urlencode

import h11
import msgspec
from msgspec import UnsetType

from connectors.backoff import retry_after_s
from daemon.client.core.endpoint import MESSAGE_BYTES, Endpoint
from daemon.client.core.events import CommandRefused, NotUnderstood, ServerUnavailable
from daemon.client.core.verdicts import LOST, may_pass
from protocol.answers import History as Answer
from protocol.messages import Data, DataMessage, Error, Format, Message, MessageError, decode_message

RECEIVE_BYTES: Final = 65_536
"""So much is read at a time."""

LONGER_S: Final = 10.0
"""So much longer than for other answers is waited for a history: the daemon may have to ask a venue."""

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


class Question:
    """One request for a history, and its answer. The arguments are those of `Client.history`.

    Attributes:
        wait_s: how long to wait for the answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        channel: str,
        *,
        instrument: str | None = None,
        limit: int | None = None,
        before: int | None = None,
        before_ms: int | None = None,
    ) -> None:
        self.wait_s = endpoint.timeout_s + LONGER_S
        self._endpoint = endpoint
        asked = {"instrument": instrument, "limit": limit, "before": before, "before_ms": before_ms}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        # Beside `/ws`, whatever stands before that.
        base = endpoint.address.resource.partition("?")[0].rpartition("/")[0]
        self._target = f"{base}/history/{quote(channel, safe='')}" + (f"?{query}" if query else "")
        self._connection = h11.Connection(h11.CLIENT)
        self._status, self._headers, self._body = 0, dict[bytes, bytes](), bytearray()

    def outgoing(self) -> bytes:
        """What to send, once."""
        endpoint = self._endpoint
        headers = [("Host", endpoint.where), ("Accept", "application/json"), ("Connection", "close")]
        if endpoint.token:
            headers.append(("Authorization", f"Bearer {endpoint.token}"))
        request = h11.Request(method="GET", target=self._target, headers=headers)
        return self._connection.send(request) + self._connection.send(h11.EndOfMessage())

    def took(self, received: bytes, now_ms: int) -> History | None:
        """These bytes have come, b"" for the end, now (ms since 1970). Returns the answer, as soon as it is whole.

        Raises:
            CommandRefused: there is no such channel or instrument, the token does not cover it, or a number is wrong.
            ServerUnavailable: the connection ended too early, or the answer says "later".
            NotUnderstood: it is none of tickerd's.
        """
        self._connection.receive_data(received)
        while True:
            try:
                event = self._connection.next_event()
            except h11.RemoteProtocolError as error:
                if not received:
                    raise self.lost() from None
                raise NotUnderstood(f"{self._endpoint.where} does not speak HTTP: {error}") from None
            match event:
                case h11.NEED_DATA:
                    return None
                case h11.Response():
                    self._status, self._headers = event.status_code, dict(event.headers)
                case h11.Data():
                    self._body += event.data
                    if len(self._body) > MESSAGE_BYTES:
                        raise NotUnderstood(f"the answer to {self._target} has more than {MESSAGE_BYTES} bytes")
                case h11.EndOfMessage():
                    return self._judged(now_ms)
                case h11.ConnectionClosed():
                    raise self.lost()

    def lost(self) -> ServerUnavailable:
        """The connection ended before the answer was whole."""
        return ServerUnavailable(f"{self._endpoint.where}: {LOST}")

    def late(self) -> ServerUnavailable:
        """The answer did not come in time."""
        return ServerUnavailable(f"{self._endpoint.where} did not answer in {self.wait_s:g} s")

    def _judged(self, now_ms: int) -> History:
        said = f"{self._endpoint.where}{self._target.partition('?')[0]} answered with HTTP {self._status}"
        body = bytes(self._body)
        if self._status == _OK:
            return _read(body, said)
        error: Message | None = None
        with suppress(MessageError):
            error = decode_message(body, Format.JSON)
        if isinstance(error, Error) and not may_pass(self._status):
            raise CommandRefused(error.code, error.message, error.channels)
        why = f"{said}: {error.message}" if isinstance(error, Error) else said
        wait = self._headers.get(b"retry-after", b"").decode("latin-1")
        raise ServerUnavailable(why, retry_after_s(wait, now_ms))


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
