"""Does the daemon still do its work? What systemd's watchdog is fed by.

Several times within the watchdog's time a canary is sent the way of every message: through the hub's memory channel, so
that the hub's loop has to turn; onto the tape, under a topic of its own that no client can select; and by the hub's
write to the file descriptor of a subscriber, which is one end of a socket pair here. If it arrives at the other end in
time, each listener is knocked at, as a client would, and must let the connection in. Only then is `WATCHDOG=1` sent:
a daemon of which only a timer is alive is killed by systemd, and started again.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from daemon.fanout.hub import Hub
from daemon.fanout.subscriber import Subscriber
from daemon.front.front_door import FrontDoor
from daemon.host.systemd import Notifier
from daemon.ingest.inbox import Item, Turn
from daemon.publish.sequencer import Sequencer
from daemon.sessions.stream import ClientStream
from daemon.tape.tape import CANARY
from protocol.frames import text_frame
from protocol.messages import Format

_PART: Final = 4
"""The watchdog's time is so many times as long as that between two looks, and as a look may take: so a look that fails
and one that is slow do not yet cost a healthy daemon its life."""

_REQUEST: Final = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

_log: Final = logging.getLogger(__name__)


class Canary:
    """Looks whether messages get through the hub, and connections through the front door."""

    def __init__(
        self,
        sequencer: Sequencer,
        hub: Hub,
        inbox: trio.MemorySendChannel[Item],
        front_door: FrontDoor,
        listeners: Sequence[trio.SocketListener],
    ) -> None:
        """`inbox` is that of the sequencer, `listeners` those of the front door."""
        self._sequencer = sequencer
        self._hub = hub
        self._inbox = inbox
        self._front_door = front_door
        self._addresses = [_address(listener.socket) for listener in listeners]
        self._sent = 0

    async def run(
        self,
        notifier: Notifier,
        watchdog_s: float,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look, and tell the watchdog where all is well, until the front door closes or this is cancelled."""
        every_s = watchdog_s / _PART
        trouble = ""
        task_status.started()
        while True:
            next_s = trio.current_time() + every_s
            found = await self.look(every_s)
            if not self._front_door.accepting:  # a stop: systemd does not watch any more
                return
            if not found:
                notifier.watchdog()
            if found and not trouble:
                _log.error("%s: systemd's watchdog is not fed, and ends the daemon in %g s", found, watchdog_s)
            elif trouble and not found:
                _log.info("the hub and the front door are well again: systemd's watchdog is fed")
            trouble = found
            await trio.sleep_until(next_s)

    async def look(self, within_s: float) -> str:
        """What does not work, in words; "" where everything does. If cancelled, nothing is left behind."""
        failed = "a message did not get through the hub"
        try:
            with trio.fail_after(within_s):
                await self._through_the_hub()
                for family, address in self._addresses:
                    failed = f"the front door did not let in a connection to {address[0]} port {address[1]}"
                    await self._through_the_front_door(family, address)
        except trio.TooSlowError:
            return f"{failed} within {within_s:g} s"
        except (OSError, trio.ClosedResourceError, trio.BrokenResourceError) as error:
            return f"{failed}: {error}"
        return ""

    async def _through_the_hub(self) -> None:
        """A subscriber comes, gets the canary as any client gets a message, and goes."""
        near, far = socket.socketpair()
        ours, theirs = trio.socket.from_stdlib_socket(near), trio.socket.from_stdlib_socket(far)
        subscriber = Subscriber(Format.JSON, ClientStream(trio.SocketStream(theirs)), _nothing)
        subscriber.selection = frozenset({CANARY})
        self._sent += 1
        payload = b'{"type":"canary","number":%d}' % self._sent
        self._hub.attach(subscriber, is_client=False)
        try:
            await self._inbox.send(Turn(partial(self._sequencer.tell, CANARY, payload)))
            frame, received = text_frame(payload), b""
            # Another canary that was late may come before it.
            while frame not in received:
                received += await ours.recv(4096)
        finally:
            self._hub.detach(subscriber)
            theirs.close()
            ours.close()

    async def _through_the_front_door(self, family: socket.AddressFamily, address: tuple[str | int, ...]) -> None:
        """Connect and ask. An answer shows that it was let in, whatever it says; so does the end of the connection.

        The kernel takes connections by itself, but it answers nothing. Where TLS is spoken, the request is none, and
        the connection ends.
        """
        with trio.socket.socket(family, socket.SOCK_STREAM) as connection:
            await connection.connect(address)
            try:
                await connection.send(_REQUEST)
                await connection.recv(4096)
            except ConnectionError:
                return


def _address(listening: trio.socket.SocketType) -> tuple[socket.AddressFamily, tuple[str | int, ...]]:
    """Where a connection from this machine reaches the listener."""
    family, name = listening.family, listening.getsockname()
    if not ipaddress.ip_address(name[0].partition("%")[0]).is_unspecified:
        return family, name
    if family == socket.AF_INET or not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return socket.AF_INET, ("127.0.0.1", name[1])
    return family, ("::1", name[1])


def _nothing() -> None:
    """A subscriber that has fallen behind is not caught up: its canary does not arrive, and that is what is found."""
