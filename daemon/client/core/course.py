"""The course of one subscription across its connections: what to hand over, and what to do next. Pure.

A shell asks `next`, and does that: it hands over a message or an event, waits and opens a connection, or reads from the
one there is. What comes of it, it tells:

    next -> Open      `opening`, then `opened` with the welcome, whose commands it sends; or `failed`
    next -> Renew     `renewing`, whose commands it sends; or `failed`
    next -> Read      `took` with the message; or `failed`
    next -> Deliver   nothing
    next -> Over      nothing: the iteration has ended

Each message is delivered at most once, in order, and missing ones are announced. Times are of one clock that never goes
back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final, TypeAlias, assert_never

import msgspec
from msgspec.structs import replace

from connectors.backoff import Backoff
from daemon.client.core.events import (
    ClientError,
    CommandRefused,
    Gap,
    NotUnderstood,
    Received,
    Reconnecting,
    Resumed,
    ServerUnavailable,
)
from daemon.client.core.track import Track
from daemon.client.core.verdicts import ABNORMAL, Disconnected
from protocol.codes import ErrorCode
from protocol.messages import (
    Command,
    Data,
    DataMessage,
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


class Open(msgspec.Struct, frozen=True):
    """Wait until `at_s`, then open a connection."""

    at_s: float


class Renew(msgspec.Struct, frozen=True):
    """Send what `renewing` returns, on the connection there is."""


class Read(msgspec.Struct, frozen=True):
    """Wait for the next message of the connection."""


class Deliver(msgspec.Struct, frozen=True):
    """Hand this over; `raw` is the message as the daemon sent it, "" for an event of the client's own."""

    received: Received
    raw: str


class Over(msgspec.Struct, frozen=True):
    """Nothing more comes."""


Action: TypeAlias = Open | Renew | Read | Deliver | Over

_RENEW: Final = Renew()
_READ: Final = Read()
_OVER: Final = Over()


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


