"""One subscription of a client: an iterator over messages, in order, each at most once, across reconnects.

No task runs beside the consumer: `__anext__` itself reads the socket, detects a dead connection, waits, opens a new one
and resumes. So a slow consumer slows down only its own connection, and one that has stopped reading holds no memory but
what one connection reads ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from typing import Final, Self, assert_never

import msgspec
import trio

from connectors.backoff import Backoff
from daemon.client.events import (
    ClientError,
    CommandRefused,
    Gap,
    NotUnderstood,
    Received,
    Reconnecting,
    Resumed,
    ServerUnavailable,
)
from daemon.client.link import ABNORMAL, Disconnected, Link
from daemon.client.track import Track
from protocol.codes import ErrorCode
from protocol.messages import (
    Data,
    Error,
    Goodbye,
    Id,
    Lagged,
    Message,
    Ping,
    Pong,
    Position,
    Status,
    Subscribe,
    Subscribed,
    Test,
    TestResponse,
    Unsubscribe,
    Unsubscribed,
    Welcome,
)

ALL: Final = "*"
"""As a channel: all channels."""

_MOST_CHANNELS: Final = 64
"""In one command: the daemon's default limit."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a subscription; the fields are those of the command `subscribe`."""

    instruments: tuple[str, ...] | None = None
    interval_ms: int | None = None
    snapshot: bool = True
    since: Position | None = None


class _Away(msgspec.Struct):
    """The time from the loss of a connection until everything is restored over another one.

    Attributes:
        since_s: when it began.
        restarted: whether the daemon has begun another tape meanwhile.
        lost: channels of which messages are missing.
    """

    since_s: float
    restarted: bool = False
    lost: dict[str, None] = {}


