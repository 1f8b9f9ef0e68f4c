"""The canary checks whether the daemon still works, and feeds systemd's watchdog.

Several times within the watchdog's time it sends a message along the path of every message: through the sequencer's
memory channel, so the sequencer must run; onto the tape, under a topic that no client can select; and by the hub's
write to the file descriptor of a subscriber, here one end of a socket pair. If the message arrives at the other end in
time, the canary connects to each listener, as a client would, and the connection must be let in. Only then it sends
`WATCHDOG=1`. So systemd kills and restarts a daemon of which only a timer is still alive.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from daemon.fanout.hub import Hub
from daemon.fanout.subscriber import Subscriber
from daemon.front.front_door import FrontDoor
from daemon.host.systemd import Notifier
from daemon.publish.bus import Appended
from daemon.sessions.stream import ClientStream
from daemon.tape.tape import CANARY, Entry, Tape
from protocol.frames import text_frame
from protocol.messages import Format

_PART: Final = 4
"""The watchdog's time, divided by this, is the time between two looks and the time limit of one look: so one failed and
one slow look do not end a healthy daemon."""

_REQUEST: Final = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

_log: Final = logging.getLogger(__name__)


def beside(tape: Tape, payload: bytes) -> Appended:
    """A canary as the hub is handed it, where it may not stand on the tape, which is that of many nodes."""
    return Appended(tape.head, [Entry.of(tape.head, 0, CANARY, payload, tape.epoch)], [0])


class Canary:
    """Checks that messages get through the hub, and connections through the front door."""

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        hub: Hub,
        front_door: FrontDoor,
        listeners: Sequence[trio.SocketListener],
    ) -> None:
        """`send` sends a message of the topic CANARY to the hub; `listeners` are those of the front door."""
        self._send = send
        self._hub = hub
        self._front_door = front_door
        self._addresses = [_address(listener.socket) for listener in listeners]
        self._sent = 0
        self._hurried = trio.Event()

    def hurry(self) -> None:
        """Look now: the daemon stood still, and systemd may have been waiting all the time."""
        self._hurried.set()

    async def run(
        self,
        notifier: Notifier,
        watchdog_s: float,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look regularly, and feed the watchdog if all is well, until the front door closes or this is cancelled."""
        every_s = watchdog_s / _PART
        trouble = ""
        task_status.started()
        while True:
            next_s = trio.current_time() + every_s
            self._hurried = trio.Event()
            found = await self.look(every_s)
            if not self._front_door.accepting:  # the daemon is stopping: systemd no longer watches
                return
            if not found:
                notifier.watchdog()
            if found and not trouble:
                _log.error("%s: systemd's watchdog is not fed, and ends the daemon in %g s", found, watchdog_s)
            elif trouble and not found:
                _log.info("the hub and the front door are well again: systemd's watchdog is fed")
            trouble = found
            with trio.move_on_at(next_s):
                await self._hurried.wait()

    async def look(self, within_s: float) -> str:
        """What does not work, in words; "" if everything does. If cancelled, nothing is left behind."""
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
        """Attach a subscriber, wait until it gets the canary as any client gets a message, and detach it."""
        self._sent += 1
        with perch(self._hub) as ours:
            await self._send(message(self._sent))
            frame, received = text_frame(message(self._sent)), b""
            # An earlier canary that was late may come first.
            while frame not in received:
                received += await ours.recv(4096)

    async def _through_the_front_door(self, family: socket.AddressFamily, address: tuple[str | int, ...]) -> None:
        """Connect and send a request. Any answer shows that the connection was let in; so does its end.

        The kernel accepts connections by itself, but it does not answer. A TLS listener does not understand the
        request, and ends the connection.
        """
        with trio.socket.socket(family, socket.SOCK_STREAM) as connection:
            await connection.connect(address)
            await knock(connection)


def message(number: int) -> bytes:
    """The canary of that number, as it stands on the tape."""
    return b'{"type":"canary","number":%d}' % number


@contextmanager
def perch(hub: Hub) -> Iterator[trio.socket.SocketType]:
    """A subscriber that canaries come to, as messages come to any client, as long as the block lasts.

    Yields:
        The other end of its socket.
    """
    near, far = socket.socketpair()
    ours, theirs = trio.socket.from_stdlib_socket(near), trio.socket.from_stdlib_socket(far)
    subscriber = Subscriber(Format.JSON, ClientStream(trio.SocketStream(theirs)), _nothing)
    subscriber.selection = frozenset({CANARY})
    hub.attach(subscriber, is_client=False)
    try:
        yield ours
    finally:
        hub.detach(subscriber)
        theirs.close()
        ours.close()


async def knock(connection: trio.socket.SocketType) -> None:
    """Send a request, and wait for an answer, or the connection's end. Raises: OSError, other than that end."""
    try:
        await connection.send(_REQUEST)
        await connection.recv(4096)
    except ConnectionError:
        return


def _address(listening: trio.socket.SocketType) -> tuple[socket.AddressFamily, tuple[str | int, ...]]:
    """The address at which this machine reaches the listener."""
    family, name = listening.family, listening.getsockname()
    if not ipaddress.ip_address(name[0].partition("%")[0]).is_unspecified:
        return family, name
    if family == socket.AF_INET or not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return socket.AF_INET, ("127.0.0.1", name[1])
    return family, ("::1", name[1])


def _nothing() -> None:
    """Start no catch-up: if the subscriber falls behind, its canary does not arrive, and the look fails."""
