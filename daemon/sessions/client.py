"""One connected client of either protocol: its stream, its place in the fan-out, and its end.

This holds what a websocket and an event stream have in common; `daemon.sessions.websocket` and
`daemon.sessions.event_stream` add how each of them is read, pinged and closed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Final

import trio

from daemon.fanout.hub import Hub
from daemon.fanout.subscriber import State, Subscriber
from daemon.front.limits import Limits
from daemon.sessions.stream import ClientStream, nothing
from protocol.channels import Catalogue
from protocol.codes import CloseCode
from protocol.grant import Grant
from protocol.messages import Format, Goodbye

_CLOSE_S: Final = 5.0
"""How long a peer may take over the closing handshake (RFC 6455 section 7.1.1 leaves it to us)."""


class ConnectedClient(ABC):
    """One client.

    Attributes:
        peer: its IP address.
        grant: the channels it may have.
        stream: its byte stream, which keeps frames whole.
        subscriber: the client as the fan-out sees it.
        closing: the close code, the reason, and how long the peer may take, once the client must be closed; else None.
        ended: the close code and the reason of its end; None until they are known.
        next_ping_s: when it is pinged next, on the clock of `trio.current_time()`.
    """

    def __init__(
        self,
        hub: Hub,
        stream: ClientStream,
        *,
        format: Format,
        peer: str,
        grant: Grant,
        nursery: trio.Nursery,
        ping_every_s: float,
    ) -> None:
        self.peer = peer
        self.grant = grant
        self.stream = stream
        self.subscriber = Subscriber(format, stream, self._catch_up)
        stream.on_blocked = partial(hub.blocked, self.subscriber)
        stream.on_closing = self.detach
        self.closing: tuple[CloseCode, str, float] | None = None
        self.ended: tuple[int, str] | None = None
        self.next_ping_s = trio.current_time() + ping_every_s
        self._hub = hub
        self._nursery = nursery
        self._gone: trio.Event | None = None  # made only when somebody waits: an idle client must cost little
        self._over = False
        self._conversation = trio.CancelScope()

    @abstractmethod
    def ping(self) -> bytes:
        """The bytes that show the client, and proxies between, that the connection is alive."""

    @abstractmethod
    def verdict(self, now_s: float, limits: Limits) -> tuple[CloseCode, str] | None:
        """Why this client must be dropped; None if it may stay."""

    @abstractmethod
    def last_words(self, code: CloseCode, reason: str) -> bytes:
        """The bytes that tell a dropped client the reason, should it ever read again."""

    @abstractmethod
    def adopt(self, catalogue: Catalogue) -> None:
        """Use the new catalogue after a reload."""

    def say_goodbye(self, goodbye: Goodbye) -> None:
        """Announce a planned close; `ask_to_close` follows."""
        self.subscriber.say(goodbye)

    def ask_to_close(self, code: CloseCode, reason: str, within_s: float = _CLOSE_S) -> None:
        """Stop listening, and close after everything that has been sent so far.

        After `within_s` the connection is dropped, whether the peer has answered or not.
        """
        if self.closing is None:
            self.closing = (code, reason, within_s)
            self._conversation.cancel(reason=f"closing with {code.value}")

    async def drop(self) -> None:
        """Close the connection at once, also when cancelled."""
        self.detach()
        self.stream.close_writing()
        # Who refers to whom in a ring is freed by a garbage collection only, and that stops everybody.
        self.stream.on_blocked = self.stream.on_closing = self.subscriber.wake = nothing
        await trio.aclose_forcefully(self.stream)

    def end(self) -> None:
        """Note that the session is over: nothing more is sent or read."""
        self._over = True
        if self._gone is not None:
            self._gone.set()

    async def wait_gone(self) -> None:
        """Wait until the session is over."""
        if not self._over:
            self._gone = self._gone or trio.Event()
            await self._gone.wait()

    def _slow(self, now_s: float, limits: Limits) -> tuple[CloseCode, str] | None:
        """The verdict on a slow consumer: it is behind, and its socket has taken nothing for too long."""
        if self.subscriber.state is not State.BEHIND or now_s - self.stream.last_progress_s <= limits.write_deadline_s:
            return None
        return CloseCode.SLOW_CONSUMER, f"slow consumer: nothing could be written for {limits.write_deadline_s:g} s"

    def detach(self) -> None:
        """Leave the hub. Call this before the nursery ends, too: afterwards no catch-up task can be started."""
        self._hub.detach(self.subscriber)

    def _catch_up(self) -> None:
        """Start the catch-up task: the client has fallen behind."""
        self._nursery.start_soon(self._hub.catch_up, self.subscriber)