class Subscription:
    """What `Client.subscribe` returns: an asynchronous iterator of `Received`, for one task at a time.

    It ends when every channel has been left (`unsubscribe`) or after `aclose`; leaving `async with` ends it, too. If an
    iteration is cancelled, no message is lost: the next one goes on.

    Attributes:
        raw: the last message, as the daemon sent it; "" after an event of the client's own.
    """

    def __init__(
        self, open_link: Callable[[], Awaitable[Link]], channels: Sequence[str], options: Options, backoff: Backoff
    ) -> None:
        self.raw = ""
        self._open_link = open_link
        self._asked = tuple(dict.fromkeys(channels))
        self._left: set[str] = set()
        self._options = options
        self._backoff = backoff
        self._track = Track(snapshot=options.snapshot, sampled=options.interval_ms is not None, since=options.since)
        self._link: Link | None = None
        self._epoch = ""
        self._coming: deque[tuple[Received, str]] = deque()
        self._again: tuple[Message, str] | None = None
        self._numbers = count(1)
        self._restoring: set[Id] = set()
        self._unexplained: dict[Id, Error] = {}
        self._settles: Id = ""
        self._anew: dict[str, None] = {}
        """The channels that are to be left and subscribed to again, for a book is changed there that has not come."""
        self._away: _Away | None = None
        self._retry_s = 0.0
        self._goodbye: Goodbye | None = None
        self._speaking = trio.Lock()
        self._step: trio.CancelScope | None = None
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._end()

    @property
    def positions(self) -> dict[str, Position]:
        """Per channel, the position (`since`) from which this or another process can resume: all before was yielded."""
        found = {channel: self._track.position(channel) for channel in self._track.channels}
        return {channel: position for channel, position in found.items() if position is not None}

    async def __anext__(self) -> Received:
        """The next message or event.

        Raises:
            CommandRefused: the daemon refuses the subscription, which ends by this.
            ServerRefused, NotUnderstood: reconnecting would not help; the subscription ends by this.
            trio.BusyResourceError: another task is iterating.
        """
        if self._step is not None:
            raise trio.BusyResourceError("another task is iterating over this subscription")
        try:
            with trio.CancelScope() as self._step:
                await trio.lowlevel.checkpoint()
                while not self._coming and not self._is_over:
                    await self._advance()
            if self._is_over:
                raise StopAsyncIteration
            received, self.raw = self._coming.popleft()
            return received
        except ClientError:
            self._end()
            raise
        finally:
            self._step = None

    async def unsubscribe(self, *channels: str) -> None:
        """Leave these channels (`"*"`: all): their messages stop at once. Leaving the last one ends the iteration.

        Names that are not subscribed are ignored. If cancelled, the channels are left all the same.
        """
        known = dict.fromkeys((*self._track.channels, *(name for name in self._asked if name != ALL)))
        known = {name: None for name in known if name not in self._left}
        names = [name for name in known if name in channels or ALL in channels]
        self._left.update(channels)
        for name in names:
            self._track.leave(name)
        if ALL in channels or (names and len(names) == len(known)):
            self._end()
        async with self._speaking:
            if self._link is not None and names:
                try:
                    await self._link.send(Unsubscribe(names, next(self._numbers)))
                except (Disconnected, ClientError):
                    return  # the iterating task sees the error, too, and does not restore these channels

    async def aclose(self) -> None:
        """End the subscription, and begin to close its connection. May be called repeatedly."""
        self._end()
        await trio.lowlevel.checkpoint()

    # ---- the connection ---------------------------------------------------------------------------------------------

    async def _advance(self) -> None:
        """One step: open the connection, or handle the next message. Raises: ClientError, if the subscription ends."""
        try:
            if self._again is not None:
                again, self._again = self._again, None
                self._take(*again)
            elif self._link is None:
                await self._connect()
            elif self._anew:
                await self._begin_anew(self._link)
            else:
                self._take(*await self._link.receive())
        except Disconnected as end:
            self._disconnected(str(end), end.code, None)
        except ServerUnavailable as end:
            self._disconnected(str(end), ABNORMAL, end.retry_after_s)
        except NotUnderstood as end:
            if self._link is not None:
                raise
            # There was a daemon at that address before: what answers now is something in between.
            self._disconnected(str(end), ABNORMAL, None)

    async def _connect(self) -> None:
        """Wait until the next attempt is due, open a connection and subscribe to everything again."""
        await trio.sleep_until(self._retry_s)
        self._backoff.started(trio.current_time())
        link = await self._open_link()
        try:
            async with self._speaking:
                if self._away is not None and self._epoch not in ("", link.welcome.epoch):
                    self._away.restarted = True
                self._epoch = link.welcome.epoch
                self._restoring.clear()
                self._unexplained.clear()
                self._anew.clear()
                for command in self._commands(link.welcome.channels):
                    await link.send(command)
                self._link = link
        finally:
            if self._link is not link:
                link.close()

    def _commands(self, offered: Sequence[str]) -> Iterator[Subscribe | Ping]:
        """The commands for a new connection: subscribe to each channel from its position, then a ping."""
        wanted = [name for name in (offered if ALL in self._asked else self._asked) if name not in self._left]
        begun = bool(self._track.channels)
        sampled = self._options.interval_ms is not None
        alike: dict[Position | None, list[str]] = {}
        if ALL in self._asked and not begun:
            alike[self._options.since] = [ALL]
        else:
            for name in wanted:
                # At an interval only the newest message counts, and the snapshot brings it.
                alike.setdefault(None if sampled and begun else self._track.position(name), []).append(name)
        for since, names in alike.items():
            for at in range(0, len(names), _MOST_CHANNELS):
                snapshot = self._options.snapshot or (sampled and begun)
                yield self._subscribe(names[at : at + _MOST_CHANNELS], since, snapshot=snapshot)
        yield self._settle()

    def _subscribe(self, names: list[str], since: Position | None, *, snapshot: bool) -> Subscribe:
        number, options = next(self._numbers), self._options
        self._restoring.add(number)
        return Subscribe(
            names,
            instruments=None if options.instruments is None else list(options.instruments),
            interval_ms=options.interval_ms,
            snapshot=snapshot,
            since=since,
            id=number,
        )

    def _settle(self) -> Ping:
        """Its answer comes after everything that the commands before it bring at once."""
        self._settles = next(self._numbers)
        return Ping(self._settles)

    async def _begin_anew(self, link: Link) -> None:
        """Have the books of these channels whole. If cancelled, the next step does it."""
        async with self._speaking:
            names = [name for name in self._anew if name not in self._left]
            for at in range(0, len(names), _MOST_CHANNELS):
                some = names[at : at + _MOST_CHANNELS]
                await link.send(Unsubscribe(some, next(self._numbers)))
                await link.send(self._subscribe(some, None, snapshot=True))
            await link.send(self._settle())
            self._anew.clear()

    def _disconnected(self, reason: str, code: int, retry_after_s: float | None) -> None:
        """The connection is lost, or could not be opened."""
        now_s = trio.current_time()
        if self._link is not None:
            self._link.close()
            self._link = None
        self._away = self._away or _Away(now_s)
        if self._goodbye is not None:
            delay_s = max(0.0, self._goodbye.retry_after_s)  # jittered by the daemon
        else:
            delay_s = self._backoff.next_delay_s(now_s, retry_after_s)
        self._goodbye = None
        self._retry_s = now_s + delay_s
        self._coming.append((Reconnecting(reason, code, delay_s), ""))

    def _end(self) -> None:
        self._is_over = True
        self._coming.clear()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._step is not None:
            self._step.cancel(reason="the subscription is closed")

    # ---- what comes -------------------------------------------------------------------------------------------------

    def _take(self, message: Message, text: str) -> None:
        """Raises: CommandRefused."""
        match message:
            case Data():
                verdict = self._track.take(message)
                if verdict is None:
                    self._anew[message.connector_id] = None
                elif isinstance(verdict, Gap):
                    self._coming.append((verdict, ""))
                    self._again = (message, text)
                elif verdict:
                    self._coming.append((message, text))
            case Status():
                if message.channel not in self._left:
                    self._coming.append((message, text))
            case Lagged():
                self._track.lagged(message)
                self._coming.append((message, text))
            case Test():
                self._coming.append((message, text))
            case Subscribed():
                self._subscribed(message)
            case Pong():
                if message.id == self._settles:
                    self._settled()
            case Error():
                self._refused(message)
            case Goodbye():
                self._goodbye = message
            case Welcome() | Unsubscribed() | TestResponse():
                return  # nothing follows from them
            case _:
                assert_never(message)

    def _subscribed(self, answer: Subscribed) -> None:
        if answer.id is not None:
            self._unexplained.pop(answer.id, None)
        lost = self._track.answered(answer)
        for name in self._left.intersection(answer.channels):
            self._track.leave(name)
        if lost is not None:
            self._coming.append((lost, ""))
            if self._away is not None:
                self._away.lost.update(dict.fromkeys(lost.channels))

    def _settled(self) -> None:
        """Raises: CommandRefused, where a command of ours had no other answer."""
        for error in self._unexplained.values():
            raise CommandRefused(error.code, error.message, error.channels)
        self._track.settled()
        away, self._away = self._away, None
        if away is not None:
            away_s = trio.current_time() - away.since_s
            self._coming.append((Resumed(away_s, away.restarted, tuple(away.lost)), ""))

    def _refused(self, error: Error) -> None:
        """Raises: CommandRefused, unless only some of all channels cannot be had in the way that was asked.

        A code of a later version may be about anything. It ends the subscription only if it is all that a command of
        ours is answered.
        """
        if not error.code.is_known:
            if error.id is not None and error.id in self._restoring:
                self._unexplained[error.id] = error
            return
        if error.code is ErrorCode.INTERVAL_REFUSED and ALL in self._asked:
            return
        by_channel = self._track.channels and error.id in self._restoring
        if by_channel and error.code is ErrorCode.UNKNOWN_INSTRUMENT and (ALL in self._asked or not error.channels):
            return
        raise CommandRefused(error.code, error.message, error.channels)
