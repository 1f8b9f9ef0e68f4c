"""One client's subscriptions, and the answers to its frames. Pure: no trio, no clock, no I/O.

The shell (`daemon/sessions/websocket.py`) hands every frame of the client to `Session.receive`, together with the time,
and carries out the returned effects in order. The session never looks at the tape: a `Join` says what the client asked
for, and the shell, which knows the tape's position, answers with `subscribed`.

It follows the rules of the wire contract, sections 3 and 4:

* every command that can be carried out, wholly or in part, gives exactly one `Join`, `Leave` or `Reply` with a `Pong`;
* what cannot be carried out gives a `Reply` with an `Error` that says what is wrong, the value seen and what is
  allowed;
* `CommandLimits.errors_in_a_row` frames in a row, within `ROW_S`, of which nothing could be carried out (those refused
  by the command rate included) give a `Close`, after which the session ignores all frames. So do more such frames than
  `errors_per_s` and `errors_burst` allow, even if others are carried out in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Annotated, Final, TypeAlias, assert_never

import msgspec
from msgspec import Meta

from protocol.bucket import Bucket
from protocol.channels import Catalogue, Channel, nearest
from protocol.codes import CloseCode, ErrorCode
from protocol.commands import LEAST_INTERVAL_MS as LEAST_INTERVAL_MS
from protocol.commands import MOST_INTERVAL_MS as MOST_INTERVAL_MS
from protocol.commands import (
    Command,
    CommandError,
    Format,
    Id,
    Ping,
    Position,
    Subscribe,
    Unsubscribe,
    cut,
    decode_command,
)
from protocol.messages import ControlMessage, Error, Pong

ALL: Final = "*"
"""As a channel in a command: all channels. As an instrument in a `Selection`: all topics of the channel."""

EVERY_MESSAGE: Final = 0
"""The interval, in milliseconds, of a subscription that did not ask for one."""

ROW_S: Final = 10.0
"""Errors are in a row within this time: a heartbeat that is no command gets one each, and is not closed for them."""

_MOST_NAMED: Final = 3
"""How many names one `error` explains: finding the nearest valid name takes time."""

_MOST_NAME_CHARS: Final = 64
"""How much of an unknown name the error shows."""

Selection: TypeAlias = frozenset[tuple[str, str]]
"""Pairs of channel and instrument; the instrument `ALL` stands for all of the channel's topics."""


class CommandLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may ask for.

    Attributes:
        commands_per_s: how many commands a client may send each second in the long run.
        commands_burst: how many it may send at once after a pause.
        channels_per_command: how many names one command may list.
        errors_in_a_row: after how many fruitless frames in a row, within `ROW_S`, the connection is closed.
        errors_per_s: how many fruitless frames a client may send each second in the long run, even between others.
        errors_burst: how many of them at once after a pause; beyond this the connection is closed, too.
    """

    commands_per_s: Annotated[float, Meta(gt=0, le=1_000_000)] = 50.0
    commands_burst: Annotated[int, Meta(ge=1, le=10_000_000)] = 100
    channels_per_command: Annotated[int, Meta(ge=1, le=10_000_000)] = 64
    errors_in_a_row: Annotated[int, Meta(ge=1, le=10_000_000)] = 20
    errors_per_s: Annotated[float, Meta(gt=0, le=1_000_000)] = 10.0
    errors_burst: Annotated[int, Meta(ge=1, le=10_000_000)] = 100


class Subscription(msgspec.Struct, frozen=True):
    """The options of one subscribed channel.

    Attributes:
        instruments: only these; None for all instruments of the channel, even after a change of configuration.
        interval_ms: at most one message per topic in this time; `EVERY_MESSAGE` (0) for no such limit.
    """

    instruments: tuple[str, ...] | None
    interval_ms: int


class Reply(msgspec.Struct, frozen=True):
    """Effect: send this to the client."""

    message: ControlMessage


class Join(msgspec.Struct, frozen=True):
    """Effect: from now on the client gets these channels; answer `subscribed`.

    Attributes:
        channels: the channels that the command took effect for, in its order.
        selection: the topics that this one command selects.
        interval_ms: as in `Subscription`.
        snapshot: whether the newest message of each topic must follow the answer.
        since: where the client wants to resume.
        id: the id to echo.
    """

    channels: tuple[str, ...]
    selection: Selection
    interval_ms: int
    snapshot: bool
    since: Position | None
    id: Id | None


class Leave(msgspec.Struct, frozen=True):
    """Effect: the client no longer gets these channels; answer `unsubscribed`."""

    channels: tuple[str, ...]
    id: Id | None


class Close(msgspec.Struct, frozen=True):
    """Effect: close the connection. It is the last effect of a session."""

    code: CloseCode
    reason: str


Effect: TypeAlias = Reply | Join | Leave | Close


class Session:
    """The state of one client.

    Attributes:
        catalogue: what this client can subscribe to. Set it after a reload of the configuration: it then applies to
            later commands. Subscriptions stay, so a channel that is removed and comes back is still subscribed.
    """

    def __init__(self, catalogue: Catalogue, format: Format, limits: CommandLimits, now_s: float) -> None:
        """`now_s` is on the same monotonic clock as in `receive`."""
        self.catalogue = catalogue
        self._format = format
        self._limits = limits
        self._subscriptions: dict[str, Subscription] = {}
        self._commands = Bucket(limits.commands_burst, now_s)
        self._errors = Bucket(limits.errors_burst, now_s)
        self._fruitless_count = 0
        self._row_began_s = now_s
        self._closed = False

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """The subscribed channels, in the order of their first subscription; a live, read-only view."""
        return MappingProxyType(self._subscriptions)

    @property
    def intervals(self) -> frozenset[int]:
        """The intervals, in milliseconds, that are in use."""
        return frozenset(each.interval_ms for each in self._subscriptions.values())

    def selection(self, interval_ms: int) -> Selection:
        """The topics of all channels subscribed with this interval."""
        return frozenset(
            topic
            for name, subscription in self._subscriptions.items()
            if subscription.interval_ms == interval_ms
            for topic in _topics(name, subscription)
        )

    def receive(self, raw: str | bytes, now_s: float, timestamp: str) -> list[Effect]:
        """Handle one frame of the client. Returns the effects that the shell must carry out.

        Args:
            raw: the payload; str for a text frame, bytes for a binary one.
            now_s: the time, on a monotonic clock.
            timestamp: the time in the wire's form, for the replies.
        """
        if self._closed:
            return []
        if isinstance(raw, str) == (self._format is Format.MSGPACK):
            frame, protocol = ("text", "MessagePack") if isinstance(raw, str) else ("binary", "JSON")
            return [self._close(CloseCode.UNSUPPORTED_DATA, f"a {frame} frame on the {protocol} protocol")]
        # Every frame counts, even garbage, because reading it costs time. A refused one takes no token, so that a
        # client which returns to the allowed rate is served at once.
        within_rate = self._take_token(now_s)
        try:
            command = decode_command(raw, self._format)
            if not within_rate:
                raise self._over_rate(command.id)
            effects = self._carry_out(command, timestamp)
        except CommandError as error:
            # No name is left with the error: it would hold this frame, and this frame the session, in a circle.
            effects = [_refused(timestamp, error if within_rate else self._over_rate(error.id))]
        if not all(_is_error(effect) for effect in effects):
            self._fruitless_count = 0
            return effects
        if now_s - self._row_began_s > ROW_S:
            self._fruitless_count = 0
        if self._fruitless_count == 0:
            self._row_began_s = now_s
        self._fruitless_count += 1
        rate, burst = self._limits.errors_per_s, self._limits.errors_burst
        if self._fruitless_count >= self._limits.errors_in_a_row:
            reason = f"{self._fruitless_count} frames in a row of which nothing could be carried out"
            effects.append(self._close(CloseCode.POLICY, reason))
        elif self._errors.take(1, rate, burst, now_s):
            reason = f"more than {rate:g} frames/s (in a burst {burst}) of which nothing could be carried out"
            effects.append(self._close(CloseCode.POLICY, reason))
        return effects

    def _carry_out(self, command: Command, timestamp: str) -> list[Effect]:
        """Raises: CommandError, if a field is outside its limits."""
        match command:
            case Subscribe():
                return self._subscribe(command, timestamp)
            case Unsubscribe():
                return self._unsubscribe(command, timestamp)
            case Ping():
                return [Reply(Pong(timestamp=timestamp, id=command.id, data=command.data))]
            case _:
                assert_never(command)

    def _subscribe(self, command: Subscribe, timestamp: str) -> list[Effect]:
        self._check_channels(command)
        _check_options(command)
        known, effects = _known(command, self.catalogue.names, self.catalogue.withheld, timestamp)
        channels = [self.catalogue[name] for name in known]
        interval_ms = EVERY_MESSAGE if command.interval_ms is None else command.interval_ms
        joined: dict[str, Subscription] = {}
        if command.instruments is None:
            joined = {channel.name: Subscription(None, interval_ms) for channel in channels}
        else:
            offered = dict.fromkeys(each for channel in channels for each in channel.instruments)
            # One command may list thousands of instruments; only existing ones are looked up in each channel.
            found = [each for each in dict.fromkeys(command.instruments) if each in offered]
            for channel in channels:
                # A whole market has no instruments, so the filter does not apply to it.
                chosen = tuple(each for each in found if each in channel.instruments) if channel.instruments else None
                if chosen != ():
                    joined[channel.name] = Subscription(chosen, interval_ms)
            without = [channel for channel in channels if channel.name not in joined]
            unknown = [each for each in dict.fromkeys(command.instruments) if offered and each not in offered]
            effects += _without_instruments(command, unknown, tuple(offered), without, timestamp)
        if command.interval_ms is not None:
            whole = [channel for channel in channels if channel.name in joined and not channel.kind.thinnable]
            effects += _interval_refused(command, whole, self.catalogue, timestamp)
            joined = {name: options for name, options in joined.items() if self.catalogue[name] not in whole}
        if joined or not effects:
            self._subscriptions.update(joined)
            selection = frozenset(topic for item in joined.items() for topic in _topics(*item))
            effects.append(Join(tuple(joined), selection, interval_ms, command.snapshot, command.since, command.id))
        return effects

    def _unsubscribe(self, command: Unsubscribe, timestamp: str) -> list[Effect]:
        self._check_channels(command)
        # A channel that a reload removed can still be unsubscribed.
        names = tuple(dict.fromkeys((*self.catalogue.names, *self._subscriptions)))
        known, effects = _known(command, names, self.catalogue.withheld, timestamp)
        if known or not effects:
            for name in known:
                self._subscriptions.pop(name, None)
            effects.append(Leave(known, command.id))
        return effects

    def _check_channels(self, command: Subscribe | Unsubscribe) -> None:
        """Raises: CommandError, if there are no names or too many."""
        count, most = len(command.channels), self._limits.channels_per_command
        if count == 0:
            reason = f'channels: empty; name at least one, or "{ALL}" for all'
            raise CommandError(ErrorCode.INVALID_FIELD, reason, command.id)
        if count > most:
            reason = f'channels: {count} names; at most {most} in one command, or "{ALL}" for all'
            raise CommandError(ErrorCode.TOO_MANY_CHANNELS, reason, command.id)

    def _take_token(self, now_s: float) -> bool:
        """Whether this frame is within the command rate."""
        return not self._commands.take(1, self._limits.commands_per_s, self._limits.commands_burst, now_s)

    def _over_rate(self, command_id: Id | None) -> CommandError:
        rate, burst = self._limits.commands_per_s, self._limits.commands_burst
        reason = f"more than {rate:g} commands/s (in a burst {burst}): this one was not carried out"
        return CommandError(ErrorCode.RATE_LIMITED, reason, command_id)

    def _close(self, code: CloseCode, reason: str) -> Close:
        self._closed = True
        return Close(code, reason)


def _topics(channel: str, subscription: Subscription) -> Iterator[tuple[str, str]]:
    """What one subscription adds to a `Selection`."""
    for instrument in (ALL,) if subscription.instruments is None else subscription.instruments:
        yield channel, instrument


def _check_options(command: Subscribe) -> None:
    """Raises: CommandError, if an option is outside its limits."""
    interval_ms = command.interval_ms
    if interval_ms is not None and not LEAST_INTERVAL_MS <= interval_ms <= MOST_INTERVAL_MS:
        reason = f"interval_ms: {interval_ms}; {LEAST_INTERVAL_MS} to {MOST_INTERVAL_MS} are allowed"
        raise CommandError(ErrorCode.INVALID_FIELD, reason, command.id)
    if command.since is not None and command.since.seq < 0:
        reason = f"since.seq: {command.since.seq}; 0 or more is allowed"
        raise CommandError(ErrorCode.INVALID_FIELD, reason, command.id)
    if command.instruments is not None and not command.instruments:
        reason = "instruments: empty; name at least one, or leave the field out for all"
        raise CommandError(ErrorCode.INVALID_FIELD, reason, command.id)


def _known(
    command: Subscribe | Unsubscribe, names: Sequence[str], withheld: AbstractSet[str], timestamp: str
) -> tuple[tuple[str, ...], list[Effect]]:
    """The command's channels that are among `names`, each once; and errors for the others."""
    wanted = dict.fromkeys(name for each in command.channels for name in (names if each == ALL else (each,)))
    valid = frozenset(names)
    known = tuple(name for name in wanted if name in valid)
    others = tuple(name for name in wanted if name not in valid)
    errors: list[Effect] = []
    if forbidden := tuple(name for name in others if name in withheld):
        reason = f"the token does not cover {', '.join(forbidden)}; it covers: {', '.join(names) or 'no channel'}"
        errors.append(_error(timestamp, ErrorCode.FORBIDDEN, reason, command.id, forbidden))
    if unknown := tuple(name for name in others if name not in withheld):
        reason = _unknown("channel", unknown, names)
        shown = tuple(cut(name, _MOST_NAME_CHARS) for name in unknown)
        errors.append(_error(timestamp, ErrorCode.UNKNOWN_CHANNEL, reason, command.id, shown))
    return known, errors


