"""The client itself: `connect`, and the methods of a connected client. On asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count

from daemon.client.asyncio.history import ask
from daemon.client.asyncio.link import Link
from daemon.client.asyncio.subscription import Subscription
from daemon.client.core.course import Course, Options
from daemon.client.core.endpoint import Endpoint, endpoint
from daemon.client.core.events import CommandRefused, RoundTrip, ServerUnavailable
from daemon.client.core.history import History, Question
from daemon.client.core.verdicts import Disconnected
from protocol.messages import Error, Ping, Pong, Position, Welcome


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str = "",
    ssl_context: ssl.SSLContext | None = None,
    timeout_s: float = 10.0,
    retry_base_s: float = 1.0,
    retry_cap_s: float = 30.0,
) -> AsyncIterator[Client]:
    """A client that has received its welcome. Leaving the block closes all its connections; if cancelled, at once.

    Args:
        url: the address of the daemon, in a form that `websocket_url` accepts.
        token: sent as `Authorization: Bearer`.
        ssl_context: for `wss`, instead of the system's trusted certificates.
        timeout_s: limit for connecting with the opening handshake, for the welcome, and for sending a command.
        retry_base_s: the first wait after a loss is drawn between 0 and this; the limit doubles with each failure.
        retry_cap_s: the highest such limit.

    Raises:
        ValueError: the URL or the token is invalid, or a limit is not above 0.
        ServerUnavailable, ServerRefused, NotUnderstood: the first connection fails.
    """
    found = endpoint(
        url,
        token=token,
        ssl_context=ssl_context,
        timeout_s=timeout_s,
        retry_base_s=retry_base_s,
        retry_cap_s=retry_cap_s,
    )
    client = Client(found)
    try:
        await client.open()
        yield client
    finally:
        await client.close()


class Client:
    """A daemon that can be subscribed to; made by `connect`.

    Attributes:
        welcome: the daemon's first message on the newest connection: its channels, version and tape.
    """

    welcome: Welcome

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._spare: Link | None = None
        self._links: set[Link] = set()
        self._pinging = asyncio.Lock()
        self._numbers = count(1)

    async def open(self) -> None:
        """Make the first connection, which the first subscription takes. Raises: ClientError."""
        self._spare = await self._open_link()

    async def close(self) -> None:
        """Close all connections. If cancelled, at once."""
        links, self._links = self._links, set()
        await asyncio.gather(*(link.wait_closed() for link in links))

    def subscribe(
        self,
        *channels: str,
        instruments: tuple[str, ...] | list[str] | None = None,
        interval_ms: int | None = None,
        snapshot: bool = True,
        since: Position | None = None,
    ) -> Subscription:
        """Subscribe to these channels. The command is sent when the iteration begins.

        Args:
            channels: names, or `"*"` for all.
            instruments: only these, such as `BTC/USDT`.
            interval_ms: at most one message per topic in this time, the newest.
            snapshot: whether the newest message of each topic comes first.
            since: resume from this position, taken from an earlier `Subscription.positions`. A book of which only
                changes would follow comes whole all the same, unless `snapshot` is false.

        Raises:
            ValueError: no channels.
        """
        options = Options(
            instruments=None if instruments is None else tuple(instruments),
            interval_ms=interval_ms,
            snapshot=snapshot,
            since=since,
        )
        return Subscription(self._take_link, Course(channels, options, self._endpoint.backoff()))

    async def history(
        self,
        channel: str,
        *,
        instrument: str | None = None,
        limit: int | None = None,
        before: int | None = None,
        before_ms: int | None = None,
    ) -> History:
        """What there still is of a channel's messages, by a plain request on a connection of its own.

        Args:
            channel: its name.
            instrument: only this one, such as `BTC/USDT`; of several candles the venue's own history needs it.
            limit: so many messages at most; the daemon's default is 500.
            before: only messages before this `seq`.
            before_ms: of candles, only those that began before; ms since 1970.

        Raises:
            CommandRefused: there is no such channel or instrument, the token does not cover it, or a number is wrong.
            ServerUnavailable: there is no answer in time, or one that says "later".
            NotUnderstood: the answer is none of tickerd's.
        """
        question = Question(
            self._endpoint, channel, instrument=instrument, limit=limit, before=before, before_ms=before_ms
        )
        return await ask(self._endpoint, question)

    async def ping(self) -> RoundTrip:
        """Ask the daemon for an answer, over a connection that no subscription uses.

        Raises:
            ServerUnavailable: there is no answer within `timeout_s`, or no connection.
            ServerRefused, NotUnderstood: as by `connect`.
        """
        async with self._pinging:
            link = await self._take_link()
            is_well = False
            try:
                async with asyncio.timeout(self._endpoint.timeout_s):
                    found = await self._ping(link)
                is_well = True
                return found
            except TimeoutError:
                raise ServerUnavailable(f"a ping was not answered in {self._endpoint.timeout_s:g} s") from None
            except Disconnected as end:
                raise ServerUnavailable(str(end)) from None
            finally:
                if is_well and self._spare is None:
                    self._spare = link
                else:
                    link.close()

    async def _ping(self, link: Link) -> RoundTrip:
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await link.send(Ping(number))
        while True:
            message, _ = await link.receive()
            if isinstance(message, Error) and message.code.is_known:
                raise CommandRefused(message.code, message.message, message.channels)
            if isinstance(message, Pong) and message.id == number:
                round_trip_s = loop.time() - began_s
                there_s = datetime.fromisoformat(message.timestamp).timestamp()
                return RoundTrip(round_trip_s, there_s - (time.time() - round_trip_s / 2))

    async def _take_link(self) -> Link:
        """The open connection that has not been used yet, or a new one."""
        link, self._spare = self._spare, None
        if link is not None:
            if link.is_alive:
                return link
            link.close()
        return await self._open_link()

    async def _open_link(self) -> Link:
        link = await Link.open(self._endpoint)
        # Until it is closed: asyncio itself does not hold the task that closes it.
        self._links = {each for each in self._links if not each.is_closed} | {link}
        self.welcome = link.welcome
        return link
