"""The I/O shell of one client of Server-Sent Events (`GET /events`, WHATWG HTML section 9.2).

For the hub it is a client like any other, with another envelope: the passes write the tape's own bytes to its socket,
and a catch-up task brings it to the head if it is behind. But it sends no commands: its one subscription comes with its
request. Later bytes are read and dropped, only to notice when the client leaves.

The `id` of the last event is the client's position, and all that it sends when it comes back. So an event has an `id`
only if everything before it has been sent or announced as missing. Where no event can carry one (after a snapshot, and
from time to time on a quiet channel), a block with only an `id` does. A `goodbye` replaces the close code of a
websocket.
"""

from __future__ import annotations

import logging
import math
import random
import socket
from typing import Final

import trio

from daemon.front import event_request
from daemon.front.arrivals import EventClient
from daemon.front.event_request import EventRequest
from daemon.front.http import Request
from daemon.front.limits import Limits
from daemon.sessions.client import ConnectedClient
from daemon.sessions.sessions import Sessions
from daemon.sessions.stream import ClientStream
from protocol.channels import Catalogue
from protocol.codes import CloseCode
from protocol.frames import sse_event
from protocol.messages import Format, Goodbye, encode
from protocol.session import Join, Reply

_RETRY_MS: Final = (1000, 4000)
"""A browser is asked to wait a random time in this range before it comes back, so that not all come at once."""

_IGNORED_BYTES: Final = 64 * 1024
"""So much may follow the request: a client that sends more takes this for another protocol."""

_LINGER_S: Final = 1.0
"""How long a client may take to close its own end, once everything has been sent."""

_log: Final = logging.getLogger(__name__)


class EventStream(ConnectedClient):
    """One client: its stream, and its place in the hub."""

    def __init__(self, sessions: Sessions, client: EventClient, nursery: trio.Nursery) -> None:
        super().__init__(
            sessions.hub,
            ClientStream(client.stream),
            format=Format.SSE,
            peer=client.peer,
            grant=client.request.grant,
            nursery=nursery,
            ping_every_s=sessions.limits.ping_every_s,
        )
        self._tape = sessions.tape
        self._joining = sessions.joining
        self._clock = sessions.clock
        self._counts = sessions.counts

    async def wait_for(self, request: EventRequest) -> None:
        """Wait for the position that the client has had from another process, if there is one; not for long."""
        for effect in request.effects:
            if isinstance(effect, Join) and effect.since is not None and self._joining.patience_s:
                await self._joining.wait_for(effect.since)

    def answer(self, request: EventRequest) -> None:
        """Answer the request: send errors about parts of it, and carry out the subscription."""
        for effect in request.effects:
            self._counts.effect(effect)
            if isinstance(effect, Reply):
                self.subscriber.say(effect.message)
            elif isinstance(effect, Join):
                self._joining.join(self.subscriber, request.state, effect)

    async def listen(self) -> None:
        """Wait until the client leaves or must be closed (`ask_to_close`); then give it time to read to the end.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the connection broke, or was dropped.
        """
        ignored = 0
        with self._conversation:
            while ignored <= _IGNORED_BYTES and (data := await self.stream.receive_some()):
                ignored += len(data)
        if self.closing is not None:
            code, reason, within_s = self.closing
            self.ended = code, reason
            with trio.move_on_after(within_s) as parting:
                await self.stream.send_close(b"")
                parting.deadline = min(parting.deadline, trio.current_time() + _LINGER_S)
                await self.stream.finish()
        elif ignored > _IGNORED_BYTES:
            self.ended = CloseCode.POLICY, f"more than {_IGNORED_BYTES} bytes behind the request"
        else:
            self.ended = CloseCode.NORMAL, "the client went"

    def ping(self) -> bytes:
        """A comment, and perhaps a position."""
        return self.subscriber.keep_alive(self._tape)

    def verdict(self, now_s: float, limits: Limits) -> tuple[CloseCode, str] | None:
        """Drops it if nothing could be written for too long. `_watch_acknowledgements` replaces pongs."""
        return self._slow(now_s, limits)

    def last_words(self, code: CloseCode, reason: str) -> bytes:
        """A `goodbye`."""
        wait_s = round(random.uniform(*_RETRY_MS) / 1000, 1)
        timestamp = self._clock.timestamp()
        return sse_event(encode(Goodbye(timestamp=timestamp, code=code, reason=reason, retry_after_s=wait_s)))

    def adopt(self, catalogue: Catalogue) -> None:
        """Do nothing: it has subscribed already, and cannot subscribe again."""

    def say_goodbye(self, goodbye: Goodbye) -> None:
        """Announce a planned close, also by the `retry` field, which sets how long a browser's EventSource waits."""
        self.stream.post(_retry(goodbye.retry_after_s * 1000))
        super().say_goodbye(goodbye)


class EventStreams:
    """Serves `GET /events`: the front door hands over the clients that it lets in."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def judge(self, request: Request) -> EventRequest:
        """What the client asks for. Raises: Refused, if it cannot have that."""
        sessions = self._sessions
        now_s, timestamp = trio.current_time(), sessions.clock.timestamp()
        return event_request.judge(request, sessions.catalogue, sessions.limits, now_s, timestamp)

    async def serve(self, client: EventClient) -> None:
        """Serve one client until its connection ends. This is the barrier: its errors do not affect others.

        If cancelled, the connection is closed at once; see `Sessions.say_goodbye` for the polite way.
        """
        stream: EventStream | None = None
        try:
            async with trio.open_nursery() as nursery:
                stream = EventStream(self._sessions, client, nursery)
                try:
                    await self._serve(stream, client)
                finally:
                    stream.detach()
                nursery.cancel_scope.cancel(reason="the event stream is over")
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            _log.debug("event stream of %s broke", client.peer)
        except* Exception:  # the barrier: one client's failure is logged once and is nobody else's
            if stream is not None:
                stream.ended = CloseCode.INTERNAL_ERROR, "the daemon failed; its log says why"
            _log.exception("the event stream of %s failed", client.peer)
        finally:
            if stream is not None:
                await self._sessions.leave(stream)

    async def _serve(self, stream: EventStream, client: EventClient) -> None:
        _watch_acknowledgements(client, self._sessions.limits)
        stream.stream.post(client.head + _retry(random.uniform(*_RETRY_MS)))
        self._sessions.enter(stream, "sse")
        await stream.wait_for(client.request)
        stream.answer(client.request)
        await stream.listen()


def _watch_acknowledgements(client: EventClient, limits: Limits) -> None:
    """Let the kernel detect a dead peer: it answers no ping, but must acknowledge the bytes that it is sent.

    TCP_USER_TIMEOUT also runs while a peer has no room. So it is longer than the write deadline, which gives a reason.
    """
    transport = client.stream
    plain = transport if isinstance(transport, trio.SocketStream) else transport.transport_stream
    after_ms = math.ceil((limits.silent_after_s + limits.write_deadline_s) * 1000)
    plain.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, after_ms)


def _retry(wait_ms: float) -> bytes:
    """The field that sets how long a browser waits before it comes back; it takes effect at once (section 9.2.6)."""
    return b"retry: %d\n\n" % round(wait_ms)