def _without_instruments(
    command: Subscribe, unknown: Sequence[str], offered: Sequence[str], without: Sequence[Channel], timestamp: str
) -> list[Effect]:
    """An error for instruments that no channel of the command has, and for channels that have none of them."""
    reasons = [_unknown("instrument", unknown, offered)] if unknown else []
    if ALL not in command.channels:
        # All channels with BTC/USDT is a valid request; naming a channel that lacks it is a mistake.
        reasons += [f"{each.name} has only {', '.join(each.instruments)}" for each in without[:_MOST_NAMED]]
    if not reasons:
        return []
    names = tuple(channel.name for channel in without)
    return [_error(timestamp, ErrorCode.UNKNOWN_INSTRUMENT, "; ".join(reasons), command.id, names)]


def _interval_refused(
    command: Subscribe, whole: Sequence[Channel], catalogue: Catalogue, timestamp: str
) -> list[Effect]:
    """An error for channels of which an interval may skip no message, if there are any."""
    if not whole:
        return []
    kinds = {(channel.exchange, channel.kind.instead) for channel in whole}
    instead = [channel.name for channel in catalogue if (channel.exchange, channel.kind.name) in kinds]
    names = tuple(channel.name for channel in whole)
    reason = f"interval_ms: no message of {', '.join(names[:_MOST_NAMED])}"
    if len(names) > _MOST_NAMED:
        reason += f" and {len(names) - _MOST_NAMED} more"
    reason += " may be left out; leave interval_ms out"
    if instead:
        reason += f", or subscribe to {', '.join(instead[:_MOST_NAMED])} instead"
    return [_error(timestamp, ErrorCode.INTERVAL_REFUSED, reason, command.id, names)]