class Course:
    """See the module.

    Args:
        channels: names, or `"*"` for all.
        options: what is asked of them.
        backoff: the waits between attempts; the course's own.

    Raises:
        ValueError: no channels.
    """

    def __init__(self, channels: Sequence[str], options: Options, backoff: Backoff) -> None:
        if not channels:
            raise ValueError(f'name at least one channel, or "{ALL}" for all')
        self._asked = tuple(dict.fromkeys(channels))
        self._left: set[str] = set()
        self._options = options
        self._backoff = backoff
        self._track = Track(snapshot=options.snapshot, since=options.since)
        self._is_open = False
        self._is_over = False
        self._epoch = ""
        self._coming: deque[Deliver] = deque()
        self._again: tuple[DataMessage, str] | None = None
        self._numbers = count(1)
        self._restoring: dict[Id, Options] = {}
        """The commands `subscribe` of this connection, with what they ask for."""
        self._agreed: dict[str, Options] = {}
        """Per channel, the options that the daemon has confirmed."""
        self._unexplained: dict[Id, Error] = {}
        self._settles: Id = ""
        self._anew: dict[str, None] = {}
        """The channels that are to be left and subscribed to again, for a book is changed there that has not come."""
        self._away: _Away | None = None
        self._retry_s = 0.0
        self._goodbye: Goodbye | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._is_over

    @property
    def positions(self) -> dict[str, Position]:
        """Per channel, the position from which this or another process can resume: all before was delivered."""
        found = {channel: self._track.position(channel) for channel in self._track.channels}
        return {channel: position for channel, position in found.items() if position is not None}

    def next(self) -> Action:
        """What to do now. A `Deliver` is said once."""
        if self._is_over:
            return _OVER
        if not self._coming and self._again is not None:
            again, self._again = self._again, None
            self._took_data(*again)
        if self._coming:
            return self._coming.popleft()
        if not self._is_open:
            return Open(self._retry_s)
        return _RENEW if self._anew else _READ

    # ---- the connection ---------------------------------------------------------------------------------------------

    def opening(self, now_s: float) -> None:
        """An attempt begins."""
        self._backoff.started(now_s)

    def opened(self, welcome: Welcome) -> list[Command]:
        """A connection is open. Returns what to send on it: each channel is subscribed to from its position."""
        if self._away is not None and self._epoch not in ("", welcome.epoch):
            self._away.restarted = True
        self._epoch = welcome.epoch
        self._restoring.clear()
        self._unexplained.clear()
        self._anew.clear()
        self._is_open = True
        return list(self._commands(welcome.channels))

    def renewing(self) -> list[Command]:
        """What to send to have the books that have not come. If not all of it is sent, the connection ends."""
        names = [name for name in self._anew if name not in self._left]
        self._anew.clear()
        commands: list[Command] = []
        for at in range(0, len(names), _MOST_CHANNELS):
            some = names[at : at + _MOST_CHANNELS]
            commands += [Unsubscribe(some, next(self._numbers)), self._subscribe(some, None, snapshot=True)]
        return [*commands, self._settle()]

    def dropped(self) -> None:
        """The connection was given up before all was sent, by a cancellation: another one is due, at once."""
        self._is_open = False

    def failed(self, error: Disconnected | ClientError, now_s: float) -> None:
        """The connection has ended, or could not be opened; the next attempt follows by itself.

        Raises:
            ClientError: the very error, since another attempt would not help. The course has ended by this.
        """
        match error:
            case Disconnected():
                self._disconnected(str(error), error.code, None, now_s)
            case ServerUnavailable():
                self._disconnected(str(error), ABNORMAL, error.retry_after_s, now_s)
            case NotUnderstood() if not self._is_open:
                # There was a daemon at that address before: what answers now is something in between.
                self._disconnected(str(error), ABNORMAL, None, now_s)
            case _:
                self.end()
                raise error

    def change(self, instruments: tuple[str, ...] | None, interval_ms: int | None) -> list[Command]:
        """Have these options from now on. Returns what to send, if a connection is open.

        If not all of it is sent, the connection must end: the next one begins with the new options.
        """
        self._options = replace(self._options, instruments=instruments, interval_ms=interval_ms)
        if not self._is_open:
            return []
        names = list(self._track.channels or (name for name in self._asked if name not in self._left))
        some = [names[at : at + _MOST_CHANNELS] for at in range(0, len(names), _MOST_CHANNELS)]
        return [*(self._subscribe(each, None, snapshot=True) for each in some), self._settle()]

    def leave(self, channels: Sequence[str]) -> Unsubscribe | None:
        """Leave these channels (`"*"`: all): nothing of them is delivered from now on. Leaving the last one ends it.

        Names that are not subscribed are ignored. Returns what to send, if a connection is open.
        """
        known = dict.fromkeys((*self._track.channels, *(name for name in self._asked if name != ALL)))
        known = {name: None for name in known if name not in self._left}
        names = [name for name in known if name in channels or ALL in channels]
        self._left.update(channels)
        for name in names:
            self._track.leave(name)
        if ALL in channels or (names and len(names) == len(known)):
            self.end()
        return Unsubscribe(names, next(self._numbers)) if names else None

    def end(self) -> None:
        """End it: what has not been delivered is forgotten."""
        self._is_over = True
        self._is_open = False
        self._coming.clear()
        self._again = None

    def _commands(self, offered: Sequence[str]) -> Iterator[Command]:
        """The commands for a new connection: subscribe to each channel from its position, then a ping."""
        wanted = [name for name in (offered if ALL in self._asked else self._asked) if name not in self._left]
        begun = bool(self._track.channels)
        alike: dict[tuple[Position | None, bool], list[str]] = {}
        if ALL in self._asked and not begun:
            alike[self._options.since, self._options.snapshot] = [ALL]
        else:
            for name in wanted:
                alike.setdefault(self._going_on(name, begun=begun), []).append(name)
        for (since, snapshot), names in alike.items():
            for at in range(0, len(names), _MOST_CHANNELS):
                yield self._subscribe(names[at : at + _MOST_CHANNELS], since, snapshot=snapshot)
        yield self._settle()

    def _going_on(self, name: str, *, begun: bool) -> tuple[Position | None, bool]:
        """From where a channel is to go on over a new connection, and whether its newest messages are to come first."""
        options, agreed = self._options, self._agreed.get(name, self._options)
        if begun and (options.interval_ms is not None or agreed.interval_ms is not None):
            # At an interval only the newest message counts, and the snapshot brings it.
            return None, True
        position = self._track.position(name)
        if position is not None and agreed.instruments != options.instruments:
            # It was the position of other instruments: on no tape, so that the daemon says what is lost.
            position = Position("-", position.seq)
        return position, options.snapshot

    def _subscribe(self, names: list[str], since: Position | None, *, snapshot: bool) -> Subscribe:
        number, options = next(self._numbers), self._options
        self._restoring[number] = options
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

    def _disconnected(self, reason: str, code: int, retry_after_s: float | None, now_s: float) -> None:
        self._is_open = False
        self._away = self._away or _Away(now_s)
        if self._goodbye is not None:
            delay_s = max(0.0, self._goodbye.retry_after_s)  # jittered by the daemon
        else:
            delay_s = self._backoff.next_delay_s(now_s, retry_after_s)
        self._goodbye = None
        self._retry_s = now_s + delay_s
        self._tell(Reconnecting(reason, code, delay_s))

    # ---- what comes -------------------------------------------------------------------------------------------------

    def took(self, message: Message, text: str, now_s: float) -> None:
        """A message has come; `text` is it as the daemon sent it.

        Raises:
            CommandRefused: the daemon refuses the subscription. The course has ended by this.
        """
        try:
            self._take(message, text, now_s)
        except CommandRefused:
            self.end()
            raise

    def _tell(self, received: Received, text: str = "") -> None:
        self._coming.append(Deliver(received, text))

    def _take(self, message: Message, text: str, now_s: float) -> None:
        match message:
            case Data():
                self._took_data(message, text)
            case Status():
                if message.channel not in self._left:
                    self._tell(message, text)
            case Lagged():
                self._track.lagged(message)
                self._tell(message, text)
            case Test():
                self._tell(message, text)
            case Subscribed():
                self._subscribed(message)
            case Pong():
                if message.id == self._settles:
                    self._settled(now_s)
            case Error():
                self._refused(message)
            case Goodbye():
                self._goodbye = message
            case Welcome() | Unsubscribed() | TestResponse():
                return  # nothing follows from them
            case _:
                assert_never(message)

    def _took_data(self, message: DataMessage, text: str) -> None:
        verdict = self._track.take(message)
        if verdict is None:
            self._anew[message.connector_id] = None
        elif isinstance(verdict, Gap):
            self._tell(verdict)
            # Only when the gap has been delivered: until then `positions` must not count the message.
            self._again = (message, text)
        elif verdict:
            self._tell(message, text)

    def _subscribed(self, answer: Subscribed) -> None:
        if answer.id is not None:
            self._unexplained.pop(answer.id, None)
        options = self._options if answer.id is None else self._restoring.get(answer.id, self._options)
        changed = any(self._agreed.get(channel, options) != options for channel in answer.channels)
        lost = self._track.answered(answer, sampled=options.interval_ms is not None, changed=changed)
        self._agreed.update(dict.fromkeys(answer.channels, options))
        for name in self._left.intersection(answer.channels):
            self._track.leave(name)
        if lost is not None:
            self._tell(lost)
            if self._away is not None:
                self._away.lost.update(dict.fromkeys(lost.channels))

    def _settled(self, now_s: float) -> None:
        """Raises: CommandRefused, where a command of ours had no other answer."""
        for error in self._unexplained.values():
            raise CommandRefused(error.code, error.message, error.channels)
        self._track.settled()
        away, self._away = self._away, None
        if away is not None:
            self._tell(Resumed(now_s - away.since_s, away.restarted, tuple(away.lost)))

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
