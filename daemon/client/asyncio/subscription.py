"""One subscription of a client: an iterator over messages, in order, each at most once, across reconnects. On asyncio.

No task runs beside the consumer: `__anext__` itself reads the socket, detects a dead connection, waits, opens a new one
and resumes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self, assert_never, cast

from daemon.client.asyncio.link import Link
from daemon.client.core.course import Course, Deliver, Open, Over, Read, Renew
from daemon.client.core.events import ClientError, Received
from daemon.client.core.verdicts import Disconnected
from protocol.messages import Position


class Subscription:
    """What `Client.subscribe` returns: an asynchronous iterator of `Received`, for one task at a time.

    It ends when every channel has been left (`unsubscribe`) or after `aclose`; leaving `async with` ends it, too. If an
    iteration is cancelled, no message is lost: the next one goes on.

    Attributes:
        raw: the last message, as the daemon sent it; "" after an event of the client's own.
    """

    def __init__(self, open_link: Callable[[], Awaitable[Link]], course: Course) -> None:
        self.raw = ""
        self._open_link = open_link
        self._course = course
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._speaking = asyncio.Lock()
        self._step: asyncio.Timeout | None = None

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._end()

    @property
    def positions(self) -> dict[str, Position]:
        """Per channel, the position (`since`) from which this or another process can resume: all before was yielded."""
        return self._course.positions

    async def __anext__(self) -> Received:
        """The next message or event.

        Raises:
            CommandRefused: the daemon refuses the subscription, which ends by this.
            ServerRefused, NotUnderstood: reconnecting would not help; the subscription ends by this.
            RuntimeError: another task is iterating.
        """
        if self._step is not None:
            raise RuntimeError("another task is iterating over this subscription")
        try:
            # A timeout without a time: `aclose` makes it due.
            async with asyncio.timeout(None) as self._step:
                while True:
                    match self._course.next():
                        case Deliver(received=received, raw=raw):
                            self.raw = raw
                            return received
                        case Read():
                            await self._read()
                        case Renew():
                            await self._renew()
                        case Open(at_s=at_s):
                            await self._open(at_s)
                        case Over():
                            raise StopAsyncIteration
                        case _ as action:
                            assert_never(action)
        except TimeoutError:
            raise StopAsyncIteration from None
        except ClientError:
            self._course.end()
            self._drop()
            raise
        finally:
            self._step = None

    async def unsubscribe(self, *channels: str) -> None:
        """Leave these channels (`"*"`: all): their messages stop at once. Leaving the last one ends the iteration.

        Names that are not subscribed are ignored. If cancelled, the channels are left all the same.
        """
        command = self._course.leave(channels)
        if self._course.is_over:
            self._end()
        async with self._speaking:
            if self._link is not None and command is not None:
                try:
                    await self._link.send(command)
                except (Disconnected, ClientError):
                    return  # the iterating task sees the error, too, and does not restore these channels

    async def change(
        self, *, instruments: tuple[str, ...] | list[str] | None = None, interval_ms: int | None = None
    ) -> None:
        """Have these options from now on, for all its channels; what is on its way still has the old ones.

        Options that are left out are as `Client.subscribe` has them. If the daemon refuses the new ones, the iteration
        raises `CommandRefused`. If this is cancelled, the connection ends, and the next one has the new ones.
        """
        commands = self._course.change(None if instruments is None else tuple(instruments), interval_ms)
        sent = False
        try:
            async with self._speaking:
                for command in commands:
                    if self._link is not None:
                        await self._link.send(command)
            sent = True
        except (Disconnected, ClientError):
            return  # the iterating task sees the error, too
        finally:
            if not sent and self._link is not None:
                self._link.close()

    async def aclose(self) -> None:
        """End the subscription, and begin to close its connection. May be called repeatedly."""
        self._end()
        await asyncio.sleep(0)

    # ---- what the course says; `Renew` and `Read` come only after `_open` has set a link -----------------------------

    async def _open(self, at_s: float) -> None:
        """Wait until the attempt is due, open a connection and subscribe to everything again."""
        await asyncio.sleep(max(0.0, at_s - self._loop.time()))
        self._course.opening(self._loop.time())
        link: Link | None = None
        try:
            link = await self._open_link()
            async with self._speaking:
                for command in self._course.opened(link.welcome):
                    await link.send(command)
                if not self._course.is_over:
                    self._link = link
        except (Disconnected, ClientError) as error:
            self._course.failed(error, self._loop.time())
        finally:
            if link is not None and self._link is not link:
                self._course.dropped()
                link.close()

    async def _renew(self) -> None:
        """Have books come whole. If cancelled, the connection ends, and the next one does it."""
        link = cast("Link", self._link)
        try:
            async with self._speaking:
                for command in self._course.renewing():
                    await link.send(command)
        except (Disconnected, ClientError) as error:
            self._course.failed(error, self._loop.time())
            self._drop()

    async def _read(self) -> None:
        """Take the next message of the connection, or learn that there is none."""
        link = cast("Link", self._link)
        try:
            message, text = await link.receive()
        except (Disconnected, ClientError) as error:
            self._course.failed(error, self._loop.time())
            self._drop()
        else:
            self._course.took(message, text, self._loop.time())

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _end(self) -> None:
        self._course.end()
        self._drop()
        if self._step is not None and not self._step.expired():
            self._step.reschedule(self._loop.time())