def _unknown(kind: str, unknown: Sequence[str], valid: Sequence[str]) -> str:
    """Text that names the unknown names, each with the valid ones it may stand for."""
    described: list[str] = []
    without_near = False
    for name in unknown[:_MOST_NAMED]:
        near = nearest(name, valid)
        shown = repr(cut(name, _MOST_NAME_CHARS))
        described.append(f"{shown} (nearest: {', '.join(near)})" if near else shown)
        without_near = without_near or not near
    if len(unknown) > _MOST_NAMED:
        described.append(f"{len(unknown) - _MOST_NAMED} more")
    reason = f"unknown {kind}{'s' if len(unknown) > 1 else ''}: {', '.join(described)}"
    return f"{reason}; there are: {', '.join(valid)}" if without_near else reason


def _refused(timestamp: str, error: CommandError) -> Reply:
    return _error(timestamp, error.code, error.reason, error.id)


def _error(
    timestamp: str, code: ErrorCode, reason: str, command_id: Id | None, channels: tuple[str, ...] = ()
) -> Reply:
    return Reply(Error(timestamp=timestamp, code=code, message=cut(reason), id=command_id, channels=channels))


def _is_error(effect: Effect) -> bool:
    return isinstance(effect, Reply) and isinstance(effect.message, Error)
